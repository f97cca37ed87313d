import { connectRawClient, startEmbeddedServer } from '@xmq/testing'
import { element, stanza } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { connect, defineTopic, Worker, type ClientEvents, type WorkerEvents } from '../src/index.ts'
import { afterTest, deferred, next, rejection, startSetting } from './setting.ts'

const size = defineTopic('images.size', {
  input: z.object({ url: z.string() }),
  output: z.object({ width: z.number() }),
})
const note = defineTopic('note', { encoding: 'text' })
const json = defineTopic('json')

describe('start', () => {
  it('waits until the queue knows every topic', async () => {
    const setting = await startSetting()
    const worker = setting
      .worker()
      .handle(note, () => 'a')
      .handle(json, () => 1)
    const subscribed: string[] = []
    setting.dev.broker.on('subscribed', ({ topic }) => subscribed.push(topic))
    await worker.start()
    expect(subscribed).toEqual(['note', 'json'])
    expect(worker.state).toBe('running')
  })

  it('fails where the queue refuses the account, and closes', async () => {
    const setting = await startSetting({ queues: { 'queue1.localhost': { type: 'any', consume: ['w2@localhost'] } } })
    const worker = setting.worker().handle(note, () => 'a')
    expect(await rejection(worker.start())).toMatchObject({ code: 'forbidden' })
    expect(worker.state).toBe('stopped')
    expect(worker.status.state).toBe('closed')
  })

  it('waits for a broker that is not there yet, saying so', async () => {
    const server = await startEmbeddedServer({ accounts: { w1: 'pw' }, scramIterations: 1 })
    afterTest(() => server.stop())
    const worker = new Worker({
      service: `xmpp://127.0.0.1:${server.port}`,
      jid: 'w1@localhost',
      password: 'pw',
      queue: 'queue1.localhost',
      connectTimeout: 200,
    }).handle(note, () => 'a')
    const error = await rejection(worker.start())
    expect(error.message).toMatch(/Not connected within 200 ms.*No broker serves queue1.localhost/)
  })

  it.each([
    ['no handler', (worker: Worker) => worker.start(), /handles no topic/],
    [
      'two handlers for a topic',
      async (worker: Worker) => worker.handle(note, () => {}).handle(note, () => {}),
      /already/,
    ],
  ])('refuses %s', async (_what, act, text) => {
    const setting = await startSetting()
    const error = await rejection(Promise.resolve().then(async () => void (await act(setting.worker()))))
    expect(error).toMatchObject({ code: 'invalid-config', message: expect.stringMatching(text) })
  })
})

describe('handlers', () => {
  it('answer with what they return, through middleware in order', async () => {
    const setting = await startSetting()
    const order: string[] = []
    const worker = setting
      .worker()
      .use(async (context, proceed) => {
        order.push(`outer ${context.topic}`)
        const answer = await proceed()
        order.push('after')
        return answer
      })
      .use((_context, proceed) => {
        order.push('inner')
        return proceed()
      })
      .handle(json, (payload) => {
        order.push('handler')
        return [payload]
      })
    await worker.start()
    const mq = await setting.connect()
    expect(await mq.request(json, { a: 1 })).toEqual([{ a: 1 }])
    expect(await mq.request(json, undefined)).toEqual([null])
    expect(order.slice(0, 4)).toEqual(['outer json', 'inner', 'handler', 'after'])
  })

  it('that throw answer with handler-failed and the message, never the stack, and the worker goes on', async () => {
    const setting = await startSetting()
    const failures: string[] = []
    const worker = setting.worker().handle(json, (payload) => {
      if (payload === 'bad') throw new Error('no such \u0001 picture')
      return 'fine'
    })
    worker.on('failed', ({ kind, error }) => failures.push(`${kind} ${error.code}`))
    await worker.start()
    const mq = await setting.connect()
    expect(await rejection(mq.request(json, 'bad'))).toMatchObject({
      code: 'handler-failed',
      message: 'no such \ufffd picture',
      condition: 'undefined-condition',
      fromBroker: true,
    })
    const failed = next<WorkerEvents, 'failed'>(worker, 'failed', ({ kind }) => kind === 'message')
    await mq.publish(json, 'bad', { id: 'm7' })
    expect(await failed).toMatchObject({ id: 'm7', topic: 'json', error: { code: 'handler-failed' } })
    expect(await mq.request(json, 'good')).toBe('fine')
    expect(failures).toEqual(['request handler-failed', 'message handler-failed'])
  })

  it('never see a payload that the schema does not accept', async () => {
    const setting = await startSetting()
    let calls = 0
    const worker = setting.worker().handle(size, () => {
      calls++
      return { width: 1 }
    })
    worker.on('failed', () => {})
    await worker.start()
    const mq = await setting.connect()
    const loose = defineTopic('images.size')
    const error = await rejection(mq.request(loose, { url: 7 }))
    expect(error).toMatchObject({ code: 'invalid-payload', message: expect.stringContaining('url: ') })
    const markup = defineTopic('images.size', { encoding: 'xml' })
    expect(await rejection(mq.request(markup, element('a', 'x:y')))).toMatchObject({ code: 'invalid-payload' })
    expect(calls).toBe(0)
  })

  it('whose answer does not fit the schema fail at the worker', async () => {
    const setting = await startSetting()
    const wrong = { width: 'wide' } as unknown as { width: number }
    const worker = setting.worker().handle(size, () => wrong)
    worker.on('failed', () => {})
    await worker.start()
    const mq = await setting.connect()
    expect(await rejection(mq.request(size, { url: 'a' }))).toMatchObject({ code: 'handler-failed' })
  })

  it('take a body that parses as JSON, and requests in the flat form with their answer bare', async () => {
    const setting = await startSetting()
    const markup = defineTopic('markup', { encoding: 'xml' })
    const worker = setting
      .worker()
      .handle(json, (payload) => payload)
      .handle(markup, (elements) => elements[0])
    await worker.start()
    const raw = await setting.raw('shop')
    const completed = next<WorkerEvents, 'completed'>(worker, 'completed')
    raw.send(
      "<message to='queue1.localhost' type='chat' id='m1'><body>{\"a\":1}</body><xmq xmlns='xmq:topic' topic='json'/></message>",
    )
    expect(await completed).toMatchObject({ id: 'm1', kind: 'message' })
    const flat = stanza('iq', { type: 'get', to: 'queue1.localhost' }, [
      element('custom_query', 'x:y', undefined, ['data']),
      element('xmq', 'xmq:topic', { topic: 'markup' }),
    ])
    const answer = await raw.request(flat)
    expect(answer.children).toMatchObject([{ name: 'custom_query', ns: 'x:y', children: ['data'] }])
  })

  it('are told a forged delivery by nobody: only the queue counts', async () => {
    const setting = await startSetting()
    const got: string[] = []
    const worker = setting.worker().handle(note, (text) => void got.push(text))
    await worker.start()
    const mallory = await setting.raw('mallory')
    const ignored = next<WorkerEvents, 'ignored'>(worker, 'ignored')
    const jid = worker.status.state === 'online' ? worker.status.jid : ''
    mallory.send(`<message to='${jid}'><body>forged</body><xmq xmlns='xmq:topic' topic='note'/></message>`)
    expect(await ignored).toMatchObject({ from: mallory.jid })
    const forged = stanza('iq', { type: 'get', to: jid }, [element('xmq', 'xmq:topic', { topic: 'note' })])
    expect((await mallory.request(forged)).attrs.get('type')).toBe('error')
    const mq = await setting.connect()
    await mq.request(note, 'genuine')
    expect(got).toEqual(['genuine'])
  })
})

describe('load', () => {
  it('crosses 90 upward and 75 downward, and the queue heeds it', async () => {
    const setting = await startSetting()
    const gates = [deferred(), deferred()]
    let running = 0
    const worker = setting
      .worker({ concurrency: 2, prefetch: 0 })
      .handle(note, async () => await gates[running++]?.promise.then(() => 'done'))
    await worker.start()
    const loads: number[] = []
    setting.dev.broker.on('subscribed', ({ load }) => loads.push(load))
    const mq = await setting.connect()
    const full = next<WorkerEvents, 'load'>(worker, 'load')
    const fullAtBroker = new Promise<void>((resolve) => {
      setting.dev.broker.on('subscribed', ({ load }) => void (load === 100 && resolve()))
    })
    const answers = [mq.request(note, 'a'), mq.request(note, 'b')]
    expect(await full).toEqual({ load: 100 })
    await fullAtBroker
    expect(await rejection(mq.request(note, 'c'))).toMatchObject({ code: 'no-recipients' })
    const relieved = next<WorkerEvents, 'load'>(worker, 'load')
    const renewed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed')
    for (const gate of gates) gate.resolve()
    await Promise.all(answers)
    expect((await relieved).load).toBeLessThan(75)
    await renewed
    expect(await mq.request(note, 'd')).toBe('')
    expect(loads[0]).toBe(100)
  })

  it('beyond the buffer refuses requests as overloaded, and reports messages', async () => {
    const setting = await startSetting()
    const gate = deferred()
    const worker = setting
      .worker({ concurrency: 1, prefetch: 0, bufferMax: 1 })
      .handle(note, () => gate.promise.then(() => 'done'))
    await worker.start()
    const mq = await setting.connect()
    const failed = next<WorkerEvents, 'failed'>(worker, 'failed', ({ kind }) => kind === 'message')
    // All in one write: they come before the queue hears that the worker is full.
    const requests = ['a', 'b', 'c'].map((text) => mq.request(note, text).catch((error: unknown) => error))
    await mq.publish(note, 'd')
    expect(await failed).toMatchObject({ error: { code: 'overloaded' } })
    gate.resolve()
    expect(await Promise.all(requests)).toMatchObject(['done', 'done', { code: 'overloaded', retryAfterSeconds: 1 }])
  })
})

describe('reconnecting', () => {
  it('subscribes again after a cut, with a fresh resource', async () => {
    const setting = await startSetting()
    const worker = setting.worker().handle(note, (text) => text)
    await worker.start()
    const jid = worker.status.state === 'online' ? worker.status.jid : ''
    const renewed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed')
    setting.dev.server.misbehave.dropSession(jid)
    expect(await renewed).toEqual({ topic: 'note', renewal: true })
    expect(worker.status.state === 'online' && worker.status.jid).not.toBe(jid)
    const mq = await setting.connect()
    expect(await mq.request(note, 'a')).toBe('a')
  })

  it('goes on after a restart of the server, untouched', async () => {
    const setting = await startSetting()
    const worker = setting.worker().handle(note, (text) => text)
    await worker.start()
    const mq = await setting.connect()
    const renewed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed')
    const back = next<ClientEvents, 'mode'>(mq, 'mode')
    await setting.dev.server.restart()
    await Promise.all([renewed, back])
    expect(await mq.request(note, 'a')).toBe('a')
  })

  it('reports an answer that has nowhere to go', async () => {
    const setting = await startSetting()
    const gate = deferred()
    const started = deferred()
    const worker = setting.worker().handle(note, () => {
      started.resolve()
      return gate.promise.then(() => 'late')
    })
    await worker.start()
    const mq = await setting.connect()
    const answer = rejection(mq.request(note, 'a'))
    await started.promise
    const lost = next<WorkerEvents, 'answer-lost'>(worker, 'answer-lost')
    const online = next<WorkerEvents, 'online'>(worker, 'online')
    setting.dev.server.misbehave.dropSession(worker.status.state === 'online' ? worker.status.jid : '')
    expect(await answer).toMatchObject({ code: 'worker-gone' })
    await online
    gate.resolve()
    expect(await lost).toMatchObject({ topic: 'note' })
  })
})

describe('stop', () => {
  it('leaves the topics, lets handlers end and answer, then says goodbye', async () => {
    const setting = await startSetting()
    const gate = deferred()
    const started = deferred()
    const worker = setting.worker({ concurrency: 1, stopTimeout: '1h' }).handle(note, (text) => {
      started.resolve()
      return gate.promise.then(() => text)
    })
    await worker.start()
    const mq = await setting.connect()
    const answers = [mq.request(note, 'runs'), mq.request(note, 'waits')]
    await started.promise
    const left = next<WorkerEvents, 'unsubscribed'>(worker, 'unsubscribed')
    const stopped = worker.stop()
    await left
    expect(await rejection(mq.request(note, 'new'))).toMatchObject({ code: 'no-recipients' })
    expect(worker.state).toBe('stopping')
    gate.resolve()
    expect(await Promise.all(answers)).toEqual(['runs', 'waits'])
    await stopped
    expect(worker.state).toBe('stopped')
    expect(setting.dev.server.sessions()).toHaveLength(1)
    expect(setting.dev.broker.stats().subscriptions).toBe(0)
  })

  it('aborts the signals of stragglers after its grace time; what waited is answered, not run', async () => {
    const setting = await startSetting()
    const started = deferred()
    let calls = 0
    const worker = setting.worker({ concurrency: 1, stopTimeout: 0 }).handle(note, (_text, { signal }) => {
      calls++
      started.resolve()
      return new Promise<string>((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error))
      })
    })
    worker.on('failed', () => {})
    await worker.start()
    const mq = await setting.connect()
    const answers = [rejection(mq.request(note, 'runs')), rejection(mq.request(note, 'waits'))]
    await started.promise
    await worker.stop()
    expect(await Promise.all(answers)).toMatchObject([{ code: 'handler-failed' }, { code: 'handler-failed' }])
    expect(calls).toBe(1)
  })

  it('shows a handler that it is over also where it looks at its signal only then', async () => {
    const setting = await startSetting()
    const bothRun = deferred()
    const over = deferred()
    const seen: unknown[] = []
    let running = 0
    const worker = setting.worker({ concurrency: 2, stopTimeout: 0 }).handle(note, async (name, context) => {
      if (++running === 2) bothRun.resolve()
      if (name === 'looks') context.signal.addEventListener('abort', () => over.resolve())
      await over.promise
      const { signal } = { ...context }
      seen.push(signal.aborted, signal === context.signal, signal.reason)
      return ''
    })
    await worker.start()
    const mq = await setting.connect()
    const answers = ['looks', 'looks late'].map((name) => mq.request(note, name).catch(() => undefined))
    await bothRun.promise
    await worker.stop()
    await Promise.all(answers)
    const aborted = [true, true, expect.objectContaining({ code: 'aborted' })]
    expect(seen).toEqual([...aborted, ...aborted])
  })

  it('works before, during and after a start, any number of times', async () => {
    const setting = await startSetting()
    const idle = setting.worker().handle(note, () => 'a')
    await Promise.all([idle.stop(), idle.stop()])
    const starting = setting.worker().handle(note, () => 'a')
    const started = rejection(starting.start())
    await starting.stop()
    expect(await started).toMatchObject({ code: 'closed' })
    expect(starting.state).toBe('stopped')
  })

  it('is what a fired signal does, and what run() waits for', async () => {
    const setting = await startSetting()
    const abort = new AbortController()
    const worker = setting.worker({ signal: abort.signal }).handle(note, () => 'a')
    const subscribed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed')
    const ran = worker.run()
    await subscribed
    const closed = next<WorkerEvents, 'closed'>(worker, 'closed')
    abort.abort()
    expect(await closed).toMatchObject({ reason: { code: 'aborted' } })
    await ran
    expect(worker.state).toBe('stopped')
  })

  it('is what disposing of a worker or client means, again and again', async () => {
    const setting = await startSetting()
    const worker = setting.worker().handle(note, () => 'a')
    await worker.start()
    const mq = await setting.connect()
    for (const opened of [mq, worker, mq, worker]) await opened[Symbol.asyncDispose]()
    expect([mq.status.state, worker.status.state, worker.state]).toEqual(['closed', 'closed', 'stopped'])
    expect(setting.dev.server.sessions()).toEqual([])
  })

  it('happens on SIGTERM under run()', async () => {
    const setting = await startSetting()
    const worker = setting.worker().handle(note, () => 'a')
    const subscribed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed')
    const ran = worker.run()
    await subscribed
    // As npm delivers one Ctrl-C; the second would end this process if it counted.
    process.emit('SIGTERM')
    process.emit('SIGTERM')
    await ran
    expect(worker.state).toBe('stopped')
    expect(process.listenerCount('SIGTERM')).toBe(0)
  })
})

describe('mod_xmq', () => {
  it('is found out and worked with: subscribe, message, request, leave', async () => {
    const server = await startEmbeddedServer({
      accounts: { shop: 'pw', w1: 'pw' },
      scramIterations: 1,
      modXmq: { 'queue1.localhost': 'any' },
    })
    afterTest(() => server.stop())
    const subs: string[] = []
    server.on('stanza', ({ stanza: seen }) => {
      for (const child of seen.children) {
        if (typeof child === 'string' || child.ns !== 'xmq:command') continue
        subs.push([...child.attrs].map(([name, value]) => `${name}=${value}`).join(' '))
      }
    })
    const options = { service: `xmpp://127.0.0.1:${server.port}`, password: 'pw', queue: 'queue1.localhost' }
    const worker = new Worker({ ...options, jid: 'w1@localhost' })
    const got: unknown[] = []
    worker.handle(json, (payload, { from, kind }) => {
      got.push([payload, from, kind])
      return 'answered'
    })
    const warning = next<WorkerEvents, 'warning'>(worker, 'warning')
    await worker.start()
    expect((await warning).message).toMatch(/senders cannot be checked/)
    // mod_xmq answers no sub: another stanza of the same stream shows that it was taken.
    const mq = await connect({ ...options, jid: 'shop@localhost' })
    afterTest(() => mq.close())
    const jid = mq.status.state === 'online' ? mq.status.jid : ''
    expect(await mq.request(json, { a: 1 })).toBe('answered')
    const completed = next<WorkerEvents, 'completed'>(worker, 'completed')
    await mq.publish(json, { b: 2 })
    await completed
    expect(got).toEqual([
      [{ a: 1 }, jid, 'request'],
      [{ b: 2 }, jid, 'message'],
    ])
    await worker.stop()
    expect(subs).toEqual(['command=sub topic=json ttl=60 load=0', 'command=sub topic=json ttl=1 load=100'])
    const other = await connectRawClient({ port: server.port, jid: 'shop@localhost', password: 'pw' })
    afterTest(() => other.drop())
  })
})
