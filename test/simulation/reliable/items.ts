/** What producers send, whoever they are: items with a payload that nobody else has. */
import { element, stanza, type XmlElement } from '@xmq/protocol'
import type { Random } from '../random.ts'

export const TOPICS = ['a', 'b', 'c.d', 'c.e'] as const
export const FILTERS = ['a', 'a', 'b', 'c.*', 'c.>', '>', '>'] as const
const KEYS = [undefined, undefined, 'k', 'l'] as const

/** What a producer sends under one id. */
export interface SentItem {
  readonly queue: string
  readonly id: string
  /** Bare JID. */
  readonly sender: string
  readonly topic: string
  readonly key: string | undefined
  readonly priority: number
  readonly delayMs: number
  readonly ttlMs: number | undefined
  readonly payload: string
  /** Of a plain message: as its producer sends it. Its `id` is its payload, and no item's. */
  readonly original?: XmlElement
}

/** An item at random. @param id gives one that nobody had */
export function makeItem(random: Random, queue: string, sender: string, id: () => string): SentItem {
  const key = random.pick(KEYS)
  const isPlain = key !== undefined || random.chance(0.6)
  const delayMs = isPlain ? 0 : random.pick([0, 500, 3_000])
  return {
    queue,
    id: id(),
    sender,
    topic: random.pick(TOPICS),
    key,
    priority: isPlain ? 0 : random.int(10),
    delayMs,
    ttlMs: random.chance(0.15) ? delayMs + random.pick([200, 2_000, 10_000]) : undefined,
    payload: id(),
  }
}

/** What a worker subscribes to. */
export interface Wanted {
  readonly topic: string
  /** Of a durable subscription. */
  readonly name?: string | undefined
}

/** What the queue calls an item: a plain message has no id that counts. */
export function itemIdOf({ id, original }: SentItem): string | undefined {
  return original === undefined ? id : undefined
}

/** A plain message at random. @param sender bare JID */
export function makeMessage(random: Random, queue: string, sender: string, id: () => string): SentItem {
  const topic = random.pick(TOPICS)
  const payload = id()
  const isNested = random.chance(0.4)
  const children: XmlElement[] = []
  if (random.chance(0.2)) children.push(element('subject', 'jabber:client', undefined, ['Subj']))
  if (!isNested) children.push(element('body', 'jabber:client', undefined, [payload]))
  if (random.chance(0.2)) children.push(element('extra', 'urn:y', { n: '1' }, [element('deep', 'urn:z')]))
  if (random.chance(0.1)) children.push(...forgeries())
  const inside = isNested ? [element('p', 'urn:x', undefined, [payload])] : []
  children.splice(random.int(children.length + 1), 0, element('xmq', 'xmq:topic', { topic }, inside))
  const head = {
    type: random.pick(['chat', 'normal', 'headline', undefined]),
    id: random.chance(0.8) ? id() : undefined,
    to: queue,
    'xml:lang': random.chance(0.2) ? 'en' : undefined,
  }
  const original = stanza('message', head, children)
  const plain = { queue, id: payload, sender, topic, key: undefined, priority: 0, delayMs: 0, ttlMs: undefined }
  return { ...plain, payload, original }
}

/** What nobody but a queue, or an archive, may say. */
function forgeries(): XmlElement[] {
  const address = element('address', 'http://jabber.org/protocol/address', { type: 'ofrom', jid: 'forged@localhost/x' })
  return [
    element('addresses', 'http://jabber.org/protocol/address', undefined, [address]),
    element('stanza-id', 'urn:xmpp:sid:0', { id: 'forged', by: 'localhost' }),
  ]
}
