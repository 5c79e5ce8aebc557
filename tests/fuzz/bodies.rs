//! The fuzz targets: each takes bytes as a socket, a disk or an operator could hand them to the
//! broker. A panic, a failed assertion or runaway memory is the finding; an error value is not.
//!
//! `scripts/fuzz` runs them with the fuzzer; `tests/fuzz_corpus.rs` replays seeds and corpus
//! with every `cargo test`.

// Helpers of tests, where a failure is a failed test; each user takes a part of them.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use corelane::cluster::metadata_store::LocalStore;
use corelane::cluster::{MetaFile, parse_partition_metadata};
use corelane::config::{ProduceValidation, ServerConfig, TopicConfig};
use corelane::groups::record::Record;
use corelane::model::record_batch::{self, BatchHeader, CRC_START, Codec, HEADER_BYTES};
use corelane::model::records;
use corelane::partition::{EpochHistory, Limits, ProducerPool, ProducerStates, Rules, validate};
use corelane::protocol::api_table::flexible_from;
use corelane::protocol::{asking, fetch, guard, parse_header, parse_prefix, produce};
use corelane::storage::{Bounds, Checkpoint, SegmentIndex, survey};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Message};

#[path = "left_behind.rs"]
mod left_behind;

pub use left_behind::{arena, cleaner_checkpoint, swap_files};
use left_behind::{arena_seeds, cleaner_checkpoint_seeds, swap_file_seeds};

/// Name, body and seeds of a target.
pub struct Target {
    pub name: &'static str,
    pub body: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: &[Target] = &[
    Target { name: "frames", body: frames, seeds: frame_seeds },
    Target { name: "responses", body: responses, seeds: response_seeds },
    Target { name: "batches", body: batches, seeds: batch_seeds },
    Target { name: "group_records", body: group_records, seeds: group_record_seeds },
    Target { name: "properties", body: properties, seeds: property_seeds },
    Target { name: "partition_files", body: partition_files, seeds: partition_file_seeds },
    Target { name: "swap_files", body: swap_files, seeds: swap_file_seeds },
    Target { name: "cleaner_checkpoint", body: cleaner_checkpoint, seeds: cleaner_checkpoint_seeds },
    Target { name: "arena", body: arena, seeds: arena_seeds },
    Target { name: "data_dir_files", body: data_dir_files, seeds: data_dir_file_seeds },
];

// ---- frames: a request after its length field

/// Calls `$act!(Request, ApiKey)` for the API of `$key`, or does nothing.
macro_rules! for_request {
    ($key:expr, $act:ident) => {
        for_request!(@ $key, $act, ApiVersions ApiVersionsRequest, Metadata MetadataRequest,
            ListOffsets ListOffsetsRequest, CreateTopics CreateTopicsRequest, DeleteTopics DeleteTopicsRequest,
            CreatePartitions CreatePartitionsRequest, InitProducerId InitProducerIdRequest,
            OffsetForLeaderEpoch OffsetForLeaderEpochRequest, FindCoordinator FindCoordinatorRequest,
            DescribeCluster DescribeClusterRequest, DescribeConfigs DescribeConfigsRequest,
            IncrementalAlterConfigs IncrementalAlterConfigsRequest, AlterConfigs AlterConfigsRequest,
            DeleteRecords DeleteRecordsRequest, DescribeLogDirs DescribeLogDirsRequest,
            AlterReplicaLogDirs AlterReplicaLogDirsRequest,
            DescribeTopicPartitions DescribeTopicPartitionsRequest, DescribeProducers DescribeProducersRequest,
            ListConfigResources ListConfigResourcesRequest, ElectLeaders ElectLeadersRequest,
            AlterPartitionReassignments AlterPartitionReassignmentsRequest, UpdateFeatures UpdateFeaturesRequest, JoinGroup JoinGroupRequest,
            SyncGroup SyncGroupRequest, Heartbeat HeartbeatRequest, LeaveGroup LeaveGroupRequest,
            OffsetCommit OffsetCommitRequest, OffsetFetch OffsetFetchRequest, OffsetDelete OffsetDeleteRequest,
            DescribeGroups DescribeGroupsRequest, ListGroups ListGroupsRequest, DeleteGroups DeleteGroupsRequest,
            ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest,
            ConsumerGroupDescribe ConsumerGroupDescribeRequest)
    };
    (@ $key:expr, $act:ident, $($api:ident $request:ident),*) => {
        match $key {
            $(ApiKey::$api => $act!($request, ApiKey::$api),)*
            _ => {}
        }
    };
}

pub fn frames(data: &[u8]) {
    let Ok(prefix) = parse_prefix(data) else { return };
    let Ok(api) = ApiKey::try_from(prefix.api_key) else { return };
    let Ok((header, start)) = parse_header(data, prefix.version >= flexible_from(api)) else { return };
    assert_eq!((header.api_key, header.version), (prefix.api_key, prefix.version));
    let mut body = Bytes::copy_from_slice(&data[start..]);
    let version = prefix.version;
    macro_rules! decode {
        ($request:ident, $api:expr) => {{
            let Ok(request) = guard::decode::<$request>($api, version, &mut body) else { return };
            again(&request, $api, version);
        }};
    }
    match api {
        ApiKey::Produce => drop(produce::decode(version, body)),
        ApiKey::Fetch => drop(fetch::decode(version, body)),
        _ => for_request!(api, decode),
    }
}

/// A request that was taken is written and taken again as the same.
fn again<T: Encodable + Decodable + PartialEq + std::fmt::Debug>(request: &T, api: ApiKey, version: i16) {
    let mut bytes = BytesMut::new();
    // The crate refuses to write what a version lacks.
    if request.encode(&mut bytes, version).is_err() {
        return;
    }
    let second = guard::decode::<T>(api, version, &mut bytes.freeze());
    assert_eq!(second.as_ref().ok(), Some(request), "{api:?} v{version}");
}

fn frame_seeds() -> Vec<Vec<u8>> {
    const ALL: [ApiKey; 34] = [
        ApiKey::ApiVersions,
        ApiKey::Metadata,
        ApiKey::ListOffsets,
        ApiKey::CreateTopics,
        ApiKey::DeleteTopics,
        ApiKey::CreatePartitions,
        ApiKey::InitProducerId,
        ApiKey::OffsetForLeaderEpoch,
        ApiKey::FindCoordinator,
        ApiKey::DescribeCluster,
        ApiKey::DescribeConfigs,
        ApiKey::IncrementalAlterConfigs,
        ApiKey::AlterConfigs,
        ApiKey::DeleteRecords,
        ApiKey::DescribeLogDirs,
        ApiKey::AlterReplicaLogDirs,
        ApiKey::DescribeTopicPartitions,
        ApiKey::DescribeProducers,
        ApiKey::ListConfigResources,
        ApiKey::ElectLeaders,
        ApiKey::AlterPartitionReassignments,
        ApiKey::UpdateFeatures,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::Heartbeat,
        ApiKey::LeaveGroup,
        ApiKey::OffsetCommit,
        ApiKey::OffsetFetch,
        ApiKey::OffsetDelete,
        ApiKey::DescribeGroups,
        ApiKey::ListGroups,
        ApiKey::DeleteGroups,
        ApiKey::ConsumerGroupHeartbeat,
        ApiKey::ConsumerGroupDescribe,
    ];
    let mut seeds = Vec::new();
    for api in ALL {
        macro_rules! seed {
            ($request:ident, $api:expr) => {
                for version in $request::VERSIONS.min..=$request::VERSIONS.max {
                    let mut body = BytesMut::new();
                    if $request::default().encode(&mut body, version).is_ok() {
                        seeds.push(framed($api, version, &body));
                    }
                }
            };
        }
        for_request!(api, seed);
    }
    for version in 3..=13 {
        let data = produce_request::PartitionProduceData::default().with_records(Some(sound_batch(Codec::None)));
        let topic = produce_request::TopicProduceData::default().with_partition_data(vec![data]);
        let mut body = BytesMut::new();
        ProduceRequest::default().with_topic_data(vec![topic]).encode(&mut body, version).unwrap();
        seeds.push(framed(ApiKey::Produce, version, &body));
    }
    for version in 4..=17 {
        let topic = fetch_request::FetchTopic::default().with_partitions(vec![Default::default()]);
        let mut body = BytesMut::new();
        FetchRequest::default().with_topics(vec![topic]).encode(&mut body, version).unwrap();
        seeds.push(framed(ApiKey::Fetch, version, &body));
    }
    seeds
}

fn framed(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&(api as i16).to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&7_i32.to_be_bytes());
    frame.extend_from_slice(&1_i16.to_be_bytes());
    frame.push(b'c');
    if version >= flexible_from(api) {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame
}

// ---- responses: bytes from a broker that the client does not trust. One byte picks the API, one
// the version.

pub fn responses(data: &[u8]) {
    let [which, version, rest @ ..] = data else { return };
    let version = i16::from(*version % 20);
    let mut body = Bytes::copy_from_slice(rest);
    match which % 8 {
        0 => drop(asking::read_produce_response(version, rest, |_| {})),
        1 => drop(asking::read_fetch_response(version, rest, |_| {})),
        2 => drop(guard::decode_response::<ApiVersionsResponse>(ApiKey::ApiVersions, version, &mut body)),
        3 => drop(guard::decode_response::<MetadataResponse>(ApiKey::Metadata, version, &mut body)),
        4 => drop(guard::decode_response::<ListOffsetsResponse>(ApiKey::ListOffsets, version, &mut body)),
        5 => drop(guard::decode_response::<CreateTopicsResponse>(ApiKey::CreateTopics, version, &mut body)),
        6 => {
            let api = ApiKey::ConsumerGroupDescribe;
            drop(guard::decode_response::<ConsumerGroupDescribeResponse>(api, version, &mut body));
        }
        _ => {
            let api = ApiKey::DescribeTopicPartitions;
            drop(guard::decode_response::<DescribeTopicPartitionsResponse>(api, version, &mut body));
        }
    }
}

fn response_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut push = |which: u8, version: u8, head: &[u8], encode: &dyn Fn(&mut BytesMut) -> bool| {
        let mut body = BytesMut::from(head);
        if encode(&mut body) {
            seeds.push([&[which, version], &body[..]].concat());
        }
    };
    for version in 0..=13_u8 {
        let wire = i16::from(version);
        let topic =
            produce_response::TopicProduceResponse::default().with_partition_responses(vec![Default::default()]);
        let produced = ProduceResponse::default().with_responses(vec![topic]);
        let topic = fetch_response::FetchableTopicResponse::default().with_partitions(vec![Default::default()]);
        let fetched = FetchResponse::default().with_responses(vec![topic]);
        push(0, version, &[0; 5], &|out| produced.encode(out, wire).is_ok());
        push(1, version, &[0; 5], &|out| fetched.encode(out, wire).is_ok());
        push(2, version, &[], &|out| ApiVersionsResponse::default().encode(out, wire).is_ok());
        push(3, version, &[], &|out| MetadataResponse::default().encode(out, wire).is_ok());
        push(4, version, &[], &|out| ListOffsetsResponse::default().encode(out, wire).is_ok());
        push(5, version, &[], &|out| CreateTopicsResponse::default().encode(out, wire).is_ok());
        let group = consumer_group_describe_response::DescribedGroup::default().with_members(vec![Default::default()]);
        let described = ConsumerGroupDescribeResponse::default().with_groups(vec![group]);
        push(6, version, &[], &|out| described.encode(out, wire).is_ok());
        push(7, version, &[], &|out| DescribeTopicPartitionsResponse::default().encode(out, wire).is_ok());
    }
    seeds
}

// ---- batches: with length, magic and CRC put right, so that the fuzzer gets behind them

pub fn batches(data: &[u8]) {
    let _ = record_batch::frame(data).is_ok() && record_batch::check(data).is_ok();
    let batch = put_right(data);
    let Ok(header) = record_batch::check(&batch) else { return };
    let count = header.record_count.get();
    let mut walked = Vec::new();
    let outcome = records::walk(&batch, &mut |record| {
        walked.push(*record);
        ControlFlow::Continue(())
    });
    if outcome.is_ok() {
        assert_eq!(i32::try_from(walked.len()), Ok(count), "each record is shown");
    }
    let mut read = Vec::new();
    let second = records::read(&batch, &mut |record| {
        assert_eq!(record.key.map_or(-1, |key| key.len() as i32), record.meta.key_len.max(-1));
        read.push(record.meta);
        ControlFlow::Continue(())
    });
    assert_eq!((outcome.is_ok(), walked), (second.is_ok(), read));
    let config = TopicConfig { max_message_bytes: 16 << 20, cleanup_compact: count % 2 == 0, ..TopicConfig::default() };
    let rules = Rules {
        topic: "t",
        partition: 0,
        config: &config,
        validation: ProduceValidation::Full,
        now_ms: 1_700_000_000_000,
        limits: Limits::FULL,
    };
    if let Ok(checked) = validate(&Bytes::from(batch.clone()), &rules) {
        let kept = checked.into_bytes();
        let header = record_batch::check(&kept).unwrap_or_else(|e| panic!("what was taken is stored damaged: {e}"));
        // -1 stands for none, in a header as in a record.
        let (mut count, mut newest) = (0, -1);
        let outcome = records::walk(&kept, &mut |record| {
            assert_eq!(record.offset, header.base() + i64::from(count));
            (count, newest) = (count + 1, newest.max(record.timestamp_ms));
            ControlFlow::Continue(())
        });
        assert!(outcome.is_ok() && count > 0, "what was taken can be read: {outcome:?}");
        let last = (header.record_count.get(), header.last_offset_delta.get(), header.max_timestamp.get());
        assert_eq!(last, (count, count - 1, newest), "the header says what the records are");
    }
    let _ = records::latest(&batch);
    let _ = records::first_at_or_after(&batch, header.base_timestamp.get(), header.base());
}

fn put_right(data: &[u8]) -> Vec<u8> {
    let mut batch = data.to_vec();
    batch.resize(batch.len().max(HEADER_BYTES), 0);
    let length = i32::try_from(batch.len() - record_batch::LENGTH_PREFIX_BYTES).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// CRC-32C bit by bit: the fuzz crate needs no dependency for it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

fn sound_batch(codec: Codec) -> Bytes {
    let plain = records::build(
        &[(b"key".to_vec(), Some(b"value".to_vec())), (b"key".to_vec(), None), (Vec::new(), Some(vec![7; 300]))],
        1_700_000_000_000,
    );
    let mut batch = plain[..HEADER_BYTES].to_vec();
    batch[22] = codec as u8;
    records::compress(codec, &plain[HEADER_BYTES..], &mut batch).unwrap();
    let batch = put_right(&batch);
    assert!(BatchHeader::peek(&batch).is_some_and(|header| header.codec() == Some(codec)));
    batch.into()
}

fn batch_seeds() -> Vec<Vec<u8>> {
    [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].map(|codec| sound_batch(codec).to_vec()).into()
}

// ---- group records: what a start reads back from `__consumer_offsets`. Two bytes of key length,
// key, value.

pub fn group_records(data: &[u8]) {
    let [length, rest @ ..] = data else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let value = (!value.is_empty()).then_some(value);
    let Ok(Some(record)) = Record::decode(key, value) else { return };
    let (key, value) = record.encode();
    let second = Record::decode(&key, value.as_deref()).unwrap_or_else(|e| panic!("{e} of {record:?}"));
    assert_eq!(second, Some(record), "what was read is written as the same");
}

fn group_record_seeds() -> Vec<Vec<u8>> {
    use std::sync::Arc;
    let group: Arc<str> = Arc::from("group");
    let mut seeds = Vec::new();
    for kind in (0..=8).chain([16]) {
        // A key of strings and a value of zeros take many of the kinds apart.
        for (version, size) in [(0, 10), (1, 40), (2, 80), (3, 120)] {
            let mut key = vec![0, kind];
            for text in [&*group, "topic"] {
                key.extend_from_slice(&(text.len() as i16).to_be_bytes());
                key.extend_from_slice(text.as_bytes());
            }
            key.extend_from_slice(&[0; 4]);
            let mut seed = vec![key.len() as u8];
            seed.extend_from_slice(&key);
            seed.extend_from_slice(&[0, version]);
            seed.resize(seed.len() + size, 0);
            seeds.push(seed);
        }
    }
    seeds
}

// ---- properties: a configuration file

pub fn properties(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    if let Err(error) = ServerConfig::load(Some(file.path()), &[]) {
        assert!(!error.to_string().is_empty());
    }
}

fn property_seeds() -> Vec<Vec<u8>> {
    let options = corelane::config::OPTIONS.iter().map(|option| format!("{} = {}\n", option.name, option.default));
    let whole: String = options.clone().collect();
    options.map(String::into_bytes).chain([whole.into_bytes()]).collect()
}

// ---- partition files: what a start reads in a partition's directory. One byte picks the file.

pub fn partition_files(data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    let text = std::str::from_utf8(rest);
    match which % 6 {
        0 => checkpoint(rest),
        1 => producer_states(rest),
        2 => index(rest),
        3 => segment(rest),
        4 => drop(text.map(parse_partition_metadata)),
        _ => {
            let Some(history) = text.ok().and_then(EpochHistory::parse) else { return };
            assert_eq!(EpochHistory::parse(&history.format()).map(|again| again.format()), Some(history.format()));
        }
    }
}

/// The file with its checksum put right, then as it is.
fn checkpoint(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let mut right = bytes.to_vec();
    if right.len() > 12 {
        right[..4].copy_from_slice(b"CLCP");
        // Since version 3 the name of the directory is in it.
        let name = dir.path().file_name().unwrap().as_encoded_bytes();
        let version = u32::from_le_bytes(right[4..8].try_into().unwrap());
        let named = if version >= 3 { name } else { &[] };
        let crc = crc32c(&[named, &right[12..]].concat());
        right[8..12].copy_from_slice(&crc.to_le_bytes());
    }
    for contents in [&right[..], bytes] {
        std::fs::write(Checkpoint::path(dir.path()), contents).unwrap();
        let Ok(Some(found)) = Checkpoint::load(dir.path(), 1 << 20) else { continue };
        found.store(dir.path()).unwrap();
        assert_eq!(Checkpoint::load(dir.path(), 1 << 20).unwrap(), Some(found));
    }
}

fn producer_states(bytes: &[u8]) {
    let mut states = ProducerStates::new(&ProducerPool::new(1 << 20));
    if states.restore(bytes).is_err() {
        return;
    }
    let stored = states.encode();
    let mut again = ProducerStates::new(&ProducerPool::new(1 << 20));
    assert!(again.restore(&stored).is_ok());
    assert_eq!(again.len(), states.len());
}

/// Two bytes say how much of the rest is the `.index`; the others are the `.timeindex`.
fn index(bytes: &[u8]) {
    let [length, rest @ ..] = bytes else { return };
    let (offsets, times) = rest.split_at((usize::from(*length) * 8).min(rest.len()));
    let Some(index) = SegmentIndex::decode(offsets, times, 1 << 30) else { return };
    assert_eq!((index.encode_offsets(), index.encode_times()), (offsets.to_vec(), times.to_vec()));
    for number in [0, 1, 1 << 20, u32::MAX] {
        let at = index.position_before_offset(number);
        assert!(at <= 1 << 30);
        let _ = (index.position_at_or_before(number), index.offset_before_time(number.into()));
    }
}

/// Three records, the first of which is at `base`.
fn batch_at(base: i64) -> Vec<u8> {
    let mut batch = sound_batch(Codec::None).to_vec();
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch
}

/// A survey of a damaged segment: stretches in order that leave out no byte.
fn segment(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let bounds = Bounds {
        size: bytes.len() as u64,
        from_offset: 0,
        end_offset: i64::MAX,
        end_known: bytes.len().is_multiple_of(2),
        gap_at_end: bytes.len().is_multiple_of(3),
        reserved: bytes.len().is_multiple_of(5),
    };
    let stretches = survey(file.as_file(), 0, bounds).unwrap();
    let (mut position, mut offset) = (0, 0);
    for stretch in &stretches {
        assert_eq!(stretch.bytes.start, position, "{stretches:?}");
        assert!(stretch.bytes.end > position || !stretch.sound, "{stretches:?}");
        assert!(stretch.offsets.start >= offset || !stretch.sound, "{stretches:?}");
        (position, offset) = (stretch.bytes.end, offset.max(stretch.offsets.end));
    }
    assert!(position <= bounds.size);
}

fn partition_file_seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint { recovery_point: 7, log_start: 1, segments: Some(Vec::new()), sidecar: vec![0; 4] };
    checkpoint.store(dir.path()).unwrap();
    let checkpoint = std::fs::read(Checkpoint::path(dir.path())).unwrap();
    let mut states = ProducerStates::new(&ProducerPool::new(1 << 20));
    let mut batches = Vec::new();
    for n in 0..3i64 {
        let mut batch = sound_batch(Codec::None).to_vec();
        batch[..8].copy_from_slice(&(n * 3).to_be_bytes());
        batch[43..51].copy_from_slice(&(n / 2).to_be_bytes());
        batch[51..57].copy_from_slice(&[0; 6]);
        let batch = put_right(&batch);
        if let Some(header) = BatchHeader::peek(&batch) {
            states.note(header, n * 3, 1);
        }
        batches.extend_from_slice(&batch);
    }
    let mut index = SegmentIndex::default();
    index.push(9, 4096);
    index.push(19, 9000);
    index.push_time(1_700_000_000_000, 9);
    let index = [&[2][..], &index.encode_offsets(), &index.encode_times()].concat();
    let mut damaged = batches.clone();
    damaged[200] ^= 4;
    let metadata = b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n".to_vec();
    let epochs = b"0\n2\n0 0\n3 17\n".to_vec();
    let files =
        [(0, checkpoint), (1, states.encode()), (2, index), (3, batches), (3, damaged), (4, metadata), (5, epochs)];
    files.into_iter().map(|(which, bytes)| [&[which], &bytes[..]].concat()).collect()
}

// ---- data directory files: what a start reads beside the partitions. One byte picks the file.

const TOPIC_ID: &str = "00000000-0000-0000-0000-00000000002a";
const DATA_DIR_FILES: [&str; 8] = [
    "meta.properties",
    "corelane-metadata/cluster.json",
    "corelane-metadata/directories.json",
    "corelane-metadata/leader-epochs.json",
    "corelane-metadata/producer-ids.json",
    "corelane-metadata/producer-ids.copy.json",
    "corelane-metadata/topics/t.json",
    "corelane-metadata/topics/00000000-0000-0000-0000-00000000002a.deleted",
];

/// The file with its checksum put right, then as it is.
pub fn data_dir_files(data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    let file = DATA_DIR_FILES[usize::from(*which) % DATA_DIR_FILES.len()];
    let body = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let right = match file {
        "meta.properties" => [format!("#corelane-crc32c={:08x}\n", crc32c(rest)).as_bytes(), rest].concat(),
        _ => [body, format!("\n{:08x}\n", crc32c(body)).as_bytes()].concat(),
    };
    for contents in [&right[..], rest] {
        let dir = in_memory();
        std::fs::create_dir_all(dir.path().join("corelane-metadata/topics")).unwrap();
        std::fs::write(dir.path().join(file), contents).unwrap();
        match file {
            "meta.properties" => meta_properties(dir.path()),
            _ => metadata(dir.path()),
        }
    }
}

/// Each file is synced several times, which a disk would spend the round on.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn meta_properties(dir: &std::path::Path) {
    let MetaFile::Sound(found) = MetaFile::look(dir).unwrap() else { return };
    found.write(dir).unwrap();
    assert_eq!(MetaFile::look(dir).unwrap(), MetaFile::Sound(found), "what was read is written as the same");
}

fn metadata(dir: &std::path::Path) {
    let mut store = LocalStore::at(dir);
    // A store of another version, or of another broker, ends the start.
    if store.read_epochs_raised().is_err() {
        return;
    }
    let Ok(mut stored) = store.load(&ServerConfig::default()) else { return };
    if let Ok(first) = store.reserve_producer_ids(10, 7) {
        assert!(first > 7, "producer id {first} was given before");
        assert!(store.reserve_producer_ids(1, -1).is_ok_and(|next| next == first + 10) || first > i64::MAX - 20);
    }
    let epochs =
        |topic: &corelane::cluster::TopicImage| topic.partitions.iter().map(|p| p.leader_epoch.0).collect::<Vec<_>>();
    let before: Vec<_> = stored.image.topics().map(|topic| epochs(topic)).collect();
    store.raise_leader_epochs(&mut stored.image).unwrap();
    for (before, topic) in before.iter().zip(stored.image.topics()) {
        let raised = before.iter().zip(epochs(topic)).all(|(old, new)| new > *old || *old == i32::MAX);
        assert!(raised, "{before:?}, then {:?}", epochs(topic));
        store.put_topic(topic).unwrap();
    }
    let again = store.load(&ServerConfig::default()).unwrap();
    let shown = |image: &corelane::cluster::image::MetadataImage| {
        image.topics().map(|topic| (topic.name.to_string(), topic.id, epochs(topic))).collect::<Vec<_>>()
    };
    assert_eq!(shown(&again.image), shown(&stored.image), "what was read is written as the same");
}

fn data_dir_file_seeds() -> Vec<Vec<u8>> {
    let broker = ServerConfig::default().broker_id;
    let partition = format!(
        r#"{{"leader":{broker},"leader_epoch":3,"replicas":[{broker}],"isr":[{broker}],{}}}"#,
        r#""directory":"AAAAAAAAAAAAAAAAAAAAKg","since_run":2"#,
    );
    let topic = format!(
        r#"{{"format":1,"name":"t","id":"{TOPIC_ID}","overrides":{{{}}},"partitions":[{partition}],{}}}"#,
        r#""cleanup.policy":"compact""#, r#""epochs_raised":1"#,
    );
    let seeds: [(u8, &str); 9] = [
        (0, "version=1\nnode.id=1\ncluster.id=abc\ndirectory.id=AAAAAAAAAAAAAAAAAAAAKg\n"),
        (0, "version=0\nbroker.id=1\n"),
        (1, r#"{"format":1,"cluster_id":"abc"}"#),
        (2, r#"{"format":1,"run":3,"directories":[{"id":"AAAAAAAAAAAAAAAAAAAAKg","path":"/d"}]}"#),
        (3, r#"{"format":1,"raised":4}"#),
        (4, r#"{"format":1,"next":1000}"#),
        (5, r#"{"format":1,"next":9223372036854775807}"#),
        (6, &topic),
        (7, &topic),
    ];
    seeds.into_iter().map(|(which, text)| [&[which], text.as_bytes()].concat()).collect()
}
