import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { gunzipSync } from 'node:zlib'
import Database from 'libsql'
import { describe, expect, it, vi } from 'vitest'
import { closeDatabase, openDatabase } from '../src/store/sqlite/database.ts'
import { LogSize } from '../src/store/sqlite/log-size.ts'
import { SCHEMA_VERSION } from '../src/store/sqlite/schema.ts'
import { SQL } from '../src/store/sqlite/statements.ts'
import { claim, freshPath, HOLDER, NOW, one, openSqlite, publish, publishOp, QUEUE, seqsOf } from './store-harness.ts'

describe('the file of the sqlite store', () => {
  it('keeps messages, their order and their numbers over a restart', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const seqs = [await publish(store), await publish(store, { key: 'k' }), await publish(store, { key: 'k' })]
    await one(store, {
      type: 'purge',
      queue: QUEUE,
      subscription: '',
      topic: undefined,
      state: 'ready',
      after: 0,
      max: 1,
    })
    await store.close()
    const again = await openSqlite(path)
    expect(again.stats()).toMatchObject({ messages: 2, lines: [{ ready: 2, claimable: 1 }] })
    expect((await claim(again, 9)).messages.map(({ seq }) => seq)).toEqual([seqs[1]])
    expect(await publish(again)).toBeGreaterThan(Number(seqs[2]))
  })

  it.runIf(process.platform === 'linux')(
    'says where no folder can be made, also where Node would try for ever',
    async () => {
      await expect(openSqlite('/proc/xmq/data/xmq.db')).rejects.toMatchObject({
        code: 'invalid-config',
        message: expect.stringMatching(/\/proc\/xmq\/data\/xmq\.db cannot be opened: .*mkdir '\/proc\/xmq'/) as unknown,
      })
    },
  )

  it('gives each lease that it finds one full period', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const seq = await publish(store)
    const [message] = (await claim(store)).messages
    const ref = { queue: QUEUE, subscription: '', seq, token: String(message?.token) }
    await one(store, { type: 'received', ...ref, leaseMs: 5 })
    await store.close()
    const again = await openSqlite(path, {}, NOW + 1000)
    const leases = await again.leases({ queue: QUEUE, subscription: '', after: 0, max: 10 })
    expect(leases).toMatchObject({
      entries: [{ seq, token: 'token-0', holder: HOLDER, received: false, deadline: NOW + 1030 }],
    })
    expect(await one(again, { type: 'ack', ...ref, holder: HOLDER })).toMatchObject({ status: 'ok' })
  })

  it('is one file without a log after a clean close', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    await publish(store)
    await store.close()
    expect(readdirSync(dirname(path))).toEqual(['xmq.db'])
  })

  it('is not opened twice, and the error names the process that has it', async () => {
    const path = freshPath()
    await openSqlite(path)
    await expect(openSqlite(path)).rejects.toMatchObject({
      code: 'conflict',
      message: `store: ${path} is in use by process ${process.pid}. Stop that broker, or name another file.`,
    })
  })

  it('is not opened by another process either', async () => {
    const path = freshPath()
    await openSqlite(path)
    const script = `const D = require('libsql'); try { new D(${JSON.stringify(path)}).exec('BEGIN IMMEDIATE'); console.log('open') } catch (error) { console.log(error.code) }`
    const cwd = new URL('..', import.meta.url)
    expect(execFileSync(process.execPath, ['-e', script], { cwd, encoding: 'utf8' }).trim()).toBe('SQLITE_BUSY')
  })

  it('of a newer version is refused, and left as it is', async () => {
    const path = freshPath()
    const db = openDatabase({ path })
    db.exec(`PRAGMA user_version = ${SCHEMA_VERSION + 1}`)
    closeDatabase(db, path)
    const before = readFileSync(path)
    await expect(openSqlite(path)).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringContaining(
        `written by a newer XMQ (schema ${SCHEMA_VERSION + 1}; this one knows ${SCHEMA_VERSION})`,
      ),
    })
    expect(readFileSync(path).equals(before)).toBe(true)
  })

  it('of something else is refused', async () => {
    const foreign = freshPath()
    const db = new Database(foreign)
    db.exec('CREATE TABLE people (name TEXT)')
    db.close()
    await expect(openSqlite(foreign)).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringContaining("not one of XMQ's"),
    })
    const text = freshPath()
    writeFileSync(text, 'this is no database, but a text that is long enough to be read as the head of one.'.repeat(20))
    await expect(openSqlite(text)).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringContaining('no SQLite database'),
    })
  })

  it('that a broker left when it ended while it made it is taken', async () => {
    const path = freshPath()
    const db = new Database(path)
    db.exec('PRAGMA journal_mode = WAL')
    db.close()
    expect(readFileSync(path)).toHaveLength(4096)
    await publish(await openSqlite(path))
  })

  it('may have a name that means something in a URL', async () => {
    const path = `${freshPath()} 100%? #1.db`
    const store = await openSqlite(path)
    const seq = await publish(store)
    await store.close()
    expect(existsSync(path)).toBe(true)
    expect(await seqsOf(await openSqlite(path))).toEqual([seq])
  })

  it('in a directory that cannot be made is refused', async () => {
    const path = freshPath()
    writeFileSync(path, '')
    await expect(openSqlite(`${path}/below/xmq.db`)).rejects.toMatchObject({ code: 'invalid-config' })
  })

  it.each([1, 2, 3, 4])('of version %i is brought to this version with everything in it', async (version) => {
    const path = freshPath()
    writeFileSync(path, gunzipSync(readFileSync(new URL(`store-fixtures/v${version}.db.gz`, import.meta.url))))
    const store = await openSqlite(path)
    expect(await store.pragma('user_version')).toMatchObject([{ user_version: SCHEMA_VERSION }])
    expect(await store.pragma('integrity_check')).toMatchObject([{ integrity_check: 'ok' }])
    const page = await store.browse({ queue: QUEUE, subscription: '', after: 0, max: 10, bodies: true })
    expect(page).toMatchObject({
      entries: [
        { state: 'leased', token: 'token-0', holder: HOLDER, body: 'first', meta: 'meta', id: 'one', deliveries: 1 },
        { state: 'dead', reason: 'rejected', history: [{ at: NOW, holder: HOLDER, why: 'no' }], body: 'second' },
        { state: 'delayed', dueAt: NOW + 1000, expiresAt: NOW + 2000, body: 'third', key: 'k' },
        { state: 'ready', priority: 9, body: 'fourth é' },
      ],
    })
    expect(await one(store, publishOp({ id: 'one', body: 'first' }))).toMatchObject({ status: 'duplicate' })
    expect(await store.subscriptions('news.localhost')).toMatchObject({
      subscriptions: [{ subscription: 'ann@localhost/a', meta: 'm', counts: { ready: 1 } }],
    })
    const mail = { queue: 'mail.localhost', after: 0, max: 9, bodies: true }
    for (const subscription of version === 1 ? [] : ['a', 'b']) {
      const shared = await store.browse({ ...mail, subscription })
      expect(shared).toMatchObject({ entries: [{ state: 'ready', body: 'y'.repeat(3000), meta: 'meta' }] })
    }
  })
})

describe('a file of version 2', () => {
  it('keeps its dead letters out of the chains of their keys', async () => {
    const path = freshPath()
    writeFileSync(path, gunzipSync(readFileSync(new URL('store-fixtures/v2.db.gz', import.meta.url))))
    const db = new Database(path)
    db.exec("UPDATE entries SET key = CAST('d' AS BLOB), ord = 1 WHERE state = 6")
    db.close()
    const store = await openSqlite(path)
    const seq = await publish(store, { key: 'd' })
    expect((await claim(store, 9)).messages.map((message) => message.seq)).toContain(seq)
  })
})

describe('a file of version 4', () => {
  it('keeps its deduplication records, and takes new ones beside and between them', async () => {
    const path = freshPath()
    writeFileSync(path, gunzipSync(readFileSync(new URL('store-fixtures/v4.db.gz', import.meta.url))))
    const store = await openSqlite(path)
    const ids = { queue: 'ids.localhost', targets: [] }
    const statuses = async (names: readonly string[], now: number) => {
      const ops = names.map((id) => publishOp({ id, ...ids, dedupeMs: 10 }))
      return (await store.apply(ops, now)).map(({ status }) => status)
    }
    const old = ['id-1', 'id-3', 'id-5']
    const fresh = ['id-2', 'id-6', 'id-7', 'id-8', 'id-4']
    expect(await statuses(old, NOW + 599_999)).toEqual(old.map(() => 'duplicate'))
    expect(await statuses(fresh, NOW + 599_999)).toEqual(fresh.map(() => 'ok'))
    expect(await statuses([...old, ...fresh], NOW + 599_999)).toEqual([...old, ...fresh].map(() => 'duplicate'))
    expect(await statuses(old, NOW + 600_000)).toEqual(old.map(() => 'ok'))
  })
})

describe('a body that is damaged on the disk', () => {
  it('is never delivered: its message becomes a dead letter, and the rest goes on', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const seq = await publish(store, { key: 'k', body: 'first' })
    const next = await publish(store, { key: 'k', body: 'second' })
    await store.close()
    const db = new Database(path)
    db.exec(
      `UPDATE entries SET data = CAST(replace(CAST(data AS TEXT), 'first', 'f' || char(255) || 'rst') AS BLOB) WHERE id & 17592186044415 = ${seq}`,
    )
    db.close()
    const again = await openSqlite(path)
    const answer = await claim(again, 9)
    expect(answer).toMatchObject({ corrupt: [{ seq, topic: 't', reason: 'corrupt' }] })
    const { messages } = answer.messages.length > 0 ? answer : await claim(again, 9)
    expect(messages).toMatchObject([{ seq: next, body: 'second' }])
    const page = await again.browse({ queue: QUEUE, subscription: '', state: 'dead', after: 0, max: 9, bodies: true })
    expect(page).toMatchObject({ entries: [{ seq, state: 'dead', reason: 'corrupt', corrupt: true, body: undefined }] })
  })
})

describe('a head of a message that is damaged on the disk', () => {
  it('makes a dead letter of its message, and leaves the counts of the others within reason', async () => {
    const path = freshPath()
    const store = await openSqlite(path)
    const seq = await publish(store)
    await publish(store)
    await store.close()
    const db = new Database(path)
    db.exec(
      `UPDATE entries SET data = substr(data, 1, 20) || x'ffffffff' || substr(data, 25) WHERE id & 17592186044415 = ${seq}`,
    )
    db.close()
    const again = await openSqlite(path)
    expect(await claim(again, 9)).toMatchObject({ messages: [{ seq: seq + 1 }], corrupt: [{ seq, reason: 'corrupt' }] })
    expect(again.stats().lines).toMatchObject([{ ready: 0, leased: 1, dead: 1 }])
    expect(Math.abs(again.stats().bytes)).toBeLessThan(1000)
  })
})

describe('a page that cannot be read when the file is opened for the first time', () => {
  it('is no reason to end: it is said, and all goes on when it can be read', async () => {
    const path = freshPath()
    const first = await openSqlite(path)
    const seq = await publish(first)
    await first.close()
    const whole = readFileSync(path)
    // The page after the first is the root of a table.
    writeFileSync(path, Buffer.from(whole).fill(0xff, 4096, 8192))
    const store = await openSqlite(path, { reopenPauseMs: 0 })
    const trouble = await store.probe()
    expect(trouble).toMatchObject({ code: 'overloaded', type: 'wait' })
    expect(trouble?.message).toMatch(/SQLITE_CORRUPT.*dmesg.*start on a copy/)
    expect(await one(store, publishOp())).toMatchObject({ status: 'unavailable' })
    writeFileSync(path, whole)
    expect(await store.probe()).toBeUndefined()
    expect(await seqsOf(store)).toEqual([seq])
  })

  it('is told from a file that lacks what it has to have', async () => {
    const path = freshPath()
    await (await openSqlite(path)).close()
    const db = new Database(path)
    db.exec('DROP TABLE topics')
    db.close()
    await expect(openSqlite(path)).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringMatching(/^store: .* cannot be used: .*topics.*SQLITE_ERROR.*copy/),
    })
  })
})

describe('a store that cannot write', () => {
  it('refuses publishes on a full disk with nothing half done, still settles, and recovers by itself', async () => {
    const store = await openSqlite(freshPath())
    const body = 'x'.repeat(20_000)
    const kept: number[] = []
    kept.push(await publish(store, { body }))
    const [{ page_count: pages }] = (await store.pragma('page_count')) as [{ page_count: number }]
    await store.pragma(`max_page_count = ${pages + 30}`)
    let refused: unknown
    for (let n = 0; n < 100 && refused === undefined; n++) {
      const [first, second] = await store.apply([publishOp({ body }), publishOp({ body, id: `id-${n}` })], NOW)
      if (first?.status === 'ok' && first.type === 'publish' && second?.status === 'ok' && second.type === 'publish')
        kept.push(first.seq, second.seq)
      else refused = [first, second]
    }
    expect(refused).toMatchObject([
      { status: 'unavailable', error: { code: 'overloaded', type: 'wait' } },
      { status: 'unavailable' },
    ])
    expect(await store.probe()).toMatchObject({ message: expect.stringContaining('the disk of') })
    expect(store.stats().messages).toBe(kept.length)
    expect(await seqsOf(store)).toEqual(kept)
    // In one batch with a publish that fails: what needs no space goes on.
    const { messages } = await claim(store)
    const [lease] = messages
    const ref = { queue: QUEUE, subscription: '', seq: Number(lease?.seq), token: String(lease?.token) }
    const [acked, again] = await Promise.all([
      one(store, { type: 'ack', ...ref }),
      one(store, publishOp({ body: body.repeat(10) })),
    ])
    expect([acked.status, again.status]).toEqual(['ok', 'unavailable'])
    expect(await seqsOf(store)).toEqual(kept.slice(1))
    await store.pragma('max_page_count = 1000000')
    expect(await store.probe()).toBeUndefined()
    expect(await publish(store, { body })).toBeGreaterThan(Number(kept.at(-1)))
    expect(await store.pragma('integrity_check')).toMatchObject([{ integrity_check: 'ok' }])
  })

  it('says that the disk is full until there is room for the largest that had none, whatever smaller ones find', async () => {
    const store = await openSqlite(freshPath())
    await publish(store)
    const [{ page_count: pages }] = (await store.pragma('page_count')) as [{ page_count: number }]
    await store.pragma(`max_page_count = ${pages + 40}`)
    const large = publishOp({ body: 'x'.repeat(200_000) })
    expect((await one(store, large)).status).toBe('unavailable')
    // Room for small ones, and for what a probe writes of itself.
    expect((await one(store, publishOp({ body: 'small' }))).status).toBe('ok')
    expect(await store.probe()).toMatchObject({ message: expect.stringContaining('the disk of') })
    expect((await one(store, publishOp({ body: 'small' }))).status).toBe('ok')
    expect(await store.probe()).toMatchObject({ message: expect.stringContaining('the disk of') })
    await store.pragma('max_page_count = 1000000')
    expect(await store.probe()).toBeUndefined()
    expect((await one(store, large)).status).toBe('ok')
  })

  it('says so when the file is read-only, and goes on when it no longer is', async () => {
    const store = await openSqlite(freshPath())
    const seq = await publish(store)
    await store.pragma('query_only = 1')
    expect(await one(store, publishOp())).toMatchObject({
      status: 'unavailable',
      error: { code: 'overloaded', type: 'wait' },
    })
    expect(await store.probe()).toMatchObject({ message: expect.stringContaining('is read-only') })
    const page = await store.browse({ queue: QUEUE, subscription: '', after: 0, max: 9, bodies: true })
    expect(page).toMatchObject({ entries: [{ seq, state: 'ready' }] })
    await store.pragma('query_only = 0')
    expect(await store.probe()).toBeUndefined()
    expect((await claim(store, 9)).messages).toHaveLength(1)
  })

  it.skipIf(process.getuid?.() === 0)('opens a file that is read-only, and uses it once it is not', async () => {
    const path = freshPath()
    await (await openSqlite(path)).close()
    chmodSync(path, 0o400)
    const store = await openSqlite(path)
    expect(await store.probe()).toMatchObject({ message: expect.stringContaining('read-only') })
    chmodSync(path, 0o600)
    expect(await store.probe()).toBeUndefined()
    await publish(store)
  })
})

describe('a log that cannot be copied into the file', () => {
  /** A database whose checkpoints fail for as long as it is told. */
  function makeLog() {
    const path = freshPath()
    const disk = { isBroken: true, tries: 0 }
    const exec = () => {
      disk.tries += 1
      if (disk.isBroken) throw Object.assign(new Error('disk I/O error'), { code: 'SQLITE_IOERR_WRITE' })
      writeFileSync(`${path}-wal`, '')
    }
    return { path, disk, log: new LogSize({ exec }, path, 1) }
  }

  it('stops growth when it is four times as long as it should get, and is tried again', () => {
    vi.useFakeTimers()
    const { path, disk, log } = makeLog()
    log.check()
    writeFileSync(`${path}-wal`, Buffer.alloc(4 * 4120))
    log.check()
    expect(disk.tries).toBe(0)
    writeFileSync(`${path}-wal`, Buffer.alloc(4 * 4120 + 1))
    expect(() => log.check()).toThrow('disk I/O error')
    expect(() => log.check()).toThrow('disk I/O error')
    expect(disk.tries).toBe(1)
    disk.isBroken = false
    expect(() => log.check()).toThrow('disk I/O error')
    vi.advanceTimersByTime(1000)
    log.check()
    expect(disk.tries).toBe(2)
    vi.useRealTimers()
  })
})

describe('the plan of each statement', () => {
  const WITHOUT_SEARCH = new Set(['listLines', 'listWaiting', 'clearProbe', 'addProbe'])

  it.each(Object.entries(SQL).filter(([name]) => !WITHOUT_SEARCH.has(name)))('%s neither scans nor sorts', (_, sql) => {
    const path = freshPath()
    const db = openDatabase({ path })
    const plan = db.prepare(`EXPLAIN QUERY PLAN ${sql}`).raw().all() as unknown[][]
    const steps = plan.map((step) => String(step[3]))
    closeDatabase(db, path)
    // What was handed in, or a page of what was found by an index, is gone through, but never a table.
    const isHarmless = (step: string) =>
      /^SCAN (\d+ CONSTANT ROWS|json_each VIRTUAL TABLE|given$|\(subquery)/.test(step)
    const found = steps.filter((step) => step.includes('SCAN') || step.includes('TEMP B-TREE'))
    expect(found.filter((step) => !isHarmless(step))).toEqual([])
    expect(steps.length > 0 || sql.startsWith('INSERT')).toBe(true)
  })

  it.each([
    ['listClaimable', 'entries_claim'],
    ['listPlaces', 'COVERING INDEX entries_claim'],
    ['firstOfChain', 'entries_chain'],
    ['listDue', 'entries_due'],
    ['nextDue', 'entries_due'],
    ['listExpired', 'entries_ttl'],
    ['nextExpiry', 'entries_ttl'],
    ['listByDeath', 'entries_death'],
    ['listDead', 'entries_dead'],
    ['listDelayed', 'entries_delayed'],
    ['nextOfChain', 'entries_chain'],
    ['listDroppable', 'entries_overflow'],
    ['firstEnding', 'dedupe_ending'],
    ['listEnded', 'dedupe_ending'],
  ] as const)('%s goes by %s', (name, index) => {
    const path = freshPath()
    const db = openDatabase({ path })
    const plan = db.prepare(`EXPLAIN QUERY PLAN ${SQL[name]}`).raw().all() as unknown[][]
    closeDatabase(db, path)
    expect(plan.map((step) => String(step[3])).join('\n')).toContain(` ${index} `)
  })
})
