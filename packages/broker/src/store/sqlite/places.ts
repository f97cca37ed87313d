import { YoungMap } from '@xmq/protocol/young-map'

/** A map whose keys are entries: line and seq. */
export class Places<Value> {
  #lines = new Map<number, YoungMap<number, Value>>()
  #size = 0

  get size(): number {
    return this.#size
  }

  get(line: number, seq: number): Value | undefined {
    return this.#lines.get(line)?.get(seq)
  }

  set(line: number, seq: number, value: Value): void {
    let seqs = this.#lines.get(line)
    if (seqs === undefined) {
      seqs = new YoungMap()
      this.#lines.set(line, seqs)
    }
    this.#size -= seqs.size
    seqs.set(seq, value)
    this.#size += seqs.size
  }

  delete(line: number, seq: number): void {
    const seqs = this.#lines.get(line)
    if (seqs?.delete(seq) !== true) return
    this.#size -= 1
    if (seqs.size === 0) this.#lines.delete(line)
  }

  /** A map that is cleared points from its old table to its next one: what lived long once would keep all later ones alive. */
  clear(): void {
    this.#lines = new Map()
    this.#size = 0
  }

  lines(): Iterable<[number, YoungMap<number, Value>]> {
    return this.#lines
  }

  /** The values of one line. */
  of(line: number): Iterable<Value> {
    return this.#lines.get(line)?.values() ?? []
  }
}
