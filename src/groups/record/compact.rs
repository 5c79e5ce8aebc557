//! How Kafka writes the fields of a message: big-endian numbers, strings with their length before them, and in flexible
//! versions compact lengths (unsigned varint, one more than the length, 0 for null) and tagged fields at the end of a structure.

use bytes::Bytes;
use uuid::Uuid;

use super::BadRecord;

/// Fields of a flexible version, and the plain strings of keys.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
}

impl Writer {
    pub(super) fn starting_with(number: i16) -> Writer {
        Writer { out: number.to_be_bytes().to_vec() }
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.out.extend(value.as_bytes());
    }

    /// A string of a key: int16 and its bytes. What is longer cannot be said; requests are bounded to what can.
    pub(super) fn plain_string(&mut self, value: &str) {
        let length = i16::try_from(value.len()).unwrap_or(i16::MAX);
        self.out.extend(length.to_be_bytes());
        self.out.extend(&value.as_bytes()[..length as usize]);
    }

    pub(super) fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// The length of an array, of a string or of bytes.
    pub(super) fn length(&mut self, length: usize) {
        self.varint(u32::try_from(length).unwrap_or(u32::MAX - 1) + 1);
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.out.extend(value);
    }

    pub(super) fn string(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(super) fn opt_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.varint(0),
        }
    }

    /// The end of a structure without tagged fields.
    pub(super) fn no_tags(&mut self) {
        self.varint(0);
    }

    /// The end of a structure that has one tagged field, or none.
    pub(super) fn tag(&mut self, tag: u32, field: Option<Writer>) {
        match field {
            None => self.no_tags(),
            Some(field) => {
                self.varint(1);
                self.varint(tag);
                self.varint(field.out.len() as u32);
                self.out.extend(field.out);
            }
        }
    }
}

/// Takes fields from the front; each error says which bytes it was about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    fn bad(&self, problem: impl std::fmt::Display) -> BadRecord {
        BadRecord(format!("{}: {problem}", self.what))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BadRecord> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.bad(format_args!("{length} bytes expected, {} left", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn i8(&mut self) -> Result<i8, BadRecord> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub(super) fn i16(&mut self) -> Result<i16, BadRecord> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, BadRecord> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, BadRecord> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, BadRecord> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn text(&self, bytes: &'a [u8]) -> Result<&'a str, BadRecord> {
        std::str::from_utf8(bytes).map_err(|e| self.bad(format_args!("a string is not UTF-8: {e}")))
    }

    pub(super) fn plain_string(&mut self) -> Result<&'a str, BadRecord> {
        let length = self.i16()?;
        let length = usize::try_from(length).map_err(|_| self.bad(format_args!("a string of length {length}")))?;
        let bytes = self.take(length)?;
        self.text(bytes)
    }

    pub(super) fn varint(&mut self) -> Result<u32, BadRecord> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.bad("a varint of more than 32 bits"))
    }

    /// The number of elements, `None` for null. Each takes a byte at least, so a count beyond the rest is refused here.
    pub(super) fn opt_length(&mut self) -> Result<Option<usize>, BadRecord> {
        let Some(length) = self.varint()?.checked_sub(1) else { return Ok(None) };
        if length as usize > self.rest.len() {
            return Err(self.bad(format_args!("a length of {length} with {} bytes left", self.rest.len())));
        }
        Ok(Some(length as usize))
    }

    pub(super) fn length(&mut self) -> Result<usize, BadRecord> {
        self.opt_length()?.ok_or_else(|| self.bad("null where it must not be"))
    }

    pub(super) fn opt_string(&mut self) -> Result<Option<&'a str>, BadRecord> {
        let Some(length) = self.opt_length()? else { return Ok(None) };
        let bytes = self.take(length)?;
        self.text(bytes).map(Some)
    }

    pub(super) fn string(&mut self) -> Result<&'a str, BadRecord> {
        self.opt_string()?.ok_or_else(|| self.bad("null where it must not be"))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, BadRecord> {
        let length = self.length()?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    /// The tagged fields at the end of a structure: that of number `tag`, if it is there; others are passed over.
    pub(super) fn tag(&mut self, tag: u32) -> Result<Option<Reader<'a>>, BadRecord> {
        let mut found = None;
        for _ in 0..self.varint()? {
            let number = self.varint()?;
            let size = self.varint()? as usize;
            let field = self.take(size)?;
            if number == tag {
                found = Some(Reader { rest: field, what: self.what });
            }
        }
        Ok(found)
    }

    pub(super) fn skip_tags(&mut self) -> Result<(), BadRecord> {
        self.tag(u32::MAX).map(drop)
    }
}
