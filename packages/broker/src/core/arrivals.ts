/**
 * What arrives on a stream: who sent it to whom, what it means, and who does it. Stateless.
 *
 *     stanza --> message --> publish                        --> deliveries, or an error to the producer
 *            |          \--> bounce (type error)            --> the consumer's subscriptions end
 *            +-> presence -> announced, or in doubt         --> a ping
 *            +-> iq get/set -> request | command | verb | discovery -> exactly one answer
 *            +-> iq result/error -> of a delivery | of a ping | of a request -> else dropped
 *     skipped --> as much of that as a head allows
 *
 * Invariants:
 * 1. Nothing is answered that may not be: errors, results, presence but for subscription requests.
 * 2. Rights are checked before any state is made.
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
import { isAllowed } from './access.ts'
import type { Consuming } from './consuming.ts'
import type { Deliveries } from './deliveries.ts'
import { describe } from './disco.ts'
import type { Overload } from './overload.ts'
import type { CoreRules } from './port.ts'
import type { Publishing } from './publishing.ts'
import type { Place, Queues } from './queues.ts'
import { expected, forbidden, noQueue } from './refusals.ts'
import type { Requests } from './requests.ts'
import type { Sessions } from './sessions.ts'
import type { Step } from './step.ts'
import type { Subscriptions } from './subscriptions.ts'
import { findVerb, type Verbs } from './verbs.ts'

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

/** A stanza that is addressed to us by somebody. */
interface Arrival extends Place {
  readonly stanza: XmlElement
  readonly sender: string
}

/** What {@link Arrivals} needs. */
export interface ArrivalsOptions {
  readonly rules: CoreRules
  readonly queues: Queues
  readonly subscriptions: Subscriptions
  readonly sessions: Sessions
  readonly requests: Requests
  readonly deliveries: Deliveries
  readonly publishing: Publishing
  readonly consuming: Consuming
  readonly verbs: Verbs
  readonly overload: Overload
}

/** See the top of this file. */
export class Arrivals {
  readonly #rules: CoreRules
  readonly #queues: Queues
  readonly #subscriptions: Subscriptions
  readonly #sessions: Sessions
  readonly #requests: Requests
  readonly #deliveries: Deliveries
  readonly #publishing: Publishing
  readonly #consuming: Consuming
  readonly #verbs: Verbs
  readonly #overload: Overload

  constructor(options: ArrivalsOptions) {
    this.#rules = options.rules
    this.#queues = options.queues
    this.#subscriptions = options.subscriptions
    this.#sessions = options.sessions
    this.#requests = options.requests
    this.#deliveries = options.deliveries
    this.#publishing = options.publishing
    this.#consuming = options.consuming
    this.#verbs = options.verbs
    this.#overload = options.overload
  }

  /** Does what a stanza says. */
  handle(step: Step, stanza: XmlElement): void {
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
  handleSkipped(step: Step, head: XmlElement, error: XmqError): void {
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
