/**
 * The seam of the session: everything that goes in and everything that comes out. `runtime.ts` turns the world into inputs
 * and effects into the world; the session itself knows no clock, no randomness and no I/O.
 */
import type {
  ConfirmDurability,
  Headers,
  ItemCodec,
  Payload,
  RejectReason,
  RequestForm,
  WorkerInfo,
  WrittenItem,
  XmlElement,
  XmqError,
} from '@xmq/protocol'

/** How the queue is spoken to. docs/protocol.md "Detection". */
export type Mode =
  /** A broker that speaks `xmq:queue:1`: confirms, leases, dead letters. docs/protocol-reliable.md */
  | 'reliable'
  /** An XMQ broker, or anything that answers mod_xmq's elements as docs/protocol.md says. */
  | 'plain'
  /** The original module: it never answers a `sub`, and deliveries and answers come from foreign addresses. */
  | 'mod_xmq'

/** The rules of one session, validated and frozen. All times in milliseconds. */
export interface SessionRules {
  /** The queue's address, lower-cased, without a resource. */
  readonly queue: string
  /** The domain of the own account: its server. */
  readonly domain: string
  readonly mode: 'auto' | Mode
  /** Lifetime of a subscription, in whole seconds; renewed after a third of it. */
  readonly ttlSeconds: number
  /** First and longest pause between two connection attempts; each is drawn from [0, pause] (full jitter). */
  readonly backoffMs: { readonly base: number; readonly max: number }
  /** How long the queue may take to answer a `sub`, a `del` or a disco#info. */
  readonly answerTimeoutMs: number
  /** After this silence the server is pinged; without a sign of life in `answerTimeoutMs` the connection is given up. */
  readonly silenceMs: number
  /** How long `leave` waits for the queue's answers. */
  readonly leaveTimeoutMs: number
  /** Most publishes, and most requests, that wait, are being written or are open. */
  readonly pendingMax: number
  /** Most bytes of the stanzas in them. */
  readonly pendingBytesMax: number
  /** How long a publish may wait for a plain queue, unless it says itself. */
  readonly publishTimeoutMs: number
  /** How long a reliable queue knows an id again: a publish that is not confirmed by then fails as `unconfirmed`. */
  readonly dedupeWindowMs: number
  /** Most unsettled deliveries and open requests of a reliable worker, 0 for a producer. */
  readonly credit: number
  /** What a reliable worker tells of itself, for operators. */
  readonly workerInfo: WorkerInfo | undefined
}

/** A message on its way to a queue, in the form that the queue's mode asks for. */
export interface OutgoingMessage {
  readonly id: string
  readonly topic: string
  /** Messages of one topic and key are never published side by side. */
  readonly key: string | undefined
  /** About its bytes on the wire. */
  readonly bytes: number
  /** For a plain queue. @throws XmqError `unsupported` when it has options that only a reliable queue knows */
  stanza(): XmlElement
  /** For a reliable queue. @throws XmqError `too-large`, `bad-request`, `illegal-character` */
  item(): WrittenItem
}

/** A reliable queue's word that a message is stored. */
export interface Confirm {
  readonly seq: number
  readonly durability: ConfirmDurability
  readonly duplicate: boolean
  readonly subscriptions: number | undefined
}

/** What became of a leased message, in the worker's words. */
export type Outcome =
  | { readonly kind: 'ack' }
  | { readonly kind: 'nack'; readonly delayMs?: number | undefined; readonly why: string }
  | { readonly kind: 'release' }
  | { readonly kind: 'reject'; readonly reason: RejectReason; readonly why: string }

/** The randomness that the session is given: a CSPRNG in the runtime, a seeded one in simulations. */
export interface Entropy {
  /** 128 random bits as text that fits an XML id. */
  id(): string
  /** A number in [0, 1). */
  unit(): number
}

/** What can happen to a session. */
export type Input =
  /** Connect, and stay connected. */
  | { readonly type: 'start' }
  /** The stream is up: authenticated, and bound to this full JID. */
  | { readonly type: 'up'; readonly jid: string }
  /** The connection, or the attempt at one, ended. `fatal`: another attempt cannot go better. */
  | { readonly type: 'down'; readonly reason: XmqError; readonly fatal: boolean }
  | { readonly type: 'stanza'; readonly stanza: XmlElement }
  /** A stanza that broke a limit of the reader: its start tag. */
  | { readonly type: 'skipped'; readonly head: XmlElement; readonly error: XmqError }
  /** A message to the queue, already checked; `ref` names it towards the caller. */
  | {
      readonly type: 'publish'
      readonly ref: number
      readonly message: OutgoingMessage
      /** `undefined`: as long as the mode has it. */
      readonly timeoutMs: number | undefined
    }
  /** The turn of the event loop is over, after the effect `turn`: what came together may leave together. */
  | { readonly type: 'turn' }
  /** The socket took a publish over, or did not. */
  | { readonly type: 'written'; readonly ref: number; readonly error: XmqError | undefined }
  /** A request to the queue, already checked: an IQ with a random id. */
  | {
      readonly type: 'request'
      readonly ref: number
      readonly topic: string
      readonly bytes: number
      readonly stanza: XmlElement
      /** `<call/>`, added where the queue is reliable; with headers it must be. */
      readonly call?: XmlElement | undefined
      readonly timeoutMs: number
    }
  /** The caller gives up on a publish or request. */
  | { readonly type: 'cancel'; readonly ref: number; readonly error: XmqError }
  /** A topic; towards a reliable queue also a pattern, and the name of a durable subscription. */
  | { readonly type: 'subscribe'; readonly topic: string; readonly name?: string | undefined }
  /** The worker's load, 0 to 100. Reported with each renewal, and at once on a crossing. */
  | { readonly type: 'load'; readonly load: number }
  /** A handler is done with a request: its answer, an IQ result or error. */
  | { readonly type: 'answer'; readonly delivery: Delivery; readonly stanza: XmlElement }
  /** A handler tells how far it is with a request: its n-th news. */
  | {
      readonly type: 'progress'
      readonly delivery: Delivery
      readonly n: number
      readonly payload: readonly XmlElement[]
    }
  /** A leased message is done with, by its key. */
  | { readonly type: 'settle'; readonly key: string; readonly outcome: Outcome }
  /** Report load 100 and leave every topic; `left` follows in the end. */
  | { readonly type: 'leave' }
  /** Fail what is pending, say goodbye, close the connection, stay closed. */
  | { readonly type: 'close'; readonly error: XmqError | undefined }
  /** `deadline` has come. */
  | { readonly type: 'tick' }

/** What the session wants done, in this order. */
export type Effect =
  /** Open a connection; `up` or `down` follows. */
  | { readonly type: 'open' }
  /** Give the connection up, at once. The session counts it as ended already. */
  | { readonly type: 'drop' }
  /** Close the connection in order. Nothing follows. */
  | { readonly type: 'close' }
  /** Write a stanza. With a `ref`, a `written` input follows. */
  | { readonly type: 'send'; readonly stanza: XmlElement; readonly ref?: number }
  /** Hand in `turn` when this turn of the event loop is over. */
  | { readonly type: 'turn' }
  /** A publish was written or confirmed, or a request answered (`answer` is the IQ result). */
  | {
      readonly type: 'settled'
      readonly ref: number
      readonly answer: XmlElement | undefined
      readonly confirm?: Confirm
    }
  | { readonly type: 'failed'; readonly ref: number; readonly error: XmqError }
  /** A message or request for a handler. */
  | { readonly type: 'deliver'; readonly delivery: Delivery }
  /** News of an open request. */
  | { readonly type: 'progress'; readonly ref: number; readonly payload: Payload }
  /** Nobody waits for the answer to a request, by its hop's id: its handler is to stop, and what it answers is dropped. */
  | { readonly type: 'cancelled'; readonly id: string; readonly error: XmqError }
  /** Somebody else has, or had, the message: its handler is to stop, and to `settle` when it has. */
  | { readonly type: 'lease-lost'; readonly key: string; readonly seq: number; readonly error: XmqError }
  | { readonly type: 'event'; readonly event: SessionEvent }

/** A message or request that came from the queue. */
export interface Delivery {
  readonly kind: 'message' | 'request'
  readonly topic: string
  /** The producer's id of a message, the hop's id of a request; `''` when there was none. */
  readonly id: string
  /** The producer's full JID, where the queue tells it. */
  readonly from: string | undefined
  readonly payload: Payload
  readonly headers: Headers
  /** Of a leased message; `undefined` of requests, and of messages of a plain queue. */
  readonly lease: LeasedMessage | undefined
  /** Of a request: its requester wants news, and can be told. */
  readonly wantsProgress: boolean
  /** How a request carried its payload; the answer goes back in the same form. */
  readonly form: RequestForm
  readonly stanza: XmlElement
  /** The connection it came over: an answer counts only there. */
  readonly connection: number
}

/** What a reliable queue tells of a message. */
export interface LeasedMessage {
  /** Names the message here: its seq, and when it was published, since a queue that keeps nothing counts anew when it restarts. */
  readonly key: string
  /** The broker's number. */
  readonly seq: number
  /** Which delivery this is, from 1. */
  readonly attempt: number
  /** How often it has failed, as the queue counts. */
  readonly failures: number
  /** When it was published, wall ms. */
  readonly at: number
}

/** What the session tells about itself. */
export type SessionEvent =
  | { readonly name: 'connecting'; readonly attempt: number }
  | { readonly name: 'online'; readonly jid: string }
  /** The connection ended, or an attempt failed; the next attempt comes at `retryAt` (session time). */
  | { readonly name: 'offline'; readonly reason: XmqError; readonly retryAt: number; readonly fatal: boolean }
  | { readonly name: 'mode'; readonly mode: Mode }
  /** Online, but the queue does not answer as a queue does; asked again at `retryAt` (session time). */
  | { readonly name: 'waiting'; readonly reason: XmqError; readonly retryAt: number }
  | { readonly name: 'subscribed'; readonly topic: string; readonly renewal: boolean }
  | { readonly name: 'unsubscribed'; readonly topic: string }
  | { readonly name: 'subscription-failed'; readonly topic: string; readonly error: XmqError; readonly retryAt: number }
  /** A load was reported out of turn. */
  | { readonly name: 'load'; readonly load: number }
  /** The queue or a server refused a publish after it was written. */
  | { readonly name: 'returned'; readonly id: string; readonly topic: string | undefined; readonly error: XmqError }
  /** Something arrived that no rule lets count: a forged answer, a delivery from elsewhere. */
  | { readonly name: 'ignored'; readonly from: string; readonly what: string }
  /** A request's answer could not go back: the connection that asked is gone. */
  | { readonly name: 'answer-lost'; readonly topic: string; readonly id: string }
  | { readonly name: 'warning'; readonly message: string }
  | { readonly name: 'left' }
  /** Another broker serves the queue than before: what the old one had not answered was sent again, requests have failed. */
  | { readonly name: 'broker-changed'; readonly epoch: string }
  /** A reliable queue asked to wait with publishes: they go on at `retryAt` (session time). */
  | { readonly name: 'publish-paused'; readonly reason: XmqError; readonly retryAt: number }
  /** A redelivery of what is done or running already: it is not run again. */
  | { readonly name: 'duplicate'; readonly seq: number; readonly topic: string; readonly state: 'done' | 'running' }
  /** The queue did not take a settlement; the message may be handled again. */
  | {
      readonly name: 'settle-failed'
      readonly seq: number
      readonly outcome: Outcome['kind']
      readonly error: XmqError
    }
  /** Everything that was to be settled is. */
  | { readonly name: 'all-settled' }

/** Where the connection is. */
export type ConnectionStatus =
  | { readonly state: 'idle' }
  | { readonly state: 'connecting'; readonly attempt: number }
  | { readonly state: 'online'; readonly jid: string; readonly mode: Mode | undefined }
  | { readonly state: 'offline'; readonly reason: XmqError; readonly retryAt: number }
  | { readonly state: 'closed'; readonly reason: XmqError | undefined }

/** The session of one account with one queue. Its only owner is the runtime. */
export interface Session {
  /**
   * Handles one input. Synchronous and total: a throw is a bug.
   *
   * @param now milliseconds that never run backwards
   */
  handle(input: Input, now: number, entropy: Entropy): Effect[]
  /** When the next tick is due, in the time of `now`; `undefined` when nothing waits. */
  readonly deadline: number | undefined
  readonly status: ConnectionStatus
  /** Settlements that the queue has not answered. */
  readonly unsettled: number
  /** How items for this queue are best written: packed where it has said that it takes them so, and never refused it. */
  readonly codec: ItemCodec
}
