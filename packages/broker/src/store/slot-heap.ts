/**
 * A binary heap whose members remember their place in a field of their own, so that any can be taken out in O(log n), and so
 * that one object can be in several heaps at once, each with its field.
 *
 * Invariants:
 * 1. `member[field]` is the member's place while it is in the heap of that field, and -1 while it is in none.
 * 2. No member is before its parent.
 */
export class SlotHeap<Field extends string, M extends Record<Field, number>> {
  readonly #members: M[] = []
  readonly #field: Field
  readonly #isBefore: (left: M, right: M) => boolean

  /** @param isBefore a strict order that does not change while a member is inside */
  constructor(field: Field, isBefore: (left: M, right: M) => boolean) {
    this.#field = field
    this.#isBefore = isBefore
  }

  get size(): number {
    return this.#members.length
  }

  get first(): M | undefined {
    return this.#members[0]
  }

  add(member: M): void {
    this.#members.push(member)
    this.#rise(member, this.#members.length - 1)
  }

  remove(member: M): void {
    const place = member[this.#field]
    this.#place(member, -1)
    const last = this.#members.pop() as M
    if (last === member) return
    this.#rise(last, place)
    this.#sink(last, last[this.#field])
  }

  /** The first members in order, as long as `isWanted` and at most `max`. They stay inside. */
  list(max: number, isWanted: (member: M) => boolean): M[] {
    const listed: M[] = []
    for (let first = this.first; first !== undefined && listed.length < max && isWanted(first); first = this.first) {
      this.remove(first)
      listed.push(first)
    }
    for (const member of listed) this.add(member)
    return listed
  }

  #place(member: M, place: number): void {
    ;(member as Record<Field, number>)[this.#field] = place
    if (place !== -1) this.#members[place] = member
  }

  #rise(member: M, from: number): void {
    let place = from
    while (place > 0) {
      const parentPlace = (place - 1) >> 1
      const parent = this.#members[parentPlace] as M
      if (!this.#isBefore(member, parent)) break
      this.#place(parent, place)
      place = parentPlace
    }
    this.#place(member, place)
  }

  #sink(member: M, from: number): void {
    let place = from
    for (;;) {
      const left = this.#members[place * 2 + 1]
      if (left === undefined) break
      const right = this.#members[place * 2 + 2]
      const isRight = right !== undefined && this.#isBefore(right, left)
      const child = isRight ? right : left
      if (!this.#isBefore(child, member)) break
      this.#place(child, place)
      place = place * 2 + (isRight ? 2 : 1)
    }
    this.#place(member, place)
  }
}
