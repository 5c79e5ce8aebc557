"""The device throttled to a hard disk, and memory counted once."""

import pytest
from compare import brokers, disk


def test_limits_of_both_versions():
    assert disk.limits(1, "7:3", 1000, 12) == [
        ("blkio.throttle.read_bps_device", "7:3 1000"), ("blkio.throttle.read_iops_device", "7:3 12"),
        ("blkio.throttle.write_bps_device", "7:3 1000"), ("blkio.throttle.write_iops_device", "7:3 12"),
    ]  # fmt: skip
    assert disk.limits(2, "7:3", 1000, 12) == [("io.max", "7:3 rbps=1000 wbps=1000 riops=12 wiops=12")]
    assert disk.limits(2, "7:3", 0, 0) == [("io.max", "7:3 rbps=max wbps=max riops=max wiops=max")]
    assert disk.limits(1, "7:3", 0, 0)[0] == ("blkio.throttle.read_bps_device", "7:3 0")


def test_the_mean_write_is_of_the_writes_between_two_readings():
    before = disk.writes_in(" 10 0 80 5 100 2 2048 9 0 7 7 0 0 0 0 1 1")
    after = disk.writes_in(" 99 0 80 5 110 2 12288 9 0 7 7 0 0 0 0 1 1")
    assert before == (100, 2048 * 512)
    assert disk.mean_write_kib(before, after) == pytest.approx(10240 * 512 / 10 / 1024)
    assert disk.mean_write_kib(before, before) is None and disk.mean_write_kib(None, None) is None


def test_a_mapped_file_counts_once():
    text = "VmRSS:\t  3000 kB\nRssAnon:\t  1000 kB\nRssFile:\t  2000 kB\n"
    resident, anonymous = (brokers.status_bytes(text, field) for field in ("VmRSS", "RssAnon"))
    assert (resident, anonymous) == (3_072_000, 1_024_000)
    found = brokers.memory_of(resident, anonymous, {"rss": 1, "cache": 5_000_000})
    assert found == {"rss_mb": 3.072, "page_cache_mb": 5.0, "total_mb": pytest.approx(6.024)}
    assert brokers.memory_of(resident, anonymous, None)["total_mb"] is None
