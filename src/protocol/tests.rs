//! Tests of the codecs against the crate `kafka-protocol`, an implementation made from Kafka's
//! own message definitions.

mod fetch;
mod frame;
mod guard;
mod guard_responses;
mod produce;

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, StrBytes};
use uuid::Uuid;

/// xorshift64: the same sequence in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 to `limit - 1`.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn text(&mut self) -> String {
        // Now and then longer than one varint byte can count, and not only ASCII.
        let length = if self.chance(8) { 126 + self.below(5) } else { self.below(12) };
        (0..length).map(|_| if self.chance(20) { 'é' } else { char::from(b'a' + self.below(26) as u8) }).collect()
    }

    fn str_bytes(&mut self) -> StrBytes {
        StrBytes::from_string(self.text())
    }

    fn bytes(&mut self, limit: usize) -> Bytes {
        (0..self.below(limit)).map(|_| self.next() as u8).collect()
    }

    fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.next(), self.next())
    }

    /// Some unknown tagged fields, above all tags that are defined.
    fn tags(&mut self, flexible: bool) -> BTreeMap<i32, Bytes> {
        let count = if flexible { self.below(3) } else { 0 };
        (0..count).map(|i| (100 + 90 * i as i32, self.bytes(9))).collect()
    }

    /// A frame that was sound before.
    fn damage(&mut self, sound: &[u8]) -> Vec<u8> {
        let mut bytes = sound.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1));
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), self.next() as u8),
                2 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&0x7fff_ffffu32.to_be_bytes()),
                3 if at + 5 <= bytes.len() => bytes[at..at + 5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]),
                4 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ if at < bytes.len() => bytes[at] = self.next() as u8,
                _ => {}
            }
        }
        bytes
    }
}

/// Decodes a whole response frame with the crate; every byte must belong to it.
fn decode_response<T: Decodable>(api: ApiKey, version: i16, frame: Bytes) -> T {
    let mut rest = frame.slice(4..);
    assert_eq!(frame[..4], (rest.len() as i32).to_be_bytes());
    ResponseHeader::decode(&mut rest, api.response_header_version(version)).unwrap();
    let response = T::decode(&mut rest, version).unwrap();
    assert!(rest.is_empty(), "{} bytes left over", rest.len());
    response
}
