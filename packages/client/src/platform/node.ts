/** What only Node has: TLS on a socket, WebSocket with a CA. Its counterpart is browser.ts. */
import { pbkdf2 } from 'node:crypto'
import { connect, type TLSSocket } from 'node:tls'
import type { Socket } from 'node:net'
import { isIP } from 'node:net'
import { hostname } from 'node:os'
import { promisify } from 'node:util'
import { client } from '@xmpp/client'
import { WebSocket } from 'ws'
import { certificatesProblem } from './certificates-node.ts'
import type { PlatformTlsOptions, Platform } from './platform.ts'

/** Node's platform. */
export const platform: Platform = {
  createEntity(options) {
    const entity = client(options)
    entity.reconnect.stop()
    return entity
  },
  async pbkdf2(hash, password, salt, rounds, lengthBytes) {
    return new Uint8Array(await derive(password, salt, rounds, lengthBytes, hash.replace('-', '')))
  },
  upgradeToTls(socket, options) {
    return new Promise((resolve, reject) => {
      const secured: TLSSocket = connect({ socket: socket as Socket, ...tlsOptions(options) })
      secured.once('error', reject)
      secured.once('secureConnect', () => {
        secured.off('error', reject)
        resolve(Object.assign(secured, { secure: true }))
      })
      // A peer that hangs up during the handshake does not always raise an error.
      secured.once('close', () => reject(new Error('The server closed the connection during the TLS handshake.')))
    })
  },
  tlsOptions,
  openWebSocket(url, options) {
    return new WebSocket(url, ['xmpp'], url.startsWith('wss:') ? { ...tlsOptions(options) } : {})
  },
  certificatesProblem,
  exit(code) {
    process.exit(code)
  },
  env(name) {
    return process.env[name]
  },
  process: () => ({ host: hostname().slice(0, 64), pid: String(process.pid) }),
}

const derive = promisify(pbkdf2)

/** The certificate has to be the XMPP domain's, whatever host the service names (RFC 6120 13.7.2). */
function tlsOptions({ domain, ca }: PlatformTlsOptions): { servername?: string; host: string; ca?: string | string[] } {
  return {
    host: domain,
    ...(isIP(domain) === 0 ? { servername: domain } : {}),
    ...(ca === undefined ? {} : { ca: typeof ca === 'string' ? ca : [...ca] }),
  }
}
