/**
 * Owner of the claims: who is offered what waits, and when.
 *
 *     claimable --> the line's topics --+
 *     room ------> the consumers' seats +--> dirty lines --end of the step--> one claim a line --> deliveries
 *                                       ^                                          |
 *                                       +------------------------------------------+ while there is something left
 *
 * A message that comes while nothing waits and somebody has room is not claimed: its publish takes the grant along (`reserve`).
 *
 * Invariants:
 * 1. One claim of a line is open at a time, for no more than the room of those who may get it: `reserved` counts what is
 *    asked for, by claims and with publishes.
 * 2. A topic is forgotten only when a claim found it empty and nothing became claimable in it meanwhile.
 * 3. A message goes out only after the answer to its claim.
 */
import { LOAD_ELIGIBLE_MAX } from '@xmq/protocol'
import type { ClaimableTopic, ClaimAnswer, LeaseGrant, PublishGrant } from '../store/port.ts'
import type { Deadlines } from './deadlines.ts'
import type { Deliveries } from './deliveries.ts'
import type { Found } from './found.ts'
import { type Coverage, type Line, WHOLE_LINE } from './lines.ts'
import type { Queues } from './queues.ts'
import type { Consumer, Queue } from './records.ts'
import { giveBackTurn, nextSeat, type Seat, updateSeats } from './seats.ts'
import type { Step } from './step.ts'
import { STORE_RETRY_MS, type StoreCalls } from './store-calls.ts'
import type { StoreTime } from './store-time.ts'
import type { Subscriptions } from './subscriptions.ts'

/** A claim names at most so many topics (the store's CLAIM_TOPICS_MAX), and has at most so many grants and bytes. */
const TOPICS_MAX = 256
const GRANTS_MAX = 512
const GRANTS_MIN = 2
const CLAIM_BYTES_MAX = 1024 * 1024

/** What {@link Dispatch} needs. */
export interface DispatchOptions {
  readonly queues: Queues
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  readonly time: StoreTime
  readonly deliveries: () => Deliveries
  readonly subscriptions: () => Subscriptions
  readonly found: Found
  /** Told when a line has fewer topics than the store: they are to be read again. */
  readonly onCut: (line: Line) => void
  /** Hands out what waits for an ephemeral subscriber. */
  readonly onDrain: (step: Step, consumer: Consumer) => void
}

/** Somebody's room that is kept for a message on its way to the store. */
export interface Reservation {
  readonly line: Line
  readonly consumer: Consumer
  readonly seat: Seat
  readonly turn: number
  readonly grant: PublishGrant
}

/** See the top of this file. */
export class Dispatch {
  readonly #options: DispatchOptions
  #dirty: Set<Line> = new Set()
  /** Consumers whose seats are those of before. */
  #unseated: Set<Consumer> = new Set()
  readonly #draining: Set<Consumer> = new Set()
  /** Whether a consumer had all that it takes when its subscriptions were placed. */
  readonly #wasFull: WeakMap<Consumer, boolean> = new WeakMap()

  constructor(options: DispatchOptions) {
    this.#options = options
  }

  /** A consumer's subscriptions, kind, credit or load were changed. */
  changed(consumer: Consumer): void {
    const own = consumer.queue.lines.get('')
    if (own !== undefined) this.#dirty.add(own)
    else for (const { line } of consumer.subscriptions.values()) if (line !== undefined) this.#dirty.add(line)
    if (consumer.subscriptions.size === 0 && consumer.seats.size === 0) this.#unseated.delete(consumer)
    else this.#unseated.add(consumer)
    this.#placeByRoom(consumer)
    this.drain(consumer)
  }

  /**
   * Gives everyone who has changed the right seat. To be called before lines are asked who is there: until then it is put off,
   * since it costs as much as the consumer has topics, and one with many comes with a `sub` for each.
   */
  seatAll(): void {
    if (this.#unseated.size === 0) return
    for (const consumer of this.#unseated) seatConsumer(consumer)
    this.#unseated = new Set()
  }

  /** What a consumer holds was changed. */
  touch(consumer: Consumer): void {
    updateSeats(consumer)
    const { hasRoom } = consumer
    if (hasRoom) for (const line of consumer.seats.keys()) if (line.claimable > 0) this.#dirty.add(line)
    if (hasRoom) this.drain(consumer)
    this.#placeByRoom(consumer)
  }

  /** Requests go to whoever has room, too; to one in doubt where nobody else has. */
  #placeByRoom(consumer: Consumer): void {
    const { isFull, kind } = consumer
    if (kind === 'plain' || this.#wasFull.get(consumer) === isFull) return
    this.#wasFull.set(consumer, isFull)
    this.#options.subscriptions().placeAll(consumer)
  }

  /** What waits for an ephemeral subscriber is looked at, at the end of this step. */
  drain(consumer: Consumer): void {
    if (consumer.ephemeral !== undefined && consumer.ephemeral.items.length > 0) this.#draining.add(consumer)
  }

  /** What the store tells of topics. */
  claimable(topics: readonly ClaimableTopic[]): void {
    for (const { queue, subscription, topic } of topics) {
      const line = this.#options.queues.find(queue)?.lines.get(subscription)
      if (line === undefined) continue
      line.add(topic)
      this.#dirty.add(line)
    }
  }

  /** A line is looked at at the end of this step. */
  wake(line: Line): void {
    this.#dirty.add(line)
  }

  /** Reserves somebody who has room now for a message that is about to be published into the queue's own line. */
  reserve(step: Step, queue: Queue, topic: string): Reservation | undefined {
    const line = queue.lines.get('')
    if (line === undefined || line.isHalted || queue.domain.isDown) return undefined
    this.seatAll()
    const seat = nextSeat(line.idle(topic))
    if (seat === undefined) return undefined
    const { consumer, turn } = seat
    consumer.reserved++
    line.took(seat)
    this.touch(consumer)
    const { leaseMs } = queue.rules.reliable
    this.#options.time.soon(step.now + leaseMs)
    const { token, holder } = this.#grant(step, queue, consumer)
    return { seat, turn, line, consumer, grant: { token, holder, leaseMs } }
  }

  /** Ends a reservation. @param isUsed the message goes to the consumer */
  release({ seat, turn, consumer }: Reservation, isUsed: boolean): void {
    consumer.reserved--
    if (!isUsed) giveBackTurn(seat, turn)
    this.touch(consumer)
  }

  /** A halted line goes on. */
  claimAgain(line: Line): void {
    line.isHalted = false
    this.#dirty.add(line)
  }

  /** Claims what can be claimed. To be called at the end of each step. */
  run(step: Step): void {
    // Asked first: clearing an empty set costs as much as a plain message does elsewhere in here.
    if (this.#draining.size > 0) {
      for (const consumer of this.#draining) this.#options.onDrain(step, consumer)
      this.#draining.clear()
    }
    if (this.#dirty.size === 0) return
    for (const line of this.#dirty) this.#run(step, line)
    // Made anew: what a cleared set held is kept in its old table, which later ones hang on to.
    this.#dirty = new Set()
  }

  #run(step: Step, line: Line): void {
    if (line.isClaiming || line.isHalted || line.queue.domain.isDown) return
    if (line.claimable === 0 && !line.isCut) return
    this.seatAll()
    if (line.isStale || (line.claimable === 0 && line.isCut)) {
      line.isStale = false
      line.isCut = false
      this.#options.onCut(line)
      return
    }
    const coverage = line.next()
    if (coverage !== undefined) this.#claim(step, line, coverage)
  }

  #grant(step: Step, queue: Queue, consumer: Consumer): LeaseGrant {
    const { bare, mark } = consumer.session
    const token = step.entropy.id() + mark
    const { found } = this.#options
    if (found.isOpen(queue)) found.named(queue, token)
    return { token, holder: bare }
  }

  #claim(step: Step, line: Line, coverage: Coverage): void {
    const { queue } = line
    const topics = firstOf(coverage.topics, TOPICS_MAX)
    const grants: LeaseGrant[] = []
    const takers: Consumer[] = []
    const turns: { readonly seat: Seat; readonly turn: number }[] = []
    const most = Math.max(line.batch, GRANTS_MIN)
    for (let seat = nextSeat(coverage.groups); seat !== undefined; seat = nextSeat(coverage.groups)) {
      const { consumer } = seat
      grants.push(this.#grant(step, queue, consumer))
      takers.push(consumer)
      consumer.reserved++
      turns.push({ seat, turn: seat.turn })
      line.took(seat)
      this.touch(consumer)
      if (grants.length >= most) break
    }
    line.isClaiming = true
    if (line.fresh.size > 0) line.fresh.clear()
    const { leaseMs } = queue.rules.reliable
    const request = {
      queue: queue.address,
      subscription: line.id,
      topics: line.id === '' ? topics : undefined,
      grants,
      bytesMax: CLAIM_BYTES_MAX,
      leaseMs,
      now: step.now,
    }
    this.#options.time.soon(step.now + leaseMs)
    this.#options.calls.claim(queue.domain.name, request, (later, answer) => {
      const used = answer.status === 'ok' ? answer.messages.length : 0
      for (const { seat, turn } of turns.slice(used).reverse()) giveBackTurn(seat, turn)
      this.#claimed(later, line, { coverage, topics, takers }, answer)
    })
  }

  #claimed(
    step: Step,
    line: Line,
    asked: { readonly coverage: Coverage; readonly topics: readonly string[]; readonly takers: readonly Consumer[] },
    answer: ClaimAnswer,
  ): void {
    const { coverage, topics, takers } = asked
    line.isClaiming = false
    for (const consumer of takers) consumer.reserved--
    if (answer.status === 'unavailable') {
      line.isHalted = true
      this.#options.deadlines.set(line.again, step.now + STORE_RETRY_MS)
    } else {
      const { messages, expired, corrupt, more } = answer
      this.#options.deliveries().hand(step, line, messages, takers)
      if (expired.length > 0) this.#options.time.expire(expired)
      if (corrupt.length > 0) this.#options.time.diedIn(step, line)
      for (const { queue, subscription, seq } of corrupt) {
        step.emit({ name: 'dead-lettered', queue, line: subscription, seq, reason: 'corrupt' })
      }
      if (messages.length === takers.length) line.batch = Math.min(Math.max(line.batch, GRANTS_MIN) * 2, GRANTS_MAX)
      else if (messages.length * 4 < line.batch) line.batch = Math.max(GRANTS_MIN, line.batch >> 1)
      const isEmpty = messages.length < takers.length && !more
      if (isEmpty) {
        for (const topic of topics) if (!line.fresh.has(topic)) line.remove(topic)
      } else line.rotate(coverage, topics)
    }
    for (const consumer of new Set(takers)) this.touch(consumer)
    this.#dirty.add(line)
  }
}

function seatConsumer(consumer: Consumer): void {
  const filters = new Map<Line, string[]>()
  for (const line of consumer.seats.keys()) filters.set(line, [])
  const own = consumer.queue.lines.get('')
  for (const { topic, line, load } of consumer.subscriptions.values()) {
    const target = line ?? own
    if (target === undefined || (consumer.kind === 'plain' && load > LOAD_ELIGIBLE_MAX)) continue
    const filter = target === own ? topic.name : WHOLE_LINE
    const known = filters.get(target)
    if (known === undefined) filters.set(target, [filter])
    else if (target === own) known.push(filter)
    else known[0] = filter
  }
  for (const [line, names] of filters) line.seat(consumer, names.sort())
}

function firstOf(topics: ReadonlySet<string>, max: number): string[] {
  const first: string[] = []
  for (const topic of topics) {
    first.push(topic)
    if (first.length >= max) break
  }
  return first
}
