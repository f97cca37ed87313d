/**
 * `npm run test:faults`: real faults on real processes, judged by what the processes wrote down.
 *
 *   npm run test:faults                                     every scenario, on Prosody and ejabberd
 *   npm run test:faults -- --only broker-kill --server prosody --times 5 --seed 7
 *   npm run test:faults -- --short --server ejabberd        what `npm test` runs
 *   npm run test:faults -- --table                          writes the outcome into docs/failure-modes.md
 *   npm run test:faults -- --list
 *
 *   --keep      keeps the journals also where all is well     --no-setup  with what is built
 *
 * Exit code 0 when nothing was lost and all is explained, else 1, with the path of the journals; 2 when the command was wrong. A run
 * in which something did not come in time is not judged: it shows nothing, and the exit code is 1, too.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { runCommand } from '../../scripts/run-command.mjs'
import { root, setup } from '../../scripts/setup.mjs'
import { TooLate } from './patience.mjs'
import { describe, summarise, writeTable } from './report.mjs'

const SERVERS = ['prosody', 'ejabberd']
const VIOLATIONS_SHOWN = 10

/**
 * @typedef {object} Scenario one file in `scenarios/`
 * @property {string} name
 * @property {string} fault what is done, as the table says it
 * @property {string} promise what must hold, as the table says it
 * @property {readonly string[]} [servers] where it makes sense. @default all
 * @property {{ whole: number, short: number | Record<string, number> }} times how often, in a whole run and in `npm test` (there
 *   on each server, or by its name); 0: not at all
 * @property {number} [leaseMs] lease of the queues. @default 3000
 * @property {() => string | undefined} [obstacle] why it cannot run here; it is then skipped, and the run says so
 * @property {(scene: import('./scene.mjs').Scene, plan: import('./scene.mjs').Plan) => unknown} [prepare] changes the plan (where
 *   the store is, how the broker is started and configured) before anything starts; `scene.afterwards` undoes
 * @property {(scene: import('./scene.mjs').Scene, times: number) => Promise<void>} run does it so often. At its end everybody is up
 */

function parse() {
  const { values } = parseArgs({
    options: {
      server: { type: 'string', multiple: true },
      only: { type: 'string', multiple: true },
      seed: { type: 'string' },
      times: { type: 'string' },
      short: { type: 'boolean' },
      table: { type: 'boolean' },
      keep: { type: 'boolean' },
      list: { type: 'boolean' },
      'no-setup': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  const names = (list = []) => list.flatMap((text) => text.split(','))
  const servers = names(values.server)
  const stray = servers.find((name) => !SERVERS.includes(name))
  if (stray !== undefined) throw new TypeError(`--server ${stray}: expected ${SERVERS.join(', ')}`)
  const number = (name, usual) => {
    if (values[name] === undefined) return usual
    if (!/^\d{1,9}$/.test(values[name])) throw new TypeError(`--${name} ${values[name]}: expected a whole number`)
    return Number(values[name])
  }
  return {
    servers: servers.length === 0 ? SERVERS : servers,
    only: names(values.only),
    seed: number('seed', Math.floor(Math.random() * 1e9)),
    times: number('times', undefined),
    isShort: values.short === true,
    isTabled: values.table === true,
    isKept: values.keep === true,
    isListed: values.list === true,
    hasSetup: values['no-setup'] !== true,
    isHelp: values.help === true,
  }
}

/** @returns {Promise<Scenario[]>} */
async function loadScenarios({ only }) {
  const files = readdirSync(new URL('scenarios/', import.meta.url)).sort()
  const all = await Promise.all(files.map(async (file) => (await import(`./scenarios/${file}`)).scenario))
  const stray = only.find((name) => !all.some((scenario) => scenario.name === name))
  if (stray !== undefined) throw new TypeError(`--only ${stray}: no such scenario; --list shows them`)
  return only.length === 0 ? all : all.filter(({ name }) => only.includes(name))
}

function timesOf({ times: { whole, short } }, server, isShort) {
  if (!isShort) return whole
  return typeof short === 'number' ? short : (short[server] ?? 0)
}

/** What is played together on one scene: in a short run, all that need nothing of their own. */
function groupsOf(scenarios, server, { isShort, times }) {
  const wanted = scenarios
    .map((scenario) => ({ scenario, times: times ?? timesOf(scenario, server, isShort) }))
    .filter((one) => one.times > 0 && (one.scenario.servers?.includes(server) ?? true))
    .filter(({ scenario }) => {
      const obstacle = scenario.obstacle?.()
      if (obstacle !== undefined) console.log(`- ${scenario.name} on ${server}: SKIPPED: ${obstacle}`)
      return obstacle === undefined
    })
  const isOwn = ({ scenario }) => !isShort || scenario.prepare !== undefined || scenario.leaseMs !== undefined
  const shared = wanted.filter((one) => !isOwn(one))
  return [...(shared.length === 0 ? [] : [shared]), ...wanted.filter(isOwn).map((one) => [one])]
}

/** Plays a group on a scene, and judges it. */
async function play(group, server, { seed, isShort, isKept }) {
  const { openScene } = await import('./scene.mjs')
  const { judge } = await import('./oracle.mjs')
  const startedAt = performance.now()
  const [{ scenario }] = group
  const name = group.length === 1 ? scenario.name : 'short set'
  const { leaseMs, prepare } = scenario
  const say = (text) => console.log(`    ${text}`)
  const scene = await openScene({ kind: server, name, seed, leaseMs, prepare, hasSlow: !isShort, say })
  let isWell = false
  try {
    for (const { scenario: one, times } of group) {
      console.log(`  ${one.name} on ${server}, ${times} times, seed ${seed}`)
      await one.run(scene, times)
    }
    const remains = await scene.settle()
    const verdict = judge({ lines: scene.ledger.lines, leaseMs: scene.plan.leaseMs, ...remains })
    isWell = verdict.violationCount === 0
    const seconds = (performance.now() - startedAt) / 1000
    const total = group.reduce((sum, { times }) => sum + times, 0)
    return {
      scenario: name,
      server,
      times: total,
      seed,
      seconds,
      verdict,
      resumed: summarise(scene.resumed),
      folder: scene.folder,
    }
  } catch (error) {
    const how = error instanceof TooLate ? 'was NOT JUDGED' : 'FAILED'
    throw new Error(`${name} on ${server} ${how}. Its journals: ${scene.folder}`, { cause: error })
  } finally {
    await scene.close({ isKept: isKept || !isWell })
  }
}

/** A row of the record: what was played, and how it ended. */
function rowOf(outcome, [{ scenario: played }], code) {
  const { scenario, server, times, seed, seconds, resumed } = outcome
  const { fault, promise } = played
  const verdict = { ...outcome.verdict, violations: undefined }
  return { scenario, server, fault, promise, times, seed, seconds, code, verdict, resumed }
}

/** Which code is played: the last commit of what is tested; `undefined` where there is no repository. */
function codeOf() {
  const { status, stdout } = spawnSync('git', ['log', '-1', '--format=%h', '--', 'packages'], {
    cwd: root,
    encoding: 'utf8',
  })
  return status === 0 && stdout !== '' ? stdout.trim() : undefined
}

async function playAll(scenarios, options) {
  const rows = []
  const code = codeOf()
  let failures = 0
  let unjudged = 0
  for (const server of options.servers) {
    for (const group of groupsOf(scenarios, server, options)) {
      try {
        const outcome = await play(group, server, options)
        console.log(describe(outcome))
        if (outcome.verdict.violationCount > 0) {
          failures++
          for (const { rule, text } of outcome.verdict.violations.slice(0, VIOLATIONS_SHOWN))
            console.log(`    ${rule}: ${text}`)
          console.log(`    ${outcome.verdict.violationCount} violations in all. Journals and logs: ${outcome.folder}`)
        } else if (options.isKept) console.log(`    journals and logs: ${outcome.folder}`)
        const row = rowOf(outcome, group, code)
        rows.push(row)
        // At once: a run that is broken off leaves what it had.
        if (options.isTabled) writeTable([row])
      } catch (error) {
        const isLate = error.cause instanceof TooLate
        if (isLate) unjudged++
        else failures++
        console.log(`${isLate ? '?' : '✗'} ${error.message}\n    ${error.cause?.stack ?? error.stack}`)
      }
    }
  }
  return { rows, failures, unjudged }
}

async function build() {
  await setup()
  const { code, output } = await runCommand(process.execPath, [
    join(root, 'node_modules/typescript/bin/tsc'),
    '-b',
    'test/servers',
  ])
  if (code !== 0) throw new Error(`The test servers do not compile:\n${output}`)
}

async function main() {
  const options = parse()
  if (options.isHelp)
    return console.log(/\/\*\*\n([\s\S]*?)\*\//.exec(readFileSync(import.meta.filename, 'utf8'))?.[1] ?? '')
  const scenarios = await loadScenarios(options)
  if (options.isListed) {
    for (const { name, fault, times } of scenarios) console.log(`${name.padEnd(16)} ${fault}: ${times.whole} times`)
    return undefined
  }
  if (options.hasSetup) await build()
  console.log(`seed ${options.seed}`)
  const { rows, failures, unjudged } = await playAll(scenarios, options)
  const lost = rows.reduce((sum, { verdict }) => sum + verdict.lost, 0)
  console.log(`\n${rows.length} runs judged, ${lost} lost, ${failures} failed, ${unjudged} not judged`)
  if (failures + unjudged > 0) process.exitCode = 1
  return undefined
}

try {
  await main()
} catch (error) {
  console.error(error instanceof TypeError ? error.message : error)
  process.exitCode = error instanceof TypeError ? 2 : 1
}
