/** The simulation of the reliable layer can fail: each rule of queues of type `all` is broken on purpose. */
import { testMutations } from './mutants.ts'
import { ALL_MUTATIONS } from './reliable/all-mutations.ts'
import { simulateBroken } from './reliable/break-parts.ts'
import { worldKind } from './reliable/rules.ts'

// Only seeds with such a queue can show them.
testMutations('reliable-all', ALL_MUTATIONS, simulateBroken, (seed) => worldKind(seed).type === 'all')
