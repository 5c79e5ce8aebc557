//! The wire shapes of the messages that the crate `kafka-protocol` decodes: Kafka's message
//! definitions (`clients/src/main/resources/common/message/*Request.json`, responses in
//! [`responses`]), as far as a walk over the bytes needs them.
//!
//! Where the compact encoding begins is in [`super::api_table::flexible_from`].

pub(super) mod responses;

use kafka_protocol::messages::ApiKey;

pub(super) enum Kind {
    /// So many bytes: booleans, integers, UUIDs.
    Fixed(usize),
    Text,
    Blob,
    /// Elements of so many bytes each.
    FixedArray(usize),
    TextArray,
    /// Each element takes at least one byte in every version that has the array:
    /// a test holds it to that.
    Array(&'static [Field]),
    Struct(&'static [Field]),
    /// A presence byte, then perhaps the structure.
    OptionalStruct(&'static [Field]),
}

pub(super) struct Field {
    pub name: &'static str,
    pub kind: Kind,
    from: i16,
    to: i16,
    null_from: i16,
}

impl Field {
    pub fn exists_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }

    pub fn may_be_null_in(&self, version: i16) -> bool {
        self.null_from <= version
    }

    /// First version with this field.
    const fn since(mut self, version: i16) -> Field {
        self.from = version;
        self
    }

    /// Last version with this field.
    const fn until(mut self, version: i16) -> Field {
        self.to = version;
        self
    }

    const fn nullable(self) -> Field {
        self.nullable_since(0)
    }

    const fn nullable_since(mut self, version: i16) -> Field {
        self.null_from = version;
        self
    }
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, from: 0, to: i16::MAX, null_from: i16::MAX }
}

const fn boolean(name: &'static str) -> Field {
    field(name, Kind::Fixed(1))
}

const fn int8(name: &'static str) -> Field {
    field(name, Kind::Fixed(1))
}

const fn int16(name: &'static str) -> Field {
    field(name, Kind::Fixed(2))
}

const fn int32(name: &'static str) -> Field {
    field(name, Kind::Fixed(4))
}

const fn int64(name: &'static str) -> Field {
    field(name, Kind::Fixed(8))
}

const fn float64(name: &'static str) -> Field {
    field(name, Kind::Fixed(8))
}

const fn uuid(name: &'static str) -> Field {
    field(name, Kind::Fixed(16))
}

const fn text(name: &'static str) -> Field {
    field(name, Kind::Text)
}

const fn blob(name: &'static str) -> Field {
    field(name, Kind::Blob)
}

const fn int32s(name: &'static str) -> Field {
    field(name, Kind::FixedArray(4))
}

const fn int64s(name: &'static str) -> Field {
    field(name, Kind::FixedArray(8))
}

const fn texts(name: &'static str) -> Field {
    field(name, Kind::TextArray)
}

const fn array(name: &'static str, element: &'static [Field]) -> Field {
    field(name, Kind::Array(element))
}

const fn nested(name: &'static str, element: &'static [Field]) -> Field {
    field(name, Kind::Struct(element))
}

const fn optional(name: &'static str, element: &'static [Field]) -> Field {
    field(name, Kind::OptionalStruct(element))
}

pub(super) struct Shape {
    pub api: ApiKey,
    pub min: i16,
    pub max: i16,
    pub fields: &'static [Field],
}

const fn shape(api: ApiKey, min: i16, max: i16, fields: &'static [Field]) -> Shape {
    Shape { api, min, max, fields }
}

pub(super) fn of(api: ApiKey) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.api as i16 == api as i16)
}

pub(super) fn of_response(api: ApiKey) -> Option<&'static Shape> {
    responses::RESPONSES.iter().find(|shape| shape.api as i16 == api as i16)
}

const ACL_FILTER: &[Field] = &[
    int8("resource_type_filter"),
    text("resource_name_filter").nullable(),
    int8("pattern_type_filter"),
    text("principal_filter").nullable(),
    text("host_filter").nullable(),
    int8("operation"),
    int8("permission_type"),
];

pub(super) static SHAPES: &[Shape] = &[
    // Cluster and metadata.
    shape(
        ApiKey::ApiVersions,
        0,
        4,
        &[text("client_software_name").since(3), text("client_software_version").since(3)],
    ),
    shape(
        ApiKey::Metadata,
        0,
        13,
        &[
            array("topics", &[uuid("topic_id").since(10), text("name").nullable_since(10)]).nullable_since(1),
            boolean("allow_auto_topic_creation").since(4),
            boolean("include_cluster_authorized_operations").since(8).until(10),
            boolean("include_topic_authorized_operations").since(8),
        ],
    ),
    shape(
        ApiKey::DescribeCluster,
        0,
        2,
        &[
            boolean("include_cluster_authorized_operations"),
            int8("endpoint_type").since(1),
            boolean("include_fenced_brokers").since(2),
        ],
    ),
    // Access control, quotas, credentials, replicas that move.
    shape(ApiKey::SaslHandshake, 0, 1, &[text("mechanism")]),
    shape(ApiKey::DescribeAcls, 1, 3, ACL_FILTER),
    shape(
        ApiKey::CreateAcls,
        1,
        3,
        &[array(
            "creations",
            &[
                int8("resource_type"),
                text("resource_name"),
                int8("resource_pattern_type"),
                text("principal"),
                text("host"),
                int8("operation"),
                int8("permission_type"),
            ],
        )],
    ),
    shape(ApiKey::DeleteAcls, 1, 3, &[array("filters", ACL_FILTER)]),
    shape(
        ApiKey::ListPartitionReassignments,
        0,
        0,
        &[int32("timeout_ms"), array("topics", &[text("name"), int32s("partition_indexes")]).nullable()],
    ),
    shape(
        ApiKey::DescribeClientQuotas,
        0,
        1,
        &[array("components", &[text("entity_type"), int8("match_type"), text("match").nullable()]), boolean("strict")],
    ),
    shape(
        ApiKey::AlterClientQuotas,
        0,
        1,
        &[
            array(
                "entries",
                &[
                    array("entity", &[text("entity_type"), text("entity_name").nullable()]),
                    array("ops", &[text("key"), float64("value"), boolean("remove")]),
                ],
            ),
            boolean("validate_only"),
        ],
    ),
    shape(ApiKey::DescribeUserScramCredentials, 0, 0, &[array("users", &[text("name")]).nullable()]),
    shape(
        ApiKey::DescribeTopicPartitions,
        0,
        0,
        &[
            array("topics", &[text("name")]),
            int32("response_partition_limit"),
            optional("cursor", &[text("topic_name"), int32("partition_index")]).nullable(),
        ],
    ),
    shape(ApiKey::ListConfigResources, 0, 1, &[field("resource_types", Kind::FixedArray(1)).since(1)]),
    shape(
        ApiKey::UpdateFeatures,
        0,
        2,
        &[
            int32("timeout_ms"),
            array(
                "feature_updates",
                &[
                    text("feature"),
                    int16("max_version_level"),
                    boolean("allow_downgrade").until(0),
                    int8("upgrade_type").since(1),
                ],
            ),
            boolean("validate_only").since(1),
        ],
    ),
    shape(
        ApiKey::ElectLeaders,
        0,
        2,
        &[
            int8("election_type").since(1),
            array("topic_partitions", &[text("topic"), int32s("partitions")]).nullable(),
            int32("timeout_ms"),
        ],
    ),
    shape(
        ApiKey::AlterPartitionReassignments,
        0,
        1,
        &[
            int32("timeout_ms"),
            boolean("allow_replication_factor_change").since(1),
            array(
                "topics",
                &[text("name"), array("partitions", &[int32("partition_index"), int32s("replicas").nullable()])],
            ),
        ],
    ),
    shape(ApiKey::DescribeProducers, 0, 0, &[array("topics", &[text("name"), int32s("partition_indexes")])]),
    shape(ApiKey::DescribeLogDirs, 1, 5, &[array("topics", &[text("topic"), int32s("partitions")]).nullable()]),
    shape(
        ApiKey::AlterReplicaLogDirs,
        1,
        2,
        &[array("dirs", &[text("path"), array("topics", &[text("name"), int32s("partitions")])])],
    ),
    // Topics.
    shape(
        ApiKey::CreateTopics,
        2,
        7,
        &[
            array(
                "topics",
                &[
                    text("name"),
                    int32("num_partitions"),
                    int16("replication_factor"),
                    array("assignments", &[int32("partition_index"), int32s("broker_ids")]),
                    array("configs", &[text("name"), text("value").nullable()]),
                ],
            ),
            int32("timeout_ms"),
            boolean("validate_only"),
        ],
    ),
    shape(
        ApiKey::DeleteTopics,
        1,
        6,
        &[
            array("topics", &[text("name").nullable(), uuid("topic_id")]).since(6),
            texts("topic_names").until(5),
            int32("timeout_ms"),
        ],
    ),
    shape(
        ApiKey::CreatePartitions,
        0,
        3,
        &[
            array("topics", &[text("name"), int32("count"), array("assignments", &[int32s("broker_ids")]).nullable()]),
            int32("timeout_ms"),
            boolean("validate_only"),
        ],
    ),
    shape(
        ApiKey::DeleteRecords,
        0,
        2,
        &[
            array("topics", &[text("name"), array("partitions", &[int32("partition_index"), int64("offset")])]),
            int32("timeout_ms"),
        ],
    ),
    // Configurations.
    shape(
        ApiKey::DescribeConfigs,
        1,
        4,
        &[
            array("resources", &[int8("resource_type"), text("resource_name"), texts("configuration_keys").nullable()]),
            boolean("include_synonyms"),
            boolean("include_documentation").since(3),
        ],
    ),
    shape(
        ApiKey::AlterConfigs,
        0,
        2,
        &[
            array(
                "resources",
                &[
                    int8("resource_type"),
                    text("resource_name"),
                    array("configs", &[text("name"), text("value").nullable()]),
                ],
            ),
            boolean("validate_only"),
        ],
    ),
    shape(
        ApiKey::IncrementalAlterConfigs,
        0,
        1,
        &[
            array(
                "resources",
                &[
                    int8("resource_type"),
                    text("resource_name"),
                    array("configs", &[text("name"), int8("config_operation"), text("value").nullable()]),
                ],
            ),
            boolean("validate_only"),
        ],
    ),
    // Offsets and producers.
    shape(
        ApiKey::ListOffsets,
        1,
        11,
        &[
            int32("replica_id"),
            int8("isolation_level").since(2),
            array(
                "topics",
                &[
                    text("name"),
                    array(
                        "partitions",
                        &[int32("partition_index"), int32("current_leader_epoch").since(4), int64("timestamp")],
                    ),
                ],
            ),
            int32("timeout_ms").since(10),
        ],
    ),
    shape(
        ApiKey::OffsetForLeaderEpoch,
        2,
        4,
        &[
            int32("replica_id").since(3),
            array(
                "topics",
                &[
                    text("topic"),
                    array("partitions", &[int32("partition"), int32("current_leader_epoch"), int32("leader_epoch")]),
                ],
            ),
        ],
    ),
    shape(
        ApiKey::InitProducerId,
        0,
        5,
        &[
            text("transactional_id").nullable(),
            int32("transaction_timeout_ms"),
            int64("producer_id").since(3),
            int16("producer_epoch").since(3),
        ],
    ),
    // Transactions.
    shape(
        ApiKey::AddPartitionsToTxn,
        0,
        5,
        &[
            array(
                "transactions",
                &[
                    text("transactional_id"),
                    int64("producer_id"),
                    int16("producer_epoch"),
                    boolean("verify_only"),
                    array("topics", &[text("name"), int32s("partitions")]),
                ],
            )
            .since(4),
            text("v3_and_below_transactional_id").until(3),
            int64("v3_and_below_producer_id").until(3),
            int16("v3_and_below_producer_epoch").until(3),
            array("v3_and_below_topics", &[text("name"), int32s("partitions")]).until(3),
        ],
    ),
    shape(
        ApiKey::AddOffsetsToTxn,
        0,
        4,
        &[text("transactional_id"), int64("producer_id"), int16("producer_epoch"), text("group_id")],
    ),
    shape(
        ApiKey::EndTxn,
        0,
        5,
        &[text("transactional_id"), int64("producer_id"), int16("producer_epoch"), boolean("committed")],
    ),
    shape(
        ApiKey::TxnOffsetCommit,
        0,
        5,
        &[
            text("transactional_id"),
            text("group_id"),
            int64("producer_id"),
            int16("producer_epoch"),
            int32("generation_id").since(3),
            text("member_id").since(3),
            text("group_instance_id").since(3).nullable(),
            array(
                "topics",
                &[
                    text("name"),
                    array(
                        "partitions",
                        &[
                            int32("partition_index"),
                            int64("committed_offset"),
                            int32("committed_leader_epoch").since(2),
                            text("committed_metadata").nullable(),
                        ],
                    ),
                ],
            ),
        ],
    ),
    shape(ApiKey::DescribeTransactions, 0, 0, &[texts("transactional_ids")]),
    shape(
        ApiKey::ListTransactions,
        0,
        2,
        &[
            texts("state_filters"),
            int64s("producer_id_filters"),
            int64("duration_filter").since(1),
            text("transactional_id_pattern").since(2).nullable(),
        ],
    ),
    // Groups.
    shape(
        ApiKey::FindCoordinator,
        0,
        6,
        &[text("key").until(3), int8("key_type").since(1), texts("coordinator_keys").since(4)],
    ),
    shape(ApiKey::ListGroups, 0, 5, &[texts("states_filter").since(4), texts("types_filter").since(5)]),
    shape(ApiKey::DescribeGroups, 0, 6, &[texts("groups"), boolean("include_authorized_operations").since(3)]),
    shape(
        ApiKey::OffsetCommit,
        2,
        10,
        &[
            text("group_id"),
            int32("generation_id_or_member_epoch"),
            text("member_id"),
            text("group_instance_id").since(7).nullable(),
            int64("retention_time_ms").until(4),
            array(
                "topics",
                &[
                    text("name").until(9),
                    uuid("topic_id").since(10),
                    array(
                        "partitions",
                        &[
                            int32("partition_index"),
                            int64("committed_offset"),
                            int32("committed_leader_epoch").since(6),
                            text("committed_metadata").nullable(),
                        ],
                    ),
                ],
            ),
        ],
    ),
    shape(
        ApiKey::OffsetFetch,
        1,
        10,
        &[
            text("group_id").until(7),
            array("topics", &[text("name"), int32s("partition_indexes")]).until(7).nullable_since(2),
            array(
                "groups",
                &[
                    text("group_id"),
                    text("member_id").since(9).nullable(),
                    int32("member_epoch").since(9),
                    array("topics", &[text("name").until(9), uuid("topic_id").since(10), int32s("partition_indexes")])
                        .nullable(),
                ],
            )
            .since(8),
            boolean("require_stable").since(7),
        ],
    ),
    shape(
        ApiKey::JoinGroup,
        0,
        9,
        &[
            text("group_id"),
            int32("session_timeout_ms"),
            int32("rebalance_timeout_ms").since(1),
            text("member_id"),
            text("group_instance_id").since(5).nullable(),
            text("protocol_type"),
            array("protocols", &[text("name"), blob("metadata")]),
            text("reason").since(8).nullable(),
        ],
    ),
    shape(
        ApiKey::SyncGroup,
        0,
        5,
        &[
            text("group_id"),
            int32("generation_id"),
            text("member_id"),
            text("group_instance_id").since(3).nullable(),
            text("protocol_type").since(5).nullable(),
            text("protocol_name").since(5).nullable(),
            array("assignments", &[text("member_id"), blob("assignment")]),
        ],
    ),
    shape(
        ApiKey::Heartbeat,
        0,
        4,
        &[text("group_id"), int32("generation_id"), text("member_id"), text("group_instance_id").since(3).nullable()],
    ),
    shape(
        ApiKey::LeaveGroup,
        0,
        5,
        &[
            text("group_id"),
            text("member_id").until(2),
            array(
                "members",
                &[text("member_id"), text("group_instance_id").nullable(), text("reason").since(5).nullable()],
            )
            .since(3),
        ],
    ),
    shape(ApiKey::DeleteGroups, 0, 2, &[texts("groups_names")]),
    shape(
        ApiKey::OffsetDelete,
        0,
        0,
        &[text("group_id"), array("topics", &[text("name"), array("partitions", &[int32("partition_index")])])],
    ),
    shape(
        ApiKey::ConsumerGroupHeartbeat,
        0,
        1,
        &[
            text("group_id"),
            text("member_id"),
            int32("member_epoch"),
            text("instance_id").nullable(),
            text("rack_id").nullable(),
            int32("rebalance_timeout_ms"),
            texts("subscribed_topic_names").nullable(),
            text("subscribed_topic_regex").since(1).nullable(),
            text("server_assignor").nullable(),
            array("topic_partitions", &[uuid("topic_id"), int32s("partitions")]).nullable(),
        ],
    ),
    shape(ApiKey::ConsumerGroupDescribe, 0, 1, &[texts("group_ids"), boolean("include_authorized_operations")]),
];
