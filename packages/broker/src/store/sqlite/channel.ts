/**
 * The way to an engine: in a worker thread, or in this one.
 *
 * ```
 *   opening --open--> open --thread died, file given up--> closed --next batch, at most one a second--> opening
 *      '--cannot now--> closed
 * ```
 *
 * Owns the thread and whether the file is open in it.
 *
 * Invariants:
 * 1. An engine that has given its file up is thrown away with its thread. SQLite's locks are the process's, and prepared
 *    statements keep a connection alive until they are collected: in the same thread the file would stay locked, by us.
 * 2. A file that was open once is never made anew.
 * 3. An engine that takes another's place tells what a first one does not have to: every line and every topic that is
 *    claimable. What was committed before a death, but not told, would be waited for in vain otherwise.
 */
import { XmqError } from '@xmq/protocol/errors'
import { Worker } from 'node:worker_threads'
import type { SqliteFileOptions } from './database.ts'
import type { BatchAnswer, Engine, EngineAnswer, EngineFailure, EngineRequest } from './engine.ts'

export interface EngineChannel {
  /** Rejects with an XmqError as `Engine.open` throws it. */
  open(now: number): Promise<BatchAnswer>
  /**
   * Batches are answered in their order; {@link BATCHES_AHEAD_MAX} may be on their way once one was answered. Rejects when none of it
   * can be known to be done: the thread died, or the file cannot be opened now.
   */
  run(requests: readonly EngineRequest[]): Promise<BatchAnswer>
  close(): Promise<void>
}

/** What goes to the worker. */
export type ToWorker =
  | { readonly type: 'open'; readonly options: SqliteFileOptions; readonly now: number; readonly isAgain: boolean }
  | { readonly type: 'run'; readonly requests: readonly EngineRequest[] }
  | { readonly type: 'close' }
  /** Nobody answers that: the thread ends. */
  | { readonly type: 'end' }

/** What need not be copied. */
export function buffersOf(message: EngineRequest | EngineAnswer): ArrayBuffer[] {
  if ('ops' in message) return [message.ops.messages.buffer, message.ops.numbers.buffer]
  if ('results' in message) return [message.results.numbers.buffer]
  if (message.type === 'claim' && 'answer' in message) {
    const { data, numbers } = message.answer.messages
    return [data.buffer, numbers.buffer]
  }
  return []
}

/** What comes back, one for each. */
export type FromWorker =
  | { readonly type: 'done'; readonly answer: BatchAnswer | undefined }
  | { readonly type: 'failed'; readonly failure: EngineFailure }

/** Where an engine runs. */
interface EngineHost {
  ask(message: ToWorker): Promise<BatchAnswer | undefined>
  /** Ends it with all that it has open; whoever waits for an answer is told why. */
  end(why?: EngineFailure): Promise<void>
}

/** Makes a host; `onDeath` is told when it ends by itself. */
type MakeHost = (onDeath: (why: string) => void) => EngineHost

/** Settings of a channel. */
export interface ChannelOptions extends SqliteFileOptions {
  /** Milliseconds from one try to open the file again to the next. @default 1000 */
  readonly reopenPauseMs?: number
}

const REOPEN_PAUSE_MS = 1000

/**
 * Batches that are on their way at most: one runs while another is brought to the disk. Those between have run, and share the next sync:
 * with fewer the engine would have nothing to do where a sync takes longer than a batch.
 */
export const BATCHES_AHEAD_MAX = 4

/**
 * An engine in this thread: for tests, and where the sources run as they are, since Node 20 starts no worker from TypeScript.
 *
 * @param onDeath as of {@link createWorkerChannel}; this one never dies
 */
export function createInlineChannel(options: ChannelOptions): EngineChannel {
  return new Channel(options, createInlineHost, () => {})
}

/**
 * An engine in a worker thread. One that died is started again with the next batch.
 *
 * @param onDeath it died by itself, also when nothing was asked of it
 */
export function createWorkerChannel(
  options: ChannelOptions,
  url: URL,
  onDeath: (failure: EngineFailure) => void,
): EngineChannel {
  return new Channel(options, (died) => new ThreadHost(url, died), onDeath)
}

class Channel implements EngineChannel {
  readonly #options: SqliteFileOptions
  readonly #pauseMs: number
  readonly #makeHost: MakeHost
  readonly #onDeath: (failure: EngineFailure) => void
  #host: EngineHost | undefined
  #isOpen = false
  #wasOpened = false
  #now = 0
  #triedAt = Number.NEGATIVE_INFINITY
  #failure: EngineFailure | undefined
  /** Until the last host is no more, and the lock of the file with it. */
  #ended: Promise<void> = Promise.resolve()

  constructor(options: ChannelOptions, makeHost: MakeHost, onDeath: (failure: EngineFailure) => void) {
    const { reopenPauseMs = REOPEN_PAUSE_MS, ...file } = options
    this.#options = file
    this.#pauseMs = reopenPauseMs
    this.#makeHost = makeHost
    this.#onDeath = onDeath
  }

  async open(now: number): Promise<BatchAnswer> {
    this.#now = now
    return await this.#open()
  }

  async run(requests: readonly EngineRequest[]): Promise<BatchAnswer> {
    for (const request of requests) {
      if (request.type === 'apply') this.#now = request.now
      if (request.type === 'claim') this.#now = request.request.now
    }
    const opened = this.#isOpen ? undefined : await this.#openAgain()
    const answer = await this.#ask({ type: 'run', requests })
    if (opened === undefined) return answer
    return {
      ...answer,
      isFresh: true,
      claimable: [...opened.claimable, ...answer.claimable],
      lines: [...opened.lines, ...answer.lines],
    }
  }

  async close(): Promise<void> {
    const host = this.#host
    if (host === undefined) return
    this.#host = undefined
    await host.ask({ type: 'close' }).catch(() => undefined)
    await host.end()
  }

  async #openAgain(): Promise<BatchAnswer> {
    if (performance.now() - this.#triedAt >= this.#pauseMs) {
      const answer = await this.#open()
      if (this.#isOpen) return answer
    }
    const { code, message } = this.#failure ?? { code: 'internal', message: 'The store is not open.' }
    throw new XmqError(code, message)
  }

  async #open(): Promise<BatchAnswer> {
    this.#triedAt = performance.now()
    await this.#ended
    this.#host ??= this.#makeHost((why) => this.#died(why))
    const message = { type: 'open', options: this.#options, now: this.#now, isAgain: this.#wasOpened } as const
    return await this.#ask(message)
  }

  async #ask(message: ToWorker): Promise<BatchAnswer> {
    const host = this.#host
    try {
      const answer = (await host?.ask(message)) as BatchAnswer
      if (answer.isOpen) {
        this.#isOpen = true
        this.#wasOpened = true
      } else await this.#giveUp(host, answer.failure)
      return answer
    } catch (error) {
      const { code, message: why } = XmqError.from(error)
      await this.#giveUp(host, { code, message: why })
      throw error
    }
  }

  /** A batch that was on its way beside the one that failed fails too, and finds that its engine is no more. */
  async #giveUp(host: EngineHost | undefined, failure: EngineFailure | undefined): Promise<void> {
    if (this.#host !== host) return
    this.#host = undefined
    this.#isOpen = false
    this.#failure = failure
    this.#ended = host?.end(failure) ?? this.#ended
    await this.#ended
  }

  #died(why: string): void {
    this.#host = undefined
    this.#isOpen = false
    this.#failure = { code: 'internal', message: why }
    this.#onDeath(this.#failure)
  }
}

function createInlineHost(): EngineHost {
  let engine: Engine | undefined
  return {
    ask: async (message) => {
      await Promise.resolve()
      if (message.type === 'run') return await engine?.run(message.requests)
      if (message.type !== 'open') {
        engine?.close()
        return undefined
      }
      // Loaded here: whoever has it in a thread does not load it twice.
      const { Engine } = await import('./engine.ts')
      engine = new Engine(message.options)
      return engine.open(message.now, message.isAgain)
    },
    end: () => Promise.resolve(),
  }
}

class ThreadHost implements EngineHost {
  readonly #worker: Worker
  /** What was asked and is not answered yet, in that order. */
  readonly #waiting: {
    readonly resolve: (answer: BatchAnswer | undefined) => void
    readonly reject: (error: Error) => void
  }[] = []
  readonly #exited: Promise<void>
  #isEnding = false
  #why: EngineFailure | undefined

  constructor(url: URL, onDeath: (why: string) => void) {
    // Flags of the process (loaders, conditions) are for its sources; the thread runs what is built.
    const worker = new Worker(url, { execArgv: [] })
    this.#worker = worker
    worker.on('message', (message: FromWorker) => {
      const waiting = this.#waiting.shift()
      if (message.type === 'done') waiting?.resolve(message.answer)
      else waiting?.reject(new XmqError(message.failure.code, message.failure.message))
    })
    let cause = 'it ended'
    worker.on('error', (error) => {
      cause = error instanceof Error ? error.message : String(error)
    })
    this.#exited = new Promise((resolve) => {
      worker.on('exit', () => {
        this.#ended(`The thread of the store failed: ${cause}. It is started again.`, onDeath)
        resolve()
      })
    })
  }

  #ended(cause: string, onDeath: (why: string) => void): void {
    if (!this.#isEnding) onDeath(cause)
    const { code, message } = this.#why ?? { code: 'internal', message: cause }
    for (const { reject } of this.#waiting.splice(0)) reject(new XmqError(code, message))
  }

  ask(message: ToWorker): Promise<BatchAnswer | undefined> {
    this.#isEnding = message.type === 'close'
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject })
      this.#worker.postMessage(message, message.type === 'run' ? message.requests.flatMap(buffersOf) : [])
    })
  }

  /** The thread ends itself, between two batches: libsql aborts the whole process when its thread is terminated inside a call of it. */
  async end(why?: EngineFailure): Promise<void> {
    this.#isEnding = true
    this.#why = why
    this.#worker.postMessage({ type: 'end' })
    await this.#exited
  }
}
