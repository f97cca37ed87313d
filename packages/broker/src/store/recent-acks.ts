/**
 * The acks of the last while, so that one that is repeated (its answer was lost) is answered as the first was.
 *
 * Two generations: when the newer is full it becomes the older and the older is forgotten. So the last
 * {@link REPEATED_ACKS_MIN} are always known, and never more than twice as many. They are kept in arrays of numbers, since as
 * objects that live for long and come by the ten thousand a second they would cost the collector more than all else that a
 * store does.
 */
import { type EntryRef, REPEATED_ACK_MS, REPEATED_ACKS_MIN } from './entry.ts'

/** Slots of a generation at first; it is never more than half full. */
const SLOTS_MIN = 256
/** Numbers of a slot: queue (0: it is free), subscription, seq, holder, token, at. */
const WIDTH = 6
/** `at` of an ack that was taken back. */
const TAKEN_BACK = Number.NEGATIVE_INFINITY

/** 53 bits of a text: that another token has the same is less likely than a broken memory, and would only repeat an ok. */
function digest(text: string): number {
  let high = 0x9e3779b9
  let low = 0x85ebca6b
  for (let n = 0; n < text.length; n++) {
    const unit = text.charCodeAt(n)
    high = Math.imul(high ^ unit, 0x9e3779b1)
    low = Math.imul(low ^ unit, 0x5f356495)
  }
  high = Math.imul(high ^ (low >>> 15), 0x85ebca77)
  low = Math.imul(low ^ (high >>> 13), 0xc2b2ae3d)
  return (high >>> 11) * 2 ** 32 + (low >>> 0)
}

/** Numbers for texts, from 1 on. */
class Numbers {
  readonly #numbers = new Map<string, number>()

  /** 0 for a text that has none. */
  find(text: string): number {
    return this.#numbers.get(text) ?? 0
  }

  give(text: string): number {
    const known = this.#numbers.get(text)
    if (known !== undefined) return known
    this.#numbers.set(text, this.#numbers.size + 1)
    return this.#numbers.size
  }
}

/** A table with open addressing. */
class Generation {
  size = 0
  readonly #queues = new Numbers()
  readonly #subscriptions = new Numbers()
  readonly #holders = new Numbers()
  #slots = SLOTS_MIN
  #cells = new Float64Array(SLOTS_MIN * WIDTH)

  set(ref: EntryRef, token: string, holder: string, at: number): void {
    if (this.size * 2 >= this.#slots) this.#grow()
    const queue = this.#queues.give(ref.queue)
    const subscription = this.#subscriptions.give(ref.subscription)
    const cell = this.#cellOf(queue, subscription, ref.seq)
    if (this.#cells[cell] === 0) this.size += 1
    this.#cells[cell] = queue
    this.#cells[cell + 1] = subscription
    this.#cells[cell + 2] = ref.seq
    this.#cells[cell + 3] = this.#holders.give(holder)
    this.#cells[cell + 4] = digest(token)
    this.#cells[cell + 5] = at
  }

  takeBack(ref: EntryRef): void {
    const cell = this.#find(ref)
    if (this.#cells[cell] !== 0) this.#cells[cell + 5] = TAKEN_BACK
  }

  has(ref: EntryRef, token: string, holder: string | undefined, since: number): boolean {
    const cell = this.#find(ref)
    if (this.#cells[cell] === 0 || Number(this.#cells[cell + 5]) < since) return false
    if (this.#cells[cell + 4] !== digest(token)) return false
    return holder === undefined || this.#cells[cell + 3] === this.#holders.find(holder)
  }

  #find({ queue, subscription, seq }: EntryRef): number {
    return this.#cellOf(this.#queues.find(queue), this.#subscriptions.find(subscription), seq)
  }

  /** Where an entry is, or would be. */
  #cellOf(queue: number, subscription: number, seq: number): number {
    const cells = this.#cells
    const mixed = Math.imul(Math.imul(seq, 0x9e3779b1) ^ Math.imul(subscription, 0x85ebca6b) ^ queue, 0xc2b2ae35)
    for (let slot = (mixed ^ (mixed >>> 15)) & (this.#slots - 1); ; slot = (slot + 1) & (this.#slots - 1)) {
      const cell = slot * WIDTH
      if (cells[cell] === 0) return cell
      if (cells[cell + 2] === seq && cells[cell + 1] === subscription && cells[cell] === queue) return cell
    }
  }

  #grow(): void {
    const old = this.#cells
    this.#slots *= 2
    this.#cells = new Float64Array(this.#slots * WIDTH)
    for (let from = 0; from < old.length; from += WIDTH) {
      const [queue = 0, subscription = 0, seq = 0] = old.subarray(from, from + WIDTH)
      if (queue !== 0) this.#cells.set(old.subarray(from, from + WIDTH), this.#cellOf(queue, subscription, seq))
    }
  }
}

export class RecentAcks {
  #newer = new Generation()
  #older: Generation | undefined

  /** How many are known; one that was taken back counts. */
  get size(): number {
    return this.#newer.size + (this.#older?.size ?? 0)
  }

  add(ref: EntryRef, token: string, holder: string, at: number): void {
    if (this.#newer.size >= REPEATED_ACKS_MIN) {
      this.#older = this.#newer
      this.#newer = new Generation()
    }
    this.#newer.set(ref, token, holder, at)
  }

  /** Forgets an ack that was not committed. */
  remove(ref: EntryRef): void {
    this.#newer.takeBack(ref)
  }

  has(ref: EntryRef, token: string, holder: string | undefined, now: number): boolean {
    const since = now - REPEATED_ACK_MS
    return this.#newer.has(ref, token, holder, since) || this.#older?.has(ref, token, holder, since) === true
  }
}
