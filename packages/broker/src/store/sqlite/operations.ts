/** The operations of the port on the tables of the sqlite store: ../operations.ts, row by row. Each runs inside a transaction. */
import type { DroppedEntry, EntryRef } from '../entry.ts'
import type {
  AckOp,
  CreateSubscriptionOp,
  DeleteSubscriptionOp,
  EntryOp,
  ExtendOp,
  NackOp,
  PublishGrant,
  PublishTarget,
  PurgeOp,
  ReceivedOp,
  ReleaseOp,
  ReplayOp,
  StoreResult,
  TrimDeadOp,
} from '../operations.ts'
import { OVERFLOW_DROPS_MAX } from '../operations.ts'
import type { RecentAcks } from '../recent-acks.ts'
import type { Dedupe } from './dedupe.ts'
import type { Leases } from './leases.ts'
import { dataBytesOf, hasId, headOfData, priorityOf, sealMessage } from './message-data.ts'
import {
  BLOCKED,
  CLAIMABLE,
  DEAD,
  DELAYED,
  LEASED,
  rankOf,
  rankWith,
  reasonOf,
  type Row,
  rowOf,
  stateOf,
} from './row.ts'
import type { Rows } from './rows.ts'
import { shelfOf } from './shelf.ts'
import type { Statements } from './statements.ts'
import type { LineTally, Tallies } from './tallies.ts'
import { isHeldBy, type Transitions } from './transitions.ts'
import type { EngineOp, PackedPublish } from './wire.ts'

const NOT_FOUND: StoreResult = Object.freeze({ status: 'not-found' })

/** Entries that one purge looks at, and that one transaction removes of a deleted subscription. */
const PURGE_READS_MAX = 10_000
const PURGE_PAGE = 500
const REMOVALS_MAX = 1000

/** What the operations work on. */
export interface Parts {
  readonly statements: Statements
  readonly tallies: Tallies
  readonly rows: Rows
  readonly transitions: Transitions
  readonly leases: Leases
  readonly dedupe: Dedupe
  readonly acks: RecentAcks
}

/** See the top of this file. */
export class Operations {
  readonly #statements: Statements
  readonly #tallies: Tallies
  readonly #rows: Rows
  readonly #transitions: Transitions
  readonly #leases: Leases
  readonly #dedupe: Dedupe
  readonly #acks: RecentAcks
  #now = 0

  constructor(parts: Parts) {
    this.#statements = parts.statements
    this.#tallies = parts.tallies
    this.#rows = parts.rows
    this.#transitions = parts.transitions
    this.#leases = parts.leases
    this.#dedupe = parts.dedupe
    this.#acks = parts.acks
  }

  apply(op: EngineOp, now: number): StoreResult {
    this.#now = now
    this.#transitions.now = now
    switch (op.type) {
      case 'publish':
        return this.#publish(op)
      case 'purge':
        return this.#purge(op)
      case 'trim-dead':
        return this.#trimDead(op)
      case 'create-subscription':
        return this.#createSubscription(op)
      case 'delete-subscription':
        return this.#deleteSubscription(op)
      case 'touch-subscription': {
        const line = op.subscription === '' ? undefined : this.#tallies.line(op.queue, op.subscription)
        if (line === undefined) return NOT_FOUND
        this.#statements.touchLine.run([now, line.id])
        return { status: 'ok', type: op.type }
      }
      case 'ack':
        return this.#ack(op)
      default:
        return this.#applyToEntry(op)
    }
  }

  /** Removes some entries of deleted subscriptions. True: there are more. */
  removeLost(now: number): boolean {
    this.#transitions.now = now
    for (const line of this.#tallies.lines) {
      if (!line.isGone) continue
      const rows = this.#rows.listBySeq('listEntries', line.id, 0, REMOVALS_MAX)
      for (const { seq } of rows) {
        // What it was first of goes as well: read anew, since the one before may have offered it.
        const row = this.#rows.get(line.id, seq)
        if (row !== undefined) this.#transitions.move(row, 'gone')
      }
      if (rows.length === REMOVALS_MAX) return true
      this.#tallies.removeLine(line)
    }
    return false
  }

  #row(ref: EntryRef): Row | undefined {
    const line = this.#tallies.line(ref.queue, ref.subscription)
    return line === undefined ? undefined : this.#rows.get(line.id, ref.seq)
  }

  #applyToEntry(op: Exclude<EntryOp, AckOp>): StoreResult {
    const row = this.#row(op)
    if (row === undefined) return NOT_FOUND
    const transitions = this.#transitions
    switch (op.type) {
      case 'nack':
      case 'release':
        return this.#giveBack(row, op)
      case 'dead':
        if (row.state !== LEASED || !isHeldBy(row, op)) return NOT_FOUND
        row.failures = op.failures ?? row.failures
        transitions.kill(row, op.reason, row.holder ?? '', op.why)
        break
      case 'extend':
        return this.#extend(row, op)
      case 'received':
        return this.#received(row, op)
      case 'ready':
        if (row.state !== DELAYED || row.at > this.#now) return NOT_FOUND
        transitions.move(row, 'ready')
        break
      case 'expire':
        if (row.state > DELAYED || row.expiresAt === null || row.expiresAt > this.#now) return NOT_FOUND
        transitions.kill(row, 'expired', '', op.why)
        break
      case 'replay':
        return this.#replay(row, op)
      case 'discard':
        if (stateOf(row) !== (op.state ?? 'dead')) return NOT_FOUND
        transitions.move(row, 'gone')
        break
    }
    return { status: 'ok', type: op.type }
  }

  #publish(op: PackedPublish): StoreResult {
    const now = this.#now
    const queue = this.#tallies.queueToWrite(op.queue, now)
    const earlier = hasId(op.message) ? this.#dedupe.find(queue, op, now) : undefined
    if (earlier?.answer !== undefined) return earlier.answer
    const bytes = dataBytesOf(op.message)
    const places: { readonly line: LineTally; readonly isDroppable: boolean }[] = []
    const drops: Row[] = []
    for (const target of op.targets) {
      const line = queue.lines.get(target.subscription)
      if (line === undefined) continue
      const room = this.#roomIn(line, target, bytes)
      if ('what' in room) return { status: 'full', what: room.what, subscription: target.subscription }
      places.push({ line, isDroppable: target.whenFull === 'dead-letter-oldest' })
      drops.push(...room.drops)
    }
    const seq = this.#tallies.nextNumber()
    const dropped = drops.map((row) => this.#drop(row))
    const isLeased = this.#addEntries(op, seq, places)
    if (earlier !== undefined) {
      const shelves = places.map(({ line }) => shelfOf(line.id, priorityOf(op.message)))
      this.#dedupe.add(queue, op, earlier, seq, shelves, now)
    }
    const leasedAt = isLeased ? now : undefined
    return { status: 'ok', type: 'publish', seq, entries: places.length, dropped, leasedAt }
  }

  /** True: the grant of the publish was used. */
  #addEntries(
    op: PackedPublish,
    seq: number,
    places: readonly { readonly line: LineTally; readonly isDroppable: boolean }[],
  ): boolean {
    if (places.length === 0) return false
    const dedupeUntil = hasId(op.message) ? this.#now + op.dedupeMs : undefined
    const { data, apart } = sealMessage(op.message, this.#now, dedupeUntil, places.length > 1)
    if (apart !== undefined) this.#statements.addBody.run([seq, apart])
    if (places.length > 1) this.#statements.addShare.run([seq, places.length])
    let isLeased = false
    for (const { line, isDroppable } of places) {
      const row = this.#newRow(op, seq, line, isDroppable, data)
      isLeased = places.length === 1 && this.#mayLease(op, line, row)
      if (isLeased) this.#transitions.leaseNew(row, op.grant as PublishGrant)
      else this.#transitions.add(row)
    }
    return isLeased
  }

  /** Whether a claim would find this new entry first. */
  #mayLease({ grant, topic }: PackedPublish, line: LineTally, { state, expiresAt }: Row): boolean {
    if (grant === undefined || line.subscription !== '' || state !== CLAIMABLE) return false
    if (expiresAt !== null && expiresAt <= this.#now) return false
    return this.#tallies.topicToWrite(line, topic).counts.claimable === 0
  }

  #newRow(op: PackedPublish, seq: number, line: LineTally, isDroppable: boolean, data: Buffer): Row {
    const dueAt = op.delayUntil !== undefined && op.delayUntil > this.#now ? op.delayUntil : undefined
    const isDelayed = dueAt !== undefined
    const topic = this.#tallies.topicToWrite(line, op.topic).id
    const priority = priorityOf(data)
    return rowOf({
      shelf: shelfOf(line.id, priority),
      seq,
      topic,
      lane: line.subscription === '' ? topic : -line.id,
      state: isDelayed ? DELAYED : this.#transitions.stateOfNew(topic, op.key),
      rank: rankOf(priority, isDelayed ? 0 : seq),
      at: dueAt ?? 0,
      expiresAt: op.expiresAt ?? null,
      isDroppable,
      key: op.key,
      rest: null,
      data,
    })
  }

  /** What has to give way so that a message fits, or which limit forbids it. */
  #roomIn(
    line: LineTally,
    target: PublishTarget,
    bytes: number,
  ): { readonly drops: readonly Row[] } | { readonly what: 'length' | 'bytes' } {
    const { counts } = line
    let length = counts.ready + counts.delayed + counts.leased + 1
    let total = counts.bytes + bytes
    const isFull = () => length > target.maxLength || total > target.maxBytes
    if (!isFull()) return { drops: [] }
    const drops: Row[] = []
    for (const row of target.whenFull === 'refuse' ? [] : this.#oldestReady(line)) {
      if (!isFull()) break
      drops.push(row)
      length -= 1
      total -= row.bytes
    }
    return isFull() ? { what: length > target.maxLength ? 'length' : 'bytes' } : { drops }
  }

  /** The READY entries with the lowest seqs. Those from before `dead-letter-oldest` was chosen have no index, but come first. */
  #oldestReady(line: LineTally): Row[] {
    const { undroppable } = line
    const list = (name: 'listDroppable' | 'listUndroppable', max: number) =>
      this.#rows.listBySeq(name, line.id, 0, Math.min(max, OVERFLOW_DROPS_MAX))
    const others = undroppable === 0 ? [] : list('listUndroppable', undroppable)
    const droppable = list('listDroppable', OVERFLOW_DROPS_MAX)
    return [...droppable, ...others].sort((left, right) => left.seq - right.seq).slice(0, OVERFLOW_DROPS_MAX)
  }

  /** @param listed as it was listed: one that was dropped before it may have made it claimable */
  #drop(listed: Row): DroppedEntry {
    const row = this.#rows.get(listed.line, listed.seq) ?? listed
    const dropped = { ...this.droppedOf(row), reason: 'overflow' as const }
    this.#transitions.kill(row, 'overflow', '', 'overflow')
    return dropped
  }

  /** An entry as an event shows it. */
  droppedOf(row: Row): DroppedEntry {
    const { line, name } = this.#tallies.topicById(row.topic)
    const { id, sender } = headOfData(this.#rows.dataOf(row))
    return {
      queue: line.queue.address,
      subscription: line.subscription,
      seq: row.seq,
      topic: name,
      id,
      sender,
      reason: reasonOf(row),
    }
  }

  #ack(op: AckOp): StoreResult {
    const line = this.#tallies.line(op.queue, op.subscription)
    const lease = line === undefined ? undefined : this.#leases.get(line.id, op.seq)
    const row = lease === undefined ? this.#row(op) : lease.row
    if (row !== undefined && isHeldBy(row, op)) {
      this.#acks.add(op, op.token, row.holder ?? '', this.#now)
      this.#leases.undo.push(() => this.#acks.remove(op))
      if (lease === undefined) this.#transitions.move(row, 'gone')
      else this.#transitions.finish(lease)
    } else if (row !== undefined || !this.#acks.has(op, op.token, op.holder, this.#now)) {
      return NOT_FOUND
    }
    return { status: 'ok', type: 'ack' }
  }

  #giveBack(row: Row, op: NackOp | ReleaseOp): StoreResult {
    if (row.state !== LEASED || !isHeldBy(row, op)) return NOT_FOUND
    row.isCounted = op.type === 'nack'
    if (op.type === 'nack') {
      row.failures = op.failures
      this.#transitions.addHistory(row, row.holder ?? '', op.why)
    }
    const isLater = op.at !== undefined && op.at > this.#now
    this.#transitions.move(row, isLater ? 'delayed' : 'ready', isLater ? op.at : 0)
    return { status: 'ok', type: op.type }
  }

  #extend(row: Row, op: ExtendOp): StoreResult {
    if (row.state === DEAD || !isHeldBy(row, op)) return NOT_FOUND
    if (row.state === LEASED) {
      const lease = this.#leases.get(row.line, row.seq)
      const wanted = Math.min(this.#now + op.leaseMs, row.claimedAt + op.maxLeaseMs)
      const deadline = Math.max(wanted, lease?.deadline ?? 0)
      if (lease !== undefined) this.#leases.prolong(lease, deadline)
      return { status: 'ok', type: 'extend', deadline, relocked: false }
    }
    if (row.isCounted) {
      row.failures -= 1
      row.history = row.history.slice(0, -1)
    }
    const leaseMs = Math.min(op.leaseMs, op.maxLeaseMs)
    const deadline = this.#now + leaseMs
    this.#transitions.lease([row], this.#now, leaseMs, deadline, true)
    return { status: 'ok', type: 'extend', deadline, relocked: true }
  }

  #received(row: Row, op: ReceivedOp): StoreResult {
    const lease = this.#leases.get(row.line, row.seq)
    if (row.state !== LEASED || lease === undefined || !isHeldBy(row, op)) return NOT_FOUND
    if (lease.received) return { status: 'ok', type: 'received', deadline: lease.deadline }
    const deadline = this.#now + op.leaseMs
    this.#leases.prolong(lease, deadline)
    return { status: 'ok', type: 'received', deadline }
  }

  #replay(row: Row, op: ReplayOp): StoreResult {
    if (row.state !== DEAD) return NOT_FOUND
    const room = this.#roomIn(this.#tallies.lineById(row.line), { ...op, whenFull: 'refuse' }, row.bytes)
    if ('what' in room) return { status: 'full', what: room.what, subscription: op.subscription }
    Object.assign(row, {
      failures: 0,
      deliveries: 0,
      expiresAt: null,
      isCounted: false,
      token: undefined,
      holder: undefined,
    })
    row.rank = rankWith(row.rank, 0)
    this.#transitions.move(row, 'ready')
    return { status: 'ok', type: 'replay' }
  }

  #purge(op: PurgeOp): StoreResult {
    const line = this.#tallies.line(op.queue, op.subscription)
    if (line === undefined) return { status: 'ok', type: 'purge', count: 0, next: undefined }
    const topic = op.topic === undefined ? undefined : this.#tallies.topic(line, op.topic)
    if (op.topic !== undefined && topic === undefined) return { status: 'ok', type: 'purge', count: 0, next: undefined }
    const state = { ready: CLAIMABLE, delayed: DELAYED, dead: DEAD }[op.state]
    const name = ({ ready: 'listEntries', delayed: 'listDelayed', dead: 'listDead' } as const)[op.state]
    let count = 0
    let last = op.after
    for (let read = 0; read < PURGE_READS_MAX; read += PURGE_PAGE) {
      const listed = this.#rows.listBySeq(name, line.id, last, PURGE_PAGE)
      for (const { seq } of listed) {
        // Read anew, since the one before may have offered it.
        const row = this.#rows.get(line.id, seq)
        const isWanted = row !== undefined && (row.state === state || (state === CLAIMABLE && row.state === BLOCKED))
        if (row !== undefined && isWanted && (topic === undefined || row.topic === topic.id)) {
          if (count === op.max) return { status: 'ok', type: 'purge', count, next: last }
          this.#transitions.move(row, 'gone')
          count += 1
        }
        last = seq
      }
      if (listed.length < PURGE_PAGE) return { status: 'ok', type: 'purge', count, next: undefined }
    }
    return { status: 'ok', type: 'purge', count, next: last }
  }

  #trimDead(op: TrimDeadOp): StoreResult {
    const line = this.#tallies.line(op.queue, op.subscription)
    const dropped: DroppedEntry[] = []
    if (line === undefined) return { status: 'ok', type: 'trim-dead', dropped }
    for (const row of this.#rows.listByDeath(line.id, op.max)) {
      const { dead, deadBytes } = line.counts
      if (dead <= op.maxCount && deadBytes <= op.maxBytes && row.at >= op.diedBefore) break
      dropped.push(this.droppedOf(row))
      this.#transitions.move(row, 'gone')
    }
    return { status: 'ok', type: 'trim-dead', dropped }
  }

  #createSubscription(op: CreateSubscriptionOp): StoreResult {
    const queue = this.#tallies.queueToWrite(op.queue, this.#now)
    const known = queue.lines.get(op.subscription)
    if (known !== undefined) {
      const meta = this.#statements.readLine.get([known.id])?.[0]
      if (!(meta instanceof Buffer) || meta.toString() !== op.meta) return { status: 'conflict' }
      this.#statements.touchLine.run([this.#now, known.id])
      return { status: 'ok', type: 'create-subscription', created: false }
    }
    // The queue's own line is no subscription.
    if (queue.lines.size - 1 >= op.max) return { status: 'full', what: 'subscriptions', subscription: op.subscription }
    this.#tallies.addLine(queue, op.subscription, op.meta, this.#now)
    return { status: 'ok', type: 'create-subscription', created: true }
  }

  #deleteSubscription(op: DeleteSubscriptionOp): StoreResult {
    const line = op.subscription === '' ? undefined : this.#tallies.line(op.queue, op.subscription)
    if (line === undefined) return NOT_FOUND
    this.#tallies.loseLine(line)
    this.removeLost(this.#now)
    return { status: 'ok', type: 'delete-subscription' }
  }
}
