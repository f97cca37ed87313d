/**
 * Owner: one session. A table of absolute instants by name: a binary heap whose stale entries are skipped.
 *
 * Invariants:
 * 1. A key has at most one instant; setting it again replaces the old one.
 * 2. The heap holds each live entry once, and stale ones only until they surface or outnumber the live ones.
 */
import { YoungMap } from '@xmq/protocol'

export class Timers<Key> {
  readonly #due = new YoungMap<Key, Entry<Key>>()
  #heap: Entry<Key>[] = []

  /** Sets when `key` is due. */
  set(key: Key, at: number): void {
    const entry = { key, at }
    this.#due.set(key, entry)
    this.#heap.push(entry)
    this.#up(this.#heap.length - 1)
    if (this.#heap.length > 64 && this.#heap.length > this.#due.size * 2) this.#rebuild()
  }

  delete(key: Key): void {
    this.#due.delete(key)
  }

  clear(): void {
    this.#due.clear()
    this.#heap = []
  }

  /** The earliest instant. */
  get next(): number | undefined {
    this.#skipStale()
    return this.#heap[0]?.at
  }

  /** Takes one key that is due at `now`, the earliest first. */
  take(now: number): Key | undefined {
    this.#skipStale()
    const first = this.#heap[0]
    if (first === undefined || first.at > now) return undefined
    this.#due.delete(first.key)
    this.#pop()
    return first.key
  }

  #skipStale(): void {
    for (let first = this.#heap[0]; first !== undefined && this.#due.get(first.key) !== first; first = this.#heap[0]) {
      this.#pop()
    }
  }

  #rebuild(): void {
    // A sorted array is a heap.
    this.#heap = [...this.#due.values()].sort((a, b) => a.at - b.at)
  }

  #pop(): void {
    const last = this.#heap.pop()
    if (last === undefined || this.#heap.length === 0) return
    this.#heap[0] = last
    this.#down(0)
  }

  #up(from: number): void {
    const heap = this.#heap
    let index = from
    while (index > 0) {
      const parent = (index - 1) >> 1
      if ((heap[parent] as Entry<Key>).at <= (heap[index] as Entry<Key>).at) return
      swap(heap, index, parent)
      index = parent
    }
  }

  #down(from: number): void {
    const heap = this.#heap
    let index = from
    for (;;) {
      let least = index
      for (const child of [index * 2 + 1, index * 2 + 2]) {
        if (child < heap.length && (heap[child] as Entry<Key>).at < (heap[least] as Entry<Key>).at) least = child
      }
      if (least === index) return
      swap(heap, index, least)
      index = least
    }
  }
}

interface Entry<Key> {
  readonly key: Key
  readonly at: number
}

function swap(items: unknown[], a: number, b: number): void {
  const held = items[a]
  items[a] = items[b]
  items[b] = held
}
