/** The simulation of the reliable layer can fail: each rule for plain clients beside reliable ones is broken on purpose. */
import { testMutations } from './mutants.ts'
import { simulateBroken } from './reliable/break-parts.ts'
import { PLAIN_SIDE_MUTATIONS } from './reliable/plain-mutations.ts'
import { worldKind } from './reliable/rules.ts'

// Only seeds with such clients can show them.
testMutations('reliable-plain', PLAIN_SIDE_MUTATIONS, simulateBroken, (seed) => worldKind(seed).hasPlain)
