/**
 * The durable subscriptions of an `all` queue: who asked for them, and what is promised of each.
 *
 *     sub with a name --> made, joined --its answer--> promised --a forget arrives--> not any more --its answer--> nothing of it comes
 *
 * 1. A line is made for a sub with that name and topic, and ended for a forget, of its owner in both cases.
 * 2. A publish goes to each promised line that means its topic, over all lives of a broker whose store is kept, and to none that
 *    does not.
 * 3. A forget is answered when the store has done it. From when the core knows, nothing of the line is delivered.
 */
import { bareOf, childElements, matchesPattern, type XmlElement } from '@xmq/protocol'
import type { PublishOp, StoreOp } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import type { Backlog } from './backlog.ts'
import type { Entry, Knowledge } from './entry.ts'
import { isLine, type Stock } from './stock.ts'

interface Asked {
  readonly line: string
  readonly filter: string
  /** How many forgets of the line had arrived before. */
  readonly forgets: number
}

/** See the top of this file. */
export class Named {
  readonly #knowledge: Knowledge
  readonly #stock: Stock
  /** The topic of each line that is promised. */
  readonly #promised = new Map<string, string>()
  /** Ended by the store, and the core has not heard of it. */
  readonly #ended = new Map<string, Backlog[]>()
  // Of one life of the broker:
  #subs = new Map<string, Asked>()
  #filters = new Map<string, Set<string>>()
  #forgets = new Map<string, number>()
  #asked = new Map<string, { readonly line: string; readonly was: Backlog | undefined }>()

  constructor(knowledge: Knowledge, stock: Stock) {
    this.#knowledge = knowledge
    this.#stock = stock
  }

  /** The broker was killed. @param keeps whether the store survived it */
  crash(keeps: boolean): void {
    this.#subs = new Map()
    this.#filters = new Map()
    this.#forgets = new Map()
    this.#asked = new Map()
    // Whoever is served from now on was loaded after it.
    for (const lines of this.#ended.values()) for (const line of lines) line.isOver = true
    this.#ended.clear()
    if (!keeps) this.#promised.clear()
  }

  /** The store has ended a line. */
  ended(line: Backlog): void {
    const others = this.#ended.get(line.id)
    if (others === undefined) this.#ended.set(line.id, [line])
    else others.push(line)
  }

  /** A command arrives. */
  command(from: string, id: string, xmq: XmlElement): void {
    const name = childElements(xmq)
      .find((child) => child.name === 'consume')
      ?.attrs.get('name')
    if (xmq.attrs.get('command') !== 'sub' || name === undefined) return
    const line = `${bareOf(from)}/${name}`
    const filter = xmq.attrs.get('topic') ?? ''
    this.#subs.set(`${from} ${id}`, { line, filter, forgets: this.#forgets.get(line) ?? 0 })
    const filters = this.#filters.get(line) ?? new Set()
    this.#filters.set(line, filters.add(filter))
  }

  /** A forget arrives. */
  forget(from: string, id: string, forget: XmlElement): void {
    const line = `${bareOf(from)}/${forget.attrs.get('name') ?? ''}`
    this.#forgets.set(line, (this.#forgets.get(line) ?? 0) + 1)
    this.#asked.set(`${from} ${id}`, { line, was: this.#stock.line(line) })
    this.#promised.delete(line)
  }

  /** The core hears that something was done. @returns the last tokens of what has ended with its line */
  told(op: StoreOp): readonly string[] {
    if (op.type !== 'delete-subscription' || !isLine(op.subscription)) return []
    const tokens: string[] = []
    for (const line of this.#ended.get(op.subscription) ?? []) {
      line.isOver = true
      for (const { token } of line.entries) if (token !== undefined) tokens.push(token)
    }
    this.#ended.delete(op.subscription)
    return tokens
  }

  /** The core asks the store for something. */
  check(op: StoreOp): void {
    if (op.type === 'publish') this.#checkTargets(op)
    else if (op.type === 'create-subscription' && isLine(op.subscription)) {
      const [, , , filter] = JSON.parse(op.meta) as readonly string[]
      if (this.#filters.get(op.subscription)?.has(filter ?? '') !== true)
        throw new Violation(`${op.subscription} to ${filter} is made for nobody`)
    } else if (op.type === 'delete-subscription' && isLine(op.subscription)) {
      if (!this.#forgets.has(op.subscription)) throw new Violation(`${op.subscription} is ended, and nobody forgot it`)
    }
  }

  #checkTargets({ topic, id, targets }: PublishOp): void {
    if (this.#knowledge.type === 'any') return
    const given = new Set(targets.map(({ subscription }) => subscription))
    for (const [line, filter] of this.#promised) {
      const isMeant = matchesPattern(filter, topic)
      if (isMeant && !given.has(line)) throw new Violation(`${id} of ${topic} is not stored for ${line} to ${filter}`)
      if (!isMeant && given.has(line)) throw new Violation(`${id} of ${topic} is stored for ${line} to ${filter}`)
      if (isMeant) this.#knowledge.note('stored for a subscription')
    }
  }

  /** A result leaves. */
  answered(to: string, id: string): void {
    const sub = this.#subs.get(`${to} ${id}`)
    this.#subs.delete(`${to} ${id}`)
    if (sub !== undefined && sub.forgets === (this.#forgets.get(sub.line) ?? 0)) {
      if (this.#stock.line(sub.line) === undefined) throw new Violation(`${sub.line} is joined, and is not there`)
      this.#promised.set(sub.line, sub.filter)
      this.#knowledge.note('durable sub')
    }
    const forgotten = this.#asked.get(`${to} ${id}`)
    if (forgotten === undefined) return
    this.#asked.delete(`${to} ${id}`)
    const { line, was } = forgotten
    if (this.#ended.has(line)) throw new Violation(`${line} is said to be forgotten, and the core does not know`)
    if (was !== undefined && this.#stock.line(line) === was)
      throw new Violation(`${line} is said to be forgotten, and is there`)
    this.#knowledge.note('forgotten')
  }

  /** Something of a line is on its way to a consumer. */
  delivered({ seq, line, isOver }: Entry, to: string): void {
    if (isOver()) throw new Violation(`${seq} of ${line}, which is forgotten, is delivered to ${to}`)
  }
}
