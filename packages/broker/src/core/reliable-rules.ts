/** The rules of a queue's reliable layer: how long, how often, how many. docs/operating.md has the keys of the configuration. */

/** What happens to a plain message to an `any` queue when nobody is subscribed to its topic. */
export type WhenNobody = 'keep' | 'refuse'

/** What happens to a publish when a line is full. */
export type WhenFull = 'refuse' | 'dead-letter-oldest'

/** Validated and frozen. Times in milliseconds. */
export interface ReliableRules {
  /** How long a lease lasts from when the worker received the message, and each time that it extends it. */
  readonly leaseMs: number
  /** How long a message may be leased in all, however often it is extended. */
  readonly maxLeaseMs: number
  /** A message that has failed so often is a dead letter. */
  readonly maxAttempts: number
  /** The first retry comes within so long, each further one within twice as long; */
  readonly backoffMs: number
  /** but never later than this. */
  readonly backoffMaxMs: number
  /** Most messages that wait or are leased, in each line. */
  readonly lengthMax: number
  /** Most bytes of them. */
  readonly bytesMax: number
  readonly whenFull: WhenFull
  readonly whenNobody: WhenNobody
  /** For so long, or for the message's life, a publish with the same id is a duplicate. */
  readonly dedupeMs: number
  /** Most ids that are remembered beyond the life of their message. */
  readonly dedupeMax: number
  /** For so long dead letters are kept, */
  readonly deadMs: number
  /** and so many of each line at most, */
  readonly deadMax: number
  /** of so many bytes. */
  readonly deadBytesMax: number
  /** Most named durable subscriptions of an `all` queue. */
  readonly namedMax: number
  /** One that nobody joins for so long is ended, with all that waits in it. */
  readonly namedIdleMs: number
  /** Most unsettled messages of a plain consumer of a durable queue. */
  readonly plainWindow: number
  /** Most deliver stanzas that a consumer has not answered yet. */
  readonly unreceivedMax: number
  /** Most messages that wait for an ephemeral consumer of an `all` queue; the oldest is dropped for a newer one. */
  readonly ephemeralMax: number
  /** Most bytes of them; one message there is always room for. */
  readonly ephemeralBytesMax: number
}

const SECOND_MS = 1000
const MINUTE_MS = 60 * SECOND_MS
const DAY_MS = 24 * 60 * MINUTE_MS
const MIB = 1024 * 1024

/** What holds where the configuration says nothing; `whenNobody` is `keep` where the store is durable. */
export const RELIABLE_DEFAULTS: ReliableRules = Object.freeze({
  leaseMs: 30 * SECOND_MS,
  maxLeaseMs: 60 * MINUTE_MS,
  maxAttempts: 5,
  backoffMs: SECOND_MS,
  backoffMaxMs: 5 * MINUTE_MS,
  lengthMax: 1_000_000,
  bytesMax: 1024 * MIB,
  whenFull: 'refuse',
  whenNobody: 'refuse',
  dedupeMs: 10 * MINUTE_MS,
  dedupeMax: 1_000_000,
  deadMs: 14 * DAY_MS,
  deadMax: 100_000,
  deadBytesMax: 256 * MIB,
  namedMax: 1000,
  namedIdleMs: 14 * DAY_MS,
  plainWindow: 256,
  unreceivedMax: 4,
  ephemeralMax: 1000,
  ephemeralBytesMax: 16 * MIB,
})
