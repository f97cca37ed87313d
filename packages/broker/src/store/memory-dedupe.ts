/**
 * The deduplication records of one queue of the memory store.
 *
 * Invariants:
 * 1. A record is known while its message is, and until `until`.
 * 2. It is in `ending` while it is known and `until` had not passed at the last sweep; at most `dedupeMax` are.
 */
import { createHash } from 'node:crypto'
import type { PublishOp } from './operations.ts'
import { SlotQueue } from './slot-queue.ts'

interface DedupeRecord {
  readonly key: string
  readonly seq: number
  readonly hash: string
  readonly until: number
  hasMessage: boolean
  slot: number
}

const isBefore = (left: DedupeRecord, right: DedupeRecord) =>
  left.until === right.until ? left.seq < right.seq : left.until < right.until

const hashOf = (op: PublishOp) => createHash('sha256').update(`${op.topic}\0${op.body}`).digest('base64')

export class DedupeRecords {
  readonly #records = new Map<string, DedupeRecord>()
  readonly #ending: SlotQueue<'slot', DedupeRecord> = new SlotQueue('slot', isBefore)

  /** How many are remembered for a time. */
  get size(): number {
    return this.#ending.size
  }

  /** What became of an earlier publish with this id. */
  find(
    op: PublishOp,
    now: number,
  ): { readonly status: 'duplicate'; readonly seq: number } | { readonly status: 'conflict' } | undefined {
    const record = this.#records.get(`${op.sender}\0${op.id}`)
    if (record === undefined || (!record.hasMessage && record.until <= now)) return undefined
    return record.hash === hashOf(op) ? { status: 'duplicate', seq: record.seq } : { status: 'conflict' }
  }

  /** Remembers a publish with an id that {@link find} does not know. */
  add(op: PublishOp, seq: number, hasMessage: boolean, now: number): void {
    const key = `${op.sender}\0${op.id}`
    this.#sweep(now)
    const record = { key, seq, hash: hashOf(op), until: now + op.dedupeMs, hasMessage, slot: -1 }
    if (record.until > now) this.#ending.add(record)
    if (record.until > now || hasMessage) this.#records.set(key, record)
    while (this.#ending.size > op.dedupeMax) this.#forget(this.#ending.first as DedupeRecord)
  }

  /** The message of this publish is gone. */
  release(op: PublishOp, seq: number, now: number): void {
    const record = this.#records.get(`${op.sender}\0${op.id}`)
    if (record?.seq !== seq) return
    record.hasMessage = false
    if (record.until <= now) this.#forget(record)
  }

  #sweep(now: number): void {
    for (let first = this.#ending.first; first !== undefined && first.until <= now; first = this.#ending.first) {
      if (first.hasMessage) this.#ending.remove(first)
      else this.#forget(first)
    }
  }

  #forget(record: DedupeRecord): void {
    if (record.slot !== -1) this.#ending.remove(record)
    this.#records.delete(record.key)
  }
}
