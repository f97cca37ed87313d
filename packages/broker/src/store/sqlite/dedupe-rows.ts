/**
 * The table `dedupe`: its rows as blocks (dedupe-block.ts), found, added and removed. Owns the block that was read last; what a
 * transaction did not write yet is dedupe.ts's.
 */
import {
  type DedupeBlock,
  type DedupeRecord,
  decodeRecords,
  encodeRecords,
  firstOf,
  keyOf,
  lastOf,
} from './dedupe-block.ts'
import { DEDUPE_REMOVED_AT_ONCE, type Statements, type Value } from './statements.ts'
import type { QueueTally } from './tallies.ts'

const ADDERS = { 8: 'addDedupe8', 1: 'addDedupe1' } as const

/** A block of a queue. */
export interface QueueBlock extends DedupeBlock {
  readonly queue: QueueTally
}

/** A row that has ended: its block, and whether the message of its only record is still there; undefined where it has several. */
export interface EndedRow {
  readonly block: QueueBlock
  readonly hasMessage: boolean | undefined
}

/** See the top of this file. */
export class DedupeRows {
  readonly #statements: Statements
  /** The block that was found last, as long as no row changed: who repeats one publish repeats those beside it. */
  #seen: QueueBlock | undefined

  constructor(statements: Statements) {
    this.#statements = statements
  }

  /** The block that a key is in, or else the first behind it. */
  at(queue: QueueTally, key: Buffer): QueueBlock | undefined {
    const seen = this.#seen
    if (
      seen !== undefined &&
      seen.queue === queue &&
      key.compare(firstOf(seen).key) >= 0 &&
      key.compare(keyOf(seen)) <= 0
    )
      return seen
    const block = blockOf(queue, this.#statements.findDedupe.get([queue.id, key]))
    this.#seen = block !== undefined && block.records.length > 1 ? block : undefined
    return block
  }

  /** Forgets what was read: rows may have changed. */
  reset(): void {
    this.#seen = undefined
  }

  /** The block that ends first. */
  firstEnding(queue: QueueTally): QueueBlock | undefined {
    return blockOf(queue, this.#statements.firstEnding.get([queue.id]))
  }

  /** Blocks that have ended, those that ended first first. The payload of a record that is alone in its row is not read. */
  listEnded(queue: QueueTally, now: number, max: number): EndedRow[] {
    const rows = this.#statements.listEnded.all([queue.id, now, max])
    return rows.map((values) => {
      const hasMessage = values[6] === null ? undefined : values[6] === 1
      return { block: blockOf(queue, values) as QueueBlock, hasMessage }
    })
  }

  insert(blocks: readonly QueueBlock[]): void {
    this.reset()
    let place = 0
    for (const count of [8, 1] as const) {
      for (; blocks.length - place >= count; place += count) {
        const values: Value[] = []
        for (let n = 0; n < count; n++) pushValues(values, blocks[place + n] as QueueBlock)
        this.#statements[ADDERS[count]].run(values)
      }
    }
  }

  remove(queue: QueueTally, blocks: readonly DedupeBlock[]): void {
    this.reset()
    const keys = blocks.map(keyOf)
    for (let place = 0; place < keys.length; place += DEDUPE_REMOVED_AT_ONCE) {
      const some = keys.slice(place, place + DEDUPE_REMOVED_AT_ONCE)
      while (some.length < DEDUPE_REMOVED_AT_ONCE) some.push(some[0] as Buffer)
      this.#statements.removeDedupe.run([queue.id, ...some])
    }
  }

  /** Removes the record of a publish that is alone in its row. Undefined: there is none; else whether it was `ending`. */
  removeAlone(queue: QueueTally, key: Buffer, seq: number): boolean | undefined {
    this.reset()
    const removed = this.#statements.releaseDedupe.get([queue.id, key, seq])
    return removed === undefined ? undefined : removed[0] === 1
  }

  /** Keeps the last of a block's records alone. */
  cut({ queue, records, ...block }: QueueBlock, from: number): void {
    this.reset()
    if (from === records.length) this.remove(queue, [{ ...block, records }])
    else if (from > 0)
      this.#statements.cutDedupe.run([encodeRecords(records.slice(from)), queue.id, keyOf({ records })])
  }

  /** From now on only the messages keep the records of a block. */
  keep(block: QueueBlock): void {
    this.reset()
    this.#statements.keepDedupe.run([block.queue.id, keyOf(block)])
  }

  /** Gives each of these records of a block a row of its own, and forgets the others. */
  scatter(block: QueueBlock, records: readonly DedupeRecord[], isEnding: boolean): void {
    this.remove(block.queue, [block])
    this.insert(records.map((record) => ({ ...block, isEnding, records: [record] })))
  }

  /** Whether nothing is left of any message of a block, as one look tells where the entries are written. */
  isAllGone(block: DedupeBlock): boolean {
    const range = [firstOf(block).seq, lastOf(block).seq]
    const { anyBody, anyEntry } = this.#statements
    return (block.shelf === 0 ? anyBody.get(range) : anyEntry.get([block.shelf, ...range])) === undefined
  }
}

function blockOf(queue: QueueTally, values: readonly Value[] | undefined): QueueBlock | undefined {
  if (values === undefined) return undefined
  const [key, seq, shelf, until, ending, bytes] = values as [Buffer, number, number, number, number, Buffer | null]
  return { queue, records: decodeRecords(key, seq, bytes), shelf, until, isEnding: ending === 1 }
}

function pushValues(values: Value[], { queue, records, shelf, until, isEnding }: QueueBlock): void {
  const { key, seq } = records.at(-1) as DedupeRecord
  values.push(queue.id, key, seq, shelf, encodeRecords(records), until, isEnding ? 1 : 0)
}
