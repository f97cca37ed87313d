/**
 * Signs of life and of death: what the core may take for the end of a session. One life of the broker.
 *
 *     unavailable, an error --> doubted --the answer to a ping--> alive
 *     a ping without an answer for too long --> silent
 *     the stream broke --> unseen --anything that it says--> seen
 *
 * 1. What a session was given before the stream broke, and that has not been seen since, is its worker's for a while after the stream is
 *    up: it may have come back under another resource. So for that while its end is no cause.
 */
import { isPing, type XmlElement } from '@xmq/protocol'

/** How long a worker is awaited at least (docs/protocol-reliable.md "When the stream breaks"). */
const ABSENCE_MS_MIN = 2000

/** See the top of this file. */
export class Signs {
  readonly #pingTimeoutMs: number
  readonly #pings = new Map<string, { readonly jid: string; readonly at: number }>()
  readonly #doubted = new Set<string>()
  /** When each was doubted last. */
  readonly #doubtedAt = new Map<string, number>()
  /** Calls of the core for what is known of a lease. */
  readonly #lookups = new Set<number>()
  /** When each was heard last. */
  readonly #seenAt = new Map<string, number>()
  /** When the stream broke last, and when it was up again: of this life, the first time it came up aside. */
  #brokeAt: number | undefined
  #upAt: number | undefined

  constructor(pingTimeoutMs: number) {
    this.#pingTimeoutMs = pingTimeoutMs
  }

  /** A stanza arrives. */
  arrived(stanza: XmlElement, now: number): void {
    const from = stanza.attrs.get('from') ?? ''
    const id = stanza.attrs.get('id') ?? ''
    const type = stanza.attrs.get('type')
    // Who writes `error` or `unavailable` is its server as well.
    if (type !== 'error' && type !== 'unavailable') this.#seenAt.set(from, now)
    if (stanza.name === 'presence') {
      if (type === 'unavailable') this.#doubt(from, now)
      return
    }
    if (type !== 'result' && type !== 'error') return
    const asked = this.#pings.get(id)
    if (asked?.jid === from) {
      this.#pings.delete(id)
      // Its time was over before it came.
      if (now - asked.at >= this.#pingTimeoutMs) this.#doubtedAt.set(from, asked.at + this.#pingTimeoutMs)
      // What is being looked up may be of the time before.
      if (type === 'result' && this.#lookups.size === 0) this.#doubted.delete(from)
    }
    if (type === 'error') this.#doubt(from, now)
  }

  #doubt(jid: string, now: number): void {
    this.#doubted.add(jid)
    this.#doubtedAt.set(jid, now)
  }

  /** The core sends a stanza. */
  left(stanza: XmlElement, now: number): void {
    if (stanza.name !== 'iq' || !isPing(stanza)) return
    this.#pings.set(stanza.attrs.get('id') ?? '', { jid: stanza.attrs.get('to') ?? '', at: now })
  }

  /** The stream of the queue ended. */
  linkDown(now: number): void {
    if (this.#brokeAt === undefined || this.#upAt !== undefined) this.#brokeAt = now
    this.#upAt = undefined
  }

  /** It is up. */
  linkUp(now: number): void {
    if (this.#brokeAt !== undefined) this.#upAt = now
  }

  /** Whether nothing was heard of a session since the stream broke. */
  isUnseen(jid: string): boolean {
    return this.#brokeAt !== undefined && (this.#seenAt.get(jid) ?? 0) < this.#brokeAt
  }

  /** Whether that was after the stream broke last. */
  isSinceBreak(at: number): boolean {
    return this.#brokeAt !== undefined && at > this.#brokeAt
  }

  /** Whether the worker of a session may still come back for what that had. @param heldSince when it had it */
  isAwaited(jid: string, heldSince: number, now: number): boolean {
    if (this.#brokeAt === undefined || heldSince >= this.#brokeAt || !this.isUnseen(jid)) return false
    return this.isDeaf(now)
  }

  /** Whether workers cannot be heard, or may not have come back since they could not. */
  isDeaf(now: number): boolean {
    if (this.#brokeAt === undefined) return false
    return this.#upAt === undefined || now < this.#upAt + Math.max(ABSENCE_MS_MIN, this.#upAt - this.#brokeAt)
  }

  /** Whether a session may have ended after the stream broke, be it that its JID is in use again. @param heldSince when it had what it had */
  wasAbsent(jid: string, heldSince: number, now: number): boolean {
    // What went out within the very millisecond may have gone before the break.
    if (this.#brokeAt === undefined || heldSince > this.#brokeAt) return false
    return this.lastDoubt(jid, now) > heldSince
  }

  /** The core asks the store what is known of a lease. */
  lookUp(call: number): void {
    this.#lookups.add(call)
  }

  /** The store has answered that. */
  lookedUp(call: number): void {
    this.#lookups.delete(call)
  }

  /** Whether a session may have ended, for all that the core knows. */
  hasEnded(jid: string, now: number): boolean {
    if (this.#doubted.has(jid)) return true
    for (const ping of this.#pings.values()) if (ping.jid === jid && now - ping.at >= this.#pingTimeoutMs) return true
    return false
  }

  /** When a session may have ended last, for all that the core knows; before the beginning when it never did. */
  lastDoubt(jid: string, now: number): number {
    let last = this.#doubtedAt.get(jid) ?? Number.NEGATIVE_INFINITY
    for (const ping of this.#pings.values())
      if (ping.jid === jid && now - ping.at >= this.#pingTimeoutMs) last = Math.max(last, ping.at + this.#pingTimeoutMs)
    return last
  }
}
