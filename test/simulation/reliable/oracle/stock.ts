/**
 * What is in the store, by what it has done: messages, and the lines that they wait in.
 *
 *     sent --publish--> stored: a seq, and an entry in each line --its id's window over, and all entries gone--> its id is free
 *
 * 1. What is stored was sent, as it was sent, and once.
 * 2. A seq is higher than all before it.
 * 3. A message enters each line that its publish names and that is there; lines come and go by the store's word.
 */
import { bareOf } from '@xmq/protocol'
import type { PublishOp, StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import { itemIdOf, type SentItem } from '../items.ts'
import { Backlog } from './backlog.ts'
import { type Entry, type Knowledge, type Made, nameOf, nameOfPublish, type Stored } from './entry.ts'

/** What the stock needs of the oracle. */
export interface StockHost {
  /** A lease was made with a publish. */
  readonly onLeased: (entry: Entry, made: Made, now: number) => void
  /** A line was ended. */
  readonly onEnded: (line: Backlog) => void
  /** An id is another message's from now on. */
  readonly onForgotten: (name: string, stored: Stored) => void
  /** An item is stored for the first time, in whatever life of the broker. */
  readonly onStored: (item: SentItem) => void
}

type PublishOk = Extract<StoreResult, { readonly type: 'publish' }>

/** See the top of this file. */
export class Stock {
  readonly #knowledge: Knowledge
  readonly #host: StockHost
  readonly #sent = new Map<string, SentItem>()
  /** Names, and names with their seqs. */
  readonly #everStored = new Set<string>()
  readonly #byPayload = new Map<string, SentItem>()
  /** Of plain messages: how often each has come and was not stored. */
  readonly #arrivals = new Map<string, number>()
  #lines = new Map<string, Backlog>()
  #messages = new Map<number, Stored>()
  #byId = new Map<string, Stored>()
  #lastSeq = 0
  #replays = 0

  constructor(knowledge: Knowledge, host: StockHost) {
    this.#knowledge = knowledge
    this.#host = host
    this.#begin()
  }

  #begin(): void {
    this.#lines = new Map()
    if (this.#knowledge.type === 'any') this.#lines.set('', new Backlog('', '>', this.#knowledge))
    this.#messages = new Map()
    this.#byId = new Map()
    this.#lastSeq = 0
  }

  /** The store is lost. */
  lose(): void {
    this.#begin()
  }

  /** A producer is about to send this. */
  send(item: SentItem): void {
    this.#sent.set(nameOf(item.sender, item.id), item)
    this.#byPayload.set(item.payload, item)
  }

  /** A plain message arrives. @param from whoever sent it @returns whether it was sent */
  arrived(from: string, payload: string): boolean {
    const name = nameOf(bareOf(from), payload)
    this.#arrivals.set(name, (this.#arrivals.get(name) ?? 0) + 1)
    return this.#sent.has(name)
  }

  /** What was sent with a content that nothing else has. */
  withPayload(payload: string): SentItem | undefined {
    return this.#byPayload.get(payload)
  }

  /** Whether an item was ever stored under a seq, in whatever life of the broker. */
  wasStored({ sender, id }: SentItem, seq: number): boolean {
    return this.#everStored.has(`${nameOf(sender, id)} ${seq}`)
  }

  message(seq: number): Stored | undefined {
    return this.#messages.get(seq)
  }

  line(id: string): Backlog | undefined {
    return this.#lines.get(id)
  }

  /** What the store calls the lines that are there, each with its topic. */
  get lines(): ReadonlyMap<string, string> {
    return new Map([...this.#lines].map(([id, { filter }]) => [id, filter]))
  }

  find(line: string, seq: number): Entry | undefined {
    return this.#lines.get(line)?.find(seq)
  }

  /** An operation was done, which is no publish. @param askedAt what the store took for the time */
  done(op: Exclude<StoreOp, PublishOp>, result: StoreResult, askedAt: number, now: number): void {
    if (result.status !== 'ok') return
    if (isLine(op.subscription)) this.#comeOrGo(op, result)
    if (op.type === 'purge' && result.type === 'purge') this.#lines.get(op.subscription)?.purged(op, result.count)
    if (!('seq' in op)) return
    const entry = this.find(op.subscription, op.seq)
    if (entry === undefined) {
      // A repeated ack of what is forgotten is one still.
      if (op.type !== 'ack') throw new Violation(`${op.type} of ${op.seq}, which was never stored, was done`)
      return
    }
    const order = (): number => this.#lastSeq + ++this.#replays / 1e6
    this.#lines.get(op.subscription)?.done(op, entry, result, { now, askedAt, order })
  }

  #comeOrGo(op: Exclude<StoreOp, PublishOp>, result: StoreResult): void {
    const { type, subscription } = op
    const known = this.#lines.get(subscription)
    if (type === 'create-subscription') {
      const isNew = result.status === 'ok' && result.type === 'create-subscription' && result.created
      if (isNew !== (known === undefined)) throw new Violation(`${subscription} is made as if it were not there`)
      const [, , , filter = ''] = JSON.parse(op.meta) as readonly string[]
      if (known === undefined) this.#lines.set(subscription, new Backlog(subscription, filter, this.#knowledge))
    }
    if (type !== 'delete-subscription') return
    if (known === undefined) throw new Violation(`${subscription} is ended, and was not there`)
    known.end()
    this.#lines.delete(subscription)
    this.#host.onEnded(known)
  }

  /** A publish was done. @param askedAt what the store took for the time */
  published(op: PublishOp, result: StoreResult, askedAt: number, now: number): void {
    const name = nameOfPublish(op)
    const sent = this.#checkSent(op, name)
    if (result.status === 'conflict') throw new Violation(`${name} is a conflict with itself`)
    if (result.status === 'full') this.#lines.get(result.subscription)?.full()
    const known = this.#byId.get(name)
    if (result.status === 'duplicate') {
      this.#knowledge.note('duplicate')
      if (known?.seq !== result.seq)
        throw new Violation(`${name} is a duplicate of ${result.seq}, not of ${known?.seq}`)
    }
    if (result.status !== 'ok' || result.type !== 'publish') return
    const { seq } = result
    if (known !== undefined) this.#storedAgain(name, known, seq, askedAt)
    if (seq <= this.#lastSeq) throw new Violation(`seq ${seq} came after ${this.#lastSeq}`)
    this.#lastSeq = seq
    const stored: Stored = { seq, sent, storedAt: askedAt, entries: [] }
    this.#messages.set(seq, stored)
    if (op.id === undefined) this.#storedPlain(name)
    else this.#byId.set(name, stored)
    this.#enter(stored, op, result, now)
    this.#everStored.add(`${name} ${seq}`)
    if (this.#everStored.has(name)) return
    this.#everStored.add(name)
    this.#host.onStored(sent)
  }

  #checkSent(op: PublishOp, name: string): SentItem {
    const sent = this.#sent.get(name)
    if (sent === undefined) throw new Violation(`${name} was stored, but never sent`)
    const { topic, key, priority, payload, delayMs, ttlMs } = sent
    if (
      op.id !== itemIdOf(sent) ||
      op.topic !== topic ||
      op.key !== key ||
      op.priority !== priority ||
      !op.body.includes(`>${payload}<`)
    )
      throw new Violation(`${name} was stored as something else: ${JSON.stringify({ ...op, sent })}`)
    if (delayMs > 0 !== (op.delayUntil !== undefined) || (ttlMs !== undefined) !== (op.expiresAt !== undefined))
      throw new Violation(`${name} was stored without its times`)
    return sent
  }

  /** A plain message is stored once each time that it has arrived. */
  #storedPlain(name: string): void {
    const left = (this.#arrivals.get(name) ?? 0) - 1
    if (left < 0) throw new Violation(`${name} is stored more often than it came`)
    this.#arrivals.set(name, left)
    this.#knowledge.note('plain stored')
  }

  /** A message enters its lines. */
  #enter(stored: Stored, op: PublishOp, { dropped, leasedAt }: PublishOk, now: number): void {
    for (const { subscription } of op.targets) {
      const line = this.#lines.get(subscription)
      if (line === undefined) continue
      if (line.find(stored.seq) !== undefined) throw new Violation(`${stored.seq} is stored twice in ${subscription}`)
      line.checkRoom(dropped.filter((entry) => entry.subscription === subscription).map(({ seq }) => seq))
      const entry = line.add(stored, op, leasedAt !== undefined, now)
      if (leasedAt !== undefined) this.#leasedAtOnce(entry, op, now)
    }
  }

  #leasedAtOnce(entry: Entry, { grant }: PublishOp, now: number): void {
    if (grant === undefined) throw new Violation(`${entry.seq} was leased with its publish, to nobody`)
    this.#knowledge.note('leased with its publish')
    this.#host.onLeased(entry, { token: grant.token, holder: grant.holder, deliveries: 1 }, now)
  }

  /** An id may be used anew when its window is over and its message gone. */
  #storedAgain(name: string, known: Stored, seq: number, askedAt: number): void {
    const isGone = known.entries.every(({ state }) => state !== 'waiting' && state !== 'leased' && state !== 'dead')
    if (!isGone || askedAt < known.storedAt + this.#knowledge.reliable.dedupeMs)
      throw new Violation(`${name} was stored twice: as ${known.seq} and as ${seq}`)
    this.#knowledge.note('id forgotten')
    this.#host.onForgotten(name, known)
  }
}

/** Whether the store's name of a subscription is that of a durable one: the record of who is connected is none. */
export function isLine(subscription: string): boolean {
  return subscription.includes('/')
}
