// These run what is built, since Node 20 starts no worker thread from TypeScript.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire, syncBuiltinESMExports } from 'node:module'
import { createInterface } from 'node:readline'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import Database from 'libsql'
import type * as Threads from 'node:worker_threads'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import type * as Built from '../src/store/sqlite/store.ts'
import { claim, freshPath, NOW, one, openSqlite, publish, publishOp, seqsOf } from './store-harness.ts'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))

let createSqliteStore: (typeof Built)['createSqliteStore']
/** The threads that were started, in order. */
const threads: Threads.Worker[] = []

beforeAll(async () => {
  const builtin = createRequire(import.meta.url)('node:worker_threads') as {
    Worker: typeof Threads.Worker
  }
  builtin.Worker = class extends builtin.Worker {
    constructor(...args: ConstructorParameters<typeof Threads.Worker>) {
      super(...args)
      threads.push(this)
    }
  }
  syncBuiltinESMExports()
  // It writes what it can; what it finds wrong is the build's to tell.
  spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-b', 'packages/broker'], { cwd: ROOT })
  const built = (await import(new URL('../dist/store/sqlite/store.js', import.meta.url).href)) as typeof Built
  createSqliteStore = built.createSqliteStore
}, 120_000)

describe('the sqlite store in its thread', () => {
  it('answers in order, commits together what comes together, and closes', async () => {
    const store = createSqliteStore({ path: freshPath() })
    await store.open(NOW)
    const results = await Promise.all(Array.from({ length: 200 }, () => publish(store)))
    expect(results).toEqual(results.toSorted((one1, two) => one1 - two))
    const woken: string[] = []
    store.watch((topics) => woken.push(...topics.map(({ topic }) => topic)))
    const claimed = claim(store, 300)
    const [published, { messages }] = [await one(store, publishOp({ topic: 'late' })), await claimed]
    expect([published.status, messages.length, woken]).toEqual(['ok', 200, ['late']])
    expect(store.stats()).toMatchObject({ messages: 201, lines: [{ leased: 200, ready: 1 }] })
    const closing = store.close()
    expect(await one(store, publishOp())).toMatchObject({ status: 'unavailable' })
    await closing
  })

  it('finishes what was asked before it was closed', async () => {
    const path = freshPath()
    const store = createSqliteStore({ path })
    await store.open(NOW)
    const asked = Array.from({ length: 50 }, () => publish(store))
    await store.close()
    const seqs = await Promise.all(asked)
    expect(await seqsOf(await openSqlite(path))).toEqual(seqs)
  })

  it('refuses a file that another store has', async () => {
    const path = freshPath()
    await openSqlite(path)
    const second = createSqliteStore({ path })
    await expect(second.open(NOW)).rejects.toMatchObject({ code: 'conflict' })
    await second.close()
  })
})

describe('a store whose thread dies', () => {
  const openThread = async () => {
    const store = createSqliteStore({ path: freshPath(), reopenPauseMs: 1 })
    await store.open(NOW)
    return { store, thread: threads.at(-1) as Threads.Worker }
  }

  it('refuses what was on its way, then opens the file anew and goes on', async () => {
    const { store, thread } = await openThread()
    const first = await publish(store)
    const lost = one(store, publishOp({ id: 'lost' }))
    await Promise.resolve() // it is on its way
    void thread.terminate()
    expect(await lost).toMatchObject({
      status: 'unavailable',
      error: { type: 'wait', message: expect.stringContaining('thread of the store failed') },
    })
    expect((await one(store, publishOp({ id: 'lost' }))).status).toMatch(/^(ok|duplicate)$/)
    expect(threads.at(-1)).not.toBe(thread)
    expect((await seqsOf(store))[0]).toBe(first)
    expect(store.stats()).toMatchObject({ messages: 2, lines: [{ ready: 2, claimable: 2 }] })
    await store.close()
  })

  it('opens a file that was given up only when the thread that had it is gone', async () => {
    const { store, thread } = await openThread()
    const first = await publish(store)
    const post = thread.postMessage.bind(thread)
    let end: (() => void) | undefined
    thread.postMessage = (message: { readonly type: string }) => {
      if (message.type === 'end') end = () => post(message)
      else post(message)
    }
    // To the engine this is a disk that fails: it gives up after three.
    const fail = () => store.pragma('(').catch(() => undefined)
    await fail()
    await fail()
    const last = fail()
    await vi.waitUntil(() => end !== undefined, { interval: 1 })
    const count = threads.length
    const asked = one(store, publishOp())
    for (let turn = 0; turn < 10; turn++) await nextTurn()
    expect(threads).toHaveLength(count)
    end?.()
    expect((await asked).status).toBe('ok')
    await last
    expect((await seqsOf(store))[0]).toBe(first)
    await store.close()
  })

  it('tells anew of all that waits, since the death may have kept it from being told', async () => {
    const { store, thread } = await openThread()
    await publish(store, { topic: 'one' })
    await publish(store, { topic: 'two' })
    const told: string[] = []
    store.watch((topics) => told.push(...topics.map(({ topic }) => topic)))
    await thread.terminate()
    await store.due(NOW, 1)
    expect(told.toSorted()).toEqual(['one', 'two'])
    await store.close()
  })

  it('says so to a probe, which starts it again', async () => {
    const { store, thread } = await openThread()
    expect(await store.probe()).toBeUndefined()
    await thread.terminate()
    const count = threads.length
    await vi.waitUntil(async () => (await store.probe()) === undefined, { interval: 2, timeout: 20_000 })
    expect(threads.length).toBe(count + 1)
    await store.close()
  })

  it('goes on after a thread that crashes with a transaction open', async () => {
    const { store, thread } = await openThread()
    const kept = await publish(store)
    await store.pragma('wal_autocheckpoint = 1')
    const asked = Array.from({ length: 20 }, (_, n) =>
      one(store, publishOp({ id: `n${n}`, body: 'x'.repeat(100_000) })),
    )
    await Promise.resolve()
    await new Promise((resolve) => setImmediate(resolve))
    void thread.terminate()
    await Promise.all(asked)
    expect((await seqsOf(store))[0]).toBe(kept)
    expect(await store.pragma('integrity_check')).toMatchObject([{ integrity_check: 'ok' }])
    await store.close()
  })

  it('never makes the file anew, and goes on when it is there again', async () => {
    const path = freshPath()
    const store = createSqliteStore({ path, reopenPauseMs: 1 })
    await store.open(NOW)
    const kept = await publish(store)
    await threads.at(-1)?.terminate()
    renameSync(path, `${path}.away`)
    expect(await one(store, publishOp())).toMatchObject({
      status: 'unavailable',
      error: { type: 'wait', message: expect.stringContaining('that its file system is mounted') },
    })
    expect(existsSync(path)).toBe(false)
    renameSync(`${path}.away`, path)
    await vi.waitUntil(async () => (await store.probe()) === undefined, { interval: 2, timeout: 20_000 })
    expect(await seqsOf(store)).toEqual([kept])
    await store.close()
  })

  it('never terminates it: libsql aborts the process when that finds the thread inside a call', async () => {
    const { store, thread } = await openThread()
    const kept = await publish(store)
    const terminate = vi.spyOn(thread, 'terminate')
    // To the engine this is a disk that fails: after three times it gives the file up, while more is on its way.
    const fails = () => store.pragma('(').catch(() => undefined)
    await fails()
    await fails()
    const third = fails()
    await new Promise((resolve) => setImmediate(resolve))
    await Promise.all([third, ...Array.from({ length: 20 }, (_, n) => one(store, publishOp({ id: `n${n}` })))])
    await vi.waitUntil(async () => (await store.probe()) === undefined, { interval: 2, timeout: 20_000 })
    expect(threads.at(-1)).not.toBe(thread)
    expect((await seqsOf(store))[0]).toBe(kept)
    await store.close()
    expect(terminate).not.toHaveBeenCalled()
  })

  it('closes while its thread is dead', async () => {
    const { store, thread } = await openThread()
    await thread.terminate()
    await store.close()
    expect((await one(store, publishOp())).status).toBe('unavailable')
  })
})

describe('a store on a disk that cannot be read now and then', () => {
  const canTrace =
    spawnSync('strace', ['-f', '-qq', '-o', '/dev/null', '-e', 'inject=fsync:error=EIO', 'true']).status === 0

  it.skipIf(!canTrace)(
    'refuses what it could not do, and never takes anything else for the page',
    async () => {
      const path = freshPath()
      const script = fileURLToPath(new URL('store-read-child.mjs', import.meta.url))
      const { stdout } = spawnSync(
        'strace',
        [
          `-fqqo${path}.log`,
          '-etrace=pread64',
          '-einject=pread64:error=EIO:when=60+40',
          `-P${path}-wal`,
          `-P${path}`,
          process.execPath,
          script,
          path,
        ],
        { encoding: 'utf8', timeout: 20_000 },
      )
      const { refused, stored } = JSON.parse(stdout) as { readonly refused: number; readonly stored: number }
      expect(readFileSync(`${path}.log`, 'utf8').split('INJECTED').length).toBeGreaterThan(2)
      const store = await openSqlite(path)
      expect(await store.pragma('integrity_check')).toMatchObject([{ integrity_check: 'ok' }])
      expect(await seqsOf(store)).toHaveLength(stored)
      expect(stored).toBeGreaterThanOrEqual(300 - refused)
    },
    30_000,
  )
})

interface Told {
  readonly published: Set<number>
  readonly acking: Set<number>
  readonly acked: Set<number>
}

/** Runs the child until it has told of `confirms` batches, then kills it at once. */
async function killAfter(confirms: number, path: string, told: Told): Promise<void> {
  const script = fileURLToPath(new URL('store-kill-child.mjs', import.meta.url))
  const child: ChildProcess = spawn(process.execPath, [script, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  let seen = 0
  for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
    const [what, ...seqs] = line.split(' ')
    for (const seq of seqs) if (what !== 'ready') told[what as keyof Told].add(Number(seq))
    if (what === 'published') seen += 1
    if (seen === confirms) child.kill('SIGKILL')
  }
  expect((await exited)[1]).toBe('SIGKILL')
}

describe('a store whose process is killed at any moment', () => {
  it('has every message that it confirmed, and none that it acked', async () => {
    const path = freshPath()
    const told: Told = { published: new Set(), acking: new Set(), acked: new Set() }
    for (let cycle = 0; cycle < 5; cycle++) {
      await killAfter(1 + Math.floor(Math.random() * 60), path, told)
      const store = await openSqlite(path, {}, Date.now())
      expect(await store.pragma('integrity_check')).toMatchObject([{ integrity_check: 'ok' }])
      const found = new Set(await seqsOf(store))
      expect([...told.published].filter((seq) => !found.has(seq) && !told.acking.has(seq))).toEqual([])
      expect([...told.acked].filter((seq) => found.has(seq))).toEqual([])
      expect(store.stats().messages).toBe(found.size)
      await store.close()
    }
    expect(told.published.size).toBeGreaterThan(0)
  }, 60_000)
})

/** Opens a file of version 1 in a process of its own, which is killed once its log has as many bytes. True: it was. */
async function killInMigration(path: string, logBytes: number): Promise<boolean> {
  const url = new URL('../dist/store/sqlite/database.js', import.meta.url).href
  const options = JSON.stringify({ path, cacheBytes: 65_536, synchronous: 'OFF' })
  const script = `import(${JSON.stringify(url)}).then(({ openDatabase }) => openDatabase(${options}))`
  const child = spawn(process.execPath, ['-e', script], { stdio: 'ignore' })
  const exited = once(child, 'exit')
  while (child.exitCode === null && child.signalCode === null) {
    if ((statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0) >= logBytes) child.kill('SIGKILL')
    await nextTurn()
  }
  return (await exited)[1] === 'SIGKILL'
}

describe('a file of version 1 whose process is killed while it is brought to this version', () => {
  it('is of version 1 still, and has everything', async () => {
    const path = freshPath()
    writeFileSync(path, gunzipSync(readFileSync(new URL('store-fixtures/v1.db.gz', import.meta.url))))
    const db = new Database(path)
    // Many of the message that waits.
    db.exec(`
      CREATE TEMP TABLE more AS SELECT value AS seq FROM json_each('[${Array.from({ length: 5000 }, (_, n) => 100 + n).join()}]');
      INSERT INTO messages SELECT more.seq, head_bytes, meta_bytes, sum, data FROM more, messages WHERE messages.seq = 4;
      INSERT INTO entries SELECT line, more.seq, topic, lane, state, more.seq, rank - ord + more.seq, at, expires_at, failures,
        deliveries, token, holder, claimed_at, lease_ms, is_counted, history, bytes, key, reason, is_shared, dedupe_until, is_droppable
        FROM more, entries WHERE entries.seq = 4;
      UPDATE lines SET ready = ready + 5000, claimable = claimable + 5000 WHERE id = (SELECT line FROM entries WHERE seq = 4);
      UPDATE topics SET ready = ready + 5000, claimable = claimable + 5000 WHERE id = (SELECT topic FROM entries WHERE seq = 4);
    `)
    db.close()
    const file = readFileSync(path)
    for (const logBytes of [1, 100_000, 500_000]) {
      // On a busy machine it may be done before it is looked at.
      for (let tries = 0; !(await killInMigration(path, logBytes)); tries++) {
        expect(tries).toBeLessThan(20)
        rmSync(`${path}-wal`, { force: true })
        writeFileSync(path, file)
      }
    }
    // Where the head of a file has its user_version.
    expect(readFileSync(path).readUInt32BE(60)).toBe(1)
    const store = await openSqlite(path)
    expect(await seqsOf(store)).toHaveLength(5004)
    expect(store.stats()).toMatchObject({ messages: 5005 })
    expect((await claim(store, 100)).messages).toHaveLength(100)
  }, 60_000)
})
