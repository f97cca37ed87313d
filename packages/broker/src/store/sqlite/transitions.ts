/**
 * How an entry of the sqlite store moves from state to state: the rows, the chain of its key, the counts, the lease in memory,
 * the message once no entry needs it.
 *
 * {@link Transitions.move} is the only way into, between and out of states. It runs inside a transaction.
 *
 * Invariants (those of memory-line.ts, in SQL):
 * 1. entries.state is 1 exactly for a READY entry that is the first of its chain or has no key.
 * 2. A chain is what the index entries_chain holds of one (line, topic, key); all but its first are in state 2.
 * 3. There is a lease in memory exactly for each entry in state 4.
 * 4. A message exists exactly while an entry of it does.
 */
import { withHistory } from '../limits.ts'
import type { ClaimableTopic, DeadReason } from '../port.ts'
import { DEAD_REASONS } from '../entry.ts'
import type { Dedupe } from './dedupe.ts'
import type { Leases, UndoLog } from './leases.ts'
import {
  BLOCKED,
  changedValues,
  CLAIMABLE,
  DEAD,
  decodeHead,
  GONE,
  historyOf,
  LEASED,
  rankWith,
  readRow,
  type Row,
  textOf,
} from './row.ts'
import type { Statements } from './statements.ts'
import type { LineTally, Tallies } from './tallies.ts'

/** Where `move` goes: `ready` becomes 1 or 2 by the key. */
export type Target = 'ready' | 'delayed' | 'leased' | 'dead' | 'gone'

const NUMBER_OF: Readonly<Record<Exclude<Target, 'ready'>, number>> = { delayed: 3, leased: 4, dead: 5, gone: 0 }

export class Transitions {
  readonly #statements: Statements
  readonly #tallies: Tallies
  readonly #leases: Leases
  readonly #dedupe: Dedupe
  /** Topics that became claimable in this transaction, by line and topic. */
  claimable: Map<string, ClaimableTopic> = new Map()
  undo: UndoLog = []
  now = 0

  constructor(statements: Statements, tallies: Tallies, leases: Leases, dedupe: Dedupe) {
    this.#statements = statements
    this.#tallies = tallies
    this.#leases = leases
    this.#dedupe = dedupe
  }

  read(line: LineTally | undefined, seq: number): Row | undefined {
    const values = line === undefined ? undefined : this.#statements.readEntry.get([line.id, seq])
    return values === undefined ? undefined : readRow(values)
  }

  /** The state that a READY entry is in that was in no chain until now. */
  stateOfNew(line: number, topic: number, key: Buffer | null): number {
    if (key === null) return CLAIMABLE
    return this.#statements.firstOfChain.get([line, topic, key]) === undefined ? CLAIMABLE : BLOCKED
  }

  /** A READY entry of a topic has become claimable. */
  offer({ topic }: Pick<Row, 'topic'>): void {
    const { line, name } = this.#tallies.topicById(topic)
    const key = `${line.id} ${name}`
    if (this.claimable.has(key)) return
    this.claimable.set(key, { queue: line.queue.address, subscription: line.subscription, topic: name })
  }

  /** Moves an entry; `at` is its dueAt, deadline or diedAt. What else of the row changed is the caller's. */
  move(row: Row, target: Target, at = 0, received = false): void {
    const before = row.state
    this.#tallies.count(row, -1)
    if (before === LEASED && target !== 'leased') this.#leases.delete(row.line, row.seq, this.undo)
    row.state = target === 'ready' ? this.#readyState(row) : NUMBER_OF[target]
    row.at = target === 'delayed' || target === 'dead' ? at : 0
    if (target === 'leased') this.#leases.set(row.line, row.seq, at, received, this.undo)
    if (row.state === GONE) this.#statements.removeEntry.run([row.line, row.seq])
    else this.#statements.saveEntry.run(changedValues(row))
    this.#tallies.count(row, 1)
    if (row.state === CLAIMABLE) this.offer(row)
    if (row.state === GONE) this.#forget(row)
    const wasFirst = row.key !== null && row.ord > 0 && before !== DEAD && before !== BLOCKED
    if (wasFirst && (row.state === DEAD || row.state === GONE)) this.#offerNext(row)
  }

  /** Gives an entry up. */
  kill(row: Row, reason: DeadReason, holder: string, why: string): void {
    row.reason = DEAD_REASONS.indexOf(reason)
    this.addHistory(row, holder, why)
    this.move(row, 'dead', this.now)
  }

  addHistory(row: Row, holder: string, why: string): void {
    row.history = Buffer.from(JSON.stringify(withHistory(historyOf(row), this.now, holder, why)))
  }

  dropLastHistory(row: Row): void {
    const history = historyOf(row).slice(0, -1)
    row.history = history.length === 0 ? null : Buffer.from(JSON.stringify(history))
  }

  /** 1 or 2; draws an order number for an entry without one. */
  #readyState(row: Row): number {
    // It had its place: only the first of a chain was ever out of READY.
    if (row.ord !== 0) return row.state === BLOCKED ? BLOCKED : CLAIMABLE
    const state = this.stateOfNew(row.line, row.topic, row.key)
    row.ord = this.#tallies.nextNumber()
    row.rank = rankWith(row.rank, row.ord)
    return state
  }

  #offerNext({ line, topic, key }: Row): void {
    const values = this.#statements.firstOfChain.get([line, topic, key])
    if (values === undefined) return
    const next = readRow(values)
    if (next.state !== BLOCKED) return
    this.#tallies.count(next, -1)
    next.state = CLAIMABLE
    this.#tallies.count(next, 1)
    this.#statements.offerEntry.run([next.line, next.seq])
    this.offer(next)
  }

  /** Ends a message that no entry needs any more. */
  #forget({ seq, line, isShared, dedupeUntil }: Row): void {
    if (isShared === 1) {
      if (Number(this.#statements.dropShare.get([seq])?.[0]) > 0) return
      this.#statements.removeShare.run([seq])
    }
    if (dedupeUntil !== null && dedupeUntil <= this.now) {
      const head = this.#statements.readHead.get([seq])?.[0]
      if (head instanceof Buffer) this.#dedupe.release(this.#tallies.lineById(line).queue, decodeHead(head), seq)
    }
    this.#statements.removeMessage.run([seq])
  }
}

/** Whether a token and holder are those of the row's lease, or of its last one. */
export function isHeldBy(row: Row, op: { readonly token: string; readonly holder?: string | undefined }): boolean {
  if (row.token === null || textOf(row.token) !== op.token) return false
  return op.holder === undefined || textOf(row.holder) === op.holder
}
