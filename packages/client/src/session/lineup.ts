/**
 * Who is next: publishes in the order of the calls, of each key one at a time. Owner: the outbox.
 *
 *     add --the one before it of its key is over--> ready --take--> taken --giveBack--> ready
 *         \--else--> blocked --that one is over--> ready
 *     any --remove--> over
 *
 * Invariants:
 * 1. `first` is the ready one that was called first, whether it is new or came back.
 * 2. Of each chain (topic and key) at most one is ready or taken: the first that is not over.
 * 3. `readyCount` is how many are ready.
 */
import { YoungMap } from '@xmq/protocol'

interface Place {
  /** The line's: which call it was. */
  ordinal: number
  /** Topic and key, of one that has a key. */
  readonly chain: string | undefined
  /** The next call of the same chain. */
  next: Lined | undefined
  phase: 'blocked' | 'ready' | 'taken' | 'over'
}

/** One in line. What else it is, is its owner's. */
export type Lined<Own = object> = Own & Place

/** See the top of this file. */
export class Lineup<Own extends object> {
  /** The last call of each chain that is not over. */
  readonly #chains = new YoungMap<string, Lined>()
  /** Ready for the first time, in order; from `#freshAt` on. */
  #fresh: Lined<Own>[] = []
  #freshAt = 0
  /** Ready again, or after the one before it of its chain; sorted when `#returnedSorted`. */
  #returned: Lined<Own>[] = []
  #returnedSorted = true
  #readyCount = 0
  #ordinal = 0

  get readyCount(): number {
    return this.#readyCount
  }

  /** Puts one that is `ready` at the end of the line. Its owner makes it whole: to add a place to it later is slow. */
  add(lined: Lined<Own>): void {
    lined.ordinal = this.#ordinal++
    const { chain } = lined
    const last = chain === undefined ? undefined : this.#chains.get(chain)
    if (chain !== undefined) this.#chains.set(chain, lined)
    if (last === undefined) {
      this.#fresh.push(lined)
      this.#readyCount++
    } else {
      last.next = lined
      lined.phase = 'blocked'
    }
  }

  /** The earliest call that is ready. */
  first(): Lined<Own> | undefined {
    while (this.#freshAt < this.#fresh.length && this.#fresh[this.#freshAt]?.phase !== 'ready') this.#freshAt++
    if (this.#freshAt > 1024 && this.#freshAt * 2 > this.#fresh.length) {
      this.#fresh = this.#fresh.slice(this.#freshAt)
      this.#freshAt = 0
    }
    if (!this.#returnedSorted) {
      // The earliest last, so that taking it is cheap.
      this.#returned.sort((a, b) => b.ordinal - a.ordinal)
      this.#returnedSorted = true
    }
    while (this.#returned.length > 0 && this.#returned.at(-1)?.phase !== 'ready') this.#returned.pop()
    const fresh = this.#fresh[this.#freshAt]
    const returned = this.#returned.at(-1)
    if (fresh === undefined || returned === undefined) return returned ?? fresh
    return returned.ordinal < fresh.ordinal ? returned : fresh
  }

  /** Takes what `first` returned out of the line. */
  take(lined: Lined<Own>): void {
    if (this.#returned.at(-1) === lined) this.#returned.pop()
    else this.#freshAt++
    this.#readyCount--
    lined.phase = 'taken'
  }

  /** Puts what was taken back where it was. What is over stays over. */
  giveBack(several: readonly Lined<Own>[]): void {
    for (const lined of several) if (lined.phase === 'taken') this.#makeReady(lined)
  }

  #makeReady(lined: Lined<Own>): void {
    lined.phase = 'ready'
    this.#returned.push(lined)
    this.#returnedSorted = false
    this.#readyCount++
  }

  /** One is over: the next of its chain is ready. */
  remove(lined: Lined<Own>): void {
    const before = lined.phase
    lined.phase = 'over'
    if (before === 'ready') this.#readyCount--
    if (lined.chain === undefined || before === 'blocked' || before === 'over') return
    let next = lined.next
    while (next !== undefined && next.phase === 'over') next = next.next
    if (next === undefined) this.#chains.delete(lined.chain)
    else this.#makeReady(next as Lined<Own>)
  }
}
