/** The simulation of the reliable layer can fail: each rule of requests is broken on purpose. */
import { testMutations } from './mutants.ts'
import { simulateBroken } from './reliable/break-parts.ts'
import { REQUEST_MUTATIONS } from './reliable/request-mutations.ts'
import { worldKind } from './reliable/rules.ts'

// Only seeds in which somebody asks can show them.
testMutations('reliable-requests', REQUEST_MUTATIONS, simulateBroken, (seed) => worldKind(seed).hasRequests)
