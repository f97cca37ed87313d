/** How entries look in memory and in the file. message-data.ts has how their messages do. */
import { DEAD_REASONS, type DeadReason, type EntryState, type HistoryEntry } from '../entry.ts'
import { BODY_BYTES_MAX } from '../limits.ts'
import { dataBytesOf, dedupeUntilOf, isApartData, isSharedData } from './message-data.ts'
import { lineOf } from './shelf.ts'
import type { Value } from './statements.ts'

/** entries.state. All are numbers that SQLite stores in one byte, so that a change of it never moves a row. */
export const CLAIMABLE = 2
export const BLOCKED = 3
export const DELAYED = 4
export const LEASED = 5
export const DEAD = 6
/** Of a row that is not in the file (any more). */
export const GONE = 0

/** entries.rank: what makes order numbers and priorities one number. */
const RANK = 2 ** 44

export const rankOf = (priority: number, ord: number): number => (9 - priority) * RANK + ord
/** The rank with another order number. */
export const rankWith = (rank: number, ord: number): number => Math.floor(rank / RANK) * RANK + ord
/** The order number; 0 before the first READY. */
export const ordOf = (rank: number): number => rank % RANK

const STATES: Readonly<Record<number, EntryState>> = { 2: 'ready', 3: 'ready', 4: 'delayed', 5: 'leased', 6: 'dead' }
export const stateOf = (row: Row): EntryState => STATES[row.state] as EntryState

/** An entry. What only a lease has (claimedAt, leaseMs) is 0 in other states. */
export interface Row {
  readonly line: number
  /** Where it lies: shelf.ts. */
  readonly shelf: number
  readonly seq: number
  readonly topic: number
  readonly lane: number
  readonly key: string | undefined
  /** Published with `dead-letter-oldest`. */
  readonly isDroppable: boolean
  /** UTF-8 bytes of body and meta. */
  readonly bytes: number
  /** Its body is shared with other entries. */
  readonly isShared: boolean
  /** Its body is in `bodies`. */
  readonly isApart: boolean
  /** When the window of its deduplication record is over; undefined without one. */
  readonly dedupeUntil: number | undefined
  /** The message, see message-data.ts; undefined where it was not read: a lease keeps none. */
  data: Buffer | undefined
  state: number
  rank: number
  /** dueAt of DELAYED, diedAt of DEAD. */
  at: number
  expiresAt: number | null
  failures: number
  deliveries: number
  token: string | undefined
  holder: string | undefined
  claimedAt: number
  leaseMs: number
  isCounted: boolean
  history: readonly HistoryEntry[]
  reason: number
}

/** entries.rest: what most entries never have. */
type Rest = [
  failures: number,
  deliveries: number,
  token: string | null,
  holder: string | null,
  isCounted: 0 | 1,
  reason: number,
  history: readonly HistoryEntry[],
]

const NO_HISTORY: readonly HistoryEntry[] = Object.freeze([])

/** What a row is made of, as it is read. */
export interface RowColumns {
  readonly shelf: number
  readonly seq: number
  readonly topic: number
  readonly lane: number
  readonly state: number
  readonly rank: number
  readonly at: number
  readonly expiresAt: number | null
  readonly isDroppable: boolean
  readonly key: string | undefined
  readonly rest: Buffer | null
  readonly data: Buffer
}

/** A row of the columns that `ENTRY` in statements.ts names. */
export function readRow(values: readonly Value[]): Row {
  const [shelf, seq, topic, lane, state, rank, at, expiresAt, isDroppable, key, rest, data] = values as [
    ...[number, number, number, number, number, number, number],
    number | null,
    number,
    Buffer | null,
    Buffer | null,
    Buffer,
  ]
  return rowOf({
    shelf,
    seq,
    topic,
    lane,
    state,
    rank,
    at,
    expiresAt,
    rest,
    data,
    isDroppable: isDroppable === 1,
    key: key === null ? undefined : key.toString(),
  })
}

export function rowOf(columns: RowColumns): Row {
  const { data, rest } = columns
  const row: Row = {
    line: lineOf(columns.shelf),
    shelf: columns.shelf,
    seq: columns.seq,
    topic: columns.topic,
    lane: columns.lane,
    key: columns.key,
    isDroppable: columns.isDroppable,
    // Never more than there can be: a damaged head must not make the counts of its line worthless.
    bytes: Math.min(dataBytesOf(data), isApartData(data) ? BODY_BYTES_MAX : data.length),
    isShared: isSharedData(data),
    isApart: isApartData(data),
    dedupeUntil: dedupeUntilOf(data),
    data,
    state: columns.state,
    rank: columns.rank,
    at: columns.at,
    expiresAt: columns.expiresAt,
    failures: 0,
    deliveries: 0,
    token: undefined,
    holder: undefined,
    claimedAt: 0,
    leaseMs: 0,
    isCounted: false,
    history: NO_HISTORY,
    reason: 0,
  }
  if (rest !== null) readRest(row, rest)
  return row
}

/** Another row that says the same. Written out, since a spread makes a hidden class for each. */
export function copyOf(row: Row): Row {
  return {
    line: row.line,
    shelf: row.shelf,
    seq: row.seq,
    topic: row.topic,
    lane: row.lane,
    key: row.key,
    isDroppable: row.isDroppable,
    bytes: row.bytes,
    isShared: row.isShared,
    isApart: row.isApart,
    dedupeUntil: row.dedupeUntil,
    data: row.data,
    state: row.state,
    rank: row.rank,
    at: row.at,
    expiresAt: row.expiresAt,
    failures: row.failures,
    deliveries: row.deliveries,
    token: row.token,
    holder: row.holder,
    claimedAt: row.claimedAt,
    leaseMs: row.leaseMs,
    isCounted: row.isCounted,
    history: row.history,
    reason: row.reason,
  }
}

function readRest(row: Row, rest: Buffer): void {
  const [failures, deliveries, token, holder, isCounted, reason, history] = JSON.parse(rest.toString()) as Rest
  row.failures = failures
  row.deliveries = deliveries
  row.token = token ?? undefined
  row.holder = holder ?? undefined
  row.isCounted = isCounted === 1
  row.reason = reason
  row.history = history
}

/** entries.rest of a row that is not leased. */
function restOf(row: Row): Buffer | null {
  const { failures, deliveries, token, holder, isCounted, reason, history } = row
  if (failures === 0 && deliveries === 0 && token === undefined && reason === 0 && history.length === 0) return null
  const rest: Rest = [failures, deliveries, token ?? null, holder ?? null, isCounted ? 1 : 0, reason, history]
  return Buffer.from(JSON.stringify(rest))
}

/** entries.ord: what the chain of a key goes by, of those that are in one. */
function chainOrdOf(row: Row): number | null {
  const ord = ordOf(row.rank)
  return row.key === undefined || ord === 0 || row.state === DEAD ? null : ord
}

/** Adds the values of one row of `addEntry` to a list. */
export function pushValues(values: Value[], row: Row): void {
  const { line, shelf, seq, topic, lane, state, rank, at, expiresAt, key, isDroppable } = row
  values.push(shelf, seq, line, topic, lane, state, rank, at, expiresAt, chainOrdOf(row), isDroppable ? 1 : 0)
  values.push(key === undefined ? null : Buffer.from(key), restOf(row), row.data as Buffer)
}

/** Whether {@link pushPlainValues} says all of a row that is new. */
export function isPlain(row: Row): boolean {
  const isNew = row.token === undefined && row.failures === 0 && row.history.length === 0
  const isLive = row.state === CLAIMABLE || row.state === LEASED
  return isNew && isLive && row.key === undefined && row.expiresAt === null && !row.isDroppable
}

/** Adds the values of one row of `addPlain` to a list. */
export function pushPlainValues(values: Value[], { seq, topic, rank, data }: Row): void {
  values.push(seq, topic, rank, data as Buffer)
}

/** The values of `saveEntry`. */
export function changedValues(row: Row): Value[] {
  return [row.state, row.rank, row.at, row.expiresAt, chainOrdOf(row), restOf(row), row.shelf, row.seq]
}

export const reasonOf = (row: Row): DeadReason => DEAD_REASONS[row.reason] as DeadReason
