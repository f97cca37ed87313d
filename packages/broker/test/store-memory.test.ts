import { storeSuite } from '@xmq/testing'
import { describe, it } from 'vitest'
import { createMemoryStore } from '../src/store/memory.ts'

describe('the memory store', () => {
  const open = async () => {
    const store = createMemoryStore()
    await store.open(0)
    return { store, remove: () => store.close() }
  }
  for (const { name, run } of storeSuite(open, { runs: 20 })) it(name, run)
})
