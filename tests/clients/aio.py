"""aiokafka under the contract of tests/clients/README.md."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, for_code

MEMBER = {"heartbeat_interval_ms": 300, "session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000}


def tell(value):
    print(json.dumps(value), flush=True)


def text(data):
    return None if data is None else data.decode()


def data(text):
    return None if text is None else text.encode()


async def lines():
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line


async def produce(a):
    producer = AIOKafkaProducer(
        bootstrap_servers=a["bootstrap"],
        acks={"0": 0, "1": 1, "all": "all"}[a["acks"]],
        compression_type=None if a["codec"] == "none" else a["codec"],
        enable_idempotence=a["idempotent"] == "true",
        linger_ms=5,
    )
    await producer.start()
    sent = []
    async for line in lines():
        r = json.loads(line)
        headers = [(name, data(value)) for name, value in r["h"]]
        sent.append(await producer.send(a["topic"], data(r["v"]), data(r["k"]), r["p"], r["t"], headers))
    await producer.flush()
    done = await asyncio.gather(*sent)
    await producer.stop()
    # With acks=0 there is no answer.
    tell({"offsets": [[d.partition, d.offset] if d else [-1, -1] for d in done]})


async def consume(a):
    wait = int(a.get("wait", 500))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=a["bootstrap"], fetch_max_wait_ms=wait, request_timeout_ms=wait + 30_000, enable_auto_commit=False
    )
    await consumer.start()
    parts = [TopicPartition(a["topic"], p) for p in range(int(a["partitions"]))]
    consumer.assign(parts)
    if "offset" in a:
        for part in parts:
            consumer.seek(part, int(a["offset"]))
    else:
        await consumer.seek_to_beginning(*parts)
    for _ in range(int(a["count"])):
        m = await consumer.getone()
        headers = [[name, text(value)] for name, value in m.headers]
        tell({"p": m.partition, "o": m.offset, "t": m.timestamp, "k": text(m.key), "v": text(m.value), "h": headers})
    await consumer.stop()


class Assignments(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        tell({"e": "assigned", "p": sorted(tp.partition for tp in assigned)})


async def group(a):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=a["bootstrap"], group_id=a["group"], auto_offset_reset="earliest", enable_auto_commit=False, **MEMBER
    )
    consumer.subscribe([a["topic"]], listener=Assignments())
    await consumer.start()

    async def end():
        async for _ in lines():
            pass

    left = asyncio.create_task(end())
    while not left.done():
        came = await consumer.getmany(timeout_ms=100)
        offsets = {}
        for part, records in came.items():
            for m in records:
                tell({"e": "record", "p": part.partition, "o": m.offset})
            offsets[part] = records[-1].offset + 1
        if offsets:
            try:
                await consumer.commit(offsets)
            except KafkaError as e:
                tell({"e": "failed", "error": repr(e)})
                continue
            tell({"e": "committed", "o": [[part.partition, offset] for part, offset in offsets.items()]})
    await consumer.stop()
    tell({"e": "closed"})


async def coded(answer, errors):
    """The code of the one error that the broker answered, or 0."""
    try:
        (entry,) = errors(await answer)
        return {"error": entry[1]}
    except KafkaError as e:
        if for_code(e.errno) is not type(e):
            raise
        return {"error": e.errno}


async def offsets(consumer, topic, time):
    for _ in range(100):
        numbers = consumer.partitions_for_topic(topic)
        if numbers:
            break
        consumer.subscribe([topic])
        await asyncio.sleep(0.1)
    # Answers would otherwise wait behind its fetches.
    consumer.unsubscribe()
    parts = [TopicPartition(topic, p) for p in sorted(numbers)]
    if time == -1:
        found = await consumer.end_offsets(parts)
    elif time == -2:
        found = await consumer.beginning_offsets(parts)
    else:
        by_time = await consumer.offsets_for_times(dict.fromkeys(parts, time))
        found = {part: at.offset if at else -1 for part, at in by_time.items()}
    return {"error": 0, "offsets": [found[part] for part in parts]}


async def admin(a):
    client = AIOKafkaAdminClient(bootstrap_servers=a["bootstrap"])
    await client.start()
    consumer = AIOKafkaConsumer(bootstrap_servers=a["bootstrap"])
    await consumer.start()
    async for line in lines():
        command, *words = line.split()
        if command == "create":
            configs = dict(pair.split("=") for pair in words[2:])
            new = NewTopic(words[0], int(words[1]), 1, topic_configs=configs)
            tell(await coded(client.create_topics([new]), lambda done: done.topic_errors))
        elif command == "grow":
            wanted = {words[0]: NewPartitions(total_count=int(words[1]))}
            tell(await coded(client.create_partitions(wanted), lambda done: done.topic_errors))
        elif command == "delete":
            tell(await coded(client.delete_topics(words), lambda done: done.topic_error_codes))
        elif command == "topics":
            found = await client.describe_topics()
            tell({"error": 0, "topics": {t["topic"]: len(t["partitions"]) for t in found}})
        elif command == "offsets":
            tell(await offsets(consumer, words[0], int(words[1])))
    await consumer.stop()
    await client.close()


async def main():
    args = dict(arg.split("=", 1) for arg in sys.argv[2:])
    await {"produce": produce, "consume": consume, "group": group, "admin": admin}[sys.argv[1]](args)


asyncio.run(main())
