/**
 * What workers say of their leases: ack, nack, release, reject, extend. docs/protocol-reliable.md "Settling".
 *
 *     settlements --> plan --> operations --apply--> their answers --> what failed, to whoever waits for it
 *                 \-> a nack of a lease from before a restart: its past is looked up before the batch is planned
 *
 * Any resource of the bare JID that a lease was made for may settle it, also when it is over: the store honours a late ack and a
 * late extend while the message is not leased anew.
 *
 * Invariants:
 * 1. `settled` is sent only on the store's answer.
 * 2. Credit is free from the moment at which the worker lets go, whatever the store answers.
 * 3. A lease that is taken over by `extend` belongs to the session that sent it.
 * 4. Whatever a worker says of a lease takes the place of what was said before and the store has not heard.
 * 5. Leases are let go and taken over in the order in which the operations go to the store: whatever a batch does to either, it
 *    does in one step.
 */
import { bareOf, type FailedSettlement, type Settlement, type SettlementResult, XmqError } from '@xmq/protocol'
import type { StoreOp, StoreResult } from '../store/port.ts'
import { afterFailure, afterRelease, type LeaseRef, type Retry, type Standing } from './backoff.ts'
import { createLease } from './deliveries.ts'
import type { Ephemeral } from './ephemeral.ts'
import type { Found } from './found.ts'
import { lineIdOf, parseLease, type WireLease } from './lease-token.ts'
import type { Leases } from './leases.ts'
import type { LeaseEnd } from './port.ts'
import type { Lease, Queue } from './records.ts'
import type { Step } from './step.ts'
import { type StoreCalls, unavailable } from './store-calls.ts'
import { isFinal, type Unheard } from './unheard.ts'

/** What {@link Settling} needs. */
export interface SettlingOptions {
  readonly calls: StoreCalls
  readonly leases: Leases
  readonly ephemeral: Ephemeral
  readonly found: Found
  readonly unheard: Unheard
}

/** Gets what failed, when all is done. */
export type OnSettled = (step: Step, failed: readonly FailedSettlement[]) => void

interface Planned {
  readonly settlement: Settlement
  readonly op: StoreOp
  /** Of an extend. */
  readonly lease: Lease | undefined
  /** There was such a lease. */
  readonly isKnown: boolean
  /** Of an extend: the lease was not known before. */
  readonly isTakenOver?: boolean
}

interface Batch {
  readonly queue: Queue
  /** Full JID. */
  readonly sender: string
  /** Its bare JID. */
  readonly holder: string
  readonly results: readonly SettlementResult[]
  /** What was looked up of nacks, by token. */
  readonly standings: Map<string, Standing | undefined | 'unavailable'>
  /** Tokens of leases that an extend of this batch has taken over: nobody here knew them. */
  readonly takenOver: Set<string>
  pending: number
  /** In the order of the batch. */
  readonly planned: Planned[]
  readonly failed: FailedSettlement[]
  readonly onDone: OnSettled | undefined
}

/** See the top of this file. */
export class Settling {
  readonly #options: SettlingOptions

  constructor(options: SettlingOptions) {
    this.#options = options
  }

  /**
   * Does what a worker says.
   * @param sender full JID
   * @param onDone undefined when nobody waits for an answer, nor will say it again
   */
  settle(step: Step, queue: Queue, sender: string, results: readonly SettlementResult[], onDone?: OnSettled): void {
    const batch: Batch = {
      queue,
      sender,
      holder: bareOf(sender),
      results,
      standings: new Map(),
      takenOver: new Set(),
      pending: 0,
      planned: [],
      failed: [],
      onDone,
    }
    if (this.#options.found.isOpen(queue)) this.#name(queue, results)
    for (const result of results) {
      if (result.ok && result.settlement.kind === 'nack') this.#lookUp(batch, result.settlement.lease)
    }
    if (batch.pending === 0) this.#apply(step, batch)
    else this.#keepExtended(step, batch)
  }

  /** What is named here is its worker's: not to be given to others, whatever comes of it. */
  #name(queue: Queue, results: readonly SettlementResult[]): void {
    for (const result of results) {
      const wire = result.ok ? parseLease(result.settlement.lease) : undefined
      if (wire !== undefined) this.#options.found.named(queue, wire.token)
    }
  }

  /** What a batch that has to wait extends is not to end meanwhile. */
  #keepExtended(step: Step, batch: Batch): void {
    for (const result of batch.results) {
      const wire = result.ok && result.settlement.kind === 'extend' ? parseLease(result.settlement.lease) : undefined
      if (wire !== undefined) this.#takeOver(step, batch, wire)
    }
  }

  /** The past of a nack's message decides what it comes to: of a lease from before a restart only the store knows it. */
  #lookUp(batch: Batch, text: string): void {
    const wire = parseLease(text)
    if (wire === undefined || batch.standings.has(wire.token)) return
    const { queue, holder, standings } = batch
    const lease = this.#options.leases.find(wire.token, queue, holder)
    if (lease?.ephemeral !== undefined) return
    standings.set(wire.token, lease?.standing)
    if (lease?.standing !== undefined) return
    batch.pending++
    const ref = { queue: queue.address, subscription: lineIdOf(holder, wire.name), seq: wire.seq, token: wire.token }
    this.#options.leases.lookUp(ref, (later, found) => {
      standings.set(wire.token, found)
      if (--batch.pending === 0) this.#apply(later, batch)
    })
  }

  #plan(step: Step, batch: Batch, settlement: Settlement): void {
    const { queue, holder } = batch
    const wire = parseLease(settlement.lease)
    if (wire === undefined) {
      batch.failed.push({ lease: settlement.lease, error: noLease() })
      return
    }
    this.#options.unheard.forget(wire.token, holder)
    this.#options.leases.settled(wire.token, holder)
    const lease = this.#options.leases.find(wire.token, queue, holder)
    if (lease?.ephemeral !== undefined) {
      this.#options.ephemeral.settle(step, lease, settlement)
      this.#tell(step, queue, OUTCOMES[settlement.kind], 1)
      return
    }
    const subscription = lineIdOf(holder, wire.name)
    const ref: LeaseRef = { queue: queue.address, subscription, seq: wire.seq, token: wire.token, holder }
    if (settlement.kind === 'extend') {
      this.#planExtend(step, batch, settlement, ref, wire)
      return
    }
    const standing = settlement.kind === 'nack' ? batch.standings.get(wire.token) : lease?.standing
    if (settlement.kind === 'nack' && typeof standing !== 'object') {
      batch.failed.push({ lease: settlement.lease, error: standing === 'unavailable' ? tryAgain() : noLease() })
      return
    }
    if (lease !== undefined) this.#options.leases.remove(lease)
    const known = typeof standing === 'object' ? standing : undefined
    const op = this.#op(step, queue, settlement, ref, known)
    batch.planned.push({ settlement, op, lease: undefined, isKnown: lease !== undefined })
  }

  #planExtend(step: Step, batch: Batch, settlement: Settlement, ref: LeaseRef, wire: WireLease): void {
    const { leaseMs, maxLeaseMs } = batch.queue.rules.reliable
    const lease = this.#takeOver(step, batch, wire)
    if (lease === undefined) {
      batch.failed.push({ lease: settlement.lease, error: noLease() })
      return
    }
    const op: StoreOp = { ...ref, type: 'extend', leaseMs, maxLeaseMs }
    batch.planned.push({ settlement, op, lease, isKnown: true, isTakenOver: batch.takenOver.has(wire.token) })
  }

  /**
   * Gives a lease to who extends it, before the store answers, so that nothing that is on its way ends it meanwhile.
   * @returns undefined when it is somebody else's
   */
  #takeOver(step: Step, { queue, sender, holder, takenOver }: Batch, wire: WireLease): Lease | undefined {
    const { leases } = this.#options
    const known = leases.find(wire.token, queue, holder)
    if (known?.ephemeral !== undefined || (known === undefined && leases.hasToken(wire.token))) return undefined
    const lease = known ?? createLease(queue, lineIdOf(holder, wire.name), wire.name, { ...wire, holder })
    if (known === undefined) takenOver.add(wire.token)
    lease.touchedAt = step.now
    lease.isReceived = true
    lease.isAwaited = false
    // Named from elsewhere since the stream broke, by a worker that has not subscribed yet: no end of its old session is about it.
    const before = lease.consumer?.session
    const isBack = before !== undefined && before.isUnseen && before.jid !== sender
    leases.add(lease, queue.consumers.get(sender) ?? (isBack ? undefined : lease.consumer))
    return lease
  }

  #op(
    step: Step,
    queue: Queue,
    settlement: Exclude<Settlement, { readonly kind: 'extend' }>,
    ref: LeaseRef,
    standing: Standing | undefined,
  ): StoreOp {
    if (settlement.kind === 'ack') return ackOf(ref)
    if (settlement.kind === 'release') return afterRelease(ref, standing)
    if (settlement.kind === 'reject') {
      return { ...ref, type: 'dead', reason: settlement.reason, why: settlement.why }
    }
    const { delayMs, why } = settlement
    const retry: Retry = delayMs === undefined ? { kind: 'backoff' } : { kind: 'delay', ms: delayMs }
    const known = standing ?? { topic: '', failures: 0, deliveries: 0, expiresAt: undefined }
    return afterFailure(step, queue.rules.reliable, ref, known, retry, why)
  }

  /** All that is needed is known: plans the whole batch, and sends it to the store. */
  #apply(step: Step, batch: Batch): void {
    const { results: said, planned, failed, onDone } = batch
    for (const result of said) {
      if (result.ok) this.#plan(step, batch, result.settlement)
      else failed.push({ lease: result.lease, error: result.error })
    }
    if (planned.length === 0) {
      onDone?.(step, failed)
      return
    }
    const ops = planned.map(({ op }) => op)
    this.#options.calls.apply(ops, (later, results) => {
      this.#options.leases.applied(later, ops, results)
      this.#conclude(later, batch, planned, results)
      onDone?.(later, failed)
    })
  }

  #conclude(
    step: Step,
    { queue, failed, onDone }: Batch,
    planned: readonly Planned[],
    results: readonly StoreResult[],
  ): void {
    const counts = new Map<LeaseEnd, number>()
    for (const [at, { settlement, op, lease, isKnown, isTakenOver }] of planned.entries()) {
      const result = results[at]
      if (result?.status === 'ok') {
        const outcome = OUTCOMES[settlement.kind]
        counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
        continue
      }
      // Who is told says it again, perhaps too late. Only an ack that was done by then succeeds again.
      if (result?.status === 'unavailable' && isFinal(op) && (onDone === undefined || op.type === 'ack')) {
        // A batch that had waited may have extended it meanwhile, which was said before.
        const again = op.holder === undefined ? undefined : this.#options.leases.find(op.token, queue, op.holder)
        if (again !== undefined) this.#options.leases.remove(again)
        this.#options.unheard.keep(step, op, isKnown, OUTCOMES[settlement.kind])
      }
      const error = result?.status === 'unavailable' ? unavailable(result.error) : noLease()
      failed.push({ lease: settlement.lease, error })
      if (lease !== undefined && (isTakenOver === true || result?.status !== 'unavailable'))
        this.#options.leases.remove(lease)
    }
    for (const [outcome, count] of counts) this.#tell(step, queue, outcome, count)
  }

  #tell(step: Step, { address }: Queue, outcome: LeaseEnd, count: number): void {
    step.emit({ name: 'settled', queue: address, outcome, count })
  }
}

/** By name, since a spread is slow: most operations are acks. */
function ackOf({ queue, subscription, seq, token, holder }: LeaseRef): StoreOp {
  return { queue, subscription, seq, token, holder, type: 'ack' }
}

const OUTCOMES: Readonly<Record<Settlement['kind'], LeaseEnd>> = {
  ack: 'acked',
  nack: 'nacked',
  release: 'released',
  reject: 'rejected',
  extend: 'extended',
}

function noLease(): XmqError {
  return new XmqError(
    'not-found',
    'This lease is over, or never was: somebody else may have the message. Stop its work.',
  )
}

function tryAgain(): XmqError {
  return new XmqError('overloaded', "The broker's store does not answer now. Settle it again.", {
    retryAfterSeconds: 1,
  })
}
