/**
 * Seeded runs of core, session and store against the oracles: the even seeds.
 *
 *     XMQ_SIM_SEEDS=100000 npx vitest run --project simulation reliable-seeds    more seeds
 *     XMQ_SIM_SEED=4711 npx vitest run --project simulation reliable-seeds       replay one
 *     XMQ_SIM_TRAIL=500 …                                                        show more of what led to it
 */
import { testShard } from './reliable/seeds.ts'

testShard(0)
