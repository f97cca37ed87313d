/** News of a request and its end before the answer. docs/protocol-reliable.md "Progress", "Cancelling". */
import { type Client, connect, type Handler, Worker } from '@xmq/client'
import { expect, test } from 'vitest'
import { fresh, onEachServer, QUEUES, type Stage } from './stage.ts'

const PASSWORD = 'pw'

async function account(stage: Stage): Promise<{ service: string; jid: string; password: string; queue: string }> {
  const user = fresh('sdk')
  await stage.server.register(user, PASSWORD)
  const jid = `${user}@${stage.server.domain}`
  return { service: stage.server.service, jid, password: PASSWORD, queue: QUEUES.any }
}

async function producerOf(stage: Stage): Promise<Client> {
  return stage.closing(await connect(await account(stage)))
}

async function workerOf(
  stage: Stage,
  topic: string,
  handler: Handler<unknown, unknown>,
  mode: 'reliable' | 'plain' = 'reliable',
): Promise<Worker> {
  const worker = new Worker({ ...(await account(stage)), mode, stopTimeout: '100ms', on: { failed: () => {} } })
  worker.handle(topic, handler)
  stage.afterwards(() => worker.stop())
  await worker.start()
  return worker
}

const codeOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'answered',
    (error: { code: string }) => error.code,
  )

/** A handler that waits for its signal, and what came of that. */
function stubborn(): { handler: Handler<unknown, unknown>; begun: Promise<void>; stopped: Promise<void> } {
  let begin: () => void = () => {}
  let stop: () => void = () => {}
  const begun = new Promise<void>((resolve) => (begin = resolve))
  const stopped = new Promise<void>((resolve) => (stop = resolve))
  const handler: Handler<unknown, unknown> = (_, { signal }) => {
    begin()
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        stop()
        reject(new Error('told to stop'))
      })
    })
  }
  return { handler, begun, stopped }
}

onEachServer('a request that takes its time', (stage) => {
  test('tells its requester how far it is, before it is answered', async () => {
    const topic = fresh('topic')
    await workerOf(stage, topic, (_, ctx) => {
      for (const done of [0.25, 0.5, 0.75]) ctx.progress({ done })
      return 'ready'
    })
    const producer = await producerOf(stage)
    const news: unknown[] = []
    const answer = await producer.request(topic, 1, { onProgress: (value) => news.push(value) })
    expect([answer, news]).toEqual(['ready', [{ done: 0.25 }, { done: 0.5 }, { done: 0.75 }]])
    expect(await producer.request(topic, 1)).toBe('ready')
  })

  test('through a plain worker has no news', async () => {
    const topic = fresh('topic')
    await workerOf(
      stage,
      topic,
      (_, ctx) => {
        ctx.progress(1)
        return 'ready'
      },
      'plain',
    )
    const news: unknown[] = []
    const producer = await producerOf(stage)
    expect(await producer.request(topic, 1, { onProgress: (value) => news.push(value) })).toBe('ready')
    expect(news).toEqual([])
  })

  test.each(['its signal', 'its timeout', 'the end of its client'] as const)('is cancelled by %s', async (how) => {
    const topic = fresh('topic')
    const { handler, begun, stopped } = stubborn()
    const worker = await workerOf(stage, topic, handler)
    const cancelled = new Promise((resolve) => worker.on('cancelled', resolve))
    const producer = await producerOf(stage)
    const { signal, abort } = ((controller) => ({
      signal: controller.signal,
      abort: () => controller.abort(),
    }))(new AbortController())
    const code = codeOf(producer.request(topic, 1, { signal, timeout: how === 'its timeout' ? '2s' : '1h' }))
    await begun
    if (how === 'its signal') abort()
    if (how === 'the end of its client') await producer.close()
    await stopped
    expect(await cancelled).toMatchObject({ topic, kind: 'request' })
    expect(await code).toBe(
      { 'its signal': 'aborted', 'its timeout': 'timeout', 'the end of its client': 'closed' }[how],
    )
    expect(stage.broker.stats().openRequests).toBe(0)
  })
})
