/**
 * The deduplication records of one row of the table `dedupe`: a block of those that ascending ids of one sender left one after the other, in one
 * transaction and for one time. A row of its own for each would cost the store more than all else that it does for an id.
 *
 * The row's key and seq are those of the last record. In `hash` is:
 *
 * ```
 *  | payload: 16 |  and for each record before the last:  | shared: 1 | rest: 1 | rest of the key | seqs before the last: 4 | payload: 16 |
 * ```
 *
 * `shared`: how many bytes the key begins with as the last one does. A block of one record is a row of version 4.
 */

/** Records in one block: SQLite keeps rows of about 1000 bytes in one piece. */
export const BLOCK_MAX = 32
/** Bytes of a payload's digest. */
export const PAYLOAD_BYTES = 16
/** All but the rest of the key. */
const FIXED_BYTES = 1 + 1 + 4 + PAYLOAD_BYTES

/** What is remembered of one publish. */
export interface DedupeRecord {
  /** See dedupe-key.ts. */
  readonly key: Buffer
  readonly seq: number
  /** What topic and body come to, a character a byte. */
  readonly payload: string
}

/** Records of one row. Keys and seqs ascend; no record of the queue that is in no such list has a key between the first and the last. */
export interface DedupeBlock {
  readonly records: readonly DedupeRecord[]
  /** See dedupe.line in schema.ts. */
  readonly shelf: number
  readonly until: number
  readonly isEnding: boolean
}

export const firstOf = ({ records }: DedupeBlock): DedupeRecord => records[0] as DedupeRecord
export const lastOf = ({ records }: DedupeBlock): DedupeRecord => records.at(-1) as DedupeRecord

/** The key of its row. */
export const keyOf = (block: Pick<DedupeBlock, 'records'>): Buffer => (block.records.at(-1) as DedupeRecord).key

function sharedBytes(left: Buffer, right: Buffer): number {
  let shared = 0
  while (shared < left.length && left[shared] === right[shared]) shared++
  return shared
}

/** dedupe.hash of these records, at most {@link BLOCK_MAX}. */
export function encodeRecords(records: readonly DedupeRecord[]): Buffer {
  const last = records.at(-1) as DedupeRecord
  const others = records.length - 1
  const bytes = Buffer.allocUnsafe(PAYLOAD_BYTES + others * (FIXED_BYTES + 0xff))
  let at = bytes.write(last.payload, 0, PAYLOAD_BYTES, 'latin1')
  for (let n = 0; n < others; n++) {
    const { key, seq, payload } = records[n] as DedupeRecord
    const shared = sharedBytes(key, last.key)
    bytes[at++] = shared
    bytes[at++] = key.length - shared
    at += key.copy(bytes, at, shared)
    at = bytes.writeUInt32LE(last.seq - seq, at)
    at += bytes.write(payload, at, PAYLOAD_BYTES, 'latin1')
  }
  return bytes.subarray(0, at)
}

/**
 * The records of a row. Of what is damaged it gives as many as can be read, the last one always.
 *
 * @param bytes null: there is but one, and nobody needs its payload
 */
export function decodeRecords(key: Buffer, seq: number, bytes: Buffer | null): DedupeRecord[] {
  if (bytes === null) return [{ key, seq, payload: '' }]
  const records: DedupeRecord[] = []
  for (let at = PAYLOAD_BYTES; at + FIXED_BYTES <= bytes.length; ) {
    const shared = Number(bytes[at])
    const rest = Number(bytes[at + 1])
    const end = at + FIXED_BYTES + rest
    if (end > bytes.length) break
    const restAt = at + 2
    records.push({
      key: Buffer.concat([key.subarray(0, shared), bytes.subarray(restAt, restAt + rest)]),
      seq: seq - bytes.readUInt32LE(restAt + rest),
      payload: bytes.toString('latin1', end - PAYLOAD_BYTES, end),
    })
    at = end
  }
  records.push({ key, seq, payload: bytes.toString('latin1', 0, PAYLOAD_BYTES) })
  return records
}
