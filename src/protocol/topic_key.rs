//! How Produce and Fetch name a topic.

use bytes::Bytes;
use uuid::Uuid;

use super::frame::Malformed;
use super::wire::{Reader, Writer};

/// A topic by name, or by id from version 13 of Produce and Fetch on (KIP-516).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicKey {
    /// Valid UTF-8 when it comes from a decoder; a slice of the request's
    /// frame, which it keeps alive.
    Name(Bytes),
    Id(Uuid),
}

impl TopicKey {
    /// The name, when it is one and is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            TopicKey::Name(name) => std::str::from_utf8(name).ok(),
            TopicKey::Id(_) => None,
        }
    }

    /// The same key, which does not keep its request alive.
    pub fn detached(self) -> TopicKey {
        match self {
            TopicKey::Name(name) => TopicKey::Name(Bytes::copy_from_slice(&name)),
            id => id,
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>, body: &Bytes, by_id: bool) -> Result<TopicKey, Malformed> {
        if by_id {
            return reader.uuid("a topic id").map(TopicKey::Id);
        }
        let range = reader.string("a topic name")?;
        if std::str::from_utf8(reader.bytes_of(range.clone())).is_err() {
            return Err(reader.error("a topic name", "is not UTF-8"));
        }
        Ok(TopicKey::Name(body.slice(range)))
    }

    /// A key of the kind that the version does not have (a caller's mistake) is written
    /// as the kind's null value.
    pub(super) fn write(&self, writer: &mut Writer, by_id: bool) {
        match self {
            TopicKey::Id(id) if by_id => writer.uuid(*id),
            TopicKey::Name(_) if by_id => writer.uuid(Uuid::nil()),
            TopicKey::Name(name) => writer.name(name),
            TopicKey::Id(_) => writer.name(&[]),
        }
    }

    /// Most bytes that [`TopicKey::write`] takes.
    pub(super) fn wire_bytes(&self) -> usize {
        match self {
            TopicKey::Name(name) => name.len() + 3,
            TopicKey::Id(_) => 16,
        }
    }
}
