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
import { type XmlElement, XmqError } from '@xmq/protocol'
import { abortError } from './abort-error.ts'
import type { EndpointConfig } from './options.ts'
import type { WritableStanza } from './payload.ts'
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
  onLeaseLost?(seq: number, error: XmqError): void
  onEvent(event: SessionEvent): void
}

/** How a call ended well: a request's answer, or a publish's confirm where the queue gives one. */
export interface CallOutcome {
  readonly answer: XmlElement | undefined
  readonly confirm?: Confirm
}

interface OpenCall {
  resolve(outcome: CallOutcome): void
  reject(error: XmqError): void
}

const entropy: Entropy = {
  id: randomId,
  unit: () => Math.random(),
}

/** Milliseconds that never run backwards. */
export function monotonicNow(): number {
  return performance.now()
}

/** A random id for stanzas, which nobody guesses: 122 bits or more. */
export function randomId(): string {
  // Browsers hide randomUUID from pages that did not come over https.
  const source: Pick<Crypto, 'getRandomValues'> & Partial<Crypto> = globalThis.crypto
  return source.randomUUID?.() ?? toHex(source.getRandomValues(new Uint8Array(16)))
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** A session with its transport, clock and promises. */
export class Runtime {
  readonly #config: EndpointConfig
  readonly #handlers: RuntimeHandlers
  readonly #session: Session
  readonly #calls = new Map<number, OpenCall>()
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

  /** Settlements that the queue has not answered. */
  get unsettled(): number {
    return this.#session.unsettled
  }

  /** Publishes. @returns the confirm, where the queue gives one */
  async publish(
    message: OutgoingMessage,
    timeoutMs: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Confirm | undefined> {
    const { confirm } = await this.#call((ref) => ({ type: 'publish', ref, message, timeoutMs }), signal)
    return confirm
  }

  /** Requests. @returns the answer, an IQ result */
  async request(
    topic: string,
    { stanza, bytes, call }: WritableStanza,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<XmlElement> {
    const { answer } = await this.#call(
      (ref) => ({ type: 'request', ref, topic, bytes, stanza, call, timeoutMs }),
      signal,
    )
    if (answer === undefined) throw new XmqError('internal', 'A request was settled without an answer.')
    return answer
  }

  /** The promise settles with the session's verdict. */
  #call(inputOf: (ref: number) => Input, signal: AbortSignal | undefined): Promise<CallOutcome> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(abortError(signal))
        return
      }
      const ref = this.#nextRef++
      const onAbort = (): void => {
        if (signal !== undefined) this.dispatch({ type: 'cancel', ref, error: abortError(signal) })
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      const end = (): void => {
        this.#calls.delete(ref)
        signal?.removeEventListener('abort', onAbort)
      }
      this.#calls.set(ref, {
        resolve: (outcome) => {
          end()
          resolve(outcome)
        },
        reject: (error) => {
          end()
          reject(error)
        },
      })
      this.dispatch(inputOf(ref))
    })
  }

  /** Hands an input to the session and carries its effects out. */
  dispatch(input: Input): void {
    this.#inputs.push(input)
    if (this.#handling) return
    this.#handling = true
    try {
      while (this.#inputs.length > 0) {
        const inputs = this.#inputs
        this.#inputs = []
        for (const next of inputs) {
          for (const effect of this.#session.handle(next, monotonicNow(), entropy)) this.#carryOut(effect)
        }
      }
    } finally {
      this.#handling = false
    }
    this.#setTimer()
  }

  /** Ends everything. Idempotent. */
  close(error?: XmqError): Promise<void> {
    this.dispatch({ type: 'close', error })
    return this.#closing ?? Promise.resolve()
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case 'open':
        return this.#open()
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
        return this.#calls.get(effect.ref)?.resolve(effect)
      case 'turn':
        return queueMicrotask(() => this.dispatch({ type: 'turn' }))
      case 'failed':
        return this.#calls.get(effect.ref)?.reject(effect.error)
      case 'deliver':
        return this.#handlers.onDelivery(effect.delivery)
      case 'lease-lost':
        return this.#handlers.onLeaseLost?.(effect.seq, effect.error)
      case 'event':
        return this.#handlers.onEvent(effect.event)
    }
  }

  #open(): void {
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
