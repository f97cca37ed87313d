import { createMemoryStore } from './memory.ts'
import type { Store, StoreConfig } from './port.ts'

const OPENERS: { readonly [Scheme in StoreConfig['scheme']]: (config: StoreConfig & { scheme: Scheme }) => Store } = {
  memory: () => createMemoryStore(),
}

/** Opens the store that the configuration names. */
export function openStore(config: StoreConfig): Store {
  return OPENERS[config.scheme](config)
}
