//! Messages of a classic group's members to each other through its coordinator: subscriptions
//! (ConsumerProtocolSubscription) and assignments (ConsumerProtocolAssignment), and the assignor
//! `range`. The coordinator does not look into these bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster_client::Place;
use crate::model::wire::{self, Writer};

/// The first version of both, which every consumer reads.
const VERSION: i16 = 0;
/// The least that a topic takes: an empty name, and of an assignment no partitions.
const LEAST_NAME_BYTES: usize = 2;
const LEAST_TOPIC_BYTES: usize = 6;
const PARTITION_BYTES: usize = 4;

type Reader<'a> = wire::Reader<'a, String>;

/// A subscription to these topics.
pub fn subscription(topics: &[&str]) -> Vec<u8> {
    let mut out = Writer::new(false, 0);
    out.int16(VERSION);
    out.count(topics.len());
    topics.iter().for_each(|topic| out.string(topic));
    // No data of the user's.
    out.nullable_count(None);
    out.out
}

/// The topics of a subscription; `None`: the bytes are something else.
pub fn subscribed(bytes: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(bytes, false);
    reader.int16("the version").ok()?;
    let count = reader.array(LEAST_NAME_BYTES, "the topics").ok()?;
    (0..count).map(|_| Some(reader.text("a topic").ok()?.to_owned())).collect()
}

/// An assignment of these partitions.
pub fn assignment(partitions: &BTreeMap<String, Vec<i32>>) -> Vec<u8> {
    let mut out = Writer::new(false, 0);
    out.int16(VERSION);
    out.count(partitions.len());
    for (topic, indexes) in partitions {
        out.string(topic);
        out.count(indexes.len());
        indexes.iter().for_each(|index| out.int32(*index));
    }
    out.nullable_count(None);
    out.out
}

/// The partitions of an assignment; `None`: the bytes are something else.
pub fn assigned(bytes: &[u8]) -> Option<BTreeSet<Place>> {
    if bytes.is_empty() { Some(BTreeSet::new()) } else { read_places(&mut Reader::new(bytes, false)).ok() }
}

fn read_places(reader: &mut Reader) -> Result<BTreeSet<Place>, String> {
    let mut places = BTreeSet::new();
    reader.int16("the version")?;
    for _ in 0..reader.array(LEAST_TOPIC_BYTES, "the topics")? {
        let name = reader.text("a topic")?.to_owned();
        for _ in 0..reader.array(PARTITION_BYTES, "a topic's partitions")? {
            places.insert((name.clone(), reader.int32("a partition")?));
        }
    }
    Ok(places)
}

/// Kafka's RangeAssignor: of each topic, each member that subscribes to it has a range of
/// partitions, the first ones a partition more where they cannot be even. `members`: their topics;
/// `counts`: the topics' numbers of partitions.
pub fn range(
    members: &BTreeMap<String, Vec<String>>,
    counts: &BTreeMap<String, usize>,
) -> BTreeMap<String, BTreeMap<String, Vec<i32>>> {
    let mut shares: BTreeMap<String, BTreeMap<String, Vec<i32>>> =
        members.keys().map(|member| (member.clone(), BTreeMap::new())).collect();
    for (topic, count) in counts {
        let readers: Vec<&String> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| member).collect();
        let mut next = 0..i32::try_from(*count).unwrap_or(i32::MAX);
        for (place, member) in readers.iter().enumerate() {
            let share = count / readers.len() + usize::from(place < count % readers.len());
            let indexes: Vec<i32> = next.by_ref().take(share).collect();
            if let (Some(own), false) = (shares.get_mut(*member), indexes.is_empty()) {
                own.insert(topic.clone(), indexes);
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_and_nothing_else_is() {
        let mut bytes = vec![0, 3, 0, 0, 0, 2];
        for (topic, partitions) in [("a", vec![0, 7]), ("bc", vec![1])] {
            bytes.extend((topic.len() as i16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|p: &i32| bytes.extend(p.to_be_bytes()));
        }
        let whole = bytes.len();
        bytes.extend([0xff; 4]);
        let place = |topic: &str, index| (topic.to_owned(), index);
        let expected = BTreeSet::from([place("a", 0), place("a", 7), place("bc", 1)]);
        assert_eq!(assigned(&bytes), Some(expected.clone()));
        assert_eq!(assigned(&[]), Some(BTreeSet::new()));
        for cut in 1..whole {
            assert_eq!(assigned(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(assigned(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        let written = BTreeMap::from([("a".to_owned(), vec![0, 7]), ("bc".to_owned(), vec![1])]);
        assert_eq!(assigned(&assignment(&written)), Some(expected));
    }

    #[test]
    fn subscriptions_are_read_and_nothing_else_is() {
        let bytes = subscription(&["a", "bc"]);
        assert_eq!(subscribed(&bytes), Some(vec!["a".to_owned(), "bc".to_owned()]));
        for cut in 0..bytes.len() - 4 {
            assert_eq!(subscribed(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(subscribed(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn ranges_are_as_even_as_they_can_be() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let members = BTreeMap::from([
            ("x".to_owned(), names(&["t", "u"])),
            ("y".to_owned(), names(&["t"])),
            ("z".to_owned(), names(&["gone"])),
        ]);
        let counts = BTreeMap::from([("t".to_owned(), 3), ("u".to_owned(), 1)]);
        let shares = range(&members, &counts);
        assert_eq!(shares["x"], BTreeMap::from([("t".to_owned(), vec![0, 1]), ("u".to_owned(), vec![0])]));
        assert_eq!(shares["y"], BTreeMap::from([("t".to_owned(), vec![2])]));
        assert!(shares["z"].is_empty());
        let few = range(&members, &BTreeMap::from([("t".to_owned(), 1)]));
        assert_eq!((few["x"].len(), few["y"].len()), (1, 0));
    }
}
