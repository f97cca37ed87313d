/** What browsers have. Its counterpart is node.ts. */
import { XmqError } from '@xmq/protocol'
import type { Platform } from './platform.ts'

/** The browser's platform: WebSocket only, with the certificates that the browser trusts. */
export const platform: Platform = {
  upgradeToTls() {
    return Promise.reject(new XmqError('unsupported', 'Browsers have no TCP: use a wss:// service.'))
  },
  tlsOptions: () => undefined,
  openWebSocket(url, { ca }) {
    if (ca !== undefined) throw new XmqError('invalid-config', "The option 'ca' has no meaning in browsers.")
    return new WebSocket(url, ['xmpp'])
  },
  onStopSignal: () => () => {},
  exit() {},
  env: () => undefined,
}
