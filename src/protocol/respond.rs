//! Responses that the crate `kafka-protocol` encodes, as whole frames.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Encodable;

use super::frame::Malformed;

/// Size of `body` as a frame, in bytes.
pub fn size<T: Encodable>(api: ApiKey, version: i16, body: &T) -> Result<usize, Malformed> {
    let header = 4 + 4 + usize::from(api.response_header_version(version) >= 1);
    let body = body.compute_size(version);
    let failed = |problem| Malformed(format!("the {api:?} v{version} response cannot be encoded: {problem}"));
    body.map(|body| header + body).map_err(failed)
}

/// Encodes `body` as a frame: length, response header of the version's kind, body. ApiVersions keeps header v0, so that a
/// client that knows no version yet can read it.
///
/// Fails when `body` sets a field that `version` does not have or cannot hold, which is the handler's mistake.
pub fn encode<T: Encodable>(api: ApiKey, version: i16, correlation_id: i32, body: &T) -> Result<Bytes, Malformed> {
    let flexible_header = api.response_header_version(version) >= 1;
    let failed = |problem: &dyn std::fmt::Display| {
        Malformed(format!("the {api:?} v{version} response cannot be encoded: {problem}"))
    };
    let mut out = BytesMut::with_capacity(size(api, version, body)?);
    out.put_i32(0);
    out.put_i32(correlation_id);
    if flexible_header {
        out.put_u8(0); // no tagged fields
    }
    body.encode(&mut out, version).map_err(|e| failed(&e))?;
    let length = i32::try_from(out.len() - 4).map_err(|_| failed(&"it is longer than a frame can be"))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}
