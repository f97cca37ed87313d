/**
 * Owner of what waits for ephemeral reliable subscribers of `all` queues: what is published while they listen, in memory.
 *
 *     published --> buffer (bounded: the oldest goes) --credit--> a lease without time --ack--> gone
 *                     ^                                               |
 *                     +---- nack (until `maxAttempts`), release ------+
 *                     +---- not received: the stream was down, no answer for a lease's time
 *
 * What is received ends by a settle or with the session: there is nobody else to give the message to.
 *
 * Invariants:
 * 1. A buffer has at most `ephemeralMax` items with `ephemeralBytesMax` bytes, of which it knows the sum, and exists while its consumer has an ephemeral subscription.
 * 2. Overlapping subscriptions of one consumer give one delivery.
 */
import type { Settlement } from '@xmq/protocol'
import { DELIVERIES_MAX } from './backoff.ts'
import { createLease, type Deliveries } from './deliveries.ts'
import type { Leases } from './leases.ts'
import type { Consumer, EphemeralItem, Lease, Queue } from './records.ts'
import type { Step } from './step.ts'

/** What {@link Ephemeral} needs. */
export interface EphemeralOptions {
  readonly leases: Leases
  readonly deliveries: () => Deliveries
  /** Told of a consumer for whom something waits: it is drained at the end of the step. */
  readonly onWaiting: (consumer: Consumer) => void
}

/** See the top of this file. */
export class Ephemeral {
  readonly #options: EphemeralOptions

  constructor(options: EphemeralOptions) {
    this.#options = options
  }

  /** The reliable consumers of an `all` queue that listen to a topic without a durable subscription. */
  listeners(queue: Queue, topic: string): Consumer[] {
    const listeners: Consumer[] = []
    if (!queue.topics.has(topic) && queue.patterns.size === 0) return listeners
    for (const consumer of queue.consumers.values()) {
      if (consumer.kind === 'reliable' && isListening(consumer, topic)) listeners.push(consumer)
    }
    return listeners
  }

  /** Puts a message into the buffers of its listeners. */
  publish(step: Step, queue: Queue, item: EphemeralItem): number {
    const listeners = this.listeners(queue, item.topic)
    for (const consumer of listeners) this.#enqueue(step, consumer, item)
    return listeners.length
  }

  /** Hands out what waits for a consumer, as far as its credit goes. */
  drain(step: Step, consumer: Consumer): void {
    const buffer = consumer.ephemeral
    if (buffer === undefined || buffer.items.length === 0) return
    const { queue, session } = consumer
    if (!isSubscribed(consumer)) {
      consumer.ephemeral = undefined
      step.emit({ name: 'dropped', queue: queue.address, what: 'ephemeral', count: buffer.items.length })
      return
    }
    let count = 0
    let redelivered = 0
    while (count < buffer.items.length && consumer.hasRoom) {
      const item = buffer.items[count] as EphemeralItem
      count++
      const parts = { token: step.entropy.id(), seq: item.seq, holder: session.bare }
      const lease = createLease(queue, '', '', parts, item)
      if (!this.#options.deliveries().enqueue(consumer, lease, item)) continue
      if (item.attempt > 1) redelivered++
    }
    if (count === 0) return
    for (const item of buffer.items.splice(0, count)) buffer.bytes -= item.content.bytes
    step.emit({ name: 'delivered', queue: queue.address, consumer: session.jid, count, redelivered })
    this.#options.deliveries().pump(step, consumer)
  }

  /** Does what a worker says of an ephemeral lease. */
  settle(step: Step, lease: Lease, { kind }: Settlement): void {
    const { consumer } = lease
    if (kind === 'extend') return
    this.#options.leases.remove(lease)
    if (consumer === undefined) return
    if (kind === 'nack') this.#again(step, lease, consumer, 1)
    else if (kind === 'release') this.#again(step, lease, consumer, 0)
  }

  /** What was sent may never have come: whatever of it was not received goes out again. */
  lost(step: Step, leases: readonly Lease[]): void {
    for (const lease of leases) {
      const { consumer } = lease
      if (lease.ephemeral === undefined || lease.isReceived || consumer === undefined) continue
      this.#options.leases.remove(lease)
      this.#again(step, lease, consumer, 0)
    }
  }

  /** An ephemeral lease was given back by its consumer's end, or its server. */
  ended(step: Step, { queue }: Lease): void {
    step.emit({ name: 'dropped', queue: queue.address, what: 'ephemeral', count: 1 })
  }

  #again(step: Step, lease: Lease, consumer: Consumer, failed: number): void {
    const item = lease.ephemeral
    if (item === undefined) return
    const attempt = item.attempt + 1
    const failures = item.failures + failed
    const isOver = failures >= consumer.queue.rules.reliable.maxAttempts || attempt > DELIVERIES_MAX
    if (!isOver) this.#enqueue(step, consumer, { ...item, attempt, failures })
    else step.emit({ name: 'dropped', queue: consumer.queue.address, what: 'ephemeral', count: 1 })
  }

  #enqueue(step: Step, consumer: Consumer, item: EphemeralItem): void {
    const buffer = (consumer.ephemeral ??= { items: [], bytes: 0 })
    const { items } = buffer
    const { ephemeralMax, ephemeralBytesMax } = consumer.queue.rules.reliable
    items.push(item)
    buffer.bytes += item.content.bytes
    this.#options.onWaiting(consumer)
    let count = 0
    while (items.length > ephemeralMax || (items.length > 1 && buffer.bytes > ephemeralBytesMax)) {
      buffer.bytes -= items.shift()?.content.bytes ?? 0
      count++
    }
    if (count > 0) step.emit({ name: 'dropped', queue: consumer.queue.address, what: 'ephemeral', count })
  }
}

/** Whether a consumer has a subscription that is not durable. */
function isSubscribed({ subscriptions }: Consumer): boolean {
  for (const { line } of subscriptions.values()) if (line === undefined) return true
  return false
}

function isListening({ subscriptions }: Consumer, topic: string): boolean {
  const exact = subscriptions.get(topic)
  if (exact !== undefined && exact.line === undefined && exact.topic.matches === undefined) return true
  for (const subscription of subscriptions.values()) {
    if (subscription.line === undefined && subscription.topic.matches?.(topic) === true) return true
  }
  return false
}
