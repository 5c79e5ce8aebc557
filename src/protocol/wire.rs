//! Frames of the protocol: the fields of [`model::wire`](crate::model::wire) behind a length and a
//! header.

use bytes::Bytes;

use super::frame::Malformed;
use crate::model::wire;

pub(super) use crate::model::wire::Writer;

pub(super) type Reader<'a> = wire::Reader<'a, Malformed>;

/// The frame's length field.
const LENGTH_BYTES: usize = 4;

impl Writer {
    /// Starts a response. `flexible` decides both the body's encoding and the header (v1 instead of
    /// v0): true of every API but ApiVersions, which is not written here.
    pub(super) fn response(capacity: usize, correlation_id: i32, flexible: bool) -> Writer {
        let mut writer = Writer::new(flexible, LENGTH_BYTES + 5 + capacity);
        writer.int32(0);
        writer.int32(correlation_id);
        writer.no_tagged_fields();
        writer
    }

    /// Starts a request, with header v2 where `flexible`, else v1.
    pub(super) fn request(
        capacity: usize,
        (api_key, version): (i16, i16),
        correlation_id: i32,
        client_id: &str,
        flexible: bool,
    ) -> Writer {
        // The client id keeps its classic encoding in header v2.
        let mut writer = Writer::new(false, LENGTH_BYTES + 11 + client_id.len() + capacity);
        writer.int32(0);
        writer.int16(api_key);
        writer.int16(version);
        writer.int32(correlation_id);
        writer.string(client_id);
        writer.set_flexible(flexible);
        writer.no_tagged_fields();
        writer
    }

    /// The frame; its length field also counts `attached` bytes that the caller
    /// sends between or after these.
    pub(super) fn frame(mut self, attached: usize) -> Bytes {
        let length = (self.out.len() - LENGTH_BYTES + attached) as i32;
        self.out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        Bytes::from(self.out)
    }
}
