// The store at argv[2] in its thread, by orders on standard input, a line each, answered by one: for tests that break its disk.
//   open | publish | crowd | list | probe | die
import { createInterface } from 'node:readline'
import { createSqliteStore } from '../dist/store/sqlite/store.js'

const QUEUE = 'jobs.localhost'
const store = createSqliteStore({ path: process.argv[2], reopenPauseMs: 0 })

function publishOp(n) {
  return {
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
    targets: [{ subscription: '', maxLength: 1e6, maxBytes: 1e12, whenFull: 'refuse' }],
  }
}

const orders = {
  open: () =>
    store.open(Date.now()).then(
      () => 'open',
      (error) => `${error.code}: ${error.message}`,
    ),
  publish: async () => {
    const [result] = await store.apply([publishOp(1)], Date.now())
    return result.status === 'ok' ? result.seq : result.error.message
  },
  // Many, one after the other without waiting: what each was told.
  crowd: async () => {
    const all = []
    for (let n = 0; n < 40; n++) {
      all.push(orders.publish())
      await new Promise(setImmediate)
    }
    return [...new Set((await Promise.all(all)).map((told) => (typeof told === 'number' ? 'stored' : told)))]
  },
  list: async () => {
    const page = await store.browse({ queue: QUEUE, subscription: '', after: 0, max: 500, bodies: true })
    return page.status === 'ok' ? page.entries.map(({ seq }) => seq) : page.error.message
  },
  probe: async () => (await store.probe())?.message ?? 'well',
  die: () => process.kill(process.pid, 'SIGKILL'),
}

for await (const order of createInterface({ input: process.stdin })) console.log(JSON.stringify(await orders[order]()))
process.exit(0)
