/**
 * What came from the queue, from its arrival to its answer. Owner: one worker.
 *
 *     arrived --room--> waiting --a handler is free--> running --> completed | failed
 *             --no room--> failed (`overloaded`)
 *
 * Invariants:
 * 1. At most `concurrency` handlers run. At most `bufferMax` deliveries wait, with at most 64 MiB; requests up to ten times
 *    the capacity.
 * 2. Every request that came is answered once: result, or a failure that never makes the queue ask the next worker.
 * 3. Every delivery ends in one `completed` or `failed`.
 * 4. Once `abort` was called no handler begins, and those that run have heard of it through their signals.
 */
import { type XmlElement, XmqError } from '@xmq/protocol'
import PQueue from 'p-queue'
import { composeMiddleware, type Handler, type HandlerContext, type Middleware } from './context.ts'
import type { Emitter } from './events.ts'
import { decodePayload, validate } from './payload.ts'
import { answerStanza, asFailure, failureStanza, sizeOf } from './reply.ts'
import { abortError, monotonicNow } from './runtime.ts'
import type { Delivery } from './session/index.ts'
import type { Topic } from './topic.ts'
import type { WorkerEvents } from './worker-events.ts'

/** A topic and who handles it. */
export interface Route {
  readonly topic: Topic
  readonly handler: Handler<unknown, unknown>
}

/** How much may run and wait. */
export interface DeliveryLimits {
  readonly concurrency: number
  /** concurrency + prefetch */
  readonly capacity: number
  readonly bufferMax: number
}

/** What deliveries need from their worker. */
export interface DeliveryPorts {
  answer(delivery: Delivery, stanza: XmlElement): void
  /** Something began to wait, to run, or ended. */
  onChange(): void
}

const BUFFER_BYTES_MAX = 64 * 1024 * 1024

/** Runs the handlers of one worker. */
export class Deliveries {
  readonly #limits: DeliveryLimits
  readonly #ports: DeliveryPorts
  readonly #emitter: Emitter<WorkerEvents>
  readonly #queue: PQueue
  readonly #aborted = new AbortController()
  readonly routes: Map<string, Route> = new Map()
  readonly middleware: Middleware[] = []
  #waitingBytes = 0

  constructor(limits: DeliveryLimits, emitter: Emitter<WorkerEvents>, ports: DeliveryPorts) {
    this.#limits = limits
    this.#emitter = emitter
    this.#ports = ports
    this.#queue = new PQueue({ concurrency: limits.concurrency })
  }

  get running(): number {
    return this.#queue.pending
  }

  get waiting(): number {
    return this.#queue.size
  }

  /** Resolves when nothing runs and nothing waits. */
  whenIdle(): Promise<void> {
    return this.#queue.onIdle()
  }

  /** Tells every handler to give up; what waits fails without having begun. */
  abort(reason: XmqError): void {
    this.#aborted.abort(reason)
  }

  add(delivery: Delivery): void {
    const bytes = sizeOf(delivery.payload)
    const { bufferMax, capacity } = this.#limits
    const room = delivery.kind === 'request' ? Math.min(bufferMax, capacity * 10) : bufferMax
    if (this.#queue.size >= room || this.#waitingBytes + bytes > BUFFER_BYTES_MAX) {
      const text = `The worker is full: ${this.#queue.size} deliveries wait already.`
      this.#failed(delivery, new XmqError('overloaded', text, { retryAfterSeconds: 1 }))
      return
    }
    this.#waitingBytes += bytes
    void this.#queue.add(async () => {
      this.#waitingBytes -= bytes
      await this.#process(delivery)
      this.#ports.onChange()
    })
    this.#ports.onChange()
  }

  /** Never rejects. */
  async #process(delivery: Delivery): Promise<void> {
    const route = this.routes.get(delivery.topic)
    const { topic, id, kind, from } = delivery
    if (route === undefined) {
      this.#failed(delivery, new XmqError('not-found', `This worker does not handle '${topic}'.`))
      return
    }
    const stop = this.#aborted.signal
    const abort = new AbortController()
    const onStop = (): void => abort.abort(stop.reason)
    stop.addEventListener('abort', onStop, { once: true })
    const context: HandlerContext = { topic, kind, id, from, signal: abort.signal, raw: delivery.payload }
    const startedAt = monotonicNow()
    try {
      if (stop.aborted) throw abortError(stop)
      this.#emitter.emit('started', { topic, id, kind, from })
      const answer = await composeMiddleware(this.middleware, context, () => handlePayload(route, delivery, context))
      if (kind === 'request') this.#ports.answer(delivery, await answerStanza(route.topic, delivery, answer))
      this.#emitter.emit('completed', { topic, id, kind, from, elapsedMs: monotonicNow() - startedAt })
    } catch (error) {
      this.#failed(delivery, asFailure(error))
    } finally {
      stop.removeEventListener('abort', onStop)
    }
  }

  #failed(delivery: Delivery, error: XmqError): void {
    const { topic, id, kind, from } = delivery
    if (kind === 'request') this.#ports.answer(delivery, failureStanza(delivery, error))
    if (this.#emitter.has('failed')) this.#emitter.emit('failed', { topic, id, kind, from, error })
    else console.error(`xmq worker: ${kind} ${id} to '${topic}' failed: ${error.code}: ${error.message}`)
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
