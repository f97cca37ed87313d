/** Stanzas as RFC 6120 section 8 has them: building, answering, telling apart. Pure functions on elements. */
import { childElements, element, findChild, type XmlElement, type XmlNode } from './element.ts'
import { encodeError, type XmqError } from './errors.ts'
import { NS_CLIENT, NS_PING } from './namespaces.ts'

/** The kinds of stanza (RFC 6120 8). */
export type StanzaName = 'message' | 'presence' | 'iq'

/** Addressing of a stanza to build. */
export interface StanzaHead {
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly id?: string | undefined
  readonly type?: string | undefined
}

/** Whether an element is a stanza: in the content namespace, named message, presence or iq. */
export function isStanza(root: XmlElement): boolean {
  return root.ns === NS_CLIENT && (root.name === 'message' || root.name === 'iq' || root.name === 'presence')
}

/** Builds a stanza; absent addressing is left out. */
export function stanza(
  name: StanzaName,
  head: StanzaHead,
  children: readonly (XmlNode | undefined)[] = [],
): XmlElement {
  return element(name, NS_CLIENT, { type: head.type, id: head.id, from: head.from, to: head.to }, children)
}

/** `get` and `set` are requests, `result` and `error` answers (RFC 6120 8.2.3). */
export type IqType = 'get' | 'set' | 'result' | 'error'

/** The type of an IQ, or `undefined` when it has none that RFC 6120 knows. */
export function iqType(iq: XmlElement): IqType | undefined {
  const type = iq.attrs.get('type')
  return type === 'get' || type === 'set' || type === 'result' || type === 'error' ? type : undefined
}

/** The empty or filled result to a request: addresses swapped, id kept. */
export function resultTo(request: XmlElement, children: readonly XmlNode[] = []): XmlElement {
  return stanza('iq', answerHead(request, 'result'), children)
}

/**
 * The error to a stanza, from the address it was sent to: addresses swapped, id kept, the payload left out.
 * Never call it for a stanza of type `error` or an IQ of type `result` (RFC 6120 8.3.1).
 *
 * @param encoded the error as `writeError` made it, for one that is sent often
 */
export function errorTo(original: XmlElement, error: XmqError, encoded: XmlElement = encodeError(error)): XmlElement {
  return stanza(original.name as StanzaName, answerHead(original, 'error'), [encoded])
}

function answerHead(original: XmlElement, type: string): StanzaHead {
  const { attrs } = original
  return { type, id: attrs.get('id'), from: attrs.get('to'), to: attrs.get('from') }
}

/** Whether a stanza asks for an answer: an IQ get or set, and any message or presence that is not itself an error. */
export function mayBeAnswered(root: XmlElement): boolean {
  const type = root.attrs.get('type')
  return root.name === 'iq' ? type === 'get' || type === 'set' : type !== 'error'
}

/** The only child element of an IQ request, or `undefined` when there is none or more than one. */
export function onlyChild(iq: XmlElement): XmlElement | undefined {
  const children = childElements(iq)
  return children.length === 1 ? children[0] : undefined
}

/** A ping (XEP-0199). */
export function ping(from: string, to: string, id: string): XmlElement {
  return stanza('iq', { type: 'get', from, to, id }, [element('ping', NS_PING)])
}

/** Whether an IQ is a ping (XEP-0199). */
export function isPing(iq: XmlElement): boolean {
  return iq.attrs.get('type') === 'get' && findChild(iq, 'ping', NS_PING) !== undefined
}
