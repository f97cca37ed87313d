/**
 * The oracle: watches every input and effect of the core and knows, by a model that scans plain lists instead of keeping
 * indexes, what each input may lead to. It throws a `Violation` at the first thing that no rule allows.
 *
 * Rules it holds the core to (docs/protocol.md names them by section):
 *  1. total       handle() never throws, every stanza sent has `from` and `to`, and `from` is ours (or preserved)
 *  2. any         an accepted message goes to exactly one eligible subscriber; refused only when there is none
 *  3. all         it goes to every eligible subscriber, once
 *  4. fair        while the eligible set stands still and nobody in it is in doubt, each gets its turn before anyone gets a
 *                 second
 *  5. whole       a delivery carries the original's type, id and children, the true producer, and no forged sender
 *  6. once        every IQ get or set is answered exactly once, to the requester, from where it was sent to
 *  7. genuine     an answer counts only from the worker asked; a retry only after a server's bounce, 3 workers at most
 *  8. timely      `timeout` not before its time, and nothing stays open after it
 *  9. ended       a subscription ends by del, ttl, a bounce or a session's end that a ping proved, and for no other reason
 * 10. access      who lacks the right changes nothing; caps hold exactly
 * 11. clean       when everything is over, nothing is left in the core
 */
import { bareOf, childElements, decodeError, domainOf, findChild, type XmlElement, writeElement } from '@xmq/protocol'
import type {
  CoreEvent,
  CoreRules,
  CoreStats,
  Effect,
  Input,
  QueueRules,
} from '../../../packages/broker/src/core/port.ts'
import { Violation } from '../violation.ts'
import { checkWhole } from '../whole.ts'

interface ModelSubscription {
  readonly queue: string
  readonly topic: string
  readonly jid: string
  load: number
  /** It is alive before this instant in any reading of "whole seconds". */
  aliveUntil: number
  /** It is over from this instant in any reading of "whole seconds". */
  overFrom: number
}

interface ModelRequest {
  readonly queue: string
  readonly topic: string
  readonly requester: string
  readonly id: string
  readonly openedAt: number
  readonly tried: Set<string>
  hopId: string
  worker: string
  /** The link went down meanwhile: it may be answered late, or never. */
  orphaned: boolean
}

interface ModelPing {
  readonly jid: string
  readonly sentAt: number
  state: 'open' | 'alive' | 'dead'
}

interface PendingIq {
  readonly from: string
  readonly to: string
  readonly id: string
  orphaned: boolean
}

/** What adding and subtracting instants in floating point may be off by, in milliseconds. */
const ROUNDING_MS = 1e-3
const BOUNCES = new Set(['service-unavailable', 'recipient-unavailable', 'gone'])

export class Oracle {
  readonly #rules: CoreRules
  readonly #queues: Map<string, QueueRules>
  #subscriptions: ModelSubscription[] = []
  #requests: ModelRequest[] = []
  readonly #orphans: ModelRequest[] = []
  readonly #pings = new Map<string, ModelPing>()
  #unanswered: PendingIq[] = []
  readonly #turns = new Map<string, { eligible: string; recipients: string[] }>()
  /** Full JIDs that may have ended: while a ping is out for them they may lose their turn to others. */
  readonly #doubted = new Set<string>()
  /** Full JIDs and domains that presence went to, and no `unavailable` since: the session is known as long as it lasts. */
  readonly #announced = new Set<string>()
  /** How often each thing happened: a simulation that never reaches a rule proves nothing about it. */
  readonly seen = new Map<string, number>()

  constructor(rules: CoreRules) {
    this.#rules = rules
    this.#queues = new Map(rules.queues.map((queue) => [queue.address, queue]))
  }

  /** Judges one input and its effects. */
  check(input: Input, effects: readonly Effect[], now: number, stats: CoreStats): void {
    const sends = effects.filter((effect) => effect.type === 'send').map((effect) => effect.stanza)
    const events = effects.filter((effect) => effect.type === 'event').map((effect) => effect.event)
    for (const stanza of sends) this.#checkAddresses(stanza)
    this.#notePings(sends, now)
    if (input.type === 'stanza') this.#noteInput(input.stanza)
    const judged = input.type === 'stanza' ? this.#judgeStanza(input.stanza, sends, events, now) : sends
    if (input.type === 'link-down') this.#orphan(input.domain)
    if (input.type === 'link-down' || input.type === 'link-up') {
      for (const { jid } of this.#subscriptions) this.#doubt(jid)
    }
    this.#judgeAnswers(judged, now, events, input.type === 'shutdown')
    if (input.type === 'shutdown' && stats.openRequests > 0) throw new Violation('a stopping broker left requests open')
    this.#applyEnds(events, now)
    if (input.type === 'stanza') this.#judgeEnds(input.stanza, events)
    this.#checkLate(now)
    if (stats.subscriptions !== this.#subscriptions.length) {
      throw new Violation(
        `the core counts ${stats.subscriptions} subscriptions, ${this.#subscriptions.length} were made and not ended`,
      )
    }
    if (stats.openRequests > this.#rules.openRequestsMax) throw new Violation('more open requests than the cap')
  }

  /** Whether any subscription of this full JID is left. */
  holds(jid: string): boolean {
    return this.#subscriptions.some((subscription) => subscription.jid === jid)
  }

  /** The open requests that a full JID was asked, for worlds that forge and answer. */
  openRequests(): readonly { readonly hopId: string; readonly worker: string; readonly queue: string }[] {
    return this.#requests
  }

  /** Rule 11, once everything is over. */
  checkEnd(stats: CoreStats): void {
    const { sessions, ...others } = stats
    const left = Object.entries(others).filter(([, count]) => count !== 0)
    const there = new Set([...this.#announced].map((pair) => pair.slice(0, pair.indexOf(' ')))).size
    if (sessions > there) throw new Violation(`${sessions} sessions are known, and ${there} are there`)
    if (left.length > 0) throw new Violation(`left in the core at the end: ${JSON.stringify(stats)}`)
    const open = this.#unanswered.filter((pending) => !pending.orphaned)
    if (open.length > 0)
      throw new Violation(`never answered: iq '${open[0]?.id}' of ${open[0]?.from} to ${open[0]?.to}`)
  }

  #count(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1)
  }

  #checkAddresses(stanza: XmlElement): void {
    const from = stanza.attrs.get('from')
    const to = stanza.attrs.get('to')
    if (from === undefined || to === undefined) throw new Violation(`sent without from or to: ${writeElement(stanza)}`)
    if (this.#rules.domains.includes(domainOf(from))) return
    const preserving = this.#rules.queues.some((queue) => queue.preserveFrom)
    if (!(preserving && stanza.name === 'message'))
      throw new Violation(`sent from a foreign address: ${writeElement(stanza)}`)
  }

  #notePings(sends: readonly XmlElement[], now: number): void {
    for (const stanza of sends) {
      if (stanza.name !== 'iq' || !childElements(stanza).some((child) => child.ns === 'urn:xmpp:ping')) continue
      if (stanza.attrs.get('type') !== 'get') continue
      this.#count('ping')
      this.#pings.set(attr(stanza, 'id'), { jid: attr(stanza, 'to'), sentAt: now, state: 'open' })
    }
  }

  #noteInput(stanza: XmlElement): void {
    const type = stanza.attrs.get('type')
    const sender = attr(stanza, 'from')
    if (type === 'error' || (stanza.name === 'presence' && type === 'unavailable')) this.#doubt(sender)
    if (stanza.name === 'presence') {
      const pair = `${sender} ${domainOf(attr(stanza, 'to'))}`
      if (type === undefined) this.#announced.add(pair)
      if (type === 'unavailable') this.#announced.delete(pair)
    }
    if (stanza.name !== 'iq') return
    const [from, to, id] = [attr(stanza, 'from'), attr(stanza, 'to'), attr(stanza, 'id')]
    if (type === 'get' || type === 'set') this.#unanswered.push({ from, to: bareOf(to), id, orphaned: false })
    if (type !== 'result' && type !== 'error') return
    const ping = this.#pings.get(id)
    if (ping === undefined || ping.jid !== from || ping.state !== 'open') return
    const dead =
      type === 'error' &&
      [
        'service-unavailable',
        'recipient-unavailable',
        'gone',
        'item-not-found',
        'remote-server-not-found',
        'remote-server-timeout',
      ].includes(decodeError(stanza).condition)
    ping.state = dead ? 'dead' : 'alive'
    this.#forgetTurns(from)
    if (!dead) this.#doubted.delete(from)
  }

  #doubt(jid: string): void {
    this.#doubted.add(jid)
    this.#forgetTurns(jid)
  }

  #forgetTurns(jid: string): void {
    for (const held of this.#subscriptions) if (held.jid === jid) this.#turns.delete(`${held.queue}\n${held.topic}`)
  }

  /** Judges what belongs to this stanza alone and returns the sends that are left to judge. */
  #judgeStanza(
    stanza: XmlElement,
    sends: readonly XmlElement[],
    events: readonly CoreEvent[],
    now: number,
  ): readonly XmlElement[] {
    const type = stanza.attrs.get('type')
    if (stanza.name === 'message') return this.#judgeMessage(stanza, sends, events, now)
    if (stanza.name === 'presence') {
      if (type === 'error' && sends.some((sent) => sent.name === 'presence'))
        throw new Violation('an error presence was answered')
      return sends
    }
    if (type === 'result' || type === 'error') return this.#judgeWorkersAnswer(stanza, sends, now)
    const xmq = childElements(stanza).find((child) => child.name === 'xmq')
    if (xmq?.ns === 'xmq:command' && childElements(stanza).length === 1)
      this.#judgeCommand(stanza, xmq, sends, events, now)
    if (xmq?.ns === 'xmq:topic') return this.#judgeRequest(stanza, xmq, sends, now)
    return sends
  }

  #judgeCommand(
    iq: XmlElement,
    xmq: XmlElement,
    sends: readonly XmlElement[],
    events: readonly CoreEvent[],
    now: number,
  ): void {
    const [from, queue] = [attr(iq, 'from'), bareOf(attr(iq, 'to'))]
    const answer = sends.find((sent) => isAnswerTo(sent, iq))
    if (answer === undefined) throw new Violation('a command was not answered at once')
    const outcome = answer.attrs.get('type') === 'result' ? 'result' : decodeError(answer).code
    const expected = this.#expectedOutcome(iq, xmq, queue, from)
    if (outcome !== expected) throw new Violation(`${writeElement(iq)} led to ${outcome}, expected ${expected}`)
    this.#count(`command ${outcome}`)
    if (outcome !== 'result') {
      if (events.some((event) => event.name === 'subscribed')) throw new Violation('a refused command changed state')
      return
    }
    const topic = attr(xmq, 'topic')
    const same = (subscription: ModelSubscription): boolean =>
      subscription.queue === queue && subscription.topic === topic && subscription.jid === from
    if (xmq.attrs.get('command') === 'del') return
    const ttlMs = Number(xmq.attrs.get('ttl')) * 1000
    const load = Number(xmq.attrs.get('load'))
    const existing = this.#subscriptions.find(same)
    if (ttlMs < 0) return
    // Whoever joins, leaves, or crosses the load limit changes the turn; a mere renewal does not.
    if (existing === undefined || existing.load <= 90 !== load <= 90) this.#turns.delete(`${queue}\n${topic}`)
    // "Active while now <= t + ttl in whole seconds": the sub-second part of either end may count or not.
    if (existing)
      Object.assign(existing, { load, aliveUntil: now + ttlMs - (now % 1000), overFrom: now + ttlMs + 1000 })
    else
      this.#subscriptions.push({
        queue,
        topic,
        jid: from,
        load,
        aliveUntil: now + ttlMs - (now % 1000),
        overFrom: now + ttlMs + 1000,
      })
  }

  #expectedOutcome(iq: XmlElement, xmq: XmlElement, queueAddress: string, from: string): string {
    const queue = this.#queues.get(queueAddress)
    if (queue === undefined) return 'not-found'
    if (!allows(queue.consume, from)) return 'forbidden'
    const [command, topic, ttl, load] = ['command', 'topic', 'ttl', 'load'].map((name) => xmq.attrs.get(name))
    if (iq.attrs.get('type') !== 'set' || !topic || (command !== 'sub' && command !== 'del')) return 'bad-request'
    if (command === 'del') return 'result'
    if (!/^-?\d+$/.test(ttl ?? '') || Number(ttl) > queue.ttlSecondsMax) return 'bad-request'
    if (!/^\d+$/.test(load ?? '') || Number(load) > 100) return 'bad-request'
    const mine = this.#subscriptions.filter((subscription) => bareOf(subscription.jid) === bareOf(from))
    const exists = mine.some((s) => s.queue === queueAddress && s.topic === topic && s.jid === from)
    if (exists || Number(ttl) < 0) return 'result'
    if (mine.filter((s) => s.queue === queueAddress).length >= queue.subscriptionsPerJidMax) return 'limit-reached'
    const topics = new Set(this.#subscriptions.filter((s) => s.queue === queueAddress).map((s) => s.topic))
    if (!topics.has(topic) && topics.size >= queue.topicsMax) return 'limit-reached'
    return this.#subscriptions.length >= this.#rules.subscriptionsMax ? 'limit-reached' : 'result'
  }

  #judgeMessage(
    message: XmlElement,
    sends: readonly XmlElement[],
    events: readonly CoreEvent[],
    now: number,
  ): readonly XmlElement[] {
    const [from, to] = [attr(message, 'from'), bareOf(attr(message, 'to'))]
    const messages = sends.filter((sent) => sent.name === 'message')
    const rest = sends.filter((sent) => sent.name !== 'message')
    if (message.attrs.get('type') === 'error') {
      if (messages.length > 0) throw new Violation('a message of type error was answered or delivered')
      return rest
    }
    const errors = messages.filter((sent) => sent.attrs.get('type') === 'error')
    const deliveries = messages.filter((sent) => sent.attrs.get('type') !== 'error')
    if (errors.length > 1 || (errors.length === 1 && deliveries.length > 0))
      throw new Violation('a message was both refused and delivered, or refused twice')
    for (const error of errors) {
      if (attr(error, 'to') !== from || bareOf(attr(error, 'from')) !== to) throw new Violation('a refusal went astray')
    }
    const code = errors[0] && decodeError(errors[0]).code
    const queue = this.#queues.get(to)
    const topic = findChild(message, 'xmq', 'xmq:topic')?.attrs.get('topic')
    const refusal =
      queue === undefined
        ? 'not-found'
        : allows(queue.publish, from)
          ? topic === undefined
            ? 'topic-required'
            : topic === ''
              ? 'bad-request'
              : undefined
          : 'forbidden'
    if (refusal !== undefined || queue === undefined || topic === undefined) {
      if (code !== refusal || deliveries.length > 0)
        throw new Violation(`${writeElement(message)} led to ${code ?? 'a delivery'}, expected ${refusal}`)
      this.#count(`message ${refusal}`)
      return rest
    }
    this.#judgeRecipients(
      queue,
      topic,
      deliveries.map((sent) => attr(sent, 'to')),
      code,
      now,
    )
    const sender = queue.preserveFrom ? attr(message, 'from') : queue.address
    for (const delivery of deliveries) checkWhole(message, delivery, sender)
    const published = events.find((event) => event.name === 'published')
    if (code === undefined && published?.recipients !== deliveries.length)
      throw new Violation("event 'published' tells another number of recipients")
    return rest
  }

  #judgeRecipients(
    queue: QueueRules,
    topic: string,
    recipients: readonly string[],
    code: string | undefined,
    now: number,
  ): void {
    const { must, may } = this.#eligible(queue.address, topic, now)
    for (const recipient of recipients) {
      if (!may.includes(recipient))
        throw new Violation(`${recipient} got a message of '${topic}' in ${queue.address} without being eligible`)
    }
    if (new Set(recipients).size !== recipients.length) throw new Violation('a subscriber got one message twice')
    if (queue.type === 'all') {
      const missed = must.find((jid) => !recipients.includes(jid))
      if (missed !== undefined) throw new Violation(`${missed} missed a message of 'all' topic '${topic}'`)
      if (code !== undefined) throw new Violation(`an 'all' queue refused a message with ${code}`)
      this.#count('delivered all')
      return
    }
    if (recipients.length > 1) throw new Violation("an 'any' message went to several")
    if (recipients.length === 0) {
      if (code !== 'no-recipients') throw new Violation(`an 'any' message with nobody there led to ${code}`)
      if (must.length > 0) throw new Violation(`refused although ${must[0]} is eligible`)
      this.#count('no-recipients')
      return
    }
    this.#judgeTurn(queue.address, topic, recipients[0] as string, must, may)
    this.#count('delivered any')
  }

  #judgeTurn(queue: string, topic: string, recipient: string, must: string[], may: string[]): void {
    const key = `${queue}\n${topic}`
    const eligible = must.length === may.length ? must.toSorted().join(' ') : ''
    const turns = this.#turns.get(key)
    if (may.some((jid) => this.#doubted.has(jid))) {
      this.#turns.delete(key)
      return
    }
    if (eligible === '' || turns?.eligible !== eligible) {
      this.#turns.set(key, { eligible, recipients: [recipient] })
      return
    }
    const round = turns.recipients.slice(-(must.length - 1) || turns.recipients.length)
    if (must.length > 1 && round.includes(recipient))
      throw new Violation(`${recipient} got a second turn before the others of '${topic}' got theirs`)
    turns.recipients.push(recipient)
    if (must.length > 1) this.#count('turn')
  }

  #judgeRequest(iq: XmlElement, xmq: XmlElement, sends: readonly XmlElement[], now: number): readonly XmlElement[] {
    const [from, queueAddress] = [attr(iq, 'from'), bareOf(attr(iq, 'to'))]
    const queue = this.#queues.get(queueAddress)
    const topic = xmq.attrs.get('topic')
    const hop = sends.find(
      (sent) =>
        sent.name === 'iq' &&
        (sent.attrs.get('type') === 'get' || sent.attrs.get('type') === 'set') &&
        childElements(sent).some((child) => child.ns === 'xmq:topic'),
    )
    if (hop === undefined) {
      const refused = sends.find((sent) => isAnswerTo(sent, iq))
      if (refused === undefined) throw new Violation('a request was neither passed on nor refused')
      const { code } = decodeError(refused)
      this.#count(`request ${code}`)
      if (code === 'limit-reached' && !this.#capReached(bareOf(from), now)) {
        throw new Violation('a request was refused by a cap that is not reached')
      }
      if (code !== 'no-recipients' || queue === undefined || topic === undefined) {
        if (
          queue !== undefined &&
          topic &&
          allows(queue.publish, from) &&
          code !== 'limit-reached' &&
          code !== 'bad-request'
        )
          throw new Violation(`a good request was refused with ${code}`)
        return sends
      }
      if (this.#eligible(queueAddress, topic, now).must.length > 0)
        throw new Violation('a request was refused although somebody is eligible')
      return sends
    }
    if (queue === undefined || topic === undefined || !allows(queue.publish, from))
      throw new Violation('a request was passed on that had to be refused')
    const own = this.#requests.filter((open) => bareOf(open.requester) === bareOf(from)).length
    if (own >= this.#rules.openRequestsPerJidMax) throw new Violation("a request beyond its sender's cap was passed on")
    if (this.#requests.length >= this.#rules.openRequestsMax)
      throw new Violation('a request beyond the cap was passed on')
    const worker = attr(hop, 'to')
    const { must, may } = this.#eligible(queueAddress, topic, now)
    if (!may.includes(worker)) throw new Violation(`${worker} was asked without being eligible`)
    this.#judgeTurn(queueAddress, topic, worker, must, may)
    this.#checkHop(hop, iq)
    this.#requests.push({
      queue: queueAddress,
      topic,
      requester: from,
      id: attr(iq, 'id'),
      openedAt: now,
      tried: new Set([worker]),
      hopId: attr(hop, 'id'),
      worker,
      orphaned: false,
    })
    this.#count('request asked')
    return sends.filter((sent) => sent !== hop)
  }

  #checkHop(hop: XmlElement, original: XmlElement): void {
    if (attr(hop, 'id') === attr(original, 'id')) throw new Violation("a hop bears the requester's id")
    if (hop.attrs.get('type') !== original.attrs.get('type')) throw new Violation('a hop has another type')
    const names = (iq: XmlElement): string =>
      childElements(iq)
        .map((child) => child.name)
        .toSorted()
        .join(' ')
    if (names(hop) !== names(original)) throw new Violation('a hop has another form than the request')
  }

  /** What a worker answered, or what came back: a forward, a retry, or nothing. */
  #judgeWorkersAnswer(answer: XmlElement, sends: readonly XmlElement[], now: number): readonly XmlElement[] {
    const [from, id] = [attr(answer, 'from'), attr(answer, 'id')]
    const request = this.#requests.find((open) => open.hopId === id)
    const genuine = request !== undefined && request.worker === from && bareOf(attr(answer, 'to')) === request.queue
    const forwards = (sent: XmlElement): boolean =>
      request !== undefined &&
      attr(sent, 'to') === request.requester &&
      sent.attrs.get('id') === request.id &&
      sent.name === 'iq'
    if (!genuine) {
      if (sends.some(forwards))
        throw new Violation(`an answer from ${from} counted, though ${request?.worker} was asked`)
      if (request !== undefined) this.#count('forged answer ignored')
      return sends
    }
    const error = answer.attrs.get('type') === 'error' ? decodeError(answer) : undefined
    const bounced = error !== undefined && BOUNCES.has(error.condition) && !error.fromBroker && !hasFailure(answer)
    const forward = sends.find(forwards)
    if (!bounced) {
      if (forward === undefined) throw new Violation('a genuine answer did not reach the requester')
      if (forward.attrs.get('type') !== answer.attrs.get('type')) throw new Violation('an answer changed its type')
      if (body(forward) !== body(answer)) throw new Violation('an answer changed on its way')
      this.#count(`answered ${answer.attrs.get('type')}`)
      this.#close(request)
      this.#settle(forward)
      return sends.filter((sent) => sent !== forward)
    }
    const hop = sends.find(
      (sent) =>
        sent.name === 'iq' &&
        sent.attrs.get('type') !== 'result' &&
        sent.attrs.get('type') !== 'error' &&
        childElements(sent).some((child) => child.ns === 'xmq:topic'),
    )
    // The bounce ends the worker's subscriptions: it must not be counted among those who are left.
    const left = this.#eligible(request.queue, request.topic, now)
    if (hop === undefined) {
      if (forward === undefined) throw new Violation('after a bounce nobody was asked and nothing was answered')
      const untried = left.must.filter((jid) => !request.tried.has(jid))
      if (untried.length > 0 && request.tried.size < 3)
        throw new Violation(`gave up after ${request.tried.size} tries although ${untried[0]} is there`)
      this.#count('gave up')
      this.#close(request)
      this.#settle(forward)
      return sends.filter((sent) => sent !== forward)
    }
    const next = attr(hop, 'to')
    if (request.tried.has(next)) throw new Violation(`${next} was asked twice`)
    if (request.tried.size >= 3) throw new Violation('a fourth worker was asked')
    if (!left.may.includes(next)) throw new Violation(`${next} was asked without being eligible`)
    request.tried.add(next)
    request.worker = next
    request.hopId = attr(hop, 'id')
    this.#turns.delete(`${request.queue}\n${request.topic}`)
    this.#count('retried')
    return sends.filter((sent) => sent !== hop)
  }

  /** Every answer that is left must settle one IQ, and the broker's own codes must be true. */
  #judgeAnswers(sends: readonly XmlElement[], now: number, events: readonly CoreEvent[], stopping: boolean): void {
    for (const sent of sends) {
      const type = sent.attrs.get('type')
      if (sent.name !== 'iq' || (type !== 'result' && type !== 'error')) continue
      const request = this.#requests.find(
        (open) =>
          open.requester === sent.attrs.get('to') &&
          open.id === sent.attrs.get('id') &&
          open.queue === bareOf(attr(sent, 'from')),
      )
      if (request !== undefined && type === 'error') {
        const { code } = decodeError(sent)
        if (
          code === 'timeout' &&
          !stopping &&
          // A requester whose session is known to have ended waits for nothing.
          !this.#provedGone(request.requester, now) &&
          now - request.openedAt + ROUNDING_MS < (this.#queues.get(request.queue)?.requestTimeoutMs ?? 0)
        )
          throw new Violation('a request timed out too early')
        if (code === 'worker-gone' && !this.#provedGone(request.worker, now))
          throw new Violation(`${request.worker} was called gone without proof`)
        if (code !== 'timeout' && code !== 'worker-gone' && code !== 'no-recipients')
          throw new Violation(`an open request was answered with ${code}`)
        this.#count(`answered ${code}`)
        this.#close(request)
      } else if (request !== undefined) throw new Violation('an open request was answered by nobody')
      this.#settle(sent)
    }
    for (const event of events) this.#count(event.name)
  }

  #close(request: ModelRequest): void {
    this.#requests = this.#requests.filter((open) => open !== request)
  }

  #settle(answer: XmlElement): void {
    const [from, to, id] = [attr(answer, 'from'), attr(answer, 'to'), attr(answer, 'id')]
    const index = this.#unanswered.findIndex((iq) => iq.from === to && iq.id === id && iq.to === bareOf(from))
    if (index === -1) throw new Violation(`an answer that nobody asked for: ${writeElement(answer)}`)
    this.#unanswered.splice(index, 1)
  }

  #applyEnds(events: readonly CoreEvent[], now: number): void {
    for (const event of events) {
      if (event.name !== 'unsubscribed') continue
      const index = this.#subscriptions.findIndex(
        (s) => s.queue === event.queue && s.topic === event.topic && s.jid === event.consumer,
      )
      const ended = this.#subscriptions[index]
      // A negative ttl on a subscription that is not there subscribes nobody and may still be told.
      if (ended === undefined)
        throw new Violation(`the end of a subscription that is not there: ${event.consumer} '${event.topic}'`)
      if (event.reason === 'expired' && now < ended.aliveUntil)
        throw new Violation(`${event.consumer} expired ${ended.aliveUntil - now} ms too early`)
      if (event.reason === 'session-ended' && !this.#provedGone(event.consumer, now))
        throw new Violation(`${event.consumer} was dropped without proof that its session ended`)
      this.#count(`ended ${event.reason}`)
      this.#turns.delete(`${ended.queue}\n${ended.topic}`)
      this.#subscriptions.splice(index, 1)
    }
  }

  /** What a bounce or a session's end has to end at once. */
  #judgeEnds(stanza: XmlElement, events: readonly CoreEvent[]): void {
    for (const event of events) {
      if (event.name !== 'unsubscribed' || event.reason !== 'session-ended') continue
      const asked = this.#requests.find((open) => open.worker === event.consumer)
      if (asked !== undefined) throw new Violation(`${event.consumer} ended, but its request '${asked.id}' stays open`)
    }
    const bounced = events.find((event) => event.name === 'bounced')
    if (bounced === undefined || hasFailure(stanza) || !BOUNCES.has(bounced.condition)) return
    // To an IQ a live client that does not know it answers service-unavailable too: that ends nothing.
    if (stanza.name === 'iq' && bounced.condition === 'service-unavailable') {
      const ended = events.find((event) => event.name === 'unsubscribed' && event.reason === 'bounced')
      if (ended !== undefined)
        throw new Violation(`${bounced.consumer} was dropped for an answer that a live client gives`)
      return
    }
    const kept = this.#subscriptions.find((held) => held.jid === bounced.consumer && held.queue === bounced.queue)
    if (kept !== undefined) throw new Violation(`${kept.jid} bounced, but is still subscribed to '${kept.topic}'`)
  }

  #provedGone(jid: string, now: number): boolean {
    for (const ping of this.#pings.values()) {
      if (ping.jid !== jid) continue
      if (
        ping.state === 'dead' ||
        (ping.state === 'open' && now - ping.sentAt + ROUNDING_MS >= this.#rules.pingTimeoutMs)
      )
        return true
    }
    return false
  }

  #checkLate(now: number): void {
    const slackMs = 250
    const late = this.#requests.find(
      (open) => !open.orphaned && now > open.openedAt + (this.#queues.get(open.queue)?.requestTimeoutMs ?? 0) + slackMs,
    )
    if (late !== undefined) throw new Violation(`the request '${late.id}' is open after its timeout`)
    const stale = this.#subscriptions.find((subscription) => now > subscription.overFrom + slackMs)
    if (stale !== undefined) throw new Violation(`the subscription of ${stale.jid} is there after its ttl`)
  }

  #orphan(domain: string): void {
    for (const request of this.#requests) if (domainOf(request.queue) === domain) request.orphaned = true
    this.#orphans.push(...this.#requests.filter((request) => request.orphaned))
    this.#requests = this.#requests.filter((request) => !request.orphaned)
    for (const pending of this.#unanswered) if (domainOf(pending.to) === domain) pending.orphaned = true
  }

  /** Whether a cap on open requests may be reached; those whose link went down may be open still. */
  #capReached(requester: string, now: number): boolean {
    const maybeOpen = this.#orphans.filter(
      (request) => now <= request.openedAt + (this.#queues.get(request.queue)?.requestTimeoutMs ?? 0),
    )
    const open = [...this.#requests, ...maybeOpen]
    const own = open.filter((request) => bareOf(request.requester) === requester)
    return own.length >= this.#rules.openRequestsPerJidMax || open.length >= this.#rules.openRequestsMax
  }

  #eligible(queue: string, topic: string, now: number): { must: string[]; may: string[] } {
    const of = this.#subscriptions.filter((s) => s.queue === queue && s.topic === topic && s.load <= 90)
    return {
      must: of.filter((s) => now < s.aliveUntil).map((s) => s.jid),
      may: of.filter((s) => now < s.overFrom).map((s) => s.jid),
    }
  }
}

function attr(stanza: XmlElement, name: string): string {
  return stanza.attrs.get(name) ?? ''
}

function isAnswerTo(sent: XmlElement, iq: XmlElement): boolean {
  const type = sent.attrs.get('type')
  return (
    sent.name === 'iq' &&
    (type === 'result' || type === 'error') &&
    attr(sent, 'id') === attr(iq, 'id') &&
    attr(sent, 'to') === attr(iq, 'from')
  )
}

function hasFailure(stanza: XmlElement): boolean {
  return (
    findChild(stanza, 'error') !== undefined &&
    childElements(findChild(stanza, 'error') as XmlElement).some((child) => child.name === 'failure')
  )
}

function allows(list: readonly string[], from: string): boolean {
  return list.includes(bareOf(from)) || list.includes(domainOf(from))
}

function body(stanza: XmlElement): string {
  return childElements(stanza)
    .map((child) => writeElement(child))
    .join('')
}
