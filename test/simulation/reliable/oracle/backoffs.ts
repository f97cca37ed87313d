/**
 * How long what failed has to wait.
 *
 * 1. A worker's nack waits for as long as it asked for. Without a delay it waits for part of a bound that doubles with each failure,
 *    and not for nothing each time.
 *
 * Owner: the oracle.
 */
import type { ReliableRules } from '../../../../packages/broker/src/core/port.ts'
import type { NackOp } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'

/** Of a millisecond among hundreds: so many waits of nothing in a row are no chance. */
const NO_WAITS_MAX = 5

/** See the top of this file. */
export class Backoffs {
  readonly #rules: ReliableRules
  /** Of each holder and token: the delays that it asked for, in ms; `undefined`: it did not say. */
  readonly #delays = new Map<string, Set<number | undefined>>()
  #noWaits = 0

  constructor(rules: ReliableRules) {
    this.#rules = rules
  }

  /** A nack arrived. @param delay seconds, as it was written */
  asked(holder: string, token: string, delay: string | undefined): void {
    const name = `${holder} ${token}`
    const delays = this.#delays.get(name) ?? new Set()
    this.#delays.set(name, delays.add(delay === undefined ? undefined : Number(delay) * 1000))
  }

  /** A nack leaves the core: a worker's (it names the holder), or the core's own, which may be one that it repeats. */
  check({ seq, token, holder, at, failures }: NackOp, now: number): void {
    const waitMs = (at ?? now) - now
    const { backoffMs, backoffMaxMs } = this.#rules
    const bound = Math.min(backoffMaxMs, backoffMs * 2 ** (failures - 1))
    const delays = holder === undefined ? undefined : this.#delays.get(`${holder} ${token}`)
    if (delays?.has(waitMs) === true) return
    if (delays !== undefined && !delays.has(undefined)) {
      throw new Violation(`${seq} waits for ${waitMs} ms, not for ${[...delays].join(' or ')}`)
    }
    if (waitMs > bound) throw new Violation(`${seq} waits for ${waitMs} ms after ${failures} failures`)
    if (delays === undefined) return
    this.#noWaits = waitMs === 0 ? this.#noWaits + 1 : 0
    if (waitMs < 0 || this.#noWaits > NO_WAITS_MAX) throw new Violation(`${seq} does not wait after a failure`)
  }
}
