/**
 * What a session does only towards a reliable queue: confirmed publishes and leases, and to notice what was lost with a broker, and
 * send it again. Owner: one session. The parts keep their own state; this file hands them what concerns several.
 *
 *     an answer, a call --> pulse: the epoch it names --> lost --> given back in all parts --> sent again, in order
 *                                                     --> another broker: told of this session, and the user of it
 *
 * Invariants:
 * 1. Outbox and leases are told of each connection that is up with a reliable queue, and of its end, in this order: what is settled and
 *    held goes first, then subscriptions (the session), then publishes. So the queue takes back no message that is held here.
 * 2. An effect `turn` brings one input `turn` for both.
 * 3. What is lost is given back in all parts before any of them sends.
 */
import { decodeError, epochOf, type XmlElement, type XmqError } from '@xmq/protocol'
import type { Calls } from './calls.ts'
import type { Detection } from './detection.ts'
import { Leases } from './leases.ts'
import { batchTimer, Outbox, OUTBOX_TIMER } from './outbox.ts'
import { NOBODY_THERE } from './pauses.ts'
import type { Effect, Entropy, SessionRules } from './port.ts'
import { least, type Pulse, PULSE_TIMER, type Shown } from './pulse.ts'
import type { Subscriptions } from './subscriptions.ts'
import type { Timers } from './timers.ts'

const BATCH_PREFIX = batchTimer('')

/** What {@link Reliable} needs. */
export interface ReliableOptions {
  readonly rules: SessionRules
  readonly timers: Timers<string | number>
  readonly pulse: Pulse
  readonly detection: Detection
  readonly calls: Calls
  readonly subscriptions: Subscriptions
}

/** See the top of this file. */
export class Reliable {
  readonly outbox: Outbox
  readonly leases: Leases
  readonly #pulse: Pulse
  readonly #detection: Detection
  readonly #calls: Calls
  readonly #subscriptions: Subscriptions

  constructor({ rules, timers, pulse, detection, calls, subscriptions }: ReliableOptions) {
    this.outbox = new Outbox(rules, timers, pulse)
    this.leases = new Leases(rules, timers, pulse)
    this.#pulse = pulse
    this.#detection = detection
    this.#calls = calls
    this.#subscriptions = subscriptions
  }

  /** The connection is up and the queue reliable. Subscriptions follow, then the outbox is to be told that it is ready. */
  up(now: number, entropy: Entropy, out: Effect[]): void {
    this.#pulse.learn(this.#detection.epoch)
    this.#pulse.up()
    this.described(now)
    this.leases.ready(now, entropy, out)
    for (const publish of this.#calls.takePublishes()) this.outbox.add(publish, publish.calledAt, out)
  }

  /** The queue has said what it is. @param since when the broker that says so was noticed */
  described(since: number): void {
    this.outbox.learnWindow(this.#detection.dedupeMs, since)
  }

  /** After each input over a connection that is up: whoever owes an answer is watched. */
  watch(now: number): void {
    if (this.#pulse.isWatching) return
    if (this.#oldest(0) !== undefined) this.#pulse.watch(now)
    else if (this.#detection.isForgetful && this.#subscriptions.size > 0) this.#pulse.idle(now)
  }

  /** The least number above `above` of what was asked and is not answered. */
  #oldest(above: number): number | undefined {
    const others = least(this.#subscriptions.oldest(above), this.#calls.oldest(above))
    return least(least(this.outbox.oldest(above), this.leases.oldest(above)), others)
  }

  /** The number of what an IQ asked, while it has no answer. */
  #numberOf(id: string): number | undefined {
    return this.outbox.numberOf(id) ?? this.leases.numberOf(id) ?? this.#subscriptions.numberOf(id)
  }

  /** What an answer from the queue's address shows of its broker. @returns whether it answers just that */
  heard(id: string, iq: XmlElement, now: number, entropy: Entropy, out: Effect[]): boolean {
    const isAbsence = isAbsenceOf(iq)
    const epoch = epochOf(iq)
    if (this.#pulse.isQuestion(id)) {
      this.#shown(this.#pulse.answered(id, epoch, isAbsence, now, entropy), now, entropy, out)
      return true
    }
    if (isAbsence) this.#pulse.absent(now)
    const number = epoch === undefined ? undefined : this.#numberOf(id)
    if (epoch !== undefined && number !== undefined) this.#shown(this.#pulse.heard(epoch, number), now, entropy, out)
    return false
  }

  /** The broker calls those that it once knew: `<resubscribe/>`. */
  called(iq: XmlElement, now: number, entropy: Entropy, out: Effect[]): void {
    const epoch = epochOf(iq)
    const shown = epoch === undefined ? undefined : this.#pulse.heard(epoch)
    const call = { lostBefore: shown?.lostBefore, isNewLife: shown?.isNewLife ?? true, isBack: true }
    this.#shown(call, now, entropy, out)
  }

  /** Sends again what was lost with a broker, and tells the new one of this session. */
  #shown({ lostBefore, isNewLife, isBack }: Shown, now: number, entropy: Entropy, out: Effect[]): void {
    if (lostBefore !== undefined) {
      this.leases.lost(lostBefore, out)
      this.outbox.lost(lostBefore, out)
    }
    if (!isBack) return
    if (lostBefore !== undefined && isNewLife) this.#calls.brokerLost(lostBefore, out)
    this.leases.ready(now, entropy, out, isNewLife)
    this.#subscriptions.again(now, entropy, out, isNewLife)
    this.outbox.ready(out)
    if (!isNewLife) return
    this.#detection.outdated(now, entropy, out)
    out.push({ type: 'event', event: { name: 'broker-changed', epoch: this.#pulse.epoch ?? '' } })
  }

  /** The connection ended. */
  down(): void {
    this.outbox.down()
    this.leases.down()
    this.#pulse.down()
  }

  /** The turn of the event loop is over. */
  turn(now: number, entropy: Entropy, out: Effect[]): void {
    this.leases.turn(now, entropy, out)
    this.outbox.turn(now, entropy, out)
  }

  /** A timer of one of these. @returns whether it was one */
  timer(name: string, now: number, entropy: Entropy, out: Effect[]): boolean {
    if (name === PULSE_TIMER) this.#pulse.timer((above) => this.#oldest(above), now, entropy, out)
    else if (name === OUTBOX_TIMER) this.outbox.turn(now, entropy, out)
    else if (name.startsWith(BATCH_PREFIX)) this.outbox.overdue(name.slice(BATCH_PREFIX.length), now, entropy, out)
    else return this.leases.timer(name, now, entropy, out)
    return true
  }

  /** An IQ answer from the queue. @returns whether it answers one of these */
  answered(
    id: string,
    iq: XmlElement,
    explain: (error: XmqError) => XmqError,
    now: number,
    entropy: Entropy,
    out: Effect[],
  ): boolean {
    if (this.outbox.isBatch(id)) this.outbox.answered(id, iq, explain, now, entropy, out)
    else if (this.leases.isBatch(id)) this.leases.answered(id, iq, now, entropy, out)
    else return false
    return true
  }
}

/** Whether a server answered in the queue's place: nobody serves it. */
function isAbsenceOf(iq: XmlElement): boolean {
  if (iq.attrs.get('type') !== 'error') return false
  const { fromBroker, condition } = decodeError(iq)
  return !fromBroker && NOBODY_THERE.has(condition)
}
