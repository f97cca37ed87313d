/**
 * Everything that waits for time: one heap of absolute instants.
 *
 * Owner: the core. Whoever owns the thing that waits owns its `Deadline` and is the only one to set or clear it.
 * Of two at the same instant the one that was set first comes first.
 */
import { Heap, type HeapMember } from './heap.ts'
import type { Line } from './lines.ts'
import type { Absence, Consumer, OpenRequest, Queue, Session, Subscription } from './records.ts'

/** What is to be done when a deadline has come. */
export type DeadlineSubject =
  | { readonly kind: 'expiry'; readonly subscription: Subscription }
  | { readonly kind: 'request-timeout'; readonly request: OpenRequest }
  | { readonly kind: 'ping-due'; readonly session: Session }
  | { readonly kind: 'ping-timeout'; readonly session: Session }
  /** A line whose claim the store did not answer is tried again. */
  | { readonly kind: 'claim-again'; readonly line: Line }
  /** Something in the store is over. */
  | { readonly kind: 'store-due' }
  /** Dead letters are trimmed. */
  | { readonly kind: 'trim-dead'; readonly line: Line }
  /** What the store holds of a queue is looked through again: it did not answer. */
  | { readonly kind: 'load-again'; readonly queue: Queue }
  /** Who is connected is written down. */
  | { readonly kind: 'remember'; readonly queue: Queue }
  /** What the store has not heard is said again. */
  | { readonly kind: 'say-again' }
  /** A deliver stanza with messages of ephemeral subscriptions lacks its answer. */
  | { readonly kind: 'unanswered'; readonly consumer: Consumer; readonly id: string }
  /** What an earlier life has leased is over. */
  | { readonly kind: 'found-over'; readonly queue: Queue }
  /** A worker that was found gone after its stream broke had its time to come back. */
  | { readonly kind: 'absence-over'; readonly absence: Absence }

/** One thing that waits. Only {@link Deadlines} writes it. */
export interface Deadline extends HeapMember {
  readonly subject: DeadlineSubject
  at: number
  order: number
}

/** A deadline that is not set yet. */
export function createDeadline(subject: DeadlineSubject): Deadline {
  return { subject, at: 0, order: 0, slot: -1 }
}

/** See the top of this file. Setting, moving and clearing cost O(log n). */
export class Deadlines {
  readonly #heap: Heap<Deadline> = new Heap(isBefore)
  #orders = 0

  /** The earliest instant, or `undefined` when nothing waits. */
  get earliest(): number | undefined {
    return this.#heap.first?.at
  }

  /** Sets a deadline, or moves one that is set. */
  set(deadline: Deadline, at: number): void {
    deadline.at = at
    deadline.order = this.#orders++
    if (deadline.slot === -1) this.#heap.add(deadline)
    else this.#heap.settle(deadline)
  }

  /** Clears a deadline; one that is not set is left alone. */
  clear(deadline: Deadline): void {
    if (deadline.slot !== -1) this.#heap.remove(deadline)
  }

  /** Takes out the earliest deadline that has come, or `undefined` when none has. */
  takeDue(now: number): Deadline | undefined {
    const { first } = this.#heap
    if (first === undefined || first.at > now) return undefined
    this.#heap.remove(first)
    return first
  }
}

function isBefore(left: Deadline, right: Deadline): boolean {
  return left.at < right.at || (left.at === right.at && left.order < right.order)
}
