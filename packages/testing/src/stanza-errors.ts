/** Errors as an XMPP server answers them: without the `<failure/>` that only a broker adds. Pure. */
import {
  element,
  mayBeAnswered,
  NS_CLIENT,
  NS_STANZA_ERROR,
  stanza,
  type StanzaErrorCondition,
  type StanzaErrorType,
  type StanzaName,
  type XmlElement,
} from '@xmq/protocol'

/** Which error, in the words of RFC 6120 8.3. */
export interface ServerError {
  readonly type: StanzaErrorType
  readonly condition: StanzaErrorCondition
  readonly text?: string
}

export const SERVICE_UNAVAILABLE: ServerError = { type: 'cancel', condition: 'service-unavailable' }

/** The error stanza to an original, or `undefined` for what is never answered (RFC 6120 8.3.1). */
export function serverErrorTo(original: XmlElement, error: ServerError): XmlElement | undefined {
  if (!mayBeAnswered(original)) return undefined
  const { attrs } = original
  const text = error.text === undefined ? undefined : element('text', NS_STANZA_ERROR, undefined, [error.text])
  return stanza(
    original.name as StanzaName,
    { type: 'error', id: attrs.get('id'), from: attrs.get('to'), to: attrs.get('from') },
    [element('error', NS_CLIENT, { type: error.type }, [element(error.condition, NS_STANZA_ERROR), text])],
  )
}
