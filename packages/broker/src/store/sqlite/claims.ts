/** Claims on the tables of the sqlite store: the lanes of the topics asked for, merged by rank, a page of each at a time. */
import { CLAIM_SKIPS_MAX, CLAIM_TOPICS_MAX, type DroppedEntry, type EntryHead } from '../port.ts'
import type { Operations } from './operations.ts'
import type { Queries } from './queries.ts'
import { isWhole } from './message-data.ts'
import type { Row } from './row.ts'
import type { Rows } from './rows.ts'
import type { Statements } from './statements.ts'
import type { LineTally, Tallies } from './tallies.ts'
import type { Transitions } from './transitions.ts'
import { type EngineClaimAnswer, type LeasedMessage, type PackedClaim, packMessages } from './wire.ts'

/** Most rows, and least, that are read of a lane at once. Each page is twice as long as the one before. */
const PAGE_MAX = 128
const PAGE_MIN = 4

/** The claimable entries of one topic (or of a whole subscription), in order, read as they are needed. */
class Lane {
  readonly #list: (after: number, max: number) => Row[]
  #rows: Row[] = []
  #place = 0
  #after = -1
  #page: number
  #isOver = false

  constructor(list: (after: number, max: number) => Row[], page: number) {
    this.#list = list
    this.#page = page
  }

  get first(): Row | undefined {
    if (this.#place === this.#rows.length && !this.#isOver) {
      this.#rows = this.#list(this.#after, this.#page)
      this.#place = 0
      this.#isOver = this.#rows.length < this.#page
      this.#page = Math.min(this.#page * 2, PAGE_MAX)
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
  readonly rows: Rows
  readonly operations: Operations
  readonly queries: Queries
}

/** Runs one claim inside a transaction. */
export function claim(request: PackedClaim, parts: ClaimParts): EngineClaimAnswer {
  const { tallies, transitions, queries } = parts
  const { tokens, now, bytesMax, leaseMs } = request
  const leased: LeasedMessage[] = []
  const expired: EntryHead[] = []
  const buried: Row[] = []
  const line = tallies.line(request.queue, request.subscription)
  transitions.now = now
  let bytes = 0
  let more = false
  const lanes = line === undefined ? [] : lanesOf(line, request, parts)
  while (leased.length < tokens.length) {
    const lane = firstLane(lanes)
    const row = lane?.first
    if (lane === undefined || row === undefined) break
    const isSkippedOut = expired.length + buried.length === CLAIM_SKIPS_MAX
    more = isSkippedOut || (leased.length > 0 && bytes + row.bytes > bytesMax)
    if (more) break
    lane.next()
    if (row.expiresAt !== null && row.expiresAt <= now) {
      expired.push(queries.headOf(row))
      continue
    }
    const apart = row.isApart ? parts.statements.readBody.get([row.seq])?.[0] : undefined
    if (!isWhole(row.data as Buffer, apart)) {
      buried.push(row)
      continue
    }
    row.token = tokens[leased.length]
    row.holder = request.holders.length === 1 ? request.holders[0] : request.holders[leased.length]
    row.deliveries += 1
    bytes += row.bytes
    leased.push({ row, topic: tallies.topicById(row.topic).name, apart: apart as Buffer | undefined })
  }
  const messages = packMessages(leased)
  const rows = leased.map(({ row }) => row)
  transitions.lease(rows, now, leaseMs, now + leaseMs, false)
  const corrupt = buried.map((row) => bury(row, parts))
  return { status: 'ok', messages, expired, corrupt, more }
}

function lanesOf(line: LineTally, request: PackedClaim, { rows, tallies }: ClaimParts): Lane[] {
  if ((request.topics?.length ?? 0) > CLAIM_TOPICS_MAX)
    throw new RangeError(`More than ${CLAIM_TOPICS_MAX} topics in a claim`)
  const topics = (request.topics ?? []).flatMap((name) => {
    const topic = tallies.topic(line, name)
    return topic === undefined || topic.counts.claimable === 0 ? [] : topic.id
  })
  const lanes = line.subscription === '' ? topics : [-line.id]
  const page = Math.min(Math.max(Math.ceil(request.tokens.length / lanes.length), PAGE_MIN), PAGE_MAX)
  return lanes.map((id) => new Lane((after, max) => rows.listClaimable(id, after, max), page))
}

function firstLane(lanes: readonly Lane[]): Lane | undefined {
  let best: Lane | undefined
  for (const lane of lanes) {
    const first = lane.first
    if (first !== undefined && (best === undefined || first.rank < Number(best.first?.rank))) best = lane
  }
  return best
}

function bury(row: Row, { transitions, operations }: ClaimParts): DroppedEntry {
  const dropped = { ...operations.droppedOf(row), reason: 'corrupt' as const }
  transitions.kill(row, 'corrupt', '', 'corrupt')
  return dropped
}
