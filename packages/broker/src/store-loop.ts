/**
 * The store's side of the runtime: the core's calls to the store, and its answers as inputs of the core.
 *
 * ```
 *  core --apply, claim, due, …--> StoreLoop --> store (promises)
 *    ^                                |
 *    '-- applied, claimed, due, … ----+-- claimable (watch)
 * ```
 *
 * 1. Each call has one answer, also when the store breaks its contract and rejects: then it is `unavailable`.
 * 2. While a server does not take what we wrote, claims for its domain wait here: nothing more is leased for it. At most one a
 *    line is open, so they are few.
 */
import { XmqError } from '@xmq/protocol'
import type { Effect, Input } from './core/port.ts'
import type { Store } from './store/port.ts'

/** Milliseconds between two looks at whether a server drains what we wrote. */
const CONGESTION_POLL_MS = 20

/** An effect that is the store's. */
export type StoreEffect = Exclude<Effect, { readonly type: 'send' | 'event' }>

/** What {@link StoreLoop} needs of the runtime. */
export interface StoreLoopHost {
  feed(input: Input): void
  isCongested(domain: string): boolean
  /** The store rejected or threw: a bug of it. */
  onFault(what: string, error: unknown): void
}

/** See the top of this file. Its owner is the runtime. */
export class StoreLoop {
  readonly #store: Store
  readonly #host: StoreLoopHost
  #held: Extract<StoreEffect, { type: 'claim' }>[] = []
  #timer: NodeJS.Timeout | undefined
  #unwatch: (() => void) | undefined

  constructor(store: Store, host: StoreLoopHost) {
    this.#store = store
    this.#host = host
  }

  /** Begins: what became claimable is told from now on, and the core looks through the store. The store is open. */
  start(): void {
    this.#unwatch = this.#store.watch((topics) => this.#host.feed({ type: 'claimable', topics }))
    this.#host.feed({ type: 'start' })
  }

  /** Claims that wait are given up: they have no answer. */
  close(): void {
    this.#unwatch?.()
    clearTimeout(this.#timer)
    this.#held = []
  }

  /** Makes a call. @param now as the core has it */
  handle(effect: StoreEffect, now: number): void {
    const { call } = effect
    switch (effect.type) {
      case 'apply': {
        const { ops } = effect
        this.#answer(
          () => this.#store.apply(ops, now),
          (error) => ops.map(() => ({ status: 'unavailable', error })),
          (results) => ({ type: 'applied', call, results }),
        )
        return
      }
      case 'claim':
        if (this.#host.isCongested(effect.domain)) this.#hold(effect)
        else this.#claim(effect)
        return
      case 'due':
        this.#answer(
          () => this.#store.due(now, effect.max),
          refused,
          (answer) => ({ type: 'due', call, answer }),
        )
        return
      case 'browse':
        this.#answer(
          () => this.#store.browse(effect.request),
          refused,
          (answer) => ({ type: 'browsed', call, answer }),
        )
        return
      case 'topics':
        this.#answer(
          () => this.#store.topics(effect.request),
          refused,
          (answer) => ({ type: 'topics', call, answer }),
        )
        return
      case 'subscriptions':
        this.#answer(
          () => this.#store.subscriptions(effect.queue),
          refused,
          (answer) => ({ type: 'subscriptions', call, answer }),
        )
        return
      case 'count': {
        const lines = this.#store.stats().lines.filter((line) => line.queue === effect.queue)
        queueMicrotask(() => this.#host.feed({ type: 'counts', call, lines }))
      }
    }
  }

  #claim({ call, request }: Extract<StoreEffect, { type: 'claim' }>): void {
    this.#answer(
      () => this.#store.claim(request),
      refused,
      (answer) => ({ type: 'claimed', call, answer }),
    )
  }

  #hold(effect: Extract<StoreEffect, { type: 'claim' }>): void {
    this.#held.push(effect)
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      const held = this.#held
      this.#held = []
      for (const claim of held) {
        if (this.#host.isCongested(claim.domain)) this.#hold(claim)
        else this.#claim(claim)
      }
    }, CONGESTION_POLL_MS)
  }

  #answer<Answer>(
    ask: () => Promise<Answer>,
    refuse: (error: XmqError) => Answer,
    toInput: (answer: Answer) => Input,
  ): void {
    const fail = (error: unknown) => {
      this.#host.onFault('store', error)
      this.#host.feed(
        toInput(refuse(new XmqError('internal', 'The store failed. The log says where.', { cause: error }))),
      )
    }
    let asked: Promise<Answer>
    try {
      asked = ask()
    } catch (error) {
      queueMicrotask(() => fail(error))
      return
    }
    asked.then((answer) => this.#host.feed(toInput(answer)), fail)
  }
}

function refused(error: XmqError): { readonly status: 'unavailable'; readonly error: XmqError } {
  return { status: 'unavailable', error }
}
