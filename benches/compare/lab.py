"""The run: both brokers, their pins, the warm-up, the pairs of every axis. What fails is noted and does not lose the rest."""

import os
import shutil
import subprocess
import time
import traceback
from dataclasses import replace
from pathlib import Path

from . import client, cpu, disk, host, isolate, levels, stats
from . import cluster
from .brokers import BrokerError, Corelane, Kafka, Null
from .cgroup import Groups
from .works import WORKS

FAILURES = (BrokerError, client.ClientError, disk.DiskError, OSError, subprocess.SubprocessError, ValueError, KeyError)
ROOM = 12e9  # bytes to leave free on the data's file system
TOPIC_MOST = 6e9  # bytes written to an axis' topic before it is made anew
DISK_MOST = 1e9  # the same on the throttled device, which is small
FLOOR_RUNS = 2  # of the null broker, one with the pins either way round
SHORT_COLD_GB = 2


def broker_label(side, axis, options):
    """One name for each long-lived broker: side, lanes, what differs from the default level, device."""
    parts = [side, "free" if side != "kafka" and axis.lanes == "free" else ""]
    level = options.get(levels.OPTION)
    parts += [level if level not in (None, "held") else ""]
    parts += ["cluster"] if axis.brokers > 1 else []
    parts += [f"{name.rpartition('corelane.')[2]}-{value}" for name, value in sorted(options.items()) if name != levels.OPTION]
    return "-".join(filter(None, [*parts, axis.disk]))


class Lab:
    def __init__(self, options, folder, data, binary, libs, progress, zookeeper_libs=None):
        self.options, self.folder, self.data = options, Path(folder), Path(data)
        self.binary, self.libs, self.progress = binary, libs, progress
        self.binaries = {"corelane": binary}  # by side; binary is the generator, too
        self.zookeeper_libs = zookeeper_libs
        self.cpus = host.two_cpus()
        self.groups = Groups()
        self.port = 21000
        self.started, self.topics, self.sizes = {}, {}, {}
        self.problems, self.notes, self.swapped = [], [], False
        self.irqs = host.DiskInterrupts(self.data)
        self.warm, self.disks, self.terms = {}, {}, {}
        self.known = levels.known_options(binary)

    def seconds(self, axis):
        return axis.seconds or self.options.seconds

    def warmup(self, axis):
        return axis.warmup or self.options.warmup

    # brokers

    def terms_of(self, axis):
        if axis.id not in self.terms:
            self.terms[axis.id] = found = levels.terms(axis, self.known)
            if found.note:
                self.note(found.note)
        return self.terms[axis.id]

    def disk(self, axis):
        """The throttled device, made when first asked for; None: the data's own."""
        if axis.disk and axis.disk not in self.disks:
            self.disks[axis.disk] = disk.HardDisk(self.data)
        return self.disks.get(axis.disk)

    def disk_writes(self, axis):
        return self.disks[axis.disk].writes() if axis.disk in self.disks else None

    def ports(self):
        self.port += 10
        return self.port

    def create(self, side, label, extra=None, on=None):
        """`on`: the throttled device, or None."""
        folder = (on.point if on else self.data) / label
        group = self.groups.make(label)
        if on:
            on.limit_group(group)
        if side in self.binaries:
            return Corelane(self.binaries[side], folder, self.ports(), group, extra, label, side)
        return Kafka(self.libs, folder, self.ports(), group, extra, label)

    def create_cluster(self, side, label):
        folder, group = self.data / label, self.groups.make(label)
        if side == "kafka":
            return cluster.kafka(self.libs, folder, self.ports(), group, label)
        if not self.zookeeper_libs:
            raise levels.Refused("there are no jars of ZooKeeper")
        return cluster.corelane(self.binaries[side], self.zookeeper_libs, folder, self.ports(), group, label)

    def another(self, broker, suffix):
        """A second broker of the same kind, not started, in a folder of its own. Its group is the run's to remove."""
        fresh = self.create(broker.side, f"{broker.label}-{suffix}-{self.port}", broker.extra)
        fresh.properties = {k: v for k, v in fresh.properties.items() if k != "broker.session.timeout.ms"}  # it is never frozen
        return fresh

    def sides(self):
        return ["corelane"] + (["kafka"] if self.libs else [])

    def broker(self, side, axis):
        """The long-lived broker of a side. Corelane has one shard per CPU it starts with, so each kind of lane has its own, and so
        has each set of options; Kafka is started with all CPUs, as it would be, and pinned afterwards."""
        options = self.terms_of(axis).options if side in self.binaries else {}
        label = broker_label(side, axis, options)
        found = self.started.get(label)
        if found is None or not found.alive():
            if found is not None:
                self.problem(f"{found.label} died and was started again, with empty data and not warmed up anew:\n{found.log_tail()}")
                self.topics = {k: v for k, v in self.topics.items() if k[0] != found.label}
                found.wipe()
            else:
                found = self.create_cluster(side, label) if axis.brokers > 1 else self.create(side, label, options, self.disk(axis))
                self.started[label] = found
            pinned = self.cpus and axis.lanes == "pinned" and side in self.binaries
            try:
                found.start({self.cpus[0]} if pinned else None)
            except BrokerError as e:
                refused = [name for name in options if name in str(e)]
                if refused:
                    del self.started[label]
                    raise levels.Refused(f"the broker refuses {', '.join(f'{n}={options[n]}' for n in refused)}") from e
                raise
            if found.lost:
                self.note(f"{found.label} could not be put into a control group for: {', '.join(found.lost)}")
            if axis.brokers > 1:
                self.warm_cluster(found, axis)
        return found

    def broker_cpus(self, axis):
        if not self.cpus or axis.lanes == "free":
            return isolate.ALL_CPUS
        return {self.cpus[1 if self.swapped else 0]}

    def client_cpus(self, axis):
        if not self.cpus or axis.lanes == "free":
            return isolate.ALL_CPUS
        return {self.cpus[0 if self.swapped else 1]}

    def focus(self, broker, axis):
        """Only this broker runs, on its CPUs; this process keeps off them."""
        for other in self.started.values():
            if other is not broker:
                other.freeze()
        broker.thaw()
        broker.pin(self.broker_cpus(axis))
        os.sched_setaffinity(0, self.client_cpus(axis))

    def check_pin(self, axis, broker, before, sample):
        if broker.refused:
            self.note(f"threads of {broker.label} that the kernel does not let be pinned: {', '.join(broker.refused)}")
        strays = isolate.strays(broker.pid, self.broker_cpus(axis), before)
        if strays:
            sample["strays"] = strays
            self.note(f"threads of {broker.label} that ran outside its pin: {', '.join(sorted(strays))}")

    # topics

    def topic(self, broker, axis):
        key = (broker.label, axis.id)
        if key not in self.topics:
            name = f"{axis.id}-{len(self.topics)}-{int(time.monotonic())}"
            broker.make_topic(name, axis.partitions, axis.topic | ({"flush.messages": 1} if axis.flush else {}))
            self.topics[key], self.sizes[key] = name, 0
        return self.topics[key]

    def written(self, broker, axis, count):
        key = (broker.label, axis.id)
        self.sizes[key] = self.sizes.get(key, 0) + count
        if self.sizes[key] > (DISK_MOST if axis.disk else TOPIC_MOST):
            self.drop(broker, axis)

    def drop(self, broker, axis):
        name = self.topics.pop((broker.label, axis.id), None)
        if name:
            broker.thaw()
            broker.drop_topics([name])

    def drop_quietly(self, side, axis):
        """After a failure the topic may be in any state: the next run gets a new one."""
        for broker in self.started.values():
            if broker.alive() and broker.side == side:
                try:
                    self.drop(broker, axis)
                except FAILURES:
                    pass

    # the run

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def problem(self, text):
        self.problems.append(text)
        self.progress.say(f"problem: {text.splitlines()[0]}")

    def warm_up(self, axis, most_seconds):
        """Drives each side until its CPU per GB stops falling: produce, consume and one-record requests, so all paths are warm.
        Kafka first with all CPUs, where its compiler gets on faster, then as it will be measured."""
        for side in self.sides():
            if side == "kafka":
                phases = [("free", 0.6 * most_seconds), ("pinned", 0.4 * most_seconds)]
            else:
                phases = [("pinned", min(most_seconds, 15))]  # nothing is compiled: memory is touched
            steps, since, done = [], time.monotonic(), False
            for lanes, bound in phases:
                curve, done, begun = [], False, time.monotonic()
                while not done and time.monotonic() - begun < bound:
                    self.progress.say(f"warm-up of {side} ({lanes}): {time.monotonic() - since:.0f} s of at most {most_seconds:.0f} s")
                    try:
                        curve.append(self._warm_step(side, axis, lanes))
                    except FAILURES as e:
                        self.problem(f"warm-up of {side}: {e}")
                        break
                    done = stats.settled(curve)
                steps.append({"lanes": lanes, "cpu_s_per_gb": curve})
            self.warm[side] = {"seconds": time.monotonic() - since, "steps": steps, "settled": done if side == "kafka" else None}
            for broker in self.started.values():
                if broker.alive():
                    broker.thaw()
                    self.drop(broker, axis)

    def _warm_step(self, side, axis, lanes, step=5):
        broker, axis = self.broker(side, axis), replace(axis, lanes=lanes)
        self.focus(broker, axis)
        cpus = self.client_cpus(axis)
        place = ["--bootstrap", broker.bootstrap, "--topic", self.topic(broker, axis)]
        reader = client.Client(self.binary, "consume", [*place, "--from", "end", "--duration", step], self.folder, "warm-r", cpus)
        try:
            window = broker.window()
            args = [*place, *axis.args, "--duration", str(step), "--warmup", "0", "--tolerate"]
            result = client.timed_run(self.binary, axis.kind, args, self.folder, "warm", cpus, window)
            reader.finish()
        finally:
            reader.kill()
        args = [*place, "--duration", "1", "--tolerate"]
        client.timed_run(self.binary, "requests", args, self.folder, "warm-1", cpus, broker.window())
        self.written(broker, axis, result["bytes"])
        return window.seconds() / max(result["window_mb"], 1e-9) * 1000

    def warm_cluster(self, broker, axis):
        """The axis' own load, discarded: as long as single brokers are warmed up for Kafka, and a few seconds for Corelane."""
        seconds = self.options.warm if broker.side == "kafka" else min(self.options.warm, 10)
        self.progress.say(f"warm-up of {broker.label}: {seconds:.0f} s")
        self.focus(broker, axis)
        args = ["--bootstrap", broker.bootstrap, "--topic", self.topic(broker, axis), *axis.args]
        args += ["--duration", str(max(1, round(seconds))), "--warmup", "0", "--tolerate"]
        window = broker.window()
        result = client.timed_run(self.binary, axis.kind, args, self.folder, f"warm-{broker.label}", self.client_cpus(axis), window)
        cpu = window.seconds() / max(result["window_mb"], 1e-9) * 1000
        self.note(f"{broker.label} was warmed up for {seconds:.0f} s with its first axis' load: {cpu:.2f} CPU-s/GB")
        self.drop(broker, axis)

    def wait_for_quiet(self):
        """With --patient: until nothing else takes more than a tenth of a core, for a minute at most; all brokers rest meanwhile."""
        since = time.monotonic()
        while self.options.patient and time.monotonic() - since < 60:
            for broker in self.started.values():
                broker.freeze()
            busy = cpu.busy_seconds()[0]
            time.sleep(1)
            if cpu.busy_seconds()[0] - busy < 0.1:
                return

    def gigabytes(self, axis):
        most = self.options.most_gb or (axis.cold_gb if self.options.full or self.options.only else SHORT_COLD_GB)
        return min(axis.cold_gb, most)

    def room(self):
        return shutil.disk_usage(self.data).free

    def run_axis(self, axis, pairs, out):
        """A B A B ... with the pins swapped from pair to pair. `out` has what the report needs of this axis at any moment."""
        out["wanted"] = pairs
        need = ROOM + self.gigabytes(axis) * 2e9
        if self.room() < need:
            out["problems"].append(f"left out: less than {need / 1e9:.0f} GB free in {self.data}")
            return
        failures = 0
        for number in range(pairs):
            self.swapped = bool(number % 2)
            pair = {"swapped": self.swapped}
            out["pairs"].append(pair)
            if self.cpus:
                self.irqs.place(min(self.broker_cpus(axis)))
            for side in [*self.sides(), *(axis.floors if number < FLOOR_RUNS else [])]:
                self.progress.step(axis, number, pairs, side)
                try:
                    tag = f"{axis.id}-{number}-{side}"
                    pair[side] = self.floor(axis, side, tag) if side in axis.floors else self.sample(axis, side, tag)
                except levels.Refused as e:
                    out["left_out"] = str(e)
                    return
                except Exception as e:  # a fault of the lab's own must not lose the rest either
                    failures += 1
                    if not isinstance(e, FAILURES):
                        (self.folder / f"failure-{axis.id}-{number}-{side}.txt").write_text(traceback.format_exc())
                    out["problems"].append(f"pair {number + 1}, {side}: {type(e).__name__}: {e}")
                    self.progress.say(f"problem: {(str(e) or type(e).__name__).splitlines()[0]}")
                    self.drop_quietly(side, axis)
            if failures >= 3:
                out["problems"].append("given up after three failures")
                break
        for broker in [b for b in self.started.values() if b.alive()]:
            try:
                self.focus(broker, axis)
                self.drop(broker, axis)
            except FAILURES as e:
                self.problem(f"{axis.id}: deleting its topic on {broker.label}: {e}")

    def sample(self, axis, side, tag):
        broker = self.broker(side, axis)
        self.wait_for_quiet()
        self.focus(broker, axis)
        found = WORKS[axis.work](self, axis, broker, tag)
        if not broker.alive():
            raise BrokerError(f"{broker.label} died (exit {broker.popen.returncode}):\n{broker.log_tail()}")
        return found

    def floor(self, axis, side, tag):
        """The same load against the null broker, measured like the others; it writes behind if it is the floor of writing."""
        null = self.null(axis, side == "writing")
        try:
            self.wait_for_quiet()
            return WORKS[axis.work](self, axis, null, tag)
        finally:
            self.topics.pop((null.label, axis.id), None)
            null.kill()
            null.wipe()

    def null(self, axis, writes=False):
        """A null broker that runs, all others frozen."""
        for broker in self.started.values():
            broker.freeze()
        null = Null(self.binary, axis, writes, self.data / "null", self.ports(), self.groups.make("null"), label="null")
        try:
            null.start(self.broker_cpus(axis))
        except BrokerError:
            null.kill()
            raise
        os.sched_setaffinity(0, self.client_cpus(axis))
        return null

    def ceiling(self, axis):
        """What the same consumer reads from a broker that keeps nothing."""
        null = self.null(axis)
        try:
            args = ["--bootstrap", null.bootstrap, "--topic", "null", "--partitions", str(axis.partitions), *axis.args]
            run = client.Client(self.binary, axis.kind, [*args, "--duration", "2", "--warmup", "1"], self.folder,
                                f"ceiling-{axis.id}", self.client_cpus(axis))  # fmt: skip
            try:
                return run.finish()
            finally:
                run.kill()
        finally:
            null.kill()
            null.wipe()

    def close(self):
        """Ends everything this run started, by process id, and puts the host's settings back."""
        for broker in self.started.values():
            broker.kill()
        for throttled in self.disks.values():
            throttled.remove()
        self.irqs.restore()
        os.sched_setaffinity(0, isolate.ALL_CPUS)
        self.groups.remove()
