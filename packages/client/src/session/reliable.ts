/**
 * What a session does only towards a reliable queue: confirmed publishes and leases. Owner: one session. Both parts keep
 * their own state; this file hands them what concerns both.
 *
 * Invariants:
 * 1. Both are told of each connection that is up with a reliable queue, and of its end, in this order: what is settled and
 *    held goes first, then subscriptions (the session), then publishes. So the queue takes back no message that is held here.
 * 2. An effect `turn` brings one input `turn` for both.
 */
import type { XmlElement, XmqError } from '@xmq/protocol'
import { Leases } from './leases.ts'
import { batchTimer, Outbox, OUTBOX_TIMER } from './outbox.ts'
import type { Effect, Entropy, SessionRules } from './port.ts'
import type { Timers } from './timers.ts'

const BATCH_PREFIX = batchTimer('')

/** Outbox and leases of one session. */
export class Reliable {
  readonly outbox: Outbox
  readonly leases: Leases

  constructor(rules: SessionRules, timers: Timers<string | number>) {
    this.outbox = new Outbox(rules, timers)
    this.leases = new Leases(rules, timers)
  }

  /** The connection ended. */
  down(): void {
    this.outbox.down()
    this.leases.down()
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
