/** What is to happen and when: a binary heap. Of two things at one instant the one added first happens first. */

interface Entry {
  readonly at: number
  readonly order: number
  readonly act: () => void
}

export class Agenda {
  readonly #heap: Entry[] = []
  #orders = 0

  /** When the next thing happens. */
  get next(): number | undefined {
    return this.#heap[0]?.at
  }

  add(at: number, act: () => void): void {
    this.#heap.push({ at, order: this.#orders++, act })
    let child = this.#heap.length - 1
    while (child > 0) {
      const parent = (child - 1) >> 1
      if (!this.#before(child, parent)) break
      this.#swap(child, parent)
      child = parent
    }
  }

  /** Takes the next thing out. */
  take(): Entry | undefined {
    const first = this.#heap[0]
    const last = this.#heap.pop()
    if (first === undefined || last === undefined || this.#heap.length === 0) return first
    this.#heap[0] = last
    for (let parent = 0; ; ) {
      const left = 2 * parent + 1
      const least = this.#before(left + 1, left) ? left + 1 : left
      if (!this.#before(least, parent)) return first
      this.#swap(least, parent)
      parent = least
    }
  }

  #before(left: number, right: number): boolean {
    const a = this.#heap[left]
    const b = this.#heap[right]
    if (a === undefined || b === undefined) return false
    return a.at < b.at || (a.at === b.at && a.order < b.order)
  }

  #swap(left: number, right: number): void {
    const a = this.#heap[left]
    const b = this.#heap[right]
    if (a === undefined || b === undefined) return
    this.#heap[left] = b
    this.#heap[right] = a
  }
}
