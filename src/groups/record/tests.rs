//! Records as Kafka writes them, of every version, and bytes that are no records.

use bytes::Bytes;
use uuid::Uuid;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn offset_value() -> OffsetValue {
    OffsetValue {
        offset: 5,
        leader_epoch: 3,
        metadata: "m".into(),
        commit_ms: 9,
        expire_ms: None,
        topic_id: Uuid::nil(),
    }
}

fn offset(value: Option<OffsetValue>) -> Record {
    Record::Offset { group: "g".into(), topic: "t".into(), partition: 2, value }
}

const OFFSET_KEY: &str = "0001 0001 67 0001 74 00000002";

#[test]
fn offsets_are_written_as_kafka_does() {
    let topic_id = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let cases = [
        (offset_value(), "0004 0000000000000005 00000003 02 6d 0000000000000009 00"),
        (
            OffsetValue { topic_id, metadata: "".into(), ..offset_value() },
            "0004 0000000000000005 00000003 01 0000000000000009 01 00 10 0102030405060708090a0b0c0d0e0f10",
        ),
        (
            OffsetValue { expire_ms: Some(17), leader_epoch: -1, ..offset_value() },
            "0001 0000000000000005 0001 6d 0000000000000009 0000000000000011",
        ),
    ];
    for (value, bytes) in cases {
        let record = offset(Some(value));
        assert_eq!(record.encode(), (hex(OFFSET_KEY), Some(hex(bytes))));
        assert_eq!(Record::decode(&hex(OFFSET_KEY), Some(&hex(bytes))), Ok(Some(record)));
    }
    assert_eq!(offset(None).encode(), (hex(OFFSET_KEY), None));
    assert_eq!(Record::decode(&hex(OFFSET_KEY), None), Ok(Some(offset(None))));
}

#[test]
fn offsets_of_every_version_are_read() {
    let none = OffsetValue { leader_epoch: -1, ..offset_value() };
    let cases = [
        ("0000 0000000000000005 0001 6d 0000000000000009", none.clone()),
        ("0001 0000000000000005 0001 6d 0000000000000009 ffffffffffffffff", none.clone()),
        ("0002 0000000000000005 0001 6d 0000000000000009", none),
        ("0003 0000000000000005 00000003 0001 6d 0000000000000009", offset_value()),
        // With a tagged field of a later version before the one that is known.
        ("0004 0000000000000005 00000003 02 6d 0000000000000009 01 07 02 ffff", offset_value()),
    ];
    for (bytes, value) in cases {
        for key in [OFFSET_KEY, "0000 0001 67 0001 74 00000002"] {
            let read = Record::decode(&hex(key), Some(&hex(bytes)));
            assert_eq!(read, Ok(Some(offset(Some(value.clone())))), "{bytes}");
        }
    }
}

fn group_value() -> ClassicGroupValue {
    let member = ClassicMemberValue {
        member_id: "a".into(),
        instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 6,
        session_timeout_ms: 7,
        subscription: Bytes::from_static(b"s"),
        assignment: Bytes::new(),
    };
    ClassicGroupValue {
        protocol_type: "p".into(),
        generation: 4,
        protocol: Some("r".into()),
        leader: None,
        state_since_ms: 8,
        members: vec![member],
    }
}

#[test]
fn groups_are_written_as_kafka_does_and_read_in_every_version() {
    let key = hex("0002 0001 67");
    let record = |value| Record::Classic { group: "g".into(), value };
    let newest = "0003 0001 70 00000004 0001 72 ffff 0000000000000008 00000001
        0001 61 0001 69 0001 63 0002 2f68 00000006 00000007 00000001 73 00000000";
    assert_eq!(record(Some(group_value())).encode(), (key.clone(), Some(hex(newest))));
    assert_eq!(record(None).encode(), (key.clone(), None));

    let changed = |change: &dyn Fn(&mut ClassicGroupValue)| {
        let mut value = group_value();
        change(&mut value);
        value
    };
    let cases = [
        (
            "0000 0001 70 00000004 0001 72 ffff 00000001 0001 61 0001 63 0002 2f68 00000007 00000001 73 00000000",
            changed(&|value| {
                value.state_since_ms = -1;
                (value.members[0].instance_id, value.members[0].rebalance_timeout_ms) = (None, -1);
            }),
        ),
        (
            "0001 0001 70 00000004 0001 72 ffff 00000001 0001 61 0001 63 0002 2f68 00000006 00000007 00000001 73 00000000",
            changed(&|value| (value.state_since_ms, value.members[0].instance_id) = (-1, None)),
        ),
        (
            "0002 0001 70 00000004 0001 72 ffff 0000000000000008 00000001
             0001 61 0001 63 0002 2f68 00000006 00000007 00000001 73 00000000",
            changed(&|value| value.members[0].instance_id = None),
        ),
        (newest, group_value()),
        (
            "0004 02 70 00000004 02 72 00 0000000000000008 02
             02 61 02 69 02 63 03 2f68 00000006 00000007 02 73 01 00 01 05 01 ff",
            group_value(),
        ),
    ];
    for (bytes, value) in cases {
        assert_eq!(Record::decode(&key, Some(&hex(bytes))), Ok(Some(record(Some(value)))), "{bytes}");
    }
}

#[test]
fn versions_of_the_future_and_lengths_that_lie_are_refused() {
    let refused = |key: &str, value: &str| {
        let error = Record::decode(&hex(key), Some(&hex(value))).expect_err(value);
        assert!(!error.0.is_empty());
    };
    refused(OFFSET_KEY, "0005 0000000000000005");
    refused(OFFSET_KEY, "ffff 0000000000000005");
    refused(OFFSET_KEY, "0003 0000000000000005 00000003 ffff 0000000000000009");
    refused(OFFSET_KEY, "0003 0000000000000005 00000003 fffe 0000000000000009");
    refused(OFFSET_KEY, "0004 0000000000000005 00000003 00 0000000000000009 00");
    refused(OFFSET_KEY, "0004 0000000000000005 00000003 ffffffff1f 0000000000000009 00");
    refused(OFFSET_KEY, "0004 0000000000000005 00000003 01 0000000000000009 01 00 0f 0102030405060708090a0b0c0d0e0f");
    refused(OFFSET_KEY, "0003 0000000000000005 00000003 0001 ff 0000000000000009");
    // A member count far beyond what is there: refused before anything is reserved.
    refused("0002 0001 67", "0003 0001 70 00000004 0001 72 ffff 0000000000000008 7fffffff");
    refused("0002 0001 67", "0003 0001 70 00000004 0001 72 ffff 0000000000000008 ffffffff");
    assert!(Record::decode(&hex("00"), None).is_err());
    assert_eq!(Record::decode(&hex("0015 ff"), None), Ok(None), "a kind of others");
}

/// A die that falls the same way each time (splitmix64).
struct Die(u64);

impl Die {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn text(&mut self) -> String {
        (0..self.roll(200)).map(|_| ['a', 'ü', '-', '\0', '漢'][self.roll(5) as usize]).collect()
    }

    fn bytes(&mut self) -> Bytes {
        (0..self.roll(300)).map(|_| self.roll(256) as u8).collect()
    }

    fn int(&mut self) -> i64 {
        [-1, 0, 1, i64::MIN, i64::MAX, self.roll(u64::MAX) as i64][self.roll(6) as usize]
    }

    fn record(&mut self) -> Record {
        let group = self.text().into();
        match self.roll(3) {
            0 => {
                let expire_ms = (self.roll(3) == 0).then(|| self.int().max(0));
                let topic_id = Uuid::from_u128([0, self.roll(u64::MAX) as u128][self.roll(2) as usize]);
                let value = OffsetValue {
                    offset: self.int(),
                    leader_epoch: if expire_ms.is_some() { -1 } else { self.int() as i32 },
                    metadata: self.text().into(),
                    commit_ms: self.int(),
                    expire_ms,
                    topic_id: if expire_ms.is_some() { Uuid::nil() } else { topic_id },
                };
                Record::Offset { group, topic: self.text().into(), partition: self.int() as i32, value: Some(value) }
            }
            1 => {
                let members = (0..self.roll(5)).map(|_| ClassicMemberValue {
                    member_id: self.text(),
                    instance_id: (self.roll(2) == 0).then(|| self.text()),
                    client_id: self.text(),
                    client_host: self.text(),
                    rebalance_timeout_ms: self.int() as i32,
                    session_timeout_ms: self.int() as i32,
                    subscription: self.bytes(),
                    assignment: self.bytes(),
                });
                let members = members.collect();
                let value = ClassicGroupValue {
                    protocol_type: self.text(),
                    generation: self.int() as i32,
                    protocol: (self.roll(2) == 0).then(|| self.text()),
                    leader: (self.roll(2) == 0).then(|| self.text()),
                    state_since_ms: self.int(),
                    members,
                };
                Record::Classic { group, value: Some(value) }
            }
            _ => Record::Offset { group, topic: self.text().into(), partition: self.int() as i32, value: None },
        }
    }
}

#[test]
fn what_is_written_is_read_again_and_what_is_cut_or_changed_does_no_harm() {
    let mut die = Die(1);
    for round in 0..3000 {
        let record = die.record();
        let (key, value) = record.encode();
        assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(record)), "round {round}");
        let Some(value) = value else { continue };
        for _ in 0..20 {
            let mut bad = (key.clone(), value.clone());
            let part = if die.roll(4) == 0 { &mut bad.0 } else { &mut bad.1 };
            let at = die.roll(part.len() as u64) as usize;
            match die.roll(3) {
                0 => part.truncate(at),
                1 => part[at] = die.roll(256) as u8,
                _ => part.truncate(at.max(2)),
            }
            if bad.0.first_chunk::<2>().is_some_and(|kind| matches!(i16::from_be_bytes(*kind), 3..=8 | 16)) {
                continue;
            }
            let _ = Record::decode(&bad.0, Some(&bad.1));
        }
    }
    for _ in 0..20_000 {
        let key = [&[0, die.roll(3) as u8][..], &die.bytes()].concat();
        let value = [&[0, die.roll(6) as u8][..], &die.bytes()].concat();
        let _ = Record::decode(&key, Some(&value));
    }
}
