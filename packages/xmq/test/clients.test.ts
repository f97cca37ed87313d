import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { main } from '../src/main.ts'
import { fakeIo, run, temporaryFolder, type FakeIo, type FakeIoOptions } from './fake-io.ts'

const QUEUE = 'queue1.localhost'
const ALL = 'queue2.localhost'
const env: Record<string, string> = {}
let clean: () => void
let dev: FakeIo
let devEnded: Promise<number>

beforeAll(async () => {
  const cwd = temporaryFolder((callback) => {
    clean = callback
  })
  dev = fakeIo({ cwd })
  devEnded = main(['dev', '--port', '0', '--websocket-port', 'off', '--output', 'json'], dev)
  await dev.until('"ready"')
  env['XMQ_SERVICE'] = (JSON.parse(dev.out) as { service: string }).service
})
afterAll(async () => {
  dev.stop()
  await devEnded
  clean()
})

const cli = (argv: readonly string[], options: FakeIoOptions = {}) => run(argv, { env, ...options })

/** A subscriber that is subscribed; ended after the test. */
async function subscriber(argv: readonly string[], options: FakeIoOptions = {}) {
  const io = fakeIo({ env: { ...env, NO_COLOR: '1' }, ...options })
  // Only a terminal is told that it is subscribed.
  Object.assign(io.stderr, { isTTY: true })
  const ended = main(['sub', ...argv], io)
  onTestFinished(async () => {
    io.stop()
    await ended
  })
  await Promise.race([io.until('subscribed to'), ended])
  return { io, ended }
}

describe('pub', () => {
  it('sends an argument, a pipe and the lines of a pipe, which sub prints in order', async () => {
    const { io, ended } = await subscriber([QUEUE, 'order', '--count', '5'])
    expect(await cli(['pub', QUEUE, 'order', 'an argument'])).toEqual({ code: 0, out: '', err: '' })
    expect((await cli(['pub', QUEUE, 'order'], { stdin: ['a ', 'pipe\n'] })).code).toBe(0)
    expect((await cli(['pub', QUEUE, 'order', '--lines'], { stdin: ['1\n2', '\n3'] })).code).toBe(0)
    expect(await ended).toBe(0)
    expect(io.out).toBe('an argument\na pipe\n1\n2\n3\n')
  })

  it('sends JSON without losing a digit', async () => {
    const { io, ended } = await subscriber([QUEUE, 'json', '--count', '1'])
    expect((await cli(['pub', QUEUE, 'json', '--json', '{"n":12345678901234567890}'])).code).toBe(0)
    await ended
    expect(io.out).toBe('{"n":12345678901234567890}\n')
  })

  it('keeps characters that a pipe cuts in two', async () => {
    const { io, ended } = await subscriber([QUEUE, 'utf8', '--count', '1'])
    const bytes = new TextEncoder().encode('Grüße 🐇')
    const stdin = Array.from(bytes, (byte) => Uint8Array.of(byte)) as unknown as string[]
    expect((await cli(['pub', QUEUE, 'utf8'], { stdin })).code).toBe(0)
    await ended
    expect(io.out).toBe('Grüße 🐇\n')
  })

  it('tells a program what became of each message, with its id', async () => {
    const { io } = await subscriber([QUEUE, 'ids', '--output', 'json'])
    const taken = await cli(['pub', QUEUE, 'ids', 'x', '--output', 'json'])
    expect(JSON.parse(taken.out)).toEqual({
      queue: QUEUE,
      topic: 'ids',
      id: expect.any(String),
      ok: true,
      seq: expect.any(Number),
      durability: 'memory',
      duplicate: false,
    })
    expect(JSON.parse(io.out)).toMatchObject({ id: (JSON.parse(taken.out) as { id: string }).id })
    const refused = await cli(['pub', QUEUE, 'nobody', 'x', '--mode', 'plain', '--output', 'json'])
    const { id, error, ...rest } = JSON.parse(refused.out) as { id: string; error: unknown }
    expect(rest).toEqual({ queue: QUEUE, topic: 'nobody' })
    expect(error).toEqual({ code: 'no-recipients', text: expect.stringContaining('Nobody is subscribed') })
    expect([refused.code, refused.err]).toEqual([3, expect.stringContaining(id)])
  })

  it('tells the fate of each of many lines once, in the order sent', async () => {
    const numbers = Array.from({ length: 2500 }, (_, index) => index + 1)
    const { code, out } = await cli(['pub', ALL, 'many', '--lines', '--output', 'json'], { stdin: numbers.join('\n') })
    expect(code).toBe(0)
    const results = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { line: number; ok: boolean })
    expect(results.map(({ line }) => line)).toEqual(numbers)
    expect(results.every(({ ok }) => ok)).toBe(true)
  })

  it('names the line and the id of what was refused', async () => {
    const { err } = await cli(['pub', QUEUE, 'nobody', '--lines', '--mode', 'plain'], { stdin: 'a\nb\n' })
    expect(err).toMatch(/^xmq: line 1, message [-0-9a-f]{36}: Nobody.*\nxmq: line 2, message .*\nxmq: 2 of 2 messages/)
  })

  it('ends with 2 at a line that cannot be sent, and tells what became of those before it', async () => {
    for (const [bad, argv, text] of [
      ['{', ['--json'], 'Line 3 of stdin is not JSON'],
      ['\u0001', [], 'Line 3 of stdin: '],
    ] as const) {
      const lines = `1\n2\n${bad}\n4\n`
      const { code, out, err } = await cli(
        ['pub', QUEUE, 'nobody', '--lines', '--mode', 'plain', '--output', 'json', ...argv],
        {
          stdin: lines,
        },
      )
      expect(code).toBe(2)
      expect(out.trim().split('\n')).toHaveLength(2)
      const { error } = JSON.parse(err) as { error: { text: string } }
      expect(error.text).toContain(text)
      expect(error.text).toContain('It and what follows it were not sent; 2 before it were, and 2 of them failed.')
    }
  })

  it('refuses binary data instead of changing it, and names the line', async () => {
    const binary = [Uint8Array.of(0x61, 0x0a, 0xff, 0xfe, 0x0a)] as unknown as string[]
    const whole = await cli(['pub', ALL, 't'], { stdin: binary })
    expect([whole.code, whole.out, whole.err]).toEqual([2, '', expect.stringMatching(/stdin is not UTF-8.*base64/)])
    const lines = await cli(['pub', ALL, 't', '--lines', '--output', 'json'], { stdin: binary })
    expect([lines.code, lines.err]).toEqual([2, expect.stringContaining('Line 2 of stdin is not UTF-8')])
    expect(JSON.parse(lines.out)).toMatchObject({ line: 1, ok: true })
    expect((await cli(['request', QUEUE, 't'], { stdin: binary })).code).toBe(2)
  })

  it('ends with 3 where nobody is subscribed, and says who could be', async () => {
    const { code, err } = await cli(['pub', QUEUE, 'nobody', 'x', '--mode', 'plain'])
    expect([code, err]).toEqual([
      3,
      expect.stringContaining(`Nobody is subscribed to 'nobody' at ${QUEUE}. Subscribe with: xmq sub`),
    ])
    const lines = await cli(['pub', QUEUE, 'nobody', '--lines', '--mode', 'plain'], { stdin: 'a\nb\n' })
    expect([lines.code, lines.err]).toEqual([
      3,
      expect.stringContaining('2 of 2 messages were refused: Nobody is subscribed'),
    ])
  })

  it('ends with 0 where nobody is subscribed to a reliable queue, which keeps the message', async () => {
    expect((await cli(['pub', QUEUE, 'kept', 'for later'])).code).toBe(0)
    const { io, ended } = await subscriber([QUEUE, 'kept', '--count', '1'])
    await ended
    expect(io.out).toBe('for later\n')
  })

  it('ends with 0 where nobody is subscribed to a queue of type all', async () => {
    expect((await cli(['pub', ALL, 'nobody', 'x'])).code).toBe(0)
  })

  it('ends with 5 on a wrong password, which comes from a file or the environment', async () => {
    const cwd = temporaryFolder(onTestFinished)
    writeFileSync(join(cwd, 'password'), 'wrong\n')
    await cli(['pub', ALL, 't', 'x', '--jid', 'shop@localhost'])
    const flags = ['pub', ALL, 't', 'x', '--jid', 'shop@localhost']
    const wrong = await cli([...flags, '--password-file', 'password'], { cwd })
    expect([wrong.code, wrong.err]).toEqual([5, expect.stringContaining('shop@localhost')])
    expect((await cli(flags, { env: { ...env, XMQ_PASSWORD: 'wrong' } })).code).toBe(5)
    expect((await cli(flags, { env: { ...env, XMQ_PASSWORD: 'shop' } })).code).toBe(0)
    writeFileSync(join(cwd, 'password'), 'shop\n')
    chmodSync(join(cwd, 'password'), 0o600)
    expect((await cli([...flags, '--password-file', 'password'], { cwd })).code).toBe(0)
  })

  it('ends with 6 without a server or a queue', async () => {
    const noServer = await cli([
      'pub',
      QUEUE,
      't',
      'x',
      '--service',
      'xmpp://127.0.0.1:1',
      '--connect-timeout',
      '300ms',
    ])
    expect([noServer.code, noServer.err]).toEqual([6, expect.stringContaining('xmpp://127.0.0.1:1')])
    for (const argv of [['pub'], ['request']]) {
      const noQueue = await cli([...argv, 'nowhere.localhost', 't', 'x', '--timeout', '1s'])
      expect([noQueue.code, noQueue.err]).toEqual([6, expect.stringContaining('nowhere.localhost')])
    }
    const sub = await cli(['sub', 'nowhere.localhost', 't', '--timeout', '1s'])
    expect([sub.code, sub.err]).toEqual([6, expect.stringContaining('nowhere.localhost')])
  })

  const WRONG: readonly [name: string, argv: readonly string[], options: FakeIoOptions, text: string][] = [
    ['no body', ['pub', QUEUE, 't'], {}, 'There is nothing to publish. Give BODY, or a pipe'],
    ['JSON that is none', ['pub', QUEUE, 't', '--json', '{a'], {}, 'The body is not JSON'],
    ['lines and a body', ['pub', QUEUE, 't', 'x', '--lines'], {}, '--lines reads stdin; leave out BODY.'],
    ['a timeout without a unit', ['pub', QUEUE, 't', 'x', '--timeout', '3'], {}, "--timeout: '3' is no duration."],
    [
      'a JID without an account',
      ['pub', QUEUE, 't', 'x', '--jid', 'localhost'],
      {},
      "--jid: 'localhost' names no account.",
    ],
    [
      'a service that is no address',
      ['pub', QUEUE, 't', 'x', '--service', 'example.org'],
      {},
      'Write xmpp://HOST:PORT',
    ],
    ['no password elsewhere', ['pub', QUEUE, 't', 'x', '--service', 'xmpp://example.org'], {}, 'Give XMQ_PASSWORD'],
    [
      'a password file that is not there',
      ['pub', QUEUE, 't', 'x', '--password-file', 'no'],
      {},
      '--password-file: /nowhere/no cannot be read',
    ],
    ['a topic that is none', ['pub', QUEUE, '', 'x'], {}, "Attribute 'topic' is empty"],
    ['a character that XML cannot carry', ['pub', QUEUE, 't', 'a\u0001'], {}, 'U+0001'],
  ]
  it.each(WRONG)('ends with 2 on %s', async (_, argv, options, text) => {
    const { code, err, out } = await cli(argv, options)
    expect([code, out]).toEqual([2, ''])
    expect(err).toContain(text)
    expect(err).not.toMatch(/\n\s+at /)
  })

  it('ends with 2 on authorities that are no PEM, also where no TLS comes about', async () => {
    const cwd = temporaryFolder(onTestFinished)
    const good = readFileSync(new URL('../../client/test/certificates/ca.pem', import.meta.url), 'utf8')
    const files = {
      'key.pem': ['-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', 'no certificate in PEM'],
      'ca.der': ['0\u0082\u0001', 'openssl x509 -inform der'],
      'cut.pem': [`${good}-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n`, 'number 2 of 2'],
    } as const
    for (const [file, [content, text]] of Object.entries(files)) {
      writeFileSync(join(cwd, file), content)
      const { code, err } = await cli(['pub', ALL, 't', 'x', '--ca', file], { cwd })
      expect([code, err]).toEqual([2, expect.stringContaining(`--ca: ${join(cwd, file)} holds`)])
      expect(err).toContain(text)
      expect((await cli(['sub', ALL, 't'], { cwd, env: { ...env, XMQ_CA: file } })).code).toBe(2)
    }
    writeFileSync(join(cwd, 'ca.pem'), `an authority\n${good}`)
    expect((await cli(['pub', ALL, 't', 'x', '--ca', 'ca.pem'], { cwd })).code).toBe(0)
  })

  it('refuses what no message can hold before it has read all of it', async () => {
    let read = 0
    const io = fakeIo({ env, stdin: '' })
    Object.assign(io.stdin, {
      async *[Symbol.asyncIterator]() {
        for (; ; read++) yield await Promise.resolve('x'.repeat(65_536))
      },
    })
    expect(await main(['pub', QUEUE, 't'], io)).toBe(1)
    expect(io.err).toContain('204800 bytes')
    expect(read).toBeLessThan(10)
  })

  it('tells a program of a failure as JSON', async () => {
    const { code, err } = await cli(['pub', QUEUE, 'nobody', 'x', '--mode', 'plain', '--output', 'json'])
    expect(code).toBe(3)
    expect(JSON.parse(err)).toMatchObject({ error: { code: 'no-recipients', exit: 3 } })
  })
})

describe('sub', () => {
  it('prints objects for a program: id, sender, payload', async () => {
    const { io, ended } = await subscriber([QUEUE, 'objects', '--count', '2', '--output', 'json'])
    await cli(['pub', QUEUE, 'objects', 'a "text"'])
    await cli(['pub', QUEUE, 'objects', '--json', '{"a":[1]}'])
    await ended
    const [first, second] = io.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(first).toMatchObject({ queue: QUEUE, topic: 'objects', kind: 'message', type: 'text', payload: 'a "text"' })
    expect(first?.['from']).toMatch(/^xmq@localhost\//)
    expect(second).toMatchObject({ type: 'json', payload: { a: [1] } })
  })

  it('ends with 0 on Ctrl-C, and is unsubscribed', async () => {
    const { io, ended } = await subscriber([QUEUE, 'leaving'])
    io.stop()
    expect(await ended).toBe(0)
    expect((await cli(['pub', QUEUE, 'leaving', 'x', '--mode', 'plain'])).code).toBe(3)
  })

  it('ends with 0 on Ctrl-C while it connects', async () => {
    const io = fakeIo({ env })
    const ended = main(['sub', QUEUE, 't', '--service', 'xmpp://127.0.0.1:1'], io)
    await io.until('Trying again.')
    io.stop()
    expect(await ended).toBe(0)
  })

  it('prints no control sequence of a stranger on a terminal', async () => {
    const { io } = await subscriber([QUEUE, 'evil'], { isTTY: true })
    await cli(['pub', QUEUE, 'evil', 'a\u0085\u009b2Jb'])
    await io.until('2Jb')
    expect(io.out).toBe('a\ufffd\ufffd2Jb\n')
  })

  it('takes no more from a queue than it prints', async () => {
    const lines = '1\n2\n3\n4\n5\n'
    expect((await cli(['pub', QUEUE, 'some', '--lines'], { stdin: lines })).code).toBe(0)
    expect((await cli(['sub', QUEUE, 'some', '--count', '1'])).out).toBe('1\n')
    const rest = await cli(['sub', QUEUE, 'some', '--count', '4', '--output', 'json'])
    const attempts = rest.out
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { attempt: number }).attempt)
    // The next one may have come along when the first was printed; the others had not left the queue.
    expect(attempts.slice(1)).toEqual([1, 1, 1])
  })

  it('ends with 2 on a count that is none', async () => {
    expect(await cli(['sub', QUEUE, 't', '--count', '0'])).toMatchObject({ code: 2 })
  })
})

describe('a durable subscription', () => {
  const named = (topic: string, name: string, ...more: string[]) => ['sub', ALL, topic, '--name', name, ...more]

  it('keeps what is published while nobody is there, until it is forgotten', async () => {
    const { io, ended } = await subscriber([ALL, 'news.>', '--name', 'reader'])
    await cli(['pub', ALL, 'news.eu', 'first'])
    await io.until('first')
    io.stop()
    expect(await ended).toBe(0)
    await cli(['pub', ALL, 'news.us', 'second'])
    await cli(['pub', ALL, 'weather', 'no news'])
    await cli(['pub', ALL, 'news.eu', 'third'])
    const { code, out } = await cli([...named('news.>', 'reader', '--count', '2')])
    expect([code, out]).toEqual([0, 'second\nthird\n'])

    await cli(['pub', ALL, 'news.eu', 'forgotten'])
    expect(await cli(['forget', ALL, 'reader'])).toEqual({ code: 0, out: '', err: '' })
    const again = await subscriber([ALL, 'news.>', '--name', 'reader', '--count', '1'])
    await cli(['pub', ALL, 'news.eu', 'anew'])
    await again.ended
    expect(again.io.out).toBe('anew\n')
  })

  it('is shared by those who give its name', async () => {
    const one = await subscriber([ALL, 'shared', '--name', 'team'])
    const two = await subscriber([ALL, 'shared', '--name', 'team'])
    await cli(['pub', ALL, 'shared', '--lines'], { stdin: '1\n2\n3\n4\n' })
    await cli(['pub', ALL, 'shared', 'last', '--delay', '10ms'])
    await Promise.race([one.io.until('last'), two.io.until('last')])
    const both = `${one.io.out}${two.io.out}`.trim().split('\n').toSorted()
    expect(both).toEqual(['1', '2', '3', '4', 'last'])
  })

  it('is refused where its name is to another topic, with 7, and what to do', async () => {
    const { io, ended } = await subscriber([ALL, 'a', '--name', 'fixed'])
    io.stop()
    await ended
    const { code, err } = await cli(named('b', 'fixed'))
    expect([code, err]).toEqual([7, expect.stringContaining(`xmq forget ${ALL} 'fixed'`)])
  })

  it('is refused by a queue that has none, with 2', async () => {
    expect(await cli(['sub', QUEUE, 't', '--name', 'x'])).toMatchObject({
      code: 2,
      err: expect.stringContaining("'any'"),
    })
    expect(await cli(['sub', ALL, 't', '--name', ''])).toMatchObject({
      code: 2,
      err: expect.stringContaining('--name'),
    })
    const plain = await cli(['sub', ALL, 't', '--name', 'x', '--mode', 'plain'])
    expect(plain).toMatchObject({ code: 2, err: expect.stringContaining('leave out --mode plain') })
  })

  it('cannot be forgotten where there is none of that name', async () => {
    const text = await cli(['forget', ALL, 'nobody'])
    expect(text).toMatchObject({ code: 1, err: expect.stringContaining("no durable subscription 'nobody'") })
    const json = await cli(['forget', ALL, 'nobody', '--output', 'json'])
    expect(JSON.parse(json.err)).toMatchObject({ error: { code: 'not-found' } })
    const { code } = await cli(['forget', 'nowhere.localhost', 'x'])
    expect(code).toBe(6)
  })
})

describe('request', () => {
  it('prints the answer of a worker', async () => {
    await subscriber([QUEUE, 'add', '--json', '--reply', '{"sum":3}'])
    const text = await cli(['request', QUEUE, 'add', '--json', '{"a":1,"b":2}'])
    expect(text).toEqual({ code: 0, out: '{"sum":3}\n', err: '' })
    const json = await cli(['request', QUEUE, 'add', '--output', 'json'])
    expect(JSON.parse(json.out)).toMatchObject({ type: 'json', payload: { sum: 3 }, elapsedMs: expect.any(Number) })
  })

  it('hands a pipe to the worker', async () => {
    const { io } = await subscriber([QUEUE, 'echo', '--reply', 'heard'])
    expect((await cli(['request', QUEUE, 'echo'], { stdin: 'from a pipe\n' })).out).toBe('heard\n')
    expect(io.out).toBe('from a pipe\n')
  })

  it('ends with 3 where nobody is subscribed, of either type', async () => {
    for (const queue of [QUEUE, ALL]) expect((await cli(['request', queue, 'nobody'])).code).toBe(3)
  })

  it('ends with 1 where the worker refuses', async () => {
    await subscriber([QUEUE, 'mute'])
    const { code, err } = await cli(['request', QUEUE, 'mute'])
    expect([code, err]).toEqual([1, expect.stringContaining("'xmq sub' answers requests only with --reply.")])
  })
})
