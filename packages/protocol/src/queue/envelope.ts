/**
 * The envelope: what a plain `<message/>` has besides its payload, so that it can be rebuilt. docs/protocol-reliable.md "Plain
 * messages as items".
 *
 *     <envelope xmlns='xmq:queue:1' type='chat' id='m1' xml:lang='en'><subject xmlns='jabber:client'>..</subject><payload/><topic/></envelope>
 *
 * Inside are the message's further children in their order. Two marks of `xmq:queue:1` say where the rest stood: `<topic/>`
 * where `<xmq xmlns='xmq:topic'/>` was (last when absent), `<payload/>` where the payload was beside it (inside `<xmq/>` when
 * absent). Each counts once: what stands for the payload must not multiply it.
 */
import { element, isElement, type XmlElement } from '../element.ts'
import { NS_QUEUE } from '../namespaces.ts'

/** RFC 6121 5.2.2, without `error`. */
export type MessageType = 'chat' | 'groupchat' | 'headline' | 'normal'

/** Where something stands among an envelope's children. */
export type EnvelopeMark = 'payload' | 'topic'

/** Of a plain message: everything but topic, payload and headers. */
export interface Envelope {
  /** `undefined` as it was left out, which means `normal`. */
  readonly type: MessageType | undefined
  /** The stanza's id. */
  readonly id: string | undefined
  /** `xml:lang` of the stanza. */
  readonly language: string | undefined
  /** Further children in order, and the marks. */
  readonly children: readonly (XmlElement | EnvelopeMark)[]
}

const TYPES: ReadonlySet<string> = new Set<MessageType>(['chat', 'groupchat', 'headline', 'normal'])

/** A message type that may be delivered; `undefined` for any other, which then means `normal` (RFC 6121 5.2.2). */
export function messageType(text: string | undefined): MessageType | undefined {
  return text !== undefined && TYPES.has(text) ? (text as MessageType) : undefined
}

/** Writes an envelope. */
export function encodeEnvelope(envelope: Envelope): XmlElement {
  const { type, id, language } = envelope
  return element(
    'envelope',
    NS_QUEUE,
    { type, id, 'xml:lang': language },
    envelope.children.map((child) => (typeof child === 'string' ? element(child, NS_QUEUE) : child)),
  )
}

/** Reads an envelope. Total: what of `xmq:queue:1` it does not know, and a mark that stands again, is ignored. */
export function decodeEnvelope(root: XmlElement): Envelope {
  const children: (XmlElement | EnvelopeMark)[] = []
  for (const child of root.children) {
    if (typeof child === 'string') continue
    if (child.ns !== NS_QUEUE) children.push(child)
    else if (isMark(child) && !children.includes(child.name)) children.push(child.name)
  }
  const { attrs } = root
  return { type: messageType(attrs.get('type')), id: attrs.get('id'), language: attrs.get('xml:lang'), children }
}

function isMark(child: XmlElement): child is XmlElement & { readonly name: EnvelopeMark } {
  return isElement(child, 'payload', NS_QUEUE) || isElement(child, 'topic', NS_QUEUE)
}
