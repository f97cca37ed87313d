/**
 * Owner of what the store has not heard: which messages were done with, while it did not answer. Nobody says it again where it had
 * ridden on the answer to a delivery, or was the answer to a ping; and a worker that repeats its ack may be later than the end of its
 * lease. Either way work that was done would be done again.
 *
 *     operation --unavailable--> kept --a moment--> store --done, or void--> forgotten
 *                                  | ^------------------unavailable--'
 *                                  +-- its lease is over: done in place of what would end it
 *                                  '-- its lease is named anew -----------> forgotten: the later word counts
 *
 * Invariants:
 * 1. What is kept is of a lease that `leases` does not have, and at most one operation of each and its holder: who knows somebody else's
 *    token changes nothing.
 * 2. One try is open at a time, of at most {@link TRY_OPS} operations; they go in the order in which they came.
 * 3. At most {@link UNHEARD_MAX} are kept; the oldest give way, but not to what may be made up. Their leases end by their time.
 */
import type { AckOp, DeadOp, StoreOp, StoreResult } from '../store/port.ts'
import { createDeadline, type Deadline, type Deadlines } from './deadlines.ts'
import type { LeaseEnd } from './port.ts'
import type { Step } from './step.ts'
import { STORE_RETRY_MS, type StoreCalls } from './store-calls.ts'

/** Most operations that are kept. */
const UNHEARD_MAX = 65_536
const TRY_OPS = 500

/** An ack, or a worker's reject. */
export type FinalOp = AckOp | DeadOp

/** What {@link Unheard} needs. */
export interface UnheardOptions {
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  /** Looks at what operations have come to. */
  readonly onApplied: (step: Step, ops: readonly StoreOp[], results: readonly StoreResult[]) => void
}

interface Kept {
  readonly op: FinalOp
  /** What is told when it is done; undefined: it was told before. */
  readonly outcome: LeaseEnd | undefined
}

/** Whether an operation says that a message was done with. */
export function isFinal(op: StoreOp): op is FinalOp {
  return op.type === 'ack' || (op.type === 'dead' && op.holder !== undefined)
}

/** @param holder undefined: the core's own word */
function keyOf(token: string, holder: string | undefined): string {
  return `${token} ${holder ?? ''}`
}

/** See the top of this file. */
export class Unheard {
  readonly #options: UnheardOptions
  readonly #again: Deadline = createDeadline({ kind: 'say-again' })
  /** By holder and token. Made anew when it is empty: what a long trouble left in it would be kept in its table. */
  #kept: Map<string, Kept> = new Map()
  #isTrying = false
  /** What was on its way in a step. */
  readonly #asked: WeakMap<Step, ReadonlySet<string>> = new WeakMap()

  constructor(options: UnheardOptions) {
    this.#options = options
  }

  /** Operations that are kept. */
  get count(): number {
    return this.#kept.size
  }

  /**
   * The store did not answer to an operation.
   * @param isKnown whether there was such a lease; else it may be one of an earlier life, or nothing
   * @param outcome what is told when it is done
   */
  keep(step: Step, op: FinalOp, isKnown: boolean, outcome?: LeaseEnd): void {
    const key = keyOf(op.token, op.holder)
    this.#kept.delete(key)
    if (this.#kept.size >= UNHEARD_MAX) {
      if (!isKnown) return
      const [oldest] = this.#kept.keys()
      if (oldest !== undefined) this.#kept.delete(oldest)
    }
    this.#kept.set(key, { op, outcome })
    if (this.#again.slot === -1) this.#options.deadlines.set(this.#again, step.now + STORE_RETRY_MS)
  }

  /** What was said of a lease, if the store has not heard it; `'asked'` while it is on its way there. @param holder who has it */
  find(step: Step, token: string, holder: string | undefined): FinalOp | 'asked' | undefined {
    const asked = this.#askedIn(step)
    const keys = [keyOf(token, holder), keyOf(token, undefined)]
    if (keys.some((key) => asked.has(key))) return 'asked'
    for (const key of keys) {
      const kept = this.#kept.get(key)
      if (kept !== undefined) return kept.op
    }
    return undefined
  }

  /** What is on its way: looked up once in a step, which may ask of many leases. */
  #askedIn(step: Step): ReadonlySet<string> {
    const known = this.#asked.get(step)
    if (known !== undefined) return known
    const keys = new Set<string>()
    this.#options.calls.forEachOpen((op) => {
      if (isFinal(op)) keys.add(keyOf(op.token, op.holder))
    })
    this.#asked.set(step, keys)
    return keys
  }

  /** Its holder names a lease anew. */
  forget(token: string, holder: string): void {
    if (this.#kept.size > 0) this.#kept.delete(keyOf(token, holder))
  }

  /** Says it all again, as far as the store answers. */
  sayAgain(): void {
    if (this.#isTrying || this.#kept.size === 0) return
    const tried: Kept[] = []
    for (const kept of this.#kept.values()) {
      tried.push(kept)
      if (tried.length >= TRY_OPS) break
    }
    const ops = tried.map(({ op }) => op)
    this.#isTrying = true
    this.#options.calls.apply(ops, (later, results) => {
      this.#isTrying = false
      this.#tried(later, tried, results)
      this.#options.onApplied(later, ops, results)
      if (results.every(({ status }) => status !== 'unavailable')) this.sayAgain()
      else this.#options.deadlines.set(this.#again, later.now + STORE_RETRY_MS)
    })
  }

  #tried(step: Step, tried: readonly Kept[], results: readonly StoreResult[]): void {
    for (const [at, kept] of tried.entries()) {
      const { op, outcome } = kept
      const status = results[at]?.status
      if (status === 'unavailable') continue
      const key = keyOf(op.token, op.holder)
      if (this.#kept.get(key) === kept) this.#kept.delete(key)
      if (status === 'ok' && outcome !== undefined) {
        step.emit({ name: 'settled', queue: op.queue, outcome, count: 1 })
      }
    }
    if (this.#kept.size === 0) this.#kept = new Map()
  }
}
