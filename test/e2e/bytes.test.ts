/** Large and awkward text, byte by byte; many messages, in order. */
import { utf8Length } from '@xmq/protocol'
import { expect, test } from 'vitest'
import { startCuttingProxy } from './cutting-proxy.ts'
import { bodyOf } from './expectations.ts'
import { sampleOfBytes, sampleOfCharacters } from './sample-text.ts'
import { fresh, onEachServer, QUEUES } from './stage.ts'

const escape = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;')
const message = (topic: string, body: string): string =>
  `<message type='normal' to='${QUEUES.any}'><body>${escape(body)}</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`

// No body: servers archive what has one for its sender, which takes ejabberd longer with each message.
const numbered = (topic: string, number: number): string =>
  `<message type='normal' id='#${number}' to='${QUEUES.any}'><xmq xmlns='xmq:topic' topic='${topic}'/></message>`

onEachServer('bytes', (stage) => {
  test('one message of 190 KiB of mixed scripts and emoji arrives whole', async () => {
    const topic = fresh('topic')
    const text = sampleOfBytes(190 * 1024)
    expect(utf8Length(text)).toBe(190 * 1024)
    const worker = await stage.worker(QUEUES.any, topic)
    const producer = await stage.client()
    producer.send(message(topic, text))
    const body = bodyOf(await worker.nextMessage())
    expect(body === text, `${body?.length} of ${text.length} code units, or other ones`).toBe(true)
  })

  test('10,000 messages of one producer reach one worker, all of them, in order', async () => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    const producer = await stage.client()
    const count = 10_000
    for (let start = 0; start < count; start += 500) {
      const numbers = Array.from({ length: 500 }, (_, index) => start + index)
      producer.send(numbers.map((number) => numbered(topic, number)).join(''))
      // The producer waits for the worker now and then, as every real one does: no server's buffer is the subject here.
      await producer.fence(QUEUES.any)
      await worker.fence(QUEUES.any)
    }
    const numbers = (await worker.takeMessages()).map((each) => /#(\d+)/.exec(each.attrs.get('id') ?? '')?.[1])
    expect(numbers).toEqual(Array.from({ length: count }, (_, index) => String(index)))
    expect(await producer.takeMessages()).toEqual([])
  })
})

onEachServer(
  'cut at every byte',
  (stage) => {
    test('45,000 characters, on the way to the broker and on the way to the worker', async () => {
      const towardsBroker = stage.closing(await startCuttingProxy(stage.server.componentPort))
      const towardsWorker = stage.closing(await startCuttingProxy(stage.server.c2sPort))
      await stage.startBroker(towardsBroker.port)
      stage.afterwards(() => stage.stopBroker())
      const topic = fresh('topic')
      const worker = await stage.client(fresh('worker'), { port: towardsWorker.port })
      await worker.sub(QUEUES.any, topic)
      const text = sampleOfCharacters(45_000)
      const producer = await stage.client()
      producer.send(message(topic, text))
      const body = bodyOf(await worker.nextMessage())
      expect(body === text, `${body?.length} of ${text.length} code units, or other ones`).toBe(true)
      for (const proxy of [towardsBroker, towardsWorker]) expect(proxy.pieces).toBeGreaterThan(utf8Length(text))
    })
  },
  // Byte by byte the way in takes seconds, in a process that is busy with it: the broker would refuse new work.
  { hasBroker: false, limits: { maxInputDelay: '1h', maxLoopDelay: '1h' } },
)
