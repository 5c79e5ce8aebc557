//! DescribeLogDirs: the data directories, their room, and the sizes of the partitions in them.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{ApiKey, DescribeLogDirsRequest, DescribeLogDirsResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::cluster::MetadataImage;
use crate::config::absolute_dir;
use crate::model::{ErrorCode, PartitionId};
use crate::protocol::{ApiSpec, Newer, set_cordoned};
use crate::server::session::{Call, Session};
use crate::shard::LogDirOutcome;

use super::shared::topic_name;

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeLogDirs, 1, 5);

/// The response has the room of each directory from here on (KIP-827).
const ROOM_FROM: i16 = 4;
/// The room of a directory that has failed.
const UNKNOWN_BYTES: i64 = -1;

pub async fn handle(
    session: &Session,
    Call { version, request: Newer(request) }: Call<Newer<DescribeLogDirsRequest>>,
) -> Newer<DescribeLogDirsResponse> {
    let dirs = session.shard().log_dirs().await;
    let image = session.shard().image();
    let wanted = request.topics.map(|topics| wanted(&image, &topics));
    let results = dirs.into_iter().map(|dir| result(&image, version, wanted.as_ref(), dir));
    Newer(DescribeLogDirsResponse::default().with_results(results.collect()))
}

fn wanted(image: &MetadataImage, topics: &[DescribableLogDirTopic]) -> BTreeSet<PartitionId> {
    let known = topics.iter().filter_map(|topic| Some((image.topic(&topic.topic.0)?.id, &topic.partitions)));
    known.flat_map(|(id, partitions)| partitions.iter().map(move |index| PartitionId::new(id, *index))).collect()
}

/// `wanted`: `None` for all partitions.
fn result(
    image: &MetadataImage,
    version: i16,
    wanted: Option<&BTreeSet<PartitionId>>,
    dir: LogDirOutcome,
) -> DescribeLogDirsResult {
    let path = absolute_dir(&dir.path);
    let result = DescribeLogDirsResult::default().with_log_dir(StrBytes::from_string(path.display().to_string()));
    let room = |bytes: u64| if version >= ROOM_FROM { i64::try_from(bytes).unwrap_or(i64::MAX) } else { UNKNOWN_BYTES };
    let Some((free, total)) = dir.space else {
        return result.with_error_code(ErrorCode::KafkaStorageError.code());
    };
    let mut by_topic: BTreeMap<Uuid, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (id, bytes) in dir.partitions.into_iter().filter(|(id, _)| wanted.is_none_or(|wanted| wanted.contains(id))) {
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(id.index.0)
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX));
        by_topic.entry(id.topic).or_default().push(partition);
    }
    for (id, bytes, lag) in dir.future.into_iter().filter(|(id, ..)| wanted.is_none_or(|wanted| wanted.contains(id))) {
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(id.index.0)
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
            .with_offset_lag(lag)
            .with_is_future_key(true);
        by_topic.entry(id.topic).or_default().push(partition);
    }
    // A topic that was deleted meanwhile has no name.
    let topics = by_topic.into_iter().filter_map(|(id, partitions)| {
        let name = topic_name(&image.topic_by_id(id)?.name);
        Some(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions))
    });
    let mut result = result.with_topics(topics.collect()).with_total_bytes(room(total)).with_usable_bytes(room(free));
    set_cordoned(&mut result, dir.cordoned);
    result
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::*;

    fn dir(path: &str, space: Option<(u64, u64)>, partitions: &[(u128, i32, u64)]) -> LogDirOutcome {
        let partitions = partitions.iter().map(|(id, index, bytes)| (PartitionId::new(id_of(*id), *index), *bytes));
        LogDirOutcome {
            path: path.into(),
            space,
            cordoned: false,
            partitions: partitions.collect(),
            future: Vec::new(),
        }
    }

    type Row = (String, i32, i64);

    fn rows(result: &DescribeLogDirsResult) -> Vec<Row> {
        let of = |topic: &DescribeLogDirsTopic| {
            let name = topic.name.0.to_string();
            topic.partitions.iter().map(|p| (name.clone(), p.partition_index, p.partition_size)).collect::<Vec<_>>()
        };
        result.topics.iter().flat_map(of).collect()
    }

    #[test]
    fn partitions_are_told_by_their_directory() {
        let image = image(&[("a", 1, 2), ("b", 2, 1)]);
        let told = result(&image, 4, None, dir("/d", Some((5, 9)), &[(1, 0, 10), (1, 1, 11), (2, 0, 12), (9, 0, 1)]));
        assert_eq!((&*told.log_dir, told.error_code, told.usable_bytes, told.total_bytes), ("/d", 0, 5, 9));
        let row = |name: &str, index, bytes| (name.to_owned(), index, bytes);
        assert_eq!(rows(&told), [row("a", 0, 10), row("a", 1, 11), row("b", 0, 12)]);
        let relative = result(&image, 4, None, dir("d", Some((5, 9)), &[]));
        assert!(relative.log_dir.starts_with('/') && relative.log_dir.ends_with("/d"), "{}", &*relative.log_dir);
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let image = image(&[("a", 1, 2), ("b", 2, 1)]);
        let asked = |name: &str, partitions: &[i32]| {
            DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(partitions.to_vec())
        };
        let held = || dir("/d", Some((5, 9)), &[(1, 0, 10), (1, 1, 11), (2, 0, 12)]);
        let some = wanted(&image, &[asked("a", &[1, 7, 1]), asked("nope", &[0]), asked("b", &[])]);
        assert_eq!(rows(&result(&image, 4, Some(&some), held())), [("a".to_owned(), 1, 11)]);
        let none = wanted(&image, &[]);
        assert_eq!(rows(&result(&image, 4, Some(&none), held())), []);
    }

    #[test]
    fn copies_are_told_apart() {
        let image = image(&[("a", 1, 2)]);
        let id = |index| PartitionId::new(id_of(1), index);
        let held = || LogDirOutcome { future: vec![(id(1), 7, 30)], ..dir("/d", Some((5, 9)), &[(1, 0, 10)]) };
        let told = |only: Option<&BTreeSet<PartitionId>>| {
            let topics = result(&image, 4, only, held()).topics;
            let partitions = topics.iter().flat_map(|topic| &topic.partitions);
            let row =
                |p: &DescribeLogDirsPartition| (p.partition_index, p.partition_size, p.offset_lag, p.is_future_key);
            partitions.map(row).collect::<Vec<_>>()
        };
        assert_eq!(told(None), [(0, 10, 0, false), (1, 7, 30, true)]);
        assert_eq!(told(Some(&BTreeSet::from([id(0)]))), [(0, 10, 0, false)]);
    }

    #[test]
    fn a_failed_directory_is_an_error_of_its_own() {
        let image = image(&[("a", 1, 1)]);
        let told = result(&image, 4, None, dir("/d", None, &[]));
        assert_eq!((told.error_code, told.usable_bytes, told.total_bytes), (56, -1, -1));
        let sound = result(&image, 3, None, dir("/d", Some((5, 9)), &[(1, 0, 10)]));
        let sent = DescribeLogDirsResponse::default().with_results(vec![told, sound]);
        for version in API.min..=4 {
            assert_eq!(through_the_wire(ApiKey::DescribeLogDirs, version, &sent), sent, "v{version}");
        }
    }
}
