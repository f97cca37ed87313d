/** An `<error/>` that is written once and sent often: what a broker under load answers thousands of times a second. */
import type { XmlElement } from '../element.ts'
import { encodeError, type XmqError } from '../errors.ts'
import { wireLength, writeElement } from '../writer.ts'
import { readWritten } from './content.ts'
import { WrittenElement } from './written.ts'

/** `encodeError`, with its text made already, and no words for people: a server that is behind has to take thousands of it. */
export function writeError(error: XmqError): XmlElement {
  const encoded = encodeError(error, true)
  let inner = ''
  let bytes = 0
  for (const child of encoded.children) {
    if (typeof child === 'string') continue
    inner += writeElement(child, encoded.ns)
    bytes += wireLength(child, encoded.ns)
  }
  return new WrittenElement(encoded, inner, bytes, readWritten)
}
