/**
 * Seeded runs of the core against the oracle.
 *
 *     XMQ_SIM_SEEDS=100000 npx vitest run --project simulation      more seeds
 *     XMQ_SIM_SEED=4711 npx vitest run --project simulation         replay one
 *     XMQ_SIM_TRAIL=500 …                                           show more of what led to it
 */
import { expect, test } from 'vitest'
import { createCore } from '../../src/core/index.ts'
import { Violation } from './oracle.ts'
import { KEPT_SEEDS } from './kept-seeds.ts'
import { simulate } from './world.ts'

const only = process.env['XMQ_SIM_SEED']
const trail = Number(process.env['XMQ_SIM_TRAIL'] ?? 12)
const count = Number(process.env['XMQ_SIM_SEEDS'] ?? 2_000)

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
    if (error instanceof Violation) {
      error.message += `\n\nReplay: XMQ_SIM_SEED=${seed} npx vitest run --project simulation\nThen add the seed to kept-seeds.ts.`
    }
    throw error
  }
}

test.runIf(only !== undefined)(`seed ${only}`, () => {
  expect(runSeed(Number(only)).size).toBeGreaterThan(0)
})

test.skipIf(only !== undefined)(`${KEPT_SEEDS.length} kept seeds and ${count} others`, () => {
  const seen = new Map<string, number>()
  const seeds = [...KEPT_SEEDS, ...Array.from({ length: count }, (_, index) => index + 1)]
  for (const seed of seeds) for (const [what, times] of runSeed(seed)) seen.set(what, (seen.get(what) ?? 0) + times)
  const missed = MUST_BE_SEEN.filter((what) => !seen.has(what))
  expect(missed, 'never happened in any run').toEqual([])
})
