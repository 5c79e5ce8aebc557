use std::collections::BTreeMap;
use std::time::SystemTime;

use super::*;
use crate::cluster::controller::{CreateTopic, create_topic};
use crate::model::PartitionId;
use crate::model::encode_id;
use crate::runtime::scratch;

/// A broker over directories `a`, `b`, ... of one scratch folder.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        Host { root: scratch() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn config(&self, names: &[&str]) -> ServerConfig {
        let log_dirs = names.iter().map(|name| self.path(name)).collect();
        ServerConfig { broker_id: 4, log_dirs, ..Default::default() }
    }

    fn open(&self, names: &[&str]) -> Result<DataDirs, String> {
        open(&self.config(names), None)
    }

    /// Starts, creates a topic with two partitions and their directories, and stops.
    fn with_topic(&self, names: &[&str]) -> (DirectoryId, DirectoryId) {
        let dirs = self.open(names).unwrap();
        let request =
            CreateTopic { name: "t".into(), num_partitions: 2, replication_factor: -1, ..CreateTopic::default() };
        let mut topic = create_topic(&dirs.image, &self.config(names), &request, uuid::Uuid::from_u128(77)).unwrap();
        dirs.placement.settle(&dirs.image, &ServerConfig::default(), &mut topic);
        dirs.store.put_topic(&topic).unwrap();
        for index in 0..2 {
            let dir = dirs.placement.dir(&topic, index).unwrap();
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("partition.metadata"), format!("version: 0\ntopic_id: {}\n", encode_id(topic.id)))
                .unwrap();
        }
        let ids: Vec<_> = topic.partitions.iter().map(|partition| partition.home.unwrap().directory).collect();
        (ids[0], ids[1])
    }
}

/// Every file and folder with its bytes and the time of its last change.
fn everything(root: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        found.insert(folder.clone(), (fs::metadata(&folder).unwrap().modified().unwrap(), Vec::new()));
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path.clone(), (modified, fs::read(&path).unwrap()));
            }
        }
    }
    found
}

fn offline(dirs: &DataDirs) -> Vec<String> {
    dirs.placement.offline.iter().map(|(id, why)| format!("{}: {why}", id.index)).collect()
}

#[test]
fn directories_keep_their_identity_in_any_order() {
    let host = Host::new();
    let (first, second) = host.with_topic(&["a", "b"]);
    assert_ne!(first, second);
    for names in [["a", "b"], ["b", "a"]] {
        let dirs = host.open(&names).unwrap();
        assert_eq!(offline(&dirs), Vec::<String>::new());
        let topic = dirs.image.topic("t").unwrap();
        for index in 0..2 {
            assert!(dirs.placement.dir(topic, index).unwrap().is_dir());
        }
        assert!(dirs.held.iter().all(|dir| !dir.fresh));
    }
    let dirs = host.open(&["new", "a", "b"]).unwrap();
    assert_eq!(dirs.held.iter().map(|dir| dir.fresh).collect::<Vec<_>>(), [true, false, false]);
    assert!(!host.path("new/corelane-metadata").exists());
}

/// One history stays, and nothing begins anew meanwhile.
#[test]
fn partitions_wait_for_a_directory_that_is_away() {
    let host = Host::new();
    host.with_topic(&["a", "b"]);
    let before = everything(&host.path("b"));
    let count = |names: &[&str]| host.open(names).unwrap().placement.offline.len();
    assert_eq!(count(&["a"]), 1, "not named");
    fs::rename(host.path("b"), host.path("away")).unwrap();
    assert_eq!(count(&["a", "b"]), 1, "not there");
    assert!(!host.path("b").exists());
    fs::create_dir(host.path("b")).unwrap();
    let dirs = host.open(&["a", "b"]).unwrap();
    assert!(
        offline(&dirs)[0].contains("is its disk mounted") || offline(&dirs)[0].contains("mount"),
        "{:?}",
        offline(&dirs)
    );
    assert_eq!(fs::read_dir(host.path("b")).unwrap().count(), 0, "nothing is written below a mount point");
    let reason = dirs.placement.offline.values().next().unwrap().to_string();
    let away = OfflineDir { path: host.path("b"), id: None, reason };
    let lines = offline_lines(&dirs.image, &dirs.placement, &[away]);
    assert!(lines.len() == 1 && lines[0].contains("with 1 partition(s) (t-"), "said once: {lines:?}");
    drop(dirs);
    fs::remove_dir(host.path("b")).unwrap();
    fs::rename(host.path("away"), host.path("b")).unwrap();
    assert_eq!(everything(&host.path("b")), before);
    assert_eq!(count(&["a", "b"]), 0, "back again");
}

#[test]
fn without_its_metadata_the_start_is_refused() {
    let host = Host::new();
    host.with_topic(&["a", "b"]);
    let before = everything(&host.path("b"));
    for names in [&["b"][..], &["c", "b"]] {
        let error = host.open(names).unwrap_err();
        assert!(error.contains("corelane-metadata") && error.contains("mount"), "{error}");
    }
    assert_eq!(everything(&host.path("b")), before);
    assert!(!host.path("c").exists());
}

#[test]
fn directories_of_others_are_left_exactly_as_they_are() {
    let host = Host::new();
    let kafka = |name: &str, meta: Option<&str>, inner: &[&str]| {
        for folder in inner {
            fs::create_dir_all(host.path(name).join(folder)).unwrap();
            fs::write(host.path(name).join(folder).join("00000000000000000000.log"), "records").unwrap();
        }
        if let Some(text) = meta {
            fs::write(host.path(name).join("meta.properties"), text).unwrap();
        }
    };
    let kraft = "version=1\nnode.id=4\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\ndirectory.id=AAAAAAAAAAAAAAAAq83vAA\n";
    kafka("kraft", Some(kraft), &["__cluster_metadata-0", "orders-0"]);
    kafka("zookeeper", Some("version=0\nbroker.id=4\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\n"), &["orders-0"]);
    kafka("bare", None, &["orders-0", "orders-1"]);
    kafka("photos", None, &["2026"]);
    host.with_topic(&["other"]);
    let mut config = host.config(&["other"]);
    config.broker_id = 5;
    for name in ["kraft", "zookeeper", "bare", "photos"] {
        let before = everything(&host.path(name));
        for names in [&[name][..], &["fresh", name], &["own", name]] {
            drop(host.open(&["own"]).unwrap());
            let own = everything(&host.path("own"));
            let error = host.open(names).unwrap_err();
            assert!(error.contains(name) && error.contains("Nothing in it was changed"), "{error}");
            assert_eq!(everything(&host.path("own")), own);
        }
        assert_eq!(everything(&host.path(name)), before);
        assert!(!host.path("fresh").exists());
    }
    let before = everything(&host.path("other"));
    let error = open(&config, None).unwrap_err();
    assert!(error.contains("node.id 4") && error.contains("node.id 5"), "{error}");
    assert_eq!(everything(&host.path("other")), before);
}

#[test]
fn what_can_be_mended_is_mended() {
    let host = Host::new();
    let (first, second) = host.with_topic(&["a", "b"]);
    let cluster = host.open(&["a", "b"]).unwrap().image.cluster_id;
    let files = ["a/meta.properties", "b/meta.properties", "a/corelane-metadata/cluster.json"];
    let lists = ["a/corelane-metadata/directories.json"];
    for file in files.iter().chain(&lists) {
        let good = fs::read(host.path(file)).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 4;
        for bad in [Some(&flipped[..]), Some(&good[..good.len() / 2]), Some(&[]), None] {
            match bad {
                Some(bytes) => fs::write(host.path(file), bytes).unwrap(),
                None => fs::remove_file(host.path(file)).unwrap(),
            }
            let dirs = host.open(&["a", "b"]).unwrap();
            assert_eq!(dirs.image.cluster_id, cluster, "{file}");
            assert_eq!(dirs.held.iter().map(|dir| dir.id).collect::<Vec<_>>(), [first, second], "{file}");
            assert_eq!(offline(&dirs), Vec::<String>::new(), "{file}");
        }
    }
}

#[test]
fn a_topic_whose_file_is_lost_keeps_its_directories_and_its_name() {
    let host = Host::new();
    host.with_topic(&["a"]);
    let file = host.path("a/corelane-metadata/topics/t.json");
    let good = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let before = everything(&host.path("a/t-0"));
    let image = host.open(&["a"]).unwrap().image;
    assert!(image.withheld("t").unwrap().contains("topics is lost"), "{:?}", image.withheld("t"));
    assert_eq!(everything(&host.path("a/t-0")), before);
    fs::write(&file, good).unwrap();
    let dirs = host.open(&["a"]).unwrap();
    assert!(dirs.image.all_withheld().is_empty() && dirs.image.topic("t").is_some());
    // A topic that was deleted is not a lost one, whatever its directories say.
    dirs.store.remove_topic("t", dirs.image.topic("t").unwrap().id).unwrap();
    drop(dirs);
    let dirs = host.open(&["a"]).unwrap();
    assert!(dirs.image.all_withheld().is_empty() && dirs.image.topic("t").is_none());
    assert!(!host.path("a/t-0").exists() && !host.path("a/t-1").exists());
}

/// As root, permissions hold nobody back; a file in the way fails for everybody.
#[test]
fn a_directory_that_fails_takes_only_its_partitions_with_it() {
    let host = Host::new();
    host.with_topic(&["a", "b"]);
    fs::rename(host.path("b"), host.path("away")).unwrap();
    fs::write(host.path("b"), "not a directory").unwrap();
    let dirs = host.open(&["a", "b"]).unwrap();
    assert_eq!(dirs.held.len(), 1);
    let offline = offline(&dirs);
    assert!(offline.len() == 1 && offline[0].contains("cannot be read"), "{offline:?}");
    drop(dirs);
    fs::rename(host.path("a"), host.path("a-away")).unwrap();
    fs::write(host.path("a"), "not a directory").unwrap();
    fs::remove_file(host.path("b")).unwrap();
    fs::rename(host.path("away"), host.path("b")).unwrap();
    let error = host.open(&["a", "b"]).unwrap_err();
    assert!(error.contains("/a cannot be read"), "{error}");
}

#[test]
fn a_directory_named_twice_is_refused_before_anything_is_made() {
    let host = Host::new();
    std::os::unix::fs::symlink(host.path("a"), host.path("link")).unwrap();
    fs::create_dir(host.path("a")).unwrap();
    for names in [["a", "a"], ["a", "link"]] {
        assert!(host.open(&names).unwrap_err().contains("twice"));
    }
    assert_eq!(fs::read_dir(host.path("a")).unwrap().count(), 0);
    // A link alone is a directory like any other.
    host.with_topic(&["link"]);
    assert_eq!(offline(&host.open(&["a"]).unwrap()), Vec::<String>::new());
}

/// Metadata that brokers share: topic `t` of this broker (4) and others.
fn shared(cluster: &str, topic: u128, replicas: &[&[i32]]) -> MetadataImage {
    let partition = |ids: &&[i32]| crate::cluster::PartitionImage {
        replicas: ids.iter().copied().map(BrokerId).collect(),
        ..Default::default()
    };
    let mut image = MetadataImage::default();
    image.cluster_id = cluster.to_owned();
    image.put_topic(crate::cluster::TopicImage {
        name: "t".into(),
        id: uuid::Uuid::from_u128(topic),
        partitions: replicas.iter().map(partition).collect(),
        overrides: BTreeMap::new(),
        config: Default::default(),
    });
    image
}

fn replica_dir(path: PathBuf, topic: u128) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    let id = encode_id(uuid::Uuid::from_u128(topic));
    fs::write(path.join("partition.metadata"), format!("version: 0\ntopic_id: {id}\n")).unwrap();
    path
}

#[test]
fn replicas_of_shared_topics_are_found_by_looking() {
    let host = Host::new();
    let open_shared = |image| open(&host.config(&["a", "b"]), Some(image));
    let first = open_shared(shared("c", 77, &[&[4], &[5], &[5, 4]])).unwrap();
    let homes = |dirs: &DataDirs| -> Vec<Option<DirectoryId>> {
        let topic = dirs.image.topic("t").unwrap();
        topic.partitions.iter().map(|partition| partition.home.map(|home| home.directory)).collect()
    };
    let ids: Vec<DirectoryId> = first.placement.directories.iter().map(|(id, _)| *id).collect();
    assert_eq!(homes(&first), [Some(ids[0]), None, Some(ids[1])], "only own replicas have a home");
    assert!(!host.path("a/corelane-metadata/topics/t.json").exists() && first.all);
    drop(first);
    // Found where they are, with what is left of a replica that went elsewhere, and
    // of a topic that is gone.
    replica_dir(host.path("b/t-0"), 77);
    let strays = [replica_dir(host.path("a/t-1"), 77), replica_dir(host.path("a/u-0"), 5)];
    let again = open_shared(shared("c", 77, &[&[4], &[5], &[5, 4]])).unwrap();
    assert_eq!(homes(&again), [Some(ids[1]), None, Some(ids[0])]);
    let mut found: Vec<_> =
        again.strays.iter().map(|stray| (stray.path.clone(), &*stray.topic, stray.directory)).collect();
    found.sort();
    let wanted = strays.iter().cloned().zip(["t", "u"]).map(|(path, topic)| (path, topic, ids[0]));
    assert_eq!(found, wanted.collect::<Vec<_>>());
    let partition = PartitionId::new(uuid::Uuid::from_u128(5), 0);
    assert!(again.strays.iter().any(|stray| stray.partition == partition), "the topic may come back");
    assert!(strays.iter().all(|dir| dir.exists()), "removed once the broker takes part");
    assert!(again.image.all_withheld().is_empty());
    drop(again);
    // A topic made anew under the name.
    let anew = open_shared(shared("c", 78, &[&[4]])).unwrap();
    assert_eq!(anew.strays.len(), 3, "{:?}", anew.strays);
}

#[test]
fn a_lost_directory_with_metadata_that_brokers_share_stops_no_start() {
    let host = Host::new();
    let topic = || shared("c", 77, &[&[4], &[4]]);
    let open_shared = |names: &[&str]| open(&host.config(names), Some(topic()));
    let first = open_shared(&["a", "b"]).unwrap();
    let ids: Vec<DirectoryId> = first.placement.directories.iter().map(|(id, _)| *id).collect();
    drop(first);
    replica_dir(host.path("a/t-0"), 77);
    replica_dir(host.path("b/t-1"), 77);
    let homes = |dirs: &DataDirs| -> Vec<Option<DirectoryId>> {
        let topic = dirs.image.topic("t").unwrap();
        topic.partitions.iter().map(|partition| partition.home.map(|home| home.directory)).collect()
    };
    // Its disk cannot be read.
    fs::rename(host.path("a"), host.path("away")).unwrap();
    fs::write(host.path("a"), "").unwrap();
    let failed = open_shared(&["a", "b"]).unwrap();
    assert_eq!((homes(&failed), failed.all), (vec![None, Some(ids[1])], false));
    assert!(offline(&failed)[0].starts_with("0: its directory may be in one that is not there"));
    assert!(host.path("b/corelane-metadata").is_dir());
    drop(failed);
    // It is back, with the metadata of before.
    fs::remove_file(host.path("a")).unwrap();
    fs::rename(host.path("away"), host.path("a")).unwrap();
    let back = open_shared(&["a", "b"]).unwrap();
    assert_eq!((homes(&back), back.all), (vec![Some(ids[0]), Some(ids[1])], true));
    drop(back);
    // Another disk is in its place, or none.
    fs::remove_dir_all(host.path("a")).unwrap();
    let replaced = open_shared(&["a", "b"]).unwrap();
    let new = replaced.placement.directories[0].0;
    assert!(homes(&replaced)[0] == Some(new) && new != ids[0] && replaced.all && offline(&replaced).is_empty());
    drop(replaced);
    fs::remove_dir_all(host.path("a")).unwrap();
    let without = open_shared(&["b"]).unwrap();
    assert_eq!(homes(&without), [Some(ids[1]), Some(ids[1])]);
    drop(without);
    // Of a broker that is alone it is missed.
    let alone = Host::new();
    alone.with_topic(&["a", "b"]);
    fs::remove_dir_all(alone.path("a")).unwrap();
    assert!(alone.open(&["a", "b"]).is_err());
}

/// Topic t with partitions that brokers lead in this epoch, and are alone in sync of.
fn led(topic: u128, epoch: i32, replicas: &[&[i32]]) -> MetadataImage {
    let mut image = shared("c", topic, replicas);
    let mut topic = crate::cluster::TopicImage::clone(image.topic("t").unwrap());
    for partition in &mut topic.partitions {
        partition.leader_epoch.0 = epoch;
        partition.isr = vec![partition.replicas[0]];
        partition.leader = Some(partition.replicas[0]);
    }
    image.put_topic(topic);
    image
}

/// Of the only replica there is, an empty one would hide the loss.
#[test]
fn a_sole_replica_whose_directory_left_log_dirs_is_not_made_anew() {
    let host = Host::new();
    let replicas: [&[i32]; 4] = [&[4], &[4], &[4, 5], &[4]];
    let open_led = |names: &[&str], epoch| open(&host.config(names), Some(led(77, epoch, &replicas))).unwrap();
    drop(open(&host.config(&["a", "b"]), Some(shared("c", 77, &[]))).unwrap());
    replica_dir(host.path("a/t-0"), 77);
    for index in [1, 2, 3] {
        replica_dir(host.path(&format!("b/t-{index}")), 77);
    }
    let homes = |dirs: &DataDirs| -> Vec<bool> {
        dirs.image.topic("t").unwrap().partitions.iter().map(|partition| partition.home.is_some()).collect()
    };
    drop(open_led(&["a", "b"], 1));
    for names in [&["a"][..], &["a"], &["a", "c"]] {
        let without = open_led(names, 1);
        assert_eq!(homes(&without), [true, false, true, false], "{names:?}: t-2 comes from another broker");
        let why = offline(&without);
        assert!(why.len() == 2 && why[0].starts_with("1: its directory is in none of log.dirs (before, "), "{why:?}");
        assert!(why[0].contains("/b was there as well)") && why[1].starts_with("3: "), "{why:?}");
        drop(without);
    }
    // The loss of one is accepted, and then the directory is back.
    fs::create_dir(host.path("a/t-3")).unwrap();
    let accepted = open_led(&["a"], 1);
    assert_eq!((homes(&accepted), offline(&accepted).len()), (vec![true, false, true, true], 1));
    drop(accepted);
    fs::remove_dir(host.path("a/t-3")).unwrap();
    let back = open_led(&["a", "b"], 1);
    assert_eq!((homes(&back), offline(&back)), (vec![true; 4], vec![]));
    drop(back);
    // It was removed by hand, or not made yet when the broker was killed.
    fs::remove_dir_all(host.path("b/t-1")).unwrap();
    let removed = open_led(&["a", "b"], 1);
    assert!(offline(&removed)[0].starts_with("1: its directory is in none of log.dirs, and no other"));
    drop(removed);
    assert_eq!(homes(&open_led(&["a", "b"], 0)), [true; 4]);
    // Its disk is not mounted, then it is.
    replica_dir(host.path("b/t-1"), 77);
    fs::rename(host.path("b"), host.path("away")).unwrap();
    for epoch in [1, 0, 1] {
        let unmounted = open_led(&["a", "b"], epoch);
        assert_eq!(homes(&unmounted), [true, false, true, false], "t-2 comes from another broker");
        assert!(offline(&unmounted)[0].contains("/b was there as well)"), "{:?}", offline(&unmounted));
    }
    fs::remove_dir_all(host.path("b")).unwrap();
    fs::rename(host.path("away"), host.path("b")).unwrap();
    let mounted = open_led(&["a", "b"], 1);
    assert_eq!((homes(&mounted), offline(&mounted)), (vec![true; 4], vec![]));
    drop(mounted);
    // The one that leaves had the list of them.
    for epoch in [0, 1] {
        let without = open_led(&["b"], epoch);
        assert!(offline(&without)[0].starts_with("0: its directory is in none of log.dirs, and no other"));
        drop(without);
        fs::remove_dir_all(host.path("b/corelane-metadata")).unwrap();
    }
    // All is lost.
    for dir in ["a", "b"] {
        fs::remove_dir_all(host.path(dir)).unwrap();
    }
    assert_eq!(homes(&open_led(&["a", "b"], 1)), [true; 4]);
}

/// Nothing removes them, so each start tells of them.
#[test]
fn directories_that_were_set_aside_are_told_of() {
    let host = Host::new();
    host.with_topic(&["a"]);
    let line = |host: &Host| set_aside_line(&look(&[host.path("a")])[0]);
    assert_eq!(line(&host), None);
    for name in ["u-1.77-stray", "t-0.5-stray"] {
        fs::create_dir(host.path("a").join(name)).unwrap();
    }
    let line = line(&host).unwrap();
    assert!(line.contains("2 directories") && line.contains("(t-0.5-stray, ...)"), "{line}");
    let dirs = host.open(&["a"]).unwrap();
    assert!(dirs.image.topic("t").is_some() && host.path("a/u-1.77-stray").exists());
}

#[test]
fn a_broker_alone_and_one_of_several_do_not_take_each_others_directories() {
    let host = Host::new();
    drop(open(&host.config(&["a"]), Some(shared("c", 77, &[&[4]]))).unwrap());
    let error = host.open(&["a"]).unwrap_err();
    assert!(error.contains("zookeeper.connect") && error.contains(LEFT), "{error}");
    let error = open(&host.config(&["a"]), Some(shared("d", 77, &[&[4]]))).unwrap_err();
    assert!(error.contains("belongs to cluster c") && error.contains("is d"), "{error}");
    let alone = Host::new();
    alone.with_topic(&["a"]);
    let error = open(&alone.config(&["a"]), Some(shared("c", 77, &[&[4]]))).unwrap_err();
    assert!(error.contains("a broker that is alone"), "{error}");
}
