/**
 * What ephemeral reliable subscribers of an `all` queue get: in memory, while they listen. One life of the broker.
 *
 *     stored, somebody listens --> expected --delivered--> out --ack, reject--> over
 *                                     |                     '--nack, release--> may come again, as may what was perhaps never
 *                                     |                                           received: its stream was down, or it has its time
 *                                     '-- its subscription ends --> nothing
 *
 * 1. Whoever listens when a message is stored is given it, unless there is no room or it ends before.
 * 2. What is given was stored, and is meant by a subscription without a name.
 * 3. It comes again only after it was given back, or perhaps never received; and not after its last attempt.
 */
import { bareOf, matchesPattern, type XmlElement } from '@xmq/protocol'
import type { CoreEvent } from '../../../../packages/broker/src/core/port.ts'
import { Violation } from '../../violation.ts'
import { itemIdOf } from '../items.ts'
import { DELIVERIES_MAX, type Knowledge, type Stored } from './entry.ts'
import type { Settlement } from './settlings.ts'

/** Buffers that hold fewer drop something now and then. */
const ROOMY = 100

interface Out {
  readonly jid: string
  readonly place: string
  readonly at: number
  isReceived: boolean
  /** The stream was down since, and nobody had said that it is received. */
  isLost: boolean
}

interface Course {
  attempt: number
  /** At least, */
  failuresMin: number
  /** and at most. */
  failures: number
  isBack: boolean
}

/** See the top of this file. */
export class Ephemerals {
  readonly #knowledge: Knowledge
  /** By token. */
  readonly #out = new Map<string, Out>()
  /** Tokens settled in a batch that waits, with their places: what is said meanwhile may be done first, and count instead. */
  readonly #waiting = new Map<string, string>()
  /** Deliveries that nobody has answered. */
  readonly #handed = new Map<string, { readonly jid: string; readonly tokens: readonly string[] }>()
  /** Who was given each: bare JIDs. */
  readonly #ever = new Map<string, string>()
  /** By full JID and seq. */
  readonly #courses = new Map<string, Course>()
  readonly #expected = new Set<string>()
  /** Of each full JID: what it listens to, by the core's word. */
  readonly #listening = new Map<string, Set<string>>()

  constructor(knowledge: Knowledge) {
    this.#knowledge = knowledge
  }

  /** Whether a token was given to an ephemeral subscriber. */
  has(token: string): boolean {
    return this.#ever.has(token)
  }

  /** Whether nobody has settled a token. */
  isOpen(token: string): boolean {
    return this.#out.has(token)
  }

  /** To whom a token was given: a bare JID. */
  holder(token: string): string | undefined {
    return this.#ever.get(token)
  }

  /** Whether somebody waits for a message. */
  get isWaiting(): boolean {
    return this.#expected.size > 0
  }

  /** How many of them nobody has settled. */
  get open(): number {
    return this.#out.size
  }

  /** The core tells something. @param isEphemeral whether a subscription is one for sure */
  told(event: CoreEvent, isEphemeral: (jid: string, topic: string) => boolean): void {
    if (event.name === 'subscribed') {
      const { consumer, topic } = event
      const topics = this.#listening.get(consumer) ?? new Set()
      this.#listening.set(consumer, topics)
      if (isEphemeral(consumer, topic)) topics.add(topic)
      else topics.delete(topic)
    }
    if (event.name !== 'unsubscribed') return
    const topics = this.#listening.get(event.consumer)
    topics?.delete(event.topic)
    if (topics === undefined || topics.size > 0) return
    for (const place of this.#expected) if (place.startsWith(`${event.consumer} `)) this.#expected.delete(place)
  }

  /** The core hears that a message is stored, and tells who listens. */
  stored({ seq, sent }: Stored): void {
    const { type, reliable } = this.#knowledge
    if (type === 'any' || sent.delayMs > 0 || reliable.ephemeralMax < ROOMY) return
    for (const [jid, topics] of this.#listening) {
      const place = `${jid} ${seq}`
      if (this.#courses.has(place)) continue
      for (const topic of topics) if (matchesPattern(topic, sent.topic)) this.#expected.add(place)
    }
  }

  /** A stanza with deliveries has left. */
  handedOver(id: string, jid: string, tokens: readonly string[]): void {
    if (tokens.length > 0) this.#handed.set(id, { jid, tokens })
  }

  /** An answer arrives. One that comes too late is none. */
  receipt(from: string, id: string, now: number): void {
    const handed = this.#handed.get(id)
    if (handed?.jid !== from) return
    this.#handed.delete(id)
    for (const token of handed.tokens) {
      const out = this.#out.get(token)
      if (out !== undefined && !this.#isLost(out, now)) out.isReceived = true
    }
  }

  /** Answers over the stream are lost. */
  linkDown(): void {
    this.#handed.clear()
    for (const out of this.#out.values()) if (!out.isReceived) out.isLost = true
  }

  #isLost({ isReceived, isLost, at }: Out, now: number): boolean {
    return isLost || (!isReceived && now - at >= this.#knowledge.reliable.leaseMs)
  }

  /** A message is on its way to a subscriber. */
  delivered(to: string, token: string, item: XmlElement, { seq, sent }: Stored, now: number): void {
    if (this.#ever.has(token)) throw new Violation(`${token} is delivered twice`)
    this.#ever.set(token, bareOf(to))
    const place = `${to} ${seq}`
    const course = this.#courses.get(place) ?? { attempt: 0, failuresMin: 0, failures: 0, isBack: true }
    this.#takeBack(place, course, now)
    if (!course.isBack) throw new Violation(`${seq} is delivered to ${to} again, who has not given it back`)
    course.isBack = false
    course.attempt++
    this.#courses.set(place, course)
    const { attrs } = item
    if (attrs.get('attempt') !== String(course.attempt)) throw new Violation(`${seq} has a wrong attempt for ${to}`)
    const failures = Number(attrs.get('failures') ?? 0)
    if (failures > course.failures || failures < course.failuresMin)
      throw new Violation(`${seq} has wrong failures for ${to}`)
    course.failures = failures
    course.failuresMin = failures
    if (course.failures >= this.#knowledge.reliable.maxAttempts || course.attempt > DELIVERIES_MAX)
      throw new Violation(`${seq} is delivered to ${to} after its last attempt`)
    if (attrs.get('id') !== itemIdOf(sent) || attrs.get('topic') !== sent.topic)
      throw new Violation(`${seq} is delivered to ${to} as something else`)
    this.#expected.delete(place)
    this.#out.set(token, { jid: to, place, at: now, isReceived: false, isLost: false })
    this.#knowledge.note(course.attempt > 1 ? 'ephemeral again' : 'ephemeral')
  }

  /** What may never have been received counts as given back. */
  #takeBack(place: string, course: Course, now: number): void {
    if (course.isBack) return
    for (const [token, out] of this.#out) {
      if (out.place !== place || !this.#isLost(out, now)) continue
      course.isBack = true
      this.#out.delete(token)
      this.#knowledge.note('ephemeral lost')
    }
  }

  /** Somebody says something of a lease. @param isSure it is done at once @returns whether it is over with it */
  settled(from: string, { kind, token }: Settlement, isSure: boolean, now: number): boolean {
    const out = this.#out.get(token)
    if (out === undefined) {
      this.#settledMeanwhile(from, kind, token)
      return false
    }
    if (bareOf(out.jid) !== bareOf(from) || kind === 'extend') return false
    if (this.#isLost(out, now)) return false
    this.#out.delete(token)
    if (!isSure) this.#waiting.set(token, out.place)
    const course = this.#courses.get(out.place) as Course
    course.isBack = kind === 'nack' || kind === 'release'
    if (kind === 'nack') course.failures++
    if (kind === 'nack' && isSure) course.failuresMin++
    return true
  }

  #settledMeanwhile(from: string, kind: string, token: string): void {
    const place = this.#waiting.get(token)
    if (place === undefined || this.#ever.get(token) !== bareOf(from)) return
    const course = this.#courses.get(place) as Course
    course.isBack ||= kind === 'nack' || kind === 'release'
    if (kind === 'nack') course.failures++
  }

  /**
   * Tokens that a session may have no more: it may have ended since, or never received them.
   * @param endedAt when it may have ended last
   */
  *gone(jid: string, endedAt: number, now: number): Generator<string> {
    for (const [token, out] of this.#out)
      if (out.jid === jid && (out.at <= endedAt || this.#isLost(out, now))) yield token
  }

  /** The faults have stopped, and all had its time. */
  checkEnd(): void {
    for (const place of this.#expected) throw new Violation(`${place} was never delivered`)
  }
}
