/**
 * Owner of what is on its way to consumers: leased messages that wait for a deliver stanza, and stanzas that wait for an answer.
 *
 *     claimed --> waiting --deliver--> handed over --result--> received, and what came with it is settled
 *                    |                     |
 *                    | nobody is there     | error: its subscriptions end
 *                    v                     v
 *                 release               release
 *
 * A plain consumer gets messages instead, and a ping after them: streams are ordered, so its answer says that they arrived, and
 * they are acked. One that cannot answer pings, and any of a queue that keeps nothing, is acked on send.
 *
 * Invariants:
 * 1. What goes out was leased before, durably, and is released when there is nobody to send it to.
 * 2. A reliable consumer has at most `unreceivedMax` handovers open, a plain one has one; `handovers` has all of them.
 * 3. An answer counts only from the full JID that the stanza went to, to the queue, under its random id.
 */
import {
  bareOf,
  decodeError,
  decodeReceived,
  encodeDeliver,
  encodeQueuedMessage,
  ping,
  type QueuedMessage,
  restoreContent,
  type SettlementResult,
  stanza,
  type StanzaErrorCondition,
  WRITE_STANZA_BYTES_MAX,
  type WrittenItem,
  type XmlElement,
  YoungMap,
} from '@xmq/protocol'
import type { ClaimedMessage, Durability, StoreOp } from '../store/port.ts'
import type { Absences } from './absences.ts'
import { afterRelease } from './backoff.ts'
import { formatLease, parseLease } from './lease-token.ts'
import { type Leases, refOf } from './leases.ts'
import type { Line } from './lines.ts'
import { type Delivery, deliverTo, prepareDelivery } from './message.ts'
import { createDeadline, type Deadlines } from './deadlines.ts'
import type { Consumer, Domain, EphemeralItem, Handover, Lease, Queue, Session } from './records.ts'
import type { Sessions } from './sessions.ts'
import type { Step } from './step.ts'
import type { StoreCalls } from './store-calls.ts'
import type { Subscriptions } from './subscriptions.ts'

/** Most items of one deliver stanza, and most bytes of them: addresses and ids of the stanza itself need some, too. */
const ITEMS_MAX = 500
const ITEMS_BYTES_MAX: number = WRITE_STANZA_BYTES_MAX - 8 * 1024

/** Conditions that a server answers for somebody who is not there. */
const ABSENT: ReadonlySet<StanzaErrorCondition> = new Set<StanzaErrorCondition>([
  'service-unavailable',
  'recipient-unavailable',
  'gone',
  'remote-server-not-found',
  'remote-server-timeout',
])

/** What {@link Deliveries} needs. */
export interface DeliveriesOptions {
  readonly durability: Durability
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  readonly leases: Leases
  readonly absences: Absences
  readonly subscriptions: Subscriptions
  readonly sessions: Sessions
  /** Told when a consumer gets messages again, or none. */
  readonly onRoom: (consumer: Consumer) => void
  /** Told of leases without a time whose messages may never have come. */
  readonly onLost: (step: Step, leases: readonly Lease[]) => void
  /** Takes what a worker settled with its answer. */
  readonly onSettled: (step: Step, consumer: Consumer, settlements: readonly SettlementResult[]) => void
}

/** See the top of this file. */
export class Deliveries {
  readonly #options: DeliveriesOptions
  readonly #handovers: YoungMap<string, Consumer> = new YoungMap()

  constructor(options: DeliveriesOptions) {
    this.#options = options
  }

  /** How many stanzas consumers have not answered. */
  get unanswered(): number {
    return this.#handovers.size
  }

  /** Hands out what was claimed: the n-th message to the n-th taker, who may have gone meanwhile. */
  hand(step: Step, line: Line, messages: readonly ClaimedMessage[], takers: readonly Consumer[]): void {
    const ops: StoreOp[] = []
    const got = new Map<Consumer, { count: number; redelivered: number }>()
    for (const [at, message] of messages.entries()) {
      const consumer = takers[at] as Consumer
      const op = this.#take(step, line, message, consumer)
      if (op !== undefined) ops.push(op)
      if (op !== undefined && op.type !== 'ack') continue
      const counts = got.get(consumer) ?? { count: 0, redelivered: 0 }
      counts.count++
      if (message.deliveries > 1) counts.redelivered++
      got.set(consumer, counts)
    }
    this.#options.leases.apply(ops)
    for (const [consumer, counts] of got) {
      step.emit({ name: 'delivered', queue: line.queue.address, consumer: consumer.session.jid, ...counts })
      this.pump(step, consumer)
    }
  }

  /** Puts a lease into a consumer's hands. The caller pumps. @returns false when it cannot be written */
  enqueue(consumer: Consumer, lease: Lease, message: Omit<EphemeralItem, 'seq'>): boolean {
    const { topic, id, from, at, attempt, failures, content } = message
    try {
      const { seq, name, token } = lease
      lease.item = consumer.codec.writeDeliveredItem({
        lease: formatLease({ token, seq, name }),
        seq,
        id,
        topic,
        from,
        at,
        attempt,
        failures,
        content,
      })
    } catch {
      return false
    }
    this.#options.leases.add(lease, consumer)
    consumer.waiting.push(lease)
    return true
  }

  /** Sends what waits for a consumer, as far as it has answered what it got. */
  pump(step: Step, consumer: Consumer): void {
    const { waiting, queue } = consumer
    if (waiting.length === 0 || queue.domain.isDown) return
    if (consumer.kind === 'plain' && waiting[0]?.item === undefined) {
      if (consumer.handovers.size > 0) return
      consumer.waiting = []
      const sent = waiting.filter((lease) => this.#options.leases.has(lease))
      if (sent.length === 0) return
      const id = this.#open(step, consumer, true, sent)
      step.send(queue.domain, ping(queue.address, consumer.session.jid, id))
      return
    }
    const { unreceivedMax } = queue.rules.reliable
    if (consumer.handovers.size >= unreceivedMax) this.#closeVoid(consumer)
    let at = 0
    while (at < waiting.length && consumer.handovers.size < unreceivedMax) {
      const leases: Lease[] = []
      const items: WrittenItem[] = []
      let bytes = 0
      for (; at < waiting.length && leases.length < ITEMS_MAX; at++) {
        const lease = waiting[at] as Lease
        const { item } = lease
        if (item === undefined || !this.#options.leases.has(lease)) continue
        const isOther = items.length > 0 && item.encoding !== items[0]?.encoding
        if (isOther || (items.length > 0 && bytes + item.bytes > ITEMS_BYTES_MAX)) break
        bytes += item.bytes
        leases.push(lease)
        items.push(item)
        lease.item = undefined
        lease.sentOver = queue.domain.epoch
      }
      if (items.length === 0) continue
      const id = this.#open(step, consumer, false, leases)
      const head = { type: 'set', id, from: queue.address, to: consumer.session.jid }
      step.send(queue.domain, stanza('iq', head, [encodeDeliver(queue.rules.reliable.leaseMs, items)]))
    }
    consumer.waiting = waiting.slice(at)
  }

  /** Takes the answer to a deliver stanza, or to a ping after messages; false when this is none. */
  handleAnswer(step: Step, iq: XmlElement): boolean {
    const id = iq.attrs.get('id') ?? ''
    const consumer = this.#handovers.get(id)
    if (consumer === undefined || consumer.session.jid !== iq.attrs.get('from')) return false
    if (bareOf(iq.attrs.get('to') ?? '') !== consumer.queue.address) return false
    const handover = consumer.handovers.get(id) as Handover
    this.#close(consumer, id)
    const leases = handover.leases.filter((lease) => this.#options.leases.has(lease))
    const isError = iq.attrs.get('type') === 'error'
    if (handover.isPing) this.#handlePong(step, consumer, leases, isError ? iq : undefined)
    else if (isError) this.#handleRefusal(step, consumer, leases, iq)
    else this.#handleReceived(step, consumer, leases, decodeReceived(iq))
    this.pump(step, consumer)
    this.#options.sessions.release(consumer.session)
    return true
  }

  /** A sign of life: who was stalled gets messages again. */
  revive(consumer: Consumer): void {
    if (!consumer.isStalled) return
    consumer.isStalled = false
    this.#options.onRoom(consumer)
  }

  /** A lease ran out before it was received: its worker hangs. */
  stall(lease: Lease): void {
    const { consumer } = lease
    // One that was never sent, for a stream that is down or answers that lack, says nothing of its worker.
    if (consumer === undefined || lease.item !== undefined) return
    // Nor does one whose stream ended: nobody could answer, and a plain client may say nothing more for a day.
    const unanswered = [...consumer.handovers].filter(([, { leases }]) => leases.includes(lease))
    if (unanswered.length === 0) return
    consumer.isStalled = true
    // What went out with it is lost, too: its answer is not waited for any more.
    for (const [id] of unanswered) this.#close(consumer, id)
    this.#options.onRoom(consumer)
  }

  /** The answer to a deliver stanza is overdue of which no store tells: its worker hangs, or it never came. */
  overdue(step: Step, consumer: Consumer, id: string): void {
    const handover = consumer.handovers.get(id)
    if (handover === undefined) return
    this.#close(consumer, id)
    consumer.isStalled = true
    this.#options.onLost(step, handover.leases)
    this.#options.onRoom(consumer)
  }

  /** A session has ended: unless its worker is awaited, what it had received has failed and the rest goes to others. */
  sessionEnded(step: Step, session: Session): void {
    for (const consumer of session.consumers.values()) {
      const left = this.#options.absences.begin(step, consumer)
      this.#closeAll(consumer)
      this.#options.leases.giveBack(step, left, 'session-ended')
      consumer.waiting = []
      this.#options.subscriptions.forgetIdle(consumer)
    }
  }

  /** A consumer has no subscription left: what was not sent yet goes to others. */
  unsubscribed(step: Step, consumer: Consumer): void {
    // What a plain consumer was sent has no item any more; nor has what ended meanwhile.
    const unsent = consumer.waiting.filter(({ item }) => item !== undefined)
    if (unsent.length === 0) return
    consumer.waiting = consumer.waiting.filter(({ item }) => item === undefined)
    this.#options.leases.giveBack(step, unsent, 'released')
  }

  /** A message came back: none that the consumer has not confirmed can be taken to have arrived. */
  bounced(step: Step, consumer: Consumer): void {
    if (consumer.kind !== 'plain') return
    this.#closeAll(consumer)
    consumer.waiting = []
    this.#options.leases.giveBack(step, [...consumer.leases], 'bounced')
  }

  /** The stream of a domain ended: answers over it are lost. */
  linkDown(step: Step, domain: Domain): void {
    for (const consumer of new Set(this.#handovers.values())) {
      if (consumer.queue.domain !== domain) continue
      const lost = [...consumer.handovers.values()].flatMap(({ leases }) => leases)
      this.#closeAll(consumer)
      this.#options.onLost(step, lost)
    }
    // What plain consumers were sent over this stream no ping over another one can prove.
    for (const { consumers } of domain.queues)
      for (const consumer of consumers.values())
        if (consumer.kind === 'plain') consumer.waiting = consumer.waiting.filter(({ item }) => item !== undefined)
  }

  /** The stream of a domain is up again: what waited is sent. */
  linkUp(step: Step, { queues }: Domain): void {
    for (const queue of queues) for (const consumer of queue.consumers.values()) this.pump(step, consumer)
  }

  /** What becomes of a claimed message: the operation that ends its lease at once, or `undefined` when it goes out. */
  #take(step: Step, line: Line, message: ClaimedMessage, consumer: Consumer): StoreOp | undefined {
    const { token, seq, topic, id, failures, deliveries, expiresAt } = message
    const lease = createLease(line.queue, line.id, line.name, { token, seq, holder: message.holder })
    const standing = { topic, failures, deliveries, expiresAt }
    lease.standing = standing
    const { queue } = line
    if (consumer.subscriptions.size === 0 || queue.consumers.get(consumer.session.jid) !== consumer) {
      return afterRelease(refOf(lease), standing)
    }
    let stored: ReturnType<typeof restoreContent>
    try {
      stored = restoreContent(message)
      if (consumer.kind === 'plain') return this.#takePlain(step, consumer, lease, { topic, id, ...stored })
    } catch {
      return damaged(lease)
    }
    // No spread, which is slow: this is what every message costs.
    const { content, from } = stored
    const at = Math.floor(message.publishedAt)
    const item = { topic, id, from, content, at, attempt: deliveries, failures }
    return this.enqueue(consumer, lease, item) ? undefined : damaged(lease)
  }

  #takePlain(
    step: Step,
    consumer: Consumer,
    lease: Lease,
    message: QueuedMessage & { readonly from: string },
  ): StoreOp | undefined {
    const { queue, session } = consumer
    if (queue.domain.isDown) return afterRelease(refOf(lease), lease.standing)
    step.send(queue.domain, deliverTo(preparePlain(queue, message), session.jid))
    if (this.#options.durability === 'memory' || session.answersPings === false) {
      return { ...refOf(lease), type: 'ack' }
    }
    this.#options.leases.add(lease, consumer)
    consumer.waiting.push(lease)
    return undefined
  }

  #handleReceived(
    step: Step,
    consumer: Consumer,
    leases: readonly Lease[],
    settlements: readonly SettlementResult[],
  ): void {
    const settled = new Set<string>()
    for (const result of settlements) {
      const wire = result.ok ? parseLease(result.settlement.lease) : undefined
      if (wire !== undefined) settled.add(wire.token)
    }
    const ops: StoreOp[] = []
    const { leaseMs } = consumer.queue.rules.reliable
    for (const lease of leases) {
      lease.isReceived = true
      lease.touchedAt = step.now
      if (settled.has(lease.token) || lease.ephemeral !== undefined) continue
      const { lineId, seq, token } = lease
      ops.push({ queue: lease.queue.address, subscription: lineId, seq, token, type: 'received', leaseMs })
    }
    this.revive(consumer)
    this.#options.leases.apply(ops)
    this.#options.onSettled(step, consumer, settlements)
  }

  /** The worker, or its server, did not take a deliver stanza. */
  #handleRefusal(step: Step, consumer: Consumer, leases: readonly Lease[], iq: XmlElement): void {
    const { condition, fromBroker } = decodeError(iq)
    const { queue, session } = consumer
    step.emit({ name: 'bounced', queue: queue.address, consumer: session.jid, condition })
    this.#options.leases.giveBack(step, leases, 'bounced')
    this.#options.subscriptions.endConsumer(step, consumer, 'bounced')
    this.unsubscribed(step, consumer)
    if (!fromBroker && ABSENT.has(condition)) {
      this.#options.sessions.doubt(step, session.jid, queue.domain, 'bounce', queue)
    }
  }

  /** A plain consumer, or its server, answered the ping after some messages. @param error undefined when it is there */
  #handlePong(step: Step, consumer: Consumer, leases: readonly Lease[], error: XmlElement | undefined): void {
    const { queue, session } = consumer
    const condition = error === undefined ? undefined : decodeError(error).condition
    const isAbsent =
      condition !== undefined &&
      ABSENT.has(condition) &&
      // Whoever knows no pings answers as a server does for somebody who is gone: it gets its messages at most once.
      (condition !== 'service-unavailable' || session.answersPings !== false)
    if (isAbsent) {
      step.emit({ name: 'bounced', queue: queue.address, consumer: session.jid, condition })
      this.#options.leases.giveBack(step, leases, 'bounced')
      // What it was sent since, too: a successor that has its full JID by now would answer for that.
      this.bounced(step, consumer)
      this.#options.subscriptions.endConsumer(step, consumer, 'bounced')
      this.#options.sessions.doubt(step, session.jid, queue.domain, 'bounce', queue)
      return
    }
    this.revive(consumer)
    const ops = leases.map((lease): StoreOp => ({ ...refOf(lease), type: 'ack' }))
    for (const lease of leases) this.#options.leases.remove(lease)
    if (ops.length > 0) step.emit({ name: 'settled', queue: queue.address, outcome: 'acked', count: ops.length })
    this.#options.leases.apply(ops)
  }

  #open(step: Step, consumer: Consumer, isPing: boolean, leases: readonly Lease[]): string {
    const id = step.entropy.id()
    const isTimeless = leases.some(({ ephemeral }) => ephemeral !== undefined)
    const overdue = isTimeless ? createDeadline({ kind: 'unanswered', consumer, id }) : undefined
    if (overdue !== undefined) this.#options.deadlines.set(overdue, step.now + consumer.queue.rules.reliable.leaseMs)
    consumer.handovers.set(id, { isPing, leases, overdue })
    this.#handovers.set(id, consumer)
    return id
  }

  #close(consumer: Consumer, id: string): void {
    const overdue = consumer.handovers.get(id)?.overdue
    if (overdue !== undefined) this.#options.deadlines.clear(overdue)
    consumer.handovers.delete(id)
    this.#handovers.delete(id)
  }

  /**
   * Forgets the stanzas of which nothing is held any more: all in them was settled without a word that they arrived, or by another
   * session. Nobody would ever notice that they lack their answer.
   */
  #closeVoid(consumer: Consumer): void {
    for (const [id, { leases }] of consumer.handovers) {
      if (leases.every((lease) => lease.consumer !== consumer)) this.#close(consumer, id)
    }
  }

  #closeAll(consumer: Consumer): void {
    for (const id of consumer.handovers.keys()) this.#close(consumer, id)
  }
}

/** A lease that nobody has yet. */
export function createLease(
  queue: Queue,
  lineId: string,
  name: string,
  { token, seq, holder }: { readonly token: string; readonly seq: number; readonly holder: string },
  ephemeral?: EphemeralItem,
): Lease {
  return {
    token,
    queue,
    lineId,
    name,
    seq,
    holder,
    ephemeral,
    standing: undefined,
    consumer: undefined,
    isReceived: false,
    isAwaited: false,
    sentOver: undefined,
    unheard: undefined,
    touchedAt: -1,
    item: undefined,
  }
}

/** A stored message, or an item, as plain consumers get it. */
export function preparePlain(queue: Queue, message: QueuedMessage & { readonly from: string }): Delivery {
  const original = encodeQueuedMessage(message, { from: message.from })
  return prepareDelivery(original, queue.rules.preserveFrom ? message.from : queue.address)
}

function damaged(lease: Lease): StoreOp {
  const why = 'What the store gave back of it cannot be delivered.'
  return { ...refOf(lease), type: 'dead', reason: 'corrupt', why }
}
