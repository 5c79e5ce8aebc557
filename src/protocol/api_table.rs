//! Which versions of an API are served. The specs themselves stand beside their handlers; the
//! dispatch table collects them.

use kafka_protocol::messages::ApiKey;

/// When a request is worked on, and who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decoded, handled and answered before the next request of its connection is looked at.
    AtOnce,
    /// Begun when all requests of its connection before it have been answered, which may take
    /// minutes. Until then it is a copy of its bytes, and its connection is read on.
    InLine,
    /// The handler reads the request and writes the answer itself, and may leave the answer for
    /// later.
    OwnCodec,
}

/// One API as this broker serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiSpec {
    pub key: ApiKey,
    /// Oldest version served.
    pub min: i16,
    /// Newest version served.
    pub max: i16,
    /// The oldest version that ApiVersions names. Differs from `min` for Produce only: librdkafka
    /// up to 2.8 sends uncompressed batches to a broker that does not name v0, so v0 to v2 are
    /// named and refused (KAFKA-18659).
    pub advertised_min: i16,
    /// First version with compact encodings, tagged fields and request header v2 (KIP-482).
    pub flexible_from: i16,
    pub mode: Mode,
}

impl ApiSpec {
    /// Served [at once](Mode::AtOnce).
    pub const fn new(key: ApiKey, min: i16, max: i16) -> ApiSpec {
        let advertised_min = if matches!(key, ApiKey::Produce) { 0 } else { min };
        ApiSpec { key, min, max, advertised_min, flexible_from: flexible_from(key), mode: Mode::AtOnce }
    }

    pub const fn in_line(self) -> ApiSpec {
        ApiSpec { mode: Mode::InLine, ..self }
    }

    pub const fn own_codec(self) -> ApiSpec {
        ApiSpec { mode: Mode::OwnCodec, ..self }
    }

    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    pub const fn supports(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// The first flexible version of each request, `flexibleVersions` in Kafka's message definitions.
pub const fn flexible_from(key: ApiKey) -> i16 {
    use ApiKey::*;
    match key {
        // SaslHandshake and OffsetDelete never became flexible.
        SaslHandshake | OffsetDelete => i16::MAX,
        Fetch => 12,
        Produce | Metadata => 9,
        OffsetCommit => 8,
        ListOffsets | OffsetFetch | JoinGroup => 6,
        DescribeGroups | CreateTopics => 5,
        Heartbeat | LeaveGroup | SyncGroup | DeleteTopics | OffsetForLeaderEpoch | DescribeConfigs => 4,
        FindCoordinator | ListGroups | ApiVersions | AddPartitionsToTxn | AddOffsetsToTxn | EndTxn
        | TxnOffsetCommit => 3,
        DeleteRecords
        | InitProducerId
        | DescribeAcls
        | CreateAcls
        | DeleteAcls
        | AlterConfigs
        | AlterReplicaLogDirs
        | DescribeLogDirs
        | SaslAuthenticate
        | CreatePartitions
        | CreateDelegationToken
        | RenewDelegationToken
        | ExpireDelegationToken
        | DescribeDelegationToken
        | DeleteGroups
        | ElectLeaders => 2,
        WriteTxnMarkers
        | IncrementalAlterConfigs
        | DescribeClientQuotas
        | AlterClientQuotas
        | BeginQuorumEpoch
        | EndQuorumEpoch => 1,
        // Everything newer was born flexible.
        _ => 0,
    }
}
