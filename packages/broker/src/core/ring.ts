/**
 * Whose turn it is: a ring of members, of which the head is served next.
 *
 *          head
 *           v
 *     +-> [ a ] -> [ b ] -> [ c ] -+      take() serves a and moves the head to b;
 *     +----------------------------+      a new member comes in before the head: it is served last
 *
 * Owner: the topic whose subscriptions are in it. Adding, removing and taking cost O(1), so that publishing never scans.
 *
 * Invariants:
 * 1. A member is in at most one ring: the one that its `ring` names.
 * 2. Between two turns of one member every other member that stayed in the ring had one.
 */

/** What a ring strings together. Only {@link Ring} writes these fields. */
export interface RingMember<M extends RingMember<M>> {
  ring: Ring<M> | undefined
  next: M | undefined
  previous: M | undefined
}

/** See the top of this file. */
export class Ring<M extends RingMember<M>> {
  #head: M | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  /** Adds a member that is in no ring; its turn is the last. */
  add(member: M): void {
    const head = this.#head
    member.ring = this
    this.#size++
    if (head === undefined) {
      this.#head = member
      member.next = member
      member.previous = member
      return
    }
    const tail = head.previous as M
    member.next = head
    member.previous = tail
    tail.next = member
    head.previous = member
  }

  /** Removes a member of this ring. */
  remove(member: M): void {
    const next = member.next as M
    const previous = member.previous as M
    this.#size--
    if (this.#size === 0) {
      this.#head = undefined
    } else {
      previous.next = next
      next.previous = previous
      if (this.#head === member) this.#head = next
    }
    member.ring = undefined
    member.next = undefined
    member.previous = undefined
  }

  /**
   * The member whose turn it is, or `undefined` when there is none.
   *
   * @param isExcluded members to pass over; they lose this turn
   */
  take(isExcluded?: (member: M) => boolean): M | undefined {
    let member = this.#head
    for (let passed = 0; passed < this.#size && member !== undefined; passed++) {
      const next: M | undefined = member.next
      if (isExcluded === undefined || !isExcluded(member)) {
        this.#head = next
        return member
      }
      member = next
    }
    return undefined
  }

  /** Every member, from the one whose turn it is. The ring must not change meanwhile. */
  forEach(visit: (member: M) => void): void {
    let member = this.#head
    for (let visited = 0; visited < this.#size && member !== undefined; visited++) {
      visit(member)
      member = member.next
    }
  }
}
