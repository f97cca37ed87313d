/**
 * Handing messages to a worker. docs/protocol-reliable.md "Delivering".
 *
 *     <iq type='set'><deliver xmlns='xmq:queue:1' lease-seconds='30'><item …/>…</deliver></iq>
 *     <iq type='result'>[<settle xmlns='xmq:queue:1'/>]</iq>
 */
import { findChild, type XmlElement, type XmlNode } from '../element.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { assertMs, assertQueueElement, formatSeconds, requiredSeconds } from './fields.ts'
import type { DeliveredItem, ItemResult } from './item.ts'
import { itemCodecOf } from './item-codecs.ts'
import { LEASE_MS_MAX } from './limits.ts'
import { itemContainer } from './publish.ts'
import { decodeSettle, encodeSettle, type SettlementResult } from './settle.ts'
import type { WrittenItem } from './written.ts'

/** A batch for one worker. */
export interface Deliver {
  /** Whether the answer may ack in one text: {@link encodeReceived}. */
  readonly isPacked: boolean
  /** How long each lease lasts, from when the worker has answered that it received them. */
  readonly leaseMs: number
  readonly items: readonly ItemResult<DeliveredItem>[]
}

/**
 * Writes `<deliver/>`; the items come from the `writeDeliveredItem` of one codec.
 * @throws XmqError `bad-request` on a lease that cannot be sent
 */
export function encodeDeliver(leaseMs: number, items: readonly WrittenItem[]): XmlElement {
  assertMs(leaseMs, 'lease-seconds', 'deliver', 1, LEASE_MS_MAX)
  return itemContainer('deliver', { 'lease-seconds': formatSeconds(leaseMs) }, items)
}

/**
 * Reads `<deliver/>`: an entry for each item, in order; a broken one is an error of its own, with its lease where that could
 * be read.
 *
 * @throws XmqError `bad-request`, `too-large`: the whole is to be refused
 */
export function decodeDeliver(deliver: XmlElement): Deliver {
  assertQueueElement(deliver, 'deliver')
  const leaseMs = requiredSeconds(deliver, 'lease-seconds', 1, LEASE_MS_MAX)
  const codec = itemCodecOf(deliver)
  return { leaseMs, isPacked: codec.encoding !== undefined, items: codec.readDeliveredItems(deliver) }
}

/**
 * The children of the answer to `<deliver/>`: nothing, or the settlements of what is done already.
 * @param acked leases that are acked in one text: only in the answer to packed items, whose sender knows that
 */
export function encodeReceived(settlements: readonly WrittenItem[] = [], acked: readonly string[] = []): XmlNode[] {
  return settlements.length === 0 && acked.length === 0 ? [] : [encodeSettle(settlements, { acked })]
}

/** The settlements that an answer to `<deliver/>` carries; none when there are more than a batch may have. Total. */
export function decodeReceived(result: XmlElement): SettlementResult[] {
  const settle = findChild(result, 'settle', NS_QUEUE)
  if (settle === undefined) return []
  try {
    return decodeSettle(settle)
  } catch {
    return []
  }
}
