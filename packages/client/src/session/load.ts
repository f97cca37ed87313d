/** Load: what a worker tells the queue about how full it is, 0 to 100. Pure. docs/protocol.md "Load". */
import { LOAD_ELIGIBLE_MAX } from '@xmq/protocol'

/** Below this load a worker that was full says at once that it is not any more. */
const LOAD_RELIEVED_MAX = 75
/** Least time between two reports of being full. */
const LOAD_REPORT_MS = 1000
/** Event-loop lag that counts as full; a handler that computes for a second must not stop the queue. */
const LAG_FULL_MS = 2000

/** What a worker has to do. */
export interface Work {
  readonly running: number
  readonly waiting: number
  /** concurrency + prefetch */
  readonly capacity: number
  /** How late timers fire, in milliseconds. */
  readonly lagMs: number
}

/** The load of a worker: its share of capacity in use, raised by event-loop lag. A whole number, 0 to 100. */
export function loadOf(work: Work): number {
  const used = (100 * (work.running + work.waiting)) / work.capacity
  const lag = work.lagMs < LAG_FULL_MS / 10 ? 0 : (100 * work.lagMs) / LAG_FULL_MS
  return Math.min(100, Math.max(0, Math.round(Math.max(used, lag))))
}

/**
 * When a load has to be reported out of turn: at once when it crosses 90 upward, but at most once a second; at once when
 * it falls below 75 after that, so that a burst never costs an idle second. Both together are at most two reports a second.
 *
 *     open --load > 90, a second after the last time--> full --load < 75--> open
 */
export class LoadReports {
  #load = 0
  #full = false
  #fullAt = Number.NEGATIVE_INFINITY

  get load(): number {
    return this.#load
  }

  set load(load: number) {
    this.#load = load
  }

  /** When a report is due; `undefined` when the next renewal is soon enough. */
  due(now: number): number | undefined {
    if (this.#full) return this.#load < LOAD_RELIEVED_MAX ? now : undefined
    return this.#load > LOAD_ELIGIBLE_MAX ? Math.max(now, this.#fullAt + LOAD_REPORT_MS) : undefined
  }

  /** The load was reported, in turn or not. */
  reported(now: number): void {
    const full = this.#load > LOAD_ELIGIBLE_MAX
    if (full && !this.#full) this.#fullAt = now
    this.#full = full
  }
}
