/**
 * An entity of xmpp.js, put right: sockets, the stream's header and its end are xmpp.js's; reading, login, binding and
 * reconnecting are not. Owner: one transport.
 *
 * Invariants:
 * 1. Our reader reads, and hands everything to `hooks`; xmpp.js sees stream errors only.
 * 2. The header's `from` names the account only where nobody can listen (RFC 6120 4.7.1).
 * 3. An `error` of xmpp.js always has a listener, and nothing reconnects by itself.
 */
import type { XmppEntity, XmppSocket, XmppTransportClass } from '@xmpp/client-core'
import { platform } from '#platform'
import { framedParserClass, type StreamHooks, streamParserClass } from './stream.ts'

/** What an entity needs to know. */
export interface EntityOptions {
  readonly service: string
  readonly domain: string
  readonly ca: string | readonly string[] | undefined
  /** Milliseconds that opening a stream may take. */
  readonly timeoutMs: number
  /** The account's bare JID; `undefined` for an anonymous user. */
  readonly account: string | undefined
  readonly loopback: boolean
}

/** What it reports: to one transport. */
export interface EntityHooks extends StreamHooks {
  /** A chunk of the stream: bytes over TCP, text over WebSocket. */
  onData(data: unknown): void
  /** The socket in use or being upgraded, so that it can be destroyed at any time. */
  onSocket(socket: XmppSocket): void
  onError(error: unknown): void
  onDisconnect(): void
}

const KEEP_ALIVE_MS = 30_000

/** Whether a service speaks RFC 7395, one element a frame. */
export function isFramed(service: string): boolean {
  return /^wss?:/i.test(service)
}

/** Creates an entity; it connects when told to. */
export function createEntity(options: EntityOptions, hooks: EntityHooks): XmppEntity {
  const { service, domain, timeoutMs, account, loopback } = options
  const entity = platform.createEntity({ service, domain, timeout: timeoutMs })
  entity.transports = entity.transports.map((base) => fixedTransport(base, options, hooks))
  entity.on('error', (error: Error) => hooks.onError(error))
  entity.on('disconnect', () => hooks.onDisconnect())
  // It would connect to another host by itself, and outlive its transport.
  entity._onSeeOtherHost = (error) => hooks.onError(error)
  entity._onData = (data) => hooks.onData(data)
  const header = entity.header.bind(entity)
  entity.header = (element) => {
    if (account !== undefined && (loopback || entity.isSecure())) element.attrs['from'] = account
    return header(element)
  }
  const attach = entity._attachSocket.bind(entity)
  entity._attachSocket = (socket) => {
    hooks.onSocket(socket)
    // xmpp.js leaves Nagle's algorithm on.
    socket.setNoDelay?.(true)
    socket.setKeepAlive?.(true, KEEP_ALIVE_MS)
    attach(socket)
  }
  return entity
}

function fixedTransport(
  base: XmppTransportClass,
  { service, domain, ca }: EntityOptions,
  hooks: StreamHooks,
): XmppTransportClass {
  const framed = isFramed(service)
  const Fixed = class extends base {}
  Fixed.prototype.Parser = framed ? framedParserClass(base, hooks) : streamParserClass(base, hooks)
  Fixed.prototype.socketParameters = (address: string) => {
    const parameters: unknown = base.prototype.socketParameters(address)
    if (typeof parameters !== 'object' || parameters === null) return parameters
    return address.startsWith('xmpps:') ? { ...platform.tlsOptions({ domain, ca }), ...parameters } : parameters
  }
  if (framed) Fixed.prototype.Socket = webSocketClass(base.prototype.Socket, { domain, ca })
  return Fixed
}

/** Node 20 has no global WebSocket, and a global one takes no certificate authority. */
function webSocketClass(
  Base: new () => XmppSocket,
  tls: { readonly domain: string; readonly ca: string | readonly string[] | undefined },
): new () => XmppSocket {
  return class extends Base {
    override connect(url: string): void {
      this.url = url
      this.secure = url.startsWith('wss:')
      this._attachSocket?.(platform.openWebSocket(url, tls))
    }
  }
}

/** Closes a socket at once, whatever it wraps. */
export function destroySocket(socket: XmppSocket): void {
  socket.removeAllListeners()
  socket.on('error', () => {})
  if (socket.destroy !== undefined) {
    socket.destroy()
    return
  }
  const inner = socket.socket as { destroy?: () => void; terminate?: () => void; close?: () => void } | null
  if (inner?.terminate !== undefined) inner.terminate()
  else if (inner?.destroy !== undefined) inner.destroy()
  else inner?.close?.()
}
