/**
 * One account's session with one queue: connection, mode, calls, subscriptions, deliveries. Owner: the runtime.
 *
 *     idle --start--> connecting --up--> online --down--> offline --pause over--> connecting
 *                     connecting --down--> offline;  --fatal before it was ever online--> closed
 *     any --close--> closed
 *
 * Invariants:
 * 1. `send` comes only while online; `deliver` only over the current connection.
 * 2. Calls and subscriptions are written only when online with a known mode ("ready"). Publishes wait as calls until the mode is
 *    known; towards a reliable queue they are the outbox's.
 * 3. An IQ's answer counts by its random id and its sender: the queue for what the queue was asked, the own server for pings.
 *    Towards a mod_xmq the sender of a request's answer cannot be checked; the `warning` event says so.
 * 4. Pauses between attempts grow with full jitter, up to `backoffMs.max`; they start anew after a connection that held.
 */
import {
  decodeCancel,
  decodeError,
  encodeError,
  encodeProgress,
  epochOf,
  errorTo,
  formatBareJid,
  findChild,
  isPing,
  isResubscribe,
  type ItemCodec,
  mayBeAnswered,
  NS_QUEUE,
  PACKED_ITEMS,
  parseJid,
  resultTo,
  sameJid,
  stanza,
  withChildren,
  XML_ITEMS,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { Calls, type Told } from './calls.ts'
import { Detection, DETECTION_TIMER } from './detection.ts'
import { type Addresses, explainAbsence, isAddressedDelivery, readMessage, readRequest } from './incoming.ts'
import { Liveness, PONG_TIMER, SILENCE_TIMER } from './liveness.ts'
import { NOBODY_THERE } from './pauses.ts'
import type { ConnectionStatus, Effect, Entropy, Input, Mode, Session, SessionEvent, SessionRules } from './port.ts'
import { least, PULSE_TIMER, type Shown } from './pulse.ts'
import { Reliable } from './reliable.ts'
import { RENEW_TIMER, subscriptionTimer, Subscriptions } from './subscriptions.ts'
import { Timers } from './timers.ts'

/** A connection that held this long makes the pauses start anew. */
const STEADY_MS = 5000
/** The least pause after a refusal of what was once accepted: a wrong password does not get right by the second. */
const FATAL_PAUSE_MS = 30_000

const MOD_XMQ_WARNING =
  'This queue is served by the original mod_xmq: deliveries and answers come from foreign addresses, so that their ' +
  'senders cannot be checked.'

const TIMER_RECONNECT = 'reconnect'
const TIMER_LOAD = 'load'
const TIMER_LEAVE = 'leave'

/** Creates a session; it does nothing before `start`. */
export function createSession(rules: SessionRules): Session {
  return new ClientSession(rules)
}

class ClientSession implements Session {
  readonly #rules: SessionRules
  readonly #timers = new Timers<string | number>()
  readonly #calls: Calls
  readonly #subscriptions: Subscriptions
  readonly #detection: Detection
  readonly #liveness: Liveness
  readonly #reliable: Reliable
  readonly #explain: (error: XmqError) => XmqError
  #status: ConnectionStatus = { state: 'idle' }
  #connection = 0
  #attempts = 0
  #onlineSince: number | undefined
  #wasOnline = false
  #ready: Mode | undefined
  #leaving = false
  /** Since `leave`, for good. */
  #leaves = false
  #now = 0
  #entropy: Entropy | undefined
  #out: Effect[] = []

  constructor(rules: SessionRules) {
    this.#rules = rules
    this.#reliable = new Reliable(rules, this.#timers)
    this.#calls = new Calls(rules, this.#timers, this.#reliable.pulse)
    this.#subscriptions = new Subscriptions(rules, this.#timers, this.#reliable.pulse)
    this.#detection = new Detection(rules, this.#timers)
    this.#liveness = new Liveness(rules, this.#timers)
    this.#explain = (error) => (this.#ready === 'mod_xmq' ? error : explainAbsence(error, rules.queue))
  }

  get deadline(): number | undefined {
    return this.#timers.next
  }

  get status(): ConnectionStatus {
    return this.#status
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
    const { pulse } = this.#reliable
    if (this.#ready === 'reliable' && !pulse.isWatching) {
      if (this.#oldest(0) !== undefined) pulse.watch(now)
      else if (this.#detection.isForgetful && this.#subscriptions.size > 0) pulse.idle(now)
    }
    return this.#out
  }

  /** The least number above `above` of what was asked and is not answered. */
  #oldest(above: number): number | undefined {
    const others = least(this.#subscriptions.oldest(above), this.#calls.oldest(above))
    return least(this.#reliable.oldest(above), others)
  }

  get #random(): Entropy {
    if (this.#entropy === undefined) throw new XmqError('internal', 'The session has no entropy outside of an input.')
    return this.#entropy
  }

  #input(input: Input): void {
    if (this.#status.state === 'closed') {
      this.#closedInput(input)
      return
    }
    switch (input.type) {
      case 'start':
        if (this.#status.state === 'idle') this.#open()
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
        return this.#calls.request(input, this.#ready, this.#now, this.#out)
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
        if (this.#status.state === 'online' && input.delivery.connection === this.#connection) this.#send(input.stanza)
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
    // Not `#ready`: what is published while offline waits in the same order.
    if (this.#detection.mode === 'reliable') this.#reliable.outbox.add(input, this.#now, this.#out)
    else this.#calls.publish(input, this.#ready, this.#now, this.#out)
  }

  /** News to whoever asked; lost when the connection that asked is. */
  #progress({ delivery, n, payload }: Input & { readonly type: 'progress' }): void {
    if (this.#status.state !== 'online' || delivery.connection !== this.#connection) return
    const head = { type: 'headline', to: this.#rules.queue }
    this.#send(stanza('message', head, [encodeProgress({ call: delivery.id, n, payload })]))
  }

  /** Tells a reliable queue what it need not answer; the queue does, and nobody waits. */
  get #told(): Told | undefined {
    if (this.#ready !== 'reliable') return undefined
    return (child) => this.#send(stanza('iq', { type: 'set', id: this.#random.id(), to: this.#rules.queue }, [child]))
  }

  #closedInput(input: Input): void {
    if (input.type === 'publish' || input.type === 'request') {
      const reason = this.#status.state === 'closed' ? this.#status.reason : undefined
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

  #open(): void {
    this.#attempts++
    this.#connection++
    this.#status = { state: 'connecting', attempt: this.#attempts }
    this.#event({ name: 'connecting', attempt: this.#attempts })
    this.#out.push({ type: 'open' })
  }

  #up(jid: string): void {
    if (this.#status.state !== 'connecting') return
    this.#wasOnline = true
    this.#onlineSince = this.#now
    this.#status = { state: 'online', jid, mode: undefined }
    this.#liveness.up(this.#now)
    this.#event({ name: 'online', jid })
    const mode = this.#detection.up(this.#now, this.#random, this.#out) ? this.#detection.mode : undefined
    if (mode !== undefined) this.#becomeReady(mode)
  }

  #becomeReady(mode: Mode): void {
    if (this.#status.state !== 'online') return
    this.#ready = mode
    this.#status = { state: 'online', jid: this.#status.jid, mode }
    this.#event({ name: 'mode', mode })
    if (mode === 'mod_xmq') this.#event({ name: 'warning', message: MOD_XMQ_WARNING })
    const { outbox, leases } = this.#reliable
    if (mode === 'reliable') {
      this.#reliable.pulse.learn(this.#detection.epoch)
      this.#reliable.pulse.up()
      outbox.learnWindow(this.#detection.dedupeMs)
      leases.ready(this.#now, this.#random, this.#out)
      for (const publish of this.#calls.takePublishes()) outbox.add(publish, publish.calledAt, this.#out)
    }
    this.#subscriptions.ready(mode, this.#now, this.#random, this.#out)
    this.#calls.flush(mode, this.#out)
    if (mode === 'reliable') outbox.ready(this.#out)
  }

  #down(reason: XmqError, fatal: boolean): void {
    const { state } = this.#status
    if (state !== 'connecting' && state !== 'online') return
    if (this.#onlineSince !== undefined && this.#now - this.#onlineSince >= STEADY_MS) this.#attempts = 0
    this.#onlineSince = undefined
    this.#ready = undefined
    this.#detection.down()
    this.#subscriptions.unready(true)
    this.#liveness.down()
    this.#reliable.down()
    this.#calls.connectionLost(reason, this.#out)
    if (this.#leaving) this.#left()
    if (fatal && !this.#wasOnline) {
      this.#event({ name: 'offline', reason, retryAt: this.#now, fatal: true })
      this.#end(reason)
      return
    }
    const { base, max } = this.#rules.backoffMs
    const ceiling = Math.min(max, base * 2 ** Math.min(this.#attempts, 20))
    const pause = this.#random.unit() * ceiling
    const retryAt = this.#now + (fatal ? Math.max(FATAL_PAUSE_MS, pause) : pause)
    this.#status = { state: 'offline', reason, retryAt }
    this.#timers.set(TIMER_RECONNECT, retryAt)
    this.#event({ name: 'offline', reason, retryAt, fatal: false })
  }

  #close(error: XmqError | undefined): void {
    const { state } = this.#status
    if (state === 'online') this.#calls.close(error ?? closedError(), this.#told, this.#out)
    if (state === 'online' && this.#subscriptions.presenceSent) {
      this.#send(stanza('presence', { type: 'unavailable', to: this.#rules.queue }))
    }
    if (state === 'online' || state === 'connecting') this.#out.push({ type: 'close' })
    this.#end(error)
  }

  #end(reason: XmqError | undefined): void {
    const error = reason ?? closedError()
    this.#calls.close(error, undefined, this.#out)
    this.#reliable.outbox.close(error, this.#out)
    this.#timers.clear()
    this.#ready = undefined
    this.#status = { state: 'closed', reason }
  }

  #leave(): void {
    if (this.#leaving) return
    this.#leaving = true
    this.#leaves = true
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
    if (name === TIMER_RECONNECT) this.#open()
    else if (name === DETECTION_TIMER) this.#detectionDue()
    else if (name === SILENCE_TIMER) this.#liveness.silence(this.#now, this.#random, this.#out)
    else if (name === PONG_TIMER) this.#pong()
    else if (name === TIMER_LOAD) this.#subscriptions.loadDue(this.#now, this.#random, this.#out)
    else if (name === TIMER_LEAVE) this.#left()
    else if (name === PULSE_TIMER)
      this.#reliable.pulse.timer((above) => this.#oldest(above), this.#now, this.#random, this.#out)
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
    if (this.#ready !== undefined) return undefined
    if (this.#status.state === 'offline') return this.#status.reason
    if (this.#detection.hindrance !== undefined) return this.#detection.hindrance
    return this.#status.state === 'online'
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

  #addresses(own: string): Addresses {
    return { queue: this.#rules.queue, own, mode: this.#ready, connection: this.#connection }
  }

  #stanza(root: XmlElement): void {
    if (this.#status.state !== 'online') return
    const addresses = this.#addresses(this.#status.jid)
    if (root.name === 'message') this.#message(root, addresses)
    else if (root.name === 'iq') {
      const type = root.attrs.get('type')
      if (type === 'result' || type === 'error') this.#answer(root)
      else if (type === 'get' || type === 'set') this.#asked(root, addresses)
    }
  }

  #message(message: XmlElement, addresses: Addresses): void {
    if (message.attrs.get('type') === 'error') {
      this.#returned(message)
      return
    }
    try {
      const progress = findChild(message, 'progress', NS_QUEUE)
      if (progress !== undefined && isAddressedDelivery(message, addresses)) {
        this.#calls.progress(progress, this.#out)
        return
      }
      const delivery = readMessage(message, addresses)
      if (delivery === undefined) return
      if (!isAddressedDelivery(message, addresses)) this.#ignored(message, 'a message that is not from the queue')
      else if (!this.#subscriptions.has(delivery.topic)) this.#ignored(message, 'a message for no topic of ours')
      else this.#out.push({ type: 'deliver', delivery })
    } catch {
      this.#ignored(message, 'a message with a malformed topic')
    }
  }

  #returned(message: XmlElement): void {
    const id = message.attrs.get('id') ?? ''
    const topic = this.#calls.topicOf(id)
    const fromQueue = sameJid(message.attrs.get('from') ?? '', this.#rules.queue)
    // A mod_xmq lets the bounce of a dead worker come from the worker: then only the id tells whose it is.
    if (!fromQueue && !(this.#ready === 'mod_xmq' && topic !== undefined)) return
    this.#event({ name: 'returned', id, topic, error: this.#explain(decodeError(message)) })
  }

  #answer(iq: XmlElement): void {
    const id = iq.attrs.get('id') ?? ''
    const from = iq.attrs.get('from')
    if (this.#liveness.isPing(id)) return
    const fromQueue = sameJid(from ?? '', this.#rules.queue)
    if (fromQueue && this.#ready === 'reliable' && this.#noteBroker(id, iq)) return
    if (this.#calls.isOpen(id)) {
      if (fromQueue || this.#ready === 'mod_xmq') this.#calls.answered(id, iq, this.#explain, this.#out)
      else this.#ignored(iq, 'an answer from an address that was not asked')
      return
    }
    if (!fromQueue) {
      this.#ignored(iq, 'an answer from an address that was not asked')
      return
    }
    if (this.#detection.isAsk(id)) {
      const mode = this.#detection.answered(iq, this.#explain, this.#now, this.#random, this.#out)
      if (mode !== undefined) this.#becomeReady(mode)
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

  /** What an answer of the queue shows of its broker. @returns whether it answers just that */
  #noteBroker(id: string, iq: XmlElement): boolean {
    const { pulse } = this.#reliable
    const isAbsence = isAbsenceOf(iq)
    const epoch = epochOf(iq)
    if (pulse.isQuestion(id)) {
      this.#shown(pulse.answered(id, epoch, isAbsence, this.#now, this.#random))
      return true
    }
    if (isAbsence) pulse.absent(this.#now)
    const number = epoch === undefined ? undefined : this.#numberOf(id)
    if (epoch !== undefined && number !== undefined) this.#shown(pulse.heard(epoch, number))
    return false
  }

  #numberOf(id: string): number | undefined {
    return this.#reliable.numberOf(id) ?? this.#subscriptions.numberOf(id)
  }

  /** Sends again what was lost with a broker, and tells the new one of this session. */
  #shown({ lostBefore, isNewLife, isBack }: Shown): void {
    const { leases, outbox } = this.#reliable
    if (lostBefore !== undefined) this.#reliable.lost(lostBefore, this.#out)
    if (!isBack) return
    if (lostBefore !== undefined && isNewLife) this.#calls.brokerLost(lostBefore, this.#out)
    leases.ready(this.#now, this.#random, this.#out, isNewLife)
    this.#subscriptions.again(this.#now, this.#random, this.#out, isNewLife)
    outbox.ready(this.#out)
    if (isNewLife) this.#event({ name: 'broker-changed', epoch: this.#reliable.pulse.epoch ?? '' })
  }

  #doubt(): void {
    const reason = new XmqError('server', `${this.#rules.queue} is served by something else now; asking what it is.`)
    if (!this.#detection.doubt(reason, this.#now, this.#random, this.#out)) return
    this.#ready = undefined
    this.#subscriptions.unready(false)
  }

  #asked(iq: XmlElement, addresses: Addresses): void {
    if (isPing(iq)) {
      // Strangers learn nothing: a server answers the same for a session that does not exist.
      this.#send(this.#mayPing(iq, addresses.own) ? resultTo(iq) : refusalOf(iq))
      return
    }
    if (this.#reliably(iq, addresses)) return
    try {
      const delivery = readRequest(iq, addresses)
      if (delivery === undefined) {
        this.#send(refusalOf(iq))
      } else if (!isAddressedDelivery(iq, addresses)) {
        this.#send(refusalOf(iq))
        this.#ignored(iq, 'a request that is not from the queue')
      } else if (this.#subscriptions.has(delivery.topic)) {
        this.#out.push({ type: 'deliver', delivery })
      } else {
        this.#send(errorTo(iq, new XmqError('not-found', `This worker does not handle '${delivery.topic}'.`)))
      }
    } catch (error) {
      this.#send(errorTo(iq, XmqError.from(error, 'bad-request')))
    }
  }

  /** What only a reliable queue asks. @returns whether it was that */
  #reliably(iq: XmlElement, addresses: Addresses): boolean {
    const isSet = iq.attrs.get('type') === 'set'
    const deliver = isSet ? findChild(iq, 'deliver', NS_QUEUE) : undefined
    const cancel = isSet ? findChild(iq, 'cancel', NS_QUEUE) : undefined
    if (deliver === undefined && cancel === undefined && !isResubscribe(iq)) return false
    if (this.#ready !== 'reliable' || !isAddressedDelivery(iq, addresses)) {
      this.#send(refusalOf(iq))
      this.#ignored(iq, 'a delivery that is not from the queue')
    } else if (cancel !== undefined) {
      this.#cancelled(iq, cancel)
    } else if (deliver === undefined) {
      this.#send(resultTo(iq))
      const epoch = epochOf(iq)
      const shown = epoch === undefined ? undefined : this.#reliable.pulse.heard(epoch)
      this.#shown({ lostBefore: shown?.lostBefore, isNewLife: shown?.isNewLife ?? true, isBack: true })
    } else {
      const { connection } = addresses
      const wants = (topic: string): boolean => !this.#leaves && this.#subscriptions.has(topic)
      this.#reliable.leases.deliver(iq, deliver, { wants, connection }, this.#now, this.#out)
    }
    return true
  }

  /** Nobody waits any more for an answer of ours. */
  #cancelled(iq: XmlElement, cancel: XmlElement): void {
    let id: string
    try {
      id = decodeCancel(cancel).call
    } catch (error) {
      this.#send(errorTo(iq, XmqError.from(error, 'bad-request')))
      return
    }
    this.#send(resultTo(iq))
    this.#out.push({ type: 'cancelled', id, error: new XmqError('aborted', 'Nobody waits for the answer any more.') })
  }

  #mayPing(iq: XmlElement, own: string): boolean {
    const from = iq.attrs.get('from')
    if (from === undefined || sameJid(from, this.#rules.queue) || sameJid(from, this.#rules.domain)) return true
    return this.#ready === 'mod_xmq' || sameJid(from, formatBareJid(parseJid(own)))
  }

  #skipped(head: XmlElement, error: XmqError): void {
    if (this.#status.state !== 'online') return
    this.#ignored(head, `a stanza over a limit: ${error.message}`)
    if (head.name === 'iq' && mayBeAnswered(head)) this.#send(errorTo(withChildren(head, []), error))
    if (head.name !== 'iq' || mayBeAnswered(head)) return
    const failure = new XmqError(error.code, `The answer could not be read: ${error.message}`, { cause: error })
    const answer = stanza('iq', { type: 'error', id: head.attrs.get('id'), from: head.attrs.get('from') }, [
      encodeError(failure),
    ])
    this.#answer(answer)
  }

  #ignored(root: XmlElement, what: string): void {
    this.#event({ name: 'ignored', from: root.attrs.get('from') ?? '', what })
  }
}

/** Whether a server answered in the queue's place: nobody serves it. */
function isAbsenceOf(iq: XmlElement): boolean {
  if (iq.attrs.get('type') !== 'error') return false
  const { fromBroker, condition } = decodeError(iq)
  return !fromBroker && NOBODY_THERE.has(condition)
}

function closedError(): XmqError {
  return new XmqError('closed', 'The client was closed.')
}

function refusalOf(iq: XmlElement): XmlElement {
  return errorTo(iq, new XmqError('unsupported', 'This address does not do that.'))
}
