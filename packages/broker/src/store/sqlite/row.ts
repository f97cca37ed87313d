/** How rows and messages look in memory and in the file. */
import { crc32 } from 'node:zlib'
import { DEAD_REASONS, type DeadReason, type EntryState, type HistoryEntry } from '../entry.ts'
import type { PublishOp } from '../operations.ts'
import type { Value } from './statements.ts'

/** entries.state. */
export const CLAIMABLE = 1
export const BLOCKED = 2
export const DELAYED = 3
export const LEASED = 4
export const DEAD = 5
/** Of a row that is not in the file (any more). */
export const GONE = 0

/** entries.rank: what makes order numbers and priorities one number. */
const RANK = 2 ** 44

export const rankOf = (priority: number, ord: number): number => (9 - priority) * RANK + ord
/** The rank with another order number. */
export const rankWith = (rank: number, ord: number): number => Math.floor(rank / RANK) * RANK + ord

const STATES: readonly EntryState[] = ['ready', 'ready', 'ready', 'delayed', 'leased', 'dead']
export const stateOf = (row: Row): EntryState => STATES[row.state] as EntryState

/** A row of `entries`. */
export interface Row {
  readonly line: number
  readonly seq: number
  readonly topic: number
  readonly lane: number
  state: number
  ord: number
  rank: number
  at: number
  expiresAt: number | null
  failures: number
  deliveries: number
  token: Buffer | null
  holder: Buffer | null
  claimedAt: number
  readonly leaseMs: number
  isCounted: number
  history: Buffer | null
  readonly bytes: number
  readonly key: Buffer | null
  reason: number
  readonly isShared: number
  readonly dedupeUntil: number | null
  readonly isDroppable: number
}

export function readRow(values: readonly Value[]): Row {
  const n = values as readonly number[]
  const b = values as readonly (Buffer | null)[]
  return {
    line: n[0] as number,
    seq: n[1] as number,
    topic: n[2] as number,
    lane: n[3] as number,
    state: n[4] as number,
    ord: n[5] as number,
    rank: n[6] as number,
    at: n[7] as number,
    expiresAt: values[8] as number | null,
    failures: n[9] as number,
    deliveries: n[10] as number,
    token: b[11] as Buffer | null,
    holder: b[12] as Buffer | null,
    claimedAt: n[13] as number,
    leaseMs: n[14] as number,
    isCounted: n[15] as number,
    history: b[16] as Buffer | null,
    bytes: n[17] as number,
    key: b[18] as Buffer | null,
    reason: n[19] as number,
    isShared: n[20] as number,
    dedupeUntil: values[21] as number | null,
    isDroppable: n[22] as number,
  }
}

/** The values of `addEntry`. */
export function allValues(row: Row): Value[] {
  return [
    row.line,
    row.seq,
    row.topic,
    row.lane,
    row.state,
    row.ord,
    row.rank,
    row.at,
    row.expiresAt,
    row.failures,

    row.deliveries,
    row.token,
    row.holder,
    row.claimedAt,
    row.leaseMs,
    row.isCounted,
    row.history,
    row.bytes,
    row.key,
    row.reason,
    row.isShared,
    row.dedupeUntil,
    row.isDroppable,
  ]
}

/** The values of `saveEntry`. */
export function changedValues(row: Row): Value[] {
  return [
    row.state,
    row.ord,
    row.rank,
    row.at,
    row.expiresAt,
    row.failures,
    row.deliveries,
    row.token,
    row.holder,
    row.claimedAt,
    row.isCounted,
    row.history,
    row.reason,
    row.line,
    row.seq,
  ]
}

export const reasonOf = (row: Row): DeadReason => DEAD_REASONS[row.reason] as DeadReason
export const textOf = (value: Buffer | null): string | undefined => value?.toString()
export const historyOf = (row: Row): HistoryEntry[] =>
  row.history === null ? [] : (JSON.parse(row.history.toString()) as HistoryEntry[])

/** The part of a message that its entries show. */
export interface MessageHead {
  readonly topic: string
  readonly id?: string
  readonly sender: string
  readonly key?: string
  readonly priority: number
  readonly publishedAt: number
}

/** The values of `addMessage` but the seq. */
export function encodeMessage(op: PublishOp, now: number): Value[] {
  const { topic, id, sender, key, priority } = op
  const head = JSON.stringify({ topic, id, sender, key, priority, publishedAt: now } satisfies Record<
    keyof MessageHead,
    unknown
  >)
  const data = Buffer.from(head + op.meta + op.body)
  return [Buffer.byteLength(head), Buffer.byteLength(op.meta), crc32(data), data]
}

/** A head that cannot be read, since the file is damaged, becomes an empty one: its entry can still be listed and ended. */
export function decodeHead(head: Buffer): MessageHead {
  try {
    return JSON.parse(head.toString()) as MessageHead
  } catch {
    return { topic: '', sender: '', priority: 0, publishedAt: 0 }
  }
}

/** A row of `readMessage`; undefined when it fails its checksum. */
export function decodeMessage(
  values: readonly Value[] | undefined,
): { readonly head: MessageHead; readonly meta: string; readonly body: string } | undefined {
  if (values === undefined) return undefined
  const [headBytes, metaBytes, sum, data] = values as [number, number, number, Buffer]
  if (crc32(data) !== sum) return undefined
  return {
    head: decodeHead(data.subarray(0, headBytes)),
    meta: data.toString('utf8', headBytes, headBytes + metaBytes),
    body: data.toString('utf8', headBytes + metaBytes),
  }
}
