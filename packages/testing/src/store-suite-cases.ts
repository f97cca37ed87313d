/** The directed cases of the store suite: each row of the state table (protocol.md, "States"), and each limit. */
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import type { ClaimedMessage, EntryHead, PublishOp, PublishTarget, Store, StoreOp, StoreResult } from '@xmq/broker'

interface DirectedCase {
  readonly name: string
  readonly run: (store: Store) => Promise<void>
}

const QUEUE = 'jobs.localhost'
const HOLDER = 'worker@localhost'
const NOW = 1_000_000
const NO_LIMIT = 1_000_000

const target = (subscription = '', more: Partial<PublishTarget> = {}): PublishTarget => ({
  subscription,
  maxLength: NO_LIMIT,
  maxBytes: NO_LIMIT,
  whenFull: 'refuse',
  ...more,
})

const publishOp = (more: Partial<PublishOp> = {}): PublishOp => ({
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
  dedupeMax: NO_LIMIT,
  body: 'body',
  meta: 'meta',
  targets: [target()],
  ...more,
})

const one = async (store: Store, op: StoreOp, now = NOW): Promise<StoreResult> =>
  (await store.apply([op], now))[0] as StoreResult

async function publish(store: Store, more: Partial<PublishOp> = {}, now = NOW): Promise<number> {
  const result = await one(store, publishOp(more), now)
  if (result.status !== 'ok' || result.type !== 'publish')
    throw result.status === 'unavailable' ? result.error : new Error(`publish: ${result.status}`)
  return result.seq
}

let lastToken = 0
async function claim(
  store: Store,
  count = 1,
  now = NOW,
  subscription = '',
  topics = ['t'],
): Promise<readonly ClaimedMessage[]> {
  const grants = Array.from({ length: count }, () => {
    lastToken += 1
    return { token: `token-${lastToken}`, holder: HOLDER }
  })
  const lane = subscription === '' ? { topics } : {}
  const answer = await store.claim({
    queue: QUEUE,
    subscription,
    ...lane,
    grants,
    bytesMax: NO_LIMIT,
    leaseMs: 30,
    now,
  })
  if (answer.status !== 'ok') throw answer.error
  return answer.messages
}

async function claimOne(store: Store, now = NOW): Promise<ClaimedMessage> {
  const [message] = await claim(store, 1, now)
  if (message === undefined) throw new Error('nothing was claimable')
  return message
}

async function headOf(store: Store, seq: number, subscription = ''): Promise<EntryHead | undefined> {
  const page = await store.browse({ queue: QUEUE, subscription, after: seq - 1, max: 1, bodies: false })
  if (page.status !== 'ok') throw page.error
  return page.entries[0]?.seq === seq ? page.entries[0] : undefined
}

const refOf = ({ queue, subscription, seq, token }: ClaimedMessage) => ({
  queue,
  subscription,
  seq,
  token,
  holder: HOLDER,
})
const entry = (seq: number, subscription = '') => ({ queue: QUEUE, subscription, seq })
const OK = (type: string) => ({ status: 'ok', type })

async function killed(store: Store): Promise<number> {
  const seq = await publish(store)
  const message = await claimOne(store)
  strictEqual(message.seq, seq)
  await one(store, { type: 'dead', ...refOf(message), reason: 'rejected', why: 'no' })
  return seq
}

export const stateCases: readonly DirectedCase[] = [
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
  {
    name: 'watchers learn of a topic that became claimable, and of nothing else',
    run: async (store) => {
      const seen: string[] = []
      store.watch((topics) => seen.push(...topics.map(({ topic }) => topic)))
      const took = () => seen.splice(0).sort()
      await publish(store, { topic: 'a', key: 'k' })
      deepStrictEqual(took(), ['a'])
      const second = await publish(store, { topic: 'a', key: 'k' })
      deepStrictEqual(took(), [])
      const late = await publish(store, { topic: 'late', delayUntil: NOW + 5 })
      deepStrictEqual(took(), [])
      await one(store, { type: 'ready', ...entry(late) }, NOW + 5)
      deepStrictEqual(took(), ['late'])
      const [lease] = await claim(store, 1, NOW, '', ['a'])
      deepStrictEqual(took(), [])
      await one(store, { type: 'ack', ...refOf(lease as ClaimedMessage) })
      deepStrictEqual(took(), ['a'])
      const [next] = await claim(store, 1, NOW, '', ['a'])
      ok(next !== undefined && next.seq === second)
      await one(store, { type: 'release', ...refOf(next) })
      deepStrictEqual(took(), ['a'])
    },
  },
  {
    name: 'operations of one apply see each other, in order',
    run: async (store) => {
      await publish(store)
      const lease = await claimOne(store)
      const results = await store.apply(
        [
          { type: 'ack', ...refOf(lease) },
          { type: 'release', ...refOf(lease) },
          publishOp({ id: 'x' }),
          publishOp({ id: 'x' }),
        ],
        NOW,
      )
      deepStrictEqual(
        results.map(({ status }) => status),
        ['ok', 'not-found', 'ok', 'duplicate'],
      )
    },
  },
  {
    name: 'what is asked after close is refused',
    run: async (store) => {
      await store.close()
      await store.close()
      deepStrictEqual((await one(store, publishOp())).status, 'unavailable')
      strictEqual((await store.probe())?.code, 'closed')
    },
  },
]
