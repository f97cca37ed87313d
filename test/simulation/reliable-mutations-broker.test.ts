/** The simulation of the reliable layer can fail: each rule of core and store is broken on purpose. */
import { testMutations } from './mutants.ts'
import { simulateBroken } from './reliable/break-parts.ts'
import { BROKER_MUTATIONS } from './reliable/broker-mutations.ts'

testMutations('reliable-broker', BROKER_MUTATIONS, simulateBroken)
