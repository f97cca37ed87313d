/**
 * The actions of the model-based runs of the store suite, and how they are drawn: plain data from small domains, so that they meet
 * each other often. store-suite-names.ts says what each means to a store.
 */
import type { PublishOp } from '@xmq/broker'
import * as fc from 'fast-check'

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

const small = (max: number) => fc.nat({ max })
const limit = (...values: readonly number[]) => fc.constantFrom(...values, 1_000_000, 1_000_000)

const pick: fc.Arbitrary<EntryPick> = fc.record({
  pick: small(30),
  subscription: small(2),
  token: fc.constantFrom('last', 'last', 'last', 'last', 'older', 'wrong'),
  holder: fc.constantFrom('right', 'right', 'none', 'none', 'wrong'),
})

const withPick = <Rest extends object>(
  rest: { readonly [Name in keyof Rest]: fc.Arbitrary<Rest[Name]> },
): fc.Arbitrary<EntryPick & Rest> =>
  fc.tuple(pick, fc.record(rest) as fc.Arbitrary<Rest>).map(([entry, other]) => Object.assign(entry, other))

const publish: fc.Arbitrary<OpAction> = fc.record({
  type: fc.constant('publish' as const),
  queue: small(1),
  topic: small(2),
  id: fc.option(small(3), { nil: undefined }),
  sender: small(1),
  key: fc.option(small(1), { nil: undefined }),
  priority: fc.constantFrom(0, 4, 9),
  delayMs: fc.option(fc.constantFrom(0, 5, 40), { nil: undefined, freq: 2 }),
  ttlMs: fc.option(fc.constantFrom(1, 10, 60), { nil: undefined, freq: 2 }),
  dedupeMs: fc.constantFrom(0, 10, 60),
  dedupeMax: limit(1, 2),
  body: small(2),
  subscriptions: fc.array(small(2), { maxLength: 3 }),
  maxLength: limit(1, 4, 8),
  maxBytes: limit(60, 200),
  whenFull: fc.constantFrom('refuse', 'dead-letter-oldest'),
  grantMs: fc.option(fc.constantFrom(1, 20), { nil: undefined, freq: 1 }),
})

const lines = { queue: small(1), subscription: small(2) }

const op: fc.Arbitrary<OpAction> = fc.oneof(
  { weight: 12, arbitrary: publish },
  { weight: 4, arbitrary: withPick({ type: fc.constant('ack' as const) }) },
  { weight: 2, arbitrary: withPick({ type: fc.constantFrom('ready' as const, 'expire' as const) }) },
  {
    weight: 4,
    arbitrary: withPick({ type: fc.constant('nack' as const), inMs: fc.constantFrom(0, 5, 30), failures: small(4) }),
  },
  { weight: 3, arbitrary: withPick({ type: fc.constant('release' as const), inMs: fc.constantFrom(undefined, 0, 5) }) },
  { weight: 3, arbitrary: withPick({ type: fc.constant('dead' as const), failures: fc.constantFrom(undefined, 5) }) },
  {
    weight: 3,
    arbitrary: withPick({
      type: fc.constant('extend' as const),
      leaseMs: fc.constantFrom(1, 20),
      maxLeaseMs: fc.constantFrom(10, 50),
    }),
  },
  { weight: 2, arbitrary: withPick({ type: fc.constant('received' as const), leaseMs: fc.constantFrom(1, 20) }) },
  {
    weight: 3,
    arbitrary: withPick({ type: fc.constant('replay' as const), maxLength: limit(1, 4), maxBytes: limit(60) }),
  },
  {
    weight: 1,
    arbitrary: withPick({
      type: fc.constant('discard' as const),
      state: fc.constantFrom('ready' as const, 'delayed' as const, 'dead' as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('purge' as const),
      ...lines,
      topic: fc.option(small(2), { nil: undefined }),
      state: fc.constantFrom('ready' as const, 'delayed' as const, 'dead' as const),
      max: fc.constantFrom(1, 2, 1000),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('trim-dead' as const),
      ...lines,
      maxCount: limit(0, 1, 3),
      maxBytes: limit(0, 60),
      ageMs: fc.constantFrom(0, 10, 1_000_000),
      max: fc.constantFrom(1, 100),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('create-subscription' as const),
      subscription: small(2),
      meta: small(1),
      max: limit(1, 2),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constantFrom('delete-subscription' as const, 'touch-subscription' as const),
      subscription: small(2),
    }),
  },
)

/** The steps of one run. The subscriptions are there from the start, most of the time. */
export function actionsOf(commands: number, reopens: boolean): fc.Arbitrary<Action[]> {
  const action: fc.Arbitrary<Action> = fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({ type: fc.constant('apply' as const), ops: fc.array(op, { minLength: 1, maxLength: 4 }) }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        type: fc.constant('claim' as const),
        ...lines,
        topics: fc.array(small(2), { minLength: 1, maxLength: 3 }),
        count: small(4),
        bytesMax: limit(1, 100),
        leaseMs: fc.constantFrom(1, 20),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        type: fc.constant('due' as const),
        max: fc.constantFrom(1, 3, 100),
        isHandled: fc.boolean(),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ type: fc.constant('advance' as const), ms: fc.constantFrom(1, 7, 30, 100, 700_000) }),
    },
    { weight: 1, arbitrary: fc.constant({ type: 'look' as const }) },
    ...(reopens ? [{ weight: 1, arbitrary: fc.constant({ type: 'reopen' as const }) }] : []),
  )
  return fc
    .array(action, { minLength: commands, maxLength: commands, size: 'max' })
    .map((actions) => [SUBSCRIBED].concat(actions))
}

const SUBSCRIBED: Action = {
  type: 'apply',
  ops: [0, 1].map((subscription) => ({ type: 'create-subscription', subscription, meta: 0, max: 10 })),
}
