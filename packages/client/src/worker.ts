/**
 * The worker: subscribes, runs handlers, answers, reports its load, and stops without losing what it holds.
 *
 *     idle --start()--> starting --every topic subscribed--> running --stop()--> stopping --> stopped
 *                       starting --refused, timed out, aborted--> stopped
 *
 * Invariants:
 * 1. At most `concurrency` handlers run. At most `bufferMax` deliveries wait (requests: ten times the capacity): a request
 *    beyond is answered with `overloaded`, a message is reported as `failed`. The load report stops the queue before, except
 *    for what a burst had already sent.
 * 2. Every request that came is answered once: result, `handler-failed`, `invalid-payload` or `overloaded`. Never with a
 *    condition that makes the queue ask the next worker.
 * 3. Every delivery ends in one `completed` or `failed`.
 * 4. `stop` leaves the topics first, then waits for the handlers, then closes: a plain queue redelivers nothing.
 */
import { XmqError } from '@xmq/protocol'
import PQueue from 'p-queue'
import { platform } from '#platform'
import {
  CONNECTION_EVENTS,
  type ConnectionEvents,
  emitConnectionEvent,
  wallStatus,
  wallTime,
} from './connection-events.ts'
import { composeMiddleware, type Handler, type HandlerContext, type Middleware } from './context.ts'
import { type Duration, parseDuration } from './duration.ts'
import { Emitter, type Listeners, type Unsubscribe } from './events.ts'
import { firstConnection, whenAborted } from './lifecycle.ts'
import { type ConnectionOptions, configureEndpoint, type EndpointConfig, positiveInteger } from './options.ts'
import { decodePayload, validate } from './payload.ts'
import { answerStanza, asFailure, failureStanza, sizeOf } from './reply.ts'
import { abortError, monotonicNow, Runtime } from './runtime.ts'
import { type ConnectionStatus, type Delivery, loadOf, type SessionEvent } from './session/index.ts'
import { listenForStop } from './signals.ts'
import { type Topic, topicOf } from './topic.ts'

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

/** What happened to one delivery. */
export interface DeliveryEvent {
  readonly topic: string
  readonly id: string
  readonly kind: 'message' | 'request'
  readonly from: string | undefined
}

/** Events of a {@link Worker}. */
export interface WorkerEvents extends ConnectionEvents {
  /** The queue knows the subscription; `renewal` when not for the first time. */
  subscribed: { readonly topic: string; readonly renewal: boolean }
  unsubscribed: { readonly topic: string }
  /** The queue refused or did not answer; asked again at `retryAt`. */
  'subscription-failed': { readonly topic: string; readonly error: XmqError; readonly retryAt: number }
  /** A load was reported out of turn: the worker is full (above 90), or has room again (below 75). */
  load: { readonly load: number }
  /** A handler begins. */
  started: DeliveryEvent
  /** A handler is done, and a request answered. */
  completed: DeliveryEvent & { readonly elapsedMs: number }
  /** A handler threw, a payload was invalid, or there was no room. Without a listener it is written to standard error. */
  failed: DeliveryEvent & { readonly error: XmqError }
  /** The connection that a request came over is gone: its answer went nowhere, the requester was told `worker-gone`. */
  'answer-lost': { readonly topic: string; readonly id: string }
}

const WORKER_EVENTS: Readonly<Record<keyof WorkerEvents, true>> = {
  ...CONNECTION_EVENTS,
  subscribed: true,
  unsubscribed: true,
  'subscription-failed': true,
  load: true,
  started: true,
  completed: true,
  failed: true,
  'answer-lost': true,
}

interface Route {
  readonly topic: Topic
  readonly handler: Handler<unknown, unknown>
}

type WorkerState = 'idle' | 'starting' | 'running' | 'stopping' | 'stopped'

const LAG_PERIOD_MS = 500
/** After the signals were aborted, handlers have this long to end. */
const ABORT_GRACE_MS = 1000
const BUFFER_BYTES_MAX = 64 * 1024 * 1024
/** Refusals that asking again does not change. */
const HOPELESS: ReadonlySet<string> = new Set(['forbidden', 'bad-request', 'unsupported', 'not-found'])

/** Handles the topics of a queue. */
export class Worker implements AsyncDisposable {
  readonly #config: EndpointConfig
  readonly #capacity: number
  readonly #bufferMax: number
  readonly #stopTimeoutMs: number
  readonly #emitter = new Emitter<WorkerEvents>()
  readonly #runtime: Runtime
  readonly #queue: PQueue
  readonly #routes = new Map<string, Route>()
  readonly #middleware: Middleware[] = []
  readonly #stopping = new AbortController()
  #state: WorkerState = 'idle'
  #stopped: Promise<void> | undefined
  #waitingBytes = 0
  #lagMs = 0
  #lagTimer: ReturnType<typeof setInterval> | undefined
  #loadDue = false

  /** @throws XmqError `invalid-config` */
  constructor(options: WorkerOptions) {
    this.#config = configureEndpoint(options, options.connectTimeout)
    const concurrency = positiveInteger(options.concurrency ?? 8, 'concurrency')
    const prefetch = positiveInteger(options.prefetch ?? concurrency, 'prefetch', 0)
    this.#capacity = concurrency + prefetch
    this.#bufferMax = positiveInteger(options.bufferMax ?? Math.max(50_000, prefetch), 'bufferMax', prefetch)
    this.#stopTimeoutMs = parseDuration(options.stopTimeout ?? '30s', 'stopTimeout')
    this.#emitter.onEach(options.on, WORKER_EVENTS)
    this.#queue = new PQueue({ concurrency })
    this.#runtime = new Runtime(this.#config, {
      onDelivery: (delivery) => this.#deliver(delivery),
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
    return { running: this.#queue.pending, waiting: this.#queue.size }
  }

  /** Calls back on each event of that name. Returns how to stop that. */
  on<Name extends keyof WorkerEvents>(name: Name, listener: (event: WorkerEvents[Name]) => void): Unsubscribe {
    return this.#emitter.on(name, listener)
  }

  /** Runs `middleware` around every handler; the first one added is the outermost. */
  use(middleware: Middleware): this {
    this.#assertIdle('use')
    this.#middleware.push(middleware)
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
    if (this.#routes.has(defined.name)) {
      throw new XmqError(
        'invalid-config',
        `The topic '${defined.name}' has a handler already; one worker has one a topic.`,
      )
    }
    this.#routes.set(defined.name, { topic: defined, handler: handler as Handler<unknown, unknown> })
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
    if (this.#routes.size === 0) {
      throw new XmqError('invalid-config', 'The worker handles no topic: call handle() before start().')
    }
    this.#state = 'starting'
    const { signal, connectTimeoutMs } = this.#config
    const missing = new Set(this.#routes.keys())
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
    if (this.#queue.pending > 0) platform.exit(1)
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
    if (await endsWithin(this.#queue.onIdle(), this.#stopTimeoutMs)) return
    this.#stopping.abort(new XmqError('aborted', 'The worker stops, and its grace time is over.'))
    if (await endsWithin(this.#queue.onIdle(), ABORT_GRACE_MS)) return
    const message = `${this.#queue.pending} handlers did not heed their signal; they are left behind.`
    this.#emitter.emit('warning', { message })
  }

  // --- deliveries ---------------------------------------------------------------------------------------------------

  #deliver(delivery: Delivery): void {
    const bytes = sizeOf(delivery.payload)
    const room = delivery.kind === 'request' ? Math.min(this.#bufferMax, this.#capacity * 10) : this.#bufferMax
    if (this.#queue.size >= room || this.#waitingBytes + bytes > BUFFER_BYTES_MAX) {
      const text = `The worker is full: ${this.#queue.size} deliveries wait already.`
      this.#failed(delivery, new XmqError('overloaded', text, { retryAfterSeconds: 1 }))
      return
    }
    this.#waitingBytes += bytes
    void this.#queue.add(async () => {
      this.#waitingBytes -= bytes
      await this.#process(delivery)
      this.#noteLoad()
    })
    this.#noteLoad()
  }

  /** Never rejects. */
  async #process(delivery: Delivery): Promise<void> {
    const route = this.#routes.get(delivery.topic)
    const { topic, id, kind, from } = delivery
    if (route === undefined) {
      this.#failed(delivery, new XmqError('not-found', `This worker does not handle '${topic}'.`))
      return
    }
    const abort = new AbortController()
    const onStop = (): void => abort.abort(this.#stopping.signal.reason)
    this.#stopping.signal.addEventListener('abort', onStop, { once: true })
    const context: HandlerContext = { topic, kind, id, from, signal: abort.signal, raw: delivery.payload }
    const startedAt = monotonicNow()
    try {
      if (this.#stopping.signal.aborted) throw abortError(this.#stopping.signal)
      this.#emitter.emit('started', { topic, id, kind, from })
      const answer = await composeMiddleware(this.#middleware, context, () => handlePayload(route, delivery, context))
      if (kind === 'request') {
        this.#runtime.dispatch({ type: 'answer', delivery, stanza: await answerStanza(route.topic, delivery, answer) })
      }
      this.#emitter.emit('completed', { topic, id, kind, from, elapsedMs: monotonicNow() - startedAt })
    } catch (error) {
      this.#failed(delivery, asFailure(error))
    } finally {
      this.#stopping.signal.removeEventListener('abort', onStop)
    }
  }

  #failed(delivery: Delivery, error: XmqError): void {
    const { topic, id, kind, from } = delivery
    if (kind === 'request') {
      this.#runtime.dispatch({ type: 'answer', delivery, stanza: failureStanza(delivery, error) })
    }
    if (this.#emitter.has('failed')) this.#emitter.emit('failed', { topic, id, kind, from, error })
    else console.error(`xmq worker: ${kind} ${id} to '${topic}' failed: ${error.code}: ${error.message}`)
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
    this.#runtime.dispatch({
      type: 'load',
      load: loadOf({
        running: this.#queue.pending,
        waiting: this.#queue.size,
        capacity: this.#capacity,
        lagMs: this.#lagMs,
      }),
    })
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

async function handlePayload(route: Route, delivery: Delivery, context: HandlerContext): Promise<unknown> {
  const value = decodePayload(route.topic, delivery.payload, 'payload')
  const accepted = await validate(route.topic.input, value, `The payload of '${route.topic.name}'`)
  try {
    return await route.handler(accepted.value, context)
  } catch (error) {
    // Also an XmqError of the handler's own calls: its code says nothing about this delivery.
    throw new XmqError('handler-failed', XmqError.from(error).message, { cause: error })
  }
}

/** Whether a promise settles in time. */
async function endsWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs)
  })
  try {
    return await Promise.race([promise.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
