/**
 * `npm test`: sets the checkout up, runs every suite, says what it skipped.
 *
 *   npm test                                  everything that can run here
 *   npm test -- --only e2e --server prosody   some of it: by a suite's name or the first words of it
 *   npm test -- --list                        the suites
 *
 * Exit code 0 when every suite passed, 1 when one failed, 2 when the command was wrong. With CI=true or
 * XMQ_REQUIRE_SERVERS=1 a missing server is installed where that is possible, and is a failure where it is not.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { installationObstacle, installServers } from './install-servers.mjs'
import { runCommand, stopRunning } from './run-command.mjs'
import { root, setup } from './setup.mjs'

const SERVERS = ['embedded', 'prosody', 'ejabberd']
const UNITS = ['protocol', 'broker', 'client', 'testing', 'xmq', 'xmq-worker']
const node = process.execPath
const bin = (path) => join(root, 'node_modules', path)
const tsc = [bin('typescript/bin/tsc'), '-b']

/**
 * @typedef {{ passed: number, failed: number, skipped: number, output: string }} Outcome
 * @typedef {{ name: string, server?: string, run: (reports: string) => Promise<Outcome> }} Suite
 */

/** @returns {Suite[]} in the order in which they run: what fails fast comes first */
function suites() {
  const folders = readdirSync(join(root, 'packages')).filter((name) => existsSync(join(root, 'packages', name, 'src')))
  const tested = folders.map((name) => `packages/${name}/test`).filter((path) => existsSync(join(root, path)))
  return [
    check('static types', [[...tsc, '.', ...tested, 'test/servers', 'test']]),
    check('static lint', [[bin('oxlint/bin/oxlint'), '--type-aware']]),
    check('static format', [[bin('@biomejs/biome/bin/biome'), 'format', '.']]),
    check('static unused', [[bin('knip/bin/knip.js'), '--no-progress', '--no-config-hints']]),
    check(
      'static packages',
      folders.map((name) => [bin('publint/src/cli.js'), `packages/${name}`, '--pack', 'npm', '--level', 'error']),
    ),
    ...UNITS.map((name) => tests(`unit ${name}`, name)),
    tests('simulation', 'simulation'),
    tests('docs', 'docs'),
    tests('faults oracle', 'faults'),
    ...SERVERS.map((server) => ({ ...tests(`e2e ${server}`, 'e2e', { XMQ_SERVERS: server }), server })),
    // The embedded server is no process that could be killed.
    ...SERVERS.slice(1).map((server) => realFaults(server)),
    check('examples', [[join(root, 'scripts/examples.mjs')]]),
    check('scaffold', [[join(root, 'scripts/scaffold.mjs')]]),
  ]
}

/** A few of `npm run test:faults`, on one server. */
function realFaults(server) {
  const { name, run } = check(`faults ${server}`, [
    [join(root, 'test/faults/run.mjs'), '--no-setup', '--short', '--server', server],
  ])
  return { name, run, server }
}

/** A suite of commands, each of which passes or fails as one. */
function check(name, commands) {
  return {
    name,
    run: async () => {
      const outcome = { passed: 0, failed: 0, skipped: 0, output: '' }
      for (const args of commands) {
        const { code, output } = await runCommand(node, args)
        outcome[code === 0 ? 'passed' : 'failed']++
        outcome.output += output
      }
      return outcome
    },
  }
}

/** A project of vitest.config.ts; its own report gives the counts. */
function tests(name, project, env = {}) {
  return {
    name,
    run: async (reports) => {
      const report = join(reports, `${name.replaceAll(' ', '-')}.json`)
      const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
      const args = [bin('vitest/vitest.mjs'), 'run', '--project', project, ...reporters]
      const { code, output } = await runCommand(node, args, { ...env, FORCE_COLOR: process.stdout.isTTY ? '1' : '0' })
      const counts = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : {}
      const failed = counts.numFailedTests ?? 0
      return {
        passed: counts.numPassedTests ?? 0,
        // A file that cannot be loaded, an unhandled rejection, a crash: no test failed and yet the run did.
        failed: failed === 0 && code !== 0 ? 1 : failed,
        skipped: (counts.numPendingTests ?? 0) + (counts.numTodoTests ?? 0),
        output,
      }
    },
  }
}

function parse() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      server: { type: 'string', multiple: true },
      list: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  const only = (values.only ?? []).flatMap((names) => names.split(','))
  const servers = (values.server ?? []).flatMap((names) => names.split(','))
  const unknown = servers.find((name) => !SERVERS.includes(name))
  if (unknown !== undefined) throw new TypeError(`--server ${unknown}: expected ${SERVERS.join(', ')}`)
  const all = suites()
  const isMeant = (suite, name) => suite.name === name || suite.name.startsWith(`${name} `)
  const stray = only.find((name) => !all.some((suite) => isMeant(suite, name)))
  if (stray !== undefined) throw new TypeError(`--only ${stray}: no such suite; \`npm test -- --list\` shows them`)
  const chosen = all.filter(
    (suite) =>
      (only.length === 0 || only.some((name) => isMeant(suite, name))) &&
      (servers.length === 0 || suite.server === undefined || servers.includes(suite.server)),
  )
  return { chosen, list: values.list === true, help: values.help === true, asked: servers }
}

/** The servers that are not here, after an installation where one is due. */
async function missingServers(required, wanted) {
  // Compiled by now; not imported at the top, since it does not exist before the set-up.
  const { installedKinds } = await import('../test/servers/dist/index.js')
  const missing = () => SERVERS.filter((kind) => wanted.includes(kind) && !installedKinds().includes(kind))
  if (missing().length === 0 || !required || installationObstacle() !== undefined) return missing()
  try {
    await installServers()
  } catch (error) {
    console.log(error.message)
  }
  return missing()
}

function seconds(startedAt) {
  return `${((performance.now() - startedAt) / 1000).toFixed(1)} s`
}

function line(mark, name, text) {
  console.log(`${mark} ${name.padEnd(16)} ${text}`)
}

function counted({ passed, failed, skipped }) {
  return [`${passed} passed`, `${failed} failed`, ...(skipped > 0 ? [`${skipped} skipped`] : [])].join(', ')
}

async function main() {
  const startedAt = performance.now()
  const { chosen, list, help, asked } = parse()
  if (help) return console.log(/\/\*\*\n([\s\S]*?)\*\//.exec(readFileSync(import.meta.filename, 'utf8'))?.[1] ?? '')
  if (list) return console.log(chosen.map((suite) => suite.name).join('\n'))

  const total = { passed: 0, failed: 0, skipped: 0 }
  const notes = []
  await setup()
  const compiled = await runCommand(node, [...tsc, 'test/servers'])
  if (compiled.code !== 0) throw new Error(`The test servers do not compile:\n${compiled.output}`)

  const required = process.env.CI === 'true' || process.env.XMQ_REQUIRE_SERVERS === '1'
  const wanted = chosen.flatMap((suite) => (suite.server === undefined ? [] : [suite.server]))
  const missing = await missingServers(required, wanted)
  const reports = mkdtempSync(join(tmpdir(), 'xmq-test-'))
  try {
    for (const suite of chosen) {
      if (missing.includes(suite.server)) {
        const fatal = required || asked.includes(suite.server)
        total[fatal ? 'failed' : 'skipped']++
        line(fatal ? '✗' : '-', suite.name, `${fatal ? 'FAILED' : 'SKIPPED'}: ${suite.server} is not installed here`)
        notes.push(`${suite.name} did not run. Install its server with: npm run servers:install`)
        continue
      }
      const suiteStartedAt = performance.now()
      const outcome = await suite.run(reports)
      const good = outcome.failed === 0
      for (const key of Object.keys(total)) total[key] += outcome[key]
      line(good ? '✓' : '✗', suite.name, `${counted(outcome)}  ${seconds(suiteStartedAt)}`)
      if (!good) console.log(outcome.output.trimEnd().replace(/^/gm, '    '))
    }
  } finally {
    // Of what failed the report is named in its output.
    if (total.failed === 0) rmSync(reports, { recursive: true, force: true })
  }
  console.log(`\n${chosen.length} suites in ${seconds(startedAt)}`)
  for (const note of notes) console.log(`!! ${note}`)
  console.log(counted(total))
  if (total.failed > 0) process.exitCode = 1
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

try {
  await main()
} catch (error) {
  console.error(error.message)
  if (error instanceof TypeError) process.exitCode = 2
  else {
    console.log('0 passed, 1 failed')
    process.exitCode = 1
  }
}
