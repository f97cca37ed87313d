/** The way to an engine: in a worker thread, or in this one. */
import { XmqError } from '@xmq/protocol'
import { Worker } from 'node:worker_threads'
import type { SqliteFileOptions } from './database.ts'
import { type BatchAnswer, Engine, type EngineFailure, type EngineRequest } from './engine.ts'

export interface EngineChannel {
  /** Rejects with an XmqError as `Engine.open` throws it. */
  open(now: number): Promise<BatchAnswer>
  /** One batch at a time. Rejects when the thread died. */
  run(requests: readonly EngineRequest[]): Promise<BatchAnswer>
  close(): Promise<void>
}

/** What goes to the worker. */
export type ToWorker =
  | { readonly type: 'open'; readonly options: SqliteFileOptions; readonly now: number }
  | { readonly type: 'run'; readonly requests: readonly EngineRequest[] }
  | { readonly type: 'close' }

/** What comes back, one for each. */
export type FromWorker =
  | { readonly type: 'done'; readonly answer: BatchAnswer | undefined }
  | { readonly type: 'failed'; readonly failure: EngineFailure }

/** An engine in this thread: for tests, and where the sources run as they are, since Node 20 starts no worker from TypeScript. */
export function createInlineChannel(options: SqliteFileOptions): EngineChannel {
  const engine = new Engine(options)
  return {
    open: async (now) => {
      await Promise.resolve()
      return engine.open(now)
    },
    run: async (requests) => {
      await Promise.resolve()
      return engine.run(requests)
    },
    close: () => {
      engine.close()
      return Promise.resolve()
    },
  }
}

/** An engine in a worker thread. One that died is started again with the next batch. */
export function createWorkerChannel(options: SqliteFileOptions, url: URL): EngineChannel {
  return new WorkerChannel(options, url)
}

class WorkerChannel implements EngineChannel {
  readonly #options: SqliteFileOptions
  readonly #url: URL
  #worker: Worker | undefined
  #waiting:
    | { readonly resolve: (answer: BatchAnswer | undefined) => void; readonly reject: (error: Error) => void }
    | undefined
  #isOpen = false
  #now = 0

  constructor(options: SqliteFileOptions, url: URL) {
    this.#options = options
    this.#url = url
  }

  async open(now: number): Promise<BatchAnswer> {
    this.#now = now
    const answer = await this.#ask({ type: 'open', options: this.#options, now })
    this.#isOpen = true
    return answer as BatchAnswer
  }

  async run(requests: readonly EngineRequest[]): Promise<BatchAnswer> {
    for (const request of requests) {
      if (request.type === 'apply') this.#now = request.now
      if (request.type === 'claim') this.#now = request.request.now
    }
    if (!this.#isOpen) await this.open(this.#now)
    return (await this.#ask({ type: 'run', requests })) as BatchAnswer
  }

  async close(): Promise<void> {
    const worker = this.#worker
    if (worker === undefined) return
    const exited = new Promise((resolve) => worker.once('exit', resolve))
    await this.#ask({ type: 'close' })
    await exited
  }

  #ask(message: ToWorker): Promise<BatchAnswer | undefined> {
    const worker = this.#worker ?? this.#start()
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      worker.postMessage(message)
    })
  }

  #start(): Worker {
    // Flags of the process (loaders, conditions) are for its sources; the thread runs what is built.
    const worker = new Worker(this.#url, { execArgv: [] })
    this.#worker = worker
    worker.on('message', (message: FromWorker) => {
      const waiting = this.#waiting
      this.#waiting = undefined
      if (message.type === 'done') waiting?.resolve(message.answer)
      else waiting?.reject(new XmqError(message.failure.code, message.failure.message))
    })
    let why = 'it ended'
    worker.on('error', (error) => {
      why = error instanceof Error ? error.message : String(error)
    })
    worker.on('exit', () => {
      this.#worker = undefined
      this.#isOpen = false
      this.#waiting?.reject(new XmqError('internal', `The thread of the store failed: ${why}. It is started again.`))
      this.#waiting = undefined
    })
    return worker
  }
}
