/**
 * What the core remembers, and who may write it.
 *
 *     Domain 1--n Queue 1--n Topic 1--n Subscription n--1 Consumer n--1 Session 1--n OpenRequest
 *                   |------------------- 1--n ------------------+ 1--n Lease
 *                   +--- 1--n Line (lines.ts)
 *
 * | record | owner (the only writer) | lives |
 * |---|---|---|
 * | Domain, Queue | queues.ts; `isDown`, `held` and `epoch` streams.ts | as long as the core |
 * | Topic, Subscription | subscriptions.ts | while it has a subscription |
 * | Consumer | subscriptions.ts; `leases` leases.ts; `handovers`, `waiting`, `isStalled` deliveries.ts; `reserved` dispatch.ts; `openRequests` requests.ts | while it has a subscription, a lease or an open request |
 * | Lease | leases.ts; `isAwaited` absences.ts | until an operation that ends it was sent |
 * | Absence | absences.ts | while a worker is awaited |
 * | Session | sessions.ts | while it has a consumer, an open request or an announced presence |
 * | OpenRequest | requests.ts | until it is answered |
 */
import {
  findChild,
  isElement,
  type ItemCodec,
  type ItemContent,
  LOAD_ELIGIBLE_MAX,
  NS_QUEUE,
  NS_TOPIC,
  type WrittenItem,
  type XmlElement,
  XML_ITEMS,
  type XmlNode,
  YoungMap,
  YoungSet,
} from '@xmq/protocol'
import type { Access } from './access.ts'
import type { Standing } from './backoff.ts'
import { createDeadline, type Deadline } from './deadlines.ts'
import { markOf } from './lease-token.ts'
import type { HeapMember } from './heap.ts'
import type { Line } from './lines.ts'
import type { TopicMatcher } from './patterns.ts'
import type { QueueRules } from './port.ts'
import type { Seat } from './seats.ts'
import { type TurnRank, Turns } from './turns.ts'

/** A domain that one component stream serves. */
export interface Domain {
  readonly name: string
  readonly queues: Queue[]
  /** The stream is known to be down: nothing is sent from this domain. */
  isDown: boolean
  /** Names this life of the broker and this stream; undefined before the first. */
  epoch: string | undefined
  /** Answers to requests that became due while the stream was down; written when it is up again. */
  held: XmlElement[]
}

/** A queue with everything that is subscribed to it. */
export interface Queue {
  readonly address: string
  readonly domain: Domain
  readonly rules: QueueRules
  readonly publish: Access
  readonly consume: Access
  readonly admins: Access
  /** By name: those that are meant exactly. */
  readonly topics: Map<string, Topic>
  /** By pattern: those of reliable subscriptions. */
  readonly patterns: Map<string, Topic>
  /** By the store's name of it; `''`, the queue's own line, is there in an `any` queue. */
  readonly lines: Map<string, Line>
  /** What the store holds of this queue is known: nothing is published to it before. */
  isLoaded: boolean
  /** How many of them are reliable. */
  reliableConsumers: number
  /** By full JID. */
  readonly consumers: Map<string, Consumer>
  /** How many subscriptions each bare JID has here. */
  readonly subscriptionsByBare: Map<string, number>
}

/** A topic, or a pattern of topics, that somebody is subscribed to. */
export class Topic {
  readonly queue: Queue
  readonly name: string
  /** Of a pattern: which topics it means. */
  readonly matches: TopicMatcher | undefined
  readonly turns: Turns = new Turns()
  /** All subscriptions, those above load 90 included. */
  subscriptions = 0

  constructor(queue: Queue, name: string, matches: TopicMatcher | undefined) {
    this.queue = queue
    this.name = name
    this.matches = matches
  }
}

/** (queue, topic, full JID). */
export class Subscription implements HeapMember {
  readonly consumer: Consumer
  readonly topic: Topic
  /** The line of the durable subscription that it joined, in an `all` queue. */
  readonly line: Line | undefined
  readonly expiry: Deadline = createDeadline({ kind: 'expiry', subscription: this })
  /** A reliable consumer's subscriptions all have its last one. */
  load: number
  /** When it had its last turn; `turn`, `rank` and `slot` belong to turns.ts. */
  turn = 0
  rank: TurnRank = 'aside'
  slot = -1

  constructor(consumer: Consumer, topic: Topic, load: number, line: Line | undefined) {
    this.consumer = consumer
    this.topic = topic
    this.load = load
    this.line = line
  }
}

/** (queue, full JID). */
export class Consumer {
  readonly queue: Queue
  readonly session: Session
  /** By topic. */
  readonly subscriptions: Map<string, Subscription> = new Map()
  /** The last `sub` decides. */
  kind: ConsumerKind = 'plain'
  /** Reliable: as it offered last. Plain: the queue's window for such. */
  credit: number
  /** Reliable: its last one. Plain ones have one for each subscription. */
  load = 0
  /** How its deliveries are written. */
  codec: ItemCodec = XML_ITEMS
  /** Where it waits for messages. */
  readonly seats: Map<Line, Seat> = new Map()
  /** Messages that it holds. */
  readonly leases: YoungSet<Lease> = new YoungSet()
  /** Leased for it, and not sent yet: it has too many deliver stanzas to answer. */
  waiting: Lease[] = []
  /** Deliver stanzas that it has not answered, by their id. */
  readonly handovers: YoungMap<string, Handover> = new YoungMap()
  /** A lease ran out before it was received: it gets nothing until it gives a sign of life. */
  isStalled = false
  /** Leases that are being made for it. */
  reserved = 0
  openRequests = 0
  /** What is published to its ephemeral subscriptions, in an `all` queue. */
  ephemeral: EphemeralBuffer | undefined

  constructor(queue: Queue, session: Session, credit: number) {
    this.queue = queue
    this.session = session
    this.credit = credit
  }

  /** How much of its credit is used. */
  get inFlight(): number {
    return this.leases.size + this.reserved + this.openRequests
  }

  /** Whether it has all that it takes, or does not answer. */
  get isFull(): boolean {
    return this.isStalled || this.inFlight >= this.credit
  }

  /** Whether it may get one message more. */
  get hasRoom(): boolean {
    if (this.isFull || this.session.isDoubted) return false
    return this.kind === 'plain' || this.load <= LOAD_ELIGIBLE_MAX
  }
}

/** plain: speaks only mod_xmq's protocol. */
export type ConsumerKind = 'plain' | 'reliable'

/** One hand-over of a message to one consumer. */
export interface Lease {
  readonly token: string
  readonly queue: Queue
  /** The store's name of the line; `''` for the queue's own. */
  readonly lineId: string
  /** The durable subscription's name; `''` for the queue's own line. */
  readonly name: string
  readonly seq: number
  /** Bare JID. */
  readonly holder: string
  /** Unknown of a lease from before a restart, until its entry is looked up. */
  standing: Standing | undefined
  /** Of one that is not stored: an ephemeral subscriber's. */
  readonly ephemeral: EphemeralItem | undefined
  /** Who has it; undefined when its consumer is gone. */
  consumer: Consumer | undefined
  isReceived: boolean
  /** Its session was found gone after a stream broke: its holder may come back and name it. */
  isAwaited: boolean
  /** The worker's last sign of life, if the store did not answer to it: it takes the lease to end earlier than it does. */
  unheard: 'received' | 'extend' | undefined
  /** When it was received or extended last: a lease that the store listed as over before that is not. */
  touchedAt: number
  /** What to send; dropped when it was sent. */
  item: WrittenItem | undefined
  /** The epoch of the stream over which it was sent. */
  sentOver: string | undefined
}

/** What was sent to a session that was found gone after the stream of its queue broke. */
export class Absence {
  readonly queue: Queue
  readonly leases: readonly Lease[]
  readonly over: Deadline = createDeadline({ kind: 'absence-over', absence: this })

  constructor(queue: Queue, leases: readonly Lease[]) {
    this.queue = queue
    this.leases = leases
  }
}

/** A deliver stanza that was sent, or messages and a ping after them. */
export interface Handover {
  readonly isPing: boolean
  readonly leases: readonly Lease[]
  /** Of one with messages of ephemeral subscriptions, whose leases have no time: when its answer is not waited for any more. */
  readonly overdue: Deadline | undefined
}

/** A message for an ephemeral subscriber. */
export interface EphemeralItem {
  readonly seq: number
  readonly topic: string
  readonly id: string | undefined
  readonly from: string
  readonly at: number
  readonly content: ItemContent
  /** Which delivery this is, and how many failed before. */
  readonly attempt: number
  readonly failures: number
}

/** What waits for an ephemeral subscriber. */
export interface EphemeralBuffer {
  readonly items: EphemeralItem[]
  bytes: number
}

/**
 * Why a session is pinged:
 * - `subscribed`: its first subscription; the client is surely alive, so the answer tells whether it can answer pings
 * - `interval`: it sends no presence and was silent for a while
 * - `link-up`: its domain's stream was down
 * - `unavailable`: the server said that it ended
 * - `bounce`: something sent to it came back
 */
export type PingReason = 'subscribed' | 'interval' | 'link-up' | 'unavailable' | 'bounce'

/** A ping that was sent and not answered yet. */
export interface OpenPing {
  readonly id: string
  readonly queue: Queue
  reason: PingReason
  /** A doubt came up after this ping was sent: being answered does not settle it. */
  isStale: boolean
  /** The one extension, granted when the broker itself was late, was used. */
  isExtended: boolean
}

/** A full JID that something here depends on. */
export class Session {
  readonly jid: string
  readonly bare: string
  /** What the tokens of its leases end with. */
  readonly mark: string
  readonly consumers: Map<Queue, Consumer> = new Map()
  readonly requests: Set<OpenRequest> = new Set()
  /** Domains that it sent directed presence to: its server tells them when it ends. */
  readonly announced: Set<Domain> = new Set()
  readonly pingDue: Deadline = createDeadline({ kind: 'ping-due', session: this })
  readonly pingTimeout: Deadline = createDeadline({ kind: 'ping-timeout', session: this })
  /** Why the ping that `pingDue` waits for will be sent. */
  dueReason: PingReason = 'interval'
  ping: OpenPing | undefined
  /** Whether this client answers pings; `undefined` until it was tried. */
  answersPings: boolean | undefined
  /** Something says that it may have ended. */
  isDoubted = false
  /** A stream that it depends on broke, and it gave no sign of life since. */
  isUnseen = false
  /** The ttl of its last `sub`. */
  ttlSeconds = 0

  constructor(jid: string, bare: string) {
    this.jid = jid
    this.bare = bare
    this.mark = markOf(jid)
  }
}

/** A request that was accepted and not answered yet. */
export class OpenRequest {
  readonly queue: Queue
  readonly topic: string
  /** The stanza as the requester sent it: its `from`, `to` and `id` address the answer. */
  readonly original: XmlElement
  /** What the worker gets. */
  readonly children: readonly XmlNode[]
  readonly startedAt: number
  readonly timeout: Deadline = createDeadline({ kind: 'request-timeout', request: this })
  /** Full JIDs of the workers that it went to. */
  readonly tried: Set<string> = new Set()
  /** The id of the IQ that the worker has. */
  hopId = ''
  worker: Session | undefined
  /** The worker as a consumer of the queue: the request counts one credit of it. */
  consumer: Consumer | undefined
  /** The requester wants news. */
  readonly wantsProgress: boolean
  /** The number of its last news, and how many were relayed. */
  progressAt = 0
  progressCount = 0

  constructor(queue: Queue, topic: string, original: XmlElement, children: readonly XmlNode[], startedAt: number) {
    this.queue = queue
    this.topic = topic
    this.original = original
    this.children = children
    this.wantsProgress = wantsProgress(children)
    this.startedAt = startedAt
  }
}

function wantsProgress(children: readonly XmlNode[]): boolean {
  for (const child of children) {
    if (!isElement(child, 'xmq', NS_TOPIC)) continue
    const call = findChild(child, 'call', NS_QUEUE)
    return call?.attrs.get('progress') === 'true' || call?.attrs.get('progress') === '1'
  }
  return false
}
