/**
 * Leases as they stand on the wire: what a settle needs to find its entry, also after its lease is over or the broker was
 * restarted.
 *
 *     TOKEN.SEQ          of the queue's own line
 *     TOKEN.SEQ.NAME     of the durable subscription NAME of the worker's bare JID
 *
 * The token's 128 random bits are what makes it a secret; the rest is no proof of anything. The token ends with the mark of the
 * session that it was made for.
 */

/** A lease's parts. */
export interface WireLease {
  readonly token: string
  readonly seq: number
  /** `''` for the queue's own line. */
  readonly name: string
}

const TOKEN_LENGTH_MAX = 64
const SEQ = /^[1-9]\d{0,15}$/

/** Writes a lease. */
export function formatLease({ token, seq, name }: WireLease): string {
  return name === '' ? `${token}.${seq}` : `${token}.${seq}.${name}`
}

/** Reads a lease; `undefined` when we never gave it. */
export function parseLease(text: string): WireLease | undefined {
  const dot = text.indexOf('.')
  if (dot < 1 || dot > TOKEN_LENGTH_MAX) return undefined
  const nameDot = text.indexOf('.', dot + 1)
  const digits = nameDot === -1 ? text.slice(dot + 1) : text.slice(dot + 1, nameDot)
  if (!SEQ.test(digits) || nameDot === text.length - 1) return undefined
  const seq = Number(digits)
  if (!Number.isSafeInteger(seq)) return undefined
  return { token: text.slice(0, dot), seq, name: nameDot === -1 ? '' : text.slice(nameDot + 1) }
}

/**
 * What a store calls the line of a durable subscription: unique in its queue, since no bare JID has a slash.
 * @param owner bare JID
 */
export function lineIdOf(owner: string, name: string): string {
  return name === '' ? '' : `${owner}/${name}`
}

/** What the tokens of a session's leases end with: 32 bits of its full JID (FNV-1a), to tell sessions apart, no secret. */
export function markOf(jid: string): string {
  let hash = 0x811c9dc5
  for (let at = 0; at < jid.length; at++) hash = Math.imul(hash ^ jid.charCodeAt(at), 0x01000193)
  return `~${(hash >>> 0).toString(36)}`
}
