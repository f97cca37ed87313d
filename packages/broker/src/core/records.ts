/**
 * What the core remembers, and who may write it.
 *
 *     Domain 1--n Queue 1--n Topic 1--n Subscription n--1 Consumer n--1 Session 1--n OpenRequest
 *                   +------------------- 1--n ------------------+
 *
 * | record | owner (the only writer) | lives |
 * |---|---|---|
 * | Domain, Queue | queues.ts; `isDown` and `held` core.ts | as long as the core |
 * | Topic, Subscription, Consumer | subscriptions.ts | while it has a subscription |
 * | Session | sessions.ts | while it has a consumer, an open request or an announced presence |
 * | OpenRequest | requests.ts | until it is answered |
 */
import type { XmlElement, XmlNode } from '@xmq/protocol'
import type { Access } from './access.ts'
import { createDeadline, type Deadline } from './deadlines.ts'
import type { HeapMember } from './heap.ts'
import type { QueueRules } from './port.ts'
import { type TurnRank, Turns } from './turns.ts'

/** A domain that one component stream serves. */
export interface Domain {
  readonly name: string
  readonly queues: Queue[]
  /** The stream is known to be down: nothing is sent from this domain. */
  isDown: boolean
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
  readonly topics: Map<string, Topic>
  /** By full JID. */
  readonly consumers: Map<string, Consumer>
  /** How many subscriptions each bare JID has here. */
  readonly subscriptionsByBare: Map<string, number>
}

/** A topic that somebody is subscribed to. */
export class Topic {
  readonly queue: Queue
  readonly name: string
  readonly turns: Turns = new Turns()
  /** All subscriptions, those above load 90 included. */
  subscriptions = 0

  constructor(queue: Queue, name: string) {
    this.queue = queue
    this.name = name
  }
}

/** (queue, topic, full JID). */
export class Subscription implements HeapMember {
  readonly consumer: Consumer
  readonly topic: Topic
  readonly expiry: Deadline = createDeadline({ kind: 'expiry', subscription: this })
  load: number
  /** When it had its last turn; `turn`, `rank` and `slot` belong to turns.ts. */
  turn = 0
  rank: TurnRank = 'aside'
  slot = -1

  constructor(consumer: Consumer, topic: Topic, load: number) {
    this.consumer = consumer
    this.topic = topic
    this.load = load
  }
}

/** (queue, full JID). */
export interface Consumer {
  readonly queue: Queue
  readonly session: Session
  /** By topic. Never empty. */
  readonly subscriptions: Map<string, Subscription>
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
  /** The ttl of its last `sub`. */
  ttlSeconds = 0

  constructor(jid: string, bare: string) {
    this.jid = jid
    this.bare = bare
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

  constructor(queue: Queue, topic: string, original: XmlElement, children: readonly XmlNode[], startedAt: number) {
    this.queue = queue
    this.topic = topic
    this.original = original
    this.children = children
    this.startedAt = startedAt
  }
}
