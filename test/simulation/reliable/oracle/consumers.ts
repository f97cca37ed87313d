/**
 * Who consumes, by what has arrived of each: its subscriptions, its credit, and what it has been given. One life of the broker.
 *
 * 1. Nobody is given what it never asked for, or anything after its last subscription.
 * 2. Nobody has more than the credit that it gave since the message was granted to it.
 */
import { childElements, matchesPattern, type XmlElement } from '@xmq/protocol'
import { Violation } from '../../violation.ts'
import type { Knowledge } from './entry.ts'

interface Consumer {
  /** The last one is in force. */
  readonly credits: { readonly credit: number; until: number }[]
  /** Tokens delivered and not ended. */
  readonly out: Set<string>
  /** Subscriptions that it has, as far as it has said, */
  readonly filters: Set<string>
  /** and had: what was asked for one may come after its end. */
  readonly everWanted: Set<string>
}

/** See the top of this file. */
export class Consumers {
  readonly #knowledge: Knowledge
  readonly #byJid = new Map<string, Consumer>()
  readonly #grants = new Map<string, number>()

  constructor(knowledge: Knowledge) {
    this.#knowledge = knowledge
  }

  /** A command arrives. */
  command(from: string, xmq: XmlElement, now: number): void {
    const topic = xmq.attrs.get('topic') ?? ''
    if (xmq.attrs.get('command') === 'del') this.#byJid.get(from)?.filters.delete(topic)
    if (xmq.attrs.get('command') !== 'sub') return
    const consume = childElements(xmq).find((child) => child.name === 'consume')
    if (consume === undefined) return
    const { filters, everWanted } = this.#consumer(from)
    filters.add(topic)
    everWanted.add(topic)
    this.credit(from, consume, now)
  }

  /** A consumer says how much it takes. */
  credit(from: string, terms: XmlElement, now: number): void {
    const { credits } = this.#consumer(from)
    const last = credits.at(-1)
    if (last !== undefined) last.until = now
    credits.push({ credit: Number(terms.attrs.get('credit')), until: Number.POSITIVE_INFINITY })
  }

  /** The core asks for a lease. */
  granted(token: string, now: number): void {
    this.#grants.set(token, now)
  }

  /** A lease has ended, or is in other hands. */
  letGo(token: string): void {
    for (const { out } of this.#byJid.values()) out.delete(token)
  }

  /** Whoever refuses has to subscribe anew. */
  refused(jid: string): void {
    this.#byJid.get(jid)?.filters.clear()
  }

  /** A leased message is on its way to a consumer. */
  delivered(to: string, token: string, seq: number, topic: string): void {
    const consumer = this.#byJid.get(to)
    if (consumer === undefined || ![...consumer.everWanted].some((filter) => matchesPattern(filter, topic)))
      throw new Violation(`${to} never subscribed to ${topic}`)
    if (consumer.filters.size === 0) throw new Violation(`${to} is given ${seq} after its last subscription`)
    consumer.out.add(token)
    const askedAt = this.#grants.get(token) ?? 0
    const credit = Math.max(...consumer.credits.filter(({ until }) => until >= askedAt).map((one) => one.credit))
    if (consumer.out.size > credit) throw new Violation(`${to} has ${consumer.out.size} of ${credit}`)
    if (consumer.out.size === credit) this.#knowledge.note('credit used up')
  }

  #consumer(jid: string): Consumer {
    let consumer = this.#byJid.get(jid)
    if (consumer === undefined) {
      consumer = { credits: [], out: new Set(), filters: new Set(), everWanted: new Set() }
      this.#byJid.set(jid, consumer)
    }
    return consumer
  }
}
