/**
 * A store and its model, side by side: the same actions go to both, and what they answer must be the same, once seqs are places
 * (store-suite-names.ts).
 *
 * Owner of one run: the two stores, their clock, and what each has said to be claimable since that was compared.
 */
import { deepStrictEqual } from 'node:assert/strict'
import type {
  BrowseAnswer,
  ClaimableTopic,
  ClaimAnswer,
  DueItem,
  EntryHead,
  Store,
  StoreOp,
  StoreResult,
} from '@xmq/broker'
import type { Action, OpAction } from './store-suite-actions.ts'
import { allLines, Names, QUEUES, type Side } from './store-suite-names.ts'

/** A store that can be closed and opened again with what it holds. */
export interface OpenedStore {
  readonly store: Store
  /** Closes it and opens what it held; absent where nothing survives. */
  reopen?(now: number): Promise<OpenedStore>
  /** Closes it and removes what it held. */
  remove(): Promise<void>
}

const ALL_TOPICS_MAX = 100

/** See the top of this file. */
export class SideBySide {
  readonly #model: Store
  #opened: OpenedStore
  readonly #names = new Names()
  readonly #claimable: Record<Side, Set<string>> = { model: new Set(), real: new Set() }
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
    for (const [queue, subscription] of allLines()) {
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
    deepStrictEqual(this.#names.placed(real, 'real'), this.#names.placed(model, 'model'), what)
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

  async #apply(actions: readonly OpAction[]): Promise<void> {
    const real = actions.map((action, place) => this.#names.op(action, 'real', this.#now, place === actions.length - 1))
    const model = actions.map((action, place) => {
      const op = this.#names.op(action, 'model', this.#now, place === actions.length - 1)
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
      if (op.type === 'publish') this.#names.notePublish(op, realAnswer, modelAnswer)
      const isForgotten = this.#mayForgetAcks && op.type === 'ack' && realAnswer.status === 'not-found'
      if (isForgotten) continue
      const queue = op.queue
      if (op.type === 'purge') await this.#finishPurge(op, real[place] as typeof op, realAnswer, modelAnswer)
      else
        deepStrictEqual(
          this.#names.placed(realAnswer, 'real', queue),
          this.#names.placed(modelAnswer, 'model', queue),
          op.type,
        )
    }
    this.#compareClaimable()
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

  async #claim(action: Extract<Action, { readonly type: 'claim' }>): Promise<void> {
    const request = this.#names.claim(action, this.#now)
    const answer: ClaimAnswer = await this.#compare('claim', (store) => store.claim(request))
    if (answer.status !== 'ok') throw answer.error
    this.#names.noteClaim(answer.messages)
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
    const items = answer.items.map((item) => JSON.stringify(this.#names.placed(sortKeys(item), side))).sort()
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
      for (const [queue, subscription] of allLines()) {
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
