use super::*;
use crate::cluster::controller::{CreateTopic, GrowTopic, create_topic, grow_topic};
use crate::config::ServerConfig;

fn config() -> ServerConfig {
    ServerConfig { broker_id: 4, ..Default::default() }
}

fn topic(image: &MetadataImage, name: &str) -> TopicImage {
    let request = CreateTopic {
        name: name.into(),
        num_partitions: 3,
        replication_factor: -1,
        configs: vec![("retention.ms".into(), Some("77".into()))],
        ..Default::default()
    };
    create_topic(image, &config(), &request, Uuid::new_v4()).unwrap()
}

fn opened() -> (tempfile::TempDir, LocalStore, MetadataImage) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::open(directory.path()).unwrap();
    let image = store.load(&config()).unwrap().image;
    (directory, store, image)
}

#[test]
fn topics_come_back_as_they_were_put() {
    let (directory, store, mut image) = opened();
    assert_eq!((image.brokers.len(), image.controller), (1, Some(BrokerId(4))));
    let long = "x".repeat(249);
    for name in ["orders", ".hidden", "a.tmp", "a.json", &long] {
        let topic = topic(&image, name);
        store.put_topic(&topic).unwrap();
        image.put_topic(topic);
    }
    let grown =
        grow_topic(&image, &ServerConfig::default(), &GrowTopic { name: "orders".into(), count: 5, assignments: None })
            .unwrap();
    store.put_topic(&grown).unwrap();
    let removed = image.topic("a.json").unwrap().id;
    store.remove_topic("a.json", removed).unwrap();
    store.remove_topic("a.json", removed).unwrap();

    let stored = LocalStore::open(directory.path()).unwrap().load(&config()).unwrap();
    assert_eq!(stored.deleted.iter().map(|topic| topic.id).collect::<Vec<_>>(), [removed]);
    store.forget_deleted(removed).unwrap();
    store.forget_deleted(removed).unwrap();
    assert!(store.load(&config()).unwrap().deleted.is_empty());
    let again = stored.image;
    assert_eq!(again.cluster_id, image.cluster_id);
    let names: Vec<_> = again.topics().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, [".hidden".to_owned(), "a.tmp".into(), "orders".into(), long]);
    let orders = again.topic("orders").unwrap();
    assert_eq!((orders.id, &orders.partitions, &orders.overrides), (grown.id, &grown.partitions, &grown.overrides));
    assert_eq!(orders.config.retention_ms, Some(77));
    assert!(store.put_topic(&TopicImage { name: "../evil".into(), ..grown }).is_err());
    assert!(store.remove_topic("../cluster", removed).is_err());
}

#[test]
fn a_write_that_was_cut_off_leaves_the_old_topic() {
    let (directory, store, image) = opened();
    let topic = topic(&image, "t");
    store.put_topic(&topic).unwrap();
    // Leftovers of a kill between write and rename: half a file under the temporary name.
    let leftovers = [store.topics().join(format!("{}.tmp", topic.id)), store.directory.join("cluster.tmp")];
    for leftover in &leftovers {
        fs::write(leftover, b"{\"format\":1,\"na").unwrap();
    }
    let again = LocalStore::open(directory.path()).unwrap();
    assert!(leftovers.iter().all(|leftover| !leftover.exists()));
    assert_eq!(again.load(&config()).unwrap().image.topic("t").unwrap().id, topic.id);
}

#[test]
fn a_kill_before_the_cluster_file_was_there_is_a_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let metadata = directory.path().join("corelane-metadata");
    fs::create_dir_all(metadata.join("topics")).unwrap();
    fs::write(metadata.join("cluster.tmp"), b"").unwrap();
    assert_eq!(LocalStore::open(directory.path()).unwrap().cluster_id().unwrap().len(), 22);
}

/// Neither is the start refused nor the topic forgotten: no new one may take its name.
#[test]
fn a_damaged_topic_is_withheld_whatever_the_damage() {
    let (_directory, store, image) = opened();
    store.put_topic(&topic(&image, "t")).unwrap();
    store.put_topic(&topic(&image, "sound")).unwrap();
    let path = store.topic_file("t").unwrap();
    let good = fs::read(&path).unwrap();
    for position in 0..good.len() {
        for bad in [good[..position].to_vec(), {
            let mut flipped = good.clone();
            flipped[position] ^= 0x10;
            flipped
        }] {
            fs::write(&path, &bad).unwrap();
            let image = store.load(&config()).unwrap().image;
            let why = image.withheld("t").unwrap();
            assert!(why.contains("topics/t.json") && why.contains("damaged") && why.contains("restore"), "{why}");
            assert!(image.topic("t").is_none() && image.topic("sound").is_some());
            let request = CreateTopic { name: "t".into(), ..Default::default() };
            let error = create_topic(&image, &config(), &request, Uuid::new_v4()).unwrap_err();
            assert_eq!(error.code, crate::model::ErrorCode::KafkaStorageError);
        }
    }
    fs::write(&path, &good).unwrap();
    assert!(store.load(&config()).unwrap().image.all_withheld().is_empty());
    fs::copy(&path, store.topics().join("u.json")).unwrap();
    assert!(store.load(&config()).unwrap().image.withheld("u").unwrap().contains("u.json"));
}

#[test]
fn a_damaged_or_missing_cluster_file_is_told_apart_from_a_first_start() {
    let (directory, store, _) = opened();
    let (file, good) = (store.cluster_file(), fs::read(store.cluster_file()).unwrap());
    for bad in [Some(&good[..10]), None] {
        match bad {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let stored = store.load(&config()).unwrap();
        assert!(stored.cluster_lost.unwrap().contains("cluster.json"));
        assert!(stored.image.cluster_id.is_empty());
    }
    store.prepare("abc", false).unwrap();
    assert_eq!(LocalStore::at(directory.path()).cluster_id().unwrap(), "abc");
}

#[test]
fn the_list_of_directories_comes_back_and_its_loss_costs_nothing() {
    let (_directory, store, image) = opened();
    let known = [KnownDirectory { id: DirectoryId::random(), path: "/data/a".into() }];
    store.put_directories(7, &known).unwrap();
    let stored = store.load(&config()).unwrap();
    assert_eq!((stored.run, stored.directories.as_slice()), (7, &known[..]));
    let mut made = topic(&image, "t");
    made.partitions[1].home = Some(PartitionHome { directory: known[0].id, since_run: 6 });
    store.put_topic(&made).unwrap();
    fs::write(store.directories_file(), "{").unwrap();
    let stored = store.load(&config()).unwrap();
    assert_eq!((stored.run, stored.directories.len()), (6, 0));
    assert_eq!(stored.image.topic("t").unwrap().partitions, made.partitions);
}

#[test]
fn another_brokers_topics_are_refused() {
    let (_directory, store, image) = opened();
    store.put_topic(&topic(&image, "t")).unwrap();
    let error = store.load(&ServerConfig::default()).unwrap_err().to_string();
    assert!(error.contains("broker 0") && error.contains("node.id"), "{error}");
}

#[test]
fn producer_ids_are_given_once() {
    let (directory, store, _) = opened();
    store.begin_producer_ids().unwrap();
    assert_eq!(store.reserve_producer_ids(1000, -1).unwrap(), 0);
    assert_eq!(store.reserve_producer_ids(10, 999).unwrap(), 1000);
    let again = LocalStore::open(directory.path()).unwrap();
    assert_eq!(again.reserve_producer_ids(1, -1).unwrap(), 1010);
    let mut all: Vec<i64> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..10).map(|_| again.reserve_producer_ids(2, -1).unwrap()).collect::<Vec<_>>()))
            .collect();
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert_eq!(all, (0..40).map(|n| 1011 + 2 * n).collect::<Vec<_>>());
}

/// Each file damaged in every way, missing, or older; the other one, or the
/// logs, tell where to go on.
#[test]
fn producer_ids_go_on_beyond_every_one_given_whatever_is_lost() {
    let (_directory, store, _) = opened();
    store.begin_producer_ids().unwrap();
    let files = PRODUCER_ID_FILES.map(|name| store.directory.join(name));
    let older = fs::read(&files[0]).unwrap();
    let mut given = store.reserve_producer_ids(1000, -1).unwrap() + 1000;
    let good = fs::read(&files[0]).unwrap();
    let mut bad: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new()), Some(older)];
    for position in 0..good.len() {
        let mut flipped = good.clone();
        flipped[position] ^= 4;
        bad.push(Some(flipped));
    }
    let put = |file: &Path, bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => fs::write(file, bytes).unwrap(),
        None => fs::remove_file(file).unwrap(),
    };
    for bytes in &bad {
        for file in &files {
            put(file, bytes);
            let next = store.reserve_producer_ids(10, -1).unwrap();
            assert_eq!(next, given, "{file:?} {bytes:?}");
            given = next + 10;
        }
    }
    for bytes in &bad {
        files.iter().for_each(|file| put(file, bytes));
        // Of the ids given, the logs have seen the last but a few.
        let next = store.reserve_producer_ids(10, given - 5).unwrap();
        assert!(next >= given, "{bytes:?}: {next} after {given}");
        given = next + 10;
    }
}

#[test]
fn cluster_ids_are_spelled_as_kafka_does() {
    let id = new_cluster_id();
    assert!(id.len() == 22 && !id.starts_with('-'));
}
