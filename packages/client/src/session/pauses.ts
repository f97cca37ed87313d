/**
 * Pauses after refusals. Owner: whoever sends again (outbox, settlements).
 *
 *     fine --failed--> paused --pause over--> doubtful --succeeded--> fine
 *                                             doubtful --failed--> paused, for longer
 *
 * Invariants:
 * 1. A pause is never shorter than what the queue asked for (`retry-after`), up to RETRY_AFTER_MAX_MS and what 3 says.
 * 2. Half of it is fixed, half at random: nobody asks in a tight loop, and not all at once.
 * 3. Where leases end meanwhile, a pause is a sixth of one at most, or a third where the queue asked for it: the last third of a lease,
 *    in which it is extended, has room for two tries.
 */
import type { XmqError } from '@xmq/protocol'
import type { Entropy } from './port.ts'

const RETRY_AFTER_MAX_MS = 300_000
const AWAY_MAX_MS = 2000

/** Counts failures and tells how long to wait. */
export class Pauses {
  readonly #limits: { readonly baseMs: number; readonly maxMs: number }
  #failures = 0
  #until = 0

  constructor(limits: { readonly baseMs: number; readonly maxMs: number }) {
    this.#limits = limits
  }

  isPaused(now: number): boolean {
    return now < this.#until
  }

  /** Whether the last try failed. */
  get isDoubtful(): boolean {
    return this.#failures > 0
  }

  /** @param leaseMs how long the leases are that end meanwhile @returns when to try again */
  failed(error: XmqError, now: number, entropy: Entropy, leaseMs: number = Number.POSITIVE_INFINITY): number {
    const { baseMs } = this.#limits
    // A broker that is away serves at once when it is back; one that sheds load does not.
    const isAway = !error.fromBroker && NOBODY_THERE.has(error.condition)
    const maxMs = isAway ? Math.min(AWAY_MAX_MS, this.#limits.maxMs) : this.#limits.maxMs
    const ceiling = Math.min(maxMs, leaseMs / 6, baseMs * 2 ** Math.min(this.#failures, 20))
    this.#failures++
    const drawn = (ceiling / 2) * (1 + entropy.unit())
    const asked = Math.min((error.retryAfterSeconds ?? 0) * 1000, RETRY_AFTER_MAX_MS)
    // What was asked for is spread, too: everybody was told the same.
    const spread = Math.min(asked * (1 + entropy.unit() / 4), leaseMs / 3)
    this.#until = Math.max(this.#until, now + Math.max(drawn, spread))
    return this.#until
  }

  succeeded(): void {
    this.#failures = 0
  }

  /** The cause of the pause is gone. */
  over(): void {
    this.#until = 0
    this.#failures = 0
  }
}

/** Conditions by which a server says that an address is not served. */
export const NOBODY_THERE: ReadonlySet<string> = new Set([
  'gone',
  'item-not-found',
  'recipient-unavailable',
  'remote-server-not-found',
  'remote-server-timeout',
  'service-unavailable',
])

/**
 * Whether the same again cannot go better: the broker refused it for what it is. A server that answers in place of a broker
 * (`service-unavailable` and its like) says only that the broker is away.
 */
export function isHopeless(error: XmqError): boolean {
  if (error.type === 'wait') return false
  return error.fromBroker || !NOBODY_THERE.has(error.condition)
}
