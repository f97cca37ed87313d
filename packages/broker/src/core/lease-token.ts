/**
 * Leases as they stand on the wire: what a settle needs to find its entry, also after its lease is over or the broker was
 * restarted.
 *
 *     TOKEN.SEQ          of the queue's own line
 *     TOKEN.SEQ.NAME     of the durable subscription NAME of the worker's bare JID
 *
 * The token's 128 random bits are what makes it a secret; the rest is no proof of anything.
 */

/** A lease's parts. */
export interface WireLease {
  readonly token: string
  readonly seq: number
  /** `''` for the queue's own line. */
  readonly name: string
}

const WIRE = /^([^.]{1,64})\.([1-9]\d{0,15})(?:\.(.+))?$/s

/** Writes a lease. */
export function formatLease({ token, seq, name }: WireLease): string {
  return name === '' ? `${token}.${seq}` : `${token}.${seq}.${name}`
}

/** Reads a lease; `undefined` when we never gave it. */
export function parseLease(text: string): WireLease | undefined {
  const found = WIRE.exec(text)
  if (found === null) return undefined
  const seq = Number(found[2])
  return Number.isSafeInteger(seq) ? { token: found[1] as string, seq, name: found[3] ?? '' } : undefined
}

/**
 * What a store calls the line of a durable subscription: unique in its queue, since no bare JID has a slash.
 * @param owner bare JID
 */
export function lineIdOf(owner: string, name: string): string {
  return name === '' ? '' : `${owner}/${name}`
}
