/**
 * Publishing and its confirm. docs/protocol-reliable.md "Publishing".
 *
 *     <iq type='set'><publish xmlns='xmq:queue:1'><item …/>…</publish></iq>
 *     <iq type='result'><published xmlns='xmq:queue:1' durability='disk'><item id='..' seq='..'/>…</published></iq>
 */
import { element, textOf, type XmlElement } from '../element.ts'
import { decodeError, encodeError, XmqError } from '../errors.ts'
import { NS_CLIENT, NS_QUEUE } from '../namespaces.ts'
import { wireLength, writeElement } from '../writer.ts'
import { readWritten } from './content.ts'
import {
  assertQueueElement,
  attrBytes,
  optionalBoolean,
  optionalInteger,
  requiredInteger,
  writeAttr,
} from './fields.ts'
import type { ItemResult, PublishItem } from './item.ts'
import { itemCodecOf } from './item-codecs.ts'
import { WrittenElement, WrittenItem } from './written.ts'
import { BATCH_ITEMS_MAX } from './limits.ts'
import { PACKED } from './packed-items.ts'
import { itemsOf, XML_ITEMS } from './xml-items.ts'

/** What survives what: nothing, a restart of the broker, or the loss of its machine. */
export type ConfirmDurability = 'memory' | 'disk' | 'replicated'

/** How one item of a publish ended. */
export type PublishedItem =
  | {
      readonly status: 'stored'
      readonly id: string | undefined
      readonly seq: number
      /** It had been stored before: `seq` is that of the first. */
      readonly duplicate: boolean
      /** In an `all` queue: the named durable subscriptions that it was stored for. */
      readonly subscriptions?: number | undefined
    }
  | { readonly status: 'failed'; readonly id: string | undefined; readonly error: XmqError }

/** A confirm: an item for each that was published, in the same order. */
export interface Published {
  readonly durability: ConfirmDurability
  /** Who answers: `epochOf` reads it. */
  readonly epoch?: string | undefined
  readonly items: readonly PublishedItem[]
}

/** A container with items that are text already, all of one encoding. */
export function itemContainer(
  name: string,
  attrs: Readonly<Record<string, string | undefined>>,
  items: readonly WrittenItem[],
): XmlElement {
  let bytes = 0
  for (const item of items) bytes += item.bytes
  const head = element(name, NS_QUEUE, { ...attrs, encoding: items[0]?.encoding })
  return new WrittenElement(head, WrittenItem.textOf(items), bytes, readWritten)
}

/** Writes `<publish/>`; the items come from the `writePublishItem` of one codec. */
export function encodePublish(items: readonly WrittenItem[]): XmlElement {
  return itemContainer('publish', {}, items)
}

/** The same item as an element, for a queue that turns out not to know its encoding. @throws XmqError as `writePublishItem` */
export function unpackPublishItem(item: WrittenItem): WrittenItem {
  const [result] = decodePublish(encodePublish([item]))
  if (result?.ok !== true) throw new XmqError('internal', 'An item that we wrote cannot be read.')
  return XML_ITEMS.writePublishItem(result.item)
}

/**
 * Reads `<publish/>`: an entry for each item, in order; a broken one is an error of its own. Two items of one id are two
 * entries, in order: the second is the store's duplicate.
 *
 * @throws XmqError `bad-request` when there are none or the encoding is unknown, `too-large` when there are too many
 */
export function decodePublish(publish: XmlElement): ItemResult<PublishItem>[] {
  assertQueueElement(publish, 'publish')
  return itemCodecOf(publish).readPublishItems(publish)
}

/**
 * Writes `<published/>`.
 * @param isPacked the publish was packed: then what was stored is told in one text
 */
export function encodePublished(published: Published, isPacked = false): XmlElement {
  const { durability, epoch } = published
  const packed = isPacked ? packConfirm(published.items) : undefined
  if (packed !== undefined) return element('published', NS_QUEUE, { durability, epoch, encoding: PACKED }, [packed])
  let inner = ''
  let bytes = 0
  for (const item of published.items) {
    const { id } = item
    const start = id === undefined ? '<item' : `<item${writeAttr('id', id, 'item')}`
    bytes += 13 + (id === undefined ? 0 : attrBytes('id', id))
    if (item.status === 'failed') {
      const error = encodeError(item.error)
      inner += `${start}>${writeElement(error, NS_QUEUE)}</item>`
      bytes += wireLength(error, NS_QUEUE)
      continue
    }
    const rest =
      ` seq='${item.seq}'${item.duplicate ? " duplicate='true'" : ''}` +
      (item.subscriptions === undefined ? '' : ` subscriptions='${item.subscriptions}'`)
    inner += `${start}${rest}/>`
    bytes += rest.length
  }
  const head = element('published', NS_QUEUE, { durability, epoch })
  return new WrittenElement(head, inner, bytes, readWritten)
}

/**
 * Reads `<published/>`. An item that cannot be read stands as `undefined` in its place: that is no confirm.
 *
 * A durability that is not known here counts as `memory`.
 * @throws XmqError `bad-request` when it is something else
 */
export function decodePublished(root: XmlElement): Pick<Published, 'durability'> & {
  readonly items: readonly (PublishedItem | undefined)[]
} {
  assertQueueElement(root, 'published')
  const durability = root.attrs.get('durability')
  return {
    durability: durability === 'disk' || durability === 'replicated' ? durability : 'memory',
    items: root.attrs.get('encoding') === PACKED ? unpackConfirm(textOf(root)) : itemsOf(root).map(readPublished),
  }
}

function readPublished(item: XmlElement): PublishedItem | undefined {
  const id = item.attrs.get('id')
  const error = itemError(item)
  if (error !== undefined) return { status: 'failed', id, error }
  try {
    const seq = requiredInteger(item, 'seq', 1, Number.MAX_SAFE_INTEGER)
    const subscriptions = optionalInteger(item, 'subscriptions', 0, Number.MAX_SAFE_INTEGER)
    const duplicate = optionalBoolean(item, 'duplicate')
    return { status: 'stored', id, seq, duplicate, ...(subscriptions === undefined ? {} : { subscriptions }) }
  } catch {
    return undefined
  }
}

/** A seq, `d` of a duplicate, `/` and the number of subscriptions. */
const CONFIRM = /^([1-9]\d{0,15})(d?)(?:\/(0|[1-9]\d{0,15}))?$/

/** What was stored, in the order of the items; undefined where one was not: its error takes an element. */
function packConfirm(items: readonly PublishedItem[]): string | undefined {
  let text = ''
  for (const item of items) {
    if (item.status === 'failed') return undefined
    const subscriptions = item.subscriptions === undefined ? '' : `/${item.subscriptions}`
    text += `${text === '' ? '' : ' '}${item.seq}${item.duplicate ? 'd' : ''}${subscriptions}`
  }
  return text
}

function unpackConfirm(text: string): (PublishedItem | undefined)[] {
  const confirms = text.split(' ', BATCH_ITEMS_MAX + 1)
  if (confirms.length > BATCH_ITEMS_MAX)
    throw new XmqError('too-large', `<published> has more than ${BATCH_ITEMS_MAX} items.`)
  return confirms.map((confirm) => {
    const [, digits, mark, count] = CONFIRM.exec(confirm) ?? []
    const seq = Number(digits)
    if (!Number.isSafeInteger(seq)) return undefined
    const item = { status: 'stored', id: undefined, seq, duplicate: mark === 'd' } as const
    return count === undefined ? item : Object.assign(item, { subscriptions: Number(count) })
  })
}

/** The `<error/>` inside an item, if it has one. */
export function itemError(item: XmlElement): XmqError | undefined {
  for (const child of item.children) {
    if (typeof child === 'string' || child.name !== 'error') continue
    // Some that build XML by hand forget the namespace.
    if (child.ns !== NS_CLIENT && child.ns !== NS_QUEUE) continue
    return decodeError(element('item', NS_CLIENT, undefined, [{ ...child, ns: NS_CLIENT }]))
  }
  return undefined
}

/**
 * Which answer belongs to which of the ids that were published: by its place where the ids agree, else by its id, each answer
 * once. What got none is `undefined`: not confirmed, and not refused either.
 */
export function matchPublished(
  ids: readonly string[],
  items: readonly (PublishedItem | undefined)[],
): (PublishedItem | undefined)[] {
  const inPlace =
    ids.length === items.length && items.every((item, at) => item?.id === undefined || item.id === ids[at])
  if (inPlace) return [...items]
  const byId = new Map<string, PublishedItem[]>()
  for (const item of items) {
    if (item?.id === undefined) continue
    const same = byId.get(item.id)
    if (same === undefined) byId.set(item.id, [item])
    else same.push(item)
  }
  return ids.map((id) => byId.get(id)?.shift())
}
