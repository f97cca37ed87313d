/** What is neither text nor an element: CDATA sections, the XML declaration, and all that XMPP forbids. Stateless. */
import { printableName, type XmlWindow } from './xml-window.ts'

const SECTION = '<![CDATA['
/** Longest XML declaration that is waited for. */
export const DECLARATION_LENGTH_MAX = 256
const DECLARATION =
  /^<\?xml\s+version\s*=\s*(["'])1\.[0-9]+\1(?:\s+encoding\s*=\s*(["'])([\w.-]+)\2)?(?:\s+standalone\s*=\s*(["'])(?:yes|no)\4)?\s*\?>$/

/**
 * Index after the `<![CDATA[` at `at`, `undefined` when the window ends inside it.
 * @throws XmqError `malformed-xml` on any other `<!`
 */
export function sectionStart(window: XmlWindow, at: number): number | undefined {
  const start = window.text.slice(at, at + SECTION.length)
  if (start === SECTION) return at + SECTION.length
  if (start.startsWith('<!--')) window.fail(at, 'comments are not allowed in XMPP')
  if (start === '<!DOCTYPE') window.fail(at, 'document types are not allowed in XMPP')
  for (const markup of [SECTION, '<!--', '<!DOCTYPE']) if (markup.startsWith(start)) return undefined
  return window.fail(at, "'<!' begins neither text nor an element")
}

/** Where a CDATA section's text ends in this window, with or without its `]]>`. What may be the start of that is left. */
export function sectionEnd(window: XmlWindow, from: number): { readonly to: number; readonly whole: boolean } {
  const { text } = window
  const end = text.indexOf(']]>', from)
  if (end !== -1) return { to: end, whole: true }
  return { to: Math.max(from, withoutOpenEnding(text)), whole: false }
}

/** Where text ends whose meaning later text cannot change: before a CR, a `]]` or an unfinished reference. */
export function contentEnd(window: XmlWindow, from: number): number {
  return window.unfinishedReference(from, Math.max(from, withoutOpenEnding(window.text)))
}

/** The text's length without a last CR (which an LF may follow) or a last `]` or `]]` (which `>` may follow). */
function withoutOpenEnding(text: string): number {
  const last = text.charCodeAt(text.length - 1)
  if (last === 0xd) return text.length - 1
  if (last !== 0x5d /* ] */) return text.length
  return text.length - (text.charCodeAt(text.length - 2) === 0x5d ? 2 : 1)
}

/**
 * Index after the XML declaration at `at`, `undefined` when the window ends inside it.
 * @throws XmqError `malformed-xml` on any other `<?`, and on an encoding other than UTF-8
 */
export function declarationEnd(window: XmlWindow, at: number, allowed: boolean): number | undefined {
  const { text } = window
  const start = text.slice(at, at + 6).replace(/[\t\r\n]$/, ' ')
  if (!allowed || !'<?xml '.startsWith(start)) window.fail(at, 'processing instructions are not allowed in XMPP')
  const end = text.indexOf('?>', at)
  if (end === -1) {
    if (text.length - at > DECLARATION_LENGTH_MAX) window.fail(at, 'the XML declaration does not end')
    return undefined
  }
  const found = DECLARATION.exec(text.slice(at, end + 2))
  if (found === null) window.fail(at, 'the XML declaration is wrong')
  const encoding = found[3]
  if (encoding !== undefined && encoding.toLowerCase() !== 'utf-8') {
    window.fail(at, `encoding '${printableName(encoding)}' is not allowed in XMPP, only UTF-8`)
  }
  return end + 2
}
