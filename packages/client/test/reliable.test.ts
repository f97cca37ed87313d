/** Client and worker with a real broker that speaks `xmq:queue:1`: what the session's own tests cannot show. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findChild, NS_PING, parseElement } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  type ClientEvents,
  type DeadLetter,
  defineTopic,
  type HandlerContext,
  type Published,
  Reject,
  RetryAfter,
  type WorkerEvents,
} from '../src/index.ts'
import { afterTest, deferred, next, rejection, type Setting, startSetting } from './setting.ts'

const QUEUE = 'queue1.localhost'

/** A setting whose clients and workers find out for themselves how the queue is spoken to. */
const start = (): Promise<Setting> => startSetting({}, { mode: 'auto' })

/** Collects what a handler gets, and resolves when there is enough. */
function collector<Item>(): { items: Item[]; add(item: Item): void; until(count: number): Promise<Item[]> } {
  const items: Item[] = []
  let check: () => void = () => {}
  return {
    items,
    add(item) {
      items.push(item)
      check()
    },
    until: (count) =>
      new Promise((resolve) => {
        check = () => {
          if (items.length >= count) resolve(items)
        }
        check()
      }),
  }
}

const range = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

describe('publish', () => {
  it('resolves on the confirm, and the worker learns everything about the message', async () => {
    const setting = await start()
    const got = collector<[unknown, HandlerContext]>()
    await setting
      .worker()
      .handle('orders.new', (payload, context) => got.add([payload, context]))
      .start()
    const client = await setting.connect()
    const before = Date.now()
    const options = { id: 'order-42', key: 'shop-7', priority: 5, ttl: '1h', headers: { traceparent: '00-1' } } as const
    const published = await client.publish('orders.new', { total: 12 }, options)
    expect(published).toMatchObject({ id: 'order-42', seq: 1, durability: 'memory', duplicate: false })
    const [[payload, context]] = (await got.until(1)) as [[unknown, HandlerContext]]
    expect(payload).toEqual({ total: 12 })
    expect(context).toMatchObject({ kind: 'message', topic: 'orders.new', id: 'order-42', seq: 1, attempt: 1 })
    expect(context.from).toMatch(/^shop@localhost\/xmq-/)
    expect(context.headers.get('traceparent')).toBe('00-1')
    expect(Math.abs((context.at?.getTime() ?? 0) - before)).toBeLessThan(60_000)
    expect(client.status).toMatchObject({ state: 'online', mode: 'reliable' })
  })

  it('waits in the queue for a worker, where a plain one would come back', async () => {
    const setting = await start()
    const client = await setting.connect()
    expect(await client.publish('t', 1)).toMatchObject({ seq: 1 })
    const got = collector<unknown>()
    await setting
      .worker()
      .handle('t', (payload) => got.add(payload))
      .start()
    expect(await got.until(1)).toEqual([1])
  })

  it('knows an id again: a duplicate, or a conflict with something else', async () => {
    const setting = await start()
    const client = await setting.connect()
    const first = await client.publish('t', { a: 1 }, { id: 'once' })
    expect(await client.publish('t', { a: 1 }, { id: 'once' })).toEqual({ ...first, duplicate: true })
    expect(await rejection(client.publish('t', { a: 2 }, { id: 'once' }))).toMatchObject({
      code: 'conflict',
      fromBroker: true,
    })
  })

  it('is many at once with publishMany: an outcome for each, in order', async () => {
    const setting = await start()
    const client = await setting.connect({ pendingMax: 50 })
    const items = range(300).map((n) => ({ payload: n, id: n === 7 ? '' : `m${n}` }))
    async function* later() {
      for (const item of items) yield await Promise.resolve(item)
    }
    const outcomes = await client.publishMany('t', later())
    expect(outcomes).toHaveLength(300)
    expect(outcomes[7]).toMatchObject({ status: 'failed', error: { code: 'bad-request' } })
    const seqs = outcomes.flatMap((outcome) => (outcome.status === 'published' ? [outcome.published.seq ?? 0] : []))
    expect(seqs).toEqual(seqs.toSorted((a, b) => a - b))
    expect(new Set(seqs).size).toBe(299)
  })

  it('waits for room in order, or is refused where that is asked for', async () => {
    const setting = await start()
    const client = await setting.connect({ pendingMax: 2 })
    const published = await Promise.all(range(20).map((n) => client.publish('t', n)))
    expect(published.map(({ seq }) => seq)).toEqual(range(20).map((n) => n + 1))
    const strict = await setting.connect({ pendingMax: 1, whenFull: 'refuse' })
    const held = strict.publish('t', 1)
    expect(await rejection(strict.publish('t', 2))).toMatchObject({ code: 'limit-reached' })
    expect(await held).toMatchObject({ seq: 21 })
  })

  it('that is unconfirmed at close is waited for', async () => {
    const setting = await start()
    const client = await setting.connect()
    const pending = client.publish('t', 1)
    await client.close()
    expect(await pending).toMatchObject({ seq: 1 })
    expect(await rejection(client.publish('t', 2))).toMatchObject({ code: 'closed' })
  })

  it('survives connections that are cut inside a batch: each message is stored once, of each key in order', async () => {
    const setting = await start()
    const client = await setting.connect()
    const got = collector<[string, number]>()
    await setting
      .worker()
      .handle('t', (payload) => got.add(payload as [string, number]))
      .start()
    const { misbehave } = setting.dev.server
    const sent: Promise<Published>[] = []
    for (const round of range(10)) {
      for (const n of range(20)) {
        const key = `k${n % 5}`
        sent.push(client.publish('t', [key, round * 20 + n], { key, id: `m${round * 20 + n}` }))
      }
      await new Promise((resolve) => setImmediate(resolve))
      const { status } = client
      if (status.state !== 'online') continue
      const online = next<ClientEvents, 'online'>(client, 'online')
      misbehave.cutNextStanza(status.jid)
      await online
    }
    const published = await Promise.all(sent)
    expect(new Set(published.map(({ seq }) => seq)).size).toBe(200)
    const items = await got.until(200)
    for (const key of ['k0', 'k1', 'k2', 'k3', 'k4']) {
      const order = items.filter((item) => item[0] === key).map((item) => item[1])
      expect(order).toEqual(order.toSorted((a, b) => a - b))
    }
  })

  it('goes on when the server comes back', async () => {
    const setting = await start()
    const client = await setting.connect()
    await client.publish('t', 0)
    const offline = next<ClientEvents, 'offline'>(client, 'offline')
    await setting.dev.server.misbehave.kill()
    await offline
    const pending = range(5).map((n) => client.publish('t', n + 1))
    await setting.dev.server.misbehave.start()
    const published = await Promise.all(pending)
    expect(published.map(({ seq }) => seq)).toEqual([2, 3, 4, 5, 6])
  })
})

describe('a worker', () => {
  it('gets a message again when its handler throws, and when RetryAfter says so', async () => {
    const setting = await start()
    const got = collector<[number, number]>()
    const worker = setting.worker({ on: { failed: () => {} } }).handle('t', (_, { attempt, seq }) => {
      got.add([seq ?? 0, attempt])
      if (attempt === 1) throw new Error('boom')
      if (attempt === 2) throw new RetryAfter(50, 'not yet')
    })
    await worker.start()
    const client = await setting.connect()
    const { seq } = await client.publish('t', 1)
    expect(await got.until(3)).toEqual([
      [seq, 1],
      [seq, 2],
      [seq, 3],
    ])
  })

  it('never gets again what it rejects, or what its schema does not accept', async () => {
    const setting = await start()
    const failed = collector<string>()
    const strict = defineTopic('strict', { input: z.object({ n: z.number() }) })
    const got = collector<unknown>()
    const worker = setting
      .worker({ on: { failed: ({ error }) => failed.add(error.code) } })
      .handle(strict, ({ n }) => got.add(n))
      .handle('t', () => {
        throw new Reject('gone')
      })
    await worker.start()
    const client = await setting.connect()
    await client.publish('strict', { n: 'seven' })
    await client.publish('t', 1)
    expect((await failed.until(2)).toSorted()).toEqual(['handler-failed', 'invalid-payload'])
    await client.publish(strict, { n: 7 })
    expect(await got.until(1)).toEqual([7])
    expect(failed.items).toHaveLength(2)
  })

  it('handles patterns: the exact topic before the first pattern that fits', async () => {
    const setting = await start()
    const got = collector<string>()
    const worker = setting
      .worker()
      .handle('logs.>', (_, { topic }) => got.add(`> ${topic}`))
      .handle('logs.*', (_, { topic }) => got.add(`* ${topic}`))
      .handle('logs.eu', (_, { topic }) => got.add(`= ${topic}`))
    await worker.start()
    const client = await setting.connect()
    for (const topic of ['logs.eu', 'logs.us', 'logs.eu.today']) await client.publish(topic, 1)
    expect((await got.until(3)).toSorted()).toEqual(['= logs.eu', '> logs.eu.today', '> logs.us'])
  })

  it('that loses its connection while it works finishes, is not handed the message again, and settles', async () => {
    const setting = await start()
    const began = deferred<HandlerContext>()
    const end = deferred()
    const got = collector<number>()
    const worker = setting.worker().handle('t', async (_, context) => {
      got.add(context.seq ?? 0)
      if (context.seq !== 1) return
      began.resolve(context)
      await end.promise
    })
    await worker.start()
    const client = await setting.connect()
    await client.publish('t', 1)
    const context = await began.promise
    const renewed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed', ({ renewal }) => renewal)
    if (worker.status.state === 'online') setting.dev.server.misbehave.dropSession(worker.status.jid)
    await renewed
    await client.publish('t', 2)
    await got.until(2)
    expect(context.signal.aborted).toBe(false)
    const completed = next<WorkerEvents, 'completed'>(worker, 'completed', ({ seq }) => seq === 1)
    end.resolve()
    await completed
    await worker.stop()
    // Had its ack not counted, the message would wait for the next worker.
    const second = collector<number>()
    await setting
      .worker()
      .handle('t', (_, { seq }) => second.add(seq ?? 0))
      .start()
    await client.publish('t', 3)
    expect(await second.until(1)).toEqual([3])
  })

  it('that dies leaves its messages to another one', async () => {
    const setting = await start()
    const dying = await setting.raw('w2')
    // So that the queue hears of its end.
    dying.send(`<presence to='${QUEUE}'/>`)
    await dying.request(
      parseElement(
        `<iq type='set' to='${QUEUE}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='0'>` +
          `<consume xmlns='xmq:queue:1' credit='5'/></xmq></iq>`,
      ),
    )
    const ping = await dying.next((root) => findChild(root, 'ping', NS_PING) !== undefined)
    dying.send(`<iq type='result' id='${ping.attrs.get('id')}' to='${QUEUE}'/>`)
    const client = await setting.connect()
    await client.publish('t', 'a')
    const deliver = await dying.next((root) => root.attrs.get('type') === 'set')
    dying.send(`<iq type='result' id='${deliver.attrs.get('id')}' to='${QUEUE}'/>`)
    const got = collector<[unknown, number]>()
    await setting
      .worker()
      .handle('t', (payload, { attempt }) => got.add([payload, attempt]))
      .start()
    await dying.drop()
    expect(await got.until(1)).toEqual([['a', 2]])
  })

  it('that stops gives back what waits, and finishes what runs', async () => {
    const setting = await start()
    const end = deferred()
    const began = deferred()
    const released = collector<number>()
    const first = setting
      .worker({ concurrency: 1, prefetch: 4, on: { released: ({ seq }) => released.add(seq ?? 0) } })
      .handle('t', async () => {
        began.resolve()
        await end.promise
      })
    await first.start()
    const client = await setting.connect()
    for (const n of range(4)) await client.publish('t', n)
    await began.promise
    const second = collector<[number, number]>()
    const stopping = first.stop()
    await setting
      .worker({ jid: 'w2@localhost' })
      .handle('t', (_, { seq }) => second.add([seq ?? 0, 0]))
      .start()
    const items = await second.until(3)
    expect(items.map(([seq]) => seq).toSorted((a, b) => a - b)).toEqual([2, 3, 4])
    end.resolve()
    await stopping
    await client.publish('t', 'last')
    expect((await second.until(4)).at(-1)).toEqual([5, 0])
  })

  it('shares a burst with others by credit, and every message is handled once', async () => {
    const setting = await start()
    const got = collector<number>()
    const by = { w1: 0, w2: 0 }
    for (const name of ['w1', 'w2'] as const) {
      const worker = setting.worker({ jid: `${name}@localhost`, concurrency: 4 }).handle('t', async (payload) => {
        by[name]++
        got.add(payload as number)
        await new Promise((resolve) => setImmediate(resolve))
      })
      await worker.start()
    }
    const client = await setting.connect()
    await client.publishMany(
      't',
      range(500).map((payload) => ({ payload })),
    )
    const items = await got.until(500)
    expect(new Set(items).size).toBe(500)
    expect(Math.min(by.w1, by.w2)).toBeGreaterThan(50)
  })

  it('answers requests, with headers and a deadline', async () => {
    const setting = await start()
    const worker = setting.worker().handle('add', (payload, { kind, headers, seq }) => {
      const { a, b } = payload as { a: number; b: number }
      return { sum: a + b, kind, trace: headers.get('trace'), seq: seq === undefined }
    })
    await worker.start()
    const client = await setting.connect()
    const answer = await client.request('add', { a: 1, b: 2 }, { headers: { trace: 't1' } })
    expect(answer).toEqual({ sum: 3, kind: 'request', trace: 't1', seq: true })
  })
})

describe('leases', () => {
  const short = { queues: { [QUEUE]: { type: 'any', lease: '250ms', backoff: '10ms' } } } as const

  it('are extended as long as the handler works: nobody else gets the message', async () => {
    const setting = await startSetting(short, { mode: 'auto' })
    const extended = collector<string>()
    setting.dev.broker.on('settled', ({ outcome }) => {
      if (outcome === 'extended') extended.add(outcome)
    })
    const got = collector<[number, number]>()
    const worker = setting.worker({ concurrency: 1, prefetch: 1 }).handle('t', async (_, { seq, attempt, signal }) => {
      got.add([seq ?? 0, attempt])
      if (seq === 1) await extended.until(6)
      expect(signal.aborted).toBe(false)
    })
    await worker.start()
    await setting
      .worker({ jid: 'w2@localhost', concurrency: 1, prefetch: 0 })
      .handle('other', () => {})
      .start()
    const client = await setting.connect()
    await client.publishMany('t', [{ payload: 1 }, { payload: 2 }])
    // The second one waited in the worker meanwhile: its lease was kept, too.
    expect(await got.until(2)).toEqual([
      [1, 1],
      [2, 1],
    ])
  })

  it('that are lost abort the handler, and another worker has the message', async () => {
    const setting = await startSetting(short, { mode: 'auto' })
    const extended = collector<string>()
    setting.dev.broker.on('settled', ({ outcome }) => {
      if (outcome === 'extended') extended.add(outcome)
    })
    const began = deferred<AbortSignal>()
    const ended = deferred()
    const first = setting.worker({ on: { failed: () => {} } }).handle('t', async (_, { signal }) => {
      began.resolve(signal)
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      ended.resolve()
      throw new Error('told to stop')
    })
    await first.start()
    const client = await setting.connect()
    await client.publish('t', 1)
    const signal = await began.promise
    // A lease that ends before it was received counts for nothing.
    await extended.until(1)
    const lost = next<WorkerEvents, 'lease-lost'>(first, 'lease-lost')
    const { status } = first
    if (status.state !== 'online') throw new Error('The worker is offline.')
    setting.dev.server.misbehave.stall(status.jid)
    const got = collector<number>()
    await setting
      .worker({ jid: 'w2@localhost' })
      .handle('t', (_, { attempt }) => got.add(attempt))
      .start()
    // The stalled one may have been offered it again before.
    const [attempt = 0] = await got.until(1)
    expect(attempt).toBeGreaterThan(1)
    setting.dev.server.misbehave.unstall(status.jid)
    expect(await lost).toMatchObject({ seq: 1, error: { code: 'not-found' } })
    await ended.promise
    expect(signal.aborted).toBe(true)
    // What the aborted handler threw is nobody's failure: the message is done.
    await client.publish('t', 2)
  })
})

describe('a broker that keeps nothing and restarts', () => {
  it('counts anew: a worker takes its first messages for what they are', async () => {
    const setting = await start()
    const got = collector<[unknown, number]>()
    // Such a broker knows nobody whom it could call: the next renewal finds out.
    const worker = setting.worker({ ttl: '3s' }).handle('t', (payload, { seq }) => got.add([payload, seq ?? 0]))
    await worker.start()
    const client = await setting.connect()
    await client.publish('t', 'before')
    await got.until(1)
    const renewed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed', ({ renewal }) => renewal)
    await setting.dev.restartBroker()
    const { seq } = await client.publish('t', 'after')
    expect(await got.until(2)).toEqual([
      ['before', 1],
      ['after', seq],
    ])
    await renewed
  })
})

describe('a broker on sqlite that restarts', () => {
  it('keeps what is confirmed, takes up what is held, and gets what was published meanwhile', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'xmq-client-'))
    afterTest(async () => rmSync(folder, { recursive: true, force: true }))
    const config = { store: `sqlite:${join(folder, 'xmq.db')}` }
    const setting = await startSetting({ config }, { mode: 'auto' })
    const end = deferred()
    const began = deferred()
    const got = collector<[number, number]>()
    const worker = setting.worker({ concurrency: 1, prefetch: 1 }).handle('t', async (payload, { attempt, seq }) => {
      got.add([payload as number, attempt])
      if (seq !== 1) return
      began.resolve()
      await end.promise
    })
    await worker.start()
    const client = await setting.connect()
    expect(await client.publish('t', 0)).toMatchObject({ durability: 'disk' })
    await client.publish('t', 1)
    await began.promise
    const renewed = next<WorkerEvents, 'subscribed'>(worker, 'subscribed', ({ renewal }) => renewal)
    const paused = next<ClientEvents, 'publish-paused'>(client, 'publish-paused')
    const pending: Promise<Published>[] = []
    await setting.dev.restartBroker(async () => {
      pending.push(client.publish('t', 2), client.publish('t', 3, { key: 'k' }), client.publish('t', 4, { key: 'k' }))
      await paused
    })
    await renewed
    const published = await Promise.all(pending)
    expect(new Set(published.map(({ seq }) => seq)).size).toBe(3)
    end.resolve()
    const items = await got.until(5)
    expect(items.filter(([payload]) => payload === 0)).toEqual([[0, 1]])
    expect(items.map(([payload]) => payload).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4])
  })
})

describe('dead letters', () => {
  const rules = {
    queues: { [QUEUE]: { type: 'any', admins: ['shop@localhost'], backoff: '1ms', maxAttempts: 2 } },
  } as const

  it('are listed page by page, shown, replayed and purged by admins, and by nobody else', async () => {
    const setting = await startSetting(rules, { mode: 'auto' })
    const failed = collector<number>()
    let isMended = false
    const got = collector<number>()
    const worker = setting.worker({ on: { failed: ({ seq }) => failed.add(seq ?? 0) } }).handle('t', (payload) => {
      if (!isMended) throw new Error('boom')
      got.add(payload as number)
    })
    await worker.start()
    const client = await setting.connect()
    const published = await client.publishMany(
      't',
      range(7).map((payload) => ({ payload })),
    )
    const seqs = published.map((outcome) => (outcome.status === 'published' ? outcome.published.seq : undefined))
    await failed.until(14)
    // Ordered by the stream: what the worker settled is stored when it has left.
    await worker.stop()
    const letters: DeadLetter[] = []
    for await (const letter of client.deadLetters.list({ pageSize: 3 })) letters.push(letter)
    expect(letters.map(({ seq }) => seq)).toEqual(seqs)
    expect(letters[0]).toMatchObject({ topic: 't', reason: 'max-attempts', failures: 2, payload: undefined })
    expect(letters[0]?.history.map(({ why }) => why)).toEqual(['boom', 'boom'])
    const first = seqs[0] ?? 0
    expect(await client.deadLetters.show(first)).toMatchObject({ payload: { kind: 'json', text: '0' } })
    expect(await client.deadLetters.show(999)).toBeUndefined()
    expect(await client.deadLetters.purge({ seqs: [first, 999] })).toMatchObject({
      done: 1,
      failed: [{ seq: 999, error: { code: 'not-found' } }],
    })
    // As a program without types may ask.
    for (const slip of [
      undefined,
      {},
      { topic: 't' },
      { seq: [first] },
      { all: false },
      { all: true, seqs: [first] },
    ]) {
      expect(await rejection(client.deadLetters.purge(slip as { all: true }))).toMatchObject({ code: 'bad-request' })
    }
    isMended = true
    expect(await client.deadLetters.replay({ all: true, topic: 't' })).toEqual({ done: 6, failed: [] })
    await setting
      .worker()
      .handle('t', (payload) => got.add(payload as number))
      .start()
    expect((await got.until(6)).toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6])
    const stranger = await setting.connect({ jid: 'mallory@localhost' })
    expect(await rejection(stranger.deadLetters.purge({ all: true }))).toMatchObject({ code: 'forbidden' })
  })
})

describe('a queue of type all', () => {
  it('keeps messages for a named worker while it is away, until the name is forgotten', async () => {
    const setting = await start()
    const options = { queue: 'queue2.localhost', jid: 'w1@localhost' }
    const first = collector<unknown>()
    const worker = setting.worker({ ...options, name: 'billing' }).handle('orders.>', (payload) => first.add(payload))
    await worker.start()
    const client = await setting.connect({ queue: 'queue2.localhost' })
    expect(await client.publish('orders.new', 1)).toMatchObject({ subscriptions: 1 })
    await first.until(1)
    await worker.stop()
    await client.publish('orders.new', 2)
    const second = collector<unknown>()
    await setting
      .worker(options)
      .handle('orders.>', (payload) => second.add(payload), { name: 'billing:orders.>' })
      .start()
    expect(await second.until(1)).toEqual([2])
    const owner = await setting.connect(options)
    await owner.forget('billing:orders.>')
    expect(await rejection(owner.forget('billing:orders.>'))).toMatchObject({ code: 'not-found' })
  })

  it('refuses at once to start a worker whose name is that of another subscription', async () => {
    const setting = await start()
    const options = { queue: 'queue2.localhost', jid: 'w1@localhost' }
    await setting
      .worker(options)
      .handle('orders.>', () => {}, { name: 'billing' })
      .start()
    const other = setting.worker(options).handle('news.>', () => {}, { name: 'billing' })
    afterTest(() => other.stop())
    expect(await rejection(other.start())).toMatchObject({ code: 'conflict' })
  })
})

describe('plain and reliable together', () => {
  it('a reliable worker handles what a plain client sends, and a plain client what a reliable one publishes', async () => {
    const setting = await start()
    const got = collector<[unknown, string]>()
    await setting
      .worker()
      .handle(defineTopic('a', { encoding: 'text' }), (text, { id }) => got.add([text, id]))
      .start()
    const plain = await setting.connect({ mode: 'plain' })
    await plain.publish(defineTopic('a', { encoding: 'text' }), 'hello', { id: 'm1' })
    const [[text]] = (await got.until(1)) as [[unknown, string]]
    expect(text).toBe('hello')
    const other = setting
      .worker({ jid: 'w2@localhost', mode: 'plain' })
      .handle('b', (payload) => got.add([payload, '']))
    await other.start()
    const client = await setting.connect()
    await client.publish('b', { n: 1 })
    expect((await got.until(2))[1]).toEqual([{ n: 1 }, ''])
  })

  it('a plain worker refuses patterns and names, which only a reliable queue knows', async () => {
    const setting = await start()
    const worker = setting.worker({ mode: 'plain' }).handle('logs.>', () => {})
    afterTest(() => worker.stop())
    expect(await rejection(worker.start())).toMatchObject({ code: 'unsupported' })
  })
})
