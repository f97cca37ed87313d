/**
 * The core of the broker: what arrives, what it means, what is done. Synchronous, total and pure; see port.ts.
 *
 *     stanza --> message --> publish                        --> deliveries, or an error to the producer
 *            |          \--> bounce (type error)            --> the consumer's subscriptions end
 *            +-> presence -> announced, or in doubt         --> a ping
 *            +-> iq get/set -> request | command | discovery -> exactly one answer
 *            +-> iq result/error -> of a ping | of a request -> else dropped
 *     skipped --> as much of that as a head allows
 *     link-up, link-down --> sessions are verified; answers that waited are written
 *     shutdown --> open requests are answered
 *     tick --> what is due
 *
 * Owner of the whole: it wires the owners of the parts and holds no state but them.
 *
 * Invariants:
 * 1. What is due is done before an input is looked at, so that nothing expired is ever served.
 * 2. Nothing is answered that may not be: errors, results, presence but for subscription requests.
 * 3. Rights are checked before any state is made.
 */
import {
  bareOf,
  decodeCommand,
  decodeError,
  decodeTopic,
  domainOf,
  findChild,
  findTopic,
  iqType,
  isStanza,
  mayBeAnswered,
  NS_COMMAND,
  resultTo,
  type StanzaErrorCondition,
  type SubCommand,
  stanza as buildStanza,
  WRITE_STANZA_BYTES_MAX,
  wireLength,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { isAllowed } from './access.ts'
import { exceedsContent } from './content-size.ts'
import { Deadlines } from './deadlines.ts'
import { describe } from './disco.ts'
import { deliverTo, prepareDelivery } from './message.ts'
import type { Core, CoreRules, CoreStats, Effect, Entropy, Input } from './port.ts'
import { type Place, Queues } from './queues.ts'
import type { Queue } from './records.ts'
import { Requests } from './requests.ts'
import { Sessions } from './sessions.ts'
import { Step } from './step.ts'
import { expiryOf, Subscriptions } from './subscriptions.ts'

/** Ids are echoed in answers: a longer one is no id but an attack on the component stream's stanza limit. */
const ID_LENGTH_MAX = 1024
/** So long an id is still echoed once, in the refusal of it. */
const ID_ECHO_BYTES_MAX = WRITE_STANZA_BYTES_MAX - 4096

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

  constructor(rules: CoreRules) {
    this.#rules = rules
    this.#queues = new Queues(rules)
    const deadlines = this.#deadlines
    const subscriptions = new Subscriptions(deadlines, rules.subscriptionsMax)
    const sessions: Sessions = new Sessions({
      rules,
      deadlines,
      subscriptions,
      onEnded: (step, session) => this.#requests.sessionEnded(step, session),
    })
    this.#subscriptions = subscriptions
    this.#sessions = sessions
    this.#requests = new Requests({ rules, deadlines, subscriptions, sessions })
  }

  get deadline(): number | undefined {
    return this.#deadlines.earliest
  }

  stats(): CoreStats {
    return {
      subscriptions: this.#subscriptions.count,
      consumers: this.#subscriptions.consumers,
      topics: this.#subscriptions.topics,
      openRequests: this.#requests.count,
      pings: this.#sessions.pings,
    }
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
      case 'link-up':
        this.#handleLinkUp(step, input.domain)
        break
      case 'link-down':
        this.#handleLinkDown(step, input.domain)
        break
      case 'shutdown':
        this.#requests.shutDown(step)
        break
      case 'tick':
        break
    }
    return step.effects
  }

  #handleDue(step: Step): void {
    for (;;) {
      const subject = this.#deadlines.takeDue(step.now)?.subject
      if (subject === undefined) return
      switch (subject.kind) {
        case 'expiry':
          this.#subscriptions.end(step, subject.subscription, 'expired')
          this.#sessions.release(subject.subscription.consumer.session)
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
      }
    }
  }

  #handleLinkUp(step: Step, name: string): void {
    const domain = this.#queues.domains.get(name)
    if (domain === undefined) return
    domain.isDown = false
    const held = domain.held
    domain.held = []
    for (const stanza of held) step.send(domain, stanza)
    this.#sessions.linkUp(step, domain)
    this.#handleDue(step)
  }

  #handleLinkDown(step: Step, name: string): void {
    const domain = this.#queues.domains.get(name)
    if (domain === undefined) return
    domain.isDown = true
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
    try {
      if (queue === undefined) throw noQueue(address)
      this.#publish(step, queue, arrival)
    } catch (error) {
      step.refuse(domain, address, stanza, expected(error))
    }
  }

  #publish(step: Step, queue: Queue, { stanza, sender }: Arrival): void {
    if (!isAllowed(queue.publish, sender)) throw forbidden(sender, 'publish to', queue)
    const xmq = findTopic(stanza)
    if (xmq === undefined) throw new XmqError('topic-required', 'XMQ topic not found')
    const topic = decodeTopic(xmq)
    const { payloadBytesMax, preserveFrom, type } = queue.rules
    if (exceedsContent(stanza, payloadBytesMax)) {
      throw new XmqError('too-large', `The message is larger than the ${payloadBytesMax} bytes that this queue takes.`)
    }
    const from = preserveFrom ? sender : queue.address
    let recipients = 0
    if (type === 'any') {
      const next = this.#subscriptions.take(queue, topic)
      if (next === undefined) throw new XmqError('no-recipients', 'No recipients found')
      step.send(queue.domain, deliverTo(prepareDelivery(stanza, from), next.consumer.session.jid))
      recipients = 1
    } else if (queue.topics.has(topic)) {
      const delivery = prepareDelivery(stanza, from)
      this.#subscriptions.forEachEligible(queue, topic, (subscription) => {
        step.send(queue.domain, deliverTo(delivery, subscription.consumer.session.jid))
        recipients++
      })
    }
    step.emit({ name: 'published', queue: queue.address, topic, recipients })
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
    this.#subscriptions.endConsumer(step, consumer, 'bounced')
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
    const { stanza, domain, address } = arrival
    const type = iqType(stanza)
    if (type === 'result' || type === 'error') {
      if (this.#sessions.handleAnswer(step, stanza) || this.#requests.handleAnswer(step, stanza)) return
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
        this.#obey(step, queue, arrival, command)
      }
      return
    }
    const description = describe(stanza, arrival, this.#rules)
    if (description === undefined) {
      throw new XmqError(
        'unsupported',
        `${address} takes xmq:command, xmq:topic, disco, ping and version, nothing else.`,
      )
    }
    step.send(domain, resultTo(stanza, description))
  }

  #obey(step: Step, queue: Queue, { stanza, sender }: Arrival, xmq: XmlElement): void {
    if (!isAllowed(queue.consume, sender)) throw forbidden(sender, 'consume from', queue)
    if (stanza.attrs.get('type') !== 'set') {
      throw new XmqError('bad-request', "Attribute 'type' of the iq is 'get'; a command is sent with 'set'.")
    }
    const command = decodeCommand(xmq)
    if (command.command === 'sub') this.#assertSubscribable(step, queue, sender, command)
    step.send(queue.domain, resultTo(stanza))
    if (command.command === 'sub' && expiryOf(step.now, command.ttlSeconds) > step.now) {
      this.#subscribe(step, queue, sender, command)
      return
    }
    const subscription = this.#subscriptions.find(queue, sender, command.topic)
    if (subscription === undefined) return
    this.#subscriptions.end(step, subscription, command.command === 'del' ? 'deleted' : 'expired')
    this.#sessions.release(subscription.consumer.session)
  }

  #assertSubscribable(step: Step, queue: Queue, sender: string, { topic, ttlSeconds }: SubCommand): void {
    const { ttlSecondsMax } = queue.rules
    if (ttlSeconds > ttlSecondsMax) {
      throw new XmqError(
        'bad-request',
        `Attribute 'ttl' is '${ttlSeconds}'; this queue takes at most ${ttlSecondsMax} seconds (maxTtl). ` +
          'Ask for less, and renew before it ends.',
      )
    }
    if (expiryOf(step.now, ttlSeconds) <= step.now) return
    if (this.#subscriptions.find(queue, sender, topic) !== undefined) return
    const refusal = this.#subscriptions.refusal(queue, bareOf(sender), topic)
    if (refusal !== undefined) throw refusal
  }

  #subscribe(step: Step, queue: Queue, sender: string, terms: SubCommand): void {
    const session = this.#sessions.open(sender)
    const subscription = this.#subscriptions.find(queue, sender, terms.topic)
    if (subscription === undefined) this.#subscriptions.add(step, queue, session, terms)
    else this.#subscriptions.renew(step, subscription, terms)
    this.#sessions.subscribed(step, session, queue, terms.ttlSeconds)
  }

  /** Of a stanza that broke a limit only the head is known: enough to tell whoever waits for it. */
  #handleSkipped(step: Step, { head, code, text }: Extract<Input, { type: 'skipped' }>): void {
    const arrival = this.#arrive(step, head)
    if (arrival === undefined) return
    if (head.name === 'iq' && this.#requests.handleSkippedAnswer(step, head, code, text)) return
    if (head.name === 'presence' || !mayBeAnswered(head)) {
      step.ignore(arrival.address, head, `a ${head.name} that broke a limit: ${text}`)
      return
    }
    step.refuse(arrival.domain, arrival.address, head, new XmqError(code, text))
  }
}

function noQueue(address: string): XmqError {
  return new XmqError(
    'not-found',
    `There is no queue ${address}. Ask disco#items of ${domainOf(address)} for those there are.`,
  )
}

function forbidden(sender: string, what: string, queue: Queue): XmqError {
  return new XmqError('forbidden', `${bareOf(sender)} may not ${what} ${queue.address}. Its operator can allow it.`)
}

/** What the parts throw is an `XmqError` that is the sender's to hear; anything else is a bug, and says so. */
function expected(error: unknown): XmqError {
  if (error instanceof XmqError) return error
  throw error
}
