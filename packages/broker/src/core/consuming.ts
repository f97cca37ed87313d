/**
 * What consumers say of themselves: sub, del, renew, forget. docs/protocol.md "Subscriptions", docs/protocol-reliable.md
 * "Consuming". Stateless: subscriptions.ts, sessions.ts and named.ts own what comes of it.
 *
 *     sub ----------------------> answer, subscription
 *     sub with a name --> store --> answer, subscription         what comes meanwhile from the same session may overtake it
 *     reliable sub of a queue that outlives the broker --> subscription --> store (reconnecting.ts) --> answer
 */
import {
  assertPattern,
  bareOf,
  type Consume,
  decodeCommand,
  decodeConsume,
  decodeForget,
  decodeRenew,
  encodeRenewed,
  resultTo,
  type SubCommand,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { isAllowed } from './access.ts'
import type { Deliveries } from './deliveries.ts'
import type { Named } from './named.ts'
import type { SubscriptionEnd } from './port.ts'
import type { Reconnecting } from './reconnecting.ts'
import type { Consumer, Queue, Subscription } from './records.ts'
import { forbidden } from './refusals.ts'
import type { Sessions } from './sessions.ts'
import type { Step } from './step.ts'
import { expiryOf, type Subscriptions, type SubscriptionTerms } from './subscriptions.ts'

/** What {@link Consuming} needs. */
export interface ConsumingOptions {
  readonly subscriptions: Subscriptions
  readonly sessions: Sessions
  readonly named: Named
  readonly deliveries: Deliveries
  readonly reconnecting: Reconnecting
}

/** Of one `sub`. */
interface Terms extends SubscriptionTerms {
  /** Over which stream it came. */
  readonly epoch: string | undefined
}

/** See the top of this file. */
export class Consuming {
  readonly #options: ConsumingOptions

  constructor(options: ConsumingOptions) {
    this.#options = options
  }

  /** Does a command. @throws XmqError why it is refused */
  obey(step: Step, queue: Queue, iq: XmlElement, xmq: XmlElement): void {
    const sender = iq.attrs.get('from') ?? ''
    if (!isAllowed(queue.consume, sender)) throw forbidden(sender, 'consume from', queue)
    if (iq.attrs.get('type') !== 'set') {
      throw new XmqError('bad-request', "Attribute 'type' of the iq is 'get'; a command is sent with 'set'.")
    }
    const command = decodeCommand(xmq)
    if (command.command === 'sub') {
      this.#sub(step, queue, iq, { command, consume: decodeConsume(xmq) })
      return
    }
    step.send(queue.domain, resultTo(iq))
    const subscription = this.#options.subscriptions.find(queue, sender, command.topic)
    if (subscription !== undefined) this.end(step, subscription, 'deleted')
  }

  /** All of a reliable consumer's subscriptions go on. @throws XmqError `not-found` when it has none */
  renew(step: Step, queue: Queue, iq: XmlElement, renew: XmlElement): void {
    const sender = iq.attrs.get('from') ?? ''
    const { ttlSeconds, load, credit } = decodeRenew(renew)
    assertTtl(queue, ttlSeconds)
    const consumer = queue.consumers.get(sender)
    if (consumer === undefined || consumer.kind === 'plain' || consumer.subscriptions.size === 0) {
      throw new XmqError('not-found', 'This session has no reliable subscription here. Subscribe again.')
    }
    this.#options.deliveries.revive(consumer)
    this.#options.subscriptions.renewAll(step, consumer, ttlSeconds, load, credit)
    this.#options.sessions.subscribed(step, consumer.session, queue, ttlSeconds)
    step.send(queue.domain, resultTo(iq, [encodeRenewed(consumer.subscriptions.size, queue.domain.epoch)]))
    this.#options.deliveries.pump(step, consumer)
  }

  /** Ends a durable subscription. @throws XmqError */
  forget(queue: Queue, iq: XmlElement, forget: XmlElement): void {
    const sender = iq.attrs.get('from') ?? ''
    if (!isAllowed(queue.consume, sender)) throw forbidden(sender, 'consume from', queue)
    const { name } = decodeForget(forget)
    this.#options.named.forget(queue, bareOf(sender), name, (step, error) => {
      if (error === undefined) step.send(queue.domain, resultTo(iq))
      else step.refuse(queue.domain, queue.address, iq, error)
    })
  }

  /** Ends a subscription, and what depends on it. */
  end(step: Step, subscription: Subscription, reason: SubscriptionEnd): void {
    const { consumer } = subscription
    this.#options.subscriptions.end(step, subscription, reason)
    this.ended(step, consumer)
  }

  /** Some of a consumer's subscriptions have ended. */
  ended(step: Step, consumer: Consumer): void {
    if (consumer.subscriptions.size === 0) this.#options.deliveries.unsubscribed(step, consumer)
    this.#options.sessions.release(consumer.session)
  }

  #sub(
    step: Step,
    queue: Queue,
    iq: XmlElement,
    { command, consume }: { readonly command: SubCommand; readonly consume: Consume | undefined },
  ): void {
    const sender = iq.attrs.get('from') ?? ''
    const { topic, ttlSeconds, load } = command
    if (consume !== undefined) assertPattern(topic)
    assertTtl(queue, ttlSeconds)
    const subscription = this.#options.subscriptions.find(queue, sender, topic)
    if (expiryOf(step.now, ttlSeconds) <= step.now) {
      step.send(queue.domain, resultTo(iq))
      if (subscription !== undefined) this.end(step, subscription, 'expired')
      return
    }
    this.#assertRoom(queue, sender, topic)
    const { epoch } = queue.domain
    const { credit, encoding } = consume ?? {}
    const terms: Terms = { topic, ttlSeconds, load, credit, encoding, line: undefined, epoch }
    if (consume?.name === undefined) {
      this.#accept(step, queue, iq, terms)
      return
    }
    if (queue.rules.type === 'any') {
      throw new XmqError(
        'bad-request',
        `Attribute 'name' of <consume> is for 'all' queues; ${queue.address} is an 'any' queue, durable as it is.`,
      )
    }
    if (!queue.isLoaded) {
      const text = 'The broker has just started and looks through its store. Try again.'
      throw new XmqError('overloaded', text, { retryAfterSeconds: 1 })
    }
    const wanted = { owner: bareOf(sender), name: consume.name, filter: topic }
    this.#options.named.join(step, queue, wanted, (later, line) => {
      const refusal = line instanceof XmqError ? line : this.#refusal(queue, sender, topic)
      if (refusal !== undefined) {
        later.refuse(queue.domain, queue.address, iq, refusal)
        return
      }
      this.#accept(later, queue, iq, { ...terms, line: line as Exclude<typeof line, XmqError> })
    })
  }

  #assertRoom(queue: Queue, sender: string, topic: string): void {
    const refusal = this.#refusal(queue, sender, topic)
    if (refusal !== undefined) throw refusal
  }

  #refusal(queue: Queue, sender: string, topic: string): XmqError | undefined {
    const { subscriptions } = this.#options
    if (subscriptions.find(queue, sender, topic) !== undefined) return undefined
    return subscriptions.refusal(queue, bareOf(sender), topic)
  }

  #accept(step: Step, queue: Queue, iq: XmlElement, terms: Terms): void {
    const { reconnecting } = this.#options
    const sender = iq.attrs.get('from') ?? ''
    const answer = (at: Step): void => at.send(queue.domain, resultTo(iq))
    if (terms.credit === undefined || reconnecting.isRemembered(queue, sender)) {
      answer(step)
      this.#subscribe(step, queue, sender, terms)
      return
    }
    this.#subscribe(step, queue, sender, terms)
    const consumer = queue.consumers.get(sender)
    if (consumer === undefined) answer(step)
    else reconnecting.whenRemembered(consumer, answer)
  }

  #subscribe(step: Step, queue: Queue, sender: string, terms: Terms): void {
    const { subscriptions, sessions, deliveries } = this.#options
    const session = sessions.open(sender)
    let subscription = subscriptions.find(queue, sender, terms.topic)
    if (subscription !== undefined && !subscriptions.isSame(subscription, terms)) {
      subscriptions.end(step, subscription, 'deleted')
      subscription = undefined
    }
    if (subscription === undefined) subscriptions.add(step, queue, session, terms)
    else subscriptions.renew(step, subscription, terms)
    const isLate = queue.domain.isDown || queue.domain.epoch !== terms.epoch
    if (isLate) sessions.subscribedLate(step, session, queue, terms.ttlSeconds)
    else sessions.subscribed(step, session, queue, terms.ttlSeconds)
    const consumer = queue.consumers.get(sender)
    if (consumer === undefined) return
    deliveries.pump(step, consumer)
  }
}

function assertTtl(queue: Queue, ttlSeconds: number): void {
  const { ttlSecondsMax } = queue.rules
  if (ttlSeconds <= ttlSecondsMax) return
  throw new XmqError(
    'bad-request',
    `Attribute 'ttl' is '${ttlSeconds}'; this queue takes at most ${ttlSecondsMax} seconds (maxTtl). ` +
      'Ask for less, and renew before it ends.',
  )
}
