/**
 * What a store holds: entries. Words, states and limits that the operations (operations.ts), the port (port.ts) and every
 * store share. Plain data only: a store knows no stanza.
 *
 * A message is stored once; an **entry** is its place in one line of waiting. The queue itself is the line named `''` (an
 * `any` queue has no other); each named durable subscription of an `all` queue is a line of its own.
 *
 * ```
 *            publish ──delayUntil──> DELAYED ──ready──┐
 *               │                     ^  │            v
 *               └──────────────> READY<──┼── release, nack at once, replay
 *                                 │  ^   └── nack at a later time ──┐
 *                           claim │  │                              │
 *                                 v  └──────────────────────── LEASED ── ack ──> gone
 *                               LEASED                              │
 *   READY, DELAYED ── expire ──> DEAD <── dead ─────────────────────┘
 *                                DEAD ── replay ──> READY      DEAD ── discard, purge, trim-dead ──> gone
 * ```
 */

/** Names one entry. `seq` is the message's; the entries of one message share it. */
export interface EntryRef {
  readonly queue: string
  /** `''`: the queue's own line; else the name of a durable subscription, as `create-subscription` gave it. */
  readonly subscription: string
  readonly seq: number
}

/** The states of an entry; one that is gone has none. */
export type EntryState = 'ready' | 'delayed' | 'leased' | 'dead'

/** Why messages are given up. `overflow`: dropped for a newer one; `corrupt`: the stored body fails its checksum. */
export const DEAD_REASONS = ['max-attempts', 'rejected', 'expired', 'invalid', 'overflow', 'corrupt'] as const

export type DeadReason = (typeof DEAD_REASONS)[number]

/** One thing that went wrong with an entry. */
export interface HistoryEntry {
  /** Wall ms. */
  readonly at: number
  /** Who held the lease; `''` when nobody did. */
  readonly holder: string
  /** What went wrong, cut to {@link WHY_LENGTH_MAX}. */
  readonly why: string
  /** Which delivery it was, from 1; absent when nobody held it, and in files of earlier versions. */
  readonly attempt?: number
}

/** Most history entries that are kept, the newest ones. */
export const HISTORY_MAX = 20
/** Longest `why` that is kept, in UTF-16 units. */
export const WHY_LENGTH_MAX = 512
/** Milliseconds for which a repeated ack is answered `ok`. */
export const REPEATED_ACK_MS = 600_000
/** Number of latest acks for which that holds at least, unless the store was closed in between. */
export const REPEATED_ACKS_MIN = 65_536

/** Everything about an entry but its body. Times are wall ms. */
export interface EntryHead extends EntryRef {
  readonly state: EntryState
  readonly topic: string
  /** The producer's id; undefined for a message without one, which is never deduplicated. */
  readonly id: string | undefined
  /** Bare JID of the producer. */
  readonly sender: string
  readonly key: string | undefined
  /** 0..9; 9 is claimed first. */
  readonly priority: number
  /** UTF-8 bytes of body and meta. */
  readonly bytes: number
  readonly publishedAt: number
  readonly expiresAt: number | undefined
  /** DELAYED: when it becomes READY. */
  readonly dueAt: number | undefined
  /** DEAD: when it died. */
  readonly diedAt: number | undefined
  /** DEAD: why. */
  readonly reason: DeadReason | undefined
  /** Failures counted so far, as the last `nack` set them. */
  readonly failures: number
  /** How often it was claimed since it was published or replayed. */
  readonly deliveries: number
  /** Token and holder of its lease, or of its last one; undefined when it was never claimed. */
  readonly token: string | undefined
  readonly holder: string | undefined
  /** LEASED: when it was claimed, whether `received` was applied to this lease, and when it is over. */
  readonly claimedAt: number | undefined
  readonly received: boolean
  readonly deadline: number | undefined
}

/** An entry as `browse` shows it. */
export interface StoredEntry extends EntryHead {
  readonly history: readonly HistoryEntry[]
  /** Undefined when bodies were not asked for, or when `corrupt`. */
  readonly body: string | undefined
  readonly meta: string | undefined
  /** Its body was read and fails its checksum. */
  readonly corrupt: boolean
}

/** A message as `claim` hands it out, leased. `body` and `meta` are exactly what was published. */
export interface ClaimedMessage extends EntryRef {
  readonly token: string
  readonly holder: string
  readonly topic: string
  readonly id: string | undefined
  readonly sender: string
  readonly key: string | undefined
  readonly priority: number
  readonly publishedAt: number
  readonly expiresAt: number | undefined
  readonly failures: number
  /** This delivery included. */
  readonly deliveries: number
  readonly body: string
  readonly meta: string
}

/** An entry that was given up or dropped by the way of another operation; enough for an event. */
export interface DroppedEntry extends EntryRef {
  readonly topic: string
  readonly id: string | undefined
  readonly sender: string
  readonly reason: DeadReason
}

/** A named durable subscription. */
export interface SubscriptionRecord {
  readonly queue: string
  readonly subscription: string
  /** Opaque text of the core: owner, name, filter. Fixed at creation. */
  readonly meta: string
  readonly createdAt: number
  readonly touchedAt: number
  readonly counts: LineCounts
}

/** Gauges of a line (or of one topic in it). */
export interface LineCounts {
  /** READY, those included that wait behind another of their key. */
  readonly ready: number
  /** READY, and first of its key or without one: what a claim could take now. */
  readonly claimable: number
  readonly delayed: number
  readonly leased: number
  readonly dead: number
  /** Bytes of READY, DELAYED and LEASED entries: what `maxBytes` bounds. */
  readonly bytes: number
  /** Bytes of DEAD entries. */
  readonly deadBytes: number
}

/** The counts of one topic in a line. */
export interface TopicCounts extends LineCounts {
  readonly topic: string
}
