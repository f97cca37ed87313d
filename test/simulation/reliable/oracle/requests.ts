/**
 * Requests: who asked, who has each, and how it ends. One life of the broker.
 *
 *     arrives --> refused
 *             --> asked of one worker --its answer--------------------> passed on, whole
 *                   ^   |-- it comes back unseen: the next worker, three at most
 *                   '---'-- nobody is left, its time is over, the worker or whoever asked is gone, cancelled --> an error says so
 *
 * 1. One worker at a time has a request, and none twice. It was subscribed, its load and its credit allow one more.
 * 2. Each is answered once, to whoever asked, by the worker that has it, or by the queue for a reason that is true, and in time; when
 *    the stream is down then, as soon as it is up.
 * 3. What is asked and what is answered passes as it is; a reliable worker gets the nested form, and who asks.
 * 4. Only whoever asked can cancel. A reliable worker is told when nobody waits any more, and only then.
 * 5. News go to whoever asked for them, from the worker that has the request, in their order.
 */
import { bareOf, childElements, decodeError, findChild, type XmlElement, writeElement } from '@xmq/protocol'
import type { CoreEvent, CoreRules } from '../../../../packages/broker/src/core/port.ts'
import { Violation } from '../../violation.ts'
import type { Consumers } from './consumers.ts'
import type { Knowledge } from './entry.ts'
import type { PlainConsumers } from './plain-consumers.ts'
import type { Signs } from './signs.ts'

/** So many workers are asked. */
const TRIES_MAX = 3
/** Nobody has seen what comes back with one of these. */
const UNSEEN: ReadonlySet<string> = new Set(['service-unavailable', 'recipient-unavailable', 'gone'])
/** A tick comes a little late. */
const SLACK_MS = 250

interface Request {
  readonly iq: XmlElement
  readonly from: string
  readonly id: string
  readonly topic: string
  readonly wantsNews: boolean
  readonly at: number
  readonly tried: Set<string>
  worker: string
  hop: string
  newsAt: number
  isCancelled: boolean
}

/** What the requests need of the oracle. */
export interface RequestsHost {
  readonly knowledge: Knowledge
  readonly rules: CoreRules
  readonly timeoutMs: number
  readonly consumers: Consumers
  readonly plain: PlainConsumers
  readonly signs: Signs
}

/** See the top of this file. */
export class Requests {
  readonly #host: RequestsHost
  readonly #open = new Set<Request>()
  /** Whose requests were answered, with the ids that they gave them. */
  readonly #closed = new Set<string>()
  #isUp = false
  // Of one step:
  #arrived: Request | undefined
  /** A worker's answer to one, as it arrived. */
  #answered: { readonly request: Request; readonly iq: XmlElement; readonly isUnseen: boolean } | undefined
  #cancel: { readonly iq: XmlElement; readonly meant: readonly Request[] } | undefined
  #news: XmlElement | undefined
  #hasComeUp = false
  /** Sessions that the core takes to have ended. */
  readonly #gone = new Set<string>()
  /** Reliable workers that have to be told, by the request's hop. */
  readonly #toTell = new Map<string, string>()
  /** Those that were told first: the end of the request has to follow. */
  readonly #toldOf = new Set<string>()

  constructor(host: RequestsHost) {
    this.#host = host
  }

  /** Something is about to be handled by the core. */
  begin(): void {
    this.#arrived = undefined
    this.#answered = undefined
    this.#cancel = undefined
    this.#news = undefined
    this.#hasComeUp = false
    this.#gone.clear()
    this.#toTell.clear()
  }

  /** The stream of the queue is there or not. What ended meanwhile is answered now, and its workers hear nothing. */
  link(isUp: boolean): void {
    this.#isUp = isUp
    this.#hasComeUp = isUp
  }

  // ---- what arrives ----

  /** A stanza arrives. */
  arrived(stanza: XmlElement, now: number): void {
    const type = stanza.attrs.get('type')
    if (stanza.name === 'message') {
      this.#news = findChild(stanza, 'progress', 'xmq:queue:1') === undefined ? undefined : stanza
      return
    }
    if (stanza.name !== 'iq') return
    if (type === 'result' || type === 'error') return this.#arrivedAnswer(stanza)
    const xmq = findChild(stanza, 'xmq', 'xmq:topic')
    const cancel = findChild(stanza, 'cancel', 'xmq:queue:1')
    const from = stanza.attrs.get('from') ?? ''
    if (cancel !== undefined) {
      const call = cancel.attrs.get('call')
      const meant = [...this.#open].filter((request) => request.from === from && request.id === call)
      for (const request of meant) request.isCancelled = true
      this.#cancel = { iq: stanza, meant }
    }
    if (xmq === undefined) return
    this.#arrived = {
      iq: stanza,
      from,
      id: stanza.attrs.get('id') ?? '',
      topic: xmq.attrs.get('topic') ?? '',
      wantsNews: findChild(xmq, 'call', 'xmq:queue:1')?.attrs.get('progress') === 'true',
      at: now,
      tried: new Set(),
      worker: '',
      hop: '',
      newsAt: 0,
      isCancelled: false,
    }
  }

  #arrivedAnswer(iq: XmlElement): void {
    const from = iq.attrs.get('from')
    const request = this.#byHop(iq.attrs.get('id') ?? '')
    if (request === undefined) return
    if (request.worker !== from) {
      this.#host.knowledge.note('request answered by a stranger')
      return
    }
    const error = iq.attrs.get('type') === 'error' ? decodeError(iq) : undefined
    const isUnseen = error !== undefined && !error.fromBroker && UNSEEN.has(error.condition)
    this.#answered = { request, iq, isUnseen }
  }

  #byHop(hop: string): Request | undefined {
    for (const request of this.#open) if (request.hop === hop) return request
    return undefined
  }

  // ---- what leaves ----

  /** A stanza leaves. */
  left(stanza: XmlElement, now: number): void {
    const type = stanza.attrs.get('type')
    if (stanza.name === 'message') {
      if (findChild(stanza, 'progress', 'xmq:queue:1') !== undefined) this.#relayed(stanza)
      return
    }
    if (stanza.name !== 'iq') return
    if (type === 'result' || type === 'error') this.#leftAnswer(stanza, now)
    else if (findChild(stanza, 'xmq', 'xmq:topic') !== undefined) this.#asked(stanza, now)
    else if (findChild(stanza, 'cancel', 'xmq:queue:1') !== undefined) this.#told(stanza)
  }

  /** The core tells something. */
  event(event: CoreEvent): void {
    if (event.name === 'unsubscribed' && event.reason === 'session-ended') this.#gone.add(event.consumer)
  }

  /** A worker is asked. */
  #asked(hop: XmlElement, now: number): void {
    const { knowledge, plain, consumers } = this.#host
    const worker = hop.attrs.get('to') ?? ''
    const request = this.#arrived ?? (this.#answered?.isUnseen === true ? this.#answered.request : undefined)
    if (request === undefined) throw new Violation(`${worker} is asked, and nobody did`)
    if (request.tried.size === 0) this.#checkRoom(request)
    this.#freeWorker(request)
    const id = hop.attrs.get('id') ?? ''
    if (request.hop === id || request.id === id) throw new Violation(`${worker} is asked under an id that is known`)
    if (request.tried.has(worker)) throw new Violation(`${worker} is asked twice`)
    if (request.tried.size >= TRIES_MAX) throw new Violation(`${worker} is the fourth to be asked`)
    knowledge.note(request.tried.size === 0 ? 'request asked' : 'request asked again')
    this.#checkPassed(request, hop, plain.has(worker))
    request.tried.add(worker)
    request.worker = worker
    request.hop = id
    request.newsAt = 0
    if (plain.has(worker)) {
      if (!plain.mayGet(worker, request.topic, now)) throw new Violation(`${worker} is asked, and is not subscribed`)
    } else consumers.asked(worker, id, request.topic, now)
    this.#open.add(request)
    this.#arrived = undefined
    this.#answered = undefined
  }

  /** Whoever asks has less than it may have, and so has the broker. */
  #checkRoom({ from }: Request): void {
    const { openRequestsMax, openRequestsPerJidMax } = this.#host.rules
    const own = this.#countOf(from)
    if (own >= openRequestsPerJidMax || this.#open.size >= openRequestsMax)
      throw new Violation(`a request was taken beside ${own} of ${this.#open.size}`)
  }

  /** How many requests an account has open. */
  #countOf(from: string): number {
    let count = 0
    for (const request of this.#open) if (bareOf(request.from) === bareOf(from)) count++
    return count
  }

  /** What the worker gets is what was asked. */
  #checkPassed({ iq, from }: Request, hop: XmlElement, isPlain: boolean): void {
    if (hop.attrs.get('type') !== iq.attrs.get('type')) throw new Violation('a request changed its type')
    const query = (root: XmlElement): string => {
      const xmq = findChild(root, 'xmq', 'xmq:topic') as XmlElement
      const found = findChild(root, 'query', 'urn:x') ?? findChild(xmq, 'query', 'urn:x')
      return `${xmq.attrs.get('topic')} ${found === undefined ? '' : writeElement(found)}`
    }
    if (query(hop) !== query(iq)) throw new Violation('a request changed on its way')
    const isFlat = childElements(iq).length > 1
    const xmq = findChild(hop, 'xmq', 'xmq:topic') as XmlElement
    if (isFlat && isPlain) {
      if (childElements(hop).length !== 2) throw new Violation('a request has another form than it was asked in')
      return
    }
    const asks = childElements(xmq)
      .filter((child) => child.name === 'call')
      .map((call) => call.attrs.get('from'))
    if (childElements(hop).length !== 1 || asks.join(' ') !== from)
      throw new Violation(`${asks.join(' ')} is said to ask, and ${from} does`)
  }

  #leftAnswer(answer: XmlElement, now: number): void {
    const to = answer.attrs.get('to') ?? ''
    const id = answer.attrs.get('id') ?? ''
    if (this.#cancel?.iq.attrs.get('id') === id && this.#cancel.iq.attrs.get('from') === to) {
      return this.#answeredCancel(answer)
    }
    const arrived = this.#arrived
    if (arrived !== undefined && arrived.from === to && arrived.id === id) return this.#refused(arrived, answer, now)
    const answered = this.#answered
    if (answered !== undefined && !answered.isUnseen && answered.request.from === to && answered.request.id === id) {
      this.#answered = undefined
      return this.#passedBack(answered.request, answered.iq, answer)
    }
    const mine = [...this.#open].filter((request) => request.from === to && request.id === id)
    const request = mine.find((one) => this.#mayEnd(one, answer, now)) ?? mine[0]
    if (request !== undefined) this.#ended(request, answer, now)
    else if (this.#closed.has(`${to} ${id}`)) throw new Violation(`${id} of ${to} is answered again`)
  }

  #answeredCancel(answer: XmlElement): void {
    const { meant } = this.#cancel as { readonly meant: readonly Request[] }
    this.#cancel = undefined
    const isDone = answer.attrs.get('type') === 'result'
    // One that ended while the stream was down is over, though nobody has heard of it.
    if (isDone !== meant.length > 0) throw new Violation(`a cancel of ${meant.length} requests is answered wrongly`)
    this.#host.knowledge.note(isDone ? 'request cancelled' : 'cancelled nothing')
  }

  /** A request is refused as it comes. */
  #refused({ topic, from }: Request, answer: XmlElement, now: number): void {
    if (answer.attrs.get('type') !== 'error') throw new Violation('a request is answered by nobody')
    this.#arrived = undefined
    const { knowledge, plain, consumers, rules } = this.#host
    const { code } = decodeError(answer)
    knowledge.note(`request refused ${code}`)
    if (code === 'limit-reached') {
      const own = this.#countOf(from)
      if (own < rules.openRequestsPerJidMax && this.#open.size < rules.openRequestsMax)
        throw new Violation(`a request was refused, with ${own} of ${this.#open.size} open`)
      return
    }
    if (code !== 'no-recipients' && code !== 'overloaded') throw new Violation(`a request was refused with ${code}`)
    const [somebody] = plain.eligible(topic, now)
    if (somebody !== undefined) throw new Violation(`a request was refused with ${code}, though ${somebody} is there`)
    const isBusy = consumers.listeners(topic).length > 0
    if (code === 'no-recipients' && isBusy) throw new Violation('a request was refused as if nobody were there')
  }

  /** A worker's answer goes to whoever asked. */
  #passedBack(request: Request, given: XmlElement, answer: XmlElement): void {
    if (this.#toldOf.has(request.hop)) throw new Violation(`${request.worker} is told that nobody waits for its answer`)
    const content = (iq: XmlElement): string =>
      childElements(iq)
        .map((child) => writeElement(child))
        .join('')
    if (given.attrs.get('type') !== answer.attrs.get('type') || content(given) !== content(answer))
      throw new Violation(`the answer of ${request.worker} changed on its way`)
    this.#host.knowledge.note(`request answered ${answer.attrs.get('type')}`)
    this.#close(request)
  }

  /** The queue itself ends a request. */
  #ended(request: Request, answer: XmlElement, now: number): void {
    const code = answer.attrs.get('type') === 'error' ? decodeError(answer).code : 'result'
    if (!this.#mayEnd(request, answer, now)) throw new Violation(`a request to ${request.worker} ended as ${code}`)
    this.#host.knowledge.note(`request ended ${code}`)
    if (this.#answered?.request === request) this.#answered = undefined
    const isReliable = !this.#host.plain.has(request.worker)
    if (code === 'timeout' && isReliable && !this.#hasComeUp) this.#toTell.set(request.hop, request.worker)
    this.#close(request)
  }

  #mayEnd(request: Request, answer: XmlElement, now: number): boolean {
    if (answer.attrs.get('type') !== 'error') return false
    const { signs, plain, timeoutMs } = this.#host
    const { code } = decodeError(answer)
    if (code === 'timeout')
      return request.isCancelled || now >= request.at + timeoutMs || signs.hasEnded(request.from, now)
    if (code === 'worker-gone') return signs.hasEnded(request.worker, now)
    if (code !== 'no-recipients' || this.#answered?.request !== request || !this.#answered.isUnseen) return false
    const isLeft = plain.eligible(request.topic, now).some((jid) => !request.tried.has(jid))
    return !isLeft || request.tried.size >= TRIES_MAX
  }

  #close(request: Request): void {
    this.#freeWorker(request)
    this.#open.delete(request)
    this.#closed.add(`${request.from} ${request.id}`)
  }

  #freeWorker({ hop }: Request): void {
    this.#host.consumers.letGo(hop)
  }

  /** A worker is told that nobody waits. */
  #told(stanza: XmlElement): void {
    const hop = findChild(stanza, 'cancel', 'xmq:queue:1')?.attrs.get('call') ?? ''
    this.#host.knowledge.note('worker told that nobody waits')
    const isOpen = this.#byHop(hop)?.worker === stanza.attrs.get('to')
    const isOver = this.#toTell.get(hop) === stanza.attrs.get('to')
    if (!isOpen && !isOver) throw new Violation(`${stanza.attrs.get('to')} is told of what it does not have`)
    if (isOpen) this.#toldOf.add(hop)
    this.#toTell.delete(hop)
  }

  #relayed(stanza: XmlElement): void {
    const news = this.#news
    const given = news === undefined ? undefined : findChild(news, 'progress', 'xmq:queue:1')
    const passed = findChild(stanza, 'progress', 'xmq:queue:1') as XmlElement
    const request = this.#byHop(given?.attrs.get('call') ?? '')
    if (request === undefined || request.worker !== news?.attrs.get('from'))
      throw new Violation('news of a request from somebody who does not have it')
    if (stanza.attrs.get('to') !== request.from || passed.attrs.get('call') !== request.id)
      throw new Violation('news of a request went astray')
    if (!request.wantsNews) throw new Violation(`${request.from} is told news that it does not want`)
    const n = Number(passed.attrs.get('n'))
    if (n <= request.newsAt) throw new Violation(`news ${n} after ${request.newsAt}`)
    request.newsAt = n
    this.#host.knowledge.note('news of a request')
  }

  // ---- the end of a step, and of a run ----

  /** The core has handled what arrived. */
  check(now: number): void {
    if (this.#arrived !== undefined) throw new Violation('a request came to nothing')
    if (this.#answered !== undefined)
      throw new Violation(`the answer of ${this.#answered.request.worker} came to nothing`)
    if (this.#cancel !== undefined) throw new Violation('a cancel came to nothing')
    for (const [hop, worker] of this.#toTell)
      if (!this.#toldOf.has(hop)) throw new Violation(`${worker} is not told that nobody waits`)
    for (const hop of this.#toldOf)
      if (this.#byHop(hop) !== undefined) throw new Violation('a worker is told too early')
    this.#toldOf.clear()
    if (!this.#isUp) return
    for (const request of this.#open) {
      if (this.#gone.has(request.worker)) throw new Violation(`${request.worker} is gone, and has a request`)
      if (request.isCancelled) throw new Violation('a request that was cancelled is open')
      if (now > request.at + this.#host.timeoutMs + SLACK_MS)
        throw new Violation(`a request to ${request.worker} is open after its time`)
    }
  }

  /** The faults have stopped, and all had its time. */
  checkEnd(): void {
    for (const { from, id } of this.#open) throw new Violation(`${id} of ${from} was never answered`)
  }
}
