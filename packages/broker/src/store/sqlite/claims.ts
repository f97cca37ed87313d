/** Claims on the tables of the sqlite store: the lanes of the topics asked for, merged by rank, a page of each at a time. */
import {
  CLAIM_SKIPS_MAX,
  CLAIM_TOPICS_MAX,
  type ClaimAnswer,
  type ClaimedMessage,
  type ClaimRequest,
  type DroppedEntry,
  type EntryHead,
} from '../port.ts'
import type { Leases } from './leases.ts'
import type { Operations } from './operations.ts'
import type { Queries } from './queries.ts'
import { decodeMessage, LEASED, readRow, type Row } from './row.ts'
import type { Statements } from './statements.ts'
import type { LineTally, Tallies } from './tallies.ts'
import type { Transitions } from './transitions.ts'

/** Rows read of a lane at once. */
const PAGE = 64

/** The claimable entries of one topic (or of a whole subscription), in order, read as they are needed. */
class Lane {
  readonly #list: (after: number) => Row[]
  #rows: Row[] = []
  #place = 0
  #after = -1
  #isOver = false

  constructor(list: (after: number) => Row[]) {
    this.#list = list
  }

  get first(): Row | undefined {
    if (this.#place === this.#rows.length && !this.#isOver) {
      this.#rows = this.#list(this.#after)
      this.#place = 0
      this.#isOver = this.#rows.length === 0
      this.#after = this.#rows.at(-1)?.rank ?? this.#after
    }
    return this.#rows[this.#place]
  }

  next(): void {
    this.#place += 1
  }
}

export interface ClaimParts {
  readonly statements: Statements
  readonly tallies: Tallies
  readonly transitions: Transitions
  readonly leases: Leases
  readonly operations: Operations
  readonly queries: Queries
}

/** Runs one claim inside a transaction. */
export function claim(request: ClaimRequest, parts: ClaimParts): ClaimAnswer {
  const { tallies, transitions, queries } = parts
  const { grants, now, bytesMax } = request
  const messages: ClaimedMessage[] = []
  const expired: EntryHead[] = []
  const corrupt: DroppedEntry[] = []
  const line = tallies.line(request.queue, request.subscription)
  transitions.now = now
  let bytes = 0
  if (line === undefined) return { status: 'ok', messages, expired, corrupt, more: false }
  const lanes = lanesOf(line, request, parts)
  while (messages.length < grants.length) {
    const lane = firstLane(lanes)
    const row = lane?.first
    if (lane === undefined || row === undefined) break
    const isSkippedOut = expired.length + corrupt.length === CLAIM_SKIPS_MAX
    if (isSkippedOut || (messages.length > 0 && bytes + row.bytes > bytesMax)) {
      return { status: 'ok', messages, expired, corrupt, more: true }
    }
    lane.next()
    if (row.expiresAt !== null && row.expiresAt <= now) {
      expired.push(queries.headOf(row))
      continue
    }
    const claimed = lease(row, line, request, messages.length, parts)
    if (claimed === undefined) corrupt.push(bury(row, parts))
    else {
      bytes += row.bytes
      messages.push(claimed)
    }
  }
  return { status: 'ok', messages, expired, corrupt, more: false }
}

function lanesOf(line: LineTally, request: ClaimRequest, { statements, tallies }: ClaimParts): Lane[] {
  if ((request.topics?.length ?? 0) > CLAIM_TOPICS_MAX)
    throw new RangeError(`More than ${CLAIM_TOPICS_MAX} topics in a claim`)
  const page = Math.min(PAGE, request.grants.length)
  const laneOf = (id: number) =>
    new Lane((after) => statements.listClaimable.all([line.id, id, after, page]).map(readRow))
  if (line.subscription !== '') return [laneOf(0)]
  return (request.topics ?? []).flatMap((name) => {
    const topic = tallies.topic(line, name)
    return topic === undefined || topic.counts.claimable === 0 ? [] : laneOf(topic.id)
  })
}

function firstLane(lanes: readonly Lane[]): Lane | undefined {
  let best: Lane | undefined
  for (const lane of lanes) {
    const first = lane.first
    if (first !== undefined && (best === undefined || first.rank < Number(best.first?.rank))) best = lane
  }
  return best
}

/** Leases an entry. Undefined: its body is not what was stored. */
function lease(
  row: Row,
  line: LineTally,
  request: ClaimRequest,
  place: number,
  parts: ClaimParts,
): ClaimedMessage | undefined {
  const { statements, tallies, leases, transitions } = parts
  const message = decodeMessage(statements.readMessage.get([row.seq]))
  if (message === undefined) return undefined
  const { token, holder } = request.grants[place] as ClaimRequest['grants'][number]
  tallies.count(row, -1)
  row.state = LEASED
  row.deliveries += 1
  tallies.count(row, 1)
  const values = [
    Buffer.from(token),
    Buffer.from(holder),
    request.now,
    request.leaseMs,
    row.deliveries,
    row.line,
    row.seq,
  ]
  statements.leaseEntry.run(values)
  leases.set(row.line, row.seq, request.now + request.leaseMs, false, transitions.undo)
  const { topic, id, sender, key, priority, publishedAt } = message.head
  return {
    queue: line.queue.address,
    subscription: line.subscription,
    seq: row.seq,
    token,
    holder,
    topic,
    id,
    sender,
    key,
    priority,
    publishedAt,
    expiresAt: row.expiresAt ?? undefined,
    failures: row.failures,
    deliveries: row.deliveries,
    body: message.body,
    meta: message.meta,
  }
}

function bury(row: Row, { transitions, operations }: ClaimParts): DroppedEntry {
  const dropped = { ...operations.droppedOf(row), reason: 'corrupt' as const }
  transitions.kill(row, 'corrupt', '', 'corrupt')
  return dropped
}
