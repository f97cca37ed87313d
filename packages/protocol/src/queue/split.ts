/** Batches that fit in a stanza. */
import type { XmlElement } from '../element.ts'
import { WRITE_STANZA_BYTES_MAX } from '../limits.ts'
import { wireLength } from '../writer.ts'

/** What {@link splitBatches} made. */
export interface SplitBatches<Item> {
  /** In order, none empty, each within both bounds. */
  readonly batches: readonly (readonly Item[])[]
  /** Those that do not even fit alone. */
  readonly tooLarge: readonly Item[]
}

/**
 * Cuts a list into batches, in order, as few as the order allows.
 *
 * @param items anything that knows its bytes on the wire (`WrittenItem`)
 * @param bytesMax most bytes of a batch's items together; see {@link roomForItems}
 * @param itemsMax most items of a batch
 */
export function splitBatches<Item extends { readonly bytes: number }>(
  items: readonly Item[],
  bytesMax: number,
  itemsMax: number,
): SplitBatches<Item> {
  const batches: Item[][] = []
  const tooLarge: Item[] = []
  let batch: Item[] = []
  let bytes = 0
  for (const item of items) {
    if (item.bytes > bytesMax) {
      tooLarge.push(item)
      continue
    }
    if (batch.length > 0 && (bytes + item.bytes > bytesMax || batch.length >= itemsMax)) {
      batches.push(batch)
      batch = []
      bytes = 0
    }
    batch.push(item)
    bytes += item.bytes
  }
  if (batch.length > 0) batches.push(batch)
  return { batches, tooLarge }
}

/** Bytes that are left for items in a stanza that has everything else, its empty container included. */
export function roomForItems(stanza: XmlElement, stanzaBytesMax: number = WRITE_STANZA_BYTES_MAX): number {
  return stanzaBytesMax - wireLength(stanza)
}
