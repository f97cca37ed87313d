/** The store suite on the sqlite store: its random runs in two files, since each takes one thread for minutes. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type OpenedStore, type StoreCase, storeSuite } from '@xmq/testing'
import { createSqliteStore } from '../src/store/sqlite/store.ts'

const opener = (synchronous: 'FULL' | 'OFF') => {
  const openIn = async (dir: string, now: number): Promise<OpenedStore> => {
    const store = createSqliteStore({ path: join(dir, 'xmq.db'), synchronous, cacheBytes: 1024 * 1024 })
    await store.open(now)
    return {
      store,
      reopen: async (later) => {
        await store.close()
        return openIn(dir, later)
      },
      remove: async () => {
        await store.close()
        rmSync(dir, { recursive: true, force: true })
      },
    }
  }
  return () => openIn(mkdtempSync(join(tmpdir(), 'xmq-store-')), 0)
}

// As many as the promise says where nobody waits, in both files together: about 50 ms a run.
const RUNS = Number(process.env['XMQ_STORE_RUNS'] ?? (process.env['CI'] === undefined ? 100 : 2000))
// The seed that a failure names: repeats its runs.
const SEED = process.env['XMQ_STORE_SEED'] === undefined ? {} : { seed: Number(process.env['XMQ_STORE_SEED']) }

/** The cases, with a part of the random runs. */
export function sqliteSuite(synchronous: 'FULL' | 'OFF', part: number): readonly StoreCase[] {
  return storeSuite(opener(synchronous), { runs: Math.ceil(RUNS * part), ...SEED })
}
