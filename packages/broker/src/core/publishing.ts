/**
 * Owner of what is being published: from the producer's stanza to the store's answer and the confirm.
 *
 *     <publish/> --items--> operations --applied--> <published/>, or an error where nothing was done
 *     <message/> --+-- plain to plain, of a store that keeps nothing ------> the next consumer, or `no-recipients`
 *                  +-- else: as an item without an id --applied--> nothing, or an error
 *     with it goes the room of somebody who may have it at once -------------> delivered on the same answer
 *     in an `all` queue, once it is stored: --> plain subscribers, ephemeral buffers
 *
 * Invariants:
 * 1. A confirm leaves only on the store's answer.
 * 2. `storing` counts the bytes that are on their way to the store; above the rules' bound all publishes are refused.
 * 3. Rights and sizes are checked before anything is made.
 */
import {
  bareOf,
  decodePublish,
  decodeQueuedMessage,
  encodePublished,
  findTopic,
  decodeTopic,
  type ItemContent,
  type ItemResult,
  type PublishedItem,
  type PublishItem,
  resultTo,
  storedText,
  utf8Length,
  withChildren,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { ClaimedMessage, DroppedEntry, PublishGrant, PublishOp, StoreResult } from '../store/port.ts'
import { exceedsContent } from './content-size.ts'
import { type Deliveries, preparePlain } from './deliveries.ts'
import type { Dispatch, Reservation } from './dispatch.ts'
import type { Ephemeral } from './ephemeral.ts'
import type { Line } from './lines.ts'
import { type Delivery, deliverTo, prepareDelivery, withoutForgeries } from './message.ts'
import type { Named } from './named.ts'
import type { Overload } from './overload.ts'
import type { CoreRules } from './port.ts'
import type { Consumer, Queue } from './records.ts'
import type { Step } from './step.ts'
import { type StoreCalls, unavailable } from './store-calls.ts'
import type { StoreTime } from './store-time.ts'
import type { Subscriptions } from './subscriptions.ts'

/** What a message costs in the store beside its texts. */
const OVERHEAD_BYTES = 256

/** What {@link Publishing} needs. */
export interface PublishingOptions {
  readonly rules: CoreRules
  readonly calls: StoreCalls
  readonly time: StoreTime
  readonly named: Named
  readonly ephemeral: Ephemeral
  readonly subscriptions: Subscriptions
  readonly overload: Overload
  readonly dispatch: Dispatch
  readonly deliveries: Deliveries
}

interface Prepared {
  readonly id: string
  readonly op: PublishOp
  /** Of an `all` queue, for those who listen. Else it is let go: thousands may wait for the store. */
  readonly item: PublishItem | undefined
}

/** A batch on its way to the store. */
interface Batch {
  /** Those that need no store, in their places. */
  readonly answers: (PublishedItem | undefined)[]
  readonly prepared: readonly Prepared[]
  /** How it came, and how it is confirmed. */
  readonly isPacked: boolean
  /** When it came. */
  readonly at: number
}

/** Who publishes: both of its JIDs. */
interface Sender {
  readonly full: string
  readonly bare: string
}

/** See the top of this file. */
export class Publishing {
  readonly #options: PublishingOptions
  #storing = 0

  constructor(options: PublishingOptions) {
    this.#options = options
  }

  /** Bytes that are on their way to the store. */
  get storing(): number {
    return this.#storing
  }

  /**
   * Stores a batch of items and confirms it.
   * @throws XmqError when nothing of it is done
   */
  publishItems(step: Step, queue: Queue, iq: XmlElement, publish: XmlElement): void {
    this.#options.overload.assertTaking()
    this.#assertRoom(queue)
    const sender = iq.attrs.get('from') ?? ''
    const answers: (PublishedItem | undefined)[] = []
    const prepared: Prepared[] = []
    const from = { full: sender, bare: bareOf(sender) }
    for (const result of decodePublish(publish)) {
      const made = this.#prepare(step, queue, from, result)
      if ('op' in made) prepared.push(made)
      answers.push('op' in made ? undefined : made)
    }
    if (prepared.length === 0) {
      this.#confirm(step, queue, iq, answers as PublishedItem[], false)
      return
    }
    const at = step.now
    // The answer needs no more of it, and what was in it is large.
    const head = withChildren(iq, [])
    const isPacked = publish.attrs.has('encoding')
    this.#store(
      step,
      queue,
      prepared.map(({ op }) => op),
      (later, results) => this.#stored(later, queue, head, { answers, prepared, isPacked, at }, results),
    )
  }

  /**
   * Takes a plain message.
   * @throws XmqError why it is refused
   */
  publishMessage(step: Step, queue: Queue, message: XmlElement): void {
    this.#options.overload.assertTaking()
    const xmq = findTopic(message)
    if (xmq === undefined) throw new XmqError('topic-required', 'XMQ topic not found')
    const topic = decodeTopic(xmq)
    const { payloadBytesMax, type } = queue.rules
    if (exceedsContent(message, payloadBytesMax)) {
      throw new XmqError('too-large', `The message is larger than the ${payloadBytesMax} bytes that this queue takes.`)
    }
    if (type === 'all') this.#publishToAll(step, queue, topic, message)
    else this.#publishToAny(step, queue, topic, message)
  }

  #publishToAny(step: Step, queue: Queue, topic: string, message: XmlElement): void {
    const { subscriptions, rules } = this.#options
    const line = queue.lines.get('')
    const isStored = line !== undefined && (this.#hasReliable(queue, topic) || line.hasBacklog(topic))
    const keeps = queue.rules.reliable.whenNobody === 'keep'
    if (rules.durability === 'memory' && !isStored) {
      const next = subscriptions.take(queue, topic)
      if (next !== undefined) {
        step.send(queue.domain, deliverTo(prepare(queue, message), next.consumer.session.jid))
        step.emit({ name: 'published', queue: queue.address, topic, recipients: 1 })
        return
      }
    }
    if (!keeps && !this.#hasAnybody(queue, topic)) throw new XmqError('no-recipients', 'No recipients found')
    this.#storeMessage(step, queue, topic, message, () => {})
  }

  #hasReliable(queue: Queue, topic: string): boolean {
    if (queue.reliableConsumers === 0) return false
    this.#options.dispatch.seatAll()
    return queue.lines.get('')?.covers(topic, 'reliable') === true
  }

  #hasAnybody(queue: Queue, topic: string): boolean {
    if (queue.reliableConsumers === 0 && !queue.topics.has(topic)) return false
    this.#options.dispatch.seatAll()
    return queue.lines.get('')?.covers(topic) === true
  }

  #publishToAll(step: Step, queue: Queue, topic: string, message: XmlElement): void {
    const { named, ephemeral } = this.#options
    if (named.targets(queue, topic).length === 0 && ephemeral.listeners(queue, topic).length === 0) {
      const recipients = this.#fanOut(step, queue, topic, () => prepare(queue, message))
      step.emit({ name: 'published', queue: queue.address, topic, recipients })
      return
    }
    // As the store has it: a worker knows a message that it gets in two ways by its seq and this.
    const at = step.now
    this.#storeMessage(step, queue, topic, message, (later, content, seq) => {
      this.#fanOut(later, queue, topic, () => prepare(queue, message))
      const from = message.attrs.get('from') ?? ''
      ephemeral.publish(later, queue, {
        topic,
        id: undefined,
        from,
        at,
        content,
        attempt: 1,
        failures: 0,
        seq,
      })
    })
  }

  /** To the plain subscribers of an `all` queue. */
  #fanOut(step: Step, queue: Queue, topic: string, prepareOnce: () => Delivery): number {
    if (!queue.topics.has(topic)) return 0
    let delivery: Delivery | undefined
    let recipients = 0
    this.#options.subscriptions.forEachEligible(queue, topic, ({ consumer }) => {
      if (consumer.kind !== 'plain') return
      delivery ??= prepareOnce()
      step.fanOut(queue.domain, deliverTo(delivery, consumer.session.jid))
      recipients++
    })
    return recipients
  }

  #storeMessage(
    step: Step,
    queue: Queue,
    topic: string,
    message: XmlElement,
    then: (step: Step, content: ItemContent, seq: number) => void,
  ): void {
    this.#assertRoom(queue)
    const sender = message.attrs.get('from') ?? ''
    const { content } = decodeQueuedMessage(withoutForgeries(message))
    const from = { full: sender, bare: bareOf(sender) }
    const op = this.#op(step, queue, from, { topic, content, id: undefined, priority: 0, delayMs: 0 })
    this.#store(step, queue, [op], (later, [result]) => {
      if (result?.status !== 'ok' || result.type !== 'publish') {
        later.refuse(queue.domain, queue.address, message, refusalOf(queue, op, result))
        return
      }
      this.#tellDropped(later, queue, result.dropped)
      later.emit({ name: 'stored', queue: queue.address, count: 1, duplicates: 0 })
      then(later, content, result.seq)
    })
  }

  #assertRoom(queue: Queue): void {
    const { storingBytesMax } = this.#options.rules
    if (queue.isLoaded && this.#storing <= storingBytesMax) return
    const why = queue.isLoaded
      ? `${this.#storing} bytes are on their way to the store; at most ${storingBytesMax} are taken.`
      : 'The broker has just started and looks through its store.'
    throw new XmqError('overloaded', `${why} Try again later.`, { retryAfterSeconds: 1 })
  }

  /** The operation for an item, or why there is none. */
  #prepare(step: Step, queue: Queue, sender: Sender, result: ItemResult<PublishItem>): Prepared | PublishedItem {
    if (!result.ok) return { status: 'failed', id: result.id, error: result.error }
    const { item } = result
    try {
      const { payloadBytesMax } = queue.rules
      if (item.content.bytes > payloadBytesMax) {
        throw new XmqError(
          'too-large',
          `The message is larger than the ${payloadBytesMax} bytes that this queue takes.`,
        )
      }
      const op = this.#op(step, queue, sender, item)
      return { id: item.id, op, item: queue.rules.type === 'all' ? item : undefined }
    } catch (error) {
      if (!(error instanceof XmqError)) throw error
      return { status: 'failed', id: item.id, error }
    }
  }

  #op(
    step: Step,
    queue: Queue,
    sender: Sender,
    item: Omit<PublishItem, 'id'> & { readonly id: string | undefined },
  ): PublishOp {
    const { topic, id, key, priority, delayMs, ttlMs, content } = item
    const { dedupeMs, dedupeMax } = queue.rules.reliable
    const { body, meta } = storedText(content, sender.full)
    const { bodyBytesMax } = this.#options.rules
    if ((body.length + meta.length) * 3 > bodyBytesMax && utf8Length(body) + utf8Length(meta) > bodyBytesMax) {
      throw new XmqError('too-large', `The message is larger than the ${bodyBytesMax} bytes that the store takes.`)
    }
    const delayUntil = delayMs > 0 ? step.now + delayMs : undefined
    const expiresAt = ttlMs === undefined ? undefined : step.now + ttlMs
    if (delayUntil !== undefined) this.#options.time.soon(delayUntil)
    if (expiresAt !== undefined) this.#options.time.soon(expiresAt)
    return {
      type: 'publish',
      queue: queue.address,
      topic,
      id,
      sender: sender.bare,
      key,
      priority,
      delayUntil,
      expiresAt,
      dedupeMs,
      dedupeMax,
      body,
      meta,
      targets: this.#options.named.targets(queue, topic),
      grant: undefined,
    }
  }

  /** Stores messages, each in the hands of somebody who has room for it, if there is one, and hands those out. */
  #store(
    step: Step,
    queue: Queue,
    ops: readonly PublishOp[],
    then: (step: Step, results: readonly StoreResult[]) => void,
  ): void {
    const { calls, dispatch } = this.#options
    const reservations: (Reservation | undefined)[] = []
    let bytes = 0
    for (const op of ops) {
      bytes += op.body.length + op.meta.length + OVERHEAD_BYTES
      const reservation =
        queue.rules.type === 'any' && op.delayUntil === undefined ? dispatch.reserve(step, queue, op.topic) : undefined
      reservations.push(reservation)
      op.grant = reservation?.grant
    }
    this.#storing += bytes
    calls.apply(ops, (later, results) => {
      this.#storing -= bytes
      then(later, results)
      this.#handOut(later, ops, reservations, results)
    })
  }

  /** What was leased with its publish goes to those for whom it was. */
  #handOut(
    step: Step,
    ops: readonly PublishOp[],
    reservations: readonly (Reservation | undefined)[],
    results: readonly StoreResult[],
  ): void {
    const messages: ClaimedMessage[] = []
    const takers: Consumer[] = []
    let line: Line | undefined
    for (const [at, reservation] of reservations.entries()) {
      if (reservation === undefined) continue
      const message = claimedOf(ops[at] as PublishOp, reservation.grant, results[at])
      this.#options.dispatch.release(reservation, message !== undefined)
      if (message === undefined) continue
      line = reservation.line
      messages.push(message)
      takers.push(reservation.consumer)
    }
    if (line !== undefined) this.#options.deliveries.hand(step, line, messages, takers)
  }

  #stored(step: Step, queue: Queue, iq: XmlElement, batch: Batch, results: readonly StoreResult[]): void {
    const { answers, prepared, isPacked } = batch
    const first = results[0]
    if (first?.status === 'unavailable' && prepared.length === answers.length) {
      step.refuse(queue.domain, queue.address, iq, unavailable(first.error))
      return
    }
    let next = 0
    let duplicates = 0
    let count = 0
    const dropped: DroppedEntry[] = []
    const all = answers.map((answer): PublishedItem => {
      if (answer !== undefined) return answer
      const { id, item, op } = prepared[next] as Prepared
      const result = results[next++]
      if (result?.status === 'duplicate') {
        duplicates++
        count++
        return { status: 'stored', id, seq: result.seq, duplicate: true }
      }
      if (result?.status !== 'ok' || result.type !== 'publish') {
        return { status: 'failed', id, error: refusalOf(queue, op, result) }
      }
      count++
      dropped.push(...result.dropped)
      if (item === undefined) return { status: 'stored', id, seq: result.seq, duplicate: false }
      if (op.delayUntil === undefined) this.#tellListeners(step, queue, iq, { item, seq: result.seq, at: batch.at })
      return { status: 'stored', id, seq: result.seq, duplicate: false, subscriptions: result.entries }
    })
    this.#tellDropped(step, queue, dropped)
    if (count > 0) step.emit({ name: 'stored', queue: queue.address, count, duplicates })
    this.#confirm(step, queue, iq, all, isPacked)
  }

  /** Whoever listens to an `all` queue without a durable subscription. */
  #tellListeners(
    step: Step,
    queue: Queue,
    iq: XmlElement,
    { item, seq, at }: { readonly item: PublishItem; readonly seq: number; readonly at: number },
  ): void {
    const { topic, id, content } = item
    const from = iq.attrs.get('from') ?? ''
    this.#fanOut(step, queue, topic, () => preparePlain(queue, { topic, id, content, from }))
    this.#options.ephemeral.publish(step, queue, {
      topic,
      id,
      from,
      at,
      content,
      attempt: 1,
      failures: 0,
      seq,
    })
  }

  #confirm(step: Step, queue: Queue, iq: XmlElement, items: readonly PublishedItem[], isPacked: boolean): void {
    const { durability } = this.#options.rules
    const published = encodePublished({ durability, epoch: queue.domain.epoch, items }, isPacked)
    step.send(queue.domain, resultTo(iq, [published]))
  }

  /** What gave way is a dead letter now, and those are bounded, too. */
  #tellDropped(step: Step, { address, lines }: Queue, dropped: readonly DroppedEntry[]): void {
    if (dropped.length === 0) return
    step.emit({ name: 'dropped', queue: address, what: 'overflow', count: dropped.length })
    for (const subscription of new Set(dropped.map((entry) => entry.subscription))) {
      const line = lines.get(subscription)
      if (line !== undefined) this.#options.time.diedIn(step, line)
    }
  }
}

/** A message that was leased with its publish, as a claim would have found it; undefined when it was not. */
function claimedOf(op: PublishOp, grant: PublishGrant, result: StoreResult | undefined): ClaimedMessage | undefined {
  if (result?.status !== 'ok' || result.type !== 'publish' || result.leasedAt === undefined) return undefined
  const { queue, topic, id, sender, key, priority, expiresAt, body, meta } = op
  return {
    queue,
    subscription: '',
    seq: result.seq,
    token: grant.token,
    holder: grant.holder,
    topic,
    id,
    sender,
    key,
    priority,
    publishedAt: result.leasedAt,
    expiresAt,
    failures: 0,
    deliveries: 1,
    body,
    meta,
  }
}

function prepare(queue: Queue, message: XmlElement): Delivery {
  return prepareDelivery(message, queue.rules.preserveFrom ? (message.attrs.get('from') ?? '') : queue.address)
}

function refusalOf(queue: Queue, op: PublishOp, result: StoreResult | undefined): XmqError {
  if (result?.status === 'conflict') {
    return new XmqError(
      'conflict',
      `The id '${op.id ?? ''}' was used for another topic or payload. Give each message an id of its own.`,
    )
  }
  if (result?.status === 'full') {
    const { lengthMax, bytesMax } = queue.rules.reliable
    const limit = result.what === 'length' ? `${lengthMax} messages (maxLength)` : `${bytesMax} bytes (maxBytes)`
    const where = result.subscription === '' ? queue.address : `The durable subscription ${result.subscription}`
    return new XmqError('limit-reached', `${where} is full: it takes ${limit}. Try again when some were handled.`, {
      retryAfterSeconds: 5,
    })
  }
  if (result?.status === 'unavailable') return unavailable(result.error)
  return new XmqError('internal', 'The store gave an answer that does not fit a publish.')
}
