/** The producer's side: publish and request. */
import {
  element,
  encodeForget,
  NS_PING,
  type Payload,
  stanza,
  wireLength,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import {
  CONNECTION_EVENTS,
  type ConnectionEvents,
  emitConnectionEvent,
  wallStatus,
  wallTime,
} from './connection-events.ts'
import { DeadLetters } from './dead-letters.ts'
import { parseDuration, type Duration } from './duration.ts'
import { Emitter, type Listeners, type Unsubscribe } from './events.ts'
import { assertOptions, type OptionNames } from './known-options.ts'
import { endsWithin, firstConnection, whenAborted } from './lifecycle.ts'
import { configureEndpoint, CONNECTION_OPTIONS, type ConnectionOptions, type EndpointConfig } from './options.ts'
import { answerPayload, decodePayload, decodeProgressValue, encodeRequestStanza, validate } from './payload.ts'
import {
  headersOf,
  type Published,
  Publisher,
  type PublishItem,
  type PublishOptions,
  type PublishOutcome,
} from './publisher.ts'
import { Room } from './room.ts'
import { randomId } from './random-id.ts'
import { Runtime } from './runtime.ts'
import type { ConnectionStatus, Mode, SessionEvent } from './session/index.ts'
import { type Topic, topicOf } from './topic.ts'

/** Events of a {@link Client}. */
export interface ClientEvents extends ConnectionEvents {
  /** A reliable queue asked to wait (it is full, or sheds load), or does not answer: unconfirmed publishes go on at `retryAt`. */
  'publish-paused': { readonly reason: XmqError; readonly retryAt: number }
  /** A message to a plain queue came back: nobody subscribed, not allowed, no such queue. */
  returned: { readonly topic: string | undefined; readonly id: string; readonly error: XmqError }
}

/** Options of {@link connect}. */
export interface ConnectOptions extends ConnectionOptions {
  /**
   * How long a publish may take. To a reliable queue: until it is confirmed; never longer than `dedupeWindow`.
   * @default '30s' for plain queues, `dedupeWindow` for reliable ones
   */
  readonly publishTimeout?: Duration
  /**
   * How long the queue knows an id again: publishes are repeated no longer than that, and no longer than the queue itself says
   * (its `dedupe`).
   * @default '10m'
   */
  readonly dedupeWindow?: Duration
  /** How long a request may take in all. @default '60s' */
  readonly requestTimeout?: Duration
  /** Most publishes, and most requests, pending at once, each with at most 64 MiB. @default 10000 */
  readonly pendingMax?: number
  /**
   * What a publish does when so many are pending: `wait` for room, in order, or `refuse` with `limit-reached`.
   * @default 'wait'
   */
  readonly whenFull?: 'wait' | 'refuse'
  /** How long `close` waits for publishes that a reliable queue has not confirmed. @default '5s' */
  readonly closeTimeout?: Duration
  /** Listeners from the first moment on: `connect()` resolves only when what they tell is over. */
  readonly on?: Listeners<ClientEvents>
}

/** Options of one request. */
export interface RequestOptions {
  /**
   * Gives up. Through a reliable queue the worker is told, and its handler's `signal` is aborted; what it has done is not undone.
   */
  readonly signal?: AbortSignal
  /** How long it may take in all; when that is over it is as with `signal`. @default the client's `requestTimeout` */
  readonly timeout?: Duration
  /**
   * Called with each value that the handler gives to `ctx.progress`, in order, until the request is over. Some may be missing: only
   * the answer is certain. Through reliable queues only; it is never called else. What it throws is an unhandled error.
   */
  readonly onProgress?: (value: unknown) => void
  /** Small texts beside the payload, such as `traceparent`: to reliable queues only. */
  readonly headers?: Readonly<Record<string, string>>
}

const CONNECT_OPTIONS: OptionNames<ConnectOptions> = {
  ...CONNECTION_OPTIONS,
  publishTimeout: true,
  dedupeWindow: true,
  requestTimeout: true,
  pendingMax: true,
  whenFull: true,
  closeTimeout: true,
  on: true,
}

const REQUEST_OPTIONS: OptionNames<RequestOptions> = { signal: true, timeout: true, onProgress: true, headers: true }

/**
 * Connects to a server, for publishing and requesting. Resolves when logged in; after that the connection is kept, over
 * restarts of server and broker, until `close()`.
 *
 * @throws XmqError `invalid-config`, `not-authorized` (at once), `connection-lost` (after `connectTimeout`), `aborted`
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  assertOptions(options, CONNECT_OPTIONS, 'connect()')
  const config = configureEndpoint(options, options.connectTimeout ?? '30s')
  const whenFull: string = options.whenFull ?? 'wait'
  if (whenFull !== 'wait' && whenFull !== 'refuse') {
    throw new XmqError('invalid-config', `whenFull is '${whenFull}'; expected 'wait' or 'refuse'.`)
  }
  const client = new ConnectedClient(config, {
    publishMs:
      options.publishTimeout === undefined ? undefined : parseDuration(options.publishTimeout, 'publishTimeout'),
    requestMs: parseDuration(options.requestTimeout ?? '60s', 'requestTimeout'),
    closeMs: parseDuration(options.closeTimeout ?? '5s', 'closeTimeout'),
    whenFull,
  })
  client.listen(options.on)
  await client.start()
  return client
}

/** A connection that publishes and requests. Made by {@link connect}. */
export interface Client extends AsyncDisposable {
  /** The queue's address. */
  readonly queue: string
  /** Where the connection is; each change is an event, too. */
  readonly status: ConnectionStatus
  /**
   * Publishes a message.
   *
   * To a reliable queue: resolves when the queue has stored it. Calls that come together leave as one batch. What is not
   * confirmed is kept and sent again with the same id, over lost connections and a queue that asks to wait, in the order of
   * the calls and before anything new. Of one key one message is on its way at a time.
   *
   * To a plain queue: resolves when it was written to the connection: plain queues confirm nothing, and a message that the
   * queue refuses comes back as the event `returned`.
   *
   * While `pendingMax` are pending it waits for room, or is refused (`whenFull`).
   *
   * @throws XmqError `invalid-config`, `invalid-payload`, `too-large`, `illegal-character`, `bad-request`, `unsupported` (at
   *   once); `conflict`, `forbidden` and other refusals of the queue; `unconfirmed`: sent, but whether it is stored is unknown;
   *   `limit-reached`; `connection-lost`, `timeout` or what the queue's server said (not sent in time); `aborted`; `closed`
   */
  publish<Sent>(topic: Topic<Sent> | string, payload: NoInfer<Sent>, options?: PublishOptions): Promise<Published>
  /**
   * Publishes many messages, each with options of its own. Reads on in `items` as there is room. Resolves when each is over,
   * with an outcome for each, in order: one that fails does not stop the others.
   *
   * @throws whatever `items` throws
   */
  publishMany<Sent>(
    topic: Topic<Sent> | string,
    items: Iterable<PublishItem<NoInfer<Sent>>> | AsyncIterable<PublishItem<NoInfer<Sent>>>,
    options?: { readonly signal?: AbortSignal },
  ): Promise<PublishOutcome[]>
  /** The queue's dead letters: for its admins, on reliable queues. */
  readonly deadLetters: DeadLetters
  /**
   * Ends a named durable subscription of this account in an `all` queue, with all that waits in it.
   * @throws XmqError `not-found` when there is none of that name; as {@link request}
   */
  forget(name: string, options?: RequestOptions): Promise<void>
  /**
   * Asks one worker and returns its answer. A request that was written is never repeated: when the connection ends before
   * the answer, it fails with `connection-lost`, and whether it was handled is unknown.
   *
   * @throws XmqError as {@link publish}, and the worker's or the queue's error: `no-recipients`, `handler-failed`, `timeout`,
   *   `worker-gone`, `invalid-payload`, …
   */
  request<Sent, Returned>(
    topic: Topic<Sent, unknown, unknown, Returned> | string,
    payload: NoInfer<Sent>,
    options?: RequestOptions,
  ): Promise<Returned>
  /**
   * Asks the queue for a sign of life (XEP-0199). Streams are ordered: once it resolves, whatever the queue refused of what was
   * published before has come back as `returned`.
   *
   * @throws XmqError `timeout`, `connection-lost`, or what the queue's server said; `aborted`; `closed`
   */
  ping(options?: RequestOptions): Promise<void>
  /** Calls back on each event of that name. Returns how to stop that. */
  on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): Unsubscribe
  /**
   * Waits up to `closeTimeout` for publishes that a reliable queue has not confirmed, fails what is pending then with `closed`
   * (`unconfirmed` what was sent), and closes the connection in order. Idempotent.
   */
  close(): Promise<void>
}

interface ClientRules {
  readonly publishMs: number | undefined
  readonly requestMs: number
  readonly closeMs: number
  readonly whenFull: 'wait' | 'refuse'
}

class ConnectedClient implements Client {
  readonly queue: string
  readonly deadLetters: DeadLetters
  readonly #config: EndpointConfig
  readonly #rules: ClientRules
  readonly #emitter = new Emitter<ClientEvents>()
  readonly #runtime: Runtime
  readonly #room: Room
  readonly #publisher: Publisher
  #closing: Promise<void> | undefined

  constructor(config: EndpointConfig, rules: ClientRules) {
    this.#config = config
    this.queue = config.queue
    this.#rules = rules
    this.#runtime = new Runtime(config, {
      onDelivery: () => {},
      onEvent: (event) => this.#event(event),
    })
    const { pendingMax, pendingBytesMax } = config.session
    this.#room = new Room({ countMax: pendingMax, bytesMax: pendingBytesMax })
    this.#publisher = new Publisher({
      queue: config.queue,
      whenFull: rules.whenFull,
      timeoutMs: rules.publishMs,
      room: this.#room,
      runtime: this.#runtime,
      form: () => ({ mode: this.#mode, codec: this.#runtime.codec }),
    })
    this.deadLetters = new DeadLetters((type, child, options) => this.#ask(type, child, options))
  }

  get #mode(): Mode | undefined {
    const { status } = this.#runtime
    return status.state === 'online' ? status.mode : undefined
  }

  get status(): ConnectionStatus {
    return wallStatus(this.#runtime.status)
  }

  async start(): Promise<void> {
    const { signal, connectTimeoutMs } = this.#config
    const online = new Promise<void>((resolve) => void this.#emitter.on('online', () => resolve()))
    await firstConnection(this.#runtime, online, this.#emitter, { signal, connectTimeoutMs })
    this.#emitter.on(
      'closed',
      whenAborted(signal, (reason) => void this.#close(reason)),
    )
  }

  /** @throws XmqError `invalid-config` on a name that is no event */
  listen(listeners: Listeners<ClientEvents> | undefined): void {
    this.#emitter.onEach(listeners, { ...CONNECTION_EVENTS, returned: true, 'publish-paused': true })
  }

  on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): Unsubscribe {
    return this.#emitter.on(name, listener)
  }

  publish<Sent>(topic: Topic<Sent> | string, payload: NoInfer<Sent>, options?: PublishOptions): Promise<Published> {
    return this.#publisher.publish(topic, payload, options)
  }

  publishMany<Sent>(
    topic: Topic<Sent> | string,
    items: Iterable<PublishItem<NoInfer<Sent>>> | AsyncIterable<PublishItem<NoInfer<Sent>>>,
    options?: { readonly signal?: AbortSignal },
  ): Promise<PublishOutcome[]> {
    return this.#publisher.publishMany(topic, items, options)
  }

  async request<Sent, Returned>(
    topic: Topic<Sent, unknown, unknown, Returned> | string,
    payload: NoInfer<Sent>,
    options: RequestOptions = {},
  ): Promise<Returned> {
    assertOptions(options, REQUEST_OPTIONS, 'request()')
    const defined = topicOf(topic)
    const checked = validate(defined.input, payload, `The payload of '${defined.name}'`)
    if (checked instanceof Promise) await checked
    const timeoutMs = this.#requestMs(options)
    const { onProgress } = options
    const call = {
      deadline: Date.now() + timeoutMs,
      progress: onProgress !== undefined,
      headers: headersOf(options.headers ?? {}),
    }
    // The id is our own secret until the queue answers: nobody else can.
    const written = encodeRequestStanza(defined, payload, { to: this.queue, id: randomId(), call })
    const tell = onProgress === undefined ? undefined : (news: Payload) => tellProgress(onProgress, news)
    const answer = await this.#runtime.request(defined.name, written, timeoutMs, options.signal, tell)
    const value = decodePayload(defined, answerPayload(answer), 'answer')
    const accepted = await validate(defined.output, value, `The answer of '${defined.name}'`)
    return accepted.value as Returned
  }

  async ping(options: RequestOptions = {}): Promise<void> {
    assertOptions(options, REQUEST_OPTIONS, 'ping()')
    try {
      await this.#ask('get', element('ping', NS_PING), options)
    } catch (error) {
      // mod_xmq knows no ping; that it says so is a sign of life, too.
      if (!(error instanceof XmqError) || error.code !== 'topic-required') throw error
    }
  }

  async forget(name: string, options: RequestOptions = {}): Promise<void> {
    assertOptions(options, REQUEST_OPTIONS, 'forget()')
    await this.#ask('set', encodeForget(name), options)
  }

  #requestMs({ timeout }: RequestOptions): number {
    return timeout === undefined ? this.#rules.requestMs : parseDuration(timeout, 'timeout')
  }

  /** Asks the queue itself. */
  #ask(type: 'get' | 'set', child: XmlElement, options: RequestOptions): Promise<XmlElement> {
    const iq = stanza('iq', { type, id: randomId(), to: this.queue }, [child])
    const written = { stanza: iq, bytes: wireLength(iq) }
    return this.#runtime.request(child.name, written, this.#requestMs(options), options.signal)
  }

  close(): Promise<void> {
    return this.#close(undefined)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close(undefined)
  }

  #close(reason: XmqError | undefined): Promise<void> {
    this.#closing ??= this.#closeOnce(reason)
    return this.#closing
  }

  async #closeOnce(reason: XmqError | undefined): Promise<void> {
    const isPlain = this.#mode === 'plain' || this.#mode === 'mod_xmq'
    const isOnline = this.#runtime.status.state === 'online'
    if (reason === undefined && isOnline && !isPlain && !this.#room.isEmpty)
      await endsWithin(this.#room.whenEmpty(), this.#rules.closeMs)
    const wasClosed = this.#runtime.status.state === 'closed'
    const closed = this.#runtime.close(reason)
    this.#room.close(reason ?? new XmqError('closed', 'The client was closed.'))
    if (!wasClosed) this.#emitter.emit('closed', { reason })
    await closed
  }

  #event(event: SessionEvent): void {
    if (event.name === 'returned') {
      this.#emitter.emit('returned', { topic: event.topic, id: event.id, error: event.error })
    } else if (event.name === 'publish-paused') {
      this.#emitter.emit('publish-paused', { reason: event.reason, retryAt: wallTime(event.retryAt) })
    } else {
      emitConnectionEvent(this.#emitter, event)
    }
  }
}

/** In a turn of its own: what it throws is its own fault, and harms nothing here. */
function tellProgress(onProgress: (value: unknown) => void, payload: Payload): void {
  const value = decodeProgressValue(payload)
  if (value !== undefined) queueMicrotask(() => onProgress(value))
}
