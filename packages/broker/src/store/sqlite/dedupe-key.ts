/**
 * What a deduplication record is found by, and what it compares. The key begins with what its sender's name comes to, then is the id as it is: ids
 * that ascend, as those of the SDK do, so lie side by side, and thousands of new records change a few pages. Under a hash of the id each
 * would change one of its own.
 */
import { hash } from 'node:crypto'
import { PAYLOAD_BYTES } from './dedupe-block.ts'
import { bodyOf, idOfData, senderOfData } from './message-data.ts'

/** Longer ids are cut, and what they come to as a whole is added. */
const ID_BYTES_MAX = 48
const ID_BYTES_CUT = 32
/** Senders whose digests are remembered. */
const SENDERS_MAX = 1000
/** Topics and bodies up to this size are put together in one place. */
const SCRATCH_BYTES = 16 * 1024

// 96 and 128 bits: nobody finds a name that comes to the same as another's, and who makes two of his own ids or messages collide
// deduplicates his own messages.
const SENDER_DIGEST_BYTES = 12
const DIGEST_BYTES = 16

export const digest = (data: Buffer): Buffer => hash('sha256', data, 'buffer').subarray(0, DIGEST_BYTES)

const senders = new Map<string, Buffer>()

function prefixOf(sender: string): Buffer {
  const known = senders.get(sender)
  if (known !== undefined) return known
  if (senders.size >= SENDERS_MAX) senders.clear()
  const prefix = digest(Buffer.from(sender)).subarray(0, SENDER_DIGEST_BYTES)
  senders.set(sender, prefix)
  return prefix
}

/** dedupe.key of a message that has an id. */
export function dedupeKeyOf(message: Buffer, sender: string = senderOfData(message)): Buffer {
  const prefix = prefixOf(sender)
  const id = idOfData(message)
  if (id.length > ID_BYTES_MAX) return Buffer.concat([prefix, id.subarray(0, ID_BYTES_CUT), digest(id)])
  const key = Buffer.allocUnsafe(SENDER_DIGEST_BYTES + id.length)
  prefix.copy(key)
  id.copy(key, SENDER_DIGEST_BYTES)
  return key
}

const scratch = Buffer.alloc(SCRATCH_BYTES)

/** What topic and body come to, a character a byte: Node makes a text in half the time of a buffer. */
export function payloadOf(topic: string, message: Buffer): string {
  const body = bodyOf(message)
  // A character has 3 bytes at most.
  let data = scratch
  if (topic.length * 3 + 1 + body.length <= SCRATCH_BYTES) {
    let at = scratch.write(topic)
    scratch[at++] = 0
    at += body.copy(scratch, at)
    data = scratch.subarray(0, at)
  } else data = Buffer.concat([Buffer.from(`${topic}\0`), body])
  return hash('sha256', data, 'binary').slice(0, PAYLOAD_BYTES)
}
