/**
 * The core of the broker: what arrives, what it means, what is done. Synchronous, total and pure; see port.ts.
 *
 *     stanza --> message --> publish                        --> deliveries, or an error to the producer
 *            |          \--> bounce (type error)            --> the consumer's subscriptions end
 *            +-> presence -> announced, or in doubt         --> a ping
 *            +-> iq get/set -> request | command | discovery -> exactly one answer
 *            +-> iq result/error -> of a ping | of a request -> else dropped
 *            +-> iq of xmq:queue:1 (verbs.ts)               --> publishing, settling, consuming, admin
 *     skipped --> as much of that as a head allows
 *     start --> what the store holds is looked through (loading.ts)
 *     applied, claimed, ... --> whatever waits for that answer goes on (store-calls.ts)
 *     claimable --> lines that something can be claimed from (dispatch.ts)
 *     link-up, link-down --> sessions are verified; answers that waited are written
 *     load --> new work is refused, or taken (overload.ts)
 *     shutdown --> open requests are answered, and who is connected is written down
 *     tick --> what is due
 *
 *     publishing --> store --> confirm             claimable --> dispatch --> store --> deliveries --> leases
 *                                                  received, settled --> settling --> store --> answer
 *                                                  over, session ended --> leases, store-time --> store
 *                                                  all of it while the store does not answer --> unheard --> store
 *
 * Owner of the whole: it wires the owners of the parts and holds no state but them.
 *
 * Invariants:
 * 1. What is due is done before an input is looked at, so that nothing expired is ever served.
 * 2. Nothing is answered that may not be: errors, results, presence but for subscription requests.
 * 3. Rights are checked before any state is made.
 * 4. At the end of each step lines are claimed from, then the step's calls go to the store: operations first.
 */
import {
  bareOf,
  decodeError,
  findChild,
  findTopic,
  iqType,
  isStanza,
  mayBeAnswered,
  NS_COMMAND,
  NS_QUEUE,
  resultTo,
  type StanzaErrorCondition,
  stanza as buildStanza,
  WRITE_STANZA_BYTES_MAX,
  wireLength,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { Absences } from './absences.ts'
import { isAllowed } from './access.ts'
import { Admin } from './admin.ts'
import { Consuming } from './consuming.ts'
import { Deadlines } from './deadlines.ts'
import { Deliveries } from './deliveries.ts'
import { describe } from './disco.ts'
import { Dispatch } from './dispatch.ts'
import { Ephemeral } from './ephemeral.ts'
import { Found } from './found.ts'
import { Leases } from './leases.ts'
import { Loading } from './loading.ts'
import { Named } from './named.ts'
import { Overload } from './overload.ts'
import type { Core, CoreRules, CoreStats, Effect, Entropy, Input } from './port.ts'
import { Publishing } from './publishing.ts'
import { type Place, Queues } from './queues.ts'
import { Reconnecting } from './reconnecting.ts'
import type { Consumer, Session } from './records.ts'
import { expected, forbidden, noQueue } from './refusals.ts'
import { Requests } from './requests.ts'
import { Sessions } from './sessions.ts'
import { Settling } from './settling.ts'
import { Step } from './step.ts'
import { StoreCalls } from './store-calls.ts'
import { StoreTime } from './store-time.ts'
import { Subscriptions } from './subscriptions.ts'
import { Unheard } from './unheard.ts'
import { findVerb, Verbs } from './verbs.ts'

/** Ids are echoed in answers: a longer one is no id but an attack on the component stream's stanza limit. */
const ID_LENGTH_MAX = 1024
/** So long an id is still echoed once, in the refusal of it. */
const ID_ECHO_BYTES_MAX = WRITE_STANZA_BYTES_MAX - 4096

/** So much of a random id tells the lives of a broker apart. */
const LIFE_LENGTH = 12

/** A message came back with one of these: nobody is there. */
const GONE: ReadonlySet<StanzaErrorCondition> = new Set<StanzaErrorCondition>([
  'service-unavailable',
  'recipient-unavailable',
  'gone',
  'remote-server-not-found',
  'remote-server-timeout',
])

/** Creates the core of a broker. @param rules validated and frozen */
export function createCore(rules: CoreRules): Core {
  return new QueueCore(rules)
}

/** A stanza that is addressed to us by somebody. */
interface Arrival extends Place {
  readonly stanza: XmlElement
  readonly sender: string
}

class QueueCore implements Core {
  readonly #rules: CoreRules
  readonly #queues: Queues
  readonly #deadlines: Deadlines = new Deadlines()
  readonly #subscriptions: Subscriptions
  readonly #sessions: Sessions
  readonly #requests: Requests
  readonly #calls: StoreCalls = new StoreCalls()
  readonly #time: StoreTime
  readonly #named: Named
  readonly #leases: Leases
  readonly #unheard: Unheard
  readonly #absences: Absences
  readonly #deliveries: Deliveries
  readonly #dispatch: Dispatch
  readonly #reconnecting: Reconnecting
  readonly #found: Found
  readonly #publishing: Publishing
  readonly #consuming: Consuming
  readonly #loading: Loading
  readonly #verbs: Verbs
  readonly #overload: Overload
  /** Names this life of the broker; drawn with the first stream. */
  #life: string | undefined
  #streams = 0

  constructor(rules: CoreRules) {
    this.#rules = rules
    this.#queues = new Queues(rules)
    const { durability } = rules
    const queues = this.#queues
    const deadlines = this.#deadlines
    const calls = this.#calls
    // The parts know each other: what is made later is reached when it is needed.
    const overload = new Overload(rules.overload)
    const onRoom = (consumer: Consumer) => dispatch.touch(consumer)
    const reconnecting = new Reconnecting({ durability, deadlines, calls })
    const subscriptions = new Subscriptions(deadlines, rules.subscriptionsMax, (consumer) => {
      dispatch.changed(consumer)
      reconnecting.changed(consumer)
    })
    const time = new StoreTime({ queues, deadlines, calls, leases: () => leases })
    const sessions: Sessions = new Sessions({
      rules,
      deadlines,
      subscriptions,
      onEnded: (step, session) => this.#sessionEnded(step, session),
    })
    const named = new Named({
      deadlines,
      calls,
      time,
      leases: () => leases,
      onEnd: (step, subscription) => consuming.end(step, subscription, 'deleted'),
    })
    const unheard: Unheard = new Unheard({
      deadlines,
      calls,
      onApplied: (step, ops, results) => leases.applied(step, ops, results),
    })
    const leases: Leases = new Leases({
      queues,
      calls,
      time,
      unheard,
      onRoom,
      onIdle: (consumer) => {
        subscriptions.forgetIdle(consumer)
        sessions.release(consumer.session)
      },
      onUnreceived: (lease) => deliveries.stall(lease),
      mayBeHeld: (step, lease) => absences.mayBeHeld(step, lease),
      onEphemeralEnd: (step, lease) => ephemeral.ended(step, lease),
    })
    const ephemeral: Ephemeral = new Ephemeral({
      leases,
      deliveries: () => deliveries,
      onWaiting: (consumer) => dispatch.drain(consumer),
    })
    const absences: Absences = new Absences({ deadlines, leases })
    const found = new Found({ deadlines, calls, leases, durability })
    const settling = new Settling({ calls, leases, ephemeral, found, unheard })
    const deliveries: Deliveries = new Deliveries({
      durability,
      deadlines,
      calls,
      leases,
      absences,
      subscriptions,
      sessions,
      onRoom,
      onLost: (step, lost) => ephemeral.lost(step, lost),
      onSettled: (step, { queue, session }, settlements) => settling.settle(step, queue, session.jid, settlements),
    })
    const dispatch: Dispatch = new Dispatch({
      queues,
      deadlines,
      calls,
      time,
      deliveries: () => deliveries,
      subscriptions: () => subscriptions,
      found,
      onCut: (line) => this.#loading.reload(line),
      onDrain: (step, consumer) => ephemeral.drain(step, consumer),
    })
    const publishing = new Publishing({
      rules,
      calls,
      time,
      named,
      ephemeral,
      subscriptions,
      overload,
      dispatch,
      deliveries,
    })
    const consuming: Consuming = new Consuming({ subscriptions, sessions, named, deliveries, reconnecting })
    this.#overload = overload
    this.#subscriptions = subscriptions
    this.#time = time
    this.#named = named
    this.#sessions = sessions
    this.#leases = leases
    this.#unheard = unheard
    this.#absences = absences
    this.#deliveries = deliveries
    this.#reconnecting = reconnecting
    this.#found = found
    this.#dispatch = dispatch
    this.#publishing = publishing
    this.#consuming = consuming
    this.#loading = new Loading({ deadlines, calls, time, named, dispatch: () => dispatch, reconnecting, found })
    this.#requests = new Requests({ rules, deadlines, subscriptions, sessions, overload, onRoom })
    const admin = new Admin({ durability, calls })
    this.#verbs = new Verbs({ publishing, settling, consuming, found, deliveries, admin, requests: this.#requests })
  }

  get deadline(): number | undefined {
    return this.#deadlines.earliest
  }

  get refusal(): XmqError | undefined {
    return this.#overload.refusal
  }

  get isPressed(): boolean {
    return this.#overload.isPressed
  }

  get isLoading(): boolean {
    return this.#loading.isLooking
  }

  stats(): CoreStats {
    return {
      subscriptions: this.#subscriptions.count,
      consumers: this.#subscriptions.consumers,
      topics: this.#subscriptions.topics,
      openRequests: this.#requests.count,
      pings: this.#sessions.pings,
      leases: this.#leases.count,
      foundLeases: this.#found.count,
      unheardSettlements: this.#unheard.count,
      rememberedConsumers: this.#reconnecting.count,
      claimableTopics: this.#claimableTopics(),
      storingBytes: this.#publishing.storing,
      sessions: this.#sessions.count,
      unansweredDeliveries: this.#deliveries.unanswered,
      ...this.#countWaiting(),
    }
  }

  #countWaiting(): Pick<
    CoreStats,
    'waitingDeliveries' | 'ephemeralMessages' | 'ephemeralBytes' | 'namedSubscriptions' | 'heldAnswers'
  > {
    const counts = {
      waitingDeliveries: 0,
      ephemeralMessages: 0,
      ephemeralBytes: 0,
      namedSubscriptions: 0,
      heldAnswers: 0,
    }
    for (const { held } of this.#queues.domains.values()) counts.heldAnswers += held.length
    for (const { lines, consumers } of this.#queues.all) {
      for (const { id } of lines.values()) if (id !== '') counts.namedSubscriptions++
      for (const { waiting, ephemeral } of consumers.values()) {
        counts.waitingDeliveries += waiting.length
        counts.ephemeralMessages += ephemeral?.items.length ?? 0
        counts.ephemeralBytes += ephemeral?.bytes ?? 0
      }
    }
    return counts
  }

  handle(input: Input, now: number, entropy: Entropy): Effect[] {
    const step = new Step(now, entropy)
    this.#handleDue(step)
    switch (input.type) {
      case 'stanza':
        this.#handleStanza(step, input.stanza)
        break
      case 'skipped':
        this.#handleSkipped(step, input)
        break
      case 'load':
        this.#overload.measured(step, input.load)
        break
      case 'link-up':
        this.#handleLinkUp(step, input.domain)
        break
      case 'link-down':
        this.#handleLinkDown(step, input.domain)
        break
      case 'shutdown':
        this.#requests.shutDown(step)
        for (const queue of this.#queues.all) this.#reconnecting.write(step, queue)
        break
      case 'tick':
        break
      case 'start':
        for (const queue of this.#queues.all) this.#loading.load(queue)
        this.#time.ask(step)
        break
      case 'claimable':
        this.#dispatch.claimable(input.topics)
        break
      default:
        this.#calls.handle(step, input)
    }
    this.#dispatch.run(step)
    this.#reconnecting.run(step)
    this.#calls.flush(step)
    return step.effects
  }

  #sessionEnded(step: Step, session: Session): void {
    this.#deliveries.sessionEnded(step, session)
    this.#requests.sessionEnded(step, session)
    this.#requests.requesterEnded(step, session.jid)
  }

  #claimableTopics(): number {
    let topics = 0
    for (const queue of this.#queues.all) for (const line of queue.lines.values()) topics += line.claimable
    return topics
  }

  #handleDue(step: Step): void {
    for (;;) {
      const subject = this.#deadlines.takeDue(step.now)?.subject
      if (subject === undefined) return
      switch (subject.kind) {
        case 'expiry':
          this.#consuming.end(step, subject.subscription, 'expired')
          break
        case 'request-timeout':
          this.#requests.timedOut(step, subject.request)
          break
        case 'ping-due':
          this.#sessions.pingDue(step, subject.session)
          break
        case 'ping-timeout':
          this.#sessions.pingTimedOut(step, subject.session)
          break
        case 'claim-again':
          this.#dispatch.claimAgain(subject.line)
          break
        case 'store-due':
          this.#time.ask(step)
          break
        case 'trim-dead':
          this.#time.trim(step, subject.line)
          this.#named.endIdle(step, subject.line)
          break
        case 'load-again':
          this.#loading.load(subject.queue)
          break
        case 'remember':
          this.#reconnecting.write(step, subject.queue)
          break
        case 'say-again':
          this.#unheard.sayAgain()
          break
        case 'unanswered':
          this.#deliveries.overdue(step, subject.consumer, subject.id)
          break
        case 'found-over':
          this.#found.over(subject.queue)
          break
        case 'absence-over':
          this.#absences.over(step, subject.absence)
          break
      }
    }
  }

  #handleLinkUp(step: Step, name: string): void {
    const domain = this.#queues.domains.get(name)
    if (domain === undefined) return
    domain.isDown = false
    this.#life ??= step.entropy.id().slice(0, LIFE_LENGTH)
    domain.epoch = `${this.#life}.${++this.#streams}`
    const held = domain.held
    domain.held = []
    for (const stanza of held) step.send(domain, stanza)
    this.#sessions.linkUp(step, domain)
    this.#absences.linkUp(step, domain)
    this.#handleDue(step)
    this.#reconnecting.linkUp(step, domain)
    this.#deliveries.linkUp(step, domain)
    for (const queue of domain.queues) for (const line of queue.lines.values()) this.#dispatch.wake(line)
  }

  #handleLinkDown(step: Step, name: string): void {
    const domain = this.#queues.domains.get(name)
    if (domain === undefined) return
    domain.isDown = true
    this.#absences.linkDown(step, domain)
    this.#deliveries.linkDown(step, domain)
    this.#sessions.linkDown(step, domain)
    this.#handleDue(step)
  }

  #handleStanza(step: Step, stanza: XmlElement): void {
    const arrival = this.#arrive(step, stanza)
    if (arrival === undefined) return
    if (stanza.name === 'message') this.#handleMessage(step, arrival)
    else if (stanza.name === 'iq') this.#handleIq(step, arrival)
    else this.#handlePresence(step, arrival)
  }

  /** Who sent a stanza to whom; `undefined` when nothing can be done with it, which was told then. */
  #arrive(step: Step, stanza: XmlElement): Arrival | undefined {
    const sender = stanza.attrs.get('from') ?? ''
    const to = stanza.attrs.get('to') ?? ''
    const drop = (what: string): undefined => {
      step.ignore(bareOf(to), stanza, what)
      return undefined
    }
    if (!isStanza(stanza)) return drop('not a stanza')
    if (sender === '' || to === '') return drop(`a ${stanza.name} without from or to`)
    const place = this.#queues.resolve(to)
    if (place === undefined) return drop(`a ${stanza.name} to a domain that is not ours`)
    const id = stanza.attrs.get('id')
    if (stanza.name === 'iq' && id === undefined) return drop('an iq without an id')
    if (id !== undefined && id.length > ID_LENGTH_MAX) return this.#refuseLongId(step, place, stanza, id)
    // Spelled out: spreading `place` makes an object that V8 reads slowly, and costs three times the rest of the core.
    return { domain: place.domain, queue: place.queue, address: place.address, stanza, sender }
  }

  /** An answer echoes the id: as long as it fits a stanza, whoever waits is told. */
  #refuseLongId(step: Step, place: Place, stanza: XmlElement, id: string): undefined {
    if (stanza.name === 'presence' || !mayBeAnswered(stanza) || wireLength(id) > ID_ECHO_BYTES_MAX) {
      step.ignore(place.address, stanza, `a ${stanza.name} with too long an id`)
      return undefined
    }
    const text = `Attribute 'id' has ${id.length} characters; at most ${ID_LENGTH_MAX} are allowed.`
    step.refuse(place.domain, place.address, stanza, new XmqError('bad-request', text))
    return undefined
  }

  #handleMessage(step: Step, arrival: Arrival): void {
    const { stanza, domain, address, queue } = arrival
    if (stanza.attrs.get('type') === 'error') {
      this.#handleMessageBounce(step, arrival)
      return
    }
    if (stanza.attrs.get('type') === 'headline' && this.#relay(step, arrival)) return
    try {
      if (queue === undefined) throw noQueue(address)
      if (!isAllowed(queue.publish, arrival.sender)) throw forbidden(arrival.sender, 'publish to', queue)
      this.#publishing.publishMessage(step, queue, stanza)
    } catch (error) {
      step.refuse(domain, address, stanza, expected(error))
    }
  }

  /** News of a request; false when it is none. Nobody is told of what is wrong with them. */
  #relay(step: Step, { stanza, queue, address }: Arrival): boolean {
    const progress = findChild(stanza, 'progress', NS_QUEUE)
    if (progress === undefined || queue === undefined) return false
    try {
      this.#requests.relay(step, queue, stanza, progress)
    } catch (error) {
      step.ignore(address, stanza, `news of a request that cannot be read: ${expected(error).message}`)
    }
    return true
  }

  /** A delivery came back. Only the consumer itself, or its server for it, can say so: the `from` is true. */
  #handleMessageBounce(step: Step, { stanza, sender, queue, domain, address }: Arrival): void {
    const consumer = queue?.consumers.get(sender)
    if (queue === undefined || consumer === undefined) {
      step.ignore(address, stanza, 'an error message from no consumer')
      return
    }
    const { condition, fromBroker } = decodeError(stanza)
    step.emit({ name: 'bounced', queue: address, consumer: sender, condition })
    if (fromBroker || !GONE.has(condition)) return
    this.#deliveries.bounced(step, consumer)
    this.#subscriptions.endConsumer(step, consumer, 'bounced')
    this.#consuming.ended(step, consumer)
    this.#sessions.doubt(step, sender, domain, 'bounce', queue)
    this.#sessions.release(consumer.session)
  }

  #handlePresence(step: Step, { stanza, sender, queue, domain, address }: Arrival): void {
    switch (stanza.attrs.get('type')) {
      case undefined:
        if (queue !== undefined && isAllowed(queue.consume, sender)) this.#sessions.announced(step, sender, queue)
        break
      case 'unavailable':
        this.#sessions.doubt(step, sender, domain, 'unavailable', queue)
        break
      case 'error':
        this.#sessions.doubt(step, sender, domain, 'bounce', queue)
        break
      // Nobody is subscribed to a queue's presence (RFC 6121 3.1.3 and 4.3.2): said once, and the server stops asking.
      case 'subscribe':
      case 'probe': {
        const head = { type: 'unsubscribed', id: stanza.attrs.get('id'), from: address, to: bareOf(sender) }
        step.send(domain, buildStanza('presence', head))
        break
      }
      default:
        break
    }
  }

  #handleIq(step: Step, arrival: Arrival): void {
    const { stanza, domain, queue, address } = arrival
    const type = iqType(stanza)
    if (type === 'result' || type === 'error') {
      // Whatever it answers, and however late: it lives.
      const consumer = type === 'result' ? arrival.queue?.consumers.get(arrival.sender) : undefined
      if (consumer?.isStalled === true) this.#deliveries.revive(consumer)
      if (this.#deliveries.handleAnswer(step, stanza)) return
      if (this.#sessions.handleAnswer(step, stanza) || this.#requests.handleAnswer(step, stanza)) return
      if (type === 'result' && queue !== undefined && this.#verbs.settleLate(step, queue, stanza)) return
      step.ignore(address, stanza, 'an answer that nobody waits for')
    } else if (type === undefined) {
      step.ignore(address, stanza, 'an iq without a known type')
    } else {
      try {
        this.#answerIq(step, arrival)
      } catch (error) {
        step.refuse(domain, address, stanza, expected(error))
      }
    }
  }

  /** A request first: whatever stands beside `<xmq xmlns='xmq:topic'/>` is its payload, be it a ping or a command. */
  #answerIq(step: Step, arrival: Arrival): void {
    const { stanza, sender, domain, queue, address } = arrival
    if (queue === undefined && address !== domain.name) throw noQueue(address)
    const xmq = findTopic(stanza)
    const command = findChild(stanza, 'xmq', NS_COMMAND)
    if (xmq !== undefined || command !== undefined) {
      if (queue === undefined) throw noQueue(address)
      if (xmq !== undefined) {
        if (!isAllowed(queue.publish, sender)) throw forbidden(sender, 'publish to', queue)
        this.#requests.accept(step, queue, stanza, xmq)
      } else if (command !== undefined) {
        this.#consuming.obey(step, queue, stanza, command)
      }
      return
    }
    const verb = findVerb(stanza)
    if (verb !== undefined) {
      if (queue === undefined) throw noQueue(address)
      this.#verbs.handle(step, queue, stanza, verb)
      return
    }
    const description = describe(stanza, arrival, this.#rules)
    if (description === undefined) {
      throw new XmqError(
        'unsupported',
        `${address} takes xmq:command, xmq:topic, xmq:queue:1, disco, ping and version, nothing else.`,
      )
    }
    step.send(domain, resultTo(stanza, description))
  }

  /** Of a stanza that broke a limit, or was refused at its head, only the head is known: enough to tell whoever waits for it. */
  #handleSkipped(step: Step, { head, error }: Extract<Input, { type: 'skipped' }>): void {
    const arrival = this.#arrive(step, head)
    if (arrival === undefined) return
    if (head.name === 'iq' && this.#requests.handleSkippedAnswer(step, head, error)) return
    if (head.name === 'presence' || !mayBeAnswered(head)) {
      step.ignore(arrival.address, head, `a ${head.name} that broke a limit: ${error.message}`)
      return
    }
    step.refuse(arrival.domain, arrival.address, head, error, this.#overload.answerOf(error))
  }
}
