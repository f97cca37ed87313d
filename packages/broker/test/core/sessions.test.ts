import { describe, expect, test } from 'vitest'
import { bounce, Conversation, coreRules, queueRules } from './conversation.ts'

const [A, A2, B] = ['a@localhost/1', 'a@localhost/2', 'b@localhost/1']
const Q = 'any.localhost'
const NOTHING = {
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
}
const presence = (from: string, type?: string, to = Q) =>
  `<presence from='${from}' to='${to}'${type === undefined ? '' : ` type='${type}'`}/>`
const pong = (id: string | undefined, from: string, to = Q) =>
  `<iq type='result' id='${id}' from='${from}' to='${to}'/>`

describe('a session that sends unavailable', () => {
  test('is pinged, and ends everywhere when the server answers for it', () => {
    const c = new Conversation().sub(A, 't').sub(A, 'u', { queue: 'all.localhost' }).sub(B, 't')
    c.receive(presence(A, 'unavailable'))
    expect(c.sent).toEqual([`<iq type='get' id='r3' from='${Q}' to='${A}'><ping xmlns='urn:xmpp:ping'/></iq>`])
    expect(c.events).toEqual([])
    c.receive(bounce('iq', 'r3', A, Q))
    expect(
      c.named('unsubscribed').map(({ queue, topic, consumer, reason }) => [queue, topic, consumer, reason]),
    ).toEqual([
      [Q, 't', A, 'session-ended'],
      ['all.localhost', 'u', A, 'session-ended'],
    ])
    expect(c.core.stats()).toMatchObject({
      subscriptions: 1,
      consumers: 1,
      pings: 0,
      leases: 0,
      foundLeases: 0,
      unheardSettlements: 0,
      rememberedConsumers: 0,
      claimableTopics: 0,
      storingBytes: 0,
    })
  })

  test('stays when it answers: the server was late with the news of its predecessor', () => {
    const c = new Conversation().sub(A, 't').receive(presence(A, 'unavailable'))
    c.receive(pong(c.pingId(), A))
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
    expect(c.publish('t').recipients).toEqual([A])
  })

  test('stays when it answers with an error that only a client sends', () => {
    const c = new Conversation().sub(A, 't').receive(presence(A, 'unavailable'))
    c.receive(bounce('iq', c.pingId() as string, A, Q, 'feature-not-implemented'))
    expect(c.core.stats().subscriptions).toBe(1)
  })

  test.each([
    'service-unavailable',
    'recipient-unavailable',
    'gone',
    'remote-server-not-found',
    'remote-server-timeout',
  ])('ends on %s, even if it never answered pings', (condition) => {
    const c = new Conversation().sub(A, 't', { answersPings: false }).receive(presence(A, 'unavailable'))
    expect(c.receive(bounce('iq', c.pingId() as string, A, Q, condition)).core.stats()).toEqual(NOTHING)
    expect(c.core.deadline).toBeUndefined()
  })

  test('ends when nothing answers in time, exactly', () => {
    const c = new Conversation().sub(A, 't').receive(presence(A, 'unavailable'))
    expect(c.wait(9_999).events).toEqual([])
    expect(c.wait(1).named('unsubscribed')).toMatchObject([{ reason: 'session-ended' }])
  })

  test('gets no turn while it is pinged, unless nobody else is there', () => {
    const c = new Conversation().sub(A, 't').sub(B, 't').receive(presence(A, 'unavailable'))
    const ping = c.pingId()
    expect([1, 2, 3].map(() => c.publish('t').recipients[0])).toEqual([B, B, B])
    c.del(B, 't')
    expect(c.publish('t').recipients).toEqual([A])
    c.sub(B, 't').receive(pong(ping, A))
    expect([1, 2].map(() => c.publish('t').recipients[0])).toEqual([A, B])
  })

  test('and subscribes again is alive, and the answer to the ping between is about its predecessor', () => {
    const c = new Conversation().sub(A, 't').receive(presence(A, 'unavailable'))
    const ping = c.pingId() as string
    c.sub(A, 't').receive(bounce('iq', ping, A, Q))
    expect(c.named('ignored')).toHaveLength(1)
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
  })

  test('before it answered its first ping is pinged afresh at once: it may have died with that ping unanswered', () => {
    const c = new Conversation().receive(
      `<iq type='set' id='s' from='${A}' to='${Q}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='1'/></iq>`,
    )
    const first = c.pingId() as string
    const second = c.receive(presence(A, 'unavailable')).pingId() as string
    expect(second).not.toBe(first)
    expect(c.receive(pong(first, A)).named('ignored')).toHaveLength(1)
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 1 })
    expect(c.receive(bounce('iq', second, A, Q)).core.stats()).toEqual(NOTHING)
  })

  test('while another ping is open is pinged afresh, since an older answer proves nothing', () => {
    const c = new Conversation().sub(A, 't', { ttl: 3600 }).wait(60_000)
    const first = c.pingId() as string
    const second = c.receive(presence(A, 'unavailable')).pingId() as string
    expect(second).not.toBe(first)
    c.receive(pong(first, A))
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 1 })
    expect(c.receive(bounce('iq', second, A, Q)).core.stats()).toEqual(NOTHING)
  })

  test('again while that ping is open is pinged again when it was answered', () => {
    const c = new Conversation().sub(A, 't').receive(presence(A, 'unavailable'))
    const first = c.pingId() as string
    expect(c.receive(presence(A, 'unavailable')).sent).toEqual([])
    const second = c.receive(pong(first, A)).pingId() as string
    expect(c.receive(bounce('iq', second, A, Q)).core.stats()).toEqual(NOTHING)
  })

  test('from a bare JID concerns each of its sessions and nobody else', () => {
    const c = new Conversation().sub(A, 't').sub(A2, 't').sub(B, 't').receive(presence('a@localhost', 'unavailable'))
    expect(c.recipients.toSorted()).toEqual([A, A2])
  })

  test('forged from another account or resource concerns nobody', () => {
    const c = new Conversation().sub(A, 't')
    for (const from of ['eve@localhost/1', A2, 'localhost'])
      expect(c.receive(presence(from, 'unavailable')).sent).toEqual([])
  })

  test('a hundred times is pinged once at a time', () => {
    const c = new Conversation().sub(A, 't')
    for (let n = 0; n < 100; n++) c.receive(presence(A, 'unavailable'))
    expect(c.core.stats().pings).toBe(1)
  })
})

describe('the answer to a ping', () => {
  test.each([
    ['another session', A2, undefined],
    ['the bare JID', 'a@localhost', undefined],
    ['the session under another id', A, 'r99'],
  ])('from %s does not count', (_, from, id) => {
    const c = new Conversation().sub(A, 't').receive(presence(A, 'unavailable'))
    c.receive(bounce('iq', id ?? (c.pingId() as string), from, Q))
    expect(c.named('ignored')).toHaveLength(1)
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 1 })
  })

  test('service-unavailable at the first sub means that the client knows no pings: it is left alone', () => {
    const c = new Conversation().sub(A, 't', { ttl: 3600, answersPings: false })
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
    expect(c.wait(3_599_000).sent).toEqual([])
    expect(c.sub(A, 't').sent).toHaveLength(1)
  })

  test('that never comes at the first sub means the same', () => {
    const c = new Conversation().receive(
      `<iq type='set' id='s' from='${A}' to='${Q}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='600' load='1'/></iq>`,
    )
    expect(c.wait(500_000).events).toEqual([])
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
  })

  test('has as long again when the broker itself was held up', () => {
    const c = new Conversation().sub(A, 't', { ttl: 3600 }).receive(presence(A, 'unavailable'))
    const ping = c.pingId()
    c.now += 60_000
    expect(c.input({ type: 'tick' }).named('unsubscribed')).toEqual([])
    c.receive(pong(ping, A))
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
  })
})

describe('a session that sends no presence', () => {
  test.each([
    [3600, 60_000],
    [60, 30_000],
  ])('is pinged after a silence, with ttl %i s after %i ms', (ttl, silence) => {
    const c = new Conversation().sub(A, 't', { ttl })
    expect(c.wait(silence - 1).sent).toEqual([])
    expect(c.wait(1).recipients).toEqual([A])
    expect(c.publish('t').recipients).toEqual([A])
    c.receive(pong('r2', A))
    expect(c.wait(silence - 1).sent).toEqual([])
  })

  test('ends when it does not answer', () => {
    const c = new Conversation().sub(A, 't', { ttl: 3600 }).wait(60_000)
    expect(c.wait(10_000).named('unsubscribed')).toMatchObject([{ reason: 'session-ended' }])
  })

  test('is not pinged while it renews', () => {
    const c = new Conversation().sub(A, 't', { ttl: 60 })
    for (let n = 0; n < 20; n++) expect(c.wait(20_000).sub(A, 't', { ttl: 60 }).sent).toHaveLength(1)
  })
})

describe('directed presence', () => {
  test('before the first sub spares the session further pings', () => {
    const c = new Conversation().receive(presence(A)).sub(A, 't', { ttl: 3600 })
    expect(c.wait(3_000_000).sent).toEqual([])
    expect(c.core.stats().subscriptions).toBe(1)
  })

  test('is answered with nothing, and leaves nothing behind', () => {
    const c = new Conversation().receive(presence(A))
    expect([c.sent, c.events]).toEqual([[], []])
    c.receive(presence(A, 'unavailable'))
    expect(c.sent).toEqual([])
    expect(c.core.stats()).toEqual(NOTHING)
  })

  test('counts no more after the stream was down: the end of the session may have been missed', () => {
    const c = new Conversation().receive(presence(A))
    c.input({ type: 'link-down', domain: Q }).input({ type: 'link-up', domain: Q }).sub(A, 't', { ttl: 3600 })
    expect(c.wait(60_000).recipients).toEqual([A])
  })

  test('from whom the queue does not allow is not remembered', () => {
    const c = new Conversation(coreRules({ queues: [queueRules(Q, { consume: [] }), queueRules('all.localhost')] }))
    c.receive(presence(A)).sub(A, 't', { queue: 'all.localhost', ttl: 3600 })
    expect(c.wait(60_000).recipients).toEqual([A])
  })

  test.each(['subscribe', 'probe'])('of type %s is declined once', (type) => {
    const c = new Conversation().receive(`<presence type='${type}' id='p' from='${A}' to='${Q}'/>`)
    expect(c.sent).toEqual([`<presence type='unsubscribed' id='p' from='${Q}' to='a@localhost'/>`])
  })

  test.each(['subscribed', 'unsubscribe', 'unsubscribed', 'error', 'nonsense'])(
    'of type %s is not answered',
    (type) => {
      expect(new Conversation().receive(presence(A, type)).sent).toEqual([])
    },
  )

  test('of type error puts its session to a ping', () => {
    const c = new Conversation().sub(A, 't').receive(presence(A, 'error'))
    expect(c.receive(bounce('iq', c.pingId() as string, A, Q)).core.stats()).toEqual(NOTHING)
  })
})

describe('a stream that breaks', () => {
  test('keeps the subscriptions, sends nothing, and has them verified when it is up again', () => {
    const c = new Conversation()
      .sub(A, 't', { ttl: 600 })
      .sub(B, 't', { ttl: 600 })
      .sub(B, 't', { queue: 'all.localhost', ttl: 600 })
    c.input({ type: 'link-down', domain: Q })
    expect(c.wait(59_999).sent).toEqual([])
    expect(c.core.stats()).toMatchObject({ subscriptions: 3, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
    c.input({ type: 'link-up', domain: Q })
    const ids = c.stanzas.map((stanza) => stanza.attrs.get('id') as string)
    expect(c.recipients).toEqual([A, B])
    c.receive(bounce('iq', ids[0] as string, A, Q)).receive(pong(ids[1], B))
    expect(c.core.stats()).toMatchObject({ subscriptions: 2, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
    expect(c.publish('t').recipients).toEqual([B])
  })

  test('closes the pings that were open: nobody ends for an answer that could not arrive', () => {
    const c = new Conversation().sub(A, 't', { ttl: 600 }).receive(presence(A, 'unavailable'))
    c.input({ type: 'link-down', domain: Q }).wait(300_000)
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, pings: 0, leases: 0, claimableTopics: 0, storingBytes: 0 })
    c.input({ type: 'link-up', domain: Q })
    expect(c.receive(pong(c.pingId(), A)).core.stats()).toMatchObject({
      subscriptions: 1,
      pings: 0,
      leases: 0,
      foundLeases: 0,
      unheardSettlements: 0,
      rememberedConsumers: 0,
      claimableTopics: 0,
      storingBytes: 0,
    })
  })

  test('asks over another stream, where there is one', () => {
    const c = new Conversation().sub(A, 't', { ttl: 600 }).sub(A, 't', { queue: 'all.localhost', ttl: 600 })
    c.receive(presence(A, 'unavailable')).input({ type: 'link-down', domain: Q })
    expect(c.stanzas.map(({ attrs }) => attrs.get('from'))).toEqual(['all.localhost'])
  })

  test('serves those not verified yet only when nobody else is there', () => {
    const c = new Conversation()
      .sub(A, 't')
      .input({ type: 'link-down', domain: Q })
      .input({ type: 'link-up', domain: Q })
    expect(c.publish('t').recipients).toEqual([A])
    c.sub(B, 't')
    expect([c.publish('t').recipients, c.publish('t').recipients]).toEqual([[B], [B]])
  })

  test('does not ping who cannot answer', () => {
    const c = new Conversation().sub(A, 't', { answersPings: false }).input({ type: 'link-down', domain: Q })
    expect(c.input({ type: 'link-up', domain: Q }).sent).toEqual([])
  })

  test('has many sessions verified a burst at a time', () => {
    const c = new Conversation()
    for (let n = 0; n < 1000; n++) c.sub(`w${n}@localhost/1`, 't', { ttl: 600 })
    c.input({ type: 'link-down', domain: Q }).input({ type: 'link-up', domain: Q })
    const bursts = [c.sent.length]
    for (let n = 0; n < 5; n++) bursts.push(c.wait(100).sent.length)
    expect(bursts).toEqual([200, 200, 200, 200, 200, 0])
  })

  test('of another domain concerns nobody', () => {
    const c = new Conversation().sub(A, 't')
    for (const domain of ['xmq.localhost', 'unknown.example']) {
      expect(c.input({ type: 'link-down', domain }).input({ type: 'link-up', domain }).sent).toEqual([])
    }
  })
})
