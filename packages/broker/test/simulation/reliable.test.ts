/**
 * Seeded runs of the core's reliable layer against its oracle.
 *
 *     XMQ_SIM_SEEDS=100000 npx vitest run --project simulation reliable.test      more seeds
 *     XMQ_SIM_SEED=4711 npx vitest run --project simulation reliable.test         replay one
 *     XMQ_SIM_TRAIL=500 …                                                         show more of what led to it
 */
import { expect, test } from 'vitest'
import { createCore } from '../../src/core/index.ts'
import { createMemoryStore } from '../../src/store/memory.ts'
import { Violation } from './oracle.ts'
import { RELIABLE_KEPT_SEEDS } from './reliable-kept-seeds.ts'
import { simulateReliable } from './reliable-world.ts'

const only = process.env['XMQ_SIM_SEED']
const trail = Number(process.env['XMQ_SIM_TRAIL'] ?? 12)
const count = Number(process.env['XMQ_SIM_SEEDS'] ?? 2_000)

/** Every rule must have been met: a simulation that never gets there proves nothing. */
const MUST_BE_SEEN = [
  'confirmed',
  'confirmed again',
  'duplicate',
  'full',
  'item refused',
  'error resource-constraint',
  'error item-not-found',
  'delivered',
  'redelivered',
  'key',
  'credit used up',
  'received',
  'refused',
  'released as refused',
  'released unsent',
  'settled with the receipt',
  'settled by a stranger',
  'settled out of nothing',
  'ignored',
  'ack settled',
  'ack failed',
  'ack repeated',
  'acked',
  'acked late',
  'nack settled',
  'nack failed',
  'release settled',
  'release failed',
  'reject settled',
  'reject failed',
  'extend settled',
  'extend failed',
  'extended',
  'extended late',
  'taken over',
  'lease over',
  'lease over unreceived',
  'lease found',
  'session end, failed',
  'session end, released',
  'dead max-attempts',
  'dead rejected',
  'dead invalid',
  'dead expired',
  'expired',
  'claim in vain',
  'resubscribe',
  'crash, store kept',
  'crash, store lost',
  'store refused',
  'store lost requests',
  'store lost answers',
]

async function runSeed(seed: number): Promise<ReadonlyMap<string, number>> {
  try {
    return (await simulateReliable({ createCore, createStore: createMemoryStore }, seed, trail)).seen
  } catch (error) {
    if (error instanceof Violation) {
      error.message += `\n\nReplay: XMQ_SIM_SEED=${seed} npx vitest run --project simulation reliable.test\nThen add the seed to reliable-kept-seeds.ts.`
    }
    throw error
  }
}

test.runIf(only !== undefined)(`seed ${only}`, async () => {
  expect((await runSeed(Number(only))).size).toBeGreaterThan(0)
})

test.skipIf(only !== undefined)(`${RELIABLE_KEPT_SEEDS.length} kept seeds and ${count} others`, async () => {
  const seen = new Map<string, number>()
  const seeds = [...RELIABLE_KEPT_SEEDS, ...Array.from({ length: count }, (_, index) => index + 1)]
  for (const seed of seeds) {
    for (const [what, times] of await runSeed(seed)) seen.set(what, (seen.get(what) ?? 0) + times)
  }
  const missed = MUST_BE_SEEN.filter((what) => !seen.has(what))
  expect(missed, 'never happened in any run').toEqual([])
})
