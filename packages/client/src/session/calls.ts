/**
 * Requests of the application, and publishes to a queue that is plain, or not known yet. Owner: one session.
 *
 *     publish   waiting --ready--> writing --written--> settled
 *               waiting --the queue is reliable--> the outbox's
 *     request   waiting --ready--> open --answer--> settled
 *               any --deadline, cancel, close--> failed;  writing, open --connection lost--> failed;
 *               open --the broker is another one--> failed
 *
 * Invariants:
 * 1. At most `pendingMax` are pending, with at most `pendingBytesMax` bytes: more is refused at once.
 * 2. Each `ref` ends in exactly one `settled` or `failed`.
 * 3. Nothing is written twice: what was handed to the socket is never repeated.
 * 4. Stanzas leave in the order of the calls.
 */
import {
  decodeError,
  decodeProgress,
  encodeCancel,
  findChild,
  payloadOf,
  NS_QUEUE,
  NS_TOPIC,
  withChildren,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { Effect, Input, Mode, OutgoingMessage, SessionRules } from './port.ts'
import type { Pulse } from './pulse.ts'
import { Recent } from './recent.ts'
import type { Timers } from './timers.ts'

interface CallParts {
  readonly ref: number
  readonly topic: string
  readonly bytes: number
  readonly id: string
  readonly timeoutMs: number
}

interface PublishCall extends CallParts {
  readonly kind: 'publish'
  readonly message: OutgoingMessage
  /** As the caller gave it. */
  readonly askedTimeoutMs: number | undefined
  readonly calledAt: number
  phase: 'waiting' | 'writing'
}

interface RequestCall extends CallParts {
  readonly kind: 'request'
  readonly stanza: XmlElement
  /** Of one that goes to a worker, not to the queue itself. */
  readonly call: XmlElement | undefined
  phase: 'waiting' | 'open'
  /** Of an open one: its place among all that was asked (pulse.ts). */
  number: number
  /** The number of the last news. */
  progressAt: number
}

type Call = PublishCall | RequestCall

/** A publish that waited for its queue, for the outbox. */
export type WaitingPublish = Pick<PublishCall, 'ref' | 'message' | 'calledAt'> & {
  readonly timeoutMs: number | undefined
}

/** Tells a reliable queue something; nobody waits for the answer. */
export type Told = (child: XmlElement) => void

/** Published ids that a bounce may still name, or more. */
const RECENT_MIN = 4096

/** The publishes and requests that are pending. */
export class Calls {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  readonly #pulse: Pulse
  readonly #calls = new Map<number, Call>()
  readonly #waiting = new Set<Call>()
  readonly #openById = new Map<string, RequestCall>()
  /** Those that were written, in that order. */
  readonly #open = new Set<RequestCall>()
  readonly #recent = new Recent<string, string>(RECENT_MIN)
  #bytes = 0

  constructor(rules: SessionRules, timers: Timers<string | number>, pulse: Pulse) {
    this.#rules = rules
    this.#timers = timers
    this.#pulse = pulse
  }

  /** Takes a publish on; writes it at once when the mode is known. */
  publish(
    input: { ref: number; message: OutgoingMessage; timeoutMs: number | undefined },
    mode: Mode | undefined,
    now: number,
    out: Effect[],
  ): void {
    const { ref, message } = input
    const timeoutMs = input.timeoutMs ?? this.#rules.publishTimeoutMs
    const { id, topic } = message
    const parts = { ref, topic, bytes: message.bytes, id, timeoutMs }
    this.#add(
      { ...parts, kind: 'publish', message, askedTimeoutMs: input.timeoutMs, calledAt: now, phase: 'waiting' },
      mode,
      now,
      out,
    )
  }

  /** Takes a request on; writes it at once when the mode is known. */
  request(input: Input & { readonly type: 'request' }, mode: Mode | undefined, now: number, out: Effect[]): void {
    const { ref, topic, bytes, stanza, call, timeoutMs } = input
    const id = stanza.attrs.get('id') ?? ''
    if (this.#openById.has(id)) {
      const error = new XmqError('conflict', `A request with the id '${id}' is open already.`)
      out.push({ type: 'failed', ref, error })
      return
    }
    this.#add(
      { kind: 'request', ref, topic, bytes, id, stanza, call, timeoutMs, phase: 'waiting', number: 0, progressAt: 0 },
      mode,
      now,
      out,
    )
  }

  #add(call: Call, mode: Mode | undefined, now: number, out: Effect[]): void {
    const { ref, bytes } = call
    if (this.#calls.size >= this.#rules.pendingMax || this.#bytes + bytes > this.#rules.pendingBytesMax) {
      const error = new XmqError(
        'limit-reached',
        `${this.#calls.size} publishes and requests with ${this.#bytes} bytes are pending already; ` +
          'await them, or raise pendingMax.',
      )
      out.push({ type: 'failed', ref, error })
      return
    }
    this.#calls.set(ref, call)
    this.#bytes += bytes
    if (call.kind === 'request') this.#openById.set(call.id, call)
    this.#timers.set(ref, now + call.timeoutMs)
    if (mode === undefined) this.#waiting.add(call)
    else this.#write(call, mode, out)
  }

  /** Takes the publishes that wait, in order: their queue is reliable. */
  takePublishes(): WaitingPublish[] {
    const taken: WaitingPublish[] = []
    for (const call of this.#waiting) {
      if (call.kind !== 'publish') continue
      this.#remove(call)
      taken.push({ ref: call.ref, message: call.message, calledAt: call.calledAt, timeoutMs: call.askedTimeoutMs })
    }
    return taken
  }

  /** Writes what waited. */
  flush(mode: Mode, out: Effect[]): void {
    for (const call of this.#waiting) this.#write(call, mode, out)
    this.#waiting.clear()
  }

  #write(call: Call, mode: Mode, out: Effect[]): void {
    try {
      if (call.kind === 'request') {
        const stanza = requestStanza(call, mode)
        call.phase = 'open'
        call.number = this.#pulse.next()
        this.#open.add(call)
        out.push({ type: 'send', stanza })
        return
      }
      const stanza = call.message.stanza()
      call.phase = 'writing'
      this.#recent.set(call.id, call.topic)
      out.push({ type: 'send', stanza, ref: call.ref })
    } catch (error) {
      this.#remove(call)
      out.push({ type: 'failed', ref: call.ref, error: XmqError.from(error) })
    }
  }

  /** The socket took a publish over, or failed. */
  written(ref: number, error: XmqError | undefined, out: Effect[]): void {
    const call = this.#calls.get(ref)
    if (call === undefined || call.phase !== 'writing') return
    this.#remove(call)
    out.push(error === undefined ? { type: 'settled', ref, answer: undefined } : { type: 'failed', ref, error })
  }

  /** Whether an IQ id is that of an open request. */
  isOpen(id: string): boolean {
    return this.#openById.get(id)?.phase === 'open'
  }

  /** The answer to an open request, its sender checked already. */
  answered(id: string, iq: XmlElement, explain: (error: XmqError) => XmqError, out: Effect[]): void {
    const call = this.#openById.get(id)
    if (call === undefined || call.phase !== 'open') return
    this.#remove(call)
    if (iq.attrs.get('type') === 'result') out.push({ type: 'settled', ref: call.ref, answer: iq })
    else out.push({ type: 'failed', ref: call.ref, error: explain(decodeError(iq)) })
  }

  has(ref: number): boolean {
    return this.#calls.has(ref)
  }

  /** The topic that was published under an id lately. */
  topicOf(id: string): string | undefined {
    return this.#recent.get(id)
  }

  /** News of an open request, from the queue. */
  progress(progress: XmlElement, out: Effect[]): void {
    const { call: id, n, payload } = decodeProgress(progress)
    const call = this.#openById.get(id)
    if (call?.phase !== 'open' || n <= call.progressAt) return
    call.progressAt = n
    out.push({ type: 'progress', ref: call.ref, payload: payloadOf(payload) })
  }

  /** The caller gives up. @param told how a reliable queue is told, where it is */
  cancel(ref: number, error: XmqError, told: Told | undefined, out: Effect[]): void {
    const call = this.#calls.get(ref)
    if (call === undefined) return
    this.#giveUp(call, error, told, out)
  }

  #giveUp(call: Call, error: XmqError, told: Told | undefined, out: Effect[]): void {
    this.#remove(call)
    out.push({ type: 'failed', ref: call.ref, error })
    if (call.kind === 'request' && call.phase === 'open' && call.call !== undefined) told?.(encodeCancel(call.id))
  }

  /** A call's deadline has come. @param hindrance why nothing is written at the moment */
  expired(ref: number, hindrance: XmqError | undefined, told: Told | undefined, out: Effect[]): void {
    const call = this.#calls.get(ref)
    if (call === undefined) return
    this.#giveUp(call, expiryOf(call, hindrance), told, out)
  }

  /** The connection ended: what was handed to it fails, what waits goes on waiting. */
  connectionLost(reason: XmqError, out: Effect[]): void {
    for (const call of this.#calls.values()) {
      if (call.phase === 'waiting') continue
      this.#remove(call)
      const text =
        call.kind === 'request'
          ? `The connection ended before the request to '${call.topic}' was answered; whether it was handled is unknown`
          : `The connection ended while the message to '${call.topic}' was written; whether it arrived is unknown`
      out.push({
        type: 'failed',
        ref: call.ref,
        error: new XmqError('connection-lost', `${text}. ${reason.message}`, { cause: reason }),
      })
    }
  }

  /** The least number above `above` of a request that is open. */
  oldest(above: number): number | undefined {
    for (const { number } of this.#open) if (number > above) return number
    return undefined
  }

  /** The broker is another one: it knows nothing of the requests that were numbered below. */
  brokerLost(before: number, out: Effect[]): void {
    for (const call of this.#open) {
      if (call.number >= before) return
      this.#remove(call)
      const text = `The broker ended before the request to '${call.topic}' was answered; whether it was handled is unknown.`
      out.push({ type: 'failed', ref: call.ref, error: new XmqError('worker-gone', text) })
    }
  }

  /** Everything fails. */
  close(error: XmqError, told: Told | undefined, out: Effect[]): void {
    for (const call of this.#calls.values()) this.#giveUp(call, error, told, out)
  }

  #remove(call: Call): void {
    this.#calls.delete(call.ref)
    this.#waiting.delete(call)
    this.#bytes -= call.bytes
    this.#timers.delete(call.ref)
    if (call.kind !== 'request') return
    this.#openById.delete(call.id)
    this.#open.delete(call)
  }
}

/** @throws XmqError `unsupported` when it has headers and the queue is plain */
function requestStanza({ stanza, call, topic }: RequestCall, mode: Mode): XmlElement {
  if (call === undefined) return stanza
  if (mode === 'reliable') {
    const children = stanza.children.map((child) =>
      typeof child !== 'string' && child.ns === NS_TOPIC ? withChildren(child, [...child.children, call]) : child,
    )
    return withChildren(stanza, children)
  }
  if (findChild(call, 'headers', NS_QUEUE) === undefined) return stanza
  throw new XmqError('unsupported', `The request to '${topic}' has headers, which a plain queue does not carry.`)
}

function expiryOf(call: Call, hindrance: XmqError | undefined): XmqError {
  const what = call.kind === 'request' ? `The request to '${call.topic}'` : `The message to '${call.topic}'`
  if (call.phase === 'waiting' && hindrance !== undefined) {
    const text = `${what} was not sent within ${call.timeoutMs} ms. ${hindrance.message}`
    return new XmqError(hindrance.code, text, {
      cause: hindrance,
      condition: hindrance.condition,
      type: hindrance.type,
    })
  }
  if (call.phase === 'open') return new XmqError('timeout', `${what} was not answered within ${call.timeoutMs} ms.`)
  const text = `${what} was not written within ${call.timeoutMs} ms: the connection does not drain.`
  return new XmqError('timeout', text)
}
