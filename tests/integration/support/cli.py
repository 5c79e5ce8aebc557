"""The command line, run as a person or a script runs it."""

import json
import subprocess

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
