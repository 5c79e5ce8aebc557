//! Kafka's error codes (the `Errors` table of the protocol guide), those that
//! Corelane can answer with.

/// The protocol's error code; `as i16` is what goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(i16)]
pub enum ErrorCode {
    #[error("unexpected server error")]
    UnknownServerError = -1,
    #[error("no error")]
    None = 0,
    #[error("the offset is outside the partition's range")]
    OffsetOutOfRange = 1,
    #[error("the batch failed its CRC or is malformed")]
    CorruptMessage = 2,
    #[error("this broker does not host the topic or partition")]
    UnknownTopicOrPartition = 3,
    #[error("the fetch size is invalid")]
    InvalidFetchSize = 4,
    #[error("the partition has no leader at present")]
    LeaderNotAvailable = 5,
    #[error("this broker is not the partition's leader")]
    NotLeaderOrFollower = 6,
    #[error("the request timed out")]
    RequestTimedOut = 7,
    #[error("this broker has no replica of the partition")]
    ReplicaNotAvailable = 9,
    #[error("the batch is larger than max.message.bytes")]
    MessageTooLarge = 10,
    #[error("the coordinator is loading")]
    CoordinatorLoadInProgress = 14,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable = 15,
    #[error("this broker is not the coordinator")]
    NotCoordinator = 16,
    #[error("the topic name is invalid")]
    InvalidTopicException = 17,
    #[error("the batch is larger than the segment")]
    RecordListTooLarge = 18,
    #[error("fewer in-sync replicas than min.insync.replicas")]
    NotEnoughReplicas = 19,
    #[error("appended, but to fewer in-sync replicas than min.insync.replicas")]
    NotEnoughReplicasAfterAppend = 20,
    #[error("acks must be 0, 1 or -1")]
    InvalidRequiredAcks = 21,
    #[error("the metadata of an offset is larger than offset.metadata.max.bytes")]
    OffsetMetadataTooLarge = 12,
    #[error("the generation is not the group's")]
    IllegalGeneration = 22,
    #[error("the member supports no protocol that the group's other members support")]
    InconsistentGroupProtocol = 23,
    #[error("the group id is invalid")]
    InvalidGroupId = 24,
    #[error("the group does not know this member")]
    UnknownMemberId = 25,
    #[error("the session timeout is outside of what the broker allows")]
    InvalidSessionTimeout = 26,
    #[error("the group is rebalancing: join it again")]
    RebalanceInProgress = 27,
    #[error("the offsets' size is larger than the coordinator takes")]
    InvalidCommitOffsetSize = 28,
    #[error("the timestamp is outside the allowed range")]
    InvalidTimestamp = 32,
    #[error("the topic exists")]
    TopicAlreadyExists = 36,
    #[error("the number of partitions is invalid")]
    InvalidPartitions = 37,
    #[error("the replication factor is invalid")]
    InvalidReplicationFactor = 38,
    #[error("the replica assignment is invalid")]
    InvalidReplicaAssignment = 39,
    #[error("the configuration is invalid")]
    InvalidConfig = 40,
    #[error("this broker is not the controller")]
    NotController = 41,
    #[error("the request is malformed")]
    InvalidRequest = 42,
    #[error("the message format does not support this")]
    UnsupportedForMessageFormat = 43,
    #[error("the request violates a policy")]
    PolicyViolation = 44,
    #[error("the sequence number is out of order")]
    OutOfOrderSequenceNumber = 45,
    #[error("the sequence number was already written")]
    DuplicateSequenceNumber = 46,
    #[error("the producer epoch is stale")]
    InvalidProducerEpoch = 47,
    #[error("the transactional id is not in the right state")]
    InvalidTxnState = 48,
    #[error("the producer id is not that of the transactional id")]
    InvalidProducerIdMapping = 49,
    #[error("the transaction's timeout is larger than transaction.max.timeout.ms")]
    InvalidTransactionTimeout = 50,
    #[error("another change of the same transaction is under way")]
    ConcurrentTransactions = 51,
    #[error("another coordinator has written for the producer since")]
    TransactionCoordinatorFenced = 52,
    #[error("transactional records come with a transactional id")]
    TransactionalIdAuthorizationFailed = 53,
    #[error("there is no authorizer")]
    SecurityDisabled = 54,
    #[error("nothing was done, since another part of the request was refused")]
    OperationNotAttempted = 55,
    #[error("the disk failed")]
    KafkaStorageError = 56,
    #[error("the log directory is not found")]
    LogDirNotFound = 57,
    #[error("the producer id is unknown")]
    UnknownProducerId = 59,
    #[error("the group is not empty")]
    NonEmptyGroup = 68,
    #[error("there is no such group")]
    GroupIdNotFound = 69,
    #[error("the fetch session id is not found")]
    FetchSessionIdNotFound = 70,
    #[error("the fetch session epoch is invalid")]
    InvalidFetchSessionEpoch = 71,
    #[error("the leader has no address for the client's listener")]
    ListenerNotFound = 72,
    #[error("topic deletion is disabled")]
    TopicDeletionDisabled = 73,
    #[error("the leader epoch is older than the broker's")]
    FencedLeaderEpoch = 74,
    #[error("the leader epoch is newer than the broker's")]
    UnknownLeaderEpoch = 75,
    #[error("the compression type is not supported in this version")]
    UnsupportedCompressionType = 76,
    #[error("the listener does not authenticate")]
    IllegalSaslState = 34,
    #[error("the API or its version is not supported")]
    UnsupportedVersion = 35,
    #[error("the leader does not know yet up to where records are committed")]
    OffsetNotAvailable = 78,
    #[error("join again with the member id that the answer names")]
    MemberIdRequired = 79,
    #[error("the preferred leader is not available")]
    PreferredLeaderNotAvailable = 80,
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached = 81,
    #[error("another member has taken this group.instance.id")]
    FencedInstanceId = 82,
    #[error("no replica may become leader")]
    EligibleLeadersNotAvailable = 83,
    #[error("the partition has the leader that it should have")]
    ElectionNotNeeded = 84,
    #[error("no reassignment of the partition is under way")]
    NoReassignmentInProgress = 85,
    #[error("the group subscribes to the topic")]
    GroupSubscribedToTopic = 86,
    #[error("the record is invalid")]
    InvalidRecord = 87,
    #[error("an offset is part of a transaction that has not ended")]
    UnstableOffsetCommit = 88,
    #[error("the client's quota is exceeded")]
    ThrottlingQuotaExceeded = 89,
    #[error("another producer has taken the transactional id")]
    ProducerFenced = 90,
    #[error("there is no such resource")]
    ResourceNotFound = 91,
    #[error("a resource is named twice")]
    DuplicateResource = 92,
    #[error("the feature cannot have this version")]
    InvalidUpdateVersion = 95,
    #[error("there is no such transactional id")]
    TransactionalIdNotFound = 105,
    #[error("the topic id is unknown")]
    UnknownTopicId = 100,
    #[error("the topic id does not match the session's")]
    InconsistentTopicId = 103,
    #[error("the fetch session's topic ids are mixed with names")]
    FetchSessionTopicIdError = 106,
    #[error("the member epoch is not the current one")]
    FencedMemberEpoch = 110,
    #[error("the group.instance.id is in use by another member")]
    UnreleasedInstanceId = 111,
    #[error("the assignor is not supported")]
    UnsupportedAssignor = 112,
    #[error("the member epoch is stale: the member must take up its new one first")]
    StaleMemberEpoch = 113,
    #[error("the endpoint is not of the type asked for")]
    MismatchedEndpointType = 114,
    #[error("the endpoint type is not supported")]
    UnsupportedEndpointType = 115,
    #[error("the transaction cannot go on and is to be aborted")]
    TransactionAbortable = 120,
    #[error("the regular expression is invalid")]
    InvalidRegularExpression = 128,
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> i16 {
        code.code()
    }
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }
}
