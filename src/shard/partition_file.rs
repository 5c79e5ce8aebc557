//! Kafka's `partition.metadata`, which ties a partition's directory to its topic's id. Pure.

use uuid::Uuid;

use crate::cluster::partition_metadata;
use crate::model::encode_id;

/// Characters in which a damaged id may differ from the topic's: ids are random, so two never come
/// this close.
const DAMAGED_CHARACTERS: usize = 2;

/// The owner of a directory by its `partition.metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The topic it is held against.
    This,
    /// Nothing that can be believed: no id, or the topic's own with a flipped bit.
    Damaged,
    /// Another topic.
    Other,
}

pub fn owner(found: &[u8], topic: Uuid) -> Owner {
    let wanted = partition_metadata(topic);
    if found == wanted.as_bytes() {
        return Owner::This;
    }
    let differing = found.iter().zip(wanted.as_bytes()).filter(|(found, wanted)| found != wanted).count();
    if found.len() == wanted.len() && differing <= DAMAGED_CHARACTERS {
        return Owner::Damaged;
    }
    let id = std::str::from_utf8(found).ok().and_then(|text| {
        let id = text.strip_prefix("version: 0\ntopic_id: ")?.trim_end();
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (id.len() == encode_id(topic).len() && id.bytes().all(base64)).then_some(id)
    });
    match id {
        Some(id) if id == encode_id(topic) => Owner::This,
        Some(_) => Owner::Other,
        None => Owner::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_from_another_topic() {
        let (this, other) = (Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), Uuid::from_u128(7 << 80));
        let sound = partition_metadata(this);
        assert_eq!(owner(sound.as_bytes(), this), Owner::This);
        assert_eq!(owner(sound.trim_end().as_bytes(), this), Owner::This);
        assert_eq!(owner(partition_metadata(other).as_bytes(), this), Owner::Other);
        for place in 0..sound.len() {
            for bit in 0..8 {
                let mut bytes = sound.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                assert_eq!(owner(&bytes, this), Owner::Damaged, "bit {bit} of byte {place}");
            }
        }
        for damaged in [&b""[..], b"\0\0\0\0", &sound.as_bytes()[..20], b"version: 0\ntopic_id: \xff\xfe\n"] {
            assert_eq!(owner(damaged, this), Owner::Damaged, "{damaged:?}");
        }
    }
}
