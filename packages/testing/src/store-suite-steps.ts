/** The steps that the directed cases of the store suite are written in: operations with all that a case does not care about filled in. */
import { strictEqual } from 'node:assert/strict'
import type {
  ClaimedMessage,
  EntryHead,
  EntryRef,
  PublishOp,
  PublishTarget,
  Store,
  StoreOp,
  StoreResult,
} from '@xmq/broker'

/** A case, on a store that is fresh and empty. */
export interface DirectedCase {
  readonly name: string
  readonly run: (store: Store) => Promise<void>
}

export const QUEUE = 'jobs.localhost'
export const HOLDER = 'worker@localhost'
export const NOW = 1_000_000
export const NO_LIMIT = 1_000_000

export const target = (subscription = '', more: Partial<PublishTarget> = {}): PublishTarget => ({
  subscription,
  maxLength: NO_LIMIT,
  maxBytes: NO_LIMIT,
  whenFull: 'refuse',
  ...more,
})

export const publishOp = (more: Partial<PublishOp> = {}): PublishOp => ({
  type: 'publish',
  queue: QUEUE,
  topic: 't',
  id: undefined,
  sender: 'shop@localhost',
  key: undefined,
  priority: 4,
  delayUntil: undefined,
  expiresAt: undefined,
  dedupeMs: 600_000,
  dedupeMax: NO_LIMIT,
  body: 'body',
  meta: 'meta',
  targets: [target()],
  ...more,
})

/** Applies one operation alone. */
export const one = async (store: Store, op: StoreOp, now: number = NOW): Promise<StoreResult> =>
  (await store.apply([op], now))[0] as StoreResult

/** Publishes what must be stored. @returns its seq */
export async function publish(store: Store, more: Partial<PublishOp> = {}, now: number = NOW): Promise<number> {
  const result = await one(store, publishOp(more), now)
  if (result.status !== 'ok' || result.type !== 'publish')
    throw result.status === 'unavailable' ? result.error : new Error(`publish: ${result.status}`)
  return result.seq
}

let lastToken = 0

/** Leases up to so many messages, each with a token of its own. */
export async function claim(
  store: Store,
  count = 1,
  now: number = NOW,
  subscription = '',
  topics: readonly string[] = ['t'],
): Promise<readonly ClaimedMessage[]> {
  const grants = Array.from({ length: count }, () => {
    lastToken += 1
    return { token: `token-${lastToken}`, holder: HOLDER }
  })
  const lane = subscription === '' ? { topics } : {}
  const answer = await store.claim({
    queue: QUEUE,
    subscription,
    ...lane,
    grants,
    bytesMax: NO_LIMIT,
    leaseMs: 30,
    now,
  })
  if (answer.status !== 'ok') throw answer.error
  return answer.messages
}

/** The next message, which there must be. */
export async function claimOne(store: Store, now: number = NOW): Promise<ClaimedMessage> {
  const [message] = await claim(store, 1, now)
  if (message === undefined) throw new Error('nothing was claimable')
  return message
}

/** An entry as `browse` shows it; `undefined` when there is none. */
export async function headOf(store: Store, seq: number, subscription = ''): Promise<EntryHead | undefined> {
  const page = await store.browse({ queue: QUEUE, subscription, after: seq - 1, max: 1, bodies: false })
  if (page.status !== 'ok') throw page.error
  return page.entries[0]?.seq === seq ? page.entries[0] : undefined
}

/** The lease of a claimed message, as its holder names it. */
export const refOf = ({
  queue,
  subscription,
  seq,
  token,
}: ClaimedMessage): EntryRef & { readonly token: string; readonly holder: string } => ({
  queue,
  subscription,
  seq,
  token,
  holder: HOLDER,
})
export const entry = (seq: number, subscription = ''): EntryRef => ({ queue: QUEUE, subscription, seq })
export const OK = <Type extends string>(type: Type): { readonly status: 'ok'; readonly type: Type } => ({
  status: 'ok',
  type,
})

/** Publishes a message and makes a dead letter of it. @returns its seq */
export async function killed(store: Store): Promise<number> {
  const seq = await publish(store)
  const message = await claimOne(store)
  strictEqual(message.seq, seq)
  await one(store, { type: 'dead', ...refOf(message), reason: 'rejected', why: 'no' })
  return seq
}
