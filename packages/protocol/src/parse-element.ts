/** XML text to one element. */
import type { XmlElement } from './element.ts'
import { XmqError } from './errors.ts'
import { NS_CLIENT } from './namespaces.ts'
import { type ReaderLimits, XmlStreamReader } from './reader.ts'

/**
 * Reads one whole element: a WebSocket frame (RFC 7395), a stored payload, a literal in a test.
 *
 * @param contextNs the default namespace where the text stands, `jabber:client` unless given, as in `writeElement`
 * @throws XmqError `malformed-xml` when it is not exactly one element, `too-large` when it breaks a limit
 */
export function parseElement(text: string, contextNs: string = NS_CLIENT, limits?: Partial<ReaderLimits>): XmlElement {
  let found: XmlElement | undefined
  const reader = new XmlStreamReader(
    {
      onOpen: () => {},
      onElement(root) {
        if (found !== undefined) throw new XmqError('malformed-xml', 'Malformed XML: more than one element.')
        found = root
      },
      onSkipped(_head, error) {
        throw error
      },
      onClose: () => {},
    },
    limits,
  )
  reader.reset(contextNs)
  reader.write(text)
  if (found !== undefined && reader.bufferedBytes === 0) return found
  const problem = text.trim() === '' ? 'no element' : 'the element does not end'
  throw new XmqError('malformed-xml', `Malformed XML at character ${text.length}: ${problem}.`)
}
