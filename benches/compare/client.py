"""One run of `corelane bench`, with the broker's CPU time read at the edges of the measured window."""

import json
import re
import signal
import subprocess
from pathlib import Path

from . import isolate

LINE = re.compile(r"^\s*(\d+) s\s+(\d+) records/s\s+([0-9.]+) MB/s")
VOID = 3


class ClientError(Exception):
    pass


class Client:
    """Starts the generator; `lines` is read in the caller's thread so that nothing else runs beside the measurement."""

    def __init__(self, binary, kind, args, folder, tag, cpus=None):
        self.result_path = Path(folder) / f"{tag}.json"
        self.hgrm_path = Path(folder) / f"{tag}.hgrm"
        extra = [] if kind in ("idle", "null") else ["--hgrm", str(self.hgrm_path)]
        self.command = [str(binary), "bench", kind, *map(str, args), "--format", "json", *extra]
        with open(self.result_path, "wb") as out:
            self.popen = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True,
                start_new_session=True, preexec_fn=isolate.child_setup(cpus),
            )  # fmt: skip
        self.tail = []

    def lines(self):
        """(second, records, MB) of each second's line."""
        for line in self.popen.stderr:
            self.tail = [*self.tail[-20:], line.rstrip()]
            found = LINE.match(line)
            if found:
                yield int(found.group(1)), int(found.group(2)), float(found.group(3))

    def interrupt(self):
        self.popen.send_signal(signal.SIGINT)

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()

    def finish(self):
        """The result; errors that the broker caused are in it, a run that could not be done raises."""
        for _ in self.lines():
            pass
        code = self.popen.wait()
        text = self.result_path.read_text()
        if code not in (0, 1, VOID) or not text.strip():
            raise ClientError(f"{' '.join(self.command)}: exit {code}\n" + "\n".join(self.tail))
        result = json.loads(text)
        result["exit"], result["command"] = code, self.command
        return result


def option(args, name, default=0):
    return float(args[args.index(name) + 1]) if name in args else default


def timed_run(binary, kind, args, folder, tag, cpus, window):
    """Runs to the end. CPU per GB is of the whole seconds whose lines were seen, so bytes and CPU belong to the same window."""
    warmup, duration = int(option(args, "--warmup")), int(option(args, "--duration"))
    client = Client(binary, kind, args, folder, tag, cpus)
    megabytes, records = 0.0, 0
    try:
        if warmup == 0:
            window.start()
        for second, count, mb in client.lines():
            if second > warmup and window.started and second <= warmup + duration:
                megabytes, records = megabytes + mb, records + count
                window.tick()
                window.ticks += 1
            elif second == warmup and not window.started:
                window.start()
        result = client.finish()
    finally:
        client.kill()
    if not window.started or not window.wall:
        raise ClientError(f"{' '.join(client.command)}: ended before its measured window: {result['errors'] or client.tail}")
    result["window_mb"], result["window_records"] = megabytes, records
    if result["errors"]:
        result["error_text"] = ", ".join(f"{n} x {what}" for what, n in result["errors"].items())
    return result


def whole_run(binary, kind, args, folder, tag, cpus, window):
    """CPU from before the client's start to after its end, for work that is done when it is done."""
    window.start()
    client = Client(binary, kind, args, folder, tag, cpus)
    try:
        for _ in client.lines():
            window.tick()
        result = client.finish()
    finally:
        client.kill()
    window.tick()
    result["window_mb"] = result["bytes"] / 1e6
    return result
