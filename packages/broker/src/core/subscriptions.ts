/**
 * Owner of topics, consumers and subscriptions: who gets the next message, and until when.
 *
 *              load <= 90
 *     sub ---> ready <----------+
 *               |  ^            |
 *       in doubt|  | verified   | by load
 *               v  |            v
 *             doubted <------> aside (load > 90)
 *
 *     any of them --- del, ttl over, session ended, bounced ---> gone
 *
 * Invariants:
 * 1. A subscription's rank in its topic's turns is what its load and its session's doubt say.
 * 2. A topic exists while it has a subscription; a consumer while it has one, a lease, or a request to answer: what it holds counts
 *    when it subscribes again.
 * 3. `subscriptionsByBare` counts what `consumers` holds, and `count` what all queues hold.
 * 4. Every subscription has its expiry set.
 * 5. A reliable consumer's subscriptions have one load, its own; those that are patterns are in `queue.patterns`.
 * 6. Whoever hands out messages (`onChanged`) is told of each change.
 */
import { isPattern, itemCodecFor, LOAD_ELIGIBLE_MAX, XML_ITEMS, XmqError } from '@xmq/protocol'
import type { Deadlines } from './deadlines.ts'
import type { Line } from './lines.ts'
import { compileFilter } from './patterns.ts'
import type { SubscriptionEnd } from './port.ts'
import { Consumer, type Queue, type Session, Subscription, Topic } from './records.ts'
import type { Step } from './step.ts'
import type { TurnRank } from './turns.ts'

/** What a `sub` asks for. */
export interface SubscriptionTerms {
  readonly topic: string
  readonly ttlSeconds: number
  readonly load: number
  /** Of a reliable consumer: its credit; undefined of a plain one. */
  readonly credit: number | undefined
  /** Of a reliable consumer: how its deliveries may be written. */
  readonly encoding: string | undefined
  /** The line of the durable subscription that it joins. */
  readonly line: Line | undefined
}

/** Told of a consumer whose subscriptions, kind, credit or load were changed. */
export type OnConsumerChanged = (consumer: Consumer) => void

/**
 * When a subscription ends: with the second in which its ttl is over, as in mod_xmq. So it lives up to a second longer
 * than its ttl, ttl 0 means the rest of this second, and one below 0 has ended.
 */
export function expiryOf(now: number, ttlSeconds: number): number {
  return (Math.floor(now / 1000) + ttlSeconds + 1) * 1000
}

/** See the top of this file. */
export class Subscriptions {
  readonly #deadlines: Deadlines
  readonly #max: number
  readonly #onChanged: OnConsumerChanged
  #count = 0
  #topics = 0
  #consumers = 0

  /** @param max most subscriptions in all queues together */
  constructor(deadlines: Deadlines, max: number, onChanged: OnConsumerChanged) {
    this.#deadlines = deadlines
    this.#max = max
    this.#onChanged = onChanged
  }

  get count(): number {
    return this.#count
  }

  get topics(): number {
    return this.#topics
  }

  get consumers(): number {
    return this.#consumers
  }

  /** The subscription of a full JID, if there is one. */
  find(queue: Queue, jid: string, topic: string): Subscription | undefined {
    return queue.consumers.get(jid)?.subscriptions.get(topic)
  }

  /**
   * Why one more subscription is refused, or `undefined` when there is room for it.
   * @param bare the bare JID that it would belong to
   */
  refusal(queue: Queue, bare: string, topic: string): XmqError | undefined {
    const { address, rules } = queue
    const own = queue.subscriptionsByBare.get(bare) ?? 0
    if (own >= rules.subscriptionsPerJidMax) {
      return limitReached(
        `${bare} has ${own} subscriptions in ${address}; at most ${rules.subscriptionsPerJidMax} are allowed ` +
          `(maxSubscriptionsPerJid). End some with command='del', or use another account.`,
      )
    }
    const topics = queue.topics.size + queue.patterns.size
    if (!queue.topics.has(topic) && !queue.patterns.has(topic) && topics >= rules.topicsMax) {
      return limitReached(
        `${address} has subscriptions to ${topics} topics; at most ${rules.topicsMax} are allowed ` +
          '(maxTopics). Use fewer topics, or another queue.',
      )
    }
    if (this.#count < this.#max) return undefined
    return limitReached(
      `The broker holds ${this.#count} subscriptions; at most ${this.#max} are allowed (limits.maxSubscriptions). ` +
        'Try again later.',
    )
  }

  /** Adds a subscription. There is none of this consumer to this topic, and {@link refusal} had nothing against it. */
  add(step: Step, queue: Queue, session: Session, terms: SubscriptionTerms): void {
    const consumer = this.#consumer(queue, session)
    this.#offer(consumer, terms)
    const topic = this.#topic(queue, terms.topic, consumer.kind === 'reliable')
    const subscription = new Subscription(consumer, topic, terms.load, terms.line)
    consumer.subscriptions.set(topic.name, subscription)
    queue.subscriptionsByBare.set(session.bare, (queue.subscriptionsByBare.get(session.bare) ?? 0) + 1)
    topic.subscriptions++
    this.#count++
    this.#deadlines.set(subscription.expiry, expiryOf(step.now, terms.ttlSeconds))
    topic.turns.enter(subscription)
    place(subscription)
    this.#onChanged(consumer)
    this.#tell(step, subscription, terms, true)
  }

  /** Gives a subscription a new ttl and load. It keeps its turn. {@link isSame} holds. */
  renew(step: Step, subscription: Subscription, terms: SubscriptionTerms): void {
    subscription.load = terms.load
    this.#offer(subscription.consumer, terms)
    this.#deadlines.set(subscription.expiry, expiryOf(step.now, terms.ttlSeconds))
    place(subscription)
    this.#onChanged(subscription.consumer)
    this.#tell(step, subscription, terms, false)
  }

  /** Whether terms renew a subscription; else they ask for another one in its place. */
  isSame(subscription: Subscription, terms: SubscriptionTerms): boolean {
    const isMeantAsPattern = terms.credit !== undefined && isPattern(terms.topic)
    return subscription.line === terms.line && (subscription.topic.matches !== undefined) === isMeantAsPattern
  }

  /** All subscriptions of a reliable consumer go on, with a new ttl, load and credit. */
  renewAll(step: Step, consumer: Consumer, ttlSeconds: number, load: number, credit: number): void {
    consumer.credit = credit
    consumer.load = load
    const at = expiryOf(step.now, ttlSeconds)
    for (const subscription of consumer.subscriptions.values()) {
      subscription.load = load
      this.#deadlines.set(subscription.expiry, at)
      place(subscription)
    }
    this.#onChanged(consumer)
  }

  /** Ends one subscription. The session may be idle afterwards: its owner is told by the caller. */
  end(step: Step, subscription: Subscription, reason: SubscriptionEnd): void {
    const { consumer, topic } = subscription
    const { queue, session } = consumer
    this.#deadlines.clear(subscription.expiry)
    topic.turns.rank(subscription, 'aside')
    consumer.subscriptions.delete(topic.name)
    this.#count--
    if (--topic.subscriptions === 0) {
      if (topic.matches === undefined) queue.topics.delete(topic.name)
      else queue.patterns.delete(topic.name)
      this.#topics--
    }
    const own = (queue.subscriptionsByBare.get(session.bare) ?? 0) - 1
    if (own > 0) queue.subscriptionsByBare.set(session.bare, own)
    else queue.subscriptionsByBare.delete(session.bare)
    this.#onChanged(consumer)
    this.forgetIdle(consumer)
    step.emit({ name: 'unsubscribed', queue: queue.address, topic: topic.name, consumer: session.jid, reason })
  }

  /** Forgets a consumer that is subscribed to nothing and holds nothing. To be called when its last lease or request has ended. */
  forgetIdle({ queue, session, subscriptions, leases, openRequests, kind }: Consumer): void {
    if (subscriptions.size > 0 || leases.size > 0 || openRequests > 0) return
    queue.consumers.delete(session.jid)
    if (!session.consumers.delete(queue)) return
    this.#consumers--
    if (kind === 'reliable') queue.reliableConsumers--
  }

  /** Ends everything that a consumer is subscribed to in its queue. */
  endConsumer(step: Step, consumer: Consumer, reason: SubscriptionEnd): void {
    for (const subscription of consumer.subscriptions.values()) this.end(step, subscription, reason)
  }

  /** Puts a session's subscriptions where its doubt says. To be called when `isDoubted` was changed. */
  replace(session: Session): void {
    for (const consumer of session.consumers.values()) {
      for (const subscription of consumer.subscriptions.values()) place(subscription)
      this.#onChanged(consumer)
    }
  }

  /**
   * Whose turn it is in a topic. One whose session is in doubt gets it only when nobody else may, and whoever is subscribed
   * to a pattern only when nobody is to the topic.
   * @param tried full JIDs to pass over
   */
  take(queue: Queue, topicName: string, tried?: ReadonlySet<string>): Subscription | undefined {
    const exact = queue.topics.get(topicName)?.turns.take(tried)
    if (exact !== undefined || queue.patterns.size === 0) return exact
    for (const pattern of queue.patterns.values()) {
      if (pattern.matches?.(topicName) !== true) continue
      const taken = pattern.turns.take(tried)
      if (taken !== undefined) return taken
    }
    return undefined
  }

  /** Whether somebody is subscribed to a topic who takes nothing more now: its load is too high, or its credit used up. */
  isBusy(queue: Queue, topicName: string): boolean {
    if (queue.topics.has(topicName)) {
      for (const { kind, subscriptions } of queue.consumers.values()) {
        if (kind === 'reliable' && subscriptions.has(topicName)) return true
      }
    }
    for (const pattern of queue.patterns.values()) if (pattern.matches?.(topicName) === true) return true
    return false
  }

  /** Everyone who may get a message of a topic: subscriptions to it. */
  forEachEligible(queue: Queue, topicName: string, visit: (subscription: Subscription) => void): void {
    queue.topics.get(topicName)?.turns.forEach(visit)
  }

  /** Puts a consumer's subscriptions where its room says; to be called when it has got some, or has none left. */
  placeAll(consumer: Consumer): void {
    for (const subscription of consumer.subscriptions.values()) place(subscription)
  }

  #offer(consumer: Consumer, terms: SubscriptionTerms): void {
    consumer.isStalled = false
    const kind = terms.credit === undefined ? 'plain' : 'reliable'
    const isSameKind = kind === consumer.kind
    if (!isSameKind) consumer.queue.reliableConsumers += kind === 'reliable' ? 1 : -1
    consumer.kind = kind
    if (terms.credit === undefined) {
      consumer.credit = consumer.queue.rules.reliable.plainWindow
      return
    }
    consumer.credit = terms.credit
    consumer.codec = itemCodecFor(terms.encoding) ?? XML_ITEMS
    if (isSameKind && consumer.load === terms.load) return
    consumer.load = terms.load
    for (const subscription of consumer.subscriptions.values()) {
      subscription.load = terms.load
      place(subscription)
    }
  }

  #consumer(queue: Queue, session: Session): Consumer {
    const known = queue.consumers.get(session.jid)
    if (known !== undefined) return known
    const consumer = new Consumer(queue, session, queue.rules.reliable.plainWindow)
    queue.consumers.set(session.jid, consumer)
    session.consumers.set(queue, consumer)
    this.#consumers++
    return consumer
  }

  #topic(queue: Queue, name: string, isReliable: boolean): Topic {
    const topics = isReliable && isPattern(name) ? queue.patterns : queue.topics
    const known = topics.get(name)
    if (known !== undefined) return known
    const topic = new Topic(queue, name, topics === queue.patterns ? compileFilter(name) : undefined)
    topics.set(name, topic)
    this.#topics++
    return topic
  }

  #tell(step: Step, subscription: Subscription, terms: SubscriptionTerms, isNew: boolean): void {
    const { queue, session } = subscription.consumer
    const { topic, ttlSeconds, load } = terms
    step.emit({ name: 'subscribed', queue: queue.address, topic, consumer: session.jid, ttlSeconds, load, isNew })
  }
}

/** Gives a subscription the rank that its load and its session call for; its turn stays. */
function place(subscription: Subscription): void {
  subscription.topic.turns.rank(subscription, rankOf(subscription))
}

function rankOf(subscription: Subscription): TurnRank {
  if (subscription.load > LOAD_ELIGIBLE_MAX) return 'aside'
  const { kind, isFull } = subscription.consumer
  if (kind === 'reliable' && isFull) return 'aside'
  return subscription.consumer.session.isDoubted ? 'doubted' : 'ready'
}

function limitReached(text: string): XmqError {
  return new XmqError('limit-reached', text)
}
