/** The producer's side: publish and request. */
import { element, NS_PING, stanza, wireLength, XmqError } from '@xmq/protocol'
import { CONNECTION_EVENTS, type ConnectionEvents, emitConnectionEvent, wallStatus } from './connection-events.ts'
import { parseDuration, type Duration } from './duration.ts'
import { Emitter, type Listeners, type Unsubscribe } from './events.ts'
import { firstConnection, whenAborted } from './lifecycle.ts'
import { configureEndpoint, type ConnectionOptions, type EndpointConfig } from './options.ts'
import { answerPayload, decodePayload, encodeMessage, encodeRequestStanza, validate } from './payload.ts'
import { randomId, Runtime } from './runtime.ts'
import type { ConnectionStatus, SessionEvent } from './session/index.ts'
import { type Topic, topicOf } from './topic.ts'

/** Events of a {@link Client}. */
export interface ClientEvents extends ConnectionEvents {
  /** A message that was published came back: nobody subscribed, not allowed, no such queue. */
  returned: { readonly topic: string | undefined; readonly id: string; readonly error: XmqError }
}

/** Options of {@link connect}. */
export interface ConnectOptions extends ConnectionOptions {
  /** How long a publish may wait for the connection and the queue. @default '30s' */
  readonly publishTimeout?: Duration
  /** How long a request may take in all. @default '60s' */
  readonly requestTimeout?: Duration
  /** Most publishes and requests pending at once; more is refused with `limit-reached`. @default 10000 */
  readonly pendingMax?: number
  /** Listeners from the first moment on: `connect()` resolves only when what they tell is over. */
  readonly on?: Listeners<ClientEvents>
}

/** Options of one publish. */
export interface PublishOptions {
  /** The message's id, for the worker and for bounces. @default a random one */
  readonly id?: string
  /** Gives up while the message was not written. */
  readonly signal?: AbortSignal
  /** How long it may wait for the connection and the queue. @default the client's `publishTimeout` */
  readonly timeout?: Duration
}

/** Options of one request. */
export interface RequestOptions {
  /** Gives up; what the worker does is not undone. */
  readonly signal?: AbortSignal
  /** How long it may take in all. @default the client's `requestTimeout` */
  readonly timeout?: Duration
}

/** What a publish became. */
export interface Published {
  /** The message's id. */
  readonly id: string
}

const ID_LENGTH_MAX = 256

/**
 * Connects to a server, for publishing and requesting. Resolves when logged in; after that the connection is kept, over
 * restarts of server and broker, until `close()`.
 *
 * @throws XmqError `invalid-config`, `not-authorized` (at once), `connection-lost` (after `connectTimeout`), `aborted`
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  const config = configureEndpoint(options, options.connectTimeout ?? '30s')
  const client = new ConnectedClient(config, {
    publishMs: parseDuration(options.publishTimeout ?? '30s', 'publishTimeout'),
    requestMs: parseDuration(options.requestTimeout ?? '60s', 'requestTimeout'),
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
   * Publishes a message. Resolves when it was written to the connection: plain queues confirm nothing, and a message that the
   * queue refuses comes back as the event `returned`. While the connection or the queue is down, it waits up to
   * `publishTimeout`, in order.
   *
   * @throws XmqError `invalid-payload`, `too-large`, `illegal-character`, `bad-request` (at once); `limit-reached`;
   *   `connection-lost`, `timeout` or what the queue's server said (not written in time); `aborted`; `closed`
   */
  publish<Sent>(topic: Topic<Sent> | string, payload: NoInfer<Sent>, options?: PublishOptions): Promise<Published>
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
  /** Fails what is pending with `closed`, and closes the connection in order. Idempotent. */
  close(): Promise<void>
}

class ConnectedClient implements Client {
  readonly queue: string
  readonly #config: EndpointConfig
  readonly #timeouts: { readonly publishMs: number; readonly requestMs: number }
  readonly #emitter = new Emitter<ClientEvents>()
  readonly #runtime: Runtime
  #closing: Promise<void> | undefined

  constructor(config: EndpointConfig, timeouts: { readonly publishMs: number; readonly requestMs: number }) {
    this.#config = config
    this.queue = config.queue
    this.#timeouts = timeouts
    this.#runtime = new Runtime(config, {
      onDelivery: () => {},
      onEvent: (event) => this.#event(event),
    })
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
    this.#emitter.onEach(listeners, { ...CONNECTION_EVENTS, returned: true })
  }

  on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): Unsubscribe {
    return this.#emitter.on(name, listener)
  }

  async publish<Sent>(
    topic: Topic<Sent> | string,
    payload: NoInfer<Sent>,
    options: PublishOptions = {},
  ): Promise<Published> {
    const defined = topicOf(topic)
    // No await where the schema is synchronous: messages leave in the order of the calls.
    const checked = validate(defined.input, payload, `The payload of '${defined.name}'`)
    if (checked instanceof Promise) await checked
    const id = options.id ?? randomId()
    if (id === '' || id.length > ID_LENGTH_MAX) {
      throw new XmqError('bad-request', `id has ${id.length} characters; expected 1 to ${ID_LENGTH_MAX}.`)
    }
    const timeoutMs =
      options.timeout === undefined ? this.#timeouts.publishMs : parseDuration(options.timeout, 'timeout')
    const written = encodeMessage(defined, payload, this.queue, id)
    await this.#runtime.call('publish', defined.name, written, timeoutMs, options.signal)
    return { id }
  }

  async request<Sent, Returned>(
    topic: Topic<Sent, unknown, unknown, Returned> | string,
    payload: NoInfer<Sent>,
    options: RequestOptions = {},
  ): Promise<Returned> {
    const defined = topicOf(topic)
    const checked = validate(defined.input, payload, `The payload of '${defined.name}'`)
    if (checked instanceof Promise) await checked
    const timeoutMs =
      options.timeout === undefined ? this.#timeouts.requestMs : parseDuration(options.timeout, 'timeout')
    // The id is our own secret until the queue answers: nobody else can.
    const written = encodeRequestStanza(defined, payload, this.queue, randomId())
    const answer = await this.#runtime.call('request', defined.name, written, timeoutMs, options.signal)
    if (answer === undefined) throw new XmqError('internal', 'A request was settled without an answer.')
    const value = decodePayload(defined, answerPayload(answer), 'answer')
    const accepted = await validate(defined.output, value, `The answer of '${defined.name}'`)
    return accepted.value as Returned
  }

  async ping(options: RequestOptions = {}): Promise<void> {
    const timeoutMs =
      options.timeout === undefined ? this.#timeouts.requestMs : parseDuration(options.timeout, 'timeout')
    const head = { type: 'get', id: randomId(), to: this.queue }
    const iq = stanza('iq', head, [element('ping', NS_PING)])
    try {
      await this.#runtime.call('request', 'ping', { stanza: iq, bytes: wireLength(iq) }, timeoutMs, options.signal)
    } catch (error) {
      // mod_xmq knows no ping; that it says so is a sign of life, too.
      if (!(error instanceof XmqError) || error.code !== 'topic-required') throw error
    }
  }

  close(): Promise<void> {
    return this.#close(undefined)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close(undefined)
  }

  #close(reason: XmqError | undefined): Promise<void> {
    if (this.#closing === undefined) {
      const wasClosed = this.#runtime.status.state === 'closed'
      this.#closing = this.#runtime.close(reason)
      if (!wasClosed) this.#emitter.emit('closed', { reason })
    }
    return this.#closing
  }

  #event(event: SessionEvent): void {
    if (event.name === 'returned') {
      this.#emitter.emit('returned', { topic: event.topic, id: event.id, error: event.error })
    } else {
      emitConnectionEvent(this.#emitter, event)
    }
  }
}
