/**
 * A binary heap whose members know where they are, so that any of them can be moved or taken out in O(log n).
 *
 * Invariants:
 * 1. A member is in at most one heap of its kind, exactly while its `slot` is not -1, and `members[member.slot] === member`.
 * 2. No member is before its parent.
 */

/** What can be in a heap. Only the heap writes `slot`; it is -1 outside. */
export interface HeapMember {
  slot: number
}

/** See the top of this file. */
export class Heap<M extends HeapMember> {
  readonly #members: M[] = []
  readonly #isBefore: (left: M, right: M) => boolean

  /** @param isBefore a strict order; it may change for one member only, and then {@link settle} is called */
  constructor(isBefore: (left: M, right: M) => boolean) {
    this.#isBefore = isBefore
  }

  get size(): number {
    return this.#members.length
  }

  /** The first member. */
  get first(): M | undefined {
    return this.#members[0]
  }

  /** All members, in no order. */
  get members(): readonly M[] {
    return this.#members
  }

  /** Adds a member that is in no heap. */
  add(member: M): void {
    member.slot = this.#members.length
    this.#members.push(member)
    this.#rise(member)
  }

  /** Removes a member of this heap. */
  remove(member: M): void {
    const { slot } = member
    member.slot = -1
    const last = this.#members.pop() as M
    if (last === member) return
    last.slot = slot
    this.#members[slot] = last
    this.settle(last)
  }

  /** Puts a member where it belongs after its order has changed. */
  settle(member: M): void {
    this.#rise(member)
    this.#sink(member)
  }

  #rise(member: M): void {
    while (member.slot > 0) {
      const parent = this.#members[(member.slot - 1) >> 1] as M
      if (!this.#isBefore(member, parent)) return
      this.#swap(member, parent)
    }
  }

  #sink(member: M): void {
    for (;;) {
      const left = this.#members[member.slot * 2 + 1]
      if (left === undefined) return
      const right = this.#members[member.slot * 2 + 2]
      const child = right !== undefined && this.#isBefore(right, left) ? right : left
      if (!this.#isBefore(child, member)) return
      this.#swap(child, member)
    }
  }

  #swap(left: M, right: M): void {
    const { slot } = left
    left.slot = right.slot
    right.slot = slot
    this.#members[left.slot] = left
    this.#members[right.slot] = right
  }
}
