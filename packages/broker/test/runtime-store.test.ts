/** The runtime with a store: what the core asks reaches it, and its answers come back. Links are fakes, the sqlite file is real. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { childElements, findChild, parseElement, writeElement, XmqError, type XmlElement } from '@xmq/protocol'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Broker } from '../src/broker.ts'
import { parseConfig } from '../src/config.ts'
import { createBroker } from '../src/runtime.ts'
import { createMemoryStore } from '../src/store/memory.ts'
import type { Store } from '../src/store/port.ts'
import { fakeLinks, type FakeLink } from './fake-links.ts'

const WORKER = 'w@localhost/1'
const made: Broker[] = []
const folders: string[] = []

afterEach(async () => {
  for (const broker of made.splice(0)) await broker.stop()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

async function start(store: string, wrap?: (store: Store) => Store) {
  const queues = { 'q.localhost': { type: 'any', backoff: '10ms' } }
  const config = parseConfig({ server: 'xmpp://127.0.0.1:1', secret: 'hunter2', store, queues })
  const { links, createLink } = fakeLinks()
  const parts = wrap === undefined ? { createLink } : { createLink, openStore: () => wrap(createMemoryStore()) }
  const broker = createBroker(config, { parts })
  made.push(broker)
  const started = broker.start()
  const link = links[0] as FakeLink
  await vi.waitUntil(() => link.isStarted, { interval: 1 })
  link.up()
  await started
  const receive = (xml: string) => link.handlers.onStanza(parseElement(xml))
  /** The first stanza that was sent and fits, taken out. */
  const sent = async (fits: (stanza: XmlElement) => boolean) => {
    const found = await vi.waitUntil(() => link.sent.find(fits), { interval: 1, timeout: 5000 })
    link.sent.splice(link.sent.indexOf(found), 1)
    return found
  }
  return { broker, link, receive, sent }
}

function freshFile(): string {
  const folder = mkdtempSync(join(tmpdir(), 'xmq-runtime-'))
  folders.push(folder)
  return `sqlite:${join(folder, 'xmq.db')}`
}

const has = (name: string) => (stanza: XmlElement) => childElements(stanza).some((child) => child.name === name)
const PUBLISH = `<iq type='set' id='p' from='shop@localhost/1' to='q.localhost'><publish xmlns='xmq:queue:1'><item id='1' topic='t'><p xmlns='urn:x'/></item></publish></iq>`
const SUB = `<iq type='set' id='s' from='${WORKER}' to='q.localhost'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='0'><consume xmlns='xmq:queue:1' credit='4'/></xmq></iq>`

function itemOf(deliver: XmlElement): XmlElement {
  return childElements(findChild(deliver, 'deliver', 'xmq:queue:1') as XmlElement)[0] as XmlElement
}

describe('a broker that starts', () => {
  /** One whose store says nothing of its queues before `answer` is called. */
  const slow = () => {
    let answer = () => {}
    const asked = new Promise<void>((resolve) => {
      answer = resolve
    })
    const store = createMemoryStore()
    const subscriptions = store.subscriptions.bind(store)
    store.subscriptions = async (queue) => {
      await asked
      return await subscriptions(queue)
    }
    const { links, createLink } = fakeLinks()
    const queues = { 'q.localhost': { type: 'any' }, 'r.localhost': { type: 'all' } }
    const config = parseConfig({ server: 'xmpp://127.0.0.1:1', secret: 'hunter2', store: 'memory:', queues })
    const broker = createBroker(config, { parts: { createLink, openStore: () => store } })
    made.push(broker)
    const started = broker.start()
    started.catch(() => {})
    return { broker, links, answer, started }
  }
  const turns = async () => {
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  }

  it('connects when its store has said what it has: nobody is refused for that', async () => {
    const { links, answer, started } = slow()
    await turns()
    expect(links.map((link) => link.isStarted)).toEqual([false, false])
    answer()
    await vi.waitUntil(() => links.every((link) => link.isStarted), { interval: 1 })
    for (const link of links) link.up()
    await started
    links[0]?.handlers.onStanza(parseElement(PUBLISH))
    await vi.waitUntil(() => links[0]?.sent.some(has('published')), { interval: 1 })
  })

  it('waits no longer than a second for a store that hangs', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const { links, broker } = slow()
      await turns()
      vi.advanceTimersByTime(999)
      await turns()
      expect(links.map((link) => link.isStarted)).toEqual([false, false])
      vi.advanceTimersByTime(1)
      await turns()
      expect(links.map((link) => link.isStarted)).toEqual([true, true])
      await broker.stop()
    } finally {
      vi.useRealTimers()
    }
  })

  it('can be stopped meanwhile', async () => {
    const { broker, links, started } = slow()
    await turns()
    await broker.stop()
    await expect(started).rejects.toMatchObject({ code: 'closed' })
    expect(links.map((link) => link.isStarted)).toEqual([false, false])
  })
})

describe('a broker on sqlite', () => {
  it('confirms what is on disk, and delivers it after a restart', async () => {
    const store = freshFile()
    const first = await start(store)
    first.receive(PUBLISH)
    expect(writeElement(await first.sent(has('published')))).toContain("durability='disk'")
    await first.broker.stop()
    const second = await start(store)
    second.receive(SUB)
    expect(itemOf(await second.sent(has('deliver'))).attrs.get('id')).toBe('1')
  })

  it('asks who was connected to subscribe again, and takes the ack of what it held', async () => {
    const store = freshFile()
    const first = await start(store)
    first.receive(SUB)
    first.receive(PUBLISH)
    const lease = itemOf(await first.sent(has('deliver'))).attrs.get('lease')
    await first.broker.stop()
    const second = await start(store)
    expect((await second.sent(has('resubscribe'))).attrs.get('to')).toBe(WORKER)
    second.receive(
      `<iq type='set' id='a' from='${WORKER}' to='q.localhost'><settle xmlns='xmq:queue:1'><ack lease='${lease}'/></settle></iq>`,
    )
    expect(writeElement(await second.sent(has('settled')))).toMatch(/<settled xmlns='xmq:queue:1' epoch='[^']+'\/>/)
    await vi.waitUntil(async () => (await second.broker.metrics()).includes('xmq_store_messages 0'), { interval: 5 })
  })
})

describe('a broker on memory', () => {
  it('retries a message that was nacked', async () => {
    const { receive, sent } = await start('memory:')
    receive(SUB)
    receive(PUBLISH)
    for (const attempt of ['1', '2', '3']) {
      const deliver = await sent(has('deliver'))
      const item = itemOf(deliver)
      expect(item.attrs.get('attempt')).toBe(attempt)
      receive(
        `<iq type='result' id='${deliver.attrs.get('id')}' from='${WORKER}' to='q.localhost'><settle xmlns='xmq:queue:1'><nack lease='${item.attrs.get('lease')}'>no</nack></settle></iq>`,
      )
    }
  })

  it('claims nothing while the server does not take what it has', async () => {
    const { link, receive, sent } = await start('memory:')
    receive(PUBLISH)
    await sent(has('published'))
    link.congested = true
    receive(SUB)
    receive(
      `<iq type='get' id='d' from='${WORKER}' to='q.localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`,
    )
    await sent((stanza) => stanza.attrs.get('id') === 'd')
    expect(link.sent.some(has('deliver'))).toBe(false)
    link.congested = false
    await sent(has('deliver'))
  })

  it('takes a store that rejects as one that does not answer', async () => {
    let isBroken = false
    const { receive, sent } = await start('memory:', (store) => {
      const apply = store.apply.bind(store)
      store.apply = (ops, now) => (isBroken ? Promise.reject(new Error('boom')) : apply(ops, now))
      return store
    })
    isBroken = true
    receive(PUBLISH)
    expect(writeElement(await sent((stanza) => stanza.attrs.get('id') === 'p'))).toContain("code='overloaded'")
    isBroken = false
    receive(PUBLISH)
    await sent(has('published'))
  })

  it('does not start on a store that cannot be opened', async () => {
    const store = createMemoryStore()
    store.open = () => Promise.reject(new XmqError('conflict', 'Another broker has it open.'))
    const queues = { 'q.localhost': { type: 'any' } }
    const config = parseConfig({ server: 'xmpp://127.0.0.1:1', secret: 'hunter2', queues })
    const broker = createBroker(config, { parts: { createLink: fakeLinks().createLink, openStore: () => store } })
    await expect(broker.start()).rejects.toMatchObject({ code: 'conflict' })
    expect(broker.status.state).toBe('stopped')
  })
})
