"""What is counted as a broker's CPU time, and where it is read."""

from compare import cgroup, cpu, isolate


def thread(proc, pid, name, ns):
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "comm").write_text(name + "\n")
    (folder / "schedstat").write_text(f"{ns} 1 2\n")


def test_only_the_kernel_s_workers_are_counted(tmp_path):
    thread(tmp_path, 10, "kworker/0:1-events", 1000)
    thread(tmp_path, 11, "jbd2/vda-8", 200)
    thread(tmp_path, 12, "ksoftirqd/0", 30)
    thread(tmp_path, 13, "java", 10**9)
    thread(tmp_path, 14, "rcu_preempt", 10**9)
    (tmp_path / "self").mkdir()
    found = cpu.kernel_workers(tmp_path)
    assert found == {("kworker", 10): 1000, ("jbd2", 11): 200, ("ksoftirqd", 12): 30}


def test_workers_that_come_and_go():
    before = {("kworker", 1): 100, ("kworker", 2): 500}
    after = {("kworker", 1): 150, ("kworker", 3): 40, ("jbd2", 4): 7}
    assert cpu.gained(before, after) == {"kworker": 90, "jbd2": 7, "ksoftirqd": 0}
    # A pid taken over by another thread never counts backwards.
    assert cpu.gained({("kworker", 1): 100}, {("kworker", 1): 20})["kworker"] == 0


def test_a_window_adds_broker_and_workers_and_loses_none_that_ended():
    broker = iter([1_000, 3_000, 4_000])
    workers = iter([{("kworker", 1): 100}, {("kworker", 1): 600, ("jbd2", 2): 10}, {("jbd2", 2): 30}])
    window = cpu.Window(lambda: next(broker), lambda: next(workers))
    window.start()
    window.tick()
    window.tick()
    assert window.parts() == {"broker_s": 3e-6, "kworker_s": 0.5e-6, "jbd2_s": 0.03e-6, "ksoftirqd_s": 0}
    assert round(window.seconds() * 1e9) == 3_530


def test_threads_that_ended_keep_what_they_had():
    readings = iter([{1: 100, 2: 50}, {1: 120}, {1: 130, 3: 5}])
    total = cpu.ThreadSum(lambda: next(readings))
    assert [total(), total(), total()] == [150, 170, 185]


def test_busy_time_leaves_out_idle_and_tells_stolen():
    ticks = cpu.TICKS
    busy, stolen = cpu.busy_seconds(f"cpu  {ticks} 0 {2 * ticks} {90 * ticks} {9 * ticks} {ticks} {ticks} {3 * ticks} 0 0\ncpu0 1\n")
    assert (busy, stolen) == (5.0, 3.0)


def test_own_threads_are_seen_in_nanoseconds():
    import os

    times = isolate.thread_times(os.getpid())
    assert times[os.getpid()] > 1_000_000


def fake_v1(root):
    lines = []
    for controller in ("cpuacct", "cpuset", "memory"):
        (root / controller).mkdir()
        lines.append(f"cgroup {root / controller} cgroup rw,{controller} 0 0")
    (root / "cpuset/cpuset.mems").write_text("0\n")
    (root / "cpuset/cpuset.cpus").write_text("0-1\n")
    (root / "mounts").write_text("\n".join(lines) + "\n")
    return root / "mounts"


def test_version_1_groups(tmp_path):
    groups = cgroup.Groups("lab", fake_v1(tmp_path))
    assert groups.parents == {w: tmp_path / c / "lab" for w, c in (("cpu", "cpuacct"), ("cpuset", "cpuset"), ("memory", "memory"))}
    (tmp_path / "cpuacct/lab/broker").mkdir()
    (tmp_path / "cpuacct/lab/broker/cpuacct.usage").write_text("12345\n")
    (tmp_path / "memory/lab/broker").mkdir()
    (tmp_path / "memory/lab/broker/memory.stat").write_text("cache 1\nrss 2\ntotal_cache 30\ntotal_rss 40\n")
    group = groups.make("broker")
    assert group.cpu_ns() == 12345
    assert group.memory_stat() == {"rss": 40, "cache": 30}
    assert group.cpu_source.startswith("cpuacct.usage")
    group.join(77)
    for controller in ("cpuacct", "cpuset", "memory"):
        assert (tmp_path / controller / "lab/broker/cgroup.procs").read_text() == "77"
    assert group.check(77) == [] and group.cpu_ns() == 12345
    # A group that the broker is not in would count nothing at all.
    (tmp_path / "cpuacct/lab/broker/cgroup.procs").write_text("")
    assert group.check(77) == ["cpu"] and group.cpu_ns() is None and "schedstat" in group.cpu_source


def test_version_2_groups(tmp_path):
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu memory\n")
    (root / "cgroup.subtree_control").write_text("memory\n")
    (tmp_path / "mounts").write_text(f"cgroup2 {root} cgroup2 rw 0 0\n")
    groups = cgroup.Groups("lab", tmp_path / "mounts")
    assert set(groups.parents.values()) == {root / "lab"}
    (root / "lab/broker").mkdir()
    (root / "lab/broker/cpu.stat").write_text("usage_usec 7\nuser_usec 3\n")
    (root / "lab/broker/memory.stat").write_text("anon 5\nfile 6\n")
    group = groups.make("broker")
    assert group.cpu_ns() == 7000
    assert group.memory_stat() == {"rss": 5, "cache": 6}
    assert len(group.folders()) == 1


def test_without_control_groups_the_threads_are_summed(tmp_path):
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    groups = cgroup.Groups("lab", tmp_path / "mounts")
    group = groups.make("broker")
    assert group.cpu_ns() is None and group.folders() == [] and group.memory_stat() is None
    assert "schedstat" in group.cpu_source
    assert len(groups.notes) == 3
    import os

    assert cpu.broker_clock(group, os.getpid())() > 1_000_000
