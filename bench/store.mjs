// What a message costs the store, from its publishing to its ack, while others wait: in every shape of backlog. Run it alone on the machine:
//
//   npm run build && node bench/store.mjs [--store sqlite|memory] [--shape NAME] [--waiting 1000,100000,5000000]
//   node bench/store.mjs --low-rate      the confirm of a single publish, beside an fsync of its size
//
// For each shape and size a process fills a file (without fsync, and with a large cache). Then one process opens the files of all sizes, and
// works on them in turn: four batches of 100 messages are published, then claimed, then acked, so that as many go on waiting. Last a process for
// each file tells what it takes to have it open. bench/README.md says what the figures do not tell.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createMemoryStore, createSqliteStore } from '../packages/broker/dist/index.js'
import { startOptions } from './usage.mjs'

const flags = startOptions(
  {
    store: { type: 'string', default: 'sqlite' },
    shape: { type: 'string' },
    waiting: { type: 'string', default: '1000,100000,5000000' },
    rounds: { type: 'string', default: '200' },
    batch: { type: 'string', default: '100' },
    depth: { type: 'string', default: '4' },
    body: { type: 'string', default: '500' },
    synchronous: { type: 'string', default: 'FULL' },
    dir: { type: 'string', default: tmpdir() },
    'low-rate': { type: 'boolean', default: false },
    fill: { type: 'string' },
    measure: { type: 'string' },
    weigh: { type: 'string' },
  },
  { positive: ['rounds', 'batch', 'depth', 'body'], choices: { store: ['sqlite', 'memory'] } },
)
const BATCH = flags.batch
const DEPTH = flags.depth
const ROUNDS = flags.rounds
const FILL_BATCH = 500
const FILL_CACHE_BYTES = 4 * 2 ** 30
/** Rounds before the first that counts: so many that each of the topics was met. */
const WARM_ROUNDS = Math.ceil(100_000 / BATCH / DEPTH)
const QUEUE = 'jobs.localhost'
const HOLDER = 'worker@localhost'
const BODY = 'x'.repeat(flags.body)
const TARGETS = [{ subscription: '', maxLength: 1e9, maxBytes: 1e15, whenFull: 'refuse' }]
const TOPICS = 100_000

const scattered = (n) => createHash('md5').update(String(n)).digest('hex').slice(0, 16)

/** What the n-th message of each shape is like; of topics there are as many as messages at most. */
const SHAPES = {
  plain: () => ({}),
  ids: (n) => ({ id: `id-${n}` }),
  'one key': () => ({ key: 'k' }),
  'a million keys': (n) => ({ key: `k-${n % 1_000_000}` }),
  'a million scattered keys': (n) => ({ key: scattered(n % 1_000_000) }),
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
  constructor(store, name, waiting, published = waiting) {
    this.store = store
    this.waiting = waiting
    this.published = published
    this.topics = name === '100k topics' ? Math.min(TOPICS, waiting) : 0
    this.shapeOf = this.topics === 0 ? SHAPES[name] : (n) => ({ topic: `t-${n % this.topics}` })
    // What is published beside what is delayed can be worked on.
    this.workOf = name === 'all delayed' ? SHAPES.plain : this.shapeOf
    this.turn = 0
    this.tokens = 0
    this.worked = 0
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

  claim() {
    return this.store.claim({
      queue: QUEUE,
      subscription: '',
      topics: this.topics === 0 ? ['t'] : Array.from({ length: BATCH }, () => `t-${this.turn++ % this.topics}`),
      grants: Array.from({ length: BATCH }, () => ({ token: `abcdefghijklmnopqrstu${this.tokens++}`, holder: HOLDER })),
      bytesMax: 1e9,
      leaseMs: 30_000,
      now: Date.now(),
    })
  }

  ack({ messages }) {
    const acks = messages.map(({ queue, subscription, seq, token }) => ({
      type: 'ack',
      queue,
      subscription,
      seq,
      token,
    }))
    return this.store.apply(acks, Date.now())
  }

  /** Publishes, claims and acks so many batches, one after the other; what each of the three took. */
  async round() {
    const batches = Array.from({ length: DEPTH })
    const published = await costOf(() => Promise.all(batches.map(() => this.publish(BATCH, this.workOf))))
    const claimed = await costOf(() => Promise.all(batches.map(() => this.claim())))
    const acked = await costOf(() => Promise.all(claimed.value.map((answer) => this.ack(answer))))
    this.worked += claimed.value.reduce((sum, { messages }) => sum + messages.length, 0)
    return { published, claimed, acked }
  }
}

/** What a call took: ms, and µs of CPU of this process. */
async function costOf(call) {
  const cpu = process.cpuUsage()
  const { value, ms } = await timed(call)
  const { user, system } = process.cpuUsage(cpu)
  return { value, ms, cpu: user + system }
}

const PHASES = ['published', 'claimed', 'acked']

/** Rounds of all runs, in turn. */
async function compare(runs) {
  for (let n = 0; n < WARM_ROUNDS; n++) for (const run of runs) await run.round()
  const rounds = runs.map(() => [])
  for (const run of runs) run.worked = 0
  for (let n = 0; n < ROUNDS; n++) for (const [place, run] of runs.entries()) rounds[place].push(await run.round())
  return runs.map((run, place) => {
    const cpu = PHASES.map((phase) => rounds[place].reduce((sum, round) => sum + round[phase].cpu, 0) / run.worked)
    return { cpu, claimMs: spread(rounds[place].map(({ claimed }) => claimed.ms)).p50, perRound: run.worked / ROUNDS }
  })
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
  const store = createSqliteStore({ path, synchronous: 'OFF', cacheBytes: FILL_CACHE_BYTES })
  await store.open(Date.now())
  await new Run(store, shape, waiting).fill()
  await store.close()
  return {}
}

async function compareFiles(jobs) {
  const runs = []
  for (const { path, shape, waiting } of jobs) {
    const store = createSqliteStore({ path, synchronous: flags.synchronous })
    await store.open(Date.now())
    runs.push(new Run(store, shape, waiting))
  }
  const found = await compare(runs)
  for (const { store } of runs) await store.close()
  return found
}

/** What a file takes that a process alone has open, and works on for a while. */
async function weighFile({ path, shape, waiting }) {
  const store = createSqliteStore({ path, synchronous: flags.synchronous })
  const open = await timed(() => store.open(Date.now()))
  const start = await timed(async () => {
    await store.due(Date.now(), 1000)
    await store.topics({ queue: QUEUE, subscription: '', after: '', max: 1000 })
    await store.leases({ queue: QUEUE, subscription: '', after: 0, max: 1000 })
  })
  // What was published since the file was filled has ids that are known.
  const run = new Run(store, shape, waiting, waiting + (WARM_ROUNDS + ROUNDS) * BATCH * DEPTH)
  for (let n = 0; n < WARM_ROUNDS; n++) await run.round()
  const due = await timed(() => store.due(Date.now(), 100))
  await store.close()
  return {
    openMs: open.ms,
    startMs: start.ms,
    dueMs: due.ms,
    rssMiB: Math.round(process.resourceUsage().maxRSS / 1024),
  }
}

async function compareMemory([{ shape, waiting }]) {
  const store = createMemoryStore()
  await store.open(Date.now())
  const run = new Run(store, shape, waiting)
  await run.fill()
  const [found] = await compare([run])
  const due = await timed(() => store.due(Date.now(), 100))
  const rssMiB = Math.round(process.resourceUsage().maxRSS / 1024)
  return [{ ...found, openMs: 0, startMs: 0, dueMs: due.ms, rssMiB, fileMiB: 0 }]
}

/** Runs a part of this in a process of its own. */
function inProcess(part, job) {
  const args = process.argv.slice(2)
  const options = { encoding: 'utf8', maxBuffer: 2 ** 24, stdio: ['ignore', 'pipe', 'inherit'] }
  const path = fileURLToPath(import.meta.url)
  return JSON.parse(execFileSync(process.execPath, [path, ...args, `--${part}`, JSON.stringify(job)], options))
}

/** All sizes of a shape. A memory store has its process, with the heap that the others would share. */
function runShape(shape) {
  const sizes = flags.waiting.split(',').map(Number)
  if (flags.store === 'memory') return sizes.flatMap((waiting) => inProcess('measure', [{ shape, waiting }]))
  const dir = mkdtempSync(join(flags.dir, 'xmq-bench-'))
  try {
    const jobs = sizes.map((waiting) => ({ path: join(dir, `${waiting}.db`), shape, waiting }))
    for (const job of jobs) inProcess('fill', job)
    const sizesOf = jobs.map(({ path }) => Math.round(statSync(path).size / 2 ** 20))
    const found = inProcess('measure', jobs)
    return jobs.map((job, place) => Object.assign(found[place], inProcess('weigh', job), { fileMiB: sizesOf[place] }))
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

const sum = (values) => values.reduce((total, value) => total + value, 0)
const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0))

function runAll() {
  console.log(
    `${flags.store}, ${flags.body} bytes, ${DEPTH} batches of ${BATCH} messages at a time published, claimed, acked; CPU of the process in µs a message, and its ratio to the first size\n`,
  )
  const heads = ['shape', 'waiting', ...PHASES, 'all', ...PHASES.map((phase) => `${phase}, ratio`), 'all, ratio']
  heads.push('a round', 'claims p50 ms', 'due ms', 'open ms', 'start ms', 'RSS MiB', 'file MiB')
  console.log(`| ${heads.join(' | ')} |\n|${heads.map(() => '---').join('|')}|`)
  for (const shape of Object.keys(SHAPES)) {
    if (flags.shape !== undefined && flags.shape !== shape) continue
    const found = runShape(shape)
    for (const [place, size] of found.entries()) {
      const costs = [...size.cpu, sum(size.cpu)]
      const least = [...found[0].cpu, sum(found[0].cpu)]
      const ratios = costs.map((cost, phase) => (cost / least[phase]).toFixed(2))
      const times = [size.claimMs, size.dueMs, size.openMs, size.startMs].map(ms)
      const waiting = flags.waiting.split(',')[place]
      const cells = [shape, waiting, ...costs.map((cost) => cost.toFixed(1)), ...ratios, Math.round(size.perRound)]
      console.log(`| ${[...cells, ...times, size.rssMiB, size.fileMiB].join(' | ')} |`)
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
else if (flags.weigh !== undefined) console.log(JSON.stringify(await weighFile(JSON.parse(flags.weigh))))
else if (flags.measure !== undefined) {
  const jobs = JSON.parse(flags.measure)
  console.log(JSON.stringify(await (flags.store === 'memory' ? compareMemory(jobs) : compareFiles(jobs))))
} else if (flags['low-rate']) await runLowRate()
else runAll()
