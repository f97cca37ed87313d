/**
 * Owner of open requests: IQs on a topic, each of which gets exactly one answer. docs/protocol.md "Requests".
 *
 *     requester            queue                          worker
 *        | get id=1          |                              |
 *        |------------------>| get id=HOP (random)          |
 *        |                   |----------------------------->|
 *        |                   |                   result HOP |
 *        |       result id=1 |<-----------------------------|
 *        |<------------------|
 *
 *     open --- the worker answers ------------------------------> its result or error, whole
 *      | ^---- a server's bounce: the next worker, at most 3
 *      +------ nobody is left, or nobody was there --------------> no-recipients
 *      +------ the worker's session ended -----------------------> worker-gone
 *      +------ requestTimeoutMs are over, the broker stops ------> timeout
 *      +------ the requester cancels, or its session ended ------> timeout; a reliable worker is told
 *
 * While it is open, news of the worker asked go to a requester that wants them.
 *
 * In an `all` queue, too, one worker gets a request, in turn: an IQ has one answer (RFC 6120 8.2.3), and of several the
 * requester would see the fastest and the others would have worked for nothing.
 *
 * Invariants:
 * 1. `open` holds exactly the requests that a worker has, by the id that the worker knows. Each has a worker, and is in
 *    that session's `requests`, and has its timeout set.
 * 2. An answer counts only from the full JID asked, to the queue, under the hop's random id.
 * 3. A worker gets a request once. After a session's end or a timeout no other worker is tried: the work may be done.
 * 4. `openByBare` counts what `open` holds, by requester; `byRequester` has them, by full JID.
 * 5. Two requests with one id of one requester are two requests: ids are the requester's business. A cancel means both.
 * 6. News are bounded in number and size, ascend, and are never an answer: what no rule lets through is dropped.
 */
import {
  bareOf,
  childElements,
  decodeCancel,
  decodeError,
  decodeProgress,
  decodeTopic,
  element,
  encodeCancel,
  encodeProgress,
  errorTo,
  isElement,
  NS_CLIENT,
  NS_QUEUE,
  PROGRESS_BYTES_MAX,
  PROGRESS_MAX,
  resultTo,
  stanza,
  type StanzaErrorCondition,
  withAttrs,
  wireLength,
  withChildren,
  type XmlElement,
  type XmlNode,
  XmqError,
  type XmqErrorCode,
} from '@xmq/protocol'
import { exceedsContent } from './content-size.ts'
import type { Deadlines } from './deadlines.ts'
import type { Overload } from './overload.ts'
import type { CoreRules } from './port.ts'
import { type Consumer, OpenRequest, type Queue, type Session } from './records.ts'
import type { Sessions } from './sessions.ts'
import type { Step } from './step.ts'
import type { Streams } from './streams.ts'
import type { Subscriptions } from './subscriptions.ts'

/** So many workers are asked until one takes a request. */
const TRIES_MAX = 3
/** What a server answers for a worker that it could not reach: the request was not seen by anybody. */
const BOUNCES: ReadonlySet<StanzaErrorCondition> = new Set<StanzaErrorCondition>([
  'service-unavailable',
  'recipient-unavailable',
  'gone',
])

/** Ids of what a worker is told begin with this: nobody waits for its answer. */
const TOLD_PREFIX = 'cancel:'

/** What {@link Requests} needs. */
export interface RequestsOptions {
  readonly rules: CoreRules
  readonly deadlines: Deadlines
  readonly subscriptions: Subscriptions
  readonly sessions: Sessions
  readonly streams: Streams
  readonly overload: Overload
  /** Told when a consumer has more or fewer requests open. */
  readonly onRoom: (consumer: Consumer) => void
}

/** See the top of this file. */
export class Requests {
  readonly #rules: CoreRules
  readonly #deadlines: Deadlines
  readonly #subscriptions: Subscriptions
  readonly #sessions: Sessions
  readonly #streams: Streams
  readonly #overload: Overload
  readonly #onRoom: (consumer: Consumer) => void
  readonly #open: Map<string, OpenRequest> = new Map()
  /** How many of them each requester's bare JID has. */
  readonly #openByBare: Map<string, number> = new Map()
  readonly #byRequester: Map<string, Set<OpenRequest>> = new Map()

  constructor(options: RequestsOptions) {
    this.#rules = options.rules
    this.#deadlines = options.deadlines
    this.#subscriptions = options.subscriptions
    this.#sessions = options.sessions
    this.#streams = options.streams
    this.#overload = options.overload
    this.#onRoom = options.onRoom
  }

  /** How many requests are open. */
  get count(): number {
    return this.#open.size
  }

  /**
   * Takes a request and hands it to a worker.
   *
   * @param xmq the `<xmq xmlns='xmq:topic'/>` in it
   * @throws XmqError why it is refused
   */
  accept(step: Step, queue: Queue, iq: XmlElement, xmq: XmlElement): void {
    this.#overload.assertTaking()
    const topic = decodeTopic(xmq)
    const { payloadBytesMax, requestTimeoutMs } = queue.rules
    if (exceedsContent(iq, payloadBytesMax)) {
      throw new XmqError('too-large', `The request is larger than the ${payloadBytesMax} bytes that this queue takes.`)
    }
    const children = forwardedChildren(iq, xmq)
    const requester = bareOf(iq.attrs.get('from') ?? '')
    const own = this.#openByBare.get(requester) ?? 0
    if (own >= this.#rules.openRequestsPerJidMax) {
      throw new XmqError(
        'limit-reached',
        `${requester} has ${own} requests open; at most ${this.#rules.openRequestsPerJidMax} are allowed ` +
          '(limits.maxOpenRequestsPerJid). Wait for answers before asking more.',
      )
    }
    if (this.#open.size >= this.#rules.openRequestsMax) {
      throw new XmqError(
        'limit-reached',
        `${this.#open.size} requests are open in this broker; at most ${this.#rules.openRequestsMax} are allowed ` +
          '(limits.maxOpenRequests). Try again later.',
      )
    }
    const request = new OpenRequest(queue, topic, iq, children, step.now)
    if (!this.#dispatch(step, request)) {
      if (!this.#subscriptions.isBusy(queue, topic)) throw new XmqError('no-recipients', 'No recipients found')
      const text = `Every worker of ${topic} has all that it takes. Try again later.`
      throw new XmqError('overloaded', text, { retryAfterSeconds: 1 })
    }
    this.#openByBare.set(requester, own + 1)
    const from = iq.attrs.get('from') ?? ''
    const others = this.#byRequester.get(from)
    if (others === undefined) this.#byRequester.set(from, new Set([request]))
    else others.add(request)
    this.#deadlines.set(request.timeout, step.now + requestTimeoutMs)
  }

  /** News of a worker, relayed to whoever asked and wants them. */
  relay(step: Step, queue: Queue, message: XmlElement, progress: XmlElement): void {
    const drop = (why: string): void => step.ignore(queue.address, message, `news of a request ${why}`)
    const call = progress.attrs.get('call') ?? ''
    const request = this.#open.get(call)
    if (request?.queue !== queue || request.worker?.jid !== message.attrs.get('from')) {
      return drop('from somebody who does not have it')
    }
    if (!request.wantsProgress) return drop('that nobody wants')
    const { n, payload } = decodeProgress(progress)
    if (n <= request.progressAt) return drop('out of turn')
    if (request.progressCount >= PROGRESS_MAX) return drop('beyond their number')
    if (wireLength(progress) > PROGRESS_BYTES_MAX) return drop('that are too large')
    request.progressAt = n
    request.progressCount++
    const { attrs } = request.original
    const head = { type: 'headline', from: attrs.get('to'), to: attrs.get('from') }
    step.send(queue.domain, stanza('message', head, [encodeProgress({ call: attrs.get('id') ?? '', n, payload })]))
  }

  /**
   * A requester waits no more.
   * @throws XmqError `not-found` when it has no such request
   */
  cancel(step: Step, queue: Queue, iq: XmlElement, cancel: XmlElement): void {
    const { call } = decodeCancel(cancel)
    const own = [...(this.#byRequester.get(iq.attrs.get('from') ?? '') ?? [])]
    const meant = own.filter((request) => request.queue === queue && request.original.attrs.get('id') === call)
    if (meant.length === 0) throw new XmqError('not-found', 'No such request is open. It may be answered already.')
    step.send(queue.domain, resultTo(iq))
    for (const request of meant) this.#cancel(step, request, 'The requester cancelled the request.')
  }

  /** A session has ended that may have asked something itself. */
  requesterEnded(step: Step, jid: string): void {
    for (const request of this.#byRequester.get(jid) ?? []) {
      this.#cancel(step, request, "The requester's session ended.")
    }
  }

  #cancel(step: Step, request: OpenRequest, text: string): void {
    this.#tellWorker(step, request)
    this.#close(step, request, errorTo(request.original, new XmqError('timeout', text)), 'aborted')
  }

  /** Nobody waits for the answer of a worker any more. */
  #tellWorker(step: Step, { queue, worker, consumer, hopId }: OpenRequest): void {
    if (worker === undefined || consumer?.kind !== 'reliable') return
    const head = { type: 'set', id: `${TOLD_PREFIX}${hopId}`, from: queue.address, to: worker.jid }
    step.send(queue.domain, stanza('iq', head, [encodeCancel(hopId)]))
  }

  /** Takes a worker's answer, or a server's bounce; false when nobody waits for it. */
  handleAnswer(step: Step, iq: XmlElement): boolean {
    if (iq.attrs.get('id')?.startsWith(TOLD_PREFIX) === true) return true
    const request = this.#find(iq)
    if (request === undefined) return false
    if (iq.attrs.get('type') === 'error') {
      const { condition, fromBroker } = decodeError(iq)
      if (!fromBroker && BOUNCES.has(condition)) {
        this.#handleBounce(step, request, condition)
        return true
      }
    }
    const { payloadBytesMax } = request.queue.rules
    if (exceedsContent(iq, payloadBytesMax)) {
      this.#fail(step, request, 'too-large', `The answer is larger than the ${payloadBytesMax} bytes allowed here.`)
      return true
    }
    const type = iq.attrs.get('type') === 'error' ? 'error' : 'result'
    this.#close(step, request, answer(request.original, iq, type), type)
    return true
  }

  /** A worker's answer broke a limit of the reader, and only its head is known; false when nobody waits for it. */
  handleSkippedAnswer(step: Step, head: XmlElement, { code, message }: XmqError): boolean {
    const request = this.#find(head)
    if (request === undefined) return false
    this.#fail(step, request, code, `The worker's answer cannot be passed on: ${message}`)
    return true
  }

  /** A session has ended: whoever waits for it is told. */
  sessionEnded(step: Step, session: Session): void {
    const text = "The worker's session ended before it answered. Whether it did the work is unknown."
    for (const request of session.requests) this.#fail(step, request, 'worker-gone', text)
  }

  /** The broker stops: nobody is left waiting. */
  shutDown(step: Step): void {
    const text = 'The broker stopped before the worker answered. Whether it did the work is unknown.'
    for (const request of this.#open.values()) this.#fail(step, request, 'timeout', text)
  }

  /** A request's time is over. */
  timedOut(step: Step, request: OpenRequest): void {
    this.#tellWorker(step, request)
    const seconds = request.queue.rules.requestTimeoutMs / 1000
    this.#fail(
      step,
      request,
      'timeout',
      `The worker did not answer within ${seconds} s. Whether it did the work is unknown.`,
    )
  }

  /** The request that an answer is for: from the worker asked, to the queue, under the hop's id. */
  #find(iq: XmlElement): OpenRequest | undefined {
    const { attrs } = iq
    const request = this.#open.get(attrs.get('id') ?? '')
    if (request === undefined || request.worker?.jid !== attrs.get('from')) return undefined
    return bareOf(attrs.get('to') ?? '') === request.queue.address ? request : undefined
  }

  /** Hands a request to the next worker in turn; false when there is none. */
  #dispatch(step: Step, request: OpenRequest): boolean {
    const { queue, topic, tried } = request
    if (tried.size >= TRIES_MAX) return false
    const subscription = this.#subscriptions.take(queue, topic, tried)
    if (subscription === undefined) return false
    const worker = subscription.consumer.session
    tried.add(worker.jid)
    request.worker = worker
    request.consumer = subscription.consumer
    subscription.consumer.openRequests++
    this.#onRoom(subscription.consumer)
    request.hopId = step.entropy.id()
    request.progressAt = 0
    worker.requests.add(request)
    this.#open.set(request.hopId, request)
    step.send(queue.domain, forward(request, subscription.consumer))
    step.emit({ name: 'requested', queue: queue.address, topic, attempt: tried.size })
    return true
  }

  #handleBounce(step: Step, request: OpenRequest, condition: string): void {
    const worker = request.worker as Session
    const { queue } = request
    step.emit({ name: 'bounced', queue: queue.address, consumer: worker.jid, condition })
    this.#detach(request)
    // `service-unavailable` is also what a live client answers to an IQ that it does not know (RFC 6120 8.4): a ping decides.
    const consumer = worker.consumers.get(queue)
    if (consumer !== undefined && condition !== 'service-unavailable') {
      this.#subscriptions.endConsumer(step, consumer, 'bounced')
    }
    this.#sessions.doubt(step, worker.jid, queue.domain, 'bounce', queue)
    this.#sessions.release(worker)
    if (!this.#dispatch(step, request)) this.#fail(step, request, 'no-recipients', 'No recipients found')
  }

  #fail(step: Step, request: OpenRequest, code: XmqErrorCode, text: string): void {
    this.#close(step, request, errorTo(request.original, new XmqError(code, text)), code)
  }

  #close(step: Step, request: OpenRequest, answered: XmlElement, outcome: 'result' | 'error' | XmqErrorCode): void {
    const { queue, topic, worker, original } = request
    this.#detach(request)
    this.#deadlines.clear(request.timeout)
    const requester = bareOf(original.attrs.get('from') ?? '')
    const others = (this.#openByBare.get(requester) ?? 0) - 1
    if (others > 0) this.#openByBare.set(requester, others)
    else this.#openByBare.delete(requester)
    const from = original.attrs.get('from') ?? ''
    const own = this.#byRequester.get(from)
    if (own?.delete(request) === true && own.size === 0) this.#byRequester.delete(from)
    if (worker !== undefined) this.#sessions.release(worker)
    this.#streams.answer(step, queue.domain, answered)
    step.emit({ name: 'answered', queue: queue.address, topic, outcome, elapsedMs: step.now - request.startedAt })
  }

  #detach(request: OpenRequest): void {
    this.#open.delete(request.hopId)
    request.worker?.requests.delete(request)
    request.worker = undefined
    const { consumer } = request
    if (consumer === undefined) return
    request.consumer = undefined
    consumer.openRequests--
    this.#onRoom(consumer)
    this.#subscriptions.forgetIdle(consumer)
  }
}

/** The IQ that a worker gets. It comes from the queue even where `preserveFrom` is set: the answer must return here. */
function forward(request: OpenRequest, { kind, session }: Consumer): XmlElement {
  const { original, queue, hopId } = request
  const children = kind === 'plain' ? request.children : nestedChildren(request)
  const attrs = new Map<string, string>()
  attrs.set('type', original.attrs.get('type') ?? 'get')
  attrs.set('id', hopId)
  const language = original.attrs.get('xml:lang')
  if (language !== undefined) attrs.set('xml:lang', language)
  attrs.set('from', queue.address)
  attrs.set('to', session.jid)
  return { name: 'iq', ns: NS_CLIENT, attrs, children }
}

/** A reliable worker gets the nested form, whichever the requester chose, and who asks. */
function nestedChildren({ original, children }: OpenRequest): readonly XmlNode[] {
  const [payload, xmq] = children
  if (payload === undefined || xmq === undefined || typeof payload === 'string' || typeof xmq === 'string')
    return children
  const inside = xmq.children.filter((child) => !isElement(child, 'call', NS_QUEUE))
  const call = xmq.children.find((child) => isElement(child, 'call', NS_QUEUE)) ?? element('call', NS_QUEUE)
  return [withChildren(xmq, [payload, ...inside, withAttrs(call, { from: original.attrs.get('from') })])]
}

/** The worker's answer as the requester gets it: from where it asked, under its own id, with every child. */
function answer(original: XmlElement, iq: XmlElement, type: 'result' | 'error'): XmlElement {
  return withAttrs(iq, {
    type,
    id: original.attrs.get('id'),
    from: original.attrs.get('to'),
    to: original.attrs.get('from'),
  })
}

/**
 * The children of the forwarded IQ, in the form that the requester chose. In the nested form the queue says in
 * `<call xmlns='xmq:queue:1' from='…'/>` who asks; the flat form, which has no place for it, says nothing. What the
 * requester itself wrote into `from` never passes.
 *
 * @throws XmqError `bad-request` when more than one element stands beside `<xmq/>`
 */
function forwardedChildren(iq: XmlElement, xmq: XmlElement): XmlElement[] {
  const payload = childElements(iq).filter((child) => child !== xmq)
  if (payload.length > 1) {
    throw new XmqError('bad-request', 'A request has one payload element beside <xmq/>; put more inside <xmq/>.')
  }
  const isNested = payload.length === 0
  const from = isNested ? iq.attrs.get('from') : undefined
  let isCalled = false
  const inside = xmq.children.map((child) => {
    if (!isElement(child, 'call', NS_QUEUE)) return child
    isCalled = true
    return withAttrs(child, { from })
  })
  if (isNested && !isCalled) inside.push(element('call', NS_QUEUE, { from }))
  return [...payload, withChildren(xmq, inside)]
}
