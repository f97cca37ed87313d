/**
 * Members in order, most of which come in that order: those are a list, which costs the same however long it gets; the others are in a heap.
 * As in {@link SlotHeap}, members remember their place in a field of their own, and any can be taken out.
 *
 * Owns the list with its holes, and the heap.
 *
 * Invariants:
 * 1. `member[field]` is -1 while the member is not inside, its place in the heap, or -2 minus its place in the list.
 * 2. The list ascends, and ends with a member. All before `#head` are holes; `#head` is a member, or the list is empty.
 * 3. At most half of the list are holes, and a few.
 */
import { SlotHeap } from './slot-heap.ts'

/** Holes that are no reason to make the list anew. */
const HOLES_MIN = 64

export class SlotQueue<Field extends string, M extends Record<Field, number>> {
  readonly #field: Field
  readonly #isBefore: (left: M, right: M) => boolean
  #list: (M | undefined)[] = []
  #head = 0
  #holes = 0
  #late: SlotHeap<Field, M> | undefined

  /** @param isBefore a strict order that does not change while a member is inside */
  constructor(field: Field, isBefore: (left: M, right: M) => boolean) {
    this.#field = field
    this.#isBefore = isBefore
  }

  get size(): number {
    return this.#list.length - this.#holes + (this.#late?.size ?? 0)
  }

  get first(): M | undefined {
    return this.#before(this.#list[this.#head], this.#late?.first)
  }

  add(member: M): void {
    const last = this.#list.at(-1)
    if (last !== undefined && this.#isBefore(member, last)) {
      this.#late ??= new SlotHeap(this.#field, this.#isBefore)
      this.#late.add(member)
    } else this.#place(member, -2 - (this.#list.push(member) - 1))
  }

  remove(member: M): void {
    const slot = member[this.#field]
    if (slot >= 0) {
      this.#late?.remove(member)
      return
    }
    this.#place(member, -1)
    this.#list[-2 - slot] = undefined
    this.#holes += 1
    for (; this.#list.length > 0 && this.#list.at(-1) === undefined; this.#holes--) this.#list.pop()
    while (this.#head < this.#list.length && this.#list[this.#head] === undefined) this.#head += 1
    if (this.#list.length === 0) this.#head = 0
    if (this.#holes > HOLES_MIN && this.#holes * 2 > this.#list.length) this.#close()
  }

  /** The members in order. Nothing may be added or removed meanwhile; each counts only as far as it was asked for. */
  *inOrder(): Generator<M, void, undefined> {
    const taken: M[] = []
    const late = this.#late
    try {
      for (let place = this.#head; ; ) {
        while (place < this.#list.length && this.#list[place] === undefined) place += 1
        const next = this.#before(this.#list[place], late?.first)
        if (next === undefined) return
        yield next
        if (next[this.#field] < 0) place += 1
        else {
          late?.remove(next)
          taken.push(next)
        }
      }
    } finally {
      for (const member of taken) late?.add(member)
    }
  }

  #before(one: M | undefined, other: M | undefined): M | undefined {
    if (one === undefined || other === undefined) return one ?? other
    return this.#isBefore(other, one) ? other : one
  }

  /** Makes the list anew, without holes. */
  #close(): void {
    const list: M[] = []
    for (const member of this.#list) if (member !== undefined) this.#place(member, -2 - (list.push(member) - 1))
    this.#list = list
    this.#head = 0
    this.#holes = 0
  }

  #place(member: M, slot: number): void {
    ;(member as Record<Field, number>)[this.#field] = slot
  }
}
