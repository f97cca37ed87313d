/**
 * The seam of the stores. A store owns messages; the core owns consumers, subscriptions and policy.
 *
 * Plain queues relay and keep nothing, so all that a store must do for them is to say whether it works.
 */
import type { XmqError } from '@xmq/protocol'

/** What survives what: nothing, a restart, or the loss of a machine. */
export type Durability = 'memory' | 'disk' | 'replicated'

/** The store schemes that exist, as `store:` in the configuration names them. */
export const STORE_SCHEMES = ['memory'] as const

/** Which store, as the configuration says. */
export type StoreConfig = { readonly scheme: 'memory' }

/** What a store can do. It never changes while the store is open. */
export interface StoreCaps {
  readonly durability: Durability
}

/** Gauges of a store. */
export interface StoreStats {
  /** Messages held, in whatever state. */
  readonly messages: number
  /** Bytes of what is held. */
  readonly bytes: number
}

/** An open store. Its only owner is the runtime. */
export interface Store {
  readonly caps: StoreCaps
  /** Whether it can write now: `undefined` when it can, else why not. Never rejects. */
  probe(): Promise<XmqError | undefined>
  stats(): StoreStats
  /** Ends it; idempotent. */
  close(): Promise<void>
}
