"""The program of `transactional.Writer`: one instance of a transactional producer, which tells what it does before it does it.

A line of standard output is one write, so that what was told before a kill -9 is whole. It ends when its input does, or when the client
says that it cannot go on: fenced, or an outcome that it gave up waiting for.
"""

import json
import os
import random
import sys
import threading
import time
import traceback

import confluent_kafka as ck

RETRIES = {
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 200,
    "topic.metadata.refresh.interval.ms": 1000,
    # librdkafka 2.16 hangs in send_offsets_to_transaction when it gives up a broker that it waits for: for its bootstrap servers, or
    # as it is gone from the metadata.
    "metadata.recovery.strategy": "none",
}
# Of a hundred transactions.
ABORTS, GIVES_UP, COMMITS_AN_OFFSET = 20, 4, 50
PATIENCE = 120
# Of one call, s; the client that takes longer hangs.
CALL, HANGS_AFTER = 5, 7


def tell(event, **more):
    os.write(1, (json.dumps({"e": event, "t": time.monotonic_ns(), **more}) + "\n").encode())


class GivenUp(Exception):
    pass


class Writer:
    def __init__(self, bootstrap, name, first, timeout_ms, rate, partitions):
        self.name, self.number, self.rate, self.partitions = name, int(first), float(rate), [tuple(p) for p in json.loads(partitions)]
        self.dice = random.Random(f"{name}/{first}")
        self.ended, self.calls, self.returns = threading.Event(), 0, 0
        common = {"bootstrap.servers": bootstrap, **RETRIES}
        self.producer = ck.Producer(
            {
                "transactional.id": name,
                "transaction.timeout.ms": int(timeout_ms),
                "linger.ms": 2,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 100,
                **common,
            }
        )
        self.group = ck.Consumer({"group.id": name, **common}).consumer_group_metadata()

    def run(self):
        for work in (self._end_with_input, self._end_if_hung):
            threading.Thread(target=work, daemon=True).start()
        self.insist(self.producer.init_transactions)
        tell("ready")
        while not self.ended.is_set():
            began = time.monotonic()
            self.transaction()
            self.ended.wait(max(0.0, began + 1 / self.rate - time.monotonic()))

    def _end_with_input(self):
        sys.stdin.read()
        self.ended.set()

    def _end_if_hung(self):
        """Time in which the process is stopped does not count."""
        steps, last = 0, 0
        while steps < HANGS_AFTER * 10:
            time.sleep(0.1)
            steps = steps + 1 if self.returns < self.calls == last else 0
            last = self.calls
        tell("over", error="hangs")
        os._exit(0)

    def insist(self, work):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.calls += 1
                return work(CALL)
            except ck.KafkaException as e:
                if not e.args[0].retriable() or time.monotonic() > end:
                    raise
                tell("again", error=str(e.args[0]))
            finally:
                self.returns += 1

    def transaction(self):
        n, dice, acked = self.number, self.dice, {}
        self.number += 1
        writes = dice.choices(self.partitions, k=dice.randint(2, 8))
        with_offset = dice.randrange(100) < COMMITS_AN_OFFSET
        tell("begin", n=n, w=writes, o=with_offset)
        try:
            self.producer.begin_transaction()
            pause = dice.randrange(len(writes))
            for k, (topic, partition) in enumerate(writes):
                if k == pause:
                    self.producer.poll(dice.choice((0, 0.02, 0.1, 0.2)))

                def delivered(error, message, k=k):
                    if error is None:
                        acked[k] = message.offset()

                self.producer.produce(topic, f"{self.name}/{n}/{k}", partition=partition, on_delivery=delivered)
            if with_offset:
                offsets = [ck.TopicPartition(*self.partitions[0], n)]
                self.insist(lambda wait: self.producer.send_offsets_to_transaction(offsets, self.group, wait))
            if dice.randrange(2):
                self.producer.flush(5)
            if dice.randrange(100) < ABORTS:
                self.abort(n, acked)
            else:
                tell("commit", n=n)
                self.commit()
                tell("acked", n=n, a=acked)
                tell("committed", n=n)
        except ck.KafkaException as e:
            if not e.args[0].txn_requires_abort():
                raise
            tell("failed", n=n, error=str(e.args[0]))
            self.abort(n, acked)

    def commit(self):
        if self.dice.randrange(100) >= GIVES_UP:
            return self.insist(self.producer.commit_transaction)
        try:
            self.producer.commit_transaction(self.dice.uniform(0.001, 0.02))
        except ck.KafkaException as e:
            if not e.args[0].retriable():
                raise
            raise GivenUp from None

    def abort(self, n, acked):
        self.insist(self.producer.abort_transaction)
        tell("acked", n=n, a=acked)
        tell("aborted", n=n)


def main():
    try:
        Writer(*sys.argv[1:]).run()
        tell("closed")
    except GivenUp:
        tell("over", error="given up")
    except ck.KafkaException as e:
        tell("over", error=e.args[0].name(), text=str(e.args[0]))
    except BaseException:  # noqa: BLE001 - handed to the test
        tell("broken", error=traceback.format_exc())
    # Nothing of what the client still holds is waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
