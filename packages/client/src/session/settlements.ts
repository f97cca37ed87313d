/**
 * What a worker says of its leases, until the queue has heard it. Owner: one session's leases.
 *
 *     unsent --turn: in a <settle/>--> sent --<settled/>--> over | failed
 *       |                               | no answer, refused `wait`, connection or broker lost --> unsent
 *       +--with a received--> over          (nobody answers that: what got lost comes again, and is known by its seq;
 *                                            when broker or connection was lost, the last acks are said again)
 *
 * Invariants:
 * 1. Of one lease the last word counts: an `extend` that is unsent gives way to anything else.
 * 2. An `extend` never travels with a received: its outcome matters.
 * 3. Settlements leave in order. What came back goes before anything new.
 * 4. The batch that says that all was named leaves when everything before it is answered; it is said again when it was not heard.
 * 5. At most UNSETTLED_MAX wait; the oldest is dropped, since its lease ends by itself.
 */
import {
  BATCH_ITEMS_MAX,
  decodeError,
  decodeSettled,
  encodeReceived,
  encodeSettle,
  type FailedSettlement,
  findChild,
  NS_QUEUE,
  type Settlement,
  stanza,
  type WrittenItem,
  writeSettlement,
  type XmlElement,
  type XmlNode,
  XmqError,
  YoungMap,
} from '@xmq/protocol'
import { ITEMS_BYTES_MAX } from './outgoing.ts'
import { isHopeless, Pauses } from './pauses.ts'
import type { Effect, Entropy, SessionRules } from './port.ts'
import type { Pulse } from './pulse.ts'
import type { Timers } from './timers.ts'

/** A settlement, written once. */
export interface Settled {
  readonly seq: number
  /** Of the job. */
  readonly key: string
  readonly settlement: Settlement
  readonly written: WrittenItem
  /** It was sent before: that it is not taken now may mean that it was taken then. */
  wasSent: boolean
}

interface Batch {
  readonly settled: readonly Settled[]
  /** Says that all that is held has been named. */
  readonly isComplete: boolean
  /** Its place among all that was asked (pulse.ts). */
  readonly number: number
}

/** One that the queue did not take. */
export interface Failed {
  readonly settled: Settled
  readonly error: XmqError
}

const BATCHES_MAX = 4
/** How many have to wait for a batch beside so many unanswered ones. */
const LEAST_WAITING = [1, 4, 16, 64] as const
const UNSETTLED_MAX = 20_000
/**
 * So many acks that went with a received are said again when broker or connection was lost: the keys of their messages are blocked
 * else, and another worker handles them again.
 */
const RIDDEN_MAX = 1000

/** The timer of a batch whose answer is overdue. */
export function settleTimer(id: string): string {
  return `settle:${id}`
}
/** The timer of the end of a pause. */
export const SETTLE_PAUSE_TIMER = 'settle-pause'

/** Gathers settlements into batches, and keeps them until they are answered. */
export class Settlements {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  readonly #pulse: Pulse
  readonly #pauses = new Pauses({ baseMs: 250, maxMs: 5000 })
  /** Of the leases that were delivered last: a queue gives all for as long. */
  #leaseMs = Number.POSITIVE_INFINITY
  #unsent = new YoungMap<string, Settled>()
  readonly #batches = new Map<string, Batch>()
  /** The queue is to be told when all that is held has been named. */
  #isDeclaring = false
  /** Acks that went with a received, the latest last, each with the number of what was asked before it. */
  #ridden: { readonly settled: Settled; readonly after: number }[] = []
  /** The number of the last batch that was answered: what left before it was heard, since streams are ordered. */
  #heard = 0

  constructor(rules: SessionRules, timers: Timers<string | number>, pulse: Pulse) {
    this.#rules = rules
    this.#timers = timers
    this.#pulse = pulse
  }

  /** Those that wait or are not answered. */
  get size(): number {
    let size = this.#unsent.size
    for (const { settled } of this.#batches.values()) size += settled.length
    return size
  }

  get unsent(): number {
    return this.#unsent.size
  }

  /** How long the leases are that are held now. */
  set leaseMs(leaseMs: number) {
    this.#leaseMs = leaseMs
  }

  /** Takes one on; the turn sends it. @throws XmqError `bad-request` on what cannot be sent */
  add({ seq, key }: { readonly seq: number; readonly key: string }, settlement: Settlement): void {
    const { lease, kind } = settlement
    const earlier = this.#unsent.get(lease)
    if (earlier !== undefined && kind === 'extend') return
    this.#unsent.delete(lease)
    this.#unsent.set(lease, { seq, key, settlement, written: writeSettlement(settlement), wasSent: false })
    if (this.#unsent.size <= UNSETTLED_MAX) return
    const oldest = this.#unsent.keys().next()
    if (!oldest.done) this.#unsent.delete(oldest.value)
  }

  /** The broker is back: a pause has no reason any more. */
  resume(): void {
    this.#pauses.over()
    this.#timers.delete(SETTLE_PAUSE_TIMER)
  }

  /** All that is held is unsent now, or was said: with the last of it the queue is told so. */
  declare(): void {
    this.#isDeclaring = true
  }

  /** Takes what may ride on the answer to a deliver stanza. @returns the children of that @param isPacked whether its items were packed */
  takeForReceived(isPacked: boolean): XmlNode[] {
    const taken: WrittenItem[] = []
    const acked: string[] = []
    let bytes = 0
    for (const [lease, settled] of this.#unsent) {
      const { settlement, written } = settled
      if (settlement.kind === 'extend') continue
      if (taken.length + acked.length === BATCH_ITEMS_MAX || bytes + written.bytes > ITEMS_BYTES_MAX) break
      if (isPacked && settlement.kind === 'ack') acked.push(lease)
      else taken.push(written)
      bytes += written.bytes
      this.#unsent.delete(lease)
      if (settlement.kind === 'ack') this.#ridden.push({ settled, after: this.#pulse.last })
    }
    if (this.#ridden.length > RIDDEN_MAX * 2) this.#ridden = this.#ridden.slice(-RIDDEN_MAX)
    return encodeReceived(taken, acked)
  }

  /** Sends what may be sent. @param isLive whether an `extend` still has a job to keep */
  turn(isLive: (settled: Settled) => boolean, now: number, entropy: Entropy, out: Effect[]): void {
    if (this.#pauses.isPaused(now)) return
    const batchesMax = this.#pauses.isDoubtful || this.#isDeclaring ? 1 : BATCHES_MAX
    while ((this.#unsent.size > 0 || this.#isDeclaring) && this.#batches.size < batchesMax) {
      if (this.#unsent.size < (LEAST_WAITING[this.#batches.size] ?? 1) && !this.#isDeclaring) return
      this.#writeBatch(isLive, now, entropy, out)
    }
  }

  #writeBatch(isLive: (settled: Settled) => boolean, now: number, entropy: Entropy, out: Effect[]): void {
    const batch: Settled[] = []
    let bytes = 0
    for (const [lease, settled] of this.#unsent) {
      if (batch.length === BATCH_ITEMS_MAX || bytes + settled.written.bytes > ITEMS_BYTES_MAX) break
      this.#unsent.delete(lease)
      if (settled.settlement.kind === 'extend' && !isLive(settled)) continue
      batch.push(settled)
      bytes += settled.written.bytes
    }
    const isComplete = this.#isDeclaring && this.#unsent.size === 0
    if (batch.length === 0 && !isComplete) return
    if (isComplete) this.#isDeclaring = false
    const id = entropy.id()
    this.#batches.set(id, { settled: batch, isComplete, number: this.#pulse.next() })
    this.#timers.set(settleTimer(id), now + this.#rules.answerTimeoutMs)
    const settle = encodeSettle(
      batch.map(({ written }) => written),
      { isComplete },
    )
    out.push({ type: 'send', stanza: stanza('iq', { type: 'set', id, to: this.#rules.queue }, [settle]) })
  }

  isBatch(id: string): boolean {
    return this.#batches.has(id)
  }

  /** The queue's answer to a batch. @returns those that it will never take */
  answered(id: string, iq: XmlElement, now: number, entropy: Entropy): Failed[] {
    const number = this.numberOf(id) ?? 0
    const { settled: batch, isComplete } = this.#take(id)
    if (iq.attrs.get('type') === 'error') {
      const error = decodeError(iq)
      if (isHopeless(error)) return batch.map((settled) => ({ settled, error }))
      this.#isDeclaring ||= isComplete
      this.#retry(batch, error, now, entropy)
      return []
    }
    const failures = readFailures(iq)
    if (failures instanceof XmqError) {
      this.#isDeclaring ||= isComplete
      this.#retry(batch, failures, now, entropy)
      return []
    }
    this.#heard = Math.max(this.#heard, number)
    const byLease = new Map(failures.map(({ lease, error }) => [lease, error]))
    const failed: Failed[] = []
    const again: Settled[] = []
    let reason: XmqError | undefined
    for (const settled of batch) {
      const error = byLease.get(settled.settlement.lease)
      if (error === undefined) continue
      if (error.type !== 'wait') {
        // An ack that was said before was taken then, or its message comes again and is known.
        if (!settled.wasSent || settled.settlement.kind !== 'ack') failed.push({ settled, error })
      } else {
        again.push(settled)
        reason = error
      }
    }
    this.#pauses.succeeded()
    if (reason !== undefined) this.#retry(again, reason, now, entropy)
    return failed
  }

  /** The answer to a batch is overdue. */
  overdue(id: string, now: number, entropy: Entropy): void {
    const text = `${this.#rules.queue} did not answer within ${this.#rules.answerTimeoutMs} ms.`
    const { settled, isComplete } = this.#take(id)
    this.#isDeclaring ||= isComplete
    this.#retry(settled, new XmqError('timeout', text), now, entropy)
  }

  #take(id: string): Pick<Batch, 'settled' | 'isComplete'> {
    const batch = this.#batches.get(id) ?? { settled: [], isComplete: false }
    this.#batches.delete(id)
    this.#timers.delete(settleTimer(id))
    return batch
  }

  /** The number of a batch that is not answered. */
  numberOf(id: string): number | undefined {
    return this.#batches.get(id)?.number
  }

  /** The least number above `above` of a batch that is not answered. */
  oldest(above: number): number | undefined {
    for (const { number } of this.#batches.values()) if (number > above) return number
    return undefined
  }

  /** What was numbered below and has no answer is lost with its broker, or done: it is said again. */
  lost(before: number): void {
    const lost = [...this.#batches].filter(([, { number }]) => number < before)
    for (const [id] of lost.reverse()) {
      const { settled, isComplete } = this.#take(id)
      this.#isDeclaring ||= isComplete
      this.#giveBack(settled)
    }
    const ridden = this.#ridden.slice(-RIDDEN_MAX)
    this.#giveBack(ridden.filter(({ after }) => after < before).map(({ settled }) => settled))
    this.#ridden = ridden.filter(({ after }) => after >= before)
  }

  #forgetExtends(): void {
    for (const [lease, { settlement }] of this.#unsent) if (settlement.kind === 'extend') this.#unsent.delete(lease)
  }

  #retry(batch: readonly Settled[], reason: XmqError, now: number, entropy: Entropy): void {
    this.#giveBack(batch)
    this.#timers.set(SETTLE_PAUSE_TIMER, this.#pauses.failed(reason, now, entropy, this.#leaseMs))
  }

  #giveBack(batch: readonly Settled[]): void {
    const unsent = new YoungMap<string, Settled>()
    for (const settled of batch) {
      settled.wasSent = true
      unsent.set(settled.settlement.lease, settled)
    }
    // A later word about the same lease takes its place.
    for (const [lease, settled] of this.#unsent) {
      const earlier = unsent.get(lease)
      if (earlier === undefined || earlier.settlement.kind === 'extend') unsent.set(lease, settled)
    }
    this.#unsent = unsent
  }

  /** The connection ended: everything is unsent again, but for extends, which are declared anew. */
  down(): void {
    for (const [id, { settled }] of [...this.#batches].reverse()) {
      this.#timers.delete(settleTimer(id))
      this.#giveBack(settled)
    }
    this.#batches.clear()
    this.#isDeclaring = false
    const unsure = this.#ridden.slice(-RIDDEN_MAX).filter(({ after }) => after >= this.#heard)
    this.#giveBack(unsure.map(({ settled }) => settled))
    this.#ridden = []
    this.#forgetExtends()
    this.#pauses.over()
    this.#timers.delete(SETTLE_PAUSE_TIMER)
  }
}

function readFailures(iq: XmlElement): FailedSettlement[] | XmqError {
  const root = findChild(iq, 'settled', NS_QUEUE)
  if (root === undefined) return new XmqError('server', 'The queue answered a settle without <settled/>.')
  try {
    return decodeSettled(root)
  } catch (error) {
    return XmqError.from(error)
  }
}
