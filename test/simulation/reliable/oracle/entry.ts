/** What the store has of a message, as the oracle's parts name it to each other. */
import type { QueueType, ReliableRules } from '../../../../packages/broker/src/core/port.ts'
import type { PublishOp } from '../../../../packages/broker/src/store/port.ts'
import type { SentItem } from '../items.ts'

/** What a message goes out for at most (docs/protocol-reliable.md section 12), beside what restarts cost. */
export const DELIVERIES_MAX = 20

/** A message that is or was in the store. */
export interface Stored {
  readonly seq: number
  readonly sent: SentItem
  readonly storedAt: number
  /** Its place in each line that it went to. */
  readonly entries: Entry[]
}

/** A message's place in one line. */
export interface Entry {
  readonly seq: number
  readonly sent: SentItem
  readonly line: string
  /** The core has heard that its line is ended. */
  readonly isOver: () => boolean
  expiresAt: number | undefined
  /** Of its key: what was stored earlier goes first, and what is replayed last. */
  order: number
  state: 'waiting' | 'leased' | 'acked' | 'dead' | 'purged' | 'forgotten'
  /** The last one, and the bare JID that has or had it. */
  token: string | undefined
  holder: string | undefined
  failures: number
  deliveries: number
  /** The last lease ended with a failure, which a late extend takes back. */
  hasCountedFailure: boolean
}

/** A lease as the store makes it. */
export interface Made {
  readonly token: string
  readonly holder: string
  readonly deliveries: number
}

/** What the parts of the oracle are told of the run. */
export interface Knowledge {
  /** Of the queue. */
  readonly type: QueueType
  readonly reliable: ReliableRules
  /** Counts a sight. */
  readonly note: (what: string) => void
}

/** Names what a producer sent. @param sender bare JID */
export function nameOf(sender: string, id: string): string {
  return `${sender}#${id}`
}

/** The word in a stored body that no other message has. */
export function wordIn(body: string): string {
  return /[>](i\d+)</.exec(body)?.[1] ?? ''
}

/** Names what is stored: a plain message, which has no id that counts, by its content. */
export function nameOfPublish({ sender, id, body }: PublishOp): string {
  return nameOf(sender, id ?? wordIn(body))
}
