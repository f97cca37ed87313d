/**
 * Owner of leases: what consumers hold, from the answer to a claim to the operation that ends it.
 *
 *     add --> held --+-- settled (settling.ts) -------------------> gone from here: the store knows the rest
 *                    +-- session ended, received ----> a failure: nack, or dead
 *                    +-- session ended, not received, bounced --> release
 *                    +-- over (store-time.ts) -------> a failure, or release when it was not received
 *                                                   | extended, when store or stream did not let its worker be heard
 *
 * Invariants:
 * 1. `leases` has each lease that was made or taken over in this life of the broker and that no operation was sent to end.
 * 2. A lease is in its consumer's `leases` while it has one, and in nobody else's.
 * 3. Whoever ends a lease sends one operation for it; the store's compare-and-set by token makes any further one void.
 */
import { YoungMap } from '@xmq/protocol'
import type { EntryHead, EntryRef, StoreOp, StoreResult } from '../store/port.ts'
import { afterFailure, afterRelease, type LeaseRef, type Standing } from './backoff.ts'
import type { LeaseEnd } from './port.ts'
import type { Queues } from './queues.ts'
import type { Consumer, Lease, Queue } from './records.ts'
import type { Step } from './step.ts'
import type { StoreCalls } from './store-calls.ts'
import type { StoreTime } from './store-time.ts'
import { isFinal, type Unheard } from './unheard.ts'

/** So long a lease is at least whose worker the store had not heard: a client that was told to wait pauses for some seconds (the SDK: 5). */
const UNHEARD_MS = 10_000

/** What {@link Leases} needs. */
export interface LeasesOptions {
  readonly queues: Queues
  readonly calls: StoreCalls
  readonly time: StoreTime
  readonly unheard: Unheard
  /** Told when a consumer holds more or less. */
  readonly onRoom: (consumer: Consumer) => void
  /** Told when a consumer holds nothing more. */
  readonly onIdle: (consumer: Consumer) => void
  /** Told when a lease ran out before its worker had received it. */
  readonly onUnreceived: (lease: Lease) => void
  /** Whether somebody may have a lease who cannot be heard: it goes on. */
  readonly mayBeHeld: (step: Step, lease: Lease) => boolean
  /** An ephemeral lease ended without being acked. */
  readonly onEphemeralEnd: (step: Step, lease: Lease) => void
}

/** See the top of this file. */
export class Leases {
  readonly #options: LeasesOptions
  readonly #leases: YoungMap<string, Lease> = new YoungMap()
  /** Who has those whose session has ended, while their past is looked up. */
  readonly #failing: Map<string, string> = new Map()

  constructor(options: LeasesOptions) {
    this.#options = options
  }

  /** How many leases there are. */
  get count(): number {
    return this.#leases.size
  }

  /** A lease, if it is of that queue and that one's. @param holder bare JID */
  find(token: string, queue: Queue, holder: string): Lease | undefined {
    const lease = this.#leases.get(token)
    return lease?.queue === queue && lease.holder === holder ? lease : undefined
  }

  /** Whether a token names a lease, whoever's. */
  hasToken(token: string): boolean {
    return this.#leases.has(token)
  }

  /** Its holder has said what becomes of a lease. @param holder bare JID */
  settled(token: string, holder: string): void {
    if (this.#failing.get(token) === holder) this.#failing.delete(token)
  }

  /** Whether a lease is held still. */
  has(lease: Lease): boolean {
    return this.#leases.get(lease.token) === lease
  }

  /** Takes a lease on, or hands one on to another session of its holder. */
  add(lease: Lease, consumer: Consumer | undefined): void {
    this.#leases.set(lease.token, lease)
    if (lease.consumer === consumer) return
    this.#detach(lease)
    lease.consumer = consumer
    if (consumer === undefined) return
    consumer.leases.add(lease)
    this.#options.onRoom(consumer)
  }

  /** Forgets a lease: an operation that ends it is on its way. */
  remove(lease: Lease): void {
    if (!this.has(lease)) return
    this.#leases.delete(lease.token)
    lease.item = undefined
    this.#detach(lease)
  }

  /** A line has ended, with all that was in it: nobody holds anything of it. @param lineId the store's name */
  forget(queue: Queue, lineId: string): void {
    for (const lease of this.#leases.values()) if (lease.queue === queue && lease.lineId === lineId) this.remove(lease)
  }

  /** Ends leases without a word of their worker. */
  giveBack(step: Step, leases: readonly Lease[], outcome: LeaseEnd): void {
    const ops: StoreOp[] = []
    const counts = new Map<string, number>()
    for (const lease of leases) {
      if (!this.has(lease)) continue
      const { queue } = lease
      counts.set(queue.address, (counts.get(queue.address) ?? 0) + 1)
      this.remove(lease)
      if (lease.ephemeral !== undefined) this.#options.onEphemeralEnd(step, lease)
      else if (outcome === 'session-ended' && lease.isReceived) this.#fail(step, lease, ops)
      else ops.push(afterRelease(refOf(lease), lease.standing))
    }
    for (const [queue, count] of counts) step.emit({ name: 'settled', queue, outcome, count })
    this.apply(ops)
  }

  /**
   * The operation on a lease that is over, or `undefined` when it was touched since the store was asked. What was
   * said while the store did not answer counts: who was there then has one full lease more to say that it still is. So has
   * whoever cannot be heard.
   */
  over(step: Step, entry: EntryHead, askedAt: number): StoreOp | undefined {
    const queue = this.#options.queues.find(entry.queue)
    const { token } = entry
    if (queue === undefined || token === undefined) return undefined
    const lease = this.#leases.get(token)
    const ref: LeaseRef = { queue: entry.queue, subscription: entry.subscription, seq: entry.seq, token }
    if (lease === undefined) {
      const said = this.#options.unheard.find(step, token, entry.holder)
      if (said !== undefined) return said === 'asked' ? undefined : said
      step.emit({ name: 'settled', queue: entry.queue, outcome: 'found', count: 1 })
      return afterRelease(ref, entry)
    }
    if (lease.touchedAt >= askedAt) return undefined
    if (lease.unheard !== undefined) {
      const leaseMs = Math.max(queue.rules.reliable.leaseMs, UNHEARD_MS)
      this.#options.time.soon(step.now + leaseMs)
      return sayAgain(lease, lease.unheard, leaseMs)
    }
    const { leaseMs, maxLeaseMs } = queue.rules.reliable
    const isOldest = step.now >= (entry.claimedAt ?? 0) + maxLeaseMs
    if (!isOldest && this.#options.mayBeHeld(step, lease)) {
      this.#options.time.soon(step.now + leaseMs)
      return { ...ref, type: 'extend', holder: lease.holder, leaseMs, maxLeaseMs }
    }
    if (!lease.isReceived) this.#options.onUnreceived(lease)
    this.remove(lease)
    step.emit({ name: 'settled', queue: entry.queue, outcome: 'lease-over', count: 1 })
    if (!lease.isReceived) return afterRelease(ref, entry)
    return afterFailure(step, queue.rules.reliable, ref, entry, { kind: 'backoff' }, 'The lease was over.')
  }

  /** Looks up what is known of an entry's past: of a lease that was made in an earlier life. `undefined`: it is not leased so. */
  lookUp(lease: LeaseRef, then: (step: Step, standing: Standing | undefined | 'unavailable') => void): void {
    const { queue, subscription, seq, token } = lease
    const request = { queue, subscription, after: seq - 1, max: 1, bodies: false }
    this.#options.calls.browse(request, (step, answer) => {
      if (answer.status === 'unavailable') {
        then(step, 'unavailable')
        return
      }
      const entry = answer.entries[0]
      then(step, entry?.seq === seq && entry.token === token && entry.state === 'leased' ? entry : undefined)
    })
  }

  /** Applies operations whose answers nobody waits for. */
  apply(ops: readonly StoreOp[]): void {
    this.#options.calls.apply(ops, (step, results) => {
      for (const [at, op] of ops.entries()) {
        if (results[at]?.status === 'unavailable' && isFinal(op)) this.#options.unheard.keep(step, op, true)
      }
      this.applied(step, ops, results)
    })
  }

  /** Looks at what operations have come to: retries are due at a time, the dead are told of, signs of life were heard or not. */
  applied(step: Step, ops: readonly StoreOp[], results: readonly StoreResult[]): void {
    for (const [at, op] of ops.entries()) {
      if (op.type === 'extend' || op.type === 'received') {
        const lease = this.#leases.get(op.token)
        if (lease !== undefined) lease.unheard = results[at]?.status === 'unavailable' ? op.type : undefined
      }
      if (results[at]?.status !== 'ok') continue
      // Also where that is past by now: the store, which was asked earlier, has it delayed.
      if (op.type === 'nack') this.#options.time.soon(op.at)
      else if (op.type === 'dead') this.#died(step, op, op.reason)
      else if (op.type === 'expire') this.#died(step, op, 'expired')
    }
  }

  #died(
    step: Step,
    { queue, subscription, seq }: EntryRef,
    reason: 'expired' | Extract<StoreOp, { type: 'dead' }>['reason'],
  ): void {
    step.emit({ name: 'dead-lettered', queue, line: subscription, seq, reason })
    const line = this.#options.queues.find(queue)?.lines.get(subscription)
    if (line !== undefined) this.#options.time.diedIn(step, line)
  }

  /** Its worker died with it. */
  #fail(step: Step, lease: Lease, ops: StoreOp[]): void {
    const ref = refOf(lease)
    const rules = lease.queue.rules.reliable
    const fail = (at: Step, standing: Standing) =>
      afterFailure(at, rules, ref, standing, { kind: 'once-at-once' }, "The worker's session ended.")
    if (lease.standing !== undefined) ops.push(fail(step, lease.standing))
    else {
      this.#failing.set(ref.token, lease.holder)
      this.lookUp(ref, (later, standing) => {
        // Another session of its holder may have taken it over meanwhile, or settled it: then that counts.
        const isOpen = this.#failing.delete(ref.token) && !this.hasToken(ref.token)
        if (typeof standing === 'object' && isOpen) this.apply([fail(later, standing)])
      })
    }
  }

  #detach(lease: Lease): void {
    const { consumer } = lease
    if (consumer === undefined) return
    lease.consumer = undefined
    consumer.leases.delete(lease)
    this.#options.onRoom(consumer)
    if (consumer.leases.size === 0) this.#options.onIdle(consumer)
  }
}

/** The worker's last sign of life. */
function sayAgain(lease: Lease, type: 'received' | 'extend', leaseMs: number): StoreOp {
  if (type === 'received') return { ...refOf(lease), type, leaseMs }
  const { maxLeaseMs } = lease.queue.rules.reliable
  return { ...refOf(lease), type, holder: lease.holder, leaseMs, maxLeaseMs }
}

/** A lease as operations name it: whoever holds it. */
export function refOf({ queue, lineId, seq, token }: Lease): LeaseRef {
  return { queue: queue.address, subscription: lineId, seq, token }
}
