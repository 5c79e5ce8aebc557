"""The suites of stock clients, as they are run against one broker, against three with three replicas of each partition."""

import pytest

from support import cluster as clusters
from support.broker import target
from test_clients import (  # noqa: F401
    test_acks as test_acks_of_librdkafka,
    test_auto_create,
    test_confluent_lines,
    test_confluent_million,
    test_kafka_python,
    test_kafka_python_acks,
    test_kcat_lines,
    test_kcat_lists,
    test_keys_headers_timestamps_and_nulls,
    test_log_append_time,
    test_long_poll_wakes_on_append,
)
from test_groups import (  # noqa: F401
    crowd,
    fresh,
    test_an_offset_out_of_range_is_reset,
    test_churn_under_load,
    test_frozen_members_lose_their_partitions_and_come_back,
    test_migration_there_and_back,
    test_offsets_of_an_unknown_group,
    test_partitions_added_and_a_topic_deleted,
    test_regular_expressions,
    test_seek_and_positions,
    test_static_members,
    test_ways_to_commit,
    test_where_a_group_without_offsets_begins,
)
from test_java_tools import (  # noqa: F401
    test_config_command_alters,
    test_console_clients,
    test_get_offset_shell,
    test_producer_performance,
)
from test_other_clients import (  # noqa: F401
    test_acks,
    test_administration,
    test_codecs,
    test_group,
    test_idempotent,
    test_long_poll_at_the_end,
    test_offsets_by_time,
    test_what_others_wrote,
)

pytestmark = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")

CI = [
    "test_kcat_lists",
    "test_kcat_lines[[]lz4-8]",
    "test_confluent_lines[[]zstd-8]",
    "test_auto_create",
    "test_kafka_python[[]gzip-newest]",
    "test_codecs[[]*-gzip]",
    "test_group[[]*]",
    "test_administration[[]*]",
    "test_ways_to_commit[[]*]",
    "test_console_clients",
    "test_get_offset_shell",
]


@pytest.fixture(scope="module")
def three_brokers(request, root):
    with clusters.Cluster(root / "three-brokers").running(request.config.getoption("--keep")) as c:
        yield c


@pytest.fixture
def broker(three_brokers, watch):
    for b in three_brokers.brokers.values():
        watch(b)
    yield three_brokers
    three_brokers.check()


@pytest.fixture
def group_broker(broker):
    return broker
