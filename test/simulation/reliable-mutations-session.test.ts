/** The simulation of the reliable layer can fail: each rule of the client's session is broken on purpose. */
import { testMutations } from './mutants.ts'
import { simulateBroken } from './reliable/break-parts.ts'
import { SESSION_MUTATIONS } from './reliable/session-mutations.ts'

testMutations('reliable-session', SESSION_MUTATIONS, simulateBroken)
