/**
 * `npm run bench:overload`: a generator that heeds nothing, at five times what the broker sustains.
 *
 *     producers (1 process) --> server --> broker, sqlite --> server --> workers (1 process), which ack at once
 *
 *     1. peak: a window of unanswered messages, politely: the most that is confirmed and acked in a second
 *     2. flood: five times as many, for a minute, whatever is answered
 *     3. drain: every stanza must have had one answer, and what was confirmed must be acked, once
 *
 *   npm run bench:overload -- --server prosody --seconds 10 --items 1 --store memory --json figures.json
 *   npm run bench:overload -- --server ejabberd --producer-bytes 100000       # with a shaper, as docs/operating.md tells
 *   npm run bench:overload -- --node-option=--max-semi-space-size=64   # of the broker's process
 *   npm run bench:overload -- --bystander              # and somebody polite on another domain of the same broker
 *
 * bench/README.md says what the figures do not tell.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCommand, stopRunning } from '../scripts/run-command.mjs'
import { setup } from '../scripts/setup.mjs'
import { cpuOf } from './process-cpu.mjs'
import { startChild } from './through/child.mjs'
import { startOptions } from './usage.mjs'

const QUEUE = 'queue1.localhost'
/** Of the bystander: another domain, so another stream. */
const OTHER_QUEUE = 'queue2.localhost'
/** Unanswered messages of the bystander. */
const OTHER_WINDOW = 50
const TOPIC = 'bench'
const PASSWORD = 'pw'
const SESSIONS = 4
const FACTOR = 5
const WARM_UP_MS = 3_000
const DRAIN_TRIES = 1200
const MIB = 1024 * 1024

const values = startOptions(
  {
    server: { type: 'string', multiple: true },
    store: { type: 'string', default: 'sqlite' },
    seconds: { type: 'string', default: '60' },
    'peak-seconds': { type: 'string', default: '10' },
    items: { type: 'string', default: '10' },
    window: { type: 'string', default: '4000' },
    bytes: { type: 'string', default: '200' },
    credit: { type: 'string', default: '1000' },
    'no-setup': { type: 'boolean', default: false },
    'producer-bytes': { type: 'string' },
    bystander: { type: 'boolean', default: false },
    'node-option': { type: 'string', multiple: true, default: [] },
    profile: { type: 'string' },
    json: { type: 'string' },
  },
  {
    positive: ['seconds', 'peak-seconds', 'items', 'window', 'bytes', 'credit', 'producer-bytes'],
    choices: { store: ['sqlite', 'memory'] },
  },
)
const plan = {
  seconds: values.seconds,
  peakSeconds: values['peak-seconds'],
  items: values.items,
  window: values.window,
  bodyBytes: values.bytes,
  credit: values.credit,
  producerBytes: values['producer-bytes'],
  store: values.store,
  hasBystander: values.bystander,
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const mib = (bytes) => `${Math.round(bytes / MIB)} MiB`
const count = (number) => Math.round(number).toLocaleString('en')

/** Arguments of Node for the broker's process. */
function brokerArgs() {
  const profile = values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values.profile}`]
  return [...values['node-option'], ...profile]
}

async function openField(kind) {
  const { startServer } = await import('../test/servers/dist/index.js')
  const stops = []
  const stop = async () => {
    for (const undo of stops.splice(0).reverse()) await undo()
  }
  try {
    const names = (role) => Array.from({ length: SESSIONS }, (_, index) => `${role}${index}`)
    const [producers, workers] = [names('producer'), names('worker')]
    const others = plan.hasBystander ? ['bystander', 'worker-bystander'] : []
    const accounts = Object.fromEntries([...producers, ...workers, ...others].map((user) => [user, PASSWORD]))
    const shaper = plan.producerBytes === undefined ? {} : { producerBytes: plan.producerBytes }
    let server
    let pid
    if (kind === 'embedded') {
      const child = await startChild('embedded.mjs', { accounts, ...shaper })
      stops.push(child.stop)
      server = child.ready
      pid = child.pid
    } else {
      const started = await startServer(kind, { accounts, componentDomains: [QUEUE, OTHER_QUEUE], ...shaper })
      stops.push(() => started.dispose())
      const { host, c2sPort, componentPort, domain, secret } = started
      server = { host, c2sPort, componentPort, domain, secret }
      pid = started.pid
    }
    const folder = mkdtempSync(join(tmpdir(), 'xmq-overload-'))
    stops.push(() => rmSync(folder, { recursive: true, force: true }))
    const store = plan.store === 'memory' ? 'memory:' : `sqlite:${join(folder, 'xmq.db')}`
    const child = async (file, options) => {
      const started = await startChild(
        `../overload/${file}`,
        { server, password: PASSWORD, queue: QUEUE, topic: TOPIC, ...options },
        file === 'broker.mjs' ? brokerArgs() : [],
      )
      stops.push(started.stop)
      return started
    }
    const broker = await child('broker.mjs', {
      domain: QUEUE,
      store,
      others: plan.hasBystander ? [OTHER_QUEUE] : [],
    })
    const { items, bodyBytes, window, credit } = plan
    const settlers = await child('settlers.mjs', { users: workers, credit })
    const flood = await child('flood.mjs', { users: producers, items, bodyBytes, window })
    const bystander = plan.hasBystander
      ? {
          settlers: await child('settlers.mjs', { users: ['worker-bystander'], credit, queue: OTHER_QUEUE }),
          flood: await child('flood.mjs', {
            users: ['bystander'],
            items,
            bodyBytes,
            window: OTHER_WINDOW,
            queue: OTHER_QUEUE,
          }),
        }
      : undefined
    return {
      broker,
      settlers,
      flood,
      bystander,
      pids: { server: pid, producers: flood.pid, workers: settlers.pid },
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

async function look({ broker, settlers, flood, bystander, pids }) {
  const [middle, workers, producers, other] = await Promise.all([
    broker.ask('sample'),
    settlers.ask('sample'),
    flood.ask('sample'),
    bystander?.settlers.ask('sample'),
  ])
  const cpu = Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuOf(pid)]))
  return { broker: middle, workers, producers, other, cpu }
}

/** What happened between two looks, a second. */
function between(before, after) {
  const seconds = (after.producers.at - before.producers.at) / 1000
  const rate = (of) => (of(after) - of(before)) / seconds
  const rss = after.broker.rss
  return {
    seconds,
    wanted: rate(({ producers }) => producers.wanted),
    offered: rate(({ producers }) => producers.offered),
    /** Of what was offered, what the kernel took. */
    sent: rate(({ producers }) => producers.offered - producers.unsent),
    stored: rate(({ broker }) => broker.stored),
    settled: rate(({ broker }) => broker.acked),
    confirmed: rate(({ producers }) => producers.confirmed),
    refused: rate(({ producers }) => producers.refused),
    acked: rate(({ workers }) => workers.acked),
    reached: rate(({ broker }) => broker.stored + broker.refused * plan.items),
    cpu: {
      broker: rate(({ broker }) => broker.cpuMs) / 1000,
      server: rate(({ cpu }) => cpu.server) / 1000,
      producers: rate(({ cpu }) => cpu.producers) / 1000,
      workers: rate(({ cpu }) => cpu.workers) / 1000,
    },
    rssMax: Math.max(...rss),
    rss,
    storingMax: after.broker.storingMax,
    outboundMax: after.broker.outboundMax,
    refusingShare: after.broker.refusingShare,
    loads: after.broker.loads,
    bystander: plan.hasBystander ? rate(({ other }) => other.acked) : undefined,
    settleP50: after.workers.p50,
    settleP99: after.workers.p99,
    settles: after.workers.settles,
  }
}

/** Waits until everything is answered and acked; what is left then is a fault. */
async function drain(field) {
  const faults = []
  let last
  for (let tries = 0; tries < DRAIN_TRIES; tries++) {
    last = await look(field)
    const { producers, workers } = last
    if (producers.unanswered === 0 && workers.acked >= producers.confirmed) break
    await pause(100)
  }
  const { producers, workers, broker } = last
  if (producers.unanswered > 0) faults.push(`${producers.unanswered} messages were never answered`)
  if (producers.twice > 0) faults.push(`${producers.twice} answers came twice`)
  if (producers.unexplained > 0) faults.push(`${producers.unexplained} refusals without a reason of the broker`)
  if (workers.acked !== producers.confirmed || workers.ackedSum !== producers.confirmedSum) {
    faults.push(`${producers.confirmed} were confirmed, ${workers.acked} of them or others acked`)
  }
  if (broker.faults > 0) faults.push(`${broker.faults} faults of the broker`)
  if (broker.reconnects > 0) faults.push(`${broker.reconnects} reconnects`)
  return { faults, last }
}

async function run(kind) {
  const field = await openField(kind)
  try {
    await field.flood.ask('fill')
    await field.bystander?.flood.ask('fill')
    await pause(WARM_UP_MS)
    const first = await look(field)
    await pause(plan.peakSeconds * 1000)
    const second = await look(field)
    const peak = between(first, second)
    await field.flood.ask('stop')
    await drain(field)
    const third = await look(field)
    await field.flood.ask('flood', peak.confirmed * FACTOR)
    await pause(plan.seconds * 1000)
    const fourth = await look(field)
    await field.flood.ask('stop')
    const flood = between(third, fourth)
    await field.bystander?.flood.ask('stop')
    const { faults, last } = await drain(field)
    return { peak, flood, faults, codes: last.producers.codes, end: last }
  } finally {
    await field.stop()
  }
}

function print(kind, { peak, flood, faults, codes, end }) {
  const of = (part, whole) => `${(part / whole).toFixed(2)} of peak`
  const times = (rate) => `${(rate / peak.stored).toFixed(1)} x`
  const perCpu = ({ stored, settled, cpu }) => (stored + settled) / 2 / (cpu.broker + cpu.server)
  const percent = (share) => `${Math.round(share * 100)} % of the time`
  const settles = ({ settleP50, settleP99 }) => `p50 ${settleP50?.toFixed(0)} ms, p99 ${settleP99?.toFixed(0)} ms`
  const loads = ({ loads: seconds }) =>
    `delays at most ${Object.entries(seconds)
      .map(([name, value]) => `${name} ${value.toFixed(1)} s`)
      .join(', ')}`
  const cpus = ({ cpu }) =>
    `CPU ${Object.entries(cpu)
      .map(([name, share]) => `${name} ${share.toFixed(2)}`)
      .join(', ')}`
  const rss = flood.rss.filter((_, index) => index % 20 === 19).map((bytes) => Math.round(bytes / MIB))
  const rows = [
    [
      'peak',
      `${count(peak.stored)} stored/s, ${count(peak.settled)} acked/s at the broker; ${count(peak.confirmed)} confirmed/s`,
    ],
    ['', `settles ${settles(peak)}; refusing ${percent(peak.refusingShare)}; ${loads(peak)}; ${cpus(peak)}`],
    [
      'flood',
      `${count(flood.wanted)} wanted/s (${times(flood.wanted)}), ${count(flood.offered)} written/s (${times(flood.offered)}), ${count(flood.sent)} taken by TCP/s (${times(flood.sent)}), ${count(flood.reached)} reached the broker/s (${times(flood.reached)})`,
    ],
    [
      'goodput',
      `${count(flood.stored)} stored/s (${of(flood.stored, peak.stored)}), ${count(flood.settled)} acked/s (${of(flood.settled, peak.settled)}) at the broker`,
    ],
    [
      '',
      `${count(flood.confirmed)} confirmed/s (${of(flood.confirmed, peak.confirmed)}), ${count(flood.acked)} acked/s (${of(flood.acked, peak.acked)}) at the clients`,
    ],
    ['', `settles ${settles(flood)}; refusing ${percent(flood.refusingShare)}; ${loads(flood)}; ${cpus(flood)}`],
    [
      '',
      `${count(perCpu(peak))} stored and acked for a second of CPU of broker and server at the peak, ${count(perCpu(flood))} in the flood (${of(perCpu(flood), perCpu(peak))})`,
    ],
    [
      'memory',
      `RSS at most ${mib(flood.rssMax)}, each 5 s ${rss.join(' ')}; storing at most ${mib(flood.storingMax)}, outbound ${mib(flood.outboundMax)}`,
    ],
    [
      'answers',
      `${count(end.producers.offered)} offered = ${count(end.producers.confirmed)} confirmed + ${count(end.producers.refused)} refused ${JSON.stringify(codes)}; ${count(end.workers.acked)} acked, ${count(end.workers.again)} delivered again`,
    ],
    ['', faults.length === 0 ? 'nothing was lost, nothing was silent' : `FAULTS: ${faults.join('; ')}`],
  ]
  if (plan.hasBystander)
    rows.push([
      'bystander',
      `${count(peak.bystander)} acked/s beside the peak, ${count(flood.bystander)} beside the flood`,
    ])
  console.log(`\n${kind}, ${plan.store}, ${plan.items} items of ${plan.bodyBytes} bytes a stanza`)
  for (const [name, text] of rows) console.log(`  ${name.padEnd(10)}${text}`)
}

async function main() {
  if (!values['no-setup']) {
    await setup({ quiet: true })
    const compiled = await runCommand(process.execPath, ['node_modules/typescript/bin/tsc', '-b', 'test/servers'])
    if (compiled.code !== 0) throw new Error(compiled.output)
  }
  const { installedKinds } = await import('../test/servers/dist/index.js')
  const kinds = values.servers ?? installedKinds()
  const results = {}
  for (const kind of kinds) {
    results[kind] = await run(kind)
    print(kind, results[kind])
    if (results[kind].faults.length > 0) process.exitCode = 1
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ plan, results }, undefined, 2)}\n`)
}

process.once('SIGINT', () => {
  stopRunning()
  process.exit(130)
})
await main()
