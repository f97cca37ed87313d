/** docs/protocol.md 4 "Messages". */
import { childElements, findChild, textOf, writeElement } from '@xmq/protocol'
import { expect, test } from 'vitest'
import { bodyOf, expectError, expectHints, producersOf, topicOf } from './expectations.ts'
import { fresh, onEachServer, QUEUES } from './stage.ts'

const message = (queue: string, topic: string, body: string): string =>
  `<message type='chat' to='${queue}'><body>${body}</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`

onEachServer('messages', (stage) => {
  test.each([QUEUES.any, QUEUES.all, QUEUES.anyNode, QUEUES.allNode])(
    'a message to %s is delivered whole: type, id, language, subject, body, thread and every child',
    async (queue) => {
      const topic = fresh('topic')
      const worker = await stage.worker(queue, topic)
      const producer = await stage.client()
      producer.send(
        `<message type='chat' id='m1' xml:lang='de' to='${queue}'>` +
          `<subject>Betreff</subject><body>Grüße</body><before xmlns='urn:test:1' a='1'><x/>y</before>` +
          `<xmq xmlns='xmq:topic' topic='${topic}'><inside xmlns='urn:test:2'/></xmq>` +
          `<after xmlns='urn:test:3'><deep xmlns='urn:test:4'>z</deep></after><thread>T1</thread></message>`,
      )
      const got = await worker.nextMessage()
      expect(Object.fromEntries(got.attrs)).toMatchObject({ type: 'chat', id: 'm1', from: queue, to: worker.jid })
      expect(got.attrs.get('xml:lang')).toBe('de')
      const children = childElements(got).map((child) => `${child.ns} ${child.name}`)
      const sent = ['subject', 'body', 'urn:test:1 before', 'xmq:topic xmq', 'urn:test:3 after', 'thread'].map(
        (name) => (name.includes(' ') ? name : `jabber:client ${name}`),
      )
      expect(children).toEqual(expect.arrayContaining(sent))
      // ejabberd moves subject, body and thread behind the others.
      const isKept = (child: string): boolean => stage.kind !== 'ejabberd' || !child.startsWith('jabber:client')
      expect(children.slice(0, 6).filter(isKept).slice(0, 3)).toEqual(sent.filter(isKept).slice(0, 3))
      expect(bodyOf(got)).toBe('Grüße')
      expect(topicOf(got)).toBe(topic)
      const before = findChild(got, 'before', 'urn:test:1')
      expect(before && writeElement(before)).toBe("<before xmlns='urn:test:1' a='1'><x/>y</before>")
      expect(writeElement(got)).toContain("<deep xmlns='urn:test:4'>z</deep>")
      expect(producersOf(got)).toEqual([producer.jid])
      expectHints(got, stage.kind)
    },
  )

  test.each(['normal', 'chat', 'headline'])('the type %s is kept', async (type) => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    const producer = await stage.client()
    producer.send(
      `<message type='${type}' to='${QUEUES.any}'><body/><xmq xmlns='xmq:topic' topic='${topic}'/></message>`,
    )
    // A message without a type is a normal one (RFC 6121 5.2.2).
    expect((await worker.nextMessage()).attrs.get('type') ?? 'normal').toBe(type)
  })

  test('JSON inside the topic element arrives as it was', async () => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    const producer = await stage.client()
    const json = JSON.stringify({ text: 'quotes " and <tags> & ümlauts 😀', list: [1, null, true] })
    const escaped = json.replace(/&/g, '&amp;').replace(/</g, '&lt;')
    producer.send(
      `<message to='${QUEUES.any}'><xmq xmlns='xmq:topic' topic='${topic}'><json xmlns='urn:xmpp:json:0'>${escaped}</json></xmq></message>`,
    )
    const xmq = findChild(await worker.nextMessage(), 'xmq', 'xmq:topic')
    const payload = xmq && findChild(xmq, 'json', 'urn:xmpp:json:0')
    expect(payload && textOf(payload)).toBe(json)
  })

  test('any: each of three workers gets every third message, and each topic has its own turn', async () => {
    const [topic, other] = [fresh('topic'), fresh('other')]
    const workers = [await stage.worker(QUEUES.any, topic), await stage.worker(QUEUES.any, topic)]
    workers.push(await stage.worker(QUEUES.any, topic))
    for (const worker of workers) await worker.sub(QUEUES.any, other)
    const producer = await stage.client()
    for (let index = 0; index < 9; index++) {
      producer.send(message(QUEUES.any, topic, String(index)))
      producer.send(message(QUEUES.any, other, String(index)))
    }
    await producer.fence(QUEUES.any)
    for (const worker of workers) {
      await worker.fence(QUEUES.any)
      const got = await worker.takeMessages()
      expect(got.filter((each) => topicOf(each) === topic)).toHaveLength(3)
      expect(got.filter((each) => topicOf(each) === other)).toHaveLength(3)
    }
  })

  test('all: every subscriber of the topic gets it, one with a load above 90 and one of another topic do not', async () => {
    const topic = fresh('topic')
    const workers = [await stage.worker(QUEUES.all, topic), await stage.worker(QUEUES.all, topic)]
    const full = await stage.worker(QUEUES.all, topic, { load: 95 })
    const elsewhere = await stage.worker(QUEUES.all, topic.toUpperCase())
    const producer = await stage.client()
    producer.send(message(QUEUES.all, topic, 'news'))
    for (const worker of workers) expect(bodyOf(await worker.nextMessage())).toBe('news')
    await producer.fence(QUEUES.all)
    for (const worker of [full, elsewhere]) {
      await worker.fence(QUEUES.all)
      expect(await worker.takeMessages()).toEqual([])
    }
  })

  test('two queues of one domain do not share subscriptions', async () => {
    const topic = fresh('topic')
    await stage.worker(QUEUES.allNode, topic)
    const producer = await stage.client()
    producer.send(message(QUEUES.anyNode, topic, 'hello'))
    expectError(await producer.nextMessage(), 'not-acceptable')
  })

  test('any with nobody there: "No recipients found", under the message\'s id, from the queue', async () => {
    const producer = await stage.client()
    producer.send(
      `<message type='chat' id='m7' to='${QUEUES.any}'><body>x</body><xmq xmlns='xmq:topic' topic='${fresh('t')}'/></message>`,
    )
    const answer = await producer.nextMessage()
    const error = expectError(answer, 'not-acceptable')
    expect(error).toMatchObject({
      message: 'No recipients found',
      code: 'no-recipients',
      type: 'modify',
      fromBroker: true,
    })
    expect(Object.fromEntries(answer.attrs)).toMatchObject({ id: 'm7', from: QUEUES.any })
  })

  test('all with nobody there: silence', async () => {
    const producer = await stage.client()
    producer.send(message(QUEUES.all, fresh('topic'), 'x'))
    await producer.fence(QUEUES.all)
    expect(await producer.takeMessages()).toEqual([])
  })

  test.each([
    ['no topic element', ''],
    ['a topic element without a topic', "<xmq xmlns='xmq:topic'/>"],
    ['a topic in a foreign namespace', "<xmq xmlns='urn:other' topic='t'/>"],
  ])('%s: "XMQ topic not found"', async (_, child) => {
    const producer = await stage.client()
    producer.send(`<message type='chat' id='m8' to='${QUEUES.any}'><body>x</body>${child}</message>`)
    const error = expectError(await producer.nextMessage(), 'not-acceptable')
    expect(error).toMatchObject({ message: 'XMQ topic not found', code: 'topic-required' })
  })

  test('forged producers and stanza ids are removed', async () => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    const producer = await stage.client()
    producer.send(
      `<message type='chat' to='${QUEUES.any}'><body>x</body><xmq xmlns='xmq:topic' topic='${topic}'/>` +
        `<addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='boss@localhost/x'/><address type='cc' jid='cc@localhost'/></addresses>` +
        `<stanza-id xmlns='urn:xmpp:sid:0' id='forged' by='${QUEUES.any}'/></message>`,
    )
    const got = await worker.nextMessage()
    expect(producersOf(got)).toEqual([producer.jid])
    expect(writeElement(got)).not.toContain('forged')
    expect(writeElement(got)).not.toContain('boss@localhost')
  })

  test('a message of type error is neither delivered nor answered', async () => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    const producer = await stage.client()
    producer.send(
      `<message type='error' to='${QUEUES.any}'><body>x</body><xmq xmlns='xmq:topic' topic='${topic}'/>` +
        `<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`,
    )
    await producer.fence(QUEUES.any)
    await worker.fence(QUEUES.any)
    expect(await producer.takeMessages()).toEqual([])
    expect(await worker.takeMessages()).toEqual([])
  })

  test('an address of the domain that is no queue: item-not-found', async () => {
    const producer = await stage.client()
    producer.send(message('stranger@xmq.localhost', fresh('topic'), 'x'))
    expectError(await producer.nextMessage(), 'item-not-found')
  })

  test('upper case in the queue address, and a resource, reach the same queue', async () => {
    const topic = fresh('topic')
    const worker = await stage.worker(QUEUES.any, topic)
    const producer = await stage.client()
    producer.send(message('QUEUE1.localhost/whatever', topic, 'x'))
    expect((await worker.nextMessage()).attrs.get('from')).toBe(QUEUES.any)
  })
})

onEachServer(
  'preserveFrom',
  (stage) => {
    test("where the server permits it, the producer's own address is the sender", async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      producer.send(message(QUEUES.any, topic, 'as mod_xmq'))
      const got = await worker.nextMessage()
      expect(got.attrs.get('from')).toBe(producer.jid)
      expect(bodyOf(got)).toBe('as mod_xmq')
    })
  },
  {
    // The embedded server never lets a component speak for others.
    kinds: ['prosody', 'ejabberd'],
    server: { checkFrom: false },
    queues: { [QUEUES.any]: { type: 'any', preserveFrom: true } },
  },
)
