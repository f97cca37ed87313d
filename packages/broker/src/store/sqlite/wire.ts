/**
 * What goes between the threads of the sqlite store. Copying an object from thread to thread costs more than storing it, so what is
 * frequent (publishes, acks, claims) is packed: numbers in one array, texts in another, each name once, messages one after the other as they
 * will lie in the file. All else goes as it is.
 */
import type { AckOp, PublishOp, PublishTarget, ReceivedOp, StoreOp, StoreResult } from '../operations.ts'
import type { ClaimAnswer, ClaimedMessage, ClaimRequest } from '../port.ts'
import { headOfData, messageBytesOf, textsOf, writeMessage } from './message-data.ts'
import type { Row } from './row.ts'

/** Texts, each once. */
class Names {
  readonly list: string[] = []
  readonly #places = new Map<string, number>()

  /** Where a text is; -1 for none. */
  place(text: string | undefined): number {
    if (text === undefined) return -1
    let place = this.#places.get(text)
    if (place === undefined) {
      place = this.add(text)
      this.#places.set(text, place)
    }
    return place
  }

  /** Adds one that comes once. */
  add(text: string): number {
    return this.list.push(text) - 1
  }
}

const REST = 0
const PUBLISH = 1
const ACK = 2
const RECEIVED = 3

/** Operations on their way to the engine. */
export interface PackedOps {
  readonly count: number
  readonly numbers: Float64Array<ArrayBuffer>
  readonly names: readonly string[]
  /** The messages of the publishes, one after the other. */
  readonly messages: Uint8Array<ArrayBuffer>
  /** What is not packed. */
  readonly rest: readonly StoreOp[]
}

/** A publish as the engine sees it. */
export interface PackedPublish extends Omit<PublishOp, 'id' | 'sender' | 'priority' | 'body' | 'meta'> {
  /** See message-data.ts; its times, flags and checksums are still to be set. */
  readonly message: Buffer
}

/** An operation as the engine sees it. */
export type EngineOp = Exclude<StoreOp, PublishOp> | PackedPublish

export function packOps(ops: readonly StoreOp[]): PackedOps {
  const names = new Names()
  const numbers: number[] = []
  const rest: StoreOp[] = []
  let bytes = 0
  for (const op of ops) {
    if (op.type === 'publish') bytes += packPublish(op, numbers, names)
    else if (op.type === 'ack' || op.type === 'received') {
      numbers.push(op.type === 'ack' ? ACK : RECEIVED, op.seq, names.place(op.queue), names.place(op.subscription))
      numbers.push(names.add(op.token), names.place(op.holder))
      if (op.type === 'received') numbers.push(op.leaseMs)
    } else numbers.push(REST, rest.push(op) - 1)
  }
  const messages = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const op of ops) if (op.type === 'publish') at = writeMessage(messages, at, op)
  return { count: ops.length, numbers: new Float64Array(numbers), names: names.list, messages, rest }
}

function packPublish(op: PublishOp, numbers: number[], names: Names): number {
  const bytes = messageBytesOf(op)
  numbers.push(PUBLISH, bytes, names.place(op.queue), names.place(op.topic), names.place(op.key))
  numbers.push(op.delayUntil ?? Number.NaN, op.expiresAt ?? Number.NaN, op.dedupeMs, op.dedupeMax, op.targets.length)
  for (const { subscription, maxLength, maxBytes, whenFull } of op.targets)
    numbers.push(names.place(subscription), maxLength, maxBytes, whenFull === 'refuse' ? 0 : 1)
  const { grant } = op
  if (grant === undefined) numbers.push(-1)
  else numbers.push(names.add(grant.token), names.place(grant.holder), grant.leaseMs)
  return bytes
}

/** Hands out the operations, one after the other. */
export function unpackOps({ count, numbers, names, messages, rest }: PackedOps, take: (op: EngineOp) => void): void {
  const bytes = Buffer.from(messages.buffer, messages.byteOffset, messages.length)
  let at = 0
  let place = 0
  const next = () => numbers[place++] as number
  const name = () => {
    const index = next()
    return (index < 0 ? undefined : names[index]) as string
  }
  const time = () => {
    const value = next()
    return Number.isNaN(value) ? undefined : value
  }
  for (let n = 0; n < count; n++) {
    const kind = next()
    if (kind === PUBLISH) {
      const message = bytes.subarray(at, at + next())
      at += message.length
      const queue = name()
      const topic = name()
      const key = name() as string | undefined
      const delayUntil = time()
      const expiresAt = time()
      const dedupeMs = next()
      const dedupeMax = next()
      const targets: PublishTarget[] = []
      for (let left = next(); left > 0; left--) {
        const subscription = name()
        const maxLength = next()
        const maxBytes = next()
        targets.push({ subscription, maxLength, maxBytes, whenFull: next() === 0 ? 'refuse' : 'dead-letter-oldest' })
      }
      const token = name() as string | undefined
      const grant = token === undefined ? undefined : { token, holder: name(), leaseMs: next() }
      const type = 'publish'
      take({ type, message, queue, topic, key, delayUntil, expiresAt, dedupeMs, dedupeMax, targets, grant })
    } else if (kind === REST) take(rest[next()] as EngineOp)
    else {
      const seq = next()
      const queue = name()
      const subscription = name()
      const token = name()
      const holder = name()
      if (kind === ACK) take({ type: 'ack', queue, subscription, seq, token, holder } satisfies AckOp)
      else {
        const leaseMs = next()
        take({ type: 'received', queue, subscription, seq, token, holder, leaseMs } satisfies ReceivedOp)
      }
    }
  }
}

const OK = 1
const OK_PUBLISH = 2
const OK_RECEIVED = 3
const DUPLICATE = 4
const NOT_FOUND = 5
const OKS = ['ack', 'nack', 'release', 'dead', 'ready', 'expire', 'replay', 'discard'] as const

/** Answers on their way back. */
export interface PackedResults {
  readonly numbers: Float64Array<ArrayBuffer>
  /** What is not packed. */
  readonly rest: readonly StoreResult[]
}

export function packResults(results: readonly StoreResult[]): PackedResults {
  const numbers: number[] = []
  const rest: StoreResult[] = []
  for (const result of results) {
    const plain = result.status === 'ok' ? (OKS as readonly string[]).indexOf(result.type) : -1
    if (plain !== -1) numbers.push(OK, plain)
    else if (result.status === 'ok' && result.type === 'publish' && result.dropped.length === 0) {
      numbers.push(OK_PUBLISH, result.seq, result.entries, result.leasedAt ?? Number.NaN)
    } else if (result.status === 'ok' && result.type === 'received') numbers.push(OK_RECEIVED, result.deadline)
    else if (result.status === 'duplicate') numbers.push(DUPLICATE, result.seq)
    else if (result.status === 'not-found') numbers.push(NOT_FOUND)
    else numbers.push(REST, rest.push(result) - 1)
  }
  return { numbers: new Float64Array(numbers), rest }
}

export function unpackResults({ numbers, rest }: PackedResults): StoreResult[] {
  const results: StoreResult[] = []
  let place = 0
  const next = () => numbers[place++] as number
  const time = () => {
    const value = next()
    return Number.isNaN(value) ? undefined : value
  }
  while (place < numbers.length) {
    switch (next()) {
      case OK:
        results.push({ status: 'ok', type: OKS[next()] as (typeof OKS)[number] })
        break
      case OK_PUBLISH:
        results.push({ status: 'ok', type: 'publish', seq: next(), entries: next(), dropped: [], leasedAt: time() })
        break
      case OK_RECEIVED:
        results.push({ status: 'ok', type: 'received', deadline: next() })
        break
      case DUPLICATE:
        results.push({ status: 'duplicate', seq: next() })
        break
      case NOT_FOUND:
        results.push({ status: 'not-found' })
        break
      default:
        results.push(rest[next()] as StoreResult)
    }
  }
  return results
}

/** A claim on its way to the engine. The n-th grant is of `holders[n]`, or of the first where there is one. */
export interface PackedClaim extends Omit<ClaimRequest, 'grants'> {
  readonly tokens: readonly string[]
  readonly holders: readonly string[]
}

export function packClaim({ queue, subscription, topics, grants, bytesMax, leaseMs, now }: ClaimRequest): PackedClaim {
  const holders = grants.map(({ holder }) => holder)
  const isOne = holders.every((holder) => holder === holders[0])
  return {
    queue,
    subscription,
    topics,
    bytesMax,
    leaseMs,
    now,
    tokens: grants.map(({ token }) => token),
    holders: isOne ? holders.slice(0, 1) : holders,
  }
}

/** A message that a claim leased, and its body where that lies apart. */
export interface LeasedMessage {
  readonly row: Row
  readonly topic: string
  readonly apart: Buffer | undefined
}

/** What a claim leased, on its way back. */
export interface PackedMessages {
  readonly numbers: Float64Array<ArrayBuffer>
  readonly names: readonly string[]
  readonly data: Uint8Array<ArrayBuffer>
}

/** What the engine answers to a claim. */
export type EngineClaimAnswer = Omit<Extract<ClaimAnswer, { status: 'ok' }>, 'messages'> & {
  readonly messages: PackedMessages
}

export function packMessages(messages: readonly LeasedMessage[]): PackedMessages {
  const names = new Names()
  const numbers: number[] = []
  let bytes = 0
  for (const { row, topic, apart } of messages) {
    const data = row.data as Buffer
    numbers.push(row.seq, row.expiresAt ?? Number.NaN, row.failures, row.deliveries)
    numbers.push(names.place(topic), names.place(row.key), data.length, apart?.length ?? -1)
    bytes += data.length + (apart?.length ?? 0)
  }
  const packed = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const { row, apart } of messages) {
    at += (row.data as Buffer).copy(packed, at)
    if (apart !== undefined) at += apart.copy(packed, at)
  }
  return { numbers: new Float64Array(numbers), names: names.list, data: packed }
}

export function unpackMessages(request: ClaimRequest, { numbers, names, data }: PackedMessages): ClaimedMessage[] {
  const messages: ClaimedMessage[] = []
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length)
  const { queue, subscription, grants } = request
  let at = 0
  const take = (length: number) => bytes.subarray(at, (at += length))
  for (let place = 0; place < numbers.length; place += 8) {
    const [seq, expiresAt, failures, deliveries, topic, key, length, apartLength] = numbers.subarray(place, place + 8)
    const message = take(Number(length))
    const apart = Number(apartLength) < 0 ? undefined : take(Number(apartLength))
    const { token, holder } = grants[place / 8] as ClaimRequest['grants'][number]
    const { id, sender, priority, publishedAt } = headOfData(message)
    const { meta, body } = textsOf(message, apart)
    messages.push({
      queue,
      subscription,
      seq: seq as number,
      token,
      holder,
      topic: names[topic as number] as string,
      key: key === -1 ? undefined : names[key as number],
      expiresAt: Number.isNaN(expiresAt) ? undefined : expiresAt,
      failures: failures as number,
      deliveries: deliveries as number,
      id,
      sender,
      priority,
      publishedAt,
      meta,
      body,
    })
  }
  return messages
}
