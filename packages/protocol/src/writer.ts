/**
 * Elements to XML text: escaping, illegal characters, and sizes as a server counts them.
 * What is written is what RFC 6120 11 allows: no comments, no CDATA, only the five predefined entities.
 */
import type { XmlElement, XmlNode } from './element.ts'
import { XmqError } from './errors.ts'
import { NS_CLIENT } from './namespaces.ts'

// Everything that needs a second look: control characters, markup, and surrogates (which may be unpaired).
// oxlint-disable-next-line no-control-regex -- finding control characters is the purpose
const TEXT_SPECIAL = /[\u0000-\u0008\u000b-\u001f&<>\ud800-\udfff\ufffe\uffff]/
// oxlint-disable-next-line no-control-regex -- finding control characters is the purpose
const ATTR_SPECIAL = /[\u0000-\u001f&<>"'\ud800-\udfff\ufffe\uffff]/

/** Where and what the first character is that XML 1.0 cannot carry (XML 1.0 production 2). */
export interface IllegalCharacter {
  /** Index in UTF-16 code units. */
  readonly index: number
  /** `U+0000`, as people write it. */
  readonly name: string
}

/** The first character of `text` that XML 1.0 cannot carry, or `undefined`. Unpaired surrogates count. */
export function findIllegalCharacter(text: string): IllegalCharacter | undefined {
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit >= 0x20 && unit < 0xd800) continue
    if (unit === 0x9 || unit === 0xa || unit === 0xd) continue
    if (unit >= 0xe000 && unit < 0xfffe) continue
    if (unit >= 0xd800 && unit < 0xdc00) {
      const next = text.charCodeAt(index + 1)
      if (next >= 0xdc00 && next < 0xe000) {
        index++
        continue
      }
    }
    return { index, name: `U+${unit.toString(16).toUpperCase().padStart(4, '0')}` }
  }
  return undefined
}

/**
 * Throws when `text` holds a character that XML cannot carry: such a character would close the stream.
 *
 * @param where what the text is, for the message: `the body`, `attribute 'topic' of <xmq>`
 * @throws XmqError `illegal-character`
 */
export function assertLegalText(text: string, where: string): void {
  const illegal = findIllegalCharacter(text)
  if (illegal === undefined) return
  throw new XmqError(
    'illegal-character',
    `${illegal.name} at position ${illegal.index} of ${where} cannot be sent: XML has no such character. ` +
      'Remove it, or encode binary data as base64.',
  )
}

/** Escapes text between tags. @throws XmqError `illegal-character` */
export function escapeText(text: string, where = 'the text'): string {
  if (!TEXT_SPECIAL.test(text)) return text
  assertLegalText(text, where)
  return text.replace(/[&<>\r]/g, escapeCharacter)
}

/** Escapes an attribute's value, to stand between apostrophes or quotes. @throws XmqError `illegal-character` */
export function escapeAttr(text: string, where = 'the attribute'): string {
  if (!ATTR_SPECIAL.test(text)) return text
  assertLegalText(text, where)
  return text.replace(/[&<>"'\t\n\r]/g, escapeCharacter)
}

function escapeCharacter(character: string): string {
  switch (character) {
    case '&':
      return '&amp;'
    case '<':
      return '&lt;'
    case '>':
      return '&gt;'
    case '"':
      return '&quot;'
    case "'":
      return '&apos;'
    // Written raw, these would be normalised to a space or a newline by the reader (XML 1.0 2.11 and 3.3.3).
    default:
      return `&#${character.charCodeAt(0)};`
  }
}

/**
 * An element as XML text.
 *
 * @param contextNs the default namespace where the text will stand; the element declares its own only if it differs.
 *   On streams that is the content namespace, which XMQ always calls `jabber:client` (docs/protocol.md "Streams").
 * @throws XmqError `illegal-character`, naming the character and the place
 */
export function writeElement(root: XmlElement, contextNs: string = NS_CLIENT): string {
  const { name } = root
  let out = `<${name}`
  if (root.ns !== contextNs) out += ` xmlns='${escapeAttr(root.ns)}'`
  for (const [key, value] of root.attrs) {
    out += ` ${key}='${ATTR_SPECIAL.test(value) ? escapeAttr(value, `attribute '${key}' of <${name}>`) : value}'`
  }
  const { children } = root
  if (children.length === 0) return `${out}/>`
  out += '>'
  for (let index = 0; index < children.length; index++) {
    const child = children[index] as XmlNode
    out += typeof child === 'string' ? escapeText(child, `the text of <${name}>`) : writeElement(child, root.ns)
  }
  return `${out}</${name}>`
}

/** UTF-8 bytes of a string. An unpaired surrogate counts as three. */
export function utf8Length(text: string): number {
  let bytes = text.length
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit < 0x80) continue
    if (unit < 0x800) bytes += 1
    else if (unit >= 0xd800 && unit < 0xdc00 && isLowSurrogate(text.charCodeAt(index + 1))) {
      bytes += 2
      index++
    } else bytes += 2
  }
  return bytes
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000
}

/** UTF-8 bytes of a string with all five XML entities escaped: the most that any server makes of it on the way. */
export function escapedLength(text: string): number {
  let bytes = utf8Length(text)
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit === 0x26) bytes += 4
    else if (unit === 0x3c || unit === 0x3e) bytes += 3
    else if (unit === 0x22 || unit === 0x27) bytes += 5
  }
  return bytes
}

/**
 * Bytes of an element on the wire, every entity escaped and every namespace written: what the size limits of
 * docs/protocol.md "Sizes" count, whatever the servers on the way re-escape.
 */
export function wireLength(node: XmlNode, contextNs: string = NS_CLIENT): number {
  if (typeof node === 'string') return escapedLength(node)
  let bytes = utf8Length(node.name) * 2 + 5
  if (node.ns !== contextNs) bytes += 9 + escapedLength(node.ns)
  for (const [key, value] of node.attrs) bytes += utf8Length(key) + 4 + escapedLength(value)
  for (const child of node.children) bytes += wireLength(child, node.ns)
  return bytes
}

/** How deep an element nests: 1 for one without child elements. */
export function depthOf(root: XmlElement): number {
  let deepest = 0
  let level: readonly XmlElement[] = [root]
  while (level.length > 0) {
    deepest++
    const next: XmlElement[] = []
    for (const parent of level) for (const child of parent.children) if (typeof child !== 'string') next.push(child)
    level = next
  }
  return deepest
}
