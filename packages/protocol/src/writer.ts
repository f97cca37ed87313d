/**
 * Elements to XML text: escaping, illegal characters, and sizes as a server counts them.
 * What is written is what RFC 6120 11 allows: no comments, no CDATA, only the five predefined entities.
 */
import type { XmlElement, XmlNode } from './element.ts'
import { XmqError } from './errors.ts'
import { NS_CLIENT, NS_XML } from './namespaces.ts'
import { WrittenElement } from './queue/written.ts'
import { findIllegalCharacter, isName } from './xml-characters.ts'

export { findIllegalCharacter, type IllegalCharacter } from './xml-characters.ts'

// Everything that needs a second look: control characters, markup, and surrogates (which may be unpaired).
// oxlint-disable-next-line no-control-regex -- finding control characters is the purpose
const TEXT_SPECIAL = /[\u0000-\u0008\u000b-\u001f&<>\ud800-\udfff\ufffe\uffff]/
// oxlint-disable-next-line no-control-regex -- finding control characters is the purpose
const ATTR_SPECIAL = /[\u0000-\u001f&<>"'\ud800-\udfff\ufffe\uffff]/

/** Anything whose bytes, once escaped, may be more than one. */
const NOT_PLAIN = /[^ !#-%(-;=?-~]/

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

/** Names that were found good: a program has a few dozen. Bounded, so that names off the wire cannot fill it. */
const goodElementNames = new Set<string>()
const goodAttributeNames = new Set<string>()
const GOOD_NAMES_MAX = 1024

/**
 * An element as XML text.
 *
 * @param contextNs the default namespace where the text will stand; the element declares its own only if it differs.
 *   On streams that is the content namespace, which XMQ always calls `jabber:client` (docs/protocol.md "Streams").
 * @throws XmqError `illegal-character`, naming the character and the place; `bad-request` on a name that XML does not allow
 */
export function writeElement(root: XmlElement, contextNs: string = NS_CLIENT): string {
  const { ns } = root
  if (!goodElementNames.has(root.name)) checkElementName(root.name)
  // `xml` is the one prefix that needs no declaration, and its namespace must never be the default one.
  const name = ns === NS_XML ? `xml:${root.name}` : root.name
  const innerNs = ns === NS_XML ? contextNs : ns
  let out = `<${name}`
  if (innerNs !== contextNs) out += ` xmlns='${escapeAttr(ns, `the namespace of <${name}>`)}'`
  for (const [key, value] of root.attrs) {
    if (!goodAttributeNames.has(key)) checkAttributeName(key, name)
    out += ` ${key}='${ATTR_SPECIAL.test(value) ? escapeAttr(value, `attribute '${key}' of <${name}>`) : value}'`
  }
  // Before `children` is touched, which would parse it.
  const inner = WrittenElement.innerOf(root)
  if (inner !== undefined) return inner === '' ? `${out}/>` : `${out}>${inner}</${name}>`
  const { children } = root
  const { length } = children
  if (length === 0) return `${out}/>`
  out += '>'
  for (let index = 0; index < length; index++) {
    const child = children[index] as XmlNode
    if (typeof child !== 'string') out += writeElement(child, innerNs)
    else out += TEXT_SPECIAL.test(child) ? escapeText(child, `the text of <${name}>`) : child
  }
  return `${out}</${name}>`
}

function checkElementName(name: string): void {
  if (!isName(name) || name.includes(':')) {
    throw new XmqError('bad-request', `'${name}' is no name for an element; use letters, digits, '-', '_' and '.'.`)
  }
  if (goodElementNames.size < GOOD_NAMES_MAX) goodElementNames.add(name)
}

function checkAttributeName(name: string, of: string): void {
  if (!isName(name) || name === 'xmlns') {
    const hint = name === 'xmlns' ? "set the element's `ns` instead" : "use letters, digits, '-', '_' and '.'"
    throw new XmqError('bad-request', `'${name}' is no name for an attribute of <${of}>; ${hint}.`)
  }
  if (goodAttributeNames.size < GOOD_NAMES_MAX) goodAttributeNames.add(name)
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

/**
 * UTF-8 bytes of text with everything escaped that may be, all five entities included: the most that any server makes of it
 * on the way.
 */
export function escapedLength(text: string): number {
  return NOT_PLAIN.test(text) ? countEscaped(text, TEXT_BYTES) : text.length
}

function escapedAttrLength(value: string): number {
  return NOT_PLAIN.test(value) ? countEscaped(value, ATTR_BYTES) : value.length
}

/** Bytes of each ASCII character, escaped. */
const TEXT_BYTES = bytesByUnit('&<>"\'\r')
const ATTR_BYTES = bytesByUnit('&<>"\'\r\t\n')

function bytesByUnit(escaped: string): Uint8Array {
  const bytes = new Uint8Array(0x80).fill(1)
  for (const character of escaped) bytes[character.charCodeAt(0)] = escapeCharacter(character).length
  return bytes
}

/** One pass: bytes of UTF-8 and what escaping adds. */
function countEscaped(text: string, bytesOf: Uint8Array): number {
  let bytes = 0
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit < 0x80) bytes += bytesOf[unit] as number
    else if (unit < 0x800) bytes += 2
    else if (unit >= 0xd800 && unit < 0xdc00 && isLowSurrogate(text.charCodeAt(index + 1))) {
      bytes += 4
      index++
    } else bytes += 3
  }
  return bytes
}

/**
 * Bytes of an element on the wire, every entity escaped and every namespace written: what the size limits of
 * docs/protocol.md "Sizes" count, whatever the servers on the way re-escape.
 */
export function wireLength(node: XmlNode, contextNs: string = NS_CLIENT): number {
  if (typeof node === 'string') return escapedLength(node)
  const { ns } = node
  const innerNs = ns === NS_XML ? contextNs : ns
  let bytes = utf8Length(node.name) * 2 + (ns === NS_XML ? 13 : 5)
  if (innerNs !== contextNs) bytes += 9 + escapedAttrLength(ns)
  for (const [key, value] of node.attrs) bytes += utf8Length(key) + 4 + escapedAttrLength(value)
  const written = WrittenElement.innerBytesOf(node)
  if (written !== undefined) return bytes + written
  for (const child of node.children) bytes += wireLength(child, innerNs)
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
