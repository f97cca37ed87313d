/**
 * What admins ask and order: looking into lines, dead letters, counts. docs/protocol-reliable.md "Administration". Stateless: each
 * question is read from the store, each order answered by it.
 */
import {
  type BrowsedItem,
  decodeBrowse,
  decodeDeadLetterOrder,
  decodeStatsQuery,
  type DeadLetterOrder,
  encodeBrowsePage,
  encodeDeadLetterOutcome,
  encodeStats,
  type ItemContent,
  restoreContent,
  resultTo,
  splitBatches,
  type StatsQuery,
  WRITE_STANZA_BYTES_MAX,
  writeBrowsedItem,
  type WrittenItem,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { Durability, StoredEntry, StoreOp, StoreResult } from '../store/port.ts'
import { lineIdOf } from './lease-token.ts'
import type { Line } from './lines.ts'
import type { Queue } from './records.ts'
import type { Step } from './step.ts'
import { type StoreCalls, unavailable } from './store-calls.ts'

const PAGE_BYTES_MAX: number = WRITE_STANZA_BYTES_MAX - 8 * 1024
/** Most consumers that one answer lists. */
const CONSUMERS_MAX = 500
const LINES_MAX = 500
/** So many durable subscriptions an error names. */
const NAMES_TOLD_MAX = 5

/** What {@link Admin} needs. */
export interface AdminOptions {
  readonly durability: Durability
  readonly calls: StoreCalls
}

/** See the top of this file. */
export class Admin {
  readonly #options: AdminOptions

  constructor(options: AdminOptions) {
    this.#options = options
  }

  /** A page of messages. @throws XmqError */
  browse(queue: Queue, iq: XmlElement, query: XmlElement): void {
    const { state, topic, after, max, content, subscription, owner } = decodeBrowse(query)
    const line = lineOf(queue, owner, subscription)
    const request = { ...at(queue, line), state, topic, after, max, bodies: content }
    this.#options.calls.browse(request, (step, answer) => {
      if (answer.status === 'unavailable') {
        step.refuse(queue.domain, queue.address, iq, unavailable(answer.error))
        return
      }
      const { items, next } = pageOf(answer.entries)
      const page = encodeBrowsePage(state, items, next ?? answer.next)
      step.send(queue.domain, resultTo(iq, [page]))
    })
  }

  /** Replays or purges dead letters. @throws XmqError */
  order(queue: Queue, iq: XmlElement, query: XmlElement): void {
    const order = decodeDeadLetterOrder(query)
    const line = lineOf(queue, order.owner, order.subscription)
    if (order.select === 'seqs') this.#settleSeqs(queue, iq, line, order.action, order.seqs)
    else if (order.action === 'purge') this.#purgeAll(queue, iq, line, order)
    else this.#replayAll(queue, iq, line, order)
  }

  /** The counts of a queue. @throws XmqError */
  stats(queue: Queue, iq: XmlElement, query: XmlElement): void {
    const { topics, after } = decodeStatsQuery(query)
    const own = queue.lines.get('')
    if (own !== undefined && topics > 0) {
      const request = { ...at(queue, own), after: after ?? '', max: topics }
      this.#options.calls.topics(request, (step, answer) => {
        if (answer.status === 'unavailable') step.refuse(queue.domain, queue.address, iq, unavailable(answer.error))
        else this.#tellStats(queue, iq, { topics, after }, { topics: answer.topics, next: answer.next })
      })
      return
    }
    this.#tellStats(queue, iq, { topics, after }, { topics: [], next: undefined })
  }

  #tellStats(
    queue: Queue,
    iq: XmlElement,
    { after }: StatsQuery,
    page: { readonly topics: readonly ({ readonly topic: string } & Counts)[]; readonly next: string | undefined },
  ): void {
    const isFirst = after === undefined
    this.#options.calls.count(queue.address, (step, counts) => {
      const lines = counts.flatMap(({ subscription, ...line }) => {
        const { name, owner } = queue.lines.get(subscription) ?? {}
        if (name === undefined) return []
        return [subscription === '' ? line : { subscription: name, owner, ...line }]
      })
      const stats = {
        durability: this.#options.durability,
        lines: isFirst ? lines.slice(0, LINES_MAX) : [],
        topics: page.topics.map(({ topic, ...topicCounts }) => ({ name: topic, ...topicCounts })),
        consumers: isFirst ? consumersOf(queue) : [],
        ...(page.next === undefined ? {} : { next: page.next }),
      }
      step.send(queue.domain, resultTo(iq, [encodeStats(stats)]))
    })
  }

  #settleSeqs(
    queue: Queue,
    iq: XmlElement,
    line: Line,
    action: DeadLetterOrder['action'],
    seqs: readonly number[],
  ): void {
    const ops = seqs.map((seq) => orderOp(queue, line, action, seq))
    this.#options.calls.apply(ops, (step, results) => {
      const failed = seqs.flatMap((seq, index) => {
        const error = errorOf(queue, results[index])
        return error === undefined ? [] : [{ seq, error }]
      })
      this.#tellOutcome(step, queue, iq, { done: seqs.length - failed.length, failed })
    })
  }

  #purgeAll(queue: Queue, iq: XmlElement, line: Line, order: Extract<DeadLetterOrder, { select: 'all' }>): void {
    const { topic, after, max } = order
    const op: StoreOp = { type: 'purge', ...at(queue, line), topic, state: 'dead', after, max }
    this.#options.calls.apply([op], (step, [result]) => {
      if (result?.status === 'ok' && result.type === 'purge') {
        const { count, next } = result
        this.#tellOutcome(step, queue, iq, { done: count, failed: [], ...(next === undefined ? {} : { next }) })
      } else step.refuse(queue.domain, queue.address, iq, errorOf(queue, result) ?? strange())
    })
  }

  #replayAll(queue: Queue, iq: XmlElement, line: Line, order: Extract<DeadLetterOrder, { select: 'all' }>): void {
    const { topic, after, max } = order
    const request = { ...at(queue, line), state: 'dead', topic, after, max, bodies: false } as const
    this.#options.calls.browse(request, (step, answer) => {
      if (answer.status === 'unavailable') {
        step.refuse(queue.domain, queue.address, iq, unavailable(answer.error))
        return
      }
      const { entries, next } = answer
      const rest = next === undefined ? {} : { next }
      if (entries.length === 0) {
        this.#tellOutcome(step, queue, iq, { done: 0, failed: [], ...rest })
        return
      }
      const ops = entries.map(({ seq }) => orderOp(queue, line, 'replay', seq))
      this.#options.calls.apply(ops, (later, results) => {
        const failed = entries.flatMap(({ seq }, index) => {
          const error = errorOf(queue, results[index])
          return error === undefined ? [] : [{ seq, error }]
        })
        this.#tellOutcome(later, queue, iq, { done: entries.length - failed.length, failed, ...rest })
      })
    })
  }

  #tellOutcome(step: Step, queue: Queue, iq: XmlElement, outcome: Parameters<typeof encodeDeadLetterOutcome>[0]): void {
    step.send(queue.domain, resultTo(iq, [encodeDeadLetterOutcome(outcome)]))
  }
}

type Counts = Parameters<typeof encodeStats>[0]['lines'][number]

/** The line that an admin means. @throws XmqError `not-found` */
function lineOf(queue: Queue, owner: string | undefined, subscription: string | undefined): Line {
  const line = queue.lines.get(lineIdOf(owner ?? '', subscription ?? ''))
  if (line !== undefined) return line
  const what =
    subscription === undefined
      ? 'keeps nothing of its own, but for its durable subscriptions: name one, and its owner'
      : `has no durable subscription '${subscription}' of ${owner ?? 'nobody'}`
  throw new XmqError('not-found', `${queue.address} (${queue.rules.type}) ${what}. ${namesIn(queue)}`)
}

/** The durable subscriptions of a queue, for whoever has to name one. */
function namesIn({ lines }: Queue): string {
  const names: string[] = []
  for (const { name, owner } of lines.values()) {
    if (name === '') continue
    if (names.length === NAMES_TOLD_MAX) return `There are ${names.join(', ')} and ${lines.size - names.length} more.`
    names.push(`'${name}' of ${owner}`)
  }
  return names.length === 0 ? 'There is none at the moment.' : `There is ${names.join(', ')}.`
}

function at(queue: Queue, line: Line): { readonly queue: string; readonly subscription: string } {
  return { queue: queue.address, subscription: line.id }
}

/** As many entries as fit in a stanza; what does not fit alone goes without its content. */
function pageOf(entries: readonly StoredEntry[]): { readonly items: readonly WrittenItem[]; readonly next?: number } {
  const items = entries.map((entry) => {
    const full = writeBrowsedItem(browsed(entry, true))
    return full.bytes <= PAGE_BYTES_MAX ? full : writeBrowsedItem(browsed(entry, false))
  })
  const page = splitBatches(items, PAGE_BYTES_MAX, entries.length + 1).batches[0] ?? []
  const last = entries[page.length - 1]
  return page.length < entries.length && last !== undefined ? { items: page, next: last.seq } : { items: page }
}

function browsed(entry: StoredEntry, withContent: boolean): BrowsedItem {
  const { seq, state, id, topic, sender, key, priority, publishedAt, expiresAt, dueAt, diedAt, reason } = entry
  const { failures, deliveries, holder, bytes } = entry
  let content: ItemContent | undefined
  let from = sender
  if (withContent && entry.body !== undefined && entry.meta !== undefined) {
    try {
      const restored = restoreContent({ body: entry.body, meta: entry.meta })
      content = restored.content
      from = restored.from
    } catch {
      // Damaged: it is shown without its content.
    }
  }
  return {
    seq,
    state,
    id,
    topic,
    from,
    key,
    priority,
    publishedAt,
    expiresAt,
    dueAt,
    diedAt,
    reason,
    failures,
    deliveries,
    holder: state === 'leased' ? holder : undefined,
    bytes,
    content,
    history: entry.history.map((record) => ({
      at: record.at,
      why: record.why,
      ...(record.holder === '' ? {} : { worker: record.holder }),
      ...(record.attempt === undefined ? {} : { attempt: record.attempt }),
    })),
  }
}

function consumersOf(queue: Queue): Parameters<typeof encodeStats>[0]['consumers'] {
  const consumers = []
  for (const { session, kind, subscriptions, load, credit, inFlight } of queue.consumers.values()) {
    if (consumers.length >= CONSUMERS_MAX) break
    consumers.push({ jid: session.jid, kind, subscriptions: subscriptions.size, load, credit, inFlight })
  }
  return consumers
}

function orderOp(queue: Queue, line: Line, action: DeadLetterOrder['action'], seq: number): StoreOp {
  const ref = { ...at(queue, line), seq }
  if (action === 'purge') return { ...ref, type: 'discard' }
  const { lengthMax, bytesMax } = queue.rules.reliable
  return { ...ref, type: 'replay', maxLength: lengthMax, maxBytes: bytesMax }
}

function errorOf(queue: Queue, result: StoreResult | undefined): XmqError | undefined {
  if (result?.status === 'ok') return undefined
  if (result?.status === 'not-found') return new XmqError('not-found', 'There is no dead letter with that seq.')
  if (result?.status === 'unavailable') return unavailable(result.error)
  if (result?.status === 'full') {
    return new XmqError('limit-reached', `${queue.address} is full (maxLength, maxBytes). Try again later.`)
  }
  return strange()
}

function strange(): XmqError {
  return new XmqError('internal', 'The store gave an answer that does not fit the order.')
}
