/**
 * Items as elements, one each: the {@link ItemCodec} that everyone speaks.
 *
 *     <item id='..' topic='T' [key='..'] [priority='5'] [delay='30'] [ttl='3600']>HEADERS? PAYLOAD</item>
 *     <item lease='..' seq='..' [id='..'] topic='T' from='producer@d/r' at='..' attempt='3' [failures='1']>HEADERS? ENVELOPE? PAYLOAD</item>
 */
import type { XmlElement } from '../element.ts'
import { XmqError } from '../errors.ts'
import { TOPIC_BYTES_MAX } from '../limits.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { assertTopic } from '../topic.ts'
import { flat, type ItemContent, readContent } from './content.ts'
import {
  assertInteger,
  assertMs,
  assertText,
  attrBytes,
  formatSeconds,
  instantText,
  optionalInteger,
  optionalSeconds,
  optionalText,
  requiredInstant,
  requiredInteger,
  requiredText,
  writeAttr,
} from './fields.ts'
import type { DeliveredItem, ItemCodec, ItemResult, PublishItem } from './item.ts'
import { BATCH_ITEMS_MAX, DELAY_MS_MAX, ID_BYTES_MAX, JID_BYTES_MAX, KEY_BYTES_MAX, PRIORITY_MAX } from './limits.ts'
import { WrittenItem } from './written.ts'

/** Bytes of `<item></item>`. */
const ITEM_BYTES = 13

/** See the file's head. */
export const XML_ITEMS: ItemCodec = Object.freeze({
  encoding: undefined,
  writePublishItem,
  writeDeliveredItem,
  readPublishItems: (publish) => readItems(publish, readPublishItem),
  readDeliveredItems: (deliver) => readItems(deliver, readDeliveredItem),
} satisfies ItemCodec)

/** What an item has to be in any encoding. @throws XmqError `bad-request` */
export function assertPublishItem({ id, topic, key, priority, delayMs, ttlMs }: PublishItem): void {
  assertText(id, 'id', 'item', ID_BYTES_MAX)
  assertTopic(topic)
  if (key !== undefined) assertText(key, 'key', 'item', KEY_BYTES_MAX)
  assertInteger(priority, 'priority', 'item', 0, PRIORITY_MAX)
  assertMs(delayMs, 'delay', 'item', 0, DELAY_MS_MAX)
  if (ttlMs === undefined) return
  assertMs(ttlMs, 'ttl', 'item', 1, DELAY_MS_MAX)
  assertDelayBeforeTtl(delayMs, ttlMs)
}

function writePublishItem(item: PublishItem): WrittenItem {
  assertPublishItem(item)
  const { id, topic, key, priority, delayMs, ttlMs } = item
  let text = `<item${writeAttr('id', id, 'item')}${writeAttr('topic', topic, 'item')}`
  let bytes = ITEM_BYTES + attrBytes('id', id) + attrBytes('topic', topic)
  const add = (name: string, value: string): void => {
    text += writeAttr(name, value, 'item')
    bytes += attrBytes(name, value)
  }
  if (key !== undefined) add('key', key)
  if (priority !== 0) add('priority', String(priority))
  if (delayMs !== 0) add('delay', formatSeconds(delayMs))
  if (ttlMs !== undefined) add('ttl', formatSeconds(ttlMs))
  // It may wait for long among thousands: a concatenation would keep a dozen objects alive.
  return finish(text, bytes, item.content, true)
}

function writeDeliveredItem(item: DeliveredItem): WrittenItem {
  const { lease, id, topic, from } = item
  const seq = String(item.seq)
  const at = instantText(item.at, 'at', 'item')
  const attempt = String(item.attempt)
  const failures = item.failures > 0 ? ` failures='${item.failures}'` : ''
  const head = `<item${writeAttr('lease', lease, 'item')} seq='${seq}'${id === undefined ? '' : writeAttr('id', id, 'item')}`
  const tail = `${writeAttr('topic', topic, 'item')}${writeAttr('from', from, 'item')} at='${at}' attempt='${attempt}'${failures}`
  const bytes =
    ITEM_BYTES +
    attrBytes('lease', lease) +
    (7 + seq.length) +
    (id === undefined ? 0 : attrBytes('id', id)) +
    attrBytes('topic', topic) +
    attrBytes('from', from) +
    (6 + at.length) +
    (11 + attempt.length) +
    failures.length
  return finish(head + tail, bytes, item.content)
}

function finish(start: string, bytes: number, content: ItemContent, isKept = false): WrittenItem {
  const { body, extras } = content
  const text = body === '' && extras === '' ? `${start}/>` : `${start}>${extras}${body}</item>`
  return new WrittenItem(isKept ? flat(text) : text, bytes + content.bytes)
}

/** @throws XmqError `bad-request` */
export function assertDelayBeforeTtl(delayMs: number, ttlMs: number): void {
  if (delayMs < ttlMs) return
  throw new XmqError(
    'bad-request',
    `Attribute 'delay' of <item> is ${delayMs / 1000} s, but its ttl ends after ${ttlMs / 1000} s; make the ttl longer.`,
  )
}

function readPublishItem(item: XmlElement): PublishItem {
  const id = requiredText(item, 'id', ID_BYTES_MAX)
  const topic = readTopic(item)
  const key = optionalText(item, 'key', KEY_BYTES_MAX)
  const priority = optionalInteger(item, 'priority', 0, PRIORITY_MAX) ?? 0
  const delayMs = optionalSeconds(item, 'delay', 0, DELAY_MS_MAX) ?? 0
  const ttlMs = optionalSeconds(item, 'ttl', 1, DELAY_MS_MAX)
  if (ttlMs !== undefined) assertDelayBeforeTtl(delayMs, ttlMs)
  return { id, topic, key, priority, delayMs, ttlMs, content: readContent(item, false) }
}

function readDeliveredItem(item: XmlElement): DeliveredItem {
  return {
    lease: requiredText(item, 'lease', ID_BYTES_MAX),
    seq: requiredInteger(item, 'seq', 1, Number.MAX_SAFE_INTEGER),
    id: optionalText(item, 'id', ID_BYTES_MAX),
    topic: readTopic(item),
    from: requiredText(item, 'from', JID_BYTES_MAX),
    at: requiredInstant(item, 'at'),
    attempt: requiredInteger(item, 'attempt', 1, Number.MAX_SAFE_INTEGER),
    failures: optionalInteger(item, 'failures', 0, Number.MAX_SAFE_INTEGER) ?? 0,
    content: readContent(item, true),
  }
}

function readTopic(item: XmlElement): string {
  const topic = item.attrs.get('topic')
  if (topic === undefined) {
    throw new XmqError(
      'topic-required',
      `Attribute 'topic' of <item> is missing; expected 1 to ${TOPIC_BYTES_MAX} bytes.`,
    )
  }
  assertTopic(topic)
  return topic
}

function readItems<Item>(container: XmlElement, read: (item: XmlElement) => Item): ItemResult<Item>[] {
  const items = itemsOf(container)
  if (items.length === 0) throw new XmqError('bad-request', `<${container.name}> has no <item>; expected at least one.`)
  return items.map((item) => {
    try {
      return { ok: true, item: read(item) }
    } catch (error) {
      return { ok: false, id: readable(item, 'id'), lease: readable(item, 'lease'), error: XmqError.from(error) }
    }
  })
}

function readable(item: XmlElement, name: string): string | undefined {
  try {
    return optionalText(item, name, ID_BYTES_MAX)
  } catch {
    return undefined
  }
}

/** The items of a batch, of any kind. @throws XmqError `too-large` when they are too many */
export function itemsOf(container: XmlElement): XmlElement[] {
  const items: XmlElement[] = []
  for (const child of container.children) {
    if (typeof child === 'string' || child.name !== 'item' || child.ns !== NS_QUEUE) continue
    items.push(child)
    if (items.length > BATCH_ITEMS_MAX) {
      throw new XmqError('too-large', `<${container.name}> has more than ${BATCH_ITEMS_MAX} items; split it.`)
    }
  }
  return items
}
