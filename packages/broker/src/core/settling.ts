/**
 * What workers say of their leases: ack, nack, release, reject, extend. docs/protocol-reliable.md "Settling".
 *
 *     settlements --> operations --apply--> their answers --> what failed, to whoever waits for it
 *                 \-> a nack of a lease from before a restart: its past is looked up first
 *
 * Any resource of the bare JID that a lease was made for may settle it, also when it is over: the store honours a late ack and a
 * late extend while the message is not leased anew.
 *
 * Invariants:
 * 1. `settled` is sent only on the store's answer.
 * 2. Credit is free from the moment at which the worker lets go, whatever the store answers.
 * 3. A lease that is taken over by `extend` belongs to the session that sent it.
 */
import { bareOf, type FailedSettlement, type Settlement, type SettlementResult, XmqError } from '@xmq/protocol'
import type { StoreOp, StoreResult } from '../store/port.ts'
import { afterFailure, afterRelease, type LeaseRef, type Retry, type Standing } from './backoff.ts'
import { createLease } from './deliveries.ts'
import type { Ephemeral } from './ephemeral.ts'
import { lineIdOf, parseLease, type WireLease } from './lease-token.ts'
import type { Leases } from './leases.ts'
import type { LeaseEnd } from './port.ts'
import type { Lease, Queue } from './records.ts'
import type { Step } from './step.ts'
import { type StoreCalls, unavailable } from './store-calls.ts'

/** What {@link Settling} needs. */
export interface SettlingOptions {
  readonly calls: StoreCalls
  readonly leases: Leases
  readonly ephemeral: Ephemeral
}

/** Gets what failed, when all is done. */
export type OnSettled = (step: Step, failed: readonly FailedSettlement[]) => void

interface Planned {
  readonly settlement: Settlement
  readonly ref: LeaseRef
  readonly op: StoreOp
  /** Of an extend. */
  readonly lease: Lease | undefined
  /** Of an extend: the lease was not known before. */
  readonly isTakenOver?: boolean
}

interface Batch {
  readonly queue: Queue
  /** Full JID. */
  readonly sender: string
  /** In the order of the batch: one that is being looked up has its place, and is absent when nothing is to be done. */
  readonly planned: (Planned | undefined)[]
  /** Nacks whose past is being looked up. */
  pending: number
  readonly failed: FailedSettlement[]
  readonly onDone: OnSettled
}

/** See the top of this file. */
export class Settling {
  readonly #options: SettlingOptions

  constructor(options: SettlingOptions) {
    this.#options = options
  }

  /** Does what a worker says. @param sender full JID */
  settle(step: Step, queue: Queue, sender: string, results: readonly SettlementResult[], onDone: OnSettled): void {
    const batch: Batch = { queue, sender, planned: [], pending: 0, failed: [], onDone }
    for (const result of results) {
      if (result.ok) this.#plan(step, batch, result.settlement)
      else batch.failed.push({ lease: result.lease, error: result.error })
    }
    if (batch.pending === 0) this.#apply(step, batch)
  }

  #plan(step: Step, batch: Batch, settlement: Settlement): void {
    const { queue, sender } = batch
    const wire = parseLease(settlement.lease)
    if (wire === undefined) {
      batch.failed.push({ lease: settlement.lease, error: noLease() })
      return
    }
    const holder = bareOf(sender)
    const lease = this.#options.leases.find(wire.token, queue, holder)
    if (lease?.ephemeral !== undefined) {
      this.#options.ephemeral.settle(step, lease, settlement)
      this.#tell(step, queue, OUTCOMES[settlement.kind], 1)
      return
    }
    const subscription = lineIdOf(holder, wire.name)
    const ref: LeaseRef = { queue: queue.address, subscription, seq: wire.seq, token: wire.token, holder }
    if (settlement.kind === 'extend') {
      this.#planExtend(step, batch, settlement, ref, wire, lease)
      return
    }
    const standing = lease?.standing
    if (lease !== undefined) this.#options.leases.remove(lease)
    if (settlement.kind !== 'nack' || standing !== undefined) {
      batch.planned.push({ settlement, ref, op: this.#op(step, queue, settlement, ref, standing), lease: undefined })
      return
    }
    batch.pending++
    const place = batch.planned.push(undefined) - 1
    this.#options.leases.lookUp(ref, (later, found) => {
      if (found === 'unavailable') batch.failed.push({ lease: settlement.lease, error: tryAgain() })
      else if (found === undefined) batch.failed.push({ lease: settlement.lease, error: noLease() })
      else {
        this.#forgetExtended(batch, place, wire.token)
        const op = this.#op(later, queue, settlement, ref, found)
        batch.planned[place] = { settlement, ref, op, lease: undefined }
      }
      if (--batch.pending === 0) this.#apply(later, batch)
    })
  }

  /** An extend that came while a nack was looked up goes to the store before it: what it took over ends with the nack. */
  #forgetExtended({ queue, sender, planned }: Batch, place: number, token: string): void {
    if (planned.slice(place).some((later) => later?.op.type === 'extend' && later.ref.token === token)) return
    const lease = this.#options.leases.find(token, queue, bareOf(sender))
    if (lease !== undefined) this.#options.leases.remove(lease)
  }

  #planExtend(
    step: Step,
    batch: Batch,
    settlement: Settlement,
    ref: LeaseRef,
    wire: WireLease,
    known: Lease | undefined,
  ): void {
    const { queue, sender } = batch
    const { leaseMs, maxLeaseMs } = queue.rules.reliable
    if (known === undefined && this.#options.leases.hasToken(wire.token)) {
      batch.failed.push({ lease: settlement.lease, error: noLease() })
      return
    }
    // Taken over before the answer, so that nothing that is on its way ends it meanwhile.
    const lease =
      known ?? createLease(queue, ref.subscription, wire.name, { ...wire, holder: ref.holder ?? bareOf(sender) })
    lease.touchedAt = step.now
    lease.isReceived = true
    this.#options.leases.add(lease, queue.consumers.get(sender) ?? lease.consumer)
    const op: StoreOp = { ...ref, type: 'extend', leaseMs, maxLeaseMs }
    batch.planned.push({ settlement, ref, op, lease, isTakenOver: known === undefined })
  }

  #op(
    step: Step,
    queue: Queue,
    settlement: Exclude<Settlement, { readonly kind: 'extend' }>,
    ref: LeaseRef,
    standing: Standing | undefined,
  ): StoreOp {
    if (settlement.kind === 'ack') return { ...ref, type: 'ack' }
    if (settlement.kind === 'release') return afterRelease(ref, standing)
    if (settlement.kind === 'reject') {
      return { ...ref, type: 'dead', reason: settlement.reason, why: settlement.why }
    }
    const { delayMs, why } = settlement
    const retry: Retry = delayMs === undefined ? { kind: 'backoff' } : { kind: 'delay', ms: delayMs }
    const known = standing ?? { topic: '', failures: 0, deliveries: 0, expiresAt: undefined }
    return afterFailure(step, queue.rules.reliable, ref, known, retry, why)
  }

  #apply(step: Step, batch: Batch): void {
    const { failed, onDone } = batch
    const planned = batch.planned.filter((one) => one !== undefined)
    if (planned.length === 0) {
      onDone(step, failed)
      return
    }
    const ops = planned.map(({ op }) => op)
    this.#options.calls.apply(ops, (later, results) => {
      this.#options.leases.applied(later, ops, results)
      this.#conclude(later, batch, planned, results)
      onDone(later, failed)
    })
  }

  #conclude(step: Step, { queue, failed }: Batch, planned: readonly Planned[], results: readonly StoreResult[]): void {
    const counts = new Map<LeaseEnd, number>()
    for (const [at, { settlement, lease, isTakenOver }] of planned.entries()) {
      const result = results[at]
      if (result?.status === 'ok') {
        const outcome = OUTCOMES[settlement.kind]
        counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
        continue
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
