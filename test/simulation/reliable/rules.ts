/** The rules of a seed: queues and bounds, tight enough that each rule is met within seconds. */
import {
  type CoreRules,
  OVERLOAD_DEFAULTS,
  type QueueRules,
  RELIABLE_DEFAULTS,
} from '../../../packages/broker/src/core/port.ts'
import type { SessionRules } from '../../../packages/client/src/session/index.ts'
import type { Random } from '../random.ts'

/** The admin of every queue. */
export const ADMIN = 'ops@localhost'

export const DOMAIN = 'jobs.localhost'
/** The queue. */
export const JOBS = 'jobs.localhost'

export const LEASE_MS = 4_000

/** What kind of world a seed gives. */
export interface WorldKind {
  readonly type: 'any' | 'all'
  /** Plain clients, too: they publish messages, and subscribe. */
  readonly hasPlain: boolean
  /** Somebody asks, and workers answer. */
  readonly hasRequests: boolean
}

/** By `(seed >> 1) % 16`: so each shard has all kinds. */
const KINDS: readonly WorldKind[] = Array.from(
  { length: 16 },
  (_, slot): WorldKind => ({
    type: [1, 5, 7, 9, 10, 13].includes(slot) ? 'all' : 'any',
    hasPlain: [0, 5, 6, 13].includes(slot),
    hasRequests: [6, 11, 13].includes(slot),
  }),
)

/**
 * What kind of world a seed gives: drawn from nothing else, so that a kind that is added changes no seed but its own. Those of kept
 * seeds stay what they are.
 */
export function worldKind(seed: number): WorldKind {
  return KINDS[(seed >> 1) % KINDS.length] as WorldKind
}

/** The rules of the broker. */
export function coreRules(random: Random, { type, hasPlain, hasRequests }: WorldKind): CoreRules {
  const durability = random.chance(0.8) ? 'disk' : 'memory'
  const reliable: QueueRules['reliable'] = {
    ...RELIABLE_DEFAULTS,
    leaseMs: LEASE_MS,
    maxLeaseMs: random.pick([20_000, 9_000]),
    maxAttempts: random.pick([1, 3, 3]),
    backoffMs: 500,
    backoffMaxMs: 4_000,
    lengthMax: random.pick([15, 100_000, 100_000, 100_000]),
    whenFull: random.pick(['refuse', 'dead-letter-oldest']),
    dedupeMs: random.pick([RELIABLE_DEFAULTS.dedupeMs, RELIABLE_DEFAULTS.dedupeMs, 3_000]),
    unreceivedMax: random.pick([1, 4]),
    whenNobody: 'keep',
    ...(hasPlain ? { plainWindow: random.pick([2, 5, 256]), whenNobody: random.pick(['keep', 'keep', 'refuse']) } : {}),
    ...(type === 'all' ? { namedMax: random.pick([3, 100]), ephemeralMax: random.pick([3, 1000, 1000]) } : {}),
  }
  const queue = (address: string): QueueRules => ({
    address,
    type,
    publish: ['localhost'],
    consume: ['localhost'],
    admins: [ADMIN],
    preserveFrom: false,
    requestTimeoutMs: 8_000,
    ttlSecondsMax: 60,
    payloadBytesMax: 10_000,
    topicsMax: 100,
    subscriptionsPerJidMax: 10,
    reliable,
  })
  return {
    domains: [DOMAIN],
    queues: [queue(JOBS)],
    subscriptionsMax: 1_000,
    openRequestsMax: hasRequests ? random.pick([3, 20, 20, 20]) : 10,
    openRequestsPerJidMax: hasRequests ? random.pick([2, 20, 20]) : 10,
    pingTimeoutMs: 3_000,
    pingIntervalMs: 10_000,
    software: { name: 'XMQ', version: '0.0.0' },
    durability,
    bodyBytesMax: 8 * 1024 * 1024,
    storingBytesMax: random.pick([2_000, 64 * 1024 * 1024]),
    overload: OVERLOAD_DEFAULTS,
  }
}

/** The rules of one SDK process. @param credit 0 for a producer @param dedupeMs of the queue */
export function sessionRules(random: Random, queue: string, credit: number, dedupeMs: number): SessionRules {
  return {
    queue,
    domain: 'localhost',
    mode: random.pick(['auto', 'reliable']),
    ttlSeconds: 20,
    backoffMs: { base: 100, max: 2_000 },
    answerTimeoutMs: random.pick([1_500, 5_000]),
    silenceMs: 6_000,
    leaveTimeoutMs: 2_000,
    pendingMax: 1_000,
    pendingBytesMax: 1_000_000,
    publishTimeoutMs: 30_000,
    dedupeWindowMs: dedupeMs,
    credit,
    workerInfo: undefined,
  }
}
