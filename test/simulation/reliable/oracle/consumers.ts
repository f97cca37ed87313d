/**
 * Who consumes, by what has arrived of each: its subscriptions, its credit, and what it has been given. One life of the broker.
 *
 * 1. Nobody is given what it never asked for, or anything after its last subscription.
 * 2. Nobody has more messages and requests than the credit that it gave since the message was granted to it, or gets one while it says
 *    that it is full.
 */
import { childElements, LOAD_ELIGIBLE_MAX, matchesPattern, type XmlElement } from '@xmq/protocol'
import type { CoreEvent } from '../../../../packages/broker/src/core/port.ts'
import { Violation } from '../../violation.ts'
import type { Knowledge } from './entry.ts'

interface Wanted {
  readonly topic: string
  /** Of a durable subscription; else `''`. */
  readonly name: string
}

interface Credit {
  readonly credit: number
  readonly load: number
  until: number
}

type Subscribed = Extract<CoreEvent, { readonly name: 'subscribed' }>

interface Consumer {
  /** The last one is in force, and those before whose `until` is to come. */
  readonly credits: Credit[]
  /** What came with subs that wait for the store, by their topic, in their order. */
  readonly offered: Map<string, Credit[]>
  /** How it has said that its deliveries may come, since this life of the broker began. */
  readonly encodings: Set<string | undefined>
  /** Tokens delivered and not ended. */
  readonly out: Set<string>
  /** Subscriptions that it has, as far as it has said, with their names, */
  readonly filters: Map<string, string>
  /** and had: what was asked for one may come after its end. */
  readonly everWanted: Map<string, Wanted>
}

/** What a consumer is given. */
export interface Given {
  readonly seq: number
  readonly topic: string
  /** Of the durable subscription that it is of; else `''`. */
  readonly name: string
}

/** See the top of this file. */
export class Consumers {
  readonly #knowledge: Knowledge
  readonly #byJid = new Map<string, Consumer>()
  readonly #grants = new Map<string, number>()
  /** By the core's word: which topics and patterns each is subscribed to. */
  readonly #listening = new Map<string, Set<string>>()

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
    const { filters, everWanted, encodings } = this.#consumer(from)
    encodings.add(consume.attrs.get('encoding'))
    const name = consume.attrs.get('name') ?? ''
    filters.set(topic, name)
    everWanted.set(`${topic} ${name}`, { topic, name })
    const load = xmq.attrs.get('load')
    if (name === '') this.credit(from, consume, load, now)
    else this.#offer(from, topic, consume, load)
  }

  /** A delivery leaves. */
  checkEncoding(to: string, deliver: XmlElement): void {
    const encoding = deliver.attrs.get('encoding')
    if (encoding === undefined || this.#byJid.get(to)?.encodings.has(encoding) === true) return
    throw new Violation(`${to} never asked for ${encoding}`)
  }

  /** A sub with a name waits for the store: until then both may be in force. */
  #offer(from: string, topic: string, terms: XmlElement, load: string | undefined): void {
    const { credits, offered } = this.#consumer(from)
    const credit = { credit: Number(terms.attrs.get('credit')), load: Number(load), until: Number.POSITIVE_INFINITY }
    credits.push(credit)
    const others = offered.get(topic)
    if (others === undefined) offered.set(topic, [credit])
    else others.push(credit)
  }

  /** A consumer says how much it takes, and how full it is. */
  credit(from: string, terms: XmlElement, load: string | undefined, now: number): void {
    const { credits } = this.#consumer(from)
    for (const credit of credits) credit.until = Math.min(credit.until, now)
    credits.push({ credit: Number(terms.attrs.get('credit')), load: Number(load), until: Number.POSITIVE_INFINITY })
  }

  /** The core asks for a lease. */
  granted(token: string, now: number): void {
    this.#grants.set(token, now)
  }

  /** What a JID was given and has not let go. */
  given(jid: string): readonly string[] {
    return [...(this.#byJid.get(jid)?.out ?? [])]
  }

  /** When the core asked for a lease. */
  grantedAt(token: string): number {
    return this.#grants.get(token) ?? 0
  }

  /** A lease or a request has ended, or is in other hands. */
  letGo(token: string): void {
    for (const { out } of this.#byJid.values()) out.delete(token)
  }

  /** The core tells of a subscription. One with a name waits for the store: what the session said since does not undo it. */
  subscribed({ consumer: jid, topic, load }: Subscribed, now: number): void {
    const consumer = this.#byJid.get(jid)
    if (consumer !== undefined) this.#listening.set(jid, (this.#listening.get(jid) ?? new Set()).add(topic))
    const accepted = takeOffered(consumer?.offered.get(topic), load)
    if (accepted !== undefined && consumer?.credits.includes(accepted) === true) {
      for (const credit of consumer.credits.slice(0, consumer.credits.indexOf(accepted)))
        credit.until = Math.min(credit.until, now)
      // Whatever was said while it waited: that may have been refused, and this is the last that was done.
      accepted.until = Number.POSITIVE_INFINITY
    }
    for (const wanted of consumer?.everWanted.values() ?? [])
      if (wanted.topic === topic && wanted.name !== '' && consumer?.filters.has(topic) === false)
        consumer.filters.set(topic, wanted.name)
  }

  /** Whether what a session last said of a topic is a subscription without a name, and nothing else before. */
  isEphemeral(jid: string, topic: string): boolean {
    const consumer = this.#byJid.get(jid)
    if (consumer?.filters.get(topic) !== '') return false
    for (const wanted of consumer.everWanted.values()) if (wanted.topic === topic && wanted.name !== '') return false
    return true
  }

  /** Whoever refuses has to subscribe anew. */
  refused(jid: string): void {
    this.#byJid.get(jid)?.filters.clear()
  }

  /** A leased message is on its way to a consumer. */
  delivered(to: string, token: string, { seq, topic, name }: Given): void {
    const consumer = this.#byJid.get(to)
    if (consumer === undefined || !hasWanted(consumer, topic, name))
      throw new Violation(`${to} never subscribed to ${topic}${name}`)
    if (consumer.filters.size === 0) throw new Violation(`${to} is given ${seq} after its last subscription`)
    this.#give(to, consumer, token, this.#grants.get(token) ?? 0)
    if (consumer.out.size === creditSince(consumer, this.#grants.get(token) ?? 0))
      this.#knowledge.note('credit used up')
  }

  /** A request is on its way to a consumer. */
  asked(to: string, hop: string, topic: string, now: number): void {
    const consumer = this.#byJid.get(to)
    if (consumer === undefined || ![...consumer.everWanted.values()].some((one) => matchesPattern(one.topic, topic)))
      throw new Violation(`${to} is asked of ${topic}, and never subscribed to it`)
    if (consumer.filters.size === 0) throw new Violation(`${to} is asked after its last subscription`)
    this.#give(to, consumer, hop, now)
  }

  /** @param askedAt what it has said since counts */
  #give(to: string, consumer: Consumer, what: string, askedAt: number): void {
    const { out, credits } = consumer
    out.add(what)
    const credit = creditSince(consumer, askedAt)
    if (out.size > credit) throw new Violation(`${to} has ${out.size} of ${credit}`)
    const load = Math.min(...credits.filter(({ until }) => until >= askedAt).map((one) => one.load))
    if (load > LOAD_ELIGIBLE_MAX) throw new Violation(`${to} is given something at a load of ${load}`)
  }

  /** Those whose subscriptions, by the core's word, mean a topic. */
  listeners(topic: string): readonly string[] {
    const jids: string[] = []
    for (const [jid, topics] of this.#listening)
      if ([...topics].some((one) => matchesPattern(one, topic))) jids.push(jid)
    return jids
  }

  /** The core tells that a subscription has ended. */
  unsubscribed(jid: string, topic: string): void {
    this.#listening.get(jid)?.delete(topic)
  }

  #consumer(jid: string): Consumer {
    let consumer = this.#byJid.get(jid)
    if (consumer === undefined) {
      consumer = {
        credits: [],
        offered: new Map(),
        encodings: new Set(),
        out: new Set(),
        filters: new Map(),
        everWanted: new Map(),
      }
      this.#byJid.set(jid, consumer)
    }
    return consumer
  }
}

/** Those before it were refused: they are done in their order. */
function takeOffered(offered: Credit[] | undefined, load: number): Credit | undefined {
  const at = offered?.findIndex((one) => one.load === load) ?? -1
  return at === -1 ? undefined : offered?.splice(0, at + 1).at(-1)
}

function creditSince({ credits }: Consumer, askedAt: number): number {
  return Math.max(...credits.filter(({ until }) => until >= askedAt).map((one) => one.credit))
}

function hasWanted({ everWanted }: Consumer, topic: string, name: string): boolean {
  for (const wanted of everWanted.values()) if (wanted.name === name && matchesPattern(wanted.topic, topic)) return true
  return false
}
