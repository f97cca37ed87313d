/**
 * The operations that `Store.apply` takes, and their answers. This is the contract of every store.
 *
 * Rules for all of them:
 * 1. Operations are applied in order, each a compare-and-set on its own: what its "when" column demands holds, and all of
 *    its effects happen; or it does not hold, and nothing happens. Each is answered in its place. A later one sees what an
 *    earlier one of the same `apply` did.
 * 2. Those of one `apply` become durable in one commit, before its promise resolves. When that fails, all are answered
 *    `unavailable`, and none of them happened as far as this store will ever tell (after a crash in between, some or all
 *    may have: a publish is then repeated with its id, everything else with its token).
 * 3. The store decides no policy: times, counts, limits, reasons and names come with the operation. Nothing happens because
 *    time passed; `due` only lists.
 * 4. An operation on an entry that does not exist, is in another state, or has another token or holder than demanded
 *    answers `not-found`.
 * 5. `now` is the `now` of the `apply`.
 *
 * Order. Each entry takes an order number, ascending in its line, when it first becomes READY, and keeps it over leases and
 * retries; `replay` takes a new one. `seq` ascends in a queue in the order of publishing, and is never given twice, whatever
 * is purged or restarted; gaps are allowed.
 *
 * Keys. The entries of one (line, topic, key) that have an order number and are not DEAD form a chain. Only its first, by
 * order number, may be claimed: it blocks the others while READY, LEASED, or DELAYED by a nack. When it is gone or DEAD,
 * the next becomes claimable. A DELAYED entry that was never READY is in no chain.
 *
 * Deduplication. A publish with `id` leaves a record (queue, sender, id) that holds while any entry of the message exists in
 * whatever state, and at least until `now + dedupeMs`. Of the records whose `now + dedupeMs` has not passed, at most
 * `dedupeMax` are kept in a queue: those that end first are forgotten first.
 */
import type { XmqError } from '@xmq/protocol'
import type { DeadReason, DroppedEntry, EntryRef } from './entry.ts'

/** One line that a publish goes to, with the limits of that line. */
export interface PublishTarget {
  /** `''` or a named subscription; one that does not exist (any more) is passed over. */
  readonly subscription: string
  /** Most READY, DELAYED and LEASED entries in the line, this one included. */
  readonly maxLength: number
  /** Most bytes of them, this one included. */
  readonly maxBytes: number
  /**
   * What happens when a limit would be broken: the whole publish is refused, or the READY entries of the line with the lowest
   * seq become DEAD(`overflow`), at most {@link OVERFLOW_DROPS_MAX}; where that is not enough, it is refused too.
   */
  readonly whenFull: 'refuse' | 'dead-letter-oldest'
}

/** A lease to be given: 128 random bits as text, and the bare JID that will hold it. */
export interface LeaseGrant {
  readonly token: string
  readonly holder: string
}

/** A lease that may begin with the publish. */
export interface PublishGrant extends LeaseGrant {
  readonly leaseMs: number
}

/** Most entries that one publish drops from one line. */
export const OVERFLOW_DROPS_MAX = 64

/**
 * | when | then | answer |
 * |---|---|---|
 * | a record of (queue, sender, id) holds, same topic and body | nothing | `duplicate` with its seq |
 * | a record holds, other topic or body | nothing | `conflict` |
 * | a target would break a limit | nothing | `full` |
 * | `delayUntil` > now | one DELAYED entry per target | `ok` |
 * | `grant`, the only target is the queue's own line, nothing of the topic is claimable there, and the entry would be | LEASED at once, as by a claim with that grant | `ok` with `leasedAt` = now |
 * | else | one READY entry per target | `ok` |
 *
 * Without any (existing) target the message is gone at once: it takes a seq, leaves its record, and is `ok` with 0 entries.
 */
export interface PublishOp {
  readonly type: 'publish'
  readonly queue: string
  readonly topic: string
  /** Undefined: never deduplicated. */
  readonly id: string | undefined
  /** Bare JID of the producer. */
  readonly sender: string
  readonly key: string | undefined
  /** 0..9; 9 is claimed first. */
  readonly priority: number
  readonly delayUntil: number | undefined
  readonly expiresAt: number | undefined
  readonly dedupeMs: number
  readonly dedupeMax: number
  /** Stored once for all targets, with a checksum. */
  readonly body: string
  /** Opaque text of the core beside the body (headers, type, full JID); it does not count in `conflict`. */
  readonly meta: string
  /** Somebody who has room for it now: spares the claim, and a commit. Set by who sends it, when it is sent. */
  grant?: PublishGrant | undefined
  /** One for an `any` queue; one for each matching named subscription of an `all` queue. No line twice. */
  readonly targets: readonly PublishTarget[]
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | LEASED with this token and holder | gone | `ok` |
 * | READY, DELAYED or DEAD, and these were its last token and holder (a late ack) | gone | `ok` |
 * | gone by an ack with this token and holder within {@link REPEATED_ACK_MS} | nothing | `ok` |
 */
export interface AckOp extends EntryRef {
  readonly type: 'ack'
  readonly token: string
  /** Bare JID of who settles; undefined: the core itself, whoever holds it. */
  readonly holder?: string | undefined
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | LEASED with this token and holder, `at` <= now | READY; failures set, history grows by (now, the holder, `why`, `attempt` = deliveries) | `ok` |
 * | the same, `at` > now | DELAYED until `at`; the same | `ok` |
 */
export interface NackOp extends EntryRef {
  readonly type: 'nack'
  readonly token: string
  readonly holder?: string | undefined
  readonly at: number
  /** The count from now on. */
  readonly failures: number
  readonly why: string
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | LEASED with this token and holder, `at` <= now or absent | READY; failures and history stay | `ok` |
 * | the same, `at` > now | DELAYED until `at`; the same | `ok` |
 */
export interface ReleaseOp extends EntryRef {
  readonly type: 'release'
  readonly token: string
  readonly holder?: string | undefined
  readonly at?: number | undefined
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | LEASED with this token and holder | DEAD(`reason`); history grows by (now, the holder, `why`); failures set when given | `ok` |
 */
export interface DeadOp extends EntryRef {
  readonly type: 'dead'
  readonly token: string
  readonly holder?: string | undefined
  readonly reason: DeadReason
  readonly why: string
  readonly failures?: number | undefined
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | LEASED with this token and holder | deadline = the smaller of now + `leaseMs` and claimedAt + `maxLeaseMs`, but never earlier than it was; received = true | `ok` with the deadline, relocked false |
 * | READY or DELAYED, and these were its last token and holder (a late extend) | LEASED again with the same token: claimedAt = now, deadline = now + the smaller of `leaseMs` and `maxLeaseMs`, received = true; when its lease ended by a nack, failures is 1 less and that nack's history entry goes | `ok`, relocked true |
 *
 * A DEAD entry is not leased again (its key may be in other hands). An unshared store may keep deadlines in memory only.
 */
export interface ExtendOp extends EntryRef {
  readonly type: 'extend'
  readonly token: string
  readonly holder?: string | undefined
  readonly leaseMs: number
  readonly maxLeaseMs: number
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | LEASED with this token and holder, received false | received = true, deadline = now + `leaseMs` | `ok` with the deadline |
 * | LEASED with this token and holder, received true | nothing | `ok` with the deadline |
 */
export interface ReceivedOp extends EntryRef {
  readonly type: 'received'
  readonly token: string
  readonly holder?: string | undefined
  readonly leaseMs: number
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | DELAYED, dueAt <= now | READY, with its old order number if it has one | `ok` |
 */
export interface ReadyOp extends EntryRef {
  readonly type: 'ready'
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | READY or DELAYED, expiresAt <= now | DEAD(`expired`); history grows by (now, '', `why`) | `ok` |
 */
export interface ExpireOp extends EntryRef {
  readonly type: 'expire'
  readonly why: string
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | DEAD, its line has room under the limits | READY with a new order number; failures and deliveries 0, no expiresAt, token or holder; history stays | `ok` |
 * | DEAD, no room | nothing | `full` |
 */
export interface ReplayOp extends EntryRef {
  readonly type: 'replay'
  readonly maxLength: number
  readonly maxBytes: number
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | in `state` (default DEAD) | gone | `ok` |
 */
export interface DiscardOp extends EntryRef {
  readonly type: 'discard'
  readonly state?: 'ready' | 'delayed' | 'dead' | undefined
}

/**
 * Ends the entries of one state, in the order of seq. Bounded: repeat it with `after` = `next` until `next` is undefined.
 * What comes into the state between two of them may go or stay: it depends on where the store cut the first one short.
 *
 * | when | then | answer |
 * |---|---|---|
 * | always | the entries in `state` (of `topic`) with a seq above `after` are gone, at most `max` of them | `ok` with count and next |
 */
export interface PurgeOp {
  readonly type: 'purge'
  readonly queue: string
  readonly subscription: string
  readonly topic: string | undefined
  readonly state: 'ready' | 'delayed' | 'dead'
  readonly after: number
  readonly max: number
}

/**
 * Drops DEAD entries of a line, the earliest death first (then the lowest seq), as long as they are more than `maxCount`, or
 * hold more than `maxBytes`, or the first of them died before `diedBefore`; at most `max`.
 *
 * | when | then | answer |
 * |---|---|---|
 * | always | they are gone | `ok` with what was dropped |
 */
export interface TrimDeadOp {
  readonly type: 'trim-dead'
  readonly queue: string
  readonly subscription: string
  readonly maxCount: number
  readonly maxBytes: number
  readonly diedBefore: number
  readonly max: number
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | no such subscription, fewer than `max` in the queue | it exists, empty: it starts at now; touchedAt = now | `ok`, created true |
 * | no such subscription, `max` in the queue | nothing | `full` |
 * | it exists with the same `meta` | touchedAt = now | `ok`, created false |
 * | it exists with another `meta` | nothing | `conflict` |
 */
export interface CreateSubscriptionOp {
  readonly type: 'create-subscription'
  readonly queue: string
  /** Not empty; unique in the queue. */
  readonly subscription: string
  readonly meta: string
  readonly max: number
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | it exists | it and its entries in every state are gone | `ok` |
 */
export interface DeleteSubscriptionOp {
  readonly type: 'delete-subscription'
  readonly queue: string
  readonly subscription: string
}

/**
 * | when | then | answer |
 * |---|---|---|
 * | it exists | touchedAt = now | `ok` |
 */
export interface TouchSubscriptionOp {
  readonly type: 'touch-subscription'
  readonly queue: string
  readonly subscription: string
}

/** An operation on one entry. */
export type EntryOp =
  | AckOp
  | NackOp
  | ReleaseOp
  | DeadOp
  | ExtendOp
  | ReceivedOp
  | ReadyOp
  | ExpireOp
  | ReplayOp
  | DiscardOp

/** Everything that {@link Store.apply} takes. */
export type StoreOp =
  | PublishOp
  | EntryOp
  | PurgeOp
  | TrimDeadOp
  | CreateSubscriptionOp
  | DeleteSubscriptionOp
  | TouchSubscriptionOp

/** What an `ok` carries, by the type of its operation. */
export interface StoreOks {
  /** `entries`: in how many lines it is now; `dropped`: what had to give way; `leasedAt`: its grant was used, and when. */
  publish: {
    readonly seq: number
    readonly entries: number
    readonly dropped: readonly DroppedEntry[]
    readonly leasedAt: number | undefined
  }
  ack: unknown
  nack: unknown
  release: unknown
  dead: unknown
  extend: { readonly deadline: number; readonly relocked: boolean }
  received: { readonly deadline: number }
  ready: unknown
  expire: unknown
  replay: unknown
  discard: unknown
  /** `next`: the `after` to go on with; undefined when nothing is left above. */
  purge: { readonly count: number; readonly next: number | undefined }
  'trim-dead': { readonly dropped: readonly DroppedEntry[] }
  'create-subscription': { readonly created: boolean }
  'delete-subscription': unknown
  'touch-subscription': unknown
}

/** An `ok`, with the type of its operation. */
export type StoreOk = {
  [Type in StoreOp['type']]: { readonly status: 'ok'; readonly type: Type } & StoreOks[Type]
}[StoreOp['type']]

/** Which limit refused: of a line (`subscription` names it), or the number of subscriptions. */
export type FullWhat = 'length' | 'bytes' | 'subscriptions'

/** The answer to one operation. */
export type StoreResult =
  | StoreOk
  | { readonly status: 'duplicate'; readonly seq: number }
  | { readonly status: 'conflict' }
  | { readonly status: 'full'; readonly what: FullWhat; readonly subscription: string }
  | { readonly status: 'not-found' }
  /** Nothing happened, for no fault of the operation: the disk is full or broken, the store is overloaded or closed. */
  | { readonly status: 'unavailable'; readonly error: XmqError }
