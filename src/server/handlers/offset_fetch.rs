//! OffsetFetch: how far groups have read; of one group up to v7, of several from v8 on (KIP-709).

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{ApiKey, GroupId as WireGroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::cluster::MetadataImage;
use crate::groups::api::{FetchOffsetsReply, FetchOffsetsRequest, FetchedOffset, GroupId};
use crate::model::ErrorCode;
use crate::protocol::{ApiSpec, Newer};
use crate::server::session::{Call, Session};

use super::shared::{group_id, owned, topic_name, wire_group_id};

pub const API: ApiSpec = ApiSpec::new(ApiKey::OffsetFetch, 1, 10).in_line();

/// The response has an error of the whole group from here on.
const GROUP_ERROR_FROM: i16 = 2;
const SEVERAL_FROM: i16 = 8;
/// From here on topics are named by id (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

type Topics = Vec<(Arc<str>, Vec<i32>)>;

pub async fn handle(
    session: &Session,
    Call { version, request: Newer(mut request) }: Call<Newer<OffsetFetchRequest>>,
) -> OffsetFetchResponse {
    let by_id = (version >= TOPIC_IDS_FROM).then(|| ById::new(session.shard().image(), &mut request));
    let requests = convert(version, request);
    let asked: Vec<FetchOffsetsRequest> =
        // The question is needed again only where an error has no place of its own.
        if version < GROUP_ERROR_FROM { requests.clone() } else { Vec::new() };
    let groups: Vec<WireGroupId> = requests.iter().map(|request| wire_group_id(&request.group)).collect();
    let replies = session.ask_each(requests, bytes).await;
    if version >= SEVERAL_FROM {
        return several(groups, replies, by_id.as_ref());
    }
    let reply = replies.into_iter().next().unwrap_or(Err(ErrorCode::UnknownServerError));
    let reply = reply.unwrap_or_else(|error| FetchOffsetsReply { error, topics: Vec::new() });
    one(reply, asked.into_iter().next())
}

/// Bytes that a reply takes, about.
fn bytes(reply: &FetchOffsetsReply) -> usize {
    let partitions = reply.topics.iter().map(|(_, partitions)| {
        partitions.iter().map(|partition| size_of::<OffsetFetchResponsePartitions>() + partition.metadata.len()).sum()
    });
    partitions.map(|bytes: usize| bytes + size_of::<OffsetFetchResponseTopics>()).sum()
}

/// Both shapes of the request as one. Each group is asked for once, and each of its partitions
/// once: what is committed, some kilobytes with its metadata, must not be bought again and
/// again with a byte or two.
fn convert(version: i16, request: OffsetFetchRequest) -> Vec<FetchOffsetsRequest> {
    let require_stable = request.require_stable;
    if version < SEVERAL_FROM {
        let topics = request.topics.map(|topics| each_once(topics.into_iter().map(|t| (t.name, t.partition_indexes))));
        return vec![FetchOffsetsRequest { group: group_id(&request.group_id), member: None, topics, require_stable }];
    }
    let mut places: HashMap<WireGroupId, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for group in request.groups {
        let topics = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        match places.entry(group.group_id) {
            Entry::Vacant(place) => {
                let member_id = owned(group.member_id);
                let member = (member_id.is_some() || group.member_epoch >= 0)
                    .then(|| (member_id.unwrap_or_default(), group.member_epoch));
                groups.push(Group { id: group_id(place.key()), member, topics });
                place.insert(groups.len() - 1);
            }
            Entry::Occupied(place) => {
                if let Some(asked) = groups.get_mut(*place.get()) {
                    asked.add(topics);
                }
            }
        }
    }
    let request = |group: Group| FetchOffsetsRequest {
        group: group.id,
        member: group.member,
        topics: group.topics.map(|topics| each_once(topics.into_iter())),
        require_stable,
    };
    groups.into_iter().map(request).collect()
}

/// The question about one group.
struct Group {
    id: GroupId,
    member: Option<(String, i32)>,
    /// `None`: all.
    topics: Option<Vec<(TopicName, Vec<i32>)>>,
}

impl Group {
    fn add(&mut self, more: Option<Vec<(TopicName, Vec<i32>)>>) {
        match (&mut self.topics, more) {
            (Some(topics), Some(more)) => topics.extend(more),
            (topics, _) => *topics = None,
        }
    }
}

/// Each partition once, in the order of the request.
fn each_once(topics: impl Iterator<Item = (TopicName, Vec<i32>)>) -> Topics {
    let mut seen: HashMap<TopicName, HashSet<i32>> = HashMap::new();
    let mut once = Vec::new();
    for (name, mut partitions) in topics {
        let known = seen.len();
        let seen_partitions = seen.entry(name.clone()).or_default();
        partitions.retain(|index| seen_partitions.insert(*index));
        // A topic of which nothing is asked is answered so, the first time.
        if !partitions.is_empty() || seen.len() > known {
            once.push((name.0.as_str().into(), partitions));
        }
    }
    once
}

fn several(
    groups: Vec<WireGroupId>,
    replies: Vec<Result<FetchOffsetsReply, ErrorCode>>,
    by_id: Option<&ById>,
) -> OffsetFetchResponse {
    let groups = groups.into_iter().zip(replies).map(|(group, reply)| {
        let reply = reply.unwrap_or_else(|error| FetchOffsetsReply { error, topics: Vec::new() });
        let topics = reply.topics.into_iter().filter_map(|(name, mut partitions)| {
            let topic = match by_id {
                Some(by_id) => OffsetFetchResponseTopics::default().with_topic_id(by_id.check(&name, &mut partitions)?),
                None => OffsetFetchResponseTopics::default().with_name(topic_name(&name)),
            };
            Some(topic.with_partitions(partitions.into_iter().map(told).collect()))
        });
        let mut topics: Vec<_> = topics.collect();
        if let (Some(by_id), ErrorCode::None) = (by_id, reply.error) {
            topics.extend(by_id.unknown(&group));
        }
        OffsetFetchResponseGroup::default().with_group_id(group).with_error_code(reply.error.code()).with_topics(topics)
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

fn told(partition: FetchedOffset) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(partition.index)
        .with_committed_offset(partition.offset)
        .with_committed_leader_epoch(partition.leader_epoch)
        .with_metadata(Some(StrBytes::from_string(partition.metadata)))
        .with_error_code(partition.error.code())
}

/// Of a request that names topics by id: what the ids stand for.
struct ById {
    image: Arc<MetadataImage>,
    /// Topics that there are not, each once, of each group.
    unknown: HashMap<WireGroupId, HashMap<Uuid, BTreeSet<i32>>>,
}

impl ById {
    /// Gives the topics of the request their names, and takes out those that have none.
    fn new(image: Arc<MetadataImage>, request: &mut OffsetFetchRequest) -> ById {
        let mut unknown: HashMap<WireGroupId, HashMap<Uuid, BTreeSet<i32>>> = HashMap::new();
        for group in &mut request.groups {
            let Some(topics) = &mut group.topics else { continue };
            topics.retain_mut(|topic| match image.topic_by_id(topic.topic_id) {
                Some(found) => {
                    topic.name = topic_name(&found.name);
                    true
                }
                None => {
                    let of_group = unknown.entry(group.group_id.clone()).or_default();
                    of_group.entry(topic.topic_id).or_default().extend(&topic.partition_indexes);
                    false
                }
            });
        }
        ById { image, unknown }
    }

    /// The id of the topic; `None`: it is gone, and cannot be told. What was committed for another
    /// topic of that name is not told.
    fn check(&self, name: &str, partitions: &mut [FetchedOffset]) -> Option<Uuid> {
        let id = self.image.topic(name)?.id;
        for partition in partitions.iter_mut().filter(|p| !p.topic_id.is_nil() && p.topic_id != id) {
            *partition = nothing(partition.index, ErrorCode::None);
        }
        Some(id)
    }

    fn unknown(&self, group: &WireGroupId) -> impl Iterator<Item = OffsetFetchResponseTopics> {
        self.unknown.get(group).into_iter().flatten().map(|(id, partitions)| {
            let partitions = partitions.iter().map(|index| told(nothing(*index, ErrorCode::UnknownTopicId)));
            OffsetFetchResponseTopics::default().with_topic_id(*id).with_partitions(partitions.collect())
        })
    }
}

fn nothing(index: i32, error: ErrorCode) -> FetchedOffset {
    FetchedOffset { index, offset: -1, leader_epoch: -1, metadata: String::new(), error, topic_id: Uuid::nil() }
}

/// `asked`: where an error of the whole group has to be told partition by partition.
fn one(reply: FetchOffsetsReply, asked: Option<FetchOffsetsRequest>) -> OffsetFetchResponse {
    let topics = match asked {
        Some(asked) if reply.error != ErrorCode::None => {
            let failed = |index: i32| nothing(index, reply.error);
            let topics = asked.topics.unwrap_or_default().into_iter();
            topics.map(|(name, partitions)| (name, partitions.into_iter().map(failed).collect())).collect()
        }
        _ => reply.topics,
    };
    let topics = topics.into_iter().map(|(name, partitions): (_, Vec<FetchedOffset>)| {
        let partitions = partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.index)
                .with_committed_offset(partition.offset)
                .with_committed_leader_epoch(partition.leader_epoch)
                .with_metadata(Some(StrBytes::from_string(partition.metadata)))
                .with_error_code(partition.error.code())
        });
        OffsetFetchResponseTopic::default().with_name(topic_name(&name)).with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_error_code(reply.error.code()).with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::super::shared::text;
    use super::*;
    use kafka_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };

    type Asked<'a> = Option<&'a [(&'a str, &'a [i32])]>;

    fn group(id: &str, topics: Asked) -> OffsetFetchRequestGroup {
        let topic = |(name, partitions): &(&str, &[i32])| {
            OffsetFetchRequestTopics::default().with_name(topic_name(name)).with_partition_indexes(partitions.to_vec())
        };
        OffsetFetchRequestGroup::default()
            .with_group_id(wire_group_id(id))
            .with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
    }

    fn request(version: i16, topics: Asked) -> OffsetFetchRequest {
        if version >= 8 {
            return OffsetFetchRequest::default().with_groups(vec![group("g", topics)]);
        }
        let topic = |(name, partitions): &(&str, &[i32])| {
            OffsetFetchRequestTopic::default().with_name(topic_name(name)).with_partition_indexes(partitions.to_vec())
        };
        OffsetFetchRequest::default()
            .with_group_id(wire_group_id("g"))
            .with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
    }

    fn topics(of: &[(&str, &[i32])]) -> Option<Topics> {
        Some(of.iter().map(|(name, partitions)| ((*name).into(), partitions.to_vec())).collect())
    }

    #[test]
    fn a_request_is_understood_in_every_version() {
        for version in API.min..=API.max {
            let asked = convert(version, request(version, Some(&[("a", &[1, 0]), ("b", &[])])));
            assert_eq!((asked.len(), &*asked[0].group, &asked[0].member), (1, "g", &None));
            assert_eq!(asked[0].topics, topics(&[("a", &[1, 0]), ("b", &[])]));
            assert!(!asked[0].require_stable);
            if version >= 2 {
                assert_eq!(convert(version, request(version, None))[0].topics, None);
            }
            if version >= 7 {
                assert!(convert(version, request(version, None).with_require_stable(true))[0].require_stable);
            }
        }
    }

    #[test]
    fn members_say_who_they_are_from_version_9_on() {
        let asked = |id: Option<&str>, epoch: i32| {
            let group = group("g", None).with_member_id(id.map(text)).with_member_epoch(epoch);
            convert(9, OffsetFetchRequest::default().with_groups(vec![group])).remove(0).member
        };
        assert_eq!(asked(None, -1), None);
        assert_eq!(asked(Some("m"), 4), Some(("m".to_owned(), 4)));
        assert_eq!(asked(Some("m"), -1), Some(("m".to_owned(), -1)));
        assert_eq!(asked(None, 0), Some((String::new(), 0)));
    }

    #[test]
    fn what_is_repeated_is_asked_for_once() {
        for version in API.min..=API.max {
            let asked =
                request(version, Some(&[("a", &[1, 0, 1]), ("b", &[]), ("a", &[0, 2]), ("b", &[]), ("a", &[1])]));
            assert_eq!(convert(version, asked)[0].topics, topics(&[("a", &[1, 0]), ("b", &[]), ("a", &[2])]));
        }
        let groups = vec![
            group("g", Some(&[("a", &[0])])),
            group("h", Some(&[("a", &[0])])),
            group("g", Some(&[("a", &[0, 1])])),
            group("h", None),
            group("h", Some(&[("a", &[5])])),
        ];
        let asked = convert(8, OffsetFetchRequest::default().with_groups(groups));
        let rows: Vec<_> = asked.into_iter().map(|asked| (asked.group.to_string(), asked.topics)).collect();
        assert_eq!(rows, [("g".to_owned(), topics(&[("a", &[0]), ("a", &[1])])), ("h".to_owned(), None)]);
    }

    fn fetched(offset: i64) -> FetchedOffset {
        FetchedOffset { offset, leader_epoch: 3, metadata: "note".into(), ..nothing(1, ErrorCode::None) }
    }

    /// The error of the group, and of the one partition of the one topic: offset,
    /// epoch, metadata and error.
    fn answer(version: i16, reply: Result<FetchOffsetsReply, ErrorCode>) -> (i16, Vec<(i64, i32, String, i16)>) {
        let asked = convert(version, request(version, Some(&[("a", &[1])])));
        if version >= 8 {
            let by_id = (version >= TOPIC_IDS_FROM)
                .then(|| ById::new(image(&[("a", 1, 2)]).into(), &mut OffsetFetchRequest::default()));
            let response = several(vec![wire_group_id("g")], vec![reply], by_id.as_ref());
            let group = through_the_wire(API.key, version, &response).groups.remove(0);
            assert_eq!(&*group.group_id.0, "g");
            let partitions =
                group.topics.into_iter().flat_map(|topic| topic.partitions).map(|p| {
                    (p.committed_offset, p.committed_leader_epoch, p.metadata.unwrap().to_string(), p.error_code)
                });
            return (group.error_code, partitions.collect());
        }
        let reply = reply.unwrap_or_else(|error| FetchOffsetsReply { error, topics: Vec::new() });
        let asked = (version < GROUP_ERROR_FROM).then(|| asked.into_iter().next()).flatten();
        let response = through_the_wire(API.key, version, &one(reply, asked));
        let partitions = response
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .map(|p| (p.committed_offset, p.committed_leader_epoch, p.metadata.unwrap().to_string(), p.error_code));
        (response.error_code, partitions.collect())
    }

    #[test]
    fn offsets_are_told_in_every_version() {
        for version in API.min..=API.max {
            let reply = FetchOffsetsReply { error: ErrorCode::None, topics: vec![("a".into(), vec![fetched(70)])] };
            let epoch = if version >= 5 { 3 } else { -1 };
            assert_eq!(answer(version, Ok(reply)), (0, vec![(70, epoch, "note".to_owned(), 0)]), "v{version}");
        }
    }

    #[test]
    fn errors_of_the_group_have_their_place_in_every_version() {
        for version in API.min..=API.max {
            let expected = match version {
                1 => (0, vec![(-1, -1, String::new(), 16)]),
                _ => (16, vec![]),
            };
            assert_eq!(answer(version, Err(ErrorCode::NotCoordinator)), expected, "v{version}");
        }
    }

    #[test]
    fn ids_stand_for_topics_and_those_that_there_are_not_are_told_once() {
        let topic = |id: u128, partitions: &[i32]| {
            OffsetFetchRequestTopics::default().with_topic_id(id_of(id)).with_partition_indexes(partitions.to_vec())
        };
        let asked = |id: &str, topics| {
            OffsetFetchRequestGroup::default().with_group_id(wire_group_id(id)).with_topics(Some(topics))
        };
        let mut request = OffsetFetchRequest::default().with_groups(vec![
            asked("g", vec![topic(9, &[1, 1]), topic(1, &[0]), topic(2, &[])]),
            asked("g", vec![topic(9, &[2, 1]), topic(1, &[0, 1])]),
            asked("h", vec![topic(0, &[5])]),
            group("i", None),
        ]);
        let by_id = ById::new(image(&[("a", 1, 2), ("b", 2, 1)]).into(), &mut request);
        let asked = convert(10, request);
        let rows: Vec<_> = asked.iter().map(|asked| (&*asked.group, asked.topics.clone())).collect();
        let named = topics(&[("a", &[0]), ("b", &[]), ("a", &[1])]);
        assert_eq!(rows, [("g", named), ("h", topics(&[])), ("i", None)]);

        let reply = |topics: &[(&str, FetchedOffset)], error| {
            let topics = topics.iter().map(|(name, offset)| ((*name).into(), vec![offset.clone()])).collect();
            Ok(FetchOffsetsReply { error, topics })
        };
        let of = |id: u128| FetchedOffset { topic_id: id_of(id), ..fetched(70) };
        let replies = vec![
            // "a" was another topic when the offset was committed, and "gone" is none any more.
            reply(&[("a", of(8)), ("b", of(2)), ("a", of(0)), ("gone", of(7))], ErrorCode::None),
            reply(&[], ErrorCode::NotCoordinator),
        ];
        let groups = ["g", "h"].map(wire_group_id).to_vec();
        let response = through_the_wire(API.key, 10, &several(groups, replies, Some(&by_id)));
        let told = |group: &OffsetFetchResponseGroup| {
            let rows = group.topics.iter().flat_map(|topic| {
                let row = |p: &OffsetFetchResponsePartitions| (p.partition_index, p.committed_offset, p.error_code);
                topic.partitions.iter().map(move |p| (topic.topic_id, row(p)))
            });
            (group.error_code, rows.collect::<Vec<_>>())
        };
        let unknown = ErrorCode::UnknownTopicId.code();
        let (one, two, nine) = (id_of(1), id_of(2), id_of(9));
        let rows = vec![
            (one, (1, -1, 0)),
            (two, (1, 70, 0)),
            (one, (1, 70, 0)),
            (nine, (1, -1, unknown)),
            (nine, (2, -1, unknown)),
        ];
        assert_eq!(told(&response.groups[0]), (0, rows));
        assert_eq!(told(&response.groups[1]), (ErrorCode::NotCoordinator.code(), vec![]));
        assert!(response.groups[0].topics.iter().all(|topic| topic.partitions[0].metadata.is_some()));
    }
}
