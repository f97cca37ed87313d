/**
 * Who is called back after a restart of a broker whose store is kept.
 *
 *     reliable sub --> in the store's record --its answer--> promised --crash--> owed --resubscribe, or a sub before it--> not any more
 *
 * 1. Whoever was told that it is subscribed, and is, is in the record when the broker dies, unless the store did not answer.
 * 2. As soon as the record is read and the stream is up, everybody in it is called who has not come already.
 * 3. Nobody else is called, and nobody twice.
 */
import { childElements, type XmlElement } from '@xmq/protocol'
import type { CoreEvent, Input, QueueType } from '../../../../packages/broker/src/core/port.ts'
import type { StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import type { Knowledge } from './entry.ts'
import { isLine } from './stock.ts'

/** See the top of this file. */
export class Callbacks {
  readonly #keeps: boolean
  readonly #type: QueueType
  readonly #note: (what: string) => void
  /** Who is in the store's record. */
  #record = new Set<string>()
  // Of one life of the broker:
  #owed: ReadonlySet<string> = new Set()
  #called = new Set<string>()
  #isUp = false
  #isRead = false
  /** All that it has to know of the store is read. */
  #isLoaded = false
  /** Subs that are not answered, with how often the record could not be written before. */
  #subs = new Map<string, number>()
  #troubles = 0
  readonly #subscribed = new Map<string, Set<string>>()
  readonly #came = new Set<string>()
  readonly #promised = new Set<string>()

  /** @param durability of the store */
  constructor(durability: string, { type, note }: Knowledge) {
    this.#keeps = durability !== 'memory'
    this.#type = type
    this.#note = note
  }

  /** The broker was killed. */
  crash(): void {
    for (const jid of this.#promised) {
      if (!this.#record.has(jid)) throw new Violation(`${jid} was told that it is subscribed, and is in no record`)
    }
    this.#owed = this.#keeps ? new Set(this.#record) : new Set()
    this.#called = new Set()
    this.#isUp = false
    this.#isRead = false
    this.#isLoaded = false
    this.#subs = new Map()
    this.#troubles = 0
    this.#subscribed.clear()
    this.#came.clear()
    this.#promised.clear()
  }

  /** The store has done something. */
  done(op: StoreOp, result: StoreResult): void {
    if (op.type === 'publish' || isLine(op.subscription) || result.status !== 'ok') return
    if (op.type === 'delete-subscription') this.#record = new Set()
    if (op.type === 'create-subscription') this.#record = new Set(JSON.parse(op.meta) as readonly string[])
  }

  /** The core hears what the store has done. */
  told(op: StoreOp, result: StoreResult): void {
    if (op.type === 'create-subscription' && !isLine(op.subscription) && result.status !== 'ok') this.#troubles++
  }

  /** Something arrives at the core. */
  arrive(input: Input): void {
    if (input.type === 'link-up' || input.type === 'link-down') this.#isUp = input.type === 'link-up'
    if (input.type === 'subscriptions' && input.answer.status === 'ok') {
      this.#isRead = true
      if (this.#type === 'all') this.#isLoaded = true
    }
    if (input.type === 'topics' && input.answer.status === 'ok') this.#isLoaded = true
    if (input.type !== 'stanza' || input.stanza.name !== 'iq') return
    const { attrs } = input.stanza
    const xmq = childElements(input.stanza).find((child) => child.name === 'xmq')
    const isReliable = xmq !== undefined && childElements(xmq).some((child) => child.name === 'consume')
    if (xmq?.attrs.get('command') !== 'sub' || !isReliable) return
    this.#subs.set(`${attrs.get('from')} ${attrs.get('id')}`, this.#troubles)
  }

  /** The core tells something. */
  event(event: CoreEvent): void {
    if (event.name === 'subscribed') {
      this.#came.add(event.consumer)
      const topics = this.#subscribed.get(event.consumer) ?? new Set()
      this.#subscribed.set(event.consumer, topics.add(event.topic))
    }
    if (event.name !== 'unsubscribed') return
    const topics = this.#subscribed.get(event.consumer)
    topics?.delete(event.topic)
    if (topics !== undefined && topics.size === 0) this.#promised.delete(event.consumer)
  }

  /** The core sends a stanza. */
  left(stanza: XmlElement): void {
    const to = stanza.attrs.get('to') ?? ''
    if (childElements(stanza).some((child) => child.name === 'resubscribe')) this.#call(to)
    if (stanza.attrs.get('type') !== 'result') return
    const sub = `${to} ${stanza.attrs.get('id')}`
    const troubles = this.#subs.get(sub)
    this.#subs.delete(sub)
    // While the store does not answer, and before it was read, it is told all the same.
    if (troubles === undefined || troubles !== this.#troubles || !this.#keeps || !this.#isLoaded) return
    const isSubscribed = (this.#subscribed.get(to)?.size ?? 0) > 0
    if (isSubscribed) this.#promised.add(to)
  }

  #call(to: string): void {
    this.#note('resubscribe')
    if (!this.#owed.has(to)) throw new Violation(`${to} is called back, and was not there`)
    if (this.#called.has(to)) throw new Violation(`${to} is called back twice`)
    this.#called.add(to)
  }

  /** The core has handled what arrived. */
  check(): void {
    if (!this.#isUp || !this.#isRead || this.#owed.size === 0) return
    for (const jid of this.#owed) {
      if (!this.#called.has(jid) && !this.#came.has(jid)) throw new Violation(`${jid} is not called back`)
    }
    this.#owed = new Set()
  }
}
