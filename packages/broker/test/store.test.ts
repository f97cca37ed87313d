import { expect, it } from 'vitest'
import { createMemoryStore } from '../src/store/memory.ts'
import { openStore } from '../src/store/open.ts'
import { STORE_SCHEMES } from '../src/store/port.ts'
import { freshPath, NOW } from './store-harness.ts'

it('every known scheme opens', async () => {
  for (const scheme of STORE_SCHEMES) {
    const store = openStore(scheme === 'sqlite' ? { scheme, path: freshPath() } : { scheme })
    await store.open(NOW)
    expect(await store.probe()).toBeUndefined()
    await store.close()
  }
})

it('a memory store promises nothing beyond the process, and says when it is closed', async () => {
  const store = createMemoryStore()
  expect(store.caps.durability).toBe('memory')
  await store.close()
  await store.close()
  expect((await store.probe())?.code).toBe('closed')
})
