/**
 * What the SDK costs on both ends, beside a queue that does nothing: CPU of the process that publishes, or works, for a message.
 *
 *     node bench/sdk.mjs [--rounds 5] [--seconds 2] [--profile DIR]        needs a build
 *
 * CPU time, not elapsed time: the queue of this benchmark would decide that.
 */
import { nodeArguments } from './peers/systems.mjs'
import { startChild } from './through/child.mjs'
import { startOptions } from './usage.mjs'

const values = startOptions(
  {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    profile: { type: 'string' },
  },
  { positive: ['rounds', 'seconds'] },
)
const ms = values.seconds * 1000
const pause = () => new Promise((resolve) => setTimeout(resolve, ms))

const queue = await startChild('../sdk/queue.mjs', {})
const client = new URL('peers/client-xmq.mjs', import.meta.url).href
const service = `xmpp://127.0.0.1:${queue.ready.port}`
const options = { client, service, password: 'pw', queue: 'jobs.localhost', connections: 4 }
const publishing = { ...options, window: 500, bodyBytes: 200 }
const producers = await startChild('../peers/producers.mjs', publishing, nodeArguments(values, 'producers'))
const figures = { publish: [], work: [] }
for (let round = 0; round <= values.rounds; round++) {
  const before = await producers.ask('sample')
  await producers.ask('start', {})
  await pause()
  const { sent } = await producers.ask('stop')
  const { cpuMs } = await producers.ask('sample')
  if (round > 0) figures.publish.push(((cpuMs - before.cpuMs) * 1000) / sent)
}
await producers.stop()

const workers = await startChild('../peers/workers.mjs', { ...options, unacked: 200 }, nodeArguments(values, 'workers'))
for (let round = 0; round <= values.rounds; round++) {
  const before = await workers.ask('sample')
  await pause()
  const after = await workers.ask('sample')
  if (round > 0) figures.work.push(((after.cpuMs - before.cpuMs) * 1000) / (after.received - before.received))
}
await workers.stop()
await queue.stop()

for (const [name, all] of Object.entries(figures)) {
  const sorted = all.sort((a, b) => a - b)
  const [least] = sorted
  console.log(`${name.padEnd(8)} ${sorted[sorted.length >> 1].toFixed(1)} µs a message, at least ${least.toFixed(1)}`)
}
