/**
 * A store and its model, side by side: the same actions go to both, and what they answer must be the same.
 *
 * Actions are plain data from small domains. They name messages by their place in the order of publishing and tokens by how
 * they were used, so that an action means the same to a store that numbers differently, and shrinks well.
 */
import { deepStrictEqual } from 'node:assert/strict'
import type {
  BrowseAnswer,
  ClaimableTopic,
  ClaimAnswer,
  DueItem,
  EntryHead,
  EntryRef,
  LeaseGrant,
  PublishOp,
  Store,
  StoreOp,
  StoreResult,
} from '@xmq/broker'

/** How an action names an entry: the `pick`-th message published, in a line. */
export interface EntryPick {
  readonly pick: number
  readonly subscription: number
  readonly token: 'last' | 'older' | 'wrong'
  readonly holder: 'right' | 'wrong' | 'none'
}

/** A step of a run; times are relative. */
export type Action =
  | { readonly type: 'apply'; readonly ops: readonly OpAction[] }
  | {
      readonly type: 'claim'
      readonly queue: number
      readonly subscription: number
      readonly topics: readonly number[]
      readonly count: number
      readonly bytesMax: number
      readonly leaseMs: number
    }
  | { readonly type: 'due'; readonly max: number; readonly isHandled: boolean }
  | { readonly type: 'advance'; readonly ms: number }
  | { readonly type: 'look' }
  | { readonly type: 'reopen' }

export type OpAction =
  | (Pick<PublishOp, 'priority' | 'dedupeMs' | 'dedupeMax'> & {
      readonly type: 'publish'
      readonly queue: number
      readonly topic: number
      readonly id: number | undefined
      readonly sender: number
      readonly key: number | undefined
      readonly delayMs: number | undefined
      readonly ttlMs: number | undefined
      readonly body: number
      readonly subscriptions: readonly number[]
      readonly maxLength: number
      readonly maxBytes: number
      readonly whenFull: 'refuse' | 'dead-letter-oldest'
      /** How long a lease that begins with it would last; undefined: it has no grant. */
      readonly grantMs: number | undefined
    })
  | (EntryPick & { readonly type: 'ack' | 'ready' | 'expire' })
  | (EntryPick & { readonly type: 'nack'; readonly inMs: number; readonly failures: number })
  | (EntryPick & { readonly type: 'release'; readonly inMs: number | undefined })
  | (EntryPick & { readonly type: 'dead'; readonly failures: number | undefined })
  | (EntryPick & { readonly type: 'extend'; readonly leaseMs: number; readonly maxLeaseMs: number })
  | (EntryPick & { readonly type: 'received'; readonly leaseMs: number })
  | (EntryPick & { readonly type: 'replay'; readonly maxLength: number; readonly maxBytes: number })
  | (EntryPick & { readonly type: 'discard'; readonly state: 'ready' | 'delayed' | 'dead' })
  | {
      readonly type: 'purge'
      readonly queue: number
      readonly subscription: number
      readonly topic: number | undefined
      readonly state: 'ready' | 'delayed' | 'dead'
      readonly max: number
    }
  | {
      readonly type: 'trim-dead'
      readonly queue: number
      readonly subscription: number
      readonly maxCount: number
      readonly maxBytes: number
      readonly ageMs: number
      readonly max: number
    }
  | { readonly type: 'create-subscription'; readonly subscription: number; readonly meta: number; readonly max: number }
  | { readonly type: 'delete-subscription' | 'touch-subscription'; readonly subscription: number }

/** A store that can be closed and opened again with what it holds. */
export interface OpenedStore {
  readonly store: Store
  /** Closes it and opens what it held; absent where nothing survives. */
  reopen?(now: number): Promise<OpenedStore>
  /** Closes it and removes what it held. */
  remove(): Promise<void>
}

/** An `any` queue and an `all` queue. */
const QUEUES = ['jobs.localhost', 'news.localhost'] as const
const TOPICS = ['a', 'a.b', 'é'] as const
/** Of the `all` queue. */
const SUBSCRIPTIONS = ['ann@localhost/one', 'bob@localhost/two', 'bob@localhost/three'] as const
const SENDERS = ['shop@localhost', 'till@localhost'] as const
const HOLDERS = ['w1@localhost', 'w2@localhost'] as const
const BODIES = ['', 'x'.repeat(50), 'ü€😀'] as const
const ALL_TOPICS_MAX = 100
/** More than any run publishes. */
const PURGED_AT_ONCE = 1000

type Side = 'model' | 'real'

interface Published {
  readonly queue: number
  readonly seqs: Readonly<Record<Side, number>>
}

const at = <Item>(items: readonly Item[], place: number): Item => items[place % items.length] as Item

/** See the top of this file. */
export class SideBySide {
  readonly #model: Store
  #opened: OpenedStore
  readonly #published: Published[] = []
  readonly #placeOfSeq: Record<Side, Map<string, number>> = { model: new Map(), real: new Map() }
  readonly #tokens = new Map<string, { readonly token: string; readonly holder: string }[]>()
  readonly #claimable: Record<Side, Set<string>> = { model: new Set(), real: new Set() }
  #tokenCount = 0
  #now = 1_000_000
  /** After a reopening a repeated ack may or may not be known. */
  #mayForgetAcks = false

  constructor(model: Store, opened: OpenedStore) {
    this.#model = model
    this.#opened = opened
    this.#watch('model', model)
    this.#watch('real', opened.store)
  }

  get opened(): OpenedStore {
    return this.#opened
  }

  async run(action: Action): Promise<void> {
    switch (action.type) {
      case 'advance':
        this.#now += action.ms
        return
      case 'apply':
        return this.#apply(action.ops)
      case 'claim':
        return this.#claim(action)
      case 'due':
        return this.#due(action.max, action.isHandled)
      case 'look':
        return this.look()
      case 'reopen':
        return this.#reopen()
    }
  }

  /** Compares everything that can be seen. */
  async look(): Promise<void> {
    for (const [queue, subscription] of this.#lines()) {
      const line = { queue, subscription }
      await this.#compare('browse', async (store, side) => this.#pages(store, side, line))
      await this.#compare('topics', (store) => store.topics({ ...line, after: '', max: ALL_TOPICS_MAX }))
    }
    await this.#compare('topics by page', async (store) => {
      const first = await store.topics({ queue: QUEUES[0], subscription: '', after: '', max: 1 })
      if (first.status !== 'ok' || first.next === undefined) return first
      return [first, await store.topics({ queue: QUEUES[0], subscription: '', after: first.next, max: 1 })]
    })
    await this.#compare('subscriptions', (store) => store.subscriptions(QUEUES[1]))
    await this.#compare('stats', (store) => {
      const { messages, bytes, lines } = store.stats()
      // A store may leave out a line without entries.
      const named = lines.filter((line) => line.ready + line.delayed + line.leased + line.dead > 0)
      const sorted = [...named].sort((one, two) =>
        `${one.queue}${one.subscription}`.localeCompare(`${two.queue}${two.subscription}`),
      )
      return Promise.resolve({ messages, bytes, lines: sorted })
    })
  }

  #lines(): (readonly [string, string])[] {
    return [[QUEUES[0], ''], ...SUBSCRIPTIONS.map((subscription) => [QUEUES[1], subscription] as const)]
  }

  #watch(side: Side, store: Store): void {
    store.watch((topics: readonly ClaimableTopic[]) => {
      for (const { queue, subscription, topic } of topics)
        this.#claimable[side].add(`${queue} ${subscription} ${topic}`)
    })
  }

  #reset(): void {
    for (const side of ['model', 'real'] as const) this.#claimable[side].clear()
  }

  /** The topics that the stores said to be claimable are the same, whatever made them so. */
  #compareClaimable(): void {
    deepStrictEqual([...this.#claimable.real].sort(), [...this.#claimable.model].sort(), 'watch')
    this.#reset()
  }

  /** Asks both and compares, once seqs are places. */
  async #compare<Answer>(what: string, ask: (store: Store, side: Side) => Promise<Answer>): Promise<Answer> {
    const real = await ask(this.#opened.store, 'real')
    const model = await ask(this.#model, 'model')
    deepStrictEqual(this.#placed(real, 'real'), this.#placed(model, 'model'), what)
    return model
  }

  async #pages(
    store: Store,
    side: Side,
    line: { readonly queue: string; readonly subscription: string },
  ): Promise<unknown> {
    const entries: unknown[] = []
    for (const state of ['ready', 'delayed', 'leased', 'dead', undefined] as const) {
      let after = 0
      for (let page = 0; page < 1000; page++) {
        const answer: BrowseAnswer = await store.browse({ ...line, state, after, max: 3, bodies: true })
        if (answer.status !== 'ok') throw new Error(`${side}: ${answer.error.message}`)
        entries.push(...answer.entries)
        if (answer.next === undefined) break
        after = answer.next
      }
    }
    return entries
  }

  /** An answer with the places of messages instead of their seqs, and without what is undefined. */
  #placed(value: unknown, side: Side, queue?: string): unknown {
    if (Array.isArray(value)) return value.map((item) => this.#placed(item, side, queue))
    if (value === null || typeof value !== 'object') return value
    const named = 'queue' in value && typeof value.queue === 'string' ? value.queue : queue
    const pairs = Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([name, item]) => {
        if (name === 'seq')
          return ['seq', this.#placeOfSeq[side].get(`${named} ${String(item)}`) ?? `unknown ${String(item)}`]
        return [name, this.#placed(item, side, named)]
      })
    return Object.fromEntries(pairs) as unknown
  }

  async #apply(actions: readonly OpAction[]): Promise<void> {
    const real = actions.map((action, place) => this.#op(action, 'real', place === actions.length - 1))
    const model = actions.map((action, place) => {
      const op = this.#op(action, 'model', place === actions.length - 1)
      const other = real[place]
      // Both have the same lease to give.
      return op.type === 'publish' && other?.type === 'publish' ? { ...op, grant: other.grant } : op
    })
    const [realAnswers, modelAnswers] = await Promise.all([
      this.#opened.store.apply(real, this.#now),
      this.#model.apply(model, this.#now),
    ])
    for (const [place, op] of model.entries()) {
      const realAnswer = realAnswers[place] as StoreResult
      const modelAnswer = modelAnswers[place] as StoreResult
      if (op.type === 'publish') this.#notePublish(op, realAnswer, modelAnswer)
      const isForgotten = this.#mayForgetAcks && op.type === 'ack' && realAnswer.status === 'not-found'
      if (isForgotten) continue
      const queue = op.queue
      if (op.type === 'purge') await this.#finishPurge(op, real[place] as typeof op, realAnswer, modelAnswer)
      else deepStrictEqual(this.#placed(realAnswer, 'real', queue), this.#placed(modelAnswer, 'model', queue), op.type)
    }
    this.#compareClaimable()
  }

  #notePublish(op: PublishOp, real: StoreResult, model: StoreResult): void {
    if (real.status !== 'ok' || real.type !== 'publish' || model.status !== 'ok' || model.type !== 'publish') return
    const place = this.#published.length
    this.#published.push({
      queue: QUEUES.indexOf(op.queue as (typeof QUEUES)[number]),
      seqs: { model: model.seq, real: real.seq },
    })
    for (const [side, seq] of [
      ['model', model.seq],
      ['real', real.seq],
    ] as const) {
      const name = `${op.queue} ${seq}`
      if (this.#placeOfSeq[side].has(name)) throw new Error(`${side}: seq ${seq} was given twice in ${op.queue}`)
      this.#placeOfSeq[side].set(name, place)
    }
    if (op.grant !== undefined && real.leasedAt !== undefined) this.#tokens.set(`${place} `, [op.grant])
  }

  /** A store may end a purge early; what counts is where it leads. */
  async #finishPurge(modelOp: StoreOp, realOp: StoreOp, real: StoreResult, model: StoreResult): Promise<void> {
    const finish = async (store: Store, op: StoreOp, answer: StoreResult) => {
      let count = 0
      for (let last = answer, n = 0; last.status === 'ok' && last.type === 'purge' && n < 1000; n++) {
        count += last.count
        if (last.next === undefined || op.type !== 'purge') return count
        const [next] = await store.apply([{ ...op, after: last.next }], this.#now)
        last = next as StoreResult
      }
      return `never ends: ${JSON.stringify(answer)}`
    }
    const counts = [await finish(this.#opened.store, realOp, real), await finish(this.#model, modelOp, model)]
    deepStrictEqual(counts[0], counts[1], 'purge')
  }

  #ref(pick: EntryPick, side: Side): EntryRef {
    const published = this.#published[pick.pick % Math.max(1, this.#published.length)]
    if (published === undefined) return { queue: QUEUES[0], subscription: '', seq: 1 }
    const subscription = published.queue === 0 ? '' : at(SUBSCRIPTIONS, pick.subscription)
    return { queue: QUEUES[published.queue] as string, subscription, seq: published.seqs[side] }
  }

  #settle(pick: EntryPick, side: Side): EntryRef & { readonly token: string; readonly holder: string | undefined } {
    const ref = this.#ref(pick, side)
    const place = this.#placeOfSeq[side].get(`${ref.queue} ${ref.seq}`)
    const given = this.#tokens.get(`${place} ${ref.subscription}`) ?? []
    const lease = pick.token === 'wrong' ? undefined : given.at(pick.token === 'last' ? -1 : -2)
    const right = lease?.holder ?? HOLDERS[0]
    const wrong = right === HOLDERS[0] ? HOLDERS[1] : HOLDERS[0]
    const holder = { right, wrong, none: undefined }[pick.holder]
    return { ...ref, token: lease?.token ?? 'nobody', holder }
  }

  #op(action: OpAction, side: Side, isLast: boolean): StoreOp {
    const now = this.#now
    const later = (ms: number | undefined) => (ms === undefined ? undefined : now + ms)
    switch (action.type) {
      case 'publish':
        return this.#publish(action)
      case 'ack':
        return { type: 'ack', ...this.#settle(action, side) }
      case 'ready':
        return { type: 'ready', ...this.#ref(action, side) }
      case 'expire':
        return { type: 'expire', ...this.#ref(action, side), why: 'too old' }
      case 'nack':
        return {
          type: 'nack',
          ...this.#settle(action, side),
          at: now + action.inMs,
          failures: action.failures,
          why: 'broken',
        }
      case 'release':
        return { type: 'release', ...this.#settle(action, side), at: later(action.inMs) }
      case 'dead': {
        const { failures } = action
        return { type: 'dead', ...this.#settle(action, side), reason: 'rejected', why: 'no good', failures }
      }
      case 'extend': {
        const { leaseMs, maxLeaseMs } = action
        return { type: 'extend', ...this.#settle(action, side), leaseMs, maxLeaseMs }
      }
      case 'received':
        return { type: 'received', ...this.#settle(action, side), leaseMs: action.leaseMs }
      case 'replay': {
        const { maxLength, maxBytes } = action
        return { type: 'replay', ...this.#ref(action, side), maxLength, maxBytes }
      }
      case 'discard':
        return { type: 'discard', ...this.#ref(action, side), state: action.state }
      case 'purge': {
        const topic = action.topic === undefined ? undefined : at(TOPICS, action.topic)
        // Where a purge is cut short, and what comes into the state before it goes on, are the store's affair: one that
        // other operations follow takes all at once.
        const max = isLast ? action.max : PURGED_AT_ONCE
        return { type: 'purge', ...this.#line(action), topic, state: action.state, after: 0, max }
      }
      case 'trim-dead': {
        const { maxCount, maxBytes, max } = action
        return { type: 'trim-dead', ...this.#line(action), maxCount, maxBytes, diedBefore: now - action.ageMs, max }
      }
      case 'create-subscription': {
        const subscription = at(SUBSCRIPTIONS, action.subscription)
        return {
          type: 'create-subscription',
          queue: QUEUES[1],
          subscription,
          meta: `{"n":${action.meta}}`,
          max: action.max,
        }
      }
      default:
        return { type: action.type, queue: QUEUES[1], subscription: at(SUBSCRIPTIONS, action.subscription) }
    }
  }

  #line(action: { readonly queue: number; readonly subscription: number }): {
    readonly queue: string
    readonly subscription: string
  } {
    const queue = at(QUEUES, action.queue)
    return { queue, subscription: queue === QUEUES[0] ? '' : at(SUBSCRIPTIONS, action.subscription) }
  }

  #publish(action: Extract<OpAction, { readonly type: 'publish' }>): PublishOp {
    const queue = at(QUEUES, action.queue)
    const { maxLength, maxBytes, whenFull, priority, dedupeMs, dedupeMax } = action
    const lines =
      queue === QUEUES[0] ? [''] : [...new Set(action.subscriptions.map((place) => at(SUBSCRIPTIONS, place)))]
    return {
      type: 'publish',
      queue,
      topic: at(TOPICS, action.topic),
      priority,
      dedupeMs,
      dedupeMax,
      id: action.id === undefined ? undefined : `id-${action.id}`,
      sender: at(SENDERS, action.sender),
      key: action.key === undefined ? undefined : `key-${action.key}`,
      delayUntil: action.delayMs === undefined ? undefined : this.#now + action.delayMs,
      expiresAt: action.ttlMs === undefined ? undefined : this.#now + action.ttlMs,
      body: at(BODIES, action.body),
      meta: `{"headers":${action.body}}`,
      targets: lines.map((subscription) => ({ subscription, maxLength, maxBytes, whenFull })),
      grant: action.grantMs === undefined ? undefined : { ...this.#grant(), leaseMs: action.grantMs },
    }
  }

  #grant(): LeaseGrant {
    this.#tokenCount += 1
    return { token: `token-${this.#tokenCount}`, holder: at(HOLDERS, this.#tokenCount) }
  }

  async #claim(action: Extract<Action, { readonly type: 'claim' }>): Promise<void> {
    const line = this.#line(action)
    const grants = Array.from({ length: action.count }, () => this.#grant())
    const topics = line.subscription === '' ? [...new Set(action.topics.map((place) => at(TOPICS, place)))] : undefined
    const { bytesMax, leaseMs } = action
    const request = { ...line, topics, grants, bytesMax, leaseMs, now: this.#now }
    const answer: ClaimAnswer = await this.#compare('claim', (store) => store.claim(request))
    if (answer.status !== 'ok') throw answer.error
    for (const { queue, subscription, seq, token, holder } of answer.messages) {
      const name = `${this.#placeOfSeq.model.get(`${queue} ${seq}`)} ${subscription}`
      this.#tokens.set(name, [...(this.#tokens.get(name) ?? []), { token, holder }])
    }
    this.#compareClaimable()
  }

  /** What is due; where it is handled, as a core would. */
  async #due(max: number, isHandled: boolean): Promise<void> {
    const all = await this.#dueOf(this.#model, 'model', 10_000)
    deepStrictEqual(await this.#dueOf(this.#opened.store, 'real', 10_000), all, 'due')
    const some = await this.#opened.store.due(this.#now, max)
    if (some.status !== 'ok') throw some.error
    deepStrictEqual(some.items.length, Math.min(max, all.items.length), 'due: as many as asked for')
    if (some.items.length < all.items.length && (some.nextAt ?? Number.POSITIVE_INFINITY) > this.#now) {
      throw new Error('due: what is left over is not said')
    }
    if (isHandled) await this.#handleDue()
  }

  async #dueOf(
    store: Store,
    side: Side,
    max: number,
  ): Promise<{ readonly items: readonly unknown[]; readonly nextAt: number | undefined }> {
    const answer = await store.due(this.#now, max)
    if (answer.status !== 'ok') throw answer.error
    for (const what of ['lease', 'delay', 'ttl'] as const) {
      const times: number[] = answer.items.filter((item) => item.what === what).map((item) => item.at)
      deepStrictEqual(
        times,
        [...times].sort((one, two) => one - two),
        `due: ${what} in order`,
      )
    }
    const items = answer.items.map((item) => JSON.stringify(this.#placed(sortKeys(item), side))).sort()
    return { items, nextAt: answer.nextAt }
  }

  async #handleDue(): Promise<void> {
    const opsOf = async (store: Store) => {
      const answer = await store.due(this.#now, 10_000)
      if (answer.status !== 'ok') throw answer.error
      // In the order of publishing: that of equal times is the store's own.
      const items = [...answer.items].sort(
        (one, two) =>
          one.entry.seq - two.entry.seq ||
          compare(one.what, two.what) ||
          compare(one.entry.subscription, two.entry.subscription),
      )
      return items.map(({ what, entry }) => this.#answerToDue(what, entry))
    }
    const [real, model] = [await opsOf(this.#opened.store), await opsOf(this.#model)]
    const answers = [await this.#opened.store.apply(real, this.#now), await this.#model.apply(model, this.#now)]
    deepStrictEqual(
      answers[0]?.map(({ status }) => status),
      answers[1]?.map(({ status }) => status),
      'due, handled',
    )
    this.#compareClaimable()
  }

  #answerToDue(what: DueItem['what'], entry: EntryHead): StoreOp {
    const { queue, subscription, seq, token, failures, received } = entry
    const ref = { queue, subscription, seq, token: String(token) }
    if (what === 'ttl') return { type: 'expire', ...ref, why: 'too old' }
    if (what === 'delay') return { type: 'ready', ...ref }
    if (!received) return { type: 'release', ...ref }
    return { type: 'nack', ...ref, at: this.#now + 5, failures: failures + 1, why: 'lease over' }
  }

  /** Closes and opens the real store. Leases are released before, since a store that starts gives each a new period. */
  async #reopen(): Promise<void> {
    if (this.#opened.reopen === undefined) return
    for (const store of [this.#opened.store, this.#model]) {
      for (const [queue, subscription] of this.#lines()) {
        const leases = await store.leases({ queue, subscription, after: 0, max: 10_000 })
        if (leases.status !== 'ok') throw leases.error
        const ops = leases.entries.map(({ seq, token }) => ({
          type: 'release' as const,
          queue,
          subscription,
          seq,
          token: String(token),
        }))
        await store.apply(ops, this.#now)
      }
    }
    this.#opened = await this.#opened.reopen(this.#now)
    this.#watch('real', this.#opened.store)
    this.#reset()
    this.#mayForgetAcks = true
    await this.look()
  }
}

const compare = (one: string, two: string) => Number(one > two) - Number(one < two)

/** The same value with its members in the order of their names: for comparing as text. */
function sortKeys(value: unknown): unknown {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value
  const pairs = Object.entries(value).sort(([one], [two]) => compare(one, two))
  return Object.fromEntries(pairs.map(([name, item]) => [name, sortKeys(item)]))
}
