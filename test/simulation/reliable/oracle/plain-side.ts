/**
 * All that plain clients do, handed to the parts that have the rules about it. One life of the broker.
 *
 *     arrives --> who consumes (plain-consumers.ts), what is published (plain-messages.ts)
 *     leaves ---> what they are given: leased for them (leases.ts), or passed on
 */
import { childElements, findChild, type XmlElement } from '@xmq/protocol'
import type { Effect } from '../../../../packages/broker/src/core/port.ts'
import type { PublishOp, StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import { payloadOf } from '../plain.ts'
import { type Knowledge, wordIn } from './entry.ts'
import type { Leases } from './leases.ts'
import { PlainConsumers, type PlainTruth } from './plain-consumers.ts'
import { PlainMessages } from './plain-messages.ts'
import type { Signs } from './signs.ts'
import type { Stock } from './stock.ts'

/** What the plain side needs of the oracle. */
export interface PlainSideHost {
  readonly knowledge: Knowledge
  readonly rules: { readonly durability: string; readonly pingTimeoutMs: number }
  readonly truth: PlainTruth
  readonly stock: Stock
  readonly leases: Leases
  readonly signs: Signs
  /** When the core asked for a lease. */
  readonly grantedAt: (token: string) => number
}

/** See the top of this file. */
export class PlainSide {
  readonly consumers: PlainConsumers
  readonly #host: PlainSideHost
  readonly #messages: PlainMessages

  constructor(host: PlainSideHost) {
    const { knowledge, truth, rules } = host
    this.#host = host
    this.consumers = new PlainConsumers(knowledge, truth, rules)
    this.#messages = new PlainMessages(knowledge, this.consumers, rules.durability)
  }

  /** Something else is about to be handled by the core. */
  begin(): void {
    this.consumers.begin()
    this.#messages.begin()
  }

  /** The stream of the queue is there or not. */
  link(isUp: boolean, now: number): void {
    this.#messages.link(isUp)
    if (!isUp) this.consumers.linkDown(now)
  }

  /** A stanza arrives. */
  arrived(stanza: XmlElement, now: number): void {
    this.consumers.arrived(stanza, now)
    this.#messages.arrived(stanza)
    if (stanza.name !== 'message' || stanza.attrs.get('type') === 'error') return
    const { stock, truth } = this.#host
    const payload = payloadOf(stanza)
    if (stock.arrived(stanza.attrs.get('from') ?? '', payload)) truth.arrived(payload, stanza)
  }

  /** A command arrives, which may be a plain consumer's. */
  command(from: string, xmq: XmlElement, now: number): void {
    const isSub = xmq.attrs.get('command') === 'sub'
    const isReliable = childElements(xmq).some((child) => child.name === 'consume')
    if (isSub ? !isReliable : this.consumers.has(from)) this.consumers.command(from, xmq, now)
  }

  /** The core hears what became of a publish. */
  told(op: PublishOp, result: StoreResult): void {
    this.#messages.told(op, result, this.#host.truth.original(wordIn(op.body)))
  }

  /** The core asks the store for something. */
  asked(op: StoreOp): void {
    this.#messages.asked(op)
  }

  /** The core has handled what arrived. What plain consumers are given comes before what is acked for them. */
  left(effects: readonly Effect[], now: number): void {
    const mayHaveEnded = (jid: string): boolean => this.#host.signs.hasEnded(jid, now)
    for (const effect of effects) {
      if (effect.type === 'event') {
        this.consumers.event(effect.event, mayHaveEnded, now)
        this.#messages.event(effect.event)
      }
      if (effect.type !== 'send') continue
      const { stanza } = effect
      this.consumers.left(stanza, now)
      if (stanza.name !== 'message') continue
      if (stanza.attrs.get('type') === 'error') this.#messages.refused(stanza, now)
      else if (findChild(stanza, 'xmq', 'xmq:topic') !== undefined) this.#given(stanza, now)
    }
  }

  #given(message: XmlElement, now: number): void {
    const to = message.attrs.get('to') ?? ''
    const { stock, truth, leases, grantedAt } = this.#host
    const payload = payloadOf(message)
    const sent = stock.withPayload(payload)
    if (sent === undefined) throw new Violation(`${payload} is given to ${to}, and nobody sent it`)
    if (!this.#messages.delivered(message, sent, truth.original(payload), now)) return
    const { token } = leases.handedPlainly(to, payload)
    this.consumers.delivered(to, { token, payload, topic: sent.topic, grantedAt: grantedAt(token) }, now)
  }

  /** What left is looked through. */
  check(now: number): void {
    this.consumers.check()
    this.#messages.check(now)
  }
}
