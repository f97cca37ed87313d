/**
 * The connection: whether there is one, whether the queue's mode is known over it, and when the next is tried. Owner: one session.
 *
 *     idle --open--> connecting --up--> online --ready--> ready --doubt--> online
 *                        |                |                 |
 *                        +------ down ----+-----------------+--> offline --pause over: open--> connecting
 *                        +-- down, fatal, never online before --> over: the session closes
 *     any --close--> closed
 *
 * Invariants:
 * 1. Ready means online with a known mode: it ends with the connection, and with a doubt of the mode.
 * 2. Each attempt has a number of its own: what came over one connection is answered over no other.
 * 3. Pauses between attempts grow with full jitter, up to `backoffMs.max`; they start anew after a connection that held.
 */
import type { XmqError } from '@xmq/protocol'
import type { ConnectionStatus, Effect, Entropy, Mode, SessionRules } from './port.ts'
import type { Timers } from './timers.ts'

/** A connection that held this long makes the pauses start anew. */
const STEADY_MS = 5000
/** The least pause after a refusal of what was once accepted: a wrong password does not get right by the second. */
const FATAL_PAUSE_MS = 30_000

/** The timer of the next attempt. */
export const RECONNECT_TIMER = 'reconnect'

/** See the top of this file. */
export class Connection {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  #status: ConnectionStatus = { state: 'idle' }
  #ready: Mode | undefined
  #number = 0
  /** Since one last held. */
  #attempts = 0
  #onlineSince: number | undefined
  #wasOnline = false

  constructor(rules: SessionRules, timers: Timers<string | number>) {
    this.#rules = rules
    this.#timers = timers
  }

  get status(): ConnectionStatus {
    return this.#status
  }

  /** The mode while calls and subscriptions may be written, else `undefined`. */
  get ready(): Mode | undefined {
    return this.#ready
  }

  /** Names the current connection, or the last attempt at one. */
  get number(): number {
    return this.#number
  }

  get isOnline(): boolean {
    return this.#status.state === 'online'
  }

  /** Whether what came over a connection can be answered. */
  isCurrent(number: number): boolean {
    return this.#status.state === 'online' && this.#number === number
  }

  /** Whether there is something to be closed: a connection, or the attempt at one. */
  get isOpen(): boolean {
    return this.#status.state === 'connecting' || this.#status.state === 'online'
  }

  /** Tries to connect: the first time, or after a pause. */
  open(out: Effect[]): void {
    this.#attempts++
    this.#number++
    this.#status = { state: 'connecting', attempt: this.#attempts }
    out.push({ type: 'event', event: { name: 'connecting', attempt: this.#attempts } })
    out.push({ type: 'open' })
  }

  /** The attempt has succeeded. @returns whether one was under way */
  up(jid: string, now: number): boolean {
    if (this.#status.state !== 'connecting') return false
    this.#wasOnline = true
    this.#onlineSince = now
    this.#status = { state: 'online', jid, mode: undefined }
    return true
  }

  /** The mode is known. @returns whether there is a connection to use it on */
  becomeReady(mode: Mode, out: Effect[]): boolean {
    if (this.#status.state !== 'online') return false
    this.#ready = mode
    this.#status = { state: 'online', jid: this.#status.jid, mode }
    out.push({ type: 'event', event: { name: 'mode', mode } })
    return true
  }

  /** The mode is to be asked for again. */
  doubt(): void {
    this.#ready = undefined
  }

  /**
   * The connection, or the attempt at one, ended.
   * @param isFatal whether another attempt cannot go better
   * @returns whether there is another attempt
   */
  down(reason: XmqError, isFatal: boolean, now: number, entropy: Entropy, out: Effect[]): boolean {
    if (this.#onlineSince !== undefined && now - this.#onlineSince >= STEADY_MS) this.#attempts = 0
    this.#onlineSince = undefined
    this.#ready = undefined
    if (isFatal && !this.#wasOnline) {
      out.push({ type: 'event', event: { name: 'offline', reason, retryAt: now, fatal: true } })
      return false
    }
    const { base, max } = this.#rules.backoffMs
    const ceiling = Math.min(max, base * 2 ** Math.min(this.#attempts, 20))
    const pause = entropy.unit() * ceiling
    const retryAt = now + (isFatal ? Math.max(FATAL_PAUSE_MS, pause) : pause)
    this.#status = { state: 'offline', reason, retryAt }
    this.#timers.set(RECONNECT_TIMER, retryAt)
    out.push({ type: 'event', event: { name: 'offline', reason, retryAt, fatal: false } })
    return true
  }

  /** Ends it for good. @param reason why, where nobody asked for it */
  close(reason: XmqError | undefined): void {
    this.#ready = undefined
    this.#status = { state: 'closed', reason }
  }
}
