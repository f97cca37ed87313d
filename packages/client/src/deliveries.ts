/**
 * What came from the queue, from its arrival to its answer. Owner: one worker.
 *
 *     arrived --room--> waiting --a handler is free--> running --> completed | failed
 *             --no room--> failed (`overloaded`)    waiting --the worker stops--> released    (leased messages)
 *
 * Invariants:
 * 1. At most `concurrency` handlers run. At most `bufferMax` deliveries wait, with at most 64 MiB; requests up to ten times
 *    the capacity.
 * 2. Every other request that came is answered once: result, or a failure that never makes the queue ask the next worker.
 * 3. Every delivery ends in one `completed`, `failed`, `released` or `cancelled`; every leased message in one settlement.
 * 4. A handler whose lease is lost, or whose requester waits no more, has heard of it through its signal; one that has not begun
 *    does not begin, and such a request is not answered.
 * 5. Once `abort` was called no handler begins, and those that run have heard of it through their signals.
 */
import { matchesPattern, PROGRESS_MAX, type XmlElement, XmqError, YoungMap, YoungSet } from '@xmq/protocol'
import PQueue from 'p-queue'
import { abortError } from './abort-error.ts'
import { composeMiddleware, type Handler, type HandlerContext, type Middleware } from './context.ts'
import type { Emitter } from './events.ts'
import { decodePayload, encodeProgressValue, validate } from './payload.ts'
import { answerStanza, asFailure, failureStanza, sizeOf } from './reply.ts'
import { monotonicNow } from './runtime.ts'
import type { Delivery, Outcome } from './session/index.ts'
import type { Topic } from './topic.ts'
import { outcomeOfFailure } from './verdict.ts'
import type { DeliveryEvent, WorkerEvents } from './worker-events.ts'

/** A topic, or a pattern of topics, and who handles it. */
export interface Route {
  readonly topic: Topic
  /** Of a durable subscription. */
  readonly name: string | undefined
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
  /** The n-th news of a request. */
  progress(delivery: Delivery, n: number, payload: XmlElement): void
  /** A leased message is done with. */
  settle(key: string, outcome: Outcome): void
  /** Something began to wait, to run, or ended. */
  onChange(): void
}

/** A delivery that waits or runs. */
class Work {
  readonly delivery: Delivery
  readonly bytes: number
  state: 'waiting' | 'running' | 'over' = 'waiting'
  /** Its lease is lost, or nobody waits for its answer. */
  isLost = false
  /** News that it has told. */
  told = 0
  #abort: AbortController | undefined
  #reason: XmqError | undefined

  constructor(delivery: Delivery, bytes: number) {
    this.delivery = delivery
    this.bytes = bytes
  }

  /** Made when a handler first looks at it: few do, and it costs as much as all else about a short job. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#reason !== undefined) this.#abort.abort(this.#reason)
    }
    return this.#abort.signal
  }

  abort(reason: XmqError): void {
    this.#reason ??= reason
    this.#abort?.abort(reason)
  }
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
  /** Leased messages that wait or run, by key. */
  readonly #leased = new YoungMap<string, Work>()
  /** Requests that wait or run, by their hop's id. */
  readonly #requests = new YoungMap<string, Work>()
  /** Whose handler runs. One listener for all of them: Node warns of a leak at the eleventh on one signal. */
  readonly #running = new YoungSet<Work>()
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
    for (const work of this.#running) work.abort(reason)
  }

  add(delivery: Delivery): void {
    const bytes = sizeOf(delivery.payload)
    const { bufferMax, capacity } = this.#limits
    const work = new Work(delivery, bytes)
    const room = delivery.kind === 'request' ? Math.min(bufferMax, capacity * 10) : bufferMax
    if (this.waiting >= room || this.#waitingBytes + bytes > BUFFER_BYTES_MAX) {
      const text = `The worker is full: ${this.waiting} deliveries wait already.`
      this.#failed(work, new XmqError('overloaded', text, { retryAfterSeconds: 1 }), true)
      return
    }
    this.#waitingBytes += bytes
    if (delivery.lease !== undefined) this.#leased.set(delivery.lease.key, work)
    if (delivery.kind === 'request') this.#requests.set(delivery.id, work)
    void this.#queue.add(() => this.#process(work))
    this.#ports.onChange()
  }

  /** The lease of a message is lost: its handler is to stop, or never begins. */
  leaseLost(key: string, error: XmqError): void {
    const work = this.#leased.get(key)
    if (work === undefined) return
    work.isLost = true
    work.abort(error)
  }

  /** Nobody waits for the answer to a request: its handler is to stop, or never begins, and nothing is answered. */
  cancelled(id: string, error: XmqError): void {
    const work = this.#requests.get(id)
    if (work === undefined) return
    work.isLost = true
    work.abort(error)
  }

  /** Gives back the leased messages whose handlers have not begun. */
  releaseWaiting(): void {
    for (const work of this.#leased.values()) if (work.state === 'waiting') this.#release(work)
  }

  #release(work: Work): void {
    this.#settle(work, { kind: 'release' })
    this.#emitter.emit(work.delivery.kind === 'request' ? 'cancelled' : 'released', eventOf(work.delivery))
  }

  #settle(work: Work, outcome: Outcome): void {
    work.state = 'over'
    const { lease, id } = work.delivery
    if (this.#requests.get(id) === work) this.#requests.delete(id)
    if (lease === undefined) return
    this.#leased.delete(lease.key)
    this.#ports.settle(lease.key, outcome)
  }

  /** The exact topic's route before a pattern's; of patterns the first that was handed in. */
  #routeOf(topic: string): Route | undefined {
    const exact = this.routes.get(topic)
    if (exact !== undefined) return exact
    for (const [pattern, route] of this.routes) if (matchesPattern(pattern, topic)) return route
    return undefined
  }

  /** A handler is free. Never rejects. */
  #process(work: Work): Promise<void> {
    this.#waitingBytes -= work.bytes
    const route = this.#routeOf(work.delivery.topic)
    if (work.state !== 'over' && !work.isLost && route !== undefined) return this.#run(work, route)
    if (work.state !== 'over' && work.isLost) this.#release(work)
    else if (work.state !== 'over') {
      this.#failed(work, new XmqError('not-found', `This worker does not handle '${work.delivery.topic}'.`), true)
    }
    this.#ports.onChange()
    return Promise.resolve()
  }

  /** One function, and no more promises than it takes: they are most of what a short job costs. Never rejects. */
  async #run(work: Work, route: Route): Promise<void> {
    work.state = 'running'
    const { delivery } = work
    const stop = this.#aborted.signal
    this.#running.add(work)
    const context = new WorkContext(work, (value) => this.#progress(work, value))
    const startedAt = monotonicNow()
    try {
      if (stop.aborted) throw abortError(stop)
      if (this.#emitter.has('started')) this.#emitter.emit('started', eventOf(delivery))
      let answer: unknown
      if (this.middleware.length > 0) {
        answer = await composeMiddleware(this.middleware, context, () => handlePayload(route, delivery, context))
      } else {
        const checked = payloadOf(route, delivery)
        const { value } = checked instanceof Promise ? await checked : checked
        try {
          answer = await route.handler(value, context)
        } catch (error) {
          throw handlerFailed(error)
        }
      }
      if (delivery.kind === 'request') this.#answer(work, await answerStanza(route.topic, delivery, answer))
      this.#settle(work, { kind: 'ack' })
      if (isCancelled(work)) this.#emitter.emit('cancelled', eventOf(delivery))
      else if (this.#emitter.has('completed')) {
        this.#emitter.emit('completed', { ...eventOf(delivery), elapsedMs: monotonicNow() - startedAt })
      }
    } catch (error) {
      this.#failed(work, asFailure(error), stop.aborted || work.isLost)
    } finally {
      this.#running.delete(work)
      this.#ports.onChange()
    }
  }

  #answer({ delivery, isLost }: Work, stanza: XmlElement): void {
    if (!isLost) this.#ports.answer(delivery, stanza)
  }

  #progress(work: Work, value: unknown): void {
    const { delivery, state, isLost } = work
    if (!delivery.wantsProgress || state !== 'running' || isLost || work.told >= PROGRESS_MAX) return
    this.#ports.progress(delivery, ++work.told, encodeProgressValue(value, delivery.topic))
  }

  /** @param isReleased whether it failed because it was told to stop */
  #failed(work: Work, error: XmqError, isReleased: boolean): void {
    const { delivery } = work
    if (delivery.kind === 'request') this.#answer(work, failureStanza(delivery, error))
    this.#settle(work, outcomeOfFailure(error, isReleased))
    if (isCancelled(work)) this.#emitter.emit('cancelled', eventOf(delivery))
    else this.#tellFailed(delivery, error)
  }

  #tellFailed(delivery: Delivery, error: XmqError): void {
    const { kind, id, topic } = delivery
    if (this.#emitter.has('failed')) this.#emitter.emit('failed', { ...eventOf(delivery), error })
    else console.error(`xmq worker: ${kind} ${id} to '${topic}' failed: ${error.code}: ${error.message}`)
  }
}

/** A request that nobody waits for any more. */
function isCancelled({ delivery, isLost }: Work): boolean {
  return isLost && delivery.kind === 'request'
}

function eventOf({ topic, id, kind, from, lease }: Delivery): DeliveryEvent {
  return { topic, id, kind, from, seq: lease?.seq, attempt: lease?.attempt ?? 1 }
}

/** What a handler gets to see of its work. */
class WorkContext implements HandlerContext {
  declare readonly signal: AbortSignal
  readonly topic: string
  readonly kind: HandlerContext['kind']
  readonly id: string
  readonly from: string | undefined
  readonly headers: ReadonlyMap<string, string>
  readonly attempt: number
  readonly failures: number
  readonly seq: number | undefined
  readonly at: Date | undefined
  readonly progress: (value: unknown) => void
  readonly raw: HandlerContext['raw']
  readonly #work: Work

  constructor(work: Work, progress: (value: unknown) => void) {
    const { topic, kind, id, from, lease, headers, payload } = work.delivery
    this.topic = topic
    this.kind = kind
    this.id = id
    this.from = from
    this.headers = headers
    this.attempt = lease?.attempt ?? 1
    this.failures = lease?.failures ?? 0
    this.seq = lease?.seq
    this.at = lease === undefined ? undefined : new Date(lease.at)
    this.progress = progress
    this.raw = payload
    this.#work = work
    Object.defineProperty(this, 'signal', WorkContext.#signal)
  }

  /** Each has it as its own, so that a copy has it, too. One getter for all: with one for each, every context would be of another shape. */
  static readonly #signal: PropertyDescriptor = {
    get(this: WorkContext) {
      return this.#work.signal
    },
    enumerable: true,
    configurable: true,
  }
}

function payloadOf(route: Route, delivery: Delivery): { value: unknown } | Promise<{ value: unknown }> {
  const value = decodePayload(route.topic, delivery.payload, 'payload')
  if (route.topic.input === undefined) return { value }
  return validate(route.topic.input, value, `The payload of '${route.topic.name}'`)
}

async function handlePayload(route: Route, delivery: Delivery, context: HandlerContext): Promise<unknown> {
  const { value } = await payloadOf(route, delivery)
  try {
    return await route.handler(value, context)
  } catch (error) {
    throw handlerFailed(error)
  }
}

/** Also of an XmqError of the handler's own calls: its code says nothing about this delivery. */
function handlerFailed(error: unknown): XmqError {
  return new XmqError('handler-failed', XmqError.from(error).message, { cause: error })
}
