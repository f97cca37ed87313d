import type { XmlNode } from '@xmq/protocol'
import { describe, expect, test } from 'vitest'
import { bounce, Conversation, coreRules, errorXml, queueRules } from './conversation.ts'

const [A, B, D, E] = ['a@localhost/1', 'b@localhost/1', 'd@localhost/1', 'e@localhost/1']
const SHOP = 'shop@localhost/1'
const Q = 'any.localhost'
const result = (id: string, from: string, children = `<ok xmlns='urn:x'/>`, to = Q) =>
  `<iq type='result' id='${id}' from='${from}' to='${to}'>${children}</iq>`
/** The id under which the worker knows the request of the last step. */
const hop = (c: Conversation) =>
  c.stanzas
    .find(({ attrs, children }) => /^[gs]et$/.test(attrs.get('type') ?? '') && !children.some(isPing))
    ?.attrs.get('id') as string
const isPing = (child: XmlNode) => typeof child !== 'string' && child.name === 'ping'
/** A conversation with these subscribers, and a request that was just made. */
function asked(...workers: string[]): Conversation {
  const c = new Conversation()
  for (const worker of workers) c.sub(worker, 't')
  return c.request('t')
}

describe('a request', () => {
  test.each(['get', 'set'])('reaches one worker from the queue, under a random id, with its type: %s', (type) => {
    const c = new Conversation().sub(A, 't').sub(B, 't').request('t', { type })
    expect(c.sent).toEqual([
      `<iq type='${type}' id='r3' from='${Q}' to='${A}'>` +
        `<xmq xmlns='xmq:topic' topic='t'><ask xmlns='urn:x'/><call xmlns='xmq:queue:1' from='${SHOP}'/></xmq></iq>`,
    ])
    expect(c.events).toEqual([{ name: 'requested', queue: Q, topic: 't', attempt: 1 }])
  })

  test.each([
    [
      'flat',
      `<ask xmlns='urn:x'/><xmq xmlns='xmq:topic' topic='t'/>`,
      `<ask xmlns='urn:x'/><xmq xmlns='xmq:topic' topic='t'/>`,
    ],
    [
      'flat, the other way round',
      `<xmq xmlns='xmq:topic' topic='t'/><ask xmlns='urn:x'/>`,
      `<ask xmlns='urn:x'/><xmq xmlns='xmq:topic' topic='t'/>`,
    ],
    [
      'flat with a ping for payload',
      `<ping xmlns='urn:xmpp:ping'/><xmq xmlns='xmq:topic' topic='t'/>`,
      `<ping xmlns='urn:xmpp:ping'/><xmq xmlns='xmq:topic' topic='t'/>`,
    ],
    [
      'flat with a forged call',
      `<ask xmlns='urn:x'/><xmq xmlns='xmq:topic' topic='t'><call xmlns='xmq:queue:1' from='boss@localhost'/></xmq>`,
      `<ask xmlns='urn:x'/><xmq xmlns='xmq:topic' topic='t'><call xmlns='xmq:queue:1'/></xmq>`,
    ],
    [
      'nested',
      `<xmq xmlns='xmq:topic' topic='t'><a xmlns='urn:a'/><b xmlns='urn:b'/></xmq>`,
      `<xmq xmlns='xmq:topic' topic='t'><a xmlns='urn:a'/><b xmlns='urn:b'/><call xmlns='xmq:queue:1' from='${SHOP}'/></xmq>`,
    ],
    [
      'nested with a call and a forged from',
      `<xmq xmlns='xmq:topic' topic='t'><call xmlns='xmq:queue:1' deadline='D' from='boss@localhost'><headers xmlns='xmq:queue:1'/></call></xmq>`,
      `<xmq xmlns='xmq:topic' topic='t'><call xmlns='xmq:queue:1' deadline='D' from='${SHOP}'><headers/></call></xmq>`,
    ],
    [
      'nested and empty',
      `<xmq xmlns='xmq:topic' topic='t'/>`,
      `<xmq xmlns='xmq:topic' topic='t'><call xmlns='xmq:queue:1' from='${SHOP}'/></xmq>`,
    ],
  ])('keeps its form: %s', (_, children, expected) => {
    const c = new Conversation().sub(A, 't').receive(`<iq type='get' id='q' from='${SHOP}' to='${Q}'>${children}</iq>`)
    expect(c.sent).toEqual([`<iq type='get' id='r2' from='${Q}' to='${A}'>${expected}</iq>`])
  })

  test('to an all queue reaches one worker, in turn', () => {
    const queue = 'all.localhost'
    const c = new Conversation().sub(A, 't', { queue }).sub(B, 't', { queue })
    expect([1, 2, 3].map(() => c.request('t', { queue }).recipients)).toEqual([[A], [B], [A]])
  })

  test('shares its turns with messages', () => {
    const c = asked(A, B)
    expect(c.publish('t').recipients).toEqual([B])
  })

  test('comes from the queue even where from is preserved', () => {
    const c = new Conversation(coreRules({ queues: [queueRules(Q, { preserveFrom: true })] })).sub(A, 't').request('t')
    expect(c.stanzas[0]?.attrs.get('from')).toBe(Q)
  })

  test.each([
    ['nobody', 't', 'no-recipients', SHOP, `<xmq xmlns='xmq:topic' topic='other'/>`],
    ['no topic', 't', 'topic-required', SHOP, `<xmq xmlns='xmq:topic'/>`],
    [
      'three children',
      't',
      'bad-request',
      SHOP,
      `<a xmlns='urn:a'/><xmq xmlns='xmq:topic' topic='t'/><b xmlns='urn:b'/>`,
    ],
    ['too much', 't', 'too-large', SHOP, `<xmq xmlns='xmq:topic' topic='t'>${'"'.repeat(2000)}</xmq>`],
    ['no right', 't', 'forbidden', 'eve@evil.example/1', `<xmq xmlns='xmq:topic' topic='t'/>`],
  ])('is refused with one error: %s', (_, topic, code, from, children) => {
    const c = new Conversation()
      .sub(A, topic)
      .receive(`<iq type='get' id='q' from='${from}' to='${Q}'>${children}</iq>`)
    expect(c.sent).toHaveLength(1)
    expect(c.stanzas[0]?.attrs.get('id')).toBe('q')
    expect(c.named('refused')).toMatchObject([{ code }])
    expect(c.core.stats().openRequests).toBe(0)
  })

  test('beyond the cap is refused, and one that was answered makes room', () => {
    const c = new Conversation(coreRules({ openRequestsMax: 1 })).sub(A, 't').request('t')
    const id = hop(c)
    expect(c.request('t').named('refused')).toMatchObject([
      { code: 'limit-reached', text: expect.stringContaining('maxOpenRequests') },
    ])
    c.receive(result(id, A))
    expect(c.request('t').named('requested')).toHaveLength(1)
  })
})

describe('an answer', () => {
  test.each([
    ['result', `<ok xmlns='urn:x'/>`],
    ['result', ''],
    ['error', errorXml('undefined-condition')],
    [
      'error',
      errorXml('item-not-found').replace('</error>', `<mine xmlns='urn:x'/></error>`) + `<echo xmlns='urn:x'/>`,
    ],
    [
      'error',
      errorXml('service-unavailable').replace(
        '</error>',
        `<failure xmlns='xmq:queue:1' code='handler-failed'/></error>`,
      ),
    ],
  ])('of type %s returns whole, from the queue, under the requester’s id: %s', (type, children) => {
    const c = asked(A)
    c.receive(`<iq type='${type}' id='${hop(c)}' from='${A}' to='${Q}'>${children}</iq>`)
    const inside = children === '' ? '/>' : `>${children}</iq>`
    expect(c.sent).toEqual([`<iq type='${type}' id='q1' from='${Q}' to='${SHOP}'${inside}`])
    expect(c.named('answered')).toMatchObject([{ queue: Q, topic: 't', outcome: type }])
    expect(c.core.stats()).toMatchObject({ openRequests: 0, subscriptions: 1 })
  })

  test.each([
    ['another session of the worker', 'a@localhost/2', Q],
    ['the worker’s bare JID', 'a@localhost', Q],
    ['another account', 'eve@localhost/1', Q],
    ['the worker, to another queue', A, 'all.localhost'],
  ])('from %s is ignored', (_, from, to) => {
    const c = asked(A)
    const id = hop(c)
    c.receive(result(id, from, '<forged/>', to))
    expect(c.sent).toEqual([])
    expect(c.named('ignored')).toMatchObject([{ sender: from }])
    expect(c.receive(result(id, A)).recipients).toEqual([SHOP])
  })

  test.each(['q1', 'r1', 'r99', '__proto__'])('under an id that was not given out is ignored: %s', (id) => {
    const c = asked(A).receive(result(id, A))
    expect(c.sent).toEqual([])
    expect(c.core.stats().openRequests).toBe(1)
  })

  test('that comes again, or late, is ignored', () => {
    const c = asked(A)
    const id = hop(c)
    c.receive(result(id, A)).receive(result(id, A))
    expect([c.sent, c.named('ignored').length]).toEqual([[], 1])
  })

  test('that is too large becomes an error', () => {
    const c = asked(A)
    c.receive(result(hop(c), A, `<a xmlns='urn:a' b='${'"'.repeat(2000)}'/>`))
    expect(c.named('answered')).toMatchObject([{ outcome: 'too-large' }])
    expect(c.sent[0]).toMatch(
      new RegExp(`^<iq type='error' id='q1' from='${Q}' to='${SHOP}'><error type='modify'><policy-violation`),
    )
  })

  test('goes to the request that it is for, also when two have one id', () => {
    const c = asked(A)
    const first = hop(c)
    const second = hop(c.request('t'))
    expect(second).not.toBe(first)
    expect(c.receive(result(second, A)).sent).toHaveLength(1)
    expect(c.receive(result(first, A)).sent).toHaveLength(1)
  })

  test('keeps the address that the requester asked', () => {
    const c = new Conversation().sub(A, 't').request('t', { queue: `${Q}/sub` })
    expect(c.receive(result(hop(c), A)).stanzas[0]?.attrs.get('from')).toBe(`${Q}/sub`)
  })

  test('counts from a worker that has unsubscribed meanwhile', () => {
    const c = asked(A)
    const id = hop(c)
    c.del(A, 't')
    expect(c.receive(result(id, A)).recipients).toEqual([SHOP])
    expect(c.core.stats()).toEqual({
      subscriptions: 0,
      consumers: 0,
      topics: 0,
      openRequests: 0,
      pings: 0,
      leases: 0,
      foundLeases: 0,
      unheardSettlements: 0,
      rememberedConsumers: 0,
      claimableTopics: 0,
      storingBytes: 0,
      sessions: 0,
      unansweredDeliveries: 0,
      waitingDeliveries: 0,
      ephemeralMessages: 0,
      ephemeralBytes: 0,
      namedSubscriptions: 0,
      heldAnswers: 0,
    })
    expect(c.core.deadline).toBeUndefined()
  })
})

describe('a bounce', () => {
  test.each(['recipient-unavailable', 'gone'])(
    'with %s hands the request to the next worker and ends the first one’s subscriptions',
    (condition) => {
      const c = asked(A, B)
      const first = hop(c)
      c.receive(bounce('iq', first, A, Q, condition))
      expect(c.recipients).toEqual([B])
      expect(hop(c)).not.toBe(first)
      expect(c.events).toEqual([
        { name: 'bounced', queue: Q, consumer: A, condition },
        { name: 'unsubscribed', queue: Q, topic: 't', consumer: A, reason: 'bounced' },
        { name: 'requested', queue: Q, topic: 't', attempt: 2 },
      ])
      const second = hop(c)
      expect(c.receive(result(first, A)).sent).toEqual([])
      expect(c.receive(result(second, B)).recipients).toEqual([SHOP])
    },
  )

  test('with service-unavailable hands the request on, and lets a ping tell a dead worker from one that knows no such IQ', () => {
    const c = asked(A, B)
    c.receive(bounce('iq', hop(c), A, Q))
    expect(c.named('requested')).toMatchObject([{ attempt: 2 }])
    expect(c.recipients).toEqual([A, B])
    expect(c.core.stats().subscriptions).toBe(2)
    const ping = c.pingId() as string
    expect(c.publish('t').recipients).toEqual([B])
    expect(c.receive(result(ping, A, '')).core.stats().subscriptions).toBe(2)
    expect(c.publish('t').recipients).toEqual([A])

    const d = asked(A, B)
    d.receive(bounce('iq', hop(d), A, Q))
    d.receive(bounce('iq', d.pingId() as string, A, Q))
    expect(d.named('unsubscribed')).toMatchObject([{ consumer: A, reason: 'session-ended' }])
  })

  test('with service-unavailable from a worker that cannot answer pings leaves it its messages', () => {
    const c = new Conversation().sub(A, 't', { answersPings: false }).request('t')
    c.receive(bounce('iq', hop(c), A, Q))
    expect(c.named('answered')).toMatchObject([{ outcome: 'no-recipients' }])
    expect(c.publish('t').recipients).toEqual([A])
  })

  test.each(['remote-server-timeout', 'item-not-found', 'feature-not-implemented'])(
    'with another condition is the worker’s answer: %s',
    (condition) => {
      const c = asked(A, B)
      c.receive(bounce('iq', hop(c), A, Q, condition))
      expect(c.recipients).toEqual([SHOP])
      expect(c.core.stats().subscriptions).toBe(2)
    },
  )

  test('is believed three times', () => {
    const c = asked(A, B, D, E)
    for (const worker of [A, B]) {
      expect(c.receive(bounce('iq', hop(c), worker, Q, 'gone')).named('requested')).toHaveLength(1)
    }
    c.receive(bounce('iq', hop(c), D, Q, 'gone'))
    expect(c.named('answered')).toMatchObject([{ outcome: 'no-recipients' }])
    expect(c.sent).toHaveLength(1)
    expect(c.publish('t').recipients).toEqual([E])
  })

  test('does not bring a worker back that has subscribed again', () => {
    const c = asked(A)
    const id = hop(c)
    c.receive(bounce('iq', id, A, Q, 'gone'))
    expect(c.named('answered')).toMatchObject([{ outcome: 'no-recipients' }])
    const d = asked(A, B)
    const first = hop(d)
    d.receive(bounce('iq', first, A, Q, 'gone'))
    const second = hop(d)
    d.sub(A, 't').receive(bounce('iq', second, B, Q, 'gone'))
    expect(d.named('answered')).toMatchObject([{ outcome: 'no-recipients' }])
    expect(d.publish('t').recipients).toEqual([A])
  })

  test('from another than the worker asked is ignored', () => {
    const c = asked(A, B)
    expect(c.receive(bounce('iq', hop(c), B, Q)).sent).toEqual([])
    expect(c.core.stats()).toMatchObject({ subscriptions: 2, openRequests: 1 })
  })
})

describe('without an answer', () => {
  test('a request times out exactly, and no other worker is tried', () => {
    const c = asked(A, B)
    const id = hop(c)
    c.now += 29_999
    expect(c.input({ type: 'tick' }).named('answered')).toEqual([])
    c.now += 1
    c.input({ type: 'tick' })
    expect(c.named('answered')).toEqual([
      { name: 'answered', queue: Q, topic: 't', outcome: 'timeout', elapsedMs: 30_000 },
    ])
    expect(c.recipients).toContain(SHOP)
    expect(c.named('requested')).toEqual([])
    expect(c.receive(result(id, A)).named('ignored')).toHaveLength(1)
  })

  test('a request whose worker’s session ends is told so', () => {
    const c = asked(A, B)
    c.receive(`<presence type='unavailable' from='${A}' to='${Q}'/>`)
    expect(c.named('answered')).toEqual([])
    c.receive(bounce('iq', c.pingId() as string, A, Q))
    expect(c.named('answered')).toMatchObject([{ outcome: 'worker-gone' }])
    expect(c.sent[0]).toMatch(
      new RegExp(`^<iq type='error' id='q1' from='${Q}' to='${SHOP}'><error type='wait'><recipient-unavailable`),
    )
    expect(c.named('requested')).toEqual([])
  })

  test('one account cannot use up what others need', () => {
    const c = new Conversation(coreRules({ openRequestsPerJidMax: 1 })).sub(A, 't').request('t')
    expect(c.request('t', { id: 'q2', from: 'shop@localhost/2' }).named('refused')).toMatchObject([
      { code: 'limit-reached', text: expect.stringContaining('maxOpenRequestsPerJid') },
    ])
    expect(c.request('t', { id: 'q3', from: 'other@localhost/1' }).named('requested')).toHaveLength(1)
    c.receive(result(hop(c), A)).wait(30_000)
    expect(c.request('t', { id: 'q4' }).named('requested')).toHaveLength(1)
  })

  test('a stopping broker leaves nobody waiting', () => {
    const c = asked(A).input({ type: 'shutdown' })
    expect(c.named('answered')).toMatchObject([{ outcome: 'timeout' }])
    expect(c.sent[0]).toMatch(
      new RegExp(`^<iq type='error' id='q1' from='${Q}' to='${SHOP}'><error type='wait'><remote-server-timeout`),
    )
    expect(c.core.stats().openRequests).toBe(0)
  })

  test('a request that became due while the stream was down is answered once it is up', () => {
    const c = asked(A).input({ type: 'link-down', domain: Q }).wait(60_000)
    expect(c.sent).toEqual([])
    expect(c.named('answered')).toMatchObject([{ outcome: 'timeout' }])
    c.input({ type: 'link-up', domain: Q })
    expect(c.sent[0]).toMatch(/^<iq type='error' id='q1'/)
    expect(c.input({ type: 'link-up', domain: Q }).recipients).not.toContain(SHOP)
  })
})
