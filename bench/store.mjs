// What a message costs the store, from its publishing to its ack, while others wait: in every shape of backlog. Run it alone on the machine:
//
//   npm run build && node bench/store.mjs [--store sqlite|memory] [--shape NAME] [--waiting 1000,100000,5000000]
//   node bench/store.mjs --low-rate      the confirm of a single publish, beside an fsync of its size
//
// For each shape and size a process fills a file (without fsync), and another opens it and measures: batches of --batch messages are
// published, claimed and acked, --depth of them at a time, for --seconds, so that the backlog stays as it is. bench/README.md says what the
// figures do not tell.
import { execFileSync } from 'node:child_process'
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createMemoryStore, createSqliteStore } from '../packages/broker/dist/index.js'

const { values: flags } = parseArgs({
  options: {
    store: { type: 'string', default: 'sqlite' },
    shape: { type: 'string' },
    waiting: { type: 'string', default: '1000,100000,5000000' },
    seconds: { type: 'string', default: '5' },
    batch: { type: 'string', default: '100' },
    depth: { type: 'string', default: '4' },
    body: { type: 'string', default: '500' },
    synchronous: { type: 'string', default: 'FULL' },
    dir: { type: 'string', default: tmpdir() },
    'low-rate': { type: 'boolean', default: false },
    fill: { type: 'string' },
    measure: { type: 'string' },
  },
})
const BATCH = Number(flags.batch)
const DEPTH = Number(flags.depth)
const SECONDS = Number(flags.seconds)
const FILL_BATCH = 500
const QUEUE = 'jobs.localhost'
const HOLDER = 'worker@localhost'
const BODY = 'x'.repeat(Number(flags.body))
const TARGETS = [{ subscription: '', maxLength: 1e9, maxBytes: 1e15, whenFull: 'refuse' }]
const TOPICS = 100_000

/** What the n-th message of each shape is like; of topics there are as many as messages at most. */
const SHAPES = {
  plain: () => ({}),
  ids: (n) => ({ id: `id-${n}` }),
  'one key': () => ({ key: 'k' }),
  'a million keys': (n) => ({ key: `k-${n % 1_000_000}` }),
  '100k topics': undefined,
  'all delayed': () => ({ delayUntil: Date.now() + 86_400_000 }),
  'all with a ttl': (n) => ({ expiresAt: Date.now() + 86_400_000 + n }),
  'mixed priorities': (n) => ({ priority: (n * 7) % 10 }),
}

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

/** One run: a store, and where its shape and its claims are. */
class Run {
  constructor(store, name, waiting) {
    this.store = store
    this.waiting = waiting
    this.published = waiting
    this.topics = name === '100k topics' ? Math.min(TOPICS, waiting) : 0
    this.shapeOf = this.topics === 0 ? SHAPES[name] : (n) => ({ topic: `t-${n % this.topics}` })
    // What is published beside what is delayed can be worked on.
    this.workOf = name === 'all delayed' ? SHAPES.plain : this.shapeOf
    this.turn = 0
    this.tokens = 0
  }

  async publish(count, shapeOf) {
    const ops = Array.from({ length: count }, () => messageOf(shapeOf(this.published++)))
    for (const result of await this.store.apply(ops, Date.now()))
      if (result.status !== 'ok') throw new Error(JSON.stringify(result))
  }

  async fill() {
    this.published = 0
    const loop = async () => {
      while (this.published < this.waiting)
        await this.publish(Math.min(FILL_BATCH, this.waiting - this.published), this.shapeOf)
    }
    await Promise.all(Array.from({ length: DEPTH }, loop))
  }

  /** Publishes, claims and acks a batch; how long the claim took, and how many messages it had. */
  async turnOver() {
    await this.publish(BATCH, this.workOf)
    const began = performance.now()
    const { messages } = await this.store.claim({
      queue: QUEUE,
      subscription: '',
      topics: this.topics === 0 ? ['t'] : Array.from({ length: BATCH }, () => `t-${this.turn++ % this.topics}`),
      grants: Array.from({ length: BATCH }, () => ({ token: `abcdefghijklmnopqrstu${this.tokens++}`, holder: HOLDER })),
      bytesMax: 1e9,
      leaseMs: 30_000,
      now: Date.now(),
    })
    const claimMs = performance.now() - began
    const acks = messages.map(({ queue, subscription, seq, token }) => ({
      type: 'ack',
      queue,
      subscription,
      seq,
      token,
    }))
    await this.store.apply(acks, Date.now())
    return { claimMs, count: messages.length }
  }

  async measure() {
    for (let n = 0; n < 50; n++) await this.turnOver()
    const [claims, lives] = [[], []]
    let count = 0
    const began = performance.now()
    const cpu = process.cpuUsage()
    const loop = async () => {
      while (performance.now() - began < SECONDS * 1000) {
        const start = performance.now()
        const done = await this.turnOver()
        lives.push(performance.now() - start)
        claims.push(done.claimMs)
        count += done.count
      }
    }
    await Promise.all(Array.from({ length: DEPTH }, loop))
    const elapsed = performance.now() - began
    const { user, system } = process.cpuUsage(cpu)
    const due = await timed(() => this.store.due(Date.now(), 100))
    return {
      perSecond: Math.round((count / elapsed) * 1000),
      claimMs: spread(claims),
      lifeMs: spread(lives),
      cpuPerTurnMs: (user + system) / 1000 / lives.length,
      dueMs: due.ms,
      rssMiB: Math.round(process.memoryUsage.rss() / 2 ** 20),
    }
  }
}

const spread = (times) => {
  times.sort((one, two) => one - two)
  return { p50: times[times.length >> 1], p99: times[Math.floor(times.length * 0.99)] }
}

async function timed(call) {
  const began = performance.now()
  return { value: await call(), ms: performance.now() - began }
}

async function fillFile({ path, shape, waiting }) {
  const store = createSqliteStore({ path, synchronous: 'OFF' })
  await store.open(Date.now())
  const { ms } = await timed(() => new Run(store, shape, waiting).fill())
  await store.close()
  return { fillPerSecond: Math.round((waiting / ms) * 1000) }
}

async function measureFile({ path, shape, waiting }) {
  const store = createSqliteStore({ path, synchronous: flags.synchronous })
  const open = await timed(() => store.open(Date.now()))
  const due = await timed(() => store.due(Date.now(), 1000))
  const topics = await timed(() => store.topics({ queue: QUEUE, subscription: '', after: '', max: 1000 }))
  const leases = await timed(() => store.leases({ queue: QUEUE, subscription: '', after: 0, max: 1000 }))
  const measured = await new Run(store, shape, waiting).measure()
  await store.close()
  return { openMs: open.ms, startMs: due.ms + topics.ms + leases.ms, ...measured }
}

async function measureMemory({ shape, waiting }) {
  const store = createMemoryStore()
  await store.open(Date.now())
  const run = new Run(store, shape, waiting)
  const { ms } = await timed(() => run.fill())
  const measured = await run.measure()
  await store.close()
  return { fillPerSecond: Math.round((waiting / ms) * 1000), openMs: 0, startMs: 0, fileMiB: 0, ...measured }
}

/** Runs a part of this in a process of its own. */
function inProcess(part, job) {
  const args = process.argv.slice(2)
  const options = { encoding: 'utf8', maxBuffer: 2 ** 24, stdio: ['ignore', 'pipe', 'inherit'] }
  const path = fileURLToPath(import.meta.url)
  return JSON.parse(execFileSync(process.execPath, [path, ...args, `--${part}`, JSON.stringify(job)], options))
}

function runSize(shape, waiting) {
  if (flags.store === 'memory') return inProcess('measure', { shape, waiting })
  const dir = mkdtempSync(join(flags.dir, 'xmq-bench-'))
  try {
    const job = { path: join(dir, 'xmq.db'), shape, waiting }
    const filled = inProcess('fill', job)
    const fileMiB = Math.round(statSync(job.path).size / 2 ** 20)
    return { ...filled, fileMiB, ...inProcess('measure', job) }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0))

function runAll() {
  console.log(
    `${flags.store}, ${flags.body} bytes, turns of ${BATCH} messages published, claimed and acked, ${DEPTH} at a time, synchronous=${flags.synchronous}\n`,
  )
  const heads = [
    'shape',
    'waiting',
    'lives/s',
    'claim p50',
    'p99',
    'turn p50',
    'p99',
    'CPU a turn',
    'of the least',
    'due',
    'open',
    'start',
    'RSS MiB',
    'file MiB',
  ]
  console.log(`| ${heads.join(' | ')} |\n|${heads.map(() => '---').join('|')}|`)
  for (const shape of Object.keys(SHAPES)) {
    if (flags.shape !== undefined && flags.shape !== shape) continue
    let least
    for (const waiting of flags.waiting.split(',').map(Number)) {
      const found = runSize(shape, waiting)
      least ??= found.cpuPerTurnMs
      const { claimMs, lifeMs, cpuPerTurnMs } = found
      const times = [claimMs.p50, claimMs.p99, lifeMs.p50, lifeMs.p99, cpuPerTurnMs].map(ms)
      const rest = [
        (cpuPerTurnMs / least).toFixed(2),
        ms(found.dueMs),
        ms(found.openMs),
        ms(found.startMs),
        found.rssMiB,
        found.fileMiB,
      ]
      console.log(`| ${[shape, waiting, found.perSecond, ...times, ...rest].join(' | ')} |`)
    }
  }
}

/** One publish at a time, in turn with what it cannot be faster than: a write of the same size and an fdatasync. */
async function runLowRate() {
  const dir = mkdtempSync(join(flags.dir, 'xmq-bench-'))
  const store = createSqliteStore({ path: join(dir, 'xmq.db'), synchronous: flags.synchronous })
  await store.open(Date.now())
  const run = new Run(store, 'plain', 0)
  const file = openSync(join(dir, 'plain'), 'w')
  const page = Buffer.alloc(2 * 4120)
  const [publishes, syncs] = [[], []]
  for (let n = 0; n < 1000; n++) {
    publishes.push((await timed(() => run.publish(1, run.workOf))).ms)
    syncs.push(
      (await timed(() => (writeSync(file, page, 0, page.length, (n % 1000) * page.length), fdatasyncSync(file)))).ms,
    )
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  closeSync(file)
  await store.close()
  rmSync(dir, { recursive: true, force: true })
  const [publish, sync] = [spread(publishes.slice(100)), spread(syncs.slice(100))]
  console.log(`one publish confirmed: p50 ${ms(publish.p50)} ms, p99 ${ms(publish.p99)} ms`)
  console.log(`a write and fdatasync: p50 ${ms(sync.p50)} ms, p99 ${ms(sync.p99)} ms`)
  console.log(`the store adds:        p50 ${ms(publish.p50 - sync.p50)} ms`)
}

if (flags.fill !== undefined) console.log(JSON.stringify(await fillFile(JSON.parse(flags.fill))))
else if (flags.measure !== undefined) {
  const job = JSON.parse(flags.measure)
  console.log(JSON.stringify(await (flags.store === 'memory' ? measureMemory(job) : measureFile(job))))
} else if (flags['low-rate']) await runLowRate()
else runAll()
