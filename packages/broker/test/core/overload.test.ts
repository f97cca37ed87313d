/** docs/operating.md "Overload": what is refused while the load is too high, and what is not. */
import { decodeError, type XmlElement, type XmqError } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { bringsWork, type Load, OVERLOAD_DEFAULTS } from '../../src/core/index.ts'
import { Conversation } from './conversation.ts'
import { ack, StoreWorld } from './store-world.ts'

const A = 'a@localhost/1'
const SHOP = 'shop@localhost/1'
const CALM: Load = { loopDelayMs: 0, inputDelayMs: 0, commitMs: 0 }

const load = (part: Partial<Load>) => ({ type: 'load', load: { ...CALM, ...part } }) as const
const commit = (share: number) => load({ commitMs: OVERLOAD_DEFAULTS.commitMsMax * share })
const last = (c: Conversation) => decodeError(c.stanzas.at(-1) as XmlElement)

describe('new work is refused', () => {
  it('from when a measure is above its bound until all are below half of theirs', () => {
    const c = new Conversation()
    const taken = (share: number) => c.input(commit(share)).core.refusal === undefined
    expect([0.9, 1, 1.1, 0.9, 0.5, 0.49, 0.9].map(taken)).toEqual([true, true, false, false, false, true, true])
    c.input(load({ inputDelayMs: 5100, commitMs: 100 }))
    c.input(load({ inputDelayMs: 100, commitMs: 1100 }))
    expect(c.core.refusal).toBeDefined()
  })

  it('by each of the three measures, which the event names', () => {
    for (const [part, text] of [
      [{ loopDelayMs: 2001 }, 'event loop'],
      [{ inputDelayMs: 5001 }, 'read'],
      [{ commitMs: 2001 }, 'stored'],
    ] as const) {
      const c = new Conversation().input(load(part))
      expect(c.core.refusal).toBeDefined()
      expect(c.named('overload')).toMatchObject([{ isShedding: true, text: expect.stringContaining(text) }])
      expect(c.input(load({})).named('overload')).toMatchObject([{ isShedding: false }])
    }
  })

  it('with a time to come back that grows with the load and with its duration, to half a minute', () => {
    const c = new Conversation()
    const seconds = (share: number) => c.input(commit(share)).core.refusal?.retryAfterSeconds
    expect([seconds(1.1), seconds(2.6), seconds(0.6)]).toEqual([1, 3, 1])
    c.wait(10_000)
    expect([seconds(0.6), seconds(2.6), seconds(1000)]).toEqual([3, 5, 30])
  })

  it('be it a message, a request or a publish, and nothing of it is done', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 5 })
    await w.input(commit(2))
    expect(await w.publish('t')).toContain("code='overloaded' retry-after='2'")
    expect(await w.say('t')).toContain("code='overloaded' retry-after='2'")
    await w.receive(`<iq type='get' id='q' from='${SHOP}' to='any.localhost'><xmq xmlns='xmq:topic' topic='t'/></iq>`)
    expect(decodeError(w.take(SHOP).at(-1) as XmlElement)).toMatchObject({ code: 'overloaded', type: 'wait' })
    expect(w.store.stats().messages).toBe(0)
    await w.input(load({}))
    expect(await w.publish('t')).toContain('seq=')
  })

  it('at its head, by the same words', () => {
    const c = new Conversation().input(commit(1.5))
    const head = {
      name: 'iq',
      ns: 'jabber:client',
      attrs: new Map([
        ['type', 'set'],
        ['id', '7'],
        ['from', SHOP],
        ['to', 'any.localhost'],
      ]),
      children: [],
    }
    c.input({ type: 'skipped', head, error: c.core.refusal as XmqError })
    expect(last(c)).toMatchObject({ code: 'overloaded', retryAfterSeconds: 2 })
    expect(c.named('refused')).toMatchObject([{ queue: 'any.localhost', code: 'overloaded' }])
  })
})

describe('what frees goes on under any load', () => {
  it('settlements, answers, renewals, subscriptions, presence and questions', async () => {
    const w = await StoreWorld.start({ durability: 'disk' })
    await w.sub(A, 't', { credit: 2 })
    await w.publish(['t', 't', 't'])
    await w.input(commit(50))
    expect(await w.work(A, ack)).toHaveLength(3)
    for (const child of [
      "<renew xmlns='xmq:queue:1' ttl='60' load='0' credit='2'/>",
      "<xmq xmlns='xmq:command' command='sub' topic='u' ttl='60' load='0'/>",
      "<xmq xmlns='xmq:command' command='del' topic='u'/>",
    ]) {
      await w.receive(`<iq type='set' id='x' from='${A}' to='any.localhost'>${child}</iq>`)
      expect(w.take(A).at(-1)?.attrs.get('type')).toBe('result')
    }
    await w.receive(
      `<iq type='get' id='i' from='${A}' to='any.localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`,
    )
    expect(w.take(A).at(-1)?.attrs.get('type')).toBe('result')
    await w.receive(`<presence from='${A}' to='any.localhost'/>`)
    expect(w.counts().leased).toBe(0)
  })
})

describe('new work', () => {
  const stanza = (name: string, type?: string) => ({
    name,
    ns: 'jabber:client',
    attrs: new Map(type === undefined ? [] : [['type', type]]),
    children: [],
  })
  it.each([
    ['message', 'chat', 'body', 'jabber:client', true],
    ['message', undefined, 'x', 'urn:x', true],
    ['message', 'error', 'xmq', 'xmq:topic', false],
    ['iq', 'set', 'publish', 'xmq:queue:1', true],
    ['iq', 'get', 'xmq', 'xmq:topic', true],
    ['iq', 'set', 'settle', 'xmq:queue:1', false],
    ['iq', 'set', 'renew', 'xmq:queue:1', false],
    ['iq', 'set', 'dead-letters', 'xmq:queue:1', false],
    ['iq', 'set', 'xmq', 'xmq:command', false],
    ['iq', 'result', 'xmq', 'xmq:topic', false],
    ['iq', 'get', 'ping', 'urn:xmpp:ping', false],
    ['presence', undefined, 'xmq', 'xmq:topic', false],
  ])('%s %s with <%s xmlns=%s/>: %s', (name, type, child, ns, is) => {
    expect(bringsWork(stanza(name, type), { name: child, ns })).toBe(is)
  })
})
