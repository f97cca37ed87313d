/**
 * The worker: subscribes, runs handlers, answers, reports its load, and stops without losing what it holds.
 *
 *     idle --start()--> starting --every topic subscribed--> running --stop()--> stopping --> stopped
 *                       starting --refused, timed out, aborted--> stopped
 *
 * What is handled, and how it is answered, is in deliveries.ts.
 *
 * Invariants:
 * 1. The state changes in this order only; `start` works once, `stop` any number of times.
 * 2. The load is reported while the worker runs, and never after it began to stop.
 * 3. `stop` leaves the topics first, then waits for the handlers, then closes: a plain queue redelivers nothing.
 */
import { XmqError } from '@xmq/protocol'
import { platform } from '#platform'
import { emitConnectionEvent, wallStatus, wallTime } from './connection-events.ts'
import type { Handler, Middleware } from './context.ts'
import { Deliveries } from './deliveries.ts'
import { type Duration, parseDuration } from './duration.ts'
import { Emitter, type Listeners, type Unsubscribe } from './events.ts'
import { endsWithin, firstConnection, whenAborted } from './lifecycle.ts'
import { type ConnectionOptions, configureEndpoint, type EndpointConfig, positiveInteger } from './options.ts'
import { monotonicNow, Runtime } from './runtime.ts'
import { type ConnectionStatus, loadOf, type SessionEvent } from './session/index.ts'
import { listenForStop } from './signals.ts'
import { type Topic, topicOf } from './topic.ts'
import { WORKER_EVENTS, type WorkerEvents } from './worker-events.ts'

/** Options of a {@link Worker}. */
export interface WorkerOptions extends ConnectionOptions {
  /** Handlers that run at once. @default 8 */
  readonly concurrency?: number
  /** Deliveries that may wait beside those that run, before the worker counts as full. @default concurrency */
  readonly prefetch?: number
  /**
   * Most deliveries that wait. A plain queue knows no credit: until it has heard that the worker is full, a burst may bring
   * many more than fit, and never brings them again. They wait, up to this and 64 MiB; a message beyond is reported as
   * `failed`. Requests wait up to ten times the capacity (concurrency + prefetch), and beyond are answered with
   * `overloaded`: better told early than answered late. @default 50000
   */
  readonly bufferMax?: number
  /** Lifetime of the subscriptions, renewed after a third of it. At least 3 s. @default '60s' */
  readonly ttl?: Duration
  /** How long `stop` waits for handlers before it aborts their signals. @default '30s' */
  readonly stopTimeout?: Duration
  /** Listeners from the first moment on; the same as {@link Worker.on}. */
  readonly on?: Listeners<WorkerEvents>
}

type WorkerState = 'idle' | 'starting' | 'running' | 'stopping' | 'stopped'

const LAG_PERIOD_MS = 500
/** After the signals were aborted, handlers have this long to end. */
const ABORT_GRACE_MS = 1000
/** Refusals that asking again does not change. */
const HOPELESS: ReadonlySet<string> = new Set(['forbidden', 'bad-request', 'unsupported', 'not-found'])

/** Handles the topics of a queue. */
export class Worker implements AsyncDisposable {
  readonly #config: EndpointConfig
  readonly #capacity: number
  readonly #stopTimeoutMs: number
  readonly #emitter = new Emitter<WorkerEvents>()
  readonly #runtime: Runtime
  readonly #deliveries: Deliveries
  #state: WorkerState = 'idle'
  #stopped: Promise<void> | undefined
  #lagMs = 0
  #lagTimer: ReturnType<typeof setInterval> | undefined
  #loadDue = false

  /** @throws XmqError `invalid-config` */
  constructor(options: WorkerOptions) {
    this.#config = configureEndpoint(options, options.connectTimeout)
    const concurrency = positiveInteger(options.concurrency ?? 8, 'concurrency')
    const prefetch = positiveInteger(options.prefetch ?? concurrency, 'prefetch', 0)
    this.#capacity = concurrency + prefetch
    const bufferMax = positiveInteger(options.bufferMax ?? Math.max(50_000, prefetch), 'bufferMax', prefetch)
    this.#stopTimeoutMs = parseDuration(options.stopTimeout ?? '30s', 'stopTimeout')
    this.#emitter.onEach(options.on, WORKER_EVENTS)
    const limits = { concurrency, capacity: this.#capacity, bufferMax }
    this.#deliveries = new Deliveries(limits, this.#emitter, {
      answer: (delivery, stanza) => this.#runtime.dispatch({ type: 'answer', delivery, stanza }),
      onChange: () => this.#noteLoad(),
    })
    this.#runtime = new Runtime(this.#config, {
      onDelivery: (delivery) => this.#deliveries.add(delivery),
      onEvent: (event) => this.#event(event),
    })
  }

  /** The queue's address. */
  get queue(): string {
    return this.#config.queue
  }

  /** Where the connection is; each change is an event, too. */
  get status(): ConnectionStatus {
    return wallStatus(this.#runtime.status)
  }

  /** `idle`, `starting`, `running`, `stopping`, `stopped`. */
  get state(): WorkerState {
    return this.#state
  }

  /** Handlers that run, and deliveries that wait. */
  get work(): { readonly running: number; readonly waiting: number } {
    return { running: this.#deliveries.running, waiting: this.#deliveries.waiting }
  }

  /** Calls back on each event of that name. Returns how to stop that. */
  on<Name extends keyof WorkerEvents>(name: Name, listener: (event: WorkerEvents[Name]) => void): Unsubscribe {
    return this.#emitter.on(name, listener)
  }

  /** Runs `middleware` around every handler; the first one added is the outermost. */
  use(middleware: Middleware): this {
    this.#assertIdle('use')
    this.#deliveries.middleware.push(middleware)
    return this
  }

  /**
   * Handles a topic, messages and requests alike. One handler a topic.
   * @throws XmqError `invalid-config` when the topic has a handler, or the worker was started
   */
  handle<Received, Answered>(
    topic: Topic<unknown, Received, Answered> | string,
    handler: Handler<Received, NoInfer<Answered>>,
  ): this {
    this.#assertIdle('handle')
    const defined = topicOf(topic)
    if (this.#deliveries.routes.has(defined.name)) {
      throw new XmqError(
        'invalid-config',
        `The topic '${defined.name}' has a handler already; one worker has one a topic.`,
      )
    }
    this.#deliveries.routes.set(defined.name, { topic: defined, handler: handler as Handler<unknown, unknown> })
    return this
  }

  #assertIdle(method: string): void {
    if (this.#state === 'idle') return
    throw new XmqError('invalid-config', `${method}() was called after start(): set the worker up first.`)
  }

  /**
   * Connects and subscribes. Resolves when every topic is subscribed; after that the worker keeps itself connected and
   * subscribed until `stop()`.
   *
   * @throws XmqError `not-authorized`, `invalid-config` (at once); `forbidden` and other refusals of the queue;
   *   `connection-lost` or what the server said (after `connectTimeout`); `aborted`
   */
  async start(): Promise<void> {
    this.#assertIdle('start')
    if (this.#deliveries.routes.size === 0) {
      throw new XmqError('invalid-config', 'The worker handles no topic: call handle() before start().')
    }
    this.#state = 'starting'
    const { signal, connectTimeoutMs } = this.#config
    const missing = new Set(this.#deliveries.routes.keys())
    const offs: Unsubscribe[] = []
    const subscribed = new Promise<void>((resolve, reject) => {
      offs.push(
        this.#emitter.on('subscribed', ({ topic }) => {
          missing.delete(topic)
          if (missing.size === 0) resolve()
        }),
        this.#emitter.on('subscription-failed', ({ error }) => {
          if (error.fromBroker && HOPELESS.has(error.code)) reject(error)
        }),
      )
    })
    for (const topic of missing) this.#runtime.dispatch({ type: 'subscribe', topic })
    this.#watchLag()
    try {
      await firstConnection(this.#runtime, subscribed, this.#emitter, { signal, connectTimeoutMs })
    } catch (error) {
      clearInterval(this.#lagTimer)
      if (this.#state === 'starting') this.#state = 'stopped'
      throw error
    } finally {
      for (const off of offs) off()
    }
    // stop() may have come in between.
    if (this.#state === 'starting') this.#state = 'running'
    this.#emitter.on(
      'closed',
      whenAborted(signal, (reason) => void this.#stop(reason)),
    )
  }

  /**
   * Stops in order: reports load 100, leaves the topics, waits up to `stopTimeout` for what runs and waits, aborts the
   * signals of what is left, says goodbye, closes. Idempotent.
   */
  stop(): Promise<void> {
    return this.#stop(undefined)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stop(undefined)
  }

  /**
   * Starts, and stops on SIGTERM or SIGINT. A second signal, half a second later or more, exits at once with 128 + its number.
   * Resolves when stopped; handlers that did not heed their signal are left behind by exiting with code 1.
   *
   * @throws XmqError as {@link start}
   */
  async run(): Promise<void> {
    let isAsked = false
    const stopped = new Promise<void>((resolve) => void this.#emitter.on('closed', () => resolve()))
    const off = listenForStop(
      () => {
        isAsked = true
        void this.#stop(undefined)
      },
      (exitCode) => platform.exit(exitCode),
    )
    try {
      await this.start().catch((error: unknown) => {
        // Stopped by a signal while it was starting: that is no failure.
        if (!isAsked) throw error
      })
      await stopped
      await this.#stopped
    } finally {
      off()
    }
    if (this.#deliveries.running > 0) platform.exit(1)
  }

  #stop(reason: XmqError | undefined): Promise<void> {
    this.#stopped ??= this.#stopOnce(reason)
    return this.#stopped
  }

  async #stopOnce(reason: XmqError | undefined): Promise<void> {
    const wasStarted = this.#state === 'starting' || this.#state === 'running'
    this.#state = 'stopping'
    if (wasStarted) {
      await this.#leave()
      await this.#drain()
    }
    clearInterval(this.#lagTimer)
    const wasClosed = this.#runtime.status.state === 'closed'
    await this.#runtime.close(reason)
    this.#state = 'stopped'
    if (!wasClosed) this.#emitter.emit('closed', { reason })
  }

  #leave(): Promise<void> {
    return new Promise((resolve) => {
      this.#onLeft = resolve
      this.#runtime.dispatch({ type: 'leave' })
    })
  }

  #onLeft: () => void = () => {}

  async #drain(): Promise<void> {
    if (await endsWithin(this.#deliveries.whenIdle(), this.#stopTimeoutMs)) return
    this.#deliveries.abort(new XmqError('aborted', 'The worker stops, and its grace time is over.'))
    if (await endsWithin(this.#deliveries.whenIdle(), ABORT_GRACE_MS)) return
    const message = `${this.#deliveries.running} handlers did not heed their signal; they are left behind.`
    this.#emitter.emit('warning', { message })
  }

  // --- load -----------------------------------------------------------------------------------------------------------

  /** Looks at the load once per turn of the event loop: a burst that is handled within one never counts as full. */
  #noteLoad(): void {
    if (this.#loadDue) return
    this.#loadDue = true
    setTimeout(() => {
      this.#loadDue = false
      this.#reportLoad()
    }, 0)
  }

  #reportLoad(): void {
    if (this.#state === 'stopping' || this.#state === 'stopped') return
    const load = loadOf({ ...this.work, capacity: this.#capacity, lagMs: this.#lagMs })
    this.#runtime.dispatch({ type: 'load', load })
  }

  #watchLag(): void {
    let expected = monotonicNow() + LAG_PERIOD_MS
    this.#lagTimer = setInterval(() => {
      const now = monotonicNow()
      this.#lagMs = Math.max(0, now - expected)
      expected = now + LAG_PERIOD_MS
      this.#reportLoad()
    }, LAG_PERIOD_MS)
  }

  #event(event: SessionEvent): void {
    switch (event.name) {
      case 'subscribed':
        this.#emitter.emit('subscribed', { topic: event.topic, renewal: event.renewal })
        return
      case 'unsubscribed':
        this.#emitter.emit('unsubscribed', { topic: event.topic })
        return
      case 'subscription-failed':
        this.#emitter.emit('subscription-failed', {
          topic: event.topic,
          error: event.error,
          retryAt: wallTime(event.retryAt),
        })
        return
      case 'load':
        this.#emitter.emit('load', { load: event.load })
        return
      case 'answer-lost':
        this.#emitter.emit('answer-lost', { topic: event.topic, id: event.id })
        return
      case 'left':
        this.#onLeft()
        return
      default:
        emitConnectionEvent(this.#emitter, event)
    }
  }
}
