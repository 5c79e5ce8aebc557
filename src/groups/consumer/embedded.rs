//! The consumers' part of the metadata and the assignments of the classic protocol:
//! ConsumerProtocolSubscription and ConsumerProtocolAssignment, versions 0 to 3. Newer versions
//! only add at the end, so they are read as version 3.

use bytes::Bytes;

use crate::coordinator::wire::{BadRecord, Reader};
use crate::groups::classic::read_topics;
use crate::model::wire::Writer;

const NEWEST: i16 = 3;
/// The least that a topic takes: an empty name and no partitions.
const LEAST_TOPIC_BYTES: usize = 6;
const PARTITION_BYTES: usize = 4;

/// Partitions by topic name.
pub(super) type Named = Vec<(String, Vec<i32>)>;

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Subscription {
    pub topics: Vec<String>,
    pub owned: Named,
    pub rack_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Assignment {
    pub partitions: Named,
    /// An assignor keeps something of its own there.
    pub has_user_data: bool,
}

/// `None`: it is none.
pub(super) fn read_subscription(bytes: &[u8]) -> Option<Subscription> {
    let mut subscription = Subscription::default();
    let (version, mut rest) = read_topics(bytes, &mut |topic| subscription.topics.push(topic.to_owned()))?;
    read_rest(version, &mut rest, &mut subscription).ok()?;
    Some(subscription)
}

fn read_rest(version: i16, rest: &mut Reader, subscription: &mut Subscription) -> Result<(), BadRecord> {
    read_user_data(rest)?;
    if version >= 1 {
        subscription.owned = read_named(rest)?;
    }
    if version >= 2 {
        rest.int32("the generation")?;
    }
    if version >= 3 {
        subscription.rack_id = rest.nullable_text("the rack")?.map(str::to_owned);
    }
    Ok(())
}

/// `None`: it is none. Nothing at all stands for no partitions.
pub(super) fn read_assignment(bytes: &[u8]) -> Option<Assignment> {
    if bytes.is_empty() {
        return Some(Assignment::default());
    }
    let mut rest = Reader::without_limits(bytes, false);
    read_version(&mut rest)?;
    let partitions = read_named(&mut rest).ok()?;
    Some(Assignment { partitions, has_user_data: read_user_data(&mut rest).ok()? })
}

/// An assignment in the version of the subscription that it answers.
pub(super) fn write_assignment<'a>(
    subscription: &[u8],
    partitions: impl ExactSizeIterator<Item = (&'a str, Vec<i32>)>,
) -> Bytes {
    let version = read_version(&mut Reader::new(subscription, false)).unwrap_or(0);
    let mut out = Writer::new(false, 0);
    out.int16(version);
    out.count(partitions.len());
    for (topic, partitions) in partitions {
        write_named(&mut out, topic, &partitions);
    }
    // No user data.
    out.nullable_count(None);
    out.out.into()
}

fn read_version(rest: &mut Reader) -> Option<i16> {
    let version = rest.int16("the version").ok()?;
    (version >= 0).then_some(version.min(NEWEST))
}

/// True if there is any.
fn read_user_data(rest: &mut Reader) -> Result<bool, BadRecord> {
    Ok(rest.nullable_bytes("the user data")?.is_some_and(|range| !range.is_empty()))
}

fn read_named(rest: &mut Reader) -> Result<Named, BadRecord> {
    let mut named = Named::new();
    for _ in 0..rest.array(LEAST_TOPIC_BYTES, "the topics")? {
        let topic = rest.text("a topic")?.to_owned();
        let mut partitions = Vec::new();
        for _ in 0..rest.array(PARTITION_BYTES, "a topic's partitions")? {
            partitions.push(rest.int32("a partition")?);
        }
        named.push((topic, partitions));
    }
    Ok(named)
}

fn write_named(out: &mut Writer, topic: &str, partitions: &[i32]) {
    out.string(topic);
    out.count(partitions.len());
    partitions.iter().for_each(|partition| out.int32(*partition));
}

/// A subscription, for tests.
#[cfg(test)]
pub(super) fn write_subscription(version: i16, subscription: &Subscription) -> Bytes {
    let mut out = Writer::new(false, 0);
    out.int16(version);
    out.count(subscription.topics.len());
    subscription.topics.iter().for_each(|topic| out.string(topic));
    out.nullable_count(None);
    if version >= 1 {
        out.count(subscription.owned.len());
        subscription.owned.iter().for_each(|(topic, partitions)| write_named(&mut out, topic, partitions));
    }
    if version >= 2 {
        out.int32(-1);
    }
    if version >= 3 {
        out.nullable_string(subscription.rack_id.as_deref());
    }
    out.out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_of_all_versions_are_read() {
        let full = Subscription {
            topics: vec!["a".into(), "bc".into()],
            owned: vec![("a".into(), vec![0, 5])],
            rack_id: Some("r".into()),
        };
        let without_rack = Subscription { rack_id: None, ..full.clone() };
        let names_only = Subscription { owned: Named::new(), ..without_rack.clone() };
        let expected = [&names_only, &without_rack, &without_rack, &full, &full];
        for (version, expected) in (0..).zip(expected) {
            let mut bytes = write_subscription(version, &full).to_vec();
            for end in 0..bytes.len() {
                assert_eq!(read_subscription(&bytes[..end]), None, "version {version} cut at {end}");
            }
            bytes.extend(b"and what newer versions add");
            assert_eq!(read_subscription(&bytes).as_ref(), Some(expected));
        }
        assert_eq!(read_subscription(b"\xff\xff\0\0\0\0\xff\xff\xff\xff"), None);
        assert_eq!(read_subscription(b"\0\0\x7f\xff\xff\xff"), None);
    }

    #[test]
    fn assignments_are_written_and_read() {
        let subscription = write_subscription(1, &Subscription::default());
        let bytes = write_assignment(&subscription, [("t", vec![1, 2]), ("u", vec![0])].into_iter());
        assert_eq!(&bytes[..2], [0, 1]);
        let read = read_assignment(&bytes).unwrap();
        assert_eq!(read.partitions, vec![("t".to_owned(), vec![1, 2]), ("u".to_owned(), vec![0])]);
        assert!(!read.has_user_data);
        assert_eq!(read_assignment(b""), Some(Assignment::default()));
        assert!(read_assignment(b"\0\0\0\0\0\0\0\0\0\x01x").unwrap().has_user_data);
        assert_eq!(read_assignment(b"\0\0\0\0"), None);
    }
}
