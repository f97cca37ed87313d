/** The items of batches, and the seam behind which they are written. docs/protocol-reliable.md "Items". */
import type { XmlElement } from '../element.ts'
import type { XmqError } from '../errors.ts'
import type { QueuedMessage } from './queued-message.ts'
import type { WrittenItem } from './written.ts'

/** A message that a producer publishes. */
export interface PublishItem extends QueuedMessage {
  /** The producer's name for it: 1 to 256 bytes, no control characters. One used again within the dedupe window is a duplicate. */
  readonly id: string
  /** Messages of one topic and key are handled one at a time: 1 to 255 bytes, no control characters. */
  readonly key?: string | undefined
  /** 0 to 9, 9 first. */
  readonly priority: number
  /** Milliseconds before it may be delivered; 0 for at once. */
  readonly delayMs: number
  /** Milliseconds, counted from the publish, after which it is given up; more than `delayMs`. */
  readonly ttlMs?: number | undefined
}

/** A message that a queue hands to a worker. */
export interface DeliveredItem extends QueuedMessage {
  /** Names the lease: 1 to 256 bytes that mean nothing to the worker. */
  readonly lease: string
  /** The broker's number of the message, unique in its queue for ever. */
  readonly seq: number
  /** Full JID of the producer. */
  readonly from: string
  /** When it was published, wall ms. */
  readonly at: number
  /** Which delivery this is: 1 the first time. */
  readonly attempt: number
  /** How often it has failed before, as the queue counts: at most `attempt` - 1. */
  readonly failures: number
}

/** One item of a batch: read, or broken. Broken ones spoil nothing but themselves. */
export type ItemResult<Item> =
  | { readonly ok: true; readonly item: Item }
  | {
      readonly ok: false
      /** What of it names it, where that could be read. */
      readonly id: string | undefined
      readonly lease: string | undefined
      readonly error: XmqError
    }

/**
 * The seam: how items stand in `<publish/>` and `<deliver/>`: an element an item, which everyone knows, or many items in one text
 * (`packed-items.ts`), which is told in disco#info and in `<consume/>`. Nothing else depends on it.
 */
export interface ItemCodec {
  /** The attribute `encoding` of the container; `undefined` for the one that needs none. */
  readonly encoding: string | undefined
  /** @throws XmqError `bad-request`, `too-large`, `illegal-character`: the item cannot be sent */
  writePublishItem(item: PublishItem): WrittenItem
  /** @throws XmqError `illegal-character` */
  writeDeliveredItem(item: DeliveredItem): WrittenItem
  /** Total. At most `BATCH_ITEMS_MAX` are read: @throws XmqError `too-large` for more, `bad-request` for none */
  readPublishItems(publish: XmlElement): ItemResult<PublishItem>[]
  /** As {@link ItemCodec.readPublishItems}. */
  readDeliveredItems(deliver: XmlElement): ItemResult<DeliveredItem>[]
}
