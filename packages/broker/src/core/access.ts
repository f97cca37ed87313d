/** Who may do what with a queue. */
import { bareOf, domainOf } from '@xmq/protocol'
import type { AccessList } from './port.ts'

/** An access list, made ready for looking up. */
export type Access = ReadonlySet<string>

/** Makes an access list ready. */
export function createAccess(list: AccessList): Access {
  return new Set(list)
}

/**
 * Whether a sender is on the list, by its bare JID or by its domain.
 * @param sender the `from` of a stanza: a server put it there, so it is normalised and true
 */
export function isAllowed(access: Access, sender: string): boolean {
  return access.has(domainOf(sender)) || access.has(bareOf(sender))
}
