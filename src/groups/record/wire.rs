//! How Kafka writes the fields of a record, in both encodings: classic (fixed-width lengths) and flexible (compact lengths:
//! an unsigned varint of length + 1, 0 for null; tagged fields at the end of each structure).

use uuid::Uuid;

use super::BadRecord;

/// What a length before a string can say in the classic encoding.
const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// A cursor over bytes that may be anything. It allocates only for the text of an error.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], flexible: bool) -> Reader<'a> {
        Reader { rest: bytes, flexible }
    }

    /// A value: the version of its schema, and what follows it.
    pub fn of_value(
        value: &'a [u8],
        flexible_from: i16,
        newest: i16,
        kind: &str,
    ) -> Result<(i16, Reader<'a>), BadRecord> {
        let mut reader = Reader::new(value, false);
        let version = reader.int16("the version")?;
        if !(0..=newest).contains(&version) {
            return Err(BadRecord(format!("{kind} of version {version}; 0 to {newest} are known")));
        }
        reader.flexible = version >= flexible_from;
        Ok((version, reader))
    }

    pub fn int8(&mut self, what: &str) -> Result<i8, BadRecord> {
        Ok(i8::from_be_bytes(self.array_of_bytes(what)?))
    }

    pub fn int16(&mut self, what: &str) -> Result<i16, BadRecord> {
        Ok(i16::from_be_bytes(self.array_of_bytes(what)?))
    }

    pub fn int32(&mut self, what: &str) -> Result<i32, BadRecord> {
        Ok(i32::from_be_bytes(self.array_of_bytes(what)?))
    }

    pub fn int64(&mut self, what: &str) -> Result<i64, BadRecord> {
        Ok(i64::from_be_bytes(self.array_of_bytes(what)?))
    }

    pub fn uuid(&mut self, what: &str) -> Result<Uuid, BadRecord> {
        Ok(Uuid::from_bytes(self.array_of_bytes(what)?))
    }

    /// `None`: null.
    pub fn nullable_string(&mut self, what: &str) -> Result<Option<&'a str>, BadRecord> {
        let length = if self.flexible { self.compact_length(what)? } else { i64::from(self.int16(what)?) };
        let Some(bytes) = self.sized(length, what)? else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(e) => Err(BadRecord(format!("{what} is not UTF-8: {e}"))),
        }
    }

    pub fn string(&mut self, what: &str) -> Result<&'a str, BadRecord> {
        self.nullable_string(what)?.ok_or_else(|| BadRecord(format!("{what} is null")))
    }

    pub fn bytes(&mut self, what: &str) -> Result<&'a [u8], BadRecord> {
        let length = if self.flexible { self.compact_length(what)? } else { i64::from(self.int32(what)?) };
        self.sized(length, what)?.ok_or_else(|| BadRecord(format!("{what} is null")))
    }

    /// An array's element count. `element_bytes` is the least that one element takes (1 or more): the count is in proportion
    /// to the bytes that remain, so room for it can be reserved.
    pub fn count(&mut self, element_bytes: usize, what: &str) -> Result<usize, BadRecord> {
        let count = if self.flexible { self.compact_length(what)? } else { i64::from(self.int32(what)?) };
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() / element_bytes => Ok(count),
            _ => Err(BadRecord(format!("{what} claim {count} elements where {} bytes remain", self.rest.len()))),
        }
    }

    /// The tagged fields at the end of a structure; none in the classic encoding. `each` is given a tag and its bytes.
    pub fn tagged_fields(
        &mut self,
        mut each: impl FnMut(u32, &'a [u8]) -> Result<(), BadRecord>,
    ) -> Result<(), BadRecord> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint("the tagged fields")? {
            let tag = self.unsigned_varint("a tag")?;
            let size = self.unsigned_varint("a tagged field")?;
            each(tag, self.take(size as usize, "a tagged field")?)?;
        }
        Ok(())
    }

    fn unsigned_varint(&mut self, what: &str) -> Result<u32, BadRecord> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array_of_bytes(what)?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(BadRecord(format!("{what}: a varint of more than 32 bits")))
    }

    /// -1: null.
    fn compact_length(&mut self, what: &str) -> Result<i64, BadRecord> {
        Ok(i64::from(self.unsigned_varint(what)?) - 1)
    }

    fn sized(&mut self, length: i64, what: &str) -> Result<Option<&'a [u8]>, BadRecord> {
        match usize::try_from(length) {
            Ok(length) => self.take(length, what).map(Some),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(BadRecord(format!("{what} has the length {length}"))),
        }
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], BadRecord> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(BadRecord(format!("{what} needs {count} bytes where {} remain", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array_of_bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], BadRecord> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }
}

/// Builds a key or a value. What it is given comes from this process, so it cannot fail.
pub(super) struct Writer {
    pub out: Vec<u8>,
    flexible: bool,
}

impl Writer {
    /// Begins with the number of a key's kind or the version of a value's schema.
    pub fn new(number: i16, flexible: bool, capacity: usize) -> Writer {
        let mut out = Vec::with_capacity(2 + capacity);
        out.extend_from_slice(&number.to_be_bytes());
        Writer { out, flexible }
    }

    /// Fields of a flexible structure that stand by themselves, as in a tagged field.
    pub fn fields() -> Writer {
        Writer { out: Vec::new(), flexible: true }
    }

    pub fn int8(&mut self, value: i8) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub fn int32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub fn int64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Cut at the protocol's limit of 32767 bytes, on a character boundary; requests cannot bring longer ones.
    pub fn string(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_STRING_BYTES)];
        if self.flexible {
            self.unsigned_varint(text.len() as u32 + 1);
        } else {
            self.out.extend_from_slice(&(text.len() as i16).to_be_bytes());
        }
        self.out.extend_from_slice(text.as_bytes());
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.out.extend_from_slice(value.as_bytes());
    }

    pub fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None if self.flexible => self.unsigned_varint(0),
            None => self.out.extend_from_slice(&(-1i16).to_be_bytes()),
        }
    }

    /// An array's element count.
    pub fn count(&mut self, count: usize) {
        if self.flexible {
            self.unsigned_varint(count as u32 + 1);
        } else {
            self.int32(count as i32);
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// The tagged fields at the end of a flexible structure: none or the one that is given.
    pub fn tagged_field(&mut self, field: Option<(u32, &[u8])>) {
        self.unsigned_varint(u32::from(field.is_some()));
        if let Some((tag, bytes)) = field {
            self.unsigned_varint(tag);
            self.unsigned_varint(bytes.len() as u32);
            self.out.extend_from_slice(bytes);
        }
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
