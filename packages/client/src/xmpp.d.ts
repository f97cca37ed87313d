/** The parts of xmpp.js (no types of its own) that transport.ts touches. */

declare module '@xmpp/client' {
  export interface LtxElement {
    name: string
    attrs: Record<string, string>
    children: (LtxElement | string)[]
    parent: LtxElement | null
    toString(): string
  }

  export interface NodeEmitter {
    on(event: string, listener: (...args: never[]) => void): unknown
    removeAllListeners(): unknown
    listenerCount(event: string): number
    emit(event: string, ...args: unknown[]): boolean
  }

  export interface XmppParser extends NodeEmitter {
    write(text: string): void
    end(text?: string): void
  }

  export interface XmppSocket extends NodeEmitter {
    secure: boolean
    /** What a wrapper wraps: a TLS socket or a WebSocket. */
    socket?: unknown
    connect(target: unknown): void
    _attachSocket?(socket: unknown): void
    url?: string | null
    end(): void
    write(data: string, done?: (error?: Error | null) => void): void
    setNoDelay?(on: boolean): void
    setKeepAlive?(on: boolean, delayMs: number): void
    destroy?(): void
  }

  /** What stands on a transport's prototype. */
  export interface XmppTransport {
    Socket: new () => XmppSocket
    Parser: new () => XmppParser
    socketParameters(service: string): unknown
  }

  export interface XmppTransportClass {
    new (): XmppTransport
    prototype: XmppTransport
  }

  export type XmppAuthenticate = (credentials: object, mechanism: string, userAgent?: LtxElement) => Promise<void>

  export interface XmppFast {
    mechanism: string | null
  }

  export interface XmppClient extends NodeEmitter {
    status: string
    timeout: number
    jid: { toString(): string } | null
    socket: XmppSocket | null
    parser: XmppParser | null
    transports: XmppTransportClass[]
    reconnect: { stop(): void }
    connect(service: string): Promise<void>
    open(options: { domain: string; lang?: string }): Promise<unknown>
    restart(): Promise<unknown>
    stop(): Promise<unknown>
    write(text: string): Promise<void>
    isSecure(): boolean
    _onData(data: unknown): void
    _attachSocket(socket: XmppSocket): void
    _detachSocket(): void
    _onSeeOtherHost(error: Error): void
  }

  export function client(options: {
    service: string
    domain: string
    resource?: string
    timeout?: number
    credentials: (
      authenticate: XmppAuthenticate,
      mechanisms: string[],
      fast: XmppFast | null,
      entity: XmppClient,
    ) => Promise<void>
  }): XmppClient

  export function xml(name: string, attrs: Record<string, string>, ...children: (LtxElement | string)[]): LtxElement
}

declare module '@xmpp/debug' {
  import type { LtxElement } from '@xmpp/client'

  /** Replaces what SASL elements carry, in place. */
  export function hideSensitive(element: LtxElement): LtxElement
}
