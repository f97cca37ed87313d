/**
 * Signs of life and of death: what the core may take for the end of a session. One life of the broker.
 *
 *     unavailable, an error --> doubted --the answer to a ping--> alive
 *     a ping without an answer for too long --> silent
 */
import { isPing, type XmlElement } from '@xmq/protocol'

/** See the top of this file. */
export class Signs {
  readonly #pingTimeoutMs: number
  readonly #pings = new Map<string, { readonly jid: string; readonly at: number }>()
  readonly #doubted = new Set<string>()
  /** When each was doubted last. */
  readonly #doubtedAt = new Map<string, number>()
  /** Calls of the core for what is known of a lease. */
  readonly #lookups = new Set<number>()

  constructor(pingTimeoutMs: number) {
    this.#pingTimeoutMs = pingTimeoutMs
  }

  /** A stanza arrives. */
  arrived(stanza: XmlElement, now: number): void {
    const from = stanza.attrs.get('from') ?? ''
    const id = stanza.attrs.get('id') ?? ''
    const type = stanza.attrs.get('type')
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
