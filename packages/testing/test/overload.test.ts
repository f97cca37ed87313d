/**
 * docs/operating.md "Overload", with a server in between: a flood that heeds nothing, a worker that does not read, a server that
 * does not. Short, and without a clock: \`npm run bench:overload\` is the long one.
 */
import {
  type Broker,
  type BrokerParts,
  createBroker,
  createComponentLink,
  createMemoryStore,
  parseConfig,
  type Store,
} from '@xmq/broker'
import { connect, Worker } from '@xmq/client'
import { childElements, decodeError, findChild, type XmlElement } from '@xmq/protocol'
import { connectRawClient, type EmbeddedServer, type RawPeer, startEmbeddedServer } from '@xmq/testing'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

const DOMAIN = 'xmq.localhost'
const JOBS = `jobs@${DOMAIN}`
const NEWS = `news@${DOMAIN}`
const NS = 'xmq:queue:1'

let server: EmbeddedServer
const undo: (() => Promise<unknown>)[] = []

beforeEach(async () => {
  // All that is written is to reach the broker, and soon.
  server = await startEmbeddedServer({
    accounts: { shop: 'pw', slow: 'pw', quick: 'pw' },
    clientRefusalsPerSecond: false,
  })
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await server.stop()
})

async function startBroker(limits: object, parts: Partial<BrokerParts>): Promise<Broker> {
  const broker = createBroker(
    parseConfig({
      server: `xmpp://127.0.0.1:${server.componentPort}`,
      secret: server.secret,
      limits,
      queues: { [JOBS]: { type: 'any' }, [NEWS]: { type: 'all' } },
    }),
    { parts },
  )
  undo.push(() => broker.stop())
  await broker.start()
  return broker
}

async function client(user: string): Promise<RawPeer> {
  const peer = await connectRawClient({
    port: server.port,
    jid: `${user}@localhost`,
    password: 'pw',
    timeoutMs: 30_000,
  })
  undo.push(() => peer.drop())
  return peer
}

const item = (id: number | string, body = 'x') => `<item id='${id}' topic='t'><p xmlns='urn:x'>${body}</p></item>`
const publish = (id: number | string, body?: string) =>
  `<iq type='set' id='${id}' to='${JOBS}'><publish xmlns='${NS}'>${item(id, body)}</publish></iq>`
const sub = (credit: number) =>
  `<presence to='${JOBS}'/><iq type='set' id='sub' to='${JOBS}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='600' load='0'><consume xmlns='${NS}' credit='${credit}'/></xmq></iq>`
const isAnswer = (root: XmlElement) => root.name === 'iq' && /^(result|error)$/.test(root.attrs.get('type') ?? '')

/** Acks what comes, until the stream ends; the ids of it. */
async function ackAll(peer: RawPeer, got: string[]): Promise<void> {
  try {
    for (;;) {
      const iq = await peer.next(
        (root) => root.attrs.get('type') === 'set' || root.attrs.get('type') === 'get',
        2 ** 31 - 1,
      )
      const items = childElements(findChild(iq, 'deliver', NS) ?? iq).filter(({ name }) => name === 'item')
      for (const { attrs } of items) got.push(attrs.get('id') ?? '')
      const acks = items.map(({ attrs }) => `<ack lease='${attrs.get('lease')}'/>`).join('')
      const settle = acks === '' ? '' : `<settle xmlns='${NS}'>${acks}</settle>`
      peer.send(`<iq type='result' id='${iq.attrs.get('id')}' to='${iq.attrs.get('from')}'>${settle}</iq>`)
    }
  } catch {
    // The end of the case.
  }
}

async function metric(broker: Broker, name: string): Promise<number> {
  const text = await broker.metrics()
  return text
    .split('\n')
    .filter((line) => line.startsWith(name))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

/** A store that answers publishes only while its gate is open. */
function gated(): { readonly openStore: () => Store; readonly open: () => void } {
  const store = createMemoryStore()
  let open = () => {}
  const gate = new Promise<void>((resolve) => {
    open = resolve
  })
  const apply = store.apply.bind(store)
  store.apply = async (ops, now) => {
    if (ops.some(({ type }) => type === 'publish')) await gate
    return apply(ops, now)
  }
  return { openStore: () => store, open: () => open() }
}

describe('a flood that heeds nothing', () => {
  const COUNT = 3000
  const BOUND = 64 * 1024

  it('is answered stanza by stanza, what is confirmed is delivered, and what waits has its bound', async () => {
    const { openStore, open } = gated()
    const broker = await startBroker({ maxStoringBytes: `${BOUND / 1024}KiB` }, { openStore })
    let storingMax = 0
    broker.on('refused', () => {
      storingMax = Math.max(storingMax, broker.stats().storingBytes)
    })
    const worker = await client('quick')
    const got: string[] = []
    worker.send(sub(100))
    void ackAll(worker, got)
    const floods = await Promise.all([client('shop'), client('shop'), client('shop')])
    const answers = floods.map(async (peer, at) => {
      for (let id = 0; id < COUNT / floods.length; id++) peer.send(publish(`${at}-${id}`))
      const all: XmlElement[] = []
      while (all.length < COUNT / floods.length) {
        all.push(await peer.next(isAnswer))
        if (all.length === 1) open()
      }
      return all
    })
    const all = (await Promise.all(answers)).flat()
    expect(new Set(all.map(({ attrs }) => attrs.get('id'))).size).toBe(COUNT)
    const refused = all.filter(({ attrs }) => attrs.get('type') === 'error')
    const confirmed = all
      .filter(({ attrs }) => attrs.get('type') === 'result')
      .map(({ attrs }) => attrs.get('id') ?? '')
    expect(refused.length).toBeGreaterThan(0)
    for (const answer of refused) {
      expect(decodeError(answer)).toMatchObject({ code: 'overloaded', type: 'wait', fromBroker: true })
      expect(decodeError(answer).retryAfterSeconds).toBeGreaterThan(0)
    }
    expect(confirmed.length).toBeGreaterThan(0)
    await vi.waitUntil(() => got.length >= confirmed.length, { interval: 5, timeout: 10_000 })
    expect(got.toSorted()).toEqual(confirmed.toSorted())
    expect(storingMax).toBeGreaterThan(BOUND)
    expect(storingMax).toBeLessThan(BOUND + 1024)
    expect(await metric(broker, 'xmq_refused_total{queue="jobs@xmq.localhost",code="overloaded"}')).toBe(refused.length)
    await vi.waitUntil(async () => (await metric(broker, 'xmq_leases')) === 0, { interval: 5, timeout: 10_000 })
    expect(broker.stats()).toMatchObject({ storingBytes: 0, waitingDeliveries: 0, unansweredDeliveries: 0 })
  })
})

describe('a slow worker', () => {
  const COUNT = 300

  it.each([
    ['that answers nothing', () => {}],
    ['that does not read its socket', (jid: string) => server.misbehave.stall(jid, 'output')],
  ])('%s costs its own credit, and nobody else', async (_, hold) => {
    const broker = await startBroker({}, {})
    const slow = await client('slow')
    const credit = 20
    slow.send(sub(credit))
    await slow.next(isAnswer)
    const quick = await client('quick')
    quick.send(sub(50))
    await quick.next(isAnswer)
    hold(slow.jid)
    const got: string[] = []
    void ackAll(quick, got)
    const shop = await client('shop')
    for (let id = 0; id < COUNT; id++) shop.send(publish(id))
    for (let id = 0; id < COUNT; id++) expect((await shop.next(isAnswer)).attrs.get('type')).toBe('result')
    await vi.waitUntil(() => got.length + broker.stats().leases === COUNT, { interval: 5, timeout: 10_000 })
    await vi.waitUntil(() => broker.stats().leases <= credit, { interval: 5, timeout: 10_000 })
    expect(got.length).toBeGreaterThanOrEqual(COUNT - credit)
    expect(broker.stats().unansweredDeliveries).toBeLessThanOrEqual(4)
  })
})

describe('a server that does not read', () => {
  const CONGESTED = 256 * 1024
  const BODY = 'x'.repeat(100_000)

  it('is not written to beyond the mark; publishers come again, and nothing that was confirmed is lost', async () => {
    const createLink: BrokerParts['createLink'] = (options, handlers) =>
      createComponentLink({ ...options, congestedBytes: CONGESTED }, handlers)
    // By the marks alone: the process has the server and the clients in it, too.
    const broker = await startBroker({ maxLoopDelay: '1h', maxInputDelay: '1h' }, { createLink })
    const mq = await connect({
      service: `xmpp://127.0.0.1:${server.port}`,
      jid: 'shop@localhost',
      password: 'pw',
      queue: JOBS,
    })
    undo.push(() => mq.close())
    const confirmed = new Set<string>()
    for (let id = 0; id < 20; id++) confirmed.add((await mq.publish('t', { id }, { id: `before-${id}` })).id)
    const reader = await client('slow')
    reader.send(
      `<iq type='set' id='sub' to='${NEWS}'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='600' load='0'/></iq>`,
    )
    await reader.next(isAnswer)
    server.misbehave.stall(DOMAIN, 'input')
    // The kernel's buffers take some MB; then it is ours that fill, and a message is refused.
    const flood = await client('quick')
    let outboundMax = 0
    let isRefused = false
    for (let sent = 0; !isRefused && sent < 2000; sent++) {
      const seen = new Promise<boolean>((resolve) => {
        broker.on('published', () => resolve(false))
        broker.on('refused', () => resolve(true))
      })
      flood.send(
        `<message to='${NEWS}' id='n${sent}'><xmq xmlns='xmq:topic' topic='t'><p xmlns='urn:x'>${BODY}</p></xmq></message>`,
      )
      isRefused = await seen
      outboundMax = Math.max(outboundMax, await metric(broker, 'xmq_link_outbound_bytes'))
    }
    expect(isRefused).toBe(true)
    expect(outboundMax).toBeGreaterThan(CONGESTED)
    expect(outboundMax).toBeLessThan(CONGESTED + 2 * BODY.length)
    const got: string[] = []
    const worker = new Worker({
      service: `xmpp://127.0.0.1:${server.port}`,
      jid: 'quick@localhost',
      password: 'pw',
      queue: JOBS,
      concurrency: 4,
    })
    undo.push(() => worker.stop())
    worker.handle('t', (_, context) => void got.push(context.id ?? ''))
    const started = worker.start()
    const publishing = Array.from({ length: 20 }, (_, id) => mq.publish('t', { id }, { id: `during-${id}` }))
    await vi.waitUntil(async () => (await metric(broker, 'xmq_refused_total{queue="jobs@xmq.localhost"')) > 0, {
      interval: 5,
      timeout: 10_000,
    })
    expect(got).toEqual([])
    server.misbehave.unstall(DOMAIN)
    for (const { id } of await Promise.all(publishing)) confirmed.add(id)
    await started
    await vi.waitUntil(() => confirmed.size === new Set(got).size, { interval: 5, timeout: 10_000 })
    expect(got.toSorted()).toEqual([...confirmed].toSorted())
    expect(await metric(broker, 'xmq_link_reconnects_total')).toBe(0)
    expect(await metric(broker, 'xmq_held_claims')).toBe(0)
  })
})
