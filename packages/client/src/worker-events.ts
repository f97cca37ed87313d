/** What a worker tells. */
import type { XmqError } from '@xmq/protocol'
import { CONNECTION_EVENTS, type ConnectionEvents } from './connection-events.ts'

/** What happened to one delivery. */
export interface DeliveryEvent {
  readonly topic: string
  readonly id: string
  readonly kind: 'message' | 'request'
  readonly from: string | undefined
  /** Of a leased message. */
  readonly seq: number | undefined
  readonly attempt: number
}

/** Events of a worker. */
export interface WorkerEvents extends ConnectionEvents {
  /** The queue knows the subscription; `renewal` when not for the first time. */
  subscribed: { readonly topic: string; readonly renewal: boolean }
  unsubscribed: { readonly topic: string }
  /** The queue refused or did not answer; asked again at `retryAt`. */
  'subscription-failed': { readonly topic: string; readonly error: XmqError; readonly retryAt: number }
  /** A load was reported out of turn: the worker is full (above 90), or has room again (below 75). */
  load: { readonly load: number }
  /** A handler begins. */
  started: DeliveryEvent
  /** A handler is done, and a request answered. */
  completed: DeliveryEvent & { readonly elapsedMs: number }
  /** A handler threw, a payload was invalid, or there was no room. Without a listener it is written to standard error. */
  failed: DeliveryEvent & { readonly error: XmqError }
  /** The worker stops, or has no room, before the handler began: the message goes to another worker, no failure is counted. */
  released: DeliveryEvent
  /** Nobody waits for the answer of a request any more: its handler was told to stop, if it had begun, and has ended. */
  cancelled: DeliveryEvent
  /** The queue gave the message to another worker, or has it no more: the handler's signal was aborted. */
  'lease-lost': { readonly seq: number; readonly error: XmqError }
  /** A message came again that is `done` or `running` here: it is not handled twice. */
  duplicate: { readonly seq: number; readonly topic: string; readonly state: 'done' | 'running' }
  /** The queue did not take an ack, nack, release or reject: the lease was over, and the message may be handled again. */
  'settle-failed': { readonly seq: number; readonly outcome: string; readonly error: XmqError }
  /** The connection that a request came over is gone: its answer went nowhere, the requester was told `worker-gone`. */
  'answer-lost': { readonly topic: string; readonly id: string }
}

/** The names of {@link WorkerEvents}. */
export const WORKER_EVENTS: Readonly<Record<keyof WorkerEvents, true>> = {
  ...CONNECTION_EVENTS,
  subscribed: true,
  unsubscribed: true,
  'subscription-failed': true,
  load: true,
  started: true,
  completed: true,
  failed: true,
  released: true,
  cancelled: true,
  'lease-lost': true,
  duplicate: true,
  'settle-failed': true,
  'answer-lost': true,
}
