/**
 * What a session does only towards a reliable queue: confirmed publishes and leases, and to notice what was lost. Owner: one
 * session. The parts keep their own state; this file hands them what concerns several.
 *
 * Invariants:
 * 1. Outbox and leases are told of each connection that is up with a reliable queue, and of its end, in this order: what is settled and
 *    held goes first, then subscriptions (the session), then publishes. So the queue takes back no message that is held here.
 * 2. An effect `turn` brings one input `turn` for both.
 * 3. What is lost is given back in all parts before any of them sends.
 */
import type { XmlElement, XmqError } from '@xmq/protocol'
import { Leases } from './leases.ts'
import { batchTimer, Outbox, OUTBOX_TIMER } from './outbox.ts'
import type { Effect, Entropy, SessionRules } from './port.ts'
import { least, Pulse } from './pulse.ts'
import type { Timers } from './timers.ts'

const BATCH_PREFIX = batchTimer('')

/** Outbox and leases of one session. */
export class Reliable {
  readonly outbox: Outbox
  readonly leases: Leases
  readonly pulse: Pulse

  constructor(rules: SessionRules, timers: Timers<string | number>) {
    this.pulse = new Pulse(rules, timers)
    this.outbox = new Outbox(rules, timers, this.pulse)
    this.leases = new Leases(rules, timers, this.pulse)
  }

  /** The least number above `above` of what is not answered. */
  oldest(above: number): number | undefined {
    return least(this.outbox.oldest(above), this.leases.oldest(above))
  }

  /** The number of what an IQ asked, while it has no answer. */
  numberOf(id: string): number | undefined {
    return this.outbox.numberOf(id) ?? this.leases.numberOf(id)
  }

  /** What was numbered below and is not answered is lost. */
  lost(before: number, out: Effect[]): void {
    this.leases.lost(before, out)
    this.outbox.lost(before, out)
  }

  /** The connection ended. */
  down(): void {
    this.outbox.down()
    this.leases.down()
    this.pulse.down()
  }

  /** The turn of the event loop is over. */
  turn(now: number, entropy: Entropy, out: Effect[]): void {
    this.leases.turn(now, entropy, out)
    this.outbox.turn(now, entropy, out)
  }

  /** A timer of one of these. @returns whether it was one */
  timer(name: string, now: number, entropy: Entropy, out: Effect[]): boolean {
    if (name === OUTBOX_TIMER) this.outbox.turn(now, entropy, out)
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
