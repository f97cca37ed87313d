/**
 * The messages that a reliable worker holds. Owner: one session.
 *
 *     delivered --new--> held --settle--> finished (ack) | forgotten
 *               \-- held already: not run twice, the new lease is added
 *               \-- finished: acked again
 *     held --a third of the lease is left--> extended
 *          --the queue knows none of its leases any more--> lost: its handler is told to stop --settle--> forgotten
 *                                                           lost --delivered again--> held
 *
 *     deliver stanza --all of it is settled, or RECEIVE_MS passed--> answered "received", with what is settled by then
 *
 * Invariants:
 * 1. Of each message at most one job is handed out at a time, and none after it was acked, as far as FINISHED_MIN reaches. A
 *    message is known by its seq and when it was published: a queue that keeps nothing counts anew when its broker restarts.
 * 2. A deliver stanza is answered within RECEIVE_MS, whatever handlers do.
 * 3. Each job ends in one `settle`, which says the same of each of its leases; what is said is kept until the queue has heard it.
 * 4. Every lease that is held is extended before it ends, and first thing on each new connection.
 */
import {
  decodeDeliver,
  type DeliveredItem,
  errorTo,
  payloadOf,
  resultTo,
  type Settlement,
  withChildren,
  type XmlElement,
  XmqError,
  YoungMap,
} from '@xmq/protocol'
import type { Delivery, Effect, Entropy, Outcome, SessionRules } from './port.ts'
import type { Pulse } from './pulse.ts'
import { Recent } from './recent.ts'
import { SETTLE_PAUSE_TIMER, type Settled, Settlements, settleTimer } from './settlements.ts'
import type { Timers } from './timers.ts'

interface Lease {
  readonly token: string
  readonly leaseMs: number
  extendAt: number
}

interface Job {
  readonly seq: number
  /** When it was published. */
  readonly at: number
  readonly key: string
  /** Several when it was delivered again, or through several durable subscriptions; none when it is lost. */
  leases: readonly Lease[]
  /** What it came with. */
  readonly unreceived: Unreceived
}

interface Unreceived {
  /** The stanza, without what is in it. */
  readonly iq: XmlElement
  /** How many of its jobs are not settled. */
  open: number
  /** Whether its items were packed. */
  readonly isPacked: boolean
  readonly answerAt: number
}

/** How long the answer to a deliver stanza may wait for fast handlers. */
const RECEIVE_MS = 3
/** How many acked messages are known again, or more. */
const FINISHED_MIN = 10_000
/** More leases of one message are not kept: the oldest are over. */
const LEASES_MAX = 4

/** The timer of the next extension. */
const EXTEND_TIMER = 'extend'
/** The timer of the next answer to a deliver stanza. */
const RECEIVE_TIMER = 'receive'
const SETTLE_PREFIX = settleTimer('')

/** Holds leased messages for a worker. */
export class Leases {
  readonly #timers: Timers<string | number>
  readonly #settlements: Settlements
  readonly #jobs = new YoungMap<string, Job>()
  /** When the messages were published that were acked, by seq. */
  readonly #finished = new Recent<number, number>(FINISHED_MIN)
  readonly #unreceived = new Set<Unreceived>()
  #isUp = false
  #turnAsked = false
  /** Whether it was told that everything is settled. */
  #isQuiet = true
  /** When the timer of the extensions is set to. */
  #extendAt = Number.POSITIVE_INFINITY

  constructor(rules: SessionRules, timers: Timers<string | number>, pulse: Pulse) {
    this.#timers = timers
    this.#settlements = new Settlements(rules, timers, pulse)
  }

  /** Settlements that the queue has not answered. */
  get unsettled(): number {
    return this.#settlements.size
  }

  /** Jobs that are held. */
  get held(): number {
    return this.#jobs.size
  }

  #askTurn(out: Effect[]): void {
    if (this.#turnAsked || !this.#isUp) return
    this.#turnAsked = true
    out.push({ type: 'turn' })
  }

  /**
   * The connection is up and the queue reliable, or its broker is back: says what is settled, and extends what is held.
   * @param isNewLife whether the broker is another one: it is told when this was all, so that it gives to others what never arrived
   */
  ready(now: number, entropy: Entropy, out: Effect[], isNewLife = false): void {
    this.#isUp = true
    this.#settlements.resume()
    if (isNewLife) this.#settlements.declare()
    for (const job of this.#jobs.values()) this.#extend(job, now)
    this.#settlements.turn((settled) => this.#isLive(settled), now, entropy, out)
    this.#setExtendTimer()
  }

  /** The connection ended. */
  down(): void {
    this.#isUp = false
    this.#turnAsked = false
    this.#unreceived.clear()
    this.#timers.delete(RECEIVE_TIMER)
    this.#timers.delete(EXTEND_TIMER)
    this.#extendAt = Number.POSITIVE_INFINITY
    this.#settlements.down()
    if (this.#settlements.size > 0) this.#isQuiet = false
  }

  /**
   * A deliver stanza of the queue.
   * @param wants whether a message of a topic is to be handled; others are released
   */
  deliver(
    iq: XmlElement,
    root: XmlElement,
    { wants, connection }: { wants: (topic: string) => boolean; connection: number },
    now: number,
    out: Effect[],
  ): void {
    let deliver: ReturnType<typeof decodeDeliver>
    try {
      deliver = decodeDeliver(root)
    } catch (error) {
      out.push({ type: 'send', stanza: errorTo(iq, XmqError.from(error, 'bad-request')) })
      return
    }
    // All of a batch would be kept as long as one message of it is.
    const head = withChildren(iq, [])
    const unreceived: Unreceived = { iq: head, open: 0, answerAt: now + RECEIVE_MS, isPacked: deliver.isPacked }
    this.#unreceived.add(unreceived)
    const { leaseMs } = deliver
    this.#settlements.leaseMs = leaseMs
    for (const result of deliver.items) {
      if (!result.ok) {
        if (result.lease !== undefined) this.#rejectBroken(result.lease, result.error)
        continue
      }
      const { item } = result
      const key = keyOf(item)
      const lease: Lease = { token: item.lease, leaseMs, extendAt: now + (leaseMs * 2) / 3 }
      if (!this.#take(item, key, lease, wants, out)) continue
      this.#jobs.set(key, { seq: item.seq, at: item.at, key, leases: [lease], unreceived })
      unreceived.open++
      out.push({ type: 'deliver', delivery: deliveryOf(item, key, head, connection) })
    }
    if (unreceived.open === 0) this.#askTurn(out)
    this.#setReceiveTimer()
  }

  #rejectBroken(lease: string, error: XmqError): void {
    this.#settlements.add({ seq: 0, key: '' }, { kind: 'reject', lease, reason: 'invalid', why: error.message })
  }

  /** @returns whether it is to be handled */
  #take(
    { seq, at, topic }: DeliveredItem,
    key: string,
    lease: Lease,
    wants: (topic: string) => boolean,
    out: Effect[],
  ): boolean {
    if (this.#finished.get(seq) === at) {
      this.#settlements.add({ seq, key }, { kind: 'ack', lease: lease.token })
      out.push({ type: 'event', event: { name: 'duplicate', seq, topic, state: 'done' } })
      return false
    }
    const held = this.#jobs.get(key)
    if (held !== undefined) {
      this.#extendNotAfter(lease.extendAt)
      const others = held.leases.filter(({ token }) => token !== lease.token)
      held.leases = [...others, lease].slice(-LEASES_MAX)
      out.push({ type: 'event', event: { name: 'duplicate', seq, topic, state: 'running' } })
      return false
    }
    if (!wants(topic)) {
      this.#settlements.add({ seq, key }, { kind: 'release', lease: lease.token })
      return false
    }
    this.#extendNotAfter(lease.extendAt)
    return true
  }

  /** A job's handler has ended. Of one that is lost there is nothing to say. */
  settle(key: string, outcome: Outcome, out: Effect[]): void {
    const job = this.#jobs.get(key)
    if (job === undefined) return
    this.#jobs.delete(key)
    if (outcome.kind === 'ack') this.#finished.set(job.seq, job.at)
    this.#isQuiet = false
    for (const { token } of job.leases) this.#settlements.add(job, settlementOf(outcome, token))
    job.unreceived.open--
    this.#askTurn(out)
  }

  /** The turn is over: answers what is received and settles what is done. */
  turn(now: number, entropy: Entropy, out: Effect[]): void {
    this.#turnAsked = false
    if (!this.#isUp) return
    this.#answer((unreceived) => unreceived.open === 0, out)
    // What is unsent goes with the next "received", which is due in a moment: two stanzas less.
    if (this.#unreceived.size === 0) {
      this.#settlements.turn((settled) => this.#isLive(settled), now, entropy, out)
    }
    this.#tellQuiet(out)
  }

  #answer(isDue: (unreceived: Unreceived) => boolean, out: Effect[]): void {
    for (const unreceived of this.#unreceived) {
      if (!isDue(unreceived)) continue
      this.#unreceived.delete(unreceived)
      const children = this.#settlements.takeForReceived(unreceived.isPacked)
      out.push({ type: 'send', stanza: resultTo(unreceived.iq, children) })
    }
    this.#setReceiveTimer()
  }

  #setReceiveTimer(): void {
    const [first] = this.#unreceived
    if (first === undefined) this.#timers.delete(RECEIVE_TIMER)
    else this.#timers.set(RECEIVE_TIMER, first.answerAt)
  }

  /** A timer of this. @returns whether it was one */
  timer(name: string, now: number, entropy: Entropy, out: Effect[]): boolean {
    if (name === RECEIVE_TIMER) {
      this.#answer((unreceived) => unreceived.answerAt <= now, out)
      this.turn(now, entropy, out)
    } else if (name === EXTEND_TIMER) {
      this.#extendDue(now)
      this.turn(now, entropy, out)
    } else if (name === SETTLE_PAUSE_TIMER) {
      this.turn(now, entropy, out)
    } else if (name.startsWith(SETTLE_PREFIX)) {
      this.#settlements.overdue(name.slice(SETTLE_PREFIX.length), now, entropy)
    } else {
      return false
    }
    return true
  }

  #extendDue(now: number): void {
    for (const job of this.#jobs.values()) {
      for (const lease of job.leases) {
        // Those that are due soon go along: one stanza for a batch that came in several.
        if (lease.extendAt > now + lease.leaseMs / 6) continue
        this.#extend(job, now)
        break
      }
    }
    this.#setExtendTimer()
  }

  #extend(job: Job, now: number): void {
    for (const lease of job.leases) {
      this.#settlements.add(job, { kind: 'extend', lease: lease.token })
      lease.extendAt = now + (lease.leaseMs * 2) / 3
    }
  }

  #setExtendTimer(): void {
    this.#extendAt = Number.POSITIVE_INFINITY
    for (const { leases } of this.#jobs.values()) {
      for (const { extendAt } of leases) this.#extendAt = Math.min(this.#extendAt, extendAt)
    }
    if (!this.#isUp || this.#extendAt === Number.POSITIVE_INFINITY) this.#timers.delete(EXTEND_TIMER)
    else this.#timers.set(EXTEND_TIMER, this.#extendAt)
  }

  /** One lease more: cheaper than looking at all. The timer may come too early, when the first was settled; never too late. */
  #extendNotAfter(extendAt: number): void {
    if (extendAt >= this.#extendAt || !this.#isUp) return
    this.#extendAt = extendAt
    this.#timers.set(EXTEND_TIMER, extendAt)
  }

  #isLive({ key, settlement }: Settled): boolean {
    return this.#jobs.get(key)?.leases.some(({ token }) => token === settlement.lease) === true
  }

  isBatch(id: string): boolean {
    return this.#settlements.isBatch(id)
  }

  /** The number of a settle that is not answered. */
  numberOf(id: string): number | undefined {
    return this.#settlements.numberOf(id)
  }

  /** The least number above `above` of a settle that is not answered. */
  oldest(above: number): number | undefined {
    return this.#settlements.oldest(above)
  }

  /** What was numbered below and is not answered is said again. */
  lost(before: number, out: Effect[]): void {
    this.#settlements.lost(before)
    if (this.#settlements.size === 0) return
    this.#isQuiet = false
    this.#askTurn(out)
  }

  /** The queue's answer to a settle. */
  answered(id: string, iq: XmlElement, now: number, entropy: Entropy, out: Effect[]): void {
    for (const { settled, error } of this.#settlements.answered(id, iq, now, entropy)) {
      if (settled.settlement.kind === 'extend') this.#lost(settled, error, out)
      else this.#tellFailed(settled.seq, settled.settlement, error, out)
    }
    this.#askTurn(out)
    this.#tellQuiet(out)
  }

  #lost({ seq, key, settlement }: Settled, error: XmqError, out: Effect[]): void {
    const job = this.#jobs.get(key)
    if (job === undefined) return
    const left = job.leases.filter(({ token }) => token !== settlement.lease)
    const wasThere = left.length < job.leases.length
    job.leases = left
    if (!wasThere || left.length > 0) return
    // It stays: until its handler has ended, a redelivery of it must not begin.
    out.push({ type: 'lease-lost', key, seq, error })
  }

  #tellFailed(seq: number, { kind }: Settlement, error: XmqError, out: Effect[]): void {
    if (kind === 'extend') return
    out.push({ type: 'event', event: { name: 'settle-failed', seq, outcome: kind, error } })
  }

  #tellQuiet(out: Effect[]): void {
    if (this.#settlements.size > 0 || this.#isQuiet) return
    this.#isQuiet = true
    out.push({ type: 'event', event: { name: 'all-settled' } })
  }
}

/** A spread would be slow, and most are acks. */
function settlementOf(outcome: Outcome, lease: string): Settlement {
  return outcome.kind === 'ack' ? { kind: 'ack', lease } : { ...outcome, lease }
}

function keyOf({ seq, at }: DeliveredItem): string {
  return `${seq}@${at}`
}

function deliveryOf(item: DeliveredItem, key: string, stanza: XmlElement, connection: number): Delivery {
  const { seq, attempt, failures, at, topic, id, from, content } = item
  return {
    kind: 'message',
    topic,
    id: id ?? '',
    from,
    payload: payloadOf(content.payload),
    headers: content.headers,
    lease: { key, seq, attempt, failures, at },
    wantsProgress: false,
    form: 'nested',
    stanza,
    connection,
  }
}
