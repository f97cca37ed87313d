/**
 * `npm run bench:restart`: how soon everybody is served again after a broker on sqlite was killed under load.
 *
 *     producers --> server --> broker, killed and started again, over and over --> server --> workers
 *
 * The scene, its journals and its verdict are those of the fault suite (test/faults): figures of a run that lost something are
 * not printed. Time 0 is the start of the new broker's process.
 *
 *   npm run bench:restart -- --server prosody --times 20 --seed 7 --json figures.json
 *   npm run bench:restart -- --waiting 100000                   # with a backlog in the store that nobody is subscribed to
 *
 * bench/README.md says what the figures do not tell.
 */
import { cpSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runCommand, stopRunning } from '../scripts/run-command.mjs'
import { setup } from '../scripts/setup.mjs'
import { cpuOf } from './process-cpu.mjs'
import { fill, leasedIn } from './restart/store.mjs'
import { startOptions } from './usage.mjs'

const values = startOptions(
  {
    server: { type: 'string', multiple: true },
    times: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    rate: { type: 'string', default: '100' },
    waiting: { type: 'string', default: '0' },
    profile: { type: 'string' },
    'no-setup': { type: 'boolean', default: false },
    json: { type: 'string' },
  },
  { positive: ['times', 'rate'], counts: ['seed', 'waiting'] },
)
const plan = { times: values.times, seed: values.seed, rate: values.rate, waiting: values.waiting }
/** So long a message that was in flight may take to come again: a lease, and as much again. */
const PATIENCE_MS = 6_000

/** Kills the broker and starts it again. @returns when each thing happened, in milliseconds after the new process's start */
async function restart(scene) {
  const { broker, ledger } = scene
  const copy = join(scene.folder, `copy-${broker.lives}`)
  const from = ledger.lines.length
  await scene.fault('broker killed', 'broker', async () => {
    await broker.kill()
    cpSync(join(scene.plan.storePath, '..'), copy, { recursive: true })
    await broker.start()
  })
  const startedAt = await scene.until('the start of the broker', () => startOf(ledger, broker.lives))
  const before = openBefore(ledger.lines, startedAt)
  const served = await scene.until('service', () => servedOf(ledger.lines, { from, startedAt, before }))
  const cpuMs = cpuOf(broker.pid)
  const leased = await leasedIn(join(copy, 'xmq.db'), scene.server.domain)
  rmSync(copy, { recursive: true, force: true })
  const fates = () => fatesOf(ledger.lines, { from, startedAt, leased })
  await ledger.when(() => (fates().open === 0 ? true : undefined), PATIENCE_MS)
  const phases = ledger.lines.filter(({ t, by, life }) => t === 'phase' && by === 'broker' && life === broker.lives)
  await scene.flow('the load goes on')
  return { phases, ...served, cpuMs, ...fates() }
}

function startOf({ lines }, life) {
  const first = lines.find((line) => line.t === 'phase' && line.by === 'broker' && line.life === life)
  return first === undefined ? undefined : first.at - first.ms
}

/** Producers, on each queue, that waited for a confirm when the broker was started. */
function openBefore(lines, startedAt) {
  const open = new Map()
  for (const { t, at, by, queue, id } of lines) {
    if (at >= startedAt) continue
    if (t === 'sent') open.set(`${by} ${queue} ${id}`, `${by} ${queue}`)
    else if (t === 'confirmed' || t === 'refused') open.delete(`${by} ${queue} ${id}`)
  }
  return new Set(open.values())
}

/** Undefined until each of them has a confirm, and a message that was delivered since is finished. */
function servedOf(lines, { from, startedAt, before }) {
  const confirms = new Map()
  const begun = new Map()
  const subscribed = []
  let delivered
  for (const { t, at, by, queue, line, seq } of lines.slice(from)) {
    if (at <= startedAt) continue
    const entry = `${by} ${queue} ${line} ${seq}`
    if (t === 'confirmed' && !confirms.has(`${by} ${queue}`)) confirms.set(`${by} ${queue}`, at - startedAt)
    if (t === 'subscribed') subscribed.push(at - startedAt)
    if (t === 'delivered') begun.set(entry, at - startedAt)
    if (t === 'finished' && begun.has(entry) && delivered === undefined)
      delivered = { deliveredMs: begun.get(entry), finishedMs: at - startedAt }
  }
  if (delivered === undefined || [...before].some((name) => !confirms.has(name))) return undefined
  const all = [...before].map((name) => confirms.get(name))
  return {
    ...delivered,
    subscribedMs: subscribed[0],
    lastSubscribedMs: subscribed.at(-1),
    firstConfirmMs: Math.min(...all),
    lastConfirmMs: Math.max(...all),
    publishers: all.length,
  }
}

/** What became of what was leased when the broker died: its worker had it and finished it, or it was delivered again. */
function fatesOf(lines, { from, startedAt, leased }) {
  const left = new Set(leased)
  const again = []
  let held = 0
  const early = new Set()
  for (const { t, at, queue, line, seq } of lines.slice(from)) {
    const entry = `${queue} ${line} ${seq}`
    if (!left.has(entry)) continue
    if (t === 'delivered' && at > startedAt) again.push(at - startedAt)
    else if (t === 'delivered') early.add(entry)
    else if (t === 'finished' || t === 'rejected' || t === 'failed') held++
    if (t !== 'delivered' || at > startedAt) left.delete(entry)
  }
  // What ended before the kill was read, and its settlement lost: nobody hears of it again.
  const done = doneBefore(lines.slice(0, from), left)
  return { leased: leased.length, held: held + done, again, open: left.size - done }
}

function doneBefore(lines, left) {
  const done = new Set()
  for (const { t, queue, line, seq } of lines) {
    const entry = `${queue} ${line} ${seq}`
    if (!left.has(entry)) continue
    if (t === 'finished' || t === 'rejected' || t === 'failed') done.add(entry)
    else if (t === 'delivered') done.delete(entry)
  }
  return done.size
}

async function run(kind) {
  const { openScene } = await import('../test/faults/scene.mjs')
  const { judge } = await import('../test/faults/oracle.mjs')
  const prepare = async (scene, usual) => {
    usual.rate = plan.rate
    if (values.profile !== undefined)
      usual.wrap = ([node, ...rest]) => [node, '--cpu-prof', `--cpu-prof-dir=${values.profile}`, ...rest]
    if (plan.waiting > 0) await fill(usual.storePath, plan.waiting)
  }
  const scene = await openScene({ kind, name: 'restart', seed: plan.seed, prepare })
  let isWell = false
  try {
    const lives = []
    for (let time = 0; time < plan.times; time++) {
      await scene.moment()
      lives.push(await restart(scene))
    }
    if (plan.waiting > 0) return { lives, verdict: undefined }
    const verdict = judge({ lines: scene.ledger.lines, leaseMs: scene.plan.leaseMs, ...(await scene.settle()) })
    isWell = verdict.violationCount === 0
    if (!isWell) throw new Error(`Something was lost, or is not explained: ${scene.folder}`)
    return { lives, verdict }
  } finally {
    await scene.close({ isKept: !isWell })
  }
}

function spread(numbers) {
  const sorted = numbers.filter((number) => number !== undefined).sort((left, right) => left - right)
  if (sorted.length === 0) return 'none'
  const at = (share) => Math.round(sorted[Math.ceil((sorted.length - 1) * share)])
  return `p50 ${at(0.5)}, p90 ${at(0.9)}, worst ${at(1)}`
}

function print(kind, { lives, verdict }) {
  console.log(`\n${kind}: ${lives.length} kills, ms after the start of the new process`)
  const row = (name, text) => console.log(`  ${name.padEnd(34)}${text}`)
  for (const phase of new Set(lives.flatMap(({ phases }) => phases.map((one) => one.phase)))) {
    const ones = lives.flatMap(({ phases }) => phases.findLast((one) => one.phase === phase) ?? [])
    row(phase, `${spread(ones.map(({ ms }) => ms))}; CPU ${spread(ones.map(({ cpuMs }) => cpuMs))}`)
  }
  row(
    'first, last worker subscribed',
    `${spread(lives.map((one) => one.subscribedMs))}; ${spread(lives.map((one) => one.lastSubscribedMs))}`,
  )
  row(
    'first new delivery, and it finished',
    `${spread(lives.map((one) => one.deliveredMs))}; ${spread(lives.map((one) => one.finishedMs))}`,
  )
  row(
    'first, last publisher served',
    `${spread(lives.map((one) => one.firstConfirmMs))}; ${spread(lives.map((one) => one.lastConfirmMs))}`,
  )
  row('all served, CPU of the broker', spread(lives.map((one) => one.cpuMs)))
  const sum = (name) => lives.reduce((total, one) => total + one[name], 0)
  const again = lives.flatMap((one) => one.again)
  row(
    'leased at the kill',
    `${sum('leased')}: ${sum('held')} were held and done, ${again.length} delivered again (${spread(again)}), ${sum('open')} not within ${PATIENCE_MS} ms`,
  )
  if (verdict !== undefined) row('verdict', `${verdict.confirmed} confirmed, ${verdict.lost} lost, nothing unexplained`)
}

async function main() {
  if (!values['no-setup']) {
    await setup({ quiet: true })
    const compiled = await runCommand(process.execPath, ['node_modules/typescript/bin/tsc', '-b', 'test/servers'])
    if (compiled.code !== 0) throw new Error(compiled.output)
  }
  const results = {}
  for (const kind of values.servers ?? ['prosody', 'ejabberd']) {
    results[kind] = await run(kind)
    print(kind, results[kind])
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ plan, results }, undefined, 2)}\n`)
}

process.once('SIGINT', () => {
  stopRunning()
  process.exit(130)
})
await main()
