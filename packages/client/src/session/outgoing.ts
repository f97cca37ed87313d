/** Messages on their way: what a caller published, in the form that the queue's mode asks for. Pure. */
import {
  createContent,
  encodeHeaders,
  encodeTopic,
  type Headers,
  type ItemCodec,
  stanza,
  wireLength,
  WRITE_STANZA_BYTES_MAX,
  type WrittenItem,
  XML_ITEMS,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { OutgoingMessage } from './port.ts'

/** Most bytes of one item, and of all items of a batch: the rest of a stanza is for addresses and for what the queue adds. */
export const ITEMS_BYTES_MAX: number = WRITE_STANZA_BYTES_MAX - 8 * 1024

/** What a message is made of. */
export interface OutgoingParts {
  /** The queue's address. */
  readonly to: string
  readonly id: string
  readonly topic: string
  readonly payload: readonly XmlElement[]
  /** Whether a plain message has its payload beside `<xmq/>`, where chat clients look for text. */
  readonly isText: boolean
  readonly headers?: Headers | undefined
  readonly key?: string | undefined
  /** 0 to 9. @default 0 */
  readonly priority?: number | undefined
  readonly delayMs?: number | undefined
  readonly ttlMs?: number | undefined
}

/**
 * A message from its parts; each form is made when it is first asked for, and kept.
 * @param codec the queue is known to be reliable, which it stays, and takes such items: the item is made at once, and nothing else kept
 * @throws XmqError where `codec` is given, as {@link OutgoingMessage.item}
 */
export function createOutgoing(parts: OutgoingParts, codec?: ItemCodec): OutgoingMessage {
  return new Outgoing(parts, codec)
}

class Outgoing implements OutgoingMessage {
  readonly id: string
  readonly topic: string
  readonly key: string | undefined
  /** `undefined` of one that is only an item: thousands may wait, and the parts are as large as the text. */
  readonly #parts: OutgoingParts | undefined
  #item: WrittenItem | undefined
  #stanza: XmlElement | undefined

  constructor(parts: OutgoingParts, codec: ItemCodec | undefined) {
    this.id = parts.id
    this.topic = parts.topic
    this.key = parts.key
    this.#parts = codec === undefined ? parts : undefined
    this.#item = codec === undefined ? undefined : writeItem(parts, codec)
  }

  get bytes(): number {
    if (this.#item === undefined && this.#stanza !== undefined) return wireLength(this.#stanza)
    return this.item().bytes
  }

  stanza(): XmlElement {
    return (this.#stanza ??= plainStanza(this.#own))
  }

  item(): WrittenItem {
    return (this.#item ??= writeItem(this.#own, XML_ITEMS))
  }

  get #own(): OutgoingParts {
    if (this.#parts !== undefined) return this.#parts
    throw new XmqError('internal', 'A message that was made for a reliable queue was to go to a plain one.')
  }
}

function writeItem(parts: OutgoingParts, codec: ItemCodec): WrittenItem {
  const { id, topic, key, priority = 0, delayMs = 0, ttlMs, payload, headers } = parts
  const content = createContent({ payload, headers })
  const item = codec.writePublishItem({ id, topic, key, priority, delayMs, ttlMs, content })
  if (item.bytes <= ITEMS_BYTES_MAX) return item
  throw new XmqError(
    'too-large',
    `A message to '${topic}' has ${item.bytes} bytes as servers count them; at most ${ITEMS_BYTES_MAX} are allowed. ` +
      'Send a reference to the data instead.',
  )
}

function plainStanza(parts: OutgoingParts): XmlElement {
  const { to, id, topic, payload, headers, isText } = parts
  for (const option of ['key', 'priority', 'delayMs', 'ttlMs'] as const) {
    if (parts[option] === undefined) continue
    const name = option.replace('Ms', '')
    throw new XmqError(
      'unsupported',
      `${to} is a plain queue, which knows no '${name}'; leave it out, or publish to a reliable queue.`,
    )
  }
  const extra = headers === undefined ? undefined : encodeHeaders(headers)
  const inside = [...(isText ? [] : payload), ...(extra === undefined ? [] : [extra])]
  const children = isText ? [...payload, encodeTopic(topic, inside)] : [encodeTopic(topic, inside)]
  return stanza('message', { type: isText ? 'chat' : 'normal', id, to }, children)
}
