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

/**
 * The character of the predefined reference whose name begins at `at`, `''` when it is none. Unit by unit: JSON that a server
 * escaped is full of them, and this is several times as fast as cutting the name out.
 */
function predefinedAt(text: string, at: number): string {
  switch (text.charCodeAt(at)) {
    case 0x71 /* q */:
      return isUnits(text, at + 1, 0x75, 0x6f, 0x74) && text.charCodeAt(at + 4) === SEMICOLON ? '"' : ''
    case 0x61 /* a */:
      if (isUnits(text, at + 1, 0x6d, 0x70, SEMICOLON)) return '&'
      return isUnits(text, at + 1, 0x70, 0x6f, 0x73) && text.charCodeAt(at + 4) === SEMICOLON ? "'" : ''
    case 0x6c /* l */:
      return text.charCodeAt(at + 1) === 0x74 && text.charCodeAt(at + 2) === SEMICOLON ? '<' : ''
    case 0x67 /* g */:
      return text.charCodeAt(at + 1) === 0x74 && text.charCodeAt(at + 2) === SEMICOLON ? '>' : ''
    default:
      return ''
  }
}

const SEMICOLON = 0x3b
/** How long each predefined reference is, ampersand and semicolon included. */
const PREDEFINED_LENGTH: Readonly<Record<string, number>> = { '"': 6, "'": 6, '&': 5, '<': 4, '>': 4 }

function isUnits(text: string, at: number, first: number, second: number, third: number): boolean {
  return text.charCodeAt(at) === first && text.charCodeAt(at + 1) === second && text.charCodeAt(at + 2) === third
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
    const reference = this.#hasReference(from, to)
    if (!this.#hasReturn(from, to)) return reference ? this.#resolve(this.text, from, to, 0) : this.text.slice(from, to)
    const raw = this.text.slice(from, to).replace(/\r\n?/g, '\n')
    return reference ? this.#resolve(raw, 0, raw.length, from) : raw
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
    const reference = this.#hasReference(from, to)
    if (this.#nl < from) this.#nl = indexOrEnd(this.text, '\n', from)
    if (this.#tab < from) this.#tab = indexOrEnd(this.text, '\t', from)
    if (this.#nl >= to && this.#tab >= to && !this.#hasReturn(from, to)) {
      return reference ? this.#resolve(this.text, from, to, 0) : this.text.slice(from, to)
    }
    const raw = this.text.slice(from, to).replace(/\r\n|[\r\n\t]/g, ' ')
    return reference ? this.#resolve(raw, 0, raw.length, from) : raw
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

  /** Resolves the references in a stretch of `text`, which begins at `base` of this window. */
  #resolve(text: string, from: number, to: number, base: number): string {
    // JSON that a server escaped has nothing but quotes: one search that copies once, instead of two pieces for each of them.
    const quoted = text.slice(from, to).replace(/&quot;/g, '"')
    if (!quoted.includes('&')) return quoted
    let out = ''
    let done = from
    for (let at = text.indexOf('&', from); at !== -1 && at < to; at = text.indexOf('&', done)) {
      if (at > done) out += text.slice(done, at)
      const predefined = predefinedAt(text, at + 1)
      if (predefined !== '') {
        out += predefined
        done = at + (PREDEFINED_LENGTH[predefined] as number)
        continue
      }
      const end = text.indexOf(';', at)
      if (end === -1 || end >= to || end - at > REFERENCE_LENGTH_MAX) {
        this.fail(base + at, "'&' begins no reference; write '&amp;'")
      }
      out += this.#character(text.slice(at + 1, end), base + at)
      done = end + 1
    }
    if (done > to) this.fail(base + to, "'&' begins no reference; write '&amp;'")
    return done === to ? out : out + text.slice(done, to)
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
