// kafkajs under the contract of tests/clients/README.md. It reads in groups only, so each consumption has one of its own.
'use strict'

const readline = require('readline')
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }
const MEMBER = { heartbeatInterval: 300, sessionTimeout: 10000, rebalanceTimeout: 10000 }
const ACKS = { 0: 0, 1: 1, all: -1 }

const [scenario, ...pairs] = process.argv.slice(2)
const args = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s)))
// A wait longer than the client's time for requests would be taken for a silent broker.
const kafka = new Kafka({
  clientId: 'kafkajs',
  brokers: args.bootstrap.split(','),
  logLevel: logLevel.NOTHING,
  requestTimeout: Number(args.wait || 0) + 30000,
})

const tell = (value) => process.stdout.write(JSON.stringify(value) + '\n')
const text = (buffer) => (buffer === null || buffer === undefined ? null : buffer.toString())
const input = () => readline.createInterface({ input: process.stdin })

async function produce() {
  const records = []
  for await (const line of input()) {
    records.push(JSON.parse(line))
  }
  const producer = kafka.producer({ idempotent: args.idempotent === 'true', maxInFlightRequests: 1 })
  await producer.connect()
  const messages = records.map((r) => ({
    partition: r.p,
    timestamp: String(r.t),
    key: r.k,
    value: r.v,
    headers: Object.fromEntries(r.h),
  }))
  const done = await producer.send({
    topic: args.topic,
    acks: ACKS[args.acks],
    compression: CODECS[args.codec],
    messages,
  })
  await producer.disconnect()
  // One base a partition; with acks=0 there are none.
  const next = Object.fromEntries((done || []).map((part) => [part.partition, Number(part.baseOffset)]))
  tell({ offsets: records.map((r) => [r.p, r.p in next ? next[r.p]++ : -1]) })
}

async function consume() {
  const consumer = kafka.consumer({
    ...MEMBER,
    groupId: `consume-${args.topic}-${process.pid}`,
    maxWaitTimeInMs: Number(args.wait || 500),
  })
  await consumer.connect()
  await consumer.subscribe({ topic: args.topic, fromBeginning: true })
  let left = Number(args.count)
  // A member that was late joins again, and begins again: nothing is committed here.
  let joins = 0
  consumer.on(consumer.events.GROUP_JOIN, () => (joins += 1))
  const next = new Map()
  let ended
  const end = new Promise((resolve) => (ended = resolve))
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      const offset = Number(message.offset)
      if (left === 0 || (joins > 1 && offset < (next.get(partition) || 0))) {
        return
      }
      next.set(partition, offset + 1)
      const headers = Object.entries(message.headers || {}).map(([name, value]) => [name, text(value)])
      tell({
        p: partition,
        o: offset,
        t: Number(message.timestamp),
        k: text(message.key),
        v: text(message.value),
        h: headers,
      })
      left -= 1
      if (left === 0) {
        ended()
      }
    },
  })
  if (args.offset) {
    for (let p = 0; p < Number(args.partitions); p += 1) {
      consumer.seek({ topic: args.topic, partition: p, offset: args.offset })
    }
  }
  await end
  await consumer.disconnect()
}

async function group() {
  const consumer = kafka.consumer({ ...MEMBER, groupId: args.group, maxWaitTimeInMs: 500 })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    tell({ e: 'assigned', p: (payload.memberAssignment[args.topic] || []).sort((a, b) => a - b) })
  })
  let failed
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (payload.restart) {
      tell({ e: 'failed', error: String(payload.error) })
    } else {
      failed = payload.error
    }
  })
  await consumer.connect()
  await consumer.subscribe({ topic: args.topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, isRunning, isStale }) => {
      let next
      for (const message of batch.messages) {
        if (!isRunning() || isStale()) {
          break
        }
        tell({ e: 'record', p: batch.partition, o: Number(message.offset) })
        resolveOffset(message.offset)
        next = Number(message.offset) + 1
      }
      if (next !== undefined) {
        await consumer.commitOffsets([{ topic: args.topic, partition: batch.partition, offset: String(next) }])
        tell({ e: 'committed', o: [[batch.partition, next]] })
      }
    },
  })
  for await (const _ of input());
  await consumer.disconnect()
  if (failed) {
    throw failed
  }
  tell({ e: 'closed' })
}

// The code of an error that the broker answered; any other error is thrown.
async function coded(answer) {
  try {
    await answer
    return { error: 0 }
  } catch (e) {
    // Errors stand within those of a call or of its last try.
    const first = (e.errors || [e.cause || e])[0]
    if (typeof first.code !== 'number') {
      throw e
    }
    return { error: first.code }
  }
}

async function offsets(admin, topic, time) {
  const parts = time < 0 ? await admin.fetchTopicOffsets(topic) : await admin.fetchTopicOffsetsByTimestamp(topic, time)
  const found = []
  for (const part of parts) {
    found[part.partition] = Number({ '-1': part.high, '-2': part.low }[time] || part.offset)
  }
  return { error: 0, offsets: found }
}

async function admin() {
  const admin = kafka.admin({ retry: { retries: 0 } })
  await admin.connect()
  const commands = {
    create: (topic, partitions, ...configs) => {
      const configEntries = configs.map((pair) => pair.split('=')).map(([name, value]) => ({ name, value }))
      const topics = [{ topic, numPartitions: Number(partitions), replicationFactor: 1, configEntries }]
      return coded(admin.createTopics({ topics, waitForLeaders: false }).then((made) => {
        // An answer of 36 is the value false here.
        if (!made) {
          throw Object.assign(new Error('exists'), { code: 36 })
        }
      }))
    },
    grow: (topic, count) => coded(admin.createPartitions({ topicPartitions: [{ topic, count: Number(count) }] })),
    delete: (topic) => coded(admin.deleteTopics({ topics: [topic] })),
    topics: async () => {
      const { topics } = await admin.fetchTopicMetadata()
      return { error: 0, topics: Object.fromEntries(topics.map((t) => [t.name, t.partitions.length])) }
    },
    offsets: (topic, time) => offsets(admin, topic, Number(time)),
  }
  for await (const line of input()) {
    const [command, ...words] = line.split(' ')
    tell(await commands[command](...words))
  }
  await admin.disconnect()
}

const scenarios = { produce, consume, group, admin }
// kafkajs leaves connections open that it had lost sight of when a broker went: the process would not end by itself.
scenarios[scenario]().then(
  () => process.exit(0),
  (e) => {
    console.error(e)
    process.exit(1)
  }
)
