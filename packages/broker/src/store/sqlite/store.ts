/**
 * The sqlite store as the broker sees it: the port, in front of an engine in a worker thread.
 *
 * Owns the queue of requests, and which batches are on their way.
 *
 * ```
 *   apply, claim, … ──> waiting ──(engine free)──> batch ──> engine: one commit ──> one sync ──> answers, in order
 * ```
 *
 * Group commit: what is asked while batches are on their way goes into the next one. Nobody waits for a timer.
 *
 * Invariants:
 * 1. At most {@link BATCHES_AHEAD_MAX} batches are on their way, one while the file is not known to be open, and requests leave in the order in
 *    which they were made.
 * 2. Every request is answered once, whatever becomes of the engine.
 * 3. After a batch that failed, whatever it did is unknown; what is told of it when the file is open again is the truth.
 * 4. `waiting` holds at most {@link WAITING_BYTES_MAX} of messages: publishes beyond are refused at once.
 */
import { XmqError } from '@xmq/protocol'
import { BODY_BYTES_MAX, closedError } from '../limits.ts'
import type { StoreOp, StoreResult } from '../operations.ts'
import {
  type BrowseAnswer,
  type BrowseRequest,
  CLAIM_TOPICS_MAX,
  type ClaimableTopic,
  type ClaimAnswer,
  type ClaimRequest,
  type DueAnswer,
  type LeasesRequest,
  type LineStats,
  type Store,
  type StoreCaps,
  type StoreStats,
  type SubscriptionsAnswer,
  type TopicsAnswer,
  type TopicsRequest,
} from '../port.ts'
import {
  BATCHES_AHEAD_MAX,
  type ChannelOptions,
  createInlineChannel,
  createWorkerChannel,
  type EngineChannel,
} from './channel.ts'
import type { BatchAnswer, EngineAnswer, EngineFailure, EngineRequest } from './engine.ts'
import { packClaim, packOps, unpackMessages, unpackResults } from './wire.ts'

/** Options of {@link createSqliteStore}. */
export interface SqliteStoreOptions extends ChannelOptions {
  /** Run SQLite in a worker thread. @default true, but false when run from TypeScript sources, which Node 20 cannot do */
  readonly thread?: boolean
}

/** A sqlite store. */
export interface SqliteStore extends Store {
  /** Runs a PRAGMA, in turn with everything else: `max_page_count`, `integrity_check`. */
  pragma(text: string): Promise<readonly unknown[]>
}

/** Most bytes of messages that wait for a commit. */
const WAITING_BYTES_MAX = 64 * 1024 * 1024
/** Most bytes and operations that one commit takes. */
const BATCH_BYTES_MAX = 8 * 1024 * 1024
const BATCH_OPS_MAX = 5000
/** Milliseconds that a batch may take before the store is said to be stuck, and that a probe waits. */
const STUCK_MS = 10_000
const PROBE_MS = 5000

interface Waiting {
  readonly request: EngineRequest
  readonly bytes: number
  readonly ops: number
  readonly resolve: (answer: EngineAnswer) => void
}

/** Makes a store on one SQLite file; `open()` opens it. */
export function createSqliteStore(options: SqliteStoreOptions): SqliteStore {
  const { thread = import.meta.url.endsWith('.js'), ...file } = options
  return new SqliteStoreFront((onDeath) =>
    thread ? createWorkerChannel(file, new URL('./worker.js', import.meta.url), onDeath) : createInlineChannel(file),
  )
}

class SqliteStoreFront implements SqliteStore {
  readonly caps: StoreCaps = Object.freeze({ durability: 'disk', shared: false, maxBody: BODY_BYTES_MAX })
  readonly #channel: EngineChannel
  readonly #listeners = new Set<(topics: readonly ClaimableTopic[]) => void>()
  readonly #lines = new Map<string, LineStats>()
  readonly #remembered = new Map<string, number>()
  #waiting: Waiting[] = []
  #waitingBytes = 0
  #repeatableAcks = 0
  #state: 'new' | 'opening' | 'open' | 'closed' = 'new'
  #isClosing = false
  #isPumpDue = false
  #hasMore = false
  /** When each batch that is on its way left, in that order. */
  readonly #sentAt: number[] = []
  #batchesMax = 1
  #failure: EngineFailure | undefined
  #probing: Promise<XmqError | undefined> | undefined
  #opened: Promise<void> | undefined
  #closed: Promise<void> | undefined
  #onIdle: (() => void) | undefined

  constructor(connect: (onDeath: (failure: EngineFailure) => void) => EngineChannel) {
    this.#channel = connect((failure) => {
      this.#failure = failure
    })
  }

  open(now: number): Promise<void> {
    if (this.#state !== 'new') {
      return Promise.reject(new XmqError('closed', `The store is ${this.#state} already. Make another one.`))
    }
    this.#state = 'opening'
    this.#opened = this.#open(now)
    return this.#opened
  }

  async #open(now: number): Promise<void> {
    try {
      this.#take(await this.#channel.open(now))
      this.#state = 'open'
      this.#pumpSoon()
    } catch (error) {
      this.#state = 'closed'
      this.#refuseWaiting()
      await this.#channel.close()
      throw error
    }
  }

  async apply(ops: readonly StoreOp[], now: number): Promise<readonly StoreResult[]> {
    let bytes = 0
    for (const op of ops) if (op.type === 'publish') bytes += op.body.length + op.meta.length
    if (bytes > 0 && this.#waitingBytes + bytes > WAITING_BYTES_MAX) {
      const error = new XmqError('overloaded', 'The store has too much to write. Publish again later.', {
        retryAfterSeconds: 1,
      })
      return ops.map(() => ({ status: 'unavailable', error }))
    }
    const isGrowing = ops.some(({ type }) => type === 'publish' || type === 'create-subscription')
    const answer = await this.#ask({ type: 'apply', ops: packOps(ops), isGrowing, bytes, now }, bytes, ops.length)
    if (answer.type === 'apply') return unpackResults(answer.results)
    const refusal = unavailable(answer)
    return ops.map(() => refusal)
  }

  async claim(request: ClaimRequest): Promise<ClaimAnswer> {
    if ((request.topics?.length ?? 0) > CLAIM_TOPICS_MAX)
      throw new RangeError(`More than ${CLAIM_TOPICS_MAX} topics in a claim`)
    const answer = await this.#ask({ type: 'claim', request: packClaim(request) }, 0, request.grants.length)
    if (answer.type !== 'claim') return unavailable(answer)
    return { ...answer.answer, messages: unpackMessages(request, answer.answer.messages) }
  }

  async due(now: number, max: number): Promise<DueAnswer> {
    const answer = await this.#ask({ type: 'due', now, max })
    return answer.type === 'due' ? answer.answer : unavailable(answer)
  }

  watch(listener: (topics: readonly ClaimableTopic[]) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  leases(request: LeasesRequest): Promise<BrowseAnswer> {
    return this.browse({ ...request, state: 'leased', bodies: false })
  }

  async browse(request: BrowseRequest): Promise<BrowseAnswer> {
    const answer = await this.#ask({ type: 'browse', request })
    return answer.type === 'browse' ? answer.answer : unavailable(answer)
  }

  async topics(request: TopicsRequest): Promise<TopicsAnswer> {
    const answer = await this.#ask({ type: 'topics', request })
    return answer.type === 'topics' ? answer.answer : unavailable(answer)
  }

  async subscriptions(queue: string): Promise<SubscriptionsAnswer> {
    const answer = await this.#ask({ type: 'subscriptions', queue })
    return answer.type === 'subscriptions' ? answer.answer : unavailable(answer)
  }

  stats(): StoreStats {
    const lines = [...this.#lines.values()]
    return {
      messages: lines.reduce((sum, line) => sum + line.ready + line.delayed + line.leased + line.dead, 0),
      bytes: lines.reduce((sum, line) => sum + line.bytes + line.deadBytes, 0),
      lines,
      remembered: this.#remembered,
      repeatableAcks: this.#repeatableAcks,
      waitingBytes: this.#waitingBytes,
    }
  }

  async probe(): Promise<XmqError | undefined> {
    if (this.#isClosing || this.#state === 'closed') return closedError()
    const busyMs = performance.now() - (this.#sentAt[0] ?? Number.POSITIVE_INFINITY)
    if (busyMs > STUCK_MS) return slowError(busyMs)
    // A commit that worked says enough; one that failed may work by now.
    if (this.#failure === undefined) return undefined
    this.#probing ??= this.#probe().finally(() => {
      this.#probing = undefined
    })
    return await this.#probing
  }

  async #probe(): Promise<XmqError | undefined> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(resolve, PROBE_MS, 'late').unref()
    })
    const answer = await Promise.race([this.#ask({ type: 'probe' }), late])
    clearTimeout(timer)
    if (answer === 'late') return slowError(PROBE_MS)
    return answer.type === 'probe' ? undefined : unavailable(answer).error
  }

  async pragma(text: string): Promise<readonly unknown[]> {
    const answer = await this.#ask({ type: 'pragma', text })
    if (answer.type !== 'pragma') throw unavailable(answer).error
    return answer.rows
  }

  close(): Promise<void> {
    this.#closed ??= this.#end()
    return this.#closed
  }

  async #end(): Promise<void> {
    const wasNew = this.#state === 'new'
    this.#isClosing = true
    if (wasNew) this.#state = 'closed'
    await this.#opened?.catch(() => undefined)
    const isOpen = this.#state === 'open'
    if (isOpen && (this.#sentAt.length > 0 || this.#waiting.length > 0)) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve
      })
    }
    this.#state = 'closed'
    this.#refuseWaiting()
    if (isOpen) await this.#channel.close()
  }

  #refuseWaiting(): void {
    for (const { resolve } of this.#waiting.splice(0)) resolve({ type: 'failed', failure: closedError() })
  }

  #ask(request: EngineRequest, bytes = 0, ops = 1): Promise<EngineAnswer> {
    if (this.#isClosing || this.#state === 'closed') return Promise.resolve({ type: 'failed', failure: closedError() })
    return new Promise((resolve) => {
      this.#waiting.push({ request, bytes, ops, resolve })
      this.#waitingBytes += bytes
      this.#pumpSoon()
    })
  }

  /** Sends the next batch when this turn is over, with everything that is asked in it. */
  #pumpSoon(): void {
    if (this.#isPumpDue || !this.#hasRoom || this.#state === 'new' || this.#state === 'opening') return
    this.#isPumpDue = true
    queueMicrotask(() => {
      this.#isPumpDue = false
      void this.#pump()
    })
  }

  get #hasRoom(): boolean {
    return this.#sentAt.length < this.#batchesMax
  }

  async #pump(): Promise<void> {
    if (!this.#hasRoom || (this.#waiting.length === 0 && !this.#hasMore)) return
    this.#sentAt.push(performance.now())
    const batch = this.#nextBatch()
    let answers: readonly EngineAnswer[]
    try {
      const answer = await this.#channel.run(batch.map(({ request }) => request))
      this.#take(answer)
      answers = answer.answers
    } catch (error) {
      const { code, message } = XmqError.from(error)
      this.#failure = { code, message }
      this.#hasMore = false
      this.#batchesMax = 1
      answers = batch.map(() => ({ type: 'failed', failure: { code, message } }))
    }
    this.#sentAt.shift()
    // The next batch leaves before the answers of this one are looked at: the engine does not wait for them.
    if (this.#waiting.length > 0) void this.#pump()
    else if (this.#hasMore) this.#pumpSoon()
    for (const [place, { resolve }] of batch.entries()) resolve(answers[place] as EngineAnswer)
    if (this.#sentAt.length === 0 && this.#waiting.length === 0) this.#onIdle?.()
  }

  #nextBatch(): Waiting[] {
    let bytes = 0
    let ops = 0
    let count = 0
    for (const waiting of this.#waiting) {
      bytes += waiting.bytes
      ops += waiting.ops
      if (count > 0 && (bytes > BATCH_BYTES_MAX || ops > BATCH_OPS_MAX)) break
      count += 1
    }
    const batch = this.#waiting.slice(0, count)
    this.#waiting = this.#waiting.slice(count)
    for (const waiting of batch) this.#waitingBytes -= waiting.bytes
    return batch
  }

  #take({ claimable, lines, remembered, lostLines, failure, hasMore, isFresh, isOpen, ...rest }: BatchAnswer): void {
    this.#failure = failure
    this.#repeatableAcks = rest.repeatableAcks
    this.#batchesMax = isOpen ? BATCHES_AHEAD_MAX : 1
    if (isFresh === true) this.#lines.clear()
    this.#hasMore = hasMore
    for (const { queue, subscription } of lostLines) this.#lines.delete(`${queue}\0${subscription}`)
    for (const [queue, ids] of remembered) this.#remembered.set(queue, ids)
    for (const line of lines) this.#lines.set(`${line.queue}\0${line.subscription}`, line)
    if (claimable.length > 0) for (const listener of this.#listeners) listener(claimable)
  }
}

function slowError(ms: number): XmqError {
  const text = `The store has not answered for ${Math.round(ms / 1000)} s. Look at its disk; it goes on by itself.`
  return new XmqError('overloaded', text, { type: 'wait', retryAfterSeconds: 1 })
}

function unavailable(answer: EngineAnswer): { readonly status: 'unavailable'; readonly error: XmqError } {
  const { code, message } =
    answer.type === 'failed' ? answer.failure : { code: 'internal' as const, message: 'The store gave another answer' }
  return { status: 'unavailable', error: new XmqError(code, message, { type: 'wait', retryAfterSeconds: 1 }) }
}
