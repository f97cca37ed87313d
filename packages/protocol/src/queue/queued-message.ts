/**
 * Plain messages and items, each as the other: a plain publish to a durable queue reaches reliable consumers, and an item plain
 * ones. docs/protocol-reliable.md "Plain messages as items".
 *
 *     <message type='chat' id='m1' xml:lang='en'>         topic    T
 *       <subject/>                                        envelope type, id, language; subject, (payload), thread, (topic)
 *       <body/>                                  <==>     payload  body
 *       <thread/>
 *       <xmq xmlns='xmq:topic' topic='T'/>
 *     </message>
 *
 * Kept: type, id, language, every child element in its order. Not kept: text between the children, further attributes of
 * `<message/>` and `<xmq/>`, and children of `xmq:queue:1`, which mean nothing in a plain message (`<headers/>` inside
 * `<xmq/>` does, and is put back as its first child).
 */
import { childElements, type XmlElement, type XmlNode } from '../element.ts'
import { XmqError } from '../errors.ts'
import { NS_CLIENT, NS_JSON, NS_QUEUE } from '../namespaces.ts'
import { decodeTopic, encodeTopic, findTopic } from '../topic.ts'
import { createContent, type ItemContent } from './content.ts'
import { type Envelope, type EnvelopeMark, messageType } from './envelope.ts'
import { encodeHeaders, headersIn } from './headers.ts'

/** A message as a queue keeps it, whichever way it came. */
export interface QueuedMessage {
  readonly topic: string
  /** The item's id, which a plain message has not: its stanza id stands in the envelope. */
  readonly id?: string | undefined
  readonly content: ItemContent
}

/**
 * Takes a plain `<message/>` apart. Remove first what its producer had no right to say (`ofrom`, `stanza-id`).
 * @throws XmqError `topic-required`, or `bad-request`, `too-large` on a broken topic or headers
 */
export function decodeQueuedMessage(message: XmlElement): QueuedMessage {
  const xmq = findTopic(message)
  if (xmq === undefined) throw new XmqError('topic-required', 'XMQ topic not found')
  const topic = decodeTopic(xmq)
  const nested = childElements(xmq).filter((child) => child.ns !== NS_QUEUE)
  const siblings = childElements(message).filter((child) => child === xmq || child.ns !== NS_QUEUE)
  const beside = nested.length > 0 ? -1 : payloadBeside(siblings)
  const children = siblings.map((child, at) => (child === xmq ? 'topic' : at === beside ? 'payload' : child))
  // Where it stands last is where it is put without a mark.
  if (children.at(-1) === 'topic') children.pop()
  const { attrs } = message
  const envelope: Envelope = {
    type: messageType(attrs.get('type')),
    id: attrs.get('id'),
    language: attrs.get('xml:lang'),
    children,
  }
  const payload = beside === -1 ? nested : siblings.slice(beside, beside + 1)
  return { topic, content: createContent({ payload, headers: headersIn(xmq), envelope }) }
}

/** Where the payload is: JSON, else the first body, as `decodeMessagePayload` has it; -1 for none. */
function payloadBeside(siblings: readonly XmlElement[]): number {
  const json = siblings.findIndex((child) => child.name === 'json' && child.ns === NS_JSON)
  return json === -1 ? siblings.findIndex((child) => child.name === 'body' && child.ns === NS_CLIENT) : json
}

/** Who a rebuilt message says it is from and to. */
export interface MessageAddressing {
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/**
 * The plain `<message/>` that a queued one was, or would have been: an item becomes `type='normal'` under its own id, a lone
 * `<body/>` beside `<xmq/>`, every other payload inside it.
 */
export function encodeQueuedMessage(message: QueuedMessage, addressing: MessageAddressing = {}): XmlElement {
  const { topic, content } = message
  const envelope = content.envelope ?? itemEnvelope(message)
  const isBeside = envelope.children.includes('payload')
  const headers = encodeHeaders(content.headers)
  const inside: XmlNode[] = headers === undefined ? [] : [headers]
  if (!isBeside) inside.push(...content.payload)
  const xmq = encodeTopic(topic, inside)
  const children: XmlNode[] = []
  for (const child of envelope.children) {
    if (child === 'topic') children.push(xmq)
    else if (child === 'payload') children.push(...content.payload)
    else children.push(child)
  }
  if (!envelope.children.includes('topic')) children.push(xmq)
  const attrs = new Map<string, string>()
  const given = { type: envelope.type, id: envelope.id, 'xml:lang': envelope.language, ...addressing }
  for (const [name, value] of Object.entries(given)) if (value !== undefined) attrs.set(name, value)
  return { name: 'message', ns: NS_CLIENT, attrs, children }
}

function itemEnvelope({ id, content }: QueuedMessage): Envelope {
  const [first] = content.payload
  const isBody = content.payload.length === 1 && first?.name === 'body' && first.ns === NS_CLIENT
  const children: EnvelopeMark[] = isBody ? ['payload'] : []
  return { type: 'normal', id, language: undefined, children }
}
