import { element, parseElement } from '@xmq/protocol'
import { describe, expect, test } from 'vitest'
import { bounce, Conversation, coreRules, errorXml, queueRules } from './conversation.ts'

const [A, B, D] = ['a@localhost/1', 'b@localhost/1', 'd@localhost/1']
const TAIL = `<no-store xmlns='urn:xmpp:hints'/><no-copy xmlns='urn:xmpp:hints'/><private xmlns='urn:xmpp:carbons:2'/>`
const OFROM = `<address type='ofrom' jid='shop@localhost/1'/>`
const ADDRESSES = `<addresses xmlns='http://jabber.org/protocol/address'>${OFROM}</addresses>`
const XMQ = `<xmq xmlns='xmq:topic' topic='t'/>`

/** What the one subscriber gets for these children. */
function delivered(children: string, attrs = ''): string {
  const c = new Conversation().sub(A, 't')
  c.receive(`<message id='m' from='shop@localhost/1' to='any.localhost' ${attrs}>${children}</message>`)
  return c.sent.join('\n')
}

describe('a delivered message', () => {
  test.each([
    ['text and thread', `<subject>s</subject><body>hi</body><thread>x</thread>${XMQ}`],
    [
      'any further children in any order',
      `<a xmlns='urn:a'><b>1</b></a>${XMQ}<json xmlns='urn:xmpp:json:0'>{}</json><body xml:lang='de'>ja</body>`,
    ],
    [
      'children inside xmq, and its other attributes',
      `<xmq xmlns='xmq:topic' topic='t' n='1'><json xmlns='urn:xmpp:json:0'>{"a":1}</json></xmq>`,
    ],
    ['text between elements', `one${XMQ}two`],
    ['origin-id', `${XMQ}<origin-id xmlns='urn:xmpp:sid:0' id='o'/>`],
    ['nothing but the topic', XMQ],
  ])('is whole and in order: %s', (_, children) => {
    expect(delivered(children)).toBe(
      `<message id='m' from='any.localhost' to='${A}'>${children}${ADDRESSES}${TAIL}</message>`,
    )
  })

  test.each(['normal', 'chat', 'headline', 'groupchat'])('keeps its type: %s', (type) => {
    expect(delivered(XMQ, `type='${type}'`)).toMatch(new RegExp(`^<message type='${type}' id='m' from='any.localhost'`))
  })

  test('keeps its language, and loses a type that RFC 6121 does not know', () => {
    expect(delivered(XMQ, `type='shout' xml:lang='de'`)).toMatch(/^<message id='m' xml:lang='de' from='any.localhost'/)
  })

  test.each([
    [
      'forged ofrom',
      `<addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='boss@localhost'/></addresses>${XMQ}`,
      `${XMQ}${ADDRESSES}`,
    ],
    [
      'forged ofrom among others',
      `<addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='boss@localhost'/><address type='to' jid='x@y'/></addresses>${XMQ}`,
      `<addresses xmlns='http://jabber.org/protocol/address'><address type='to' jid='x@y'/>${OFROM}</addresses>${XMQ}`,
    ],
    [
      'forged stanza-id',
      `<stanza-id xmlns='urn:xmpp:sid:0' by='any.localhost' id='1'/>${XMQ}<stanza-id xmlns='urn:xmpp:sid:0' by='a@localhost' id='2'/>`,
      `${XMQ}${ADDRESSES}`,
    ],
  ])('bears nothing forged: %s', (_, children, expected) => {
    expect(delivered(children)).toBe(`<message id='m' from='any.localhost' to='${A}'>${expected}${TAIL}</message>`)
  })

  test('gets hints only where they are missing', () => {
    const own = `<no-copy xmlns='urn:xmpp:hints'/>${XMQ}<private xmlns='urn:xmpp:carbons:2'/>`
    expect(delivered(own)).toBe(
      `<message id='m' from='any.localhost' to='${A}'>${own}${ADDRESSES}<no-store xmlns='urn:xmpp:hints'/></message>`,
    )
  })

  test('comes from the producer where the queue preserves it, and from the queue’s domain', () => {
    const c = new Conversation(coreRules({ queues: [queueRules('any.localhost', { preserveFrom: true })] })).sub(A, 't')
    const effects = c.core.handle(
      { type: 'stanza', stanza: parseElement(`<message from='shop@localhost/1' to='any.localhost'>${XMQ}</message>`) },
      c.now,
      { id: () => 'x', unit: () => 0 },
    )
    expect(effects[0]).toMatchObject({
      type: 'send',
      domain: 'any.localhost',
      stanza: {
        attrs: new Map([
          ['from', 'shop@localhost/1'],
          ['to', A],
        ]),
      },
    })
  })

  test('shares its children between the subscribers of an all queue', () => {
    const c = new Conversation().sub(A, 't', { queue: 'all.localhost' }).sub(B, 't', { queue: 'all.localhost' })
    c.publish('t', { queue: 'all.localhost' })
    expect(c.stanzas[0]?.children).toBe(c.stanzas[1]?.children)
  })
})

describe('any', () => {
  test('serves its subscribers in turn', () => {
    const c = new Conversation().sub(A, 't').sub(B, 't').sub(D, 't')
    const turns = Array.from({ length: 7 }, () => c.publish('t').recipients[0])
    expect(turns).toEqual([A, B, D, A, B, D, A])
  })

  test('counts turns per topic', () => {
    const c = new Conversation().sub(A, 't').sub(B, 't').sub(A, 'u').sub(B, 'u')
    expect(['t', 'u', 't', 'u'].map((topic) => c.publish(topic).recipients[0])).toEqual([A, A, B, B])
  })

  test('keeps topics apart by case, and takes __proto__ for a name', () => {
    const c = new Conversation().sub(A, 'T').sub(B, '__proto__')
    expect(c.publish('t').named('refused')).toMatchObject([{ code: 'no-recipients' }])
    expect(c.publish('__proto__').recipients).toEqual([B])
    expect(c.publish('constructor').named('refused')).toMatchObject([{ code: 'no-recipients' }])
  })

  test('keeps a turn over a renewal, and gives a newcomer the last one', () => {
    const c = new Conversation().sub(A, 't').sub(B, 't')
    c.publish('t')
    c.sub(B, 't', { ttl: 99 }).sub(D, 't')
    expect([1, 2, 3].map(() => c.publish('t').recipients[0])).toEqual([B, A, D])
  })

  test.each([
    [90, true],
    [91, false],
  ])('at load %i is eligible: %s', (load, isEligible) => {
    const c = new Conversation().sub(A, 't', { load })
    expect(c.publish('t').named('published')).toHaveLength(isEligible ? 1 : 0)
  })

  test('serves one whose load has fallen as the one who has waited longest', () => {
    const c = new Conversation().sub(A, 't').sub(B, 't', { load: 95 }).sub(D, 't')
    expect([1, 2, 3].map(() => c.publish('t').recipients[0])).toEqual([A, D, A])
    c.sub(B, 't', { load: 10 })
    expect([1, 2, 3].map(() => c.publish('t').recipients[0])).toEqual([B, D, A])
  })

  test('gives a worker what it publishes itself', () => {
    expect(new Conversation().sub(A, 't').publish('t', { from: A }).recipients).toEqual([A])
  })

  test('is fair over many subscribers that come and go', () => {
    const c = new Conversation()
    const jids = Array.from({ length: 20 }, (_, n) => `w${n}@localhost/1`)
    for (const jid of jids) c.sub(jid, 't')
    const counts = new Map<string, number>()
    for (let n = 0; n < 2000; n++) {
      const jid = c.publish('t').recipients[0] as string
      counts.set(jid, (counts.get(jid) ?? 0) + 1)
      const flapping = jids[10 + (n % 10)] as string
      c.sub(flapping, 't', { load: 95 }).sub(flapping, 't', { load: 5 })
    }
    expect([...counts.values()]).toEqual(jids.map(() => 100))
  })

  test('with nobody refuses', () => {
    const c = new Conversation().publish('t')
    expect(c.sent).toEqual([
      `<message type='error' id='m' from='any.localhost' to='shop@localhost/1'><error type='modify'>` +
        `<not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>` +
        `<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>No recipients found</text>` +
        `<failure xmlns='xmq:queue:1' code='no-recipients'/></error></message>`,
    ])
  })
})

describe('all', () => {
  const queue = 'all.localhost'

  test('serves every eligible subscriber', () => {
    const c = new Conversation().sub(A, 't', { queue }).sub(B, 't', { queue, load: 95 }).sub(D, 't', { queue })
    expect(c.publish('t', { queue }).recipients.toSorted()).toEqual([A, D])
    expect(c.events).toEqual([{ name: 'published', queue, topic: 't', recipients: 2 }])
  })

  test('with nobody is silent', () => {
    const c = new Conversation().publish('t', { queue })
    expect(c.sent).toEqual([])
    expect(c.events).toEqual([{ name: 'published', queue, topic: 't', recipients: 0 }])
  })
})

describe('a message is refused', () => {
  const refusal = (children: string, from = 'shop@localhost/1', to = 'any.localhost') => {
    const c = new Conversation().sub(A, 't')
    c.receive(`<message type='chat' id='m' from='${from}' to='${to}'>${children}</message>`)
    expect(c.sent).toHaveLength(1)
    return { xml: c.sent[0] as string, event: c.named('refused')[0] }
  }

  test.each([
    ['without topic', '<body>hi</body>'],
    ['without the attribute', `<xmq xmlns='xmq:topic'/>`],
    ['with another namespace', `<xmq xmlns='xmq:other' topic='t'/>`],
  ])('%s', (_, children) => {
    const { xml, event } = refusal(children)
    expect(xml).toContain(`<error type='modify'><not-acceptable `)
    expect(xml).toContain('>XMQ topic not found</text>')
    expect(event?.code).toBe('topic-required')
  })

  test('with an empty topic', () => {
    expect(refusal(`<xmq xmlns='xmq:topic' topic=''/>`).event?.code).toBe('bad-request')
  })

  test('from whom the queue does not allow, whatever is in it', () => {
    expect(refusal('<body/>', 'eve@evil.example/1').event?.code).toBe('forbidden')
  })

  test('to a node of a domain that is a queue reaches that queue, as in mod_xmq', () => {
    const c = new Conversation().sub('a@localhost/1', 'T')
    c.receive(
      `<message from='shop@localhost/1' to='somebody@any.localhost'><xmq xmlns='xmq:topic' topic='T'/></message>`,
    )
    expect(c.sent[0]).toContain(`<message from='any.localhost' to='a@localhost/1'>`)
  })

  test.each(['nobody@xmq.localhost', 'xmq.localhost', 'none@xmq.localhost/x'])('to %s, which is no queue', (to) => {
    const { xml, event } = refusal(XMQ, 'shop@localhost/1', to)
    expect(event?.code).toBe('not-found')
    expect(xml).toContain(`from='${to}'`)
  })

  test.each([
    ['a little too much text', `<body>${'x'.repeat(10_000)}</body>`, 'too-large'],
    ['text that grows by escaping', `<body>${'"'.repeat(2_000)}</body>`, 'too-large'],
    ['an attribute that grows by escaping', `<a xmlns='urn:a' b='${'"'.repeat(2_000)}'/>`, 'too-large'],
    ['two bytes a character', `<body>${'ä'.repeat(5_000)}</body>`, 'too-large'],
    ['just little enough', `<body>${'x'.repeat(9_900)}</body>`, undefined],
  ])('by size: %s', (_, children, code) => {
    expect(refusal(children + XMQ).event?.code).toBe(code)
  })
})

test('an id counts as content, since it is delivered and echoed', () => {
  const c = new Conversation(coreRules({ queues: [queueRules('any.localhost', { payloadBytesMax: 3000 })] })).sub(
    A,
    't',
  )
  const publish = (id: string) =>
    c.receive(`<message id='${id}' from='shop@localhost/1' to='any.localhost'>${XMQ}</message>`)
  expect(publish('&quot;'.repeat(600)).named('refused')).toMatchObject([{ code: 'too-large' }])
  expect(publish('x'.repeat(600)).recipients).toEqual([A])
})

describe('a message of type error', () => {
  test('is never answered nor delivered', () => {
    const c = new Conversation()
      .sub(A, 't')
      .receive(`<message type='error' from='shop@localhost/1' to='any.localhost'>${XMQ}</message>`)
    expect(c.sent).toEqual([])
    expect(c.named('ignored')).toHaveLength(1)
    expect(c.receive(`<message type='error' from='shop@localhost/1' to='nobody@any.localhost'/>`).sent).toEqual([])
  })

  test.each(['service-unavailable', 'recipient-unavailable', 'gone', 'remote-server-not-found'])(
    'from a consumer, with %s, ends its subscriptions in that queue and puts the rest to a ping',
    (condition) => {
      const c = new Conversation().sub(A, 't').sub(A, 'u').sub(A, 't', { queue: 'all.localhost' }).sub(B, 't')
      c.receive(bounce('message', 'm', A, 'any.localhost', condition))
      expect(c.named('bounced')).toEqual([{ name: 'bounced', queue: 'any.localhost', consumer: A, condition }])
      expect(c.named('unsubscribed').map(({ topic, reason }) => [topic, reason])).toEqual([
        ['t', 'bounced'],
        ['u', 'bounced'],
      ])
      expect(c.pingId()).toBeDefined()
      expect(c.core.stats().subscriptions).toBe(2)
      expect(c.receive(bounce('iq', c.pingId() as string, A, 'any.localhost')).core.stats().subscriptions).toBe(1)
    },
  )

  test('with a condition that only a client would say ends nothing', () => {
    const c = new Conversation().sub(A, 't').receive(bounce('message', 'm', A, 'any.localhost', 'not-acceptable'))
    expect(c.named('bounced')).toHaveLength(1)
    expect(c.core.stats().subscriptions).toBe(1)
    c.receive(
      `<message type='error' from='${A}' to='any.localhost'>${errorXml('service-unavailable').replace('</error>', `<failure xmlns='xmq:queue:1' code='closed'/></error>`)}</message>`,
    )
    expect(c.core.stats().subscriptions).toBe(1)
  })
})

test('a deep or wide element is measured, not trusted', () => {
  let deep = element('a', 'urn:a')
  for (let n = 0; n < 500; n++) deep = element('a', 'urn:a', undefined, [deep])
  const c = new Conversation().sub(A, 't')
  const message = element('message', 'jabber:client', { from: B, to: 'any.localhost' }, [
    deep,
    element('xmq', 'xmq:topic', { topic: 't' }),
  ])
  expect(c.input({ type: 'stanza', stanza: message }).recipients).toEqual([A])
})
