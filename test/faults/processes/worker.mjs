/**
 * A worker, to be killed: takes part in the `any` queue and in one durable subscription of the `all` queue, and writes what it got
 * and did into its journal. A handler never heeds its signal: the worst that a message can meet.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { Reject, Worker } from '@xmq/client'
import { openJournal } from '../journal.mjs'
import { lineOf, PATTERN, QUEUE_ALL, QUEUE_ANY, sumOf } from '../messages.mjs'
import { createRandom } from '../random.mjs'
import { watchStalls } from '../stalls.mjs'

const { seed, service, jid, password, subscription, concurrency, handlerMs, slowMs, journalPath } = JSON.parse(
  process.env.XMQ_FAULTS,
)
const journal = openJournal(journalPath)
const random = createRandom(seed)
journal.write('start', { pid: process.pid })
watchStalls(journal)

function workerOf(queue, line, name) {
  const note = (t, fields) => journal.write(t, { queue, line, ...fields })
  const backoff = { base: '200ms', max: '2s' }
  const worker = new Worker({ service, jid, password, queue, concurrency, backoff })
  worker.handle(PATTERN, (payload, context) => handle(note, payload, context), name === undefined ? {} : { name })
  worker.on('lease-lost', ({ seq, error }) => note('lease-lost', { seq, code: error.code }))
  worker.on('settle-failed', ({ seq, outcome, error }) => note('settle-failed', { seq, outcome, code: error.code }))
  worker.on('duplicate', ({ seq, state }) => note('duplicate', { seq, state }))
  worker.on('released', ({ seq }) => note('released', { seq }))
  worker.on('failed', ({ seq, error }) => note('failed', { seq, code: error.code }))
  worker.on('offline', ({ reason }) => note('offline', { code: reason.code, text: reason.message }))
  worker.on('subscribed', () => note('subscribed'))
  worker.on('subscription-failed', ({ error }) =>
    note('subscription-failed', { code: error.code, text: error.message }),
  )
  worker.on('waiting', ({ reason }) => note('waiting', { code: reason.code, text: reason.message }))
  return worker
}

async function handle(note, payload, { seq, id, topic, from, attempt }) {
  note('delivered', { seq, id, topic, from, attempt, sum: sumOf(payload) })
  await pause(payload.fate === 'slow' ? slowMs : random.int(handlerMs))
  if (payload.fate === 'reject') {
    note('rejected', { seq })
    throw new Reject('so it was drawn')
  }
  if (payload.fate === 'fail-always' || (payload.fate === 'fail-once' && attempt === 1))
    throw new Error('so it was drawn')
  note('finished', { seq })
}

async function stop() {
  await Promise.all(workers.map((worker) => worker.stop()))
  journal.write('end')
  process.exit(0)
}

const workers = [workerOf(QUEUE_ANY, ''), workerOf(QUEUE_ALL, lineOf(subscription), subscription.name)]
await Promise.all(workers.map((worker) => worker.start()))
journal.write('ready')
let stopped
process.on('SIGTERM', () => {
  stopped ??= stop()
})
