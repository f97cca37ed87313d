/** `xmq:queue:1`, the reliable layer: docs/protocol-reliable.md. Classes that hold text are exported as types only. */
export * from './admin.ts'
export { decodeAlive, encodeAlive, epochOf, isSameLife } from './alive.ts'
export * from './call.ts'
export * from './consumer.ts'
export {
  type ContentParts,
  createContent,
  type ItemContent,
  restoreContent,
  type StoredText,
  storedText,
} from './content.ts'
export * from './deliver.ts'
export type { Envelope, EnvelopeMark, MessageType } from './envelope.ts'
export { assertHeaders, decodeHeaders, encodeHeaders, type Headers, headersIn, NO_HEADERS } from './headers.ts'
export { formatInstant, parseInstant } from './instant.ts'
export type { DeliveredItem, ItemCodec, ItemResult, PublishItem } from './item.ts'
export * from './limits.ts'
export type { LineName } from './line.ts'
export * from './pattern.ts'
export {
  type ConfirmDurability,
  decodePublish,
  decodePublished,
  encodePublish,
  encodePublished,
  matchPublished,
  unpackPublishItem,
  type Published,
  type PublishedItem,
} from './publish.ts'
export * from './queued-message.ts'
export * from './settle.ts'
export * from './split.ts'
export * from './stats.ts'
export { writeError } from './refusal.ts'
export type { WrittenElement, WrittenItem } from './written.ts'
export { itemCodecFor, itemCodecOf } from './item-codecs.ts'
export { PACKED, PACKED_ITEMS } from './packed-items.ts'
export { XML_ITEMS } from './xml-items.ts'
