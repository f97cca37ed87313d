/**
 * Reliable consumers: their offer at `sub`, their renewal, the broker's call to subscribe again, and the end of a durable
 * subscription. docs/protocol-reliable.md "Consuming".
 *
 *     <xmq xmlns='xmq:command' command='sub' topic='T' ttl='60' load='12'><consume xmlns='xmq:queue:1' credit='16' name='billing'><worker …/></consume></xmq>
 *     <renew xmlns='xmq:queue:1' ttl='60' load='40' credit='16'/>  ->  <renewed xmlns='xmq:queue:1' subscriptions='2'/>
 *     <resubscribe xmlns='xmq:queue:1'/>
 *     <forget xmlns='xmq:queue:1' name='billing'/>
 */
import { element, findChild, type XmlElement } from '../element.ts'
import { TTL_SECONDS_MAX } from '../limits.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { assertInteger, assertQueueElement, assertText, optionalText, requiredInteger, requiredText } from './fields.ts'
import { CREDIT_MAX, SUBSCRIPTION_NAME_BYTES_MAX, WORKER_BYTES_MAX } from './limits.ts'

/** What a worker tells of itself, for operators. All of it optional, none of it believed. */
export interface WorkerInfo {
  /** The worker's name: `thumbnails`. */
  readonly name?: string | undefined
  /** Its own version. */
  readonly version?: string | undefined
  readonly host?: string | undefined
  readonly pid?: string | undefined
  /** What speaks the protocol: `@xmq/client 1.0.0`. */
  readonly sdk?: string | undefined
}

/** What makes a `sub` reliable. */
export interface Consume {
  /** Most deliveries and open requests, all subscriptions of this session together, that are not settled: 0 to 10000. */
  readonly credit: number
  /** In an `all` queue: the durable subscription to join, or to make. */
  readonly name?: string | undefined
  /** The encoding in which its deliveries may come, beside elements: see `ItemCodec`. One that is not known means none. */
  readonly encoding?: string | undefined
  readonly worker?: WorkerInfo | undefined
}

const WORKER_FIELDS = ['name', 'version', 'host', 'pid', 'sdk'] as const satisfies readonly (keyof WorkerInfo)[]

/** Writes `<consume/>`, to stand inside the `sub` command (`encodeCommand`). @throws XmqError `bad-request` */
export function encodeConsume(consume: Consume): XmlElement {
  const { credit, name, encoding, worker } = consume
  assertInteger(credit, 'credit', 'consume', 0, CREDIT_MAX)
  if (name !== undefined) assertText(name, 'name', 'consume', SUBSCRIPTION_NAME_BYTES_MAX)
  return element('consume', NS_QUEUE, { credit: String(credit), name, encoding }, [worker && encodeWorker(worker)])
}

function encodeWorker(worker: WorkerInfo): XmlElement {
  const attrs: Record<string, string | undefined> = {}
  for (const field of WORKER_FIELDS) {
    const value = worker[field]
    if (value !== undefined) assertText(value, field, 'worker', WORKER_BYTES_MAX)
    attrs[field] = value
  }
  return element('worker', NS_QUEUE, attrs)
}

/**
 * The `<consume/>` inside a `sub` command; `undefined` when there is none: a plain consumer.
 * @throws XmqError `bad-request` naming the attribute that is wrong
 */
export function decodeConsume(command: XmlElement): Consume | undefined {
  const consume = findChild(command, 'consume', NS_QUEUE)
  if (consume === undefined) return undefined
  const credit = requiredInteger(consume, 'credit', 0, CREDIT_MAX)
  const name = optionalText(consume, 'name', SUBSCRIPTION_NAME_BYTES_MAX)
  const encoding = consume.attrs.get('encoding')
  const worker = findChild(consume, 'worker')
  return {
    credit,
    ...(name === undefined ? {} : { name }),
    ...(encoding === undefined ? {} : { encoding }),
    ...(worker === undefined ? {} : { worker: decodeWorker(worker) }),
  }
}

function decodeWorker(worker: XmlElement): WorkerInfo {
  const info: { -readonly [Field in keyof WorkerInfo]: string } = {}
  for (const field of WORKER_FIELDS) {
    const value = optionalText(worker, field, WORKER_BYTES_MAX)
    if (value !== undefined) info[field] = value
  }
  return info
}

/** All subscriptions of a session, again. */
export interface Renew {
  /** Lifetime in whole seconds from now on, at least 1. */
  readonly ttlSeconds: number
  /** 0 (idle) to 100 (full); above 90 nothing is delivered. */
  readonly load: number
  readonly credit: number
}

/** Writes `<renew/>`. @throws XmqError `bad-request` */
export function encodeRenew({ ttlSeconds, load, credit }: Renew): XmlElement {
  assertInteger(ttlSeconds, 'ttl', 'renew', 1, TTL_SECONDS_MAX)
  assertInteger(load, 'load', 'renew', 0, 100)
  assertInteger(credit, 'credit', 'renew', 0, CREDIT_MAX)
  return element('renew', NS_QUEUE, { ttl: String(ttlSeconds), load: String(load), credit: String(credit) })
}

/** Reads `<renew/>`. @throws XmqError `bad-request` */
export function decodeRenew(renew: XmlElement): Renew {
  assertQueueElement(renew, 'renew')
  return {
    ttlSeconds: requiredInteger(renew, 'ttl', 1, TTL_SECONDS_MAX),
    load: requiredInteger(renew, 'load', 0, 100),
    credit: requiredInteger(renew, 'credit', 0, CREDIT_MAX),
  }
}

/** Writes `<renewed/>`. @param subscriptions how many the session has; `epoch` who answers: `epochOf` reads it */
export function encodeRenewed(subscriptions: number, epoch?: string): XmlElement {
  return element('renewed', NS_QUEUE, { subscriptions: String(subscriptions), epoch })
}

/** How many subscriptions the broker knows. @throws XmqError `bad-request` */
export function decodeRenewed(renewed: XmlElement): { readonly subscriptions: number } {
  assertQueueElement(renewed, 'renewed')
  return { subscriptions: requiredInteger(renewed, 'subscriptions', 0, Number.MAX_SAFE_INTEGER) }
}

/**
 * Writes `<resubscribe/>`: the broker has started anew; subscribe again, and say with `extend` what you hold.
 * @param epoch who calls: `epochOf` reads it
 */
export function encodeResubscribe(epoch?: string): XmlElement {
  return element('resubscribe', NS_QUEUE, { epoch })
}

/** Whether an IQ set is the broker's `<resubscribe/>`. */
export function isResubscribe(iq: XmlElement): boolean {
  return iq.attrs.get('type') === 'set' && findChild(iq, 'resubscribe', NS_QUEUE) !== undefined
}

/** Writes `<forget/>`: a durable subscription of the sender's bare JID ends, with all that waits in it. @throws XmqError */
export function encodeForget(name: string): XmlElement {
  assertText(name, 'name', 'forget', SUBSCRIPTION_NAME_BYTES_MAX)
  return element('forget', NS_QUEUE, { name })
}

/** Reads `<forget/>`. @throws XmqError `bad-request` */
export function decodeForget(forget: XmlElement): { readonly name: string } {
  assertQueueElement(forget, 'forget')
  return { name: requiredText(forget, 'name', SUBSCRIPTION_NAME_BYTES_MAX) }
}
