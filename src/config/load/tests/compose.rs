//! The properties that the usual Compose and Kubernetes files give Kafka's images, as they
//! are or nearly so: host names that only their networks resolve are left out, as is a map
//! where it is the default.

use super::*;

/// The broker starts with nothing unknown, listens there and tells clients that.
fn starts(text: &str, listeners: &str, advertised: &str) -> ServerConfig {
    let (config, warnings) = load(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    let unknown: Vec<_> = warnings.iter().filter(|warning| warning.message.contains("unknown")).collect();
    assert!(unknown.is_empty(), "{text}\n{unknown:?}");
    let listening: Vec<_> = config.listeners.iter().map(|listener| listener.url()).collect();
    let told: Vec<_> = config.listeners.iter().filter_map(|listener| listener.advertised_url()).collect();
    assert_eq!((listening.join(","), told.join(",")), (listeners.to_owned(), advertised.to_owned()), "{text}");
    config
}

/// Kafka's own image: docker/examples, one node and broker-only.
#[test]
fn apache() {
    let text = "node.id=1\nprocess.roles=broker,controller\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT\n\
        advertised.listeners=PLAINTEXT_HOST://localhost:9092,PLAINTEXT://broker:19092\n\
        controller.quorum.voters=1@broker:29093\n\
        listeners=CONTROLLER://:29093,PLAINTEXT_HOST://:9092,PLAINTEXT://:19092\n\
        inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
        offsets.topic.replication.factor=1\ngroup.initial.rebalance.delay.ms=0\n\
        transaction.state.log.min.isr=1\ntransaction.state.log.replication.factor=1\n\
        share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
        log.dirs=/tmp/kraft-combined-logs\n";
    let listeners = "PLAINTEXT_HOST://0.0.0.0:9092,PLAINTEXT://0.0.0.0:19092";
    let config = starts(text, listeners, "PLAINTEXT_HOST://localhost:9092,PLAINTEXT://broker:19092");
    assert_eq!(config.inter_broker_listener_name, "PLAINTEXT");
    let text = "node.id=4\nprocess.roles=broker\nlisteners=PLAINTEXT://:19092,PLAINTEXT_HOST://:9092\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://broker-1:19092,PLAINTEXT_HOST://localhost:29092\n\
        inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
        controller.quorum.voters=4@controller-1:9093\n";
    let listeners = "PLAINTEXT://0.0.0.0:19092,PLAINTEXT_HOST://0.0.0.0:9092";
    starts(text, listeners, "PLAINTEXT://broker-1:19092,PLAINTEXT_HOST://localhost:29092");
}

#[test]
fn confluent() {
    let text = "node.id=1\nprocess.roles=broker,controller\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://broker:29092,PLAINTEXT_HOST://localhost:9092\n\
        offsets.topic.replication.factor=1\ngroup.initial.rebalance.delay.ms=0\n\
        transaction.state.log.min.isr=1\ntransaction.state.log.replication.factor=1\njmx.port=9101\n\
        jmx.hostname=localhost\ncontroller.quorum.voters=1@broker:29093\n\
        listeners=PLAINTEXT://localhost:29092,CONTROLLER://localhost:29093,PLAINTEXT_HOST://0.0.0.0:9092\n\
        inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\n\
        log.dirs=/tmp/kraft-combined-logs\nconfluent.license.topic.replication.factor=1\n\
        confluent.balancer.topic.replication.factor=1\nconfluent.metrics.reporter.topic.replicas=1\n\
        confluent.schema.registry.url=http://schema-registry:8081\n\
        metric.reporters=io.confluent.metrics.reporter.ConfluentMetricsReporter\n";
    let listeners = "PLAINTEXT://127.0.0.1:29092,PLAINTEXT_HOST://0.0.0.0:9092";
    starts(text, listeners, "PLAINTEXT://broker:29092,PLAINTEXT_HOST://localhost:9092");
}

#[test]
fn bitnami() {
    let text = "node.id=0\nprocess.roles=controller,broker\ncontroller.quorum.voters=0@kafka:9093\n\
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093,EXTERNAL://:9094\n\
        advertised.listeners=PLAINTEXT://kafka:9092,EXTERNAL://localhost:9094\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,EXTERNAL:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
        controller.listener.names=CONTROLLER\n";
    let advertised = "PLAINTEXT://kafka:9092,EXTERNAL://localhost:9094";
    starts(text, "PLAINTEXT://0.0.0.0:9092,EXTERNAL://0.0.0.0:9094", advertised);
    // The image's own: an empty advertised host, which is the container's name.
    let text = "node.id=0\nprocess.roles=controller,broker\ncontroller.quorum.voters=0@kafka:9093\n\
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093\nadvertised.listeners=PLAINTEXT://:9092\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\ncontroller.listener.names=CONTROLLER\n";
    let config = load(text).unwrap().0;
    let host = &config.listeners[0].advertised.as_ref().unwrap().host;
    assert!(!host.is_empty() && host != "0.0.0.0", "{host}");
    // The chart, with every listener made PLAINTEXT.
    let text = "node.id=0\nprocess.roles=controller,broker\n\
        listeners=CLIENT://:9092,INTERNAL://:9094,EXTERNAL://:9095,CONTROLLER://:9093\n\
        advertised.listeners=CLIENT://kafka-0.kafka-headless.ns.svc.cluster.local:9092,\
        INTERNAL://kafka-0.kafka-headless.ns.svc.cluster.local:9094,EXTERNAL://203.0.113.7:31000\n\
        listener.security.protocol.map=CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,EXTERNAL:PLAINTEXT\n\
        inter.broker.listener.name=INTERNAL\ncontroller.listener.names=CONTROLLER\n\
        controller.quorum.bootstrap.servers=kafka-0.kafka-headless.ns.svc.cluster.local:9093\n";
    let listeners = "CLIENT://0.0.0.0:9092,INTERNAL://0.0.0.0:9094,EXTERNAL://0.0.0.0:9095";
    let pod = "kafka-0.kafka-headless.ns.svc.cluster.local";
    starts(text, listeners, &format!("CLIENT://{pod}:9092,INTERNAL://{pod}:9094,EXTERNAL://203.0.113.7:31000"));
}

/// Files from before KRaft name their listeners as they like, and ZooKeeper.
#[test]
fn older_files() {
    let text = "broker.id=1\nlisteners=LISTENER_BOB://:29092,LISTENER_FRED://localhost:9092\n\
        advertised.listeners=LISTENER_BOB://kafka0:29092,LISTENER_FRED://localhost:9092\n\
        listener.security.protocol.map=LISTENER_BOB:PLAINTEXT,LISTENER_FRED:PLAINTEXT\n\
        inter.broker.listener.name=LISTENER_BOB\ncontrol.plane.listener.name=LISTENER_BOB\n";
    let listeners = "LISTENER_BOB://0.0.0.0:29092,LISTENER_FRED://127.0.0.1:9092";
    starts(text, listeners, "LISTENER_BOB://kafka0:29092,LISTENER_FRED://localhost:9092");
    let (config, warnings) = load(&format!("{text}zookeeper.connect=zookeeper:2181\n")).unwrap();
    assert!(config.in_cluster() && config.inter_broker_listener() == "LISTENER_BOB", "{warnings:?}");
}

/// INTERNAL and EXTERNAL alone: Kafka asks for `inter.broker.listener.name`, which means
/// nothing to a single broker.
#[test]
fn without_an_inter_broker_listener() {
    let text = "listeners=INTERNAL://127.0.0.1:9092,EXTERNAL://127.0.0.1:9094\n\
        listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT\n\
        advertised.listeners=INTERNAL://127.0.0.1:9092,EXTERNAL://localhost:9094\n";
    let (config, warnings) = load(text).unwrap();
    assert_eq!((config.listeners.len(), warnings.len()), (2, 0), "{warnings:?}");
}

#[test]
fn what_cannot_be_is_named() {
    let base = "listeners=INTERNAL://:9092,EXTERNAL://:9094\n";
    let map = "listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT\n";
    for (text, words) in [
        (
            format!("{base}listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:SASL_SSL\n"),
            ["SASL_SSL", "EXTERNAL"],
        ),
        (format!("{base}listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:SASL\n"), ["protocol.map", "SASL"]),
        (format!("{base}listener.security.protocol.map=INTERNAL:PLAINTEXT\n"), ["EXTERNAL", "protocol.map"]),
        (base.to_owned(), ["INTERNAL", "INTERNAL:PLAINTEXT"]),
        (
            format!("{base}{map}advertised.listeners=INTERNAL://0.0.0.0:9092\n"),
            ["advertised.listeners", "name the host"],
        ),
        (format!("{base}{map}advertised.listeners=OTHER://h:9092\n"), ["OTHER", "INTERNAL, EXTERNAL"]),
        (format!("{base}{map}inter.broker.listener.name=OTHER\n"), ["OTHER", "INTERNAL, EXTERNAL"]),
        (
            format!("{base}{map}advertised.listeners=EXTERNAL://h:1\ninter.broker.listener.name=INTERNAL\n"),
            ["inter.broker.listener.name", "advertised.listeners"],
        ),
        (
            format!("{base}{map}inter.broker.listener.name=INTERNAL\nsecurity.inter.broker.protocol=PLAINTEXT\n"),
            ["inter.broker.listener.name", "security.inter.broker.protocol"],
        ),
        ("listeners=PLAINTEXT://:9092,EXTERNAL://:9092\n".to_owned() + map, ["9092", "PLAINTEXT, EXTERNAL"]),
        ("listeners=A://:1,B://:2,a://:3\n".to_owned(), ["two listeners", "A"]),
        (
            "listeners=CONTROLLER://:9093\ncontroller.listener.names=CONTROLLER\n".to_owned(),
            ["listeners", "for clients"],
        ),
    ] {
        let error = error(&text);
        assert!(words.iter().all(|word| error.contains(word)), "{text}\n{error}");
    }
}
