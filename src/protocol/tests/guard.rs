//! The shapes are tested as a generator: what they generate, the crate must decode to the last byte
//! and encode again to the same bytes. A field too many, too few or of another size fails that.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Message, StrBytes, VersionRange};

use super::Random;
use crate::model::wire::{MAX_ARRAY_ELEMENTS, MAX_TAGGED_FIELDS};
use crate::protocol::api_table::flexible_from;
use crate::protocol::frame::Malformed;
use crate::protocol::shapes::{Field, Kind, SHAPES, Shape};
use crate::protocol::{Newer, guard};

/// A generated body and what a forger would look for in it.
#[derive(Default)]
pub(super) struct Sample {
    pub bytes: Vec<u8>,
    /// Where the counts of arrays and tagged fields are, and how many bytes they take.
    pub counts: Vec<(usize, usize)>,
    flexible: bool,
}

impl Sample {
    pub fn of(shape: &Shape, version: i16, random: &mut Random) -> Sample {
        let mut sample = Sample { flexible: version >= flexible_from(shape.api), ..Sample::default() };
        sample.structure(shape.fields, version, random, 0);
        sample
    }

    fn structure(&mut self, fields: &[Field], version: i16, random: &mut Random, depth: usize) {
        for field in fields.iter().filter(|field| field.exists_in(version)) {
            let null = field.may_be_null_in(version) && random.chance(3);
            self.value(&field.kind, null, version, random, depth);
        }
        if self.flexible {
            let tags = random.tags(true);
            self.counts.push((self.bytes.len(), 1));
            self.varint(tags.len() as u32);
            for (tag, value) in tags {
                self.varint(tag as u32);
                self.varint(value.len() as u32);
                self.bytes.extend_from_slice(&value);
            }
        }
    }

    fn value(&mut self, kind: &Kind, null: bool, version: i16, random: &mut Random, depth: usize) {
        match kind {
            Kind::Fixed(1) => self.bytes.push(random.below(2) as u8),
            Kind::Fixed(bytes) => self.noise(*bytes, random),
            Kind::Text | Kind::Blob => {
                let text = random.text();
                self.length((!null).then_some(text.len()), matches!(kind, Kind::Text));
                if !null {
                    self.bytes.extend_from_slice(text.as_bytes());
                }
            }
            Kind::Struct(fields) => self.structure(fields, version, random, depth + 1),
            Kind::OptionalStruct(fields) => {
                self.bytes.push(if null { 0xff } else { 1 });
                if !null {
                    self.structure(fields, version, random, depth + 1);
                }
            }
            Kind::FixedArray(_) | Kind::TextArray | Kind::Array(_) => {
                let count = random.below(if depth == 0 { 5 } else { 3 });
                let start = self.bytes.len();
                self.length((!null).then_some(count), false);
                self.counts.push((start, self.bytes.len() - start));
                for _ in 0..if null { 0 } else { count } {
                    match kind {
                        Kind::FixedArray(bytes) => self.noise(*bytes, random),
                        Kind::Array(fields) => self.structure(fields, version, random, depth + 1),
                        _ => self.value(&Kind::Text, false, version, random, depth),
                    }
                }
            }
        }
    }

    fn noise(&mut self, bytes: usize, random: &mut Random) {
        self.bytes.extend((0..bytes).map(|_| random.next() as u8));
    }

    fn length(&mut self, length: Option<usize>, short: bool) {
        match (length, self.flexible) {
            (length, true) => self.varint(length.map_or(0, |length| length as u32 + 1)),
            (Some(length), false) if short => self.bytes.extend_from_slice(&(length as i16).to_be_bytes()),
            (Some(length), false) => self.bytes.extend_from_slice(&(length as i32).to_be_bytes()),
            (None, false) if short => self.bytes.extend_from_slice(&[0xff; 2]),
            (None, false) => self.bytes.extend_from_slice(&[0xff; 4]),
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// The body with the count at `at` replaced by `count`, which takes five bytes as a varint.
    pub fn inflated(&self, (at, width): (usize, usize), count: u32) -> Vec<u8> {
        let mut forged = Sample { flexible: self.flexible, bytes: self.bytes[..at].to_vec(), ..Sample::default() };
        if self.flexible {
            forged.varint(count);
        } else {
            forged.bytes.extend_from_slice(&count.to_be_bytes());
        }
        forged.bytes.extend_from_slice(&self.bytes[at + width..]);
        forged.bytes
    }
}

/// Calls the function with the crate's request type for the API.
macro_rules! with_request_type {
    ($api:expr, $function:ident($($argument:expr),*)) => {
        with_request_type!(@ $api, $function($($argument),*),
            ApiVersions: ApiVersionsRequest,
            Metadata: MetadataRequest,
            DescribeCluster: DescribeClusterRequest,
            SaslHandshake: SaslHandshakeRequest,
            DescribeAcls: DescribeAclsRequest,
            CreateAcls: CreateAclsRequest,
            DeleteAcls: DeleteAclsRequest,
            ListPartitionReassignments: ListPartitionReassignmentsRequest,
            DescribeClientQuotas: DescribeClientQuotasRequest,
            AlterClientQuotas: AlterClientQuotasRequest,
            DescribeUserScramCredentials: DescribeUserScramCredentialsRequest,
            DescribeTopicPartitions: DescribeTopicPartitionsRequest,
            DescribeLogDirs: DescribeLogDirsRequest,
            AlterReplicaLogDirs: AlterReplicaLogDirsRequest,
            DescribeProducers: DescribeProducersRequest,
            ListConfigResources: ListConfigResourcesRequest,
            ElectLeaders: ElectLeadersRequest,
            AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
            UpdateFeatures: UpdateFeaturesRequest,
            CreateTopics: CreateTopicsRequest,
            DeleteTopics: DeleteTopicsRequest,
            CreatePartitions: CreatePartitionsRequest,
            DeleteRecords: DeleteRecordsRequest,
            DescribeConfigs: DescribeConfigsRequest,
            AlterConfigs: AlterConfigsRequest,
            IncrementalAlterConfigs: IncrementalAlterConfigsRequest,
            ListOffsets: ListOffsetsRequest,
            OffsetForLeaderEpoch: OffsetForLeaderEpochRequest,
            InitProducerId: InitProducerIdRequest,
            AddPartitionsToTxn: AddPartitionsToTxnRequest,
            AddOffsetsToTxn: AddOffsetsToTxnRequest,
            EndTxn: EndTxnRequest,
            TxnOffsetCommit: TxnOffsetCommitRequest,
            DescribeTransactions: DescribeTransactionsRequest,
            ListTransactions: ListTransactionsRequest,
            FindCoordinator: FindCoordinatorRequest,
            ListGroups: ListGroupsRequest,
            DescribeGroups: DescribeGroupsRequest,
            OffsetCommit: OffsetCommitRequest,
            OffsetFetch: OffsetFetchRequest,
            JoinGroup: JoinGroupRequest,
            SyncGroup: SyncGroupRequest,
            Heartbeat: HeartbeatRequest,
            LeaveGroup: LeaveGroupRequest,
            DeleteGroups: DeleteGroupsRequest,
            OffsetDelete: OffsetDeleteRequest,
            ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest,
            ConsumerGroupDescribe: ConsumerGroupDescribeRequest,
        )
    };
    (@ $api:expr, $function:ident $arguments:tt, $($name:ident: $request:ty,)*) => {
        match $api {
            $(ApiKey::$name => $function::<$request>$arguments,)*
            other => panic!("the test does not know the request of {other:?}"),
        }
    };
}

/// The newest version served where the crate does not have it: `super::newer` reads it, and its
/// tests look at what is read.
fn newest(api: ApiKey) -> i16 {
    match api {
        ApiKey::ListOffsets => 11,
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => 10,
        ApiKey::DescribeLogDirs => 5,
        api => versions_of_the_crate(api).max,
    }
}

/// guard::decode where the crate does not have the version.
fn newer(api: ApiKey, version: i16, body: &[u8]) -> Option<Result<(), Malformed>> {
    fn run<T>(api: ApiKey, version: i16, body: &[u8]) -> Option<Result<(), Malformed>>
    where
        Newer<T>: guard::RequestBody,
    {
        Some(guard::decode::<Newer<T>>(api, version, &mut Bytes::copy_from_slice(body)).map(drop))
    }
    if version <= versions_of_the_crate(api).max {
        return None;
    }
    match api {
        ApiKey::ListOffsets => run::<ListOffsetsRequest>(api, version, body),
        ApiKey::OffsetCommit => run::<OffsetCommitRequest>(api, version, body),
        ApiKey::OffsetFetch => run::<OffsetFetchRequest>(api, version, body),
        ApiKey::DescribeLogDirs => run::<DescribeLogDirsRequest>(api, version, body),
        api => panic!("nobody reads {api:?} v{version}"),
    }
}

/// guard::decode with the crate's type, encoded again.
fn through_the_crate(api: ApiKey, version: i16, body: &[u8]) -> Result<BytesMut, Malformed> {
    fn run<T: Decodable + Encodable>(api: ApiKey, version: i16, body: &[u8]) -> Result<BytesMut, Malformed> {
        let mut rest = Bytes::copy_from_slice(body);
        let request: T = guard::decode(api, version, &mut rest)?;
        let mut again = BytesMut::new();
        request.encode(&mut again, version).unwrap();
        Ok(again)
    }
    with_request_type!(api, run(api, version, body))
}

/// Of the request itself: `ApiKey::valid_versions` says more for InitProducerId
/// than its request can decode.
fn versions_of_the_crate(api: ApiKey) -> VersionRange {
    fn run<T: Message>() -> VersionRange {
        T::VERSIONS
    }
    with_request_type!(api, run())
}

fn every_version(mut run: impl FnMut(&Shape, i16, &mut Random)) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for shape in SHAPES {
        for version in shape.min..=shape.max {
            run(shape, version, &mut random);
        }
    }
}

#[test]
fn the_shapes_say_what_the_crate_reads_and_writes() {
    every_version(|shape, version, random| {
        for _ in 0..60 {
            let sample = Sample::of(shape, version, random);
            if let Some(read) = newer(shape.api, version, &sample.bytes) {
                read.unwrap();
                continue;
            }
            let again = through_the_crate(shape.api, version, &sample.bytes).unwrap();
            assert_eq!(again, sample.bytes, "{:?} v{version}", shape.api);
        }
    });
}

#[test]
fn all_versions_of_the_crate_are_covered() {
    for shape in SHAPES {
        let versions = versions_of_the_crate(shape.api);
        let newest = newest(shape.api);
        assert_eq!(guard::versions(shape.api), Some(versions.min..=newest), "{:?}", shape.api);
        assert!(guard::check(shape.api, versions.min - 1, &[0; 64]).is_err());
        assert!(guard::check(shape.api, newest + 1, &[0; 64]).is_err());
    }
    assert_eq!(guard::versions(ApiKey::Vote), None);
    assert!(guard::check(ApiKey::Vote, 0, &[]).is_err());
}

#[test]
fn a_body_cut_short_is_refused_and_what_follows_one_is_not_looked_at() {
    every_version(|shape, version, random| {
        for _ in 0..10 {
            let mut body = Sample::of(shape, version, random).bytes;
            for cut in 0..body.len() {
                assert!(guard::check(shape.api, version, &body[..cut]).is_err(), "{:?} v{version} at {cut}", shape.api);
            }
            let length = body.len();
            body.extend([0, 0xff, 0]);
            assert_eq!(guard::check(shape.api, version, &body), Ok(length), "{:?} v{version}", shape.api);
        }
    });
}

#[test]
fn every_inflated_count_is_refused() {
    let mut forged = 0;
    every_version(|shape, version, random| {
        for _ in 0..20 {
            let sample = Sample::of(shape, version, random);
            for &count in &sample.counts {
                // The largest of each kind, and one element more than there are bytes.
                for claim in [i32::MAX as u32, u32::MAX - 1, sample.bytes.len() as u32 + 2] {
                    let body = sample.inflated(count, claim);
                    assert!(guard::check(shape.api, version, &body).is_err(), "{:?} v{version} {count:?}", shape.api);
                    forged += 1;
                }
            }
        }
    });
    assert!(forged > 10_000, "only {forged} forgeries were tried");
}

#[test]
fn damaged_bodies_never_panic() {
    every_version(|shape, version, random| {
        for _ in 0..40 {
            let sample = Sample::of(shape, version, random);
            for _ in 0..10 {
                let body = random.damage(&sample.bytes);
                if guard::check(shape.api, version, &body).is_ok() && newer(shape.api, version, &body).is_none() {
                    let _ = through_the_crate(shape.api, version, &body);
                }
            }
        }
    });
}

/// Counts are compared with the bytes that remain at one byte an element, so no
/// element may be empty.
#[test]
fn no_array_has_empty_elements() {
    fn least(fields: &[Field], version: i16, flexible: bool, at: &str) -> usize {
        let fields = fields.iter().filter(|field| field.exists_in(version));
        usize::from(flexible)
            + fields
                .map(|field| match field.kind {
                    Kind::Fixed(bytes) => bytes,
                    Kind::Text | Kind::Blob | Kind::FixedArray(_) | Kind::TextArray | Kind::OptionalStruct(_) => 1,
                    Kind::Struct(element) => least(element, version, flexible, at),
                    Kind::Array(element) => {
                        assert!(least(element, version, flexible, at) > 0, "{at}: {}", field.name);
                        1
                    }
                })
                .sum::<usize>()
    }
    every_version(|shape, version, _| {
        least(shape.fields, version, version >= flexible_from(shape.api), &format!("{:?} v{version}", shape.api));
    });
}

#[test]
fn null_is_accepted_just_where_kafka_does() {
    let check = |api, version, body: &[u8]| guard::check(api, version, body).is_ok();
    // Topics of Metadata: v0 has no null, all topics is the empty array there.
    assert!(!check(ApiKey::Metadata, 0, &[0xff; 4]));
    assert!(check(ApiKey::Metadata, 0, &[0; 4]));
    assert!(check(ApiKey::Metadata, 1, &[0xff; 4]));
    assert!(!check(ApiKey::Metadata, 1, &[0xff, 0xff, 0xff, 0xfe]));
    // A topic without a name: from v10, where it can have an id.
    assert!(!check(ApiKey::Metadata, 9, &[2, 0, 0, 0, 0, 0, 0]));
    assert!(check(ApiKey::Metadata, 10, &[&[2][..], &[7; 16], &[0, 0, 0, 0, 0, 0]].concat()));
    // Topics of OffsetFetch: from v2.
    assert!(!check(ApiKey::OffsetFetch, 1, &[0, 1, b'g', 0xff, 0xff, 0xff, 0xff]));
    assert!(check(ApiKey::OffsetFetch, 2, &[0, 1, b'g', 0xff, 0xff, 0xff, 0xff]));
    assert!(!check(ApiKey::FindCoordinator, 0, &[0xff, 0xff]));
    assert!(!check(ApiKey::DescribeTopicPartitions, 0, &[1, 0, 0, 0, 5, 2, 0]), "a presence byte of 2");
    assert!(check(ApiKey::DescribeTopicPartitions, 0, &[1, 0, 0, 0, 5, 0xff, 0]));
}

/// Written by the crate's own types: what is null here is what its encoder and
/// Kafka's definitions allow.
#[test]
fn requests_with_every_null_that_the_crate_can_write_pass() {
    fn pass<T: Encodable>(api: ApiKey, versions: std::ops::RangeInclusive<i16>, request: T) {
        for version in versions {
            let mut body = BytesMut::new();
            request.encode(&mut body, version).unwrap();
            guard::check(api, version, &body).unwrap();
            assert_eq!(through_the_crate(api, version, &body).unwrap(), body);
        }
    }
    let text = StrBytes::from_static_str;
    pass(ApiKey::Metadata, 1..=13, MetadataRequest::default().with_topics(None));
    pass(ApiKey::DescribeLogDirs, 1..=4, DescribeLogDirsRequest::default().with_topics(None));
    pass(ApiKey::InitProducerId, 0..=5, InitProducerIdRequest::default().with_transactional_id(None));
    pass(ApiKey::OffsetFetch, 2..=7, OffsetFetchRequest::default().with_group_id(text("g").into()).with_topics(None));
    let group = offset_fetch_request::OffsetFetchRequestGroup::default().with_topics(None);
    pass(ApiKey::OffsetFetch, 8..=9, OffsetFetchRequest::default().with_groups(vec![group]));
    pass(ApiKey::JoinGroup, 0..=9, JoinGroupRequest::default());
    pass(ApiKey::SyncGroup, 0..=5, SyncGroupRequest::default());
    pass(ApiKey::Heartbeat, 0..=4, HeartbeatRequest::default());
    let member = leave_group_request::MemberIdentity::default().with_member_id(text("m"));
    pass(ApiKey::LeaveGroup, 3..=5, LeaveGroupRequest::default().with_members(vec![member]));
    let resource = describe_configs_request::DescribeConfigsResource::default().with_configuration_keys(None);
    pass(ApiKey::DescribeConfigs, 1..=4, DescribeConfigsRequest::default().with_resources(vec![resource]));
    let config = create_topics_request::CreatableTopicConfig::default().with_value(None);
    let topic = create_topics_request::CreatableTopic::default().with_configs(vec![config]);
    pass(ApiKey::CreateTopics, 2..=7, CreateTopicsRequest::default().with_topics(vec![topic]));
    let topic = create_partitions_request::CreatePartitionsTopic::default().with_assignments(None);
    pass(ApiKey::CreatePartitions, 0..=3, CreatePartitionsRequest::default().with_topics(vec![topic]));
    let topic = delete_topics_request::DeleteTopicState::default().with_name(None);
    pass(ApiKey::DeleteTopics, 6..=6, DeleteTopicsRequest::default().with_topics(vec![topic]));
    pass(ApiKey::DescribeTopicPartitions, 0..=0, DescribeTopicPartitionsRequest::default().with_cursor(None));
    pass(ApiKey::ElectLeaders, 0..=2, ElectLeadersRequest::default().with_topic_partitions(None));
    let partition = alter_partition_reassignments_request::ReassignablePartition::default().with_replicas(None);
    let topic = alter_partition_reassignments_request::ReassignableTopic::default().with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
    pass(ApiKey::AlterPartitionReassignments, 0..=1, request);
    let topic = metadata_request::MetadataRequestTopic::default().with_name(None);
    pass(ApiKey::Metadata, 10..=13, MetadataRequest::default().with_topics(Some(vec![topic])));
    let config = alter_configs_request::AlterableConfig::default().with_value(None);
    let resource = alter_configs_request::AlterConfigsResource::default().with_configs(vec![config]);
    pass(ApiKey::AlterConfigs, 0..=2, AlterConfigsRequest::default().with_resources(vec![resource]));
    let config = incremental_alter_configs_request::AlterableConfig::default().with_value(None);
    let resource = incremental_alter_configs_request::AlterConfigsResource::default().with_configs(vec![config]);
    pass(
        ApiKey::IncrementalAlterConfigs,
        0..=1,
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
    );
    let partition = offset_commit_request::OffsetCommitRequestPartition::default().with_committed_metadata(None);
    let topic = offset_commit_request::OffsetCommitRequestTopic::default().with_partitions(vec![partition]);
    pass(ApiKey::OffsetCommit, 2..=9, OffsetCommitRequest::default().with_topics(vec![topic]));
    pass(ApiKey::ConsumerGroupHeartbeat, 0..=1, ConsumerGroupHeartbeatRequest::default().with_topic_partitions(None));
    let keys = vec![text("a"), text("b")];
    pass(ApiKey::FindCoordinator, 4..=6, FindCoordinatorRequest::default().with_coordinator_keys(keys));
}

#[test]
fn limits_hold_even_when_the_bytes_are_there() {
    // Metadata v1 with topics that have empty names: two bytes each.
    let metadata = |count: usize| [&(count as i32).to_be_bytes()[..], &vec![0; count * 2]].concat();
    assert!(guard::check(ApiKey::Metadata, 1, &metadata(MAX_ARRAY_ELEMENTS)).is_ok());
    let error = guard::check(ApiKey::Metadata, 1, &metadata(MAX_ARRAY_ELEMENTS + 1)).unwrap_err();
    assert!(error.to_string().contains("1000000"), "{error}");

    // The limit is on the sum: two arrays of ListGroups v5 that are within it one by one.
    let mut sample = Sample { flexible: true, ..Sample::default() };
    for _ in 0..2 {
        sample.varint(600_001);
        sample.bytes.extend(std::iter::repeat_n(1, 600_000));
    }
    sample.varint(0);
    assert!(guard::check(ApiKey::ListGroups, 5, &sample.bytes).is_err());

    let tags = |count: usize| {
        let mut sample = Sample { flexible: true, bytes: vec![1], ..Sample::default() };
        sample.bytes.push(1);
        sample.varint(count as u32);
        sample.bytes.extend(std::iter::repeat_n([5, 0], count).flatten());
        sample.bytes
    };
    assert!(guard::check(ApiKey::ListGroups, 5, &tags(MAX_TAGGED_FIELDS)).is_ok());
    assert!(guard::check(ApiKey::ListGroups, 5, &tags(MAX_TAGGED_FIELDS + 1)).is_err());

    // That limit is on the sum too: DescribeTopicPartitions v0 with tagged fields on its
    // one topic and on itself.
    let tags_twice = |count: usize| {
        let mut sample = Sample { flexible: true, bytes: vec![2, 2, b't'], ..Sample::default() };
        for between in [&[0, 0, 0, 1, 0xff][..], &[]] {
            sample.varint(count as u32);
            sample.bytes.extend(std::iter::repeat_n([5, 0], count).flatten());
            sample.bytes.extend_from_slice(between);
        }
        sample.bytes
    };
    assert!(guard::check(ApiKey::DescribeTopicPartitions, 0, &tags_twice(MAX_TAGGED_FIELDS / 2)).is_ok());
    assert!(guard::check(ApiKey::DescribeTopicPartitions, 0, &tags_twice(MAX_TAGGED_FIELDS / 2 + 1)).is_err());
}

#[test]
fn errors_say_what_and_where() {
    let body = [0, 0, 0, 0x7f, 1, 2];
    let error = guard::check(ApiKey::Metadata, 1, &body).unwrap_err().to_string();
    assert_eq!(error, "Metadata v1 request, at byte 4 of 6: topics claims 127 elements where 2 bytes remain");
}
