/**
 * A core with a hand on its clock: XML literals in, XML out. Random ids come as `r1`, `r2`, … in order.
 */
import { parseElement, writeElement, type XmlElement } from '@xmq/protocol'
import {
  type Core,
  type CoreEvent,
  type CoreRules,
  createCore,
  type Effect,
  type Input,
  type QueueRules,
  OVERLOAD_DEFAULTS,
  RELIABLE_DEFAULTS,
} from '../../src/core/index.ts'

/** Rules of one queue with wide limits. */
export function queueRules(address: string, changes: Partial<QueueRules> = {}): QueueRules {
  return {
    address,
    type: 'any',
    publish: ['localhost'],
    consume: ['localhost'],
    admins: [],
    preserveFrom: false,
    requestTimeoutMs: 30_000,
    ttlSecondsMax: 3600,
    payloadBytesMax: 10_000,
    topicsMax: 1000,
    subscriptionsPerJidMax: 1000,
    reliable: RELIABLE_DEFAULTS,
    ...changes,
  }
}

/** Rules of a broker with the queues `any.localhost`, `all.localhost`, `orders@xmq.localhost`. */
export function coreRules(changes: Partial<CoreRules> = {}): CoreRules {
  return {
    queues: [
      queueRules('any.localhost'),
      queueRules('all.localhost', { type: 'all' }),
      queueRules('orders@xmq.localhost'),
    ],
    domains: ['any.localhost', 'all.localhost', 'xmq.localhost'],
    subscriptionsMax: 100_000,
    openRequestsMax: 1000,
    openRequestsPerJidMax: 1000,
    pingTimeoutMs: 10_000,
    pingIntervalMs: 60_000,
    software: { name: 'XMQ', version: '0.1.0' },
    durability: 'memory',
    bodyBytesMax: 8 * 1024 * 1024,
    storingBytesMax: 64 * 1024 * 1024,
    overload: OVERLOAD_DEFAULTS,
    ...changes,
  }
}

/** The events of one name. */
export type EventNamed<N extends CoreEvent['name']> = Extract<CoreEvent, { name: N }>

/** See the top of this file. */
export class Conversation {
  readonly core: Core
  now: number
  /** Stanzas of the last step, as text. */
  sent: string[] = []
  /** Stanzas of the last step. */
  stanzas: XmlElement[] = []
  /** Events of the last step. */
  events: CoreEvent[] = []
  #ids = 0

  constructor(rules: CoreRules = coreRules(), now = 1_000_000) {
    this.core = createCore(rules)
    this.now = now
  }

  /** One input. */
  input(input: Input): this {
    const effects = this.core.handle(input, this.now, { id: () => `r${++this.#ids}`, unit: () => 0 })
    this.stanzas = effects
      .filter((effect): effect is Effect & { type: 'send' } => effect.type === 'send')
      .map((e) => e.stanza)
    this.sent = this.stanzas.map((stanza) => writeElement(stanza))
    this.events = effects
      .filter((effect): effect is Effect & { type: 'event' } => effect.type === 'event')
      .map((e) => e.event)
    return this
  }

  /** One stanza, as its XML. */
  receive(xml: string): this {
    return this.input({ type: 'stanza', stanza: parseElement(xml) })
  }

  /** Time goes on; deadlines on the way are met one by one. Gathers what they did. */
  wait(ms: number): this {
    const end = this.now + ms
    const sent: string[] = []
    const stanzas: XmlElement[] = []
    const events: CoreEvent[] = []
    for (let due = this.core.deadline; due !== undefined && due <= end; due = this.core.deadline) {
      this.now = Math.max(this.now, due)
      this.input({ type: 'tick' })
      sent.push(...this.sent)
      stanzas.push(...this.stanzas)
      events.push(...this.events)
    }
    this.now = end
    this.sent = sent
    this.stanzas = stanzas
    this.events = events
    return this
  }

  /** Subscribes and answers the ping that a first subscription brings. Checks nothing. */
  sub(worker: string, topic: string, { queue = 'any.localhost', ttl = 60, load = 1, answersPings = true } = {}): this {
    this.receive(
      `<iq type='set' id='sub' from='${worker}' to='${queue}'>` +
        `<xmq xmlns='xmq:command' command='sub' topic='${topic}' ttl='${ttl}' load='${load}'/></iq>`,
    )
    const ping = this.pingId()
    if (ping === undefined) return this
    if (answersPings) return this.receive(`<iq type='result' id='${ping}' from='${worker}' to='${queue}'/>`)
    return this.receive(bounce('iq', ping, worker, queue))
  }

  /** Ends a subscription. */
  del(worker: string, topic: string, queue = 'any.localhost'): this {
    return this.receive(
      `<iq type='set' id='del' from='${worker}' to='${queue}'><xmq xmlns='xmq:command' command='del' topic='${topic}'/></iq>`,
    )
  }

  /** Publishes a message with a body. */
  publish(
    topic: string,
    { queue = 'any.localhost', from = 'shop@localhost/1', body = 'hi', type = 'chat' } = {},
  ): this {
    return this.receive(
      `<message type='${type}' id='m' from='${from}' to='${queue}'><body>${body}</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`,
    )
  }

  /** Sends a nested request. */
  request(topic: string, { queue = 'any.localhost', from = 'shop@localhost/1', id = 'q1', type = 'get' } = {}): this {
    return this.receive(
      `<iq type='${type}' id='${id}' from='${from}' to='${queue}'><xmq xmlns='xmq:topic' topic='${topic}'><ask xmlns='urn:x'/></xmq></iq>`,
    )
  }

  /** Whom the stanzas of the last step went to. */
  get recipients(): string[] {
    return this.stanzas.map((stanza) => stanza.attrs.get('to') ?? '')
  }

  /** The id of the first ping in the last step. */
  pingId(): string | undefined {
    return this.stanzas
      .find((stanza) => stanza.children.some((c) => typeof c !== 'string' && c.name === 'ping'))
      ?.attrs.get('id')
  }

  /** The events of one name in the last step. */
  named<N extends CoreEvent['name']>(name: N): EventNamed<N>[] {
    return this.events.filter((event): event is EventNamed<N> => event.name === name)
  }
}

/** A stanza error. @param condition RFC 6120 8.3.3 */
export function errorXml(condition: string, type = 'cancel'): string {
  return `<error type='${type}'><${condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`
}

/** What a server answers on behalf of a full JID that is gone. */
export function bounce(
  name: 'iq' | 'message',
  id: string,
  from: string,
  to: string,
  condition = 'service-unavailable',
): string {
  return `<${name} type='error' id='${id}' from='${from}' to='${to}'>${errorXml(condition)}</${name}>`
}
