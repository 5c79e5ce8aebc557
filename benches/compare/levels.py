"""What an acknowledgement waits for, and which options a binary has for it.

held: the batch survives the broker's process (Kafka as shipped: its page cache); written: the device has it; synced: flushed, with the
topic's flush.messages=1 on both sides.
"""

import subprocess
from dataclasses import dataclass, field

from .brokers import BrokerError

OPTION = "corelane.acknowledge"
PROMISES = {
    "held": "survives kill -9 (Kafka: as shipped)",
    "written": "survives a kernel crash (Kafka: as shipped, which does not)",
    "synced": "survives power loss (both: a flush before every acknowledgement)",
}


def names_in(listing):
    """Names of the options that `corelane options` lists: lines that are not indented, with other names after commas."""
    found = set()
    for line in listing.splitlines():
        if line and not line[0].isspace():
            found |= {name.strip() for name in line.split(",")}
    return found


def known_options(binary):
    done = subprocess.run([str(binary), "options"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return names_in(done.stdout) if done.returncode == 0 else set()


class Refused(BrokerError):
    """The binary knows the option and does not start with it."""


@dataclass
class Terms:
    """How a binary runs an axis."""

    level: str
    options: dict = field(default_factory=dict)
    left_out: str = ""
    note: str = ""


def terms(axis, known):
    """A binary without the option acknowledges what is written: its rows are of that level, whatever they ask for short of a flush."""
    missing = [name for name in axis.options if name not in known]
    if missing:
        return Terms(axis.level, left_out=f"this binary has no option {', '.join(missing)}")
    options = {**axis.options, **{name: value for name, value in axis.wanted.items() if name in known}}
    absent = [name for name in axis.wanted if name not in known]
    note = f"{axis.id}: without {', '.join(absent)}, which this binary does not have" if absent else ""
    if OPTION in known:
        return Terms(axis.level, {**options, OPTION: "written" if axis.level == "written" else "held"}, note=note)
    if axis.level == "written":
        return Terms("written", left_out=f"this binary has no {OPTION}: every row without a flush is of this level")
    if axis.level == "held":
        return Terms("written", options, note=f"level held left out: this binary has no {OPTION} and acknowledges what is written")
    return Terms(axis.level, options, note=note)
