use super::*;
use crate::cluster::BrokerImage;

fn image(brokers: i32) -> MetadataImage {
    let broker = |id| BrokerImage::alone(BrokerId(id), Vec::new(), None);
    let mut image = MetadataImage::default();
    image.brokers = (0..brokers).map(broker).collect();
    image
}

fn request(name: &str) -> CreateTopic {
    CreateTopic { name: name.into(), num_partitions: -1, replication_factor: -1, ..Default::default() }
}

fn create(image: &MetadataImage, request: &CreateTopic) -> Result<TopicImage, ControlError> {
    create_topic(image, &ServerConfig::default(), request, Uuid::from_u128(5))
}

fn code(result: Result<TopicImage, ControlError>) -> ErrorCode {
    result.unwrap_err().code
}

fn assign(pairs: &[(i32, &[i32])]) -> CreateTopic {
    let assignments = pairs.iter().map(|(index, replicas)| (*index, replicas.to_vec())).collect();
    CreateTopic { assignments, ..request("t") }
}

#[test]
fn a_topic_takes_defaults_and_overrides() {
    let config = ServerConfig { num_partitions: 3, ..Default::default() };
    let mut wanted = request("t");
    wanted.configs = vec![("retention.ms".into(), Some("5".into()))];
    let topic = create_topic(&image(1), &config, &wanted, Uuid::from_u128(5)).unwrap();
    assert_eq!((topic.partitions.len(), topic.config.retention_ms, topic.id), (3, Some(5), Uuid::from_u128(5)));
    assert_eq!(topic.overrides.len(), 1);
    for partition in &topic.partitions {
        assert_eq!((partition.leader, partition.leader_epoch), (Some(BrokerId(0)), LeaderEpoch(0)));
        assert_eq!((&partition.replicas, &partition.isr), (&vec![BrokerId(0)], &vec![BrokerId(0)]));
    }
}

#[test]
fn replicas_are_distinct_and_leaders_spread() {
    let wanted = CreateTopic { num_partitions: 6, replication_factor: 2, ..request("t") };
    let topic = create(&image(3), &wanted).unwrap();
    let mut leaders = [0; 3];
    for partition in &topic.partitions {
        assert_eq!(partition.replicas.len(), 2);
        assert_ne!(partition.replicas[0], partition.replicas[1]);
        leaders[partition.leader.unwrap().0 as usize] += 1;
    }
    assert_eq!(leaders, [2, 2, 2]);
}

#[test]
fn names_follow_kafkas_rules() {
    for good in ["a", "A.b_c-9", "...", &"x".repeat(249), "__consumer_offsets"] {
        assert_eq!(check_topic_name(good), Ok(()), "{good}");
    }
    for bad in ["", ".", "..", &"x".repeat(250), "a b", "a/b", "é", "a\0", "a\n"] {
        assert_eq!(check_topic_name(bad).unwrap_err().code, ErrorCode::InvalidTopicException, "{bad:?}");
    }
}

#[test]
fn existing_and_colliding_names_are_refused() {
    let mut image = image(1);
    image.put_topic(create(&image, &request("a.b_c")).unwrap());
    assert_eq!(code(create(&image, &request("a.b_c"))), ErrorCode::TopicAlreadyExists);
    let collision = create(&image, &request("a_b.c")).unwrap_err();
    assert_eq!(collision.code, ErrorCode::InvalidTopicException);
    assert!(collision.message.contains("a.b_c"), "{collision}");
    assert!(create(&image, &request("a-b_c")).is_ok());
    assert!(create(&image, &request("a.b_cc")).is_ok());
}

#[test]
fn counts_have_bounds() {
    let with = |num_partitions, replication_factor| {
        create(&image(1), &CreateTopic { num_partitions, replication_factor, ..request("t") })
    };
    for wrong in [0, -2, i32::MIN] {
        assert_eq!(code(with(wrong, 1)), ErrorCode::InvalidPartitions);
        assert_eq!(code(with(1, wrong.max(-2) as i16)), ErrorCode::InvalidReplicationFactor);
    }
    assert_eq!(code(with(i32::MAX, 1)), ErrorCode::PolicyViolation);
    assert_eq!(code(with(1, 2)), ErrorCode::InvalidReplicationFactor);
    assert_eq!(code(with(1, i16::MAX)), ErrorCode::InvalidReplicationFactor);
    assert_eq!(with(MAX_PARTITIONS_PER_TOPIC, 1).unwrap().partitions.len(), 100_000);
    assert_eq!(code(create(&image(0), &request("t"))), ErrorCode::InvalidReplicationFactor);
}

#[test]
fn the_option_for_the_default_count_has_the_same_bound() {
    let spec = crate::config::OPTIONS.iter().find(|spec| spec.name == "num.partitions").unwrap();
    assert_eq!(spec.bounds, crate::config::Bounds::Between(1, MAX_PARTITIONS_PER_TOPIC.into()));
}

#[test]
fn manual_assignments_are_checked() {
    let image = image(3);
    let good = create(&image, &assign(&[(0, &[2, 1]), (1, &[0, 2])])).unwrap();
    assert_eq!(good.partitions[0].leader, Some(BrokerId(2)));
    assert_eq!(good.partitions[1].replicas, [BrokerId(0), BrokerId(2)]);
    for wrong in [
        assign(&[(0, &[0]), (2, &[1])]),
        assign(&[(1, &[0])]),
        assign(&[(-1, &[0]), (0, &[0])]),
        assign(&[(0, &[3])]),
        assign(&[(0, &[-1])]),
        assign(&[(0, &[1, 1])]),
        assign(&[(0, &[])]),
        assign(&[(0, &[0]), (1, &[0, 1])]),
    ] {
        assert_eq!(code(create(&image, &wrong)), ErrorCode::InvalidReplicaAssignment, "{wrong:?}");
    }
    for wrong in [
        CreateTopic { num_partitions: 1, ..assign(&[(0, &[0])]) },
        CreateTopic { replication_factor: 1, ..assign(&[(0, &[0])]) },
    ] {
        assert_eq!(code(create(&image, &wrong)), ErrorCode::InvalidRequest);
    }
}

#[test]
fn wrong_configs_are_refused() {
    for (name, value) in [("nonsense", Some("1")), ("retention.ms", Some("x")), ("retention.ms", None)] {
        let configs = vec![(name.to_owned(), value.map(str::to_owned))];
        let error = create(&image(1), &CreateTopic { configs, ..request("t") }).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.message.contains(name), "{error}");
    }
}

#[test]
fn growing_keeps_what_is_there() {
    let mut image = image(2);
    let wanted = CreateTopic { num_partitions: 2, ..request("t") };
    image.put_topic(create(&image, &wanted).unwrap());
    let before = image.topic("t").unwrap().clone();
    let grow = |count, assignments: Option<&[&[i32]]>| {
        let assignments = assignments.map(|all| all.iter().map(|one| one.to_vec()).collect());
        grow_topic(&image, &ServerConfig::default(), &GrowTopic { name: "t".into(), count, assignments })
    };
    let grown = grow(4, None).unwrap();
    assert_eq!((grown.partitions.len(), grown.id, &grown.partitions[..2]), (4, before.id, &before.partitions[..]));
    assert_eq!(grow(3, Some(&[&[1]])).unwrap().partitions[2].leader, Some(BrokerId(1)));
    assert_eq!(code(grow(2, None)), ErrorCode::InvalidPartitions);
    for count in [1, 0, -1, i32::MIN] {
        assert_eq!(code(grow(count, None)), ErrorCode::InvalidPartitions);
    }
    assert_eq!(code(grow(i32::MAX, None)), ErrorCode::PolicyViolation);
    assert_eq!(code(grow(3, Some(&[]))), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(code(grow(3, Some(&[&[0], &[1]]))), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(code(grow(3, Some(&[&[0, 1]]))), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(code(grow(3, Some(&[&[9]]))), ErrorCode::InvalidReplicaAssignment);
    let unknown =
        grow_topic(&image, &ServerConfig::default(), &GrowTopic { name: "u".into(), count: 1, assignments: None });
    assert_eq!(code(unknown), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn repeated_names_are_found() {
    assert_eq!(repeated_names(["a", "b", "a", "c", "a"]), BTreeSet::from(["a"]));
    assert!(repeated_names(["a", "b"]).is_empty());
}

#[test]
fn options_are_set_deleted_and_lists_changed() {
    let mut image = image(1);
    let mut wanted = request("t");
    wanted.configs = vec![("retention.ms".into(), Some("5".into())), ("segment.bytes".into(), Some("2097152".into()))];
    image.put_topic(create(&image, &wanted).unwrap());
    let alter = |set: &[(&str, ConfigOp)]| {
        let set = set.iter().map(|(name, op)| (name.to_string(), op.clone())).collect();
        alter_topic(&image, &ServerConfig::default(), &AlterTopic { name: "t".into(), set, ..Default::default() })
    };
    let set = |value: &str| ConfigOp::Set(value.into());
    let topic = alter(&[("retention.ms", set("7")), ("segment.bytes", ConfigOp::Delete)]).unwrap();
    assert_eq!((topic.config.retention_ms, topic.config.segment_bytes), (Some(7), 1 << 30));
    assert_eq!(topic.overrides, BTreeMap::from([("retention.ms".to_owned(), "7".to_owned())]));
    assert_eq!((topic.id, topic.partitions.len()), (Uuid::from_u128(5), 1));
    // An option that is not set can be deleted, known or not.
    assert_eq!(alter(&[("no.such.option", ConfigOp::Delete)]).unwrap().overrides.len(), 2);

    let lists = [
        (ConfigOp::Append("delete".into()), Ok("delete")),
        (ConfigOp::Append("compact".into()), Ok("delete,compact")),
        (ConfigOp::Subtract("compact".into()), Ok("delete")),
        (ConfigOp::Subtract("delete".into()), Ok("")),
        (ConfigOp::Append("shred".into()), Err("cleanup.policy")),
    ];
    for (op, expected) in lists {
        let result = alter(&[("cleanup.policy", op.clone())]);
        match (result, expected) {
            (Ok(topic), Ok(value)) => assert_eq!(topic.overrides["cleanup.policy"], value, "{op:?}"),
            (Err(error), Err(part)) => assert!(error.message.contains(part), "{op:?}: {error}"),
            (result, _) => panic!("{op:?}: {result:?}"),
        }
    }
}

#[test]
fn a_replacement_leaves_nothing_else() {
    let mut image = image(1);
    let mut wanted = request("t");
    wanted.configs = vec![("retention.ms".into(), Some("5".into())), ("segment.bytes".into(), Some("2097152".into()))];
    image.put_topic(create(&image, &wanted).unwrap());
    let replace = |pairs: &[(&str, &str)]| {
        let set = pairs.iter().map(|(name, value)| (name.to_string(), ConfigOp::Set(value.to_string()))).collect();
        let topic = alter_topic(&image, &ServerConfig::default(), &AlterTopic { name: "t".into(), replace: true, set });
        topic.map(|topic| (topic.overrides, topic.config.retention_ms, topic.config.segment_bytes))
    };
    let retention = BTreeMap::from([("retention.ms".to_owned(), "7".to_owned())]);
    assert_eq!(replace(&[("retention.ms", "7")]), Ok((retention, Some(7), 1 << 30)));
    let week = TopicConfig::default().retention_ms;
    assert_eq!(replace(&[]), Ok((BTreeMap::new(), week, 1 << 30)));
    assert_eq!(replace(&[("retention.ms", "soon")]).unwrap_err().code, ErrorCode::InvalidConfig);
}

#[test]
fn wrong_changes_leave_a_topic_as_it_is() {
    let mut image = image(1);
    image.put_topic(create(&image, &request("t")).unwrap());
    let alter = |name: &str, option: &str, op: ConfigOp| {
        let set = vec![("retention.ms".to_owned(), ConfigOp::Set("5".into())), (option.to_owned(), op)];
        code(alter_topic(
            &image,
            &ServerConfig::default(),
            &AlterTopic { name: name.into(), set, ..Default::default() },
        ))
    };
    let set = |value: &str| ConfigOp::Set(value.into());
    assert_eq!(alter("zz", "segment.bytes", ConfigOp::Delete), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(alter("a/b", "segment.bytes", ConfigOp::Delete), ErrorCode::InvalidTopicException);
    for (option, op) in [
        ("segment.bytes", set("soon")),
        ("no.such.option", set("1")),
        ("segment.bytes", ConfigOp::Append("1".into())),
        ("no.such.option", ConfigOp::Subtract("1".into())),
        ("message.timestamp.type", set(&"x".repeat(40_000))),
    ] {
        assert_eq!(alter("t", option, op.clone()), ErrorCode::InvalidConfig, "{option} {op:.30?}");
    }
}

#[test]
fn lags_that_contradict_each_other_are_refused_when_made_and_when_changed() {
    let mut image = image(1);
    let lag = |name: &str, value: &str| (format!("{name}.compaction.lag.ms"), Some(value.to_owned()));
    let wanted = CreateTopic { configs: vec![lag("min", "6"), lag("max", "5")], ..request("t") };
    assert_eq!(code(create(&image, &wanted)), ErrorCode::InvalidConfig);
    let wanted = CreateTopic { configs: vec![lag("min", "5"), lag("max", "5")], ..request("t") };
    image.put_topic(create(&image, &wanted).unwrap());
    let alter = |config: &ServerConfig, name: &str, op| {
        let set = vec![(format!("{name}.compaction.lag.ms"), op)];
        alter_topic(&image, config, &AlterTopic { name: "t".into(), set, ..Default::default() })
    };
    let config = ServerConfig::default();
    assert_eq!(code(alter(&config, "min", ConfigOp::Set("6".into()))), ErrorCode::InvalidConfig);
    assert_eq!(code(alter(&config, "max", ConfigOp::Set("4".into()))), ErrorCode::InvalidConfig);
    assert!(alter(&config, "max", ConfigOp::Delete).is_ok());
    // Options that the topic does not set are the broker's.
    let mut config = ServerConfig::default();
    config.topic_defaults.max_compaction_lag_ms = 4;
    assert_eq!(code(alter(&config, "max", ConfigOp::Delete)), ErrorCode::InvalidConfig);
}

#[test]
fn the_options_of_a_topic_are_bounded() {
    let policy = |times: usize| CreateTopic {
        configs: vec![("cleanup.policy".into(), Some(vec!["compact"; times].join(",")))],
        ..request("t")
    };
    assert_eq!(code(create(&image(1), &policy(1000))), ErrorCode::InvalidConfig);
    assert!(create(&image(1), &policy(1)).is_ok());
}

#[test]
fn partitions_of_all_topics_are_bounded() {
    let config = ServerConfig { max_partitions: 10, offsets_topic_num_partitions: 50, ..Default::default() };
    let mut image = image(1);
    let create = |image: &MetadataImage, name: &str, num_partitions| {
        create_topic(image, &config, &CreateTopic { num_partitions, ..request(name) }, Uuid::from_u128(5))
    };
    image.put_topic(create(&image, "t", 8).unwrap());
    let refused = create(&image, "u", 3).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PolicyViolation);
    assert!(refused.message.contains("corelane.max.partitions allows 10"), "{refused}");
    assert_eq!(code(create(&image, "__consumer_offsets", 49)), ErrorCode::PolicyViolation, "not the broker's own");
    image.put_topic(create(&image, "__consumer_offsets", 50).unwrap());
    assert_eq!(code(create(&image, "u", 1)), ErrorCode::PolicyViolation);
    let grow = |count| grow_topic(&image, &config, &GrowTopic { name: "t".into(), count, assignments: None });
    assert_eq!(code(grow(9)), ErrorCode::PolicyViolation);
    assert_eq!(code(grow(8)), ErrorCode::InvalidPartitions, "as Kafka says it");
}

fn replicas(topic: &TopicImage) -> Vec<Vec<i32>> {
    topic.partitions.iter().map(|partition| partition.replicas.iter().map(|broker| broker.0).collect()).collect()
}

#[test]
fn replicas_are_spread_over_brokers_and_a_leaders_followers_differ() {
    let placed = CreateTopic { num_partitions: 20, replication_factor: 3, ..request("t") };
    let topic = create_topic(&image(5), &ServerConfig::default(), &placed, Uuid::from_u128(5)).unwrap();
    let all = replicas(&topic);
    for broker in 0..5 {
        let with = |at: usize| all.iter().filter(|replicas| replicas[at] == broker).count();
        assert_eq!((with(0), with(0) + with(1) + with(2)), (4, 12), "broker {broker}");
        let second: BTreeSet<i32> = all.iter().filter(|r| r[0] == broker).map(|r| r[1]).collect();
        assert_eq!(second.len(), 4, "the partitions of broker {broker} go to all others");
    }
    assert!(all.iter().all(|replicas| replicas.iter().collect::<BTreeSet<_>>().len() == 3));
}

#[test]
fn replicas_are_spread_over_racks() {
    let racks = ["a", "a", "a", "b", "b", "c"];
    let mut image = image(6);
    for (broker, rack) in image.brokers.iter_mut().zip(racks) {
        broker.rack = Some(rack.to_owned());
    }
    for (replication, wanted) in [(2, 2), (3, 3), (4, 3), (6, 3)] {
        let placed = CreateTopic { num_partitions: 24, replication_factor: replication, ..request("t") };
        let topic = create(&image, &placed).unwrap();
        for replicas in replicas(&topic) {
            let racks: BTreeSet<&str> = replicas.iter().map(|broker| racks[*broker as usize]).collect();
            assert_eq!((replicas.len(), racks.len()), (replication as usize, wanted), "{replicas:?}");
        }
    }
    image.brokers[5].rack = None;
    let placed = CreateTopic { num_partitions: 6, replication_factor: 1, ..request("t") };
    let leaders: BTreeSet<Vec<i32>> = replicas(&create(&image, &placed).unwrap()).into_iter().collect();
    assert_eq!(leaders.len(), 6, "without a rack of every broker, racks count for nothing");
}

#[test]
fn brokers_whose_directories_are_cordoned_get_no_replicas() {
    let mut image = image(3);
    image.brokers[1].cordoned = true;
    let wanted = |replicas| CreateTopic { num_partitions: 6, replication_factor: replicas, ..request("t") };
    let topic = create(&image, &wanted(2)).unwrap();
    for partition in &topic.partitions {
        assert!(!partition.replicas.contains(&BrokerId(1)) && partition.replicas.len() == 2);
    }
    let refused = create(&image, &wanted(3)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidReplicationFactor);
    assert!(refused.message.contains("1 of which have all their log directories cordoned"), "{refused}");
    let refused = create(&image, &assign(&[(0, &[0, 1])])).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidReplicaAssignment);
    assert!(refused.message.contains("broker 1, but all its log directories are cordoned"), "{refused}");
    assert_eq!(check_assignment(&image, &[0, 2], &[]), Ok(()));
    assert!(check_assignment(&image, &[0, 1], &[BrokerId(0)]).is_err());
    assert_eq!(check_assignment(&image, &[0, 1], &[BrokerId(1)]), Ok(()), "it has the replica already");
    // A topic that is there gets no more either.
    image.put_topic(topic);
    let grow = |image: &MetadataImage, assignments| {
        grow_topic(image, &ServerConfig::default(), &GrowTopic { name: "t".into(), count: 7, assignments })
    };
    assert_eq!(grow(&image, None).unwrap().partitions[6].replicas.len(), 2);
    assert_eq!(code(grow(&image, Some(vec![vec![1, 2]]))), ErrorCode::InvalidReplicaAssignment);
    image.brokers[2].cordoned = true;
    assert_eq!(code(grow(&image, None)), ErrorCode::InvalidReplicationFactor);
}
