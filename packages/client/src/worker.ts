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
 * 3. `stop` leaves the topics first, then waits for the handlers, then closes: a plain queue redelivers nothing. What a
 *    reliable queue leased and no handler has begun is given back at once; before closing, what was done is settled.
 */
import { assertPattern, encodeConsume, XmqError } from '@xmq/protocol'
import { platform } from '#platform'
import { emitConnectionEvent, wallStatus, wallTime } from './connection-events.ts'
import type { Handler, Middleware } from './context.ts'
import { Deliveries } from './deliveries.ts'
import { type Duration, parseDuration } from './duration.ts'
import { Emitter, type Listeners, type Unsubscribe } from './events.ts'
import { assertOptions, type OptionNames } from './known-options.ts'
import { endsWithin, firstConnection, whenAborted } from './lifecycle.ts'
import {
  CONNECTION_OPTIONS,
  type ConnectionOptions,
  configureEndpoint,
  type EndpointConfig,
  positiveInteger,
} from './options.ts'
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
  /**
   * Makes the subscriptions durable, in an `all` queue that is reliable: messages wait for this worker while it is away.
   * Workers of one account that share the name share the messages. Each topic or pattern has a subscription of its own, called
   * `NAME:TOPIC`; `handle()` can name one itself. `Client.forget` ends one.
   * @default none: what is published while nobody listens is missed
   */
  readonly name?: string
  /** Lifetime of the subscriptions, renewed after a third of it. At least 3 s. @default '60s' */
  readonly ttl?: Duration
  /** How long `stop` waits for handlers before it aborts their signals. @default '30s' */
  readonly stopTimeout?: Duration
  /** Listeners from the first moment on; the same as {@link Worker.on}. */
  readonly on?: Listeners<WorkerEvents>
}

/** Options of one topic. */
export interface HandleOptions {
  /**
   * The durable subscription to join or to make, in an `all` queue that is reliable. Its topic or pattern is fixed when it is
   * made. @default the worker's `name`, a colon and the topic; none when the worker has no name
   */
  readonly name?: string
}

const WORKER_OPTIONS: OptionNames<WorkerOptions> = {
  ...CONNECTION_OPTIONS,
  concurrency: true,
  prefetch: true,
  bufferMax: true,
  name: true,
  ttl: true,
  stopTimeout: true,
  on: true,
}

const HANDLE_OPTIONS: OptionNames<HandleOptions> = { name: true }

type WorkerState = 'idle' | 'starting' | 'running' | 'stopping' | 'stopped'

const LAG_PERIOD_MS = 500
/** How long `stop` waits for the queue to hear what was done. */
const SETTLE_TIMEOUT_MS = 3000
/** After the signals were aborted, handlers have this long to end. */
const ABORT_GRACE_MS = 1000
/** Refusals that asking again does not change. */
const HOPELESS: ReadonlySet<string> = new Set(['forbidden', 'bad-request', 'unsupported', 'not-found', 'conflict'])

/** Handles the topics of a queue. */
export class Worker implements AsyncDisposable {
  readonly #config: EndpointConfig
  readonly #capacity: number
  readonly #name: string | undefined
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
    assertOptions(options, WORKER_OPTIONS, 'new Worker()')
    const concurrency = positiveInteger(options.concurrency ?? 8, 'concurrency')
    const prefetch = positiveInteger(options.prefetch ?? concurrency, 'prefetch', 0)
    this.#capacity = concurrency + prefetch
    this.#name = options.name
    this.#config = configureEndpoint({ ...options, credit: this.#capacity }, options.connectTimeout)
    const bufferMax = positiveInteger(options.bufferMax ?? Math.max(50_000, prefetch), 'bufferMax', prefetch)
    this.#stopTimeoutMs = parseDuration(options.stopTimeout ?? '30s', 'stopTimeout')
    this.#emitter.onEach(options.on, WORKER_EVENTS)
    const limits = { concurrency, capacity: this.#capacity, bufferMax }
    this.#deliveries = new Deliveries(limits, this.#emitter, {
      answer: (delivery, stanza) => this.#runtime.dispatch({ type: 'answer', delivery, stanza }),
      progress: (delivery, n, payload) => this.#runtime.dispatch({ type: 'progress', delivery, n, payload: [payload] }),
      settle: (key, outcome) => this.#runtime.dispatch({ type: 'settle', key, outcome }),
      onChange: () => this.#noteLoad(),
    })
    this.#runtime = new Runtime(this.#config, {
      onDelivery: (delivery) => this.#deliveries.add(delivery),
      onLeaseLost: ({ key, seq, error }) => {
        this.#emitter.emit('lease-lost', { seq, error })
        this.#deliveries.leaseLost(key, error)
      },
      onCancelled: ({ id, error }) => this.#deliveries.cancelled(id, error),
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
   *
   * On a reliable queue the topic may be a pattern, for messages: `images.*` (one segment), `logs.>` (the rest). Where several
   * fit, the exact topic's handler is called, else that of the first pattern.
   *
   * What becomes of a message of a reliable queue: when the handler returns it is acked. When it throws, it comes again after
   * the queue's backoff, and after its last attempt it is a dead letter; `Reject` makes it one at once, `RetryAfter` says when
   * it comes again. A payload that the schema does not accept is a dead letter at once.
   *
   * @throws XmqError `invalid-config` when the topic has a handler, this one is no function, or the worker was started;
   *   `bad-request` on a wrong pattern
   */
  handle<Received, Answered>(
    topic: Topic<unknown, Received, Answered> | string,
    handler: Handler<Received, NoInfer<Answered>>,
    options: HandleOptions = {},
  ): this {
    this.#assertIdle('handle')
    assertOptions(options, HANDLE_OPTIONS, 'handle()')
    const defined = topicOf(topic)
    assertPattern(defined.name)
    if (typeof handler !== 'function') {
      throw new XmqError('invalid-config', `The handler of '${defined.name}' is no function.`)
    }
    const name = options.name ?? (this.#name === undefined ? undefined : `${this.#name}:${defined.name}`)
    if (this.#deliveries.routes.has(defined.name)) {
      throw new XmqError(
        'invalid-config',
        `The topic '${defined.name}' has a handler already; one worker has one a topic.`,
      )
    }
    // Throws on a name that cannot be sent.
    encodeConsume({ credit: 0, name })
    const route = { topic: defined, name, handler: handler as Handler<unknown, unknown> }
    this.#deliveries.routes.set(defined.name, route)
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
          if ((error.fromBroker || error.code === 'unsupported') && HOPELESS.has(error.code)) reject(error)
        }),
      )
    })
    for (const [topic, { name }] of this.#deliveries.routes) this.#runtime.dispatch({ type: 'subscribe', topic, name })
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
   * Stops in order: reports load 100, leaves the topics, gives back what a reliable queue leased and no handler has begun,
   * waits up to `stopTimeout` for what runs and waits, aborts the signals of what is left (which goes back to a reliable
   * queue), settles, says goodbye, closes. Idempotent.
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
      const left = this.#leave()
      this.#deliveries.releaseWaiting()
      await left
      await this.#drain()
      await this.#settled()
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
  #onSettled: () => void = () => {}

  /** The queue has heard what was done, as far as it can be told in time. */
  async #settled(): Promise<void> {
    if (this.#runtime.unsettled === 0 || this.#runtime.status.state !== 'online') return
    const settled = new Promise<void>((resolve) => (this.#onSettled = resolve))
    await endsWithin(settled, SETTLE_TIMEOUT_MS)
  }

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
      case 'duplicate':
        this.#emitter.emit('duplicate', { seq: event.seq, topic: event.topic, state: event.state })
        return
      case 'settle-failed':
        this.#emitter.emit('settle-failed', { seq: event.seq, outcome: event.outcome, error: event.error })
        return
      case 'left':
        this.#onLeft()
        return
      case 'all-settled':
        this.#onSettled()
        return
      default:
        emitConnectionEvent(this.#emitter, event)
    }
  }
}
