/** What every store bounds and measures in the same way. */
import { XmqError } from '@xmq/protocol/errors'
import { HISTORY_MAX, type HistoryEntry, WHY_LENGTH_MAX } from './entry.ts'
import type { PublishOp } from './operations.ts'

/** Most bytes of one message's body and meta that the embedded stores take. */
export const BODY_BYTES_MAX: number = 8 * 1024 * 1024

/** The bytes that a message counts with. */
export function bytesOf(op: PublishOp): number {
  return Buffer.byteLength(op.body) + Buffer.byteLength(op.meta)
}

/** The history with one more entry, the oldest given up for it where needed. */
export function withHistory(
  history: readonly HistoryEntry[],
  { at, holder, why, deliveries }: Pick<HistoryEntry, 'at' | 'holder' | 'why'> & { readonly deliveries: number },
): HistoryEntry[] {
  const attempt = holder === '' ? {} : { attempt: deliveries }
  return [...history.slice(-(HISTORY_MAX - 1)), { at, holder, why: why.slice(0, WHY_LENGTH_MAX), ...attempt }]
}

/** The answer of a store that was closed. */
export function closedError(): XmqError {
  return new XmqError('closed', 'The store is closed. Open another one.', { type: 'wait' })
}
