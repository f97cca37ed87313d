import { once } from 'node:events'
import { createServer, Socket, type AddressInfo } from 'node:net'
import { element, stanza, textOf, writeElement, XmqError, type XmlElement } from '@xmq/protocol'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createComponentLink } from '../../src/component.ts'
import { Bench, DOMAIN, message, type Probe } from './harness.ts'

let bench: Bench

beforeEach(() => {
  bench = new Bench()
})

afterEach(async () => {
  vi.restoreAllMocks()
  expect(await bench.end(), 'timers left behind').toBe(0)
})

function bodies(stanzas: readonly XmlElement[]): string[] {
  return stanzas.map((root) =>
    root.children.map((child) => (typeof child === 'string' ? child : textOf(child))).join(''),
  )
}

function inbound(id: string, text: string): string {
  return writeElement(
    stanza('message', { from: 'alice@localhost/1', to: DOMAIN, id }, [
      element('body', 'jabber:client', undefined, [text]),
    ]),
  )
}

function hintOf(probe: Probe): string {
  const { status } = probe.link
  return status.state === 'down' || status.state === 'up' ? (status.hint ?? '') : ''
}

describe('handshake', () => {
  test('opens the stream to the domain, proves the secret and comes up', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    expect(server.peers[0]?.received).toContain(`xmlns='jabber:component:accept'`)
    expect(server.peers[0]?.received).toContain(`to='${DOMAIN}'`)
    expect(probe.log.slice(0, 3)).toEqual(['connecting', 'up', 'up'])
    expect(probe.link.status).toEqual({ state: 'up', since: bench.clock.now() })
  })

  test('an option that makes no sense is refused by name', () => {
    const make = (more: object) => () => bench.link(5347, more)
    expect(make({ domain: 'a@b' })).toThrow(/'domain'/)
    expect(make({ port: 0 })).toThrow(/'port'/)
    expect(make({ secret: '' })).toThrow(/'secret'/)
    expect(make({ backoffMinMs: 100, backoffMaxMs: 50 })).toThrow(/'backoffMaxMs'/)
    expect(make({ watchdogIntervalMs: Number.NaN })).toThrow(/'watchdogIntervalMs'/)
  })

  test('a wrong secret waits the long pause and says what to change on both servers', async () => {
    const server = await bench.server()
    const probe = bench.link(server.port, { secret: 'wrong' })
    probe.link.start()
    const status = await probe.untilState('down')
    expect(status).toMatchObject({ reason: { code: 'not-authorized' }, retryAt: bench.clock.now() + 45_000 })
    expect(hintOf(probe)).toMatch(/ejabberd_service.*hosts:.*component_secret/s)
    expect(probe.log).not.toContain('down not-authorized')
  })

  test('an unknown domain waits the long pause and says what to change', async () => {
    const server = await bench.server()
    server.scripts = ['host-unknown']
    const probe = bench.link(server.port)
    probe.link.start()
    const status = await probe.untilState('down')
    expect(status).toMatchObject({ reason: { code: 'invalid-config' }, retryAt: bench.clock.now() + 45_000 })
    expect(hintOf(probe)).toContain(`Component "${DOMAIN}"`)
    // The stream had no id: nothing is proved to whoever that is.
    const peer = await server.peer(0)
    await peer.until(() => peer.socket.destroyed)
    expect(peer.received).not.toContain('<handshake>')
  })

  test('a port for clients is told from a component port', async () => {
    const server = await bench.server()
    server.scripts = ['client-port']
    const probe = bench.link(server.port)
    probe.link.start()
    await probe.untilState('down')
    expect(hintOf(probe)).toContain('component_ports')
  })

  test('a refused connection names host and port and asks for the component port', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as AddressInfo
    taken.close()
    await once(taken, 'close')
    const probe = bench.link(port)
    probe.link.start()
    const status = await probe.untilState('down')
    expect(status).toMatchObject({ reason: { code: 'connection-lost' } })
    expect(status.state === 'down' && status.reason.message).toMatch(new RegExp(`127.0.0.1:${port}.*ECONNREFUSED`))
    expect(hintOf(probe)).toMatch(/component port enabled/)
  })

  test('a connection that is not made in time is given up', async () => {
    const server = await bench.server()
    const probe = bench.link(server.port)
    probe.link.start()
    // Before the event loop had a chance to connect.
    bench.clock.advance(10_000)
    expect(probe.link.status).toMatchObject({ state: 'down', reason: { code: 'timeout' } })
  })

  test('a server that accepts but never answers is given up', async () => {
    const server = await bench.server()
    server.scripts = ['silent', 'accept']
    const probe = bench.link(server.port)
    probe.link.start()
    const peer = await server.peer(0)
    await peer.until(() => peer.received.includes('<stream:stream'))
    bench.clock.advance(10_000)
    expect(probe.link.status).toMatchObject({ state: 'down', reason: { code: 'timeout' } })
    bench.clock.advance(250)
    await probe.untilState('up')
  })

  test('a connection that ends before the handshake is tried again', async () => {
    const server = await bench.server()
    server.scripts = ['hang-up', 'accept']
    const probe = bench.link(server.port)
    probe.link.start()
    await probe.untilState('down')
    bench.clock.advance(250)
    await probe.untilState('up')
    expect(probe.link.counters.reconnects).toBe(1)
  })
})

describe('writing', () => {
  test('all that is sent while one chunk is handled leaves in one write', async () => {
    const server = await bench.server()
    let isFlowing = false
    const probe = await bench.upLink(
      server,
      {},
      {
        onStanza: () => {
          for (let index = 0; index < 50; index++) probe.link.send(message(`m${index}`))
        },
        onInputEnd: () => {
          if (isFlowing) probe.link.send(message('last'))
        },
      },
    )
    await bench.settled()
    isFlowing = true
    const write = vi.spyOn(Socket.prototype, 'write')
    server.peers[0]?.write(inbound('a', 'x') + inbound('b', 'y'))
    const peer = await server.peer(0)
    await peer.until(() => peer.payloads.length >= 101)
    const carrying = write.mock.calls.filter(([data]) => Buffer.from(data as string).includes('queue1.localhost'))
    // The server's own write of the two stanzas, and one of the link.
    expect(carrying.length).toBe(2)
    expect(peer.payloads.length).toBe(101)
  })

  test('sends outside of a chunk are joined for a turn', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    await bench.settled()
    const write = vi.spyOn(Socket.prototype, 'write')
    for (let index = 0; index < 20; index++) probe.link.send(message(`m${index}`))
    expect(write).not.toHaveBeenCalled()
    await Promise.resolve()
    expect(write).toHaveBeenCalledTimes(1)
    const peer = await server.peer(0)
    await peer.until(() => peer.payloads.length === 20)
    expect(peer.payloads.map((root) => root.attrs.get('id'))).toEqual([...Array(20).keys()].map((index) => `m${index}`))
  })

  test('a stanza without from or to, or larger than servers take, is refused before it is written', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server, { stanzaBytesMax: 1_000 })
    const send = (root: XmlElement) => () => probe.link.send(root)
    expect(send(stanza('message', { to: 'a@b' }))).toThrow(expect.objectContaining({ code: 'internal' }))
    expect(send(stanza('message', { from: DOMAIN }))).toThrow(expect.objectContaining({ code: 'internal' }))
    expect(send(message('big', '€'.repeat(400)))).toThrow(expect.objectContaining({ code: 'too-large' }))
    expect(send(message('odd', '\u0000'))).toThrow(expect.objectContaining({ code: 'illegal-character' }))
    probe.link.send(message('good'))
    const peer = await server.peer(0)
    await peer.until(() => peer.payloads.length > 0)
    expect(peer.payloads.map((root) => root.attrs.get('id'))).toEqual(['good'])
  })

  test('while the link is not up, stanzas are dropped and counted', async () => {
    const server = await bench.server()
    const probe = bench.link(server.port)
    probe.link.send(message('early'))
    probe.link.start()
    probe.link.send(message('still early'))
    expect(probe.link.counters.dropped).toBe(2)
    await probe.untilState('up')
    probe.link.send(message('in time'))
    const peer = await server.peer(0)
    await peer.until(() => peer.payloads.length > 0)
    expect(bodies(peer.payloads)).toEqual(['hello'])
  })

  test('a server that does not read makes the link congested, then ends the stream; the next one is clear', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server, { congestedBytes: 256 * 1024, outboundBytesMax: 1024 * 1024 })
    await bench.settled()
    const peer = await server.peer(0)
    peer.socket.pause()
    const text = 'x'.repeat(16 * 1024)
    // The kernel's buffers take a few MiB before anything waits here.
    for (let count = 0; count < 4_000 && probe.link.status.state === 'up'; count++) {
      probe.link.send(message(`m${count}`, text))
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    expect(probe.link.status).toMatchObject({ state: 'down', reason: { code: 'overloaded' } })
    expect(probe.log.filter((entry) => entry === 'congested' || entry === 'drained')).toEqual(['congested', 'drained'])
    expect([probe.link.outboundBytes, probe.link.congested]).toEqual([0, false])
    bench.clock.advance(250)
    await probe.untilState('up')
    expect(probe.link.congested).toBe(false)
  })

  test('a flood is read a little at a time: everything else has its turn in between', async () => {
    const server = await bench.server()
    let inTurn = 0
    let most = 0
    const probe = await bench.upLink(
      server,
      {},
      {
        onInputEnd: (bytes) => {
          if (inTurn === 0) setImmediate(() => (inTurn = 0))
          inTurn += bytes
          most = Math.max(most, inTurn)
        },
      },
    )
    await bench.settled()
    const peer = await server.peer(0)
    const text = inbound('a', 'x'.repeat(1000))
    for (let count = 0; count < 8_000; count++) peer.socket.write(text)
    await probe.until(() => probe.stanzas.length === 8_000)
    expect(most).toBeLessThanOrEqual(2 * 256 * 1024)
  })

  test('a stanza that is refused at its head is skipped, and the stream goes on', async () => {
    const server = await bench.server()
    const busy = new XmqError('overloaded', 'busy')
    const probe = await bench.upLink(
      server,
      {},
      { onChild: (head) => (head.attrs.get('id') === 'a' ? busy : undefined) },
    )
    await bench.settled()
    const peer = await server.peer(0)
    peer.write(inbound('a', 'x'.repeat(100_000)) + inbound('b', 'hello'))
    await probe.until(() => probe.stanzas.length > 0)
    expect(bodies(probe.stanzas)).toEqual(['hello'])
    expect(probe.log).toContain('skipped message overloaded')
  })

  test('a server that reads again ends the congestion, and nothing is lost', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server, { congestedBytes: 256 * 1024 })
    await bench.settled()
    const peer = await server.peer(0)
    peer.socket.pause()
    let sent = 0
    while (sent < 4_000 && !probe.link.congested) {
      probe.link.send(message(`m${sent++}`, 'x'.repeat(16 * 1024)))
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    expect(probe.link.congested).toBe(true)
    peer.socket.resume()
    await probe.until(() => !probe.link.congested)
    await peer.until(() => peer.payloads.length === sent)
    expect(peer.payloads.at(-1)?.attrs.get('id')).toBe(`m${sent - 1}`)
  })
})

describe('reading', () => {
  const text = 'héllo – 日本語 😀 & <tag>'

  test('a stanza cut into two chunks at any byte arrives whole', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    const peer = await server.peer(0)
    const bytes = Buffer.from(inbound('m', text))
    for (let cut = 1; cut < bytes.length; cut++) {
      await bench.settled()
      peer.write(bytes.subarray(0, cut))
      await bench.settled()
      peer.write(bytes.subarray(cut))
      await probe.until(() => probe.stanzas.length === cut)
    }
    expect(new Set(bodies(probe.stanzas))).toEqual(new Set([text]))
  })

  test('a connection cut at any byte of a stanza hands on nothing of it, and the next one starts clean', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    bench.unit = 0
    const bytes = Buffer.from(inbound('m', text))
    for (let cut = 0; cut < bytes.length; cut++) {
      const peer = await server.peer(cut)
      peer.write(bytes.subarray(0, cut))
      peer.socket.end()
      await probe.untilState('down')
      bench.clock.advance(0)
      await probe.untilState('up')
    }
    expect(probe.stanzas).toEqual([])
    const last = await server.peer(bytes.length)
    last.write(bytes)
    await probe.until(() => probe.stanzas.length > 0)
    expect(bodies(probe.stanzas)).toEqual([text])
    expect(probe.link.counters.reconnects).toBe(bytes.length)
  })

  test('each chunk ends with onInputEnd, after its stanzas', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    await bench.settled()
    probe.log.length = 0
    server.peers[0]?.write(inbound('a', 'x') + inbound('b', 'y'))
    await probe.until(() => probe.log.includes('input-end'))
    expect(probe.log).toEqual(['stanza', 'stanza', 'input-end'])
  })

  test('a stanza over a limit is reported as skipped, and the stream goes on', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    const deep = `${'<a>'.repeat(40)}${'</a>'.repeat(40)}`
    server.peers[0]?.write(`<message from='alice@localhost/1' to='${DOMAIN}'>${deep}</message>${inbound('b', 'after')}`)
    await probe.until(() => probe.stanzas.length > 0)
    expect(probe.log).toContain('skipped message too-large')
    expect(bodies(probe.stanzas)).toEqual(['after'])
  })

  test('what has no from or no to is counted and not handed on', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    server.peers[0]?.write(`<message type='error' to='${DOMAIN}'/><message from='a@b'/>${inbound('b', 'after')}`)
    await probe.until(() => probe.stanzas.length > 0)
    expect(bodies(probe.stanzas)).toEqual(['after'])
    expect(probe.link.counters).toMatchObject({ ignored: 2, stanzasIn: 1 })
  })

  test('malformed XML ends the stream with the reason, and the link reconnects', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    server.peers[0]?.write('<message></iq>')
    await probe.untilState('down')
    expect(probe.downs).toMatchObject([{ code: 'malformed-xml' }])
    bench.clock.advance(250)
    await probe.untilState('up')
    expect(probe.log.filter((entry) => entry !== 'input-end')).toEqual([
      'connecting',
      'up',
      'up',
      'down',
      'down malformed-xml',
      'connecting',
      'up',
      'up',
    ])
  })

  test('the end of the stream and a stream error are reasons to reconnect', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    server.peers[0]?.write('</stream:stream>')
    await probe.untilState('down')
    bench.clock.advance(250)
    await probe.untilState('up')
    server.peers[1]?.streamError('system-shutdown', 'going down')
    await probe.untilState('down')
    expect(probe.downs[1]?.message).toContain('<system-shutdown/> "going down"')
    expect(probe.downs.map((reason) => reason.code)).toEqual(['connection-lost', 'connection-lost'])
  })

  test("a handler's throw surfaces, after the rest of its chunk was handled", async () => {
    const server = await bench.server()
    const probe = await bench.upLink(
      server,
      {},
      {
        onStanza: (root) => {
          if (root.attrs.get('id') === 'a') throw new Error('a bug')
          probe.link.send(message('answer'))
        },
      },
    )
    const surfaced: unknown[] = []
    const listeners = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    process.once('uncaughtException', (error) => surfaced.push(error))
    const peer = await server.peer(0)
    peer.write(inbound('a', 'x') + inbound('b', 'y'))
    await peer.until(() => peer.payloads.length > 0)
    for (const listener of listeners) process.on('uncaughtException', listener)
    expect(surfaced).toMatchObject([{ message: 'a bug' }])
    expect(probe.link.status.state).toBe('up')
  })
})

describe('reconnecting', () => {
  test('the pause grows with each failure, and starts anew after a stable connection', async () => {
    const server = await bench.server()
    server.scripts = ['hang-up', 'hang-up', 'hang-up', 'accept']
    const probe = bench.link(server.port)
    bench.unit = 1
    const pauses: number[] = []
    const rest = async (): Promise<void> => {
      const status = await probe.untilState('down')
      if (status.state !== 'down') return
      pauses.push(status.retryAt - bench.clock.now())
      bench.clock.advance(status.retryAt - bench.clock.now())
    }
    probe.link.start()
    for (let failure = 0; failure < 3; failure++) await rest()
    await probe.untilState('up')
    // Too short to count as stable.
    await bench.settled()
    server.peers.at(-1)?.socket.destroy()
    await rest()
    await probe.untilState('up')
    for (let second = 0; second < 10; second++) {
      bench.clock.advance(1_000)
      await bench.settled()
    }
    server.peers.at(-1)?.socket.destroy()
    await rest()
    expect(pauses).toEqual([250, 500, 1_000, 2_000, 250])
    await probe.untilState('up')
  })

  test('a conflict on the first connect is tried again; it passes when the predecessor is gone', async () => {
    const server = await bench.server()
    server.scripts = ['conflict', 'conflict', 'accept']
    const probe = bench.link(server.port)
    probe.link.start()
    for (let failure = 0; failure < 2; failure++) {
      await probe.untilState('down')
      expect(hintOf(probe)).toMatch(/another broker.*kick_old.*hosts:/is)
      bench.clock.advance(1_000)
    }
    await probe.untilState('up')
    expect(probe.fatal).toEqual([])
  })

  test.each(['conflict', 'ejabberd-conflict'] as const)(
    'a %s that lasts from the first connect on is fatal',
    async (script) => {
      const server = await bench.server()
      server.scripts = [script]
      const probe = bench.link(server.port)
      const startedAt = bench.clock.now()
      probe.link.start()
      while (probe.fatal.length === 0) {
        await probe.until(() => probe.link.status.state !== 'connecting')
        const { status } = probe.link
        if (status.state === 'down') bench.clock.advance(status.retryAt - bench.clock.now())
      }
      expect(bench.clock.now() - startedAt).toBe(30_000)
      expect(probe.fatal).toMatchObject([{ code: 'conflict' }])
      expect(probe.fatal[0]?.message).toContain(DOMAIN)
      expect(probe.link.status).toMatchObject({ state: 'closed', reason: { code: 'conflict' } })
    },
  )

  test('a link that was up once only waits longer when it meets a conflict', async () => {
    const server = await bench.server()
    server.scripts = ['accept', 'conflict']
    const probe = await bench.upLink(server)
    server.peers[0]?.socket.destroy()
    for (let tries = 0; tries < 40; tries++) {
      const status = await probe.untilState('down')
      if (status.state === 'down') bench.clock.advance(status.retryAt - bench.clock.now())
    }
    expect(probe.fatal).toEqual([])
    const status = await probe.untilState('down')
    expect(status).toMatchObject({ retryAt: bench.clock.now() + 45_000 })
  })

  test('a link that is replaced by another broker now and then goes on', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    for (let times = 0; times < 3; times++) {
      await bench.settled()
      server.peers[times]?.streamError('conflict', 'Replaced by a new connection')
      await probe.untilState('down')
      bench.clock.advance(60_000)
      await probe.untilState('up')
      for (let minute = 0; minute < 10 * 12; minute++) {
        await bench.settled()
        bench.clock.advance(5_000)
      }
    }
    expect(probe.fatal).toEqual([])
  })

  test('a link that is replaced by another broker twice gives up', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    server.peers[0]?.streamError('conflict', 'Replaced by a new connection')
    const status = await probe.untilState('down')
    expect(status).toMatchObject({ reason: { code: 'conflict' }, retryAt: bench.clock.now() + 45_000 })
    bench.clock.advance(45_000)
    await probe.untilState('up')
    server.peers[1]?.streamError('conflict', 'Replaced by a new connection')
    await probe.untilState('closed')
    expect(probe.fatal[0]?.message).toContain('kick_old')
    expect(probe.log.filter((entry) => entry.startsWith('down conflict')).length).toBe(2)
  })
})

describe('closing', () => {
  test('drains what is buffered, ends the stream and waits for the end', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    await bench.settled()
    for (let index = 0; index < 200; index++) probe.link.send(message(`m${index}`, 'x'.repeat(10_000)))
    await probe.link.close()
    const peer = await server.peer(0)
    await peer.until(() => peer.payloads.length === 200)
    expect(peer.received.endsWith('</stream:stream>')).toBe(true)
    expect(probe.log.slice(-2)).toEqual(['closed', 'down closed'])
  })

  test('may be called twice, before start, while connecting and while down', async () => {
    const server = await bench.server()
    const idle = bench.link(server.port)
    await idle.link.close()
    const trying = bench.link(server.port)
    trying.link.start()
    await Promise.all([trying.link.close(), trying.link.close()])
    server.scripts = ['hang-up']
    const down = bench.link(server.port)
    down.link.start()
    await down.untilState('down')
    await down.link.close()
    idle.link.start()
    expect([idle, trying, down].map(({ link }) => link.status.state)).toEqual(['closed', 'closed', 'closed'])
    expect(bench.clock.pending).toBe(0)
  })

  test('a server that does not answer the end is left after the timeout', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    await bench.settled()
    server.peers[0]?.socket.pause()
    let isClosed = false
    const closing = probe.link.close().then(() => {
      isClosed = true
    })
    bench.clock.advance(4_999)
    expect(isClosed).toBe(false)
    bench.clock.advance(1)
    await closing
  })

  test('a link is closed by `await using`', async () => {
    const server = await bench.server()
    const probe = await bench.upLink(server)
    await probe.link[Symbol.asyncDispose]()
    expect(probe.link.status.state).toBe('closed')
  })
})

test('createComponentLink hands out the domain in lower case', () => {
  const link = createComponentLink(
    { host: 'h', port: 1, domain: 'Queue1.LOCALHOST', secret: 's', instance: { id: 'i', startedAt: 0 } },
    { onUp() {}, onDown() {}, onStanza() {}, onSkipped() {}, onStatus() {}, onFatal() {} },
  )
  expect(link.domain).toBe('queue1.localhost')
})
