use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::cluster::PartitionImage;
use crate::cluster::metadata_store::KnownDirectory;
use crate::config::TopicConfig;
use crate::model::{BrokerId, LeaderEpoch};

const A: DirectoryId = DirectoryId(Uuid::from_u128(0xa00));
const B: DirectoryId = DirectoryId(Uuid::from_u128(0xb00));
const TOPIC: Uuid = Uuid::from_u128(7);
const LAST_RUN: u64 = 5;

fn topic(id: Uuid, homes: &[Option<(DirectoryId, u64)>]) -> TopicImage {
    let partition = |home: &Option<(DirectoryId, u64)>| PartitionImage {
        leader: Some(BrokerId(1)),
        leader_epoch: LeaderEpoch(0),
        replicas: vec![BrokerId(1)],
        isr: vec![BrokerId(1)],
        home: home.map(|(directory, since_run)| PartitionHome { directory, since_run }),
        ..PartitionImage::default()
    };
    TopicImage {
        name: "t".into(),
        id,
        partitions: homes.iter().map(partition).collect(),
        overrides: BTreeMap::new(),
        config: Arc::new(TopicConfig::default()),
    }
}

fn stored(homes: &[Option<(DirectoryId, u64)>]) -> Stored {
    let mut stored = Stored { run: LAST_RUN, ..Stored::default() };
    stored.image.put_topic(topic(TOPIC, homes));
    stored.directories = [(A, "/a"), (B, "/b")].map(|(id, path)| KnownDirectory { id, path: path.into() }).to_vec();
    stored
}

fn found(index: i32, topic_id: u128) -> SeenPartition {
    let topic_id = (topic_id > 0).then(|| Uuid::from_u128(topic_id));
    SeenPartition { topic: "t".into(), index, topic_id, sound: topic_id.is_some() }
}

fn opened<'a>(id: DirectoryId, path: &str, partitions: &'a [SeenPartition]) -> Opened<'a> {
    Opened { id, path: path.into(), partitions, moved: &[], future: &[], clean: true }
}

fn assign(stored: &Stored, opened: &[Opened], offline_dirs: &[OfflineDir]) -> Assignment {
    super::assign(stored, opened, offline_dirs, &ServerConfig::default())
}

/// Why partition 0 is offline.
fn reason(assignment: &Assignment) -> &str {
    assignment.placement.offline.get(&PartitionId::new(TOPIC, 0)).map_or("", |why| why)
}

#[test]
fn partitions_are_where_they_are_recorded() {
    let stored = stored(&[Some((A, 1)), Some((B, 1))]);
    let (a, b) = ([found(0, 7)], [found(1, 7)]);
    let assignment = assign(&stored, &[opened(B, "/b", &b), opened(A, "/a", &a)], &[]);
    assert!(assignment.changed.is_empty() && assignment.placement.offline.is_empty());
    let topic = stored.image.topic("t").unwrap();
    let dirs = [0, 1].map(|index| assignment.placement.dir(topic, index).unwrap());
    assert_eq!(dirs, [PathBuf::from("/a/t-0"), "/b/t-1".into()]);
    assert_eq!((assignment.placement.dir(topic, 2), assignment.placement.run), (None, LAST_RUN + 1));
}

/// Its shard reads the file of every other directory itself.
#[test]
fn a_directory_that_names_its_topic_is_known_by_it() {
    let id = PartitionId::new(TOPIC, 0);
    let named = |home, a: &[SeenPartition], b: &[SeenPartition]| {
        assign(&stored(&[home]), &[opened(A, "/a", a), opened(B, "/b", b)], &[]).placement.named.contains(&id)
    };
    let (here, there) = (Some((A, 1)), Some((B, 1)));
    assert!(named(here, &[found(0, 7)], &[]) && named(there, &[found(0, 7)], &[]), "moved or not");
    assert!(named(here, &[found(0, 7)], &[found(0, 8)]), "the other one is another topic's");
    assert!(!named(here, &[found(0, 8)], &[]), "recorded here, but another topic's");
    assert!(!named(here, &[found(0, 0)], &[]) && !named(here, &[], &[]), "not told");
    assert!(!named(here, &[SeenPartition { sound: false, ..found(0, 7) }], &[]), "damaged");
    assert!(!named(here, &[found(0, 7)], &[found(0, 7)]), "two of them");
}

#[test]
fn a_partition_whose_data_directory_is_missing_stays_offline() {
    let stored = stored(&[Some((B, 1))]);
    let assignment = assign(&stored, &[opened(A, "/a", &[])], &[]);
    let why = reason(&assignment);
    assert!(why.contains("/b") && why.contains(&B.to_string()) && why.contains("log.dirs"), "{why}");
    let failed = OfflineDir { path: "/b".into(), id: Some(B), reason: "/b cannot be read: EIO".into() };
    let assignment = assign(&stored, &[opened(A, "/a", &[])], &[failed]);
    assert_eq!(reason(&assignment), "/b cannot be read: EIO");
    assert!(assignment.changed.is_empty());
}

#[test]
fn a_partition_in_two_directories_is_nobodys_choice() {
    for (a, b) in [(7, 7), (7, 0), (0, 7)] {
        for home in [Some((A, 1)), Some((B, 1)), None] {
            let (a, b) = ([found(0, a)], [found(0, b)]);
            let assignment = assign(&stored(&[home]), &[opened(A, "/a", &a), opened(B, "/b", &b)], &[]);
            let why = reason(&assignment);
            assert!(why.contains("/a/t-0 and /b/t-0"), "{home:?}: {why}");
        }
    }
    // One of another topic is no copy.
    let (a, b) = ([found(0, 8)], [found(0, 7)]);
    let assignment = assign(&stored(&[Some((B, 1))]), &[opened(A, "/a", &a), opened(B, "/b", &b)], &[]);
    assert_eq!(reason(&assignment), "");
    assert_eq!(assignment.unclaimed, [("t".to_owned(), PathBuf::from("/a/t-0"))]);
}

#[test]
fn a_partition_that_was_moved_is_taken_over() {
    for home in [Some((B, 1)), None] {
        let a = [found(0, 7)];
        let assignment = assign(&stored(&[home]), &[opened(A, "/a", &a), opened(B, "/b", &[])], &[]);
        assert_eq!(assignment.changed[0].partitions[0].home.unwrap().directory, A);
        assert_eq!(assignment.remarks.len(), usize::from(home.is_some()));
    }
    // Only its topic's id proves that it is the same.
    let a = [found(0, 0)];
    let assignment = assign(&stored(&[Some((B, 1))]), &[opened(A, "/a", &a), opened(B, "/b", &[])], &[]);
    assert!(reason(&assignment).contains("/b/t-0 is missing"));
}

#[test]
fn a_directory_that_is_gone_is_a_loss_unless_a_crash_came_before_it_was_made() {
    for (since, clean, lost) in [(1, true, true), (1, false, true), (LAST_RUN, true, true), (LAST_RUN, false, false)] {
        let dir = Opened { clean, ..opened(A, "/a", &[]) };
        let assignment = assign(&stored(&[Some((A, since))]), &[dir], &[]);
        assert_eq!(reason(&assignment).contains("/a/t-0 is missing"), lost, "{since} {clean}");
        assert_eq!(assignment.remarks.is_empty(), lost);
    }
    // It may have been moved, in the same run, to a directory that is not there now.
    let dir = Opened { clean: false, ..opened(A, "/a", &[]) };
    let away = OfflineDir { path: "/b".into(), id: Some(B), reason: "EIO".into() };
    let assignment = assign(&stored(&[Some((A, LAST_RUN))]), &[dir], &[away]);
    assert!(reason(&assignment).contains("a data directory is missing that may hold it"));
    assert!(assignment.remarks.is_empty());
}

#[test]
fn partitions_without_a_record_are_spread_only_when_nothing_is_missing() {
    let none = stored(&[None, None, None, None]);
    let a = [found(3, 7)];
    let dirs = [opened(A, "/a", &a), opened(B, "/b", &[])];
    let assignment = assign(&none, &dirs, &[]);
    let homes: Vec<_> = assignment.changed[0].partitions.iter().map(|p| p.home.unwrap().directory).collect();
    assert_eq!((homes[3], homes.iter().filter(|id| **id == A).count()), (A, 3));
    let failed = OfflineDir { path: "/c".into(), id: None, reason: "EIO".into() };
    let assignment = assign(&none, &dirs, &[failed]);
    assert_eq!(assignment.placement.offline.len(), 3);
    assert_eq!(assignment.changed[0].partitions[0].home, None);
    // Nor later, when the topic is written for another reason.
    let mut altered = assignment.changed[0].clone();
    assignment.placement.settle(&none.image, &ServerConfig::default(), &mut altered);
    assert_eq!(altered.partitions[0].home, None);
}

#[test]
fn directories_of_deleted_topics_go_and_unknown_ones_stay() {
    let mut stored = stored(&[Some((A, 1))]);
    let gone = Uuid::from_u128(9);
    stored.deleted.push(topic(gone, &[Some((A, 1)), Some((B, 1))]));
    let a = [found(0, 7), found(1, 9), found(5, 7), SeenPartition { topic: "lost".into(), ..found(0, 33) }];
    let assignment = assign(&stored, &[opened(A, "/a", &a)], &[]);
    assert_eq!(assignment.doomed, [PathBuf::from("/a/t-1")]);
    let unclaimed: Vec<_> = assignment.unclaimed.iter().map(|(name, dir)| (name.as_str(), dir.clone())).collect();
    assert_eq!(unclaimed, [("lost", PathBuf::from("/a/lost-0")), ("t", "/a/t-5".into())]);
    // The rest of the deleted topic is in a directory that is not there.
    assert!(assignment.forgotten.is_empty());
    let assignment = assign(&stored, &[opened(A, "/a", &a), opened(B, "/b", &[])], &[]);
    assert_eq!(assignment.forgotten, [gone]);
    stored.directories.pop();
    assert_eq!(assign(&stored, &[opened(A, "/a", &a)], &[]).forgotten, [gone]);
}

#[test]
fn new_partitions_go_where_there_are_fewest() {
    let stored = stored(&[Some((A, 1)), Some((A, 1)), Some((B, 1))]);
    let directories = vec![(A, "/a".into()), (B, "/b".into())];
    let placement = Placement { directories, run: 9, ..Placement::default() };
    let mut new = topic(Uuid::from_u128(8), &[None, None, None]);
    placement.settle(&stored.image, &ServerConfig::default(), &mut new);
    let homes: Vec<_> = new.partitions.iter().map(|p| p.home.unwrap()).collect();
    assert_eq!(homes.iter().map(|home| home.directory).collect::<Vec<_>>(), [B, A, B]);
    assert!(homes.iter().all(|home| home.since_run == 9));
    let mut nowhere = topic(Uuid::from_u128(8), &[None]);
    Placement::default().settle(&stored.image, &ServerConfig::default(), &mut nowhere);
}

#[test]
fn a_copy_takes_the_place_of_an_original_that_is_gone() {
    let copy = |topic_id| MovedPartition { name: "t-0.0-moved".into(), of: found(0, topic_id) };
    let (here, none, moved, other) = ([found(0, 7)], [], [copy(7)], [copy(8)]);
    let assigned = |original: &[SeenPartition], copies: &[MovedPartition], home: Option<(DirectoryId, u64)>| {
        let dirs = [opened(A, "/a", original), Opened { moved: copies, ..opened(B, "/b", &none) }];
        let assignment = assign(&stored(&[home]), &dirs, &[]);
        let homes = assignment.changed.first().and_then(|topic| topic.partitions[0].home).map(|home| home.directory);
        let promoted: Vec<_> = assignment.promoted.iter().map(|p| (p.from.clone(), p.to.clone())).collect();
        (homes, promoted, assignment.doomed.clone(), reason(&assignment).to_owned())
    };
    let (from, to) = (PathBuf::from("/b/t-0.0-moved"), PathBuf::from("/b/t-0"));
    // The original is there: the last run ended before it went.
    assert_eq!(assigned(&here, &moved, Some((A, 1))), (None, vec![], vec![from.clone()], String::new()));
    assert_eq!(assigned(&none, &moved, Some((A, 1))), (Some(B), vec![(from.clone(), to)], vec![], String::new()));
    // Of another topic with its name.
    let (home, promoted, doomed, why) = assigned(&none, &other, Some((A, 1)));
    assert_eq!((home, promoted, doomed), (None, vec![], vec![]));
    assert!(why.contains("/a/t-0 is missing"), "{why}");
    // The original's directory is not in reach: it may have newer records.
    let only = [Opened { moved: &moved, ..opened(B, "/b", &none) }];
    let assignment = assign(&stored(&[Some((A, 1))]), &only, &[]);
    assert!(assignment.promoted.is_empty() && assignment.doomed.is_empty() && assignment.changed.is_empty());
    assert!(!reason(&assignment).is_empty());
    // Of a deleted topic, and of one whose record is lost.
    let mut without = stored(&[]);
    without.image = MetadataImage::default();
    assert!(assign(&without, &only, &[]).doomed.is_empty());
    without.deleted.push(topic(TOPIC, &[]));
    assert_eq!(assign(&without, &only, &[]).doomed, [from]);
}

#[test]
fn new_partitions_stay_off_cordoned_directories() {
    let cordoned = |dirs: &[&str]| ServerConfig {
        cordoned_log_dirs: dirs.iter().map(ToString::to_string).collect(),
        ..ServerConfig::default()
    };
    let places = |topic: &TopicImage| {
        topic.partitions.iter().map(|partition| partition.home.map(|home| home.directory)).collect::<Vec<_>>()
    };
    let directories = vec![(A, "/a".into()), (B, "/b".into())];
    let placement = Placement { directories, ..Placement::default() };
    let settled = |dirs: &[&str]| {
        let mut grown = topic(TOPIC, &[Some((B, 1)), None, None]);
        placement.settle(&stored(&[Some((B, 1))]).image, &cordoned(dirs), &mut grown);
        places(&grown)
    };
    assert_eq!(settled(&[]), [Some(B), Some(A), Some(A)]);
    assert_eq!(settled(&["/a"]), [Some(B), Some(B), Some(B)]);
    assert_eq!(settled(&["/b"]), [Some(B), Some(A), Some(A)], "what is there stays");
    assert_eq!(settled(&["*"]), [Some(B), Some(A), Some(A)], "the first one where all are");
    // So do those that a start settles.
    let (none, dirs) = (stored(&[None, None]), [opened(A, "/a", &[]), opened(B, "/b", &[])]);
    let assignment = super::assign(&none, &dirs, &[], &cordoned(&["/a"]));
    assert_eq!(places(&assignment.changed[0]), [Some(B), Some(B)]);
}
