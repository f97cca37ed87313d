/**
 * How a message is stored: one blob, `entries.data`, that starts with a head of fixed length.
 *
 * ```
 *  0        4          8      9         10            12        16        20        24          32            40
 *  | crc32  | body crc | flags| priority| sender bytes| id bytes| meta    | body    | publishedAt | dedupeUntil |
 *  '--------'-------------------------------- covered by the first -----------------------------------------------> end
 *  40: sender, 0, id, meta, body
 * ```
 *
 * Numbers are little-endian; times are doubles, NaN for none. A body that is shared by several entries, or too large to lie among them, is
 * in `bodies` instead, meta and body, with the checksum here.
 */
import { crc32 } from 'node:zlib'
import type { Value } from './statements.ts'

const HEAD_BYTES = 40
const IS_APART = 1
const IS_SHARED = 2
const NO_ID = 0xffffffff
/** Most bytes of a message that lies beside its entry: a page of the file holds two at least. */
const INLINE_BYTES_MAX = 1900

/** What a producer gives. */
export interface MessageTexts {
  readonly sender: string
  readonly id: string | undefined
  readonly meta: string
  readonly body: string
  readonly priority: number
}

/** The part of a message that its entries show. */
export interface MessageHead {
  readonly id: string | undefined
  readonly sender: string
  readonly priority: number
  readonly publishedAt: number
}

/** What is written for a message: with each entry, and once in `bodies` where that is not undefined. */
export interface EncodedMessage {
  readonly data: Buffer
  readonly apart: Buffer | undefined
}

/** Bytes that {@link writeMessage} takes. */
export function messageBytesOf({ sender, id, meta, body }: MessageTexts): number {
  const texts = Buffer.byteLength(sender) + 1 + Buffer.byteLength(meta) + Buffer.byteLength(body)
  return HEAD_BYTES + texts + (id === undefined ? 0 : Buffer.byteLength(id))
}

/** Writes a message without what only the store knows. Returns where it ends. */
export function writeMessage(bytes: Buffer, from: number, { sender, id, meta, body, priority }: MessageTexts): number {
  let at = from + HEAD_BYTES
  const senderBytes = bytes.write(sender, at)
  at += senderBytes
  bytes[at++] = 0
  const idBytes = id === undefined ? NO_ID : bytes.write(id, at)
  if (id !== undefined) at += idBytes
  const metaBytes = bytes.write(meta, at)
  at += metaBytes
  const bodyBytes = bytes.write(body, at)
  bytes[from + 8] = 0
  bytes[from + 9] = priority
  bytes.writeUInt16LE(senderBytes, from + 10)
  bytes.writeUInt32LE(idBytes, from + 12)
  bytes.writeUInt32LE(metaBytes, from + 16)
  bytes.writeUInt32LE(bodyBytes, from + 20)
  return at + bodyBytes
}

/** Completes what {@link writeMessage} wrote. */
export function sealMessage(
  message: Buffer,
  publishedAt: number,
  dedupeUntil: number | undefined,
  isShared: boolean,
): EncodedMessage {
  const isApart = isShared || message.length > INLINE_BYTES_MAX
  const data = isApart ? message.subarray(0, message.length - dataBytesOf(message)) : message
  const apart = isApart ? message.subarray(data.length) : undefined
  data[8] = (isApart ? IS_APART : 0) | (isShared ? IS_SHARED : 0)
  data.writeDoubleLE(publishedAt, 24)
  data.writeDoubleLE(dedupeUntil ?? Number.NaN, 32)
  data.writeUInt32LE(apart === undefined ? 0 : crc32(apart), 4)
  data.writeUInt32LE(crc32(data.subarray(4)), 0)
  return { data, apart }
}

/** Whether nothing of a message was damaged. */
export function isWhole(data: Buffer, apart: Value | undefined): boolean {
  if (data.length < HEAD_BYTES || crc32(data.subarray(4)) !== data.readUInt32LE(0)) return false
  return !isApartData(data) || (apart instanceof Buffer && crc32(apart) === data.readUInt32LE(4))
}

/** What is too short to have a head, since the file is damaged, reads as zeros. */
const whole = (data: Buffer) =>
  data.length >= HEAD_BYTES ? data : Buffer.concat([data, Buffer.alloc(HEAD_BYTES - data.length)])

/** UTF-8 bytes of meta and body. */
export const dataBytesOf = (data: Buffer): number => whole(data).readUInt32LE(16) + whole(data).readUInt32LE(20)
export const priorityOf = (data: Buffer): number => Number(data[9])
export const isSharedData = (data: Buffer): boolean => (Number(data[8]) & IS_SHARED) !== 0
/** Whether the body is in `bodies`. */
export const isApartData = (data: Buffer): boolean => (Number(data[8]) & IS_APART) !== 0

export function dedupeUntilOf(data: Buffer): number | undefined {
  const until = whole(data).readDoubleLE(32)
  return Number.isNaN(until) ? undefined : until
}

/** The head, as far as it can be read: of a damaged message it may be anything. */
export function headOfData(damaged: Buffer): MessageHead {
  const data = whole(damaged)
  const idAt = HEAD_BYTES + data.readUInt16LE(10) + 1
  const idBytes = data.readUInt32LE(12)
  return {
    id: idBytes === NO_ID ? undefined : data.toString('utf8', idAt, idAt + idBytes),
    sender: data.toString('utf8', HEAD_BYTES, idAt - 1),
    priority: Number(data[9]),
    publishedAt: data.readDoubleLE(24),
  }
}

/** The texts of a message that {@link isWhole}. */
export function textsOf(data: Buffer, apart: Buffer | undefined): { readonly meta: string; readonly body: string } {
  const metaBytes = data.readUInt32LE(16)
  if (apart !== undefined) {
    return { meta: apart.toString('utf8', 0, metaBytes), body: apart.toString('utf8', metaBytes) }
  }
  const bodyAt = data.length - data.readUInt32LE(20)
  return { meta: data.toString('utf8', bodyAt - metaBytes, bodyAt), body: data.toString('utf8', bodyAt) }
}

export const senderOfData = (data: Buffer): string =>
  data.toString('utf8', HEAD_BYTES, HEAD_BYTES + data.readUInt16LE(10))

/** The id of a message that has one. */
export function idOfData(data: Buffer): Buffer {
  const from = HEAD_BYTES + data.readUInt16LE(10) + 1
  return data.subarray(from, from + data.readUInt32LE(12))
}

export const hasId = (data: Buffer): boolean => data.readUInt32LE(12) !== NO_ID
/** The body of a message that was not sealed. */
export const bodyOf = (message: Buffer): Buffer => message.subarray(message.length - message.readUInt32LE(20))
