/** docs/protocol.md 2 "Addresses": who may do what; and what a stranger can forge, which is nothing. */
import { expect, test } from 'vitest'
import { bodyOf, expectError, expectResult, producersOf } from './expectations.ts'
import { QueueClient } from './queue-client.ts'
import { fresh, onEachServer, QUEUES } from './stage.ts'

const GUARDED = 'guarded@xmq.localhost'
const OPEN = 'open@xmq.localhost'

const message = (queue: string, topic: string, body = 'hello'): string =>
  `<message type='normal' to='${queue}'><body>${body}</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`

onEachServer(
  'access',
  (stage) => {
    test('only who is named may consume, any session of theirs', async () => {
      const stranger = await stage.client(fresh('stranger'))
      expect(expectError(await stranger.sub(GUARDED, fresh('topic')), 'forbidden').code).toBe('forbidden')
      const named = await stage.client('consumer')
      expectResult(await named.sub(GUARDED, fresh('topic')))
    })

    test('only who is named may publish and ask', async () => {
      const topic = fresh('topic')
      const worker = await stage.client('consumer')
      await worker.sub(GUARDED, topic)
      const stranger = await stage.client(fresh('stranger'))
      stranger.send(message(GUARDED, topic))
      expectError(await stranger.nextMessage(), 'forbidden')
      const request = await stranger.ask(GUARDED, 'get', `<xmq xmlns='xmq:topic' topic='${topic}'/>`)
      expectError(request, 'forbidden')
      const producer = await stage.client('producer')
      producer.send(message(GUARDED, topic, 'allowed'))
      expect(bodyOf(await worker.nextMessage())).toBe('allowed')
      await worker.fence(GUARDED)
      expect(worker.inbox).toEqual([])
    })

    test('one who may publish may not consume, and the other way round', async () => {
      const producer = await stage.client('producer')
      expectError(await producer.sub(GUARDED, fresh('topic')), 'forbidden')
      const consumer = await stage.client('consumer')
      consumer.send(message(GUARDED, fresh('topic')))
      expectError(await consumer.nextMessage(), 'forbidden')
    })

    test("an anonymous session is denied by the default rules, which know the queue's own host only", async () => {
      const anonymous = stage.closing(await QueueClient.connectAnonymously(stage.server))
      expect(anonymous.jid).toContain(`@${stage.server.anonymousDomain}/`)
      expectError(await anonymous.sub(QUEUES.any, fresh('topic')), 'forbidden')
      anonymous.send(message(QUEUES.any, fresh('topic')))
      expectError(await anonymous.nextMessage(), 'forbidden')
    })

    test('an anonymous session is served where the rules name its domain', async () => {
      const topic = fresh('topic')
      const anonymous = stage.closing(await QueueClient.connectAnonymously(stage.server))
      expectResult(await anonymous.sub(OPEN, topic))
      const producer = await stage.client()
      producer.send(message(OPEN, topic))
      expect(bodyOf(await anonymous.nextMessage())).toBe('hello')
    })

    test('a sender cannot be forged, towards the queue or a worker', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const forger = await stage.client(fresh('forger'))
      // Servers either correct such a `from`, refuse the stanza or close the stream.
      forger.send(message(GUARDED, topic).replace('<message ', "<message from='producer@localhost/x' "))
      forger.send(message(worker.jid, topic, 'forged').replace('<message ', `<message from='${QUEUES.any}' `))
      await forger.fence(QUEUES.any).catch(() => undefined)
      const producer = await stage.client()
      producer.send(message(QUEUES.any, topic, 'true'))
      const got = [await worker.nextMessage()]
      while (bodyOf(got.at(-1) ?? got[0]!) !== 'true') got.push(await worker.nextMessage())
      const fromQueue = got.filter((each) => each.attrs.get('from') === QUEUES.any)
      expect(fromQueue.map((each) => [bodyOf(each), producersOf(each)])).toEqual([['true', [producer.jid]]])
    })
  },
  {
    queues: {
      [GUARDED]: { type: 'any', publish: ['producer@localhost'], consume: ['consumer@localhost'] },
      [OPEN]: { type: 'any', consume: ['anon.localhost'], publish: ['localhost'] },
    },
  },
)
