import { connect, Reject, Worker } from '@xmq/client'
import {
  connectRawComponent,
  type DevBroker,
  type EmbeddedServer,
  startDevBroker,
  startEmbeddedServer,
} from '@xmq/testing'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { run } from './fake-io.ts'

const QUEUE = 'jobs.localhost'
let dev: DevBroker
const env: Record<string, string> = {}

beforeAll(async () => {
  dev = await startDevBroker({
    queues: { [QUEUE]: { type: 'any', admins: ['ops@localhost'] } },
    server: { accounts: { ops: 'pw', shop: 'pw' }, scramIterations: 1 },
  })
  Object.assign(env, { XMQ_SERVICE: dev.service, XMQ_JID: 'ops@localhost', XMQ_PASSWORD: 'pw' })
})
afterAll(() => dev.stop())

const dlq = (...argv: string[]) => run(['dlq', ...argv], { env })

/** Makes dead letters: `bills` are rejected. @returns their seqs */
async function bury(count: number, topic = 'bills'): Promise<number[]> {
  const account = { service: dev.service, jid: 'shop@localhost', password: 'pw', queue: QUEUE }
  const worker = new Worker({ ...account, on: { failed: () => {} } }).handle(topic, () => {
    throw new Reject('no such shop')
  })
  const client = await connect(account)
  const seqs: number[] = []
  for (let n = 0; n < count; n++) {
    const { seq = 0 } = await client.publish(
      topic,
      { n },
      { id: `bill-${n}-${Math.random()}`, headers: { trace: 't' } },
    )
    seqs.push(seq)
  }
  const failed = new Promise<void>((resolve) => {
    let left = count
    worker.on('failed', () => {
      if (--left === 0) resolve()
    })
  })
  await worker.start()
  await failed
  // Settles before it ends.
  await worker.stop()
  await client.close()
  return seqs
}

beforeEach(async () => {
  expect((await dlq('purge', QUEUE, '--all')).code).toBe(0)
})

describe('dlq', () => {
  it('lists dead letters, a line each, with why they died', async () => {
    expect(await dlq('ls', QUEUE)).toMatchObject({ code: 0, out: '', err: expect.stringContaining('no dead letters') })
    const seqs = await bury(3)
    const { code, out } = await dlq('ls', QUEUE)
    expect(code).toBe(0)
    const lines = out.trim().split('\n')
    expect(lines.map((line) => Number(line.split(' ')[0]))).toEqual(seqs)
    expect(lines[0]).toMatch(/rejected .* bills .* no such shop$/)
    const some = await dlq('ls', QUEUE, '--limit', '2')
    expect([some.out.trim().split('\n').length, some.err]).toEqual([2, expect.stringContaining(`--after ${seqs[1]}`)])
    expect((await dlq('ls', QUEUE, '--after', String(seqs[1]))).out.trim().split('\n')).toHaveLength(1)
    expect((await dlq('ls', QUEUE, '--topic', 'other')).out).toBe('')
  })

  it('lists objects for programs, with the payload where it is asked for', async () => {
    const [seq] = await bury(1)
    const bare = JSON.parse((await dlq('ls', QUEUE, '--output', 'json')).out) as object
    expect(bare).toMatchObject({ queue: QUEUE, seq, topic: 'bills', reason: 'rejected', failures: expect.any(Number) })
    expect(bare).not.toHaveProperty('payload')
    const full = JSON.parse((await dlq('ls', QUEUE, '--content', '--output', 'json')).out) as object
    expect(full).toMatchObject({ payload: { n: 0 }, headers: { trace: 't' }, history: [{ why: 'no such shop' }] })
  })

  it('shows one with history and payload, and ends with 1 where there is none', async () => {
    const [seq] = await bury(1)
    const { code, out } = await dlq('show', QUEUE, String(seq))
    expect(code).toBe(0)
    expect(out).toMatch(/^seq +\d+\nid +bill-0-/)
    expect(out).toMatch(/\nhistory +\S+ +(attempt 1 +)?shop@localhost +no such shop\n\n\{"n":0\}\n$/)
    const none = await dlq('show', QUEUE, '999999')
    expect([none.code, none.err]).toEqual([1, expect.stringContaining('999999 is no dead letter of jobs.localhost')])
  })

  it('replays some or all, and tells which were not there', async () => {
    const seqs = await bury(3, 'again')
    const some = await dlq('replay', QUEUE, String(seqs[0]), '999999', '--output', 'json')
    expect(some.code).toBe(1)
    expect(JSON.parse(some.out)).toMatchObject({ done: 1, failed: [{ seq: 999_999, error: { code: 'not-found' } }] })
    expect(await dlq('replay', QUEUE, '--all', '--topic', 'again')).toMatchObject({ code: 0, out: '2 replayed\n' })
    expect((await dlq('ls', QUEUE)).out).toBe('')
  })

  it('purges by seq, by topic, and all', async () => {
    const seqs = await bury(2)
    await bury(1, 'others')
    expect(await dlq('purge', QUEUE, String(seqs[0]))).toMatchObject({ code: 0, out: '1 purged\n' })
    expect(await dlq('purge', QUEUE, '--all', '--topic', 'others')).toMatchObject({ out: '1 purged\n' })
    expect(await dlq('purge', QUEUE, '--all')).toMatchObject({ out: '1 purged\n' })
    expect((await dlq('ls', QUEUE)).out).toBe('')
  })

  it('ends with 5 for all but admins, and says what to do', async () => {
    const { code, err } = await run(['dlq', 'ls', QUEUE, '--jid', 'shop@localhost'], { env })
    expect([code, err]).toEqual([5, expect.stringContaining('shop@localhost is no admin of jobs.localhost. Add it to')])
  })

  it.each([
    [['replay', QUEUE], 'There is nothing to replay'],
    [['purge', QUEUE, '1', '--all'], 'not both'],
    [['show', QUEUE, 'x'], "SEQ: 'x' is no whole number"],
    [['ls', QUEUE, '--limit', '0'], "--limit: '0' is no whole number"],
    [['ls', QUEUE, '--owner', 'a@b'], '--subscription and --owner go together'],
  ])('ends with 2 on %j', async (argv, text) => {
    const { code, err } = await dlq(...argv)
    expect([code, err]).toEqual([2, expect.stringContaining(text)])
  })
})

describe('dlq where no broker answers', () => {
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startEmbeddedServer({ accounts: { ops: 'pw' }, scramIterations: 1 })
  })
  afterAll(() => server.stop())

  // No test waits for an hour: what ends here was told.
  it.each([
    ['ls', []],
    ['show', ['1']],
    ['purge', ['--all']],
  ])('ends at once where the server says that nobody serves the queue: %s', async (command, more) => {
    const argv = ['dlq', command, QUEUE, ...more, '--timeout', '1h', '--service', `xmpp://127.0.0.1:${server.port}`]
    const { code, out, err } = await run(argv, { env })
    expect([code, out]).toEqual([6, ''])
    expect(err).toContain(`No broker serves ${QUEUE} on this server`)
    expect(err).toContain('Start the broker, or check the address')
    expect(err).not.toContain('Trying again')
  })

  it.each(['auto', 'reliable'])(
    'gives up on silence after --timeout, and says what to look at: mode %s',
    async (mode) => {
      const mute = await connectRawComponent({ port: server.componentPort, domain: QUEUE })
      try {
        const argv = [
          'dlq',
          'ls',
          QUEUE,
          '--timeout',
          '50ms',
          '--mode',
          mode,
          '--service',
          `xmpp://127.0.0.1:${server.port}`,
        ]
        const { code, err } = await run(argv, { env })
        expect(code).toBe(4)
        expect(err).toContain(`${QUEUE} did not answer within 50ms. Is its broker well?`)
      } finally {
        await mute.close()
      }
    },
  )

  it('does not wait longer than ten seconds for an answer unless it is told to', async () => {
    expect((await run(['dlq', 'ls', '--help'], { env })).out).toMatch(/--timeout <duration> .*\(default: "10s"\)/s)
  })
})
