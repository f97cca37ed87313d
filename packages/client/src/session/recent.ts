/**
 * What was noted lately, by key. Owner: whoever notes.
 *
 * Two maps take turns: when the younger one is full, the older one is dropped whole. From one map the oldest would have to be
 * taken out each time, and a map from whose beginning much was taken passes all those empty places at each look at its first.
 *
 * Invariants:
 * 1. At least the last `countMin` keys are known, and at most twice as many.
 * 2. A key that is noted again counts as the latest.
 */
export class Recent<Key, Value> {
  readonly #countMin: number
  #younger = new Map<Key, Value>()
  #older = new Map<Key, Value>()

  constructor(countMin: number) {
    this.#countMin = countMin
  }

  set(key: Key, value: Value): void {
    if (this.#younger.size >= this.#countMin && !this.#younger.has(key)) {
      this.#older = this.#younger
      this.#younger = new Map()
    }
    this.#younger.set(key, value)
  }

  get(key: Key): Value | undefined {
    return this.#younger.get(key) ?? this.#older.get(key)
  }

  has(key: Key): boolean {
    return this.#younger.has(key) || this.#older.has(key)
  }
}
