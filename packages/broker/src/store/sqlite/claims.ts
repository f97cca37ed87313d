/** Claims on the tables of the sqlite store: the lanes of the topics asked for, by rank, a page of rows at a time. */
import { CLAIM_SKIPS_MAX, CLAIM_TOPICS_MAX, type DroppedEntry, type EntryHead } from '../port.ts'
import { LaneMerge } from './lane-merge.ts'
import type { Operations } from './operations.ts'
import type { Queries } from './queries.ts'
import { isWhole } from './message-data.ts'
import type { Row } from './row.ts'
import type { Rows } from './rows.ts'
import type { Statements } from './statements.ts'
import type { LineTally, Tallies } from './tallies.ts'
import type { Transitions } from './transitions.ts'
import { type EngineClaimAnswer, type LeasedMessage, type PackedClaim, packMessages } from './wire.ts'

/** Most rows that are read at once. */
const PAGE_MAX = 128

/** The claimable entries of all lanes of a claim, in order, read as they are needed. */
class Source {
  readonly #list: (max: number) => Row[]
  #rows: Row[] = []
  #place = 0
  #isOver = false

  constructor(list: (max: number) => Row[]) {
    this.#list = list
  }

  /** @param wanted how many more the claim may take */
  first(wanted: number): Row | undefined {
    if (this.#place === this.#rows.length && !this.#isOver) {
      const max = Math.min(wanted, PAGE_MAX)
      this.#rows = this.#list(max)
      this.#place = 0
      this.#isOver = this.#rows.length < max
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
  const source = line === undefined ? undefined : sourceOf(line, request, parts)
  while (leased.length < tokens.length) {
    const row = source?.first(tokens.length - leased.length)
    if (row === undefined) break
    const isSkippedOut = expired.length + buried.length === CLAIM_SKIPS_MAX
    more = isSkippedOut || (leased.length > 0 && bytes + row.bytes > bytesMax)
    if (more) break
    source?.next()
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

function sourceOf(line: LineTally, request: PackedClaim, { rows, tallies }: ClaimParts): Source {
  if ((request.topics?.length ?? 0) > CLAIM_TOPICS_MAX)
    throw new RangeError(`More than ${CLAIM_TOPICS_MAX} topics in a claim`)
  const topics = (request.topics ?? []).flatMap((name) => {
    const topic = tallies.topic(line, name)
    return topic === undefined || topic.counts.claimable === 0 ? [] : topic.id
  })
  const [first, ...others] = line.subscription === '' ? topics : [-line.id]
  if (first === undefined) return new Source(() => [])
  if (others.length > 0) {
    const merge = new LaneMerge([first, ...others], rows)
    return new Source((max) => rows.listRanked(merge.take(max)))
  }
  let after = -1
  return new Source((max) => {
    const page = rows.listClaimable(first, after, max)
    after = page.at(-1)?.rank ?? after
    return page
  })
}

function bury(row: Row, { transitions, operations }: ClaimParts): DroppedEntry {
  const dropped = { ...operations.droppedOf(row), reason: 'corrupt' as const }
  transitions.kill(row, 'corrupt', '', 'corrupt')
  return dropped
}
