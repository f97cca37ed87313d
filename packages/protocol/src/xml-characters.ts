/** What XML 1.0 calls a character and a name: tables and tests shared by the reader and the writer. */

/** Matches the first character that is not plain ASCII text, tab, newline or carriage return: a second look is needed. */
export const NOT_PLAIN_ASCII: RegExp = /[^\t\n\r -~]/

const NAME_START =
  'A-Z_a-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f' +
  '\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\u{10000}-\u{effff}'
/** A name without a colon (Namespaces in XML 1.0, production 4). */
const NC_NAME: RegExp = new RegExp(`^[${NAME_START}][${NAME_START}\\-.0-9\\u00b7\\u0300-\\u036f\\u203f-\\u2040]*$`, 'u')

/** Whether a code point may stand in XML at all (XML 1.0 production 2). */
export function isXmlCodePoint(code: number): boolean {
  if (code < 0x20) return code === 0x9 || code === 0xa || code === 0xd
  return code < 0xd800 || (code > 0xdfff && code < 0xfffe) || (code > 0xffff && code <= 0x10ffff)
}

/** Whether a UTF-16 unit is XML white space (production 3). */
export function isSpace(unit: number): boolean {
  return unit === 0x20 || unit === 0xa || unit === 0x9 || unit === 0xd
}

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

/** What a name means in the syntax of namespaces. */
export type NameKind =
  /** `topic` */
  | 'plain'
  /** `xmlns` */
  | 'xmlns'
  /** `xmlns:p` */
  | 'declaration'
  /** `xml:lang` */
  | 'xml'
  /** `p:topic` */
  | 'prefixed'

/** A name taken apart. */
export interface QName {
  /** As written. */
  readonly text: string
  /** The part before the colon, `''` for none. */
  readonly prefix: string
  readonly local: string
  readonly kind: NameKind
}

const CACHED_NAMES_MAX = 1024
const CACHED_NAME_LENGTH_MAX = 64

/**
 * Takes names apart and checks them, remembering the usual ones: a stream has a few dozen names, each seen a million times.
 * Bounded: names beyond the first thousand are looked at afresh each time.
 */
export class NameTable {
  readonly #known = new Map<string, QName>()

  /** The name, or `undefined` when XML does not allow it. */
  lookup(text: string): QName | undefined {
    const known = this.#known.get(text)
    if (known !== undefined) return known
    const name = splitName(text)
    if (name !== undefined && text.length <= CACHED_NAME_LENGTH_MAX && this.#known.size < CACHED_NAMES_MAX) {
      this.#known.set(text, name)
    }
    return name
  }
}

function splitName(text: string): QName | undefined {
  const colon = text.indexOf(':')
  if (colon === -1) {
    if (!NC_NAME.test(text)) return undefined
    return { text, prefix: '', local: text, kind: text === 'xmlns' ? 'xmlns' : 'plain' }
  }
  const prefix = text.slice(0, colon)
  const local = text.slice(colon + 1)
  if (!NC_NAME.test(prefix) || !NC_NAME.test(local)) return undefined
  const kind: NameKind = prefix === 'xmlns' ? 'declaration' : prefix === 'xml' ? 'xml' : 'prefixed'
  return { text, prefix, local, kind }
}

/** Whether `text` is a name in an XML document with namespaces: at most one colon. */
export function isName(text: string): boolean {
  return splitName(text) !== undefined
}
