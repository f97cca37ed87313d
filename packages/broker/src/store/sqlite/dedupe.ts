/**
 * The deduplication records of the sqlite store; operations.ts "Deduplication" has the rules, dedupe-block.ts says how they lie.
 *
 * Owns what the transaction adds and ends and did not write yet, and what is known of keys that no record has.
 *
 * ```
 *   find ──> gap of the sender ──(outside)──> runs, then the file
 *   add ──> runs ──(8 of them, or somebody has to see them)──> rows
 *   too many ──> head: records leave it, the first first ──> its row is cut short, or goes
 *   flush ──> runs, heads, then the sweep of rows that ended
 * ```
 *
 * Invariants:
 * 1. No record lies between two of one block. What would come to lie there scatters the block first: a row for each of its records. So does
 *    the end of one of them before the others.
 * 2. A gap holds no record of its sender, neither in the file nor in a run. One of other senders may lie in it, but not between two
 *    of its keys.
 * 3. Blocks of a queue that end do not overlap in seq, so the row that ends first has the record that does.
 * 4. A head is the row that ends first in its queue, of those in the file and in runs. No statement touches it before it is written.
 * 5. queues.endings is the number of records in rows with `ending`, in runs, and left in heads.
 */
import type { StoreResult } from '../operations.ts'
import { BLOCK_MAX, type DedupeBlock, type DedupeRecord, firstOf, keyOf } from './dedupe-block.ts'
import { dedupeKeyOf, digest, payloadOf } from './dedupe-key.ts'
import { DedupeRows, type QueueBlock } from './dedupe-rows.ts'
import { idOfData, senderOfData } from './message-data.ts'
import type { Rows } from './rows.ts'
import type { Statements } from './statements.ts'
import type { QueueTally, Tallies } from './tallies.ts'
import type { PackedPublish } from './wire.ts'

/** Records that have ended and are looked at in one transaction, about. */
const SWEEP_MAX = 512
/** Rows that the sweep reads at once. */
const SWEEP_ROWS = 64
/** Runs that wait to be written. */
const RUNS_MAX = 8
/** Senders whose gaps are remembered. */
const GAPS_MAX = 1000

/** A block that is not written yet. */
interface Run extends QueueBlock {
  readonly records: DedupeRecord[]
}

/** Keys of one sender that no record has: those above `low` and below `high`, where that is not undefined. */
interface Gap {
  low: Buffer
  readonly high: Buffer | undefined
}

/** The block that ends first. */
interface Head {
  readonly block: QueueBlock
  /** How many of its records are forgotten. */
  taken: number
}

/** What there is at a key. */
interface Place {
  readonly found?: { readonly record: DedupeRecord; readonly block: DedupeBlock } | undefined
  /** The first key above it that a record of the sender may have. */
  readonly high?: Buffer | undefined
  /** It lies between two records of a block. */
  readonly isInside?: boolean
  /** The gap that it is in. */
  readonly gap?: Gap
}

/** What {@link Dedupe.find} found. */
export interface Found {
  readonly key: Buffer
  readonly place: Place
  readonly gapName: string
  /** The seq of a record that has ended but was not swept yet. */
  readonly endedSeq: number | undefined
  /** Of a record that holds. */
  readonly answer: StoreResult | undefined
}

/** See the top of this file. */
export class Dedupe {
  readonly #statements: Statements
  readonly #tallies: Tallies
  readonly #entries: Rows
  readonly #rows: DedupeRows
  #runs: Run[] = []
  readonly #heads = new Map<QueueTally, Head>()
  /** By queue and sender. */
  readonly #gaps = new Map<string, Gap>()
  /** When the last record is over that has the key of version 1. */
  readonly #oldUntil: number
  /** Queues with records that have ended. */
  readonly #swept = new Set<QueueTally>()
  #now = 0

  constructor(statements: Statements, tallies: Tallies, entries: Rows) {
    this.#statements = statements
    this.#tallies = tallies
    this.#entries = entries
    this.#rows = new DedupeRows(statements)
    this.#oldUntil = Number(statements.readOldDedupe.get([])?.[0])
  }

  /** Looks for an earlier publish with this id. */
  find(queue: QueueTally, op: PackedPublish, now: number): Found {
    const sender = senderOfData(op.message)
    const key = dedupeKeyOf(op.message, sender)
    const gapName = `${queue.id} ${sender}`
    const gap = this.#gaps.get(gapName)
    const place: Place = gap !== undefined && isIn(gap, key) ? { gap } : this.#look(queue, key)
    const found = place.found ?? this.#findOld(queue, op, now)
    if (found === undefined) return { key, place, gapName, endedSeq: undefined, answer: undefined }
    const { seq, payload } = found.record
    const { until, shelf } = found.block
    const isOver = until <= now && !this.#hasMessage(seq, shelf)
    const answer = isOver ? undefined : answerOf(seq, payload === payloadOf(op.topic, op.message))
    return { key, place, gapName, endedSeq: isOver ? seq : undefined, answer }
  }

  /**
   * Remembers a publish that {@link find} found no answer for, in the same operation.
   *
   * @param shelves of the entries of the message
   */
  add(queue: QueueTally, op: PackedPublish, found: Found, seq: number, shelves: readonly number[], now: number): void {
    const { key, endedSeq } = found
    this.#now = now
    if (queue.firstEndingAt <= now) this.#swept.add(queue)
    if (endedSeq !== undefined) this.#remove(queue, key, endedSeq)
    const until = now + op.dedupeMs
    const isEnding = until > now
    if (isEnding || shelves.length > 0) {
      if (found.place.isInside === true) this.#scatterAt(queue, key)
      const shelf = shelves.length === 1 ? (shelves[0] as number) : 0
      const record = { key, seq, payload: payloadOf(op.topic, op.message) }
      if (!this.#joinsLast(queue, record, shelf, until, isEnding, found.place.gap)) {
        if (this.#runs.length >= RUNS_MAX) this.#write()
        this.#runs.push({ queue, shelf, until, isEnding, records: [record] })
      }
      this.#narrowGap(found)
    }
    if (isEnding) {
      this.#tallies.setEndings(queue, queue.endings + 1)
      queue.firstEndingAt = Math.min(queue.firstEndingAt, until)
      const head = this.#heads.get(queue)
      if (head !== undefined && until < head.block.until) this.#writeHeads()
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
    this.#writeHeads()
    for (const queue of this.#swept) this.#sweep(queue)
    this.#swept.clear()
  }

  /** Forgets what was not written. */
  reset(): void {
    this.#runs = []
    this.#rows.reset()
    this.#heads.clear()
    this.#gaps.clear()
    this.#swept.clear()
  }

  /** What there is at a key, in runs or in the file. */
  #look(queue: QueueTally, key: Buffer): Place {
    let high: Buffer | undefined
    for (const run of this.#runs) {
      if (run.queue !== queue || key.compare(keyOf(run)) > 0) continue
      const place = placeIn(run, key)
      if (place.found !== undefined) return place
      // The block is found where it is written.
      if (place.isInside === true) {
        this.#write()
        high = undefined
        break
      }
      high = lower(high, place.high)
    }
    this.#writeHeads()
    const block = this.#rows.at(queue, key)
    if (block === undefined) return { high }
    const place = placeIn(block, key)
    return { ...place, high: lower(high, place.high) }
  }

  /** A record of a file of version 1 whose message was gone, under the key of that version. */
  #findOld(queue: QueueTally, { message }: PackedPublish, now: number): Place['found'] {
    if (now >= this.#oldUntil) return undefined
    const key = digest(Buffer.concat([Buffer.from(`${senderOfData(message)}\0`), idOfData(message)]))
    const block = this.#rows.at(queue, key)
    if (block === undefined || block.until <= now) return undefined
    return placeIn(block, key).found
  }

  #hasMessage(seq: number, shelf: number): boolean {
    return shelf === 0 ? this.#statements.hasBody.get([seq]) !== undefined : this.#entries.has(shelf, seq)
  }

  /** Adds a record behind the last one, where nothing can come between the two. */
  #joinsLast(
    queue: QueueTally,
    record: DedupeRecord,
    shelf: number,
    until: number,
    isEnding: boolean,
    gap: Gap | undefined,
  ): boolean {
    const run = this.#runs.at(-1)
    if (run === undefined || gap === undefined || !isEnding || run.queue !== queue) return false
    if (gap.low !== keyOf(run) || run.records.length >= BLOCK_MAX) return false
    if (!run.isEnding || run.until !== until || run.shelf !== shelf) return false
    run.records.push(record)
    return true
  }

  /** A record has come to where {@link find} found room for it. */
  #narrowGap({ key, gapName, endedSeq, place: { gap, high } }: Found): void {
    if (gap !== undefined) gap.low = key
    // Nobody looked what comes behind one that had ended.
    else if (endedSeq === undefined) {
      if (this.#gaps.size >= GAPS_MAX) this.#gaps.clear()
      this.#gaps.set(gapName, { low: key, high })
    }
  }

  #remove(queue: QueueTally, key: Buffer, seq: number): void {
    this.#write()
    this.#writeHeads()
    let wasEnding = this.#rows.removeAlone(queue, key, seq)
    if (wasEnding === undefined && this.#scatterAt(queue, key)) wasEnding = this.#rows.removeAlone(queue, key, seq)
    if (wasEnding === true) this.#tallies.setEndings(queue, queue.endings - 1)
  }

  /** Scatters the block in the file that a key is in. False: there is none. */
  #scatterAt(queue: QueueTally, key: Buffer): boolean {
    const block = this.#rows.at(queue, key)
    if (block === undefined || block.records.length === 1 || key.compare(firstOf(block).key) < 0) return false
    this.#rows.scatter(block, block.records, block.isEnding)
    return true
  }

  #write(): void {
    const runs = this.#runs
    this.#runs = []
    this.#rows.insert(runs)
  }

  #sweep(queue: QueueTally): void {
    let ended = 0
    for (let rows = SWEEP_ROWS; rows === SWEEP_ROWS && ended < SWEEP_MAX; ) {
      const listed = this.#rows.listEnded(queue, this.#now, SWEEP_ROWS)
      const gone: QueueBlock[] = []
      for (const { block, hasMessage } of listed) {
        ended += block.records.length
        if (hasMessage === false || (hasMessage === undefined && this.#rows.isAllGone(block))) gone.push(block)
        else if (hasMessage === true) this.#rows.keep(block)
        else this.#keepSome(block)
      }
      this.#rows.remove(queue, gone)
      rows = listed.length
    }
    this.#tallies.setEndings(queue, queue.endings - ended)
    this.#readFirst(queue)
  }

  /** Ends a block whose time is over: only the messages that are still there keep their records. */
  #keepSome(block: QueueBlock): void {
    const kept = block.records.filter(({ seq }) => this.#hasMessage(seq, block.shelf))
    if (kept.length === block.records.length) this.#rows.keep(block)
    else this.#rows.scatter(block, kept, false)
  }

  #readFirst(queue: QueueTally): QueueBlock | undefined {
    const block = this.#rows.firstEnding(queue)
    queue.firstEndingAt = block?.until ?? Number.POSITIVE_INFINITY
    return block
  }

  #headOf(queue: QueueTally): Head | undefined {
    const known = this.#heads.get(queue)
    if (known !== undefined) return known
    let block = this.#readFirst(queue)
    const until = block?.until ?? Number.POSITIVE_INFINITY
    if (this.#runs.some((run) => run.queue === queue && run.isEnding && run.until < until)) {
      this.#write()
      block = this.#readFirst(queue)
    }
    if (block === undefined) return undefined
    const head = { block, taken: 0 }
    this.#heads.set(queue, head)
    return head
  }

  /** Forgets the record that ends first; what has ended is kept while its message is there. False: there is none. */
  #endFirst(queue: QueueTally): boolean {
    const head = this.#headOf(queue)
    if (head === undefined) return false
    const { block } = head
    if (block.until <= this.#now) {
      this.#writeHeads()
      const left = block.records.slice(head.taken)
      this.#keepSome({ ...block, records: left })
      this.#tallies.setEndings(queue, queue.endings - left.length)
      return true
    }
    head.taken += 1
    this.#tallies.setEndings(queue, queue.endings - 1)
    if (head.taken === block.records.length) this.#writeHead(head)
    return true
  }

  #writeHeads(): void {
    for (const head of this.#heads.values()) this.#writeHead(head)
  }

  #writeHead({ block, taken }: Head): void {
    this.#heads.delete(block.queue)
    this.#rows.cut(block, taken)
  }
}

const isIn = ({ low, high }: Gap, key: Buffer) => key.compare(low) > 0 && (high === undefined || key.compare(high) < 0)

const lower = (left: Buffer | undefined, right: Buffer | undefined) =>
  left === undefined || (right !== undefined && right.compare(left) < 0) ? right : left

/** Where a key is in a block whose last key is not below it. */
function placeIn(block: DedupeBlock, key: Buffer): Place {
  const { records } = block
  const place = records.findIndex((record) => key.compare(record.key) <= 0)
  const record = records[place] as DedupeRecord
  if (record.key.equals(key)) return { found: { record, block } }
  return { high: record.key, isInside: place > 0 }
}

const answerOf = (seq: number, isSame: boolean): StoreResult =>
  isSame ? { status: 'duplicate', seq } : { status: 'conflict' }
