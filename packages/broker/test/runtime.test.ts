import { childElements, decodeError, findTopic, parseElement, XmqError, type XmlElement } from '@xmq/protocol'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Broker, BrokerOptions } from '../src/broker.ts'
import { createComponentLink } from '../src/component.ts'
import { parseConfig } from '../src/config.ts'
import { createCore } from '../src/core/index.ts'
import type { Core, Effect, Input } from '../src/core/port.ts'
import { createLogger } from '../src/log.ts'
import { createBroker } from '../src/runtime.ts'
import { createMemoryStore } from '../src/store/memory.ts'
import { fakeLinks, type FakeLink } from './fake-links.ts'

const made: Broker[] = []

function setUp(
  options: BrokerOptions & {
    readonly http?: string
    readonly queues?: readonly string[]
    readonly limits?: object
  } = {},
) {
  const { http, queues = ['q.localhost'], limits = {}, ...rest } = options
  const config = parseConfig({
    server: 'xmpp://127.0.0.1:1',
    secret: 'hunter2',
    limits,
    queues: Object.fromEntries(queues.map((queue) => [queue, { type: 'any' }])),
    ...(http === undefined ? {} : { http }),
  })
  const { links, createLink } = fakeLinks()
  const lines: string[] = []
  const log = createLogger({ level: 'debug', write: (line) => lines.push(line) })
  const broker = createBroker(config, { log, ...rest, parts: { createLink, ...rest.parts } })
  made.push(broker)
  return { broker, links, lines, link: links[0] as FakeLink }
}

async function started(options: Parameters<typeof setUp>[0] = {}) {
  const all = setUp(options)
  const start = all.broker.start()
  await vi.waitUntil(() => all.link.isStarted, { interval: 1 })
  for (const link of all.links) link.up()
  await start
  return all
}

const client = (text: string): XmlElement => parseElement(text, 'jabber:client')
const SUB = client(
  "<iq type='set' id='s' from='w@localhost/1' to='q.localhost'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='1'/></iq>",
)
const PUBLISH = client(
  "<message type='chat' id='m' from='p@localhost/1' to='q.localhost'><body>the payload</body><xmq xmlns='xmq:topic' topic='t'/></message>",
)
const REQUEST = client(
  "<iq type='get' id='r' from='p@localhost/1' to='q.localhost'><xmq xmlns='xmq:topic' topic='t'/></iq>",
)
const answerTo = (link: FakeLink) => {
  const call = link.sent.find((stanza) => stanza.attrs.get('type') === 'get' && findTopic(stanza) !== undefined)
  return client(`<iq type='result' id='${call?.attrs.get('id')}' from='w@localhost/1' to='q.localhost'/>`)
}

afterEach(async () => {
  for (const broker of made.splice(0)) await broker.stop()
})

describe('starting', () => {
  it('makes one link a domain, all of one instance', () => {
    const { links } = setUp({ queues: ['a@x.localhost', 'b@x.localhost', 'q.localhost'] })
    expect(links.map((link) => link.domain)).toEqual(['x.localhost', 'q.localhost'])
    expect(links[0]?.options.instance).toEqual(links[1]?.options.instance)
    expect(links[0]?.options.instance.id).not.toBe('')
  })

  it.each([
    ['30s', {}],
    ['10s', { maxReconnectPause: '10s' }],
    ['100ms', { maxReconnectPause: '100ms' }],
  ])('lets links wait for at most %s between two tries', (pause, limits) => {
    const { link } = setUp({ limits })
    const longest = { '30s': 30_000, '10s': 10_000, '100ms': 100 }[pause]
    expect(link.options.backoffMaxMs).toBe(longest)
    expect(link.options.backoffMinMs).toBe(Math.min(250, Number(longest)))
    // What it was given is what a link takes.
    expect(() => createComponentLink(link.options, link.handlers)).not.toThrow()
  })

  it('resolves when every link is up the first time', async () => {
    const { broker, links } = setUp({ queues: ['a.localhost', 'b.localhost'] })
    let isStarted = false
    const start = broker.start().then(() => {
      isStarted = true
    })
    await vi.waitUntil(() => links[1]?.isStarted, { interval: 1 })
    links[0]?.up()
    links[0]?.down(new XmqError('connection-lost', 'gone'))
    links[0]?.up()
    await Promise.resolve()
    expect([isStarted, broker.status.state]).toEqual([false, 'starting'])
    links[1]?.up()
    await start
    expect(broker.status.state).toBe('running')
  })

  it('is rejected by a fatal error, which is told and ends the broker', async () => {
    const { broker, link } = setUp()
    const fatal: XmqError[] = []
    broker.on('fatal', (error) => fatal.push(error))
    const start = broker.start()
    await vi.waitUntil(() => link.isStarted, { interval: 1 })
    link.handlers.onFatal(new XmqError('conflict', 'A second broker.'))
    await expect(start).rejects.toMatchObject({ code: 'conflict' })
    expect(fatal).toHaveLength(1)
    expect(broker.status).toMatchObject({ state: 'stopped', links: [{ status: { state: 'closed' } }] })
  })

  it('tells a fatal error once, however many links meet it', async () => {
    const { broker, links } = await started({ queues: ['a.localhost', 'b.localhost'] })
    const fatal = vi.fn()
    broker.on('fatal', fatal)
    for (const link of links) link.handlers.onFatal(new XmqError('conflict', 'A second broker.'))
    expect(fatal).toHaveBeenCalledOnce()
  })

  it('is rejected by stop and by the signal', async () => {
    const one = setUp()
    const start = one.broker.start()
    const stop = one.broker.stop()
    await expect(start).rejects.toMatchObject({ code: 'closed' })
    await stop
    const controller = new AbortController()
    const two = setUp().broker
    const aborted = two.start({ signal: controller.signal })
    controller.abort()
    await expect(aborted).rejects.toMatchObject({ code: 'aborted' })
    expect(two.status.state).toBe('stopped')
  })

  it('happens once', async () => {
    const { broker } = await started()
    await expect(broker.start()).rejects.toThrow('This broker is running already')
  })

  it('fails on an HTTP address that is taken, and closes what it opened', async () => {
    const first = await started({ http: '127.0.0.1:0' })
    const second = setUp({ http: `127.0.0.1:${first.broker.httpAddress?.port}` })
    await expect(second.broker.start()).rejects.toMatchObject({ code: 'invalid-config' })
    expect(second.broker.status.state).toBe('stopped')
    expect(second.link.isStarted).toBe(false)
  })
})

describe('serving', () => {
  it('relays a message and tells it', async () => {
    const { broker, link } = await started()
    const published: unknown[] = []
    broker.on('published', (event) => published.push(event))
    link.handlers.onStanza(SUB)
    link.handlers.onStanza(PUBLISH)
    expect(link.sent.at(-1)?.attrs.get('to')).toBe('w@localhost/1')
    expect(published).toEqual([{ name: 'published', queue: 'q.localhost', topic: 't', recipients: 1 }])
    expect(broker.stats().subscriptions).toBe(1)
  })

  it('counts into metrics with bounded labels', async () => {
    const { broker, link } = await started()
    link.handlers.onStanza(SUB)
    link.handlers.onStanza(PUBLISH)
    link.handlers.onStanza(REQUEST)
    link.handlers.onStanza(answerTo(link))
    link.handlers.onStanza(
      client("<message from='p@elsewhere/1' to='q.localhost'><xmq xmlns='xmq:topic' topic='t'/></message>"),
    )
    const text = await broker.metrics()
    for (const line of [
      'xmq_messages_published_total{queue="q.localhost"} 1',
      'xmq_messages_delivered_total{queue="q.localhost"} 1',
      'xmq_requests_total{queue="q.localhost",outcome="result"} 1',
      'xmq_request_duration_seconds_count{queue="q.localhost"} 1',
      'xmq_refused_total{queue="q.localhost",code="forbidden"} 1',
      'xmq_subscriptions 1',
      'xmq_consumers 1',
      'xmq_topics 1',
      'xmq_requests_in_flight 0',
      'xmq_link_up{domain="q.localhost"} 1',
      'xmq_link_outbound_bytes{domain="q.localhost"} 0',
      'xmq_link_reconnects_total{domain="q.localhost"} 2',
    ]) {
      expect(text.split('\n')).toContain(line)
    }
    expect(text).toContain('process_cpu_seconds_total')
    expect(text).toContain('nodejs_eventloop_lag_p99_seconds')
    expect(text).not.toContain('localhost/1')
    // A second scrape does not count again.
    expect(await broker.metrics()).toContain('xmq_messages_published_total{queue="q.localhost"} 1\n')
  })

  it('ticks the core when its deadline has come', async () => {
    const { broker, link } = await started()
    const ended = new Promise((resolve) => broker.on('unsubscribed', resolve))
    link.handlers.onStanza(
      client(
        "<iq type='set' id='s' from='w@localhost/1' to='q.localhost'><xmq xmlns='xmq:command' command='sub' topic='t' ttl='1' load='1'/></iq>",
      ),
    )
    expect(await ended).toMatchObject({ reason: 'expired' })
  })

  it('goes on when a listener throws', async () => {
    const { broker, link, lines } = await started()
    broker.on('subscribed', () => {
      throw new Error('mine')
    })
    const after = vi.fn()
    broker.on('subscribed', after)
    link.handlers.onStanza(SUB)
    expect(after).toHaveBeenCalledOnce()
    expect(lines.join('')).toContain("a listener of 'subscribed' threw")
  })

  it('handles what a listener causes after what it is handling', async () => {
    const { broker, link } = await started()
    const seen: string[] = []
    broker.on('subscribed', () => {
      link.handlers.onStanza(PUBLISH)
      seen.push('subscribed')
    })
    broker.on('published', () => seen.push('published'))
    link.handlers.onStanza(SUB)
    expect(seen).toEqual(['subscribed', 'published'])
  })

  it('writes no payload and no secret to the log', async () => {
    const { link, lines } = await started()
    link.handlers.onStanza(SUB)
    link.handlers.onStanza(PUBLISH)
    expect(lines.join('')).toContain('"message":"published"')
    expect(lines.join('')).not.toMatch(/the payload|hunter2/)
  })
})

describe('a core that throws', () => {
  const throwing = (rules: Parameters<typeof createCore>[0]): Core => {
    const core = createCore(rules)
    return {
      get deadline() {
        return core.deadline
      },
      get refusal() {
        return core.refusal
      },
      get isPressed() {
        return core.isPressed
      },
      get isLoading() {
        return core.isLoading
      },
      stats: () => core.stats(),
      handle(input: Input, now, entropy): Effect[] {
        if (input.type === 'stanza' && input.stanza.attrs.get('id') === 'm') throw new Error('boom')
        return core.handle(input, now, entropy)
      },
    }
  }

  it('is logged without the payload, answered with internal, and survived', async () => {
    const { broker, link, lines } = await started({ parts: { createCore: throwing } })
    link.handlers.onStanza(PUBLISH)
    const answer = link.sent.at(-1) as XmlElement
    expect([answer.attrs.get('to'), decodeError(answer).code]).toEqual(['p@localhost/1', 'internal'])
    expect(lines.join('')).toContain('boom')
    expect(lines.join('')).not.toContain('the payload')
    link.handlers.onStanza(SUB)
    expect(broker.stats().subscriptions).toBe(1)
    expect(await broker.metrics()).toContain('xmq_faults_total{where="core"} 1')
  })
})

describe('a congested link', () => {
  it('refuses what would be sent on, with a time to come back, and lets answers and commands pass', async () => {
    const { broker, link } = await started()
    link.handlers.onStanza(SUB)
    link.handlers.onStanza(REQUEST)
    link.congested = true
    for (const stanza of [PUBLISH, REQUEST]) {
      link.handlers.onStanza(stanza)
      const error = decodeError(link.sent.at(-1) as XmlElement)
      expect([error.code, error.type, error.retryAfterSeconds]).toEqual(['overloaded', 'wait', 1])
    }
    link.handlers.onStanza(answerTo(link))
    expect(link.sent.at(-1)?.attrs.get('type')).toBe('result')
    link.handlers.onStanza(SUB)
    expect(link.sent.at(-1)?.attrs.get('type')).toBe('result')
    expect(await broker.metrics()).toContain('xmq_refused_total{queue="q.localhost",code="overloaded"} 2')
    link.congested = false
    link.handlers.onStanza(PUBLISH)
    expect(link.sent.at(-1)?.attrs.get('to')).toBe('w@localhost/1')
  })

  it('refuses new work at its head, before it is read', async () => {
    const { link } = await started()
    const at = (stanza: XmlElement) =>
      childElements(stanza).map((child) => link.handlers.onChild?.(stanza, child)?.code)
    expect(at(REQUEST)).toEqual([undefined])
    link.congested = true
    expect([at(REQUEST), at(PUBLISH), at(SUB)]).toEqual([['overloaded'], ['overloaded', 'overloaded'], [undefined]])
    link.handlers.onSkipped(
      REQUEST,
      link.handlers.onChild?.(REQUEST, childElements(REQUEST)[0] as XmlElement) as XmqError,
    )
    expect(decodeError(link.sent.at(-1) as XmlElement)).toMatchObject({ code: 'overloaded', retryAfterSeconds: 1 })
  })

  it('lets presence pass, and answers none', async () => {
    const { link } = await started()
    link.congested = true
    link.handlers.onStanza(client("<presence from='w@localhost/1' to='q.localhost'/>"))
    expect(link.sent.filter((stanza) => stanza.attrs.get('type') === 'error')).toEqual([])
  })

  it('never answers an error', async () => {
    const { link } = await started()
    link.congested = true
    link.handlers.onStanza(
      client(
        "<message type='error' from='p@localhost/1' to='q.localhost'><xmq xmlns='xmq:topic' topic='t'/></message>",
      ),
    )
    expect(link.sent).toEqual([])
  })
})

describe('readiness', () => {
  it('follows the links', async () => {
    const { broker, link } = await started({ http: '127.0.0.1:0' })
    const ready = () => fetch(`http://127.0.0.1:${broker.httpAddress?.port}/readyz`)
    expect((await ready()).status).toBe(200)
    link.down(new XmqError('connection-lost', 'The server hung up'), 'Is it running?')
    const response = await ready()
    expect([response.status, await response.json()]).toEqual([
      503,
      {
        ready: false,
        problems: [{ what: 'link q.localhost', why: 'The server hung up.' }],
        hints: ['Is it running?'],
      },
    ])
    link.up()
    expect((await ready()).status).toBe(200)
  })

  it('follows the store', async () => {
    const { broker } = await started({
      http: '127.0.0.1:0',
      parts: {
        openStore: () =>
          Object.assign(createMemoryStore(), {
            probe: () => Promise.resolve(new XmqError('overloaded', 'The disk is full.')),
          }),
      },
    })
    const response = await fetch(`http://127.0.0.1:${broker.httpAddress?.port}/readyz`)
    expect(await response.json()).toMatchObject({ problems: [{ what: 'store', why: 'The disk is full.' }] })
  })

  it('is logged once for each trouble, not at every try', async () => {
    const { link, lines } = await started()
    const trouble = new XmqError('connection-lost', 'Connection refused.')
    for (let i = 0; i < 5; i++) link.down(trouble)
    link.up()
    const levels = lines.map((line) => JSON.parse(line) as { level: string; message: string })
    expect(levels.filter(({ level, message }) => level === 'warn' && message === 'link down')).toHaveLength(1)
    expect(levels.filter(({ message }) => message === 'link up')).toHaveLength(2)
  })
})

describe('stopping', () => {
  it('waits for open requests, then closes', async () => {
    const { broker, link } = await started()
    link.handlers.onStanza(SUB)
    link.handlers.onStanza(REQUEST)
    const stop = broker.stop()
    expect(broker.status.state).toBe('stopping')
    link.handlers.onStanza(answerTo(link))
    expect(link.sent.at(-1)?.attrs.get('type')).toBe('result')
    await stop
    expect(broker.status.state).toBe('stopped')
  })

  it('does not wait for ever, and tells whoever waited', async () => {
    const { broker, link } = await started({ drainMs: 20 })
    link.handlers.onStanza(SUB)
    link.handlers.onStanza(REQUEST)
    await broker.stop()
    expect(broker.status.state).toBe('stopped')
    const last = link.sent.at(-1) as XmlElement
    expect([last.attrs.get('id'), decodeError(last).code]).toEqual([REQUEST.attrs.get('id'), 'timeout'])
  })

  it('is idempotent, and ends what it opened', async () => {
    const { broker } = await started({ http: '127.0.0.1:0' })
    const address = broker.httpAddress
    await Promise.all([broker.stop(), broker.stop(), broker[Symbol.asyncDispose]()])
    await expect(fetch(`http://127.0.0.1:${address?.port}/healthz`)).rejects.toThrow('fetch failed')
  })
})
