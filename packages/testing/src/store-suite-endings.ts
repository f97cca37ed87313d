/** Directed cases of the store suite: dead letters, and all other ends of a message (protocol-reliable.md, "States"). */
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import {
  claim,
  claimOne,
  type DirectedCase,
  entry,
  headOf,
  HOLDER,
  killed,
  NO_LIMIT,
  NOW,
  OK,
  one,
  publish,
  QUEUE,
} from './store-suite-steps.ts'

export const endingCases: readonly DirectedCase[] = [
  {
    name: 'reject makes a dead letter with its reason',
    run: async (store) => {
      const seq = await killed(store)
      const head = await headOf(store, seq)
      deepStrictEqual(
        [head?.state, head?.reason, head?.diedAt, store.stats().lines[0]?.dead],
        ['dead', 'rejected', NOW, 1],
      )
      deepStrictEqual(await claim(store), [])
    },
  },
  {
    name: 'ttl over: passed over by claims, listed, then DEAD(expired); a leased message does not expire',
    run: async (store) => {
      const [held, seq] = [await publish(store, { expiresAt: NOW + 10 }), await publish(store, { expiresAt: NOW + 10 })]
      await claimOne(store)
      const grants = [{ token: 'g', holder: HOLDER }]
      const answer = await store.claim({
        queue: QUEUE,
        subscription: '',
        topics: ['t'],
        grants,
        bytesMax: 99,
        leaseMs: 30,
        now: NOW + 10,
      })
      deepStrictEqual(answer.status === 'ok' && [answer.messages, answer.expired.map((head) => head.seq)], [[], [seq]])
      const due = await store.due(NOW + 10, 10)
      deepStrictEqual(due.status === 'ok' && due.items.map((item) => [item.what, item.entry.seq]), [['ttl', seq]])
      deepStrictEqual(await one(store, { type: 'expire', ...entry(seq), why: 'old' }, NOW + 9), { status: 'not-found' })
      deepStrictEqual(await one(store, { type: 'expire', ...entry(held), why: 'old' }, NOW + 10), {
        status: 'not-found',
      })
      deepStrictEqual(await one(store, { type: 'expire', ...entry(seq), why: 'old' }, NOW + 10), OK('expire'))
      strictEqual((await headOf(store, seq))?.reason, 'expired')
    },
  },
  {
    name: 'replay makes a dead letter READY at the end, with failures 0 and no ttl; purge ends it',
    run: async (store) => {
      const seq = await publish(store, { expiresAt: NOW + 10 })
      await one(store, { type: 'expire', ...entry(seq), why: 'old' }, NOW + 10)
      const newer = await publish(store)
      deepStrictEqual(await one(store, { type: 'replay', ...entry(seq), maxLength: 1, maxBytes: NO_LIMIT }), {
        status: 'full',
        what: 'length',
        subscription: '',
      })
      deepStrictEqual(
        await one(store, { type: 'replay', ...entry(seq), maxLength: 2, maxBytes: NO_LIMIT }),
        OK('replay'),
      )
      const claimed = await claim(store, 2, NOW + 20)
      deepStrictEqual(
        claimed.map((message) => [message.seq, message.expiresAt, message.failures]),
        [
          [newer, undefined, 0],
          [seq, undefined, 0],
        ],
      )
      const dead = await killed(store)
      deepStrictEqual(await one(store, { type: 'discard', ...entry(dead) }), OK('discard'))
      strictEqual(await headOf(store, dead), undefined)
    },
  },
  {
    name: 'dead letters are dropped from the earliest death on, by count, bytes and age',
    run: async (store) => {
      const seqs = [await killed(store), await killed(store), await killed(store), await killed(store)]
      const trim = async (more: object) => {
        const result = await one(store, {
          type: 'trim-dead',
          ...entry(0),
          maxCount: 99,
          maxBytes: NO_LIMIT,
          diedBefore: 0,
          max: 99,
          ...more,
        })
        return result.status === 'ok' && result.type === 'trim-dead' ? result.dropped.map(({ seq }) => seq) : []
      }
      deepStrictEqual(await trim({}), [])
      deepStrictEqual(await trim({ maxCount: 3 }), [seqs[0]])
      deepStrictEqual(await trim({ maxBytes: 16 }), [seqs[1]])
      deepStrictEqual(await trim({ diedBefore: NOW + 1, max: 1 }), [seqs[2]])
      deepStrictEqual(await trim({ diedBefore: NOW + 1 }), [seqs[3]])
    },
  },
  {
    name: 'a purge goes on where it ended, and never gives a seq again',
    run: async (store) => {
      const seqs = [await publish(store), await publish(store, { topic: 'other' }), await publish(store)]
      const purge = {
        type: 'purge' as const,
        queue: QUEUE,
        subscription: '',
        topic: 't',
        state: 'ready' as const,
        max: 1,
      }
      const first = await one(store, { ...purge, after: 0 })
      ok(first.status === 'ok' && first.type === 'purge' && first.count === 1 && first.next !== undefined)
      const second = await one(store, { ...purge, after: first.next })
      ok(second.status === 'ok' && second.type === 'purge' && second.count === 1)
      strictEqual(store.stats().messages, 1)
      ok((await publish(store)) > Number(seqs[2]))
    },
  },
]
