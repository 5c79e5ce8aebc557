//! OffsetCommit, OffsetFetch and OffsetDelete.

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_commit_response::OffsetCommitResponseTopic;
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest};

use uuid::Uuid;

use crate::groups::group;
use crate::support::world::*;

const STOCK: &str = "stock";
/// The longest metadata that a broker keeps (`offset.metadata.max.bytes`).
const MAX_METADATA: usize = 4096;

/// Topics are named by id from here on.
const IDS_FROM: i16 = 10;

fn id_of(world: &World, topic: &str) -> Uuid {
    if topic == STOCK { world.stock.id } else { NO_SUCH_ID }
}

/// Commits (topic, partition, offset, metadata) without a member.
fn commit(world: &World, version: i16, id: &str, offsets: &[(&str, i32, i64, Option<&str>)]) -> OffsetCommitRequest {
    let topics = offsets.iter().map(|(topic, partition, offset, metadata)| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(if version >= 6 { 0 } else { -1 })
            .with_committed_metadata(metadata.map(text));
        let named = match version {
            IDS_FROM.. => OffsetCommitRequestTopic::default().with_topic_id(id_of(world, topic)),
            _ => OffsetCommitRequestTopic::default().with_name(topic_name(topic)),
        };
        named.with_partitions(vec![partition])
    });
    OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect())
}

/// Sends it and gives (topic, partition, error).
fn committed(world: &mut World, version: i16, request: &OffsetCommitRequest) -> Vec<(String, i32, i16)> {
    let response = world.client.call(version, request);
    assert_eq!(response.throttle_time_ms, 0);
    let name = |topic: &OffsetCommitResponseTopic| match version {
        IDS_FROM.. if topic.topic_id == world.stock.id => STOCK.to_owned(),
        IDS_FROM.. if topic.topic_id == NO_SUCH_ID => NO_SUCH_TOPIC.to_owned(),
        _ => topic.name.0.to_string(),
    };
    let rows = response
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|p| (name(topic), p.partition_index, p.error_code)));
    rows.collect()
}

fn commit_now(
    world: &mut World,
    version: i16,
    id: &str,
    offsets: &[(&str, i32, i64, Option<&str>)],
) -> Vec<(String, i32, i16)> {
    let request = commit(world, version, id, offsets);
    committed(world, version, &request)
}

/// Offset, leader epoch, metadata and error of a partition.
pub type Fetched = (i64, i32, String, i16);

const NOTHING: (i64, i32, &str, i16) = (-1, -1, "", 0);

/// Committed offsets of these partitions of stock (`None`: of everything), by partition;
/// and the error of the group.
pub fn fetched(world: &mut World, version: i16, id: &str, partitions: Option<&[i32]>) -> (i16, Vec<(i32, Fetched)>) {
    if version >= 8 {
        let stock = world.stock.id;
        let topic = |partitions: &[i32]| {
            let named = match version {
                IDS_FROM.. => OffsetFetchRequestTopics::default().with_topic_id(stock),
                _ => OffsetFetchRequestTopics::default().with_name(topic_name(STOCK)),
            };
            named.with_partition_indexes(partitions.to_vec())
        };
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group(id))
            .with_topics(partitions.map(|partitions| vec![topic(partitions)]));
        // Another group beside it, and the same once more.
        let other = asked.clone().with_group_id(group("never-heard-of"));
        let request =
            OffsetFetchRequest::default().with_require_stable(true).with_groups(vec![asked.clone(), other, asked]);
        let mut groups = world.client.call(version, &request).groups;
        groups.sort_by_key(|found| &*found.group_id.0 != id);
        assert_eq!((groups.len(), &*groups[0].group_id.0, groups[1].error_code), (2, id, 0));
        assert!(groups[1].topics.iter().flat_map(|topic| &topic.partitions).all(|p| p.committed_offset == -1));
        assert!(groups[0].topics.iter().all(|topic| (topic.topic_id == stock) == (version >= IDS_FROM)));
        let found = groups[0].topics.iter().flat_map(|topic| &topic.partitions);
        let rows = found.map(|p| {
            let metadata = p.metadata.as_ref().map_or(String::new(), |metadata| metadata.to_string());
            (p.partition_index, (p.committed_offset, p.committed_leader_epoch, metadata, p.error_code))
        });
        return (groups[0].error_code, rows.collect());
    }
    let topic = |partitions: &[i32]| {
        OffsetFetchRequestTopic::default().with_name(topic_name(STOCK)).with_partition_indexes(partitions.to_vec())
    };
    let request = OffsetFetchRequest::default()
        .with_group_id(group(id))
        .with_require_stable(version >= 7)
        .with_topics(partitions.map(|partitions| vec![topic(partitions)]));
    let response = world.client.call(version, &request);
    let found = response.topics.iter().flat_map(|topic| &topic.partitions);
    let rows = found.map(|p| {
        let metadata = p.metadata.as_ref().map_or(String::new(), |metadata| metadata.to_string());
        (p.partition_index, (p.committed_offset, p.committed_leader_epoch, metadata, p.error_code))
    });
    (response.error_code, rows.collect())
}

fn row((offset, epoch, metadata, error): (i64, i32, &str, i16)) -> Fetched {
    (offset, epoch, metadata.to_owned(), error)
}

pub fn offset_commit(world: &mut World, version: i16) {
    let id = format!("commit-{version}");
    let (longest, longer) = ("n".repeat(MAX_METADATA), "n".repeat(MAX_METADATA + 1));
    let offsets = [
        (STOCK, 0, 4, Some(&*longest)),
        (STOCK, 9, 4, None),
        (NO_SUCH_TOPIC, 0, 4, None),
        (STOCK, 1, 0, Some(&*longer)),
    ];
    let mut rows = commit_now(world, version, &id, &offsets);
    rows.sort();
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    let unknown_topic = if version >= IDS_FROM { code::UNKNOWN_TOPIC_ID } else { unknown };
    let expected = [
        (NO_SUCH_TOPIC.to_owned(), 0, unknown_topic),
        (STOCK.to_owned(), 0, 0),
        (STOCK.to_owned(), 1, code::OFFSET_METADATA_TOO_LARGE),
        (STOCK.to_owned(), 9, unknown),
    ];
    assert_eq!(rows, expected);
    let epoch = if version >= 6 { 0 } else { -1 };
    let (error, rows) = fetched(world, 9, &id, Some(&[0, 1]));
    assert_eq!((error, rows), (0, vec![(0, row((4, epoch, &longest, 0))), (1, row(NOTHING))]));

    // Again: the last one counts.
    let again = commit_now(world, version, &id, &[(STOCK, 0, 5, None)]);
    assert_eq!(again, [(STOCK.to_owned(), 0, 0)]);
    assert_eq!(fetched(world, 9, &id, Some(&[0])), (0, vec![(0, row((5, epoch, "", 0)))]));

    // A member that the group does not have, and a generation of a group that there is not.
    let stranger = commit(world, version, &id, &[(STOCK, 0, 6, None)])
        .with_member_id(text("stranger"))
        .with_generation_id_or_member_epoch(3);
    assert_eq!(committed(world, version, &stranger), [(STOCK.to_owned(), 0, code::UNKNOWN_MEMBER_ID)]);
    let homeless = stranger.with_group_id(group("no-such-group"));
    let expected = if version >= 9 { code::GROUP_ID_NOT_FOUND } else { code::ILLEGAL_GENERATION };
    assert_eq!(committed(world, version, &homeless)[0].2, expected);
    assert_eq!(fetched(world, 9, &id, Some(&[0])).1[0].1.0, 5);
}

pub fn offset_fetch(world: &mut World, version: i16) {
    let id = format!("fetch-{version}");
    assert_eq!(fetched(world, version, &id, Some(&[0])), (0, vec![(0, row(NOTHING))]), "an unknown group");
    let rows = commit_now(world, 9, &id, &[(STOCK, 0, 3, Some("note")), (STOCK, 1, 7, None)]);
    assert!(rows.iter().all(|(_, _, error)| *error == 0), "{rows:?}");
    let epoch = if version >= 5 { 0 } else { -1 };
    let (first, second) = ((0, row((3, epoch, "note", 0))), (1, row((7, epoch, "", 0))));
    let (error, rows) = fetched(world, version, &id, Some(&[1, 0, 5]));
    assert_eq!((error, rows), (0, vec![second.clone(), first.clone(), (5, row(NOTHING))]));
    if version >= 2 {
        let (error, mut rows) = fetched(world, version, &id, None);
        rows.sort();
        assert_eq!((error, rows), (0, vec![first, second]));
    }
    if version >= IDS_FROM {
        let topic = OffsetFetchRequestTopics::default().with_topic_id(NO_SUCH_ID).with_partition_indexes(vec![0, 4]);
        let asked = OffsetFetchRequestGroup::default().with_group_id(group(&id)).with_topics(Some(vec![topic]));
        let response = world.client.call(version, &OffsetFetchRequest::default().with_groups(vec![asked]));
        let told = &response.groups[0];
        assert_eq!((told.error_code, told.topics.len(), told.topics[0].topic_id), (0, 1, NO_SUCH_ID));
        let rows = told.topics[0].partitions.iter().map(|p| (p.partition_index, p.committed_offset, p.error_code));
        let unknown = code::UNKNOWN_TOPIC_ID;
        assert_eq!(rows.collect::<Vec<_>>(), [(0, -1, unknown), (4, -1, unknown)]);
    }
}

pub fn offset_delete(world: &mut World, version: i16) {
    let id = format!("offset-delete-{version}");
    let rows = commit_now(world, 9, &id, &[(STOCK, 0, 3, None), (STOCK, 1, 7, None)]);
    assert!(rows.iter().all(|(_, _, error)| *error == 0), "{rows:?}");
    let ask = |id: &str, topics: &[(&str, i32)]| {
        let topics = topics.iter().map(|(topic, partition)| {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(*partition);
            OffsetDeleteRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition])
        });
        OffsetDeleteRequest::default().with_group_id(group(id)).with_topics(topics.collect())
    };
    let response = world.client.call(version, &ask(&id, &[(STOCK, 0), (NO_SUCH_TOPIC, 0)]));
    let mut rows: Vec<_> =
        response.topics.iter().map(|topic| (&*topic.name.0, topic.partitions[0].error_code)).collect();
    rows.sort_unstable();
    assert_eq!((response.error_code, rows), (0, vec![(NO_SUCH_TOPIC, code::UNKNOWN_TOPIC_OR_PARTITION), (STOCK, 0)]));
    let (error, rows) = fetched(world, 9, &id, Some(&[0, 1]));
    assert_eq!((error, rows), (0, vec![(0, row(NOTHING)), (1, row((7, 0, "", 0)))]));
    for (id, expected) in [("no-such-group", code::GROUP_ID_NOT_FOUND), ("", code::INVALID_GROUP_ID)] {
        let refused = world.client.call(version, &ask(id, &[(STOCK, 0)]));
        assert_eq!((refused.error_code, refused.topics.len()), (expected, 0));
    }
}
