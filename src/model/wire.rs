//! Fields of Kafka's messages and records, in both encodings: classic (fixed-width lengths) and
//! flexible (compact lengths: an unsigned varint of length + 1, 0 for null; tagged fields at the
//! end of each structure; KIP-482).

use std::marker::PhantomData;
use std::ops::Range;

use uuid::Uuid;

use super::varint::{self, BadVarint};

/// Most elements in one array, and in all arrays of one request together. Kafka
/// refuses larger arrays too.
pub const MAX_ARRAY_ELEMENTS: usize = 1_000_000;
/// Most tagged fields in one request. Kafka's limit is per structure; ours is on the sum, because
/// each unknown one costs the decoder some hundred bytes however short it is.
pub const MAX_TAGGED_FIELDS: usize = 10_000;
/// Kafka refuses longer strings in the compact encoding too, where the length could say more.
const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// Takes the next `N` bytes off the front; `None`: fewer remain, and all of them do.
#[inline]
pub fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// A cursor over untrusted bytes. It allocates only for the text of an error, which its caller's
/// type of error `E` is made of.
pub struct Reader<'a, E> {
    bytes: &'a [u8],
    /// Never beyond `bytes.len()`.
    at: usize,
    flexible: bool,
    elements_left: usize,
    tags_left: usize,
    error: PhantomData<fn() -> E>,
}

macro_rules! read_integers {
    ($($name:ident: $type:ty,)*) => {$(
        #[inline]
        pub fn $name(&mut self, what: &str) -> Result<$type, E> {
            Ok(<$type>::from_be_bytes(self.array_of_bytes(what)?))
        }
    )*};
}

impl<'a, E: From<String>> Reader<'a, E> {
    /// Of what a peer has sent: within [`MAX_ARRAY_ELEMENTS`] and [`MAX_TAGGED_FIELDS`].
    pub fn new(bytes: &'a [u8], flexible: bool) -> Reader<'a, E> {
        Reader {
            elements_left: MAX_ARRAY_ELEMENTS,
            tags_left: MAX_TAGGED_FIELDS,
            ..Reader::without_limits(bytes, flexible)
        }
    }

    /// With at most so many array elements, where the request's kind allows fewer than others.
    pub fn with_elements(bytes: &'a [u8], flexible: bool, elements: usize) -> Reader<'a, E> {
        Reader { elements_left: elements.min(MAX_ARRAY_ELEMENTS), ..Reader::new(bytes, flexible) }
    }

    /// Of what brokers have written: arrays and tagged fields are bound by the bytes that hold
    /// them, and by nothing else.
    pub fn without_limits(bytes: &'a [u8], flexible: bool) -> Reader<'a, E> {
        Reader { bytes, at: 0, flexible, elements_left: usize::MAX, tags_left: usize::MAX, error: PhantomData }
    }

    /// The encoding of what follows.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
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

    pub fn uuid(&mut self, what: &str) -> Result<Uuid, E> {
        Ok(Uuid::from_bytes(self.array_of_bytes(what)?))
    }

    /// At most five bytes, the value at most `u32::MAX`.
    #[inline]
    pub fn unsigned_varint(&mut self, what: &str) -> Result<u32, E> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u32::from(*byte))
            }
            _ => self.long_varint(what),
        }
    }

    fn long_varint(&mut self, what: &str) -> Result<u32, E> {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        match varint::take_unsigned(&mut rest, u32::BITS) {
            Ok(value) => {
                self.at = self.bytes.len() - rest.len();
                Ok(value as u32)
            }
            Err(BadVarint::CutOff) => Err(self.error(what, "is cut off")),
            Err(BadVarint::TooLarge) => Err(self.error(what, "is a varint of more than 32 bits")),
        }
    }

    pub fn skip(&mut self, count: usize, what: &str) -> Result<Range<usize>, E> {
        if count > self.remaining() {
            return Err(self.error(what, &format!("needs {count} bytes where {} remain", self.remaining())));
        }
        let start = self.at;
        self.at += count;
        Ok(start..self.at)
    }

    /// Where a string stands, of which nothing is known but its length; `None`: null.
    #[inline]
    pub fn nullable_string(&mut self, what: &str) -> Result<Option<Range<usize>>, E> {
        let length = if self.flexible { self.compact_length(what)? } else { i64::from(self.int16(what)?) };
        self.sized(length, MAX_STRING_BYTES, what)
    }

    pub fn string(&mut self, what: &str) -> Result<Range<usize>, E> {
        let range = self.nullable_string(what)?;
        self.not_null(range, what)
    }

    /// A string that is UTF-8; `None`: null.
    pub fn nullable_text(&mut self, what: &str) -> Result<Option<&'a str>, E> {
        let Some(range) = self.nullable_string(what)? else { return Ok(None) };
        match std::str::from_utf8(self.bytes_of(range)) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.error(what, "is not UTF-8")),
        }
    }

    pub fn text(&mut self, what: &str) -> Result<&'a str, E> {
        let text = self.nullable_text(what)?;
        self.not_null(text, what)
    }

    /// Where a byte string stands; `None`: null.
    #[inline]
    pub fn nullable_bytes(&mut self, what: &str) -> Result<Option<Range<usize>>, E> {
        let length = self.array_length(what)?;
        self.sized(length, usize::MAX, what)
    }

    pub fn bytes(&mut self, what: &str) -> Result<&'a [u8], E> {
        let range = self.nullable_bytes(what)?;
        Ok(self.bytes_of(self.not_null(range, what)?))
    }

    /// An array's element count; `None`: null. `element_bytes` is the least that one element takes
    /// on the wire (1 or more): after `Ok` the count is in proportion to the bytes that remain, so
    /// room for it can be reserved.
    #[inline]
    pub fn nullable_array(&mut self, element_bytes: usize, what: &str) -> Result<Option<usize>, E> {
        let count = self.array_length(what)?;
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

    pub fn array(&mut self, element_bytes: usize, what: &str) -> Result<usize, E> {
        let count = self.nullable_array(element_bytes, what)?;
        self.not_null(count, what)
    }

    /// The tagged fields at the end of a structure; nothing in a classic version. `each` is
    /// given a tag and its bytes.
    #[inline]
    pub fn tagged_fields(&mut self, mut each: impl FnMut(u32, &'a [u8]) -> Result<(), E>) -> Result<(), E> {
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
    pub fn skip_tagged_fields(&mut self) -> Result<(), E> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// Nothing may follow.
    pub fn finish(&self) -> Result<(), E> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error("the end", &format!("is followed by {left} more bytes"))),
        }
    }

    #[cold]
    pub fn error(&self, what: &str, problem: &str) -> E {
        E::from(format!("at byte {} of {}: {what} {problem}", self.at, self.bytes.len()))
    }

    #[inline]
    fn array_of_bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], E> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.error(what, &format!("needs {N} bytes where {} remain", self.remaining()))),
        }
    }

    /// The count before an array's elements, or the length before a byte string. -1: null.
    #[inline]
    fn array_length(&mut self, what: &str) -> Result<i64, E> {
        if self.flexible { self.compact_length(what) } else { Ok(i64::from(self.int32(what)?)) }
    }

    /// -1: null.
    #[inline]
    fn compact_length(&mut self, what: &str) -> Result<i64, E> {
        Ok(i64::from(self.unsigned_varint(what)?) - 1)
    }

    #[inline]
    fn not_null<T>(&self, value: Option<T>, what: &str) -> Result<T, E> {
        value.ok_or_else(|| self.error(what, "is null"))
    }

    #[inline]
    fn sized(&mut self, length: i64, limit: usize, what: &str) -> Result<Option<Range<usize>>, E> {
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

/// Writes fields one behind the other. What it is given comes from this process, so it cannot
/// fail.
pub struct Writer {
    pub out: Vec<u8>,
    flexible: bool,
}

impl Writer {
    pub fn new(flexible: bool, capacity: usize) -> Writer {
        Writer { out: Vec::with_capacity(capacity), flexible }
    }

    /// The encoding of what follows.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
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
    pub fn unsigned_varint(&mut self, value: u32) {
        varint::put_unsigned(&mut self.out, u64::from(value));
    }

    /// Cut at the protocol's limit of 32767 bytes, on a character boundary.
    pub fn string(&mut self, text: &str) {
        self.name(&text.as_bytes()[..text.floor_char_boundary(MAX_STRING_BYTES)]);
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

    /// The count before an array's elements, or the length before a byte string. At most
    /// `i32::MAX`.
    #[inline]
    pub fn count(&mut self, count: usize) {
        if self.flexible {
            self.unsigned_varint(count as u32 + 1);
        } else {
            self.int32(count as i32);
        }
    }

    pub fn nullable_count(&mut self, count: Option<usize>) {
        match count {
            Some(count) => self.count(count),
            None if self.flexible => self.unsigned_varint(0),
            None => self.int32(-1),
        }
    }

    /// A byte string of at most `i32::MAX` bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// The tagged fields at the end of a flexible structure, in the order of their tags.
    pub fn tagged_fields(&mut self, fields: &[(u32, &[u8])]) {
        self.unsigned_varint(fields.len() as u32);
        for (tag, bytes) in fields {
            self.unsigned_varint(*tag);
            self.unsigned_varint(bytes.len() as u32);
            self.out.extend_from_slice(bytes);
        }
    }

    /// The end of a structure in either encoding.
    #[inline]
    pub fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.out.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Reader<'a> = super::Reader<'a, String>;

    #[test]
    fn varints_hold_32_bits_and_no_more() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, 0xfff_ffff, 0x1000_0000, u32::MAX] {
            let mut writer = Writer::new(true, 0);
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
            let mut writer = Writer::new(true, 0);
            writer.unsigned_varint(length + 1);
            writer.out.resize(writer.out.len() + length as usize, b'a');
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

    #[test]
    fn what_brokers_have_written_is_bound_by_its_bytes_only() {
        let mut writer = Writer::new(true, 0);
        writer.count(MAX_ARRAY_ELEMENTS + 1);
        writer.out.resize(writer.out.len() + MAX_ARRAY_ELEMENTS + 1, 0);
        assert!(Reader::new(&writer.out, true).array(1, "it").is_err());
        assert_eq!(Reader::without_limits(&writer.out, true).array(1, "it"), Ok(MAX_ARRAY_ELEMENTS + 1));
        assert!(Reader::without_limits(&writer.out, true).array(2, "it").is_err());

        let mut writer = Writer::new(true, 0);
        writer.tagged_fields(&vec![(7, &b"x"[..]); MAX_TAGGED_FIELDS + 1]);
        let count = |mut reader: Reader<'_>| {
            let mut count = 0;
            let counted = reader.tagged_fields(|_, _| {
                count += 1;
                Ok(())
            });
            counted.map(|()| count)
        };
        assert!(count(Reader::new(&writer.out, true)).is_err());
        assert_eq!(count(Reader::without_limits(&writer.out, true)), Ok(MAX_TAGGED_FIELDS + 1));
    }

    #[test]
    fn texts_are_utf_8_and_need_not_be_read_so() {
        let mut writer = Writer::new(false, 0);
        writer.string("\u{e9}");
        writer.nullable_string(None);
        let mut reader = Reader::new(&writer.out, false);
        assert_eq!((reader.text("it").unwrap(), reader.nullable_text("it").unwrap()), ("\u{e9}", None));
        assert!(reader.text("it").unwrap_err().contains("it needs 2 bytes where 0 remain"));
        assert!(Reader::new(&writer.out[4..], false).text("it").unwrap_err().ends_with("it is null"));
        let half = [0, 1, 0xc3];
        assert_eq!(Reader::new(&half, false).string("it").unwrap(), 2..3);
        assert!(Reader::new(&half, false).text("it").unwrap_err().ends_with("it is not UTF-8"));
    }

    #[test]
    fn a_long_string_is_cut_between_characters() {
        for flexible in [false, true] {
            let mut writer = Writer::new(flexible, 0);
            writer.string(&"\u{e9}".repeat(MAX_STRING_BYTES));
            let mut reader = Reader::new(&writer.out, flexible);
            assert_eq!((reader.text("it").unwrap().len(), reader.remaining()), (MAX_STRING_BYTES - 1, 0));
        }
    }
}
