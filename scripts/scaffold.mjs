/**
 * Does what a worker's author does first, for real: makes a project with `xmq-worker new`, installs, tests, type-checks
 * and builds it with npm, runs it as built and as written, and asks it something. CI runs this.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Part } from './parts.mjs'
import { runCommand } from './run-command.mjs'
import { root } from './setup.mjs'

const { startDevBroker } = await import('../packages/testing/dist/index.js')
const { connect } = await import('../packages/client/dist/index.js')

// People's folders have spaces.
const folder = mkdtempSync(join(tmpdir(), 'xmq scaffold-'))
const project = join(folder, 'my-worker')
// Those above a project may belong to something else.
writeFileSync(join(folder, 'vitest.config.mjs'), "export default { test: { include: ['none'] } }\n")
const isReady = (line) => line.startsWith('{"event":"ready"')

async function step(name, run) {
  const startedAt = performance.now()
  await run()
  console.log(`ok    ${name} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`)
}

async function command(name, args, cwd = project) {
  const { code, output } = await runCommand(name, args, {}, cwd)
  if (code !== 0) throw new Error(`${name} ${args.join(' ')} ended with ${code}:\n${output}`)
}

/** Runs the worker, as `args` say, against a broker; `use` gets a way to ask it. */
async function withWorker(args, use) {
  const broker = await startDevBroker()
  const bin = join(project, 'node_modules', 'xmq-worker', 'bin', 'xmq-worker.js')
  const env = { XMQ_SERVICE: broker.service }
  const worker = new Part('my-worker', [bin, ...args, '--output', 'json'], { cwd: project, env })
  const client = await connect({
    service: broker.service,
    jid: 'me@localhost',
    password: 'me',
    queue: 'queue1.localhost',
  })
  try {
    await worker.line("'ready'", isReady)
    await use((name) => client.request('greet', { name }), worker)
    const exit = await worker.stop()
    if (exit !== 0) throw worker.failure('should end with 0 on SIGTERM')
  } finally {
    await worker.stop()
    await client.close()
    await broker.stop()
  }
}

async function expectText(answer, text) {
  const got = await answer
  if (got?.text !== text) throw new Error(`The worker answered ${JSON.stringify(got)} instead of '${text}'`)
}

/** A saved change is served by a new process, with nothing typed. */
async function changeWhileRunning(ask, worker) {
  await expectText(ask('Ada'), 'Hello, Ada!')
  const file = join(project, 'src', 'worker.ts')
  writeFileSync(file, readFileSync(file, 'utf8').replace('Hello', 'Good morning'))
  await worker.line("'restarting'", (line) => line.startsWith('{"event":"restarting"'))
  await worker.line("a second 'ready'", () => worker.lines.filter(isReady).length === 2)
  await expectText(ask('Ada'), 'Good morning, Ada!')
}

try {
  await step('xmq-worker new', () =>
    command(process.execPath, [join(root, 'packages/xmq-worker/bin/xmq-worker.js'), 'new', project], folder),
  )
  await step('npm install', () => command('npm', ['install', '--no-audit', '--no-fund']))
  await step('npm test', () => command('npm', ['test']))
  await step('npm run check', () => command('npm', ['run', 'check']))
  await step('npm run build', () => command('npm', ['run', 'build']))
  await step('xmq-worker run', () => withWorker(['run'], (ask) => expectText(ask('Ada'), 'Hello, Ada!')))
  await step('xmq-worker dev', () => withWorker(['dev', 'src/worker.ts'], changeWhileRunning))
} catch (error) {
  console.error(`FAIL  ${error.message}`)
  process.exitCode = 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
