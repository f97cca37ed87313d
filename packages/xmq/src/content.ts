/** Payloads as the CLI has them: whatever a stanza can carry, sent and shown as it is. docs/protocol.md "Payloads". */
import { element, encodeJson, NS_CLIENT, payloadOf, writeElement, type Payload, type XmlElement } from '@xmq/protocol'

/** What came. */
export type Content =
  | { readonly type: 'json'; readonly payload: unknown; readonly text: string }
  | { readonly type: 'text'; readonly payload: string; readonly text: string }
  | { readonly type: 'xml'; readonly payload: string; readonly text: string }
  | { readonly type: 'none'; readonly payload: undefined; readonly text: '' }

/** A payload to send inside `<xmq/>`: JSON text (not parsed, so that no number loses a digit), or plain text. */
export function encodeContent(text: string, isJson: boolean): XmlElement {
  return isJson ? encodeJson(text) : element('body', NS_CLIENT, undefined, [text])
}

/** What an answer holds, as a topic with the encoding `xml` returns it. */
export function contentOfElements(elements: readonly XmlElement[]): Content {
  return contentOf(payloadOf(elements))
}

/** What a delivery holds. */
export function contentOf(payload: Payload): Content {
  if (payload.kind === 'none') return { type: 'none', payload: undefined, text: '' }
  if (payload.kind === 'text') return { type: 'text', payload: payload.text, text: payload.text }
  if (payload.kind === 'json') return jsonContent(payload.text)
  const text = payload.elements.map((each) => writeElement(each)).join('')
  return { type: 'xml', payload: text, text }
}

function jsonContent(text: string): Content {
  try {
    return { type: 'json', payload: JSON.parse(text), text }
  } catch {
    return { type: 'text', payload: text, text } // it says JSON and is none: shown as it came
  }
}
