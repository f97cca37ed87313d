/**
 * The deduplication records of the sqlite store; operations.ts "Deduplication" has the rules.
 *
 * Owns the records that a transaction made and did not write yet: they are written many at a time.
 */
import type { StoreResult } from '../operations.ts'
import { dedupeKeyOf, digest } from './dedupe-key.ts'
import { bodyOf, idOfData, senderOfData } from './message-data.ts'
import type { Rows } from './rows.ts'
import { ADDED_AT_ONCE, type Statements, type Value } from './statements.ts'
import type { QueueTally, Tallies } from './tallies.ts'
import type { PackedPublish } from './wire.ts'

/** Records that have ended and are looked at in one transaction. */
const SWEEP_MAX = 512
const payloadOf = ({ topic, message }: PackedPublish) =>
  digest(Buffer.concat([Buffer.from(`${topic}\0`), bodyOf(message)]))

/** A record that is not written yet. */
interface NewRecord {
  readonly queue: QueueTally
  readonly key: Buffer
  readonly seq: number
  /** See dedupe.line in schema.ts. */
  readonly shelf: number
  readonly payload: Buffer
  readonly until: number
  readonly isEnding: boolean
}

/** A record as it is found. */
type StoreRecord = readonly [seq: number, shelf: number, payload: Buffer, until: number]

const ADDERS = { 64: 'addDedupe64', 8: 'addDedupe8', 1: 'addDedupe1' } as const

/** What {@link Dedupe.find} found. */
export interface Found {
  readonly key: Buffer
  /** The seq of a record that has ended but was not swept yet. */
  readonly endedSeq: number | undefined
  /** Of a record that holds. */
  readonly answer: StoreResult | undefined
}

/** See the top of this file. */
export class Dedupe {
  readonly #statements: Statements
  readonly #tallies: Tallies
  readonly #rows: Rows
  /** By {@link nameOf}. */
  #added = new Map<string, NewRecord>()
  /** When the last record is over that has the key of version 1. */
  readonly #oldUntil: number
  /** Queues with records that have ended. */
  readonly #swept = new Set<QueueTally>()
  #now = 0

  constructor(statements: Statements, tallies: Tallies, rows: Rows) {
    this.#statements = statements
    this.#tallies = tallies
    this.#rows = rows
    this.#oldUntil = Number(statements.readOldDedupe.get([])?.[0])
  }

  /** Looks for an earlier publish with this id. */
  find(queue: QueueTally, op: PackedPublish, now: number): Found {
    const key = dedupeKeyOf(op.message)
    const added = this.#added.get(nameOf(queue, key))
    const found =
      added === undefined
        ? ((this.#statements.findDedupe.get([queue.id, key]) as StoreRecord | undefined) ??
          this.#findOld(queue, op, now))
        : ([added.seq, added.shelf, added.payload, added.until] as const)
    if (found === undefined) return { key, endedSeq: undefined, answer: undefined }
    const [seq, shelf, payload, until] = found
    if (until <= now && !this.#hasMessage(seq, shelf)) return { key, endedSeq: seq, answer: undefined }
    return { key, endedSeq: undefined, answer: answerOf(seq, payload, op) }
  }

  /**
   * Remembers a publish that {@link find} found no answer for, in the same operation.
   *
   * @param shelves of the entries of the message
   */
  add(
    queue: QueueTally,
    op: PackedPublish,
    { key, endedSeq }: Found,
    seq: number,
    shelves: readonly number[],
    now: number,
  ): void {
    if (endedSeq !== undefined) this.#remove(queue, key, endedSeq)
    this.#now = now
    if (queue.firstEndingAt <= now) this.#swept.add(queue)
    const until = now + op.dedupeMs
    const isEnding = until > now
    if (isEnding || shelves.length > 0) {
      const shelf = shelves.length === 1 ? (shelves[0] as number) : 0
      this.#added.set(nameOf(queue, key), { queue, key, seq, shelf, payload: payloadOf(op), until, isEnding })
    }
    if (isEnding) {
      this.#tallies.setEndings(queue, queue.endings + 1)
      queue.firstEndingAt = Math.min(queue.firstEndingAt, until)
    }
    while (queue.endings > op.dedupeMax) if (!this.#endFirst(queue)) break
  }

  /** The message of this publish is gone, and its window was over before. */
  release(queue: QueueTally, message: Buffer, seq: number): void {
    this.#remove(queue, dedupeKeyOf(message), seq)
  }

  /** Writes what was added, and forgets some of what has ended. The entries must be written. */
  flush(): void {
    this.#write()
    for (const queue of this.#swept) this.#sweep(queue)
    this.#swept.clear()
  }

  /** Forgets what was not written. */
  reset(): void {
    this.#added = new Map()
    this.#swept.clear()
  }

  /** A record of a file of version 1 whose message was gone, under the key of that version. */
  #findOld(queue: QueueTally, { message }: PackedPublish, now: number): StoreRecord | undefined {
    if (now >= this.#oldUntil) return undefined
    const key = digest(Buffer.concat([Buffer.from(`${senderOfData(message)}\0`), idOfData(message)]))
    const found = this.#statements.findDedupe.get([queue.id, key]) as StoreRecord | undefined
    return found === undefined || found[3] <= now ? undefined : found
  }

  #hasMessage(seq: number, shelf: number): boolean {
    return shelf === 0 ? this.#statements.hasBody.get([seq]) !== undefined : this.#rows.has(shelf, seq)
  }

  #remove(queue: QueueTally, key: Buffer, seq: number): void {
    this.#write()
    const removed = this.#statements.releaseDedupe.get([queue.id, key, seq])
    if (removed?.[0] === 1) this.#tallies.setEndings(queue, queue.endings - 1)
  }

  #write(): void {
    const added = [...this.#added.values()]
    this.#added = new Map()
    let place = 0
    for (const count of ADDED_AT_ONCE) {
      for (; added.length - place >= count; place += count) {
        const values: Value[] = []
        for (const { queue, key, seq, shelf, payload, until, isEnding } of added.slice(place, place + count))
          values.push(queue.id, key, seq, shelf, payload, until, isEnding ? 1 : 0)
        this.#statements[ADDERS[count]].run(values)
      }
    }
  }

  #sweep(queue: QueueTally): void {
    const { listEnded, keepDedupe, removeDedupe } = this.#statements
    const ended = listEnded.all([queue.id, this.#now, SWEEP_MAX])
    for (const [key, hasMessage] of ended) {
      const statement = hasMessage === 1 ? keepDedupe : removeDedupe
      statement.run([queue.id, key as Buffer])
    }
    this.#tallies.setEndings(queue, queue.endings - ended.length)
    this.#readFirst(queue)
  }

  #readFirst(queue: QueueTally): readonly Value[] | undefined {
    const first = this.#statements.firstEnding.get([queue.id])
    queue.firstEndingAt = first === undefined ? Number.POSITIVE_INFINITY : Number(first[3])
    return first
  }

  /** Forgets the record that ends first; one that has ended is kept while its message is there. False: there is none. */
  #endFirst(queue: QueueTally): boolean {
    this.#write()
    const first = this.#readFirst(queue)
    if (first === undefined) return false
    const [key, seq, shelf, until] = first as [Buffer, number, number, number]
    if (until <= this.#now && this.#hasMessage(seq, shelf)) this.#statements.keepDedupe.run([queue.id, key])
    else this.#statements.removeDedupe.run([queue.id, key])
    this.#tallies.setEndings(queue, queue.endings - 1)
    return true
  }
}

/** Where a record that is not written is kept. */
const nameOf = (queue: QueueTally, key: Buffer) => `${queue.id} ${key.toString('latin1')}`

function answerOf(seq: number, payload: Buffer, op: PackedPublish): StoreResult {
  return payload.equals(payloadOf(op)) ? { status: 'duplicate', seq } : { status: 'conflict' }
}
