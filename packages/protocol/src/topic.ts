/**
 * `xmq:topic`: what a message or request is about, and where its payload stands. docs/protocol.md "Messages", "Requests".
 *
 *     <message to='QUEUE'><body>..</body><xmq xmlns='xmq:topic' topic='T'/></message>
 *     <message to='QUEUE'><xmq xmlns='xmq:topic' topic='T'><json xmlns='urn:xmpp:json:0'>{}</json></xmq></message>
 *     <iq type='get' to='QUEUE'><xmq xmlns='xmq:topic' topic='T'>PAYLOAD</xmq></iq>            nested, every server
 *     <iq type='get' to='QUEUE'>PAYLOAD<xmq xmlns='xmq:topic' topic='T'/></iq>                 flat, ejabberd only
 */
import { childElements, element, findChild, textElement, textOf, type XmlElement, type XmlNode } from './element.ts'
import { XmqError } from './errors.ts'
import { TOPIC_BYTES_MAX } from './limits.ts'
import { NS_CLIENT, NS_JSON, NS_QUEUE, NS_TOPIC } from './namespaces.ts'
import { utf8Length } from './writer.ts'

// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/

/**
 * Checks a topic's name: 1 to 255 bytes of UTF-8, no control characters. Case matters; dots split it into segments.
 * @throws XmqError `bad-request`
 */
export function assertTopic(topic: string): void {
  if (topic.length === 0) throw new XmqError('bad-request', "Attribute 'topic' is empty; expected 1 to 255 bytes.")
  if (topic.length > TOPIC_BYTES_MAX || (topic.length * 3 > TOPIC_BYTES_MAX && utf8Length(topic) > TOPIC_BYTES_MAX)) {
    throw new XmqError(
      'bad-request',
      `Attribute 'topic' has ${utf8Length(topic)} bytes; at most ${TOPIC_BYTES_MAX} are allowed.`,
    )
  }
  if (CONTROL.test(topic)) {
    throw new XmqError('bad-request', "Attribute 'topic' has a control character; use letters, digits, dots, dashes.")
  }
}

/** The `<xmq xmlns='xmq:topic'>` of a message or IQ, or `undefined`: it is no topic stanza. */
export function findTopic(root: XmlElement): XmlElement | undefined {
  return findChild(root, 'xmq', NS_TOPIC)
}

/**
 * Writes the topic element, mod_xmq's way: the attribute `topic` and no other; the payload, where it is nested, inside.
 * @throws XmqError `bad-request` on a name that {@link assertTopic} refuses
 */
export function encodeTopic(topic: string, payload: readonly XmlNode[] = []): XmlElement {
  assertTopic(topic)
  return element('xmq', NS_TOPIC, { topic }, payload)
}

/**
 * The topic's name.
 * @throws XmqError `topic-required` when the attribute is missing, `bad-request` when the name is not allowed
 */
export function decodeTopic(xmq: XmlElement): string {
  const topic = xmq.attrs.get('topic')
  if (topic === undefined) throw new XmqError('topic-required', 'XMQ topic not found')
  assertTopic(topic)
  return topic
}

/** How a request carries its payload. */
export type RequestForm = 'nested' | 'flat'

/** A topic IQ taken apart. */
export interface TopicRequest {
  readonly topic: string
  readonly form: RequestForm
  /** The payload elements, without XMQ's own children (`<call xmlns='xmq:queue:1'/>`). */
  readonly payload: readonly XmlElement[]
  /** The `<xmq/>` itself. */
  readonly xmq: XmlElement
}

/**
 * Takes a topic IQ apart: either form, the two children of the flat one in any order.
 * @returns `undefined` when it holds no `<xmq xmlns='xmq:topic'/>`
 * @throws XmqError `topic-required`, or `bad-request` when both forms are mixed or children are left over
 */
export function decodeRequest(iq: XmlElement): TopicRequest | undefined {
  const xmq = findTopic(iq)
  if (xmq === undefined) return undefined
  const topic = decodeTopic(xmq)
  const siblings = childElements(iq).filter((child) => child !== xmq)
  const inside = payloadElements(xmq)
  if (siblings.length === 0) return { topic, form: 'nested', payload: inside, xmq }
  if (siblings.length > 1) {
    throw new XmqError('bad-request', 'A request has one payload element beside <xmq/>; put more inside <xmq/>.')
  }
  if (inside.length > 0) {
    throw new XmqError('bad-request', 'A request has its payload either inside <xmq/> or beside it, not both.')
  }
  return { topic, form: 'flat', payload: siblings, xmq }
}

/** The children of a topic IQ in the given form. */
export function encodeRequest(topic: string, payload: readonly XmlNode[], form: RequestForm): XmlNode[] {
  return form === 'nested' ? [encodeTopic(topic, payload)] : [...payload, encodeTopic(topic)]
}

/** `<json xmlns='urn:xmpp:json:0'>` (XEP-0335). @param text JSON text */
export function encodeJson(text: string): XmlElement {
  return textElement('json', NS_JSON, text)
}

/** A payload as it was found in a stanza. */
export type Payload =
  | { readonly kind: 'json'; readonly text: string }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'xml'; readonly elements: readonly XmlElement[] }
  | { readonly kind: 'none' }

/** The payload of a topic message: JSON inside `<xmq/>` or beside it, else the body, else whatever elements are inside. */
export function decodeMessagePayload(message: XmlElement): Payload {
  const xmq = findTopic(message)
  const json = (xmq && findChild(xmq, 'json', NS_JSON)) ?? findChild(message, 'json', NS_JSON)
  if (json !== undefined) return { kind: 'json', text: textOf(json) }
  const body = findChild(message, 'body', NS_CLIENT)
  if (body !== undefined) return { kind: 'text', text: textOf(body) }
  return payloadOf(xmq === undefined ? [] : payloadElements(xmq))
}

/** What is nested in `<xmq/>`, without XMQ's own children. */
function payloadElements(xmq: XmlElement): XmlElement[] {
  return childElements(xmq).filter((child) => child.ns !== NS_QUEUE)
}

/** The payload of a request or of its answer. */
export function payloadOf(elements: readonly XmlElement[]): Payload {
  const [first] = elements
  if (first === undefined) return { kind: 'none' }
  if (elements.length === 1) {
    if (first.name === 'json' && first.ns === NS_JSON) return { kind: 'json', text: textOf(first) }
    if (first.name === 'body' && first.ns === NS_CLIENT) return { kind: 'text', text: textOf(first) }
  }
  return { kind: 'xml', elements }
}
