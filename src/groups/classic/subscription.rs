//! Which topics a member subscribes to, as the consumer protocol writes it into
//! a member's metadata.
//!
//! The layout is that of version 0, with which all later versions begin: version (int16),
//! topics (array of strings).

use crate::coordinator::wire::Reader;

/// The least that a topic takes: an empty name.
const LEAST_TOPIC_BYTES: usize = 2;

/// Calls `each` with every topic. `false`: this is no subscription, or a topic is cut short (`each`
/// has seen those before it).
pub(super) fn each_topic<'a>(metadata: &'a [u8], each: &mut impl FnMut(&'a str)) -> bool {
    read_topics(metadata, each).is_some()
}

/// As [`each_topic`]; the version, and what follows the topics.
pub(in crate::groups) fn read_topics<'a>(
    metadata: &'a [u8],
    each: &mut impl FnMut(&'a str),
) -> Option<(i16, Reader<'a>)> {
    let mut rest = Reader::without_limits(metadata, false);
    let version = rest.int16("the version").ok()?;
    if version < 0 {
        return None;
    }
    for _ in 0..rest.array(LEAST_TOPIC_BYTES, "the topics").ok()? {
        each(rest.text("a topic").ok()?);
    }
    Some((version, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &[u8]) -> (Vec<&str>, bool) {
        let mut topics = Vec::new();
        let whole = each_topic(metadata, &mut |topic| topics.push(topic));
        (topics, whole)
    }

    #[test]
    fn topics_are_read_from_any_version_and_the_rest_is_left_alone() {
        let two = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff and more";
        assert_eq!(topics(two), (vec!["a", "bc"], true));
        assert_eq!(topics(b"\0\0\0\0\0\0"), (vec![], true));
    }

    #[test]
    fn what_is_no_subscription_is_told_from_an_empty_one() {
        for bad in [&b""[..], b"\0\0\0\0", b"\xff\xff\0\0\0\0", b"\0\0\xff\xff\xff\xff", b"\0\0\x7f\xff\xff\xff"] {
            assert_eq!(topics(bad), (vec![], false), "{bad:?}");
        }
        assert_eq!(topics(b"\0\0\0\0\0\x02\0\x01a\0\x05b"), (vec!["a"], false));
        assert_eq!(topics(b"\0\0\0\0\0\x01\0\x01\xff"), (vec![], false));
    }
}
