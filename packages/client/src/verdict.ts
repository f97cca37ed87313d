/** What a handler may throw to say what becomes of its message, and what anything else that it throws means. */
import { DELAY_MS_MAX, type XmqError } from '@xmq/protocol'
import { type Duration, parseDuration } from './duration.ts'
import type { Outcome } from './session/index.ts'

/**
 * Thrown by a handler: this message can never be handled. On a reliable queue it becomes a dead letter at once, with this text
 * in its history; a request is answered with `handler-failed`.
 */
export class Reject extends Error {
  override readonly name = 'Reject'
}

/**
 * Thrown by a handler: not now; again after this long. It counts as a failed attempt. A request is answered with
 * `handler-failed`.
 */
export class RetryAfter extends Error {
  override readonly name = 'RetryAfter'
  /** Milliseconds. */
  readonly delayMs: number

  /**
   * @param delay at most a year
   * @param message for the message's history
   * @throws XmqError `invalid-config` on what is no duration
   */
  constructor(delay: Duration, message?: string, options?: { readonly cause?: unknown }) {
    const delayMs = Math.min(parseDuration(delay, 'delay'), DELAY_MS_MAX)
    super(message ?? `again after ${delayMs} ms`, options)
    this.delayMs = delayMs
  }
}

/** What a failed attempt means for a leased message. @param isReleased whether it failed because it was told to stop */
export function outcomeOfFailure(error: XmqError, isReleased: boolean): Outcome {
  const { cause } = error
  if (cause instanceof Reject) return { kind: 'reject', reason: 'rejected', why: cause.message }
  if (error.code === 'invalid-payload') return { kind: 'reject', reason: 'invalid', why: error.message }
  if (isReleased || error.code === 'overloaded') return { kind: 'release' }
  if (cause instanceof RetryAfter) return { kind: 'nack', delayMs: cause.delayMs, why: cause.message }
  return { kind: 'nack', why: error.message }
}
