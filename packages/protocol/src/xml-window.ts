/**
 * A window on the text that is being read: where the next character of interest is, and what a stretch of it means.
 *
 * Owner: {@link XmlStreamReader}, which loads one window after the other.
 *
 * Invariants:
 * 1. A search result is kept until the reading position has passed it, so each character is searched once for each
 *    character of interest, however many tokens the window holds: linear time.
 * 2. Reading positions only grow between two loads.
 */
import { XmqError } from './errors.ts'
import { isXmlCodePoint } from './xml-characters.ts'

/** Longest reference that is waited for: `&#x10FFFF;` and some leading zeros. */
const REFERENCE_LENGTH_MAX = 64

/** A reference of XML's own five and its length, ampersand and semicolon included. */
interface Predefined {
  readonly text: string
  readonly length: number
}
const QUOT: Predefined = { text: '"', length: 6 }
const APOS: Predefined = { text: "'", length: 6 }
const AMP: Predefined = { text: '&', length: 5 }
const LT: Predefined = { text: '<', length: 4 }
const GT: Predefined = { text: '>', length: 4 }

// By the first letter, since JSON that a server escaped is full of them: twice as fast as cutting the name out.
function predefinedAt(text: string, at: number): Predefined | undefined {
  switch (text.charCodeAt(at)) {
    case 0x71 /* q */:
      return text.startsWith('quot;', at) ? QUOT : undefined
    case 0x61 /* a */:
      if (text.startsWith('amp;', at)) return AMP
      return text.startsWith('apos;', at) ? APOS : undefined
    case 0x6c /* l */:
      return text.startsWith('lt;', at) ? LT : undefined
    case 0x67 /* g */:
      return text.startsWith('gt;', at) ? GT : undefined
    default:
      return undefined
  }
}

/** See the file's head. */
export class XmlWindow {
  text = ''
  /** Characters of the stream before this window. */
  base = 0
  #lt = -1
  #amp = -1
  #cr = -1
  #nl = -1
  #tab = -1
  #sectionEnd = -1

  /** Puts a window on the next text. */
  load(text: string, base: number): void {
    this.text = text
    this.base = base
    this.#lt = this.#amp = this.#cr = this.#nl = this.#tab = this.#sectionEnd = -1
  }

  /** Index of the next `<` at or after `from`; the text's length when there is none. */
  nextTag(from: number): number {
    if (this.#lt < from) this.#lt = indexOrEnd(this.text, '<', from)
    return this.#lt
  }

  /**
   * Text between tags: newlines normalised (XML 1.0 2.11), references resolved.
   * @throws XmqError `malformed-xml`
   */
  content(from: number, to: number): string {
    if (this.#sectionEnd < from) this.#sectionEnd = indexOrEnd(this.text, ']]>', from)
    if (this.#sectionEnd < to) this.fail(this.#sectionEnd, "']]>' stands in text; write ']]&gt;'")
    const raw = this.text.slice(from, to)
    if (!this.#hasReference(from, to) && !this.#hasReturn(from, to)) return raw
    return this.#resolve(raw.replace(/\r\n?/g, '\n'), from)
  }

  /** Text of a CDATA section: newlines normalised. */
  literal(from: number, to: number): string {
    const raw = this.text.slice(from, to)
    return this.#hasReturn(from, to) ? raw.replace(/\r\n?/g, '\n') : raw
  }

  /**
   * An attribute's value: white space normalised (XML 1.0 3.3.3, type CDATA), references resolved.
   * @throws XmqError `malformed-xml`
   */
  value(from: number, to: number): string {
    const raw = this.text.slice(from, to)
    const reference = this.#hasReference(from, to)
    if (this.#nl < from) this.#nl = indexOrEnd(this.text, '\n', from)
    if (this.#tab < from) this.#tab = indexOrEnd(this.text, '\t', from)
    if (!reference && this.#nl >= to && this.#tab >= to && !this.#hasReturn(from, to)) return raw
    return this.#resolve(raw.replace(/\r\n|[\r\n\t]/g, ' '), from)
  }

  /**
   * Where a reference begins that this window does not finish; `to` when there is none.
   * @throws XmqError `malformed-xml` when it is too long to be one
   */
  unfinishedReference(from: number, to: number): number {
    if (!this.#hasReference(from, to)) return to
    const at = this.text.lastIndexOf('&', to - 1)
    if (at < from || this.text.indexOf(';', at) !== -1) return to
    if (to - at > REFERENCE_LENGTH_MAX) this.fail(at, "'&' begins no reference; write '&amp;'")
    return at
  }

  /** Ends the stream: names the cause and where it is. */
  fail(at: number, cause: string): never {
    throw new XmqError('malformed-xml', `Malformed XML at character ${this.base + at}: ${cause}.`)
  }

  #hasReference(from: number, to: number): boolean {
    if (this.#amp < from) this.#amp = indexOrEnd(this.text, '&', from)
    return this.#amp < to
  }

  #hasReturn(from: number, to: number): boolean {
    if (this.#cr < from) this.#cr = indexOrEnd(this.text, '\r', from)
    return this.#cr < to
  }

  #resolve(raw: string, base: number): string {
    let out = ''
    let from = 0
    for (let at = raw.indexOf('&'); at !== -1; at = raw.indexOf('&', from)) {
      if (at > from) out += raw.slice(from, at)
      const predefined = predefinedAt(raw, at + 1)
      if (predefined !== undefined) {
        out += predefined.text
        from = at + predefined.length
        continue
      }
      const end = raw.indexOf(';', at)
      if (end === -1 || end - at > REFERENCE_LENGTH_MAX) this.fail(base + at, "'&' begins no reference; write '&amp;'")
      out += this.#character(raw.slice(at + 1, end), base + at)
      from = end + 1
    }
    return from === raw.length ? out : out + raw.slice(from)
  }

  #character(name: string, at: number): string {
    const hex = /^#x([0-9a-fA-F]+)$/.exec(name)
    const decimal = hex === null ? /^#([0-9]+)$/.exec(name) : null
    if (hex === null && decimal === null) {
      this.fail(at, `entity '&${printableName(name)};' is unknown; XMPP has only lt, gt, amp, apos and quot`)
    }
    const code = hex === null ? Number(decimal?.[1]) : Number.parseInt(hex[1] as string, 16)
    if (!isXmlCodePoint(code)) this.fail(at, `'&${name};' names a character that XML does not allow`)
    return String.fromCodePoint(code)
  }
}

function indexOrEnd(text: string, search: string, from: number): number {
  const at = text.indexOf(search, from)
  return at === -1 ? text.length : at
}

/** A name for an error's text: short, and nothing in it that upsets a log. */
export function printableName(name: string): string {
  const short = name.length > 40 ? `${name.slice(0, 40)}…` : name
  return short.replace(/[^ -~\u00a1-\ud7ff…]/g, '\ufffd')
}
