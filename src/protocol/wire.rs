//! Reading and writing the protocol's primitive types, in both encodings: classic (fixed-width lengths) and compact
//! (unsigned varint of length + 1, and tagged fields at the end of each structure), which "flexible" versions use (KIP-482).

use std::ops::Range;

use bytes::Bytes;
use uuid::Uuid;

use super::frame::Malformed;

/// Most elements in one array, and in all arrays of one request together. Kafka refuses larger arrays too.
pub const MAX_ARRAY_ELEMENTS: usize = 1_000_000;
/// Most tagged fields in one request. Kafka's limit is per structure; ours is on the sum, because each unknown one
/// costs the decoder some hundred bytes however short it is.
pub const MAX_TAGGED_FIELDS: usize = 10_000;
/// Kafka refuses longer strings in the compact encoding too, where the length could say more.
const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// A cursor over untrusted bytes. It allocates only for the text of an error.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Never beyond `bytes.len()`.
    at: usize,
    flexible: bool,
    elements_left: usize,
    tags_left: usize,
}

macro_rules! read_integers {
    ($($name:ident: $type:ty,)*) => {$(
        #[inline]
        pub fn $name(&mut self, what: &str) -> Result<$type, Malformed> {
            Ok(<$type>::from_be_bytes(self.array_of_bytes(what)?))
        }
    )*};
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], flexible: bool) -> Reader<'a> {
        Reader { bytes, at: 0, flexible, elements_left: MAX_ARRAY_ELEMENTS, tags_left: MAX_TAGGED_FIELDS }
    }

    /// With at most so many array elements, where the request's kind allows fewer than others.
    pub fn with_elements(bytes: &'a [u8], flexible: bool, elements: usize) -> Reader<'a> {
        Reader { elements_left: elements.min(MAX_ARRAY_ELEMENTS), ..Reader::new(bytes, flexible) }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes of a range that this reader returned.
    pub fn bytes_of(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    read_integers! {
        int8: i8,
        int16: i16,
        int32: i32,
        int64: i64,
    }

    pub fn uuid(&mut self, what: &str) -> Result<Uuid, Malformed> {
        Ok(Uuid::from_bytes(self.array_of_bytes(what)?))
    }

    /// At most five bytes, the value at most `u32::MAX`.
    #[inline]
    pub fn unsigned_varint(&mut self, what: &str) -> Result<u32, Malformed> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u32::from(*byte))
            }
            _ => self.long_varint(what),
        }
    }

    fn long_varint(&mut self, what: &str) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array_of_bytes::<1>(what)?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(what, "is a varint of more than 32 bits"))
    }

    pub fn skip(&mut self, count: usize, what: &str) -> Result<Range<usize>, Malformed> {
        if count > self.remaining() {
            return Err(self.error(what, &format!("needs {count} bytes where {} remain", self.remaining())));
        }
        let start = self.at;
        self.at += count;
        Ok(start..self.at)
    }

    /// `None`: null.
    #[inline]
    pub fn nullable_string(&mut self, what: &str) -> Result<Option<Range<usize>>, Malformed> {
        let length = if self.flexible { self.compact_length(what)? } else { i64::from(self.int16(what)?) };
        self.sized(length, MAX_STRING_BYTES, what)
    }

    pub fn string(&mut self, what: &str) -> Result<Range<usize>, Malformed> {
        match self.nullable_string(what)? {
            Some(range) => Ok(range),
            None => Err(self.error(what, "is null")),
        }
    }

    /// `None`: null.
    #[inline]
    pub fn nullable_bytes(&mut self, what: &str) -> Result<Option<Range<usize>>, Malformed> {
        let length = if self.flexible { self.compact_length(what)? } else { i64::from(self.int32(what)?) };
        self.sized(length, usize::MAX, what)
    }

    /// An array's element count; `None`: null. `element_bytes` is the least that one element takes on the wire (1 or
    /// more): after `Ok` the count is in proportion to the bytes that remain, so room for it can be reserved.
    #[inline]
    pub fn nullable_array(&mut self, element_bytes: usize, what: &str) -> Result<Option<usize>, Malformed> {
        let count = if self.flexible { self.compact_length(what)? } else { i64::from(self.int32(what)?) };
        if count == -1 {
            return Ok(None);
        }
        let count = usize::try_from(count).map_err(|_| self.error(what, &format!("has the element count {count}")))?;
        if count > self.remaining() / element_bytes {
            let problem = format!("claims {count} elements where {} bytes remain", self.remaining());
            return Err(self.error(what, &problem));
        }
        if count > self.elements_left {
            let problem = format!("claims {count} elements where the request's limit leaves {}", self.elements_left);
            return Err(self.error(what, &problem));
        }
        self.elements_left -= count;
        Ok(Some(count))
    }

    pub fn array(&mut self, element_bytes: usize, what: &str) -> Result<usize, Malformed> {
        match self.nullable_array(element_bytes, what)? {
            Some(count) => Ok(count),
            None => Err(self.error(what, "is null")),
        }
    }

    /// The tagged fields at the end of a structure; nothing in a classic version. `each` is given a tag and its bytes.
    #[inline]
    pub fn tagged_fields(
        &mut self,
        mut each: impl FnMut(u32, &'a [u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        let what = "the tagged fields";
        let count = self.unsigned_varint(what)? as usize;
        if count > self.remaining() / 2 {
            let problem = format!("claim {count} fields where {} bytes remain", self.remaining());
            return Err(self.error(what, &problem));
        }
        if count > self.tags_left {
            let problem = format!("bring the request over the limit of {MAX_TAGGED_FIELDS} tagged fields");
            return Err(self.error(what, &problem));
        }
        self.tags_left -= count;
        for _ in 0..count {
            let tag = self.unsigned_varint(what)?;
            if i32::try_from(tag).is_err() {
                return Err(self.error(what, &format!("have one of tag {tag}; tags end at {}", i32::MAX)));
            }
            let size = self.unsigned_varint(what)? as usize;
            let range = self.skip(size, what)?;
            each(tag, self.bytes_of(range))?;
        }
        Ok(())
    }

    #[inline]
    pub fn skip_tagged_fields(&mut self) -> Result<(), Malformed> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// Nothing may follow.
    pub fn finish(&self) -> Result<(), Malformed> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error("the end", &format!("is followed by {left} more bytes"))),
        }
    }

    #[cold]
    pub fn error(&self, what: &str, problem: &str) -> Malformed {
        Malformed(format!("at byte {} of {}: {what} {problem}", self.at, self.bytes.len()))
    }

    #[inline]
    fn array_of_bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Malformed> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.error(what, &format!("needs {N} bytes where {} remain", self.remaining()))),
        }
    }

    /// -1: null.
    #[inline]
    fn compact_length(&mut self, what: &str) -> Result<i64, Malformed> {
        Ok(i64::from(self.unsigned_varint(what)?) - 1)
    }

    #[inline]
    fn sized(&mut self, length: i64, limit: usize, what: &str) -> Result<Option<Range<usize>>, Malformed> {
        if length == -1 {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(length) if length <= limit => self.skip(length, what).map(Some),
            Ok(length) => Err(self.error(what, &format!("is {length} bytes long, over the limit of {limit}"))),
            Err(_) => Err(self.error(what, &format!("has the length {length}"))),
        }
    }
}

/// Builds one frame: length, header, body. What it is given comes from this process, so it cannot fail.
pub(super) struct Writer {
    out: Vec<u8>,
    flexible: bool,
}

/// The frame's length field.
const LENGTH_BYTES: usize = 4;

impl Writer {
    /// Starts a response. `flexible` decides both the body's encoding and the header (v1 instead of v0): true of every
    /// API but ApiVersions, which is not written here.
    pub fn response(capacity: usize, correlation_id: i32, flexible: bool) -> Writer {
        let mut writer = Writer { out: Vec::with_capacity(LENGTH_BYTES + 5 + capacity), flexible };
        writer.int32(0);
        writer.int32(correlation_id);
        writer.no_tagged_fields();
        writer
    }

    /// Starts a request, with header v2 where `flexible`, else v1.
    pub fn request(
        capacity: usize,
        (api_key, version): (i16, i16),
        correlation_id: i32,
        client_id: &str,
        flexible: bool,
    ) -> Writer {
        let out = Vec::with_capacity(LENGTH_BYTES + 11 + client_id.len() + capacity);
        // The client id keeps its classic encoding in header v2.
        let mut writer = Writer { out, flexible: false };
        writer.int32(0);
        writer.int16(api_key);
        writer.int16(version);
        writer.int32(correlation_id);
        writer.string(client_id);
        writer.flexible = flexible;
        writer.no_tagged_fields();
        writer
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    #[inline]
    pub fn int8(&mut self, value: i8) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn int16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn int32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub fn int64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.out.extend_from_slice(value.as_bytes());
    }

    #[inline]
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// Cut at the protocol's limit of 32767 bytes, on a character boundary.
    pub fn string(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_STRING_BYTES)];
        if self.flexible {
            self.unsigned_varint(text.len() as u32 + 1);
        } else {
            self.int16(text.len() as i16);
        }
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A string that came from a request: UTF-8 within the protocol's limit.
    pub fn name(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(MAX_STRING_BYTES)];
        if self.flexible {
            self.unsigned_varint(bytes.len() as u32 + 1);
        } else {
            self.int16(bytes.len() as i16);
        }
        self.out.extend_from_slice(bytes);
    }

    pub fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None if self.flexible => self.unsigned_varint(0),
            None => self.int16(-1),
        }
    }

    /// The count before an array's elements, or the length before a byte string; `None`: null. At most `i32::MAX`.
    #[inline]
    pub fn count(&mut self, count: Option<usize>) {
        match count {
            Some(count) if self.flexible => self.unsigned_varint(count as u32 + 1),
            Some(count) => self.int32(count as i32),
            None if self.flexible => self.unsigned_varint(0),
            None => self.int32(-1),
        }
    }

    #[inline]
    pub fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.out.push(0);
        }
    }

    /// The frame; its length field also counts `attached` bytes that the caller sends between or after these.
    pub fn finish(mut self, attached: usize) -> Bytes {
        let length = (self.out.len() - LENGTH_BYTES + attached) as i32;
        self.out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        Bytes::from(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_hold_32_bits_and_no_more() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, 0xfff_ffff, 0x1000_0000, u32::MAX] {
            let mut writer = Writer { out: Vec::new(), flexible: true };
            writer.unsigned_varint(value);
            let mut reader = Reader::new(&writer.out, true);
            assert_eq!(reader.unsigned_varint("it").unwrap(), value);
            assert_eq!(reader.remaining(), 0);
        }
        for too_much in [[0xff, 0xff, 0xff, 0xff, 0x1f], [0x80, 0x80, 0x80, 0x80, 0x80]] {
            assert!(Reader::new(&too_much, true).unsigned_varint("it").is_err());
        }
        assert!(Reader::new(&[0x80, 0x80], true).unsigned_varint("it").is_err());
    }

    #[test]
    fn lengths_below_null_and_strings_over_the_limit_are_refused() {
        assert_eq!(Reader::new(&[0xff, 0xff], false).nullable_string("it").unwrap(), None);
        assert!(Reader::new(&[0xff, 0xfe], false).nullable_string("it").is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xfe], false).nullable_bytes("it").is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xfe], false).nullable_array(1, "it").is_err());

        let compact = |length: u32| {
            let mut writer = Writer { out: Vec::new(), flexible: true };
            writer.unsigned_varint(length + 1);
            writer.out.resize(writer.len() + length as usize, b'a');
            Reader::new(&writer.out, true).string("it").is_ok()
        };
        assert!(compact(32_767) && !compact(32_768));
    }

    #[test]
    fn an_array_is_held_to_the_bytes_that_its_elements_need() {
        let bytes = [0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(Reader::new(&bytes, false).array(2, "it").unwrap(), 3);
        assert!(Reader::new(&bytes, false).array(3, "it").is_err());
    }
}
