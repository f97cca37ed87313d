/**
 * What became of a delivery. docs/protocol-reliable.md "Settling".
 *
 *     <iq type='set'><settle xmlns='xmq:queue:1'>
 *       <ack lease='..'/><nack lease='..' delay='5'>why</nack><release lease='..'/><reject lease='..'>why</reject><extend lease='..'/>
 *     </settle></iq>
 *     <iq type='result'><settled xmlns='xmq:queue:1'><item lease='..'>ERROR</item></settled></iq>     what failed only
 */
import { element, textOf, type XmlElement } from '../element.ts'
import { encodeError, XmqError } from '../errors.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { escapedLength, escapeText } from '../writer.ts'
import { readWritten } from './content.ts'
import {
  assertMs,
  assertQueueElement,
  assertText,
  attrBytes,
  formatSeconds,
  optionalSeconds,
  optionalText,
  optionalWord,
  requiredText,
  sendableReason,
  writeAttr,
} from './fields.ts'
import { BATCH_ITEMS_MAX, DELAY_MS_MAX, ID_BYTES_MAX } from './limits.ts'
import { itemError } from './publish.ts'
import { WrittenElement, WrittenItem } from './written.ts'
import { itemsOf } from './xml-items.ts'

/** Why a message is dead at once: the handler said so, or no handler's schema accepts its payload. */
export type RejectReason = 'rejected' | 'invalid'

/** What a worker says of one lease. */
export type Settlement =
  /** Done. */
  | { readonly kind: 'ack'; readonly lease: string }
  /** Failed: again after `delayMs`, or after the queue's backoff when it is absent. */
  | { readonly kind: 'nack'; readonly lease: string; readonly delayMs?: number | undefined; readonly why: string }
  /** Not begun: again at once, and not counted as a failure. */
  | { readonly kind: 'release'; readonly lease: string }
  /** Never again. */
  | { readonly kind: 'reject'; readonly lease: string; readonly reason: RejectReason; readonly why: string }
  /** Still working: the lease starts again. */
  | { readonly kind: 'extend'; readonly lease: string }

/** One settlement of a batch: read, or broken. */
export type SettlementResult =
  | { readonly ok: true; readonly settlement: Settlement }
  | { readonly ok: false; readonly lease: string | undefined; readonly error: XmqError }

const KINDS: ReadonlySet<string> = new Set<Settlement['kind']>(['ack', 'nack', 'release', 'reject', 'extend'])
const REJECT_REASONS: readonly RejectReason[] = ['rejected', 'invalid']

/**
 * Writes one settlement. A reason that is too long is cut, and what XML cannot carry in it replaced.
 * @throws XmqError `bad-request` on a lease or delay that cannot be sent
 */
export function writeSettlement(settlement: Settlement): WrittenItem {
  const { kind, lease } = settlement
  assertText(lease, 'lease', kind, ID_BYTES_MAX)
  if (kind === 'ack') return new WrittenItem(`<ack${writeAttr('lease', lease, kind)}/>`, 11 + attrBytes('lease', lease))
  let text = `<${kind}${writeAttr('lease', lease, kind)}`
  let bytes = kind.length * 2 + 5 + attrBytes('lease', lease)
  const add = (name: string, value: string): void => {
    text += writeAttr(name, value, kind)
    bytes += attrBytes(name, value)
  }
  if (settlement.kind === 'nack' && settlement.delayMs !== undefined) {
    assertMs(settlement.delayMs, 'delay', kind, 0, DELAY_MS_MAX)
    add('delay', formatSeconds(settlement.delayMs))
  }
  if (settlement.kind === 'reject' && settlement.reason !== 'rejected') add('reason', settlement.reason)
  if (!('why' in settlement) || settlement.why === '') return new WrittenItem(`${text}/>`, bytes)
  const why = sendableReason(settlement.why)
  return new WrittenItem(`${text}>${escapeText(why)}</${kind}>`, bytes + escapedLength(why))
}

/** Of a `<settle/>`. */
export interface SettleOptions {
  /** With this one the session has named all that it holds: {@link isCompleteSettle}. @default false */
  readonly isComplete?: boolean
  /** Leases that are acked in one text, before all else. Only for who is known to read that: see `encodeReceived`. @default none */
  readonly acked?: readonly string[]
}

/** Writes `<settle/>`, of what {@link writeSettlement} gave. */
export function encodeSettle(settlements: readonly WrittenItem[], options: SettleOptions = {}): XmlElement {
  const { isComplete = false, acked = [] } = options
  const leases = acked.join('\n')
  const acks = leases === '' ? '' : `<acks>${escapeText(leases)}</acks>`
  let bytes = acks === '' ? 0 : 13 + escapedLength(leases)
  const complete = isComplete ? 'true' : undefined
  for (const settlement of settlements) bytes += settlement.bytes
  return new WrittenElement(
    element('settle', NS_QUEUE, { complete }),
    acks + WrittenItem.textOf(settlements),
    bytes,
    readWritten,
  )
}

/**
 * Whether the sender has now named every lease that it holds, in this stanza or in earlier ones to this life of the broker: what was
 * made for its session before and was not named, it does not have.
 */
export function isCompleteSettle(settle: XmlElement): boolean {
  return settle.attrs.get('complete') === 'true'
}

/**
 * Reads `<settle/>`: an entry for each settlement, in order. Children that are not known are ignored.
 * @throws XmqError `too-large` when there are too many
 */
export function decodeSettle(settle: XmlElement): SettlementResult[] {
  assertQueueElement(settle, 'settle')
  const results: SettlementResult[] = []
  for (const child of settle.children) {
    if (typeof child === 'string' || child.ns !== NS_QUEUE) continue
    // One more than there may be: it is told below.
    if (child.name === 'acks') {
      for (const lease of textOf(child).split('\n', BATCH_ITEMS_MAX + 1)) results.push(readAck(lease))
    } else if (KINDS.has(child.name)) results.push(readSettlement(child))
    if (results.length > BATCH_ITEMS_MAX) {
      throw new XmqError('too-large', `<settle> has more than ${BATCH_ITEMS_MAX} settlements; split it.`)
    }
  }
  return results
}

/** One of `<acks/>`. */
function readAck(lease: string): SettlementResult {
  try {
    assertText(lease, 'lease', 'ack', ID_BYTES_MAX)
    return { ok: true, settlement: { kind: 'ack', lease } }
  } catch (error) {
    return { ok: false, lease: undefined, error: XmqError.from(error) }
  }
}

function readSettlement(from: XmlElement): SettlementResult {
  let lease: string | undefined
  try {
    lease = requiredText(from, 'lease', ID_BYTES_MAX)
    return { ok: true, settlement: settlementOf(from, from.name as Settlement['kind'], lease) }
  } catch (error) {
    return { ok: false, lease, error: XmqError.from(error) }
  }
}

function settlementOf(from: XmlElement, kind: Settlement['kind'], lease: string): Settlement {
  switch (kind) {
    case 'nack': {
      const delayMs = optionalSeconds(from, 'delay', 0, DELAY_MS_MAX)
      return { kind, lease, ...(delayMs === undefined ? {} : { delayMs }), why: sendableReason(textOf(from)) }
    }
    case 'reject': {
      const reason = optionalWord(from, 'reason', REJECT_REASONS) ?? 'rejected'
      return { kind, lease, reason, why: sendableReason(textOf(from)) }
    }
    default:
      return { kind, lease }
  }
}

/** A settlement that had no effect. */
export interface FailedSettlement {
  /** `undefined` when that itself could not be read. */
  readonly lease: string | undefined
  readonly error: XmqError
}

/**
 * Writes `<settled/>`: an item for each settlement that failed; none when all are done.
 * @param epoch who answers: `epochOf` reads it
 */
export function encodeSettled(failed: readonly FailedSettlement[], epoch?: string): XmlElement {
  const items = failed.map(({ lease, error }) => element('item', NS_QUEUE, { lease }, [encodeError(error)]))
  return element('settled', NS_QUEUE, { epoch }, items)
}

/** Reads `<settled/>`. @throws XmqError `bad-request` when it is something else */
export function decodeSettled(settled: XmlElement): FailedSettlement[] {
  assertQueueElement(settled, 'settled')
  return itemsOf(settled).map((item) => ({
    lease: readableLease(item),
    error: itemError(item) ?? new XmqError('server', 'A settlement failed without a reason.'),
  }))
}

function readableLease(item: XmlElement): string | undefined {
  try {
    return optionalText(item, 'lease', ID_BYTES_MAX)
  } catch {
    return undefined
  }
}
