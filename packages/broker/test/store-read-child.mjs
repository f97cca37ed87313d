// Fills the store at argv[2] and reads it again, with hardly any cache, while the reads of its log fail now and then (strace).
import { createSqliteStore } from '../dist/store/sqlite/store.js'

const path = process.argv[2]
const QUEUE = 'jobs.localhost'
const targets = [{ subscription: '', maxLength: 1e6, maxBytes: 1e12, whenFull: 'refuse' }]
const publish = (n) => ({
  type: 'publish',
  queue: QUEUE,
  topic: 't',
  id: undefined,
  sender: 's@localhost',
  key: undefined,
  priority: 4,
  delayUntil: undefined,
  expiresAt: undefined,
  dedupeMs: 0,
  dedupeMax: 0,
  body: `${n} `.repeat(300),
  meta: '',
  targets,
})
const store = createSqliteStore({ path, cacheBytes: 64 * 1024, checkpointPages: 200, thread: false, reopenPauseMs: 0 })
await store.open(Date.now())
let refused = 0
for (let n = 0; n < 300; n++) {
  const [{ status }] = await store.apply([publish(n)], Date.now())
  if (status === 'unavailable') refused += 1
}
process.stdout.write(JSON.stringify({ refused, stored: store.stats().messages }))
process.exit(0)
