/**
 * Counts of a queue, for its admins. docs/protocol-reliable.md "Administration".
 *
 *     <iq type='get'><stats xmlns='xmq:queue:1' topics='100' after='T'/></iq>
 *     <iq type='result'><stats xmlns='xmq:queue:1' durability='disk' next='U'><line …/><topic name='T' …/><consumer jid='..' …/></stats></iq>
 */
import { element, type XmlElement } from '../element.ts'
import { TOPIC_BYTES_MAX } from '../limits.ts'
import { NS_QUEUE } from '../namespaces.ts'
import {
  assertQueueElement,
  optionalInteger,
  optionalText,
  queueChildren,
  requiredInteger,
  requiredText,
  requiredWord,
} from './fields.ts'
import { type LineName, readLineName } from './line.ts'
import { JID_BYTES_MAX, PAGE_MAX } from './limits.ts'
import type { ConfirmDurability } from './publish.ts'

const COUNT_MAX = Number.MAX_SAFE_INTEGER
const DURABILITIES: readonly ConfirmDurability[] = ['memory', 'disk', 'replicated']
const KINDS = ['plain', 'reliable'] as const

/** How many messages are where. */
export interface MessageCounts {
  readonly ready: number
  readonly delayed: number
  readonly leased: number
  readonly dead: number
  /** Bytes of those that wait or are leased. */
  readonly bytes: number
  /** Bytes of dead ones. */
  readonly deadBytes: number
}

/** One consumer, as the queue sees it. */
export interface ConsumerStats {
  /** Full JID. */
  readonly jid: string
  readonly kind: 'plain' | 'reliable'
  readonly subscriptions: number
  readonly load: number
  readonly credit: number
  /** Deliveries and requests that it has not settled. */
  readonly inFlight: number
}

/** Which part of the counts: topics are paged by name, consumers and lines come whole with the first page. */
export interface StatsQuery {
  /** Most topics, 0 to 500. */
  readonly topics: number
  /** Only topics that come later by name; absent for the first page. */
  readonly after?: string | undefined
}

/** A page of a queue's counts. */
export interface QueueStats {
  readonly durability: ConfirmDurability
  /** The queue's own line (no subscription), and those of its durable subscriptions. */
  readonly lines: readonly (LineName & MessageCounts)[]
  readonly topics: readonly ({ readonly name: string } & MessageCounts)[]
  readonly consumers: readonly ConsumerStats[]
  /** The `after` of the next page; absent on the last. */
  readonly next?: string | undefined
}

/** Writes the query. */
export function encodeStatsQuery({ topics, after }: StatsQuery): XmlElement {
  return element('stats', NS_QUEUE, { topics: String(topics), after })
}

/** Reads the query. @throws XmqError `bad-request` */
export function decodeStatsQuery(root: XmlElement): StatsQuery {
  assertQueueElement(root, 'stats')
  const after = optionalText(root, 'after', TOPIC_BYTES_MAX)
  return { topics: optionalInteger(root, 'topics', 0, PAGE_MAX) ?? 100, ...(after === undefined ? {} : { after }) }
}

/** Writes the counts. */
export function encodeStats(stats: QueueStats): XmlElement {
  const lines = stats.lines.map((line) =>
    element('line', NS_QUEUE, { subscription: line.subscription, owner: line.owner, ...countAttrs(line) }),
  )
  const topics = stats.topics.map((topic) => element('topic', NS_QUEUE, { name: topic.name, ...countAttrs(topic) }))
  const consumers = stats.consumers.map(({ jid, kind, subscriptions, load, credit, inFlight }) =>
    element('consumer', NS_QUEUE, {
      jid,
      kind,
      subscriptions: String(subscriptions),
      load: String(load),
      credit: String(credit),
      'in-flight': String(inFlight),
    }),
  )
  const { durability, next } = stats
  return element('stats', NS_QUEUE, { durability, next }, [...lines, ...topics, ...consumers])
}

function countAttrs(counts: MessageCounts): Record<string, string> {
  return {
    ready: String(counts.ready),
    delayed: String(counts.delayed),
    leased: String(counts.leased),
    dead: String(counts.dead),
    bytes: String(counts.bytes),
    'dead-bytes': String(counts.deadBytes),
  }
}

/** Reads the counts. @throws XmqError `bad-request` */
export function decodeStats(root: XmlElement): QueueStats {
  assertQueueElement(root, 'stats')
  const next = optionalText(root, 'next', TOPIC_BYTES_MAX)
  return {
    durability: requiredWord(root, 'durability', DURABILITIES),
    lines: queueChildren(root, 'line').map((line) => Object.assign(readLineName(line), readCounts(line))),
    topics: queueChildren(root, 'topic').map((topic) =>
      Object.assign({ name: requiredText(topic, 'name', TOPIC_BYTES_MAX) }, readCounts(topic)),
    ),
    consumers: queueChildren(root, 'consumer').map((consumer) => ({
      jid: requiredText(consumer, 'jid', JID_BYTES_MAX),
      kind: requiredWord(consumer, 'kind', KINDS),
      subscriptions: requiredInteger(consumer, 'subscriptions', 0, COUNT_MAX),
      load: requiredInteger(consumer, 'load', 0, 100),
      credit: requiredInteger(consumer, 'credit', 0, COUNT_MAX),
      inFlight: requiredInteger(consumer, 'in-flight', 0, COUNT_MAX),
    })),
    ...(next === undefined ? {} : { next }),
  }
}

function readCounts(from: XmlElement): MessageCounts {
  return {
    ready: requiredInteger(from, 'ready', 0, COUNT_MAX),
    delayed: requiredInteger(from, 'delayed', 0, COUNT_MAX),
    leased: requiredInteger(from, 'leased', 0, COUNT_MAX),
    dead: requiredInteger(from, 'dead', 0, COUNT_MAX),
    bytes: requiredInteger(from, 'bytes', 0, COUNT_MAX),
    deadBytes: requiredInteger(from, 'dead-bytes', 0, COUNT_MAX),
  }
}
