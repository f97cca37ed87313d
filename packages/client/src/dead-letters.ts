/** A queue's dead letters, for its admins. docs/protocol-reliable.md "Administration". */
import {
  type BrowsedItem,
  type BrowsePage,
  type DeadLetterAction,
  DEAD_LETTER_ORDER_MAX,
  type DeadLetterOutcome,
  decodeBrowsePage,
  decodeDeadLetterOutcome,
  encodeBrowse,
  encodeDeadLetterOrder,
  findChild,
  type LineName,
  NS_QUEUE,
  PAGE_MAX,
  type Payload,
  payloadOf,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { Duration } from './duration.ts'
import { assertOptions, type OptionNames } from './known-options.ts'
import { positiveInteger } from './options.ts'

/** Asks the queue; resolves with the IQ result. */
export type AskQueue = (type: 'get' | 'set', child: XmlElement, options: AskOptions) => Promise<XmlElement>

/** Options of everything that asks. */
export interface AskOptions {
  readonly signal?: AbortSignal
  /** How long each answer may take. @default the client's `requestTimeout` */
  readonly timeout?: Duration
}

/** Whose dead letters: the queue's own, or those of a durable subscription of an `all` queue. */
export interface DeadLetterLine {
  /** Name of a durable subscription; needs `owner`. */
  readonly subscription?: string
  /** The bare JID that it belongs to. */
  readonly owner?: string
}

/** Which dead letters are listed. */
export interface DeadLetterQuery extends DeadLetterLine, AskOptions {
  /** Only of this topic, exact. @default all */
  readonly topic?: string
  /** Only later ones: with a higher seq. @default 0 */
  readonly after?: number
  /** With headers and payload. @default false */
  readonly content?: boolean
  /** Most of one answer, 1 to 500; the queue may send fewer. @default 100 */
  readonly pageSize?: number
}

/** Which dead letters are replayed or purged: some by their seq, or all (of a topic). */
export type DeadLetterSelection = { readonly seqs: readonly number[] } | { readonly all: true; readonly topic?: string }

/** A message that was given up. Times are `Date.now()` milliseconds. */
export interface DeadLetter {
  readonly seq: number
  /** The producer's id; `undefined` of a plain message. */
  readonly id: string | undefined
  readonly topic: string
  /** The producer's full JID. */
  readonly from: string
  readonly key: string | undefined
  readonly priority: number
  readonly publishedAt: number
  readonly diedAt: number | undefined
  /** Why: the last entry of the history tells more. */
  readonly reason: BrowsedItem['reason']
  readonly failures: number
  readonly deliveries: number
  /** Of payload and headers. */
  readonly bytes: number
  /** What went wrong, the newest last; at most 20. */
  readonly history: readonly {
    readonly at: number
    readonly worker: string | undefined
    readonly attempt: number | undefined
    readonly why: string
  }[]
  /** Where it was asked for; `undefined` too of one that is damaged or does not fit in a stanza. */
  readonly payload: Payload | undefined
  readonly headers: ReadonlyMap<string, string>
}

/** What came of a replay or purge. */
export interface DeadLetterResult {
  /** How many were replayed or purged. */
  readonly done: number
  /** Those that were named and not found, or failed. */
  readonly failed: readonly { readonly seq: number; readonly error: XmqError }[]
}

const ORDER_OPTIONS: OptionNames<DeadLetterLine & AskOptions> = {
  subscription: true,
  owner: true,
  signal: true,
  timeout: true,
}

const QUERY_OPTIONS: OptionNames<DeadLetterQuery> = {
  ...ORDER_OPTIONS,
  topic: true,
  after: true,
  content: true,
  pageSize: true,
}

/** What a {@link DeadLetterSelection} may look like where types are not checked. */
interface AnySelection {
  readonly seqs?: unknown
  readonly all?: unknown
  readonly topic?: unknown
}

const SELECTION_OPTIONS: OptionNames<AnySelection> = { seqs: true, all: true, topic: true }

const NO_HEADERS: ReadonlyMap<string, string> = new Map()

/** Dead letters of one queue. The methods throw `forbidden` for all but the queue's admins. */
export class DeadLetters {
  readonly #ask: AskQueue

  constructor(ask: AskQueue) {
    this.#ask = ask
  }

  /** All dead letters, by seq, read page by page as they are consumed. @throws XmqError `forbidden`, `bad-request`, … */
  async *list(query: DeadLetterQuery = {}): AsyncGenerator<DeadLetter, void, undefined> {
    assertOptions(query, QUERY_OPTIONS, 'deadLetters.list()')
    const pageSize = positiveInteger(query.pageSize ?? 100, 'pageSize')
    let after: number | undefined = query.after ?? 0
    while (after !== undefined) {
      const page: BrowsePage = await this.#page({ ...query, after }, Math.min(pageSize, PAGE_MAX))
      for (const item of page.items) yield deadLetterOf(item)
      after = nextOf(after, page.next)
    }
  }

  /** One dead letter with its content; `undefined` when it is none, or no more. */
  async show(seq: number, options: DeadLetterLine & AskOptions = {}): Promise<DeadLetter | undefined> {
    positiveInteger(seq, 'seq')
    assertOptions(options, ORDER_OPTIONS, 'deadLetters.show()')
    const { items } = await this.#page({ ...options, after: seq - 1, content: true }, 1)
    const [item] = items
    return item?.seq === seq ? deadLetterOf(item) : undefined
  }

  /** Puts dead letters back: ready at once, with no failures and no ttl, at the end of the order. */
  replay(selection: DeadLetterSelection, options: DeadLetterLine & AskOptions = {}): Promise<DeadLetterResult> {
    return this.#order('replay', selection, options)
  }

  /** Deletes dead letters for good. */
  purge(selection: DeadLetterSelection, options: DeadLetterLine & AskOptions = {}): Promise<DeadLetterResult> {
    return this.#order('purge', selection, options)
  }

  async #page(query: DeadLetterQuery & { readonly after: number }, max: number): Promise<BrowsePage> {
    const { topic, after, content = false } = query
    const browse = encodeBrowse({ state: 'dead', ...lineOf(query), topic, after, max, content })
    return decodeBrowsePage(childOf(await this.#ask('get', browse, query)))
  }

  async #order(
    action: DeadLetterAction,
    selection: DeadLetterSelection,
    options: DeadLetterLine & AskOptions,
  ): Promise<DeadLetterResult> {
    assertSelection(action, selection)
    assertOptions(options, ORDER_OPTIONS, `deadLetters.${action}()`)
    return 'seqs' in selection
      ? await this.#orderSome(action, selection.seqs, options)
      : await this.#orderAll(action, selection.topic, options)
  }

  async #orderSome(
    action: DeadLetterAction,
    seqs: readonly number[],
    options: DeadLetterLine & AskOptions,
  ): Promise<DeadLetterResult> {
    let done = 0
    const failed: DeadLetterResult['failed'][number][] = []
    for (let at = 0; at < seqs.length; at += DEAD_LETTER_ORDER_MAX) {
      const some = seqs.slice(at, at + DEAD_LETTER_ORDER_MAX)
      const outcome = await this.#send({ action, ...lineOf(options), select: 'seqs', seqs: some }, options)
      done += outcome.done
      failed.push(...outcome.failed)
    }
    return { done, failed }
  }

  async #orderAll(
    action: DeadLetterAction,
    topic: string | undefined,
    options: DeadLetterLine & AskOptions,
  ): Promise<DeadLetterResult> {
    let done = 0
    const failed: DeadLetterResult['failed'][number][] = []
    let after: number | undefined = 0
    while (after !== undefined) {
      const order = { action, ...lineOf(options), select: 'all', topic, after, max: PAGE_MAX } as const
      const outcome: DeadLetterOutcome = await this.#send(order, options)
      done += outcome.done
      failed.push(...outcome.failed)
      after = nextOf(after, outcome.next)
    }
    return { done, failed }
  }

  async #send(order: Parameters<typeof encodeDeadLetterOrder>[0], options: AskOptions): Promise<DeadLetterOutcome> {
    return decodeDeadLetterOutcome(childOf(await this.#ask('set', encodeDeadLetterOrder(order), options)))
  }
}

/** All of a queue's dead letters are never meant by a slip: where types are not checked, a misspelt name would purge them. */
function assertSelection(action: DeadLetterAction, selection: AnySelection): void {
  const { seqs, all } = selection ?? {}
  if (all === undefined ? Array.isArray(seqs) : all === true && seqs === undefined) {
    assertOptions(selection, SELECTION_OPTIONS, `the selection of deadLetters.${action}()`)
    return
  }
  throw new XmqError(
    'bad-request',
    `Say what to ${action}: either { seqs: [...] }, or { all: true }, also with a topic.`,
  )
}

/** Where to go on; a queue that does not get on is not asked for ever. */
function nextOf(after: number, next: number | undefined): number | undefined {
  return next !== undefined && next > after ? next : undefined
}

function lineOf({ subscription, owner }: DeadLetterLine): LineName {
  if ((subscription === undefined) !== (owner === undefined)) {
    throw new XmqError(
      'bad-request',
      "'subscription' and 'owner' go together: a durable subscription is named by both.",
    )
  }
  return subscription === undefined || owner === undefined ? {} : { subscription, owner }
}

function childOf(iq: XmlElement): XmlElement {
  const child = findChild(iq, 'dead-letters', NS_QUEUE)
  if (child === undefined) throw new XmqError('server', 'The queue answered without <dead-letters/>.')
  return child
}

function deadLetterOf(item: BrowsedItem): DeadLetter {
  const { seq, topic, from, priority, publishedAt, failures, deliveries, bytes, history, content } = item
  return {
    seq,
    topic,
    from,
    priority,
    publishedAt,
    failures,
    deliveries,
    bytes,
    id: item.id,
    key: item.key,
    diedAt: item.diedAt,
    reason: item.reason,
    history: history.map(({ at, worker, attempt, why }) => ({ at, worker, attempt, why })),
    payload: content === undefined ? undefined : payloadOf(content.payload),
    headers: content?.headers ?? NO_HEADERS,
  }
}
