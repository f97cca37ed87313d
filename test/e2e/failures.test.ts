/** What dies is noticed, what lives goes on untouched. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Client, connect, Worker } from '@xmq/client'
import { resultTo } from '@xmq/protocol'
import { expect, test } from 'vitest'
import { type GuardedProcess, spawnGuarded, stopGuarded } from '../servers/index.ts'
import { bodyOf, expectResult } from './expectations.ts'
import { fresh, onEachServer, QUEUES, type Stage } from './stage.ts'

const WORKER = fileURLToPath(new URL('processes/worker.mjs', import.meta.url))
const XMQ = fileURLToPath(new URL('../../packages/xmq/bin/xmq.js', import.meta.url))
const PASSWORD = 'pw'

async function account(stage: Stage): Promise<{ service: string; jid: string; password: string; queue: string }> {
  const user = fresh('sdk')
  await stage.server.register(user, PASSWORD)
  const jid = `${user}@${stage.server.domain}`
  return { service: stage.server.service, jid, password: PASSWORD, queue: QUEUES.any }
}

/** A producer and a worker that nobody touches from here on; the worker's payloads arrive by `next`. */
async function pair(stage: Stage, topic: string): Promise<{ producer: Client; worker: Worker }> {
  const backoff = { base: '100ms', max: '500ms' } as const
  const worker = new Worker({ ...(await account(stage)), ttl: '3s', backoff })
  worker.handle(topic, (payload) => ({ echo: payload }))
  stage.afterwards(() => worker.stop())
  await worker.start()
  const producer = stage.closing(await connect({ ...(await account(stage)), backoff }))
  return { producer, worker }
}

/** Asks until the worker has subscribed again: each time that nobody was there, its next subscription is waited for. */
async function askUntilAnswered(
  { producer, worker }: { producer: Client; worker: Worker },
  topic: string,
): Promise<unknown> {
  for (;;) {
    const subscribed = new Promise<void>((resolve) => {
      const off = worker.on('subscribed', () => {
        off()
        resolve()
      })
    })
    try {
      return await producer.request(topic, 'after')
    } catch {
      await subscribed
    }
  }
}

/** `xmq serve` on this stage's server. */
async function serve(stage: Stage): Promise<GuardedProcess> {
  const folder = await mkdtemp(join(tmpdir(), 'xmq-e2e-'))
  stage.afterwards(() => rm(folder, { recursive: true, force: true }))
  const config = join(folder, 'xmq.config.json')
  await writeFile(config, JSON.stringify({ ...stage.rawConfig(), log: { level: 'info' } }))
  const broker = await spawnGuarded(process.execPath, [XMQ, 'serve', '--config', config])
  stage.afterwards(() => stopGuarded(broker))
  return broker
}

onEachServer('a dying worker', (stage) => {
  test("a kill -9'd worker process: its successor gets the next message", async () => {
    const topic = fresh('topic')
    const subscribed = stage.event('subscribed', (event) => event.topic === topic)
    const dying = await spawnGuarded(process.execPath, [WORKER], {
      env: { ...process.env, XMQ_WORKER: JSON.stringify({ ...(await account(stage)), topic }) },
    })
    stage.afterwards(() => stopGuarded(dying))
    const { consumer } = await subscribed
    const producer = await stage.client()
    const message = (body: string): string =>
      `<message type='normal' to='${QUEUES.any}'><body>"${body}"</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`
    // Killed before its ack has arrived it would have worked for nothing, and the successor would get this one again.
    const acked = stage.event('settled', (event) => event.queue === QUEUES.any && event.outcome === 'acked')
    producer.send(message('before'))
    await dying.line(/^handled before$/)
    await acked
    const successor = await stage.worker(QUEUES.any, topic)

    const ended = stage.event('unsubscribed', (event) => event.topic === topic)
    const killedAt = performance.now()
    dying.signal('SIGKILL')
    expect(await ended).toMatchObject({ consumer, reason: 'session-ended' })
    producer.send(message('next'))
    expect(bodyOf(await successor.nextMessage())).toBe('"next"')
    console.log(`${stage.kind}: the successor had it ${(performance.now() - killedAt).toFixed(0)} ms after the kill`)
    for (const body of ['one more', 'and another']) {
      producer.send(message(body))
      expect(bodyOf(await successor.nextMessage())).toBe(`"${body}"`)
    }
  })
})

onEachServer('restarts', (stage) => {
  test.each(['in good order', 'after a crash'] as const)(
    'the server restarts %s: broker, worker and producer go on',
    async (how) => {
      const topic = fresh('topic')
      const both = await pair(stage, topic)
      expect(await both.producer.request(topic, 'before')).toEqual({ echo: 'before' })
      if (how === 'in good order') await stage.server.restart()
      else {
        await stage.server.kill()
        await stage.server.start()
      }
      expect(await askUntilAnswered(both, topic)).toEqual({ echo: 'after' })
    },
  )

  test('the broker restarts: worker and producer go on', async () => {
    const topic = fresh('topic')
    const both = await pair(stage, topic)
    expect(await both.producer.request(topic, 'before')).toEqual({ echo: 'before' })
    await stage.stopBroker()
    await stage.startBroker()
    expect(await askUntilAnswered(both, topic)).toEqual({ echo: 'after' })
  })

  test('a publish during an outage of the server waits for its end: it is handled, or comes back', async () => {
    const topic = fresh('topic')
    const { producer, worker } = await pair(stage, topic)
    await producer.request(topic, 'before')
    const offline = new Promise((resolve) => producer.on('offline', resolve))
    await stage.server.kill()
    await offline
    // Nobody confirms a plain message: it may be there before the worker is. Then the producer is told.
    const outcome = new Promise<string>((resolve) => {
      worker.on('completed', ({ kind }) => kind === 'message' && resolve('handled'))
      producer.on('returned', ({ error }) => resolve(error.code))
    })
    const published = producer.publish(topic, 'waited')
    await stage.server.start()
    await published
    expect(['handled', 'no-recipients', 'server']).toContain(await outcome)
  })
})

onEachServer(
  'broker processes',
  (stage) => {
    test("a kill -9'd broker that is started again: worker and producer go on", async () => {
      const first = await serve(stage)
      await first.line(/serving/)
      const topic = fresh('topic')
      const both = await pair(stage, topic)
      expect(await both.producer.request(topic, 'before')).toEqual({ echo: 'before' })
      first.signal('SIGKILL')
      await first.exited
      const second = await serve(stage)
      await second.line(/serving/)
      expect(await askUntilAnswered(both, topic)).toEqual({ echo: 'after' })
      second.signal('SIGTERM')
      expect(await second.exited).toBe(0)
    })

    test('a second broker on the same domains says so and exits; the first goes on', { timeout: 120_000 }, async () => {
      const first = await serve(stage)
      await first.line(/serving/)
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const second = await serve(stage)
      expect(await second.exited).toBe(7)
      expect(second.lines.join('\n')).toContain('conflict')
      expect(first.running).toBe(true)
      // On ejabberd the second one had its share of the stanzas for a while; the subscription is the first one's.
      const producer = await stage.client()
      const answer = producer.ask(QUEUES.any, 'get', `<xmq xmlns='xmq:topic' topic='${topic}'/>`)
      worker.send(resultTo(await worker.nextRequest()))
      expectResult(await answer)
    })
  },
  { hasBroker: false },
)
