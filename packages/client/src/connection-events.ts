/** What clients and workers tell about their connection. */
import type { XmqError } from '@xmq/protocol'
import type { Emitter } from './events.ts'
import { monotonicNow } from './runtime.ts'
import type { ConnectionStatus, Mode, SessionEvent } from './session/index.ts'

/** Events of a connection, of a client and of a worker alike. Times are `Date.now()` milliseconds. */
export interface ConnectionEvents {
  /** An attempt to connect begins. */
  connecting: { readonly attempt: number }
  /** Logged in, with this full JID. */
  online: { readonly jid: string }
  /** The connection ended or an attempt failed; the next one comes at `retryAt`, unless `fatal`. */
  offline: { readonly reason: XmqError; readonly retryAt: number; readonly fatal: boolean }
  /** How the queue is spoken to is known: calls and subscriptions go out from now on. */
  mode: { readonly mode: Mode }
  /** Online, but the queue does not answer as one: `reason` says what to do. Asked again at `retryAt`. */
  waiting: { readonly reason: XmqError; readonly retryAt: number }
  /**
   * Another broker serves the queue than before: it was restarted. What the old one had not answered is sent again, the
   * worker subscribes again, open requests have failed with `worker-gone`. `epoch` names the new broker and its stream.
   */
  'broker-changed': { readonly epoch: string }
  /** Something that the operator should know. */
  warning: { readonly message: string }
  /** Something arrived that does not count: a forged answer, a delivery from elsewhere. */
  ignored: { readonly from: string; readonly what: string }
  /** Closed for good; with the reason when it was not the owner who closed. */
  closed: { readonly reason: XmqError | undefined }
}

/** The names of {@link ConnectionEvents}. */
export const CONNECTION_EVENTS: Readonly<Record<keyof ConnectionEvents, true>> = {
  connecting: true,
  online: true,
  offline: true,
  mode: true,
  waiting: true,
  'broker-changed': true,
  warning: true,
  ignored: true,
  closed: true,
}

/** The part of an emitter that clients and workers share. */
export type ConnectionEmitter = Pick<Emitter<ConnectionEvents>, 'on' | 'emit'>

/** Passes on what concerns the connection. @returns whether it did */
export function emitConnectionEvent(emitter: ConnectionEmitter, event: SessionEvent): boolean {
  switch (event.name) {
    case 'connecting':
      emitter.emit('connecting', { attempt: event.attempt })
      return true
    case 'online':
      emitter.emit('online', { jid: event.jid })
      return true
    case 'offline':
      emitter.emit('offline', { reason: event.reason, retryAt: wallTime(event.retryAt), fatal: event.fatal })
      if (event.fatal) emitter.emit('closed', { reason: event.reason })
      return true
    case 'mode':
      emitter.emit('mode', { mode: event.mode })
      return true
    case 'waiting':
      emitter.emit('waiting', { reason: event.reason, retryAt: wallTime(event.retryAt) })
      return true
    case 'broker-changed':
      emitter.emit('broker-changed', { epoch: event.epoch })
      return true
    case 'warning':
      emitter.emit('warning', { message: event.message })
      return true
    case 'ignored':
      emitter.emit('ignored', { from: event.from, what: event.what })
      return true
    default:
      return false
  }
}

/** A status with its instants as `Date.now()` has them. */
export function wallStatus(status: ConnectionStatus): ConnectionStatus {
  return status.state === 'offline' ? { ...status, retryAt: wallTime(status.retryAt) } : status
}

/** An instant of the session as `Date.now()` has it. */
export function wallTime(instant: number): number {
  return Math.round(Date.now() + instant - monotonicNow())
}
