/**
 * How an entry of the sqlite store moves from state to state: the rows, the chain of its key, the counts, the lease in memory,
 * the message once no entry needs it.
 *
 * {@link Transitions.move} is the only way into, between and out of states. It runs inside a transaction.
 *
 * Invariants (those of memory-line.ts, in SQL):
 * 1. entries.state is 2 exactly for a READY entry that is the first of its chain or has no key.
 * 2. A chain is what the index entries_chain holds of one (line, topic, key); all but its first are in state 3.
 * 3. There is a lease in memory exactly for each entry in state 5.
 * 4. A body apart exists exactly while an entry of its message does.
 */
import { DEAD_REASONS } from '../entry.ts'
import { withHistory } from '../limits.ts'
import type { ClaimableTopic, DeadReason, PublishGrant } from '../port.ts'
import type { Dedupe } from './dedupe.ts'
import type { Lease, Leases } from './leases.ts'
import { BLOCKED, CLAIMABLE, copyOf, DEAD, DELAYED, GONE, LEASED, ordOf, rankWith, type Row } from './row.ts'
import type { EntryPlace, Rows } from './rows.ts'
import type { Statements } from './statements.ts'
import type { Tallies } from './tallies.ts'

/** Where `move` goes: `ready` becomes 2 or 3 by the key. */
export type Target = 'ready' | 'delayed' | 'dead' | 'gone'

const NUMBER_OF: Readonly<Record<Exclude<Target, 'ready'>, number>> = { delayed: DELAYED, dead: DEAD, gone: GONE }

/** What transitions work on. */
export interface TransitionParts {
  readonly statements: Statements
  readonly tallies: Tallies
  readonly rows: Rows
  readonly leases: Leases
  readonly dedupe: Dedupe
}

export class Transitions {
  readonly #statements: Statements
  readonly #tallies: Tallies
  readonly #rows: Rows
  readonly #leases: Leases
  readonly #dedupe: Dedupe
  /** Topics that became claimable in this transaction, by topic. */
  claimable: Map<number, ClaimableTopic> = new Map()
  now = 0

  constructor(parts: TransitionParts) {
    this.#statements = parts.statements
    this.#tallies = parts.tallies
    this.#rows = parts.rows
    this.#leases = parts.leases
    this.#dedupe = parts.dedupe
  }

  /** The state that a READY entry is in that was in no chain until now, and is added to it next. */
  stateOfNew(topic: number, key: string | undefined): number {
    return key !== undefined && this.#rows.joinChain(topic, key) ? BLOCKED : CLAIMABLE
  }

  /** A READY entry of a topic has become claimable. */
  offer({ topic }: Pick<Row, 'topic'>): void {
    if (this.claimable.has(topic)) return
    const { line, name } = this.#tallies.topicById(topic)
    this.claimable.set(topic, { queue: line.queue.address, subscription: line.subscription, topic: name })
  }

  /** Moves an entry that is not being leased; `at` is its dueAt or diedAt. What else of the row changed is the caller's. */
  move(row: Row, target: Target, at = 0): void {
    const before = row.state
    const wasFirst = row.key !== undefined && ordOf(row.rank) > 0 && before !== DEAD && before !== BLOCKED
    const isLeaving = target === 'dead' || target === 'gone'
    const next = wasFirst && isLeaving ? this.#rows.nextOfChain(row) : undefined
    this.#tallies.count(row, -1)
    if (before === LEASED) this.#leases.end(this.#leases.get(row.line, row.seq) as Lease)
    row.state = target === 'ready' ? this.#readyState(row) : NUMBER_OF[target]
    row.at = target === 'delayed' || target === 'dead' ? at : 0
    if (row.state === GONE) this.#remove(row)
    else this.#rows.save(row)
    this.#tallies.count(row, 1)
    if (row.state === CLAIMABLE) this.offer(row)
    if (next !== undefined) this.#offerNext(row.topic, next)
  }

  /** Adds a new entry, in the state that it has. */
  add(row: Row): void {
    this.#rows.add(row)
    this.#tallies.count(row, 1)
    if (row.state === CLAIMABLE) this.offer(row)
  }

  /** Adds a new entry that is leased from the start. */
  leaseNew(row: Row, { token, holder, leaseMs }: PublishGrant): void {
    const { now } = this
    row.state = LEASED
    // The file has it as it was before the lease, with its message.
    this.#rows.add(copyOf(row))
    row.token = token
    row.holder = holder
    row.deliveries = 1
    row.claimedAt = now
    row.leaseMs = leaseMs
    this.#tallies.count(row, 1)
    const claim = this.#leases.grant(row.line, now, leaseMs, { seq: row.seq, token, holder, deliveries: 1 })
    this.#leases.begin(row, now + leaseMs, false, claim)
  }

  /** Leases READY or DELAYED entries of one line, all of them with the token, holder and deliveries that they have by now. */
  lease(rows: readonly Row[], claimedAt: number, leaseMs: number, deadline: number, received: boolean): void {
    const [first] = rows
    if (first === undefined) return
    const leases = rows.map(({ seq, token, holder, deliveries }) => ({
      seq,
      deliveries,
      token: String(token),
      holder: String(holder),
    }))
    const claim = this.#leases.addClaim(this.#statements, first.line, claimedAt, leaseMs, leases)
    for (const row of rows) {
      this.#tallies.count(row, -1)
      const isDelayed = row.state === DELAYED
      row.state = LEASED
      row.at = 0
      row.isCounted = false
      row.claimedAt = claimedAt
      row.leaseMs = leaseMs
      this.#tallies.count(row, 1)
      if (isDelayed || received) this.#rows.save(row)
      else this.#rows.lease(row)
      this.#leases.begin(row, deadline, received, claim)
    }
  }

  /** Ends a leased entry, which is done. */
  finish(lease: Lease): void {
    const { row } = lease
    // A leased entry is the first of its chain.
    const next = this.#rows.nextOfChain(row)
    this.#tallies.count(row, -1)
    this.#leases.end(lease)
    this.#remove(row)
    if (next !== undefined) this.#offerNext(row.topic, next)
  }

  /** Gives an entry up. */
  kill(row: Row, reason: DeadReason, holder: string, why: string): void {
    row.reason = DEAD_REASONS.indexOf(reason)
    this.addHistory(row, holder, why)
    this.move(row, 'dead', this.now)
  }

  addHistory(row: Row, holder: string, why: string): void {
    const { deliveries } = row
    row.history = withHistory(row.history, { at: this.now, holder, why, deliveries })
  }

  /** 2 or 3; draws an order number for an entry without one. */
  #readyState(row: Row): number {
    // It had its place: only the first of a chain was ever out of READY.
    if (ordOf(row.rank) !== 0) return row.state === BLOCKED ? BLOCKED : CLAIMABLE
    const state = this.stateOfNew(row.topic, row.key)
    row.rank = rankWith(row.rank, this.#tallies.nextNumber())
    return state
  }

  /** What comes after the first of a chain, which leaves it, becomes claimable. */
  #offerNext(topic: number, next: EntryPlace): void {
    this.#rows.offer(next)
    this.#tallies.countOffer(topic)
    this.offer({ topic })
  }

  /** Removes an entry, and its message once no other needs it. */
  #remove(row: Row): void {
    const { seq, line, isShared, dedupeUntil } = row
    const isOver = dedupeUntil !== undefined && dedupeUntil <= this.now
    const message = isOver ? this.#rows.dataOf(row) : undefined
    this.#rows.remove(row)
    if (isShared) {
      if (Number(this.#statements.dropShare.get([seq])?.[0]) > 0) return
      this.#statements.removeShare.run([seq])
    }
    if (message !== undefined) this.#dedupe.release(this.#tallies.lineById(line).queue, message, seq)
    if (row.isApart) this.#statements.removeBody.run([seq])
  }
}

/** Whether a token and holder are those of the row's lease, or of its last one. */
export function isHeldBy(row: Row, op: { readonly token: string; readonly holder?: string | undefined }): boolean {
  if (row.token === undefined || row.token !== op.token) return false
  return op.holder === undefined || row.holder === op.holder
}
