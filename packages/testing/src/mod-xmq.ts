/**
 * mod_xmq, imitated: queue domains that the server serves by itself as the original ejabberd module does, faults included, to
 * test clients against. The numbers are those of the list in the tests; what they call a fault, XMQ's own broker does better.
 * Sole owner of its subscriptions.
 *
 * Invariants:
 * 1. A subscription is one of (host, user, resource, topic, queue); subscribing again replaces ttl and load.
 * 2. Nobody gets a result from the module itself: it answers with errors or not at all.
 */
import { createHash } from 'node:crypto'
import {
  childElements,
  LOAD_ELIGIBLE_MAX,
  NS_CLIENT,
  NS_COMMAND,
  NS_TOPIC,
  tryParseJid,
  withAttrs,
  type Jid,
  type XmlElement,
} from '@xmq/protocol'
import type { ServerError } from './stanza-errors.ts'

/** What the module needs of its server. */
export interface ModXmqPorts {
  /** Wall clock, milliseconds. */
  readonly now: () => number
  readonly isLocal: (domain: string) => boolean
  readonly route: (stanza: XmlElement) => void
  readonly bounce: (stanza: XmlElement, error: ServerError) => void
}

interface Subscription {
  readonly user: string
  readonly resource: string
  readonly host: string
  readonly topic: string
  readonly queue: string
  /** Where it stands in the table: Erlang's hash order is no order that anybody meant. */
  readonly hash: string
  /** Last second of its life, in whole seconds since 1970. */
  readonly untilSeconds: number
  readonly load: number
}

const INVALID_COMMAND: ServerError = { type: 'auth', condition: 'not-authorized', text: 'Invalid xmq command' }
const NO_TOPIC: ServerError = { type: 'modify', condition: 'not-acceptable', text: 'XMQ topic not found' }
const NOBODY: ServerError = { type: 'modify', condition: 'not-acceptable', text: 'No recipients found' }

const COMMAND_ATTRS = 'command,topic,ttl,load'
const SWEEP_SECONDS = 10
const SUBSCRIPTIONS_MAX = 100_000

/** The module, serving every queue that it is given. */
export class ModXmq {
  readonly #queues: ReadonlyMap<string, string>
  readonly #ports: ModXmqPorts
  readonly #table = new Map<string, Subscription>()
  #turn = 0
  #sweptSeconds = 0

  /** @param queues types by queue domain */
  constructor(queues: ReadonlyMap<string, string>, ports: ModXmqPorts) {
    this.#queues = queues
    this.#ports = ports
  }

  /** Rows of the table, expired ones counted until they are swept. */
  get size(): number {
    return this.#table.size
  }

  /** Takes a stanza to a queue domain; node and resource of `to` are ignored (24). */
  handle(stanza: XmlElement): void {
    const queue = tryParseJid(stanza.attrs.get('to') ?? '')?.domain
    const from = tryParseJid(stanza.attrs.get('from') ?? '')
    // 26: a sender from elsewhere, a component for instance, hears nothing.
    if (queue === undefined || from === undefined || !this.#ports.isLocal(from.domain)) return
    if (stanza.name === 'presence') return // 23
    this.#sweep()
    const children = childElements(stanza)
    const [only] = children
    if (stanza.name === 'iq' && children.length === 1 && only?.ns === NS_COMMAND) {
      this.#command(stanza, only, queue, from)
      return
    }
    const topic = stanza.name === 'iq' ? topicOfIq(children) : topicOfMessage(children)
    if (topic === undefined)
      this.#ports.bounce(stanza, NO_TOPIC) // 15 to 18, 28
    else this.#forward(stanza, topic, queue, from)
  }

  /** 25: a session's end removes by user and resource, whoever has that resource by then. */
  sessionEnded(jid: Jid): void {
    for (const [key, row] of this.#table) {
      if (row.user === jid.local && row.resource === jid.resource && row.host === jid.domain) this.#table.delete(key)
    }
  }

  #command(stanza: XmlElement, xmq: XmlElement, queue: string, from: Jid): void {
    // 2, 3, 7: the clause matches the attributes in one order, and no others.
    const names = [...xmq.attrs.keys()].join(',')
    if (stanza.attrs.get('type') !== 'set' || xmq.name !== 'xmq' || names !== COMMAND_ATTRS) {
      return this.#ports.bounce(stanza, INVALID_COMMAND)
    }
    const ttl = erlangInteger(xmq.attrs.get('ttl'))
    const load = erlangInteger(xmq.attrs.get('load'))
    // 4, 5, 6: `del` deletes nothing, an unknown command and a bad number crash the handler; no reply to anything (1).
    if (xmq.attrs.get('command') !== 'sub' || ttl === undefined || load === undefined) return
    const topic = xmq.attrs.get('topic') ?? ''
    const key = JSON.stringify([from.domain, from.local, from.resource, topic, queue])
    if (!this.#table.has(key) && this.#table.size >= SUBSCRIPTIONS_MAX) return
    const hash = createHash('sha1').update(key).digest('hex')
    const untilSeconds = this.#nowSeconds() + ttl
    const { local: user, resource, domain: host } = from
    this.#table.set(key, { user, resource, host, topic, queue, hash, untilSeconds, load })
  }

  #forward(stanza: XmlElement, topic: string, queue: string, from: Jid): void {
    const now = this.#nowSeconds()
    const there = [...this.#table.values()].filter(
      (row) =>
        row.host === from.domain && // 26
        row.queue === queue &&
        row.topic === topic &&
        row.untilSeconds >= now && // 8
        row.load <= LOAD_ELIGIBLE_MAX, // 9
    )
    const type = this.#queues.get(queue)
    if (type === 'all') {
      // 13: nobody there is no reason to answer. 14: a request goes to all under the same id.
      for (const row of there) this.#deliver(stanza, row)
    } else if (type === 'any') {
      // 11: one counter for all queues and topics, advanced even with nobody there.
      const turn = this.#turn++
      there.sort((left, right) => (left.hash < right.hash ? -1 : 1))
      const row = there[turn % Math.max(1, there.length)]
      if (row === undefined) this.#ports.bounce(stanza, NOBODY)
      else this.#deliver(stanza, row)
    } // 27: another type answers nothing.
  }

  /** 19: everything as it was, `from` the producer: so answers and bounces go straight to it (20, 21). */
  #deliver(stanza: XmlElement, row: Subscription): void {
    this.#ports.route(withAttrs(stanza, { to: `${row.user}@${row.host}/${row.resource}` }))
  }

  /** 10. Expiry is checked on selection as well, so that it needs no timer. */
  #sweep(): void {
    const now = this.#nowSeconds()
    if (now - this.#sweptSeconds < SWEEP_SECONDS) return
    this.#sweptSeconds = now
    for (const [key, row] of this.#table) if (row.untilSeconds < now) this.#table.delete(key)
  }

  #nowSeconds(): number {
    return Math.floor(this.#ports.now() / 1000)
  }
}

/** 16: a message has body, subject, thread and xmq, and nothing else. */
function topicOfMessage(children: readonly XmlElement[]): string | undefined {
  let topic: string | undefined
  for (const child of children) {
    if (child.name === 'xmq' && child.ns === NS_TOPIC) {
      topic ??= topicOf(child)
      if (topic === undefined) return undefined
    } else if (child.ns !== NS_CLIENT || !['body', 'subject', 'thread'].includes(child.name)) return undefined
  }
  return topic
}

/** 17: `[xmq]` or `[anything, xmq]`, in this order. */
function topicOfIq(children: readonly XmlElement[]): string | undefined {
  const last = children.at(-1)
  return children.length > 2 || last === undefined ? undefined : topicOf(last)
}

/** 15, 18: the attribute `topic` and no other; empty is a topic. */
function topicOf(xmq: XmlElement): string | undefined {
  return xmq.name === 'xmq' && xmq.ns === NS_TOPIC && xmq.attrs.size === 1 ? xmq.attrs.get('topic') : undefined
}

function erlangInteger(text: string | undefined): number | undefined {
  return text !== undefined && /^[+-]?\d{1,15}$/.test(text) ? Number(text) : undefined
}
