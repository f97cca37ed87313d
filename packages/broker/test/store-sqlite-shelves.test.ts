import { readFileSync, writeFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import Database from 'libsql'
import { describe, expect, it } from 'vitest'
import { lineOf, otherShelves, shelfOf } from '../src/store/sqlite/shelf.ts'
import type { SqliteStore } from '../src/store/sqlite/store.ts'
import { claim, freshPath, HOLDER, NOW, one, openSqlite, publish, publishOp, QUEUE, seqsOf } from './store-harness.ts'

const PRIORITIES = [9, 0, 4, 7, 4, 1, 5, 8, 2, 6, 3]
const LINE = { queue: QUEUE, subscription: '' }

/** Publishes so many messages, each of another priority than the one before. */
async function publishMixed(store: SqliteStore, count: number, more = {}): Promise<number[]> {
  const seqs: number[] = []
  for (let n = 0; n < count; n++)
    seqs.push(await publish(store, { priority: PRIORITIES[n % PRIORITIES.length] as number, ...more }))
  return seqs
}

async function pagesOf(store: SqliteStore, max: number, state?: 'delayed' | 'dead'): Promise<number[]> {
  const seqs: number[] = []
  for (let after: number | undefined = 0; after !== undefined; ) {
    const page = await store.browse({ ...LINE, state, after, max, bodies: false })
    if (page.status !== 'ok') throw page.error
    seqs.push(...page.entries.map(({ seq }) => seq))
    after = page.next
  }
  return seqs
}

describe('the shelves of a line', () => {
  it('are ten, none of another line, and name their line', () => {
    const seen = new Set<number>()
    for (let line = 1; line < 100; line++) {
      const shelves = Array.from({ length: 10 }, (_, priority) => shelfOf(line, priority))
      expect(new Set(shelves)).toEqual(new Set([line, ...otherShelves(line)]))
      expect(otherShelves(line)).toHaveLength(9)
      for (const shelf of shelves) {
        expect(lineOf(shelf)).toBe(line)
        expect(seen.has(shelf)).toBe(false)
        seen.add(shelf)
      }
    }
  })

  it('fit beside a seq of 44 bits, for lines that are too high by being one', () => {
    for (const line of [58_253, 58_254, 2 ** 19 - 1]) {
      for (let priority = 0; priority < 10; priority++) {
        const shelf = shelfOf(line, priority)
        expect(Math.abs(shelf)).toBeLessThanOrEqual(2 ** 19)
        expect(lineOf(shelf)).toBe(line)
      }
    }
    expect(shelfOf(58_253, 0)).toBeLessThan(0)
    expect(otherShelves(58_254)).toEqual([])
  })
})

describe('messages of mixed priorities', () => {
  it('lie by priority in the file', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    await publishMixed(store, 44)
    await store.close()
    const db = new Database(path)
    const ranks = db.prepare('SELECT rank >> 44 FROM entries ORDER BY id').raw().all() as [number][]
    db.close()
    const changes = ranks.filter(([rank], place) => place > 0 && rank !== ranks[place - 1]?.[0])
    expect(changes).toHaveLength(9)
  })

  it.each([1, 3, 7, 50, 1000])('are browsed in the order of publishing, %i a page', async (max) => {
    const store = await openSqlite(freshPath())
    const ready = await publishMixed(store, 150)
    const delayed = await publishMixed(store, 60, { delayUntil: NOW + 1000 })
    expect(await pagesOf(store, max)).toEqual([...ready, ...delayed])
    expect(await pagesOf(store, max, 'delayed')).toEqual(delayed)
  })

  it('are browsed in that order where all of one priority come first', async () => {
    const store = await openSqlite(freshPath())
    const seqs = [...(await publishMixed(store, 100, { priority: 8 })), ...(await publishMixed(store, 50))]
    expect(await pagesOf(store, 120)).toEqual(seqs)
    expect(await pagesOf(store, 40)).toEqual(seqs)
  })

  it('are found where nothing was when it was looked', async () => {
    const store = await openSqlite(freshPath())
    const first = await publish(store)
    expect(await seqsOf(store)).toEqual([first])
    const seqs = await publishMixed(store, 22)
    expect(await seqsOf(store)).toEqual([first, ...seqs])
    const discard = { type: 'discard' as const, ...LINE, state: 'ready' as const }
    for (const seq of seqs) expect(await one(store, { ...discard, seq })).toMatchObject({ status: 'ok' })
    expect(await seqsOf(store)).toEqual([first])
  })

  it('are found by their seq alone, with what they were before a restart', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const seqs = await publishMixed(store, 11)
    const { messages } = await claim(store, 11)
    await store.close()
    const again = await openSqlite(path)
    expect(again.stats()).toMatchObject({ lines: [{ leased: 11 }] })
    for (const { seq, token } of messages)
      expect(
        await one(again, { type: 'nack', ...LINE, seq, token, holder: HOLDER, why: '', failures: 1, at: NOW + 5 }),
      ).toMatchObject({
        status: 'ok',
      })
    // A late ack, of what is not leased any more.
    for (const { seq, token } of messages)
      expect(await one(again, { type: 'ack', ...LINE, seq, token, holder: HOLDER })).toMatchObject({ status: 'ok' })
    expect(seqs).toHaveLength(11)
    expect(await seqsOf(again)).toEqual([])
  })

  it('of one key are claimed one after the other, whatever their priority', async () => {
    const store = await openSqlite(freshPath())
    const seqs = await publishMixed(store, 11, { key: 'k' })
    const claimed: number[] = []
    for (let n = 0; n < 11; n++) {
      const { messages } = await claim(store, 5)
      expect(messages).toHaveLength(1)
      for (const { seq, token } of messages) {
        claimed.push(seq)
        await one(store, { type: 'ack', ...LINE, seq, token, holder: HOLDER })
      }
    }
    expect(claimed).toEqual(seqs)
  })

  it('keep the record of their id as long as they are there', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const seq = await publish(store, { id: 'one', priority: 9, dedupeMs: 10 })
    // Others, later, so that what has ended is looked at.
    for (const later of [11, 12]) await one(store, publishOp({ id: `other-${later}` }), NOW + later)
    expect(await one(store, publishOp({ id: 'one', priority: 9 }), NOW + 13)).toEqual({ status: 'duplicate', seq })
    const token = String((await claim(store, 1, NOW + 13)).messages[0]?.token)
    await one(store, { type: 'ack', ...LINE, seq, token, holder: HOLDER }, NOW + 14)
    expect(await one(store, publishOp({ id: 'one', priority: 9 }), NOW + 15)).toMatchObject({ status: 'ok' })
  })

  it('give way to new ones in the order of publishing', async () => {
    const store = await openSqlite(freshPath())
    const target = { subscription: '', maxLength: 30, maxBytes: 1e9, whenFull: 'dead-letter-oldest' as const }
    const seqs = await publishMixed(store, 30, { targets: [target] })
    for (const seq of seqs) {
      const result = await one(store, publishOp({ priority: 9, targets: [target] }))
      expect(result).toMatchObject({ status: 'ok', dropped: [{ seq }] })
    }
  })

  it('are dropped as dead letters in the order of their deaths, then of publishing', async () => {
    const store = await openSqlite(freshPath())
    const seqs = await publishMixed(store, 120, { expiresAt: NOW + 5 })
    const expire = (seq: number, now: number) => one(store, { type: 'expire', ...LINE, seq, why: '' }, now)
    // The last ten die first.
    for (const seq of seqs.slice(110)) await expire(seq, NOW + 6)
    for (const seq of seqs.slice(0, 110).reverse()) await expire(seq, NOW + 7)
    const dropped: number[] = []
    for (let left = 120; left > 0; left -= 15) {
      const op = { type: 'trim-dead' as const, ...LINE, maxCount: 0, maxBytes: 1e9, diedBefore: 0, max: 15 }
      const result = await one(store, op, NOW + 8)
      if (result.status !== 'ok' || result.type !== 'trim-dead') throw new Error(JSON.stringify(result))
      dropped.push(...result.dropped.map(({ seq }) => seq))
    }
    expect(dropped).toEqual([...seqs.slice(110), ...seqs.slice(0, 110)])
  })

  it('of a file of version 3, which lie in one, are claimed and acked beside new ones', async () => {
    const path = freshPath()
    writeFileSync(path, gunzipSync(readFileSync(new URL('store-fixtures/v3.db.gz', import.meta.url))))
    const store = await openSqlite(path)
    const old = await claim(store, 1)
    expect(old).toMatchObject({ messages: [{ priority: 9, body: 'fourth é' }] })
    const seq = await publish(store, { priority: 9 })
    await one(store, { type: 'release', ...LINE, seq: Number(old.messages[0]?.seq), token: 'token-0' })
    const { messages } = await claim(store, 9)
    expect(messages.map(({ priority }) => priority)).toEqual([9, 9])
    for (const message of messages)
      expect(await one(store, { type: 'ack', ...LINE, seq: message.seq, token: message.token })).toMatchObject({
        status: 'ok',
      })
    expect(await seqsOf(store)).not.toContain(seq)
  })
})
