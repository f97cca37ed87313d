/**
 * What is sent to every plain subscriber of an `all` queue, as fast as the server takes it. Owner: the runtime.
 *
 *     message --> link, while it is not congested
 *         \--else--> held, a few references each --the link drains--> link, in order
 *                      \-- more than {@link FAN_OUT_HELD_MAX}, or the stream ends --> dropped, and counted
 *
 * One large message to thousands is written as far as the link takes it: written at once, it would itself pass the mark at which the
 * stream is closed.
 *
 * Invariants:
 * 1. Messages of one domain leave in the order in which the core sent them.
 * 2. What is held shares the tree of its message; the text is made when it is its turn.
 */
import { bareOf, type XmlElement } from '@xmq/protocol'

/** Most deliveries that are held for one domain: one for each subscription that the broker takes by default. */
const FAN_OUT_HELD_MAX = 100_000
/** Milliseconds between two looks at whether a server drains what we wrote. */
const POLL_MS = 20

/** What {@link FanOut} needs. */
export interface FanOutPort {
  isCongested(domain: string): boolean
  send(domain: string, stanza: XmlElement): void
  /** Deliveries of a queue were given up. */
  onDropped(queue: string, count: number): void
}

/** See the top of this file. */
export class FanOut {
  readonly #port: FanOutPort
  readonly #heldMax: number
  readonly #held: Map<string, XmlElement[]> = new Map()
  #timer: NodeJS.Timeout | undefined

  constructor(port: FanOutPort, heldMax: number = FAN_OUT_HELD_MAX) {
    this.#port = port
    this.#heldMax = heldMax
  }

  /** Deliveries that are held, of all domains. */
  get held(): number {
    let count = 0
    for (const held of this.#held.values()) count += held.length
    return count
  }

  send(domain: string, stanza: XmlElement): void {
    const held = this.#held.get(domain)
    if (held === undefined && !this.#port.isCongested(domain)) {
      this.#port.send(domain, stanza)
      return
    }
    if (held === undefined) this.#held.set(domain, [stanza])
    else if (held.length < this.#heldMax) held.push(stanza)
    else this.#drop([stanza])
    this.#timer ??= setTimeout(() => this.#drain(), POLL_MS)
  }

  /** The stream of a domain ended: what is held for it is given up, as all that was on its way is. */
  linkDown(domain: string): void {
    const held = this.#held.get(domain)
    if (held === undefined) return
    this.#held.delete(domain)
    this.#drop(held)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#held.clear()
  }

  #drain(): void {
    this.#timer = undefined
    for (const [domain, held] of this.#held) {
      let sent = 0
      while (sent < held.length && !this.#port.isCongested(domain)) this.#port.send(domain, held[sent++] as XmlElement)
      if (sent === held.length) this.#held.delete(domain)
      else held.splice(0, sent)
    }
    if (this.#held.size > 0) this.#timer = setTimeout(() => this.#drain(), POLL_MS)
  }

  #drop(stanzas: readonly XmlElement[]): void {
    const counts = new Map<string, number>()
    for (const { attrs } of stanzas) {
      const queue = bareOf(attrs.get('from') ?? '')
      counts.set(queue, (counts.get(queue) ?? 0) + 1)
    }
    for (const [queue, count] of counts) this.#port.onDropped(queue, count)
  }
}
