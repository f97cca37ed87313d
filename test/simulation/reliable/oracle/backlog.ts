/**
 * One line of the store: the entries in it, and what may become of each.
 *
 *     stored --> waiting --leased--> leased --ack--> acked
 *                  ^  |                 |
 *                  |  +--expire--+      +--dead--> dead --discard, purge--> purged
 *                  +--nack, release-----+           |
 *                  +--replay------------------------+
 *     any of them --forget--> forgotten
 *
 * 1. A lease is made of what waits, and has not failed too often. Only its last token, in the hands of its holder, does anything.
 * 2. Of one key nothing else is leased beside it, and what came before is done.
 * 3. A message is given up for a reason that is true.
 * 4. What gives way in a full line is the oldest that waits, and only there.
 */
import type { ClaimRequest, PublishOp, StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import { DELIVERIES_MAX, type Entry, type Knowledge, type Made, type Stored } from './entry.ts'
import { Readiness } from './readiness.ts'

/** See the top of this file. */
export class Backlog {
  readonly filter: string
  readonly #line: string
  readonly #knowledge: Knowledge
  readonly #entries = new Map<number, Entry>()
  readonly #readiness: Readiness

  /** The core has heard that the store has ended it. */
  isOver = false

  /** @param line what the store calls it @param filter the topic or pattern of what goes into it */
  constructor(line: string, filter: string, knowledge: Knowledge) {
    this.filter = filter
    this.#line = line
    this.#knowledge = knowledge
    this.#readiness = new Readiness()
  }

  get entries(): Iterable<Entry> {
    return this.#entries.values()
  }

  /** What the store calls it. */
  get id(): string {
    return this.#line
  }

  /** It is ended, with all that is in it. */
  end(): void {
    for (const entry of this.#entries.values()) if (entry.state !== 'acked') entry.state = 'forgotten'
  }

  find(seq: number): Entry | undefined {
    return this.#entries.get(seq)
  }

  /** A message is stored in it. @param isLeased with its publish */
  add({ seq, sent, entries }: Stored, op: PublishOp, isLeased: boolean, now: number): Entry {
    const entry: Entry = {
      seq,
      sent,
      line: this.#line,
      isOver: () => this.isOver,
      expiresAt: op.expiresAt,
      order: seq,
      state: 'waiting',
      token: undefined,
      holder: undefined,
      failures: 0,
      deliveries: 0,
      hasCountedFailure: false,
    }
    entries.push(entry)
    this.#entries.set(seq, entry)
    this.#readiness.stored(seq, op, isLeased, now)
    return entry
  }

  get #length(): number {
    let length = 0
    for (const { state } of this.#entries.values()) if (state === 'waiting' || state === 'leased') length++
    return length
  }

  /** A publish was refused for it. */
  full(): void {
    this.#knowledge.note('full')
    if (this.#length < this.#knowledge.reliable.lengthMax)
      throw new Violation(`a publish was refused at ${this.#length} messages`)
  }

  /** A publish finds room, or what gives way to it is the oldest that waits. */
  checkRoom(dropped: readonly number[]): void {
    const { lengthMax, whenFull } = this.#knowledge.reliable
    if (this.#entries.size < lengthMax) return
    for (const seq of dropped) {
      const entry = this.#entries.get(seq)
      if (entry?.state !== 'waiting') throw new Violation(`${seq} gave way while it was ${entry?.state}`)
      if (whenFull === 'refuse' || this.#length < lengthMax) throw new Violation(`${seq} gave way for nothing`)
      for (const other of this.#entries.values()) {
        if (other.seq < seq && isFresh(other)) throw new Violation(`${seq} gave way before ${other.seq}`)
      }
      this.#knowledge.note('dead overflow')
      entry.state = 'dead'
      this.#readiness.ended(seq)
    }
    if (this.#length >= lengthMax) throw new Violation(`stored beside ${this.#length} of ${lengthMax}`)
  }

  /** Leases were made by a claim. */
  claimed(
    request: ClaimRequest,
    claimed: readonly { readonly seq: number; readonly priority: number }[],
    now: number,
  ): void {
    if (this.#readiness.claimed(request, claimed, now) > 0) this.#knowledge.note('priority')
  }

  /** A lease was made. @param life of the broker */
  leased(entry: Entry, { token, holder, deliveries }: Made, life: number): void {
    const { seq } = entry
    const { reliable, note } = this.#knowledge
    if (entry.state !== 'waiting') throw new Violation(`${seq} was leased while it was ${entry.state}`)
    if (entry.failures >= reliable.maxAttempts) throw new Violation(`${seq} was leased after its last attempt`)
    entry.state = 'leased'
    entry.token = token
    entry.holder = holder
    entry.deliveries++
    entry.hasCountedFailure = false
    if (entry.deliveries > 1) note('redelivered')
    if (entry.deliveries !== deliveries) throw new Violation(`${seq} counts ${deliveries} deliveries`)
    if (deliveries > DELIVERIES_MAX + life) throw new Violation(`${seq} was leased ${deliveries} times`)
    this.#checkKey(entry)
  }

  /** Of one topic and key nothing else is in flight, and what came before is done. */
  #checkKey({ seq, sent, order }: Entry): void {
    if (sent.key === undefined) return
    this.#knowledge.note('key')
    for (const other of this.#entries.values()) {
      if (other.sent.key !== sent.key || other.sent.topic !== sent.topic || other.seq === seq) continue
      if (other.state === 'leased') throw new Violation(`${seq} was leased beside ${other.seq} of the same key`)
      if (other.order < order && other.state === 'waiting') throw new Violation(`${seq} was leased before ${other.seq}`)
    }
  }

  /** Dead letters were purged. */
  purged({ after, topic, max }: Extract<StoreOp, { type: 'purge' }>, count: number): void {
    const meant = [...this.#entries.values()]
      .filter(
        ({ seq, state, sent }) => seq > after && state === 'dead' && (topic === undefined || sent.topic === topic),
      )
      .slice(0, max)
    if (meant.length !== count) throw new Violation(`${count} were purged, of ${meant.length}`)
    if (count > 0) this.#knowledge.note('purged all')
    for (const entry of meant) entry.state = 'purged'
  }

  /** An operation on an entry was done. @param askedAt what the store took for the time @param order of one that is replayed */
  done(
    op: Exclude<StoreOp, PublishOp> & { readonly seq: number },
    entry: Entry,
    result: StoreResult,
    { now, askedAt, order }: { readonly now: number; readonly askedAt: number; readonly order: () => number },
  ): void {
    const { seq } = entry
    const { note } = this.#knowledge
    if ('token' in op && op.token !== entry.token)
      throw new Violation(`${op.type} of ${seq} was done with ${op.token}, which is not its last lease`)
    if ('holder' in op && op.holder !== undefined && op.holder !== entry.holder)
      throw new Violation(`${op.type} of ${seq} was done by ${op.holder}, but ${entry.holder} has it`)
    switch (op.type) {
      case 'ack':
        note(entry.state === 'acked' ? 'ack repeated' : entry.state === 'leased' ? 'acked' : 'acked late')
        entry.state = 'acked'
        break
      case 'nack':
        if (op.failures !== entry.failures + 1)
          throw new Violation(`${seq} failed for the ${entry.failures + 1}. time and counts ${op.failures}`)
        entry.failures = op.failures
        entry.hasCountedFailure = true
        entry.state = 'waiting'
        break
      case 'release':
        entry.hasCountedFailure = false
        entry.state = 'waiting'
        break
      case 'dead':
        this.#died(op, entry, now)
        break
      case 'expire':
        if (entry.expiresAt === undefined || entry.expiresAt > now) throw new Violation(`${seq} expired before its ttl`)
        if (entry.state !== 'waiting') throw new Violation(`${seq} expired while it was ${entry.state}`)
        note('expired')
        entry.state = 'dead'
        break
      case 'extend':
        if (result.status === 'ok' && result.type === 'extend') this.#extended(entry, result.relocked)
        break
      case 'discard':
        if (entry.state !== 'dead') throw new Violation(`${seq} was purged while it was ${entry.state}`)
        note('purged')
        entry.state = 'purged'
        break
      case 'replay':
        this.#replayed(entry, order())
        break
      default:
    }
    this.#readiness.done(op, askedAt)
  }

  #died(op: Extract<StoreOp, { type: 'dead' }>, entry: Entry, now: number): void {
    const { seq, failures, deliveries, expiresAt } = entry
    this.#knowledge.note(`dead ${op.reason}`)
    if (op.reason === 'max-attempts') {
      const isWornOut = op.failures === undefined && deliveries >= DELIVERIES_MAX
      const hasFailed = op.failures === failures + 1 && op.failures >= this.#knowledge.reliable.maxAttempts
      if (!isWornOut && !hasFailed) throw new Violation(`${seq} was given up after ${failures} failures`)
    }
    if (op.reason === 'expired' && (expiresAt === undefined || expiresAt > now))
      throw new Violation(`${seq} is given up as expired before its ttl`)
    entry.state = 'dead'
  }

  #extended(entry: Entry, relocked: boolean): void {
    if (entry.state === 'acked' || entry.state === 'dead')
      throw new Violation(`${entry.seq} was extended after it ended`)
    this.#knowledge.note(relocked ? 'extended late' : 'extended')
    if (!relocked) return
    if (entry.hasCountedFailure) entry.failures--
    entry.hasCountedFailure = false
    entry.state = 'leased'
    this.#checkKey(entry)
  }

  #replayed(entry: Entry, order: number): void {
    if (entry.state !== 'dead') throw new Violation(`${entry.seq} was replayed while it was ${entry.state}`)
    this.#knowledge.note('replayed')
    entry.state = 'waiting'
    entry.failures = 0
    entry.deliveries = 0
    entry.hasCountedFailure = false
    entry.expiresAt = undefined
    entry.token = undefined
    entry.holder = undefined
    entry.order = order
  }
}

/** Whether an entry waits since it was stored, and could be claimed. */
function isFresh({ state, deliveries, sent, order, seq }: Entry): boolean {
  return state === 'waiting' && deliveries === 0 && sent.delayMs === 0 && order === seq
}
