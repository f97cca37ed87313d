/**
 * A producer, to be killed: publishes at a rate, with a window, and writes what it said and heard into its journal.
 *
 * What an earlier life of it left without an answer goes out first, in the order in which it was, under the same ids: so does a
 * shop that writes its orders down before it publishes them. On SIGTERM it stops publishing, waits for what is open, and ends.
 */
import { connect } from '@xmq/client'
import { openJournal, readJournal } from '../journal.mjs'
import { drawMessage, optionsOf, payloadOf, QUEUE_ALL, QUEUE_ANY } from '../messages.mjs'
import { createRandom } from '../random.mjs'
import { watchStalls } from '../stalls.mjs'

const TICK_MS = 10
const AGAIN = 0.02

const { name, life, seed, service, jid, password, rate, window, hasSlow, journalPath, earlier } = JSON.parse(
  process.env.XMQ_FAULTS,
)
const journal = openJournal(journalPath)
const random = createRandom(seed)
journal.write('start', { pid: process.pid })
watchStalls(journal)

let open = 0
let serial = 0
let isStopping = false
let whenQuiet = () => {}
const clients = new Map()

/** @param {import('../messages.mjs').Message} message */
async function publish(message, isAgain) {
  open++
  const { queue, id, topic } = message
  journal.write('sent', { ...message, ...(isAgain ? { again: true } : {}) })
  try {
    const { seq, durability, duplicate, subscriptions } = await clients
      .get(queue)
      .publish(topic, payloadOf(message), optionsOf(message))
    journal.write('confirmed', { queue, id, seq, durability, duplicate, subscriptions })
    if (!isAgain && !isStopping && random.chance(AGAIN)) void publish(message, true)
  } catch (error) {
    journal.write(error.code === 'unconfirmed' ? 'unconfirmed' : 'refused', {
      queue,
      id,
      code: error.code,
      text: error.message,
    })
  } finally {
    open--
    if (open === 0) whenQuiet()
  }
}

function unanswered() {
  const left = new Map()
  for (const line of earlier.flatMap((path) => readJournal(path))) {
    if (line.t === 'sent') {
      const { t: _t, at: _at, again, ...message } = line
      // Sent again after it was confirmed: nothing is open.
      if (again === undefined) left.set(line.id, message)
    } else if (line.t === 'confirmed' || line.t === 'refused') left.delete(line.id)
  }
  return [...left.values()]
}

async function start() {
  for (const queue of [QUEUE_ANY, QUEUE_ALL]) {
    const told = (t) => (event) =>
      journal.write(t, { queue, text: event.reason?.message ?? event.message, code: event.reason?.code })
    const on = {
      offline: told('offline'),
      online: told('online'),
      waiting: told('waiting'),
      'publish-paused': told('paused'),
    }
    const backoff = { base: '200ms', max: '2s' }
    clients.set(queue, await connect({ service, jid, password, queue, backoff, connectTimeout: '2m', on }))
  }
  journal.write('ready')
}

function pump() {
  let last = performance.now()
  let due = 0
  return setInterval(() => {
    const now = performance.now()
    due = Math.min(window, due + ((now - last) * rate) / 1000)
    last = now
    for (; due >= 1 && open < window; due--)
      void publish(drawMessage(random, `${name}-${life}-${++serial}`, { hasSlow }), false)
  }, TICK_MS)
}

async function stop() {
  isStopping = true
  clearInterval(timer)
  if (open > 0) await new Promise((resolve) => (whenQuiet = resolve))
  for (const client of clients.values()) await client.close()
  journal.write('end')
  process.exit(0)
}

await start()
for (const message of unanswered()) void publish(message, false)
const timer = pump()
process.on('SIGTERM', () => {
  if (!isStopping) void stop()
})
