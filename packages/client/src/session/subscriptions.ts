/**
 * The topics that a worker wants, and what the queue knows of them. Owner: one session.
 *
 *     wanted --ready--> asked --result--> held --ttl/3--> asked        (plain)
 *                       asked --error, no answer--> wanted, asked again after a pause
 *     wanted --ready--> asked --result--> held                         (reliable: one `renew` keeps all that are held)
 *     wanted --ready--> held --ttl/3--> held                           (mod_xmq: it never answers)
 *     held, asked --leave--> leaving --answer--> left
 *
 * Invariants:
 * 1. Directed presence goes to the queue before the first `sub` of a connection (not to a mod_xmq), so that the end of the
 *    session reaches the broker at once.
 * 2. A topic has at most one `sub` whose answer counts: the last.
 * 3. Nothing is sent without a connection and a known mode.
 * 4. After `leave` no `sub` renews anything.
 * 5. Towards a reliable queue one `renew` is open at most. When the queue knows another number of subscriptions than are
 *    held, all are asked for again.
 */
import {
  decodeError,
  decodeRenewed,
  encodeCommand,
  encodeConsume,
  encodeRenew,
  findChild,
  isPattern,
  matchesPattern,
  NS_QUEUE,
  PACKED,
  stanza,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { LoadReports } from './load.ts'
import type { Effect, Entropy, Mode, SessionRules } from './port.ts'
import { least, type Pulse } from './pulse.ts'
import type { Timers } from './timers.ts'

interface Subscription {
  /** Or a pattern, towards a reliable queue. */
  readonly topic: string
  /** Of a durable subscription. */
  readonly name: string | undefined
  phase: 'wanted' | 'asked' | 'held' | 'leaving' | 'left'
  /** The id of the `sub` or `del` whose answer counts, and its place among all that was asked (pulse.ts). */
  askId: string
  askNumber: number
  failures: number
  wasHeld: boolean
}

const RETRY_BASE_MS = 500
const RETRY_MAX_MS = 5000

/** The timer of a topic. */
export function subscriptionTimer(topic: string): string {
  return `sub:${topic}`
}

/** The timer of the next `renew`, of its answer, or of the end of a pause. */
export const RENEW_TIMER = 'renew'

/** Keeps the topics of a worker subscribed. */
export class Subscriptions {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  readonly #pulse: Pulse
  readonly #byTopic = new Map<string, Subscription>()
  readonly #byAsk = new Map<string, Subscription>()
  readonly #reports = new LoadReports()
  #mode: Mode | undefined
  #presenceSent = false
  #leaving = false
  #renewId = ''
  #renewNumber = 0
  #renewFailures = 0

  constructor(rules: SessionRules, timers: Timers<string | number>, pulse: Pulse) {
    this.#rules = rules
    this.#timers = timers
    this.#pulse = pulse
  }

  get size(): number {
    return this.#byTopic.size
  }

  get presenceSent(): boolean {
    return this.#presenceSent
  }

  /** Whether a message of a topic is ours: asked for by its name, or by a pattern. */
  has(topic: string): boolean {
    if (this.#byTopic.has(topic)) return true
    if (this.#mode !== 'reliable') return false
    for (const pattern of this.#byTopic.keys()) if (matchesPattern(pattern, topic)) return true
    return false
  }

  /** Whether a message of a topic is to be handled: it is ours, and we do not leave. */
  wants(topic: string): boolean {
    return !this.#leaving && this.has(topic)
  }

  want(topic: string, name: string | undefined, now: number, entropy: Entropy, out: Effect[]): void {
    if (this.#byTopic.has(topic) || this.#leaving) return
    const subscription: Subscription = {
      topic,
      name,
      phase: 'wanted',
      askId: '',
      askNumber: 0,
      failures: 0,
      wasHeld: false,
    }
    this.#byTopic.set(topic, subscription)
    if (this.#mode === undefined) return
    this.#greet(out)
    this.#ask(subscription, this.#mode, now, entropy, out)
  }

  /** The connection is up and the mode known: subscribe to everything, again. */
  ready(mode: Mode, now: number, entropy: Entropy, out: Effect[]): void {
    this.#mode = mode
    if (this.#leaving || this.#byTopic.size === 0) return
    this.#greet(out)
    for (const subscription of this.#byTopic.values()) this.#ask(subscription, mode, now, entropy, out)
    this.#reports.reported(now)
  }

  /** The connection ended, or the mode is in doubt. */
  unready(connectionEnded: boolean): void {
    this.#mode = undefined
    if (connectionEnded) this.#presenceSent = false
    this.#byAsk.clear()
    for (const subscription of this.#byTopic.values()) {
      if (subscription.phase === 'asked' || subscription.phase === 'held') subscription.phase = 'wanted'
      this.#timers.delete(subscriptionTimer(subscription.topic))
    }
    this.#timers.delete('load')
    this.#endRenewal()
  }

  #endRenewal(): void {
    this.#renewId = ''
    this.#renewFailures = 0
    this.#timers.delete(RENEW_TIMER)
  }

  /** The number of the renewal that is not answered. */
  numberOf(id: string): number | undefined {
    return this.isRenewal(id) ? this.#renewNumber : undefined
  }

  /** The least number above `above` of a `sub` or renewal that is not answered. */
  oldest(above: number): number | undefined {
    const renewal = this.#renewId !== '' && this.#renewNumber > above ? this.#renewNumber : undefined
    for (const { askNumber } of this.#byAsk.values()) if (askNumber > above) return least(askNumber, renewal)
    return renewal
  }

  /**
   * The broker asks for all subscriptions anew, or does not know them.
   * @param isNewBroker whether it knows nothing of this session's presence either
   */
  again(now: number, entropy: Entropy, out: Effect[], isNewBroker = false): void {
    const mode = this.#mode
    if (mode === undefined || this.#leaving || this.#byTopic.size === 0) return
    this.#endRenewal()
    if (isNewBroker) this.#presenceSent = false
    this.#greet(out)
    for (const subscription of this.#byTopic.values()) this.#ask(subscription, mode, now, entropy, out)
    this.#reports.reported(now)
  }

  #greet(out: Effect[]): void {
    if (this.#presenceSent || this.#mode === 'mod_xmq') return
    this.#presenceSent = true
    out.push({ type: 'send', stanza: stanza('presence', { to: this.#rules.queue }) })
  }

  #ask(subscription: Subscription, mode: Mode, now: number, entropy: Entropy, out: Effect[]): void {
    const { topic, name } = subscription
    if (mode !== 'reliable' && (name !== undefined || isPattern(topic))) {
      const text = `${this.#rules.queue} is a plain queue: '${topic}' needs a reliable one, for its pattern or name.`
      const error = new XmqError('unsupported', text)
      subscription.phase = 'wanted'
      this.#failed(subscription, error, now, entropy, out)
      return
    }
    this.#command(subscription, { ttlSeconds: this.#rules.ttlSeconds, load: this.#reports.load }, entropy, out)
    if (mode !== 'mod_xmq') {
      subscription.phase = 'asked'
      this.#timers.set(subscriptionTimer(topic), now + this.#rules.answerTimeoutMs)
      return
    }
    subscription.phase = 'held'
    this.#timers.set(subscriptionTimer(topic), now + this.#renewMs)
    out.push({ type: 'event', event: { name: 'subscribed', topic, renewal: subscription.wasHeld } })
    subscription.wasHeld = true
  }

  get #renewMs(): number {
    return Math.floor((this.#rules.ttlSeconds * 1000) / 3)
  }

  /** Sends a `sub`; its answer counts from now on. */
  #command(
    subscription: Subscription,
    { ttlSeconds, load }: { ttlSeconds: number; load: number },
    entropy: Entropy,
    out: Effect[],
  ): void {
    this.#byAsk.delete(subscription.askId)
    subscription.askId = entropy.id()
    subscription.askNumber = this.#pulse.next()
    this.#byAsk.set(subscription.askId, subscription)
    const { topic, name } = subscription
    const { credit, workerInfo } = this.#rules
    const consume =
      this.#mode === 'reliable' ? [encodeConsume({ credit, name, encoding: PACKED, worker: workerInfo })] : []
    const command = encodeCommand({ command: 'sub', topic, ttlSeconds, load }, consume)
    out.push({ type: 'send', stanza: this.#iq(subscription.askId, command) })
  }

  // --- renewal of a reliable queue ------------------------------------------------------------------------------------

  /** Renews everything that is held. */
  #renew(now: number, entropy: Entropy, out: Effect[], load: number = this.#reports.load): void {
    const { ttlSeconds, credit, answerTimeoutMs } = this.#rules
    this.#renewId = entropy.id()
    this.#renewNumber = this.#pulse.next()
    this.#timers.set(RENEW_TIMER, now + answerTimeoutMs)
    out.push({ type: 'send', stanza: this.#iq(this.#renewId, encodeRenew({ ttlSeconds, load, credit })) })
  }

  /** The timer of the renewal: it is due, or its answer is overdue. */
  renewDue(now: number, entropy: Entropy, out: Effect[]): void {
    if (this.#mode !== 'reliable' || this.#leaving) return
    if (this.#renewId !== '') {
      this.#renewId = ''
      this.#renewFailed(new XmqError('timeout', `${this.#rules.queue} did not answer a renewal in time.`), now, entropy)
      return
    }
    this.#reports.reported(now)
    this.#renew(now, entropy, out)
  }

  isRenewal(id: string): boolean {
    return id !== '' && id === this.#renewId
  }

  /** The queue's answer to a renewal. */
  renewed(iq: XmlElement, now: number, entropy: Entropy, out: Effect[]): void {
    this.#renewId = ''
    if (this.#leaving) return
    if (iq.attrs.get('type') === 'error') {
      const error = decodeError(iq)
      if (error.fromBroker && error.code === 'not-found') this.again(now, entropy, out)
      else this.#renewFailed(error, now, entropy)
      return
    }
    this.#renewFailures = 0
    this.#timers.set(RENEW_TIMER, now + this.#renewMs)
    if (knownSubscriptions(iq) !== this.#heldCount && this.#byAsk.size === 0) this.again(now, entropy, out)
  }

  get #heldCount(): number {
    let held = 0
    for (const { phase } of this.#byTopic.values()) if (phase === 'held') held++
    return held
  }

  #renewFailed(error: XmqError, now: number, entropy: Entropy): void {
    const ceiling = Math.min(RETRY_MAX_MS, RETRY_BASE_MS * 2 ** Math.min(this.#renewFailures, 10))
    this.#renewFailures++
    const asked = Math.min((error.retryAfterSeconds ?? 0) * 1000, this.#renewMs)
    this.#timers.set(RENEW_TIMER, now + Math.max((ceiling / 2) * (1 + entropy.unit()), asked))
  }

  // --- answers --------------------------------------------------------------------------------------------------------

  #iq(id: string, command: XmlElement): XmlElement {
    return stanza('iq', { type: 'set', id, to: this.#rules.queue }, [command])
  }

  /** A topic's timer: its renewal is due, its answer overdue, or its pause over. */
  timer(topic: string, now: number, entropy: Entropy, out: Effect[]): void {
    const subscription = this.#byTopic.get(topic)
    if (subscription === undefined || this.#mode === undefined || this.#leaving) return
    if (subscription.phase === 'asked') {
      const text = `${this.#rules.queue} did not answer the subscription to '${topic}' in time.`
      this.#failed(subscription, new XmqError('timeout', text), now, entropy, out)
      return
    }
    this.#ask(subscription, this.#mode, now, entropy, out)
  }

  /**
   * An IQ answer from the queue.
   * @returns `undefined` when it answers none of these, else whether the mode is in doubt now
   */
  answered(
    id: string,
    iq: XmlElement,
    explain: (error: XmqError) => XmqError,
    now: number,
    entropy: Entropy,
    out: Effect[],
  ): { modeDoubted: boolean } | undefined {
    const subscription = this.#byAsk.get(id)
    if (subscription === undefined) return undefined
    this.#byAsk.delete(id)
    const { topic } = subscription
    if (subscription.phase === 'leaving') {
      this.#left(subscription, out)
      return { modeDoubted: false }
    }
    if (iq.attrs.get('type') === 'error') {
      const error = explain(decodeError(iq))
      this.#failed(subscription, error, now, entropy, out)
      // A queue that asks for a topic here does not know `xmq:command`: it is a mod_xmq, or became one.
      return { modeDoubted: this.#mode === 'plain' && error.code === 'topic-required' }
    }
    // mod_xmq never answers a `sub`: a broker took its place.
    if (this.#mode === 'mod_xmq') return { modeDoubted: true }
    subscription.phase = 'held'
    subscription.failures = 0
    if (this.#mode === 'reliable') {
      this.#timers.delete(subscriptionTimer(topic))
      if (this.#renewId === '') this.#timers.set(RENEW_TIMER, now + this.#renewMs)
    } else {
      this.#timers.set(subscriptionTimer(topic), now + this.#renewMs)
    }
    out.push({ type: 'event', event: { name: 'subscribed', topic, renewal: subscription.wasHeld } })
    subscription.wasHeld = true
    return { modeDoubted: false }
  }

  #failed(subscription: Subscription, error: XmqError, now: number, entropy: Entropy, out: Effect[]): void {
    subscription.phase = 'wanted'
    const ceiling = Math.min(RETRY_MAX_MS, RETRY_BASE_MS * 2 ** Math.min(subscription.failures, 10))
    subscription.failures++
    // Half of the pause is fixed: a queue that refuses at once must not be asked in a tight loop.
    const pause = Math.max((ceiling / 2) * (1 + entropy.unit()), (error.retryAfterSeconds ?? 0) * 1000)
    const retryAt = now + Math.min(pause, 60_000)
    this.#timers.set(subscriptionTimer(subscription.topic), retryAt)
    out.push({ type: 'event', event: { name: 'subscription-failed', topic: subscription.topic, error, retryAt } })
  }

  /** The worker's load changed, or the timer `load` came. */
  setLoad(load: number, now: number, entropy: Entropy, out: Effect[]): void {
    this.#reports.load = load
    if (this.#mode === undefined || this.#leaving) return
    const due = this.#reports.due(now)
    if (due === undefined) {
      this.#timers.delete('load')
      return
    }
    if (due > now) {
      this.#timers.set('load', due)
      return
    }
    this.#timers.delete('load')
    this.#reports.reported(now)
    if (this.#mode === 'reliable' && this.#heldCount > 0) this.#renew(now, entropy, out)
    else this.#askKnown(this.#mode, now, entropy, out)
    out.push({ type: 'event', event: { name: 'load', load } })
  }

  #askKnown(mode: Mode, now: number, entropy: Entropy, out: Effect[]): void {
    for (const subscription of this.#byTopic.values()) {
      if (subscription.phase === 'held' || subscription.phase === 'asked') {
        this.#ask(subscription, mode, now, entropy, out)
      }
    }
  }

  /** The timer `load`. */
  loadDue(now: number, entropy: Entropy, out: Effect[]): void {
    this.setLoad(this.#reports.load, now, entropy, out)
  }

  /**
   * Reports load 100 and leaves every topic: with `del`, or with a ttl of a second where the queue is a mod_xmq, whose `del`
   * never works.
   */
  leave(now: number, entropy: Entropy, out: Effect[]): void {
    this.#leaving = true
    this.#timers.delete('load')
    if (this.#mode === 'reliable' && this.#byTopic.size > 0) this.#renew(now, entropy, out, 100)
    this.#endRenewal()
    for (const subscription of this.#byTopic.values()) {
      this.#timers.delete(subscriptionTimer(subscription.topic))
      const known = subscription.phase === 'held' || subscription.phase === 'asked'
      if (!known || this.#mode === undefined) {
        this.#left(subscription, out)
        continue
      }
      if (this.#mode === 'mod_xmq') {
        this.#command(subscription, { ttlSeconds: 1, load: 100 }, entropy, out)
        this.#left(subscription, out)
        continue
      }
      if (this.#mode === 'plain') {
        this.#command(subscription, { ttlSeconds: this.#rules.ttlSeconds, load: 100 }, entropy, out)
      }
      this.#byAsk.delete(subscription.askId)
      subscription.askId = entropy.id()
      this.#byAsk.set(subscription.askId, subscription)
      subscription.phase = 'leaving'
      const del = encodeCommand({ command: 'del', topic: subscription.topic })
      out.push({ type: 'send', stanza: this.#iq(subscription.askId, del) })
    }
  }

  /** Whether every topic was left. */
  get allLeft(): boolean {
    for (const subscription of this.#byTopic.values()) if (subscription.phase !== 'left') return false
    return true
  }

  #left(subscription: Subscription, out: Effect[]): void {
    subscription.phase = 'left'
    this.#byAsk.delete(subscription.askId)
    out.push({ type: 'event', event: { name: 'unsubscribed', topic: subscription.topic } })
  }
}

function knownSubscriptions(iq: XmlElement): number {
  const root = findChild(iq, 'renewed', NS_QUEUE)
  try {
    return root === undefined ? 0 : decodeRenewed(root).subscriptions
  } catch {
    return 0
  }
}
