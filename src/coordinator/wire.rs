//! Records of the coordinators: the fields of [`model::wire`](crate::model::wire) behind the number
//! of a key's kind or the version of a value's schema.

use crate::model::wire::{self, Writer};

/// A record that is not what its kind must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRecord(pub String);

impl From<String> for BadRecord {
    fn from(problem: String) -> BadRecord {
        BadRecord(problem)
    }
}

pub type Reader<'a> = wire::Reader<'a, BadRecord>;

/// A value: the version of its schema, and what follows it.
pub fn read_value<'a>(
    value: &'a [u8],
    flexible_from: i16,
    newest: i16,
    kind: &str,
) -> Result<(i16, Reader<'a>), BadRecord> {
    let mut reader = Reader::without_limits(value, false);
    let version = reader.int16("the version")?;
    if !(0..=newest).contains(&version) {
        return Err(BadRecord(format!("{kind} of version {version}; 0 to {newest} are known")));
    }
    reader.set_flexible(version >= flexible_from);
    Ok((version, reader))
}

/// Begins a key with the number of its kind; keys are of the classic encoding.
pub fn write_key(kind: i16, capacity: usize) -> Writer {
    write_value(kind, false, capacity)
}

/// Begins a value with the version of its schema.
pub fn write_value(version: i16, flexible: bool, capacity: usize) -> Writer {
    let mut writer = Writer::new(flexible, 2 + capacity);
    writer.int16(version);
    writer
}
