// Publishes, claims and acks on the store at argv[2] for ever, and says what it was told: the parent kills it at any moment.
import { writeSync } from 'node:fs'
import { createSqliteStore } from '../dist/store/sqlite/store.js'

const QUEUE = 'jobs.localhost'
const store = createSqliteStore({ path: process.argv[2] })
await store.open(Date.now())
const say = (what, seqs) => seqs.length > 0 && writeSync(1, `${what} ${seqs.join(' ')}\n`)
const targets = [{ subscription: '', maxLength: 1e6, maxBytes: 1e12, whenFull: 'refuse' }]
const publish = (n) => ({
  type: 'publish',
  queue: QUEUE,
  topic: `t${n % 3}`,
  id: undefined,
  sender: 's@localhost',
  key: n % 5 ? undefined : 'k',
  priority: n % 10,
  delayUntil: undefined,
  expiresAt: undefined,
  dedupeMs: 0,
  dedupeMax: 0,
  body: 'x'.repeat((n * 37) % 3000),
  meta: '',
  targets,
})
say('ready', [process.pid])

const publisher = async () => {
  for (let n = 0; ; n++) {
    const results = await store.apply([publish(n), publish(n + 1), publish(n + 2)], Date.now())
    say(
      'published',
      results.filter((result) => result.status === 'ok').map((result) => result.seq),
    )
  }
}

const worker = async () => {
  for (let n = 0; ; n++) {
    const grants = [0, 1, 2].map((place) => ({ token: `${process.pid}-${n}-${place}`, holder: 'w@localhost' }))
    const request = {
      queue: QUEUE,
      subscription: '',
      topics: ['t0', 't1', 't2'],
      grants,
      bytesMax: 1e9,
      leaseMs: 1000,
      now: Date.now(),
    }
    const { messages } = await store.claim(request)
    say(
      'acking',
      messages.map(({ seq }) => seq),
    )
    const acks = messages.map(({ queue, subscription, seq, token }) => ({
      type: 'ack',
      queue,
      subscription,
      seq,
      token,
    }))
    await store.apply(acks, Date.now())
    say(
      'acked',
      messages.map(({ seq }) => seq),
    )
  }
}

await Promise.all([publisher(), publisher(), publisher(), publisher(), worker()])
