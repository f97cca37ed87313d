/** What Node and browsers do differently. */
import type { XmppEntity, XmppOptions, XmppSocket } from '@xmpp/client-core'
import type { Bytes } from '../sasl/exchange.ts'
import type { ScramHash } from '../sasl/scram.ts'

/** What TLS is checked against. */
export interface PlatformTlsOptions {
  /** The XMPP domain, whose certificate is expected. */
  readonly domain: string
  /** Certificate authorities in PEM, in place of the system's. */
  readonly ca: string | readonly string[] | undefined
}

/** What the rest of the package needs of where it runs. */
export interface Platform {
  /** xmpp.js with the transports that there are here. */
  createEntity(options: XmppOptions): XmppEntity
  /** RFC 8018 PBKDF2 with HMAC, in native code. */
  pbkdf2(hash: ScramHash, password: Bytes, salt: Bytes, rounds: number, lengthBytes: number): Promise<Bytes>
  /** Runs TLS on a connected socket. Rejects where the certificate does not verify. */
  upgradeToTls(socket: unknown, options: PlatformTlsOptions): Promise<XmppSocket>
  /** Options for a direct TLS connection; `undefined` where there is none. */
  tlsOptions(options: PlatformTlsOptions): object | undefined
  /** A WebSocket with the subprotocol `xmpp`. */
  openWebSocket(url: string, options: PlatformTlsOptions): unknown
  /** What is wrong with certificate authorities in PEM, as a sentence about them goes on; `undefined` when nothing is. */
  certificatesProblem(pem: string): string | undefined
  exit(code: number): void
  env(name: string): string | undefined
  /** Where this runs, for operators. */
  process(): { readonly host?: string; readonly pid?: string }
}
