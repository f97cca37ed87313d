import { element, parseElement, stanza } from '@xmq/protocol'
import { startEmbeddedServer } from '@xmq/testing'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type ClientEvents, connect, defineTopic, type WorkerEvents } from '../src/index.ts'
import { deferred, next, rejection, startSetting } from './setting.ts'

const size = defineTopic('images.size', {
  input: z.object({ url: z.string() }),
  output: z.object({ width: z.number() }),
})
const note = defineTopic('note', { encoding: 'text' })

/** What a caller without types may write. */
const WRONG_EVENT: object = { onlime: () => {} }
const NO_TEXT: unknown = Buffer.from('-----BEGIN CERTIFICATE-----')
const WRONG_LISTENER: object = { online: 'log' }

describe('connect', () => {
  it('rejects at once on a wrong password, and says what to check', async () => {
    const { dev } = await startSetting()
    const error = await rejection(
      connect({ service: dev.service, jid: 'shop@localhost', password: 'wrong', queue: 'queue1.localhost' }),
    )
    expect(error).toMatchObject({ code: 'not-authorized', message: expect.stringContaining('shop@localhost') })
  })

  it('retries while nothing listens, until connectTimeout, and says where', async () => {
    const server = await startEmbeddedServer()
    const service = `xmpp://127.0.0.1:${server.port}`
    await server.stop()
    const error = await rejection(
      connect({
        service,
        jid: 'shop@localhost',
        password: 'pw',
        queue: 'q.localhost',
        connectTimeout: 200,
        backoff: { base: 1, max: 5 },
      }),
    )
    expect(error).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining(`Nothing listens at ${service}`),
    })
  })

  it('gives up when its signal fires', async () => {
    const server = await startEmbeddedServer()
    const service = `xmpp://127.0.0.1:${server.port}`
    await server.stop()
    const abort = new AbortController()
    const error = rejection(
      connect({ service, jid: 'a@localhost', password: 'pw', queue: 'q.localhost', signal: abort.signal }),
    )
    abort.abort()
    expect(await error).toMatchObject({ code: 'aborted' })
  })

  it('connects once a server comes up', async () => {
    const setting = await startSetting()
    await setting.dev.server.misbehave.kill()
    const connected = setting.connect()
    await setting.dev.server.misbehave.start()
    expect((await connected).status).toMatchObject({ state: 'online' })
  })

  it('tells its listeners what it waits for, from the first moment on', async () => {
    const setting = await startSetting()
    await setting.dev.server.misbehave.kill()
    const heard: string[] = []
    const refused = deferred()
    const connected = setting.connect({
      on: {
        connecting: ({ attempt }) => heard.push(`connecting ${attempt}`),
        offline: ({ reason }) => {
          heard.push(`offline ${reason.code}`)
          refused.resolve()
        },
        online: () => heard.push('online'),
      },
    })
    await refused.promise
    await setting.dev.server.misbehave.start()
    await connected
    expect(heard.slice(0, 3)).toEqual(['connecting 1', 'offline connection-lost', 'connecting 2'])
    expect(heard.at(-1)).toBe('online')
  })

  it('tells its listeners that no broker serves the queue, and why it closes', async () => {
    const setting = await startSetting()
    const waiting = deferred<string>()
    const closed = deferred<unknown>()
    const mq = await setting.connect({
      mode: 'auto',
      queue: 'nobody.localhost',
      on: { waiting: ({ reason }) => waiting.resolve(reason.message), closed: (event) => closed.resolve(event) },
    })
    expect(await waiting.promise).toMatch(/No broker serves nobody\.localhost/)
    await mq.close()
    expect(await closed.promise).toEqual({ reason: undefined })
  })

  it('works over WebSocket, and without an account where the domain takes anonymous users', async () => {
    const setting = await startSetting({
      queues: { 'queue1.localhost': { type: 'any', publish: ['localhost', 'anon.localhost'] } },
    })
    const service = setting.dev.server.websocketUrl ?? ''
    const mq = await setting.connect({ service, jid: 'anon.localhost' })
    const returned = next<ClientEvents, 'returned'>(mq, 'returned')
    await mq.publish(note, 'über 🦄')
    expect(await returned).toMatchObject({ error: { code: 'no-recipients' } })
  })

  it.each([
    [{ service: 'http://localhost' }, /service is 'http:\/\/localhost'/],
    [{ service: 'ws://example.org' }, /open to anybody/],
    [{ service: 'xmpp://user:pw@localhost' }, /user or password/],
    [{ jid: 'shop@localhost/home' }, /leave '\/home' out/],
    [{ queue: 'a b' }, /queue/],
    [{ mode: 'better' as 'plain' }, /mode is 'better'/],
    [{ tls: 'no' as 'off' }, /tls is 'no'/],
    [{ connectTimeout: '5 parsecs' as '5s' }, /connectTimeout/],
    [{ pendingMax: 0 }, /pendingMax/],
    [{ ca: '/etc/ssl/ca.pem' }, /^ca holds no certificate in PEM/],
    [{ ca: ['', 7] as string[] }, /^ca holds no certificate in PEM/],
    [{ ca: NO_TEXT as string[] }, /^ca is no text/],
    [{ on: WRONG_EVENT }, /on\.onlime is no event; did you mean 'online'\? Known: connecting, online/],
    [{ on: WRONG_LISTENER }, /on\.online is no function/],
  ])('refuses %o', async (options, text) => {
    const good = { service: 'xmpp://127.0.0.1:1', jid: 'shop@localhost', password: 'pw', queue: 'q.localhost' }
    expect(await rejection(connect({ ...good, ...options }))).toMatchObject({
      code: 'invalid-config',
      message: expect.stringMatching(text),
    })
  })
})

describe('publish and request', () => {
  it('reach a worker, typed on both ends, with the producer known', async () => {
    const setting = await startSetting()
    const got: unknown[] = []
    const worker = setting.worker().handle(size, ({ url }, context) => {
      got.push([url, context.kind, context.from])
      return { width: url.length }
    })
    await worker.start()
    const mq = await setting.connect()
    const jid = mq.status.state === 'online' ? mq.status.jid : ''
    const completed = next<WorkerEvents, 'completed'>(worker, 'completed', (event) => event.kind === 'message')
    await mq.publish(size, { url: 'a' }, { id: 'order-42' })
    expect(await mq.request(size, { url: 'bcd' })).toEqual({ width: 3 })
    expect(await completed).toMatchObject({ id: 'order-42', topic: 'images.size' })
    expect(got).toEqual([
      ['a', 'message', jid],
      ['bcd', 'request', jid],
    ])
  })

  it('keep the order of the calls, 500 messages long', async () => {
    const setting = await startSetting()
    const got: string[] = []
    const all = deferred()
    const worker = setting.worker({ concurrency: 1, prefetch: 1000 }).handle(note, (text) => {
      got.push(text)
      if (got.length === 500) all.resolve()
    })
    await worker.start()
    const mq = await setting.connect()
    const expected = Array.from({ length: 500 }, (_, index) => `${index} żółć 漢字 🦄`)
    await Promise.all(expected.map((text) => mq.publish(note, text)))
    await all.promise
    expect(got).toEqual(expected)
  })

  it('refuse what a server would close the stream for, and stay connected', async () => {
    const setting = await startSetting()
    const mq = await setting.connect()
    const xml = defineTopic('xml', { encoding: 'xml' })
    let deep = element('a', 'x')
    for (let depth = 0; depth < 40; depth++) deep = element('a', 'x', undefined, [deep])
    expect(await rejection(mq.publish(note, 'a\u0000b'))).toMatchObject({ code: 'illegal-character' })
    expect(await rejection(mq.publish(note, 'x'.repeat(250_000)))).toMatchObject({ code: 'too-large' })
    expect(await rejection(mq.publish(note, '"'.repeat(50_000)))).toMatchObject({ code: 'too-large' })
    expect(await rejection(mq.publish(xml, deep))).toMatchObject({ code: 'too-large' })
    expect(await rejection(mq.publish('json', { n: 1n }))).toMatchObject({ code: 'bad-request' })
    expect(mq.status).toMatchObject({ state: 'online' })
  })

  it('refuse a payload that the schema does not accept, naming where', async () => {
    const mq = await (await startSetting()).connect()
    const wrong = { url: 7 } as unknown as { url: string }
    const expected = { code: 'invalid-payload', message: expect.stringContaining('url: ') }
    expect(await rejection(mq.publish(size, wrong))).toMatchObject(expected)
    expect(await rejection(mq.request(size, wrong))).toMatchObject(expected)
  })

  it('tell when nobody is there: a request at once, a message as returned', async () => {
    const mq = await (await startSetting()).connect()
    expect(await rejection(mq.request(size, { url: 'a' }))).toMatchObject({ code: 'no-recipients' })
    const returned = next<ClientEvents, 'returned'>(mq, 'returned')
    const { id } = await mq.publish(size, { url: 'a' })
    expect(await returned).toMatchObject({ id, topic: 'images.size', error: { code: 'no-recipients' } })
  })

  it('say so when no broker serves the queue', async () => {
    const setting = await startSetting()
    const mq = await setting.connect({ mode: 'auto', queue: 'queue9.localhost' })
    const error = await rejection(mq.publish(note, 'a', { timeout: 100 }))
    expect(error.message).toMatch(/No broker serves queue9.localhost on this server yet/)
    const fixed = await setting.connect({ queue: 'queue9.localhost', mode: 'plain' })
    expect((await rejection(fixed.request(note, 'a'))).message).toMatch(/No broker serves queue9.localhost/)
  })

  it('fail with forbidden where the queue does not let the account', async () => {
    const setting = await startSetting({ queues: { 'queue1.localhost': { type: 'any', publish: ['w1@localhost'] } } })
    const mq = await setting.connect()
    expect(await rejection(mq.request(note, 'a'))).toMatchObject({ code: 'forbidden', fromBroker: true })
  })

  it('stop waiting when their signal fires or their time is over', async () => {
    const setting = await startSetting()
    const release = deferred()
    const worker = setting.worker().handle(note, () => release.promise)
    await worker.start()
    const mq = await setting.connect()
    expect(await rejection(mq.request(note, 'a', { signal: AbortSignal.timeout(20) }))).toMatchObject({
      code: 'timeout',
    })
    expect(await rejection(mq.request(note, 'a', { timeout: 20 }))).toMatchObject({ code: 'timeout' })
    expect(await rejection(mq.request(note, 'a', { signal: AbortSignal.abort() }))).toMatchObject({ code: 'aborted' })
    release.resolve()
  })

  it('take no answer but the queue’s: another account that sees the id cannot answer', async () => {
    const setting = await startSetting()
    const asked = deferred<string>()
    const release = deferred()
    const worker = setting.worker().handle(note, async () => {
      await release.promise
      return 'genuine'
    })
    await worker.start()
    const mq = await setting.connect()
    const jid = mq.status.state === 'online' ? mq.status.jid : ''
    setting.dev.server.on('stanza', ({ stanza: seen }) => {
      if (seen.name === 'iq' && seen.attrs.get('from') === jid && seen.attrs.get('type') === 'get') {
        asked.resolve(seen.attrs.get('id') ?? '')
      }
    })
    const answer = mq.request(note, 'a')
    const id = await asked.promise
    const ignored = next<ClientEvents, 'ignored'>(mq, 'ignored')
    const mallory = await setting.raw('mallory')
    mallory.send(`<iq type='result' id='${id}' to='${jid}'><body xmlns='jabber:client'>forged</body></iq>`)
    expect(await ignored).toMatchObject({ from: mallory.jid })
    release.resolve()
    expect(await answer).toBe('genuine')
  })
})

describe('a connection that ends', () => {
  it.each(['cut', 'reset', 'close'] as const)('by %s comes back, and what was open fails', async (manner) => {
    const setting = await startSetting()
    const started = deferred()
    const release = deferred()
    const worker = setting.worker().handle(note, async (text) => {
      started.resolve()
      if (text === 'first') await release.promise
      return text
    })
    await worker.start()
    const mq = await setting.connect()
    const open = rejection(mq.request(note, 'first'))
    await started.promise
    const jid = mq.status.state === 'online' ? mq.status.jid : ''
    const online = next<ClientEvents, 'online'>(mq, 'online')
    setting.dev.server.misbehave.dropSession(jid, manner)
    expect(await open).toMatchObject({ code: 'connection-lost' })
    expect((await online).jid).not.toBe(jid)
    release.resolve()
    expect(await mq.request(note, 'second')).toBe('second')
  })

  it('in the middle of a stanza comes back', async () => {
    const setting = await startSetting()
    const mq = await setting.connect()
    const jid = mq.status.state === 'online' ? mq.status.jid : ''
    expect(await rejection(mq.request(note, 'a'))).toMatchObject({ code: 'no-recipients' })
    setting.dev.server.misbehave.cutNextStanza(jid)
    const online = next<ClientEvents, 'online'>(mq, 'online')
    expect(await rejection(mq.request(note, 'a'))).toMatchObject({ code: 'connection-lost' })
    await online
    expect(await rejection(mq.request(note, 'a'))).toMatchObject({ code: 'no-recipients' })
  })

  it('lets publishes wait, in order, until the server is back', async () => {
    const setting = await startSetting()
    const got: string[] = []
    const all = deferred()
    const worker = setting.worker({ concurrency: 1 }).handle(note, (text) => {
      got.push(text)
      if (text === 'c') all.resolve()
    })
    await worker.start()
    const mq = await setting.connect()
    const offline = next<ClientEvents, 'offline'>(mq, 'offline')
    await setting.dev.server.misbehave.kill()
    await offline
    const renewed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed')
    // Publishes wait for the producer's own connection; the worker has to be back, too, or they bounce.
    const queued = renewed.then(() => Promise.all(['a', 'b', 'c'].map((text) => mq.publish(note, text))))
    await setting.dev.server.misbehave.start()
    await queued
    await all.promise
    expect(got).toEqual(['a', 'b', 'c'])
  })

  it('fails a publish that waited too long with the reason, and all of them on close', async () => {
    const setting = await startSetting()
    const mq = await setting.connect({ backoff: { base: '1h', max: '1h' } })
    const offline = next<ClientEvents, 'offline'>(mq, 'offline')
    await setting.dev.server.misbehave.kill()
    await offline
    expect(await rejection(mq.publish(note, 'a', { timeout: 20 }))).toMatchObject({ code: 'connection-lost' })
    const waiting = rejection(mq.publish(note, 'b'))
    await mq.close()
    expect(await waiting).toMatchObject({ code: 'closed' })
    expect(await rejection(mq.publish(note, 'c'))).toMatchObject({ code: 'closed' })
    await setting.dev.server.misbehave.start()
  })
})

describe('what the server may send', () => {
  it('is read over limits without losing the connection: a request whose answer is too deep fails', async () => {
    const setting = await startSetting()
    const mq = await setting.connect({ mode: 'mod_xmq' })
    const jid = mq.status.state === 'online' ? mq.status.jid : ''
    const mallory = await setting.raw('mallory')
    const ignored = next<ClientEvents, 'ignored'>(mq, 'ignored')
    mallory.send(`<message to='${jid}'>${'<a>'.repeat(31)}${'</a>'.repeat(31)}</message>`)
    mallory.send(`<message to='${jid}'><a ${Array.from({ length: 70 }, (_, n) => `a${n}='1'`).join(' ')}/></message>`)
    // The embedded server may refuse these itself: then the next one shows that nothing broke.
    mallory.send(stanza('message', { to: jid }, [parseElement("<xmq xmlns='xmq:topic' topic='nobody'/>")]))
    expect(await ignored).toMatchObject({ what: expect.any(String) })
    expect(mq.status).toMatchObject({ state: 'online' })
  })
})

describe('debug', () => {
  it.each(['xmpp', 'ws'])('shows stanzas and hides what SASL exchanges (%s)', async (kind) => {
    const setting = await startSetting()
    const lines: string[] = []
    const password = 'pw'
    const mq = await setting.connect({
      service: kind === 'ws' ? (setting.dev.server.websocketUrl ?? '') : setting.dev.service,
      debug: (line) => lines.push(line),
      password,
    })
    await rejection(mq.request(note, 'visible'))
    const log = lines.join('\n')
    expect(log).toContain('visible')
    expect(log).toMatch(/<auth [^>]*><hidden/)
    for (const secret of [`\0shop\0${password}`, `n,,n=shop`]) {
      expect(log).not.toContain(Buffer.from(secret).toString('base64').slice(0, 12))
    }
    expect(log).not.toMatch(/<(challenge|response|success)[^>]*>[^<]/)
  })
})

describe('TLS policy', () => {
  it('refuses a server without TLS when it is required, before any credentials leave', async () => {
    const setting = await startSetting()
    const lines: string[] = []
    const error = await rejection(setting.connect({ tls: 'required', debug: (line) => lines.push(line) }))
    expect(error).toMatchObject({ code: 'invalid-config', message: expect.stringContaining('offers no TLS') })
    expect(lines.join('\n')).not.toContain('<auth')
  })
})
