//! What consumers write into the metadata and the assignments of the classic protocol: ConsumerProtocolSubscription and
//! ConsumerProtocolAssignment, versions 0 to 3. Newer versions only add at the end, so they are read as version 3.

use bytes::Bytes;

use crate::groups::classic::read_topics;

const NEWEST: i16 = 3;

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
    user_data(&mut rest)?;
    if version >= 1 {
        subscription.owned = named(&mut rest)?;
    }
    if version >= 2 {
        take::<4>(&mut rest)?;
    }
    if version >= 3 {
        subscription.rack_id = string(&mut rest)?;
    }
    Some(subscription)
}

/// `None`: it is none. Nothing at all stands for no partitions.
pub(super) fn read_assignment(bytes: &[u8]) -> Option<Assignment> {
    if bytes.is_empty() {
        return Some(Assignment::default());
    }
    let mut rest = bytes;
    version(&mut rest)?;
    let partitions = named(&mut rest)?;
    Some(Assignment { partitions, has_user_data: user_data(&mut rest)? })
}

/// An assignment in the version of the subscription that it answers.
pub(super) fn write_assignment<'a>(
    subscription: &[u8],
    partitions: impl ExactSizeIterator<Item = (&'a str, Vec<i32>)>,
) -> Bytes {
    let version = version(&mut &*subscription).unwrap_or(0);
    let mut out = version.to_be_bytes().to_vec();
    out.extend((partitions.len() as i32).to_be_bytes());
    for (topic, partitions) in partitions {
        out.extend((topic.len() as i16).to_be_bytes());
        out.extend(topic.as_bytes());
        out.extend((partitions.len() as i32).to_be_bytes());
        partitions.iter().for_each(|partition| out.extend(partition.to_be_bytes()));
    }
    // No user data.
    out.extend((-1i32).to_be_bytes());
    out.into()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn version(rest: &mut &[u8]) -> Option<i16> {
    let version = i16::from_be_bytes(take(rest)?);
    (version >= 0).then_some(version.min(NEWEST))
}

fn count(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(take(rest)?)).ok()
}

fn string(rest: &mut &[u8]) -> Option<Option<String>> {
    let length = i16::from_be_bytes(take(rest)?);
    if length == -1 {
        return Some(None);
    }
    let (text, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
}

/// Whether there is any.
fn user_data(rest: &mut &[u8]) -> Option<bool> {
    let length = i32::from_be_bytes(take(rest)?);
    if length == -1 {
        return Some(false);
    }
    *rest = rest.get(usize::try_from(length).ok()?..)?;
    Some(length > 0)
}

fn named(rest: &mut &[u8]) -> Option<Named> {
    let mut named = Named::new();
    for _ in 0..count(rest)? {
        let topic = string(rest)??;
        let mut partitions = Vec::new();
        for _ in 0..count(rest)? {
            partitions.push(i32::from_be_bytes(take(rest)?));
        }
        named.push((topic, partitions));
    }
    Some(named)
}

/// A subscription, for tests.
#[cfg(test)]
pub(super) fn write_subscription(version: i16, subscription: &Subscription) -> Bytes {
    let mut out = version.to_be_bytes().to_vec();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as i16).to_be_bytes());
        out.extend(text.as_bytes());
    };
    out.extend((subscription.topics.len() as i32).to_be_bytes());
    subscription.topics.iter().for_each(|topic| text(&mut out, topic));
    out.extend((-1i32).to_be_bytes());
    if version >= 1 {
        out.extend((subscription.owned.len() as i32).to_be_bytes());
        for (topic, partitions) in &subscription.owned {
            text(&mut out, topic);
            out.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|partition| out.extend(partition.to_be_bytes()));
        }
    }
    if version >= 2 {
        out.extend((-1i32).to_be_bytes());
    }
    if version >= 3 {
        match &subscription.rack_id {
            Some(rack_id) => text(&mut out, rack_id),
            None => out.extend((-1i16).to_be_bytes()),
        }
    }
    out.into()
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
