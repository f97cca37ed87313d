import { Reject, Worker } from '@xmq/client'
import { type DevBroker, startDevBroker } from '@xmq/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { publishOptionsOf } from '../src/publish-flags.ts'
import { type FakeIoOptions, run } from './fake-io.ts'

const QUEUE = 'jobs.localhost'
let dev: DevBroker
const env: Record<string, string> = {}

beforeAll(async () => {
  dev = await startDevBroker({
    queues: { [QUEUE]: { type: 'any', admins: ['shop@localhost'] } },
    server: { accounts: { shop: 'pw' }, scramIterations: 1 },
  })
  Object.assign(env, { XMQ_SERVICE: dev.service, XMQ_JID: 'shop@localhost', XMQ_PASSWORD: 'pw' })
})
afterAll(() => dev.stop())

const cli = (argv: readonly string[], options: FakeIoOptions = {}) => run(argv, { env, ...options })

describe('what pub says of a message', () => {
  it('becomes the options of the SDK, in its units', () => {
    expect(publishOptionsOf({})).toEqual({})
    const flags = { id: 'order-42', key: 'shop-7', delay: '1.5s', ttl: '7d', priority: '9', header: ['a=b=c', 'd='] }
    expect(publishOptionsOf(flags)).toEqual({
      id: 'order-42',
      key: 'shop-7',
      delay: 1500,
      ttl: 604_800_000,
      priority: 9,
      headers: { a: 'b=c', d: '' },
    })
  })

  it('goes with it, and an id that was there already is a duplicate', async () => {
    const flags = [
      '--id',
      'order-42',
      '--key',
      'shop-7',
      '--priority',
      '7',
      '--header',
      'source=till',
      '--header',
      'n=1',
    ]
    const publish = () => cli(['pub', QUEUE, 'orders', 'x', ...flags, '--output', 'json'])
    const first = JSON.parse((await publish()).out) as { seq: number }
    expect(first).toMatchObject({ id: 'order-42', ok: true, duplicate: false })
    expect(JSON.parse((await publish()).out)).toMatchObject({ seq: first.seq, duplicate: true })
    const account = { service: dev.service, jid: 'shop@localhost', password: 'pw', queue: QUEUE }
    let tellFailed = (): void => {}
    const failed = new Promise<void>((resolve) => {
      tellFailed = resolve
    })
    const worker = new Worker({ ...account, on: { failed: () => tellFailed() } }).handle('orders', () => {
      throw new Reject('seen')
    })
    await worker.start()
    await failed
    await worker.stop()
    const { out } = await cli(['dlq', 'ls', QUEUE, '--topic', 'orders', '--content', '--output', 'json'])
    expect(JSON.parse(out)).toMatchObject({
      id: 'order-42',
      key: 'shop-7',
      priority: 7,
      headers: { source: 'till', n: '1' },
    })
  })

  it('is that of each line', async () => {
    const lines = (topicFlags: readonly string[], stdin: string) =>
      cli(['pub', QUEUE, 'lines', '--lines', ...topicFlags], { stdin })
    expect((await lines(['--delay', '1h', '--ttl', '2h'], 'later\n')).code).toBe(0)
    expect((await lines(['--key', 'k', '--priority', '1'], 'low 1\nlow 2\n')).code).toBe(0)
    expect((await lines(['--priority', '9'], 'high 1\nhigh 2\n')).code).toBe(0)
    const { out } = await cli(['sub', QUEUE, 'lines', '--count', '4'])
    expect(out).toBe('high 1\nhigh 2\nlow 1\nlow 2\n')
  })

  const WRONG: readonly [flags: readonly string[], text: string][] = [
    [['--id', 'x', '--lines'], '--id: the lines of stdin are many messages'],
    [['--id', ''], '--id: it has 0 bytes. Give 1 to 256.'],
    [['--id', 'a\tb'], '--id: it has a control character.'],
    [['--key', 'ü'.repeat(128)], '--key: it has 256 bytes. Give 1 to 255.'],
    [['--delay', '30'], "--delay: '30' is no duration. Write 500ms, 30s or 10m; at most 365d."],
    [['--delay', '366d'], "--delay: '366d' is no duration."],
    [['--ttl', '0s'], "--ttl: '0s' is no duration."],
    [['--delay', '1h', '--ttl', '60m'], '--delay: 1h is not less than --ttl 60m'],
    [['--priority', '10'], "--priority: '10' is none. Give a number from 0 to 9"],
    [['--priority', '-1'], "--priority: '-1' is none."],
    [['--header', 'source'], "--header: 'source' is none. Write NAME=VALUE"],
    [['--header', 'a=1', '--header', 'a=2'], "--header: 'a' stands twice."],
    [['--header', 'a b=1'], "--header: 'a b' is no name for a header"],
    [['--header', `a=${'x'.repeat(8192)}`], '--header: The headers have 8193 bytes'],
    [
      ['--key', 'k', '--mode', 'plain'],
      '--key: only a reliable queue knows it. Leave it out, or leave out --mode plain.',
    ],
  ]
  it.each(WRONG)('%j ends with 2 before anything connects', async (flags, text) => {
    const nowhere = { XMQ_SERVICE: 'xmpp://127.0.0.1:1', XMQ_JID: 'shop@localhost', XMQ_PASSWORD: 'pw' }
    const { code, err } = await run(['pub', QUEUE, 't', ...flags], { env: nowhere, stdin: 'x' })
    expect([code, err]).toEqual([2, expect.stringContaining(text)])
  })
})
