/**
 * Owner of sessions: the full JIDs that something here depends on, and whether they still live.
 *
 *                       sub, presence                            no answer, or a server's bounce
 *     (unknown) ----------------------> trusted          doubted ------------------------------> ended
 *                                        |    ^             ^  |
 *                                        |    +-------------|--+ the ping is answered, or a sub or presence arrives
 *                                        +------------------+
 *                        `unavailable`, error presence, a bounce, its stream was down
 *
 * No word of a session's end is believed before a ping to the full JID confirms it: ejabberd often delivers the
 * `unavailable` of an old session after its successor, with the same resource, has subscribed.
 *
 * What a ping's answer means depends on the client, since for a full JID that is gone a server answers
 * `service-unavailable` (RFC 6121 8.5.3.2.3), and a live client that knows no pings answers just that (XEP-0199 4.1):
 *
 * | answer | answers pings | not tried yet | cannot |
 * |---|---|---|---|
 * | result, an error that only a client sends | alive | alive, answers pings | alive, answers pings |
 * | `service-unavailable`, or none in time | ended | cannot answer pings | as it was |
 * | the same, after `unavailable` | ended | ended | ended |
 * | `recipient-unavailable`, `gone`, `remote-server-…` | ended | ended | ended |
 *
 * So every client is pinged at its first `sub`, when it is surely alive, and one that cannot answer is pinged again only
 * after an `unavailable`. What a ping was asked for may die before it answers: an `unavailable` after it brings a fresh one.
 *
 * Invariants:
 * 1. A session is known while it has a consumer, an open request or an announced presence; the number is bounded.
 * 2. `isDoubted` holds only while a ping is open or due that will settle it, or until the stream is up that it needs.
 * 3. At most one ping of a session is open. An answer counts only from the full JID that was pinged, under its random id.
 * 4. `pings` holds exactly the open pings.
 */
import { bareOf, decodeError, ping as pingStanza, type StanzaErrorCondition, type XmlElement } from '@xmq/protocol'
import type { Deadlines } from './deadlines.ts'
import type { CoreRules } from './port.ts'
import { type Domain, type OpenPing, type PingReason, type Queue, Session } from './records.ts'
import type { Step } from './step.ts'
import type { Subscriptions } from './subscriptions.ts'

/** After a stream is up again, so many sessions are pinged at once, and as many more after each pause. */
const BURST = 200
const BURST_PAUSE_MS = 100
/** A session is not pinged at shorter intervals, whatever its ttl. */
const PING_INTERVAL_MS_MIN = 1000
/** A ping timeout that is noticed so late says more about the broker, which was held up, than about the client. */
const LATE_MS = 1000

/** Conditions that only a server answers on behalf of somebody who is not there. */
const ENDED: ReadonlySet<StanzaErrorCondition> = new Set<StanzaErrorCondition>([
  'recipient-unavailable',
  'gone',
  'remote-server-not-found',
  'remote-server-timeout',
])

/** What {@link Sessions} needs. */
export interface SessionsOptions {
  readonly rules: CoreRules
  readonly deadlines: Deadlines
  readonly subscriptions: Subscriptions
  /** Told when a session has ended; its subscriptions are gone by then. */
  readonly onEnded: (step: Step, session: Session) => void
}

/** See the top of this file. */
export class Sessions {
  readonly #rules: CoreRules
  readonly #deadlines: Deadlines
  readonly #subscriptions: Subscriptions
  readonly #onEnded: (step: Step, session: Session) => void
  readonly #byJid: Map<string, Session> = new Map()
  readonly #byBare: Map<string, Set<Session>> = new Map()
  readonly #pings: Map<string, Session> = new Map()

  constructor(options: SessionsOptions) {
    this.#rules = options.rules
    this.#deadlines = options.deadlines
    this.#subscriptions = options.subscriptions
    this.#onEnded = options.onEnded
  }

  /** How many sessions are known. */
  get count(): number {
    return this.#byJid.size
  }

  /** How many pings are open. */
  get pings(): number {
    return this.#pings.size
  }

  /** The session of a full JID; made if it is not known. The caller gives it something to live for. */
  open(jid: string): Session {
    const known = this.#byJid.get(jid)
    if (known !== undefined) return known
    const session = new Session(jid, bareOf(jid))
    this.#byJid.set(jid, session)
    const siblings = this.#byBare.get(session.bare)
    if (siblings === undefined) this.#byBare.set(session.bare, new Set([session]))
    else siblings.add(session)
    return session
  }

  /** Forgets a session that nothing depends on any more. To be called whenever something of it has ended. */
  release(session: Session): void {
    if (session.consumers.size > 0 || session.requests.size > 0) return
    if (session.announced.size > 0) {
      this.#deadlines.clear(session.pingDue)
      return
    }
    this.#closePing(session)
    this.#deadlines.clear(session.pingDue)
    if (this.#byJid.get(session.jid) !== session) return
    this.#byJid.delete(session.jid)
    const siblings = this.#byBare.get(session.bare)
    siblings?.delete(session)
    if (siblings?.size === 0) this.#byBare.delete(session.bare)
  }

  /** A `sub` arrived: the session is alive, whatever was in doubt before. */
  subscribed(step: Step, session: Session, queue: Queue, ttlSeconds: number): void {
    session.ttlSeconds = ttlSeconds
    this.#seen(step, session)
    if (session.answersPings === undefined && session.ping === undefined) this.#ping(step, session, 'subscribed', queue)
  }

  /** A `sub` that had waited for the store counts, and the stream that it came over has ended: whether it lives is another question. */
  subscribedLate(step: Step, session: Session, queue: Queue, ttlSeconds: number): void {
    session.ttlSeconds = ttlSeconds
    session.isUnseen = true
    // Where the stream is down it is pinged when that is up.
    if (queue.domain.isDown || session.ping !== undefined) return
    this.#setDoubt(session, true)
    this.#ping(step, session, 'link-up', queue)
  }

  /** Directed presence arrived: the sender's server will tell the queue's domain when the session ends. */
  announced(step: Step, jid: string, queue: Queue): void {
    const known = this.#byJid.get(jid)
    if (known === undefined && !this.#hasRoom(bareOf(jid), queue)) return
    const session = known ?? this.open(jid)
    session.announced.add(queue.domain)
    this.#seen(step, session)
  }

  /**
   * `unavailable` arrived, or another sign that a session ended: it is pinged, and until that is settled others get its
   * turns. From a bare JID it is about all sessions of that JID.
   *
   * @param queue what it was sent to; `undefined` when that is no queue
   */
  doubt(step: Step, jid: string, domain: Domain, reason: 'unavailable' | 'bounce', queue?: Queue): void {
    const session = this.#byJid.get(jid)
    const concerned = session === undefined ? [...(this.#byBare.get(jid) ?? [])] : [session]
    for (const one of concerned) {
      if (reason === 'unavailable') one.announced.delete(domain)
      this.#doubt(step, one, reason, queue)
      this.release(one)
    }
  }

  /** The stream of a domain ended: what was asked over it stays unanswered, and an `unavailable` may be missed. */
  linkDown(step: Step, domain: Domain): void {
    for (const session of this.#byJid.values()) {
      const ping = session.ping
      if (ping?.queue.domain === domain) {
        this.#closePing(session)
        // Over another domain it can be asked at once; over this one alone, when the stream is up again.
        session.dueReason = ping.reason
        if (queueToPingFrom(session) !== undefined) this.#deadlines.set(session.pingDue, step.now)
      }
      if (dependsOn(session, domain)) session.isUnseen = true
      else session.announced.delete(domain)
      this.release(session)
    }
  }

  /** The stream of a domain is up again: its consumers that can answer are pinged, a burst at a time. */
  linkUp(step: Step, domain: Domain): void {
    let number = 0
    for (const session of this.#byJid.values()) {
      if (session.answersPings === false || !dependsOn(session, domain)) continue
      const pause = Math.floor(number++ / BURST) * BURST_PAUSE_MS
      this.#setDoubt(session, true)
      session.dueReason = 'link-up'
      this.#deadlines.set(session.pingDue, step.now + pause)
    }
  }

  /** Takes the answer to a ping; false when this is none. */
  handleAnswer(step: Step, iq: XmlElement): boolean {
    const session = this.#pings.get(iq.attrs.get('id') ?? '')
    const ping = session?.ping
    if (session === undefined || ping === undefined || session.jid !== iq.attrs.get('from')) return false
    const { reason, isStale } = ping
    const queue = ping.queue
    this.#closePing(session)
    if (iq.attrs.get('type') === 'error') {
      const { condition, fromBroker } = decodeError(iq)
      if (!fromBroker && ENDED.has(condition)) {
        this.#end(step, session)
        return true
      }
      if (!fromBroker && condition === 'service-unavailable') {
        this.#unanswered(step, session, reason)
        return true
      }
    }
    session.answersPings = true
    if (isStale) this.#ping(step, session, reason, queue)
    else this.#seen(step, session)
    return true
  }

  /** The time of an open ping is over. */
  pingTimedOut(step: Step, session: Session): void {
    const ping = session.ping
    if (ping === undefined) return
    if (step.now - session.pingTimeout.at > LATE_MS && !ping.isExtended) {
      ping.isExtended = true
      this.#deadlines.set(session.pingTimeout, step.now + this.#rules.pingTimeoutMs)
      return
    }
    this.#closePing(session)
    this.#unanswered(step, session, ping.reason)
  }

  /** A session is to be pinged now. */
  pingDue(step: Step, session: Session): void {
    const queue = queueToPingFrom(session)
    if (queue !== undefined && session.ping === undefined) this.#ping(step, session, session.dueReason, queue)
  }

  /** No answer to a ping, or one that a server gives for somebody who is gone and a client that knows no pings. */
  #unanswered(step: Step, session: Session, reason: PingReason): void {
    if (reason === 'unavailable' || session.answersPings === true) {
      this.#end(step, session)
      return
    }
    session.answersPings = false
    this.#seen(step, session)
  }

  #doubt(step: Step, session: Session, reason: 'unavailable' | 'bounce', via: Queue | undefined): void {
    if (session.consumers.size === 0 && session.requests.size === 0) return
    // Whoever cannot answer would not clear itself of a bounce.
    if (reason === 'bounce' && session.answersPings === false) return
    const queue = via !== undefined && !via.domain.isDown ? via : queueToPingFrom(session)
    if (queue === undefined) return
    this.#setDoubt(session, true)
    const ping = session.ping
    if (ping === undefined) {
      this.#ping(step, session, reason, queue)
      return
    }
    // A client that died before it answered never will, and nobody says so but the server to a fresh one.
    if (ping.reason === 'subscribed' || (reason === 'unavailable' && ping.reason !== 'unavailable')) {
      this.#closePing(session)
      this.#ping(step, session, reason, queue)
      return
    }
    ping.isStale = true
    if (ping.reason !== 'unavailable') ping.reason = reason
  }

  /** It is alive: what was in doubt is not, and the next ping is a while off. */
  #seen(step: Step, session: Session): void {
    // An answer to a ping from before might be about the session's predecessor. The first one only learns.
    if (session.ping !== undefined && session.ping.reason !== 'subscribed') this.#closePing(session)
    this.#setDoubt(session, false)
    session.isUnseen = false
    if (session.answersPings === false || session.announced.size > 0 || isIdle(session)) {
      this.#deadlines.clear(session.pingDue)
      return
    }
    session.dueReason = 'interval'
    const interval = Math.min(this.#rules.pingIntervalMs, session.ttlSeconds * 500)
    // Up to a fifth earlier, so that those who came together are not pinged together.
    const spread = 1 - step.entropy.unit() / 5
    this.#deadlines.set(session.pingDue, step.now + Math.max(PING_INTERVAL_MS_MIN, interval) * spread)
  }

  #setDoubt(session: Session, isDoubted: boolean): void {
    if (session.isDoubted === isDoubted) return
    session.isDoubted = isDoubted
    this.#subscriptions.replace(session)
  }

  #ping(step: Step, session: Session, reason: PingReason, queue: Queue): void {
    const ping: OpenPing = { id: step.entropy.id(), queue, reason, isStale: false, isExtended: false }
    session.ping = ping
    this.#pings.set(ping.id, session)
    this.#deadlines.clear(session.pingDue)
    this.#deadlines.set(session.pingTimeout, step.now + this.#rules.pingTimeoutMs)
    step.send(queue.domain, pingStanza(queue.address, session.jid, ping.id))
  }

  #closePing(session: Session): void {
    if (session.ping === undefined) return
    this.#pings.delete(session.ping.id)
    session.ping = undefined
    this.#deadlines.clear(session.pingTimeout)
  }

  #end(step: Step, session: Session): void {
    this.#closePing(session)
    session.announced.clear()
    for (const consumer of session.consumers.values()) {
      this.#subscriptions.endConsumer(step, consumer, 'session-ended')
    }
    this.#onEnded(step, session)
    this.release(session)
  }

  #hasRoom(bare: string, queue: Queue): boolean {
    const own = this.#byBare.get(bare)?.size ?? 0
    const most = this.#rules.subscriptionsMax + this.#rules.openRequestsMax
    return own < queue.rules.subscriptionsPerJidMax && this.#byJid.size < most
  }
}

function isIdle(session: Session): boolean {
  return session.consumers.size === 0 && session.requests.size === 0
}

function dependsOn(session: Session, domain: Domain): boolean {
  for (const queue of session.consumers.keys()) if (queue.domain === domain) return true
  for (const request of session.requests) if (request.queue.domain === domain) return true
  return false
}

function queueToPingFrom(session: Session): Queue | undefined {
  for (const queue of session.consumers.keys()) if (!queue.domain.isDown) return queue
  for (const request of session.requests) if (!request.queue.domain.isDown) return request.queue
  return undefined
}
