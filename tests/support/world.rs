//! What the cases share: the connection, a topic with known records, and the words to make more.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use uuid::Uuid;

use super::client::Client;

/// Kafka's error codes, by its names for them.
pub mod code {
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const CORRUPT_MESSAGE: i16 = 2;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const MESSAGE_TOO_LARGE: i16 = 10;
    pub const OFFSET_METADATA_TOO_LARGE: i16 = 12;
    pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
    pub const INVALID_REQUIRED_ACKS: i16 = 21;
    pub const ILLEGAL_GENERATION: i16 = 22;
    pub const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
    pub const INVALID_GROUP_ID: i16 = 24;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const INVALID_SESSION_TIMEOUT: i16 = 26;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub const INVALID_PARTITIONS: i16 = 37;
    pub const INVALID_REPLICATION_FACTOR: i16 = 38;
    pub const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
    pub const INVALID_CONFIG: i16 = 40;
    pub const INVALID_REQUEST: i16 = 42;
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub const NON_EMPTY_GROUP: i16 = 68;
    pub const GROUP_ID_NOT_FOUND: i16 = 69;
    pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
    pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
    pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
    pub const MEMBER_ID_REQUIRED: i16 = 79;
    pub const INVALID_RECORD: i16 = 87;
    pub const UNKNOWN_TOPIC_ID: i16 = 100;
    pub const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;
    pub const UNSUPPORTED_ASSIGNOR: i16 = 112;
    pub const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
    pub const UNSUPPORTED_ENDPOINT_TYPE: i16 = 115;
}

/// The broker's id when nobody gives it one.
pub const BROKER_ID: i32 = 0;
/// An id that no topic has.
pub const NO_SUCH_ID: Uuid = Uuid::from_u128(0xdead_beef);
/// A name that no topic has and any may have.
pub const NO_SUCH_TOPIC: &str = "no-such-topic";
pub const INVALID_NAME: &str = "not/a topic";

/// The longest string there is, which an answer may have to repeat within a longer one.
pub fn longest() -> String {
    "x".repeat(i16::MAX as usize)
}

pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}

pub struct Topic {
    pub name: String,
    pub id: Uuid,
}

pub struct World {
    pub client: Client,
    pub port: u16,
    /// Two partitions: 0 with the records of [`stock`](World::stock_records), 1
    /// empty. Never written to again.
    pub stock: Topic,
    /// The timestamp of the first record in stock, ms.
    pub stock_time: i64,
}

impl World {
    pub fn new(port: u16) -> World {
        let mut client = Client::connect(port);
        let stock = create(&mut client, "stock", 2);
        // Within retention, however long the test takes.
        let stock_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 - 60_000;
        let mut world = World { client, port, stock, stock_time };
        let records = world.stock_records();
        for (batch, offset) in records.chunks(2).zip([0, 2, 4]) {
            let stock = Topic { name: world.stock.name.clone(), id: world.stock.id };
            assert_eq!(world.produce(&stock, 0, &batch_of(batch)), offset);
        }
        world
    }

    /// Timestamp and value by offset: two records a batch, the largest timestamp at offset 3.
    pub fn stock_records(&self) -> Vec<(i64, String)> {
        let times = [0, 10, 20, 50, 30, 40];
        times.iter().map(|t| (self.stock_time + t, format!("value at {t}"))).collect()
    }

    pub fn create(&mut self, name: &str, partitions: i32) -> Topic {
        create(&mut self.client, name, partitions)
    }

    /// How many partitions the topic has; `None`: there is no such topic.
    pub fn partitions_of(&mut self, name: &str) -> Option<usize> {
        let request = MetadataRequest::default().with_topics(None);
        let response = self.client.call(13, &request);
        let found = response.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|n| &*n.0 == name));
        found.map(|topic| topic.partitions.len())
    }

    /// Appends one batch and gives its base offset.
    pub fn produce(&mut self, topic: &Topic, partition: i32, batch: &Bytes) -> i64 {
        let (error, base_offset) = self.try_produce(topic, partition, batch);
        assert_eq!(error, 0);
        base_offset
    }

    /// The error code and the base offset.
    pub fn try_produce(&mut self, topic: &Topic, partition: i32, batch: &Bytes) -> (i16, i64) {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone()));
        let topic = TopicProduceData::default().with_topic_id(topic.id).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let response = self.client.call(13, &request);
        let place = &response.responses[0].partition_responses[0];
        (place.error_code, place.base_offset)
    }

    /// The offset the next record will get.
    pub fn latest(&mut self, topic: &Topic, partition: i32) -> i64 {
        let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name(&topic.name)).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let response = self.client.call(10, &request);
        let place = &response.topics[0].partitions[0];
        assert_eq!(place.error_code, 0, "{place:?}");
        place.offset
    }

    /// Offsets and values from `offset` to the end.
    pub fn read(&mut self, topic: &Topic, partition: i32, offset: i64) -> Vec<(i64, String)> {
        let asked = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic_id(topic.id).with_partitions(vec![asked]);
        let response = self.client.call(17, &FetchRequest::default().with_topics(vec![topic]));
        let place = &response.responses[0].partitions[0];
        assert_eq!(place.error_code, 0, "{place:?}");
        values(&place.records).into_iter().filter(|(at, _)| *at >= offset).collect()
    }
}

fn create(client: &mut Client, name: &str, partitions: i32) -> Topic {
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let response = client.call(7, &CreateTopicsRequest::default().with_topics(vec![topic]));
    let result = &response.topics[0];
    assert_eq!((result.error_code, &result.error_message), (0, &None), "creating {name}");
    Topic { name: name.to_owned(), id: result.topic_id }
}

/// One batch of records with these timestamps and values.
pub fn batch_of(records: &[(i64, String)]) -> Bytes {
    batch_from((-1, -1, -1), records)
}

/// The same by a producer: its id, its epoch and the sequence of the first record.
pub fn batch_from((producer_id, producer_epoch, sequence): (i64, i16, i32), records: &[(i64, String)]) -> Bytes {
    let records: Vec<Record> = (0..)
        .zip(records)
        .map(|(index, (timestamp, value))| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(index),
            sequence: sequence + index,
            timestamp: *timestamp,
            key: Some(Bytes::from_static(b"key")),
            value: Some(Bytes::from(value.clone())),
            headers: IndexMap::from([(text("header"), Some(Bytes::from_static(b"1")))]),
        })
        .collect();
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, &records, &options).unwrap();
    batch.freeze()
}

/// `batch` with other attributes (what they say of its records is then a lie) and
/// the CRC to go with them.
pub fn with_attributes(batch: &Bytes, attributes: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[22] = attributes;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// Offsets and values of the records in a fetch response.
pub fn values(records: &Option<Bytes>) -> Vec<(i64, String)> {
    let mut records = records.clone().unwrap_or_default();
    let batches = RecordBatchDecoder::decode_all(&mut records).unwrap();
    let records = batches.into_iter().flat_map(|batch| batch.records);
    records.map(|r| (r.offset, String::from_utf8(r.value.unwrap_or_default().to_vec()).unwrap())).collect()
}
