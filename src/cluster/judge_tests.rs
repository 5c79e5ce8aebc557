use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::cluster::look::SeenPartition;
use crate::cluster::meta_properties::MetaProperties;
use crate::cluster::metadata_store::KnownDirectory;
use crate::cluster::{PartitionHome, PartitionImage, TopicImage};
use crate::config::TopicConfig;
use crate::model::{BrokerId, LeaderEpoch};

const A: DirectoryId = DirectoryId(Uuid::from_u128(0xa00));
const B: DirectoryId = DirectoryId(Uuid::from_u128(0xb00));
const NEW: DirectoryId = DirectoryId(Uuid::from_u128(0xffff));
const TOPIC: Uuid = Uuid::from_u128(7);

fn dir(path: &str, contents: Contents) -> Seen {
    Seen { path: path.into(), real: path.into(), contents }
}

fn used(meta: MetaFile) -> Used {
    Used {
        meta,
        metadata: false,
        partitions: Vec::new(),
        moved: Vec::new(),
        future: Vec::new(),
        deleted: 0,
        set_aside: Vec::new(),
        other: Vec::new(),
    }
}

fn meta(node_id: i32, cluster: &str, id: Option<DirectoryId>) -> MetaFile {
    MetaFile::Sound(MetaProperties { node_id, cluster_id: cluster.into(), directory_id: id })
}

fn home_dir() -> Seen {
    dir("/a", Contents::Used(Used { metadata: true, ..used(meta(1, "c", Some(A))) }))
}

fn ours(path: &str, id: Option<DirectoryId>) -> Seen {
    dir(path, Contents::Used(used(meta(1, "c", id))))
}

fn partition(topic_id: Option<Uuid>) -> SeenPartition {
    SeenPartition { topic: "t".into(), index: 0, topic_id, sound: topic_id.is_some() }
}

fn empty(path: &str) -> Seen {
    dir(path, Contents::Vacant { exists: true })
}

/// Topic `t` with one partition, in directory B, which was at /b.
fn stored() -> Stored {
    let partition = PartitionImage {
        leader: Some(BrokerId(1)),
        leader_epoch: LeaderEpoch(0),
        replicas: vec![BrokerId(1)],
        isr: vec![BrokerId(1)],
        home: Some(PartitionHome { directory: B, since_run: 1 }),
        ..PartitionImage::default()
    };
    let mut stored = Stored { run: 5, ..Stored::default() };
    stored.image.cluster_id = "c".into();
    stored.image.put_topic(TopicImage {
        name: "t".into(),
        id: TOPIC,
        partitions: vec![partition],
        overrides: BTreeMap::new(),
        config: Arc::new(TopicConfig::default()),
    });
    stored.directories = [(A, "/a"), (B, "/b")].map(|(id, path)| KnownDirectory { id, path: path.into() }).to_vec();
    stored
}

fn verdict(seen: &[Seen]) -> Result<Verdict, String> {
    verdict_with(seen, &stored())
}

fn verdict_with(seen: &[Seen], stored: &Stored) -> Result<Verdict, String> {
    let home = find_home(seen, None)?;
    judge(seen, home, stored, 1, &mut || NEW)
}

fn states(verdict: &Verdict) -> Vec<(&str, DirectoryId, &State)> {
    verdict.usable.iter().map(|dir| (dir.path.to_str().unwrap(), dir.id, &dir.state)).collect()
}

#[test]
fn own_directories_are_known_in_any_order_and_new_ones_are_fine() {
    for seen in [vec![home_dir(), ours("/b", Some(B)), empty("/c")], vec![empty("/c"), ours("/b", Some(B)), home_dir()]]
    {
        let verdict = verdict(&seen).unwrap();
        let mut found = states(&verdict);
        found.sort_by_key(|(path, ..)| *path);
        let expected = [("/a", A, &State::Sound), ("/b", B, &State::Sound), ("/c", NEW, &State::Fresh)];
        assert_eq!((found.as_slice(), verdict.offline.len()), (&expected[..], 0));
    }
    // A directory that was mounted elsewhere keeps its identity.
    assert_eq!(
        states(&verdict(&[home_dir(), ours("/elsewhere", Some(B))]).unwrap())[1],
        ("/elsewhere", B, &State::Sound)
    );
    let first = verdict_with(&[empty("/a"), empty("/b")], &Stored::default()).unwrap();
    assert_eq!((first.cluster_id.as_deref(), states(&first).len()), (None, 2));
}

#[test]
fn an_empty_directory_in_the_place_of_one_with_partitions_is_not_taken() {
    for exists in [true, false] {
        let verdict = verdict(&[home_dir(), dir("/b", Contents::Vacant { exists })]).unwrap();
        assert_eq!(states(&verdict), [("/a", A, &State::Sound)]);
        let offline = &verdict.offline[0];
        assert!(
            offline.id == Some(B) && offline.reason.contains("/b") && offline.reason.contains("mount"),
            "{offline:?}"
        );
    }
    // Once its topics are deleted it is an empty directory like any other.
    let mut without = stored();
    without.image.remove_topic("t");
    let verdict = verdict_with(&[home_dir(), empty("/b")], &without).unwrap();
    assert_eq!(states(&verdict)[1], ("/b", NEW, &State::Fresh));
    // As long as a topic's metadata is lost, its partitions may be there.
    without.image.withhold("t", "damaged".into());
    assert_eq!(verdict_with(&[home_dir(), empty("/b")], &without).unwrap().offline.len(), 1);
}

#[test]
fn a_directory_that_fails_is_offline_unless_the_metadata_may_be_in_it() {
    let failed = || dir("/b", Contents::Failed("EIO".into()));
    let verdict = verdict(&[home_dir(), failed()]).unwrap();
    assert_eq!((verdict.offline[0].id, verdict.usable.len()), (Some(B), 1));
    for seen in [vec![failed()], vec![failed(), empty("/c")], vec![failed(), ours("/a", Some(A))]] {
        assert!(find_home(&seen, None).unwrap_err().contains("/b cannot be read: EIO"));
    }
}

#[test]
fn directories_of_others_end_the_start() {
    let partitions =
        |topic_id| Contents::Used(Used { partitions: vec![partition(topic_id)], ..used(MetaFile::Missing) });
    let other = |name: &str| Contents::Used(Used { other: vec![name.into()], ..used(MetaFile::Missing) });
    for (contents, words) in [
        (Contents::Used(used(meta(2, "c", None))), "node.id 2"),
        (Contents::Used(used(meta(1, "d", None))), "cluster d"),
        (Contents::Used(used(MetaFile::ZooKeeper)), "ZooKeeper"),
        (partitions(None), "no topic of this broker claims"),
        (partitions(Some(Uuid::from_u128(8))), "t-0"),
        (other("photos"), "photos"),
        (other("bootstrap.checkpoint"), "KRaft"),
    ] {
        let error = verdict(&[home_dir(), dir("/x", contents.clone())]).unwrap_err();
        assert!(error.contains("/x") && error.contains(words) && error.contains("Nothing"), "{error}");
        let alone = find_home(&[dir("/x", contents)], None).unwrap_err();
        assert!(alone.contains("/x") && alone.contains(words) && alone.contains("Nothing"), "{alone}");
    }
}

#[test]
fn data_without_its_metadata_is_never_a_first_start() {
    let error = find_home(&[empty("/a"), ours("/b", Some(B))], None).unwrap_err();
    assert!(error.contains("/a is missing or empty") && error.contains("corelane-metadata"), "{error}");
    let mut other = home_dir();
    (other.path, other.real) = ("/b".into(), "/b".into());
    assert!(find_home(&[home_dir(), other], None).unwrap_err().contains("both hold a corelane-metadata"));
    assert!(find_home(&[], None).is_err());
}

#[test]
fn metadata_that_brokers_share_is_had_again() {
    let sharing = Some((1, "c"));
    let failed = || dir("/a", Contents::Failed("EIO".into()));
    assert_eq!(find_home(&[empty("/a"), ours("/b", Some(B))], sharing), Ok(Home::Anew(1)));
    assert_eq!(find_home(&[ours("/b", Some(B)), failed()], sharing), Ok(Home::Anew(0)));
    assert_eq!(find_home(&[home_dir(), ours("/b", Some(B))], sharing), Ok(Home::Held(0)));
    assert_eq!(find_home(&[empty("/a")], sharing), Ok(Home::First));
    let (mut other, mut foreign) = (home_dir(), used(meta(1, "d", Some(B))));
    (other.path, other.real) = ("/b".into(), "/b".into());
    assert_eq!(find_home(&[home_dir(), other], sharing), Ok(Home::Held(0)), "the old one is back");
    assert!(find_home(&[empty("/a"), dir("/b", Contents::Used(foreign.clone()))], sharing).is_err());
    foreign.metadata = true;
    assert!(find_home(&[home_dir(), dir("/b", Contents::Used(foreign))], sharing).is_err());
}

#[test]
fn one_directory_twice_is_refused() {
    let link = Seen { path: "/link".into(), ..home_dir() };
    assert!(find_home(&[home_dir(), link], None).unwrap_err().contains("twice (/a and /link)"));
    let error = verdict(&[home_dir(), ours("/b", Some(B)), ours("/copy", Some(B))]).unwrap_err();
    assert!(error.contains("/b and /copy have the same directory.id"), "{error}");
}

#[test]
fn a_damaged_identity_is_mended_where_the_contents_prove_it() {
    for broken in [MetaFile::Missing, MetaFile::Damaged("x".into())] {
        let mut home = home_dir();
        home.contents = Contents::Used(Used { metadata: true, ..used(broken.clone()) });
        let mut b = used(broken.clone());
        b.partitions = vec![partition(Some(TOPIC))];
        // Also where the directory is mounted elsewhere now.
        for path in ["/b", "/elsewhere"] {
            let verdict = verdict(&[home.clone(), dir(path, Contents::Used(b.clone()))]).unwrap();
            let found: Vec<_> = verdict.usable.iter().map(|d| (d.id, matches!(d.state, State::Mend(_)))).collect();
            assert_eq!(found, [(A, true), (B, true)], "{path}");
        }
    }
    // The identity of a directory that is there is not given to another one.
    let mut old = used(MetaFile::Damaged("x".into()));
    old.partitions = vec![partition(Some(TOPIC))];
    let verdict = verdict(&[home_dir(), ours("/moved", Some(B)), dir("/b", Contents::Used(old))]).unwrap();
    assert_eq!(verdict.usable.iter().map(|dir| dir.id).collect::<Vec<_>>(), [A, B, NEW]);
}

#[test]
fn directories_of_older_releases_get_their_ids() {
    let mut old = stored();
    old.directories.clear();
    let mut home = home_dir();
    home.contents = Contents::Used(Used { metadata: true, ..used(meta(1, "c", None)) });
    let verdict = verdict_with(&[home], &old).unwrap();
    assert!(matches!(states(&verdict)[..], [("/a", NEW, State::Mend(_))]));
}

#[test]
fn a_lost_cluster_id_comes_from_the_directories() {
    let mut lost = stored();
    lost.image.cluster_id.clear();
    lost.cluster_lost = Some("cluster.json: damaged".into());
    assert_eq!(verdict_with(&[home_dir()], &lost).unwrap().cluster_id.as_deref(), Some("c"));
    let mut bare = home_dir();
    bare.contents = Contents::Used(Used { metadata: true, ..used(MetaFile::Missing) });
    let verdict = verdict_with(&[bare.clone(), ours("/b", Some(B))], &lost).unwrap();
    assert_eq!(verdict.cluster_id.as_deref(), Some("c"));
    assert!(verdict_with(&[bare], &lost).unwrap_err().contains("cluster.json"));
}
