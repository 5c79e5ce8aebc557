//! Identity of a data directory (KIP-858): stays with the directory wherever it is mounted
//! and however it is named.

use std::fmt;

use uuid::Uuid;

use crate::model::encode_id;

/// `directory.id` of a data directory's `meta.properties`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub Uuid);

/// Ids that Kafka keeps for itself (unassigned, lost, migrating, ...): those below this number.
const RESERVED: u128 = 100;

impl DirectoryId {
    /// A random one, as Kafka makes them.
    pub fn random() -> DirectoryId {
        loop {
            let id = Uuid::new_v4();
            if !encode_id(id).starts_with('-') {
                return DirectoryId(id);
            }
        }
    }

    /// The id that `text` spells; `None`: it spells none, or one that Kafka reserves.
    pub fn parse(text: &str) -> Option<DirectoryId> {
        decode_id(text).filter(|id| id.as_u128() >= RESERVED).map(DirectoryId)
    }
}

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_id(self.0))
    }
}

/// The id in Kafka's spelling: 22 digits of URL-safe base64.
pub fn decode_id(text: &str) -> Option<Uuid> {
    if text.len() != 22 {
        return None;
    }
    let mut number = 0u128;
    for (at, byte) in text.bytes().enumerate() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        // 22 digits are 132 bits: the last four must be zero.
        number = match at {
            21 if digit % 16 != 0 => return None,
            21 => number << 2 | u128::from(digit >> 4),
            _ => number << 6 | u128::from(digit),
        };
    }
    Some(Uuid::from_u128(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        for number in [100, 0x1234, u128::MAX, 0xfedc_ba98_7654_3210_0f1e_2d3c_4b5a_6978] {
            let id = DirectoryId(Uuid::from_u128(number));
            assert_eq!(DirectoryId::parse(&id.to_string()), Some(id));
        }
        let long = "A".repeat(23);
        for wrong in ["", "AAAAAAAAAAAAAAAAAAAAAA", "q", "AAAAAAAAAAAAAAAAAAAAB/", "BAAAAAAAAAAAAAAAAAAAAB", &long] {
            assert_eq!(DirectoryId::parse(wrong), None, "{wrong}");
        }
    }
}
