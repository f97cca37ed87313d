/** Who waits for which sync of the log, and what becomes of everybody when one fails. The disk's syncs are ended by the test. */
import { closeSync, existsSync, fdatasync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Engine } from '../src/store/sqlite/engine.ts'
import { LogSync } from '../src/store/sqlite/log-sync.ts'
import { createSqliteStore } from '../src/store/sqlite/store.ts'
import { publishOp } from './store-harness.ts'

const syncs = vi.hoisted((): ((error: Error | null) => void)[] => [])

vi.mock(import('node:fs'), async (original) => {
  const fs = await original()
  const held = vi.fn((_: number, done: (error: Error | null) => void) => void syncs.push(done))
  const { __promisify__ } = fs.fdatasync
  return { ...fs, fdatasync: Object.assign(held, { __promisify__ }), closeSync: vi.fn(fs.closeSync) }
})

const EIO = Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' })
let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'xmq-log-sync-'))
  syncs.length = 0
  vi.clearAllMocks()
})

afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** Ends the sync that runs, and lets everybody who waits for it go on. */
async function end(error: Error | null = null): Promise<void> {
  await vi.waitUntil(() => syncs.length > 0, { interval: 1 })
  syncs.shift()?.(error)
  await new Promise(setImmediate)
}

describe('the sync of the log', () => {
  let sync: LogSync
  let told: string[]

  beforeEach(() => {
    writeFileSync(join(folder, 'x-wal'), '')
    sync = new LogSync(join(folder, 'x'))
    told = []
  })

  const ask = (name: string, hasWritten = true) =>
    void sync.safe(hasWritten).then(
      () => told.push(name),
      (error: Error) => told.push(`${name}: ${error.message}`),
    )

  it('tells nobody before the disk has it', async () => {
    ask('first')
    await new Promise(setImmediate)
    expect(told).toEqual([])
    await end()
    expect(told).toEqual(['first'])
  })

  it('covers what came while one ran with the next, once for all', async () => {
    for (const name of ['first', 'second', 'third']) ask(name)
    await end()
    expect(told).toEqual(['first'])
    await end()
    expect(told).toEqual(['first', 'second', 'third'])
    expect(fdatasync).toHaveBeenCalledTimes(2)
  })

  it('needs no sync for what wrote nothing, but keeps the order', async () => {
    await sync.safe(false)
    expect(fdatasync).not.toHaveBeenCalled()
    ask('first')
    ask('read', false)
    await new Promise(setImmediate)
    expect(told).toEqual([])
    await end()
    expect(told).toEqual(['first', 'read'])
    expect(fdatasync).toHaveBeenCalledTimes(1)
  })

  it('succeeds never again after one that failed', async () => {
    for (const name of ['first', 'second']) ask(name)
    await end(EIO)
    ask('third')
    ask('read', false)
    await new Promise(setImmediate)
    expect(told.sort()).toEqual(['first', 'read', 'second', 'third'].map((name) => `${name}: ${EIO.message}`))
    expect(syncs).toHaveLength(0)
  })

  it('closes the handle when nobody uses it any more', async () => {
    ask('first')
    ask('second')
    sync.close()
    sync.close()
    expect(closeSync).not.toHaveBeenCalled()
    await end()
    expect(closeSync).toHaveBeenCalledTimes(1)
    expect(told.sort()).toEqual(['first: The log was closed.', 'second: The log was closed.'])
  })
})

describe('a store whose log cannot be synced', () => {
  const publish = (id: string) => publishOp({ id })

  it('confirms nothing before the disk has it, and runs the next batch meanwhile', async () => {
    const store = createSqliteStore({ path: join(folder, 'x.db'), thread: false })
    await store.open(1)
    const done: string[] = []
    for (const id of ['1', '2']) {
      void store.apply([publish(id)], 1).then(([result]) => done.push(`${id} ${result?.status}`))
      await new Promise(setImmediate)
    }
    await vi.waitUntil(() => syncs.length > 0, { interval: 1 })
    expect(done).toEqual([])
    await end()
    expect(done).toEqual(['1 ok'])
    await end()
    expect(done).toEqual(['1 ok', '2 ok'])
    await store.close()
  })

  it('refuses every batch that is on its way when it fails, and says why', async () => {
    const store = createSqliteStore({ path: join(folder, 'x.db'), thread: false, reopenPauseMs: 3_600_000 })
    await store.open(1)
    const first = store.apply([publish('1')], 1)
    await new Promise(setImmediate)
    const second = store.apply([publish('2')], 1)
    await new Promise(setImmediate)
    await end(EIO)
    for (const [result] of [await first, await second]) {
      const message: unknown = expect.stringContaining('EIO')
      expect(result).toMatchObject({ status: 'unavailable', error: { code: 'overloaded', type: 'wait', message } })
    }
    expect((await store.probe())?.message).toContain('EIO')
    expect((await store.apply([publish('3')], 1))[0]).toMatchObject({ status: 'unavailable' })
    await store.close()
    expect(existsSync(join(folder, 'x.db-wal'))).toBe(true)
  })

  it('tells a batch that comes after the file was given up why it was', async () => {
    const engine = new Engine({ path: join(folder, 'x.db') })
    engine.open(1)
    const first = engine.run([{ type: 'probe' }])
    await end(EIO)
    expect((await first).isOpen).toBe(false)
    await expect(engine.run([{ type: 'probe' }])).rejects.toMatchObject({
      code: 'overloaded',
      message: expect.stringContaining('EIO'),
    })
    engine.close()
  })

  it('tells a batch that waits for its sync why another one made it give the file up', async () => {
    const engine = new Engine({ path: join(folder, 'x.db') })
    engine.open(1)
    const first = engine.run([{ type: 'probe' }])
    // To the engine this is a disk that fails.
    const others = [1, 2, 3].map(() => engine.run([{ type: 'pragma', text: '(' }]))
    await end()
    expect((await Promise.all(others)).at(-1)?.isOpen).toBe(false)
    const message: unknown = expect.stringContaining('(SQLITE_ERROR)')
    expect((await first).answers).toMatchObject([{ type: 'failed', failure: { code: 'overloaded', message } }])
  })
})
