/**
 * What actions mean to each of two stores: they name messages by their place in the order of publishing, and tokens by how they were
 * used, so that an action means the same to a store that numbers differently, and shrinks well.
 *
 *     action --> operation with this store's seqs            answer with this store's seqs --> answer with places
 *
 * Owner of the names: which place has which seq in each store, and which tokens were given for it.
 */
import type { ClaimedMessage, ClaimRequest, EntryRef, LeaseGrant, PublishOp, StoreOp, StoreResult } from '@xmq/broker'
import type { Action, EntryPick, OpAction } from './store-suite-actions.ts'

/** An `any` queue and an `all` queue. */
export const QUEUES = ['jobs.localhost', 'news.localhost'] as const
const TOPICS = ['a', 'a.b', 'é'] as const
/** Of the `all` queue. */
const SUBSCRIPTIONS = ['ann@localhost/one', 'bob@localhost/two', 'bob@localhost/three'] as const
const SENDERS = ['shop@localhost', 'till@localhost'] as const
const HOLDERS = ['w1@localhost', 'w2@localhost'] as const
const BODIES = ['', 'x'.repeat(50), 'ü€😀'] as const
/** More than any run publishes. */
const PURGED_AT_ONCE = 1000

/** The store that is tested, and the one that it is compared with. */
export type Side = 'model' | 'real'

interface Published {
  readonly queue: number
  readonly seqs: Readonly<Record<Side, number>>
}

const at = <Item>(items: readonly Item[], place: number): Item => items[place % items.length] as Item

/** All lines that there can be: a queue and a subscription. */
export function allLines(): readonly (readonly [string, string])[] {
  return [[QUEUES[0], ''], ...SUBSCRIPTIONS.map((subscription) => [QUEUES[1], subscription] as const)]
}

/** See the top of this file. */
export class Names {
  readonly #published: Published[] = []
  readonly #placeOfSeq: Record<Side, Map<string, number>> = { model: new Map(), real: new Map() }
  readonly #tokens = new Map<string, { readonly token: string; readonly holder: string }[]>()
  #tokenCount = 0

  /** Both have stored a message: from now on it has a place. */
  notePublish(op: PublishOp, real: StoreResult, model: StoreResult): void {
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

  /** Both have leased these, under the same tokens. @param messages as the model told them */
  noteClaim(messages: readonly ClaimedMessage[]): void {
    for (const { queue, subscription, seq, token, holder } of messages) {
      const name = `${this.#placeOfSeq.model.get(`${queue} ${seq}`)} ${subscription}`
      this.#tokens.set(name, [...(this.#tokens.get(name) ?? []), { token, holder }])
    }
  }

  /** An answer with the places of messages instead of their seqs, and without what is undefined. */
  placed(value: unknown, side: Side, queue?: string): unknown {
    if (Array.isArray(value)) return value.map((item) => this.placed(item, side, queue))
    if (value === null || typeof value !== 'object') return value
    const named = 'queue' in value && typeof value.queue === 'string' ? value.queue : queue
    const pairs = Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([name, item]) => {
        if (name === 'seq')
          return ['seq', this.#placeOfSeq[side].get(`${named} ${String(item)}`) ?? `unknown ${String(item)}`]
        return [name, this.placed(item, side, named)]
      })
    return Object.fromEntries(pairs) as unknown
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

  /**
   * What an operation of an action is to one store.
   * @param isLast whether no other operation follows in the same call
   */
  op(action: OpAction, side: Side, now: number, isLast: boolean): StoreOp {
    const later = (ms: number | undefined) => (ms === undefined ? undefined : now + ms)
    switch (action.type) {
      case 'publish':
        return this.#publish(action, now)
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

  #publish(action: Extract<OpAction, { readonly type: 'publish' }>, now: number): PublishOp {
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
      delayUntil: action.delayMs === undefined ? undefined : now + action.delayMs,
      expiresAt: action.ttlMs === undefined ? undefined : now + action.ttlMs,
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

  /** What a claim is to both stores. */
  claim(action: Extract<Action, { readonly type: 'claim' }>, now: number): ClaimRequest {
    const line = this.#line(action)
    const grants = Array.from({ length: action.count }, () => this.#grant())
    const topics = line.subscription === '' ? [...new Set(action.topics.map((place) => at(TOPICS, place)))] : undefined
    const { bytesMax, leaseMs } = action
    return { ...line, topics, grants, bytesMax, leaseMs, now }
  }
}
