use super::*;

mod compose;

fn load(text: &str) -> Result<(ServerConfig, Vec<Warning>), ConfigError> {
    load_text(Some((Path::new("server.properties"), text)), &[])
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

fn warnings(text: &str) -> Vec<String> {
    load(text).unwrap().1.iter().map(Warning::to_string).collect()
}

#[test]
fn values_reach_their_fields_and_are_remembered_as_given() {
    let text = "node.id=3\nlisteners=PLAINTEXT://127.0.0.1:19092\nlog.dirs=/a, /b\nlog.segment.bytes=2097152\n\
                log.flush.interval.messages=1\nauto.create.topics.enable=FALSE\ncorelane.shards=2\nbroker.rack=r1\n";
    let (config, warnings) = load(text).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((config.broker_id, config.listeners[0].address.port(), config.shards), (3, 19092, 2));
    assert_eq!(config.log_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!((config.topic_defaults.segment_bytes, config.topic_defaults.flush_messages), (2 << 20, 1));
    assert!(!config.auto_create_topics_enable);
    assert_eq!(config.broker_rack.as_deref(), Some("r1"));
    assert_eq!(config.given.get("log.dirs").map(String::as_str), Some("/a, /b"));
    assert_eq!(config.given.len(), 8);
}

#[test]
fn overrides_win_over_the_file() {
    let overrides = [("num.partitions".to_owned(), "5".to_owned())];
    let (config, _) = load_text(Some((Path::new("f"), "num.partitions=2")), &overrides).unwrap();
    assert_eq!(config.num_partitions, 5);
    let bad = [("num.partitions".to_owned(), "0".to_owned())];
    let text = load_text(None, &bad).unwrap_err().to_string();
    assert_eq!(text, "--override: num.partitions = 0 is out of bounds; it must be 1 to 100000");
}

#[test]
fn a_wrong_value_is_named_with_file_line_option_and_bounds() {
    let text = error("# comment\nnum.partitions=many\n");
    assert_eq!(text, "server.properties:2: num.partitions = many is not a 32-bit integer; it must be 1 to 100000");
    assert!(error("a=\\u12").starts_with("server.properties:1: "));
    assert!(
        ServerConfig::load(Some(Path::new("/nowhere/x.properties")), &[])
            .unwrap_err()
            .to_string()
            .contains("x.properties")
    );
}

#[test]
fn the_options_of_the_write_path_keep_to_what_the_device_takes() {
    let text = "corelane.write.max.bytes=65536\ncorelane.write.ahead.bytes=0\ncorelane.write.queue.depth=64\n\
                corelane.append.linger.us=500\ncorelane.flush.delay.ms=2\n";
    let config = load(text).unwrap().0;
    assert_eq!((config.write_max_bytes, config.write_ahead_bytes, config.write_queue_depth), (65_536, 0, 64));
    assert_eq!((config.append_linger_us, config.flush_delay_ms), (500, 2));
    assert!(error("corelane.write.max.bytes=70000").contains("is not a multiple of 4096"));
    for wrong in ["write.max.bytes=61440", "write.max.bytes=1052672", "write.ahead.bytes=4096", "write.queue.depth=0"] {
        assert!(error(&format!("corelane.{wrong}")).contains("is out of bounds"), "{wrong}");
    }
}

#[test]
fn the_time_families_follow_kafkas_precedence() {
    let retention = |text: &str| load(text).unwrap().0.topic_defaults.retention_ms;
    assert_eq!(retention("log.retention.hours=2"), Some(7_200_000));
    assert_eq!(retention("log.retention.hours=2\nlog.retention.minutes=3"), Some(180_000));
    assert_eq!(retention("log.retention.hours=2\nlog.retention.ms=4\nlog.retention.minutes=3"), Some(4));
    assert_eq!(retention("log.retention.hours=-1"), None);
    assert_eq!(retention("log.retention.ms=-1"), None);
    assert!(error("log.retention.hours=0").contains("log.retention.hours = 0"));
    assert_eq!(load("log.roll.hours=1").unwrap().0.topic_defaults.segment_ms, 3_600_000);
    assert!(warnings("log.retention.hours=2\nlog.retention.ms=4")[0].contains("log.retention.hours: not used"));
    // The scheduler's interval stands in for the flush interval, as in Kafka.
    let (config, warned) = load("log.flush.scheduler.interval.ms=50").unwrap();
    assert_eq!((config.topic_defaults.flush_ms, config.log_flush_scheduler_interval_ms), (Some(50), 50));
    assert_eq!(warned, []);
    let (config, warned) = load("log.flush.scheduler.interval.ms=50\nlog.flush.interval.ms=70").unwrap();
    assert_eq!((config.topic_defaults.flush_ms, config.log_flush_scheduler_interval_ms), (Some(70), 50));
    assert_eq!(warned, []);
}

#[test]
fn aliases_of_the_id_must_agree() {
    assert_eq!(load("broker.id=4").unwrap().0.broker_id, 4);
    assert_eq!(load("broker.id=4\nnode.id=4").unwrap().0.broker_id, 4);
    assert!(error("broker.id=4\nnode.id=5").contains("contradicts node.id"));
}

#[test]
fn unknown_names_are_warned_about_with_the_nearest_one() {
    let text = warnings("log.segment.byte=1");
    assert_eq!(
        text,
        ["server.properties:1: log.segment.byte: unknown option, ignored; did you mean log.segment.bytes?"]
    );
    assert_eq!(warnings("my.own.thing=1"), ["server.properties:1: my.own.thing: unknown option, ignored"]);
    assert!(warnings("num.partitions=1\nnum.partitions=2")[0].contains("given again"));
}

#[test]
fn what_would_be_unsafe_to_ignore_stops_the_start() {
    for text in [
        "listeners=SSL://:9093",
        "listeners=CLIENT://:9093\nlistener.security.protocol.map=CLIENT:SASL_SSL",
        "ssl.keystore.location=/k",
        "sasl.enabled.mechanisms=PLAIN",
        "authorizer.class.name=org.example.Authorizer",
        "zookeeper.ssl.client.enable=true",
        "zookeeper.ssl.keystore.location=/k",
        "zookeeper.set.acl=true",
        "process.roles=controller",
        "controller.quorum.voters=1@a:1,2@b:1",
        "create.topic.policy.class.name=x",
    ] {
        let error = error(text);
        assert!(error.contains("is refused: "), "{error}");
    }
    assert!(error("max.connections.per.ip=0").contains("max.connections.per.ip.overrides"));
    assert_eq!(
        warnings("max.connections.per.ip=0\nmax.connections.per.ip.overrides=127.0.0.1:5"),
        Vec::<String>::new()
    );
    let hidden = error("ssl.keystore.password=hunter2");
    assert!(hidden.contains("ssl.keystore.password") && !hidden.contains("hunter2"), "{hidden}");
    assert!(error("listeners=CLIENT://:9093").contains("no security protocol"));
    // No batch may be accepted that recovery would not find again.
    for name in ["message.max.bytes", "socket.request.max.bytes"] {
        assert!(error(&format!("{name}=268435457")).contains("268435456"), "{name}");
    }
}

/// Compose files for Kafka have it.
#[test]
fn batches_larger_than_requests_are_warned_about() {
    let said = warnings("message.max.bytes=200000000");
    assert!(said.len() == 1 && said[0].contains("socket.request.max.bytes (104857600)"), "{said:?}");
}

/// As in Kafka the smaller of it and the number of replicas holds.
#[test]
fn more_in_sync_replicas_than_there_are_refuse_nothing() {
    let said = warnings("min.insync.replicas=2");
    assert!(said.len() == 1 && said[0].contains("counts as 1") && !said[0].contains("refuse"), "{said:?}");
    assert_eq!(warnings("min.insync.replicas=1"), [""; 0]);
}

#[test]
fn harmless_values_of_refused_options_pass_without_a_word() {
    let text = "zookeeper.set.acl=false\nzookeeper.ssl.client.enable=false\nauthorizer.class.name=\n\
                security.inter.broker.protocol=PLAINTEXT";
    assert_eq!(warnings(text), [""; 0]);
}

/// The options of the file that Kafka 4 ships.
#[test]
fn kafkas_own_server_properties_start_with_warnings_only() {
    let text = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
        controller.listener.names=CONTROLLER\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
        num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
        socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nlog.dirs=/tmp/kraft-combined-logs\n\
        num.partitions=1\nnum.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
        share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
        transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\nlog.retention.hours=168\n\
        log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n";
    let (config, warnings) = load(text).unwrap();
    assert_eq!((config.broker_id, config.listeners[0].address.to_string().as_str()), (1, "0.0.0.0:9092"));
    assert_eq!(config.listeners[0].advertised_url().as_deref(), Some("PLAINTEXT://localhost:9092"));
    assert!(warnings.iter().all(|warning| !warning.message.contains("unknown")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.option == "num.io.threads" && warning.message.contains("per core")));
}

#[test]
fn lags_of_cleaning_that_contradict_each_other_stop_the_start() {
    let error = load("log.cleaner.min.compaction.lag.ms=6\nlog.cleaner.max.compaction.lag.ms=5\n").unwrap_err();
    assert!(error.to_string().contains("max.compaction.lag.ms (5)"), "{error}");
    assert!(load("log.cleaner.min.compaction.lag.ms=5\nlog.cleaner.max.compaction.lag.ms=5\n").is_ok());
}

#[test]
fn any_negative_limit_is_none() {
    for text in ["log.retention.ms=-2\n", "log.retention.ms=-1\n", "log.retention.hours=-3\n"] {
        assert_eq!(load(text).unwrap().0.topic_defaults.retention_ms, None, "{text}");
    }
    assert_eq!(load("connections.max.idle.ms=-5\n").unwrap().0.connections_max_idle_ms, u64::MAX);
    assert!(load("connections.max.idle.ms=0\n").is_err() && load("log.retention.ms=0\n").is_err());
}

#[test]
fn timeouts_of_groups_that_contradict_each_other_stop_the_start() {
    let (min, max) = ("group.consumer.min.", "group.consumer.max.");
    let (session, heartbeat) = ("session.timeout.ms", "heartbeat.interval.ms");
    let own = |name: &str| format!("group.consumer.{name}");
    let refused = [
        (
            format!("{min}{session}=70000\n"),
            format!("{min}{session} (70000) must be less than or equal to {max}{session} (60000)"),
        ),
        (
            format!("{max}{session}=44999\n"),
            format!("{min}{session} (45000) must be less than or equal to {max}{session} (44999)"),
        ),
        (
            format!("{min}{heartbeat}=15001\n"),
            format!("{min}{heartbeat} (15001) must be less than or equal to {max}{heartbeat} (15000)"),
        ),
        (
            format!("{}=44999\n", own(session)),
            format!("{min}{session} (45000) must be less than or equal to {} (44999)", own(session)),
        ),
        (
            format!("{}=60001\n", own(session)),
            format!("{} (60001) must be less than or equal to {max}{session} (60000)", own(session)),
        ),
        (
            format!("{}=4999\n", own(heartbeat)),
            format!("{min}{heartbeat} (5000) must be less than or equal to {} (4999)", own(heartbeat)),
        ),
        (
            format!("{}=15001\n", own(heartbeat)),
            format!("{} (15001) must be less than or equal to {max}{heartbeat} (15000)", own(heartbeat)),
        ),
        (
            format!("{}=45000\n{max}{heartbeat}=50000\n", own(heartbeat)),
            format!("{} (45000) must be less than {} (45000)", own(heartbeat), own(session)),
        ),
        (
            "group.min.session.timeout.ms=2000000\n".into(),
            "(2000000) must be less than or equal to group.max.session.timeout.ms (1800000)".into(),
        ),
        ("group.max.session.timeout.ms=5999\n".into(), "group.min.session.timeout.ms (6000) must be less than".into()),
    ];
    for (text, reason) in refused {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(&reason), "{text}: {error}");
    }
    let equal =
        format!("{min}{session}=60000\n{}=60000\n{min}{heartbeat}=15000\n{}=15000\n", own(session), own(heartbeat));
    assert!(load(&equal).is_ok());
    assert!(load("group.min.session.timeout.ms=7000\ngroup.max.session.timeout.ms=7000\n").is_ok());
    let (config, warnings) = load("group.coordinator.rebalance.protocols=classic,consumer,streams\n").unwrap();
    assert!(config.group.consumer_protocol);
    assert!(
        warnings.len() == 1 && warnings[0].to_string().contains("streams groups are not served"),
        "{}",
        warnings[0]
    );
}
