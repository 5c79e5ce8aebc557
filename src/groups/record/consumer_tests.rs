use super::*;
use crate::groups::record::Record;

fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(7, number)
}

fn samples() -> Vec<ConsumerRecord> {
    let group: GroupId = "group".into();
    let member: MemberId = "member".into();
    let said = MemberValue {
        instance_id: Some("i".into()),
        rack_id: None,
        client_id: "c".into(),
        client_host: "/1.2.3.4".into(),
        topics: vec!["a".into(), "b".into()],
        regex: Some("a.*".into()),
        rebalance_timeout_ms: 300_000,
        assignor: Some("range".into()),
        classic: None,
    };
    let classic = ClassicMember {
        session_timeout_ms: 45_000,
        protocols: vec![("range".into(), Bytes::from_static(b"\0\x01x")), ("sticky".into(), Bytes::new())],
    };
    let owned = OwnedPartitions::from([(id(1), BTreeMap::from([(0, 3), (5, 4)])), (id(2), BTreeMap::from([(1, 9)]))]);
    let current = CurrentValue {
        epoch: 9,
        previous_epoch: 8,
        state: 1,
        assigned: owned.clone(),
        revoking: OwnedPartitions::from([(id(3), BTreeMap::from([(7, 2)]))]),
    };
    let regex = RegexValue { topics: BTreeSet::from(["a".into(), "ab".into()]), version: 77, resolved_ms: 88 };
    let target = Partitions::from([(id(1), BTreeSet::from([0, 1, 2]))]);
    let mut all = Vec::new();
    for value in [None, Some(0), Some(-5)] {
        let value = value.map(|metadata_hash| GroupValue { epoch: 4, metadata_hash });
        all.push(ConsumerRecord::Group { group: group.clone(), value });
    }
    for present in [true, false] {
        all.push(ConsumerRecord::PartitionMetadata { group: group.clone(), present });
    }
    for value in
        [None, Some(said.clone()), Some(MemberValue { classic: Some(classic), ..said }), Some(MemberValue::default())]
    {
        all.push(ConsumerRecord::Member { group: group.clone(), member: member.clone(), value });
    }
    for value in [None, Some((3, 0)), Some((4, 1_700_000_000_000))] {
        let value = value.map(|(epoch, assigned_ms)| TargetMetadataValue { epoch, assigned_ms });
        all.push(ConsumerRecord::TargetMetadata { group: group.clone(), value });
    }
    for value in [None, Some(Partitions::new()), Some(target)] {
        all.push(ConsumerRecord::Target { group: group.clone(), member: member.clone(), value });
    }
    for value in [None, Some(CurrentValue::default()), Some(current)] {
        all.push(ConsumerRecord::Current { group: group.clone(), member: member.clone(), value });
    }
    for value in [None, Some(RegexValue::default()), Some(regex)] {
        all.push(ConsumerRecord::Regex { group: group.clone(), regex: "a.*".into(), value });
    }
    all
}

#[test]
fn what_is_written_is_read() {
    for record in samples() {
        let (key, value) = Record::Consumer(record.clone()).encode();
        assert_eq!(value.is_none(), record.is_tombstone());
        let read = Record::decode(&key, value.as_deref()).unwrap();
        assert_eq!(read, Some(Record::Consumer(record)));
    }
}

/// Byte by byte, as the schemas have it.
#[test]
fn bytes_are_kafkas() {
    let group: GroupId = "g".into();
    let member: MemberId = "m".into();
    let value = Some(GroupValue { epoch: 2, metadata_hash: 3 });
    let (key, value) = encode(&ConsumerRecord::Group { group: group.clone(), value });
    assert_eq!(key, [0, 3, 0, 1, b'g']);
    assert_eq!(value.unwrap(), [0, 0, 0, 0, 0, 2, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3]);
    let value = CurrentValue {
        epoch: 2,
        previous_epoch: 1,
        assigned: OwnedPartitions::from([(Uuid::nil(), BTreeMap::from([(6, 2)]))]),
        ..CurrentValue::default()
    };
    let (key, value) = encode(&ConsumerRecord::Current { group, member, value: Some(value) });
    assert_eq!(key, [0, 8, 0, 1, b'g', 0, 1, b'm']);
    let mut expected = vec![0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 2];
    expected.extend([0; 16]);
    expected.extend([2, 0, 0, 0, 6, 1, 0, 5, 2, 0, 0, 0, 2, 1, 0]);
    assert_eq!(value.unwrap(), expected);
}

/// Records of Kafka before 4.3 have no epochs beside the partitions.
#[test]
fn partitions_without_epochs_are_taken_at_the_members() {
    let mut value = vec![0, 0, 0, 0, 0, 5, 0, 0, 0, 4, 0, 2];
    value.extend([0; 16]);
    value.extend([3, 0, 0, 0, 6, 0, 0, 0, 7, 0, 1, 0]);
    let ConsumerRecord::Current { value, .. } = decode(8, &[0, 1, b'g', 0, 1, b'm'], Some(&value)).unwrap() else {
        panic!("another kind");
    };
    assert_eq!(value.unwrap().assigned, OwnedPartitions::from([(Uuid::nil(), BTreeMap::from([(6, 5), (7, 5)]))]));
}

/// Cut off, changed and made-up bytes give an error or a record, never a panic
/// or a huge allocation.
#[test]
fn arbitrary_bytes_are_survived() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for record in samples() {
        let (key, value) = encode(&record);
        let kind = i16::from_be_bytes([key[0], key[1]]);
        for end in 2..key.len() {
            assert!(decode(kind, &key[2..end], None).is_err());
        }
        let Some(value) = value else { continue };
        for end in 0..value.len() {
            // Kind 4 is not looked into.
            assert!(decode(kind, &key[2..], Some(&value[..end])).is_err() || kind == 4 && end >= 2);
        }
        for _ in 0..500 {
            let mut value = value.clone();
            for _ in 0..=random() % 3 {
                let at = random() as usize % value.len();
                value[at] = if random() % 3 == 0 { 0xff } else { random() as u8 };
            }
            let _ = decode(kind, &key[2..], Some(&value));
        }
    }
    for kind in [3, 4, 5, 6, 7, 8, 16] {
        for length in 0..64 {
            let bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            let _ = decode(kind, &bytes, Some(&bytes));
        }
    }
    assert!(decode(5, &[0, 1, b'g', 0, 1, b'm'], Some(&[0, 1])).is_err(), "a version that is not known");
}
