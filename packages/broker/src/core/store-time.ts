/**
 * Owner of what time ends in the store: leases, delays, ttls. The store lists what is over; here is decided what becomes of it.
 *
 *     soon --> deadline --> due --> operations --> their answers --> due again, or a deadline
 *
 * | over | then |
 * |---|---|
 * | a lease that was received | a failure: again later, or dead |
 * | a lease that was not received, or is of an earlier life | READY, no failure counted |
 * | one whose worker cannot be heard (absences.ts) | LEASED: it goes on |
 * | a delay | READY |
 * | a ttl | DEAD(`expired`) |
 *
 * Invariants:
 * 1. One `due` is open at a time; the next one is asked when what the last one listed is settled.
 * 2. The deadline is set, or a `due` is open.
 */
import type { DueItem, EntryHead, StoreOp, StoreResult } from '../store/port.ts'
import { createDeadline, type Deadline, type Deadlines } from './deadlines.ts'
import type { Leases } from './leases.ts'
import type { Line } from './lines.ts'
import type { Queues } from './queues.ts'
import type { Step } from './step.ts'
import { STORE_RETRY_MS, type StoreCalls } from './store-calls.ts'

/** So many are asked for at once. */
const DUE_MAX = 500
/** Without any hint, the store is asked again after this. */
const DUE_INTERVAL_MS = 60_000
/** Dead letters are trimmed so soon after one came, and so often without. */
const TRIM_SOON_MS = 1000
const TRIM_INTERVAL_MS = 3_600_000
const TRIM_MAX = 500

/** What {@link StoreTime} needs. */
export interface StoreTimeOptions {
  readonly queues: Queues
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  readonly leases: () => Leases
}

/** See the top of this file. */
export class StoreTime {
  readonly #options: StoreTimeOptions
  readonly #deadline: Deadline = createDeadline({ kind: 'store-due' })
  #isAsking = false
  #soonest = Number.POSITIVE_INFINITY

  constructor(options: StoreTimeOptions) {
    this.#options = options
  }

  /** Something will be over at that instant. */
  soon(at: number): void {
    if (at >= this.#soonest) return
    this.#soonest = at
    if (!this.#isAsking) this.#options.deadlines.set(this.#deadline, at)
  }

  /** Asks what is over. */
  ask(step: Step): void {
    if (this.#isAsking) return
    this.#isAsking = true
    this.#soonest = Number.POSITIVE_INFINITY
    const askedAt = step.now
    this.#options.calls.due(DUE_MAX, (later, answer) => {
      if (answer.status === 'unavailable') {
        this.#rest(later.now + STORE_RETRY_MS)
        return
      }
      const { items, nextAt } = answer
      const wholeNext = nextAt === undefined ? later.now + DUE_INTERVAL_MS : Math.ceil(nextAt)
      const ops = this.#ops(later, items, askedAt)
      if (ops.length === 0) {
        this.#rest(Math.max(wholeNext, later.now + (items.length === 0 ? 0 : STORE_RETRY_MS)))
        return
      }
      this.#options.calls.apply(ops, (done, results) => {
        this.#tell(done, ops, results)
        const isUnavailable = results[0]?.status === 'unavailable'
        this.#rest(isUnavailable ? done.now + STORE_RETRY_MS : items.length >= DUE_MAX ? done.now : wholeNext)
      })
    })
  }

  /** Entries that a claim found expired. */
  expire(heads: readonly EntryHead[]): void {
    const ops = heads.map((head): StoreOp => expireOp(head))
    this.#options.calls.apply(ops, (step, results) => this.#tell(step, ops, results))
  }

  /** A message has died in a line: its dead letters are looked at soon. */
  diedIn(step: Step, line: Line): void {
    if (line.trim.slot !== -1 && line.trim.at <= step.now + TRIM_SOON_MS) return
    this.#options.deadlines.set(line.trim, step.now + TRIM_SOON_MS)
  }

  /** Drops the dead letters of a line that are beyond the bounds. */
  trim(step: Step, line: Line): void {
    const { queue, id } = line
    if (queue.lines.get(id) !== line) return
    const { deadMs, deadMax, deadBytesMax } = queue.rules.reliable
    const op = {
      type: 'trim-dead',
      queue: queue.address,
      subscription: id,
      maxCount: deadMax,
      maxBytes: deadBytesMax,
      diedBefore: step.now - deadMs,
      max: TRIM_MAX,
    } as const
    this.#options.deadlines.set(line.trim, step.now + TRIM_INTERVAL_MS)
    this.#options.calls.apply([op], (later, [result]) => {
      if (result?.status !== 'ok' || result.type !== 'trim-dead' || result.dropped.length === 0) return
      later.emit({ name: 'dropped', queue: queue.address, what: 'dead-letter', count: result.dropped.length })
      // More may die in a second than are dropped at once.
      if (result.dropped.length >= TRIM_MAX) this.#options.deadlines.set(line.trim, later.now)
    })
  }

  #rest(at: number): void {
    this.#isAsking = false
    this.#soonest = Math.min(this.#soonest, at)
    this.#options.deadlines.set(this.#deadline, this.#soonest)
  }

  #ops(step: Step, items: readonly DueItem[], askedAt: number): StoreOp[] {
    const ops: StoreOp[] = []
    const seen = new Set<string>()
    for (const what of ['ttl', 'delay', 'lease'] as const) {
      for (const item of items) {
        if (item.what !== what) continue
        const { entry } = item
        const key = `${entry.queue}\n${entry.subscription}\n${entry.seq}`
        // One that is over as a delay and as a ttl is over.
        if (seen.has(key)) continue
        seen.add(key)
        const op = this.#op(step, item, askedAt)
        if (op !== undefined) ops.push(op)
      }
    }
    return ops
  }

  #op(step: Step, { what, entry }: DueItem, askedAt: number): StoreOp | undefined {
    if (what === 'ttl') return expireOp(entry)
    const { queue, subscription, seq } = entry
    if (what === 'delay') return { type: 'ready', queue, subscription, seq }
    return this.#options.leases().over(step, entry, askedAt)
  }

  #tell(step: Step, ops: readonly StoreOp[], results: readonly StoreResult[]): void {
    this.#options.leases().applied(step, ops, results)
  }
}

function expireOp({ queue, subscription, seq }: EntryHead): StoreOp {
  return { type: 'expire', queue, subscription, seq, why: 'Its time to live was over.' }
}
