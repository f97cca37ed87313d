/**
 * The store as the reliable simulation's core meets it: the memory store behind requests that wait, fail and get lost.
 *
 *     effect --(waits; a claim may be put off)--> done, or `unavailable` --(waits)--> input
 *                   |                                        |
 *                   crash: it never happened                 crash: done, and nobody was told
 *
 * Requests take effect in their order, and answers come in theirs; what became claimable is told before the answer to what made it
 * so, and maybe before earlier ones.
 */
import { XmqError } from '@xmq/protocol'
import type { Effect, Input } from '../../../packages/broker/src/core/port.ts'
import type { ClaimableTopic, Store } from '../../../packages/broker/src/store/port.ts'
import type { Random } from '../random.ts'

export type StoreEffect = Exclude<Effect, { readonly type: 'send' | 'event' }>
export type StoreAnswer = Extract<Input, { readonly call: number }>

/** What the store needs of the world. */
export interface StoreHost {
  readonly now: () => number
  readonly random: Random
  /** Does something later; what it returns is waited for before anything else happens. */
  readonly at: (at: number, act: () => void | Promise<void>) => void
  readonly feed: (input: Input) => void
  /** Told what the store has really done, answered or not. */
  readonly onDone: (effect: StoreEffect, answer: StoreAnswer, askedAt: number) => void
}

const TROUBLE = new XmqError('internal', 'The disk is full.', { type: 'wait' })

/** See the top of this file. */
export class LaggingStore {
  /** While true, every answer is `unavailable`, */
  isFailing = false
  /** and with this chance what was asked was done all the same: its answer was lost. */
  torn = 0
  /** How often that was so. */
  tornCount = 0
  /** Mean milliseconds of each way. */
  lagMs = 5
  /** Requests that were asked and not done when the broker crashed. */
  lost = 0
  /** Done, and nobody was told. */
  untold = 0
  /** How many answers were `unavailable`. */
  refused = 0
  readonly #host: StoreHost
  #store: Store
  #life = 0
  #doneAt = 0
  #toldAt = 0
  #waiting = 0
  #answers = 0
  #claimable: ClaimableTopic[] = []
  #unwatch: () => void

  constructor(store: Store, host: StoreHost) {
    this.#host = host
    this.#store = store
    this.#unwatch = this.#watch()
  }

  get store(): Store {
    return this.#store
  }

  /** The broker is killed: what waits never happens. @param store what its successor opens */
  async crash(store: Store): Promise<void> {
    this.#life++
    this.lost += this.#waiting
    this.untold += this.#answers
    this.#waiting = 0
    this.#answers = 0
    this.#claimable = []
    this.#unwatch()
    this.#store = store
    this.#unwatch = this.#watch()
    await store.open(this.#host.now())
  }

  /** Takes a request of the core. */
  ask(effect: StoreEffect): void {
    const { random } = this.#host
    const now = this.#host.now()
    const life = this.#life
    this.#waiting++
    if (effect.type === 'claim' && random.chance(0.05)) {
      this.#host.at(now + random.gap(300), () => {
        if (life === this.#life) this.#enter(effect, now)
      })
    } else this.#enter(effect, now)
  }

  #enter(effect: StoreEffect, askedAt: number): void {
    const life = this.#life
    this.#doneAt = Math.max(this.#doneAt, this.#host.now() + this.#host.random.gap(this.lagMs))
    this.#host.at(this.#doneAt, async () => {
      if (life !== this.#life) return
      this.#waiting--
      const answer = await this.#do(effect, askedAt)
      if (!isRefused(answer)) this.#host.onDone(effect, answer, askedAt)
      const told = this.#claimable
      this.#claimable = []
      if (told.length > 0) this.#tell({ type: 'claimable', topics: told })
      this.#answers++
      this.#tell(answer)
    })
  }

  #tell(input: Input): void {
    const life = this.#life
    const soon = this.#host.now() + this.#host.random.gap(this.lagMs)
    const at = 'call' in input ? Math.max(this.#toldAt, soon) : soon
    this.#toldAt = Math.max(this.#toldAt, at)
    this.#host.at(at, () => {
      if (life !== this.#life) return
      if ('call' in input) this.#answers--
      this.#host.feed(input)
    })
  }

  async #do(effect: StoreEffect, askedAt: number): Promise<StoreAnswer> {
    const { call } = effect
    const { random } = this.#host
    const store = this.#store
    const fails = this.isFailing ? ({ status: 'unavailable', error: TROUBLE } as const) : undefined
    if (fails !== undefined) this.refused++
    if (fails !== undefined && (effect.type === 'apply' || effect.type === 'claim') && random.chance(this.torn)) {
      this.tornCount++
      if (effect.type === 'claim') {
        const answer = await store.claim(effect.request)
        this.#host.onDone(effect, { type: 'claimed', call, answer }, askedAt)
        return { type: 'claimed', call, answer: fails }
      }
      const results = await store.apply(effect.ops, askedAt)
      this.#host.onDone(effect, { type: 'applied', call, results }, askedAt)
      return { type: 'applied', call, results: effect.ops.map(() => fails) }
    }
    switch (effect.type) {
      case 'apply':
        return {
          type: 'applied',
          call,
          results: fails ? effect.ops.map(() => fails) : await store.apply(effect.ops, askedAt),
        }
      case 'claim':
        return { type: 'claimed', call, answer: fails ?? (await store.claim(effect.request)) }
      case 'due':
        return { type: 'due', call, answer: fails ?? (await store.due(askedAt, effect.max)) }
      case 'browse':
        return { type: 'browsed', call, answer: fails ?? (await store.browse(effect.request)) }
      case 'topics':
        return { type: 'topics', call, answer: fails ?? (await store.topics(effect.request)) }
      case 'subscriptions':
        return { type: 'subscriptions', call, answer: fails ?? (await store.subscriptions(effect.queue)) }
      default:
        return { type: 'counts', call, lines: store.stats().lines.filter(({ queue }) => queue === effect.queue) }
    }
  }

  #watch(): () => void {
    return this.#store.watch((topics) => {
      for (const topic of topics) this.#claimable.push(topic)
    })
  }
}

function isRefused(answer: StoreAnswer): boolean {
  if (answer.type === 'counts') return false
  const first = answer.type === 'applied' ? answer.results[0] : answer.answer
  return first?.status === 'unavailable'
}
