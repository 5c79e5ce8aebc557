//! Responses as whole frames: those of the crate `kafka-protocol`, and of versions that it
//! lacks ([`super::newer`]).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Encodable;

use super::frame::Malformed;

/// A response's bytes behind its header.
pub trait ResponseBody {
    fn bytes(&self, version: i16) -> Result<usize, String>;
    fn write(&self, version: i16, out: &mut BytesMut) -> Result<(), String>;
}

impl<T: Encodable> ResponseBody for T {
    fn bytes(&self, version: i16) -> Result<usize, String> {
        self.compute_size(version).map_err(|e| e.to_string())
    }

    fn write(&self, version: i16, out: &mut BytesMut) -> Result<(), String> {
        self.encode(out, version).map_err(|e| e.to_string())
    }
}

/// Size of `body` as a frame, in bytes.
pub fn size<T: ResponseBody>(api: ApiKey, version: i16, body: &T) -> Result<usize, Malformed> {
    let header = 4 + 4 + usize::from(api.response_header_version(version) >= 1);
    let body = body.bytes(version);
    let failed = |problem| Malformed(format!("the {api:?} v{version} response cannot be encoded: {problem}"));
    body.map(|body| header + body).map_err(failed)
}

/// Encodes `body` as a frame: length, response header of the version's kind, body. ApiVersions
/// keeps header v0, so that a client that knows no version yet can read it.
///
/// Fails when `body` sets a field that `version` does not have or cannot hold, which
/// is the handler's mistake.
pub fn encode<T: ResponseBody>(api: ApiKey, version: i16, correlation_id: i32, body: &T) -> Result<Bytes, Malformed> {
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
    body.write(version, &mut out).map_err(|e| failed(&e))?;
    let length = i32::try_from(out.len() - 4).map_err(|_| failed(&"it is longer than a frame can be"))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}
