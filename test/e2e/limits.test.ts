/** docs/protocol.md 9 "Sizes": every bound is refused in words, and the stream survives. */
import { type XmlElement, writeElement } from '@xmq/protocol'
import { expect, test } from 'vitest'
import { bodyOf, expectError, expectResult } from './expectations.ts'
import { fresh, onEachServer, QUEUES } from './stage.ts'

const SMALL = 'small@xmq.localhost'
const PICKY = 'picky@xmq.localhost'

const message = (queue: string, topic: string, inside: string): string =>
  `<message type='normal' to='${queue}'>${inside}<xmq xmlns='xmq:topic' topic='${topic}'/></message>`

const nest = (depth: number): string => "<a xmlns='urn:test'>".repeat(depth) + '</a>'.repeat(depth)

onEachServer(
  'limits',
  (stage) => {
    test('a payload over the limit of its queue is refused, one below it is delivered', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(SMALL, topic)
      const producer = await stage.client()
      producer.send(message(SMALL, topic, `<body>${'x'.repeat(1100)}</body>`))
      expect(expectError(await producer.nextMessage(), 'policy-violation').code).toBe('too-large')
      producer.send(message(SMALL, topic, `<body>${'x'.repeat(500)}</body>`))
      expect(bodyOf(await worker.nextMessage())).toHaveLength(500)
    })

    test('a request over the limit is refused', async () => {
      const topic = fresh('topic')
      await stage.worker(SMALL, topic)
      const producer = await stage.client()
      const answer = await producer.ask(
        SMALL,
        'get',
        `<xmq xmlns='xmq:topic' topic='${topic}'><a xmlns='urn:test'>${'x'.repeat(1100)}</a></xmq>`,
      )
      expect(expectError(answer, 'policy-violation').code).toBe('too-large')
    })

    test('an id that is too long is refused with that id, so that nobody waits for ever', async () => {
      const producer = await stage.client()
      const id = 'x'.repeat(5_000)
      producer.send(`<message to='${QUEUES.any}' id='${id}'><xmq xmlns='xmq:topic' topic='t'/></message>`)
      const refusal = await producer.nextMessage()
      expect(expectError(refusal, 'bad-request').message).toContain('5000 characters')
      expect(refusal.attrs.get('id')).toBe(id)
    })

    test('more than 200 KiB, which the server lets through, are refused; the stream goes on', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      producer.send(message(QUEUES.any, topic, `<body>${'x'.repeat(230_000)}</body>`))
      expect(expectError(await producer.nextMessage(), 'policy-violation').code).toBe('too-large')
      producer.send(message(QUEUES.any, topic, '<body>after</body>'))
      expect(bodyOf(await worker.nextMessage())).toBe('after')
    })

    test.each([
      ['nested too deep', nest(40)],
      ['with too many attributes', `<a xmlns='urn:test' ${[...Array(70).keys()].map((n) => `a${n}='x'`).join(' ')}/>`],
    ])('a message %s is skipped to its end and refused; what came with it is delivered', async (_, inside) => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      const whole = message(QUEUES.any, topic, '<body>whole</body>')
      producer.send(whole + message(QUEUES.any, topic, inside) + whole)
      expect(expectError(await producer.nextMessage(), 'policy-violation').code).toBe('too-large')
      expect(bodyOf(await worker.nextMessage())).toBe('whole')
      expect(bodyOf(await worker.nextMessage())).toBe('whole')
    })

    test("a request that breaks a limit is answered under its id, another's goes on", async () => {
      const producer = await stage.client()
      const deep = `<xmq xmlns='xmq:topic' topic='t'>${nest(40)}</xmq>`
      expect(expectError(await producer.ask(QUEUES.any, 'get', deep), 'policy-violation').code).toBe('too-large')
      await producer.fence(QUEUES.any)
    })

    test("a stanza over the server's own limit ends its sender's stream only", async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const glutton = await stage.client()
      glutton.send(message(QUEUES.any, topic, `<body>${'x'.repeat(300_000)}</body>`))
      await glutton.closed
      const producer = await stage.client()
      producer.send(message(QUEUES.any, topic, '<body>after</body>'))
      expect(bodyOf(await worker.nextMessage())).toBe('after')
    })

    test('subscriptions of one account are bounded over all its sessions, and freed again', async () => {
      const user = fresh('worker')
      const [first, second] = [await stage.client(user), await stage.client(user)]
      const topics = ['a', 'b', 'c'].map(fresh)
      expectResult(await first.sub(PICKY, topics[0] ?? ''))
      expectResult(await second.sub(PICKY, topics[1] ?? ''))
      const refusal = expectError(await second.sub(PICKY, topics[2] ?? ''), 'resource-constraint')
      expect(refusal).toMatchObject({ code: 'limit-reached', type: 'wait' })
      expectResult(await first.sub(PICKY, topics[0] ?? '', { load: 50 })) // a renewal is no new one
      expectResult(await first.del(PICKY, topics[0] ?? ''))
      expectResult(await second.sub(PICKY, topics[2] ?? ''))
      await first.del(PICKY, topics[1] ?? '')
      await second.del(PICKY, topics[1] ?? '')
      await second.del(PICKY, topics[2] ?? '')
    })

    test('topics of a queue are bounded, and freed again', async () => {
      const clients = [await stage.client(), await stage.client(), await stage.client(), await stage.client()]
      const topics = ['a', 'b', 'c', 'd'].map(fresh)
      const sub = (index: number): Promise<XmlElement> | undefined => clients[index]?.sub(PICKY, topics[index] ?? '')
      for (const index of [0, 1, 2]) expect((await sub(index))?.attrs.get('type')).toBe('result')
      const refusal = await sub(3)
      expect(refusal && expectError(refusal, 'resource-constraint').code).toBe('limit-reached')
      await clients[0]?.del(PICKY, topics[0] ?? '')
      const accepted = await sub(3)
      expect(accepted && writeElement(accepted)).toContain('result')
    })
  },
  {
    queues: {
      [SMALL]: { type: 'any', maxPayload: '1KiB' },
      [PICKY]: { type: 'any', maxTopics: 3, maxSubscriptionsPerJid: 2 },
    },
  },
)

onEachServer(
  'limits of the whole broker',
  (stage) => {
    test('subscriptions in all are bounded', async () => {
      const clients = [await stage.client(), await stage.client(), await stage.client()]
      const topics = ['a', 'b', 'c'].map(fresh)
      const answers: string[] = []
      for (const [index, client] of clients.entries()) {
        const answer = await client.sub(QUEUES.any, topics[index] ?? '')
        answers.push(answer.attrs.get('type') ?? '')
        if (index === 2) expect(expectError(answer, 'resource-constraint').code).toBe('limit-reached')
      }
      expect(answers).toEqual(['result', 'result', 'error'])
      for (const [index, client] of clients.entries()) await client.del(QUEUES.any, topics[index] ?? '')
    })

    test('open requests are bounded', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      const ask = (): Promise<XmlElement> =>
        producer.ask(QUEUES.any, 'get', `<xmq xmlns='xmq:topic' topic='${topic}'/>`)
      const open = [ask(), ask()]
      const asked = [await worker.nextRequest(), await worker.nextRequest()]
      expect(expectError(await ask(), 'resource-constraint').code).toBe('limit-reached')
      for (const request of asked) {
        worker.send(`<iq type='result' id='${request.attrs.get('id')}' to='${request.attrs.get('from')}'/>`)
      }
      for (const answer of open) expectResult(await answer)
    })
  },
  { limits: { maxSubscriptions: 2, maxOpenRequests: 2 } },
)
