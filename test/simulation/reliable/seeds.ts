/** The seeds of the reliable simulation, in shards: one test file each, so that each core of the machine has one. */
import { expect, test } from 'vitest'
import { createCore } from '../../../packages/broker/src/core/index.ts'
import { createMemoryStore } from '../../../packages/broker/src/store/memory.ts'
import { createSession } from '../../../packages/client/src/session/index.ts'
import { explainFailure, seedFlags } from '../seeds.ts'
import { RELIABLE_KEPT_SEEDS } from './kept-seeds.ts'
import { RELIABLE_SIGHTS } from './sights.ts'
import { simulateReliable } from './world.ts'

const SHARDS = 2
const { only, count, trail } = seedFlags(10_000)
const kept = new URL('kept-seeds.ts', import.meta.url)

async function runSeed(seed: number): Promise<ReadonlyMap<string, number>> {
  try {
    return (await simulateReliable({ createCore, createStore: createMemoryStore, createSession }, seed, trail)).seen
  } catch (error) {
    throw explainFailure(error, seed, { tests: 'reliable-seeds', kept })
  }
}

/** Declares the tests of one shard. @param shard from 0 */
export function testShard(shard: number): void {
  const isOurs = (seed: number): boolean => seed % SHARDS === shard
  test.runIf(only !== undefined && isOurs(only))(`seed ${only}`, async () => {
    expect((await runSeed(only as number)).size).toBeGreaterThan(0)
  })

  const seeds = [...RELIABLE_KEPT_SEEDS, ...Array.from({ length: count }, (_, index) => index + 1)].filter(isOurs)
  test.skipIf(only !== undefined)(`${seeds.length} seeds`, async () => {
    const seen = new Map<string, number>()
    for (const seed of seeds) {
      for (const [what, times] of await runSeed(seed)) seen.set(what, (seen.get(what) ?? 0) + times)
    }
    // A simulation that never gets there proves nothing.
    const missed = RELIABLE_SIGHTS.filter((what) => !seen.has(what))
    expect(missed, 'never happened in any run').toEqual([])
  })
}
