/**
 * One account's session with one queue: what goes in, and what it makes the parts do. Owner: the runtime.
 *
 *     start, up, down, close --> whether there is a connection (connection.ts), whose queue is asked for its mode (detection.ts)
 *     stanza --> an answer: to one of the parts that asked | all else: what others bring and ask (arrivals.ts)
 *     publish, request --> waits, or is written (calls.ts; towards a reliable queue publishes are outbox.ts)
 *     subscribe, load, leave --> subscriptions.ts
 *     settle, turn --> reliable.ts
 *     tick --> whose timer it is
 *
 * It holds no state but the parts, and that it waits for its topics to be left.
 *
 * Invariants:
 * 1. `send` comes only while online; `deliver` only over the current connection.
 * 2. Calls and subscriptions are written only when the connection is ready. Publishes wait as calls until the mode is known; towards a
 *    reliable queue they are the outbox's.
 * 3. An IQ's answer counts by its random id and its sender: the queue for what the queue was asked, the own server for pings.
 *    Towards a mod_xmq the sender of a request's answer cannot be checked; the `warning` event says so.
 */
import {
  encodeError,
  encodeProgress,
  errorTo,
  type ItemCodec,
  mayBeAnswered,
  PACKED_ITEMS,
  sameJid,
  stanza,
  withChildren,
  XML_ITEMS,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { Arrivals, ignore } from './arrivals.ts'
import { Calls, type Told } from './calls.ts'
import { Connection, RECONNECT_TIMER } from './connection.ts'
import { Detection, DETECTION_TIMER } from './detection.ts'
import { explainAbsence } from './incoming.ts'
import { Liveness, PONG_TIMER, SILENCE_TIMER } from './liveness.ts'
import type { ConnectionStatus, Effect, Entropy, Input, Mode, Session, SessionEvent, SessionRules } from './port.ts'
import { Pulse } from './pulse.ts'
import { Reliable } from './reliable.ts'
import { RENEW_TIMER, subscriptionTimer, Subscriptions } from './subscriptions.ts'
import { Timers } from './timers.ts'

const MOD_XMQ_WARNING =
  'This queue is served by the original mod_xmq: deliveries and answers come from foreign addresses, so that their ' +
  'senders cannot be checked.'

const TIMER_LOAD = 'load'
const TIMER_LEAVE = 'leave'

/** Creates a session; it does nothing before `start`. */
export function createSession(rules: SessionRules): Session {
  return new ClientSession(rules)
}

class ClientSession implements Session {
  readonly #rules: SessionRules
  readonly #timers = new Timers<string | number>()
  readonly #connection: Connection
  readonly #calls: Calls
  readonly #subscriptions: Subscriptions
  readonly #detection: Detection
  readonly #liveness: Liveness
  readonly #reliable: Reliable
  readonly #arrivals: Arrivals
  readonly #explain: (error: XmqError) => XmqError
  /** Told to leave, and not all topics are left. */
  #leaving = false
  #now = 0
  #entropy: Entropy | undefined
  #out: Effect[] = []

  constructor(rules: SessionRules) {
    const timers = this.#timers
    const pulse = new Pulse(rules, timers)
    const connection = new Connection(rules, timers)
    const calls = new Calls(rules, timers, pulse)
    const subscriptions = new Subscriptions(rules, timers, pulse)
    const detection = new Detection(rules, timers)
    const reliable = new Reliable({ rules, timers, pulse, detection, calls, subscriptions })
    this.#rules = rules
    this.#connection = connection
    this.#calls = calls
    this.#subscriptions = subscriptions
    this.#detection = detection
    this.#liveness = new Liveness(rules, timers)
    this.#reliable = reliable
    this.#arrivals = new Arrivals({ rules, calls, subscriptions, reliable })
    this.#explain = (error) => explainAbsence(error, rules.queue, connection.ready)
  }

  get deadline(): number | undefined {
    return this.#timers.next
  }

  get status(): ConnectionStatus {
    return this.#connection.status
  }

  get unsettled(): number {
    return this.#reliable.leases.unsettled
  }

  get codec(): ItemCodec {
    return this.#detection.packs && !this.#reliable.outbox.wasUnpacked ? PACKED_ITEMS : XML_ITEMS
  }

  handle(input: Input, now: number, entropy: Entropy): Effect[] {
    this.#now = now
    this.#entropy = entropy
    this.#out = []
    this.#input(input)
    if (this.#connection.ready === 'reliable') this.#reliable.watch(now)
    return this.#out
  }

  get #random(): Entropy {
    if (this.#entropy === undefined) throw new XmqError('internal', 'The session has no entropy outside of an input.')
    return this.#entropy
  }

  #input(input: Input): void {
    if (this.#connection.status.state === 'closed') {
      this.#closedInput(input)
      return
    }
    switch (input.type) {
      case 'start':
        if (this.#connection.status.state === 'idle') this.#connection.open(this.#out)
        return
      case 'up':
        return this.#up(input.jid)
      case 'down':
        return this.#down(input.reason, input.fatal)
      case 'stanza':
        this.#liveness.heard(this.#now)
        return this.#stanza(input.stanza)
      case 'skipped':
        this.#liveness.heard(this.#now)
        return this.#skipped(input.head, input.error)
      case 'publish':
        return this.#publish(input)
      case 'turn':
        return this.#reliable.turn(this.#now, this.#random, this.#out)
      case 'request':
        return this.#calls.request(input, this.#connection.ready, this.#now, this.#out)
      case 'written':
        return this.#calls.written(input.ref, input.error, this.#out)
      case 'cancel':
        this.#reliable.outbox.cancel(input.ref, input.error, this.#out)
        return this.#calls.cancel(input.ref, input.error, this.#told, this.#out)
      case 'subscribe':
        return this.#subscriptions.want(input.topic, input.name, this.#now, this.#random, this.#out)
      case 'load':
        return this.#subscriptions.setLoad(input.load, this.#now, this.#random, this.#out)
      case 'answer':
        if (this.#connection.isCurrent(input.delivery.connection)) this.#send(input.stanza)
        else this.#event({ name: 'answer-lost', topic: input.delivery.topic, id: input.delivery.id })
        return
      case 'progress':
        return this.#progress(input)
      case 'settle':
        return this.#reliable.leases.settle(input.key, input.outcome, this.#out)
      case 'leave':
        return this.#leave()
      case 'close':
        return this.#close(input.error)
      case 'tick':
        return this.#tick()
    }
  }

  #publish(input: Input & { readonly type: 'publish' }): void {
    // Not `ready`: what is published while offline waits in the same order.
    if (this.#detection.mode === 'reliable') this.#reliable.outbox.add(input, this.#now, this.#out)
    else this.#calls.publish(input, this.#connection.ready, this.#now, this.#out)
  }

  /** News to whoever asked; lost when the connection that asked is. */
  #progress({ delivery, n, payload }: Input & { readonly type: 'progress' }): void {
    if (!this.#connection.isCurrent(delivery.connection)) return
    const head = { type: 'headline', to: this.#rules.queue }
    this.#send(stanza('message', head, [encodeProgress({ call: delivery.id, n, payload })]))
  }

  /** Tells a reliable queue what it need not answer; the queue does, and nobody waits. */
  get #told(): Told | undefined {
    if (this.#connection.ready !== 'reliable') return undefined
    return (child) => this.#send(stanza('iq', { type: 'set', id: this.#random.id(), to: this.#rules.queue }, [child]))
  }

  #closedInput(input: Input): void {
    if (input.type === 'publish' || input.type === 'request') {
      const { status } = this.#connection
      const reason = status.state === 'closed' ? status.reason : undefined
      const error = reason ?? new XmqError('closed', 'The client is closed.')
      this.#out.push({ type: 'failed', ref: input.ref, error })
    }
    if (input.type === 'answer') {
      this.#event({ name: 'answer-lost', topic: input.delivery.topic, id: input.delivery.id })
    }
    if (input.type === 'leave') this.#event({ name: 'left' })
  }

  #event(event: SessionEvent): void {
    this.#out.push({ type: 'event', event })
  }

  #send(root: XmlElement): void {
    this.#out.push({ type: 'send', stanza: root })
  }

  // --- connection ---------------------------------------------------------------------------------------------------

  #up(jid: string): void {
    if (!this.#connection.up(jid, this.#now)) return
    this.#liveness.up(this.#now)
    this.#event({ name: 'online', jid })
    const mode = this.#detection.up(this.#now, this.#random, this.#out) ? this.#detection.mode : undefined
    if (mode !== undefined) this.#becomeReady(mode)
  }

  #becomeReady(mode: Mode): void {
    if (!this.#connection.becomeReady(mode, this.#out)) return
    if (mode === 'mod_xmq') this.#event({ name: 'warning', message: MOD_XMQ_WARNING })
    if (mode === 'reliable') this.#reliable.up(this.#now, this.#random, this.#out)
    this.#subscriptions.ready(mode, this.#now, this.#random, this.#out)
    this.#calls.flush(mode, this.#out)
    if (mode === 'reliable') this.#reliable.outbox.ready(this.#out)
  }

  /** The queue behaved unlike its mode: it is asked again, and nothing is written until it says. */
  #doubt(): void {
    const reason = new XmqError('server', `${this.#rules.queue} is served by something else now; asking what it is.`)
    if (!this.#detection.doubt(reason, this.#now, this.#random, this.#out)) return
    this.#connection.doubt()
    this.#subscriptions.unready(false)
  }

  #down(reason: XmqError, isFatal: boolean): void {
    if (!this.#connection.isOpen) return
    this.#detection.down()
    this.#subscriptions.unready(true)
    this.#liveness.down()
    this.#reliable.down()
    this.#calls.connectionLost(reason, this.#out)
    if (this.#leaving) this.#left()
    if (!this.#connection.down(reason, isFatal, this.#now, this.#random, this.#out)) this.#end(reason)
  }

  #close(error: XmqError | undefined): void {
    const { isOnline, isOpen } = this.#connection
    if (isOnline) this.#calls.close(error ?? closedError(), this.#told, this.#out)
    if (isOnline && this.#subscriptions.presenceSent) {
      this.#send(stanza('presence', { type: 'unavailable', to: this.#rules.queue }))
    }
    if (isOpen) this.#out.push({ type: 'close' })
    this.#end(error)
  }

  #end(reason: XmqError | undefined): void {
    const error = reason ?? closedError()
    this.#calls.close(error, undefined, this.#out)
    this.#reliable.outbox.close(error, this.#out)
    this.#timers.clear()
    this.#connection.close(reason)
  }

  #leave(): void {
    if (this.#leaving) return
    this.#leaving = true
    this.#subscriptions.leave(this.#now, this.#random, this.#out)
    if (this.#subscriptions.allLeft) this.#left()
    else this.#timers.set(TIMER_LEAVE, this.#now + this.#rules.leaveTimeoutMs)
  }

  #left(): void {
    this.#leaving = false
    this.#timers.delete(TIMER_LEAVE)
    this.#event({ name: 'left' })
  }

  // --- time -----------------------------------------------------------------------------------------------------------

  #tick(): void {
    // Bounded: a handler sets its own timer again only into the future, except for jitter of zero.
    for (let count = 0; count < 10_000; count++) {
      const due = this.#timers.take(this.#now)
      if (due === undefined) return
      if (typeof due === 'number') this.#expired(due)
      else this.#timer(due)
    }
  }

  #expired(ref: number): void {
    const { outbox } = this.#reliable
    if (outbox.has(ref)) outbox.expired(ref, this.#hindrance, this.#now, this.#out)
    else this.#calls.expired(ref, this.#hindrance, this.#told, this.#out)
  }

  #timer(name: string): void {
    if (name === RECONNECT_TIMER) this.#connection.open(this.#out)
    else if (name === DETECTION_TIMER) this.#detectionDue()
    else if (name === SILENCE_TIMER) this.#liveness.silence(this.#now, this.#random, this.#out)
    else if (name === PONG_TIMER) this.#pong()
    else if (name === TIMER_LOAD) this.#subscriptions.loadDue(this.#now, this.#random, this.#out)
    else if (name === TIMER_LEAVE) this.#left()
    else if (name === RENEW_TIMER) this.#subscriptions.renewDue(this.#now, this.#random, this.#out)
    else if (this.#reliable.timer(name, this.#now, this.#random, this.#out)) return
    else this.#subscriptions.timer(name.slice(subscriptionTimer('').length), this.#now, this.#random, this.#out)
  }

  #detectionDue(): void {
    const mode = this.#detection.timer(this.#now, this.#random, this.#out)
    if (mode !== undefined) this.#becomeReady(mode)
  }

  /** Why nothing can be written at the moment. */
  get #hindrance(): XmqError | undefined {
    const { ready, status, isOnline } = this.#connection
    if (ready !== undefined) return undefined
    if (status.state === 'offline') return status.reason
    if (this.#detection.hindrance !== undefined) return this.#detection.hindrance
    return isOnline
      ? new XmqError('timeout', `${this.#rules.queue} has not answered what it is: does its broker run?`)
      : new XmqError('connection-lost', 'The connection is not up yet.')
  }

  #pong(): void {
    const reason = this.#liveness.pong(this.#now)
    if (reason === undefined) return
    this.#out.push({ type: 'drop' })
    this.#down(reason, false)
  }

  // --- stanzas ----------------------------------------------------------------------------------------------------------

  #stanza(root: XmlElement): void {
    const { status, ready, number } = this.#connection
    if (status.state !== 'online') return
    const addresses = { queue: this.#rules.queue, own: status.jid, mode: ready, connection: number }
    if (root.name === 'message') this.#arrivals.message(root, addresses, this.#out)
    else if (root.name === 'iq') {
      const type = root.attrs.get('type')
      if (type === 'result' || type === 'error') this.#answer(root)
      else if (type === 'get' || type === 'set') {
        this.#arrivals.asked(root, addresses, this.#now, this.#random, this.#out)
      }
    }
  }

  #answer(iq: XmlElement): void {
    const id = iq.attrs.get('id') ?? ''
    const from = iq.attrs.get('from')
    if (this.#liveness.isPing(id)) return
    const { ready } = this.#connection
    const fromQueue = sameJid(from ?? '', this.#rules.queue)
    const isReliable = fromQueue && ready === 'reliable'
    if (isReliable && this.#reliable.heard(id, iq, this.#now, this.#random, this.#out)) return
    if (this.#calls.isOpen(id)) {
      if (fromQueue || ready === 'mod_xmq') this.#calls.answered(id, iq, this.#explain, this.#out)
      else ignore(iq, 'an answer from an address that was not asked', this.#out)
      return
    }
    if (!fromQueue) {
      ignore(iq, 'an answer from an address that was not asked', this.#out)
      return
    }
    if (this.#detection.isAsk(id)) {
      const { outdatedSince } = this.#detection
      const mode = this.#detection.answered(iq, this.#explain, this.#now, this.#random, this.#out)
      if (mode !== undefined) this.#becomeReady(mode)
      else if (outdatedSince !== undefined) this.#reliable.described(outdatedSince)
      return
    }
    if (this.#subscriptions.isRenewal(id)) {
      this.#subscriptions.renewed(iq, this.#now, this.#random, this.#out)
      return
    }
    if (this.#reliable.answered(id, iq, this.#explain, this.#now, this.#random, this.#out)) return
    const outcome = this.#subscriptions.answered(id, iq, this.#explain, this.#now, this.#random, this.#out)
    if (outcome?.modeDoubted === true) this.#doubt()
    if (outcome !== undefined && this.#leaving && this.#subscriptions.allLeft) this.#left()
  }

  #skipped(head: XmlElement, error: XmqError): void {
    if (!this.#connection.isOnline) return
    ignore(head, `a stanza over a limit: ${error.message}`, this.#out)
    if (head.name === 'iq' && mayBeAnswered(head)) this.#send(errorTo(withChildren(head, []), error))
    if (head.name !== 'iq' || mayBeAnswered(head)) return
    const failure = new XmqError(error.code, `The answer could not be read: ${error.message}`, { cause: error })
    const answer = stanza('iq', { type: 'error', id: head.attrs.get('id'), from: head.attrs.get('from') }, [
      encodeError(failure),
    ])
    this.#answer(answer)
  }
}

function closedError(): XmqError {
  return new XmqError('closed', 'The client was closed.')
}
