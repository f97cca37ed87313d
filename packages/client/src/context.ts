/** What handlers and middleware get to know about what they handle, and how they are put together. */
import type { Payload } from '@xmq/protocol'

/** About one message or request. */
export interface HandlerContext {
  readonly topic: string
  /** A message wants work, a request an answer. */
  readonly kind: 'message' | 'request'
  /** The producer's id of a message; the hop's id of a request, unique to it. `''` when there was none. */
  readonly id: string
  /** The producer's full JID, authenticated by its server; `undefined` where the queue does not tell it. */
  readonly from: string | undefined
  /**
   * Which delivery of the message this is, from 1, whatever became of the earlier ones: a worker that died, a released message and
   * a restart of the broker count, too. Always 1 of a request, and on plain queues.
   */
  readonly attempt: number
  /**
   * How often the message has failed: below the queue's `maxAttempts`, which makes it a dead letter. For a pause that grows:
   * `throw new RetryAfter(1000 * 2 ** ctx.failures)`. Always 0 of a request, and on plain queues.
   */
  readonly failures: number
  /** The queue's number of a message, the same at each delivery; `undefined` of a request, and on plain queues. */
  readonly seq: number | undefined
  /** When the message was published; `undefined` of a request, and on plain queues. */
  readonly at: Date | undefined
  /** What the producer sent beside the payload, by name. */
  readonly headers: ReadonlyMap<string, string>
  /**
   * Aborted when the message's lease is lost, so that another worker may have it, when a requester waits no more, or when the
   * worker stops and its grace time is over: give up soon, by throwing.
   */
  readonly signal: AbortSignal
  /**
   * Tells whoever asked how far it is: a JSON value of up to 15 KiB, up to 10,000 times, handed to the requester's `onProgress`.
   * Does nothing for a message, for a requester that wants no news, through a plain queue, and when the request is over.
   *
   * @throws XmqError `bad-request` where the value has no JSON form, `too-large`
   */
  progress(value: unknown): void
  /** The payload as it came, before the topic's encoding and schema. */
  readonly raw: Payload
}

/** Handles a payload; what it returns answers a request. A throw answers it with `handler-failed`. */
export type Handler<Received, Answered> = (payload: Received, context: HandlerContext) => Answered | Promise<Answered>

/**
 * Runs around every handler, in the order of `use()`; payload checks happen inside `next()`.
 * @returns what answers a request: usually what `next()` returned
 */
export type Middleware = (context: HandlerContext, next: () => Promise<unknown>) => unknown

/** Middleware around a handler, as one function. Each `next` works once. */
export function composeMiddleware(
  middleware: readonly Middleware[],
  context: HandlerContext,
  handle: () => Promise<unknown>,
): Promise<unknown> {
  const run = async (index: number): Promise<unknown> => {
    const current = middleware[index]
    if (current === undefined) return await handle()
    let called = false
    return await current(context, () => {
      if (called) return Promise.reject(new Error('A middleware called next() twice.'))
      called = true
      return run(index + 1)
    })
  }
  return run(0)
}
