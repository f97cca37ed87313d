/** What the sqlite store answers without changing anything: pages of entries and topics, and what is due. */
import type {
  BrowseAnswer,
  BrowseRequest,
  DueAnswer,
  DueItem,
  EntryHead,
  EntryState,
  StoredEntry,
  SubscriptionRecord,
  SubscriptionsAnswer,
  TopicsAnswer,
  TopicsRequest,
} from '../port.ts'
import type { Leases } from './leases.ts'
import { headOfData, isWhole, textsOf } from './message-data.ts'
import { DEAD, DELAYED, LEASED, reasonOf, type Row, stateOf } from './row.ts'
import type { Rows } from './rows.ts'
import type { Statements, Value } from './statements.ts'
import type { Tallies } from './tallies.ts'

/** Entries that one page looks at. */
const BROWSE_READS_MAX = 10_000

/** See the top of this file. Counts in the file must be flushed before `topics`. */
export class Queries {
  readonly #statements: Statements
  readonly #tallies: Tallies
  readonly #rows: Rows
  readonly #leases: Leases

  constructor(statements: Statements, tallies: Tallies, rows: Rows, leases: Leases) {
    this.#statements = statements
    this.#tallies = tallies
    this.#rows = rows
    this.#leases = leases
  }

  headOf(row: Row): EntryHead {
    const { line, name } = this.#tallies.topicById(row.topic)
    const head = headOfData(this.#rows.dataOf(row))
    const lease = row.state === LEASED ? this.#leases.get(row.line, row.seq) : undefined
    return {
      queue: line.queue.address,
      subscription: line.subscription,
      seq: row.seq,
      state: stateOf(row),
      topic: name,
      id: head.id,
      sender: head.sender,
      key: row.key,
      priority: head.priority,
      bytes: row.bytes,
      publishedAt: head.publishedAt,
      expiresAt: row.expiresAt ?? undefined,
      dueAt: row.state === DELAYED ? row.at : undefined,
      diedAt: row.state === DEAD ? row.at : undefined,
      reason: row.state === DEAD ? reasonOf(row) : undefined,
      failures: row.failures,
      deliveries: row.deliveries,
      token: row.token,
      holder: row.holder,
      claimedAt: row.state === LEASED ? row.claimedAt : undefined,
      received: lease?.received ?? false,
      deadline: lease?.deadline,
    }
  }

  due(now: number, max: number): DueAnswer {
    const items: DueItem[] = []
    let nextAt = Number.POSITIVE_INFINITY
    const take = (what: DueItem['what'], at: number, read: () => Row | undefined) => {
      const row = at <= now && items.length < max ? read() : undefined
      if (row === undefined) nextAt = Math.min(nextAt, at)
      else items.push({ what, at, entry: this.headOf(row) })
    }
    for (const { row, deadline } of this.#leases.listOver(now, max)) take('lease', deadline, () => row)
    const { nextDue, nextExpiry } = this.#statements
    const takeRows = (what: 'delay' | 'ttl', rows: readonly Row[], next: readonly Value[] | undefined) => {
      for (const row of rows) take(what, Number(what === 'delay' ? row.at : row.expiresAt), () => row)
      if (next !== undefined) take(what, Number(next[0]), () => undefined)
    }
    takeRows('delay', this.#rows.list('listDue', [now, max - items.length + 1]), nextDue.get([now]))
    takeRows('ttl', this.#rows.list('listExpired', [now, max - items.length + 1]), nextExpiry.get([now]))
    return { status: 'ok', items, nextAt: nextAt === Number.POSITIVE_INFINITY ? undefined : nextAt }
  }

  browse(request: BrowseRequest): BrowseAnswer {
    const { queue, subscription, state, after, max, bodies } = request
    const line = this.#tallies.line(queue, subscription)
    const topic =
      line === undefined || request.topic === undefined ? undefined : this.#tallies.topic(line, request.topic)
    if (line === undefined || (request.topic !== undefined && topic === undefined)) {
      return { status: 'ok', entries: [], next: undefined }
    }
    const entries: StoredEntry[] = []
    let last = after
    // Few rows at first: most pages are full of what was asked for.
    for (let read = 0, page = max + 1; read < BROWSE_READS_MAX; read += page, page = Math.min(page * 2, 1000)) {
      const listed = this.#page(line.id, state, last, page)
      for (const row of listed) {
        const isWanted =
          (state === undefined || stateOf(row) === state) && (topic === undefined || row.topic === topic.id)
        if (isWanted && entries.length === max) return { status: 'ok', entries, next: last }
        if (isWanted) entries.push(this.#storedOf(row, bodies))
        last = row.seq
      }
      if (listed.length < page) return { status: 'ok', entries, next: undefined }
    }
    return { status: 'ok', entries, next: last }
  }

  topics({ queue, subscription, after, max }: TopicsRequest): TopicsAnswer {
    const line = this.#tallies.line(queue, subscription)
    if (line === undefined) return { status: 'ok', topics: [], next: undefined }
    const listed = this.#statements.listTopics.all([line.id, Buffer.from(after), max + 1])
    const topics = listed.slice(0, max).map((values) => {
      const [name, ready, claimable, delayed, leased, dead, bytes, deadBytes] = values as [Buffer, ...number[]]
      return { topic: name.toString(), ready, claimable, delayed, leased, dead, bytes, deadBytes }
    })
    return { status: 'ok', topics: topics as never[], next: listed.length > max ? topics.at(-1)?.topic : undefined }
  }

  subscriptions(queue: string): SubscriptionsAnswer {
    const subscriptions: SubscriptionRecord[] = []
    for (const line of this.#tallies.queue(queue, true)?.lines.values() ?? []) {
      if (line.subscription === '') continue
      const [meta, createdAt, touchedAt] = this.#statements.readLine.get([line.id]) as [Buffer, number, number]
      const { subscription, counts } = line
      subscriptions.push({ queue, subscription, meta: meta.toString(), createdAt, touchedAt, counts: { ...counts } })
    }
    subscriptions.sort((left, right) => Buffer.compare(Buffer.from(left.subscription), Buffer.from(right.subscription)))
    return { status: 'ok', subscriptions }
  }

  #page(line: number, state: EntryState | undefined, after: number, max: number): Row[] {
    if (state === 'leased') return this.#leases.list(line, after, max).map(({ row }) => row)
    const name = ({ ready: 'listEntries', delayed: 'listDelayed', dead: 'listDead' } as const)[state ?? 'ready']
    return this.#rows.listBySeq(name, line, after, max)
  }

  #storedOf(row: Row, bodies: boolean): StoredEntry {
    const data = this.#rows.dataOf(row)
    const apart = bodies && row.isApart ? (this.#statements.readBody.get([row.seq])?.[0] as Buffer) : undefined
    const message = bodies && isWhole(data, apart) ? textsOf(data, apart) : undefined
    return {
      ...this.headOf(row),
      history: row.history,
      body: message?.body,
      meta: message?.meta,
      corrupt: bodies && message === undefined,
    }
  }
}
