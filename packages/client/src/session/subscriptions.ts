/**
 * The topics that a worker wants, and what the queue knows of them. Owner: one session.
 *
 *     wanted --ready--> asked --result--> held --ttl/3--> asked        (plain)
 *                       asked --error, no answer--> wanted, asked again after a pause
 *     wanted --ready--> held --ttl/3--> held                           (mod_xmq: it never answers)
 *     held, asked --leave--> leaving --answer--> left
 *
 * Invariants:
 * 1. Directed presence goes to the queue before the first `sub` of a connection (plain), so that the end of the session
 *    reaches the broker at once.
 * 2. A topic has at most one `sub` whose answer counts: the last.
 * 3. Nothing is sent without a connection and a known mode.
 * 4. After `leave` no `sub` renews anything.
 */
import { decodeError, encodeCommand, stanza, type XmlElement, XmqError } from '@xmq/protocol'
import { LoadReports } from './load.ts'
import type { Effect, Entropy, Mode, SessionRules } from './port.ts'
import type { Timers } from './timers.ts'

interface Subscription {
  readonly topic: string
  phase: 'wanted' | 'asked' | 'held' | 'leaving' | 'left'
  /** The id of the `sub` or `del` whose answer counts. */
  askId: string
  failures: number
  wasHeld: boolean
}

const RETRY_BASE_MS = 500
const RETRY_MAX_MS = 5000

/** The timer of a topic. */
export function subscriptionTimer(topic: string): string {
  return `sub:${topic}`
}

/** Keeps the topics of a worker subscribed. */
export class Subscriptions {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  readonly #byTopic = new Map<string, Subscription>()
  readonly #byAsk = new Map<string, Subscription>()
  readonly #reports = new LoadReports()
  #mode: Mode | undefined
  #presenceSent = false
  #leaving = false

  constructor(rules: SessionRules, timers: Timers<string | number>) {
    this.#rules = rules
    this.#timers = timers
  }

  get size(): number {
    return this.#byTopic.size
  }

  get presenceSent(): boolean {
    return this.#presenceSent
  }

  has(topic: string): boolean {
    return this.#byTopic.has(topic)
  }

  want(topic: string, now: number, entropy: Entropy, out: Effect[]): void {
    if (this.#byTopic.has(topic) || this.#leaving) return
    const subscription: Subscription = { topic, phase: 'wanted', askId: '', failures: 0, wasHeld: false }
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
  }

  #greet(out: Effect[]): void {
    if (this.#presenceSent || this.#mode !== 'plain') return
    this.#presenceSent = true
    out.push({ type: 'send', stanza: stanza('presence', { to: this.#rules.queue }) })
  }

  #ask(subscription: Subscription, mode: Mode, now: number, entropy: Entropy, out: Effect[]): void {
    const { topic } = subscription
    this.#command(subscription, { ttlSeconds: this.#rules.ttlSeconds, load: this.#reports.load }, entropy, out)
    if (mode === 'plain') {
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
    this.#byAsk.set(subscription.askId, subscription)
    const command = encodeCommand({ command: 'sub', topic: subscription.topic, ttlSeconds, load })
    out.push({ type: 'send', stanza: this.#iq(subscription.askId, command) })
  }

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
    this.#timers.set(subscriptionTimer(topic), now + this.#renewMs)
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
    for (const subscription of this.#byTopic.values()) {
      if (subscription.phase === 'held' || subscription.phase === 'asked') {
        this.#ask(subscription, this.#mode, now, entropy, out)
      }
    }
    out.push({ type: 'event', event: { name: 'load', load } })
  }

  /** The timer `load`. */
  loadDue(now: number, entropy: Entropy, out: Effect[]): void {
    this.setLoad(this.#reports.load, now, entropy, out)
  }

  /**
   * Reports load 100 and leaves every topic: with `del`, or with a ttl of a second where the queue is a mod_xmq, whose `del`
   * never works.
   */
  leave(entropy: Entropy, out: Effect[]): void {
    this.#leaving = true
    this.#timers.delete('load')
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
      this.#command(subscription, { ttlSeconds: this.#rules.ttlSeconds, load: 100 }, entropy, out)
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
