/**
 * How long a client is not read that goes on writing although it is told to wait. Owner: its connection. Pure: `now` is given, in
 * milliseconds of a clock that nobody sets.
 *
 *     refusal with `wait` --> 1000 / perSecond ms owed --as time goes by--> nothing owed
 *                             beyond BURST_MS: not read until no more than that is owed
 *
 * What it may ask from then on is counted by the answer window.
 *
 * So a client of which each stanza is taken is never held, however fast it writes; one that stops when it is told to is not held when it
 * writes again; one that does not is read as far as `perSecond` of its stanzas are refused in a second.
 *
 * Invariants:
 * 1. Nobody is held for more than {@link HOLD_MS_MAX} after the last refusal: a broker tells nobody to wait for less.
 * 2. A second's worth of refusals holds nobody: what was on its way when the first of them was told.
 */

/** So much of what refusals cost may be owed before it holds. */
const BURST_MS = 1000
/** The longest time from a refusal until the client is read again. */
export const HOLD_MS_MAX = 1000

export class Tarpit {
  readonly #costMs: number
  /** When nothing is owed any more. */
  #paidAt = 0

  /** @param perSecond refusals; Infinity holds nobody */
  constructor(perSecond: number) {
    this.#costMs = 1000 / perSecond
  }

  /** Whether more is owed than may be. */
  isHolding(now: number): boolean {
    return this.#paidAt - now - BURST_MS >= 1
  }

  /** The client was told to wait. @returns milliseconds from now on that it is not to be read, 0 for none */
  refused(now: number): number {
    this.#paidAt = Math.min(Math.max(this.#paidAt, now) + this.#costMs, now + BURST_MS + HOLD_MS_MAX)
    return Math.max(0, this.#paidAt - now - BURST_MS)
  }
}
