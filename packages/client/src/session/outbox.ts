/**
 * Publishes to a reliable queue, until each is confirmed. Owner: one session.
 *
 *     blocked --the one before it of its key is over--> ready --in a batch--> sent --stored--> confirmed
 *                                                         ^                     | refused `wait`, no answer, connection
 *                                                         +---------------------+ lost, broker lost (pulse.ts)
 *     any --refused otherwise, deadline, cancel, close--> failed
 *
 * Batches: what was published within one turn of the event loop leaves together, at once when nothing is unconfirmed. The
 * more batches are unconfirmed, the more messages it takes for another one: at low rates nothing waits, at high rates
 * batches grow by themselves.
 *
 * Invariants:
 * 1. Each message ends in exactly one `settled` or `failed`.
 * 2. Of one topic and key at most one message is in an unconfirmed batch, and they leave in the order of the calls (lineup.ts).
 * 3. What is ready leaves in the order of the calls: what came back goes before anything new, with the same id.
 * 4. While the queue has asked to wait, nothing leaves; after that one batch at a time, until one is stored.
 * 5. A message that may be stored fails before the queue has forgotten its id, as `unconfirmed`.
 * 6. At most `pendingMax` messages with `pendingBytesMax` bytes are held, and at most BATCHES_MAX batches are unconfirmed.
 */
import {
  BATCH_ITEMS_MAX,
  decodeError,
  decodePublished,
  encodePublish,
  findChild,
  matchPublished,
  NS_QUEUE,
  type Published,
  type PublishedItem,
  stanza,
  unpackPublishItem,
  type WrittenItem,
  type XmlElement,
  XmqError,
  YoungMap,
} from '@xmq/protocol'
import { type Lined, Lineup } from './lineup.ts'
import { ITEMS_BYTES_MAX } from './outgoing.ts'
import { isHopeless, Pauses } from './pauses.ts'
import type { Effect, Entropy, OutgoingMessage, SessionRules } from './port.ts'
import type { Pulse } from './pulse.ts'
import type { Timers } from './timers.ts'

interface Publish {
  readonly ref: number
  readonly message: OutgoingMessage
  item: WrittenItem
  readonly calledAt: number
  /** When it fails. */
  endsAt: number
  wasSent: boolean
  /** How often it was sent and nothing said that it was not stored. */
  doubts: number
  /** Why it was not stored, as the queue said last: it was full. */
  refusal: XmqError | undefined
}

type Entry = Lined<Publish>

interface Batch {
  readonly entries: readonly Entry[]
  /** As it was sent: its items may be written anew since. */
  readonly encoding: string | undefined
  /** Its place among all that was asked (pulse.ts). */
  readonly number: number
}

/** Most batches that are unconfirmed at a time. */
const BATCHES_MAX = 4
/** Most batches whose late answer still counts. */
const OVERDUE_MAX = 32
/** How many messages have to wait for a batch beside so many unconfirmed ones. */
const LEAST_WAITING = [1, 4, 16, 64] as const
/** The part of the dedupe window that is not used: the queue's clock began later than ours, but answers take time. */
const WINDOW_USED = 0.95

/** The timer of a batch whose answer is overdue. */
export function batchTimer(id: string): string {
  return `pub:${id}`
}
/** The timer of the end of a pause. */
export const OUTBOX_TIMER = 'outbox'

/** Why a message cannot be taken on. */
function fullError(count: number, bytes: number): XmqError {
  return new XmqError(
    'limit-reached',
    `${count} publishes with ${bytes} bytes are unconfirmed already; await them, or raise pendingMax.`,
  )
}

/** Keeps publishes until they are confirmed. */
export class Outbox {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  readonly #pulse: Pulse
  readonly #entries = new YoungMap<number, Entry>()
  readonly #lineup = new Lineup<Publish>()
  readonly #batches = new Map<string, Batch>()
  /** Batches of this connection that were sent again: their answer counts when it comes, or a slow queue would never confirm. */
  readonly #overdue = new Map<string, readonly Entry[]>()
  readonly #pauses: Pauses
  #bytes = 0
  #isUp = false
  #turnAsked = false
  /** What was lost leaves without waiting for company. */
  #isUrgent = false
  /** How long the queue says that it knows an id again. */
  #toldWindowMs = Number.POSITIVE_INFINITY
  /** The queue refused an encoding that it, or one before it, had said it knows. */
  wasUnpacked = false
  #lastRefusal: XmqError | undefined

  constructor(rules: SessionRules, timers: Timers<string | number>, pulse: Pulse) {
    this.#rules = rules
    this.#timers = timers
    this.#pulse = pulse
    this.#pauses = new Pauses({ baseMs: 250, maxMs: 30_000 })
  }

  /** Messages that are not over. */
  get size(): number {
    return this.#entries.size
  }

  has(ref: number): boolean {
    return this.#entries.has(ref)
  }

  /**
   * The queue has told how long it knows an id again: nothing is repeated for longer, whatever the rules say.
   * @param since when its broker was noticed: what is sent already may have reached that one then, and not only the one before it
   */
  learnWindow(ms: number | undefined, since: number): void {
    const windowMs = ms ?? Number.POSITIVE_INFINITY
    const isShorter = windowMs < this.#toldWindowMs
    this.#toldWindowMs = windowMs
    if (!isShorter) return
    for (const entry of this.#entries.values()) if (entry.wasSent) this.#bindToWindow(entry, since)
  }

  /**
   * Takes a publish on.
   * @param calledAt when the caller published it: the deadline counts from there
   */
  add(
    call: { readonly ref: number; readonly message: OutgoingMessage; readonly timeoutMs: number | undefined },
    calledAt: number,
    out: Effect[],
  ): void {
    const { ref, message, timeoutMs } = call
    let item: WrittenItem
    try {
      item = message.item()
    } catch (error) {
      out.push({ type: 'failed', ref, error: XmqError.from(error) })
      return
    }
    if (this.#entries.size >= this.#rules.pendingMax || this.#bytes + item.bytes > this.#rules.pendingBytesMax) {
      out.push({ type: 'failed', ref, error: fullError(this.#entries.size, this.#bytes) })
      return
    }
    const chain = message.key === undefined ? undefined : `${message.topic}\n${message.key}`
    const windowMs = Math.floor(this.#rules.dedupeWindowMs * WINDOW_USED)
    const endsAt = calledAt + Math.min(timeoutMs ?? windowMs, windowMs)
    const entry: Entry = {
      ref,
      message,
      item,
      calledAt,
      endsAt,
      wasSent: false,
      doubts: 0,
      refusal: undefined,
      ordinal: 0,
      chain,
      next: undefined,
      phase: 'ready',
    }
    this.#lineup.add(entry)
    this.#entries.set(ref, entry)
    this.#bytes += item.bytes
    this.#timers.set(ref, endsAt)
    if (entry.phase === 'ready') this.#askTurn(out)
  }

  #askTurn(out: Effect[]): void {
    if (this.#turnAsked || !this.#isUp) return
    this.#turnAsked = true
    out.push({ type: 'turn' })
  }

  /** The connection is up and the queue reliable, or the broker is back: what is ready may leave. */
  ready(out: Effect[]): void {
    this.#isUp = true
    this.#pauses.over()
    this.#timers.delete(OUTBOX_TIMER)
    if (this.#lineup.readyCount > 0) this.#askTurn(out)
  }

  /** The connection ended: what was sent is sent again. */
  down(): void {
    this.#isUp = false
    this.#turnAsked = false
    for (const [id, { entries }] of this.#batches) {
      this.#timers.delete(batchTimer(id))
      this.#lineup.giveBack(entries)
    }
    this.#batches.clear()
    this.#overdue.clear()
    this.#timers.delete(OUTBOX_TIMER)
  }

  /** The turn is over, or a pause: sends what may be sent. */
  turn(now: number, entropy: Entropy, out: Effect[]): void {
    this.#turnAsked = false
    if (!this.#isUp || this.#pauses.isPaused(now)) return
    const batchesMax = this.#pauses.isDoubtful ? 1 : BATCHES_MAX
    while (this.#lineup.readyCount > 0 && this.#batches.size < batchesMax) {
      if (!this.#isUrgent && this.#lineup.readyCount < (LEAST_WAITING[this.#batches.size] ?? 1)) return
      this.#isUrgent = false
      this.#writeBatch(now, entropy, out)
    }
  }

  #writeBatch(now: number, entropy: Entropy, out: Effect[]): void {
    const entries: Entry[] = []
    let bytes = 0
    for (let entry = this.#lineup.first(); entry !== undefined; entry = this.#lineup.first()) {
      const { item } = entry
      const isOther = entries.length > 0 && item.encoding !== entries[0]?.item.encoding
      if (isOther || entries.length === BATCH_ITEMS_MAX) break
      if (entries.length > 0 && bytes + item.bytes > ITEMS_BYTES_MAX) break
      this.#lineup.take(entry)
      if (!entry.wasSent) this.#sentFirst(entry, now)
      entry.doubts++
      entries.push(entry)
      bytes += item.bytes
    }
    const id = entropy.id()
    this.#batches.set(id, { entries, encoding: entries[0]?.item.encoding, number: this.#pulse.next() })
    this.#timers.set(batchTimer(id), now + this.#rules.answerTimeoutMs)
    const publish = encodePublish(entries.map(({ item }) => item))
    out.push({ type: 'send', stanza: stanza('iq', { type: 'set', id, to: this.#rules.queue }, [publish]) })
  }

  /** From now on the queue may know the id, and for so long. */
  #sentFirst(entry: Entry, now: number): void {
    entry.wasSent = true
    this.#bindToWindow(entry, now)
  }

  #bindToWindow(entry: Entry, since: number): void {
    const endsAt = since + Math.floor(this.#toldWindowMs * WINDOW_USED)
    if (endsAt >= entry.endsAt) return
    entry.endsAt = endsAt
    this.#timers.set(entry.ref, endsAt)
  }

  /** Whether an IQ id is that of an unconfirmed batch. */
  isBatch(id: string): boolean {
    return this.#batches.has(id) || this.#overdue.has(id)
  }

  /** The queue's answer to a batch. */
  answered(
    id: string,
    iq: XmlElement,
    explain: (error: XmqError) => XmqError,
    now: number,
    entropy: Entropy,
    out: Effect[],
  ): void {
    const encoding = this.#batches.get(id)?.encoding
    const entries = this.#take(id)
    if (entries === undefined) {
      this.#answeredLate(id, iq, out)
      return
    }
    if (iq.attrs.get('type') === 'error') {
      const error = explain(decodeError(iq))
      if (encoding !== undefined && error.fromBroker && error.code === 'bad-request') this.#unpack(entries, out)
      else this.#refused(entries, error, now, entropy, out)
    } else {
      const published = readPublished(iq)
      if (published instanceof XmqError) this.#retry(entries, published, now, entropy, out)
      else this.#published(entries, published, now, entropy, out)
    }
    if (this.#lineup.readyCount > 0) this.#askTurn(out)
  }

  /** What is stored is stored, also where it was sent again meanwhile. */
  #answeredLate(id: string, iq: XmlElement, out: Effect[]): void {
    const entries = this.#overdue.get(id) ?? []
    this.#overdue.delete(id)
    const published = iq.attrs.get('type') === 'error' ? undefined : readPublished(iq)
    if (published === undefined || published instanceof XmqError) return
    const ids = entries.map(({ message }) => message.id)
    for (const [at, answer] of matchPublished(ids, published.items).entries()) {
      const entry = entries[at] as Entry
      if (entry.phase !== 'over' && answer?.status === 'stored') this.#stored(entry, answer, published.durability, out)
    }
    if (this.#lineup.readyCount > 0) this.#askTurn(out)
  }

  #take(id: string): readonly Entry[] | undefined {
    const entries = this.#batches.get(id)?.entries
    this.#batches.delete(id)
    this.#timers.delete(batchTimer(id))
    return entries
  }

  #published(
    entries: readonly Entry[],
    published: ReturnType<typeof decodePublished>,
    now: number,
    entropy: Entropy,
    out: Effect[],
  ): void {
    const ids = entries.map(({ message }) => message.id)
    const again: Entry[] = []
    let reason: XmqError | undefined
    for (const [at, answer] of matchPublished(ids, published.items).entries()) {
      const entry = entries[at] as Entry
      if (entry.phase !== 'taken') continue
      if (answer?.status === 'stored') this.#stored(entry, answer, published.durability, out)
      else if (answer !== undefined && answer.error.type !== 'wait') this.#failed(entry, answer.error, out)
      else {
        if (answer?.error.code === 'limit-reached') noteFull(entry, answer.error)
        again.push(entry)
        reason = longerWait(reason, answer?.error ?? new XmqError('server', 'The confirm does not name every message.'))
      }
    }
    // One that was stored shows that the queue works again.
    if (again.length < entries.length) {
      this.#pauses.succeeded()
      this.#lastRefusal = undefined
    }
    if (reason !== undefined) this.#retry(again, reason, now, entropy, out)
  }

  #stored(
    entry: Entry,
    answer: PublishedItem & { status: 'stored' },
    durability: Published['durability'],
    out: Effect[],
  ): void {
    const { seq, duplicate, subscriptions } = answer
    this.#remove(entry)
    const confirm = { seq, durability, duplicate, subscriptions }
    out.push({ type: 'settled', ref: entry.ref, answer: undefined, confirm })
  }

  #failed(entry: Entry, error: XmqError, out: Effect[]): void {
    this.#remove(entry)
    out.push({ type: 'failed', ref: entry.ref, error })
  }

  /** A whole batch was refused: nothing of it was stored. */
  #refused(entries: readonly Entry[], error: XmqError, now: number, entropy: Entropy, out: Effect[]): void {
    if (!isHopeless(error)) {
      this.#retry(entries, error, now, entropy, out)
      return
    }
    for (const entry of entries) if (entry.phase === 'taken') this.#failed(entry, error, out)
  }

  /** The queue does not know the encoding, though one before it did: everything leaves as elements from now on. */
  #unpack(entries: readonly Entry[], out: Effect[]): void {
    this.wasUnpacked = true
    this.#lineup.giveBack(entries)
    for (const entry of this.#entries.values()) {
      if (entry.item.encoding === undefined) continue
      try {
        const item = unpackPublishItem(entry.item)
        this.#bytes += item.bytes - entry.item.bytes
        entry.item = item
      } catch (error) {
        this.#failed(entry, XmqError.from(error), out)
      }
    }
    this.#isUrgent = true
  }

  #retry(entries: readonly Entry[], reason: XmqError, now: number, entropy: Entropy, out: Effect[]): void {
    this.#lineup.giveBack(entries)
    this.#lastRefusal = reason
    const retryAt = this.#pauses.failed(reason, now, entropy)
    this.#timers.set(OUTBOX_TIMER, retryAt)
    out.push({ type: 'event', event: { name: 'publish-paused', reason, retryAt } })
  }

  /** The answer to a batch is overdue. */
  overdue(id: string, now: number, entropy: Entropy, out: Effect[]): void {
    const entries = this.#take(id)
    if (entries === undefined) return
    this.#keepOverdue(id, entries)
    const text = `${this.#rules.queue} did not confirm within ${this.#rules.answerTimeoutMs} ms.`
    this.#retry(entries, new XmqError('timeout', text), now, entropy, out)
  }

  #keepOverdue(id: string, entries: readonly Entry[]): void {
    this.#overdue.set(id, entries)
    const oldest = this.#overdue.keys().next()
    if (this.#overdue.size > OVERDUE_MAX && !oldest.done) this.#overdue.delete(oldest.value)
  }

  /** The number of a batch that is not answered. */
  numberOf(id: string): number | undefined {
    return this.#batches.get(id)?.number
  }

  /** The least number above `above` of a batch that is not answered. */
  oldest(above: number): number | undefined {
    for (const { number } of this.#batches.values()) if (number > above) return number
    return undefined
  }

  /** What was numbered below and has no answer is lost with its broker, or is there already: it leaves again. */
  lost(before: number, out: Effect[]): void {
    for (const [id, { number }] of this.#batches) {
      if (number >= before) break
      const entries = this.#take(id) ?? []
      this.#keepOverdue(id, entries)
      this.#lineup.giveBack(entries)
      this.#isUrgent = true
    }
    if (this.#lineup.readyCount > 0) this.#askTurn(out)
  }

  /** The caller gives up. */
  cancel(ref: number, error: XmqError, out: Effect[]): void {
    const entry = this.#entries.get(ref)
    if (entry === undefined) return
    this.#failed(entry, error, out)
    if (this.#lineup.readyCount > 0) this.#askTurn(out)
  }

  /** A message's deadline has come. @param hindrance why nothing is sent at the moment */
  expired(ref: number, hindrance: XmqError | undefined, now: number, out: Effect[]): void {
    const entry = this.#entries.get(ref)
    if (entry === undefined) return
    const elapsedMs = Math.round(now - entry.calledAt)
    const reason = hindrance ?? this.#lastRefusal
    const cause = reason === undefined ? '' : ` ${reason.message}`
    const { id, topic } = entry.message
    const what = `The message '${id}' to '${topic}'`
    let error: XmqError
    if (entry.doubts > 0) {
      const text = `${what} was sent, but not confirmed within ${elapsedMs} ms; whether it is stored is unknown.${cause}`
      error = new XmqError('unconfirmed', text, { cause: reason })
    } else if (entry.refusal !== undefined) {
      const text = `${what} was refused for ${elapsedMs} ms. ${entry.refusal.message}`
      error = new XmqError(entry.refusal.code, text, { cause: entry.refusal })
    } else {
      const text = `${what} was not sent within ${elapsedMs} ms.${cause}`
      error = new XmqError(reason?.code ?? 'timeout', text, { cause: reason })
    }
    this.#failed(entry, error, out)
    if (this.#lineup.readyCount > 0) this.#askTurn(out)
  }

  /** Everything fails. */
  close(error: XmqError, out: Effect[]): void {
    for (const entry of this.#entries.values()) {
      const { id, topic } = entry.message
      const reason =
        entry.doubts > 0
          ? new XmqError('unconfirmed', `Closed before the message '${id}' to '${topic}' was confirmed.`, {
              cause: error,
            })
          : error
      this.#failed(entry, reason, out)
    }
  }

  #remove(entry: Entry): void {
    this.#lineup.remove(entry)
    this.#entries.delete(entry.ref)
    this.#timers.delete(entry.ref)
    this.#bytes -= entry.item.bytes
  }
}

function readPublished(iq: XmlElement): ReturnType<typeof decodePublished> | XmqError {
  const root = findChild(iq, 'published', NS_QUEUE)
  if (root === undefined) return new XmqError('server', 'The queue answered a publish without a confirm.')
  try {
    return decodePublished(root)
  } catch (error) {
    return XmqError.from(error)
  }
}

function longerWait(a: XmqError | undefined, b: XmqError): XmqError {
  return a !== undefined && (a.retryAfterSeconds ?? 0) >= (b.retryAfterSeconds ?? 0) ? a : b
}

/** The queue had no room for a message: one of its sends is known to have stored nothing. Other refusals may come from a store in trouble. */
function noteFull(entry: Publish, error: XmqError): void {
  entry.doubts--
  entry.refusal = error
}
