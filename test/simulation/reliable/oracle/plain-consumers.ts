/**
 * Plain consumers, by what has arrived of each: its subscriptions, what it was given, and what proves that it has it. One life of the
 * broker.
 *
 *     leased --message--> out --a ping behind it is answered--> proved --ack--> over
 *                          |
 *                          \-- returned, its session ended, its time is over --release--> over
 *
 * 1. Who is given something, or asked, was subscribed to its topic with a load that allows it, in its time.
 * 2. A message is taken to have arrived when a ping that left after it over the same stream of the queue is answered, by a client that
 *    can; for one that cannot, and in a queue that keeps nothing, at once. What has arrived so the client has really got.
 * 3. Nobody holds more than the window for plain consumers.
 * 4. When a message comes back, or a session has ended, all that it holds is given back at once.
 * 5. A subscription ends for a cause: its time, a bounce, the end of its session.
 */
import { decodeError, isPing, LOAD_ELIGIBLE_MAX, type XmlElement } from '@xmq/protocol'
import type { CoreEvent } from '../../../../packages/broker/src/core/port.ts'
import { Violation } from '../../violation.ts'
import type { Knowledge } from './entry.ts'

/** What a server answers for somebody who is gone. */
const ABSENT: ReadonlySet<string> = new Set([
  'service-unavailable',
  'recipient-unavailable',
  'gone',
  'remote-server-not-found',
  'remote-server-timeout',
])

interface Place {
  isOn: boolean
  load: number
  /** In any reading of "whole seconds" it lasts until then, */
  aliveUntil: number
  /** and is over from then on. */
  overFrom: number
  /** Until then it may be given something: its time, or when it was ended or said that it is full. */
  eligibleUntil: number
}

interface Out {
  readonly jid: string
  readonly payload: string
  readonly at: number
  /** Of the streams of the queue. */
  readonly stream: number
  isProved: boolean
}

interface Ping {
  readonly jid: string
  readonly at: number
  readonly tokens: readonly string[]
}

/** What plain clients really sent and got, whatever the broker knows. It outlives all brokers. */
export class PlainTruth {
  readonly #got = new Set<string>()
  readonly #boundAt = new Map<string, number>()
  /** By their content: there are two of one now and then, which are the same. */
  readonly #originals = new Map<string, XmlElement>()

  /** A message has arrived at the queue, from whom it says. */
  arrived(payload: string, message: XmlElement): void {
    this.#originals.set(payload, message)
  }

  /** A plain message as it arrived; undefined of what was no such. */
  original(payload: string): XmlElement | undefined {
    return this.#originals.get(payload)
  }

  /** A session has got a message. */
  got(jid: string, payload: string): void {
    this.#got.add(`${jid} ${payload}`)
  }

  /** A session is bound to a full JID. */
  bound(jid: string, at: number): void {
    this.#boundAt.set(jid, at)
  }

  /** Whether a full JID must have got a message that was sent at some time, if it is there: nobody else has had its name since. */
  lacks(jid: string, payload: string, sentAt: number): boolean {
    return (this.#boundAt.get(jid) ?? 0) < sentAt && !this.#got.has(`${jid} ${payload}`)
  }
}

/** See the top of this file. */
export class PlainConsumers {
  readonly #knowledge: Knowledge
  readonly #truth: PlainTruth
  readonly #keeps: boolean
  readonly #pingTimeoutMs: number
  /** By full JID and topic. */
  readonly #places = new Map<string, Map<string, Place>>()
  readonly #out = new Map<string, Out>()
  /** Tokens of what each full JID holds. */
  readonly #held = new Map<string, Set<string>>()
  readonly #pings = new Map<string, Ping>()
  /** Who may pass for one that cannot answer pings, */
  readonly #mute = new Set<string>()
  /** and who has answered one that was about nothing but its session, as long as it is subscribed. */
  readonly #answering = new Set<string>()
  #stream = 0
  /** Who was given something in this step, and who has to have nothing left after it. */
  readonly #given = new Set<string>()
  readonly #emptied = new Set<string>()
  /** Who has answered such a ping in this step, if the core minds it. */
  #answers: string | undefined

  constructor(
    knowledge: Knowledge,
    truth: PlainTruth,
    rules: { readonly durability: string; readonly pingTimeoutMs: number },
  ) {
    this.#knowledge = knowledge
    this.#truth = truth
    this.#keeps = rules.durability !== 'memory'
    this.#pingTimeoutMs = rules.pingTimeoutMs
  }

  /** A plain command arrives. */
  command(from: string, { attrs }: XmlElement, now: number): void {
    const topic = attrs.get('topic') ?? ''
    const places = this.#places.get(from) ?? new Map<string, Place>()
    this.#places.set(from, places)
    const ttlMs = Number(attrs.get('ttl')) * 1000
    const known = places.get(topic)
    if (attrs.get('command') === 'del' || ttlMs < 0) {
      if (known !== undefined) end(known, now)
      return
    }
    const load = Number(attrs.get('load'))
    const overFrom = now + ttlMs + 1000
    const isFull = load > LOAD_ELIGIBLE_MAX
    const eligibleUntil = isFull ? Math.min(known?.eligibleUntil ?? 0, now) : overFrom
    places.set(topic, { isOn: true, load, aliveUntil: now + ttlMs - (now % 1000), overFrom, eligibleUntil })
  }

  /** Who has to be given a message of a topic, as far as it is known. */
  eligible(topic: string, now: number): readonly string[] {
    const jids: string[] = []
    for (const [jid, places] of this.#places) {
      const place = places.get(topic)
      if (place?.isOn === true && place.load <= LOAD_ELIGIBLE_MAX && now < place.aliveUntil) jids.push(jid)
    }
    return jids
  }

  /** Whether somebody might be given something of a topic at some time. @param since that time */
  mayGet(jid: string, topic: string, since: number): boolean {
    const place = this.#places.get(jid)?.get(topic)
    return place !== undefined && place.eligibleUntil >= since
  }

  /** Whether a full JID has ever subscribed plainly. */
  has(jid: string): boolean {
    return this.#places.has(jid)
  }

  /** Something else is about to be handled by the core. */
  begin(): void {
    this.#given.clear()
    this.#emptied.clear()
    this.#answers = undefined
  }

  /** A stanza arrives. */
  arrived(stanza: XmlElement, now: number): void {
    const type = stanza.attrs.get('type')
    const from = stanza.attrs.get('from') ?? ''
    if (stanza.name === 'message' && type === 'error') {
      const { condition, fromBroker } = decodeError(stanza)
      if (!fromBroker && ABSENT.has(condition) && this.#held.has(from)) {
        this.#knowledge.note('message returned')
        this.#emptied.add(from)
      }
    }
    const id = stanza.attrs.get('id') ?? ''
    const ping = type === 'result' || type === 'error' ? this.#pings.get(id) : undefined
    if (ping?.jid !== from) return
    this.#pings.delete(id)
    const condition = type === 'error' ? decodeError(stanza).condition : ''
    if (now - ping.at >= this.#pingTimeoutMs) this.#mute.add(from)
    if (condition === '' && ping.tokens.length === 0) this.#answers = from
    const wasMute = this.#isMute(from, now)
    if (condition === 'service-unavailable') this.#mute.add(from)
    if (ABSENT.has(condition) && !(wasMute && condition === 'service-unavailable')) return
    for (const token of ping.tokens) {
      const out = this.#out.get(token)
      if (out !== undefined) out.isProved = true
    }
  }

  /** The stream of the queue ended: what was asked over it is answered by nobody, and what it carried may be lost. */
  linkDown(now: number): void {
    for (const { jid } of this.#pings.values()) if (this.#isMute(jid, now)) this.#mute.add(jid)
    this.#pings.clear()
    this.#stream++
  }

  /** The core pings somebody. */
  left(stanza: XmlElement, now: number): void {
    if (stanza.name !== 'iq' || !isPing(stanza)) return
    const jid = stanza.attrs.get('to') ?? ''
    const tokens = [...(this.#held.get(jid) ?? [])].filter((token) => this.#out.get(token)?.stream === this.#stream)
    this.#pings.set(stanza.attrs.get('id') ?? '', { jid, at: now, tokens })
  }

  /** A leased message leaves for a plain consumer. @param grantedAt when the core asked for its lease */
  delivered(
    jid: string,
    given: { readonly token: string; readonly payload: string; readonly topic: string; readonly grantedAt: number },
    now: number,
  ): void {
    const { token, payload, topic, grantedAt } = given
    if (!this.mayGet(jid, topic, grantedAt))
      throw new Violation(`${jid} is given ${payload} of ${topic}, and may not be`)
    if (!this.#isSubscribed(jid)) throw new Violation(`${jid} is given ${payload} after its last subscription`)
    this.#out.set(token, { jid, payload, at: now, stream: this.#stream, isProved: false })
    const held = this.#held.get(jid)
    if (held === undefined) this.#held.set(jid, new Set([token]))
    else held.add(token)
    this.#given.add(jid)
    this.#knowledge.note('plain delivered')
  }

  /** A lease has ended. */
  letGo(token: string): void {
    const out = this.#out.get(token)
    if (out === undefined) return
    this.#out.delete(token)
    const held = this.#held.get(out.jid)
    held?.delete(token)
    if (held?.size === 0) this.#held.delete(out.jid)
  }

  /** Whether a lease is a plain consumer's, and not over. */
  holds(token: string): boolean {
    return this.#out.has(token)
  }

  /** The core acks for a plain consumer. */
  checkAck(token: string, now: number): void {
    const { jid, payload, at, isProved } = this.#out.get(token) as Out
    const isMute = this.#isMute(jid, now)
    this.#knowledge.note(!this.#keeps ? 'plain acked, nothing kept' : isMute ? 'plain acked on send' : 'plain acked')
    if (!this.#keeps || isMute) return
    if (!isProved) throw new Violation(`${payload} is taken to have arrived, and nothing says that ${jid} has it`)
    if (this.#truth.lacks(jid, payload, at))
      throw new Violation(`${payload} is taken to have arrived, and ${jid} never got it`)
  }

  #isSubscribed(jid: string): boolean {
    return [...(this.#places.get(jid)?.values() ?? [])].some(({ isOn }) => isOn)
  }

  #isMute(jid: string, now: number): boolean {
    if (this.#answering.has(jid)) return false
    if (this.#mute.has(jid)) return true
    for (const ping of this.#pings.values()) if (ping.jid === jid && now - ping.at >= this.#pingTimeoutMs) return true
    return false
  }

  /** The core tells that a subscription has ended. @param mayHaveEnded whether the session may have */
  event(event: CoreEvent, mayHaveEnded: (jid: string) => boolean, now: number): void {
    if (event.name === 'ignored') this.#answers = undefined
    if (event.name !== 'unsubscribed') return
    const { consumer, topic, reason } = event
    const place = this.#places.get(consumer)?.get(topic)
    if (place === undefined) return
    if (reason === 'expired' && place.isOn && now < place.aliveUntil)
      throw new Violation(`${consumer} to ${topic} is ended ${place.aliveUntil - now} ms before its time`)
    if ((reason === 'session-ended' || reason === 'bounced') && !mayHaveEnded(consumer))
      throw new Violation(`${consumer} is ended as ${reason}, and nothing says so`)
    if (reason === 'session-ended') this.#emptied.add(consumer)
    this.#knowledge.note(`plain ended ${reason}`)
    end(place, now)
    if (!this.#isSubscribed(consumer)) this.#answering.delete(consumer)
  }

  /** The core has handled what arrived. */
  check(): void {
    if (this.#answers !== undefined && this.#isSubscribed(this.#answers)) {
      this.#answering.add(this.#answers)
      this.#mute.delete(this.#answers)
    }
    const { plainWindow } = this.#knowledge.reliable
    for (const jid of this.#given) {
      const size = this.#held.get(jid)?.size ?? 0
      if (size > plainWindow) throw new Violation(`${jid} has ${size} of ${plainWindow}`)
      if (size === plainWindow) this.#knowledge.note('plain window used up')
    }
    for (const jid of this.#emptied) {
      for (const token of this.#held.get(jid) ?? [])
        throw new Violation(`${jid} is gone, and still has ${this.#out.get(token)?.payload}`)
    }
  }
}

function end(place: Place, now: number): void {
  place.isOn = false
  place.eligibleUntil = Math.min(place.eligibleUntil, now)
}
