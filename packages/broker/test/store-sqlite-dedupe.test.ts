/** How the sqlite store keeps deduplication records: many in one row, and as the memory store does whatever comes in between. */
import Database from 'libsql'
import { describe, expect, it } from 'vitest'
import { createMemoryStore } from '../src/store/memory.ts'
import type { PublishOp, StoreOp, StoreResult } from '../src/store/operations.ts'
import type { Store } from '../src/store/port.ts'
import { BLOCK_MAX, decodeRecords } from '../src/store/sqlite/dedupe-block.ts'
import { claim, freshPath, NOW, openSqlite, publishOp, QUEUE } from './store-harness.ts'

/** A publish that goes nowhere: only its record stays. */
const idOnly = (id: string, more: Partial<PublishOp> = {}) => publishOp({ id, targets: [], dedupeMs: 1000, ...more })

const idsOf = (count: number, first = 0) =>
  Array.from({ length: count }, (_, n) => `id-${String(first + n).padStart(6, '0')}`)

const statusOf = (results: readonly StoreResult[]) => results.map(({ status }) => status).join(' ')
const all = (status: string, count: number) => Array.from({ length: count }, () => status).join(' ')

async function statuses(store: Store, ids: readonly string[], more: Partial<PublishOp> = {}, now: number = NOW) {
  return statusOf(
    await store.apply(
      ids.map((id) => idOnly(id, more)),
      now,
    ),
  )
}

interface Table {
  /** How many records each row has, by key. */
  readonly rows: readonly number[]
  readonly endings: number
}

/** The table of a file that is closed. Checks that blocks do not overlap, and that the count of the queue is true. */
function tableOf(path: string): Table {
  const db = new Database(path)
  const rows = db.prepare('SELECT key, seq, hash, ending FROM dedupe ORDER BY queue, key').raw().all() as [
    Buffer,
    number,
    Buffer,
    number,
  ][]
  const [endings] = db.prepare('SELECT coalesce(sum(endings), 0) FROM queues').raw().get() as [number]
  db.close()
  const blocks = rows.map(([key, seq, hash]) => decodeRecords(key, seq, hash))
  const keys = blocks.flat().map(({ key }) => key)
  expect(keys.toSorted((left, right) => left.compare(right))).toEqual(keys)
  for (const records of blocks) {
    const seqs = records.map(({ seq }) => seq)
    expect(seqs.toSorted((left, right) => left - right)).toEqual(seqs)
  }
  const ending = rows.map(([, , , isEnding], place) => isEnding * Number(blocks[place]?.length))
  expect(endings).toBe(ending.reduce((sum, count) => sum + count, 0))
  return { rows: blocks.map(({ length }) => length), endings }
}

describe('the deduplication records of ids that ascend', () => {
  it('share rows, and are found after a restart, each with its own payload', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const ids = idsOf(100)
    const first = await store.apply(
      ids.map((id) => idOnly(id, { body: `body of ${id}` })),
      NOW,
    )
    expect(statusOf(first)).toBe(all('ok', 100))
    await store.close()
    expect(tableOf(path)).toEqual({ rows: [BLOCK_MAX, BLOCK_MAX, BLOCK_MAX, 4], endings: 100 })
    const again = await openSqlite(path)
    const second = await again.apply(
      ids.map((id, n) => idOnly(id, { body: n === 50 ? 'other' : `body of ${id}` })),
      NOW + 999,
    )
    const seqs = first.map((result) => (result.status === 'ok' && result.type === 'publish' ? result.seq : undefined))
    expect(second).toEqual(seqs.map((seq, n) => (n === 50 ? { status: 'conflict' } : { status: 'duplicate', seq })))
    expect(await statuses(again, idsOf(1, 100), {}, NOW + 999)).toBe('ok')
  })

  it('are found in the transaction that made them', async () => {
    const store = await openSqlite(freshPath())
    const ids = idsOf(50)
    const results = await store.apply(
      [...ids, ...ids].map((id) => idOnly(id)),
      NOW,
    )
    expect(statusOf(results)).toBe(`${all('ok', 50)} ${all('duplicate', 50)}`)
  })

  it('let others between them, in the same transaction and later', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const even = idsOf(20).filter((_, n) => n % 2 === 0)
    const odd = idsOf(20).filter((_, n) => n % 2 === 1)
    expect(await statuses(store, [...even, ...odd.slice(5).toReversed()])).toBe(all('ok', 15))
    expect(await statuses(store, odd.slice(0, 5))).toBe(all('ok', 5))
    expect(await statuses(store, idsOf(20))).toBe(all('duplicate', 20))
    expect(await statuses(store, ['id-000007x', 'id-000007a', 'id-', 'z'])).toBe(all('ok', 4))
    expect(await statuses(store, idsOf(20))).toBe(all('duplicate', 20))
    await store.close()
    expect(tableOf(path).endings).toBe(24)
  })

  it('of two senders do not meet, also where they take turns', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const ops = idsOf(40).flatMap((id) => [idOnly(id), idOnly(id, { sender: 'till@localhost', body: 'other' })])
    expect(statusOf(await store.apply(ops, NOW))).toBe(all('ok', 80))
    expect(statusOf(await store.apply(ops, NOW))).toBe(all('duplicate', 80))
    expect(await statuses(store, idsOf(40), { sender: 'till@localhost' })).toBe(all('conflict', 40))
    await store.close()
    expect(tableOf(path).endings).toBe(80)
  })

  it('of two queues do not meet', async () => {
    const store = await openSqlite(freshPath())
    const ids = idsOf(20)
    expect(await statuses(store, ids)).toBe(all('ok', 20))
    const ops = [...ids.map((id) => idOnly(id)), ...ids.map((id) => idOnly(id, { queue: 'other.localhost' }))]
    expect(statusOf(await store.apply(ops, NOW))).toBe(`${all('duplicate', 20)} ${all('ok', 20)}`)
  })

  it('that are long are told apart by all of their bytes', async () => {
    const store = await openSqlite(freshPath())
    const ids = idsOf(40).map((id) => `${'x'.repeat(60)}${id}`)
    expect(await statuses(store, ids)).toBe(all('ok', 40))
    expect(await statuses(store, ids)).toBe(all('duplicate', 40))
    expect(
      await statuses(
        store,
        idsOf(40, 40).map((id) => `${'x'.repeat(60)}${id}`),
      ),
    ).toBe(all('ok', 40))
  })

  it('are as they were after a transaction that was rolled back', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    expect(await statuses(store, idsOf(10))).toBe(all('ok', 10))
    const [{ page_count: pages }] = (await store.pragma('page_count')) as [{ page_count: number }]
    await store.pragma(`max_page_count = ${pages + 10}`)
    // The ids come first, and are taken back with the body that has no room.
    const failed = [...idsOf(30, 5).map((id) => idOnly(id)), publishOp({ id: 'id-1', body: 'x'.repeat(200_000) })]
    expect(statusOf(await store.apply(failed, NOW))).toBe(all('unavailable', 31))
    await store.pragma('max_page_count = 1000000')
    expect(await statuses(store, [...idsOf(40), 'id-1'])).toBe(`${all('duplicate', 10)} ${all('ok', 31)}`)
    await store.close()
    expect(tableOf(path).endings).toBe(41)
  })

  it('that a transaction forgot are known again when it is rolled back', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    expect(await statuses(store, idsOf(10))).toBe(all('ok', 10))
    const [{ page_count: pages }] = (await store.pragma('page_count')) as [{ page_count: number }]
    await store.pragma(`max_page_count = ${pages + 10}`)
    const noRoom = publishOp({ body: 'x'.repeat(200_000) })
    // Three of ten have to go. Then all, and what comes next finds nothing above it.
    const some = [idOnly('z', { dedupeMax: 8 }), noRoom]
    const every = [idOnly('z', { dedupeMax: 1 }), idOnly('id-'), noRoom]
    expect(statusOf(await store.apply(some, NOW))).toBe(all('unavailable', 2))
    expect(await statuses(store, idsOf(10))).toBe(all('duplicate', 10))
    expect(statusOf(await store.apply(every, NOW))).toBe(all('unavailable', 3))
    expect(await statuses(store, idsOf(10))).toBe(all('duplicate', 10))
    await store.close()
    expect(tableOf(path)).toEqual({ rows: [10], endings: 10 })
  })

  it('hold with their messages whatever priority these have', async () => {
    const store = await openSqlite(freshPath())
    const ops = idsOf(20).map((id, n) => publishOp({ id, dedupeMs: 1000, priority: n % 4 === 0 ? 9 : 4 }))
    expect(statusOf(await store.apply(ops, NOW))).toBe(all('ok', 20))
    expect(await statuses(store, ['sweeps'], {}, NOW + 1000)).toBe('ok')
    expect(statusOf(await store.apply(ops, NOW + 1001))).toBe(all('duplicate', 20))
  })

  it('leave nothing behind when their time and their message end where they came', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const purge = { type: 'purge', queue: QUEUE, subscription: '', topic: undefined, state: 'ready', after: 0, max: 9 }
    expect(statusOf(await store.apply([publishOp({ id: 'x', dedupeMs: 0 }), purge as StoreOp], NOW))).toBe('ok ok')
    await store.close()
    expect(tableOf(path)).toEqual({ rows: [], endings: 0 })
  })

  it('stay when the last of their row goes first', async () => {
    const store = await openSqlite(freshPath())
    const ops = idsOf(20).map((id) => publishOp({ id, dedupeMs: 1000 }))
    expect(statusOf(await store.apply(ops, NOW))).toBe(all('ok', 20))
    const { messages } = await claim(store, 20, NOW + 1000)
    const { seq, token, holder } = messages.at(-1) as (typeof messages)[number]
    const ack: StoreOp = { type: 'ack', queue: QUEUE, subscription: '', seq, token, holder }
    expect(statusOf(await store.apply([ack], NOW + 1000))).toBe('ok')
    expect(statusOf(await store.apply(ops, NOW + 1000))).toBe(`${all('duplicate', 19)} ok`)
  })

  it('end one by one while messages of others in their row are still there', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const ids = idsOf(20)
    const inQueue = (id: string) => publishOp({ id, dedupeMs: 1000 })
    expect(statusOf(await store.apply(ids.map(inQueue), NOW))).toBe(all('ok', 20))
    const ackAll = async (count: number, now: number) => {
      const { messages } = await claim(store, count, now)
      const acks = messages.map(({ queue, subscription, seq, token, holder }): StoreOp => {
        return { type: 'ack', queue, subscription, seq, token, holder }
      })
      expect(statusOf(await store.apply(acks, now))).toBe(all('ok', count))
    }
    await ackAll(5, NOW)
    // The first five have ended, and are swept with the next publish; the others hold with their messages.
    expect(await statuses(store, ['sweeps'], {}, NOW + 1000)).toBe('ok')
    expect(statusOf(await store.apply(ids.slice(5).map(inQueue), NOW + 1000))).toBe(all('duplicate', 15))
    await ackAll(10, NOW + 1000)
    expect(statusOf(await store.apply(ids.slice(15).map(inQueue), NOW + 1000))).toBe(all('duplicate', 5))
    await store.close()
    expect(tableOf(path)).toEqual({ rows: [1, 1, 1, 1, 1, 1], endings: 1 })
    const again = await openSqlite(path)
    expect(await statuses(again, ids.slice(0, 15), {}, NOW + 1001)).toBe(all('ok', 15))
  })

  it('hold with their messages in one row, where none was gone when they ended', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const ops = idsOf(20).map((id) => publishOp({ id, dedupeMs: 1000 }))
    expect(statusOf(await store.apply(ops, NOW))).toBe(all('ok', 20))
    expect(await statuses(store, ['a', 'b'], {}, NOW + 1000)).toBe('ok ok')
    await store.close()
    expect(tableOf(path)).toEqual({ rows: [2, 20], endings: 2 })
    const again = await openSqlite(path)
    expect(statusOf(await again.apply(ops, NOW + 1001))).toBe(all('duplicate', 20))
    const purge = { type: 'purge', queue: QUEUE, subscription: '', topic: undefined, state: 'ready', after: 0, max: 99 }
    expect(statusOf(await again.apply([purge as StoreOp], NOW + 1001))).toBe('ok')
    await again.close()
    expect(tableOf(path)).toEqual({ rows: [2], endings: 2 })
  })
})

describe('where more ids are remembered than may be', () => {
  it('those that end first are forgotten, one by one, whatever time each has', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const [first, second, third] = [idsOf(40), idsOf(40, 40), idsOf(40, 80)]
    const dedupeMax = 100
    expect(await statuses(store, first, { dedupeMs: 2000, dedupeMax })).toBe(all('ok', 40))
    expect(await statuses(store, second, { dedupeMs: 1000, dedupeMax })).toBe(all('ok', 40))
    // 20 of the second have to go, then 10 of these themselves, which are over before all others.
    expect(await statuses(store, third, { dedupeMs: 1500, dedupeMax })).toBe(all('ok', 40))
    expect(await statuses(store, idsOf(10, 200), { dedupeMs: 10, dedupeMax })).toBe(all('ok', 10))
    await store.close()
    expect(tableOf(path).endings).toBe(dedupeMax)
    const again = await openSqlite(path)
    const more = { dedupeMs: 1, dedupeMax: 1000 }
    expect(await statuses(again, [...first, ...second.slice(20), ...third], more)).toBe(all('duplicate', 100))
    expect(await statuses(again, [...second.slice(0, 20), ...idsOf(10, 200)], more)).toBe(all('ok', 30))
  })

  it('each new one takes the place of the oldest, in one transaction and over a restart', async () => {
    const path = freshPath()
    let store = await openSqlite(path)
    const dedupeMax = 50
    for (let n = 0; n < 10; n++) {
      expect(await statuses(store, idsOf(33, n * 33), { dedupeMax }, NOW + n)).toBe(all('ok', 33))
      await store.close()
      expect(tableOf(path).endings).toBe(Math.min(dedupeMax, 33 * (n + 1)))
      store = await openSqlite(path)
    }
    const more = { dedupeMax: 1000 }
    expect(await statuses(store, idsOf(50, 280), more, NOW + 9)).toBe(all('duplicate', 50))
    expect(await statuses(store, idsOf(280), more, NOW + 9)).toBe(all('ok', 280))
  })

  it('those that are over by then are not counted twice', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    expect(await statuses(store, idsOf(10))).toBe(all('ok', 10))
    // The last two come in one transaction: three of ten have to go, then time passes and all are over.
    const applies = [
      statuses(store, ['x']),
      statuses(store, ['y', 'z'], { dedupeMax: 10 }),
      statuses(store, ['zz'], { dedupeMax: 1 }, NOW + 1000),
    ]
    expect(await Promise.all(applies)).toEqual(['ok', 'ok ok', 'ok'])
    await store.close()
    expect(tableOf(path)).toEqual({ rows: [1], endings: 1 })
  })

  it('an id that was just forgotten may come again', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const ids = idsOf(4)
    const results = await store.apply(
      [...ids, ...ids.slice(2), ...ids.slice(0, 3)].map((id) => idOnly(id, { dedupeMax: 2 })),
      NOW,
    )
    expect(statusOf(results)).toBe('ok ok ok ok duplicate duplicate ok ok ok')
    await store.close()
    expect(tableOf(path).endings).toBe(2)
  })
})

describe('the sweep of what has ended', () => {
  it('goes on with later publishes where it is too much for one', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    // Each in a row of its own.
    const ids = idsOf(1000).toReversed()
    expect(await statuses(store, ids)).toBe(all('ok', 1000))
    expect(await statuses(store, ['x'], {}, NOW + 1000)).toBe('ok')
    await store.close()
    const { rows } = tableOf(path)
    expect(rows.length).toBeGreaterThan(1)
    expect(rows.length).toBeLessThan(600)
    const again = await openSqlite(path)
    for (let n = 0; n < 2; n++) expect(await statuses(again, [`y${n}`], {}, NOW + 1000)).toBe('ok')
    await again.close()
    expect(tableOf(path)).toEqual({ rows: [1, 1, 1], endings: 3 })
  })

  it('keeps up with what comes, so that the table stays as small as what is remembered', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    for (let n = 0; n < 60; n++) {
      expect(await statuses(store, idsOf(100, n * 100), { dedupeMs: 10 }, NOW + n)).toBe(all('ok', 100))
    }
    await store.close()
    const { rows, endings } = tableOf(path)
    expect(endings).toBe(1000)
    expect(rows).toHaveLength(40)
  })
})

/** Numbers from 0 to below `below`, the same for the same seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed * 2654435761 + 1
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0
    return ((state ^ (state >>> 13)) >>> 0) % below
  }
}

const RUNS = Math.ceil(Number(process.env['XMQ_STORE_RUNS'] ?? 100) / 10)
const SEED = Number(process.env['XMQ_STORE_SEED'] ?? 1)

describe('publishes, settles, restarts and failures in any order', () => {
  it.each(Array.from({ length: RUNS }, (_, n) => SEED + n))(
    'are answered as by the memory store (seed %i)',
    async (seed) => {
      const random = randomOf(seed)
      const path = freshPath()
      const memory = createMemoryStore()
      let store = await openSqlite(path)
      const last = [0, 0]
      let now = NOW
      const publishes = (): PublishOp[] => {
        const sender = random(2)
        const common = {
          sender: `sender-${sender}@localhost`,
          dedupeMs: [0, 3, 10, 10, 10, 40][random(6)] as number,
          dedupeMax: [1, 7, 60, 60, 1000][random(5)] as number,
          ...(random(2) === 0 ? { targets: [] } : {}),
        }
        return Array.from({ length: 1 + random(random(4) === 0 ? 60 : 8) }, () => {
          const kind = random(20)
          let number = Number(last[sender])
          if (kind < 2) number -= random(300)
          else if (kind < 4) number -= 10 * random(30)
          else number = last[sender] = number + 10
          const id = `id-${String(100_000 + number)}`
          return publishOp({ id, ...common, ...(random(30) === 0 ? { body: 'other' } : {}) })
        })
      }
      // Seqs differ once a transaction was taken back.
      const seqs = new Map<number, number>()
      const compare = (given: StoreResult, wanted: StoreResult) => {
        expect(given.status).toBe(wanted.status)
        if (!('seq' in given) || !('seq' in wanted)) return
        if (given.status === 'ok') seqs.set(given.seq, wanted.seq)
        expect(seqs.get(given.seq)).toBe(wanted.seq)
      }
      const both = async (applies: readonly (readonly StoreOp[])[], times: readonly number[]) => {
        const given = await Promise.all(applies.map((ops, n) => store.apply(ops, Number(times[n]))))
        for (const [n, ops] of applies.entries()) {
          const wanted = await memory.apply(ops, Number(times[n]))
          for (const [place, result] of wanted.entries()) compare(given[n]?.[place] as StoreResult, result)
        }
      }
      for (let step = 0; step < 40; step++) {
        now += random(3) === 0 ? random(8) : 0
        const kind = random(12)
        if (kind < 8) {
          const applies = Array.from({ length: 1 + random(3) }, publishes)
          const times = applies.map(() => (now += random(4) === 0 ? 1 : 0))
          await both(applies, times)
        } else if (kind < 10) {
          const purge = {
            type: 'purge',
            queue: QUEUE,
            subscription: '',
            topic: undefined,
            state: 'ready',
            after: 0,
          } as const
          await both([[{ ...purge, max: 1 + random(40) }]], [now])
        } else if (kind === 10) {
          await store.close()
          tableOf(path)
          store = await openSqlite(path, {}, now)
        } else {
          const [{ page_count: pages }] = (await store.pragma('page_count')) as [{ page_count: number }]
          await store.pragma(`max_page_count = ${pages + 3}`)
          const failed = [...publishes(), publishOp({ body: 'x'.repeat(100_000) })]
          expect(statusOf(await store.apply(failed, now))).toBe(all('unavailable', failed.length))
          await store.pragma('max_page_count = 1000000')
        }
      }
      await both([[idOnly('the last one')]], [now])
      await store.close()
      expect(tableOf(path).endings).toBe(memory.stats().remembered.get(QUEUE))
      await memory.close()
    },
  )
})
