"""The command line, run as a person or a script runs it."""

import json
import queue
import signal
import subprocess
import threading

from . import broker as brokers


class Done:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def run(*words, timeout=90):
    """`corelane WORD...`, however it ends."""
    command = [str(brokers.binary()), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    return Done(done)


def pipe(*words, stdin=b"", code=0, timeout=90):
    """`corelane WORD...` with these bytes for its input and bytes for its output; what it says on stderr is text."""
    command = [str(brokers.binary()), *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=timeout, input=stdin)
    done.stderr = done.stderr.decode()
    assert done.returncode == code and "panicked" not in done.stderr, (done.returncode, done.stdout[:1000], done.stderr)
    return Done(done)


class Running:
    """`corelane WORD...` that goes on: lines go in by `write`, come out by `line`."""

    def __init__(self, *words):
        command = [str(brokers.binary()), *map(str, words)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A shell has what it runs in the background ignore Ctrl-C, and so do children.
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        self.process = subprocess.Popen(command, preexec_fn=heard, **pipes)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def line(self, timeout=30):
        return self.lines.get(timeout=timeout)

    def end(self, signal=None, code=0, timeout=30):
        """What it says on stderr, once it has ended: by a signal, or with its input."""
        if signal:
            self.process.send_signal(signal)
        else:
            self.process.stdin.close()
        assert self.process.wait(timeout) == code, self.process.stderr.read()
        return self.process.stderr.read().decode()


class Cli:
    """Commands against one cluster."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def __call__(self, *words, code=0, silent=True, timeout=90):
        """`silent`: what succeeds says nothing on stderr."""
        done = run(*words, "--bootstrap-server", self.bootstrap, timeout=timeout)
        assert done.code == code, done
        assert code != 0 or not silent or not done.err, done
        return done

    def json(self, *words, code=0, silent=True):
        return self(*words, "--format", "json", code=code, silent=silent).json

    def fails(self, *words, code=1):
        """What it says of a failure."""
        done = self(*words, code=code)
        assert done.err.startswith("corelane: ") and "panicked" not in done.err, done
        return done.err


def rows(text):
    """A table's rows as dicts by its heads. No cell may have a space in it."""
    head, *lines = text.splitlines()
    names = head.split()
    return [dict(zip(names, line.split(), strict=False)) for line in lines]
