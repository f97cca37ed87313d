/**
 * `npm run bench -- --peers`: one job done by XMQ, RabbitMQ and BullMQ in the same run. bench/README.md says how it is
 * measured and what the figures do not tell.
 *
 *     producers (1 process, P connections) --publish, confirmed--> queue on disk --N unacked a worker--> workers (1 process, P)
 */
import { writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { installationObstacle, installPackages } from '../../scripts/install-servers.mjs'
import { measure, openField } from './job.mjs'
import { HELP, parsePlan } from './plan.mjs'
import { folderBytes, isInMemory } from './processes.mjs'
import { table, verdict } from './report.mjs'
import { knownSystems, peerSystems, xmqSystems } from './systems.mjs'
import { SERVER_KINDS, UsageError } from '../usage.mjs'

/** Installs the peers where that is possible; says which are missing where it is not. */
async function providePeers(plan) {
  const wanted = (name) =>
    plan.only === undefined || plan.only.some((prefix) => name.startsWith(prefix) || prefix.startsWith(name))
  const has = (name) => peerSystems().some((system) => system.name.startsWith(name))
  const missing = [
    ['rabbitmq', 'rabbitmq-server'],
    ['bullmq', 'redis-server'],
  ].filter(([name]) => wanted(name) && !has(name))
  if (missing.length === 0) return
  const packages = missing.map(([, name]) => name)
  const obstacle = plan.mayInstall ? installationObstacle() : 'not allowed by --no-install'
  try {
    if (obstacle !== undefined) throw new Error(`${packages.join(', ')} cannot be installed: ${obstacle}`)
    await installPackages(packages, { log: (line) => console.error(line) })
  } catch (error) {
    console.error(`${error.message}\nGoing on without ${missing.map(([name]) => name).join(' and ')}.`)
  }
}

/** Rounds of all systems, in turn. */
async function runRounds(systems, plan) {
  const fields = new Map()
  const results = {}
  const disk = {}
  try {
    for (const system of systems) {
      results[system.name] = []
      if (fields.has(system.shares)) continue
      console.error(`starting ${system.title} ...`)
      fields.set(system.shares, await openField(system, plan))
    }
    for (let round = 0; round < plan.rounds; round++) {
      // Each round begins with another, so that none is always the one on a warm or tired machine.
      for (let turn = 0; turn < systems.length; turn++) {
        const system = systems[(round + turn) % systems.length]
        const field = fields.get(system.shares)
        const figures = await measure(system, field, plan)
        results[system.name].push(figures)
        disk[system.name] = folderBytes(field.folder)
        console.error(`round ${round + 1} ${system.name.padEnd(20)} ${Math.round(figures.perSecond)}/s`)
      }
    }
  } finally {
    for (const field of [...fields.values()].reverse())
      await field.stop().catch((error) => console.error(error.message))
  }
  return { results, disk }
}

/** Before anything is built or installed. @throws {UsageError} */
function assertKnown({ only }) {
  const known = knownSystems(SERVER_KINDS)
  const unknown = only?.find((prefix) => !known.some((name) => name.startsWith(prefix)))
  if (unknown !== undefined) throw new UsageError(`--only is '${unknown}'; known are ${known.join(', ')}`)
}

/** Runs the comparison. @param {string[]} args */
export async function benchPeers(args, { setup, compileServers }) {
  const plan = parsePlan(args)
  if (plan.isHelp) {
    console.log(HELP)
    return
  }
  assertKnown(plan)
  if (plan.hasSetup) {
    await setup({ quiet: true })
    await compileServers()
  }
  await providePeers(plan)
  const { installedKinds } = await import('../../test/servers/dist/index.js')
  const all = [...peerSystems(), ...xmqSystems(plan.servers ?? installedKinds())]
  const systems = all.filter(({ name }) => plan.only?.some((prefix) => name.startsWith(prefix)) ?? true)
  if (systems.length === 0) {
    throw new UsageError(`There is nothing to measure. Here are ${all.map(({ name }) => name).join(', ')}`)
  }
  if (isInMemory(plan.data ?? tmpdir()))
    console.error('The data is in memory, not on a disk: choose a folder with --data.')

  const { results, disk } = await runRounds(systems, plan)
  const [cpu] = cpus()
  const { rounds, connections, window, unacked, bodyBytes, rate } = plan
  console.log(`Node ${process.versions.node}, ${cpus().length} x ${cpu?.model ?? 'unknown'}; ${rounds} rounds, medians`)
  console.log(
    `${bodyBytes}-byte JSON, ${connections} producers with ${window} unconfirmed, ${connections} workers with ${unacked} ` +
      `unacked; latency at ${rate} a second; µs of CPU and bytes written are for a message\n`,
  )
  console.log(table(systems, results, disk))
  console.log(`\n${verdict(systems, results)}`)
  if (plan.json !== undefined) writeFileSync(plan.json, `${JSON.stringify({ plan, results, disk }, undefined, 2)}\n`)
}
