/**
 * Publishing: from what the application has to the session. Owner: one client.
 *
 * Invariants:
 * 1. Where there is room and the schema is synchronous, a message is handed over before `publish` returns: messages leave in
 *    the order of the calls.
 * 2. What is handed over takes room until it is over, however it ends.
 */
import { type ConfirmDurability, type Headers, ID_BYTES_MAX, type ItemCodec, XmqError } from '@xmq/protocol'
import { type Duration, parseDuration } from './duration.ts'
import { assertOptions, type OptionNames } from './known-options.ts'
import { createMessageId } from './message-id.ts'
import { encodeMessage, validate } from './payload.ts'
import type { Room } from './room.ts'
import type { CallEnd, CallOutcome, Runtime } from './runtime.ts'
import type { Mode, OutgoingMessage } from './session/index.ts'
import { type Topic, topicOf } from './topic.ts'

/** Options of one publish. All but `id`, `headers`, `signal` and `timeout` need a reliable queue. */
export interface PublishOptions {
  /**
   * The message's id, 1 to 256 bytes. A reliable queue takes an id once: again within its dedupe window it is a `duplicate`, or
   * a `conflict` when topic or payload differ. So an id made of your data makes a repeated publish harmless.
   * @default `createMessageId()`: a random one
   */
  readonly id?: string
  /** Not before this much later. @default 0 */
  readonly delay?: Duration
  /** Given up this long after the publish: a dead letter `expired`. @default none */
  readonly ttl?: Duration
  /** 0 to 9; 9 is delivered first. @default 0 */
  readonly priority?: number
  /** Messages of one topic and key are handled one at a time, in order; the next one is published on the confirm. */
  readonly key?: string
  /** Small texts beside the payload, such as `traceparent`: at most 32, with 8192 bytes. */
  readonly headers?: Readonly<Record<string, string>>
  /** Gives up. Of a message that was sent already, whether it is stored is unknown. */
  readonly signal?: AbortSignal
  /**
   * How long until it is confirmed by a reliable queue (`unconfirmed` after that), or written to a plain one.
   * @default the client's `publishTimeout`
   */
  readonly timeout?: Duration
}

/** What a publish became. */
export interface Published {
  /** The message's id. */
  readonly id: string
  /** The queue's number of it; `undefined` on a plain queue, which confirms nothing. */
  readonly seq: number | undefined
  /** What it survives: `disk` a power cut, `replicated` the loss of the machine; `undefined` on a plain queue. */
  readonly durability: ConfirmDurability | undefined
  /** The queue had it already: from an earlier publish with this id, or from an attempt of this one whose answer got lost. */
  readonly duplicate: boolean
  /** In an `all` queue: the durable subscriptions that it was stored for. */
  readonly subscriptions: number | undefined
}

/** One message of a `publishMany`. */
export interface PublishItem<Sent> extends Omit<PublishOptions, 'signal'> {
  readonly payload: Sent
}

/** How one message of a `publishMany` ended. */
export type PublishOutcome =
  | { readonly status: 'published'; readonly published: Published }
  | { readonly status: 'failed'; readonly id: string | undefined; readonly error: XmqError }

/** What a publisher needs. */
export interface PublisherOptions {
  readonly queue: string
  readonly whenFull: 'wait' | 'refuse'
  /** As the caller gave it; `undefined`: as long as the mode has it. */
  readonly timeoutMs: number | undefined
  readonly room: Room
  readonly runtime: Runtime
  /** The queue's mode, where it is known, and how it takes items. */
  form(): { readonly mode: Mode | undefined; readonly codec: ItemCodec }
}

const NO_OPTIONS: PublishOptions = Object.freeze({})

const PUBLISH_OPTIONS: OptionNames<PublishOptions> = {
  id: true,
  delay: true,
  ttl: true,
  priority: true,
  key: true,
  headers: true,
  signal: true,
  timeout: true,
}

const PUBLISH_MANY_OPTIONS: OptionNames<Pick<PublishOptions, 'signal'>> = { signal: true }

/** Publishes for a client. */
export class Publisher {
  readonly #options: PublisherOptions

  constructor(options: PublisherOptions) {
    this.#options = options
  }

  /** See `Client.publish`. */
  publish(topic: Topic | string, payload: unknown, options: PublishOptions = NO_OPTIONS): Promise<Published> {
    return this.#publish(topic, payload, options, this.#options.whenFull)
  }

  #publish(
    topic: Topic | string,
    payload: unknown,
    options: PublishOptions,
    whenFull: 'wait' | 'refuse',
  ): Promise<Published> {
    try {
      if (options !== NO_OPTIONS) assertOptions(options, PUBLISH_OPTIONS, 'publish()')
      const defined = topicOf(topic)
      if (defined.input === undefined) return this.#enter(defined, payload, options, whenFull)
      const checked = validate(defined.input, payload, `The payload of '${defined.name}'`)
      // Nothing is awaited where the schema is synchronous and there is room: messages leave in the order of the calls.
      if (checked instanceof Promise) return checked.then(() => this.#enter(defined, payload, options, whenFull))
      return this.#enter(defined, payload, options, whenFull)
    } catch (error) {
      return Promise.reject(XmqError.from(error))
    }
  }

  #enter(topic: Topic, payload: unknown, options: PublishOptions, whenFull: 'wait' | 'refuse'): Promise<Published> {
    const { queue, room, timeoutMs } = this.#options
    const { signal, timeout } = options
    // Each part by name, and no spread: that would cost as much as all else here.
    const head = {
      to: queue,
      id: idOf(options.id),
      headers: options.headers === undefined ? undefined : headersOf(options.headers),
      key: options.key,
      priority: options.priority,
      delayMs: options.delay === undefined ? undefined : parseDuration(options.delay, 'delay'),
      ttlMs: options.ttl === undefined ? undefined : parseDuration(options.ttl, 'ttl'),
    }
    const withinMs = timeout === undefined ? timeoutMs : parseDuration(timeout, 'timeout')
    const message = encodeMessage(topic, payload, head, this.#options.form())
    const entry = room.enter(message.bytes, { whenFull, signal })
    if (entry === undefined) return this.#hand(message, withinMs, signal)
    return entry.then(() => this.#hand(message, withinMs, signal))
  }

  #hand(message: OutgoingMessage, timeoutMs: number | undefined, signal: AbortSignal | undefined): Promise<Published> {
    const { room, runtime } = this.#options
    return new Promise((resolve, reject) => {
      runtime.publish(message, timeoutMs, signal, new PublishEnd(message, room, resolve, reject))
    })
  }

  /** See `Client.publishMany`. */
  async publishMany<Sent>(
    topic: Topic | string,
    items: Iterable<PublishItem<Sent>> | AsyncIterable<PublishItem<Sent>>,
    many: { readonly signal?: AbortSignal } = {},
  ): Promise<PublishOutcome[]> {
    assertOptions(many, PUBLISH_MANY_OPTIONS, 'publishMany()')
    const { signal } = many
    const outcomes: Promise<PublishOutcome>[] = []
    const { room } = this.#options
    const add = (item: PublishItem<Sent>): void => {
      if (typeof item !== 'object' || item === null) {
        const text = `An item of publishMany is ${String(item)}; give { payload }, with options beside it.`
        outcomes.push(Promise.resolve({ status: 'failed', id: undefined, error: new XmqError('bad-request', text) }))
        return
      }
      const { payload, ...rest } = item
      const options = signal === undefined ? rest : { ...rest, signal }
      outcomes.push(outcomeOf(this.#publish(topic, payload, options, 'wait'), item.id))
    }
    // Reads on when there is room: a long list is not encoded all at once.
    if (Symbol.iterator in items) {
      for (const item of items) {
        add(item)
        if (room.waiting > 0) await room.whenNobodyWaits()
      }
    } else {
      for await (const item of items) {
        add(item)
        if (room.waiting > 0) await room.whenNobodyWaits()
      }
    }
    return await Promise.all(outcomes)
  }
}

/** How a publish ends. One small object for each that is pending: there may be ten thousand of them. */
class PublishEnd implements CallEnd {
  readonly #message: OutgoingMessage
  readonly #room: Room
  readonly #resolve: (published: Published) => void
  readonly #reject: (error: XmqError) => void

  constructor(
    message: OutgoingMessage,
    room: Room,
    resolve: (published: Published) => void,
    reject: (error: XmqError) => void,
  ) {
    this.#message = message
    this.#room = room
    this.#resolve = resolve
    this.#reject = reject
  }

  resolve({ confirm }: CallOutcome): void {
    const { id, bytes } = this.#message
    this.#room.leave(bytes)
    this.#resolve({
      id,
      seq: confirm?.seq,
      durability: confirm?.durability,
      duplicate: confirm?.duplicate ?? false,
      subscriptions: confirm?.subscriptions,
    })
  }

  reject(error: XmqError): void {
    this.#room.leave(this.#message.bytes)
    this.#reject(error)
  }
}

async function outcomeOf(publish: Promise<Published>, id: string | undefined): Promise<PublishOutcome> {
  try {
    return { status: 'published', published: await publish }
  } catch (error) {
    return { status: 'failed', id, error: XmqError.from(error) }
  }
}

function idOf(id: string | undefined): string {
  if (id === undefined) return createMessageId()
  if (id !== '' && id.length <= ID_BYTES_MAX) return id
  throw new XmqError('bad-request', `id has ${id.length} characters; expected 1 to ${ID_BYTES_MAX}.`)
}

/** Headers as the wire has them. */
export function headersOf(headers: Readonly<Record<string, string>>): Headers {
  return new Map(Object.entries(headers).map(([name, value]) => [name, value]))
}
