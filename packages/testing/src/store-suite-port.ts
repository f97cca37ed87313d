/** Directed cases of the store suite: what holds for every operation, and what watchers are told. */
import { deepStrictEqual, ok, strictEqual } from 'node:assert/strict'
import type { ClaimedMessage } from '@xmq/broker'
import { claim, claimOne, type DirectedCase, entry, NOW, one, publish, publishOp, refOf } from './store-suite-steps.ts'

export const portCases: readonly DirectedCase[] = [
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
