/**
 * What admins ask and order: looking into a queue, dead letters, counts. docs/protocol-reliable.md "Administration".
 *
 *     <iq type='get'><dead-letters xmlns='xmq:queue:1' topic='T' after='0' max='50' content='true'/></iq>
 *     <iq type='result'><dead-letters xmlns='xmq:queue:1' next='17'><item seq='17' …><history>…</history>PAYLOAD</item></dead-letters></iq>
 *     <iq type='set'><dead-letters xmlns='xmq:queue:1' action='replay'><item seq='17'/></dead-letters></iq>
 *     <iq type='set'><dead-letters xmlns='xmq:queue:1' action='purge' all='true' topic='T' after='0' max='500'/></iq>
 *     <iq type='result'><dead-letters xmlns='xmq:queue:1' done='500' next='1234'/></iq>
 */
import { element, findChild, textOf, type XmlElement } from '../element.ts'
import { encodeError, XmqError } from '../errors.ts'
import { TOPIC_BYTES_MAX } from '../limits.ts'
import { NS_QUEUE } from '../namespaces.ts'
import { wireLength, writeElement } from '../writer.ts'
import { type ItemContent, readContent } from './content.ts'
import {
  assertQueueElement,
  instantText,
  optionalBoolean,
  optionalInstant,
  optionalInteger,
  optionalText,
  optionalWord,
  queueChildren,
  requiredInstant,
  requiredInteger,
  requiredText,
  requiredWord,
  sendableReason,
} from './fields.ts'
import { BATCH_ITEMS_MAX, ID_BYTES_MAX, JID_BYTES_MAX, KEY_BYTES_MAX, PAGE_MAX, PRIORITY_MAX } from './limits.ts'
import { type LineName, readLineName } from './line.ts'
import { itemContainer, itemError } from './publish.ts'
import { WrittenItem } from './written.ts'
import { itemsOf } from './xml-items.ts'

const SEQ_MAX = Number.MAX_SAFE_INTEGER

/** Where a message is. */
export type MessageState = 'ready' | 'delayed' | 'leased' | 'dead'
const STATES: readonly MessageState[] = ['ready', 'delayed', 'leased', 'dead']

/** Why a message was given up. */
export type DeadLetterReason = 'max-attempts' | 'rejected' | 'expired' | 'invalid' | 'overflow' | 'corrupt'
const DEAD_REASONS: readonly DeadLetterReason[] = [
  'max-attempts',
  'rejected',
  'expired',
  'invalid',
  'overflow',
  'corrupt',
]

/** A page of messages, by seq. */
export interface BrowseQuery extends LineName {
  /** `dead` is asked with `<dead-letters/>`, all else with `<browse/>`; `undefined` for every state. */
  readonly state: MessageState | undefined
  readonly topic?: string | undefined
  /** Only those with a higher seq; 0 for all. With `max: 1` and a seq less one, that message. */
  readonly after: number
  /** 1 to 500. */
  readonly max: number
  /** With headers and payload. */
  readonly content: boolean
}

/** One thing that went wrong with a message. */
export interface HistoryRecord {
  /** Wall ms. */
  readonly at: number
  /** The worker's bare JID; absent when no worker held it. */
  readonly worker?: string | undefined
  /** Which delivery it was, from 1. */
  readonly attempt?: number | undefined
  readonly why: string
}

/** A message as admins see it. Times are wall ms. */
export interface BrowsedItem {
  readonly seq: number
  readonly state: MessageState
  readonly id?: string | undefined
  readonly topic: string
  /** Who published it. */
  readonly from: string
  readonly key?: string | undefined
  readonly priority: number
  readonly publishedAt: number
  readonly expiresAt?: number | undefined
  /** Of a delayed one: when it becomes ready. */
  readonly dueAt?: number | undefined
  /** Of a dead one. */
  readonly diedAt?: number | undefined
  readonly reason?: DeadLetterReason | undefined
  readonly failures: number
  readonly deliveries: number
  /** Of a leased one: the worker's bare JID. */
  readonly holder?: string | undefined
  /** Bytes of payload and headers in the store. */
  readonly bytes: number
  readonly history: readonly HistoryRecord[]
  /** Absent when it was not asked for, is damaged, or does not fit in a stanza. */
  readonly content?: ItemContent | undefined
}

/** A page of messages; ask on with `after: next` until there is no `next`. */
export interface BrowsePage {
  readonly items: readonly BrowsedItem[]
  readonly next?: number | undefined
}

function pageName(state: MessageState | undefined): 'dead-letters' | 'browse' {
  return state === 'dead' ? 'dead-letters' : 'browse'
}

function textOfNumber(value: number | undefined): string | undefined {
  return value === undefined ? undefined : String(value)
}

/** Writes the query of a page. */
export function encodeBrowse(query: BrowseQuery): XmlElement {
  const { state, subscription, owner, topic, after, max, content } = query
  return element(pageName(state), NS_QUEUE, {
    state: state === 'dead' ? undefined : state,
    subscription,
    owner,
    topic,
    after: after === 0 ? undefined : String(after),
    max: String(max),
    content: content ? 'true' : undefined,
  })
}

/** Reads the query of a page, `<browse/>` or `<dead-letters/>` of an IQ get. @throws XmqError `bad-request` */
export function decodeBrowse(root: XmlElement): BrowseQuery {
  const isDead = root.name === 'dead-letters'
  assertQueueElement(root, isDead ? 'dead-letters' : 'browse')
  const topic = optionalText(root, 'topic', TOPIC_BYTES_MAX)
  return {
    state: isDead ? 'dead' : optionalWord(root, 'state', STATES),
    ...readLineName(root),
    ...(topic === undefined ? {} : { topic }),
    after: optionalInteger(root, 'after', 0, SEQ_MAX) ?? 0,
    max: optionalInteger(root, 'max', 1, PAGE_MAX) ?? 50,
    content: optionalBoolean(root, 'content'),
  }
}

/**
 * Writes one message of a page; split pages with `splitBatches`. The state stands in it unless it is dead.
 * @throws XmqError when its content cannot be written
 */
export function writeBrowsedItem(item: BrowsedItem): WrittenItem {
  const { content, history } = item
  const head = browsedHead(item)
  const start = writeElement(head, NS_QUEUE).slice(0, -2)
  const records = history.length === 0 ? undefined : encodeHistory(history)
  // In the context of another namespace, so that it declares its own as every child of an item does.
  const inner = (records ? writeElement(records, '') : '') + (content ? content.extras + content.body : '')
  const bytes = wireLength(head, NS_QUEUE) + (records ? wireLength(records, '') : 0) + (content?.bytes ?? 0)
  return new WrittenItem(inner === '' ? `${start}/>` : `${start}>${inner}</item>`, bytes)
}

function encodeHistory(history: readonly HistoryRecord[]): XmlElement {
  const entries = history.map(({ at, worker, attempt, why }) =>
    element('entry', NS_QUEUE, { at: instantText(at, 'at', 'entry'), worker, attempt: textOfNumber(attempt) }, [
      sendableReason(why),
    ]),
  )
  return element('history', NS_QUEUE, undefined, entries)
}

function browsedHead(item: BrowsedItem): XmlElement {
  const instant = (name: string, ms: number | undefined): string | undefined =>
    ms === undefined ? undefined : instantText(ms, name, 'item')
  const attrs = {
    seq: String(item.seq),
    state: item.state === 'dead' ? undefined : item.state,
    id: item.id,
    topic: item.topic,
    from: item.from,
    key: item.key,
    priority: item.priority === 0 ? undefined : String(item.priority),
    at: instant('at', item.publishedAt),
    expires: instant('expires', item.expiresAt),
    due: instant('due', item.dueAt),
    died: instant('died', item.diedAt),
    reason: item.reason,
    failures: String(item.failures),
    deliveries: String(item.deliveries),
    holder: item.holder,
    bytes: String(item.bytes),
  }
  return element('item', NS_QUEUE, attrs)
}

/** Writes a page, of what {@link writeBrowsedItem} gave. @param state as the query had it */
export function encodeBrowsePage(
  state: MessageState | undefined,
  items: readonly WrittenItem[],
  next?: number,
): XmlElement {
  return itemContainer(pageName(state), { next: textOfNumber(next) }, items)
}

/** Reads a page. @throws XmqError `bad-request` when any of it is broken */
export function decodeBrowsePage(root: XmlElement): BrowsePage {
  const isDead = root.name === 'dead-letters'
  assertQueueElement(root, isDead ? 'dead-letters' : 'browse')
  const next = optionalInteger(root, 'next', 0, SEQ_MAX)
  const items = itemsOf(root).map((item) => readBrowsed(item, isDead))
  return { items, ...(next === undefined ? {} : { next }) }
}

function readBrowsed(item: XmlElement, isDead: boolean): BrowsedItem {
  const content = readContent(item, true)
  const hasContent = content.payload.length > 0 || content.headers.size > 0 || content.envelope !== undefined
  return {
    seq: requiredInteger(item, 'seq', 1, SEQ_MAX),
    state: isDead ? 'dead' : requiredWord(item, 'state', STATES),
    id: optionalText(item, 'id', ID_BYTES_MAX),
    topic: requiredText(item, 'topic', TOPIC_BYTES_MAX),
    from: requiredText(item, 'from', JID_BYTES_MAX),
    key: optionalText(item, 'key', KEY_BYTES_MAX),
    priority: optionalInteger(item, 'priority', 0, PRIORITY_MAX) ?? 0,
    publishedAt: requiredInstant(item, 'at'),
    expiresAt: optionalInstant(item, 'expires'),
    dueAt: optionalInstant(item, 'due'),
    diedAt: optionalInstant(item, 'died'),
    reason: optionalWord(item, 'reason', DEAD_REASONS),
    failures: requiredInteger(item, 'failures', 0, SEQ_MAX),
    deliveries: requiredInteger(item, 'deliveries', 0, SEQ_MAX),
    holder: optionalText(item, 'holder', JID_BYTES_MAX),
    bytes: requiredInteger(item, 'bytes', 0, SEQ_MAX),
    history: readHistory(item),
    content: hasContent ? content : undefined,
  }
}

function readHistory(item: XmlElement): HistoryRecord[] {
  const history = findChild(item, 'history')
  if (history === undefined) return []
  return queueChildren(history, 'entry').map((entry) => ({
    at: requiredInstant(entry, 'at'),
    worker: optionalText(entry, 'worker', JID_BYTES_MAX),
    attempt: optionalInteger(entry, 'attempt', 1, SEQ_MAX),
    why: sendableReason(textOf(entry)),
  }))
}

/** What is done with dead letters. */
export type DeadLetterAction = 'replay' | 'purge'
const ACTIONS: readonly DeadLetterAction[] = ['replay', 'purge']

/** An order about dead letters: some by their seq, or up to `max` of all (of a topic) above `after`. */
export type DeadLetterOrder = LineName & { readonly action: DeadLetterAction } & (
    | { readonly select: 'seqs'; readonly seqs: readonly number[] }
    | { readonly select: 'all'; readonly topic?: string | undefined; readonly after: number; readonly max: number }
  )

/** Writes an order about dead letters, for an IQ set. */
export function encodeDeadLetterOrder(order: DeadLetterOrder): XmlElement {
  const { action, subscription, owner } = order
  if (order.select === 'seqs') {
    const items = order.seqs.map((seq) => element('item', NS_QUEUE, { seq: String(seq) }))
    return element('dead-letters', NS_QUEUE, { action, subscription, owner }, items)
  }
  const { topic, after, max } = order
  return element('dead-letters', NS_QUEUE, {
    action,
    subscription,
    owner,
    all: 'true',
    topic,
    after: after === 0 ? undefined : String(after),
    max: String(max),
  })
}

/** Reads the `<dead-letters/>` of an IQ set. @throws XmqError `bad-request`, `too-large`: nothing of it is done */
export function decodeDeadLetterOrder(root: XmlElement): DeadLetterOrder {
  assertQueueElement(root, 'dead-letters')
  const action = requiredWord(root, 'action', ACTIONS)
  const line = readLineName(root)
  const items = itemsOf(root)
  if (optionalBoolean(root, 'all')) {
    if (items.length > 0) {
      throw new XmqError('bad-request', "<dead-letters> has both all='true' and items; send one of them.")
    }
    const topic = optionalText(root, 'topic', TOPIC_BYTES_MAX)
    const after = optionalInteger(root, 'after', 0, SEQ_MAX) ?? 0
    const max = optionalInteger(root, 'max', 1, PAGE_MAX) ?? PAGE_MAX
    return { action, ...line, select: 'all', ...(topic === undefined ? {} : { topic }), after, max }
  }
  if (items.length === 0) {
    throw new XmqError(
      'bad-request',
      "<dead-letters> says not which: give an <item seq='..'/> for each, or all='true'.",
    )
  }
  return { action, ...line, select: 'seqs', seqs: items.map((item) => requiredInteger(item, 'seq', 1, SEQ_MAX)) }
}

/** What came of an order about dead letters. */
export interface DeadLetterOutcome {
  /** How many were replayed or purged. */
  readonly done: number
  /** Of an order about all: the `after` to go on with; absent at the end. */
  readonly next?: number | undefined
  readonly failed: readonly { readonly seq: number; readonly error: XmqError }[]
}

/** Writes the answer to an order about dead letters. */
export function encodeDeadLetterOutcome({ done, next, failed }: DeadLetterOutcome): XmlElement {
  const items = failed.map(({ seq, error }) => element('item', NS_QUEUE, { seq: String(seq) }, [encodeError(error)]))
  return element('dead-letters', NS_QUEUE, { done: String(done), next: textOfNumber(next) }, items)
}

/** Reads the answer to an order about dead letters. @throws XmqError `bad-request` */
export function decodeDeadLetterOutcome(root: XmlElement): DeadLetterOutcome {
  assertQueueElement(root, 'dead-letters')
  const next = optionalInteger(root, 'next', 0, SEQ_MAX)
  return {
    done: requiredInteger(root, 'done', 0, SEQ_MAX),
    ...(next === undefined ? {} : { next }),
    failed: itemsOf(root).map((item) => ({
      seq: requiredInteger(item, 'seq', 1, SEQ_MAX),
      error: itemError(item) ?? new XmqError('server', 'An order failed without a reason.'),
    })),
  }
}

/** Most dead letters that one order names. */
export const DEAD_LETTER_ORDER_MAX: number = BATCH_ITEMS_MAX
