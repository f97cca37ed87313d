/** The simulation of the plain layer can fail: each rule of the core is broken on purpose. */
import type { Core, CoreRules } from '../../packages/broker/src/core/port.ts'
import { testMutations } from './mutants.ts'
import { PLAIN_MUTATIONS } from './plain/mutations.ts'
import { simulate } from './plain/world.ts'

testMutations('plain', PLAIN_MUTATIONS, async (_, load) => {
  const { createCore } = (await load('index.ts')) as { readonly createCore: (rules: CoreRules) => Core }
  return (seed) => simulate(createCore, seed)
})
