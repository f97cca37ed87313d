/**
 * Whether the server is still there. Owner: one session.
 *
 *     hearing --`silenceMs` without a stanza--> asked --a stanza, any--> hearing
 *                                                     --`answerTimeoutMs` without one--> given up
 *
 * Invariants:
 * 1. At most one ping is open, and only while the connection is up.
 * 2. Any stanza is a sign of life, not the answer alone: a server that is busy answers late.
 */
import { element, NS_PING, stanza, XmqError } from '@xmq/protocol'
import type { Effect, Entropy, SessionRules } from './port.ts'
import type { Timers } from './timers.ts'

/** The timer of the next question for a sign of life. */
export const SILENCE_TIMER = 'silence'
/** The timer of its answer. */
export const PONG_TIMER = 'pong'

/** Asks for signs of life, and gives up without one. */
export class Liveness {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  #heardAt = 0
  #heardSincePing = false
  #pingId = ''

  constructor(rules: SessionRules, timers: Timers<string | number>) {
    this.#rules = rules
    this.#timers = timers
  }

  /** A connection is up. */
  up(now: number): void {
    this.#heardAt = now
    this.#pingId = ''
    this.#timers.set(SILENCE_TIMER, now + this.#rules.silenceMs)
  }

  /** The connection ended. */
  down(): void {
    this.#timers.delete(SILENCE_TIMER)
    this.#timers.delete(PONG_TIMER)
  }

  /** Something arrived. */
  heard(now: number): void {
    this.#heardAt = now
    this.#heardSincePing = true
  }

  /** Whether an IQ id is that of the last ping. */
  isPing(id: string): boolean {
    return id !== '' && id === this.#pingId
  }

  /** The timer `silence`: asks for a sign of life when there was none lately. */
  silence(now: number, entropy: Entropy, out: Effect[]): void {
    const quietUntil = this.#heardAt + this.#rules.silenceMs
    if (quietUntil > now) {
      this.#timers.set(SILENCE_TIMER, quietUntil)
      return
    }
    this.#pingId = entropy.id()
    this.#heardSincePing = false
    const head = { type: 'get', id: this.#pingId, to: this.#rules.domain }
    out.push({ type: 'send', stanza: stanza('iq', head, [element('ping', NS_PING)]) })
    this.#timers.set(PONG_TIMER, now + this.#rules.answerTimeoutMs)
  }

  /** The timer `pong`. @returns why the connection is to be given up, if it is */
  pong(now: number): XmqError | undefined {
    if (!this.#heardSincePing) {
      return new XmqError('connection-lost', `The server gave no sign of life for ${now - this.#heardAt} ms.`)
    }
    this.#timers.set(SILENCE_TIMER, this.#heardAt + this.#rules.silenceMs)
    return undefined
  }
}
