/** What the tests of the sqlite store share. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach } from 'vitest'
import type { PublishOp, Store, StoreOp, StoreResult } from '../src/store/port.ts'
import { createSqliteStore, type SqliteStore, type SqliteStoreOptions } from '../src/store/sqlite/store.ts'

export const NOW = 1_000_000
export const QUEUE = 'jobs.localhost'
export const HOLDER = 'worker@localhost'

const open: SqliteStore[] = []
const dirs: string[] = []

afterEach(async () => {
  await Promise.all(open.splice(0).map((store) => store.close()))
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true })
})

/** A path in a directory that goes with the test. */
export function freshPath(): string {
  const dir = mkdtempSync(join(tmpdir(), 'xmq-store-'))
  dirs.push(dir)
  return join(dir, 'xmq.db')
}

/** A store that is open, and closed with the test. */
export async function openSqlite(
  path: string,
  options: Partial<SqliteStoreOptions> = {},
  now: number = NOW,
): Promise<SqliteStore> {
  const store = createSqliteStore({ path, synchronous: 'OFF', ...options })
  open.push(store)
  await store.open(now)
  return store
}

export const publishOp = (more: Partial<PublishOp> = {}): PublishOp => ({
  type: 'publish',
  queue: QUEUE,
  topic: 't',
  id: undefined,
  sender: 'shop@localhost',
  key: undefined,
  priority: 4,
  delayUntil: undefined,
  expiresAt: undefined,
  dedupeMs: 600_000,
  dedupeMax: 1_000_000,
  body: 'body',
  meta: 'meta',
  targets: [{ subscription: '', maxLength: 1_000_000, maxBytes: 1e12, whenFull: 'refuse' }],
  ...more,
})

export async function one(store: Store, op: StoreOp, now: number = NOW): Promise<StoreResult> {
  return (await store.apply([op], now))[0] as StoreResult
}

export async function publish(store: Store, more: Partial<PublishOp> = {}): Promise<number> {
  const result = await one(store, publishOp(more))
  if (result.status !== 'ok' || result.type !== 'publish') throw new Error(`publish: ${JSON.stringify(result)}`)
  return result.seq
}

/** Claims up to `count` messages of topic `t`. */
export async function claim(store: Store, count = 1, now: number = NOW) {
  const grants = Array.from({ length: count }, (_, place) => ({ token: `token-${place}`, holder: HOLDER }))
  const answer = await store.claim({
    queue: QUEUE,
    subscription: '',
    topics: ['t'],
    grants,
    bytesMax: 1e9,
    leaseMs: 30,
    now,
  })
  if (answer.status !== 'ok') throw answer.error
  return answer
}

/** The seqs of all entries of the queue. */
export async function seqsOf(store: Store): Promise<number[]> {
  const seqs: number[] = []
  for (let after: number | undefined = 0; after !== undefined; ) {
    const page = await store.browse({ queue: QUEUE, subscription: '', after, max: 1000, bodies: true })
    if (page.status !== 'ok') throw page.error
    seqs.push(...page.entries.map(({ seq }) => seq))
    after = page.next
  }
  return seqs
}
