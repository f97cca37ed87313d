import { createMemoryStore } from './memory.ts'
import type { Store, StoreConfig } from './port.ts'
import { createSqliteStore } from './sqlite/store.ts'

type Openers = {
  readonly [Scheme in StoreConfig['scheme']]: (config: Extract<StoreConfig, { scheme: Scheme }>) => Store
}

const OPENERS: Openers = {
  memory: () => createMemoryStore(),
  sqlite: ({ path }) => createSqliteStore({ path }),
}

/** Makes the store that the configuration names; `open()` opens it. */
export function openStore(config: StoreConfig): Store {
  return config.scheme === 'memory' ? OPENERS.memory(config) : OPENERS.sqlite(config)
}
