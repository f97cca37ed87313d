/**
 * Clients that know nothing but mod_xmq, by a script: producers of messages, and sessions that subscribe.
 *
 * A session answers pings, or does not; sends presence, or does not; renews, or lets its time run out; takes what it gets, or sends it
 * back. What it has really got is told to whoever judges.
 */
import { element, findChild, isPing, stanza, writeElement, type XmlElement } from '@xmq/protocol'
import { Answerer, isRequest } from './answerer.ts'
import { makeMessage, type SentItem, TOPICS } from './items.ts'
import type { ClientHost } from './scripted.ts'

const NS_STANZAS = 'urn:ietf:params:xml:ns:xmpp-stanzas'
const TTLS = ['0', '2', '5', '20', '20', '20'] as const
const LOADS = ['0', '1', '50', '90', '91', '100'] as const

/** Publishes by message, and never again: nobody confirms anything to it. */
export class PlainProducer {
  readonly jid: string
  readonly #host: ClientHost
  readonly #onSent: (item: SentItem) => void

  constructor(jid: string, host: ClientHost, onSent: (item: SentItem) => void) {
    this.jid = jid
    this.#host = host
    this.#onSent = onSent
  }

  publish(): void {
    const { random, queue, id, send } = this.#host
    for (let count = random.pick([1, 1, 2, 5]); count > 0; count--) {
      const message = makeMessage(random, queue, this.jid.slice(0, this.jid.indexOf('/')), id)
      this.#onSent(message)
      send(this.jid, message.original as XmlElement)
    }
  }
}

/** What a plain session needs beside what all clients do. */
export interface PlainHost extends ClientHost {
  /** A message has come, with this content. */
  readonly onGot: (jid: string, payload: string) => void
}

/** See the top of this file. */
export class PlainSession {
  readonly jid: string
  isAlive = true
  readonly #host: PlainHost
  readonly #pings: 'answers' | 'unsupported' | 'silent'
  readonly #renews: boolean
  readonly #returns: boolean
  readonly #topics: readonly string[]
  readonly #answerer: Answerer

  /** @param topics to subscribe to, when it does not choose them itself: one that serves them for good */
  constructor(jid: string, host: PlainHost, topics?: readonly string[]) {
    const { random } = host
    this.jid = jid
    this.#host = host
    this.#pings =
      topics === undefined ? random.pick(['answers', 'answers', 'answers', 'unsupported', 'silent']) : 'answers'
    this.#renews = topics !== undefined || random.chance(0.7)
    this.#returns = topics === undefined && random.chance(0.15)
    this.#topics = topics ?? [...new Set([random.pick(TOPICS), random.pick(TOPICS), random.pick(TOPICS)])]
    this.#answerer = new Answerer(jid, host, () => this.isAlive)
    if (topics !== undefined || random.chance(0.7)) host.send(jid, stanza('presence', { to: host.queue }))
    this.#subscribe(topics !== undefined)
    this.#renew(topics !== undefined)
  }

  /** @param isSteady it takes all, and for long */
  #subscribe(isSteady: boolean): void {
    const { random } = this.#host
    for (const topic of this.#topics) {
      const ttl = isSteady ? '60' : random.pick(TTLS)
      this.#command({ command: 'sub', topic, ttl, load: isSteady ? '0' : random.pick(LOADS) })
    }
  }

  #renew(isSteady: boolean): void {
    const { random } = this.#host
    this.#host.at(isSteady ? 20_000 : 1_000 + random.gap(4_000), () => {
      if (!this.isAlive) return
      if (this.#renews) this.#subscribe(isSteady)
      this.#renew(isSteady)
    })
  }

  /** Gives up a topic. */
  leave(): void {
    const { random } = this.#host
    const topic = random.pick(this.#topics)
    this.#command(random.chance(0.8) ? { command: 'del', topic } : { command: 'sub', topic, ttl: '-1', load: '0' })
  }

  #command(attrs: Readonly<Record<string, string>>): void {
    const { id, queue, send } = this.#host
    send(this.jid, stanza('iq', { type: 'set', id: id(), to: queue }, [element('xmq', 'xmq:command', attrs)]))
  }

  receive(incoming: XmlElement): void {
    const type = incoming.attrs.get('type')
    if (incoming.name === 'message') {
      if (type !== 'error') this.#take(incoming)
      return
    }
    if (type === 'result' || type === 'error') return
    if (isPing(incoming)) this.#pong(incoming)
    else if (isRequest(incoming)) this.#answerer.take(incoming)
  }

  #take(message: XmlElement): void {
    const { random, queue, onGot, send, isCalm } = this.#host
    if (findChild(message, 'xmq', 'xmq:topic') === undefined) return
    if (this.#returns && !isCalm() && random.chance(0.2)) {
      const error = element('error', 'jabber:client', { type: 'cancel' }, [element('service-unavailable', NS_STANZAS)])
      send(this.jid, stanza('message', { type: 'error', id: message.attrs.get('id'), to: queue }, [error]))
      return
    }
    onGot(this.jid, payloadOf(message))
  }

  #pong(iq: XmlElement): void {
    if (this.#pings === 'silent') return
    const head = { id: iq.attrs.get('id'), to: iq.attrs.get('from') }
    if (this.#pings === 'answers') {
      this.#host.send(this.jid, stanza('iq', { type: 'result', ...head }))
      return
    }
    const error = element('error', 'jabber:client', { type: 'cancel' }, [element('service-unavailable', NS_STANZAS)])
    this.#host.send(this.jid, stanza('iq', { type: 'error', ...head }, [error]))
  }
}

/** The content of a message, wherever it stands: a word that no other message has. */
export function payloadOf(message: XmlElement): string {
  return /<(?:body|p)[^>]*>(i\d+)</.exec(writeElement(message))?.[1] ?? ''
}
