/** Misbehaviour on demand, and the server's own life: stop, restart, kill. */
import { findChild, textOf, XmqError } from '@xmq/protocol'
import {
  connectRawClient,
  connectRawComponent,
  startEmbeddedServer,
  type EmbeddedServer,
  type EmbeddedServerOptions,
  type RawPeer,
} from '@xmq/testing'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { DelayLine } from '../src/misbehave.ts'

let server: EmbeddedServer
let alice: RawPeer
let bob: RawPeer
const lines: string[] = []

beforeEach(async () => {
  lines.length = 0
  server = await start({ log: (line) => lines.push(line) })
  alice = await login('alice@localhost/a')
  bob = await login('bob@localhost/b')
})
afterEach(() => server.stop())

const start = (options: EmbeddedServerOptions = {}) =>
  startEmbeddedServer({ accounts: { alice: 'a', bob: 'b' }, ...options })
const login = (jid: string, on: EmbeddedServer = server): Promise<RawPeer> =>
  connectRawClient({ port: on.port, jid, password: jid.slice(0, 1) })
const message = (to: string, body: string) => `<message to='${to}'><body>${body}</body></message>`
const bodies = (peer: RawPeer) =>
  peer.stream.inbox.filter((root) => root.name === 'message').map((root) => textOf(findChild(root, 'body')!))
const ended = (on: EmbeddedServer, jid: string) =>
  new Promise<string>((resolve) => {
    on.on('session-end', (event) => {
      if (event.jid === jid) resolve(event.reason)
    })
  })

describe('drop', () => {
  test('cuts a session without a word, or with an RST', async () => {
    const end = ended(server, bob.jid)
    server.misbehave.dropSession(bob.jid)
    // In the same turn: nobody routes to a connection that cannot take it.
    expect(server.sessions()).toEqual([alice.jid])
    expect(await bob.closed).toBe('closed')
    expect(await end).toBe('lost')
    const again = await login('bob@localhost/b')
    server.misbehave.drop(again.jid, 'reset')
    expect(await again.closed).toBe('closed')
    expect(server.sessions()).toEqual([alice.jid])
  })

  test('ends a stream politely, or with the stream error that a test names', async () => {
    server.misbehave.drop(bob.jid, 'system-shutdown')
    expect(await bob.closed).toBe('system-shutdown')
    server.misbehave.drop(alice.jid, 'close')
    expect(await alice.closed).toBe('closed')
  })

  test('of a stranger names who is there', () => {
    expect(() => server.misbehave.drop('carol@localhost/x')).toThrow(XmqError)
    expect(() => server.misbehave.drop('carol@localhost/x')).toThrow(alice.jid)
  })
})

describe('stall', () => {
  test('of output holds what is sent until it is lifted, in order', async () => {
    server.misbehave.stall(bob.jid, 'output')
    for (let n = 0; n < 3; n++) alice.send(message(bob.jid, String(n)))
    await alice.sync()
    expect(bodies(bob)).toEqual([])
    server.misbehave.unstall(bob.jid)
    await bob.sync()
    expect(bodies(bob)).toEqual(['0', '1', '2'])
  })

  test('of input leaves what a peer sends unread until it is lifted', async () => {
    server.misbehave.stall(alice.jid, 'input')
    alice.send(message(bob.jid, 'late'))
    await bob.sync()
    expect(bodies(bob)).toEqual([])
    server.misbehave.unstall(alice.jid)
    await alice.sync()
    await bob.sync()
    expect(bodies(bob)).toEqual(['late'])
  })

  test('of a component works by its domain', async () => {
    const queue = await connectRawComponent({ port: server.componentPort, domain: 'queue1.localhost' })
    server.misbehave.stall('queue1.localhost')
    alice.send(message('queue1.localhost', 'x'))
    await alice.sync()
    expect(queue.stream.inbox).toEqual([])
    server.misbehave.unstall('queue1.localhost')
    await queue.next()
  })

  test('of a component slows down who floods it, and nobody else: it is not cut off', async () => {
    const count = 8000
    let routed = 0
    server.on('stanza', () => routed++)
    const queue = await connectRawComponent({ port: server.componentPort, domain: 'queue1.localhost' })
    const turn = () => new Promise((resolve) => setImmediate(resolve))
    server.misbehave.stall('queue1.localhost', 'output')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      alice.send(message('queue1.localhost', 'x'.repeat(1000)).repeat(count))
      while (vi.getTimerCount() === 0) await turn()
      const before = routed
      expect(before).toBeLessThan(count / 2)
      bob.send(message(bob.jid, 'quick'))
      await bob.next((root) => root.name === 'message')
      expect(routed).toBe(before + 1)
      server.misbehave.unstall('queue1.localhost')
      while (queue.stream.inbox.length < count) {
        vi.advanceTimersByTime(1000)
        await turn()
      }
    } finally {
      vi.useRealTimers()
    }
    expect(server.components()).toEqual(['queue1.localhost'])
  })

  test('a client over its rate is read as fast as its shaper lets it, and others are not held up', async () => {
    const count = 500
    const shaped = await start({ clientBytesPerSecond: 100_000 })
    const turn = () => new Promise((resolve) => setImmediate(resolve))
    let routed = 0
    shaped.on('stanza', () => routed++)
    try {
      const reader = await login('bob@localhost/b', shaped)
      const writer = await login('alice@localhost/a', shaped)
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
      writer.send(message(reader.jid, 'x'.repeat(1000)).repeat(count))
      while (vi.getTimerCount() === 0) await turn()
      const before = routed
      expect(before).toBeLessThan(count)
      reader.send(message(writer.jid, 'quick'))
      await writer.next((root) => root.name === 'message')
      expect(routed).toBe(before + 1)
      let waitedMs = 0
      for (; reader.stream.inbox.length < count; waitedMs += 100) {
        vi.advanceTimersByTime(100)
        await turn()
      }
      expect(waitedMs).toBeGreaterThan(2000)
    } finally {
      vi.useRealTimers()
      await shaped.stop()
    }
  })

  test('a peer for which too much waits is cut off', async () => {
    const small = await start({ outboundBytesMax: 20_000 })
    try {
      const reader = await login('bob@localhost/b', small)
      const writer = await login('alice@localhost/a', small)
      const end = ended(small, reader.jid)
      small.misbehave.stall(reader.jid, 'output')
      for (let n = 0; n < 30; n++) writer.send(message(reader.jid, 'x'.repeat(1000)))
      expect(await end).toBe('lost')
    } finally {
      await small.stop()
    }
  })
})

describe('delay', () => {
  test('lets each job pass that much later, in the same order whatever the delay is by then', () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    try {
      const line = new DelayLine()
      const ran: string[] = []
      const job = (name: string) => line.pass(() => ran.push(name))
      line.set(50)
      job('a')
      vi.advanceTimersByTime(20)
      line.set(10)
      job('b')
      vi.advanceTimersByTime(29)
      expect(ran).toEqual([])
      vi.advanceTimersByTime(1)
      expect(ran).toEqual(['a', 'b'])
      job('c')
      line.set(0)
      expect(ran).toEqual(['a', 'b', 'c'])
      job('d')
      expect(ran).toEqual(['a', 'b', 'c', 'd'])
    } finally {
      vi.useRealTimers()
    }
  })

  test('holds up every stanza, and none is lost when it ends', async () => {
    const routed = new Promise((resolve) => server.on('stanza', resolve))
    server.misbehave.delay(3_600_000)
    alice.send(message(bob.jid, '0'))
    await routed
    server.misbehave.delay(0)
    alice.send(message(bob.jid, '1'))
    await bob.next((root) => textOf(findChild(root, 'body')!) === '1')
    expect(bodies(bob)).toEqual(['0'])
  })
})

describe('cutNextStanza', () => {
  test('cuts the connection after that many bytes of the next stanza', async () => {
    await bob.sync()
    const before = bob.stream.bytesRead
    server.misbehave.cutNextStanza(bob.jid, 20)
    const end = ended(server, bob.jid)
    alice.send(message(bob.jid, 'never whole'))
    expect(await end).toBe('lost')
    await bob.closed
    expect(bodies(bob)).toEqual([])
    expect(bob.stream.bytesRead - before).toBe(20)
  })
})

describe('unavailable', () => {
  const tell = async () => {
    alice.send(`<presence to='${bob.jid}'/>`)
    await bob.next((root) => root.name === 'presence')
  }
  const unavailable = () => bob.stream.inbox.filter((root) => root.attrs.get('type') === 'unavailable').length

  test('is held until it is released', async () => {
    await tell()
    server.misbehave.holdUnavailable()
    const end = ended(server, alice.jid)
    await alice.drop()
    await end
    await bob.sync()
    expect(unavailable()).toBe(0)
    server.misbehave.releaseUnavailable()
    await bob.sync()
    expect(unavailable()).toBe(1)
  })

  test('is sent as often as asked', async () => {
    await tell()
    server.misbehave.repeatUnavailable(3)
    const end = ended(server, alice.jid)
    await alice.drop()
    await end
    await bob.sync()
    expect(unavailable()).toBe(3)
  })
})

describe('life', () => {
  test('restart cuts every connection and listens on the same ports; accounts stay', async () => {
    server.register('carol', 'c')
    const { port } = server
    await server.restart()
    expect(await alice.closed).toBe('closed')
    expect(server.port).toBe(port)
    expect(server.sessions()).toEqual([])
    const carol = await login('carol@localhost/c')
    await carol.sync()
  })

  test('kill refuses connections until start', async () => {
    await server.misbehave.kill()
    await alice.closed
    await expect(login('alice@localhost/a')).rejects.toMatchObject({ code: 'connection-lost' })
    await server.misbehave.start()
    await server.misbehave.start()
    await (await login('alice@localhost/a')).sync()
  })

  test('stop frees the ports, twice is once', async () => {
    await server.stop()
    await server.stop()
    const again = await start({ port: server.port, componentPort: server.componentPort })
    expect(again.port).toBe(server.port)
    await again.stop()
  })

  test('says at its start that it is not for production', () => {
    expect(lines[0]).toContain('NOT for production')
  })

  test('a port that is taken is a conflict that names it', async () => {
    await expect(start({ port: server.port })).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining(String(server.port)),
    })
  })

  test('connections beyond the bound are cut off', async () => {
    const tiny = await start({ connectionsMax: 1 })
    try {
      await login('alice@localhost/a', tiny)
      await expect(login('bob@localhost/b', tiny)).rejects.toMatchObject({ code: 'connection-lost' })
    } finally {
      await tiny.stop()
    }
  })
})

describe('options', () => {
  test('listen on loopback only, unless asked to', async () => {
    await expect(start({ host: '0.0.0.0' })).rejects.toMatchObject({ code: 'invalid-config' })
    const open = await start({ host: '0.0.0.0', allowRemote: true })
    await open.stop()
  })

  test('that are wrong are named', async () => {
    await expect(start({ port: 70_000 })).rejects.toThrow('port is 70000')
    await expect(start({ domain: 'a@b' })).rejects.toThrow("domain is 'a@b'")
    await expect(start({ anonymousDomain: 'localhost' })).rejects.toThrow('anonymousDomain')
  })
})
