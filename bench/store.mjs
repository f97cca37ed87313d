// How fast a store publishes, claims and acks while messages wait, in every shape of backlog. Run it alone on the machine:
//
//   npm run build && node bench/store.mjs [--store sqlite|memory] [--shape NAME] [--waiting N] [--seconds 5] [--synchronous FULL|OFF]
//
// Rates are of one caller that keeps `--depth` batches of `--batch` messages on their way. What it does not measure: the broker
// around the store, the network, other users of the disk. RSS is the whole process, the caller included.
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { createMemoryStore, createSqliteStore } from '../packages/broker/dist/index.js'

const { values: flags } = parseArgs({
  options: {
    store: { type: 'string', default: 'sqlite' },
    shape: { type: 'string' },
    waiting: { type: 'string', default: '100000' },
    seconds: { type: 'string', default: '5' },
    batch: { type: 'string', default: '100' },
    depth: { type: 'string', default: '4' },
    body: { type: 'string', default: '500' },
    synchronous: { type: 'string', default: 'FULL' },
    dir: { type: 'string', default: tmpdir() },
  },
})
const WAITING = Number(flags.waiting)
const BATCH = Number(flags.batch)
const DEPTH = Number(flags.depth)
const SECONDS = Number(flags.seconds)
const QUEUE = 'jobs.localhost'
const HOLDER = 'worker@localhost'
const BODY = 'x'.repeat(Number(flags.body))
const TARGETS = [{ subscription: '', maxLength: 1e9, maxBytes: 1e15, whenFull: 'refuse' }]

/** What the n-th message of each shape is like; `topics` are those that claims ask for, in turn. */
const SHAPES = {
  plain: () => ({}),
  ids: (n) => ({ id: `id-${n}` }),
  'one key': () => ({ key: 'k' }),
  'a million keys': (n) => ({ key: `k-${n % 1_000_000}` }),
  '100k topics': (n) => ({ topic: `t-${n % 100_000}` }),
  'all delayed': () => ({ delayUntil: Date.now() + 3_600_000 }),
  'all with a ttl': (n) => ({ expiresAt: Date.now() + 3_600_000 + n }),
  'mixed priorities': (n) => ({ priority: (n * 7) % 10 }),
}

let published = 0
const messageOf = (more) => ({
  type: 'publish',
  queue: QUEUE,
  topic: 't',
  id: undefined,
  sender: 'shop@localhost',
  key: undefined,
  priority: 4,
  delayUntil: undefined,
  expiresAt: undefined,
  dedupeMs: 600_000,
  dedupeMax: 10_000_000,
  body: BODY,
  meta: '',
  targets: TARGETS,
  ...more,
})

async function publishBatch(store, shape) {
  const ops = Array.from({ length: BATCH }, () => messageOf(shape(published++)))
  for (const result of await store.apply(ops, Date.now()))
    if (result.status !== 'ok') throw new Error(JSON.stringify(result))
  return BATCH
}

let tokens = 0
async function workBatch(store, topicsOf) {
  const grants = Array.from({ length: BATCH }, () => ({ token: `t${tokens++}`, holder: HOLDER }))
  const request = {
    queue: QUEUE,
    subscription: '',
    topics: topicsOf(),
    grants,
    bytesMax: 1e9,
    leaseMs: 30_000,
    now: Date.now(),
  }
  const { messages } = await store.claim(request)
  const acks = messages.map(({ queue, subscription, seq, token }) => ({ type: 'ack', queue, subscription, seq, token }))
  await store.apply(acks, Date.now())
  return messages.length
}

/** Keeps DEPTH calls going until `isOver`; how many messages a second, and the times of the calls. */
async function measure(call, isOver) {
  const times = []
  let count = 0
  const began = performance.now()
  const loop = async () => {
    while (!isOver(count, performance.now() - began)) {
      const start = performance.now()
      const done = await call() // not in one expression: the loops run beside each other
      count += done
      times.push(performance.now() - start)
    }
  }
  await Promise.all(Array.from({ length: DEPTH }, loop))
  times.sort((one, two) => one - two)
  const rate = Math.round((count / (performance.now() - began)) * 1000)
  return { rate, p50: times[times.length >> 1], p99: times[Math.floor(times.length * 0.99)] }
}

const forSeconds = (_count, elapsedMs) => elapsedMs > SECONDS * 1000

async function run(name, shape) {
  const dir = mkdtempSync(join(flags.dir, 'xmq-bench-'))
  const path = join(dir, 'xmq.db')
  const store =
    flags.store === 'memory' ? createMemoryStore() : createSqliteStore({ path, synchronous: flags.synchronous })
  await store.open(Date.now())
  published = 0
  const fill = await measure(
    () => publishBatch(store, shape),
    () => published >= WAITING,
  )
  const apply = await measure(() => publishBatch(store, shape), forSeconds)
  let turn = 0
  const topicsOf = () =>
    name === '100k topics' ? Array.from({ length: 100 }, () => `t-${turn++ % Math.min(100_000, published)}`) : ['t']
  const claim = await measure(() => workBatch(store, topicsOf), forSeconds)
  const due = await measure(
    async () => (await store.due(Date.now(), 100), 1),
    (count) => count >= 200,
  )
  const fileMiB = flags.store === 'memory' ? '' : Math.round(statSync(path).size / 2 ** 20)
  console.log(
    [
      name,
      published,
      fill.rate,
      apply.rate,
      apply.p99.toFixed(1),
      claim.rate,
      claim.p99.toFixed(1),
      due.p50.toFixed(2),
      Math.round(process.memoryUsage.rss() / 2 ** 20),
      fileMiB,
    ].join('\t'),
  )
  await store.close()
  rmSync(dir, { recursive: true, force: true })
}

console.log(
  `${flags.store}, ${WAITING} waiting, ${flags.body} bytes, batches of ${BATCH}, ${DEPTH} at a time, synchronous=${flags.synchronous}`,
)
console.log('shape\tpublished\tfill/s\tpublish/s\tp99 ms\tclaim+ack/s\tp99 ms\tdue ms\tRSS MiB\tfile MiB')
for (const [name, shape] of Object.entries(SHAPES))
  if (flags.shape === undefined || flags.shape === name) await run(name, shape)
