/** What browsers have. Its counterpart is node.ts. */
import { Client } from '@xmpp/client-core'
import websocket from '@xmpp/websocket'
import { XmqError } from '@xmq/protocol'
import type { Platform } from './platform.ts'

/** The browser's platform: WebSocket only, with the certificates that the browser trusts. */
export const platform: Platform = {
  createEntity(options) {
    // Not @xmpp/client: it brings Node's DNS, TCP and TLS along, which bundlers stumble over.
    const entity = new Client(options)
    websocket({ entity })
    return entity
  },
  async pbkdf2(hash, password, salt, iterations, lengthBytes) {
    const { subtle } = globalThis.crypto
    const key = await subtle.importKey('raw', password, 'PBKDF2', false, ['deriveBits'])
    return new Uint8Array(await subtle.deriveBits({ name: 'PBKDF2', hash, salt, iterations }, key, lengthBytes * 8))
  },
  upgradeToTls() {
    return Promise.reject(new XmqError('unsupported', 'Browsers have no TCP: use a wss:// service.'))
  },
  tlsOptions: () => undefined,
  openWebSocket(url) {
    return new WebSocket(url, ['xmpp'])
  },
  certificatesProblem: () => 'has no meaning in browsers, which trust what they trust',
  exit() {},
  env: () => undefined,
  process: () => ({}),
}
