//! Stands before the crate `kafka-protocol`'s decoder, which reserves memory for an
//! array by its declared count.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Decodable;

use super::api_table::flexible_from;
use super::frame::{Malformed, check_version};
use super::newer;
use super::shapes::{self, Field, Kind, Shape};
use super::wire::Reader;

/// The versions of `api` that [`check`] knows.
pub fn versions(api: ApiKey) -> Option<std::ops::RangeInclusive<i16>> {
    shapes::of(api).map(|shape| shape.min..=shape.max)
}

/// The versions of `api` whose responses [`decode_response`] knows.
pub fn response_versions(api: ApiKey) -> Option<std::ops::RangeInclusive<i16>> {
    shapes::of_response(api).map(|shape| shape.min..=shape.max)
}

/// Walks `body` by the shape of the API's request and checks every array count, string and bytes
/// length, nullness and tagged-field count against the bytes that remain and against
/// [`MAX_ARRAY_ELEMENTS`](crate::model::wire::MAX_ARRAY_ELEMENTS) and
/// [`MAX_TAGGED_FIELDS`](crate::model::wire::MAX_TAGGED_FIELDS). Returns the request's length:
/// what follows it in `body` means nothing, as in Kafka (librdkafka's question for all topics
/// ends in three bytes too many). Allocates nothing. After `Ok` the decoder allocates in
/// proportion to what arrived.
pub fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    walk_shape(shapes::of(api), version, body).map_err(|e| e.in_request(&format!("{api:?}"), version))
}

/// A request's body, of which [`check`] has taken the measure.
pub trait RequestBody: Sized {
    /// Reads `body` and leaves in it what follows.
    fn read(version: i16, body: &mut Bytes) -> Result<Self, String>;
}

impl<T: Decodable> RequestBody for T {
    fn read(version: i16, body: &mut Bytes) -> Result<T, String> {
        T::decode(body, version).map_err(|e| e.to_string())
    }
}

/// [`check`], then the decoder: the crate's, or our own of [`super::newer`].
/// `body` is consumed on success.
pub fn decode<T: RequestBody>(api: ApiKey, version: i16, body: &mut Bytes) -> Result<T, Malformed> {
    let length = check(api, version, body)?;
    body.truncate(length);
    let problem = match T::read(version, body) {
        Ok(request) if body.is_empty() => return Ok(request),
        Ok(_) => format!("its decoder left {} bytes over", body.len()),
        Err(problem) => problem,
    };
    Err(Malformed(problem).in_request(&format!("{api:?}"), version))
}

/// [`decode`] for a response's body, by the shape of its API's response: a broker's bytes are no
/// more trusted than a client's.
pub fn decode_response<T: Decodable>(api: ApiKey, version: i16, body: &mut Bytes) -> Result<T, Malformed> {
    let checked = walk_shape(shapes::of_response(api), version, body);
    checked
        .and_then(|length| match body.len() - length {
            0 => Ok(()),
            left => Err(Malformed(format!("its end is followed by {left} more bytes"))),
        })
        .and_then(|()| newer::older_response(api, version, body))
        .and_then(|version| T::decode(body, version).map_err(|e| Malformed(e.to_string())))
        .map_err(|e| e.in_response(&format!("{api:?}"), version))
}

fn walk_shape(shape: Option<&Shape>, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    let shape = shape.ok_or_else(|| Malformed("there is no shape for this API".to_owned()))?;
    check_version(version, shape.min, shape.max)?;
    let mut reader = Reader::new(body, version >= flexible_from(shape.api));
    structure(&mut reader, version, shape.fields)?;
    Ok(body.len() - reader.remaining())
}

/// The recursion follows the table's nesting, not the input's.
fn structure(reader: &mut Reader<'_>, version: i16, fields: &[Field]) -> Result<(), Malformed> {
    for field in fields {
        if field.exists_in(version) {
            value(reader, version, field)?;
        }
    }
    reader.skip_tagged_fields()
}

fn value(reader: &mut Reader<'_>, version: i16, field: &Field) -> Result<(), Malformed> {
    let name = field.name;
    let present = match field.kind {
        Kind::Fixed(bytes) => reader.skip(bytes, name).map(|_| true)?,
        Kind::Text => reader.nullable_string(name)?.is_some(),
        Kind::Blob => reader.nullable_bytes(name)?.is_some(),
        Kind::FixedArray(bytes) => match reader.nullable_array(bytes, name)? {
            Some(count) => reader.skip(count * bytes, name).map(|_| true)?,
            None => false,
        },
        Kind::TextArray => match reader.nullable_array(1, name)? {
            Some(count) => {
                for _ in 0..count {
                    reader.string(name)?;
                }
                true
            }
            None => false,
        },
        Kind::Array(fields) => match reader.nullable_array(1, name)? {
            Some(count) => {
                for _ in 0..count {
                    structure(reader, version, fields)?;
                }
                true
            }
            None => false,
        },
        Kind::Struct(fields) => structure(reader, version, fields).map(|()| true)?,
        Kind::OptionalStruct(fields) => match reader.int8(name)? {
            1 => structure(reader, version, fields).map(|()| true)?,
            -1 => false,
            other => return Err(reader.error(name, &format!("has the presence byte {other}; 1 and -1 are defined"))),
        },
    };
    if present || field.may_be_null_in(version) { Ok(()) } else { Err(reader.error(name, "is null")) }
}
