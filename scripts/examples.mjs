/**
 * Runs every example as its README says, against a broker of its own, and checks what it printed. CI runs this: an
 * example that does not work is worse than none.
 */
import { join } from 'node:path'
import { Part } from './parts.mjs'
import { root } from './setup.mjs'

const { startDevBroker } = await import('../packages/testing/dist/index.js')

const example = (name, file) => join(root, 'examples', name, 'dist', file)

function expectLines(part, expected) {
  if (part.lines.length !== expected.length || !expected.every((line) => part.lines.includes(line))) {
    throw part.failure(
      `should have printed, in any order:\n${expected.map((line) => `    ${line}`).join('\n')}\n  but printed:`,
    )
  }
}

/** Two workers and a producer, as three processes: each order is handled once, and both workers get some. */
async function producerAndWorker(env) {
  const names = ['worker 1', 'worker 2']
  const workers = names.map(
    (name) => new Part(name, [example('worker', 'worker.js')], { env: { ...env, WORKER_NAME: name } }),
  )
  try {
    await Promise.all(
      workers.map((worker) => worker.line("'ready for prices.get'", (line) => line.endsWith('ready for prices.get'))),
    )
    const producer = new Part('producer', [example('producer', 'producer.js'), '--once'], { env })
    await producer.succeeded()
    for (const number of [1, 2, 3, 4]) {
      const isOrder = (line) => line.includes(`got order ${number}:`)
      await Promise.race(workers.map((worker) => worker.line(`order ${number}`, isOrder)))
      const handled = workers.flatMap((worker) => worker.lines.filter(isOrder))
      if (handled.length !== 1) throw workers[0].failure(`and worker 2 handled order ${number} ${handled.length} times`)
    }
    const idle = workers.find((worker) => !worker.lines.some((line) => line.includes('got order')))
    if (idle !== undefined) throw idle.failure('got no order')
    if (producer.lines.length !== 8) throw producer.failure('should have printed eight lines')
    for (const worker of workers) {
      if ((await worker.stop()) !== 0) throw worker.failure('should end with 0 on SIGTERM')
    }
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()))
  }
}

async function requestReply(env) {
  const part = new Part('request-reply', [example('request-reply', 'main.js')], { env })
  await part.succeeded()
  expectLines(part, [
    '42 / 6 = 7',
    'worker: math.divide failed: Nothing can be divided by zero',
    'handler-failed: Nothing can be divided by zero',
    'no-recipients: No recipients found',
    "aborted: The caller's signal was aborted.",
  ])
}

async function fanOut(env) {
  const part = new Part('fan-out', [example('fan-out', 'main.js')], { env })
  await part.succeeded()
  expectLines(
    part,
    ['screen', 'till', 'kitchen'].flatMap((name) =>
      [1, 2].map((number) => `${name} heard that order ${number} is ready`),
    ),
  )
}

const broker = await startDevBroker()
let failed = 0
for (const [name, run] of Object.entries({
  'producer, worker': producerAndWorker,
  'request-reply': requestReply,
  'fan-out': fanOut,
})) {
  const startedAt = performance.now()
  try {
    await run({ XMQ_SERVICE: broker.service })
    console.log(`ok    ${name} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`)
  } catch (error) {
    failed++
    console.error(`FAIL  ${name}: ${error.message}`)
  }
}
await broker.stop()
process.exitCode = failed === 0 ? 0 : 1
