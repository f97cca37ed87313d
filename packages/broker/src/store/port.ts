/**
 * The seam of the stores. A store owns messages; the core owns consumers, subscriptions, credit and policy.
 *
 * entry.ts has the words and the states, operations.ts what may be done to them, with preconditions and effects: the
 * contract of every store. One suite of model-based cases runs it on all of them (`storeSuite` of `@xmq/testing`), the memory
 * store being the model.
 *
 * 1. Requests take effect one after the other, in the order in which they were made, whatever their kind.
 * 2. What a promise resolves with is durable as `caps.durability` says.
 * 3. No method rejects or throws for what disk, file or load do: the answer is `unavailable`, and `probe` says why. Wrong
 *    arguments are a bug of the caller and may throw.
 * 4. Times are wall milliseconds that the caller hands in and never lets run backwards.
 * 5. Nothing here assumes that only one process has the store open; but each queue has one broker at a time.
 */
import type { XmqError } from '@xmq/protocol'
import type {
  ClaimedMessage,
  DroppedEntry,
  EntryHead,
  EntryState,
  LineCounts,
  StoredEntry,
  SubscriptionRecord,
  TopicCounts,
} from './entry.ts'
import type { LeaseGrant, StoreOp, StoreResult } from './operations.ts'

export * from './entry.ts'
export * from './operations.ts'

/** What survives what: nothing, a restart, or the loss of a machine. */
export type Durability = 'memory' | 'disk' | 'replicated'

/** The store schemes that exist, as `store:` in the configuration names them. */
export const STORE_SCHEMES = ['memory', 'sqlite'] as const

/** Which store, as the configuration says. */
export type StoreConfig = { readonly scheme: 'memory' } | { readonly scheme: 'sqlite'; readonly path: string }

/** What a store can do. It never changes while the store is open. */
export interface StoreCaps {
  readonly durability: Durability
  /** Several brokers may have it open. When false, lease deadlines are the store's memory and not durable. */
  readonly shared: boolean
  /** Most UTF-8 bytes of a message's body and meta together. The core refuses more before it publishes. */
  readonly maxBody: number
}

/** Most topics that one claim names: the core takes those that it knows to be claimable, in turn. */
export const CLAIM_TOPICS_MAX = 256

/**
 * Leases up to `grants.length` entries of one line, all in one commit: those that are claimable (see operations.ts, Keys),
 * of `topics`, by priority (9 first), then order number; the n-th message takes the n-th grant.
 *
 * | entry met | then |
 * |---|---|
 * | claimable | LEASED: token, holder, claimedAt = now, deadline = now + `leaseMs`, received false, deliveries + 1 |
 * | its expiresAt <= now | nothing; listed in `expired`. The core expires it and claims again |
 * | its body fails its checksum | DEAD(`corrupt`); listed in `corrupt` |
 *
 * It ends when the grants are used, `bytesMax` would be broken by a second message or a later one, {@link CLAIM_SKIPS_MAX}
 * entries were listed in `expired` and `corrupt`, or nothing is left. A late settle finds its entry by `seq`: let the token that
 * goes out on the wire carry it.
 */
export interface ClaimRequest {
  readonly queue: string
  readonly subscription: string
  /** Exact topics, at most {@link CLAIM_TOPICS_MAX}, none twice. Given for the queue's own line; absent for a subscription's, which is one line over all of its topics. */
  readonly topics?: readonly string[] | undefined
  readonly grants: readonly LeaseGrant[]
  /** Most bytes of body and meta in all; one message is always handed out. */
  readonly bytesMax: number
  readonly leaseMs: number
  readonly now: number
}

/** Most entries that one claim passes over. */
export const CLAIM_SKIPS_MAX = 64

export type ClaimAnswer =
  | {
      readonly status: 'ok'
      readonly messages: readonly ClaimedMessage[]
      readonly expired: readonly EntryHead[]
      readonly corrupt: readonly DroppedEntry[]
      /** True: it ended for `bytesMax` or the passed over; there may be more. False: grants ran out, or nothing is left. */
      readonly more: boolean
    }
  | { readonly status: 'unavailable'; readonly error: XmqError }

/** Something that is over. The core decides, and answers by an operation; until then it is listed again. */
export interface DueItem {
  /** `lease`: LEASED, deadline <= now. `delay`: DELAYED, dueAt <= now. `ttl`: READY or DELAYED, expiresAt <= now. */
  readonly what: 'lease' | 'delay' | 'ttl'
  readonly at: number
  readonly entry: EntryHead
}

export type DueAnswer =
  | {
      readonly status: 'ok'
      /** Those that have been over for longest first, within each `what`. An entry may be listed as `delay` and as `ttl`. */
      readonly items: readonly DueItem[]
      /** When something not listed is or will be over; undefined when nothing has a time. */
      readonly nextAt: number | undefined
    }
  | { readonly status: 'unavailable'; readonly error: XmqError }

/** A page of a line's entries, by seq. */
export interface BrowseRequest {
  readonly queue: string
  readonly subscription: string
  readonly state?: EntryState | undefined
  readonly topic?: string | undefined
  /** Only those with a higher seq; 0 for all. `after: seq - 1, max: 1` looks one up. */
  readonly after: number
  readonly max: number
  /** Read and check bodies too. */
  readonly bodies: boolean
}

export type BrowseAnswer =
  | {
      readonly status: 'ok'
      readonly entries: readonly StoredEntry[]
      /** The `after` of the next page, which may have fewer than `max`, even none; undefined on the last. */
      readonly next: number | undefined
    }
  | { readonly status: 'unavailable'; readonly error: XmqError }

/** A page of a line's topics, by name (UTF-8 order). */
export interface TopicsRequest {
  readonly queue: string
  readonly subscription: string
  /** Only those that come later; `''` for all. */
  readonly after: string
  readonly max: number
}

export type TopicsAnswer =
  | {
      readonly status: 'ok'
      /** Those with at least one entry, in whatever state. */
      readonly topics: readonly TopicCounts[]
      readonly next: string | undefined
    }
  | { readonly status: 'unavailable'; readonly error: XmqError }

export type SubscriptionsAnswer =
  | { readonly status: 'ok'; readonly subscriptions: readonly SubscriptionRecord[] }
  | { readonly status: 'unavailable'; readonly error: XmqError }

/** A page of the leases of one line, by seq: what a broker that starts finds. Each has one full period from `open` on. */
export interface LeasesRequest {
  readonly queue: string
  readonly subscription: string
  readonly after: number
  readonly max: number
}

/** A topic of a line in which an entry has become claimable: by publish, ready, release, nack, replay, or a freed key. */
export interface ClaimableTopic {
  readonly queue: string
  readonly subscription: string
  readonly topic: string
}

/** The counts of one line. */
export interface LineStats extends LineCounts {
  readonly queue: string
  readonly subscription: string
}

/** Gauges of a store, as of its last answer. */
export interface StoreStats {
  /** Entries held, in whatever state. */
  readonly messages: number
  /** Bytes of what is held, in whatever state. */
  readonly bytes: number
  readonly lines: readonly LineStats[]
  /** By queue: ids of publishes that are remembered for a time. */
  readonly remembered: ReadonlyMap<string, number>
  /** Acks that are remembered, so that a repeated one is answered as the first was. */
  readonly repeatableAcks: number
  /** Bytes of messages that wait for a commit. */
  readonly waitingBytes: number
}

/** An open store. Its only owner is the runtime. */
export interface Store {
  readonly caps: StoreCaps
  /**
   * Opens it: the first call. Until it resolves every request waits.
   *
   * @param now leases that are found end one full period after it
   * @throws XmqError `conflict`: another broker has it open; `invalid-config`: the path cannot be used, or the file is no XMQ
   * store, or of a newer version. A full, broken or read-only disk is no reason: the store opens and answers `unavailable`.
   */
  open(now: number): Promise<void>
  /** Applies operations in one commit, each answered in its place; operations.ts has the contract. */
  apply(ops: readonly StoreOp[], now: number): Promise<readonly StoreResult[]>
  claim(request: ClaimRequest): Promise<ClaimAnswer>
  /** Up to `max` of what is over at `now`, of the queues that this broker serves. */
  due(now: number, max: number): Promise<DueAnswer>
  /** Tells of topics that have become claimable, each once a commit, before the answer to what made them so. Returns its end. */
  watch(listener: (topics: readonly ClaimableTopic[]) => void): () => void
  leases(request: LeasesRequest): Promise<BrowseAnswer>
  browse(request: BrowseRequest): Promise<BrowseAnswer>
  topics(request: TopicsRequest): Promise<TopicsAnswer>
  /** The named subscriptions of a queue, by name. */
  subscriptions(queue: string): Promise<SubscriptionsAnswer>
  stats(): StoreStats
  /** Whether it can write now: `undefined` when it can, else why not. Never rejects. */
  probe(): Promise<XmqError | undefined>
  /** Finishes what was asked, then ends; idempotent. Later requests are `unavailable`. */
  close(): Promise<void>
}
