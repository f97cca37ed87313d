/** docs/protocol.md 3 "Subscriptions" and 6 "Sessions". */
import { expect, test } from 'vitest'
import { bodyOf, expectError, expectResult } from './expectations.ts'
import { fresh, onEachServer, QUEUES } from './stage.ts'

const message = (queue: string, topic: string, body = 'hello', id = fresh('m')): string =>
  `<message type='normal' id='${id}' to='${queue}'><body>${body}</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`

onEachServer('subscriptions', (stage) => {
  test('a sub is answered, and the next message comes', async () => {
    const topic = fresh('topic')
    const worker = await stage.client()
    expectResult(await worker.sub(QUEUES.any, topic))
    const producer = await stage.client()
    producer.send(message(QUEUES.any, topic, 'first'))
    expect(bodyOf(await worker.nextMessage())).toBe('first')
  })

  test('attributes come in any order, further ones and children are ignored', async () => {
    const topic = fresh('topic')
    const worker = await stage.client()
    expectResult(
      await worker.ask(
        QUEUES.any,
        'set',
        `<xmq load='1' extra='x' ttl='60' topic='${topic}' command='sub' xmlns='xmq:command'><what/></xmq>`,
      ),
    )
    const producer = await stage.client()
    producer.send(message(QUEUES.any, topic))
    expect(bodyOf(await worker.nextMessage())).toBe('hello')
  })

  test.each([
    ['an unknown command', "command='steal' topic='t' ttl='60' load='1'", 'command'],
    ['no command', "topic='t' ttl='60' load='1'", 'command'],
    ['no topic', "command='sub' ttl='60' load='1'", 'topic'],
    ['an empty topic', "command='sub' topic='' ttl='60' load='1'", 'topic'],
    ['a topic of 256 bytes', `command='sub' topic='${'x'.repeat(256)}' ttl='60' load='1'`, 'topic'],
    ['no ttl', "command='sub' topic='t' load='1'", 'ttl'],
    ['a ttl that is no integer', "command='sub' topic='t' ttl='1.5' load='1'", 'ttl'],
    ['a ttl beyond the cap', "command='sub' topic='t' ttl='86401' load='1'", 'ttl'],
    ['no load', "command='sub' topic='t' ttl='60'", 'load'],
    ['a load above 100', "command='sub' topic='t' ttl='60' load='101'", 'load'],
    ['a negative load', "command='sub' topic='t' ttl='60' load='-1'", 'load'],
    ['a load in hexadecimal', "command='sub' topic='t' ttl='60' load='0x10'", 'load'],
  ])('%s is refused with a text that names the attribute', async (_, attributes, named) => {
    const worker = await stage.client()
    const answer = await worker.ask(QUEUES.any, 'set', `<xmq xmlns='xmq:command' ${attributes}/>`)
    expect(expectError(answer, 'bad-request').message).toContain(named)
  })

  test.each([
    ['without ttl and load', ''],
    ['with ttl and load', " ttl='60' load='1'"],
  ])('del %s ends the subscription', async (_, rest) => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    expectResult(
      await worker.ask(QUEUES.any, 'set', `<xmq xmlns='xmq:command' command='del' topic='${topic}'${rest}/>`),
    )
    const producer = await stage.client()
    producer.send(message(QUEUES.any, topic))
    expectError(await producer.nextMessage(), 'not-acceptable')
  })

  test('del of what was never subscribed succeeds', async () => {
    const worker = await stage.client()
    expectResult(await worker.del(QUEUES.any, fresh('topic')))
  })

  test('del ends one topic and leaves the others', async () => {
    const [kept, left] = [fresh('kept'), fresh('left')]
    const worker = await stage.worker(QUEUES.any, kept)
    await worker.sub(QUEUES.any, left)
    await worker.del(QUEUES.any, left)
    const producer = await stage.client()
    producer.send(message(QUEUES.any, left))
    expectError(await producer.nextMessage(), 'not-acceptable')
    producer.send(message(QUEUES.any, kept))
    expect(bodyOf(await worker.nextMessage())).toBe('hello')
  })

  test('a second sub replaces the load: above 90 nothing comes, at 90 it does', async () => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic, { load: 91 })
    const producer = await stage.client()
    producer.send(message(QUEUES.any, topic))
    expectError(await producer.nextMessage(), 'not-acceptable')
    await worker.sub(QUEUES.any, topic, { load: 90 })
    producer.send(message(QUEUES.any, topic, 'now'))
    expect(bodyOf(await worker.nextMessage())).toBe('now')
  })

  test('a subscription ends when its ttl is over, one renewed in time does not', async () => {
    const [short, renewed] = [fresh('short'), fresh('renewed')]
    const worker = await stage.worker(QUEUES.any, short, { ttl: 1 })
    await worker.sub(QUEUES.any, renewed, { ttl: 1 })
    const ended = stage.event('unsubscribed', (event) => event.topic === short)
    await worker.sub(QUEUES.any, renewed, { ttl: 60 })
    expect((await ended).reason).toBe('expired')
    const producer = await stage.client()
    producer.send(message(QUEUES.any, short))
    expectError(await producer.nextMessage(), 'not-acceptable')
    producer.send(message(QUEUES.any, renewed))
    expect(bodyOf(await worker.nextMessage())).toBe('hello')
  })

  test('a negative ttl has ended at once', async () => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    expectResult(await worker.sub(QUEUES.any, topic, { ttl: -1 }))
    const producer = await stage.client()
    producer.send(message(QUEUES.any, topic))
    expectError(await producer.nextMessage(), 'not-acceptable')
  })

  test.each(['closes its stream', 'is cut off'] as const)(
    "a worker that %s loses its subscriptions at once, its account's other session keeps its own",
    async (how) => {
      const topic = fresh('topic')
      const user = fresh('worker')
      const dying = await stage.client(user)
      const staying = await stage.client(user)
      for (const session of [dying, staying]) {
        session.send(`<presence to='${QUEUES.any}'/>`)
        await session.sub(QUEUES.any, topic)
      }
      const ended = stage.event('unsubscribed', (event) => event.topic === topic)
      await (how === 'is cut off' ? dying.cut() : dying.close())
      expect(await ended).toMatchObject({ reason: 'session-ended', consumer: dying.jid })
      const producer = await stage.client()
      for (const body of ['1', '2', '3']) producer.send(message(QUEUES.any, topic, body))
      for (const body of ['1', '2', '3']) expect(bodyOf(await staying.nextMessage())).toBe(body)
    },
  )

  test('a session that took over the resource keeps what it subscribed', async () => {
    const topic = fresh('topic')
    const user = fresh('worker')
    const old = await stage.client(user, { resource: 'same' })
    old.send(`<presence to='${QUEUES.any}'/>`)
    await old.sub(QUEUES.any, topic)
    const successor = await stage.client(user, { resource: 'same' })
    successor.send(`<presence to='${QUEUES.any}'/>`)
    expectResult(await successor.sub(QUEUES.any, topic))
    const producer = await stage.client()
    // The old session's end may come late on some servers: the broker asks before it believes it.
    for (const body of ['1', '2', '3']) {
      await successor.fence(QUEUES.any)
      producer.send(message(QUEUES.any, topic, body))
      expect(bodyOf(await successor.nextMessage())).toBe(body)
    }
  })
})
