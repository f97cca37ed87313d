/**
 * Headers: small texts beside the payload that the broker passes on unread (`traceparent`, `content-type`).
 * docs/protocol-reliable.md "Headers".
 *
 *     <headers xmlns='xmq:queue:1'><h n='traceparent' v='00-4bf9-00f0-01'/></headers>
 */
import { element, findChild, type XmlElement } from '../element.ts'
import { XmqError } from '../errors.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { utf8Length } from '../writer.ts'
import { assertQueueElement, queueChildren } from './fields.ts'
import { HEADERS_BYTES_MAX, HEADERS_MAX } from './limits.ts'

/** Headers by name. Case matters; names are best in lower case. */
export type Headers = ReadonlyMap<string, string>

/** No headers. */
export const NO_HEADERS: Headers = new Map()

const NAME = /^[A-Za-z0-9._-]{1,64}$/

/**
 * Checks headers: at most 32, names of 1 to 64 letters, digits, `.`, `_` and `-`, 8192 bytes in all.
 * @throws XmqError `bad-request` naming the header, `too-large`
 */
export function assertHeaders(headers: Headers): void {
  if (headers.size > HEADERS_MAX) {
    throw new XmqError('too-large', `A message has ${headers.size} headers; at most ${HEADERS_MAX} are allowed.`)
  }
  let bytes = 0
  for (const [name, value] of headers) {
    if (!NAME.test(name)) {
      const shown = name.length > 64 ? `${name.slice(0, 64)}…` : name
      throw new XmqError(
        'bad-request',
        `'${shown}' is no name for a header; use 1 to 64 letters, digits, '.', '_' and '-'.`,
      )
    }
    bytes += name.length + utf8Length(value)
  }
  if (bytes > HEADERS_BYTES_MAX) {
    throw new XmqError('too-large', `The headers have ${bytes} bytes; at most ${HEADERS_BYTES_MAX} are allowed.`)
  }
}

/**
 * Writes headers; `undefined` when there are none.
 * @throws XmqError as {@link assertHeaders}
 */
export function encodeHeaders(headers: Headers): XmlElement | undefined {
  if (headers.size === 0) return undefined
  assertHeaders(headers)
  const children = [...headers].map(([n, v]) => element('h', NS_QUEUE, { n, v }))
  return element('headers', NS_QUEUE, undefined, children)
}

/**
 * Reads a `<headers/>` element.
 * @throws XmqError `bad-request` on a missing or repeated name, and as {@link assertHeaders}
 */
export function decodeHeaders(root: XmlElement): Headers {
  assertQueueElement(root, 'headers')
  const headers = new Map<string, string>()
  const all = queueChildren(root, 'h')
  if (all.length > HEADERS_MAX) {
    throw new XmqError('too-large', `A message has ${all.length} headers; at most ${HEADERS_MAX} are allowed.`)
  }
  for (const header of all) {
    const name = header.attrs.get('n')
    const value = header.attrs.get('v')
    if (name === undefined || value === undefined) {
      throw new XmqError('bad-request', `Attribute '${name === undefined ? 'n' : 'v'}' of <h> is missing.`)
    }
    if (headers.has(name)) throw new XmqError('bad-request', `The header '${name.slice(0, 64)}' stands twice.`)
    headers.set(name, value)
  }
  assertHeaders(headers)
  return headers
}

/** The headers inside an element (`<item/>`, `<call/>`, `<xmq/>`); none when it has no `<headers/>`. @throws XmqError */
export function headersIn(parent: XmlElement): Headers {
  const root = findChild(parent, 'headers', NS_QUEUE)
  return root === undefined ? NO_HEADERS : decodeHeaders(root)
}
