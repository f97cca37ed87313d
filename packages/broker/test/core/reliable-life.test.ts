/** Sessions, restarts, named and ephemeral subscriptions, plain consumers, patterns, overload. */
import { decodeStats, writeElement, type XmlElement } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { type QueueRules, RELIABLE_DEFAULTS } from '../../src/core/index.ts'
import { coreRules, errorXml, queueRules } from './conversation.ts'
import { CLAIMABLE_TOPICS_MAX, COVERAGES_LOOKED_AT, type Line } from '../../src/core/lines.ts'
import { Queues } from '../../src/core/queues.ts'
import { Consumer, type Queue, Session } from '../../src/core/records.ts'
import { ack, DISK_FULL, nack, StoreWorld } from './store-world.ts'

const A = 'a@localhost/1'
const B = 'b@localhost/1'
/** Another session of A's account. */
const SIBLING = 'a@localhost/2'
const ALL = 'all.localhost'
const DURABLE = { durability: 'disk' } as const

const keeping = (changes: Partial<QueueRules> = {}) => [
  queueRules('any.localhost', { reliable: { ...RELIABLE_DEFAULTS, whenNobody: 'keep' }, ...changes }),
  queueRules(ALL, { type: 'all', reliable: { ...RELIABLE_DEFAULTS, whenNobody: 'keep' } }),
]

const SAME = "<item id='same' topic='t'><p xmlns='urn:x'/></item>"

describe('credit', () => {
  it('goes to the least in flight per credit, in turn where that is equal', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 10 })
    await w.sub(B, 't', { credit: 10 })
    await w.publish(Array.from({ length: 6 }, () => 't'))
    expect([(await w.work(A)).length, (await w.work(B)).length]).toEqual([3, 3])
  })

  it('goes round among idle workers, message by message, whatever a few per cent of load say', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 10, load: 4 })
    await w.sub(B, 't', { credit: 10, load: 0 })
    const got: number[] = []
    for (let round = 0; round < 6; round++) {
      await w.publish('t')
      for (const [index, worker] of [A, B].entries()) {
        for (const _ of await w.work(worker, ack)) got.push(index)
      }
    }
    expect(got.filter((index) => index === 0)).toHaveLength(3)
    expect(got).toHaveLength(6)
  })

  it('is scaled by load, and above 90 there is none', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 30, load: 50 })
    await w.sub(B, 't', { credit: 30, load: 0 })
    await w.sub('c@localhost/1', 't', { credit: 30, load: 91 })
    await w.publish(Array.from({ length: 30 }, () => 't'))
    expect([(await w.work(A)).length, (await w.work(B)).length]).toEqual([10, 20])
    expect(await w.work('c@localhost/1')).toEqual([])
  })

  it('counts for all topics of a consumer together, the last value', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 10 })
    await w.sub(A, 'u', { credit: 1 })
    await w.publish(['t', 'u', 't'])
    expect(await w.work(A)).toHaveLength(1)
    await w.receive(
      `<iq type='set' id='n' from='${A}' to='any.localhost'><renew xmlns='xmq:queue:1' ttl='60' load='0' credit='2'/></iq>`,
    )
    expect(w.stanzas.find((s) => s.attrs.get('id') === 'n')?.children).toMatchObject([{ name: 'renewed' }])
    expect(await w.work(A)).toHaveLength(1)
  })

  it('is taken by open requests, too', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    const request = `<iq type='get' id='q' from='shop@localhost/1' to='any.localhost'><xmq xmlns='xmq:topic' topic='t'/></iq>`
    await w.receive(request)
    await w.publish('t')
    expect(w.delivered(A)).toEqual([])
    await w.receive(request)
    expect(w.take('shop@localhost/1').map((s) => s.attrs.get('type'))).toEqual(['error'])
    expect(w.named('refused')).toMatchObject([{ code: 'overloaded' }])
  })

  it('is for at most four deliver stanzas that were not answered', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 100 })
    for (let n = 0; n < 6; n++) await w.publish('t')
    expect(w.delivered(A)).toHaveLength(4)
    expect(w.counts().leased).toBe(6)
  })

  it('comes back with a deliver stanza that was never answered, when all in it was settled', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 100 })
    for (let n = 0; n < 4; n++) {
      await w.publish('t')
      const [handed] = w.delivered(A)
      await w.settleWith(A, ack(handed?.items[0] as { lease: string }))
    }
    await w.publish('t')
    expect(w.delivered(A)).toHaveLength(1)
  })

  it('makes one claim for what many publishes brought, not one each', async () => {
    const w = await StoreWorld.start()
    await w.publish(Array.from({ length: 500 }, (_, n) => `t${n % 50}`))
    await w.sub(A, '>', { credit: 1000 })
    expect(await w.work(A)).toHaveLength(500)
    expect(w.claims).toBeLessThan(20)
  })

  it('takes a message that comes to idle workers without a claim, and claims again what waited', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 2 })
    await w.publish('t')
    await w.publish(['t', 't'])
    expect(w.claims).toBe(0)
    expect(w.counts()).toMatchObject({ leased: 2, ready: 1 })
    expect(await w.work(A, ack)).toHaveLength(3)
    expect(w.claims).toBeGreaterThan(0)
    const { claims } = w
    await w.publish('t')
    expect(await w.work(A, ack)).toHaveLength(1)
    expect(w.claims).toBe(claims)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('is asked for with a claim where many have a backlog: nobody looks through all of them', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 'idle', { credit: 1 })
    for (let n = 0; n <= COVERAGES_LOOKED_AT; n++) {
      await w.sub(`full${n}@localhost/1`, `t${n}`, { credit: 1 })
      await w.publish([`t${n}`, `t${n}`])
    }
    const { claims } = w
    await w.publish('idle')
    expect(w.claims).toBeGreaterThan(claims)
    expect(await w.work(A, ack)).toHaveLength(1)
  })

  it('is free again when the publish that it was kept for is refused or known', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    w.failure = DISK_FULL
    await w.publish('t')
    w.failure = undefined
    await w.publish(SAME)
    expect(await w.work(A, ack)).toHaveLength(1)
    await w.publish(SAME)
    await w.publish('t')
    expect(await w.work(A, ack)).toHaveLength(1)
  })

  it('goes to what waits before what comes', async () => {
    const w = await StoreWorld.start()
    await w.publish(Array.from({ length: 4 }, () => 'old'))
    w.isLagging = true
    await w.sub(A, 'new', { credit: 10 })
    await w.sub(A, 'old', { credit: 10 })
    await w.publish('new')
    await w.catchUp()
    expect((await w.work(A)).map(({ topic }) => topic)).toEqual(['old', 'old', 'old', 'old', 'new'])
  })

  it('gives back what was granted to one who left meanwhile', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    w.isLagging = true
    await w.publish('t')
    await w.end(A)
    await w.catchUp()
    await w.sub(B, 't', { credit: 1 })
    expect((await w.work(B, ack)).map(({ attempt }) => attempt)).toEqual([2])
  })

  it('is not used by overlapping subscriptions: one delivery each', async () => {
    const w = await StoreWorld.start()
    for (const topic of ['a.b', 'a.*', 'a.>', '>']) await w.sub(A, topic, { credit: 10 })
    await w.publish('a.b')
    expect(await w.work(A)).toHaveLength(1)
  })
})

describe('an answer to a delivery that nobody waits for any more', () => {
  it('settles still: its stream was down in between', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    await w.publish('t')
    const [handed] = w.delivered(A)
    await w.input({ type: 'link-down', domain: 'any.localhost' })
    await w.input({ type: 'link-up', domain: 'any.localhost' })
    const settle = `<settle xmlns='xmq:queue:1'>${ack(handed?.items[0] as { lease: string })}</settle>`
    await w.receive(`<iq type='result' id='${handed?.id}' from='b@localhost/1' to='any.localhost'>${settle}</iq>`)
    expect(w.counts().leased).toBe(1)
    await w.receive(`<iq type='result' id='${handed?.id}' from='${A}' to='any.localhost'>${settle}</iq>`)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })
})

describe('a renewal of nobody', () => {
  it('is answered with item-not-found', async () => {
    const w = await StoreWorld.start()
    await w.receive(
      `<iq type='set' id='n' from='${A}' to='any.localhost'><renew xmlns='xmq:queue:1' ttl='60' load='0' credit='2'/></iq>`,
    )
    expect(w.named('refused')).toMatchObject([{ code: 'not-found' }])
  })
})

describe('patterns', () => {
  it.each([
    ['a.*', ['a.b', 'a.c']],
    ['a.>', ['a.b', 'a.c', 'a.b.c']],
    ['*.b', ['a.b']],
    ['>', ['a', 'a.b', 'a.c', 'a.b.c', 'b*']],
    ['b*', ['b*']],
  ])('%s gets what it means, whether it waited or comes later', async (pattern, wanted) => {
    const w = await StoreWorld.start()
    const topics = ['a', 'a.b', 'a.c', 'a.b.c', 'b*']
    await w.publish(topics)
    await w.sub(A, pattern, { credit: 100 })
    await w.publish(topics)
    const got = (await w.work(A)).map((item) => item.topic)
    expect(got.sort()).toEqual([...wanted, ...wanted].sort())
  })

  it('of plain consumers are exact', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 'a.*')
    expect(await w.say('a.b')).toContain('No recipients found')
  })
})

describe('a worker that let a lease end without receiving it', () => {
  const stalled = async (): Promise<{ w: StoreWorld; late: string }> => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 4, ttl: 3600 })
    await w.publish('t')
    const [handed] = w.delivered(A)
    await w.wait(30_000)
    w.take()
    await w.wait(10_000)
    expect(w.delivered(A)).toEqual([])
    return { w, late: handed?.id as string }
  }
  const iq = (type: string, id: string, inner = ''): string =>
    `<iq type='${type}' id='${id}' from='${A}' to='any.localhost'>${inner}</iq>`

  it.each([
    ['a renewal', () => iq('set', 'n', "<renew xmlns='xmq:queue:1' ttl='60' load='0' credit='4'/>")],
    ['a settlement', () => iq('set', 's', "<settle xmlns='xmq:queue:1'><ack lease='1.x'/></settle>")],
    ['its late answer', (late: string) => iq('result', late)],
    ['an answer to anything', () => iq('result', 'x')],
  ])('gets messages again with %s', async (_, sign) => {
    const { w, late } = await stalled()
    await w.receive(sign(late))
    expect(w.delivered(A)).toHaveLength(1)
  })

  it('does not with the word of its server that it is not there', async () => {
    const { w, late } = await stalled()
    await w.receive(iq('error', late, errorXml('service-unavailable')))
    expect(w.delivered(A)).toEqual([])
  })
})

describe('a restart', () => {
  const changes = { ...DURABLE, queues: keeping() }

  it('asks known consumers to subscribe again, and serves what waits', async () => {
    const w = await StoreWorld.start(changes)
    await w.sub(A, 't', { credit: 4 })
    await w.wait(1000)
    expect(w.core.stats().rememberedConsumers).toBe(1)
    await w.restart()
    const asked = w
      .take(A)
      .filter((stanza) => stanza.children.some((c) => typeof c !== 'string' && c.name === 'resubscribe'))
    expect(asked).toHaveLength(1)
    await w.publish('t')
    await w.sub(A, 't', { credit: 4 })
    expect(await w.work(A)).toHaveLength(1)
  })

  it('asks whoever was told that it is subscribed while a record without it was being written', async () => {
    const w = await StoreWorld.start(changes)
    await w.sub(A, 't', { credit: 4 })
    await w.wait(1000)
    w.take(A)
    w.isLagging = true
    await w.end(A)
    await w.wait(300)
    await w.sub(A, 't', { credit: 4 })
    const early = w.take(A).filter((stanza) => stanza.attrs.get('id') === 'sub')
    await w.catchUp()
    const late = w.take(A).filter((stanza) => stanza.attrs.get('id') === 'sub')
    expect([early.length, late.length]).toEqual([0, 1])
  })

  it('asks once, also when the store does not answer all at once', async () => {
    const w = await StoreWorld.start(changes)
    await w.sub(A, 't', { credit: 4 })
    await w.wait(1000)
    w.isSlowToStart = true
    await w.restart()
    w.failure = DISK_FULL
    await w.catchUp()
    w.failure = undefined
    await w.wait(5_000)
    const asked = w.take(A).filter((s) => s.children.some((c) => typeof c !== 'string' && c.name === 'resubscribe'))
    expect(asked).toHaveLength(1)
  })

  it('asks whoever was told that it is subscribed, however soon after that', async () => {
    const w = await StoreWorld.start(changes)
    w.isLagging = true
    await w.sub(A, 't', { credit: 4 })
    expect(w.take(A).map((stanza) => stanza.attrs.get('type'))).toEqual([])
    await w.catchUp()
    expect(w.take(A).map((stanza) => stanza.attrs.get('id'))).toEqual(['sub'])
    await w.restart()
    expect(
      w
        .take(A)
        .map((stanza) => writeElement(stanza))
        .join(''),
    ).toMatch(/<resubscribe xmlns='xmq:queue:1' epoch='/)
  })

  it('subscribes also while the store does not answer: workers drain a full disk', async () => {
    const w = await StoreWorld.start(changes)
    w.failure = DISK_FULL
    await w.sub(A, 't', { credit: 4 })
    expect(w.take(A).map((stanza) => stanza.attrs.get('type'))).toEqual(['result'])
    w.failure = undefined
    await w.wait(2000)
    await w.restart()
    expect(w.take(A)).toHaveLength(1)
  })

  it('writes the record of many once in a while', async () => {
    const w = await StoreWorld.start(changes)
    for (let n = 0; n < 100; n++) await w.sub(`w${n}@localhost/1`, 't', { credit: 4 })
    await w.wait(1000)
    w.take()
    await w.sub(A, 't', { credit: 4 })
    expect(w.take(A)).toEqual([])
    await w.wait(2)
    expect(w.take(A)).toHaveLength(1)
  })

  it('does not ask whoever had left', async () => {
    const w = await StoreWorld.start(changes)
    await w.sub(A, 't', { credit: 4 })
    await w.wait(1000)
    await w.end(A)
    await w.wait(1000)
    w.take()
    await w.restart()
    expect(w.take(A)).toEqual([])
  })

  it('lets the worker settle what it holds: ack, nack, extend, reject', async () => {
    const w = await StoreWorld.start(changes)
    await w.sub(A, 't', { credit: 10 })
    await w.publish(['t', 't', 't', 't'])
    const [one, two, three, four] = await w.work(A)
    await w.restart()
    const all = `${ack(one as { lease: string })}${nack(two as { lease: string }, 60)}<extend lease='${three?.lease}'/><reject lease='${four?.lease}'>no</reject>`
    expect(await w.settleWith(A, all)).toMatch(/<settled xmlns='xmq:queue:1' epoch='r[0-9]+\.1'\/>/)
    expect(w.counts()).toEqual({ ready: 0, delayed: 1, leased: 1, dead: 1 })
  })

  describe('gives what was on its way to others', () => {
    const complete = (items = '') => `<settle xmlns='xmq:queue:1' complete='true'>${items}</settle>`
    const say = (w: StoreWorld, worker: string, settle: string) =>
      w.receive(`<iq type='set' id='all' from='${worker}' to='any.localhost'>${settle}</iq>`)

    it('as soon as its session has named all that it holds: that stays, and so does what others hold', async () => {
      const w = await StoreWorld.start(changes)
      await w.sub(A, 't', { credit: 3 })
      await w.sub(SIBLING, 't', { credit: 3 })
      await w.publish(['t', 't', 't', 't'])
      const [one, two] = await w.work(A)
      expect(await w.work(SIBLING)).toHaveLength(2)
      await w.restart()
      await w.sub(B, 't', { credit: 9 })
      await say(w, A, `<settle xmlns='xmq:queue:1'><extend lease='${one?.lease}'/></settle>`)
      expect(w.delivered(B)).toEqual([])
      expect(w.core.stats().foundLeases).toBe(3)
      await say(w, A, complete())
      expect(await w.work(B)).toMatchObject([{ seq: two?.seq, attempt: 2 }])
      expect(w.named('settled').filter(({ outcome }) => outcome === 'found')).toMatchObject([{ count: 1 }])
      expect(await w.failures()).toEqual([0, 0, 0, 0])
      expect(w.core.stats().foundLeases).toBe(2)
      await w.wait(30_000)
      expect(w.core.stats().foundLeases).toBe(0)
    })

    it('counting what it settles in the same breath as named, a nack too whose past is looked up', async () => {
      const w = await StoreWorld.start(changes)
      await w.sub(A, 't', { credit: 3 })
      await w.publish(['t', 't', 't'])
      const [one, two] = await w.work(A)
      await w.restart()
      await say(w, A, complete(ack(one as { lease: string }) + nack(two as { lease: string }, 60)))
      expect(w.counts()).toEqual({ ready: 1, delayed: 1, leased: 0, dead: 0 })
      expect(await w.failures()).toEqual([1, 0])
    })

    it('also when that is said while the store is still read, and not what was leased meanwhile', async () => {
      const w = await StoreWorld.start(changes)
      await w.sub(A, 't', { credit: 1 })
      await w.publish(['t', 't'])
      expect(await w.work(A)).toHaveLength(1)
      w.isSlowToStart = true
      await w.restart()
      await w.sub(A, 't', { credit: 2 })
      await say(w, A, complete())
      await w.catchUp()
      expect((await w.work(A)).map(({ seq }) => seq).toSorted((a, b) => a - b)).toEqual([1, 2])
      await say(w, A, complete())
      expect(w.counts()).toMatchObject({ ready: 0, leased: 2 })
    })

    it('in a queue that forgets there is nothing to give', async () => {
      const w = await StoreWorld.start()
      await w.sub(A, 't', { credit: 3 })
      await w.publish('t')
      await w.work(A)
      await say(w, A, complete())
      expect(w.counts()).toMatchObject({ ready: 0, leased: 1 })
    })
  })

  it('gives what nobody claims back after one period, with no failure counted', async () => {
    const w = await StoreWorld.start(changes)
    await w.sub(A, 't', { credit: 10 })
    await w.publish('t')
    await w.work(A)
    await w.restart()
    await w.sub(B, 't', { credit: 10 })
    await w.wait(40_000)
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
    expect(await w.failures()).toEqual([0])
  })
})

describe('an all queue', () => {
  it('gives each ephemeral subscriber what is published while it listens, within its credit', async () => {
    const w = await StoreWorld.start()
    await w.publish('t', { queue: ALL })
    await w.sub(A, 't', { queue: ALL, credit: 1 })
    await w.sub(B, '>', { queue: ALL, credit: 9 })
    await w.publish(['t', 't'], { queue: ALL })
    expect(await w.work(B, ack)).toHaveLength(2)
    const [first] = await w.work(A)
    expect(first?.seq).toBe(2)
    expect(await w.work(A)).toEqual([])
    await w.settleWith(A, ack(first as { lease: string }), ALL)
    expect(await w.work(A, ack)).toMatchObject([{ seq: 3 }])
    expect(w.core.stats().leases).toBe(0)
  })

  it('bounds what waits for an ephemeral subscriber, and counts what is dropped', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, ephemeralMax: 2 }
    const w = await StoreWorld.start({ queues: [queueRules(ALL, { type: 'all', reliable })] })
    await w.sub(A, 't', { queue: ALL, credit: 1 })
    await w.publish(['t', 't', 't', 't', 't'], { queue: ALL })
    expect(w.named('dropped').reduce((sum, event) => sum + event.count, 0)).toBeGreaterThan(0)
    const got = await w.work(A, ack)
    expect(got.length).toBeLessThanOrEqual(3)
    expect(got.at(-1)?.seq).toBe(5)
  })

  it('bounds the bytes that wait for one, but always has room for one message', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, ephemeralBytesMax: 2500 }
    const w = await StoreWorld.start({ queues: [queueRules(ALL, { type: 'all', reliable })] })
    await w.sub(A, 't', { queue: ALL, credit: 0 })
    const item = (id: number, length: number): string =>
      `<item id='${id}' topic='t'><p xmlns='urn:x'>${'x'.repeat(length)}</p></item>`
    for (const id of [1, 2, 3, 4]) await w.publish(item(id, 1000), { queue: ALL })
    expect(w.core.stats()).toMatchObject({ ephemeralMessages: 2 })
    expect(w.core.stats().ephemeralBytes).toBeGreaterThan(2000)
    await w.publish(item(5, 5000), { queue: ALL })
    expect(w.core.stats()).toMatchObject({ ephemeralMessages: 1 })
    await w.sub(A, 't', { queue: ALL, credit: 10 })
    expect(await w.work(A, ack)).toMatchObject([{ seq: 5 }])
    expect(w.core.stats()).toMatchObject({ ephemeralMessages: 0, ephemeralBytes: 0 })
    expect(w.named('dropped').reduce((sum, event) => sum + event.count, 0)).toBe(4)
  })

  it('keeps for a named subscription what comes while nobody is there, from its creation on', async () => {
    const w = await StoreWorld.start()
    await w.publish('t', { queue: ALL })
    await w.sub(A, 't', { queue: ALL, credit: 9, name: 'billing' })
    await w.receive(
      `<iq type='set' id='d' from='${A}' to='${ALL}'><xmq xmlns='xmq:command' command='del' topic='t'/></iq>`,
    )
    const confirm = await w.publish(['t', 'u'], { queue: ALL })
    expect(confirm).toContain("subscriptions='1'")
    expect(confirm).toContain("subscriptions='0'")
    await w.sub('a@localhost/2', 't', { queue: ALL, credit: 9, name: 'billing' })
    expect(await w.work('a@localhost/2', ack)).toMatchObject([{ seq: 2 }])
  })

  it('lets the sessions that share a name compete, and others have their own', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { queue: ALL, credit: 9, name: 'billing' })
    await w.sub('a@localhost/2', 't', { queue: ALL, credit: 9, name: 'billing' })
    await w.sub(B, 't', { queue: ALL, credit: 9, name: 'billing' })
    await w.publish(['t', 't'], { queue: ALL })
    const first = await w.work(A, ack)
    const second = await w.work('a@localhost/2', ack)
    expect(first.length + second.length).toBe(2)
    expect(await w.work(B, ack)).toHaveLength(2)
    expect(w.counts(ALL, 'a@localhost/billing')).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('fixes what a named subscription is to, and forgets it with all that waits', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { queue: ALL, credit: 0, name: 'billing' })
    await w.sub(A, 'u', { queue: ALL, credit: 9, name: 'billing' })
    expect(w.named('refused')).toMatchObject([{ code: 'conflict' }])
    await w.publish('t', { queue: ALL })
    await w.receive(`<iq type='set' id='f' from='${A}' to='${ALL}'><forget xmlns='xmq:queue:1' name='billing'/></iq>`)
    expect(await w.publish('t', { queue: ALL })).toContain("subscriptions='0'")
    await w.receive(`<iq type='set' id='f' from='${A}' to='${ALL}'><forget xmlns='xmq:queue:1' name='billing'/></iq>`)
    expect(w.named('refused').at(-1)).toMatchObject({ code: 'not-found' })
  })

  it('counts what a sibling acks while the past of an ended session is looked up, also when the store has trouble', async () => {
    const w = await StoreWorld.start({ ...DURABLE, queues: keeping() })
    await w.sub(A, 't', { credit: 1 })
    await w.publish('t')
    const [item] = await w.work(A)
    await w.restart()
    await w.sub(A, 't', { credit: 1 })
    await w.settleWith(A, `<extend lease='${item?.lease}'/>`)
    await w.sub(B, 't', { credit: 1 })
    w.isLagging = true
    await w.end(A)
    w.failure = DISK_FULL
    await w.settleWith(SIBLING, ack(item as { lease: string }))
    w.failure = undefined
    await w.catchUp()
    await w.wait(5_000)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
    expect(w.delivered(B)).toEqual([])
  })

  it('lets go of what was acked when the store has trouble, though a batch that came before extends it later', async () => {
    const w = await StoreWorld.start({ ...DURABLE, queues: keeping() })
    await w.sub(A, 't', { credit: 1 })
    await w.publish('t')
    const [item] = await w.work(A)
    const { lease } = item as { lease: string }
    w.isLagging = true
    await w.settleWith(A, `<nack lease='f00d.9'>no</nack><extend lease='${lease}'/>`)
    w.failure = DISK_FULL
    await w.settleWith(A, ack({ lease }))
    w.failure = undefined
    await w.catchUp()
    await w.wait(5_000)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
    expect(w.core.stats().leases).toBe(0)
  })

  it('makes a named subscription anew for a sub that comes while its end is on its way', async () => {
    const w = await StoreWorld.start()
    const forget = `<iq type='set' id='f' from='${A}' to='${ALL}'><forget xmlns='xmq:queue:1' name='billing'/></iq>`
    await w.sub(A, 't', { queue: ALL, credit: 1, name: 'billing' })
    w.isLagging = true
    await w.receive(forget)
    await w.sub(SIBLING, 't', { queue: ALL, credit: 1, name: 'billing' })
    await w.catchUp()
    expect(w.take(SIBLING).map(({ attrs }) => attrs.get('type'))).toContain('result')
    await w.pong(SIBLING)
    expect(await w.publish('t', { queue: ALL })).toContain("subscriptions='1'")
    expect(await w.work(SIBLING, ack)).toHaveLength(1)
  })

  it('takes what its workers hold, and have not been sent, along with a forgotten subscription', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, unreceivedMax: 1 }
    const w = await StoreWorld.start({ queues: [queueRules(ALL, { type: 'all', reliable })] })
    await w.sub(A, 't', { queue: ALL, credit: 2, name: 'billing' })
    await w.sub(A, 'u', { queue: ALL, credit: 2 })
    await w.publish('t', { queue: ALL })
    await w.publish('t', { queue: ALL })
    expect(w.core.stats()).toMatchObject({ leases: 2, waitingDeliveries: 1 })
    await w.receive(`<iq type='set' id='f' from='${A}' to='${ALL}'><forget xmlns='xmq:queue:1' name='billing'/></iq>`)
    expect(w.core.stats().leases).toBe(0)
    await w.publish(['u', 'u'], { queue: ALL })
    expect((await w.work(A, ack)).map(({ topic }) => topic)).toEqual(['t', 'u', 'u'])
  })

  it('drops what waits for an ephemeral subscription that has ended', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 'u', { queue: ALL, credit: 1, name: 'billing' })
    await w.sub(A, 't', { queue: ALL, credit: 1 })
    await w.publish(['t', 't'], { queue: ALL })
    await w.receive(
      `<iq type='set' id='d' from='${A}' to='${ALL}'><xmq xmlns='xmq:command' command='del' topic='t'/></iq>`,
    )
    expect(await w.work(A, ack)).toHaveLength(1)
    expect(w.named('dropped')).toMatchObject([{ what: 'ephemeral', count: 1 }])
    expect(w.core.stats().ephemeralMessages).toBe(0)
  })

  it('sends an ephemeral subscriber again what was on its way when the stream ended', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { queue: ALL, credit: 1 })
    await w.publish('t', { queue: ALL })
    expect(w.delivered(A)).toHaveLength(1)
    await w.input({ type: 'link-down', domain: ALL })
    await w.input({ type: 'link-up', domain: ALL })
    await w.pong(A)
    expect((await w.work(A, ack)).map(({ attempt }) => attempt)).toEqual([2])
    expect(w.core.stats().leases).toBe(0)
  })

  it('sends an ephemeral subscriber again what it did not answer for the time of a lease, when it lives', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { queue: ALL, credit: 1 })
    await w.publish('t', { queue: ALL })
    expect(w.delivered(A)).toHaveLength(1)
    await w.wait(RELIABLE_DEFAULTS.leaseMs + 1)
    expect(w.delivered(A)).toEqual([])
    await w.receive(
      `<iq type='set' id='n' from='${A}' to='${ALL}'><renew xmlns='xmq:queue:1' ttl='60' load='0' credit='1'/></iq>`,
    )
    expect((await w.work(A, ack)).map(({ attempt }) => attempt)).toEqual([2])
  })

  it('tells those who listen and those who wait the same time of a message', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { queue: ALL, credit: 9, name: 'billing' })
    await w.sub(B, 't', { queue: ALL, credit: 9 })
    w.isLagging = true
    await w.publish('t', { queue: ALL })
    w.now += 250
    await w.catchUp()
    const times = [...(await w.work(A, ack)), ...(await w.work(B, ack))].map(
      ({ xml }) => / at='([^']+)'/.exec(xml)?.[1],
    )
    expect(times).toHaveLength(2)
    expect(times[0]).toBe(times[1])
  })

  it('has its named subscriptions after a restart', async () => {
    const w = await StoreWorld.start({ ...DURABLE, queues: keeping() })
    await w.sub(A, 'a.*', { queue: ALL, credit: 0, name: 'billing' })
    await w.publish('a.b', { queue: ALL })
    await w.restart()
    expect(await w.publish(['a.c', 'b'], { queue: ALL })).toMatch(/subscriptions='1'.*subscriptions='0'/)
    await w.sub(A, 'a.*', { queue: ALL, credit: 9, name: 'billing' })
    expect(await w.work(A, ack)).toHaveLength(2)
  })
})

describe('a plain consumer of a durable queue', () => {
  it('gets at most its window, and more when a ping is answered', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, plainWindow: 3 }
    const w = await StoreWorld.start({ ...DURABLE, queues: [queueRules('any.localhost', { reliable })] })
    await w.sub(A, 't')
    await w.publish(['t', 't', 't', 't', 't'])
    const messages = () => w.stanzas.filter((s) => s.name === 'message').length
    expect(messages()).toBe(3)
    await w.pong(A)
    expect(messages()).toBe(5)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('that cannot answer pings is acked on send', async () => {
    const w = await StoreWorld.start({ ...DURABLE, queues: keeping() })
    await w.sub(A, 't', { pings: false })
    await w.publish('t')
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('that is gone loses nothing', async () => {
    const w = await StoreWorld.start({ ...DURABLE, queues: keeping() })
    await w.sub(A, 't')
    await w.say('t')
    await w.pong(A, false)
    await w.sub(B, 't', { credit: 1 })
    expect(await w.work(B)).toHaveLength(1)
  })

  it('that is not there is waited for, where the queue keeps', async () => {
    const w = await StoreWorld.start({ ...DURABLE, queues: keeping() })
    expect(await w.say('t')).toBe('')
    await w.sub(A, 't')
    expect(w.stanzas.filter((s) => s.name === 'message')).toHaveLength(1)
    const refusing = await StoreWorld.start({ ...DURABLE })
    expect(await refusing.say('t')).toContain('No recipients found')
  })
})

describe('a store that does not answer', () => {
  it('has publishes refused with wait, confirms nothing, and all goes on by itself', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 5 })
    w.failure = DISK_FULL
    const refusal = await w.publish('t')
    expect(refusal).toContain("type='error'")
    expect(refusal).toContain("code='overloaded' retry-after='1'")
    w.failure = undefined
    expect(await w.publish('t')).toContain('seq=')
    expect(w.named('store').map((event) => event.isAvailable)).toEqual([false, true])
    expect(await w.work(A, ack)).toHaveLength(1)
  })

  it('is told of once, also when it still does what needs no space', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 5 })
    await w.publish('t')
    w.failure = DISK_FULL
    w.isFull = true
    for (let round = 0; round < 3; round++) {
      expect(await w.publish('t')).toContain("code='overloaded'")
      await w.wait(1_000)
    }
    expect(await w.work(A, ack)).toHaveLength(1)
    expect(w.named('store').map((event) => event.isAvailable)).toEqual([false])
    w.failure = undefined
    await w.publish('t')
    expect(w.named('store').map((event) => event.isAvailable)).toEqual([false, true])
  })

  it('has claims tried again, without a storm', async () => {
    const w = await StoreWorld.start()
    await w.publish('t')
    w.failure = DISK_FULL
    await w.sub(A, 't', { credit: 5 })
    await w.wait(5_000)
    expect(w.claims).toBeLessThan(8)
    w.failure = undefined
    await w.wait(1_000)
    expect(await w.work(A)).toHaveLength(1)
  })

  it('has settles fail with wait, and take them later', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 5 })
    await w.publish('t')
    const [item] = await w.work(A)
    w.failure = DISK_FULL
    expect(await w.settleWith(A, ack(item as { lease: string }))).toContain("code='overloaded'")
    w.failure = undefined
    expect(await w.settleWith(A, ack(item as { lease: string }))).toContain('<settled')
    expect(w.counts().leased).toBe(0)
  })
})

describe('keys', () => {
  it('have one in flight each, retries included', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 9 })
    await w.publish([1, 2, 3].map((n) => `<item id='${n}' topic='t' key='k'><p xmlns='urn:x'/></item>`))
    const [first] = await w.work(A)
    expect(first?.id).toBe('1')
    await w.settleWith(A, nack(first as { lease: string }, 10))
    expect(await w.work(A)).toEqual([])
    await w.wait(10_000)
    const seen = await w.work(A, ack)
    expect(seen.map((item) => item.id)).toEqual(['1', '2', '3'])
  })
})

describe('an answer of the store that is late', () => {
  it('does not hide what became claimable meanwhile', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 9 })
    w.isLagging = true
    await w.publish('t')
    await w.publish('t')
    await w.catchUp()
    expect(await w.work(A)).toHaveLength(2)
  })

  it('delivers again what was nacked for less time than the store took to say so', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    await w.publish('t')
    const [item] = await w.work(A)
    w.isLagging = true
    await w.settleWith(A, nack(item as { lease: string }, 1))
    w.now += 2000
    await w.catchUp()
    await w.wait(1000)
    expect(w.delivered(A)).toHaveLength(1)
  })

  it('does not end a lease that was extended meanwhile', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 9 })
    await w.publish('t')
    const [item] = await w.work(A)
    await w.wait(29_000)
    w.isLagging = true
    await w.wait(1_000)
    await w.settleWith(A, `<extend lease='${item?.lease}'/>`)
    await w.catchUp()
    expect(w.counts()).toMatchObject({ leased: 1, delayed: 0 })
    expect(await w.settleWith(A, ack(item as { lease: string }))).toContain(
      "<settled xmlns='xmq:queue:1' epoch='r1.1'/>",
    )
  })

  it('hands nothing to a session that has ended meanwhile', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 9 })
    w.isLagging = true
    await w.publish('t')
    await w.end(A)
    await w.catchUp()
    expect(w.delivered(A)).toEqual([])
    expect(w.counts()).toMatchObject({ ready: 1, leased: 0 })
  })
})

describe('an extend', () => {
  it('of somebody else, with the right token, leaves the lease where it is', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    await w.publish('t')
    const [item] = await w.work(A)
    const extend = `<extend lease='${item?.lease}'/>`
    expect(await w.settleWith(B, extend)).toContain("code='not-found'")
    expect(await w.settleWith(A, extend, ALL)).toContain("code='not-found'")
    expect(await w.settleWith(A, nack(item as { lease: string }, 1))).toContain(
      "<settled xmlns='xmq:queue:1' epoch='r1.1'/>",
    )
    expect(await w.failures()).toEqual([1])
  })
})

describe('statistics', () => {
  it('are for admins: lines, topics, consumers', async () => {
    const w = await StoreWorld.start({ queues: [queueRules('any.localhost', { admins: ['ops@localhost'] })] })
    await w.sub(A, 't', { credit: 9 })
    await w.publish(['t', 'u'])
    await w.receive(`<iq type='get' id='s' from='ops@localhost/1' to='any.localhost'><stats xmlns='xmq:queue:1'/></iq>`)
    const stats = decodeStats(w.take('ops@localhost/1')[0]?.children[0] as XmlElement)
    expect(stats.lines).toMatchObject([{ ready: 1, leased: 1 }])
    expect(stats.topics.map(({ name }) => name)).toEqual(['t', 'u'])
    expect(stats.consumers).toMatchObject([{ jid: A, kind: 'reliable', credit: 9, inFlight: 1 }])
  })
})

describe('a named subscription that nobody joins', () => {
  it('ends after a while, and not while somebody is there', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, namedIdleMs: 7_200_000 }
    const w = await StoreWorld.start({ queues: [queueRules(ALL, { type: 'all', reliable, ttlSecondsMax: 1e6 })] })
    await w.sub(A, 't', { queue: ALL, credit: 0, name: 'n', ttl: 40_000 })
    // Whoever sends presence is not pinged.
    await w.receive(`<presence from='${A}' to='${ALL}'/>`)
    await w.publish('t', { queue: ALL })
    await w.wait(10 * 3_600_000)
    expect(w.counts(ALL, 'a@localhost/n').ready).toBe(1)
    await w.wait(5 * 3_600_000)
    expect(await w.publish('t', { queue: ALL })).toContain("subscriptions='0'")
  })
})

describe('dead letters', () => {
  it('beyond their bounds go, the oldest first', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, deadMax: 2, deadMs: 7_200_000 }
    const w = await StoreWorld.start({ queues: [queueRules('any.localhost', { reliable })] })
    await w.sub(A, 't', { credit: 9 })
    await w.publish(['t', 't', 't', 't'])
    await w.work(A, ({ lease }) => `<reject lease='${lease}'/>`)
    await w.wait(2_000)
    expect(w.counts().dead).toBe(2)
    await w.wait(3 * 3_600_000)
    expect(w.counts().dead).toBe(0)
  })

  it('whose bodies are damaged are bounded as soon as the others', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, deadMax: 2 }
    const w = await StoreWorld.start({ queues: [queueRules('any.localhost', { reliable })] })
    await w.publish(['t', 't', 't', 't'])
    await w.wait(5_000)
    w.isRotten = true
    await w.sub(A, 't', { credit: 9 })
    expect([w.delivered(A), w.counts().dead]).toEqual([[], 4])
    await w.wait(2_000)
    expect(w.counts().dead).toBe(2)
  })
})

describe('more topics than are remembered', () => {
  it('give way to those that somebody waits for', () => {
    const queue = new Queues(coreRules()).find('any.localhost') as Queue
    const line = queue.lines.get('') as Line
    for (let n = 0; n <= CLAIMABLE_TOPICS_MAX; n++) line.add(`t${n}`)
    expect([line.claimable, line.isCut]).toEqual([CLAIMABLE_TOPICS_MAX, true])
    const consumer = new Consumer(queue, new Session(A, 'a@localhost'), 1)
    consumer.kind = 'reliable'
    line.seat(consumer, ['u'])
    expect(line.isStale).toBe(true)
    line.add('u')
    expect(line.claimable).toBe(CLAIMABLE_TOPICS_MAX)
    expect([...(line.next()?.topics ?? [])]).toEqual(['u'])
  })
})

describe('a stream that is down', () => {
  it('has what was leased meanwhile handed out again when it is up', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 4, ttl: 3600 })
    w.isLagging = true
    await w.publish('t')
    await w.input({ type: 'link-down', domain: 'any.localhost' })
    await w.catchUp()
    expect(w.delivered(A)).toEqual([])
    await w.wait(60_000)
    await w.input({ type: 'link-up', domain: 'any.localhost' })
    await w.pong(A)
    expect(await w.work(A, ack)).toMatchObject([{ seq: 1 }])
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })
})
