/**
 * Owner of the list of reliable consumers that a broker leaves to its successor, which asks them to subscribe again: without it
 * they would notice with their next renewal only.
 *
 *     sub, end --> list changed --a moment--> the store: one record for each queue
 *     start: the store's record --> `<resubscribe/>` to each, once the stream is up
 *
 * The record is a subscription of the store that no message goes to: its meta is the list. It is written only where the store
 * outlives the broker.
 *
 * A `sub` is answered when its session is in the record: whoever was told that it is subscribed is called after a restart. Where
 * the store does not answer it is told all the same, since workers are what drains a full disk.
 *
 * Invariants:
 * 1. A queue's record is written by one operation at a time; the last state is written in the end.
 * 2. Nobody is asked twice, nor whoever has subscribed already.
 * 3. The record of an earlier life is read before it is written over.
 * 4. A record has at most {@link REMEMBERED_MAX} of them: a `sub` beyond is answered all the same, and goes on with its renewal.
 */
import { encodeResubscribe, stanza, tryParseJid } from '@xmq/protocol'
import type { Durability, StoreOp, SubscriptionRecord } from '../store/port.ts'
import { createDeadline, type Deadline, type Deadlines } from './deadlines.ts'
import type { Consumer, Domain, Queue } from './records.ts'
import type { Step } from './step.ts'
import { STORE_RETRY_MS, type StoreCalls } from './store-calls.ts'

/** The record's name: no durable subscription has one without a slash. */
const RECORD = 'consumers'
/** Changes are gathered for so long; those that somebody waits for for as many ms as there are forties of consumers. */
const GATHER_MS = 250
const CONSUMERS_A_MS = 40
/** Most consumers of a queue that are remembered. */
const REMEMBERED_MAX = 10_000

/** What {@link Reconnecting} needs. */
export interface ReconnectingOptions {
  readonly durability: Durability
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
}

interface Waiting {
  readonly jid: string
  readonly go: (step: Step) => void
}

interface Roll {
  readonly deadline: Deadline
  /** That of an earlier life was read. */
  isRead: boolean
  /** The record, and who is in it, whatever comes of what is being written. */
  written: string
  members: ReadonlySet<string>
  isWriting: boolean
  waiting: Waiting[]
}

/** See the top of this file. */
export class Reconnecting {
  readonly #options: ReconnectingOptions
  readonly #rolls: Map<Queue, Roll> = new Map()
  readonly #changed: Set<Queue> = new Set()
  /** Who is to be asked when the stream is up. */
  readonly #asked: Map<Queue, Set<string>> = new Map()

  constructor(options: ReconnectingOptions) {
    this.#options = options
  }

  /** A consumer's subscriptions were changed. */
  changed({ queue, session }: Consumer): void {
    this.#asked.get(queue)?.delete(session.jid)
    if (this.#options.durability !== 'memory') this.#changed.add(queue)
  }

  /** Whether a session will be called after a restart of the broker, as things stand. */
  isRemembered(queue: Queue, jid: string): boolean {
    return this.#options.durability === 'memory' || !queue.isLoaded || this.#roll(queue).members.has(jid)
  }

  /** Consumers that the records have. */
  get count(): number {
    let count = 0
    for (const { members } of this.#rolls.values()) count += members.size
    return count
  }

  /** Goes on when it is certain that a session, which has just subscribed, will be called: or that it cannot be. */
  whenRemembered({ queue, session }: Consumer, go: (step: Step) => void): void {
    this.#roll(queue).waiting.push({ jid: session.jid, go })
    this.#changed.add(queue)
  }

  /** To be called at the end of each step. */
  run(step: Step): void {
    if (this.#changed.size === 0) return
    for (const queue of this.#changed) {
      const { deadline, waiting } = this.#roll(queue)
      const least = Math.min(GATHER_MS, Math.floor(queue.consumers.size / CONSUMERS_A_MS))
      const gatherMs = waiting.length === 0 ? GATHER_MS : least
      if (gatherMs === 0) this.write(step, queue)
      else if (deadline.slot === -1 || deadline.at > step.now + gatherMs) {
        this.#options.deadlines.set(deadline, step.now + gatherMs)
      }
    }
    this.#changed.clear()
  }

  /** Writes down who is connected. */
  write(step: Step, queue: Queue): void {
    if (this.#options.durability === 'memory') return
    const roll = this.#roll(queue)
    if (roll.isWriting || !queue.isLoaded) {
      this.#options.deadlines.set(roll.deadline, step.now + GATHER_MS)
      return
    }
    const jids: string[] = [...(this.#asked.get(queue) ?? [])]
    for (const { kind, session, subscriptions } of queue.consumers.values()) {
      if (jids.length >= REMEMBERED_MAX) break
      if (kind === 'reliable' && subscriptions.size > 0) jids.push(session.jid)
    }
    const meta = JSON.stringify(jids.sort())
    const { waiting } = roll
    roll.waiting = []
    if (meta === roll.written) {
      for (const { go } of waiting) go(step)
      return
    }
    roll.isWriting = true
    // Whoever is in the old record alone will be in none soon.
    const next = new Set(jids)
    roll.members = new Set([...roll.members].filter((jid) => next.has(jid)))
    const at = { queue: queue.address, subscription: RECORD }
    const ops: StoreOp[] = [
      { ...at, type: 'delete-subscription' },
      { ...at, type: 'create-subscription', meta, max: Number.MAX_SAFE_INTEGER },
    ]
    this.#options.calls.apply(ops, (later, results) => {
      roll.isWriting = false
      if (results[1]?.status === 'ok') {
        roll.written = meta
        roll.members = next
        if (roll.waiting.length > 0) this.#changed.add(queue)
      } else {
        // Whether it was written is not known for sure: it is again, whatever is in it.
        roll.written = ''
        this.#options.deadlines.set(roll.deadline, later.now + STORE_RETRY_MS)
      }
      for (const { go } of waiting) go(later)
    })
  }

  /** Takes on the list of an earlier life. */
  load(step: Step, queue: Queue, records: readonly SubscriptionRecord[]): void {
    const record = records.find(({ subscription }) => subscription === RECORD)
    if (record === undefined) return
    const roll = this.#roll(queue)
    // The store is looked through again when it did not answer all: they have been asked.
    if (roll.isRead) return
    roll.isRead = true
    roll.written = record.meta
    const known = readList(record.meta)
    roll.members = new Set(known)
    const jids = known.filter((jid) => !queue.consumers.has(jid))
    this.#asked.set(queue, new Set(jids))
    if (!queue.domain.isDown && queue.domain.epoch !== undefined) this.#ask(step, queue)
  }

  /** The stream of a domain is up. */
  linkUp(step: Step, { queues }: Domain): void {
    for (const queue of queues) this.#ask(step, queue)
  }

  #ask(step: Step, queue: Queue): void {
    const asked = this.#asked.get(queue)
    if (asked === undefined) return
    this.#asked.delete(queue)
    for (const jid of asked) {
      const head = { type: 'set', id: step.entropy.id(), from: queue.address, to: jid }
      step.send(queue.domain, stanza('iq', head, [encodeResubscribe(queue.domain.epoch)]))
    }
    // Whoever does not come back is forgotten.
    this.#options.deadlines.set(this.#roll(queue).deadline, step.now + 60_000)
  }

  #roll(queue: Queue): Roll {
    let roll = this.#rolls.get(queue)
    if (roll === undefined) {
      const deadline = createDeadline({ kind: 'remember', queue })
      roll = { deadline, isRead: false, written: '[]', members: new Set(), isWriting: false, waiting: [] }
      this.#rolls.set(queue, roll)
    }
    return roll
  }
}

function readList(meta: string): string[] {
  try {
    const parsed: unknown = JSON.parse(meta)
    if (!Array.isArray(parsed)) return []
    return parsed.filter((jid): jid is string => typeof jid === 'string' && (tryParseJid(jid)?.resource ?? '') !== '')
  } catch {
    return []
  }
}
