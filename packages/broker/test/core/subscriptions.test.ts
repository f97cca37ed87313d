import { describe, expect, test } from 'vitest'
import { Conversation, coreRules, queueRules } from './conversation.ts'

const W = 'worker@localhost/1'
const command = (attrs: string, type = 'set', from = W, to = 'any.localhost') =>
  `<iq type='${type}' id='c' from='${from}' to='${to}'><xmq xmlns='xmq:command' ${attrs}/></iq>`

describe('sub', () => {
  test('is answered with an empty result, before the ping that learns whether the client can answer one', () => {
    const c = new Conversation().receive(command(`command='sub' topic='T' ttl='60' load='1'`))
    expect(c.sent).toEqual([
      `<iq type='result' id='c' from='any.localhost' to='${W}'/>`,
      `<iq type='get' id='r1' from='any.localhost' to='${W}'><ping xmlns='urn:xmpp:ping'/></iq>`,
    ])
    expect(c.events).toEqual([
      { name: 'subscribed', queue: 'any.localhost', topic: 'T', consumer: W, ttlSeconds: 60, load: 1, isNew: true },
    ])
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, consumers: 1, topics: 1, openRequests: 0, pings: 1 })
  })

  test.each([
    [`load='1' ttl='60' topic='T' command='sub'`],
    [`command='sub' topic='T' ttl='60' load='1' colour='blue'`],
    [`topic='T' command='sub' load='0' ttl='+60'`],
  ])('takes attributes in any order, and more of them: %s', (attrs) => {
    expect(new Conversation().receive(command(attrs)).named('subscribed')).toHaveLength(1)
  })

  test('ignores node and resource of the address as far as they are not the queue’s', () => {
    const c = new Conversation().receive(
      command(`command='sub' topic='T' ttl='60' load='1'`, 'set', W, 'any.localhost/x'),
    )
    expect(c.sent[0]).toBe(`<iq type='result' id='c' from='any.localhost/x' to='${W}'/>`)
    expect(c.publish('T').recipients).toEqual([W])
  })

  test('again replaces ttl and load, and says that it is not new', () => {
    const c = new Conversation().sub(W, 'T', { ttl: 5 }).sub(W, 'T', { ttl: 60, load: 95 })
    expect(c.named('subscribed')).toMatchObject([{ isNew: false, ttlSeconds: 60, load: 95 }])
    expect(c.sent).toHaveLength(1)
    expect(c.core.stats().subscriptions).toBe(1)
    expect(c.wait(10_000).named('unsubscribed')).toEqual([])
    expect(c.publish('T').named('refused')).toMatchObject([{ code: 'no-recipients' }])
  })

  test.each([
    [`command='sub' topic='T' load='1'`, "'ttl' is missing"],
    [`command='sub' topic='T' ttl='x' load='1'`, "'ttl' is 'x'"],
    [`command='sub' topic='T' ttl='1e3' load='1'`, "'ttl' is '1e3'"],
    [`command='sub' topic='T' ttl='3601' load='1'`, 'at most 3600 seconds (maxTtl)'],
    [`command='sub' topic='T' ttl='60'`, "'load' is missing"],
    [`command='sub' topic='T' ttl='60' load='101'`, "'load' is '101'"],
    [`command='sub' topic='T' ttl='60' load='-1'`, "'load' is '-1'"],
    [`command='sub' ttl='60' load='1'`, "'topic' is missing"],
    [`command='sub' topic='' ttl='60' load='1'`, "'topic' is empty"],
    [`command='join' topic='T' ttl='60' load='1'`, "'command' is 'join'"],
    [`topic='T' ttl='60' load='1'`, "'command' is missing"],
  ])('broken is refused with a text that names what is wrong: %s', (attrs, text) => {
    const c = new Conversation().receive(command(attrs))
    expect(c.sent).toHaveLength(1)
    expect(c.named('refused')).toMatchObject([{ code: 'bad-request', text: expect.stringContaining(text) }])
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
  })

  test('with type get is refused', () => {
    const c = new Conversation().receive(command(`command='sub' topic='T' ttl='60' load='1'`, 'get'))
    expect(c.named('refused')).toMatchObject([{ code: 'bad-request', text: expect.stringContaining("'type'") }])
  })

  test('without the right is forbidden before anything is read or kept', () => {
    const c = new Conversation().receive(command(`command='nonsense'`, 'set', 'eve@evil.example/1'))
    expect(c.named('refused')).toMatchObject([{ code: 'forbidden', sender: 'eve@evil.example/1' }])
    expect(c.core.stats().subscriptions).toBe(0)
  })

  test.each([
    ['localhost', true],
    ['worker@localhost', true],
    ['other@localhost', false],
    ['host', false],
  ])('is allowed by bare JID or domain: %s -> %s', (entry, isAllowed) => {
    const c = new Conversation(coreRules({ queues: [queueRules('any.localhost', { consume: [entry] })] })).sub(W, 'T')
    expect(c.core.stats().subscriptions).toBe(isAllowed ? 1 : 0)
  })
})

describe('del', () => {
  test.each([[''], [` ttl='60' load='1'`]])('ends the subscription, with ttl and load or without: "%s"', (more) => {
    const c = new Conversation().sub(W, 'T').receive(command(`command='del' topic='T'${more}`))
    expect(c.sent).toEqual([`<iq type='result' id='c' from='any.localhost' to='${W}'/>`])
    expect(c.named('unsubscribed')).toMatchObject([{ topic: 'T', consumer: W, reason: 'deleted' }])
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

  test('of what is not subscribed is answered just so', () => {
    const c = new Conversation().sub(W, 'T').del(W, 'other').del('worker@localhost/2', 'T')
    expect(c.sent).toEqual([`<iq type='result' id='del' from='any.localhost' to='worker@localhost/2'/>`])
    expect(c.core.stats().subscriptions).toBe(1)
  })
})

describe('ttl', () => {
  test.each([
    [1_000_000, 60, 1_061_000],
    [1_000_999, 60, 1_061_000],
    [1_000_400, 0, 1_001_000],
    [1_000_000, 1, 1_002_000],
  ])('at %i ms with %i s ends at exactly %i ms', (now, ttl, end) => {
    const c = new Conversation(coreRules(), now).sub(W, 'T', { ttl, answersPings: false })
    c.wait(end - now - 1)
    expect(c.publish('T').recipients).toEqual([W])
    c.now = end
    expect(c.publish('T').named('refused')).toMatchObject([{ code: 'no-recipients' }])
    expect(c.named('unsubscribed')).toMatchObject([{ topic: 'T', consumer: W, reason: 'expired' }])
  })

  test('below 0 ends at once and makes nothing', () => {
    const c = new Conversation().sub(W, 'T', { ttl: -1 })
    expect(c.sent).toEqual([`<iq type='result' id='sub' from='any.localhost' to='${W}'/>`])
    expect(c.events).toEqual([])
    c.sub(W, 'T').sub(W, 'T', { ttl: -1 })
    expect(c.named('unsubscribed')).toMatchObject([{ reason: 'expired' }])
    expect(c.core.stats().subscriptions).toBe(0)
  })

  test('of 10,000 subscriptions, made in any order, ends in order of time', () => {
    const c = new Conversation(
      coreRules({ queues: [queueRules('any.localhost', { topicsMax: 10_000, subscriptionsPerJidMax: 10_000 })] }),
    )
    const ttls = Array.from({ length: 10_000 }, (_, n) => 1 + ((n * 7919) % 3000))
    for (const [n, ttl] of ttls.entries()) c.sub(W, `t${n}`, { ttl, answersPings: false })
    for (let n = 0; n < 10_000; n += 3) c.del(W, `t${n}`)
    for (let n = 1; n < 10_000; n += 3) c.sub(W, `t${n}`, { ttl: (ttls[n] = 3001 - (ttls[n] as number)) })
    const ended = c
      .wait(3_100_000)
      .named('unsubscribed')
      .map(({ topic }) => ttls[Number(topic.slice(1))] as number)
    expect(ended).toHaveLength(6666)
    expect(ended).toEqual(ended.toSorted((a, b) => a - b))
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

describe('limits', () => {
  const limited = (changes: Parameters<typeof queueRules>[1], subscriptionsMax = 100) =>
    new Conversation(
      coreRules({
        queues: [queueRules('any.localhost', changes), queueRules('orders@xmq.localhost')],
        subscriptionsMax,
      }),
    )

  test('subscriptions of a bare JID count together over its resources, in one queue', () => {
    const c = limited({ subscriptionsPerJidMax: 2 }).sub('w@localhost/1', 'a').sub('w@localhost/2', 'a')
    c.sub('w@localhost/3', 'a')
    expect(c.named('refused')).toMatchObject([
      { code: 'limit-reached', text: expect.stringContaining('maxSubscriptionsPerJid') },
    ])
    expect(c.sent[0]).toContain('resource-constraint')
    expect(c.sub('w@localhost/1', 'a', { ttl: 9 }).named('subscribed')).toHaveLength(1)
    expect(c.sub('w@localhost/3', 'a', { queue: 'orders@xmq.localhost' }).core.stats().subscriptions).toBe(3)
    expect(c.sub('v@localhost/3', 'a').core.stats().subscriptions).toBe(4)
    c.del('w@localhost/2', 'a')
    expect(c.sub('w@localhost/3', 'a').core.stats().subscriptions).toBe(4)
    expect(c.sub('w@localhost/4', 'a').named('refused')).toMatchObject([{ code: 'limit-reached' }])
  })

  test('do not hinder what ends at once', () => {
    const c = limited({}, 1).sub('w@localhost/1', 'a').sub('v@localhost/1', 'a', { ttl: -1 })
    expect([c.named('refused'), c.sent.length]).toEqual([[], 1])
  })

  test('topics count while somebody is subscribed to them', () => {
    const c = limited({ topicsMax: 1 }).sub('w@localhost/1', 'a').sub('w@localhost/1', 'b')
    expect(c.named('refused')).toMatchObject([{ code: 'limit-reached', text: expect.stringContaining('maxTopics') }])
    c.sub('w@localhost/2', 'a').del('w@localhost/1', 'a').sub('w@localhost/1', 'b')
    expect(c.named('refused')).toHaveLength(1)
    c.del('w@localhost/2', 'a').sub('w@localhost/1', 'b')
    expect(c.core.stats()).toMatchObject({ subscriptions: 1, topics: 1 })
  })

  test('subscriptions in all', () => {
    const c = limited({}, 2).sub('w@localhost/1', 'a').sub('w@localhost/1', 'a', { queue: 'orders@xmq.localhost' })
    c.sub('v@localhost/1', 'a')
    expect(c.named('refused')).toMatchObject([
      { code: 'limit-reached', text: expect.stringContaining('maxSubscriptions') },
    ])
    expect(c.core.stats()).toMatchObject({ subscriptions: 2, consumers: 2 })
  })
})
