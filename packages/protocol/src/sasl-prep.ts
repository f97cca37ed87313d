/** SASLprep (RFC 4013): the one form of a password that client and server derive keys from. */
import { XmqError } from './errors.ts'

const PRINTABLE_ASCII = /^[ -~]*$/
/** RFC 3454 C.1.2: all but the ASCII space. */
const OTHER_SPACE = /[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]/g
/** RFC 3454 B.1: characters that nobody sees. */
const SHOWS_NOTHING = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|[\u200b-\u200d]|\u2060|[\ufe00-\ufe0f]|\ufeff/g
/** RFC 3454 C.2 to C.9: control, private, surrogate, no character, unfit for text, changing its display, tags. */
const REFUSED =
  /[\p{Cc}\p{Cs}\p{Co}\p{Noncharacter_Code_Point}\u06dd\u070f\u180e\u200e\u200f\u2028-\u202e\u2061-\u2063\u206a-\u206f\u2ff0-\u2ffb\ufff9-\ufffd\u{1d173}-\u{1d17a}\u{e0001}\u{e0020}-\u{e007f}]/u

/**
 * A password or user name as SASL mechanisms take it: spaces made one, invisible characters removed, NFKC. Two limits of RFC
 * 4013 are left to servers: the rule for mixed directions, and characters that Unicode 3.2 did not have yet.
 *
 * @param name what it is, for the message: the text itself is not told
 * @throws XmqError `bad-request` on control characters and others that SASL forbids
 */
export function saslPrep(text: string, name: string): string {
  if (PRINTABLE_ASCII.test(text)) return text
  const prepared = text.replace(OTHER_SPACE, ' ').replace(SHOWS_NOTHING, '').normalize('NFKC')
  const refused = REFUSED.exec(prepared)?.[0]?.codePointAt(0)
  if (refused === undefined) return prepared
  const code = `U+${refused.toString(16).toUpperCase().padStart(4, '0')}`
  throw new XmqError('bad-request', `${name} has the character ${code}, which SASL forbids (RFC 4013); leave it out.`)
}
