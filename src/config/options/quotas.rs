//! Windows of time over which client quotas hold.

use super::{Access, Between, Int, OptionSpec, broker};

/// Samples of many clients are kept; Kafka has no upper bound.
const MOST_WINDOWS: i64 = 1000;
const MOST_SECONDS: i64 = 86_400;

pub(super) const QUOTAS: &[OptionSpec] = &[
    broker(
        "quota.window.num",
        Int,
        "11",
        Between(1, MOST_WINDOWS),
        integer!(Server quota_window_num),
        "Windows of time over which the quotas of clients hold (producer_byte_rate, consumer_byte_rate, request_percentage, connection_creation_rate): the \
         one under way and those before it. What they give may be used at once. In Kafka there may be any number.",
    ),
    broker(
        "quota.window.size.seconds",
        Int,
        "1",
        Between(1, MOST_SECONDS),
        integer!(Server quota_window_size_seconds),
        "Length of each of these windows. A day at most, which Kafka does not bound.",
    ),
    broker(
        "controller.quota.window.num",
        Int,
        "11",
        Between(1, MOST_WINDOWS),
        integer!(Server controller_quota_window_num),
        "Windows of time whose partitions may be created and deleted at once under the quota controller_mutation_rate. In Kafka there may be any number.",
    ),
    broker(
        "controller.quota.window.size.seconds",
        Int,
        "1",
        Between(1, MOST_SECONDS),
        integer!(Server controller_quota_window_size_seconds),
        "Length of each of these windows. A day at most, which Kafka does not bound.",
    ),
];
