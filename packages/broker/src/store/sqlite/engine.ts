/**
 * The sqlite store itself: one connection, batches of requests in, answers out, synchronously. It runs in a worker thread
 * (worker.ts); nothing in it knows that.
 *
 * Owns the connection and everything that is cached of it.
 *
 * ```
 *   batch ─> BEGIN ─ each request in order ─ flush counts ─ COMMIT ─> answers
 *                        │ an error anywhere
 *                        v
 *                    ROLLBACK, undo, reload ─> the requests that store nothing new, in a transaction of their own;
 *                        │                     all others `unavailable`
 *                        v  cannot be rolled back, or the disk fails again and again
 *                    the file is given up ─> another engine opens it (channel.ts)
 * ```
 *
 * After a failed fsync the kernel may take pages for clean that are not on the disk. What SQLite wrote for that commit is rolled
 * back, so the next commit writes the same places of the log again; whoever opens the file anew writes all of the log again
 * (database.ts). Either way nothing is confirmed on the word of a later fsync alone.
 *
 * Invariants:
 * 1. An answer other than `unavailable` leaves only after the commit of what it says.
 * 2. After a rollback, memory (tallies, leases, acks) says what the file says.
 * 3. While the file cannot be written, every batch tries again: nobody has to mend the store itself.
 */
import { XmqError, type XmqErrorCode } from '@xmq/protocol/errors'
import type { StoreResult } from '../operations.ts'
import type {
  BrowseAnswer,
  BrowseRequest,
  ClaimableTopic,
  DueAnswer,
  LineStats,
  SubscriptionsAnswer,
  TopicsAnswer,
  TopicsRequest,
} from '../port.ts'
import { RecentAcks } from '../recent-acks.ts'
import { claim, type ClaimParts } from './claims.ts'
import {
  CHECKPOINT_PAGES,
  closeDatabase,
  type Connection,
  openDatabase,
  sqliteCode,
  type SqliteFileOptions,
} from './database.ts'
import { Dedupe } from './dedupe.ts'
import { Leases } from './leases.ts'
import { LogSize } from './log-size.ts'
import { LogSync } from './log-sync.ts'
import { Operations } from './operations.ts'
import { Queries } from './queries.ts'
import { Rows } from './rows.ts'
import { prepareStatements, type Statements } from './statements.ts'
import { type LineTally, Tallies } from './tallies.ts'
import { Transitions } from './transitions.ts'
import {
  type EngineClaimAnswer,
  type PackedClaim,
  type PackedOps,
  type PackedResults,
  packResults,
  unpackOps,
} from './wire.ts'

/** One call of the port. */
export type EngineRequest =
  /** `bytes`: of the messages in it. */
  | {
      readonly type: 'apply'
      readonly ops: PackedOps
      readonly isGrowing: boolean
      readonly bytes: number
      readonly now: number
    }
  | { readonly type: 'claim'; readonly request: PackedClaim }
  | { readonly type: 'due'; readonly now: number; readonly max: number }
  | { readonly type: 'browse'; readonly request: BrowseRequest }
  | { readonly type: 'topics'; readonly request: TopicsRequest }
  | { readonly type: 'subscriptions'; readonly queue: string }
  /** Writes and takes back some pages: as much as the disk had no room for. */
  | { readonly type: 'probe' }
  /** Runs a PRAGMA: for tests, which limit the size of the file. */
  | { readonly type: 'pragma'; readonly text: string }

/** An error that can be copied between threads. */
export interface EngineFailure {
  readonly code: XmqErrorCode
  readonly message: string
}

export type EngineAnswer =
  | { readonly type: 'apply'; readonly results: PackedResults }
  | { readonly type: 'claim'; readonly answer: EngineClaimAnswer }
  | { readonly type: 'due'; readonly answer: DueAnswer }
  | { readonly type: 'browse'; readonly answer: BrowseAnswer }
  | { readonly type: 'topics'; readonly answer: TopicsAnswer }
  | { readonly type: 'subscriptions'; readonly answer: SubscriptionsAnswer }
  | { readonly type: 'probe' }
  | { readonly type: 'pragma'; readonly rows: readonly unknown[] }
  | { readonly type: 'failed'; readonly failure: EngineFailure }

/** What comes of a batch. */
export interface BatchAnswer {
  /** In the order of the requests. */
  readonly answers: readonly EngineAnswer[]
  readonly claimable: readonly ClaimableTopic[]
  /** Lines whose counts changed. */
  readonly lines: readonly LineStats[]
  /** Their queues, and how many ids each remembers for a time. */
  readonly remembered: readonly (readonly [queue: string, ids: number])[]
  /** Acks that are remembered. */
  readonly repeatableAcks: number
  /** Lines that are no more. */
  readonly lostLines: readonly { readonly queue: string; readonly subscription: string }[]
  /** Why messages cannot be stored; undefined when they can, of every size that was tried, as far as the last tries tell. */
  readonly failure: EngineFailure | undefined
  /** False: the file is not open, or was given up. Another engine has to open it. */
  readonly isOpen: boolean
  /** True: `lines` are all that there are. */
  readonly isFresh?: boolean
  /** Entries of deleted subscriptions are left: send another batch, even an empty one. */
  readonly hasMore: boolean
}

/** Times in a row that the disk may fail before the file is given up: whatever is wrong with how it is open ends with that. */
const DISK_FAILURES_MAX = 3
/** What a probe writes at least. */
const PROBE_BYTES = 64 * 1024
/** Topics that are told after a file was opened again: one more than the core remembers, which then reads the rest itself. */
const CLAIMABLE_TOLD_MAX = 100_001

interface OpenFile extends ClaimParts {
  readonly db: Connection
  readonly leases: Leases
  readonly dedupe: Dedupe
  readonly statements: Statements
  readonly log: LogSize
  /** Undefined where nothing is synced. */
  readonly sync: LogSync | undefined
}

/** Requests that need new space in the file. */
function isGrowing(request: EngineRequest): boolean {
  return request.type === 'apply' ? request.isGrowing : request.type === 'probe'
}

/** The largest of the requests that need new space, in bytes of messages; a probe is as large as any that failed. */
function growthOf(requests: readonly EngineRequest[]): number {
  const sizes = requests.map((request) => {
    if (request.type === 'probe') return Number.POSITIVE_INFINITY
    return request.type === 'apply' && request.isGrowing ? request.bytes : 0
  })
  return Math.max(0, ...sizes)
}

/** Whether a request may have written what somebody is told of, by its answer. */
function hasWritten(answer: EngineAnswer): boolean {
  if (answer.type === 'claim') return answer.answer.messages.numbers.length > 0 || answer.answer.corrupt.length > 0
  return answer.type === 'apply' || answer.type === 'probe' || answer.type === 'pragma'
}

/** Gives back the space that a probe took. Where that fails, the next one does it. */
function clearProbe({ statements }: OpenFile): void {
  try {
    statements.clearProbe.run([])
  } catch {
    // It is a few pages of the file.
  }
}

/** The disk itself failed: neither full nor read-only, nor a bug of ours. */
function isBroken(error: unknown): boolean {
  const code = sqliteCode(error)
  return code !== '' && code !== 'SQLITE_FULL' && !code.startsWith('SQLITE_READONLY')
}

/** Whether a file that cannot be opened may be opened later, with nothing but the disk mended. */
function isPassing(error: unknown): boolean {
  return /^SQLITE_(FULL|IOERR|READONLY|NOMEM|CORRUPT)/.test(sqliteCode(error))
}

const DAMAGED =
  ' The disk fails, or the file is damaged: see the log of the system (dmesg). Where the disk is well, stop the broker, keep ' +
  'the file, and start on a copy from before, or on what `sqlite3 FILE .recover` saves of it.'

/** What an error means to those whose request it failed. */
function failureOf(error: unknown, path: string): EngineFailure {
  if (error instanceof XmqError) return { code: error.code, message: error.message }
  const code = sqliteCode(error)
  const why = error instanceof Error ? error.message : String(error)
  if (code === '')
    return { code: 'internal', message: `The store failed: ${why}. This is a fault of XMQ; please report it.` }
  if (code === 'SQLITE_FULL') {
    return {
      code: 'overloaded',
      message: `The store cannot grow: the disk of ${path} is full. Free some space; it goes on by itself.`,
    }
  }
  if (code.startsWith('SQLITE_READONLY')) {
    return {
      code: 'overloaded',
      message: `The store cannot write: ${path} is read-only (${why}). Make it writable; it goes on by itself.`,
    }
  }
  // What SQLite also says when the disk cannot be read.
  const hint = code === 'SQLITE_CORRUPT' ? DAMAGED : ''
  return {
    code: 'overloaded',
    message: `The store cannot use ${path}: ${why} (${code}).${hint} It tries again with each request.`,
  }
}

/** Why a file cannot be opened, now and later. */
function hopeless(error: unknown, { code, message }: EngineFailure, path: string): XmqError {
  const cause = { cause: error }
  if (error instanceof XmqError || sqliteCode(error) === '') return new XmqError(code, message, cause)
  const why = error instanceof Error ? error.message : String(error)
  const text = `store: ${path} cannot be used: ${why} (${sqliteCode(error)}). Start on a copy of it, or name another file.`
  return new XmqError('invalid-config', text, cause)
}

/** See the top of this file. */
export class Engine {
  readonly #options: SqliteFileOptions
  readonly #acks = new RecentAcks()
  #file: OpenFile | undefined
  #failure: EngineFailure | undefined
  /** The largest request for which a full disk had no room, since one of that size was written: smaller ones prove nothing. */
  #tooLarge = 0
  /** Times in a row that the disk failed, as opposed to being full or read-only. */
  #diskFailures = 0
  #lostLines: { readonly queue: string; readonly subscription: string }[] = []
  #hasMore = true
  /** A rollback came in between: the tallies are to be read anew. */
  #isStale = false
  #now = 0

  constructor(options: SqliteFileOptions) {
    this.#options = options
  }

  /**
   * Opens the file. A disk that is full, read-only or broken is no error: then it is not open.
   *
   * @param now wall ms: leases found in the file end one period after it
   * @param isAgain another engine had it before: all that is claimable is told anew
   * @throws XmqError `conflict` or `invalid-config`
   */
  open(now: number, isAgain = false): BatchAnswer {
    this.#now = now
    try {
      const file = this.#openFile(isAgain)
      if (isAgain) this.#offerAll(file)
    } catch (error) {
      this.#abandon()
      const failure = failureOf(error, this.#options.path)
      if (!isPassing(error)) throw hopeless(error, failure, this.#options.path)
      this.#failure = failure
    }
    const lines = [...(this.#file?.tallies.lines ?? [])].filter((line) => !line.isGone)
    return { ...this.#batchAnswer([], lines), isFresh: true }
  }

  /**
   * Runs a batch; resolves when what it wrote is on the disk, in the order of the calls. The next batch need not wait for that.
   *
   * Where the disk does not tell that it has it, the file is given up, and every request of the batch has failed; what it did may
   * be found when the file is opened again.
   *
   * @throws XmqError when the file is not open: why it was given up
   */
  async run(requests: readonly EngineRequest[]): Promise<BatchAnswer> {
    const file = this.#file
    if (file === undefined) {
      // A batch that left before it was known that the file was given up is told the same.
      const { code, message } = this.#failure ?? { code: 'internal', message: 'The store is not open.' }
      throw new XmqError(code, message)
    }
    const answer = this.#runNow(file, requests)
    try {
      await file.sync?.safe(answer.answers.some(hasWritten))
      return answer
    } catch (error) {
      if (this.#file === file) {
        this.#failure = failureOf(error, this.#options.path)
        this.#abandon()
      }
      // Another batch may have found first that the disk fails.
      const failure = this.#failure ?? failureOf(error, this.#options.path)
      return this.#batchAnswer(
        requests.map(() => ({ type: 'failed', failure })),
        [],
      )
    }
  }

  #runNow(file: OpenFile, requests: readonly EngineRequest[]): BatchAnswer {
    try {
      if (requests.some(isGrowing)) file.log.check()
      const done = this.#commit(file, requests)
      this.#diskFailures = 0
      if (requests.some(isGrowing) && growthOf(requests) >= this.#tooLarge) {
        this.#failure = undefined
        this.#tooLarge = 0
      }
      if (requests.some((request) => request.type === 'probe')) clearProbe(file)
      return this.#batchAnswer(done.answers, done.lines)
    } catch (error) {
      this.#fail(error, requests)
      return this.#runRest(file, requests, error)
    }
  }

  /** Copies the log into the file and closes it. */
  close(): void {
    const file = this.#file
    this.#file = undefined
    file?.sync?.close()
    if (file !== undefined) closeDatabase(file.db, this.#options.path)
  }

  #fail(error: unknown, requests: readonly EngineRequest[]): void {
    this.#failure = failureOf(error, this.#options.path)
    const growth = growthOf(requests)
    if (sqliteCode(error) === 'SQLITE_FULL' && growth < Number.POSITIVE_INFINITY) {
      this.#tooLarge = Math.max(this.#tooLarge, growth)
    }
    if (isBroken(error) && ++this.#diskFailures >= DISK_FAILURES_MAX) this.#abandon()
  }

  /** Gives the file up as it is. What the log has stays there for whoever opens it. */
  #abandon(): void {
    const file = this.#file
    this.#file = undefined
    file?.sync?.close()
    try {
      file?.db.close()
    } catch {
      // It ends with the thread.
    }
  }

  #failed(error: unknown): EngineAnswer {
    return { type: 'failed', failure: failureOf(error, this.#options.path) }
  }

  /** After a failed batch: what needs no space goes on, request by request where one of them may be to blame. */
  #runRest(file: OpenFile, requests: readonly EngineRequest[], error: unknown): BatchAnswer {
    const isDisk = sqliteCode(error) !== ''
    const answers: EngineAnswer[] = requests.map(() => this.#failed(error))
    const lines = new Set<LineTally>()
    const groups = isDisk ? [requests.filter((request) => !isGrowing(request))] : requests.map((request) => [request])
    if (requests.length === 1 || groups[0]?.length === requests.length) return this.#batchAnswer(answers, [])
    for (const group of groups) {
      if (group.length === 0 || this.#file === undefined) continue
      try {
        const done = this.#commit(file, group)
        for (const line of done.lines) lines.add(line)
        for (const [place, answer] of done.answers.entries()) {
          answers[requests.indexOf(group[place] as EngineRequest)] = answer
        }
      } catch (again) {
        this.#fail(again, group)
      }
    }
    return this.#batchAnswer(answers, [...lines])
  }

  #batchAnswer(answers: readonly EngineAnswer[], lines: readonly LineTally[]): BatchAnswer {
    const transitions = this.#file?.transitions
    const claimable = [...(transitions?.claimable.values() ?? [])]
    transitions?.claimable.clear()
    const lostLines = this.#lostLines
    this.#lostLines = []
    const stats = lines
      .filter((line) => !line.isGone)
      .map(({ queue, subscription, counts }) => Object.assign({ queue: queue.address, subscription }, counts))
    return {
      answers,
      claimable,
      lines: stats,
      remembered: lines.map(({ queue }) => [queue.address, queue.endings]),
      repeatableAcks: this.#acks.size,
      lostLines,
      failure: this.#failure,
      isOpen: this.#file !== undefined,
      hasMore: this.#hasMore && this.#failure === undefined,
    }
  }

  /** Runs requests in one transaction. */
  #commit(
    file: OpenFile,
    requests: readonly EngineRequest[],
  ): { readonly answers: EngineAnswer[]; readonly lines: readonly LineTally[] } {
    const { db, transitions, tallies, rows, leases, dedupe, statements } = file
    const earlier = new Map(transitions.claimable)
    const lostBefore = this.#lostLines.length
    try {
      if (this.#isStale) tallies.load()
      this.#isStale = false
      db.exec('BEGIN')
      const hasMore = this.#hasMore && file.operations.removeLost(this.#now)
      const answers = requests.map((request) => this.#answer(file, request))
      rows.flush()
      dedupe.flush()
      leases.flush(statements)
      tallies.flush()
      db.exec('COMMIT')
      const lines = tallies.takeChanged()
      leases.keep()
      tallies.trim()
      this.#hasMore = hasMore || this.#lostLines.length > lostBefore
      return { answers, lines }
    } catch (error) {
      this.#rollback(db)
      rows.reset()
      dedupe.reset()
      leases.takeBack()
      transitions.claimable = earlier
      this.#lostLines.length = lostBefore
      this.#isStale = true
      throw error
    }
  }

  #rollback(db: Connection): void {
    try {
      if (db.inTransaction) db.exec('ROLLBACK')
    } catch {
      this.#abandon()
    }
  }

  #answer(file: OpenFile, request: EngineRequest): EngineAnswer {
    switch (request.type) {
      case 'apply': {
        this.#now = request.now
        const results: StoreResult[] = []
        unpackOps(request.ops, (op) => {
          const result = file.operations.apply(op, request.now)
          if (op.type === 'delete-subscription' && result.status === 'ok')
            this.#lostLines.push({ queue: op.queue, subscription: op.subscription })
          results.push(result)
        })
        return { type: 'apply', results: packResults(results) }
      }
      case 'claim':
        this.#now = request.request.now
        return { type: 'claim', answer: claim(request.request, file) }
      case 'due':
        return { type: 'due', answer: file.queries.due(request.now, request.max) }
      case 'browse':
        return { type: 'browse', answer: file.queries.browse(request.request) }
      case 'topics':
        file.tallies.flush()
        return { type: 'topics', answer: file.queries.topics(request.request) }
      case 'subscriptions':
        return { type: 'subscriptions', answer: file.queries.subscriptions(request.queue) }
      case 'probe':
        file.statements.addProbe.run([Math.max(PROBE_BYTES, this.#tooLarge)])
        return { type: 'probe' }
      default:
        return { type: 'pragma', rows: file.db.prepare(`PRAGMA ${request.text}`).all() }
    }
  }

  /** @param mustExist where it was once and is no more, its file system is away: what is put there would be hidden by it */
  #openFile(mustExist: boolean): OpenFile {
    const db = openDatabase({ ...this.#options, mustExist })
    try {
      return this.#read(db)
    } catch (error) {
      closeDatabase(db, this.#options.path)
      throw error
    }
  }

  /** Reads what is cached of the file. */
  #read(db: Connection): OpenFile {
    const statements = prepareStatements(db)
    const tallies = new Tallies(statements)
    const leases = new Leases()
    const rows = new Rows(statements, leases)
    const dedupe = new Dedupe(statements, tallies, rows)
    const transitions = new Transitions({ statements, tallies, rows, leases, dedupe })
    const operations = new Operations({ statements, tallies, rows, transitions, leases, dedupe, acks: this.#acks })
    const queries = new Queries(statements, tallies, rows, leases)
    leases.load(statements, this.#now, (line, seq) => rows.read(line, seq))
    const log = new LogSize(db, this.#options.path, this.#options.checkpointPages ?? CHECKPOINT_PAGES)
    const sync = (this.#options.synchronous ?? 'FULL') === 'FULL' ? new LogSync(this.#options.path) : undefined
    this.#file = { db, statements, tallies, leases, dedupe, rows, transitions, operations, queries, log, sync }
    return this.#file
  }

  /** Tells of everything that can be claimed. */
  #offerAll({ statements, tallies, transitions }: OpenFile): void {
    for (const [id] of statements.listWaiting.all([CLAIMABLE_TOLD_MAX])) {
      const topic = Number(id)
      if (!tallies.topicById(topic).line.isGone) transitions.offer({ topic })
    }
  }
}
