/** What Node and browsers do differently. */
import type { XmppSocket } from '@xmpp/client'

export interface PlatformTlsOptions {
  /** The XMPP domain, whose certificate is expected. */
  readonly domain: string
  /** Certificate authorities in PEM, in place of the system's. */
  readonly ca: string | readonly string[] | undefined
}

export interface Platform {
  /** Runs TLS on a connected socket. Rejects where the certificate does not verify. */
  upgradeToTls(socket: unknown, options: PlatformTlsOptions): Promise<XmppSocket>
  /** Options for a direct TLS connection; `undefined` where there is none. */
  tlsOptions(options: PlatformTlsOptions): object | undefined
  /** A WebSocket with the subprotocol `xmpp`. */
  openWebSocket(url: string, options: PlatformTlsOptions): unknown
  /** Calls back on each SIGTERM and SIGINT. Returns how to stop that. */
  onStopSignal(listener: () => void): () => void
  exit(code: number): void
  env(name: string): string | undefined
}
