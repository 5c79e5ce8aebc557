//! The start of every request frame (after its four-byte length, which the connection reads).

use super::wire::Reader;

/// Bytes from a peer that are not what the protocol says. Costs the sender its
/// connection, nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl From<String> for Malformed {
    fn from(problem: String) -> Malformed {
        Malformed(problem)
    }
}

impl Malformed {
    /// Says whose bytes these were: "Metadata v9 request, at byte 5 of 20: ...".
    #[cold]
    pub(super) fn in_request(self, api: &str, version: i16) -> Malformed {
        Malformed(format!("{api} v{version} request, {}", self.0))
    }

    #[cold]
    pub(super) fn in_response(self, api: &str, version: i16) -> Malformed {
        Malformed(format!("{api} v{version} response, {}", self.0))
    }
}

/// An error unless `version` is one that is decoded.
pub(super) fn check_version(version: i16, min: i16, max: i16) -> Result<(), Malformed> {
    match (min..=max).contains(&version) {
        true => Ok(()),
        false => Err(Malformed(format!("versions {min} to {max} are supported"))),
    }
}

/// The part of the header that no version ever changes: enough to refuse a request
/// that is otherwise unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
}

const PREFIX_BYTES: usize = 8;

/// Request header v1 or v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
    /// Text, but nobody has looked whether it is UTF-8.
    pub client_id: Option<&'a [u8]>,
}

/// Reads the first [`PREFIX_BYTES`].
pub fn parse_prefix(frame: &[u8]) -> Result<Prefix, Malformed> {
    read_prefix(&mut Reader::new(frame, false))
}

/// Reads the header and says where the body starts. `flexible`: the request's
/// version is (header v2).
pub fn parse_header(frame: &[u8], flexible: bool) -> Result<(RequestHeader<'_>, usize), Malformed> {
    let Prefix { api_key, version, correlation_id } = parse_prefix(frame)?;
    let (client_id, start) = parse_rest(frame, flexible)?;
    Ok((RequestHeader { api_key, version, correlation_id, client_id }, start))
}

/// As [`parse_header`], of a frame whose [`Prefix`] was read: the client id,
/// and where the body starts.
pub fn parse_rest(frame: &[u8], flexible: bool) -> Result<(Option<&[u8]>, usize), Malformed> {
    // The client id keeps its classic encoding in header v2, so that an ApiVersions request of
    // any version can be read.
    let mut classic = Reader::new(frame, false);
    classic.skip(PREFIX_BYTES, "the header's beginning")?;
    let client_id = classic.nullable_string("the header's client id")?.map(|range| classic.bytes_of(range));

    let start = classic.position();
    let mut rest = Reader::new(frame.get(start..).unwrap_or_default(), flexible);
    rest.skip_tagged_fields().map_err(|e| Malformed(format!("the header's end, {e}")))?;
    Ok((client_id, start + rest.position()))
}

/// Where the body of a response starts in `frame`, which begins with the correlation id.
/// `flexible`: the header is v1.
pub fn response_body(frame: &[u8], flexible: bool) -> Result<usize, Malformed> {
    let mut reader = Reader::new(frame, flexible);
    let named = |e: Malformed| Malformed(format!("a response's header, {}", e.0));
    reader.int32("the correlation id").map_err(named)?;
    reader.skip_tagged_fields().map_err(named)?;
    Ok(reader.position())
}

fn read_prefix(reader: &mut Reader<'_>) -> Result<Prefix, Malformed> {
    Ok(Prefix {
        api_key: reader.int16("the header's api key")?,
        version: reader.int16("the header's api version")?,
        correlation_id: reader.int32("the header's correlation id")?,
    })
}
