//! Answers of the null broker, without its sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::log::EndlessLog;
use crate::model::ErrorCode;
use crate::protocol::produce::{self, ProducePartitionResponse, Single};
use crate::protocol::{Malformed, TopicKey, fetch, guard, parse_header, parse_prefix, respond};

/// With topics by name, which spares a table of ids.
const APIS: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Produce, 3, 12),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 5),
    (ApiKey::Metadata, 0, 8),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 4),
];
const FIRST_FLEXIBLE_PRODUCE: i16 = 9;
const FIRST_FLEXIBLE_FETCH: i16 = 12;

const NODE: BrokerId = BrokerId(0);
/// Partitions that one answer may list.
const MAX_LISTED: usize = 1_000_000;
/// Record bytes in one Fetch answer.
const MAX_FETCHED: usize = 64 << 20;
const EARLIEST: i64 = -2;
const CORRELATION_AT: usize = 4;

/// Facts that all connections share.
pub struct Facts {
    pub address: SocketAddr,
    pub partitions: i32,
    pub log: EndlessLog,
}

/// Which Produce answers a connection has been given; it will be given the same ones again.
#[derive(Default)]
pub struct Cache {
    version: i16,
    topic: Vec<u8>,
    /// By partition.
    answers: Vec<Option<Bytes>>,
}

impl Facts {
    /// The answer to a Produce request for one partition, of which nothing more is read.
    pub fn acknowledge(
        &self,
        version: i16,
        correlation_id: i32,
        single: &Single<'_>,
        cache: &mut Cache,
        out: &mut Vec<u8>,
    ) {
        if single.acks == 0 {
            return;
        }
        if cache.version != version || cache.topic != single.topic {
            *cache = Cache { version, topic: single.topic.to_vec(), answers: Vec::new() };
        }
        let place = usize::try_from(single.partition).ok().filter(|_| single.partition < self.partitions);
        let Some(place) = place else {
            return out.extend_from_slice(&self.produced(version, correlation_id, single.topic, single.partition));
        };
        if cache.answers.len() <= place {
            cache.answers.resize(place + 1, None);
        }
        let answer =
            cache.answers[place].get_or_insert_with(|| self.produced(version, 0, single.topic, single.partition));
        out.extend_from_slice(&answer[..CORRELATION_AT]);
        out.put_i32(correlation_id);
        out.extend_from_slice(&answer[CORRELATION_AT + 4..]);
    }

    fn produced(&self, version: i16, correlation_id: i32, topic: &[u8], partition: i32) -> Bytes {
        let topics = [(TopicKey::Name(Bytes::copy_from_slice(topic)), vec![self.produced_partition(partition)])];
        produce::encode_response(version, correlation_id, &topics, 0)
    }

    fn produced_partition(&self, index: i32) -> ProducePartitionResponse {
        let known = (0..self.partitions).contains(&index);
        ProducePartitionResponse {
            index,
            error: if known { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition },
            base_offset: if known { 0 } else { -1 },
            log_append_time_ms: -1,
            log_start_offset: 0,
            record_errors: Vec::new(),
            error_message: None,
        }
    }

    /// Answers one whole request, `frame` from its api key on. After an error
    /// the connection has to end.
    pub fn answer(&self, frame: &Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Malformed> {
        let prefix = parse_prefix(frame)?;
        let (version, id) = (prefix.version, prefix.correlation_id);
        let Some((api, min, max)) = APIS.iter().find(|(api, ..)| *api as i16 == prefix.api_key).copied() else {
            return Err(Malformed(format!("API {} is not served", prefix.api_key)));
        };
        if version < min || version > max {
            if api as i16 == ApiKey::ApiVersions as i16 {
                // In the one shape that every client can read (KIP-511).
                out.push_back(respond::encode(api, 0, id, &api_versions(ErrorCode::UnsupportedVersion))?);
                return Ok(());
            }
            return Err(Malformed(format!("version {version} of {api:?} is not served")));
        }
        let flexible = match api {
            ApiKey::Produce => version >= FIRST_FLEXIBLE_PRODUCE,
            ApiKey::Fetch => version >= FIRST_FLEXIBLE_FETCH,
            _ => api.request_header_version(version) >= 2,
        };
        let (_, start) = parse_header(frame, flexible)?;
        let mut body = frame.slice(start..);
        match api {
            ApiKey::Produce => self.produce(version, id, body, out)?,
            ApiKey::Fetch => self.fetch(version, id, body, out)?,
            ApiKey::ApiVersions => out.push_back(respond::encode(api, version, id, &api_versions(ErrorCode::None))?),
            ApiKey::Metadata => {
                let answer = self.metadata(guard::decode(api, version, &mut body)?)?;
                out.push_back(respond::encode(api, version, id, &answer)?);
            }
            ApiKey::ListOffsets => {
                let answer = self.list_offsets(guard::decode(api, version, &mut body)?);
                out.push_back(respond::encode(api, version, id, &answer)?);
            }
            _ => {
                let answer = create_topics(guard::decode(api, version, &mut body)?);
                out.push_back(respond::encode(api, version, id, &answer)?);
            }
        }
        Ok(())
    }

    fn produce(&self, version: i16, id: i32, body: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Malformed> {
        let request = produce::decode(version, body)?;
        if request.acks != 0 {
            let topics: Vec<_> = request
                .topics
                .into_iter()
                .map(|topic| {
                    let partitions = topic.partitions.iter().map(|p| self.produced_partition(p.index)).collect();
                    (topic.topic, partitions)
                })
                .collect();
            out.push_back(produce::encode_response(version, id, &topics, 0));
        }
        Ok(())
    }

    fn fetch(&self, version: i16, id: i32, body: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Malformed> {
        let request = fetch::decode(version, body)?;
        let mut left = usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_FETCHED);
        let mut first = true;
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let known = (0..self.partitions).contains(&asked.index);
                let mut records = Vec::new();
                if known {
                    let limit = usize::try_from(asked.max_bytes).unwrap_or(0).min(left);
                    records = self.log.read(asked.fetch_offset, limit, first);
                    first &= records.is_empty();
                    left = left.saturating_sub(records.iter().map(Bytes::len).sum());
                }
                let end = if known { self.log.end() } else { -1 };
                fetch::FetchPartitionResponse {
                    index: asked.index,
                    error: if known { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition },
                    high_watermark: end,
                    last_stable_offset: end,
                    log_start_offset: if known { 0 } else { -1 },
                    aborted: None,
                    records,
                    diverging: None,
                    preferred_replica: None,
                }
            });
            (topic.topic, partitions.collect())
        });
        let topics = topics.collect();
        out.extend(fetch::encode_response(version, id, 0, ErrorCode::None, 0, topics));
        Ok(())
    }

    fn metadata(&self, request: MetadataRequest) -> Result<MetadataResponse, Malformed> {
        let topics = request.topics.unwrap_or_default();
        if topics.len().saturating_mul(usize::try_from(self.partitions).unwrap_or(0)) > MAX_LISTED {
            return Err(Malformed(format!("Metadata of {} topics is more than is answered here", topics.len())));
        }
        let partition = |index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(NODE)
                .with_replica_nodes(vec![NODE])
                .with_isr_nodes(vec![NODE])
        };
        let topic = |name| {
            let partitions = (0..self.partitions).map(partition).collect();
            MetadataResponseTopic::default().with_name(name).with_partitions(partitions)
        };
        let broker = MetadataResponseBroker::default()
            .with_node_id(NODE)
            .with_host(StrBytes::from_string(self.address.ip().to_string()))
            .with_port(i32::from(self.address.port()));
        let topics = topics.into_iter().map(|asked| topic(asked.name)).collect();
        Ok(MetadataResponse::default().with_brokers(vec![broker]).with_controller_id(NODE).with_topics(topics))
    }

    fn list_offsets(&self, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let known = (0..self.partitions).contains(&asked.partition_index);
                let error = if known { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(error.code())
                    .with_offset(if asked.timestamp == EARLIEST { 0 } else { self.log.end() })
            });
            ListOffsetsTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }
}

fn api_versions(error: ErrorCode) -> ApiVersionsResponse {
    let range = |(api, min, max): &(ApiKey, i16, i16)| {
        ApiVersion::default().with_api_key(*api as i16).with_min_version(*min).with_max_version(*max)
    };
    ApiVersionsResponse::default().with_error_code(error.code()).with_api_keys(APIS.iter().map(range).collect())
}

/// Every topic is there already.
fn create_topics(request: CreateTopicsRequest) -> CreateTopicsResponse {
    let results = request.topics.into_iter().map(|topic| CreatableTopicResult::default().with_name(topic.name));
    CreateTopicsResponse::default().with_topics(results.collect())
}
