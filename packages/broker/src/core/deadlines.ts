/**
 * Everything that waits for time: one binary heap of absolute instants.
 *
 * Owner: the core. Whoever owns the thing that waits owns its `Deadline` and is the only one to set or clear it.
 *
 * Invariants:
 * 1. A deadline is in the heap exactly while its `slot` is not -1, and `heap[deadline.slot] === deadline`.
 * 2. No deadline in the heap is before its parent; of two at the same instant the one set first comes first.
 */
import type { OpenRequest, Session, Subscription } from './records.ts'

/** What is to be done when a deadline has come. */
export type DeadlineSubject =
  | { readonly kind: 'expiry'; readonly subscription: Subscription }
  | { readonly kind: 'request-timeout'; readonly request: OpenRequest }
  | { readonly kind: 'ping-due'; readonly session: Session }
  | { readonly kind: 'ping-timeout'; readonly session: Session }

/** One thing that waits. Only {@link Deadlines} writes `at`, `order` and `slot`. */
export interface Deadline {
  readonly subject: DeadlineSubject
  at: number
  order: number
  slot: number
}

/** A deadline that is not set yet. */
export function createDeadline(subject: DeadlineSubject): Deadline {
  return { subject, at: 0, order: 0, slot: -1 }
}

/** The heap. Setting, moving and clearing cost O(log n). */
export class Deadlines {
  readonly #heap: Deadline[] = []
  #orders = 0

  /** The earliest instant, or `undefined` when nothing waits. */
  get earliest(): number | undefined {
    return this.#heap[0]?.at
  }

  /** Sets a deadline, or moves one that is set. */
  set(deadline: Deadline, at: number): void {
    deadline.at = at
    deadline.order = this.#orders++
    if (deadline.slot === -1) {
      deadline.slot = this.#heap.length
      this.#heap.push(deadline)
    }
    this.#settle(deadline)
  }

  /** Clears a deadline; one that is not set is left alone. */
  clear(deadline: Deadline): void {
    const { slot } = deadline
    if (slot === -1) return
    deadline.slot = -1
    const last = this.#heap.pop() as Deadline
    if (last === deadline) return
    last.slot = slot
    this.#heap[slot] = last
    this.#settle(last)
  }

  /** Takes out the earliest deadline that has come, or `undefined` when none has. */
  takeDue(now: number): Deadline | undefined {
    const first = this.#heap[0]
    if (first === undefined || first.at > now) return undefined
    this.clear(first)
    return first
  }

  #settle(deadline: Deadline): void {
    this.#rise(deadline)
    this.#sink(deadline)
  }

  #rise(deadline: Deadline): void {
    while (deadline.slot > 0) {
      const parent = this.#heap[(deadline.slot - 1) >> 1] as Deadline
      if (!isBefore(deadline, parent)) return
      this.#swap(deadline, parent)
    }
  }

  #sink(deadline: Deadline): void {
    for (;;) {
      const left = this.#heap[deadline.slot * 2 + 1]
      if (left === undefined) return
      const right = this.#heap[deadline.slot * 2 + 2]
      const child = right !== undefined && isBefore(right, left) ? right : left
      if (!isBefore(child, deadline)) return
      this.#swap(child, deadline)
    }
  }

  #swap(left: Deadline, right: Deadline): void {
    const slot = left.slot
    left.slot = right.slot
    right.slot = slot
    this.#heap[left.slot] = left
    this.#heap[right.slot] = right
  }
}

function isBefore(left: Deadline, right: Deadline): boolean {
  return left.at < right.at || (left.at === right.at && left.order < right.order)
}
