/**
 * The queues of the memory store: their lines with all entries, their subscriptions, and what is known of publishes and acks that
 * are done.
 *
 *     operation --> the entry it names, if token and holder are those of its lease --> Line.move --> its new state
 *
 * Owns the lines (memory-line.ts), the queues of times, the deduplication records, the latest acks, and the one ascending
 * number that seqs and orders are drawn from.
 *
 * Invariants:
 * 1. Each operation is a compare-and-set: it finds what it expects and changes it, or changes nothing and says so.
 * 2. A queue has a line for each durable subscription, and its own, from the first that is published or subscribed to it.
 */
import { bytesOf, withHistory } from './limits.ts'
import { DedupeRecords } from './memory-dedupe.ts'
import { createTimes, droppedOf, type Entry, Line, type LineHost, type Message, type Times } from './memory-line.ts'
import {
  type AckOp,
  type CreateSubscriptionOp,
  type DroppedEntry,
  type EntryRef,
  type ExtendOp,
  type NackOp,
  OVERFLOW_DROPS_MAX,
  type PublishOp,
  type PublishTarget,
  type PurgeOp,
  type ReceivedOp,
  type ReleaseOp,
  type ReplayOp,
  type StoreOp,
  type StoreResult,
  type TrimDeadOp,
} from './port.ts'
import { RecentAcks } from './recent-acks.ts'

interface Subscription {
  readonly meta: string
  readonly createdAt: number
  touchedAt: number
}

/** A queue with what is known of it. */
export interface Queue {
  /** By subscription; `''` is always there. */
  readonly lines: Map<string, Line>
  readonly subscriptions: Map<string, Subscription>
  readonly dedupe: DedupeRecords
}

const NOT_FOUND: StoreResult = Object.freeze({ status: 'not-found' })

/** See the top of this file. */
export class MemoryQueues implements LineHost {
  readonly times: Times = createTimes()
  readonly #byAddress = new Map<string, Queue>()
  readonly #acks = new RecentAcks()
  readonly onClaimable: (line: Line, topic: string) => void
  #lastNumber = 0
  #now = 0

  /** @param onClaimable told when the first of a lane has become another, or one that can be claimed */
  constructor(onClaimable: (line: Line, topic: string) => void) {
    this.onClaimable = onClaimable
  }

  /** All that something was published or subscribed to, by their addresses. */
  get all(): ReadonlyMap<string, Queue> {
    return this.#byAddress
  }

  /** Acks that may be repeated. */
  get repeatableAcks(): number {
    return this.#acks.size
  }

  /** The line of a queue or of one of its durable subscriptions. */
  line(ref: { readonly queue: string; readonly subscription: string }): Line | undefined {
    return this.#byAddress.get(ref.queue)?.lines.get(ref.subscription)
  }

  /** Does what an operation says, if what it names is as it expects. @param now never less than before */
  apply(op: StoreOp, now: number): StoreResult {
    this.#now = now
    return this.#apply(op)
  }

  nextNumber(): number {
    this.#lastNumber += 1
    return this.#lastNumber
  }

  onGone({ op, seq }: Message): void {
    if (op.id !== undefined) this.#byAddress.get(op.queue)?.dedupe.release(op, seq, this.#now)
  }

  #queue(address: string): Queue {
    let queue = this.#byAddress.get(address)
    if (queue === undefined) {
      const lines = new Map([['', new Line(address, '', this)]])
      queue = { lines, subscriptions: new Map(), dedupe: new DedupeRecords() }
      this.#byAddress.set(address, queue)
    }
    return queue
  }

  #entry(ref: EntryRef): Entry | undefined {
    return this.line(ref)?.entries.get(ref.seq)
  }

  /** The entry, if this token and holder are those of its lease. */
  #leased(op: EntryRef & { readonly token: string; readonly holder?: string | undefined }): Entry | undefined {
    const entry = this.#held(op)
    return entry?.state === 'leased' ? entry : undefined
  }

  /** The entry, if this token and holder are those of its lease or of its last one. */
  #held(op: EntryRef & { readonly token: string; readonly holder?: string | undefined }): Entry | undefined {
    const entry = this.#entry(op)
    if (entry === undefined || entry.token !== op.token) return undefined
    return op.holder === undefined || op.holder === entry.holder ? entry : undefined
  }

  #apply(op: StoreOp): StoreResult {
    const now = this.#now
    switch (op.type) {
      case 'publish':
        return this.#publish(op)
      case 'ack':
        return this.#ack(op)
      case 'nack':
      case 'release':
        return this.#giveBack(op)
      case 'dead': {
        const entry = this.#leased(op)
        if (entry === undefined) return NOT_FOUND
        entry.failures = op.failures ?? entry.failures
        this.#kill(entry, op.reason, entry.holder ?? '', op.why)
        return { status: 'ok', type: 'dead' }
      }
      case 'extend':
        return this.#extend(op)
      case 'received':
        return this.#received(op)
      case 'ready': {
        const entry = this.#entry(op)
        if (entry?.state !== 'delayed' || entry.at > now) return NOT_FOUND
        entry.line.move(entry, 'ready')
        return { status: 'ok', type: 'ready' }
      }
      case 'expire': {
        const entry = this.#entry(op)
        if (entry?.state !== 'ready' && entry?.state !== 'delayed') return NOT_FOUND
        if (entry.expiresAt === undefined || entry.expiresAt > now) return NOT_FOUND
        this.#kill(entry, 'expired', '', op.why)
        return { status: 'ok', type: 'expire' }
      }
      case 'replay':
        return this.#replay(op)
      case 'discard': {
        const entry = this.#entry(op)
        if (entry === undefined || entry.state !== (op.state ?? 'dead')) return NOT_FOUND
        entry.line.move(entry, 'gone')
        return { status: 'ok', type: 'discard' }
      }
      case 'purge':
        return this.#purge(op)
      case 'trim-dead':
        return this.#trimDead(op)
      case 'create-subscription':
        return this.#createSubscription(op)
      case 'delete-subscription': {
        const queue = this.#byAddress.get(op.queue)
        if (queue?.subscriptions.delete(op.subscription) !== true) return NOT_FOUND
        const line = queue.lines.get(op.subscription)
        for (const entry of line?.entries.values() ?? []) line?.move(entry, 'gone')
        queue.lines.delete(op.subscription)
        return { status: 'ok', type: 'delete-subscription' }
      }
      default: {
        const record = this.#byAddress.get(op.queue)?.subscriptions.get(op.subscription)
        if (record === undefined) return NOT_FOUND
        record.touchedAt = now
        return { status: 'ok', type: op.type }
      }
    }
  }

  #publish(op: PublishOp): StoreResult {
    const queue = this.#queue(op.queue)
    const earlier = op.id === undefined ? undefined : queue.dedupe.find(op, this.#now)
    if (earlier !== undefined) return earlier
    const bytes = bytesOf(op)
    const places: Line[] = []
    const drops: Entry[] = []
    for (const target of op.targets) {
      const line = queue.lines.get(target.subscription)
      if (line === undefined) continue
      const room = roomIn(line, target, bytes)
      if ('what' in room) return { status: 'full', what: room.what, subscription: target.subscription }
      places.push(line)
      drops.push(...room.drops)
    }
    const seq = this.nextNumber()
    // The targets served: a message keeps nothing that grows with the number of subscriptions.
    const kept = { ...op, targets: [], grant: undefined }
    const message: Message = { seq, op: kept, bytes, publishedAt: this.#now, entries: 0 }
    for (const entry of drops) this.#kill(entry, 'overflow', '', 'overflow')
    const dueAt = op.delayUntil !== undefined && op.delayUntil > this.#now ? op.delayUntil : undefined
    const grant = places.length === 1 && dueAt === undefined ? op.grant : undefined
    const isLeased = grant !== undefined && places[0]?.addLeased(message, grant, this.#now) === true
    if (!isLeased) for (const line of places) line.add(message, dueAt)
    if (op.id !== undefined) queue.dedupe.add(op, message.seq, places.length > 0, this.#now)
    const dropped = drops.map((entry) => droppedOf(entry, 'overflow'))
    const leasedAt = isLeased ? this.#now : undefined
    return { status: 'ok', type: 'publish', seq: message.seq, entries: places.length, dropped, leasedAt }
  }

  #kill(entry: Entry, reason: Entry['reason'], holder: string, why: string): void {
    entry.reason = reason
    const { history, deliveries } = entry
    entry.history = withHistory(history, { at: this.#now, holder, why, deliveries })
    entry.line.move(entry, 'dead', this.#now)
  }

  #ack(op: AckOp): StoreResult {
    const entry = this.#held(op)
    if (entry !== undefined) {
      this.#acks.add(op, op.token, entry.holder ?? '', this.#now)
      entry.line.move(entry, 'gone')
    } else if (!this.#acks.has(op, op.token, op.holder, this.#now)) {
      return NOT_FOUND
    }
    return { status: 'ok', type: 'ack' }
  }

  #giveBack(op: NackOp | ReleaseOp): StoreResult {
    const entry = this.#leased(op)
    if (entry === undefined) return NOT_FOUND
    entry.hasCountedFailure = op.type === 'nack'
    if (op.type === 'nack') {
      entry.failures = op.failures
      const { history, deliveries, holder = '' } = entry
      entry.history = withHistory(history, { at: this.#now, holder, why: op.why, deliveries })
    }
    const isLater = op.at !== undefined && op.at > this.#now
    entry.line.move(entry, isLater ? 'delayed' : 'ready', isLater ? op.at : 0)
    return { status: 'ok', type: op.type }
  }

  #extend(op: ExtendOp): StoreResult {
    const entry = this.#held(op)
    if (entry === undefined || entry.state === 'dead') return NOT_FOUND
    const relocked = entry.state !== 'leased'
    if (relocked) {
      if (entry.hasCountedFailure) {
        entry.failures -= 1
        entry.history = entry.history.slice(0, -1)
      }
      entry.claimedAt = this.#now
    }
    const latest = Number(entry.claimedAt) + op.maxLeaseMs
    const wanted = Math.min(this.#now + op.leaseMs, latest)
    const deadline = relocked ? wanted : Math.max(wanted, entry.at)
    entry.hasCountedFailure = false
    entry.received = true
    entry.line.move(entry, 'leased', deadline)
    return { status: 'ok', type: 'extend', deadline, relocked }
  }

  #received(op: ReceivedOp): StoreResult {
    const entry = this.#leased(op)
    if (entry === undefined) return NOT_FOUND
    if (!entry.received) {
      entry.received = true
      entry.line.move(entry, 'leased', this.#now + op.leaseMs)
    }
    return { status: 'ok', type: 'received', deadline: entry.at }
  }

  #replay(op: ReplayOp): StoreResult {
    const entry = this.#entry(op)
    if (entry?.state !== 'dead') return NOT_FOUND
    const target: PublishTarget = { ...op, whenFull: 'refuse' }
    const room = roomIn(entry.line, target, entry.message.bytes)
    if ('what' in room) return { status: 'full', what: room.what, subscription: op.subscription }
    entry.failures = 0
    entry.deliveries = 0
    entry.expiresAt = undefined
    entry.hasCountedFailure = false
    entry.token = undefined
    entry.holder = undefined
    entry.order = 0
    entry.line.move(entry, 'ready')
    return { status: 'ok', type: 'replay' }
  }

  #purge(op: PurgeOp): StoreResult {
    const line = this.line(op)
    let count = 0
    let last = op.after
    for (const entry of line?.entries.values() ?? []) {
      const { seq } = entry.message
      if (seq <= op.after || entry.state !== op.state) continue
      if (op.topic !== undefined && entry.message.op.topic !== op.topic) continue
      if (count === op.max) return { status: 'ok', type: 'purge', count, next: last }
      line?.move(entry, 'gone')
      count += 1
      last = seq
    }
    return { status: 'ok', type: 'purge', count, next: undefined }
  }

  #trimDead(op: TrimDeadOp): StoreResult {
    const line = this.line(op)
    const dropped: DroppedEntry[] = []
    for (let first = line?.dead.first; first !== undefined && dropped.length < op.max; first = line?.dead.first) {
      const { dead, deadBytes } = first.line.counts
      if (dead <= op.maxCount && deadBytes <= op.maxBytes && first.at >= op.diedBefore) break
      dropped.push(droppedOf(first, first.reason ?? 'rejected'))
      first.line.move(first, 'gone')
    }
    return { status: 'ok', type: 'trim-dead', dropped }
  }

  #createSubscription(op: CreateSubscriptionOp): StoreResult {
    const queue = this.#queue(op.queue)
    const known = queue.subscriptions.get(op.subscription)
    if (known !== undefined && known.meta !== op.meta) return { status: 'conflict' }
    if (known !== undefined) {
      known.touchedAt = this.#now
      return { status: 'ok', type: 'create-subscription', created: false }
    }
    if (queue.subscriptions.size >= op.max)
      return { status: 'full', what: 'subscriptions', subscription: op.subscription }
    queue.subscriptions.set(op.subscription, { meta: op.meta, createdAt: this.#now, touchedAt: this.#now })
    queue.lines.set(op.subscription, new Line(op.queue, op.subscription, this))
    return { status: 'ok', type: 'create-subscription', created: true }
  }
}

/** What has to give way so that a message fits, or which limit forbids it. */
function roomIn(
  line: Line,
  target: PublishTarget,
  bytes: number,
): { readonly drops: readonly Entry[] } | { readonly what: 'length' | 'bytes' } {
  let length = line.length + 1
  let total = line.counts.bytes + bytes
  const isFull = () => length > target.maxLength || total > target.maxBytes
  if (!isFull()) return { drops: [] }
  const drops: Entry[] = []
  if (target.whenFull === 'dead-letter-oldest') {
    for (const entry of line.ready.inOrder()) {
      drops.push(entry)
      length -= 1
      total -= entry.message.bytes
      if (!isFull() || drops.length === OVERFLOW_DROPS_MAX) break
    }
  }
  return isFull() ? { what: length > target.maxLength ? 'length' : 'bytes' } : { drops }
}
