//! Metadata: brokers, topics, who leads what; creates topics that are asked for and do not
//! exist, when that is allowed.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use uuid::Uuid;

use crate::cluster::controller::{CreateTopic, OFFSETS_TOPIC, check_topic_name};
use crate::cluster::{MetadataImage, PartitionImage, TopicImage};
use crate::model::{BrokerId, ErrorCode};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::shard::PATIENCE;

use super::shared::{
    CLUSTER_METADATA, CLUSTER_OPERATIONS, TOPIC_OPERATIONS, broker_id, is_internal, text, topic_name, unknown_name,
};

pub const API: ApiSpec = ApiSpec::new(ApiKey::Metadata, 0, 13);

/// Topics can be asked for by id from here on; in v10 and v11 the field is there but not allowed.
const BY_ID_FROM: i16 = 12;

/// A leader that cannot be reached by the client's listener has an error of its own from here on.
const LISTENER_NOT_FOUND_FROM: i16 = 6;

/// Authorized operations are told in these versions, of the cluster only until
/// DescribeCluster took that over.
const TOPIC_OPERATIONS_FROM: i16 = 8;
const CLUSTER_OPERATIONS_IN: RangeInclusive<i16> = 8..=10;

/// The topics that are asked for.
enum Wanted {
    All,
    Names(Vec<TopicName>),
    Ids(Vec<Uuid>),
    /// Answered with INVALID_REQUEST in every topic.
    Invalid(Vec<MetadataRequestTopic>),
}

pub async fn handle(session: &Session, Call { version, request }: Call<MetadataRequest>) -> MetadataResponse {
    let shard = session.shard();
    let may_create = shard.config.auto_create_topics_enable && (version < 4 || request.allow_auto_topic_creation);
    let operations = Operations {
        cluster: request.include_cluster_authorized_operations,
        topics: request.include_topic_authorized_operations,
    };
    let wanted = classify(version, request.topics);
    let refused = matches!(wanted, Wanted::Invalid(_));
    let mut failures = HashMap::new();
    if let (true, Wanted::Names(names)) = (may_create, &wanted) {
        // Where many are asked for, some are created now; the client asks again for the
        // rest, as it does in Kafka.
        if names.iter().any(|name| &*name.0 == OFFSETS_TOPIC)
            && let Err(code) = shard.offsets_topic().await
        {
            failures.insert(OFFSETS_TOPIC.to_owned(), creation_error(code));
        }
        let missing = missing(&shard.image(), names, session.context.auto_creations.available());
        let room = session.context.auto_creations.try_acquire(missing.len());
        if let (Some(_room), false) = (room, missing.is_empty()) {
            let names: Vec<String> = missing.iter().map(|topic| topic.name.clone()).collect();
            let results = shard.create_topics(missing, false, PATIENCE).await;
            for (name, result) in names.into_iter().zip(results) {
                match result {
                    Ok(_) => {}
                    Err(error) if error.code == ErrorCode::TopicAlreadyExists => {}
                    Err(error) => {
                        tracing::debug!(topic = name, "not created for a Metadata request: {error}");
                        failures.insert(name, creation_error(error.code));
                    }
                }
            }
        }
    }
    let mut response = respond(&shard.image(), &session.client.listener, version, wanted, &failures);
    if !refused {
        operations.tell(version, &mut response);
    }
    response
}

/// Which authorized operations a client wants to know (KIP-430).
#[derive(Default)]
struct Operations {
    cluster: bool,
    topics: bool,
}

impl Operations {
    /// All that there are, because there is no authorizer. As in Kafka, topics that do not exist
    /// are told too, except by id.
    fn tell(&self, version: i16, response: &mut MetadataResponse) {
        if self.cluster && CLUSTER_OPERATIONS_IN.contains(&version) {
            response.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        if self.topics && version >= TOPIC_OPERATIONS_FROM {
            for topic in response.topics.iter_mut().filter(|topic| topic.name.is_some()) {
                topic.topic_authorized_operations = TOPIC_OPERATIONS;
            }
        }
    }
}

fn classify(version: i16, topics: Option<Vec<MetadataRequestTopic>>) -> Wanted {
    let topics = match topics {
        None => return Wanted::All,
        Some(topics) if version == 0 && topics.is_empty() => return Wanted::All,
        Some(topics) => topics,
    };
    let invalid = |topic: &MetadataRequestTopic| {
        if version < BY_ID_FROM {
            topic.name.is_none() || !topic.topic_id.is_nil()
        } else {
            topic.name.is_none() && topic.topic_id.is_nil()
        }
    };
    if topics.iter().any(invalid) {
        return Wanted::Invalid(topics);
    }
    let mut ids: Vec<Uuid> = topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil()).collect();
    if !ids.is_empty() {
        ids.sort_unstable();
        ids.dedup();
        return Wanted::Ids(ids);
    }
    let mut names: Vec<TopicName> = topics.into_iter().filter_map(|topic| topic.name).collect();
    names.sort_unstable();
    names.dedup();
    Wanted::Names(names)
}

/// The topics to create for these names, at most `room`. Kafka's own topics are not made by the
/// rules for those of users.
fn missing(image: &MetadataImage, names: &[TopicName], room: usize) -> Vec<CreateTopic> {
    let absent = names.iter().map(|name| &*name.0).filter(|name| image.topic(name).is_none());
    absent
        .filter(|name| check_topic_name(name).is_ok() && !is_internal(name) && *name != CLUSTER_METADATA)
        .take(room)
        .map(|name| CreateTopic {
            name: name.to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            ..CreateTopic::default()
        })
        .collect()
}

/// The error of a creation as a client understands it that asked for metadata.
fn creation_error(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::InvalidTopicException
        | ErrorCode::InvalidReplicationFactor
        | ErrorCode::KafkaStorageError
        | ErrorCode::PolicyViolation => code,
        _ => ErrorCode::UnknownTopicOrPartition,
    }
}

fn respond(
    image: &MetadataImage,
    listener: &str,
    version: i16,
    wanted: Wanted,
    failures: &HashMap<String, ErrorCode>,
) -> MetadataResponse {
    let view = View::new(image, listener, version);
    let topics = match wanted {
        Wanted::All => image.topics().map(|topic| view.describe(topic)).collect(),
        Wanted::Names(names) => names
            .into_iter()
            .map(|name| match image.topic(&name.0) {
                Some(topic) => view.describe(topic),
                None => {
                    let code = match image.withheld(&name.0) {
                        Some(_) => ErrorCode::KafkaStorageError,
                        None => failures.get(&*name.0).copied().unwrap_or_else(|| unknown_name(&name.0)),
                    };
                    MetadataResponseTopic::default()
                        .with_is_internal(is_internal(&name.0))
                        .with_name(Some(name))
                        .with_error_code(code.code())
                }
            })
            .collect(),
        Wanted::Ids(ids) => ids
            .into_iter()
            .map(|id| match image.topic_by_id(id) {
                Some(topic) => view.describe(topic),
                None => MetadataResponseTopic::default()
                    .with_name(None)
                    .with_topic_id(id)
                    .with_error_code(ErrorCode::UnknownTopicId.code()),
            })
            .collect(),
        Wanted::Invalid(topics) => topics.into_iter().map(|topic| invalid(version, topic)).collect(),
    };
    MetadataResponse::default()
        .with_brokers(brokers(image, listener))
        .with_cluster_id(Some(text(&image.cluster_id)))
        .with_controller_id(broker_id(image.controller.unwrap_or(BrokerId(-1))))
        .with_topics(topics)
}

/// Before [`BY_ID_FROM`] a response cannot do without a name.
fn invalid(version: i16, topic: MetadataRequestTopic) -> MetadataResponseTopic {
    let name = if version < BY_ID_FROM { Some(topic.name.unwrap_or_default()) } else { topic.name };
    MetadataResponseTopic::default()
        .with_name(name)
        .with_topic_id(topic.topic_id)
        .with_error_code(ErrorCode::InvalidRequest.code())
}

fn brokers(image: &MetadataImage, listener: &str) -> Vec<MetadataResponseBroker> {
    let brokers = image.reachable(listener).map(|(broker, endpoint)| {
        MetadataResponseBroker::default()
            .with_node_id(broker_id(broker.id))
            .with_host(text(&endpoint.host))
            .with_port(i32::from(endpoint.port))
            .with_rack(broker.rack.as_deref().map(text))
    });
    brokers.collect()
}

/// The cluster as clients of one listener see it.
pub struct View<'a> {
    image: &'a MetadataImage,
    version: i16,
    /// Brokers with an address for the listener.
    reachable: Vec<BrokerId>,
}

impl<'a> View<'a> {
    /// `version`: of a Metadata response with the same error codes.
    pub fn new(image: &'a MetadataImage, listener: &str, version: i16) -> View<'a> {
        View { image, version, reachable: image.reachable(listener).map(|(broker, _)| broker.id).collect() }
    }

    /// A partition that is offline where it is led has no leader, and that replica counts as
    /// offline: Kafka's answer for a failed log directory. So do other replicas of which their
    /// brokers tell that, and those on brokers that cannot be reached.
    pub fn partition(&self, topic: &TopicImage, index: i32, partition: &PartitionImage) -> MetadataResponsePartition {
        let nodes = |ids: &[BrokerId]| ids.iter().map(|id| broker_id(*id)).collect::<Vec<_>>();
        let failed_at = |broker: BrokerId| self.image.is_offline_at(broker, topic, index);
        let offline = partition.leader.is_some_and(failed_at);
        let (leader, error) = if offline { (None, ErrorCode::LeaderNotAvailable) } else { self.leader(partition) };
        let away = partition.replicas.iter().filter(|id| !self.reachable.contains(id) || failed_at(**id));
        MetadataResponsePartition::default()
            .with_error_code(error.code())
            .with_partition_index(index)
            .with_leader_id(broker_id(leader.unwrap_or(BrokerId(-1))))
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(nodes(&partition.replicas))
            .with_isr_nodes(nodes(&partition.isr))
            .with_offline_replicas(away.map(|id| broker_id(*id)).collect())
    }

    fn describe(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions =
            topic.partitions.iter().zip(0..).map(|(partition, index)| self.partition(topic, index, partition));
        MetadataResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(topic.id)
            .with_is_internal(is_internal(&topic.name))
            .with_partitions(partitions.collect())
    }

    fn leader(&self, partition: &PartitionImage) -> (Option<BrokerId>, ErrorCode) {
        match partition.leader {
            Some(leader) if self.reachable.contains(&leader) => (Some(leader), ErrorCode::None),
            Some(_) if self.version >= LISTENER_NOT_FOUND_FROM => (None, ErrorCode::ListenerNotFound),
            _ => (None, ErrorCode::LeaderNotAvailable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::*;
    use crate::protocol::respond::encode;
    use bytes::{Buf, Bytes};
    use kafka_protocol::protocol::Decodable;
    use std::sync::Arc;

    const LISTENER: &str = "PLAINTEXT";

    fn by_name(name: &str) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(Some(topic_name(name)))
    }

    fn by_id(id: u128) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(None).with_topic_id(id_of(id))
    }

    /// The topics as a client sees them: (error, name, id, partitions).
    fn ask(version: i16, topics: Option<Vec<MetadataRequestTopic>>) -> Vec<(i16, Option<String>, u128, usize)> {
        let image = image(&[("a", 1, 2), ("b", 2, 3)]);
        let response = respond(&image, LISTENER, version, classify(version, topics), &HashMap::new());
        let mut frame: Bytes = encode(ApiKey::Metadata, version, 1, &response).unwrap();
        frame.advance(if API.is_flexible(version) { 9 } else { 8 });
        let response = MetadataResponse::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty());
        assert_eq!(response.brokers[0].node_id.0, 7);
        assert_eq!(response.controller_id.0, if version >= 1 { 7 } else { -1 });
        let row = |t: &MetadataResponseTopic| {
            (t.error_code, t.name.as_ref().map(|n| n.0.to_string()), t.topic_id.as_u128(), t.partitions.len())
        };
        response.topics.iter().map(row).collect()
    }

    fn named(error: i16, name: &str, id: u128, partitions: usize) -> (i16, Option<String>, u128, usize) {
        (error, Some(name.to_owned()), id, partitions)
    }

    #[test]
    fn all_topics_and_none() {
        for version in API.min..=API.max {
            let id = |id: u128| if version >= 10 { id } else { 0 };
            let all = [named(0, "a", id(1), 2), named(0, "b", id(2), 3)];
            let empty = ask(version, Some(Vec::new()));
            if version == 0 {
                assert_eq!(empty, all);
            } else {
                assert_eq!(ask(version, None), all, "v{version}");
                assert_eq!(empty, [], "v{version}");
            }
        }
    }

    #[test]
    fn unknown_and_impossible_names_are_told_apart() {
        for version in API.min..=API.max {
            let rows = ask(version, Some(vec![by_name("b"), by_name("zz"), by_name("a/b"), by_name("b")]));
            let id = if version >= 10 { 2 } else { 0 };
            assert_eq!(rows, [named(17, "a/b", 0, 0), named(0, "b", id, 3), named(3, "zz", 0, 0)], "v{version}");
        }
    }

    #[test]
    fn a_topic_whose_metadata_is_damaged_is_not_an_unknown_one() {
        let mut image = image(&[("a", 1, 1)]);
        image.withhold("lost", "topics/lost.json: damaged".into());
        let wanted = Wanted::Names(["a", "lost"].map(topic_name).to_vec());
        let response = respond(&image, LISTENER, 12, wanted, &HashMap::new());
        assert_eq!(response.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [0, 56]);
    }

    #[test]
    fn by_id_from_version_12_on() {
        for version in [12, 13] {
            let rows = ask(version, Some(vec![by_id(2), by_id(9), by_id(2)]));
            assert_eq!(rows, [named(0, "b", 2, 3), (100, None, 9, 0)], "v{version}");
        }
        for version in [10, 11] {
            assert_eq!(ask(version, Some(vec![by_id(2)])), [named(42, "", 2, 0)], "v{version}");
        }
        let neither = MetadataRequestTopic::default().with_name(None);
        assert_eq!(ask(12, Some(vec![neither])), [(42, None, 0, 0)]);
    }

    #[test]
    fn a_partition_without_leader_says_so() {
        let mut image = image(&[]);
        let mut topic = super::super::shared::testing::topic("a", 1, 1);
        topic.partitions[0].leader = None;
        image.put_topic(topic);
        let response = respond(&image, LISTENER, 13, Wanted::All, &HashMap::new());
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id.0, partition.leader_epoch), (5, -1, 4));
    }

    /// Broker 7 leads "a", and tells that its replica of partition 1 is offline.
    #[test]
    fn a_partition_that_is_offline_at_its_leader_has_none() {
        let mut image = image(&[("a", 1, 2)]);
        image.this = Some(BrokerId(8));
        image.brokers.iter_mut().for_each(|broker| broker.offline = Arc::new([("a".into(), [1].into())].into()));
        let rows = |image: &MetadataImage| {
            let response = respond(image, LISTENER, 13, Wanted::All, &HashMap::new());
            let row = |p: &MetadataResponsePartition| {
                let offline: Vec<i32> = p.offline_replicas.iter().map(|id| id.0).collect();
                (p.error_code, p.leader_id.0, offline)
            };
            response.topics[0].partitions.iter().map(row).collect::<Vec<_>>()
        };
        assert_eq!(rows(&image), [(0, 7, vec![]), (5, -1, vec![7])]);
        image.brokers.iter_mut().for_each(|broker| broker.offline = Arc::new([("b".into(), [1].into())].into()));
        assert_eq!(rows(&image), [(0, 7, vec![]), (0, 7, vec![])], "of another topic");
    }

    #[test]
    fn each_listener_tells_its_own_addresses() {
        for (listener, address) in
            [("PLAINTEXT", Some(("host", 9092))), ("EXTERNAL", Some(("outside", 19092))), ("X", None)]
        {
            for version in API.min..=API.max {
                let response = respond(&image(&[("a", 1, 1)]), listener, version, Wanted::All, &HashMap::new());
                let told = response.brokers.first().map(|broker| (&*broker.host, broker.port));
                assert_eq!(told, address, "{listener} v{version}");
                let partition = &response.topics[0].partitions[0];
                let offline: Vec<i32> = partition.offline_replicas.iter().map(|id| id.0).collect();
                let (error, leader, away) = match address {
                    Some(_) => (0, 7, vec![]),
                    None => (if version >= 6 { 72 } else { 5 }, -1, vec![7]),
                };
                assert_eq!((partition.error_code, partition.leader_id.0, offline), (error, leader, away), "v{version}");
                assert!(encode(ApiKey::Metadata, version, 1, &response).is_ok(), "v{version}");
            }
        }
    }

    #[test]
    fn operations_are_told_to_those_who_ask() {
        for version in API.min..=API.max {
            let wanted = classify(version, Some(vec![by_name("a"), by_name("zz")]));
            let plain = respond(&image(&[("a", 1, 1)]), LISTENER, version, wanted, &HashMap::new());
            for (cluster, topics) in [(false, false), (true, false), (false, true)] {
                let mut response = plain.clone();
                Operations { cluster, topics }.tell(version, &mut response);
                let of_cluster = if cluster && (8..=10).contains(&version) { 8096 } else { i32::MIN };
                let of_topic = if topics && version >= 8 { 3576 } else { i32::MIN };
                assert_eq!(response.cluster_authorized_operations, of_cluster, "v{version}");
                assert!(response.topics.iter().all(|t| t.topic_authorized_operations == of_topic), "v{version}");
                assert!(encode(ApiKey::Metadata, version, 1, &response).is_ok());
            }
        }
        let mut by_id = respond(&image(&[]), LISTENER, 12, classify(12, Some(vec![by_id(9)])), &HashMap::new());
        Operations { cluster: false, topics: true }.tell(12, &mut by_id);
        assert_eq!(by_id.topics[0].topic_authorized_operations, i32::MIN);
    }

    #[test]
    fn no_more_topics_are_created_than_there_is_room_for() {
        let names = ["a", "__consumer_offsets", "__cluster_metadata", "b", "a/b", "__transaction_state", "c", "d"]
            .map(topic_name);
        let created: Vec<_> = missing(&image(&[("a", 1, 1)]), &names, 2).into_iter().map(|topic| topic.name).collect();
        assert_eq!(created, ["b", "c"]);
    }

    #[test]
    fn kafkas_own_topics_are_told_apart_whether_they_exist_or_not() {
        let image = image(&[("a", 1, 1), ("__consumer_offsets", 2, 1)]);
        let names = ["a", "__consumer_offsets", "__transaction_state", "zz"].map(by_name).to_vec();
        for version in 1..=API.max {
            let response = respond(&image, LISTENER, version, classify(version, Some(names.clone())), &HashMap::new());
            let seen = through_the_wire(API.key, version, &response);
            let rows: Vec<_> = seen
                .topics
                .iter()
                .map(|topic| (topic.name.as_ref().map_or("", |name| &*name.0), topic.error_code, topic.is_internal))
                .collect();
            let own = [("__consumer_offsets", 0, true), ("__transaction_state", 3, true)];
            assert_eq!(rows, [own[0], own[1], ("a", 0, false), ("zz", 3, false)]);
        }
    }

    #[test]
    fn failures_to_create_are_told() {
        let failures = HashMap::from([("new".to_owned(), ErrorCode::KafkaStorageError)]);
        let response = respond(&image(&[]), LISTENER, 13, classify(13, Some(vec![by_name("new")])), &failures);
        assert_eq!(response.topics[0].error_code, 56);
    }
}
