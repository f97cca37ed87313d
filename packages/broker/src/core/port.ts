/**
 * The seam of the core: everything that goes in and everything that comes out. The runtime turns the world into inputs and
 * effects into the world; the core itself knows no clock, no randomness and no I/O.
 */
import type { XmlElement, XmqError, XmqErrorCode } from '@xmq/protocol'
import type {
  BrowseAnswer,
  BrowseRequest,
  ClaimableTopic,
  ClaimAnswer,
  ClaimRequest,
  DeadReason,
  DueAnswer,
  Durability,
  LineStats,
  StoreOp,
  StoreResult,
  SubscriptionsAnswer,
  TopicsAnswer,
  TopicsRequest,
} from '../store/port.ts'
import type { Load, OverloadRules } from './overload-rules.ts'
import type { ReliableRules } from './reliable-rules.ts'

export * from './overload-rules.ts'
export * from './reliable-rules.ts'

/** How a queue hands out what is published: to one consumer, or to every one. */
export type QueueType = 'any' | 'all'

/**
 * Who may do something with a queue: bare JIDs (`shop@localhost`) or domains (`localhost`), lower-cased. A sender matches by
 * its bare JID or by its domain.
 */
export type AccessList = readonly string[]

/** The rules of one queue, validated and frozen. */
export interface QueueRules {
  /** A domain (`queue1.localhost`) or a node of one (`orders@xmq.localhost`), lower-cased. */
  readonly address: string
  readonly type: QueueType
  readonly publish: AccessList
  readonly consume: AccessList
  readonly admins: AccessList
  /** Deliver with the producer's own JID in `from`, as mod_xmq does. Needs the server's permission. */
  readonly preserveFrom: boolean
  /** Milliseconds after which an open request is answered with `timeout`. */
  readonly requestTimeoutMs: number
  /** Longest ttl of a subscription, in seconds; more is refused. */
  readonly ttlSecondsMax: number
  /** Most bytes of a message's or request's content, counted as `wireLength` counts. */
  readonly payloadBytesMax: number
  /** Most distinct topics with subscriptions. */
  readonly topicsMax: number
  /** Most subscriptions of one bare JID. */
  readonly subscriptionsPerJidMax: number
  /** How its messages are kept, leased, retried and given up. */
  readonly reliable: ReliableRules
}

/** The rules of the whole broker, validated and frozen. */
export interface CoreRules {
  readonly queues: readonly QueueRules[]
  /** The domains that the broker's components serve; each queue's address is in one of them. */
  readonly domains: readonly string[]
  /** Most subscriptions in all. */
  readonly subscriptionsMax: number
  /** Most requests open at once in all. */
  readonly openRequestsMax: number
  /** Most requests of one bare JID open at once: nobody uses up what others need. */
  readonly openRequestsPerJidMax: number
  /** Milliseconds that a consumer has to answer a ping before its session counts as ended. */
  readonly pingTimeoutMs: number
  /** Milliseconds between two pings of a consumer that sent no presence. */
  readonly pingIntervalMs: number
  /** Software name and version for XEP-0092 and disco. */
  readonly software: { readonly name: string; readonly version: string }
  /** What a confirm of this store is worth. */
  readonly durability: Durability
  /** Most bytes of a message's body and meta that the store takes. */
  readonly bodyBytesMax: number
  /** Most bytes of messages that are on their way to the store; above it publishes are refused with `overloaded`. */
  readonly storingBytesMax: number
  /** When new work is refused. */
  readonly overload: OverloadRules
}

/** The randomness that the core is given: a CSPRNG in the runtime, a seeded one in simulations. */
export interface Entropy {
  /** 128 random bits as text that fits an XML id. */
  id(): string
  /** A number in [0, 1). */
  unit(): number
}

/** What can happen to the core. */
export type Input =
  /** A stanza from a component stream: `from` and `to` set, content namespace normalised to `jabber:client`. */
  | { readonly type: 'stanza'; readonly stanza: XmlElement }
  /** A stanza of which only the head was read: it broke a limit, or was refused by `Core.refusal` (`XmlStreamReader` `onSkipped`). */
  | { readonly type: 'skipped'; readonly head: XmlElement; readonly error: XmqError }
  /** What the load is now. Without a word of it there is none. */
  | { readonly type: 'load'; readonly load: Load }
  /** The stream of a domain is up (again): whoever subscribed before is verified by a ping. */
  | { readonly type: 'link-up'; readonly domain: string }
  /** The stream of a domain ended: nothing can be sent from that domain, nothing is known of its consumers. */
  | { readonly type: 'link-down'; readonly domain: string }
  /** The store is open. The first input; what it holds is looked through before anything is served from it. */
  | { readonly type: 'start' }
  /** The answer to the effect `apply` with that call, as the other answers below to theirs. */
  | { readonly type: 'applied'; readonly call: number; readonly results: readonly StoreResult[] }
  | { readonly type: 'claimed'; readonly call: number; readonly answer: ClaimAnswer }
  | { readonly type: 'due'; readonly call: number; readonly answer: DueAnswer }
  | { readonly type: 'browsed'; readonly call: number; readonly answer: BrowseAnswer }
  | { readonly type: 'topics'; readonly call: number; readonly answer: TopicsAnswer }
  | { readonly type: 'subscriptions'; readonly call: number; readonly answer: SubscriptionsAnswer }
  | { readonly type: 'counts'; readonly call: number; readonly lines: readonly LineStats[] }
  /** What the store's `watch` tells. */
  | { readonly type: 'claimable'; readonly topics: readonly ClaimableTopic[] }
  /** The broker is about to stop: whoever waits for an answer gets one now. */
  | { readonly type: 'shutdown' }
  /** `deadline` has come. */
  | { readonly type: 'tick' }

/**
 * What the core wants done, in this order. The store's answer to each call comes back as an input with its number: a message is
 * confirmed, settled or delivered only then, so no edge can do it early.
 */
export type Effect =
  /** Write a stanza; `from` and `to` are set, and `from` is in one of the broker's domains (or the producer's own: `preserveFrom`). */
  | {
      readonly type: 'send'
      readonly domain: string
      readonly stanza: XmlElement
      /** One of many copies of a message: it may be put off while the server does not drain what is sent, or dropped. */
      readonly isFanOut?: true
    }
  /** `Store.apply`, at the core's `now`; answered by `applied`. */
  | { readonly type: 'apply'; readonly call: number; readonly ops: readonly StoreOp[] }
  /** `Store.claim`; answered by `claimed`. It may be put off while the server does not drain what is sent. */
  | { readonly type: 'claim'; readonly call: number; readonly domain: string; readonly request: ClaimRequest }
  /** `Store.due`, at the core's `now`; answered by `due`. */
  | { readonly type: 'due'; readonly call: number; readonly max: number }
  /** `Store.browse`; answered by `browsed`. */
  | { readonly type: 'browse'; readonly call: number; readonly request: BrowseRequest }
  /** `Store.topics`; answered by `topics`. */
  | { readonly type: 'topics'; readonly call: number; readonly request: TopicsRequest }
  /** `Store.subscriptions`; answered by `subscriptions`. */
  | { readonly type: 'subscriptions'; readonly call: number; readonly queue: string }
  /** The lines of a queue in `Store.stats`; answered by `counts`. */
  | { readonly type: 'count'; readonly call: number; readonly queue: string }
  /** Something that logs, metrics and tests want to know. */
  | { readonly type: 'event'; readonly event: CoreEvent }

/** Why a subscription ended. */
export type SubscriptionEnd =
  /** `del` */
  | 'deleted'
  /** its ttl ran out */
  | 'expired'
  /** its session sent `unavailable`, or did not answer a ping */
  | 'session-ended'
  /** a delivery to it came back */
  | 'bounced'

/** What ended a lease: the worker's word, or what became of the worker. */
export type LeaseEnd =
  | 'acked'
  | 'nacked'
  | 'released'
  | 'rejected'
  | 'extended'
  /** Its time was over. */
  | 'lease-over'
  | 'session-ended'
  | 'bounced'
  /** It was of an earlier life of the broker. */
  | 'found'

/** What the core tells about itself. Never a payload. */
export type CoreEvent =
  | {
      readonly name: 'subscribed'
      readonly queue: string
      readonly topic: string
      readonly consumer: string
      readonly ttlSeconds: number
      readonly load: number
      /** False when it replaced ttl and load of a subscription that was there. */
      readonly isNew: boolean
    }
  | {
      readonly name: 'unsubscribed'
      readonly queue: string
      readonly topic: string
      readonly consumer: string
      readonly reason: SubscriptionEnd
    }
  /** A message was passed on at once, without the store; `recipients` is how many consumers it went to. */
  | { readonly name: 'published'; readonly queue: string; readonly topic: string; readonly recipients: number }
  /** A request went to a worker (again, when `attempt` > 1). */
  | { readonly name: 'requested'; readonly queue: string; readonly topic: string; readonly attempt: number }
  /** A request was answered: by the worker, or by the broker with an error code. */
  | {
      readonly name: 'answered'
      readonly queue: string
      readonly topic: string
      /** `result`, `error` (the worker's own), or the broker's code. */
      readonly outcome: 'result' | 'error' | XmqErrorCode
      readonly elapsedMs: number
    }
  /** A stanza was refused with an error to its sender. */
  | {
      readonly name: 'refused'
      readonly queue: string
      readonly sender: string
      readonly code: XmqErrorCode
      readonly text: string
    }
  /** A delivery came back from the server or the consumer. */
  | { readonly name: 'bounced'; readonly queue: string; readonly consumer: string; readonly condition: string }
  /** Messages were stored, `duplicates` of them before; all but plain ones are confirmed. */
  | { readonly name: 'stored'; readonly queue: string; readonly count: number; readonly duplicates: number }
  /** Leased messages went to a consumer; `redelivered` of them not for the first time. */
  | {
      readonly name: 'delivered'
      readonly queue: string
      readonly consumer: string
      readonly count: number
      readonly redelivered: number
    }
  /** Leases ended, or went on (`extended`), for the reason in `outcome`. */
  | { readonly name: 'settled'; readonly queue: string; readonly outcome: LeaseEnd; readonly count: number }
  /** A message was given up and is kept as a dead letter. */
  | {
      readonly name: 'dead-lettered'
      readonly queue: string
      /** The store's name of the line; `''` for the queue's own. */
      readonly line: string
      readonly seq: number
      readonly reason: DeadReason
    }
  /**
   * Messages had to give way: dead letters beyond their bounds, what an ephemeral consumer or (`fan-out`) a server had no room for,
   * the oldest of a full line (`overflow`: they are dead letters now).
   */
  | {
      readonly name: 'dropped'
      readonly queue: string
      readonly what: 'dead-letter' | 'ephemeral' | 'fan-out' | 'overflow'
      readonly count: number
    }
  /** The store stopped answering, or answers again. */
  | { readonly name: 'store'; readonly queue: string; readonly isAvailable: boolean; readonly text: string }
  /** The load is so high that new work is refused, or no longer. */
  | { readonly name: 'overload'; readonly queue: string; readonly isShedding: boolean; readonly text: string }
  /** Something arrived that no rule lets act: an answer from a stranger, a forged presence. Dropped. */
  | { readonly name: 'ignored'; readonly queue: string; readonly sender: string; readonly what: string }

/** Gauges of the core. */
export interface CoreStats {
  readonly subscriptions: number
  readonly consumers: number
  readonly topics: number
  readonly openRequests: number
  readonly pings: number
  /** Messages that consumers hold. */
  readonly leases: number
  /** Leases of an earlier life whose workers have not been heard of. */
  readonly foundLeases: number
  /** Acks and rejects that the store has not heard, since it did not answer. */
  readonly unheardSettlements: number
  /** Topics (of named subscriptions: lines) in which something waits to be claimed. */
  readonly claimableTopics: number
  /** Bytes of messages on their way to the store. */
  readonly storingBytes: number
  /** Full JIDs that something depends on. */
  readonly sessions: number
  /** Deliver stanzas, and pings after messages, that consumers have not answered. */
  readonly unansweredDeliveries: number
  /** Messages that are leased for consumers and wait for these answers. */
  readonly waitingDeliveries: number
  /** Messages that wait for ephemeral subscribers. */
  readonly ephemeralMessages: number
  /** Bytes of them; what several wait for counts for each. */
  readonly ephemeralBytes: number
  /** Durable subscriptions. */
  readonly namedSubscriptions: number
  /** Reliable consumers that are called after a restart. */
  readonly rememberedConsumers: number
  /** Answers to requests that wait for a stream to be up. */
  readonly heldAnswers: number
}

/** The core of a broker. Its only owner is the runtime. */
export interface Core {
  /**
   * Handles one input. Synchronous and total: bad input yields an error stanza; a throw is a bug.
   *
   * @param now milliseconds that never run backwards
   */
  handle(input: Input, now: number, entropy: Entropy): Effect[]
  /** When the next tick is due, in the time of `now`; `undefined` when nothing waits. */
  readonly deadline: number | undefined
  /** With what new work is refused at its head (`bringsWork`); undefined while it is taken. What comes whole all the same is refused too. */
  readonly refusal: XmqError | undefined
  /** The load is above half of what it may be: new work is best handed in after all else that has come. */
  readonly isPressed: boolean
  /** The store was not heard of each queue yet: what is published now is refused. */
  readonly isLoading: boolean
  stats(): CoreStats
}
