"""The clock of deadlines: it stands still while the machine does."""

import functools
import threading
import time

TICK, STALL = 0.5, 5


class Running:
    """Ticks in a thread of its own. A tick that comes late by seconds was late for everybody: the test, clients, brokers."""

    def __init__(self, now=time.monotonic):
        self.now, self.ticked, self.stood, self.lock = now, now(), 0.0, threading.Lock()

    def tick(self):
        """-> seconds that the process has run"""
        with self.lock:
            now = self.now()
            late = now - self.ticked - TICK
            if late > STALL:
                self.stood += late
            self.ticked = now
            return now - self.stood

    def for_ever(self):
        while True:
            self.tick()
            time.sleep(TICK)


@functools.cache
def _running():
    one = Running()
    threading.Thread(target=one.for_ever, daemon=True).start()
    return one


def running():
    """Seconds, as `time.monotonic()`, without those for which this process (a paused virtual machine, say) did not run: nothing that
    a test waits for can have happened in them."""
    return _running().tick()
