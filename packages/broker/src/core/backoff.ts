/** What becomes of a message whose handling did not succeed: design section 5, the rows of LEASED. Pure policy, no state. */
import type { DeadOp, EntryRef, NackOp, ReleaseOp } from '../store/port.ts'
import type { ReliableRules } from './reliable-rules.ts'
import type { Step } from './step.ts'

/** A message that goes out so often without ever being acked or failed is given up: something kills whoever takes it. */
export const DELIVERIES_MAX = 20

/** What is known of a leased message, and decides its fate. */
export interface Standing {
  readonly topic: string
  readonly failures: number
  /** The one that ends now included. */
  readonly deliveries: number
  readonly expiresAt: number | undefined
}

/** A lease of an entry. */
export interface LeaseRef extends EntryRef {
  readonly token: string
  readonly holder?: string | undefined
}

/** When a failed message is tried again. */
export type Retry =
  /** After the queue's backoff. */
  | { readonly kind: 'backoff' }
  /** After what the worker asked for. */
  | { readonly kind: 'delay'; readonly ms: number }
  /** At once where it is the first failure (its worker died, which may be no fault of the message), else after the backoff. */
  | { readonly kind: 'once-at-once' }

/** Milliseconds until a retry: full jitter over a bound that doubles with each failure. @param failures from 1 */
function backoffMs(failures: number, rules: ReliableRules, unit: number): number {
  const bound = Math.min(rules.backoffMaxMs, rules.backoffMs * 2 ** Math.min(failures - 1, 40))
  return Math.floor(unit * bound)
}

/** The operation on a message that failed: a nack, or its death. */
export function afterFailure(
  step: Step,
  rules: ReliableRules,
  lease: LeaseRef,
  standing: Standing,
  retry: Retry,
  why: string,
): NackOp | DeadOp {
  const { expiresAt } = standing
  const failures = standing.failures + 1
  const dead = { ...refOf(lease), type: 'dead', why, failures } as const
  if (expiresAt !== undefined && expiresAt <= step.now) return { ...dead, reason: 'expired' }
  if (failures >= rules.maxAttempts) return { ...dead, reason: 'max-attempts' }
  return { ...refOf(lease), type: 'nack', at: step.now + retryMs(step, rules, retry, failures), failures, why }
}

function retryMs(step: Step, rules: ReliableRules, retry: Retry, failures: number): number {
  if (retry.kind === 'delay') return retry.ms
  if (retry.kind === 'once-at-once' && failures === 1) return 0
  return backoffMs(failures, rules, step.entropy.unit())
}

/** The operation on a message that was handed out in vain: it counts no failure, but not for ever. */
export function afterRelease(lease: LeaseRef, standing: Standing | undefined): ReleaseOp | DeadOp {
  if (standing === undefined || standing.deliveries < DELIVERIES_MAX) return { ...refOf(lease), type: 'release' }
  const why = `It was handed out ${standing.deliveries} times, and nobody settled it.`
  return { ...refOf(lease), type: 'dead', reason: 'max-attempts', why }
}

function refOf({ queue, subscription, seq, token, holder }: LeaseRef): LeaseRef {
  return { queue, subscription, seq, token, holder }
}
