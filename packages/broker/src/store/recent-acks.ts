/**
 * The acks of the last while, so that one that is repeated (its answer was lost) is answered as the first was.
 *
 * Two generations: when the newer is full it becomes the older and the older is forgotten. So the last
 * {@link REPEATED_ACKS_MIN} are always known, and never more than twice as many.
 */
import { type EntryRef, REPEATED_ACK_MS, REPEATED_ACKS_MIN } from './entry.ts'

interface RecentAck {
  readonly token: string
  readonly holder: string
  readonly at: number
}

const keyOf = (ref: EntryRef) => `${ref.seq} ${ref.subscription} ${ref.queue}`

export class RecentAcks {
  #newer = new Map<string, RecentAck>()
  #older = new Map<string, RecentAck>()

  add(ref: EntryRef, token: string, holder: string, at: number): void {
    if (this.#newer.size >= REPEATED_ACKS_MIN) {
      this.#older = this.#newer
      this.#newer = new Map()
    }
    this.#newer.set(keyOf(ref), { token, holder, at })
  }

  /** Forgets an ack that was not committed. */
  remove(ref: EntryRef): void {
    this.#newer.delete(keyOf(ref))
  }

  has(ref: EntryRef, token: string, holder: string | undefined, now: number): boolean {
    const key = keyOf(ref)
    const ack = this.#newer.get(key) ?? this.#older.get(key)
    if (ack === undefined || ack.token !== token || now - ack.at > REPEATED_ACK_MS) return false
    return holder === undefined || holder === ack.holder
  }
}
