/**
 * `npm run bench`: what the broker adds. Messages a second and latency through it on each server, beside the same messages
 * straight from client to client, through a null relay, and through a relay that writes the broker's stanza, in one run.
 * bench/README.md says what the figures do not tell.
 *
 *   npm run bench -- --quick --server prosody --rounds 3 --json figures.json
 *   npm run bench -- --no-setup                               with what is built
 *
 *   producers (1 process, 4 sessions) --> server --> [ nothing | null relay | broker ] --> server --> workers (1 process, 4 sessions)
 *        ^--------------------------- counts of what has arrived ------------------------------------------'
 */
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { runCommand, stopRunning } from '../scripts/run-command.mjs'
import { setup } from '../scripts/setup.mjs'
import { startChild } from './through/child.mjs'
import { positiveOption, readOptions, runBench, serversOption } from './usage.mjs'

const QUEUE = 'queue1.localhost'
const RELAY = 'relay.localhost'
const TOPIC = 'bench'
const PASSWORD = 'pw'
const SESSIONS = 4
const RATE = 500
const WAYS = ['direct', 'null relay', 'full relay', 'broker']
const FULL = { rounds: 5, warmUpMs: 1_000, measureMs: 4_000, latencyMs: 6_000 }
const QUICK = { rounds: 1, warmUpMs: 300, measureMs: 1_000, latencyMs: 1_000 }

const HELP = `npm run bench [-- options]

What the broker adds: messages straight from client to client, through a null relay, through a relay that writes the broker's
stanza, and through the broker, on each XMPP server that is installed.

  --quick               one short round
  --rounds N            rounds, all ways in turn in each; medians are printed                (5)
  --server KIND[,KIND]  embedded, prosody, ejabberd                                         (all that are installed)
  --window N            most messages under way                                             (1000)
  --bytes N             size of a message's JSON                                            (200)
  --json FILE           write every figure
  --no-setup            with what is built
  --peers               beside RabbitMQ and BullMQ instead: npm run bench -- --peers --help
  --help
`

const OPTIONS = {
  quick: { type: 'boolean' },
  'no-setup': { type: 'boolean' },
  server: { type: 'string', multiple: true },
  rounds: { type: 'string' },
  window: { type: 'string', default: '1000' },
  bytes: { type: 'string', default: '200' },
  json: { type: 'string' },
  help: { type: 'boolean' },
}

function parse() {
  const values = readOptions(process.argv.slice(2), OPTIONS)
  const plan = values.quick ? QUICK : FULL
  return {
    ...plan,
    rounds: values.rounds === undefined ? plan.rounds : positiveOption(values, 'rounds'),
    window: positiveOption(values, 'window'),
    bodyBytes: positiveOption(values, 'bytes'),
    servers: serversOption(values),
    json: values.json,
    hasSetup: values['no-setup'] !== true,
    isHelp: values.help === true,
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Everything that takes part on one server, started; `stop` ends all of it. */
async function openField(kind, plan) {
  const { startServer } = await import('../test/servers/dist/index.js')
  const stops = []
  const stop = async () => {
    for (const undo of stops.splice(0).reverse()) await undo()
  }
  try {
    const names = (role) => Array.from({ length: SESSIONS }, (_, index) => `${role}${index}`)
    const users = { producers: names('producer'), workers: names('worker') }
    const accounts = Object.fromEntries([...users.producers, ...users.workers].map((user) => [user, PASSWORD]))
    const server = await startOne(kind, accounts, startServer, stops)
    const child = async (file, options) => {
      const started = await startChild(file, { server, password: PASSWORD, ...options })
      stops.push(started.stop)
      return started
    }
    const relay = await child('relay.mjs', { domain: RELAY })
    const broker = await child('broker.mjs', { domain: QUEUE })
    const { bodyBytes, window } = plan
    const producers = await child('producers.mjs', { users: users.producers, topic: TOPIC, bodyBytes, window })
    const creditPort = producers.ready.port
    const workers = await child('workers.mjs', { users: users.workers, creditPort, queue: QUEUE, topic: TOPIC })
    await relay.ask('use', workers.ready.jids)
    return { relay, broker, producers, workers, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function startOne(kind, accounts, startServer, stops) {
  if (kind === 'embedded') {
    const child = await startChild('embedded.mjs', { accounts })
    stops.push(child.stop)
    return child.ready
  }
  const server = await startServer(kind, { accounts, componentDomains: [QUEUE, RELAY] })
  stops.push(() => server.dispose())
  const { host, c2sPort, componentPort, domain, secret } = server
  return { host, c2sPort, componentPort, domain, secret }
}

/** One round of one way. */
async function measure(way, field, plan) {
  const { producers, workers } = field
  const targets = { direct: workers.ready.jids, broker: [QUEUE] }[way] ?? [RELAY]
  await producers.ask('aim', targets)
  const middle = { 'null relay': field.relay, 'full relay': field.relay, broker: field.broker }[way]
  await field.relay.ask('add', way === 'full relay')

  const before = await workers.ask('sample')
  await producers.ask('start', {})
  await pause(plan.warmUpMs)
  const [first, cpuFirst] = await Promise.all([workers.ask('sample'), middle?.ask('sample')])
  await pause(plan.measureMs)
  const [last, cpuLast] = await Promise.all([workers.ask('sample'), middle?.ask('sample')])
  const { sent } = await producers.ask('stop')
  await drain(way, workers, before.received + sent)
  const count = last.received - first.received

  await workers.ask('startLatencies')
  const slowBefore = await workers.ask('sample')
  await producers.ask('start', { rate: RATE })
  await pause(plan.latencyMs)
  const slow = await producers.ask('stop')
  await drain(way, workers, slowBefore.received + slow.sent)
  const { p50, p99 } = await workers.ask('stopLatencies')
  return {
    perSecond: (count * 1000) / (last.at - first.at),
    cpuMsPer1000: middle === undefined ? undefined : ((cpuLast.cpuMs - cpuFirst.cpuMs) * 1000) / count,
    p50,
    p99,
  }
}

/** Waits until all that was sent has arrived: what is lost or doubled makes a figure worthless. */
async function drain(way, workers, expected) {
  for (let tries = 0; tries < 200; tries++) {
    const { received } = await workers.ask('sample')
    if (received === expected) return
    if (received > expected) throw new Error(`${way}: ${received - expected} messages more than were sent`)
    await pause(50)
  }
  const { received } = await workers.ask('sample')
  throw new Error(`${way}: ${expected - received} messages never arrived`)
}

async function benchServer(kind, plan) {
  const field = await openField(kind, plan)
  const rounds = Object.fromEntries(WAYS.map((way) => [way, []]))
  try {
    for (let round = 0; round < plan.rounds; round++) {
      // Each round begins with another way, so that none is always the one on a warm or tired machine.
      for (let turn = 0; turn < WAYS.length; turn++) {
        const way = WAYS[(round + turn) % WAYS.length]
        rounds[way].push(await measure(way, field, plan))
      }
    }
  } finally {
    await field.stop()
  }
  const figures = {}
  for (const way of WAYS) {
    const of = (key) => (rounds[way][0][key] === undefined ? undefined : median(rounds[way].map((round) => round[key])))
    figures[way] = {
      perSecond: of('perSecond'),
      p50: of('p50'),
      p99: of('p99'),
      cpuMsPer1000: of('cpuMsPer1000'),
      rounds: rounds[way],
    }
  }
  return figures
}

function row(cells) {
  return `| ${cells.map((cell, index) => (index < 2 ? cell.padEnd(10) : cell.padStart(11))).join(' | ')} |`
}

function print(kind, figures) {
  const relay = figures['null relay']
  for (const way of WAYS) {
    const { perSecond, p50, p99, cpuMsPer1000 } = figures[way]
    console.log(
      row([
        kind,
        way,
        Math.round(perSecond).toLocaleString('en'),
        (perSecond / relay.perSecond).toFixed(2),
        p50.toFixed(2),
        (p50 - relay.p50).toFixed(2),
        p99.toFixed(2),
        cpuMsPer1000 === undefined ? '' : cpuMsPer1000.toFixed(1),
      ]),
    )
  }
}

async function compileServers() {
  const compiled = await runCommand(process.execPath, ['node_modules/typescript/bin/tsc', '-b', 'test/servers'])
  if (compiled.code !== 0) throw new Error(compiled.output)
}

async function main() {
  const plan = parse()
  if (plan.isHelp) {
    console.log(HELP)
    return
  }
  if (plan.hasSetup) {
    await setup({ quiet: true })
    await compileServers()
  }
  const { installedKinds } = await import('../test/servers/dist/index.js')
  const kinds = plan.servers ?? installedKinds()
  const [cpu] = cpus()
  console.log(
    `Node ${process.versions.node}, ${cpus().length} x ${cpu?.model ?? 'unknown'}, ${plan.rounds} rounds, medians`,
  )
  console.log(
    `${plan.bodyBytes}-byte payloads, ${SESSIONS} producers to ${SESSIONS} workers, ${plan.window} under way at most\n`,
  )
  console.log(row(['server', 'way', 'msg/s', 'of relay', 'p50 ms', 'over relay', 'p99 ms', 'CPU ms/1000']))
  console.log(row(['---', '---', '---:', '---:', '---:', '---:', '---:', '---:']))
  const results = {}
  for (const kind of kinds) {
    results[kind] = await benchServer(kind, plan)
    print(kind, results[kind])
  }
  if (plan.json !== undefined) writeFileSync(plan.json, `${JSON.stringify({ plan, results }, undefined, 2)}\n`)
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
]) {
  process.once(signal, () => {
    stopRunning()
    process.exit(code)
  })
}
if (process.argv.includes('--peers')) {
  const { benchPeers } = await import('./peers/run.mjs')
  await runBench(() => benchPeers(process.argv.slice(2), { setup, compileServers }))
} else {
  await runBench(main)
}
