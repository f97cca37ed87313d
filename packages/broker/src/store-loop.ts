/**
 * The store's side of the runtime: the core's calls to the store, and its answers as inputs of the core.
 *
 * ```
 *  core --settles, claims, due, … ---------------> StoreLoop --> store (promises)
 *       --publishes--> waiting --room in the store----^  |
 *    ^                                                   |
 *    '-- applied, claimed, due, … -----------------------+-- claimable (watch)
 * ```
 *
 * 1. Each call has one answer, also when the store breaks its contract and rejects: then it is `unavailable`.
 * 2. While a server does not take what we wrote, claims for its domain wait here, and publishes lease nothing: nothing more is leased for it. So do those beyond
 *    {@link CLAIMS_MAX}, whose messages would pass all marks if they came at once. At most one a line is open, so they are few.
 * 3. Publishes wait here when the store has {@link PUBLISHING_OPS_MAX} of them to do, fewer while a claim is open, so that settlements and claims never wait
 *    for more than these. They keep their order, among themselves and with what makes and ends durable subscriptions. Their number
 *    is bounded by the core (`storingBytesMax`).
 */
import { XmqError, YoungMap } from '@xmq/protocol'
import type { Effect, Input } from './core/port.ts'
import type { PublishOp, Store, StoreOp } from './store/port.ts'

/**
 * Most operations of publishes that the store is given at once: a few commits of a hundred or two are near what large ones make of
 * each disk sync, and a settlement waits for some ten milliseconds behind them.
 */
export const PUBLISHING_OPS_MAX = 512
/**
 * The same while a claim is open: somebody waits for what is there already, and what is added meanwhile makes them wait longer. Most of
 * these have run and wait for the disk, in up to four commits (BATCHES_AHEAD_MAX), so that a claim waits for a hundred or two.
 */
export const PUBLISHING_OPS_BESIDE_CLAIMS = 384
/** What a new look at the pace of the store weighs in its average. */
const PACE_WEIGHT = 0.3
const PACE_LOOKS = 4
/** Most claims for one domain that the store has at once, of at most 1 MiB each. */
export const CLAIMS_MAX = 16
/** Milliseconds between two looks at whether a server drains what we wrote. */
const CONGESTION_POLL_MS = 20

/** An effect that is the store's. */
export type StoreEffect = Exclude<Effect, { readonly type: 'send' | 'event' }>

type Claim = Extract<StoreEffect, { type: 'claim' }>
type Apply = Extract<StoreEffect, { type: 'apply' }>

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
  #held: Claim[] = []
  readonly #publishes: Apply[] = []
  /** Where the first of them is in `publishes`. */
  #first = 0
  #waitingOps = 0
  #publishingOps = 0
  /** When each publish that is not answered yet was asked for, in that order. */
  readonly #open: YoungMap<number, number> = new YoungMap()
  /** The core's time, as of the last call. */
  #now = 0
  /** Operations of publishes that were answered since `lookedAt`, and how many that are in a millisecond while some wait. */
  #answered = 0
  #lookedAt = 0
  #pace = 0
  /** Looks in a row at which some waited. */
  #busyLooks = 0
  /** Claims for each domain that the store has. */
  readonly #claiming: Map<string, number> = new Map()
  #claims = 0
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

  /** Operations of publishes that are not answered yet. */
  get publishing(): number {
    return this.#waitingOps + this.#publishingOps
  }

  /** Claims that wait until a server takes what was written. */
  get held(): number {
    return this.#held.length
  }

  /**
   * Milliseconds that a message which comes now will wait for its answer. Until the store has been busy for {@link PACE_LOOKS} looks
   * that is what the oldest has waited, since a store that had little to do says nothing of its pace. To be asked for regularly.
   */
  commitMs(): number {
    const now = performance.now()
    const pace = this.#answered / Math.max(1, now - this.#lookedAt)
    this.#lookedAt = now
    this.#answered = 0
    const [oldest] = this.#open.values()
    if (oldest === undefined) {
      this.#busyLooks = 0
      return 0
    }
    this.#busyLooks++
    if (this.#busyLooks === 2) this.#pace = pace
    else if (this.#busyLooks > 2) this.#pace += (pace - this.#pace) * PACE_WEIGHT
    return this.#busyLooks > PACE_LOOKS && this.#pace > 0 ? this.publishing / this.#pace : now - oldest
  }

  /** The process did not run for so long: that time is nobody's wait. */
  paused(ms: number): void {
    for (const [call, at] of this.#open) this.#open.set(call, at + ms)
    this.#lookedAt += ms
  }

  /** Makes a call. @param now as the core has it */
  handle(effect: StoreEffect, now: number): void {
    const { call } = effect
    this.#now = now
    switch (effect.type) {
      case 'apply':
        if (effect.ops.some(isOrdered)) this.#publish(effect)
        else this.#apply(effect)
        return
      case 'claim':
        if (this.#mayClaim(effect.domain)) this.#claim(effect)
        else this.#hold(effect)
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

  /** At the core's last time: what has waited must not run before what has not. */
  #apply({ call, ops }: Apply, onDone?: () => void): void {
    this.#answer(
      () => this.#store.apply(ops, this.#now),
      (error) => ops.map(() => ({ status: 'unavailable', error })),
      (results) => {
        onDone?.()
        return { type: 'applied', call, results }
      },
    )
  }

  #publish(effect: Apply): void {
    this.#open.set(effect.call, performance.now())
    if (this.#publishingOps < this.#publishingMax && this.#waitingOps === 0) {
      this.#hand(effect)
      return
    }
    this.#publishes.push(effect)
    this.#waitingOps += effect.ops.length
  }

  #hand(effect: Apply): void {
    const { length } = effect.ops
    this.#publishingOps += length
    for (const op of effect.ops) if (op.type === 'publish' && this.#isTooMuch(op)) op.grant = undefined
    this.#apply(effect, () => {
      this.#open.delete(effect.call)
      this.#publishingOps -= length
      this.#answered += length
      this.#publishMore()
    })
  }

  /** What a server does not take is not leased. */
  #isTooMuch({ grant, queue }: PublishOp): boolean {
    return grant !== undefined && this.#host.isCongested(queue.slice(queue.indexOf('@') + 1))
  }

  get #publishingMax(): number {
    return this.#claims > 0 ? PUBLISHING_OPS_BESIDE_CLAIMS : PUBLISHING_OPS_MAX
  }

  #publishMore(): void {
    while (this.#waitingOps > 0 && this.#publishingOps < this.#publishingMax) {
      const next = this.#publishes[this.#first++] as Apply
      this.#waitingOps -= next.ops.length
      this.#hand(next)
    }
    if (this.#first * 2 < this.#publishes.length) return
    this.#publishes.splice(0, this.#first)
    this.#first = 0
  }

  #mayClaim(domain: string): boolean {
    return !this.#host.isCongested(domain) && (this.#claiming.get(domain) ?? 0) < CLAIMS_MAX
  }

  #claim({ call, request, domain }: Claim): void {
    this.#claiming.set(domain, (this.#claiming.get(domain) ?? 0) + 1)
    this.#claims++
    this.#answer(
      () => this.#store.claim(request),
      refused,
      (answer) => {
        this.#claiming.set(domain, (this.#claiming.get(domain) ?? 1) - 1)
        this.#claims--
        if (this.#claims === 0) this.#publishMore()
        if (this.#held.length > 0) queueMicrotask(() => this.#claimHeld())
        return { type: 'claimed', call, answer }
      },
    )
  }

  #hold(claim: Claim): void {
    this.#held.push(claim)
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#claimHeld()
    }, CONGESTION_POLL_MS)
  }

  #claimHeld(): void {
    const held = this.#held
    this.#held = []
    for (const claim of held) {
      if (this.#mayClaim(claim.domain)) this.#claim(claim)
      else this.#hold(claim)
    }
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

/** What is done in the order in which it was asked, and after whatever is not. */
function isOrdered({ type }: StoreOp): boolean {
  return type === 'publish' || type === 'create-subscription' || type === 'delete-subscription'
}

function refused(error: XmqError): { readonly status: 'unavailable'; readonly error: XmqError } {
  return { status: 'unavailable', error }
}
