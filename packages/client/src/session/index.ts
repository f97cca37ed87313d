/** The session's own entrance: for the runtime and for simulations. */
export { loadOf } from './load.ts'
export { createOutgoing, type OutgoingParts } from './outgoing.ts'
export * from './port.ts'
export { createSession } from './session.ts'
