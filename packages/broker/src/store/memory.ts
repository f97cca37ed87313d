/** The memory store: mod_xmq's semantics. Nothing survives the process, and plain messages never touch it. */
import { XmqError } from '@xmq/protocol'
import type { Store } from './port.ts'

/** Opens a memory store. */
export function createMemoryStore(): Store {
  let isOpen = true
  return {
    caps: Object.freeze({ durability: 'memory' }),
    probe: () => Promise.resolve(isOpen ? undefined : new XmqError('closed', 'The memory store is closed.')),
    stats: () => ({ messages: 0, bytes: 0 }),
    close: () => {
      isOpen = false
      return Promise.resolve()
    },
  }
}
