//! Requests and responses of the crate `kafka-protocol` as frames, and which versions
//! of an API both ends speak.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};

use super::error::ClientError;
use crate::protocol::{Malformed, guard, response_body};

/// A whole frame: length, header, body.
pub fn encode<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: &str,
    request: &R,
) -> Result<Bytes, ClientError> {
    let failed = |problem: &dyn std::fmt::Display| {
        ClientError::Malformed(Malformed(format!("a request of API {} v{version} cannot be sent: {problem}", R::KEY)))
    };
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    let mut out = BytesMut::new();
    out.put_i32(0);
    header.encode(&mut out, R::header_version(version)).map_err(|e| failed(&e))?;
    // Of the versions that the crate lacks only responses are others.
    request.encode(&mut out, version.min(R::VERSIONS.max)).map_err(|e| failed(&e))?;
    let length = i32::try_from(out.len() - 4).map_err(|e| failed(&e))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}

/// `frame`: a response from its correlation id on.
pub fn decode<R: Request>(version: i16, frame: &[u8]) -> Result<R::Response, ClientError> {
    let api = ApiKey::try_from(R::KEY).map_err(|()| Malformed(format!("there is no API {}", R::KEY)))?;
    let start = response_body(frame, R::Response::header_version(version) > 0)?;
    let mut body = Bytes::copy_from_slice(frame.get(start..).unwrap_or_default());
    Ok(guard::decode_response(api, version, &mut body)?)
}

/// APIs and versions that the broker said it serves.
#[derive(Clone, Debug, Default)]
pub struct Versions(Vec<(i16, i16, i16)>);

impl Versions {
    pub fn new(response: &ApiVersionsResponse) -> Versions {
        Versions(response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect())
    }

    /// The newest version that the broker serves and whose response is read here.
    pub fn newest(&self, api: ApiKey) -> Result<i16, ClientError> {
        let known = guard::response_versions(api).ok_or_else(|| ClientError::Version {
            api: format!("{api:?}"),
            served: "perhaps".into(),
            spoken: "no version".into(),
        })?;
        self.pick(api, (*known.start(), *known.end()))
    }

    pub fn serves(&self, api: ApiKey) -> bool {
        self.newest(api).is_ok()
    }

    /// How many APIs.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The newest version that both ends speak.
    pub fn pick(&self, api: ApiKey, (oldest, newest): (i16, i16)) -> Result<i16, ClientError> {
        let served = self.0.iter().find(|(key, ..)| *key == api as i16);
        match served {
            Some((_, min, max)) if *max.min(&newest) >= *min.max(&oldest) => Ok(*max.min(&newest)),
            _ => Err(ClientError::Version {
                api: format!("{api:?}"),
                served: served.map_or("not at all".into(), |(_, min, max)| format!("in versions {min} to {max}")),
                spoken: format!("versions {oldest} to {newest}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_taken() {
        let versions = Versions(vec![(0, 3, 11), (1, 14, 18)]);
        assert_eq!(versions.pick(ApiKey::Produce, (3, 12)).unwrap(), 11);
        assert_eq!(versions.pick(ApiKey::Produce, (0, 3)).unwrap(), 3);
        assert!(versions.pick(ApiKey::Produce, (0, 2)).is_err());
        let error = versions.pick(ApiKey::Fetch, (4, 12)).unwrap_err().to_string();
        assert!(error.contains("14 to 18") && error.contains("4 to 12"), "{error}");
        assert!(versions.pick(ApiKey::Metadata, (4, 4)).unwrap_err().to_string().contains("not at all"));
    }
}
