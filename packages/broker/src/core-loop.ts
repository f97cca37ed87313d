/**
 * Owner of the core's turns: one input after the other, in the core's time, and a tick when one is due.
 *
 *     feed --> waiting --one at a time--> core.handle --effects--> apply
 *                ^                                                   | what applying brings
 *                +------ tick (timer at core.deadline) --------------+
 *
 * Invariants:
 * 1. One input at a time: one that comes while effects are being applied waits until they are.
 * 2. The core's time is whole milliseconds and never runs backwards: what is stored and written has no fractions.
 * 3. A throw of the core is a fault: it is told without payload, and whoever waits gets `internal`. The next input is handled.
 * 4. While the core has a deadline the timer is set for it, or for an earlier time.
 */
import { domainOf, errorTo, isStanza, mayBeAnswered, XmqError, type XmlElement } from '@xmq/protocol'
import type { Core, Effect, Entropy, Input } from './core/port.ts'

const TIMER_MS_MAX = 2 ** 31 - 1

/** What {@link CoreLoop} needs. */
export interface CoreLoopOptions {
  readonly core: Core
  /** Milliseconds that never run backwards. */
  readonly now: () => number
  readonly entropy: Entropy
  /** Applies what one input brought, in its order. */
  readonly apply: (effects: readonly Effect[], now: number) => void
  /** Told when all that was waiting is done. */
  readonly onQuiet: () => void
  /** Told of a throw of the core. @param stanza that it was given, where it was one */
  readonly onFault: (what: Input['type'], stanza: XmlElement | undefined, error: unknown) => void
}

/** See the top of this file. */
export class CoreLoop {
  readonly #options: CoreLoopOptions
  readonly #core: Core
  readonly #waiting: Input[] = []
  #isFeeding = false
  #isClosed = false
  #timer: NodeJS.Timeout | undefined
  #timerAt = Number.POSITIVE_INFINITY

  constructor(options: CoreLoopOptions) {
    this.#options = options
    this.#core = options.core
  }

  /** Hands an input to the core, now or after those that came before. */
  feed(input: Input): void {
    if (this.#isClosed) return
    this.#waiting.push(input)
    if (this.#isFeeding) return
    this.#isFeeding = true
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) this.#handle(next)
    } finally {
      this.#isFeeding = false
    }
    this.#options.onQuiet()
    this.#arm()
  }

  /** Ends the timer, until another input sets one. */
  disarm(): void {
    clearTimeout(this.#timer)
  }

  /** Takes no input any more. */
  close(): void {
    this.#isClosed = true
  }

  #handle(input: Input): void {
    let effects: Effect[]
    const now = Math.floor(this.#options.now())
    try {
      effects = this.#core.handle(input, now, this.#options.entropy)
    } catch (error) {
      effects = this.#faultOf(input, error)
    }
    this.#options.apply(effects, now)
  }

  /** The core threw: says so without the payload, and leaves nobody waiting. */
  #faultOf(input: Input, error: unknown): Effect[] {
    const stanza = input.type === 'stanza' ? input.stanza : undefined
    this.#options.onFault(input.type, stanza, error)
    if (stanza === undefined || !isStanza(stanza) || stanza.name === 'presence' || !mayBeAnswered(stanza)) return []
    const domain = domainOf(stanza.attrs.get('to') ?? '')
    const answer = errorTo(stanza, new XmqError('internal', 'The broker failed on this stanza. Its log says where.'))
    return [{ type: 'send', domain, stanza: answer }]
  }

  /** Sets the timer for the core's deadline, unless it is set for then or before: an early tick costs less than a timer each. */
  #arm(): void {
    const { deadline } = this.#core
    if (deadline === undefined || deadline >= this.#timerAt || this.#isClosed) return
    clearTimeout(this.#timer)
    this.#timerAt = deadline
    const { now } = this.#options
    const waitMs = Math.min(Math.max(1, Math.ceil(deadline) - Math.floor(now())), TIMER_MS_MAX)
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY
      const due = this.#core.deadline
      if (due !== undefined && due <= Math.floor(now())) this.feed({ type: 'tick' })
      else this.#arm()
    }, waitMs)
  }
}
