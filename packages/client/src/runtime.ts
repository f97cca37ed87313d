/**
 * Joins session, transport, clock and randomness: the only file that does. Owner: a client or a worker, one runtime each.
 *
 *     caller --Input--> session --Effect--> transport, promises, listeners
 *
 * Invariants:
 * 1. Inputs are handled one after the other, in order; what a listener does in the middle of one comes after it.
 * 2. Every promise of a call settles: with the session's verdict, or with `aborted` when its signal fires.
 * 3. At most one transport is alive; what an old one still says is not heard.
 */
import { type ItemCodec, type Payload, type XmlElement, XmqError, YoungMap } from '@xmq/protocol'
import { abortError } from './abort-error.ts'
import { onAbort } from './abort-listeners.ts'
import type { EndpointConfig } from './options.ts'
import type { WritableStanza } from './payload.ts'
import { randomId } from './random-id.ts'
import {
  type Confirm,
  type ConnectionStatus,
  createSession,
  type Delivery,
  type Effect,
  type Entropy,
  type Input,
  type OutgoingMessage,
  type Session,
  type SessionEvent,
} from './session/index.ts'
import { openTransport, type Transport } from './transport.ts'

/** What a runtime passes on. */
export interface RuntimeHandlers {
  onDelivery(delivery: Delivery): void
  /** A leased message belongs to somebody else now: its handler is to stop. */
  onLeaseLost?(lost: { readonly key: string; readonly seq: number; readonly error: XmqError }): void
  /** Nobody waits for the answer to a request, by its hop's id: its handler is to stop. */
  onCancelled?(cancelled: { readonly id: string; readonly error: XmqError }): void
  onEvent(event: SessionEvent): void
}

/** How a call ended well: a request's answer, or a publish's confirm where the queue gives one. */
export interface CallOutcome {
  readonly answer: XmlElement | undefined
  readonly confirm?: Confirm
}

/** Who is told how a call ended: one of both, once. */
export interface CallEnd {
  resolve(outcome: CallOutcome): void
  reject(error: XmqError): void
  /** News of a request, before its end. */
  readonly progress?: ((payload: Payload) => void) | undefined
}

const entropy: Entropy = {
  id: randomId,
  unit: () => Math.random(),
}

/** Milliseconds that never run backwards. */
export function monotonicNow(): number {
  return performance.now()
}

/** A session with its transport, clock and promises. */
export class Runtime {
  readonly #config: EndpointConfig
  readonly #handlers: RuntimeHandlers
  readonly #session: Session
  readonly #calls = new YoungMap<number, CallEnd>()
  /** Of the calls that have a signal: how to stop listening to it. */
  readonly #signals = new Map<number, () => void>()
  #nextRef = 1
  #inputs: Input[] = []
  #handling = false
  #transport: Transport | undefined
  #closing: Promise<void> | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #timerAt: number | undefined

  constructor(config: EndpointConfig, handlers: RuntimeHandlers) {
    this.#config = config
    this.#handlers = handlers
    this.#session = createSession(config.session)
  }

  get status(): ConnectionStatus {
    return this.#session.status
  }

  /** How items for the queue are best written. */
  get codec(): ItemCodec {
    return this.#session.codec
  }

  /** Settlements that the queue has not answered. */
  get unsettled(): number {
    return this.#session.unsettled
  }

  /** Publishes. `end` is told the confirm, where the queue gives one. */
  publish(
    message: OutgoingMessage,
    timeoutMs: number | undefined,
    signal: AbortSignal | undefined,
    end: CallEnd,
  ): void {
    const ref = this.#open(signal, end)
    if (ref !== undefined) this.dispatch({ type: 'publish', ref, message, timeoutMs })
  }

  /** Requests. @returns the answer, an IQ result */
  async request(
    topic: string,
    { stanza, bytes, call }: WritableStanza,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    progress?: (payload: Payload) => void,
  ): Promise<XmlElement> {
    const { answer } = await new Promise<CallOutcome>((resolve, reject) => {
      const ref = this.#open(signal, { resolve, reject, progress })
      if (ref !== undefined) this.dispatch({ type: 'request', ref, topic, bytes, stanza, call, timeoutMs })
    })
    if (answer === undefined) throw new XmqError('internal', 'A request was settled without an answer.')
    return answer
  }

  /** Takes a call on, unless its signal has fired. `end` is told the session's verdict. */
  #open(signal: AbortSignal | undefined, end: CallEnd): number | undefined {
    if (signal?.aborted === true) {
      end.reject(abortError(signal))
      return undefined
    }
    const ref = this.#nextRef++
    this.#calls.set(ref, end)
    if (signal !== undefined) {
      const cancel = (): void => this.dispatch({ type: 'cancel', ref, error: abortError(signal) })
      this.#signals.set(ref, onAbort(signal, cancel))
    }
    return ref
  }

  /** Forgets a call: whoever is told its end. */
  #over(ref: number): CallEnd | undefined {
    const end = this.#calls.get(ref)
    this.#calls.delete(ref)
    if (this.#signals.size > 0) {
      this.#signals.get(ref)?.()
      this.#signals.delete(ref)
    }
    return end
  }

  /** Hands an input to the session and carries its effects out. */
  dispatch(input: Input): void {
    if (this.#handling) {
      this.#inputs.push(input)
      return
    }
    this.#handling = true
    try {
      this.#handle(input)
      while (this.#inputs.length > 0) {
        const inputs = this.#inputs
        this.#inputs = []
        for (const next of inputs) this.#handle(next)
      }
    } finally {
      this.#handling = false
    }
    this.#setTimer()
  }

  #handle(input: Input): void {
    for (const effect of this.#session.handle(input, monotonicNow(), entropy)) this.#carryOut(effect)
  }

  /** Ends everything. Idempotent. */
  close(error?: XmqError): Promise<void> {
    this.dispatch({ type: 'close', error })
    return this.#closing ?? Promise.resolve()
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case 'open':
        return this.#connect()
      case 'drop':
        this.#transport?.destroy()
        this.#transport = undefined
        return
      case 'close':
        this.#closing = this.#transport?.close()
        this.#transport = undefined
        return
      case 'send':
        return this.#send(effect.stanza, effect.ref)
      case 'settled':
        return this.#over(effect.ref)?.resolve(effect)
      case 'turn':
        return queueMicrotask(() => this.dispatch({ type: 'turn' }))
      case 'failed':
        return this.#over(effect.ref)?.reject(effect.error)
      case 'deliver':
        return this.#handlers.onDelivery(effect.delivery)
      case 'progress':
        return this.#calls.get(effect.ref)?.progress?.(effect.payload)
      case 'cancelled':
        return this.#handlers.onCancelled?.(effect)
      case 'lease-lost':
        return this.#handlers.onLeaseLost?.(effect)
      case 'event':
        return this.#handlers.onEvent(effect.event)
    }
  }

  #connect(): void {
    let transport: Transport | undefined
    const heard = (input: Input): void => {
      if (transport !== undefined && transport === this.#transport) this.dispatch(input)
    }
    const options = { ...this.#config.transport, resource: `xmq-${entropy.id()}` }
    transport = openTransport(options, {
      onUp: (jid) => heard({ type: 'up', jid }),
      onStanza: (stanza) => heard({ type: 'stanza', stanza }),
      onSkipped: (head, error) => heard({ type: 'skipped', head, error }),
      onDown: (reason, fatal) => heard({ type: 'down', reason, fatal }),
    })
    this.#transport = transport
  }

  #send(stanza: XmlElement, ref: number | undefined): void {
    if (ref === undefined) {
      this.#transport?.send(stanza)
      return
    }
    const done = (error: XmqError | undefined): void => this.dispatch({ type: 'written', ref, error })
    if (this.#transport === undefined) done(new XmqError('connection-lost', 'The connection is down.'))
    else this.#transport.send(stanza, done)
  }

  #setTimer(): void {
    const deadline = this.#session.deadline
    if (deadline === this.#timerAt) return
    // An earlier timer stays: firing for nothing is cheaper than setting one anew for each stanza.
    if (deadline !== undefined && this.#timerAt !== undefined && this.#timerAt <= deadline) return
    clearTimeout(this.#timer)
    this.#timerAt = deadline
    if (deadline === undefined) return
    const delay = Math.min(Math.max(0, Math.ceil(deadline - monotonicNow())), 2 ** 31 - 1)
    this.#timer = setTimeout(() => {
      this.#timerAt = undefined
      this.dispatch({ type: 'tick' })
    }, delay)
  }
}
