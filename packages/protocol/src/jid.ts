/**
 * XMPP addresses (RFC 7622): `local@domain/resource`.
 *
 * Domain and local part are compared without case: both are lower-cased on parsing. A resource is kept as it is. The full
 * PRECIS profiles are the server's work, which has enforced them on every address that a stanza carries.
 */
import { XmqError } from './errors.ts'
import { utf8Length } from './writer.ts'

/** A parsed address. Absent parts are empty strings. */
export interface Jid {
  /** The part before `@`, lower-cased; `''` when there is none. */
  readonly local: string
  /** The domain, lower-cased. */
  readonly domain: string
  /** The part after `/`, case kept; `''` when there is none. */
  readonly resource: string
}

const PART_BYTES_MAX = 1023
// What neither a local part nor a domain may hold: control characters, and spaces of any kind.
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\ufffe\uffff]/
const SPACE = /[ \u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]/
// RFC 7622 3.3.1.
const LOCAL_FORBIDDEN = /["&'/:<>@]/
const DOMAIN_FORBIDDEN = /["&'/<>@]/
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const RESOURCE_FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffe\uffff]/

/**
 * Parses an address.
 * @throws XmqError `bad-request` naming the part that is wrong
 */
export function parseJid(text: string): Jid {
  const slash = text.indexOf('/')
  const bare = slash === -1 ? text : text.slice(0, slash)
  const resource = slash === -1 ? '' : text.slice(slash + 1)
  const at = bare.indexOf('@')
  const local = at === -1 ? '' : bare.slice(0, at).toLowerCase()
  let domain = (at === -1 ? bare : bare.slice(at + 1)).toLowerCase()
  if (domain.endsWith('.')) domain = domain.slice(0, -1)
  const problem = jidProblem(local, domain, resource, at !== -1, slash !== -1)
  if (problem !== undefined) {
    throw new XmqError('bad-request', `'${printable(text)}' is not an XMPP address: ${problem}.`, {
      condition: 'jid-malformed',
    })
  }
  return { local, domain, resource }
}

/** Parses an address, or `undefined` when it is none. For addresses that nobody waits to be told about. */
export function tryParseJid(text: string): Jid | undefined {
  try {
    return parseJid(text)
  } catch {
    return undefined
  }
}

function jidProblem(
  local: string,
  domain: string,
  resource: string,
  hasAt: boolean,
  hasSlash: boolean,
): string | undefined {
  if (domain === '') return 'it has no domain'
  if (hasAt && local === '') return "nothing stands before '@'"
  if (hasSlash && resource === '') return "nothing stands after '/'"
  if (LOCAL_FORBIDDEN.test(local) || hasSpaceOrControl(local)) {
    return "the part before '@' has a character that is not allowed there"
  }
  if (DOMAIN_FORBIDDEN.test(domain) || hasSpaceOrControl(domain))
    return 'its domain has a character that is not allowed'
  if (domain.includes('..') || domain.startsWith('.')) return 'its domain has an empty label'
  if (RESOURCE_FORBIDDEN.test(resource)) return 'its resource has a control character'
  for (const part of [local, domain, resource]) {
    // A UTF-16 unit is at most three bytes of UTF-8: most parts need no exact count.
    if (part.length * 3 > PART_BYTES_MAX && utf8Length(part) > PART_BYTES_MAX) {
      return `a part of it is longer than ${PART_BYTES_MAX} bytes`
    }
  }
  return undefined
}

function hasSpaceOrControl(part: string): boolean {
  return CONTROL.test(part) || SPACE.test(part)
}

function printable(text: string): string {
  const short = text.length > 80 ? `${text.slice(0, 80)}…` : text
  // oxlint-disable-next-line no-control-regex -- control characters are what it replaces
  return short.replace(/[\u0000-\u001f\u007f-\u009f]/g, '\ufffd')
}

/** An address as text. */
export function formatJid(jid: Jid): string {
  return (jid.local === '' ? '' : `${jid.local}@`) + jid.domain + (jid.resource === '' ? '' : `/${jid.resource}`)
}

/** The address without its resource, as text. */
export function formatBareJid(jid: Jid): string {
  return jid.local === '' ? jid.domain : `${jid.local}@${jid.domain}`
}

/**
 * The bare address of one in text form, without parsing it: for addresses that a server put into a stanza, which are
 * normalised already.
 */
export function bareOf(text: string): string {
  const slash = text.indexOf('/')
  return slash === -1 ? text : text.slice(0, slash)
}

/** The domain of an address in text form, without parsing it. See {@link bareOf}. */
export function domainOf(text: string): string {
  const bare = bareOf(text)
  const at = bare.indexOf('@')
  return at === -1 ? bare : bare.slice(at + 1)
}

/** Whether two addresses in text form are the same (RFC 7622: local part and domain without case, resource with). */
export function sameJid(left: string, right: string): boolean {
  if (left === right) return true
  const a = tryParseJid(left)
  const b = tryParseJid(right)
  return a !== undefined && b !== undefined && a.local === b.local && a.domain === b.domain && a.resource === b.resource
}
