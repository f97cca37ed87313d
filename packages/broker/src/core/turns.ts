/**
 * Whose turn it is in one topic: whoever has waited longest since its last turn.
 *
 * `ready` holds the subscriptions that may get the next message (load at most 90, session not in doubt), `doubted` those
 * whose session is being verified: they are served only when nobody is ready. A subscription that is put aside and comes
 * back has kept its place, so that neither load nor doubt costs or wins a turn.
 *
 * Owner: the topic. Everything costs O(log n) in the topic's own subscriptions: publishing never scans.
 *
 * Invariants:
 * 1. A subscription is in `ready`, in `doubted` or in neither, as its `rank` says.
 * 2. Between two turns of a subscription every other one that was ready all the while had one.
 */
import { Heap } from './heap.ts'
import type { Subscription } from './records.ts'

/** Where a subscription stands; `aside`: it gets nothing. */
export type TurnRank = 'ready' | 'doubted' | 'aside'

/** See the top of this file. */
export class Turns {
  readonly #ready: Heap<Subscription> = new Heap(isBefore)
  readonly #doubted: Heap<Subscription> = new Heap(isBefore)
  #turn = 0

  /** Gives a new subscription its first place: the last one. It is still `aside`. */
  enter(subscription: Subscription): void {
    subscription.turn = ++this.#turn
  }

  /** Moves a subscription; it keeps its place. */
  rank(subscription: Subscription, rank: TurnRank): void {
    if (subscription.rank === rank) return
    this.#heap(subscription.rank)?.remove(subscription)
    subscription.rank = rank
    this.#heap(rank)?.add(subscription)
  }

  /**
   * Whose turn it is, or `undefined` when there is nobody; its next turn is after everyone else's.
   * @param tried full JIDs to pass over, a few; they keep their place
   */
  take(tried?: ReadonlySet<string>): Subscription | undefined {
    return this.#takeFrom(this.#ready, tried) ?? this.#takeFrom(this.#doubted, tried)
  }

  /** Everyone who may get a message. Nobody may be moved meanwhile. */
  forEach(visit: (subscription: Subscription) => void): void {
    for (const subscription of this.#ready.members) visit(subscription)
    for (const subscription of this.#doubted.members) visit(subscription)
  }

  #takeFrom(heap: Heap<Subscription>, tried: ReadonlySet<string> | undefined): Subscription | undefined {
    const passedOver: Subscription[] = []
    let { first } = heap
    while (first !== undefined && tried?.has(first.consumer.session.jid) === true) {
      heap.remove(first)
      passedOver.push(first)
      first = heap.first
    }
    for (const subscription of passedOver) heap.add(subscription)
    if (first === undefined) return undefined
    first.turn = ++this.#turn
    heap.settle(first)
    return first
  }

  #heap(rank: TurnRank): Heap<Subscription> | undefined {
    if (rank === 'aside') return undefined
    return rank === 'ready' ? this.#ready : this.#doubted
  }
}

function isBefore(left: Subscription, right: Subscription): boolean {
  return left.turn < right.turn
}
