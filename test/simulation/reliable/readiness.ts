/**
 * Which messages wait to be claimed, and when those that failed may be, by what the store has done.
 *
 *     stored, made ready, given back at once --> ready --leased, ended--> not
 *     stored or given back for later ----------> due then, not ready until the store has made it so
 *
 * 1. What is leased has no ready message above it, of the topics that were asked for. One with a key may wait for another of it: only
 *    those without are judged to be overtaken.
 * 2. Nothing is leased before it is due.
 * 3. A worker's nack waits for as long as it asked for. Without a delay it waits for part of a bound that doubles with each failure,
 *    and not for nothing each time.
 */
import type { ReliableRules } from '../../../packages/broker/src/core/port.ts'
import type { ClaimAnswer, ClaimRequest, NackOp, PublishOp, StoreOp } from '../../../packages/broker/src/store/port.ts'
import { Violation } from '../violation.ts'

/** Of a millisecond among hundreds: so many waits of nothing in a row are no chance. */
const NO_WAITS_MAX = 5

interface Place {
  readonly topic: string
  readonly key: string | undefined
  readonly priority: number
  expiresAt: number | undefined
}

/** See the top of this file. */
export class Readiness {
  readonly #rules: ReliableRules
  readonly #places = new Map<number, Place>()
  readonly #ready = new Set<number>()
  readonly #dueAt = new Map<number, number>()
  /** Of each holder and token: the delays that it asked for, in ms; `undefined`: it did not say. */
  readonly #delays = new Map<string, Set<number | undefined>>()
  #noWaits = 0

  constructor(rules: ReliableRules) {
    this.#rules = rules
  }

  /** The store is lost. */
  clear(): void {
    this.#places.clear()
    this.#ready.clear()
    this.#dueAt.clear()
  }

  /** A nack arrived. @param delay seconds, as it was written */
  nacked(holder: string, token: string, delay: string | undefined): void {
    const name = `${holder} ${token}`
    const delays = this.#delays.get(name) ?? new Set()
    this.#delays.set(name, delays.add(delay === undefined ? undefined : Number(delay) * 1000))
  }

  /** A nack leaves the core: a worker's (it names the holder), or the core's own, which may be one that it repeats. */
  checkNack({ seq, token, holder, at, failures }: NackOp, now: number): void {
    const waitMs = (at ?? now) - now
    const { backoffMs, backoffMaxMs } = this.#rules
    const bound = Math.min(backoffMaxMs, backoffMs * 2 ** (failures - 1))
    const delays = holder === undefined ? undefined : this.#delays.get(`${holder} ${token}`)
    if (delays?.has(waitMs) === true) return
    if (delays !== undefined && !delays.has(undefined)) {
      throw new Violation(`${seq} waits for ${waitMs} ms, not for ${[...delays].join(' or ')}`)
    }
    if (waitMs > bound) throw new Violation(`${seq} waits for ${waitMs} ms after ${failures} failures`)
    if (delays === undefined) return
    this.#noWaits = waitMs === 0 ? this.#noWaits + 1 : 0
    if (waitMs < 0 || this.#noWaits > NO_WAITS_MAX) throw new Violation(`${seq} does not wait after a failure`)
  }

  /** A message is stored. @param isLeased with its publish */
  stored(seq: number, op: PublishOp, isLeased: boolean, now: number): void {
    const { topic, key, priority, expiresAt, delayUntil } = op
    if (isLeased && key === undefined) this.#checkFirst({ seq, topics: [topic], priority: priority - 1 }, now)
    this.#places.set(seq, { topic, key, priority, expiresAt })
    if (delayUntil !== undefined) this.#dueAt.set(seq, delayUntil)
    else if (!isLeased) this.#ready.add(seq)
  }

  /** It was dropped, or ended. */
  ended(seq: number): void {
    this.#ready.delete(seq)
    this.#dueAt.delete(seq)
  }

  /** An operation on an entry was done. @param storeNow what the store took for the time */
  done(op: Exclude<StoreOp, PublishOp> & { readonly seq: number }, storeNow: number): void {
    const { type, seq } = op
    if (type === 'received') return
    this.ended(seq)
    if ((type === 'nack' || type === 'release') && op.at !== undefined && op.at > storeNow) this.#dueAt.set(seq, op.at)
    else if (type === 'nack' || type === 'release' || type === 'ready') this.#ready.add(seq)
    else if (type === 'replay') {
      const place = this.#places.get(seq)
      if (place !== undefined) place.expiresAt = undefined
      this.#ready.add(seq)
    }
  }

  /** A claim was done. @returns how many ready messages of another priority were passed over rightly */
  claimed({ topics = [] }: ClaimRequest, answer: Extract<ClaimAnswer, { status: 'ok' }>, now: number): number {
    let passed = 0
    for (const { seq, priority } of answer.messages) {
      const dueAt = this.#dueAt.get(seq) ?? 0
      if (dueAt > now) throw new Violation(`${seq} is leased ${dueAt - now} ms before it is due`)
      this.ended(seq)
      passed += this.#checkFirst({ seq, topics, priority }, now)
    }
    return passed
  }

  #checkFirst(first: { seq: number; topics: readonly string[]; priority: number }, now: number): number {
    let passed = 0
    for (const seq of this.#ready) {
      const { topic, key, priority, expiresAt } = this.#places.get(seq) as Place
      if (key !== undefined || !first.topics.includes(topic)) continue
      if (expiresAt !== undefined && expiresAt <= now) continue
      if (priority > first.priority)
        throw new Violation(`${first.seq} is leased before ${seq}, which has priority ${priority}`)
      if (priority < first.priority) passed++
    }
    return passed
  }
}
