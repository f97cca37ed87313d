/** The parts of xmpp.js (no types of its own) that entity.ts touches. */

declare module '@xmpp/client-core' {
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

  export interface XmppOptions {
    service: string
    domain: string
    /** Milliseconds that opening the stream may take. */
    timeout?: number
  }

  export interface XmppEntity extends NodeEmitter {
    timeout: number
    socket: XmppSocket | null
    parser: XmppParser | null
    transports: XmppTransportClass[]
    connect(service: string): Promise<void>
    open(options: { domain: string; lang?: string }): Promise<unknown>
    restart(): Promise<unknown>
    stop(): Promise<unknown>
    write(text: string): Promise<void>
    isSecure(): boolean
    header(element: LtxElement): string
    _onData(data: unknown): void
    _attachSocket(socket: XmppSocket): void
    _detachSocket(): void
    _onSeeOtherHost(error: Error): void
  }

  export const Client: new (options: XmppOptions) => XmppEntity

  export function xml(name: string, attrs: Record<string, string>, ...children: (LtxElement | string)[]): LtxElement
}

declare module '@xmpp/client' {
  import type { XmppEntity, XmppOptions } from '@xmpp/client-core'

  /** With every transport, and with much that is not wanted here: reconnecting, DNS, SASL, stream management. */
  export function client(options: XmppOptions): XmppEntity & { reconnect: { stop(): void } }
}

declare module '@xmpp/websocket' {
  import type { XmppEntity } from '@xmpp/client-core'

  /** Adds the WebSocket transport. */
  export default function websocket(parts: { entity: XmppEntity }): void
}

declare module '@xmpp/debug' {
  import type { LtxElement } from '@xmpp/client-core'

  /** Replaces what SASL elements carry, in place. */
  export function hideSensitive(element: LtxElement): LtxElement
}
