/**
 * Seeded runs of the core against the oracle.
 *
 *     XMQ_SIM_SEEDS=100000 npx vitest run --project simulation plain.test    more seeds
 *     XMQ_SIM_SEED=4711 npx vitest run --project simulation plain.test       replay one
 *     XMQ_SIM_TRAIL=500 …                                                    show more of what led to it
 */
import { expect, test } from 'vitest'
import { createCore } from '../../packages/broker/src/core/index.ts'
import { KEPT_SEEDS } from './plain/kept-seeds.ts'
import { simulate } from './plain/world.ts'
import { explainFailure, seedFlags } from './seeds.ts'

const { only, count, trail } = seedFlags(2_000)
const kept = new URL('plain/kept-seeds.ts', import.meta.url)

/** Every rule must have been met: a simulation that never gets there proves nothing. */
const MUST_BE_SEEN = [
  'command result',
  'command bad-request',
  'command forbidden',
  'command limit-reached',
  'delivered any',
  'delivered all',
  'turn',
  'no-recipients',
  'message forbidden',
  'message topic-required',
  'request asked',
  'request no-recipients',
  'answered result',
  'answered error',
  'answered timeout',
  'answered worker-gone',
  'retried',
  'gave up',
  'forged answer ignored',
  'ping',
  'ended deleted',
  'ended expired',
  'ended session-ended',
  'ended bounced',
]

function runSeed(seed: number): ReadonlyMap<string, number> {
  try {
    return simulate(createCore, seed, trail).seen
  } catch (error) {
    throw explainFailure(error, seed, { tests: 'plain.test', kept })
  }
}

test.runIf(only !== undefined)(`seed ${only}`, () => {
  expect(runSeed(only as number).size).toBeGreaterThan(0)
})

test.skipIf(only !== undefined)(`${KEPT_SEEDS.length} kept seeds and ${count} others`, () => {
  const seen = new Map<string, number>()
  const seeds = [...KEPT_SEEDS, ...Array.from({ length: count }, (_, index) => index + 1)]
  for (const seed of seeds) for (const [what, times] of runSeed(seed)) seen.set(what, (seen.get(what) ?? 0) + times)
  const missed = MUST_BE_SEEN.filter((what) => !seen.has(what))
  expect(missed, 'never happened in any run').toEqual([])
})
