/**
 * One line of the memory store: its entries, in order, and how they move from state to state.
 *
 * Owns every entry of the line and all of its places: the topic's lane of claimable entries, the chain of its key, and the
 * queue of its state. {@link Line.move} is the only way into, between and out of states.
 *
 * Invariants:
 * 1. An entry is in the queue of its state (READY: `ready` by seq; DELAYED: `times.delays`; LEASED: `times.leases`;
 *    DEAD: `dead`), and in no other of these.
 * 2. It is in its lane exactly while it is READY and the first of its chain, or has no key.
 * 3. It is in a chain exactly while it has a key, an order number, and is not DEAD. Order numbers ascend along a chain, and
 *    all but the first are READY.
 * 4. It is in `times.ttls` exactly while it has an expiresAt and is READY or DELAYED.
 * 5. The counts of line and topic are those of their entries. A topic without entries is forgotten.
 */
import type { Counts } from './counts.ts'
import type { DeadReason, DroppedEntry, EntryHead, EntryState, HistoryEntry } from './entry.ts'
import type { PublishGrant, PublishOp } from './operations.ts'
import { Lane } from './memory-lane.ts'
import { SlotQueue } from './slot-queue.ts'

/** A message: what its entries share. */
export interface Message {
  readonly seq: number
  readonly op: PublishOp
  readonly bytes: number
  readonly publishedAt: number
  /** Entries that are not gone. */
  entries: number
}

/** A message's place in a line. Only {@link Line} writes `state` and below. */
export interface Entry {
  readonly message: Message
  readonly line: Line
  expiresAt: number | undefined
  failures: number
  deliveries: number
  token: string | undefined
  holder: string | undefined
  claimedAt: number | undefined
  received: boolean
  history: readonly HistoryEntry[]
  /** The last lease ended by a nack: `extend` takes its failure back. */
  hasCountedFailure: boolean
  state: EntryState | 'gone'
  /** When the state ends or began: dueAt, deadline, diedAt. */
  at: number
  reason: DeadReason | undefined
  /** 0: never READY. */
  order: number
  chain: Chain | undefined
  previous: Entry | undefined
  next: Entry | undefined
  stateSlot: number
  laneSlot: number
  ttlSlot: number
}

/** The entries of one key, first to last. */
interface Chain {
  first: Entry | undefined
  last: Entry | undefined
}

interface Topic {
  readonly counts: Counts
  readonly lane: Lane<Entry>
  readonly chains: Map<string, Chain>
}

/** The queues of what has a time, shared by all lines of a store. */
export interface Times {
  readonly leases: SlotQueue<'stateSlot', Entry>
  readonly delays: SlotQueue<'stateSlot', Entry>
  readonly ttls: SlotQueue<'ttlSlot', Entry>
}

const bySeq = (left: Entry, right: Entry) => left.message.seq < right.message.seq
const byAt = (left: Entry, right: Entry) => (left.at === right.at ? bySeq(left, right) : left.at < right.at)
const byExpiry = (left: Entry, right: Entry) => Number(left.expiresAt) < Number(right.expiresAt)

export function createTimes(): Times {
  return {
    leases: new SlotQueue('stateSlot', byAt),
    delays: new SlotQueue('stateSlot', byAt),
    ttls: new SlotQueue('ttlSlot', byExpiry),
  }
}

/** Most entries never have one. */
const NO_HISTORY: readonly HistoryEntry[] = Object.freeze([])

const noCounts = (): Counts => ({
  ready: 0,
  claimable: 0,
  delayed: 0,
  leased: 0,
  dead: 0,
  bytes: 0,
  deadBytes: 0,
})

/** What a line needs from its store. */
export interface LineHost {
  readonly times: Times
  /** The next number of the store: for seqs and orders. */
  nextNumber(): number
  onClaimable(line: Line, topic: string): void
  onGone(message: Message): void
}

/** See the top of this file. */
export class Line {
  readonly queue: string
  readonly subscription: string
  readonly counts: Counts = noCounts()
  readonly entries: Map<number, Entry> = new Map()
  readonly topics: Map<string, Topic> = new Map()
  readonly ready: SlotQueue<'stateSlot', Entry> = new SlotQueue('stateSlot', bySeq)
  readonly dead: SlotQueue<'stateSlot', Entry> = new SlotQueue('stateSlot', byAt)
  /** The one lane of a named subscription; the queue's own line has one for each topic. */
  readonly #lane: Lane<Entry> | undefined
  readonly #host: LineHost

  constructor(queue: string, subscription: string, host: LineHost) {
    this.queue = queue
    this.subscription = subscription
    this.#lane = subscription === '' ? undefined : new Lane()
    this.#host = host
  }

  /** Entries that `maxLength` counts. */
  get length(): number {
    return this.counts.ready + this.counts.delayed + this.counts.leased
  }

  /** The lanes that a claim looks at. */
  lanes(topics: readonly string[] | undefined): Lane<Entry>[] {
    if (this.#lane !== undefined) return [this.#lane]
    return (topics ?? []).flatMap((topic) => this.topics.get(topic)?.lane ?? [])
  }

  /** Puts a message into the line. */
  add(message: Message, dueAt: number | undefined): void {
    const entry = this.#enlist(message)
    if (dueAt === undefined) entry.order = message.seq
    this.move(entry, dueAt === undefined ? 'ready' : 'delayed', dueAt ?? 0)
  }

  /** Puts a message into the hands of somebody, unless it is not the first that a claim would find. False: it was not added. */
  addLeased(message: Message, { token, holder, leaseMs }: PublishGrant, now: number): boolean {
    const { topic: name, key, expiresAt } = message.op
    const topic = this.topics.get(name)
    const isFirst = (topic?.lane.size ?? 0) === 0 && (key === undefined || topic?.chains.has(key) !== true)
    if (this.subscription !== '' || !isFirst || (expiresAt !== undefined && expiresAt <= now)) return false
    const entry = this.#enlist(message)
    Object.assign(entry, { order: message.seq, token, holder, claimedAt: now, deliveries: 1 })
    this.move(entry, 'leased', now + leaseMs)
    return true
  }

  #enlist(message: Message): Entry {
    const entry: Entry = {
      message,
      line: this,
      expiresAt: message.op.expiresAt,
      failures: 0,
      deliveries: 0,
      token: undefined,
      holder: undefined,
      claimedAt: undefined,
      received: false,
      history: NO_HISTORY,
      hasCountedFailure: false,
      state: 'gone',
      at: 0,
      reason: undefined,
      order: 0,
      chain: undefined,
      previous: undefined,
      next: undefined,
      stateSlot: -1,
      laneSlot: -1,
      ttlSlot: -1,
    }
    this.entries.set(message.seq, entry)
    message.entries += 1
    return entry
  }

  /** Moves an entry to a state; `at` is its dueAt, deadline or diedAt. Other fields are the caller's. */
  move(entry: Entry, state: EntryState | 'gone', at = 0): void {
    const topic = this.#topicOf(entry)
    this.#leave(entry, topic)
    entry.state = state
    entry.at = at
    if (state === 'ready' && entry.order === 0) entry.order = this.#host.nextNumber()
    const staysChained = state !== 'dead' && state !== 'gone'
    if (entry.chain !== undefined && !staysChained) this.#unchain(entry, topic)
    if (entry.chain === undefined && staysChained && entry.order !== 0) this.#chain(entry, topic)
    if (state === 'gone') this.#forget(entry, topic)
    else this.#enter(entry, topic)
  }

  /** Takes a claimable entry out of its lane for the time of one claim, which passes over it. */
  hide(entry: Entry): void {
    this.#topicOf(entry).lane.remove(entry)
  }

  /** Ends {@link hide}. */
  show(entry: Entry): void {
    this.#topicOf(entry).lane.add(entry)
  }

  #topicOf(entry: Entry): Topic {
    const name = entry.message.op.topic
    let topic = this.topics.get(name)
    if (topic === undefined) {
      topic = { counts: noCounts(), lane: this.#lane ?? new Lane(), chains: new Map() }
      this.topics.set(name, topic)
    }
    return topic
  }

  #queueOf(state: EntryState): SlotQueue<'stateSlot', Entry> {
    switch (state) {
      case 'ready':
        return this.ready
      case 'delayed':
        return this.#host.times.delays
      case 'leased':
        return this.#host.times.leases
      default:
        return this.dead
    }
  }

  #count(entry: Entry, topic: Topic, sign: 1 | -1): void {
    const { state } = entry
    if (state === 'gone') return
    for (const counts of [this.counts, topic.counts]) {
      counts[state] += sign
      counts[state === 'dead' ? 'deadBytes' : 'bytes'] += sign * entry.message.bytes
    }
  }

  #leave(entry: Entry, topic: Topic): void {
    this.#count(entry, topic, -1)
    if (entry.state !== 'gone') this.#queueOf(entry.state).remove(entry)
    if (entry.ttlSlot !== -1) this.#host.times.ttls.remove(entry)
    if (entry.laneSlot === -1) return
    topic.lane.remove(entry)
    for (const counts of [this.counts, topic.counts]) counts.claimable -= 1
  }

  #enter(entry: Entry, topic: Topic): void {
    this.#count(entry, topic, 1)
    const { state } = entry
    if (state === 'gone') return
    this.#queueOf(state).add(entry)
    if (entry.expiresAt !== undefined && (state === 'ready' || state === 'delayed')) this.#host.times.ttls.add(entry)
    if (state === 'ready' && entry.previous === undefined) this.#offer(entry, topic)
  }

  #offer(entry: Entry, topic: Topic): void {
    topic.lane.add(entry)
    for (const counts of [this.counts, topic.counts]) counts.claimable += 1
    this.#host.onClaimable(this, entry.message.op.topic)
  }

  /** Puts an entry with a key at the end of its chain: its order number is the newest. */
  #chain(entry: Entry, topic: Topic): void {
    const { key } = entry.message.op
    if (key === undefined) return
    let chain = topic.chains.get(key)
    if (chain === undefined) {
      chain = { first: undefined, last: undefined }
      topic.chains.set(key, chain)
    }
    entry.chain = chain
    entry.previous = chain.last
    if (chain.last === undefined) chain.first = entry
    else chain.last.next = entry
    chain.last = entry
  }

  /** Takes an entry out of its chain, and offers the next where it was the first. */
  #unchain(entry: Entry, topic: Topic): void {
    const { chain, previous, next } = entry
    if (chain === undefined) return
    if (previous === undefined) chain.first = next
    else previous.next = next
    if (next === undefined) chain.last = previous
    else next.previous = previous
    entry.chain = entry.previous = entry.next = undefined
    if (chain.first === undefined) topic.chains.delete(entry.message.op.key as string)
    else if (previous === undefined && next !== undefined) this.#offer(next, topic)
  }

  #forget(entry: Entry, topic: Topic): void {
    const { message } = entry
    this.entries.delete(message.seq)
    const { ready, delayed, leased, dead } = topic.counts
    if (ready + delayed + leased + dead === 0) this.topics.delete(message.op.topic)
    message.entries -= 1
    if (message.entries === 0) this.#host.onGone(message)
  }
}

/** An entry as the port shows it. */
export function headOf(entry: Entry): EntryHead {
  const { message, line, state } = entry
  const { topic, id, sender, key, priority } = message.op
  return {
    queue: line.queue,
    subscription: line.subscription,
    seq: message.seq,
    state: state as EntryState,
    topic,
    id,
    sender,
    key,
    priority,
    bytes: message.bytes,
    publishedAt: message.publishedAt,
    expiresAt: entry.expiresAt,
    dueAt: state === 'delayed' ? entry.at : undefined,
    diedAt: state === 'dead' ? entry.at : undefined,
    reason: state === 'dead' ? entry.reason : undefined,
    failures: entry.failures,
    deliveries: entry.deliveries,
    token: entry.token,
    holder: entry.holder,
    claimedAt: state === 'leased' ? entry.claimedAt : undefined,
    received: state === 'leased' && entry.received,
    deadline: state === 'leased' ? entry.at : undefined,
  }
}

export function droppedOf(entry: Entry, reason: DeadReason): DroppedEntry {
  const { message, line } = entry
  const { topic, id, sender } = message.op
  return { queue: line.queue, subscription: line.subscription, seq: message.seq, topic, id, sender, reason }
}
