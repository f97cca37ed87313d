/** Directed cases of the store suite: who gets what in a claim, and what a lease may do (protocol-reliable.md, "States"). */
import { deepStrictEqual, strictEqual } from 'node:assert/strict'
import type { ClaimedMessage } from '@xmq/broker'
import {
  claim,
  claimOne,
  type DirectedCase,
  entry,
  headOf,
  HOLDER,
  NO_LIMIT,
  NOW,
  OK,
  one,
  publish,
  QUEUE,
  refOf,
} from './store-suite-steps.ts'

export const leaseCases: readonly DirectedCase[] = [
  {
    name: 'claims go by priority, then order, over all topics asked for',
    run: async (store) => {
      const seqs = [
        await publish(store, { topic: 'a', priority: 1 }),
        await publish(store, { topic: 'b', priority: 9 }),
        await publish(store, { topic: 'c', priority: 9 }),
        await publish(store, { topic: 'a', priority: 9 }),
        await publish(store, { topic: 'b', priority: 1 }),
      ]
      const claimed = await claim(store, 9, NOW, '', ['a', 'b'])
      deepStrictEqual(
        claimed.map(({ seq }) => seq),
        [seqs[1], seqs[3], seqs[0], seqs[4]],
      )
    },
  },
  {
    name: 'a claim stops at its bytes, but always hands out one',
    run: async (store) => {
      await publish(store, { body: 'x'.repeat(100) })
      await publish(store, { body: 'x'.repeat(100) })
      const request = { queue: QUEUE, subscription: '', topics: ['t'], leaseMs: 30, now: NOW, bytesMax: 150 }
      const grants = ['g1', 'g2'].map((token) => ({ token, holder: HOLDER }))
      const answer = await store.claim({ ...request, grants })
      deepStrictEqual(answer.status === 'ok' && [answer.messages.length, answer.more], [1, true])
      const next = await store.claim({ ...request, grants: grants.slice(1), bytesMax: 1 })
      deepStrictEqual(next.status === 'ok' && [next.messages.length, next.more], [1, false])
    },
  },
  {
    name: 'one of a key is in flight; a retry blocks, a dead letter unblocks',
    run: async (store) => {
      const [first, second] = [
        await publish(store, { key: 'k', priority: 0 }),
        await publish(store, { key: 'k', priority: 9 }),
      ]
      const other = await publish(store, { key: 'other' })
      const claimed = await claim(store, 9)
      deepStrictEqual(new Set(claimed.map(({ seq }) => seq)), new Set([first, other]))
      const lease = claimed.find(({ seq }) => seq === first) as ClaimedMessage
      await one(store, { type: 'nack', ...refOf(lease), at: NOW + 10, failures: 1, why: 'no' })
      deepStrictEqual(await claim(store, 9), [])
      await one(store, { type: 'ready', ...entry(first) }, NOW + 10)
      const again = await claimOne(store, NOW + 10)
      strictEqual(again.seq, first)
      await one(store, { type: 'dead', ...refOf(again), reason: 'max-attempts', why: 'no' })
      strictEqual((await claimOne(store, NOW + 10)).seq, second)
    },
  },
  {
    name: 'an ack ends a message; repeated within ten minutes it is ok, with another token it is not',
    run: async (store) => {
      const lease = await publish(store).then(() => claimOne(store))
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(lease), token: 'wrong' }), { status: 'not-found' })
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(lease), holder: 'thief@localhost' }), {
        status: 'not-found',
      })
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(lease) }), OK('ack'))
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(lease) }, NOW + 600_000), OK('ack'))
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(lease) }, NOW + 600_001), { status: 'not-found' })
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(lease), token: 'wrong' }), { status: 'not-found' })
      deepStrictEqual([await headOf(store, lease.seq), store.stats().messages], [undefined, 0])
    },
  },
  {
    name: 'extend moves the deadline, at most to maxLease after the claim, never back',
    run: async (store) => {
      const lease = await publish(store).then(() => claimOne(store))
      const extend = (leaseMs: number, maxLeaseMs: number, now: number) =>
        one(store, { type: 'extend', ...refOf(lease), leaseMs, maxLeaseMs }, now)
      deepStrictEqual(await extend(30, 100, NOW + 20), { ...OK('extend'), deadline: NOW + 50, relocked: false })
      deepStrictEqual(await extend(90, 100, NOW + 20), { ...OK('extend'), deadline: NOW + 100, relocked: false })
      deepStrictEqual(await extend(10, 100, NOW + 20), { ...OK('extend'), deadline: NOW + 100, relocked: false })
    },
  },
  {
    name: 'received starts the lease once',
    run: async (store) => {
      const lease = await publish(store).then(() => claimOne(store))
      const received = (now: number) => one(store, { type: 'received', ...refOf(lease), leaseMs: 30 }, now)
      deepStrictEqual(await received(NOW + 5), { ...OK('received'), deadline: NOW + 35 })
      deepStrictEqual(await received(NOW + 9), { ...OK('received'), deadline: NOW + 35 })
      strictEqual((await headOf(store, lease.seq))?.received, true)
    },
  },
  {
    name: 'release gives back without a failure; a lease that is over is listed until it is settled',
    run: async (store) => {
      const lease = await publish(store).then(() => claimOne(store))
      const over = await store.due(NOW + 30, 10)
      deepStrictEqual(over.status === 'ok' && over.items.map(({ what, entry: { token } }) => [what, token]), [
        ['lease', lease.token],
      ])
      deepStrictEqual(await one(store, { type: 'release', ...refOf(lease) }, NOW + 30), OK('release'))
      const head = await headOf(store, lease.seq)
      deepStrictEqual([head?.state, head?.failures, head?.deliveries], ['ready', 0, 1])
      deepStrictEqual(await one(store, { type: 'release', ...refOf(lease) }, NOW + 30), { status: 'not-found' })
      const none = await store.due(NOW + 30, 10)
      deepStrictEqual(none.status === 'ok' && none.items, [])
    },
  },
  {
    name: 'nack counts a failure and waits; the history says who and why',
    run: async (store) => {
      const lease = await publish(store).then(() => claimOne(store))
      await one(store, { type: 'nack', ...refOf(lease), at: NOW + 10, failures: 1, why: 'x'.repeat(1000) }, NOW + 1)
      const page = await store.browse({ ...entry(0), after: lease.seq - 1, max: 1, bodies: false })
      const found = page.status === 'ok' ? page.entries[0] : undefined
      deepStrictEqual([found?.state, found?.dueAt, found?.failures], ['delayed', NOW + 10, 1])
      deepStrictEqual(found?.history, [{ at: NOW + 1, holder: HOLDER, why: 'x'.repeat(512), attempt: 1 }])
      await one(store, { type: 'ready', ...entry(lease.seq) }, NOW + 10)
      deepStrictEqual((await claimOne(store, NOW + 10)).failures, 1)
    },
  },
  {
    name: 'a late ack is honoured while nobody else holds the message, even a dead letter',
    run: async (store) => {
      await publish(store)
      const first = await claimOne(store)
      await one(store, { type: 'nack', ...refOf(first), at: NOW, failures: 1, why: 'lease over' })
      const second = await claimOne(store)
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(first) }), { status: 'not-found' })
      await one(store, { type: 'dead', ...refOf(second), reason: 'max-attempts', why: 'lease over' })
      deepStrictEqual(await one(store, { type: 'ack', ...refOf(second) }), OK('ack'))
      strictEqual(store.stats().messages, 0)
    },
  },
  {
    name: 'a late extend leases again and takes the failure back, but not a dead letter or a replayed one',
    run: async (store) => {
      await publish(store)
      const lease = await claimOne(store)
      await one(store, { type: 'nack', ...refOf(lease), at: NOW + 99, failures: 1, why: 'lease over' })
      const extend = { type: 'extend' as const, ...refOf(lease), leaseMs: 30, maxLeaseMs: 20 }
      deepStrictEqual(await one(store, extend, NOW + 5), { ...OK('extend'), deadline: NOW + 25, relocked: true })
      const head = await headOf(store, lease.seq)
      deepStrictEqual([head?.state, head?.failures, head?.received, head?.claimedAt], ['leased', 0, true, NOW + 5])
      await one(store, { type: 'dead', ...refOf(lease), reason: 'rejected', why: 'no' })
      deepStrictEqual(await one(store, extend), { status: 'not-found' })
      await one(store, { type: 'replay', ...entry(lease.seq), maxLength: 9, maxBytes: NO_LIMIT })
      deepStrictEqual(await one(store, extend), { status: 'not-found' })
    },
  },
]
