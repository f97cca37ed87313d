/**
 * The memory store: nothing survives the process. It is also the model that every other store is compared with, so it is
 * plain rather than clever, and still claims in O(log n).
 *
 * Owner of the port's side: whether it is open, who watches, and the order of answers. The messages are memory-queues.ts, a claim
 * is memory-claim.ts. Each request takes effect within its call; only its answer is asynchronous, and comes after the watchers were told.
 */
import type { Counts } from './counts.ts'
import { BODY_BYTES_MAX, closedError } from './limits.ts'
import { claimFrom } from './memory-claim.ts'
import { type Entry, headOf, type Line } from './memory-line.ts'
import { MemoryQueues } from './memory-queues.ts'
import {
  type BrowseAnswer,
  type BrowseRequest,
  CLAIM_TOPICS_MAX,
  type ClaimAnswer,
  type ClaimableTopic,
  type ClaimRequest,
  type DueAnswer,
  type DueItem,
  type LeasesRequest,
  type Store,
  type StoreCaps,
  type StoreOp,
  type StoreResult,
  type StoreStats,
  type SubscriptionsAnswer,
  type TopicsAnswer,
  type TopicsRequest,
} from './port.ts'

const compareNames = (left: string, right: string) => Buffer.compare(Buffer.from(left), Buffer.from(right))

/** Opens a memory store. */
export function createMemoryStore(): Store {
  return new MemoryStore()
}

class MemoryStore implements Store {
  readonly caps: StoreCaps = Object.freeze({ durability: 'memory', shared: false, maxBody: BODY_BYTES_MAX })
  readonly #queues = new MemoryQueues((line, topic) => this.#noteClaimable(line, topic))
  readonly #listeners = new Set<(topics: readonly ClaimableTopic[]) => void>()
  #claimable = new Map<string, ClaimableTopic>()
  #isOpen = true

  open(_now: number): Promise<void> {
    return Promise.resolve()
  }

  apply(ops: readonly StoreOp[], now: number): Promise<readonly StoreResult[]> {
    if (!this.#isOpen) return Promise.resolve(ops.map(() => ({ status: 'unavailable', error: closedError() })))
    return this.#answer(ops.map((op) => this.#queues.apply(op, now)))
  }

  claim(request: ClaimRequest): Promise<ClaimAnswer> {
    if ((request.topics?.length ?? 0) > CLAIM_TOPICS_MAX)
      throw new RangeError(`More than ${CLAIM_TOPICS_MAX} topics in a claim`)
    if (!this.#isOpen) return this.#refuse()
    const line = this.#queues.line(request)
    if (line === undefined) return this.#answer({ status: 'ok', messages: [], expired: [], corrupt: [], more: false })
    return this.#answer(claimFrom(line, request))
  }

  due(now: number, max: number): Promise<DueAnswer> {
    if (!this.#isOpen) return this.#refuse()
    const { leases, delays, ttls } = this.#queues.times
    const items: DueItem[] = []
    let nextAt = Number.POSITIVE_INFINITY
    const take = (what: DueItem['what'], entries: Iterable<Entry>, atOf: (entry: Entry) => number) => {
      for (const entry of entries) {
        const at = atOf(entry)
        const isListed = at <= now && items.length < max
        if (isListed) items.push({ what, at, entry: headOf(entry) })
        else nextAt = Math.min(nextAt, at)
        if (!isListed) return
      }
    }
    take('lease', leases.inOrder(), (entry) => entry.at)
    take('delay', delays.inOrder(), (entry) => entry.at)
    take('ttl', ttls.inOrder(), (entry) => Number(entry.expiresAt))
    return this.#answer({ status: 'ok', items, nextAt: nextAt === Number.POSITIVE_INFINITY ? undefined : nextAt })
  }

  watch(listener: (topics: readonly ClaimableTopic[]) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  leases(request: LeasesRequest): Promise<BrowseAnswer> {
    return this.browse({ ...request, state: 'leased', bodies: false })
  }

  browse(request: BrowseRequest): Promise<BrowseAnswer> {
    if (!this.#isOpen) return this.#refuse()
    const { state, topic, after, max, bodies } = request
    const wanted: Entry[] = []
    for (const entry of this.#queues.line(request)?.entries.values() ?? []) {
      if (entry.message.seq <= after || (state !== undefined && entry.state !== state)) continue
      if (topic !== undefined && entry.message.op.topic !== topic) continue
      wanted.push(entry)
      if (wanted.length > max) break
    }
    const page = wanted.slice(0, max)
    return this.#answer({
      status: 'ok',
      entries: page.map((entry) => ({
        ...headOf(entry),
        history: entry.history,
        body: bodies ? entry.message.op.body : undefined,
        meta: bodies ? entry.message.op.meta : undefined,
        corrupt: false,
      })),
      next: wanted.length > max ? page.at(-1)?.message.seq : undefined,
    })
  }

  topics(request: TopicsRequest): Promise<TopicsAnswer> {
    if (!this.#isOpen) return this.#refuse()
    const topics = this.#queues.line(request)?.topics ?? new Map<string, { counts: Counts }>()
    const names = [...topics.keys()].filter((name) => compareNames(name, request.after) > 0).sort(compareNames)
    const page = names.slice(0, request.max)
    return this.#answer({
      status: 'ok',
      topics: page.map((topic) => ({ topic, ...(topics.get(topic)?.counts as Counts) })),
      next: names.length > page.length ? page.at(-1) : undefined,
    })
  }

  subscriptions(queue: string): Promise<SubscriptionsAnswer> {
    if (!this.#isOpen) return this.#refuse()
    const found = this.#queues.all.get(queue)
    const records = Array.from(found?.subscriptions ?? [], ([subscription, record]) => ({
      queue,
      subscription,
      ...record,
      counts: { ...(found?.lines.get(subscription)?.counts as Counts) },
    }))
    const subscriptions = records.sort((left, right) => compareNames(left.subscription, right.subscription))
    return this.#answer({ status: 'ok', subscriptions })
  }

  stats(): StoreStats {
    const lines = Array.from(this.#queues.all.values(), (queue) => [...queue.lines.values()])
      .flat()
      .map(({ queue, subscription, counts }) => Object.assign({ queue, subscription }, counts))
    return {
      messages: lines.reduce((sum, line) => sum + line.ready + line.delayed + line.leased + line.dead, 0),
      bytes: lines.reduce((sum, line) => sum + line.bytes + line.deadBytes, 0),
      lines,
      remembered: new Map(Array.from(this.#queues.all, ([queue, { dedupe }]) => [queue, dedupe.size])),
      repeatableAcks: this.#queues.repeatableAcks,
      waitingBytes: 0,
    }
  }

  probe(): ReturnType<Store['probe']> {
    return Promise.resolve(this.#isOpen ? undefined : closedError())
  }

  close(): Promise<void> {
    this.#isOpen = false
    return Promise.resolve()
  }

  #noteClaimable({ queue, subscription }: Line, topic: string): void {
    if (this.#listeners.size === 0) return
    this.#claimable.set(`${queue}\0${subscription}\0${topic}`, { queue, subscription, topic })
  }

  #refuse(): Promise<{ readonly status: 'unavailable'; readonly error: ReturnType<typeof closedError> }> {
    return Promise.resolve({ status: 'unavailable', error: closedError() })
  }

  /** Answers later, after the watchers were told. */
  async #answer<Answer>(answer: Answer): Promise<Answer> {
    const claimable = [...this.#claimable.values()]
    this.#claimable = new Map()
    await Promise.resolve()
    if (claimable.length > 0) for (const listener of this.#listeners) listener(claimable)
    return answer
  }
}
