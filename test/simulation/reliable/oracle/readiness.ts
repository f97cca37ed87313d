/**
 * Which messages of a line wait to be claimed, by what the store has done.
 *
 *     stored, made ready, given back at once --> ready --leased, ended--> not
 *     stored or given back for later ----------> due then, not ready until the store has made it so
 *
 * 1. What is leased has no ready message above it, of the topics that were asked for. One with a key may wait for another of it: only
 *    those without are judged to be overtaken.
 * 2. Nothing is leased before it is due.
 *
 * Owner: the backlog of the line.
 */
import type { ClaimRequest, PublishOp, StoreOp } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'

interface Place {
  readonly topic: string
  readonly key: string | undefined
  readonly priority: number
  expiresAt: number | undefined
}

/** See the top of this file. */
export class Readiness {
  readonly #places = new Map<number, Place>()
  readonly #ready = new Set<number>()
  readonly #dueAt = new Map<number, number>()

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
  claimed(
    { topics }: ClaimRequest,
    claimed: readonly { readonly seq: number; readonly priority: number }[],
    now: number,
  ): number {
    let passed = 0
    for (const { seq, priority } of claimed) {
      const dueAt = this.#dueAt.get(seq) ?? 0
      if (dueAt > now) throw new Violation(`${seq} is leased ${dueAt - now} ms before it is due`)
      this.ended(seq)
      passed += this.#checkFirst({ seq, topics, priority }, now)
    }
    return passed
  }

  #checkFirst(first: { seq: number; topics: readonly string[] | undefined; priority: number }, now: number): number {
    let passed = 0
    for (const seq of this.#ready) {
      const { topic, key, priority, expiresAt } = this.#places.get(seq) as Place
      if (key !== undefined || first.topics?.includes(topic) === false) continue
      if (expiresAt !== undefined && expiresAt <= now) continue
      if (priority > first.priority)
        throw new Violation(`${first.seq} is leased before ${seq}, which has priority ${priority}`)
      if (priority < first.priority) passed++
    }
    return passed
  }
}
