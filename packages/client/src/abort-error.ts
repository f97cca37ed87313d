/** Why a signal was fired, as an error of ours. */
import { XmqError } from '@xmq/protocol'

/** `timeout` for `AbortSignal.timeout()`, else `aborted`; the signal's reason is the cause. */
export function abortError(signal: AbortSignal): XmqError {
  const reason: unknown = signal.reason
  const timedOut = reason instanceof Error && reason.name === 'TimeoutError'
  if (timedOut) return new XmqError('timeout', "The time of the caller's signal ran out.", { cause: reason })
  return new XmqError('aborted', "The caller's signal was aborted.", { cause: reason })
}
