//! The shapes of responses, as a generator: see `guard`.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::Random;
use super::guard::Sample;
use crate::protocol::frame::Malformed;
use crate::protocol::guard;
use crate::protocol::newer::Newer;
use crate::protocol::respond::ResponseBody;
use crate::protocol::shapes::Shape;
use crate::protocol::shapes::responses::RESPONSES;

/// guard::decode_response with the crate's type, encoded again.
fn through_the_crate(api: ApiKey, version: i16, body: &[u8]) -> Result<BytesMut, Malformed> {
    fn run<T: Decodable + Encodable>(api: ApiKey, version: i16, body: &[u8]) -> Result<BytesMut, Malformed> {
        let response: T = guard::decode_response(api, version, &mut Bytes::copy_from_slice(body))?;
        let mut again = BytesMut::new();
        response.encode(&mut again, version).unwrap();
        Ok(again)
    }
    if (api, version) == (ApiKey::DescribeLogDirs, 5) {
        let response = guard::decode_response(api, version, &mut Bytes::copy_from_slice(body))?;
        let mut again = BytesMut::new();
        Newer::<DescribeLogDirsResponse>(response).write(version, &mut again).unwrap();
        return Ok(again);
    }
    macro_rules! responses {
        ($($name:ident: $response:ty,)*) => {
            match api {
                $(ApiKey::$name => run::<$response>(api, version, body),)*
                other => panic!("the test does not know the response of {other:?}"),
            }
        };
    }
    responses!(
        ApiVersions: ApiVersionsResponse,
        Metadata: MetadataResponse,
        DescribeTopicPartitions: DescribeTopicPartitionsResponse,
        DescribeLogDirs: DescribeLogDirsResponse,
        AlterReplicaLogDirs: AlterReplicaLogDirsResponse,
        AlterPartitionReassignments: AlterPartitionReassignmentsResponse,
        ElectLeaders: ElectLeadersResponse,
        ListPartitionReassignments: ListPartitionReassignmentsResponse,
        CreateTopics: CreateTopicsResponse,
        DeleteTopics: DeleteTopicsResponse,
        CreatePartitions: CreatePartitionsResponse,
        DeleteRecords: DeleteRecordsResponse,
        ListOffsets: ListOffsetsResponse,
        Fetch: FetchResponse,
        DescribeClientQuotas: DescribeClientQuotasResponse,
        AlterClientQuotas: AlterClientQuotasResponse,
        DescribeConfigs: DescribeConfigsResponse,
        IncrementalAlterConfigs: IncrementalAlterConfigsResponse,
        FindCoordinator: FindCoordinatorResponse,
        ListGroups: ListGroupsResponse,
        DescribeGroups: DescribeGroupsResponse,
        ConsumerGroupDescribe: ConsumerGroupDescribeResponse,
        JoinGroup: JoinGroupResponse,
        SyncGroup: SyncGroupResponse,
        Heartbeat: HeartbeatResponse,
        LeaveGroup: LeaveGroupResponse,
        InitProducerId: InitProducerIdResponse,
        AddPartitionsToTxn: AddPartitionsToTxnResponse,
        OffsetFetch: OffsetFetchResponse,
        OffsetCommit: OffsetCommitResponse,
        DeleteGroups: DeleteGroupsResponse,
    )
}

fn every_version(mut run: impl FnMut(&Shape, i16, &mut Random)) {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for shape in RESPONSES {
        assert_eq!(guard::response_versions(shape.api), Some(shape.min..=shape.max));
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
            let again = through_the_crate(shape.api, version, &sample.bytes).unwrap();
            if (shape.api, version) == (ApiKey::DescribeLogDirs, 5) {
                // Tagged fields beside the one for what the crate lacks are not kept.
                assert_eq!(through_the_crate(shape.api, version, &again).unwrap(), again);
                continue;
            }
            assert_eq!(again, sample.bytes, "{:?} v{version}", shape.api);
        }
    });
}

#[test]
fn a_body_of_another_length_is_refused() {
    every_version(|shape, version, random| {
        for _ in 0..5 {
            let mut body = Sample::of(shape, version, random).bytes;
            for cut in 0..body.len() {
                assert!(through_the_crate(shape.api, version, &body[..cut]).is_err(), "{:?} v{version}", shape.api);
            }
            body.push(0);
            assert!(through_the_crate(shape.api, version, &body).is_err(), "{:?} v{version}", shape.api);
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
                for claim in [i32::MAX as u32, u32::MAX - 1, sample.bytes.len() as u32 + 2] {
                    let body = sample.inflated(count, claim);
                    assert!(through_the_crate(shape.api, version, &body).is_err(), "{:?} v{version}", shape.api);
                    forged += 1;
                }
            }
        }
    });
    assert!(forged > 10_000, "only {forged} forgeries were tried");
}

#[test]
fn versions_that_are_not_read_are_refused() {
    for shape in RESPONSES {
        for version in [shape.min - 1, shape.max + 1] {
            let error = through_the_crate(shape.api, version, &[0; 64]).unwrap_err().to_string();
            assert!(error.contains("are supported"), "{error}");
        }
    }
    assert_eq!(guard::response_versions(ApiKey::Vote), None);
}
