/** The deduplication records of the sqlite store; operations.ts "Deduplication" has the rules. */
import { hash } from 'node:crypto'
import type { StoreResult } from '../operations.ts'
import { bodyOf, dedupeNameOf } from './message-data.ts'
import type { Rows } from './rows.ts'
import type { Statements } from './statements.ts'
import type { QueueTally, Tallies } from './tallies.ts'
import type { PackedPublish } from './wire.ts'

/** Records that one publish looks at to forget what has ended. */
const SWEEP_MAX = 8

// 128 bits: one who makes two of his own ids collide deduplicates his own messages.
const digest = (text: Buffer) => hash('sha256', text, 'buffer').subarray(0, 16)
const keyOf = (message: Buffer) => digest(dedupeNameOf(message))

const payloadOf = ({ topic, message }: PackedPublish) =>
  digest(Buffer.concat([Buffer.from(`${topic}\0`), bodyOf(message)]))

/** What {@link Dedupe.find} found. */
export interface Found {
  readonly key: Buffer
  /** The seq of a record that has ended but was not swept yet. */
  readonly endedSeq: number | undefined
  /** Of a record that holds. */
  readonly answer: StoreResult | undefined
}

export class Dedupe {
  readonly #statements: Statements
  readonly #tallies: Tallies
  readonly #rows: Rows

  constructor(statements: Statements, tallies: Tallies, rows: Rows) {
    this.#statements = statements
    this.#tallies = tallies
    this.#rows = rows
  }

  /** Looks for an earlier publish with this id. */
  find(queue: QueueTally, op: PackedPublish, now: number): Found {
    const key = keyOf(op.message)
    const found = this.#statements.findDedupe.get([queue.id, key])
    if (found === undefined) return { key, endedSeq: undefined, answer: undefined }
    const [seq, line, payload, until] = found as [number, number, Buffer, number]
    if (until <= now && !this.#hasMessage(seq, line)) return { key, endedSeq: seq, answer: undefined }
    const isSame = payload.equals(payloadOf(op))
    return { key, endedSeq: undefined, answer: isSame ? { status: 'duplicate', seq } : { status: 'conflict' } }
  }

  /**
   * Remembers a publish that {@link find} found no answer for, in the same operation.
   *
   * @param lines of the entries of the message
   */
  add(
    queue: QueueTally,
    op: PackedPublish,
    { key, endedSeq }: Found,
    seq: number,
    lines: readonly number[],
    now: number,
  ): void {
    if (endedSeq !== undefined) this.#remove(queue, key, endedSeq)
    this.#sweep(queue, now)
    const until = now + op.dedupeMs
    const isEnding = until > now
    if (isEnding || lines.length > 0) {
      const line = lines.length === 1 ? (lines[0] as number) : 0
      this.#statements.addDedupe.run([queue.id, key, seq, line, payloadOf(op), until, isEnding ? 1 : 0])
    }
    if (isEnding) {
      this.#tallies.setEndings(queue, queue.endings + 1)
      queue.firstEndingAt = Math.min(queue.firstEndingAt, until)
    }
    while (queue.endings > op.dedupeMax) if (!this.#endFirst(queue, now, true)) break
  }

  /** The message of this publish is gone, and its window was over before. */
  release(queue: QueueTally, message: Buffer, seq: number): void {
    this.#remove(queue, keyOf(message), seq)
  }

  #hasMessage(seq: number, line: number): boolean {
    return line === 0 ? this.#statements.hasBody.get([seq]) !== undefined : this.#rows.has(line, seq)
  }

  #remove(queue: QueueTally, key: Buffer, seq: number): void {
    const removed = this.#statements.releaseDedupe.get([queue.id, key, seq])
    if (removed?.[0] === 1) this.#tallies.setEndings(queue, queue.endings - 1)
  }

  #sweep(queue: QueueTally, now: number): void {
    if (queue.firstEndingAt > now) return
    for (let n = 0; n < SWEEP_MAX && this.#endFirst(queue, now, false); n++);
  }

  /** Ends the record that ends first: if its time has come, or in any case. False: it did not, or there is none. */
  #endFirst(queue: QueueTally, now: number, isForced: boolean): boolean {
    const first = this.#statements.firstEnding.get([queue.id])
    queue.firstEndingAt = first === undefined ? Number.POSITIVE_INFINITY : Number(first[3])
    if (first === undefined) return false
    const [key, seq, line, until] = first as [Buffer, number, number, number]
    if (until > now && !isForced) return false
    if (until <= now && this.#hasMessage(seq, line)) this.#statements.keepDedupe.run([queue.id, key])
    else this.#statements.removeDedupe.run([queue.id, key])
    this.#tallies.setEndings(queue, queue.endings - 1)
    return true
  }
}
