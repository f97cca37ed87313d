/**
 * The memory store: nothing survives the process. It is also the model that every other store is compared with, so it is
 * plain rather than clever, and still claims in O(log n).
 *
 * Owns the lines (memory-line.ts), the queues of times, the deduplication records, the latest acks, and the one ascending
 * number that seqs and orders are drawn from. Each request takes effect within its call; only its answer is asynchronous.
 */
import type { Counts } from './counts.ts'
import { BODY_BYTES_MAX, bytesOf, closedError, withHistory } from './limits.ts'
import { isClaimedBefore, type Lane } from './memory-lane.ts'
import { createTimes, droppedOf, type Entry, headOf, Line, type LineHost, type Message } from './memory-line.ts'
import { DedupeRecords } from './memory-dedupe.ts'
import {
  type AckOp,
  type BrowseAnswer,
  type BrowseRequest,
  CLAIM_SKIPS_MAX,
  CLAIM_TOPICS_MAX,
  type ClaimAnswer,
  type ClaimableTopic,
  type ClaimedMessage,
  type ClaimRequest,
  type CreateSubscriptionOp,
  type DroppedEntry,
  type DueAnswer,
  type DueItem,
  type EntryHead,
  type EntryRef,
  type ExtendOp,
  type LeasesRequest,
  type NackOp,
  OVERFLOW_DROPS_MAX,
  type PublishOp,
  type PublishTarget,
  type PurgeOp,
  type ReceivedOp,
  type ReleaseOp,
  type ReplayOp,
  type Store,
  type StoreCaps,
  type StoreOp,
  type StoreResult,
  type StoreStats,
  type SubscriptionsAnswer,
  type TopicsAnswer,
  type TopicsRequest,
  type TrimDeadOp,
} from './port.ts'
import { RecentAcks } from './recent-acks.ts'
import { SlotHeap } from './slot-heap.ts'

interface Subscription {
  readonly meta: string
  readonly createdAt: number
  touchedAt: number
}

interface Queue {
  /** By subscription; `''` is always there. */
  readonly lines: Map<string, Line>
  readonly subscriptions: Map<string, Subscription>
  readonly dedupe: DedupeRecords
}

const NOT_FOUND: StoreResult = Object.freeze({ status: 'not-found' })

const compareNames = (left: string, right: string) => Buffer.compare(Buffer.from(left), Buffer.from(right))

/** Opens a memory store. */
export function createMemoryStore(): Store {
  return new MemoryStore()
}

class MemoryStore implements Store, LineHost {
  readonly caps: StoreCaps = Object.freeze({ durability: 'memory', shared: false, maxBody: BODY_BYTES_MAX })
  readonly times = createTimes()
  readonly #queues = new Map<string, Queue>()
  readonly #acks = new RecentAcks()
  readonly #listeners = new Set<(topics: readonly ClaimableTopic[]) => void>()
  #claimable = new Map<string, ClaimableTopic>()
  #lastNumber = 0
  #now = 0
  #isOpen = true

  open(_now: number): Promise<void> {
    return Promise.resolve()
  }

  apply(ops: readonly StoreOp[], now: number): Promise<readonly StoreResult[]> {
    if (!this.#isOpen) return Promise.resolve(ops.map(() => ({ status: 'unavailable', error: closedError() })))
    this.#now = now
    return this.#answer(ops.map((op) => this.#apply(op)))
  }

  claim(request: ClaimRequest): Promise<ClaimAnswer> {
    if ((request.topics?.length ?? 0) > CLAIM_TOPICS_MAX)
      throw new RangeError(`More than ${CLAIM_TOPICS_MAX} topics in a claim`)
    if (!this.#isOpen) return this.#refuse()
    this.#now = request.now
    const line = this.#line(request)
    if (line === undefined) return this.#answer({ status: 'ok', messages: [], expired: [], corrupt: [], more: false })
    return this.#answer(claimFrom(line, request))
  }

  due(now: number, max: number): Promise<DueAnswer> {
    if (!this.#isOpen) return this.#refuse()
    const { leases, delays, ttls } = this.times
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
    for (const entry of this.#line(request)?.entries.values() ?? []) {
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
    const topics = this.#line(request)?.topics ?? new Map<string, { counts: Counts }>()
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
    const found = this.#queues.get(queue)
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
    const lines = Array.from(this.#queues.values(), (queue) => [...queue.lines.values()])
      .flat()
      .map(({ queue, subscription, counts }) => Object.assign({ queue, subscription }, counts))
    return {
      messages: lines.reduce((sum, line) => sum + line.ready + line.delayed + line.leased + line.dead, 0),
      bytes: lines.reduce((sum, line) => sum + line.bytes + line.deadBytes, 0),
      lines,
      remembered: new Map(Array.from(this.#queues, ([queue, { dedupe }]) => [queue, dedupe.size])),
      repeatableAcks: this.#acks.size,
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

  nextNumber(): number {
    this.#lastNumber += 1
    return this.#lastNumber
  }

  onClaimable({ queue, subscription }: Line, topic: string): void {
    if (this.#listeners.size === 0) return
    this.#claimable.set(`${queue}\0${subscription}\0${topic}`, { queue, subscription, topic })
  }

  onGone({ op, seq }: Message): void {
    if (op.id !== undefined) this.#queues.get(op.queue)?.dedupe.release(op, seq, this.#now)
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

  #queue(address: string): Queue {
    let queue = this.#queues.get(address)
    if (queue === undefined) {
      const lines = new Map([['', new Line(address, '', this)]])
      queue = { lines, subscriptions: new Map(), dedupe: new DedupeRecords() }
      this.#queues.set(address, queue)
    }
    return queue
  }

  #line(ref: { readonly queue: string; readonly subscription: string }): Line | undefined {
    return this.#queues.get(ref.queue)?.lines.get(ref.subscription)
  }

  #entry(ref: EntryRef): Entry | undefined {
    return this.#line(ref)?.entries.get(ref.seq)
  }

  /** The entry, if this token and holder are those of its lease. */
  #leased(op: EntryRef & { readonly token: string; readonly holder?: string | undefined }): Entry | undefined {
    const entry = this.#held(op)
    return entry?.state === 'leased' ? entry : undefined
  }

  /** The entry, if this token and holder are those of its lease or of its last one. */
  #held(op: EntryRef & { readonly token: string; readonly holder?: string | undefined }): Entry | undefined {
    const entry = this.#entry(op)
    if (entry === undefined || entry.token !== op.token) return undefined
    return op.holder === undefined || op.holder === entry.holder ? entry : undefined
  }

  #apply(op: StoreOp): StoreResult {
    const now = this.#now
    switch (op.type) {
      case 'publish':
        return this.#publish(op)
      case 'ack':
        return this.#ack(op)
      case 'nack':
      case 'release':
        return this.#giveBack(op)
      case 'dead': {
        const entry = this.#leased(op)
        if (entry === undefined) return NOT_FOUND
        entry.failures = op.failures ?? entry.failures
        this.#kill(entry, op.reason, entry.holder ?? '', op.why)
        return { status: 'ok', type: 'dead' }
      }
      case 'extend':
        return this.#extend(op)
      case 'received':
        return this.#received(op)
      case 'ready': {
        const entry = this.#entry(op)
        if (entry?.state !== 'delayed' || entry.at > now) return NOT_FOUND
        entry.line.move(entry, 'ready')
        return { status: 'ok', type: 'ready' }
      }
      case 'expire': {
        const entry = this.#entry(op)
        if (entry?.state !== 'ready' && entry?.state !== 'delayed') return NOT_FOUND
        if (entry.expiresAt === undefined || entry.expiresAt > now) return NOT_FOUND
        this.#kill(entry, 'expired', '', op.why)
        return { status: 'ok', type: 'expire' }
      }
      case 'replay':
        return this.#replay(op)
      case 'discard': {
        const entry = this.#entry(op)
        if (entry === undefined || entry.state !== (op.state ?? 'dead')) return NOT_FOUND
        entry.line.move(entry, 'gone')
        return { status: 'ok', type: 'discard' }
      }
      case 'purge':
        return this.#purge(op)
      case 'trim-dead':
        return this.#trimDead(op)
      case 'create-subscription':
        return this.#createSubscription(op)
      case 'delete-subscription': {
        const queue = this.#queues.get(op.queue)
        if (queue?.subscriptions.delete(op.subscription) !== true) return NOT_FOUND
        const line = queue.lines.get(op.subscription)
        for (const entry of line?.entries.values() ?? []) line?.move(entry, 'gone')
        queue.lines.delete(op.subscription)
        return { status: 'ok', type: 'delete-subscription' }
      }
      default: {
        const record = this.#queues.get(op.queue)?.subscriptions.get(op.subscription)
        if (record === undefined) return NOT_FOUND
        record.touchedAt = now
        return { status: 'ok', type: op.type }
      }
    }
  }

  #publish(op: PublishOp): StoreResult {
    const queue = this.#queue(op.queue)
    const earlier = op.id === undefined ? undefined : queue.dedupe.find(op, this.#now)
    if (earlier !== undefined) return earlier
    const bytes = bytesOf(op)
    const places: Line[] = []
    const drops: Entry[] = []
    for (const target of op.targets) {
      const line = queue.lines.get(target.subscription)
      if (line === undefined) continue
      const room = roomIn(line, target, bytes)
      if ('what' in room) return { status: 'full', what: room.what, subscription: target.subscription }
      places.push(line)
      drops.push(...room.drops)
    }
    const seq = this.nextNumber()
    // The targets served: a message keeps nothing that grows with the number of subscriptions.
    const kept = { ...op, targets: [], grant: undefined }
    const message: Message = { seq, op: kept, bytes, publishedAt: this.#now, entries: 0 }
    for (const entry of drops) this.#kill(entry, 'overflow', '', 'overflow')
    const dueAt = op.delayUntil !== undefined && op.delayUntil > this.#now ? op.delayUntil : undefined
    const grant = places.length === 1 && dueAt === undefined ? op.grant : undefined
    const isLeased = grant !== undefined && places[0]?.addLeased(message, grant, this.#now) === true
    if (!isLeased) for (const line of places) line.add(message, dueAt)
    if (op.id !== undefined) queue.dedupe.add(op, message.seq, places.length > 0, this.#now)
    const dropped = drops.map((entry) => droppedOf(entry, 'overflow'))
    const leasedAt = isLeased ? this.#now : undefined
    return { status: 'ok', type: 'publish', seq: message.seq, entries: places.length, dropped, leasedAt }
  }

  #kill(entry: Entry, reason: Entry['reason'], holder: string, why: string): void {
    entry.reason = reason
    const { history, deliveries } = entry
    entry.history = withHistory(history, { at: this.#now, holder, why, deliveries })
    entry.line.move(entry, 'dead', this.#now)
  }

  #ack(op: AckOp): StoreResult {
    const entry = this.#held(op)
    if (entry !== undefined) {
      this.#acks.add(op, op.token, entry.holder ?? '', this.#now)
      entry.line.move(entry, 'gone')
    } else if (!this.#acks.has(op, op.token, op.holder, this.#now)) {
      return NOT_FOUND
    }
    return { status: 'ok', type: 'ack' }
  }

  #giveBack(op: NackOp | ReleaseOp): StoreResult {
    const entry = this.#leased(op)
    if (entry === undefined) return NOT_FOUND
    entry.hasCountedFailure = op.type === 'nack'
    if (op.type === 'nack') {
      entry.failures = op.failures
      const { history, deliveries, holder = '' } = entry
      entry.history = withHistory(history, { at: this.#now, holder, why: op.why, deliveries })
    }
    const isLater = op.at !== undefined && op.at > this.#now
    entry.line.move(entry, isLater ? 'delayed' : 'ready', isLater ? op.at : 0)
    return { status: 'ok', type: op.type }
  }

  #extend(op: ExtendOp): StoreResult {
    const entry = this.#held(op)
    if (entry === undefined || entry.state === 'dead') return NOT_FOUND
    const relocked = entry.state !== 'leased'
    if (relocked) {
      if (entry.hasCountedFailure) {
        entry.failures -= 1
        entry.history = entry.history.slice(0, -1)
      }
      entry.claimedAt = this.#now
    }
    const latest = Number(entry.claimedAt) + op.maxLeaseMs
    const wanted = Math.min(this.#now + op.leaseMs, latest)
    const deadline = relocked ? wanted : Math.max(wanted, entry.at)
    entry.hasCountedFailure = false
    entry.received = true
    entry.line.move(entry, 'leased', deadline)
    return { status: 'ok', type: 'extend', deadline, relocked }
  }

  #received(op: ReceivedOp): StoreResult {
    const entry = this.#leased(op)
    if (entry === undefined) return NOT_FOUND
    if (!entry.received) {
      entry.received = true
      entry.line.move(entry, 'leased', this.#now + op.leaseMs)
    }
    return { status: 'ok', type: 'received', deadline: entry.at }
  }

  #replay(op: ReplayOp): StoreResult {
    const entry = this.#entry(op)
    if (entry?.state !== 'dead') return NOT_FOUND
    const target: PublishTarget = { ...op, whenFull: 'refuse' }
    const room = roomIn(entry.line, target, entry.message.bytes)
    if ('what' in room) return { status: 'full', what: room.what, subscription: op.subscription }
    entry.failures = 0
    entry.deliveries = 0
    entry.expiresAt = undefined
    entry.hasCountedFailure = false
    entry.token = undefined
    entry.holder = undefined
    entry.order = 0
    entry.line.move(entry, 'ready')
    return { status: 'ok', type: 'replay' }
  }

  #purge(op: PurgeOp): StoreResult {
    const line = this.#line(op)
    let count = 0
    let last = op.after
    for (const entry of line?.entries.values() ?? []) {
      const { seq } = entry.message
      if (seq <= op.after || entry.state !== op.state) continue
      if (op.topic !== undefined && entry.message.op.topic !== op.topic) continue
      if (count === op.max) return { status: 'ok', type: 'purge', count, next: last }
      line?.move(entry, 'gone')
      count += 1
      last = seq
    }
    return { status: 'ok', type: 'purge', count, next: undefined }
  }

  #trimDead(op: TrimDeadOp): StoreResult {
    const line = this.#line(op)
    const dropped: DroppedEntry[] = []
    for (let first = line?.dead.first; first !== undefined && dropped.length < op.max; first = line?.dead.first) {
      const { dead, deadBytes } = first.line.counts
      if (dead <= op.maxCount && deadBytes <= op.maxBytes && first.at >= op.diedBefore) break
      dropped.push(droppedOf(first, first.reason ?? 'rejected'))
      first.line.move(first, 'gone')
    }
    return { status: 'ok', type: 'trim-dead', dropped }
  }

  #createSubscription(op: CreateSubscriptionOp): StoreResult {
    const queue = this.#queue(op.queue)
    const known = queue.subscriptions.get(op.subscription)
    if (known !== undefined && known.meta !== op.meta) return { status: 'conflict' }
    if (known !== undefined) {
      known.touchedAt = this.#now
      return { status: 'ok', type: 'create-subscription', created: false }
    }
    if (queue.subscriptions.size >= op.max)
      return { status: 'full', what: 'subscriptions', subscription: op.subscription }
    queue.subscriptions.set(op.subscription, { meta: op.meta, createdAt: this.#now, touchedAt: this.#now })
    queue.lines.set(op.subscription, new Line(op.queue, op.subscription, this))
    return { status: 'ok', type: 'create-subscription', created: true }
  }
}

/** What has to give way so that a message fits, or which limit forbids it. */
function roomIn(
  line: Line,
  target: PublishTarget,
  bytes: number,
): { readonly drops: readonly Entry[] } | { readonly what: 'length' | 'bytes' } {
  let length = line.length + 1
  let total = line.counts.bytes + bytes
  const isFull = () => length > target.maxLength || total > target.maxBytes
  if (!isFull()) return { drops: [] }
  const drops: Entry[] = []
  if (target.whenFull === 'dead-letter-oldest') {
    for (const entry of line.ready.inOrder()) {
      drops.push(entry)
      length -= 1
      total -= entry.message.bytes
      if (!isFull() || drops.length === OVERFLOW_DROPS_MAX) break
    }
  }
  return isFull() ? { what: length > target.maxLength ? 'length' : 'bytes' } : { drops }
}

/** A lane that a claim takes from, by its first entry. */
interface LaneHead {
  readonly lane: Lane<Entry>
  first: Entry
  slot: number
}

type LaneHeads = SlotHeap<'slot', LaneHead>

function headsOf(lanes: readonly Lane<Entry>[]): LaneHeads {
  const heads: LaneHeads = new SlotHeap('slot', (left, right) => isClaimedBefore(left.first, right.first))
  for (const lane of lanes) if (lane.first !== undefined) heads.add({ lane, first: lane.first, slot: -1 })
  return heads
}

/** After the first entry of a lane has left it. */
function advance(heads: LaneHeads, head: LaneHead): void {
  heads.remove(head)
  const { first } = head.lane
  if (first === undefined) return
  head.first = first
  heads.add(head)
}

function claimFrom(line: Line, request: ClaimRequest): ClaimAnswer {
  const { grants, now, leaseMs, bytesMax } = request
  const lanes = headsOf(line.lanes(request.topics))
  const messages: ClaimedMessage[] = []
  const expired: EntryHead[] = []
  const passedOver: Entry[] = []
  let bytes = 0
  let more = false
  while (messages.length < grants.length) {
    const head = lanes.first
    if (head === undefined) break
    const { first } = head
    if (expired.length === CLAIM_SKIPS_MAX || (messages.length > 0 && bytes + first.message.bytes > bytesMax)) {
      more = true
      break
    }
    if (first.expiresAt !== undefined && first.expiresAt <= now) {
      expired.push(headOf(first))
      passedOver.push(first)
      line.hide(first)
      advance(lanes, head)
      continue
    }
    const grant = grants[messages.length] as ClaimRequest['grants'][number]
    bytes += first.message.bytes
    first.deliveries += 1
    Object.assign(first, { token: grant.token, holder: grant.holder, claimedAt: now, received: false })
    first.hasCountedFailure = false
    line.move(first, 'leased', now + leaseMs)
    messages.push(claimedOf(first, grant))
    advance(lanes, head)
  }
  for (const entry of passedOver) line.show(entry)
  return { status: 'ok', messages, expired, corrupt: [], more }
}

function claimedOf(entry: Entry, grant: ClaimRequest['grants'][number]): ClaimedMessage {
  const { message, line, expiresAt, failures, deliveries } = entry
  const { topic, id, sender, key, priority, body, meta } = message.op
  return {
    queue: line.queue,
    subscription: line.subscription,
    seq: message.seq,
    token: grant.token,
    holder: grant.holder,
    topic,
    id,
    sender,
    key,
    priority,
    publishedAt: message.publishedAt,
    expiresAt,
    failures,
    deliveries,
    body,
    meta,
  }
}
