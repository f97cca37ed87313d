/**
 * What becomes of a plain publish, and what plain consumers are given: whole, and to whom. One life of the broker.
 *
 *     arrives --> refused, and its producer is told
 *             --> passed on: to one who is subscribed (`any`, a queue that keeps nothing), to all of them (`all`)
 *             --> to the store --ok--> promised; in an `all` queue all plain subscribers get it now, as they do items
 *                              --refused--> its producer is told
 *
 * 1. One of these happens to each, and no two.
 * 2. It is refused for want of recipients only where the queue says so, and nobody is there.
 * 3. In an `all` queue each plain subscriber is given each message once, when it is published.
 * 4. In an `any` queue a plain consumer is given what was leased for it, or what is passed on at once.
 * 5. What it is given is what was sent, and says by whom.
 */
import { bareOf, decodeError, element, findChild, stanza, type XmlElement } from '@xmq/protocol'
import type { CoreEvent } from '../../../../packages/broker/src/core/port.ts'
import type { PublishOp, StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import { checkWhole, producersIn } from '../../whole.ts'
import { itemIdOf, type SentItem } from '../items.ts'
import { payloadOf } from '../plain.ts'
import { JOBS } from '../rules.ts'
import { type Knowledge, wordIn } from './entry.ts'
import type { PlainConsumers } from './plain-consumers.ts'

/** A message that every plain subscriber of an `all` queue gets in this step. */
interface Spread {
  readonly payload: string
  readonly topic: string
  readonly recipients: Set<string>
}

/** A message that is being handled. */
interface Handled {
  readonly stanza: XmlElement
  readonly payload: string
  readonly topic: string
  refused: boolean
  stored: boolean
  passedOn: boolean
}

/** See the top of this file. */
export class PlainMessages {
  readonly #knowledge: Knowledge
  readonly #consumers: PlainConsumers
  readonly #keeps: boolean
  #handled: Handled | undefined
  #spreads: Spread[] = []
  /** Messages that were not stored, whose producers have to be told in this step. */
  #owed: XmlElement[] = []
  #isUp = false

  constructor(knowledge: Knowledge, consumers: PlainConsumers, durability: string) {
    this.#knowledge = knowledge
    this.#consumers = consumers
    this.#keeps = durability !== 'memory'
  }

  /** Something is about to be handled by the core. */
  begin(): void {
    this.#handled = undefined
    this.#spreads = []
    this.#owed = []
  }

  /** The stream of the queue is there or not. */
  link(isUp: boolean): void {
    this.#isUp = isUp
  }

  /** A stanza arrives. */
  arrived(message: XmlElement): void {
    const xmq = findChild(message, 'xmq', 'xmq:topic')
    if (message.name !== 'message' || message.attrs.get('type') === 'error' || xmq === undefined) return
    const topic = xmq.attrs.get('topic') ?? ''
    const payload = payloadOf(message)
    this.#handled = { stanza: message, payload, topic, refused: false, stored: false, passedOn: false }
  }

  /** The core hears what became of a publish. @param original as it arrived, when it was a plain one */
  told(op: PublishOp, result: StoreResult, original: XmlElement | undefined): void {
    const payload = wordIn(op.body)
    if (result.status === 'ok' && this.#knowledge.type === 'all' && op.delayUntil === undefined)
      this.#spreads.push({ payload, topic: op.topic, recipients: new Set() })
    if (op.id === undefined && original !== undefined && result.status !== 'ok') this.#owed.push(original)
  }

  /** The core asks the store for something. */
  asked(op: StoreOp): void {
    if (op.type !== 'publish' || op.id !== undefined) return
    if (this.#handled?.payload !== wordIn(op.body) || this.#handled.stored)
      throw new Violation(`${wordIn(op.body)} goes to the store, and did not just come`)
    this.#handled.stored = true
  }

  /** The core tells something. */
  event(event: CoreEvent): void {
    if (event.name === 'published' && this.#handled !== undefined) this.#handled.passedOn = true
  }

  /** A message leaves that is refused. */
  refused(error: XmlElement, now: number): void {
    const { code } = decodeError(error)
    this.#knowledge.note(`plain refused ${code}`)
    const at = this.#owed.findIndex((message) => isErrorTo(error, message))
    if (at !== -1) {
      this.#owed.splice(at, 1)
      return
    }
    const handled = this.#handled
    if (handled === undefined || !isErrorTo(error, handled.stanza))
      throw new Violation(`${error.attrs.get('to')} is refused what it did not publish`)
    handled.refused = true
    if (code !== 'no-recipients') return
    const { type, reliable } = this.#knowledge
    if (type === 'all' || reliable.whenNobody === 'keep') throw new Violation(`a message was refused with ${code}`)
    const [somebody] = this.#consumers.eligible(handled.topic, now)
    if (somebody !== undefined) throw new Violation(`a message was refused, though ${somebody} is there`)
  }

  /**
   * A message leaves for a plain consumer.
   * @param sent what it is, by its content @param original as it arrived, when it was a plain one
   * @returns whether it has to be leased
   */
  delivered(message: XmlElement, sent: SentItem, original: XmlElement | undefined, now: number): boolean {
    const to = message.attrs.get('to') ?? ''
    const { payload, topic } = sent
    checkWhole(original ?? itemAsMessage(sent, message), message, JOBS)
    const isNow = this.#handled?.payload === payload
    if (this.#knowledge.type === 'any' && (this.#keeps || !isNow)) return true
    if (!this.#consumers.mayGet(to, topic, now)) throw new Violation(`${to} is given ${payload}, and may not be`)
    const spread = this.#spread(payload, topic)
    if (spread.recipients.has(to)) throw new Violation(`${to} is given ${payload} twice`)
    spread.recipients.add(to)
    this.#knowledge.note(this.#knowledge.type === 'any' ? 'plain passed on' : 'plain told')
    return false
  }

  #spread(payload: string, topic: string): Spread {
    let spread = this.#spreads.find((one) => one.payload === payload)
    if (spread !== undefined) return spread
    if (this.#handled?.payload !== payload)
      throw new Violation(`${payload} is given to all, and was not just published`)
    spread = { payload, topic, recipients: new Set() }
    this.#spreads.push(spread)
    return spread
  }

  /** The core has handled what arrived. */
  check(now: number): void {
    if (!this.#isUp) return
    const handled = this.#handled
    if (handled !== undefined) {
      const { refused, stored, passedOn, payload, topic } = handled
      const outcomes = [refused, stored, passedOn].filter(Boolean).length
      if (outcomes !== 1) throw new Violation(`${outcomes} things became of ${payload}`)
      if (passedOn) this.#checkPassedOn(payload, topic)
      if (!passedOn && this.#spreads.some((one) => one.payload === payload))
        throw new Violation(`${payload} was passed on, and kept or refused, too`)
    }
    for (const message of this.#owed) throw new Violation(`${payloadOf(message)} was not stored, and nobody is told`)
    if (this.#knowledge.type === 'any') return
    for (const { payload, topic, recipients } of this.#spreads) {
      for (const jid of this.#consumers.eligible(topic, now))
        if (!recipients.has(jid)) throw new Violation(`${jid} missed ${payload} of ${topic}`)
    }
  }

  #checkPassedOn(payload: string, topic: string): void {
    const { recipients } = this.#spread(payload, topic)
    if (this.#knowledge.type === 'all') return
    if (recipients.size !== 1) throw new Violation(`${payload} was passed on to ${recipients.size}`)
  }
}

function isErrorTo(error: XmlElement, { attrs }: XmlElement): boolean {
  return error.attrs.get('to') === attrs.get('from') && error.attrs.get('id') === attrs.get('id')
}

/** An item as plain consumers get it: docs/protocol-reliable.md "Plain messages as items". */
function itemAsMessage(sent: SentItem, message: XmlElement): XmlElement {
  const from = String(producersIn(message)[0])
  if (bareOf(from) !== sent.sender) throw new Violation(`${sent.id} of ${sent.sender} is said to be from ${from}`)
  const payload = element('p', 'urn:x', undefined, [sent.payload])
  const xmq = element('xmq', 'xmq:topic', { topic: sent.topic }, [payload])
  return stanza('message', { type: 'normal', id: itemIdOf(sent), from }, [xmq])
}
