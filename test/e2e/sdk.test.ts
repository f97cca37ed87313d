/** The SDK on both ends, over both transports. */
import { type Client, connect, type ConnectOptions, defineTopic, Worker, type WorkerOptions } from '@xmq/client'
import { utf8Length } from '@xmq/protocol'
import { expect, test } from 'vitest'
import { startCuttingProxy } from './cutting-proxy.ts'
import { expectError, xml } from './expectations.ts'
import { sampleOfCharacters } from './sample-text.ts'
import { fresh, onEachServer, QUEUES, type Stage } from './stage.ts'

type Transport = 'TCP' | 'WebSocket'
const TRANSPORTS: readonly Transport[] = ['TCP', 'WebSocket']

async function account(stage: Stage, service: string): Promise<{ service: string; jid: string; password: string }> {
  const user = fresh('sdk')
  await stage.server.register(user, 'pw')
  return { service, jid: `${user}@${stage.server.domain}`, password: 'pw' }
}

const serviceOf = (stage: Stage, transport: Transport): string =>
  transport === 'TCP' ? stage.server.service : stage.server.websocketUrl

async function producerOn(
  stage: Stage,
  service: string,
  queue: string,
  options: Partial<ConnectOptions> = {},
): Promise<Client> {
  return stage.closing(await connect({ ...(await account(stage, service)), queue, ...options }))
}

async function workerOn(stage: Stage, options: Partial<WorkerOptions> & { service: string }): Promise<Worker> {
  const worker = new Worker({ ...(await account(stage, options.service)), queue: QUEUES.any, ...options })
  stage.afterwards(() => worker.stop())
  return worker
}

onEachServer(
  'the SDK',
  (stage) => {
    test.each(TRANSPORTS)('publish and handle over %s', async (transport) => {
      const service = serviceOf(stage, transport)
      const topic = defineTopic(fresh('topic'))
      const worker = await workerOn(stage, { service })
      const handled = new Promise((resolve) => {
        worker.handle(topic, (payload, context) => resolve([payload, context.from]))
      })
      await worker.start()
      const producer = await producerOn(stage, service, QUEUES.any)
      await producer.publish(topic, { text: 'Grüße 😀 <&>"\'', list: [1, null] })
      const [payload, from] = (await handled) as [unknown, string]
      expect(payload).toEqual({ text: 'Grüße 😀 <&>"\'', list: [1, null] })
      expect(from).toContain(`@${stage.server.domain}/`)
    })

    test.each(TRANSPORTS)('request and answer over %s; a handler that throws', async (transport) => {
      const service = serviceOf(stage, transport)
      const name = fresh('topic')
      const worker = await workerOn(stage, { service })
      worker.handle(name, (payload) => {
        if (payload === 'bad') throw new Error('secret detail')
        return { twice: Number(payload) * 2 }
      })
      await worker.start()
      const producer = await producerOn(stage, service, QUEUES.any)
      expect(await producer.request(name, 21)).toEqual({ twice: 42 })
      await expect(producer.request(name, 'bad')).rejects.toMatchObject({ code: 'handler-failed' })
      await expect(producer.request(fresh('nobody'), 1)).rejects.toMatchObject({ code: 'no-recipients' })
    })

    test('what is confirmed waits for a worker, comes again when its handler throws, and is done once', async () => {
      const topic = fresh('topic')
      const producer = await producerOn(stage, stage.server.service, QUEUES.any)
      const text = 'Grüße 😀 <&>"\''
      const items = Array.from({ length: 200 }, (_, n) => ({ payload: { n, text }, headers: { n: String(n) } }))
      const outcomes = await producer.publishMany(topic, items)
      expect(outcomes.filter(({ status }) => status === 'published')).toHaveLength(200)
      const worker = await workerOn(stage, { service: stage.server.service })
      worker.on('failed', () => undefined)
      const attempts = new Map<number, number>()
      await new Promise<void>((resolve, reject) => {
        worker.handle(topic, (payload, context) => {
          const { n } = payload as { n: number }
          expect([payload, context.headers.get('n')]).toEqual([{ n, text }, String(n)])
          if (n === 7 && context.attempt === 1) throw new Error('not yet')
          attempts.set(n, (attempts.get(n) ?? 0) + 1)
          if (attempts.size === 200) resolve()
        })
        worker.start().catch(reject)
      })
      expect(new Set(attempts.values())).toEqual(new Set([1]))
    })

    test('a message that nobody takes comes back to a plain client', async () => {
      const topic = fresh('topic')
      const producer = await producerOn(stage, stage.server.service, QUEUES.any, { mode: 'plain' })
      const returned = new Promise((resolve) => producer.on('returned', resolve))
      const { id } = await producer.publish(topic, 'x')
      expect(await returned).toMatchObject({ topic, id, error: { code: 'no-recipients' } })
    })

    test('a worker that stops leaves at once and finishes what it has', async () => {
      const topic = fresh('topic')
      const worker = await workerOn(stage, { service: stage.server.service })
      let release: (value: string) => void = () => undefined
      const answer = new Promise<string>((resolve) => {
        release = resolve
      })
      const started = new Promise((resolve) => worker.on('started', resolve))
      worker.handle(topic, () => answer)
      await worker.start()
      const producer = await producerOn(stage, stage.server.service, QUEUES.any)
      const asked = producer.request(topic, 'x')
      await started
      const left = stage.event('unsubscribed', (event) => event.topic === topic)
      const stopped = worker.stop()
      expect((await left).reason).toBe('deleted')
      await expect(producer.request(topic, 'y')).rejects.toMatchObject({ code: 'no-recipients' })
      release('done')
      expect(await asked).toBe('done')
      await stopped
    })

    test('a worker that lacks the right to consume does not start', async () => {
      const worker = await workerOn(stage, { service: stage.server.service, queue: 'guarded@xmq.localhost' })
      worker.handle(fresh('topic'), () => undefined)
      await expect(worker.start()).rejects.toMatchObject({ code: 'forbidden' })
    })

    test("another account's message straight to a worker is no delivery", async () => {
      const topic = fresh('topic')
      const worker = await workerOn(stage, { service: stage.server.service })
      const handled: unknown[] = []
      worker.handle(topic, (payload) => {
        handled.push(payload)
      })
      const subscribed = stage.event('subscribed', (event) => event.topic === topic)
      await worker.start()
      const { consumer } = await subscribed
      const forger = await stage.client(fresh('forger'))
      const payload = `<xmq xmlns='xmq:topic' topic='${topic}'><json xmlns='urn:xmpp:json:0'>"forged"</json></xmq>`
      const ignored = new Promise((resolve) => worker.on('ignored', resolve))
      forger.send(xml(`<message type='normal' to='${consumer}'>${payload}</message>`))
      expect(await ignored).toMatchObject({ from: forger.jid })
      expectError(await forger.ask(consumer, 'get', payload), 'service-unavailable')
      const producer = await producerOn(stage, stage.server.service, QUEUES.any)
      expect(await producer.request(topic, 'true')).toBeUndefined()
      expect(handled).toEqual(['true'])
    })

    test('45,000 characters cut at every byte on the way to the worker and back', async () => {
      const proxy = stage.closing(await startCuttingProxy(stage.server.c2sPort))
      const service = `xmpp://127.0.0.1:${proxy.port}`
      const topic = fresh('topic')
      const text = sampleOfCharacters(45_000)
      const worker = await workerOn(stage, { service })
      worker.handle(topic, (payload) => payload)
      await worker.start()
      const producer = await producerOn(stage, service, QUEUES.any)
      expect((await producer.request(topic, text)) === text, 'the text came back as it was').toBe(true)
      expect(proxy.pieces).toBeGreaterThan(2 * utf8Length(text))
    })
  },
  { queues: { 'guarded@xmq.localhost': { type: 'any', consume: ['somebody@localhost'] } } },
)
