/** Directed cases of the store suite: what becomes of a publish (protocol-reliable.md, "States"), by which lines, limits and ids. */
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import type { PublishOp } from '@xmq/broker'
import {
  claim,
  claimOne,
  type DirectedCase,
  entry,
  headOf,
  HOLDER,
  NOW,
  OK,
  one,
  publish,
  publishOp,
  QUEUE,
  refOf,
  target,
} from './store-suite-steps.ts'

export const publishingCases: readonly DirectedCase[] = [
  {
    name: 'publish makes an entry READY, and a claim hands out what was published',
    run: async (store) => {
      const seq = await publish(store, { id: 'a', key: 'k', priority: 7, expiresAt: NOW + 99, body: 'é😀', meta: '{}' })
      strictEqual((await headOf(store, seq))?.state, 'ready')
      const message = await claimOne(store)
      const { topic, id, sender, key, priority, publishedAt, expiresAt, failures, deliveries, body, meta } = message
      deepStrictEqual(
        { topic, id, sender, key, priority, publishedAt, expiresAt, failures, deliveries, body, meta },
        {
          topic: 't',
          id: 'a',
          sender: 'shop@localhost',
          key: 'k',
          priority: 7,
          publishedAt: NOW,
          expiresAt: NOW + 99,
          failures: 0,
          deliveries: 1,
          body: 'é😀',
          meta: '{}',
        },
      )
      const head = await headOf(store, seq)
      deepStrictEqual(
        [head?.state, head?.token, head?.holder, head?.received, head?.deadline],
        ['leased', message.token, HOLDER, false, NOW + 30],
      )
    },
  },
  {
    name: 'a publish with a grant is LEASED at once, as by a claim, and tells nobody that it is claimable',
    run: async (store) => {
      const told: string[] = []
      const unwatch = store.watch((topics) => told.push(...topics.map(({ topic }) => topic)))
      const grant = { token: 'granted', holder: HOLDER, leaseMs: 30 }
      const results = await store.apply(
        [publishOp({ id: 'a', grant }), publishOp({ id: 'b', grant: { ...grant, token: 'also' } })],
        NOW,
      )
      deepStrictEqual(
        results.map((result) => (result.status === 'ok' && result.type === 'publish' ? result.leasedAt : result)),
        [NOW, NOW],
      )
      const [first, second] = results.map((result) => (result.status === 'ok' && 'seq' in result ? result.seq : 0))
      const head = await headOf(store, Number(first))
      deepStrictEqual(
        [head?.state, head?.token, head?.holder, head?.received, head?.deadline, head?.deliveries, head?.failures],
        ['leased', 'granted', HOLDER, false, NOW + 30, 1, 0],
      )
      deepStrictEqual(await claim(store), [])
      deepStrictEqual(told, [])
      const ref = { queue: QUEUE, subscription: '', holder: HOLDER }
      deepStrictEqual(await one(store, { type: 'ack', ...ref, seq: Number(first), token: 'granted' }), OK('ack'))
      const nack = { failures: 1, at: NOW, why: 'no' }
      await one(store, { type: 'nack', ...ref, ...nack, seq: Number(second), token: 'also' })
      const again = await claimOne(store)
      deepStrictEqual([again.seq, again.deliveries, again.body, again.meta], [second, 2, 'body', 'meta'])
      unwatch()
    },
  },
  {
    name: 'a grant is not used where something waits, the key is taken, or the message cannot be claimed',
    run: async (store) => {
      const grant = { token: 'granted', holder: HOLDER, leaseMs: 30 }
      const stateOf = async (more: Partial<PublishOp>) => {
        const seq = await publish(store, { ...more, grant })
        const head = await headOf(store, seq)
        return [head?.state, head?.token]
      }
      const waits = ['ready', undefined]
      const delayUntil = NOW + 99
      deepStrictEqual(await stateOf({ topic: 'late', delayUntil }), ['delayed', undefined], 'delayed')
      deepStrictEqual(await stateOf({ topic: 'late', expiresAt: NOW }), waits, 'over')
      await publish(store, { topic: 'busy' })
      deepStrictEqual(await stateOf({ topic: 'busy', priority: 9 }), waits, 'behind another one')
      deepStrictEqual(await stateOf({ topic: 'keys', key: 'k' }), ['leased', 'granted'], 'first of its key')
      deepStrictEqual(await stateOf({ topic: 'keys', key: 'k' }), waits, 'behind its key')
      deepStrictEqual(await stateOf({ topic: 'keys', key: 'other' }), ['leased', 'granted'], 'another key')
      const duplicate = publishOp({ topic: 'ids', id: 'a', grant })
      const [first, second] = await store.apply([duplicate, duplicate], NOW)
      deepStrictEqual([first?.status, second?.status], ['ok', 'duplicate'])
    },
  },
  {
    name: 'a publish with a delay is DELAYED, listed when due, and takes its order number when READY',
    run: async (store) => {
      const late = await publish(store, { delayUntil: NOW + 10 })
      strictEqual((await headOf(store, late))?.dueAt, NOW + 10)
      deepStrictEqual(await one(store, { type: 'ready', ...entry(late) }, NOW + 9), { status: 'not-found' })
      const due = await store.due(NOW + 9, 10)
      deepStrictEqual(due.status === 'ok' && [due.items, due.nextAt], [[], NOW + 10])
      const after = await publish(store, {}, NOW + 5)
      const over = await store.due(NOW + 10, 10)
      deepStrictEqual(over.status === 'ok' && over.items.map(({ what, entry: { seq } }) => [what, seq]), [
        ['delay', late],
      ])
      deepStrictEqual(await one(store, { type: 'ready', ...entry(late) }, NOW + 10), OK('ready'))
      deepStrictEqual(
        (await claim(store, 2, NOW + 10)).map(({ seq }) => seq),
        [after, late],
      )
    },
  },
  {
    name: 'the same id is a duplicate within the window or the life of the message, whichever is longer; another payload conflicts',
    run: async (store) => {
      const seq = await publish(store, { id: 'x', dedupeMs: 10 })
      const again = (more: Partial<PublishOp>, now: number) =>
        one(store, publishOp({ id: 'x', dedupeMs: 10, ...more }), now)
      deepStrictEqual(await again({}, NOW + 50), { status: 'duplicate', seq })
      deepStrictEqual(await again({ meta: 'other' }, NOW + 50), { status: 'duplicate', seq })
      deepStrictEqual(await again({ body: 'other' }, NOW + 50), { status: 'conflict' })
      deepStrictEqual(await again({ topic: 'other' }, NOW + 50), { status: 'conflict' })
      strictEqual((await again({ sender: 'till@localhost' }, NOW + 50)).status, 'ok')
      await one(store, { type: 'ack', ...refOf(await claimOne(store)) }, NOW + 51)
      strictEqual((await again({}, NOW + 51)).status, 'ok')
      const short = await publish(store, { id: 'y', dedupeMs: 10 })
      for (const message of await claim(store, 9)) await one(store, { type: 'ack', ...refOf(message) })
      deepStrictEqual(await one(store, publishOp({ id: 'y' }), NOW + 9), { status: 'duplicate', seq: short })
      strictEqual((await one(store, publishOp({ id: 'y' }), NOW + 10)).status, 'ok')
    },
  },
  {
    name: 'a full line refuses, and nothing is left behind',
    run: async (store) => {
      const limits = [target('', { maxLength: 1 })]
      await publish(store, { targets: limits })
      deepStrictEqual(await one(store, publishOp({ id: 'x', targets: limits })), {
        status: 'full',
        what: 'length',
        subscription: '',
      })
      const bytes = [target('', { maxBytes: 12 })]
      deepStrictEqual(await one(store, publishOp({ id: 'x', targets: bytes })), {
        status: 'full',
        what: 'bytes',
        subscription: '',
      })
      strictEqual((await one(store, publishOp({ id: 'x' }))).status, 'ok')
      strictEqual(store.stats().messages, 2)
    },
  },
  {
    name: 'a full line gives its oldest READY entry up where it is told to, never a leased one',
    run: async (store) => {
      const first = await publish(store)
      const leased = await claimOne(store)
      const second = await publish(store)
      const limits = [target('', { maxLength: 2, whenFull: 'dead-letter-oldest' })]
      const result = await one(store, publishOp({ targets: limits }))
      deepStrictEqual(
        result.status === 'ok' && result.type === 'publish' && result.dropped.map(({ seq, reason }) => [seq, reason]),
        [[second, 'overflow']],
      )
      strictEqual(leased.seq, first)
      deepStrictEqual(
        [(await headOf(store, second))?.state, (await headOf(store, second))?.reason],
        ['dead', 'overflow'],
      )
      const one2 = [target('', { maxLength: 1, whenFull: 'dead-letter-oldest' })]
      deepStrictEqual(await one(store, publishOp({ targets: one2 })), {
        status: 'full',
        what: 'length',
        subscription: '',
      })
    },
  },
  {
    name: 'named subscriptions each get an entry over one body, start at now, and end with what they hold',
    run: async (store) => {
      const create = (subscription: string, meta = 'm', max = 2) =>
        one(store, { type: 'create-subscription', queue: QUEUE, subscription, meta, max })
      deepStrictEqual(await create('a'), { ...OK('create-subscription'), created: true })
      deepStrictEqual(await create('a'), { ...OK('create-subscription'), created: false })
      deepStrictEqual(await create('a', 'other'), { status: 'conflict' })
      const targets = [target('a'), target('b')]
      const before = await one(store, publishOp({ targets }))
      ok(before.status === 'ok' && before.type === 'publish' && before.entries === 1)
      await create('b')
      deepStrictEqual(await create('c'), { status: 'full', what: 'subscriptions', subscription: 'c' })
      const seq = await publish(store, { targets })
      deepStrictEqual(
        (await claim(store, 9, NOW, 'b')).map((message) => [message.seq, message.body]),
        [[seq, 'body']],
      )
      deepStrictEqual(
        (await claim(store, 9, NOW, 'a')).map((message) => message.seq),
        [before.seq, seq],
      )
      deepStrictEqual(
        await one(store, { type: 'delete-subscription', queue: QUEUE, subscription: 'a' }),
        OK('delete-subscription'),
      )
      const left = await store.subscriptions(QUEUE)
      deepStrictEqual(
        left.status === 'ok' && left.subscriptions.map(({ subscription, counts }) => [subscription, counts.leased]),
        [['b', 1]],
      )
      strictEqual(store.stats().messages, 1)
    },
  },
  {
    name: 'one full subscription refuses the publish for all',
    run: async (store) => {
      for (const subscription of ['a', 'b'])
        await one(store, { type: 'create-subscription', queue: QUEUE, subscription, meta: '', max: 9 })
      const targets = [target('a'), target('b', { maxLength: 0 })]
      deepStrictEqual(await one(store, publishOp({ targets })), { status: 'full', what: 'length', subscription: 'b' })
      strictEqual(store.stats().messages, 0)
    },
  },
]
