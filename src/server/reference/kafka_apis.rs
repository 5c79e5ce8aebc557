//! Every API that a broker of Apache Kafka names or can name, and its place here.

/// Version of Kafka that the ranges are of.
pub const KAFKA_VERSION: &str = "4.3.1";

/// An API of Kafka's brokers.
#[derive(Debug)]
pub struct KafkaApi {
    pub key: i16,
    pub name: &'static str,
    /// Oldest and newest version of Kafka's message definitions, unstable ones left out.
    pub oldest: i16,
    pub newest: i16,
    pub here: Here,
}

#[derive(Debug, PartialEq)]
pub enum Here {
    Served(&'static [Difference]),
    Absent(Absence),
}

/// Behaviour that a client can tell from Kafka's. Cells of a Markdown table.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub here: &'static str,
    pub why: &'static str,
}

/// Reason why an API is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    Security,
    Quorum,
    ShareGroups,
    StreamsGroups,
    Telemetry,
}

impl Absence {
    pub const ALL: [Absence; 5] =
        [Absence::Security, Absence::Quorum, Absence::ShareGroups, Absence::StreamsGroups, Absence::Telemetry];

    pub fn title(self) -> &'static str {
        match self {
            Absence::Security => "Authentication",
            Absence::Quorum => "The quorum of controllers (KRaft)",
            Absence::ShareGroups => "Share groups",
            Absence::StreamsGroups => "Streams groups",
            Absence::Telemetry => "Metrics of clients",
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Absence::Security => {
                "Every listener is PLAINTEXT: there are no users to authenticate. Options that ask for TLS or SASL stop the start."
            }
            Absence::Quorum => {
                "Metadata is in a local file or in ZooKeeper. Registrations of brokers are ephemeral, so one that is gone has none to be removed."
            }
            Absence::ShareGroups => "Share groups (KIP-932) are not implemented.",
            Absence::StreamsGroups => {
                "Streams groups (KIP-1071) are not implemented. Kafka Streams runs with its classic protocol, the default."
            }
            Absence::Telemetry => {
                "There are no plugins that could take them (KIP-714). Kafka names these APIs only where one is configured."
            }
        }
    }
}

const fn served(
    key: i16,
    name: &'static str,
    (oldest, newest): (i16, i16),
    differences: &'static [Difference],
) -> KafkaApi {
    KafkaApi { key, name, oldest, newest, here: Here::Served(differences) }
}

const fn absent(key: i16, name: &'static str, (oldest, newest): (i16, i16), why: Absence) -> KafkaApi {
    KafkaApi { key, name, oldest, newest, here: Here::Absent(why) }
}

const fn differs(here: &'static str, why: &'static str) -> Difference {
    Difference { here, why }
}

const ANSWER_SIZE: &str = "A few bytes must not buy an answer a thousand times their size.";
const ONE_BOUND: &str = "Memory that clients can fill is bounded over all of them ([bounds](internals/bounds.md)).";

/// Differences in every API.
pub const ALL_REQUESTS: &[Difference] = &[
    differs(
        "A request other than Produce has at most 4 MiB (less where `corelane.receive.memory.bytes` is below 64 MiB: a sixteenth of it). A larger one ends the connection. Kafka takes `socket.request.max.bytes` of any.",
        "Elements of two bytes become structures of some hundred bytes.",
    ),
    differs(
        "The next Produce request of a connection is begun before the one before it is answered; answers keep the order of requests. Kafka begins a request when the one before it was answered.",
        "Producers that pipeline need not wait for one batch at a time.",
    ),
    differs("`error_message` is cut after 1,024 bytes.", "It may repeat what the client sent."),
    differs(
        "A timeout of a change of metadata counts as five minutes at most.",
        "A client that is gone must not be waited for.",
    ),
    differs(
        "Memory for groups, transactional ids, fetch sessions and producers has a bound. Beyond it: GROUP_MAX_SIZE_REACHED, COORDINATOR_NOT_AVAILABLE, session id 0; the longest idle producer is forgotten.",
        ONE_BOUND,
    ),
];

/// Ranges: `ApiKeys` of `kafka-clients` 4.3.1, the APIs that its brokers can name.
pub const KAFKA_APIS: &[KafkaApi] = &[
    served(
        0,
        "Produce",
        (3, 13),
        &[
            differs(
                "At most 100,000 partitions in a request; more end the connection.",
                "A place in the answer takes more memory than an empty partition in the request.",
            ),
            differs(
                "A compressed batch may decompress to 128 MiB; the first 1,000 bad records of a batch are named.",
                "Decompression bombs cost their sender only.",
            ),
            differs(
                "NOT_ENOUGH_REPLICAS for a batch that begins a transaction while open ones have half of `corelane.producer.state.max.bytes`.",
                ONE_BOUND,
            ),
        ],
    ),
    served(
        1,
        "Fetch",
        (4, 18),
        &[
            differs(
                "A fetch whose request and partitions take more than 16 KiB waits for data only while there is memory for such; otherwise it is answered at once.",
                ONE_BOUND,
            ),
            differs(
                "A batch larger than all that `consumer_byte_rate` gives in its windows is sent when nothing else was. In Kafka it never is.",
                "A quota slows a consumer down and does not stop it.",
            ),
        ],
    ),
    served(2, "ListOffsets", (1, 11), &[]),
    served(
        3,
        "Metadata",
        (0, 13),
        &[
            differs(
                "`controller_id` is the controller. A broker of Kafka with KRaft names any broker.",
                "The controller is a broker here, and clients reach it.",
            ),
            differs(
                "At most 1,000 topics are created at a time and shard; clients ask again for the rest. They do not count for `controller_mutation_rate`.",
                ONE_BOUND,
            ),
        ],
    ),
    served(8, "OffsetCommit", (2, 10), &[]),
    served(
        9,
        "OffsetFetch",
        (1, 10),
        &[differs("A group or a partition that is named twice is answered once.", ANSWER_SIZE)],
    ),
    served(10, "FindCoordinator", (0, 6), &[differs("INVALID_REQUEST for keys of share groups.", "There are none.")]),
    served(
        11,
        "JoinGroup",
        (0, 9),
        &[differs(
            "INVALID_REQUEST for a `group.instance.id` of more than 1,024 bytes, here and in the other APIs of groups.",
            "Ids of members are made of it and go into the answers to others.",
        )],
    ),
    served(12, "Heartbeat", (0, 4), &[]),
    served(13, "LeaveGroup", (0, 5), &[]),
    served(
        14,
        "SyncGroup",
        (0, 5),
        &[differs(
            "UNKNOWN_SERVER_ERROR and a new rebalance where the leader's assignments do not fit into `corelane.group.max.bytes`.",
            ONE_BOUND,
        )],
    ),
    served(15, "DescribeGroups", (0, 6), &[differs("A group that is named twice is answered once.", ANSWER_SIZE)]),
    served(16, "ListGroups", (0, 5), &[]),
    served(17, "SaslHandshake", (0, 1), &[]),
    served(
        18,
        "ApiVersions",
        (0, 4),
        &[differs(
            "Features are `group.version` (always 1) and `transaction.version` (always 2), of epoch 0. Kafka also names `metadata.version`, `kraft.version` and those of eligible leader replicas, share and streams groups.",
            "There is no log of metadata whose records have versions; supported features are in force.",
        )],
    ),
    served(
        19,
        "CreateTopics",
        (2, 7),
        &[
            differs(
                "At most 100,000 partitions in a request, and `corelane.max.partitions` in all. Kafka: 10,000 in a request.",
                "`corelane.max.partitions` is the bound that counts: memory and descriptors.",
            ),
            differs(
                "The options of the first 5,000 topics of a request are told; POLICY_VIOLATION in `topic_config_error_code` stands for the rest.",
                ANSWER_SIZE,
            ),
            differs("INVALID_CONFIG for more than 4,096 bytes of options of one topic.", ONE_BOUND),
            CORDONED,
        ],
    ),
    served(
        20,
        "DeleteTopics",
        (1, 6),
        &[differs(
            "INVALID_TOPIC_EXCEPTION for `__consumer_offsets` and `__transaction_state` unless `corelane.internal.topics.delete=true`. Kafka deletes them.",
            "What they hold cannot be written by a client again.",
        )],
    ),
    served(
        21,
        "DeleteRecords",
        (0, 2),
        &[differs(
            "The answer comes when the leader has written its new log start. Kafka waits, up to `timeout_ms`, for every replica that is alive.",
            "Followers take the log start from their next fetch.",
        )],
    ),
    served(22, "InitProducerId", (0, 5), &[]),
    served(23, "OffsetForLeaderEpoch", (2, 4), &[]),
    served(24, "AddPartitionsToTxn", (0, 5), &[]),
    served(25, "AddOffsetsToTxn", (0, 4), &[]),
    served(26, "EndTxn", (0, 5), &[]),
    served(27, "WriteTxnMarkers", (1, 2), &[]),
    served(28, "TxnOffsetCommit", (0, 5), &[]),
    served(29, "DescribeAcls", (1, 3), &[]),
    served(30, "CreateAcls", (1, 3), &[]),
    served(31, "DeleteAcls", (1, 3), &[]),
    served(
        32,
        "DescribeConfigs",
        (1, 4),
        &[
            differs("A resource that is named twice is answered once, with the options of both.", ANSWER_SIZE),
            differs("Resources past 96 MiB of answer get INVALID_REQUEST.", ONE_BOUND),
            differs(
                "A broker has no loggers, and there are no resources for metrics of clients.",
                "The level of the log is one filter, `corelane.log.level`; metrics of clients are not taken.",
            ),
        ],
    ),
    served(33, "AlterConfigs", (0, 2), &[LOGGERS, GROUP_OPTIONS]),
    served(
        34,
        "AlterReplicaLogDirs",
        (1, 2),
        &[differs(
            "What differs stands in [disk.md](internals/disk.md#replicas-that-move-between-data-directories).",
            "A replica is moved by its owner and opened anew, without a second log that follows.",
        )],
    ),
    served(35, "DescribeLogDirs", (1, 5), &[]),
    absent(36, "SaslAuthenticate", (0, 2), Absence::Security),
    served(
        37,
        "CreatePartitions",
        (0, 3),
        &[differs("At most 100,000 partitions in a request. Kafka: 10,000.", "As in CreateTopics."), CORDONED],
    ),
    absent(38, "CreateDelegationToken", (1, 3), Absence::Security),
    absent(39, "RenewDelegationToken", (1, 2), Absence::Security),
    absent(40, "ExpireDelegationToken", (1, 2), Absence::Security),
    absent(41, "DescribeDelegationToken", (1, 3), Absence::Security),
    served(42, "DeleteGroups", (0, 2), &[]),
    served(43, "ElectLeaders", (0, 2), &[]),
    served(44, "IncrementalAlterConfigs", (0, 1), &[LOGGERS, GROUP_OPTIONS]),
    served(
        45,
        "AlterPartitionReassignments",
        (0, 1),
        &[
            differs(
                "A broker that is alone refuses a reassignment to other replicas with INVALID_REPLICA_ASSIGNMENT.",
                "There is no other broker.",
            ),
            CORDONED,
        ],
    ),
    served(46, "ListPartitionReassignments", (0, 0), &[]),
    served(47, "OffsetDelete", (0, 0), &[]),
    served(48, "DescribeClientQuotas", (0, 1), &[]),
    served(
        49,
        "AlterClientQuotas",
        (0, 1),
        &[
            differs(
                "How quotas are counted differs in some points ([quotas.md](internals/quotas.md)).",
                "Shards count without a lock.",
            ),
            differs("The user of every client is ANONYMOUS.", "There is no authentication."),
            differs("At most 10,000 entities with quotas, and names of 1,024 bytes.", ONE_BOUND),
        ],
    ),
    served(50, "DescribeUserScramCredentials", (0, 0), &[]),
    absent(51, "AlterUserScramCredentials", (0, 0), Absence::Security),
    absent(55, "DescribeQuorum", (0, 2), Absence::Quorum),
    served(
        57,
        "UpdateFeatures",
        (0, 2),
        &[differs(
            "INVALID_UPDATE_VERSION for any level but the one in force, and for any other feature.",
            "The features of ApiVersions cannot be switched off.",
        )],
    ),
    served(
        60,
        "DescribeCluster",
        (0, 2),
        &[differs("`controller_id` is the controller, and no broker is told as fenced.", "As in Metadata.")],
    ),
    served(61, "DescribeProducers", (0, 0), &[]),
    absent(64, "UnregisterBroker", (0, 0), Absence::Quorum),
    served(
        65,
        "DescribeTransactions",
        (0, 0),
        &[differs(
            "The states Dead and PrepareEpochFence are not seen.",
            "A coordinator's decision holds at once; no answer leaves before its record is committed.",
        )],
    ),
    served(66, "ListTransactions", (0, 2), &[differs("As DescribeTransactions.", "The same.")]),
    served(
        68,
        "ConsumerGroupHeartbeat",
        (0, 1),
        &[
            differs("The server-side assignors are `uniform` and `range`.", "There are no plugins."),
            differs(
                "At most 100 regular expressions a group, of 4,096 bytes each: GROUP_MAX_SIZE_REACHED, INVALID_REGULAR_EXPRESSION.",
                ONE_BOUND,
            ),
        ],
    ),
    served(69, "ConsumerGroupDescribe", (0, 1), &[]),
    absent(71, "GetTelemetrySubscriptions", (0, 0), Absence::Telemetry),
    absent(72, "PushTelemetry", (0, 0), Absence::Telemetry),
    served(
        74,
        "ListConfigResources",
        (0, 1),
        &[differs("There are no resources for metrics of clients.", "They are not taken.")],
    ),
    served(
        75,
        "DescribeTopicPartitions",
        (0, 0),
        &[differs(
            "2,000 partitions an answer, the default of Kafka's `max.request.partition.size.limit`.",
            "The option is not implemented.",
        )],
    ),
    absent(76, "ShareGroupHeartbeat", (1, 1), Absence::ShareGroups),
    absent(77, "ShareGroupDescribe", (1, 1), Absence::ShareGroups),
    absent(78, "ShareFetch", (1, 2), Absence::ShareGroups),
    absent(79, "ShareAcknowledge", (1, 2), Absence::ShareGroups),
    absent(80, "AddRaftVoter", (0, 1), Absence::Quorum),
    absent(81, "RemoveRaftVoter", (0, 0), Absence::Quorum),
    absent(83, "InitializeShareGroupState", (0, 0), Absence::ShareGroups),
    absent(84, "ReadShareGroupState", (0, 0), Absence::ShareGroups),
    absent(85, "WriteShareGroupState", (0, 1), Absence::ShareGroups),
    absent(86, "DeleteShareGroupState", (0, 0), Absence::ShareGroups),
    absent(87, "ReadShareGroupStateSummary", (0, 1), Absence::ShareGroups),
    absent(88, "StreamsGroupHeartbeat", (0, 0), Absence::StreamsGroups),
    absent(89, "StreamsGroupDescribe", (0, 0), Absence::StreamsGroups),
    absent(90, "DescribeShareGroupOffsets", (0, 1), Absence::ShareGroups),
    absent(91, "AlterShareGroupOffsets", (0, 0), Absence::ShareGroups),
    absent(92, "DeleteShareGroupOffsets", (0, 0), Absence::ShareGroups),
];

const CORDONED: Difference = differs(
    "INVALID_REPLICA_ASSIGNMENT for a broker all of whose data directories are cordoned (KIP-1066), assigned by hand. Kafka 4.3 assigns it.",
    "As later versions of Kafka do.",
);
const LOGGERS: Difference = differs("INVALID_REQUEST for loggers and metrics of clients.", "As in DescribeConfigs.");
const GROUP_OPTIONS: Difference = differs(
    "POLICY_VIOLATION beyond 10,000 groups with options of their own, INVALID_CONFIG beyond 4 KiB of options of one.",
    ONE_BOUND,
);
