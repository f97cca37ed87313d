/** Clients that are told to wait: who goes on all the same is read slower, and nobody else. */
import { XmqError } from '@xmq/protocol'
import {
  connectRawClient,
  connectRawComponent,
  startEmbeddedServer,
  type EmbeddedServer,
  type EmbeddedServerOptions,
  type RawPeer,
} from '@xmq/testing'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { UNANSWERED_MAX, WATCH_MS } from '../src/answer-window.ts'
import { HOLD_MS_MAX, Tarpit } from '../src/tarpit.ts'

const QUEUE = 'queue1.localhost'
const PER_SECOND = 10
/** A second's worth, and those that hold it for as long as can be. */
const UNTIL_HELD_LONGEST = 2 * PER_SECOND

let server: EmbeddedServer
let queue: RawPeer
const lines: string[] = []

beforeEach(() => {
  lines.length = 0
})
afterEach(async () => {
  vi.useRealTimers()
  await server.stop()
})

async function start(options: EmbeddedServerOptions = {}): Promise<void> {
  server = await startEmbeddedServer({
    accounts: { shop: 'pw', other: 'pw' },
    clientRefusalsPerSecond: PER_SECOND,
    log: (line) => lines.push(line),
    ...options,
  })
  queue = await connectRawComponent({ port: server.componentPort, domain: QUEUE })
}
const login = (user: string) =>
  connectRawClient({ port: server.port, jid: `${user}@localhost/${user}`, password: 'pw' })
const stopClock = () => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
const publish = (id: number | string) => `<iq type='set' id='${id}' to='${QUEUE}'><p xmlns='urn:x'/></iq>`
const isAnswer = ({ name, attrs }: { readonly name: string; readonly attrs: ReadonlyMap<string, string> }) =>
  name === 'iq' && /^(result|error)$/.test(attrs.get('type') ?? '')

/** Writes so many stanzas at once; the component answers each of them as told. */
async function written(client: RawPeer, count: number, answer: string, type = 'error'): Promise<void> {
  client.send(Array.from({ length: count }, (_, id) => publish(id)).join(''))
  for (let got = 0; got < count; got++) {
    const { attrs } = await queue.next((root) => root.name === 'iq')
    queue.send(`<iq type='${type}' id='${attrs.get('id')}' to='${attrs.get('from')}' from='${QUEUE}'>${answer}</iq>`)
  }
  for (let got = 0; got < count; got++) await client.next(isAnswer)
}
const WAIT = `<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`
const NEVER = `<error type='cancel'><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`

describe('a client that is told to wait', () => {
  test('is not read for a second when it goes on and on; others are, and it is read again', async () => {
    await start()
    const [shop, other] = await Promise.all([login('shop'), login('other')])
    stopClock()
    await written(shop, UNTIL_HELD_LONGEST, WAIT)
    expect(server.stats()).toMatchObject({ toldToWait: 2 * PER_SECOND, heedless: PER_SECOND, heldSessions: 1 })
    shop.send(publish('held'))
    for (let turn = 0; turn < 3; turn++) await written(other, 1, '', 'result')
    expect(queue.stream.inbox).toEqual([])
    vi.advanceTimersByTime(HOLD_MS_MAX - 1)
    await written(other, 1, '', 'result')
    expect(queue.stream.inbox).toEqual([])
    vi.advanceTimersByTime(1)
    expect((await queue.next((root) => root.name === 'iq')).attrs.get('id')).toBe('held')
    expect(server.stats().heldSessions).toBe(0)
    expect(lines.filter((line) => line.includes('read slower'))).toEqual([
      `${shop.jid} is read slower: it goes on writing although it is told to wait`,
    ])
  })

  test('is told still what comes for it while it is not read', async () => {
    await start()
    const [shop, other] = await Promise.all([login('shop'), login('other')])
    stopClock()
    await written(shop, UNTIL_HELD_LONGEST, WAIT)
    other.send(`<message to='${shop.jid}'><body>news</body></message>`)
    await shop.next((root) => root.name === 'message')
    expect(server.stats().heldSessions).toBe(1)
  })

  test('is held no more when it waited, though it comes again with as much as before', async () => {
    await start()
    const shop = await login('shop')
    stopClock()
    await written(shop, UNTIL_HELD_LONGEST, WAIT)
    vi.advanceTimersByTime(2 * HOLD_MS_MAX)
    await written(shop, PER_SECOND, WAIT)
    expect(server.stats()).toMatchObject({ heedless: PER_SECOND, heldSessions: 0 })
  })
})

describe('a client that did not heed', () => {
  async function watched(): Promise<readonly [RawPeer, RawPeer]> {
    await start()
    const [shop, other] = await Promise.all([login('shop'), login('other')])
    stopClock()
    await written(shop, UNTIL_HELD_LONGEST, WAIT)
    vi.advanceTimersByTime(2 * HOLD_MS_MAX)
    expect(server.stats()).toMatchObject({ heldSessions: 0, watchedSessions: 1 })
    return [shop, other]
  }
  const asked = async (client: RawPeer, count: number): Promise<readonly string[]> => {
    client.send(Array.from({ length: count }, (_, id) => publish(id)).join(''))
    const ids: string[] = []
    while (ids.length < count) ids.push((await queue.next((root) => root.name === 'iq')).attrs.get('id') ?? '')
    return ids
  }
  const answer = (client: RawPeer, ids: readonly string[]) => {
    for (const id of ids) queue.send(`<iq type='result' id='${id}' to='${client.jid}' from='${QUEUE}'/>`)
  }

  test('is read on only when half of its requests are answered, once so many are not', async () => {
    const [shop, other] = await watched()
    const ids = await asked(shop, UNANSWERED_MAX)
    shop.send(publish('more'))
    answer(shop, ids.slice(0, UNANSWERED_MAX / 2 - 1))
    for (let turn = 0; turn < 3; turn++) await written(other, 1, '', 'result')
    expect(queue.stream.inbox).toEqual([])
    answer(shop, ids.slice(-1))
    expect((await queue.next((root) => root.name === 'iq')).attrs.get('id')).toBe('more')
  })

  test('is read on after a second when no answer comes', async () => {
    const [shop, other] = await watched()
    await asked(shop, UNANSWERED_MAX)
    shop.send(publish('more'))
    vi.advanceTimersByTime(HOLD_MS_MAX - 1)
    await written(other, 1, '', 'result')
    expect(queue.stream.inbox).toEqual([])
    vi.advanceTimersByTime(1)
    expect((await queue.next((root) => root.name === 'iq')).attrs.get('id')).toBe('more')
  })

  test('is trusted again after half a minute', async () => {
    const [shop] = await watched()
    vi.advanceTimersByTime(WATCH_MS)
    expect(server.stats().watchedSessions).toBe(0)
    expect(await asked(shop, 2 * UNANSWERED_MAX)).toHaveLength(2 * UNANSWERED_MAX)
    shop.send(publish('more'))
    expect((await queue.next((root) => root.name === 'iq')).attrs.get('id')).toBe('more')
  })
})

describe('nobody is held', () => {
  test.each([
    ['whose stanzas are taken', '', 'result'],
    ['whose stanzas are refused for good', NEVER, 'error'],
  ])('%s, however fast they come', async (_, answer, type) => {
    await start()
    const shop = await login('shop')
    stopClock()
    await written(shop, 500, answer, type)
    expect(server.stats()).toMatchObject({ toldToWait: 0, heldSessions: 0 })
  })

  test('by errors that another client made up', async () => {
    await start()
    const [shop, other] = await Promise.all([login('shop'), login('other')])
    stopClock()
    for (let id = 0; id < 50; id++) other.send(`<iq type='error' id='${id}' to='${shop.jid}'>${WAIT}</iq>`)
    for (let id = 0; id < 50; id++) await shop.next(isAnswer)
    expect(server.stats()).toMatchObject({ toldToWait: 0, heldSessions: 0 })
  })

  test('where it is switched off', async () => {
    await start({ clientRefusalsPerSecond: false })
    const shop = await login('shop')
    stopClock()
    await written(shop, 500, WAIT)
    expect(server.stats()).toMatchObject({ toldToWait: 500, heedless: 0, heldSessions: 0 })
    expect(server.metrics()).toContain('\nxmq_server_told_to_wait_total 500\n')
  })

  test.each([0, 1.5, Number.NaN])('by a wrong option (%s)', async (clientRefusalsPerSecond) => {
    await start()
    await expect(startEmbeddedServer({ clientRefusalsPerSecond })).rejects.toThrow(
      new XmqError(
        'invalid-config',
        `clientRefusalsPerSecond is ${clientRefusalsPerSecond}; expected a whole number from 1 to 1000000.`,
      ),
    )
  })
})

describe('a tarpit', () => {
  test('lets so many refusals through in a second as it is told to, and holds a second at most', () => {
    const tarpit = new Tarpit(100)
    let now = 5000
    let refused = 0
    let longest = 0
    for (const end = now + 60_000; now < end; ) {
      const ms = tarpit.refused(now)
      refused++
      longest = Math.max(longest, ms)
      now += ms
    }
    expect(refused).toBeGreaterThan(60 * 100)
    expect(refused).toBeLessThan(61.1 * 100)
    expect(longest).toBeCloseTo(10, 5)
    for (let more = 0; more < 10_000; more++) longest = Math.max(longest, tarpit.refused(now))
    expect(longest).toBeCloseTo(HOLD_MS_MAX, 5)
  })
})
