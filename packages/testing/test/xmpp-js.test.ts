/** Ordinary clients: xmpp.js over TCP and WebSocket, with every mechanism, as it comes and with the overrides of an SDK. */
import { client, xml, type Client, type ClientOptions } from '@xmpp/client'
import { startEmbeddedServer, type EmbeddedServer } from '@xmq/testing'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { WebSocket } from 'ws'

let server: EmbeddedServer
const registered = new Map<string, string>()

// Node 20 has no WebSocket of its own, and xmpp.js takes the global one.
beforeAll(() => vi.stubGlobal('WebSocket', WebSocket))
afterAll(() => vi.unstubAllGlobals())

beforeEach(async () => {
  registered.clear()
  server = await startEmbeddedServer({
    accounts: { alice: 'secret-ä' },
    registerOnLogin: true,
    registerPasswords: ['well-known'],
    scramIterations: 1,
    onRegister: (user, password) => registered.set(user, password),
  })
})
afterEach(() => server.stop())

function create(options: ClientOptions): Client {
  const xmpp = client({ domain: 'localhost', ...options })
  xmpp.reconnect.stop()
  xmpp.on('error', () => undefined)
  return xmpp
}

/** Logs in, pings the server, logs out; the full JID and the mechanism that was used. */
async function visit(xmpp: Client): Promise<{ jid: string; mechanism: string }> {
  let mechanism = 'none'
  xmpp.on('send', (sent) => {
    if (sent.name === 'auth') mechanism = String(sent.attrs['mechanism'])
  })
  const jid = String(await xmpp.start())
  await xmpp.iqCaller.request(xml('iq', { type: 'get', to: 'localhost' }, xml('ping', { xmlns: 'urn:xmpp:ping' })))
  await xmpp.stop()
  return { jid, mechanism }
}

const tcp = () => `xmpp://127.0.0.1:${server.port}`
const ws = () => server.websocketUrl as string
const known = { username: 'alice', password: 'secret-ä', resource: 'r' }

describe('xmpp.js as it comes', () => {
  test('takes SCRAM-SHA-1 over TCP, and over WebSocket on loopback', async () => {
    const expected = { jid: 'alice@localhost/r', mechanism: 'SCRAM-SHA-1' }
    expect(await visit(create({ service: tcp(), ...known }))).toEqual(expected)
    expect(await visit(create({ service: ws(), ...known }))).toEqual(expected)
  })

  test('takes ANONYMOUS on the anonymous domain', async () => {
    const { jid, mechanism } = await visit(create({ service: tcp(), domain: 'anon.localhost' }))
    expect(mechanism).toBe('ANONYMOUS')
    expect(jid).toMatch(/@anon\.localhost\//)
    expect((await visit(create({ service: ws(), domain: 'anon.localhost' }))).mechanism).toBe('ANONYMOUS')
  })

  test('is refused with a wrong password', async () => {
    const start = create({ service: tcp(), ...known, password: 'wrong' }).start()
    await expect(start).rejects.toMatchObject({ condition: 'not-authorized' })
  })

  test('makes an account over WebSocket, since it names itself in the stream header there and is offered PLAIN', async () => {
    const fresh = { username: 'carol', password: 'password', resource: 'r' }
    expect(await visit(create({ service: ws(), ...fresh }))).toEqual({ jid: 'carol@localhost/r', mechanism: 'PLAIN' })
    expect([...registered]).toEqual([['carol', 'password']])
    expect((await visit(create({ service: ws(), ...fresh }))).mechanism).toBe('SCRAM-SHA-1')
    expect((await visit(create({ service: tcp(), ...fresh }))).mechanism).toBe('SCRAM-SHA-1')
  })

  test('makes an account over TCP only with its name or a listed password, and is told of PLAIN otherwise', async () => {
    const start = create({ service: tcp(), username: 'dave', password: 'other' }).start()
    await expect(start).rejects.toMatchObject({ condition: 'not-authorized', text: expect.stringContaining('PLAIN') })
    expect(registered.size).toBe(0)
    const { mechanism } = await visit(create({ service: tcp(), username: 'dave', password: 'dave' }))
    expect(mechanism).toBe('SCRAM-SHA-1')
    expect([...registered]).toEqual([['dave', 'dave']])
    await visit(create({ service: tcp(), username: 'hal', password: 'well-known' }))
    expect([...registered].at(-1)).toEqual(['hal', 'well-known'])
  })
})

describe('xmpp.js with an SDK around it', () => {
  test('makes an account over TCP when it calls loopback secure: it names itself and is offered PLAIN', async () => {
    const xmpp = create({ service: tcp(), username: 'erin', password: 'pw' })
    xmpp.isSecure = () => true
    expect((await visit(xmpp)).mechanism).toBe('PLAIN')
    expect([...registered]).toEqual([['erin', 'pw']])
  })

  test('makes an account over TCP when it tries PLAIN after SCRAM on the same stream', async () => {
    const credentials = { username: 'frank', password: 'pw' }
    const tried: string[] = []
    const xmpp = create({
      service: tcp(),
      credentials: async (authenticate, mechanisms) => {
        for (const mechanism of mechanisms) {
          tried.push(mechanism)
          try {
            return await authenticate(credentials, mechanism)
          } catch (error) {
            if (mechanism === mechanisms.at(-1)) throw error
          }
        }
      },
    })
    await visit(xmpp)
    expect(tried).toEqual(['SCRAM-SHA-1', 'PLAIN'])
    expect([...registered]).toEqual([['frank', 'pw']])
  })

  test('a PLAIN login that is not UTF-8, which is what xmpp.js makes of one that is not ASCII, makes no mangled account', async () => {
    const start = create({ service: ws(), username: 'grace', password: 'pässword' }).start()
    await expect(start).rejects.toMatchObject({ condition: 'malformed-request' })
    expect(registered.size).toBe(0)
  })

  test('an account is only made where that was asked for', async () => {
    const closed = await startEmbeddedServer()
    try {
      const xmpp = create({ service: closed.websocketUrl as string, username: 'carol', password: 'carol' })
      await expect(xmpp.start()).rejects.toMatchObject({ condition: 'not-authorized' })
    } finally {
      await closed.stop()
    }
  })
})

describe('WebSocket', () => {
  test('stanzas cross between WebSocket and TCP', async () => {
    const one = create({ service: ws(), ...known, resource: 'one' })
    const two = create({ service: tcp(), ...known, resource: 'two' })
    await one.start()
    await two.start()
    const got = new Promise<string>((resolve) => two.on('stanza', (each) => resolve(each.getChildText('body') ?? '')))
    await one.send(xml('message', { to: 'alice@localhost/two' }, xml('body', {}, 'über 😀')))
    expect(await got).toBe('über 😀')
    const back = new Promise<string>((resolve) => one.on('stanza', (each) => resolve(String(each.attrs['from']))))
    await two.send(xml('message', { to: 'alice@localhost/one' }, xml('body', {}, 'back')))
    expect(await back).toBe('alice@localhost/two')
    await one.stop()
    await two.stop()
  })

  test('a page from elsewhere is refused, one from loopback or from the list is let in', async () => {
    const outcome = (url: string, origin: string, protocol = 'xmpp') =>
      new Promise<string>((resolve) => {
        const socket = new WebSocket(url, [protocol], { origin })
        socket.on('open', () => {
          socket.terminate()
          resolve('open')
        })
        socket.on('error', (error) => resolve(error.message))
      })
    expect(await outcome(ws(), 'https://evil.example')).toContain('403')
    expect(await outcome(ws(), 'http://localhost:3000')).toBe('open')
    expect(await outcome(ws(), 'http://localhost:3000', 'mqtt')).toContain('403')
    const listed = await startEmbeddedServer({ websocketOrigins: ['https://app.example'] })
    expect(await outcome(listed.websocketUrl as string, 'https://app.example')).toBe('open')
    await listed.stop()
  })

  test('a frame over the limit ends the stream with policy-violation', async () => {
    const xmpp = create({ service: ws(), ...known })
    const condition = new Promise((resolve) => xmpp.on('error', (error) => resolve(error.condition)))
    await xmpp.start()
    await xmpp.send(xml('message', { to: 'alice@localhost' }, xml('body', {}, 'x'.repeat(270_000))))
    expect(await condition).toBe('policy-violation')
    await xmpp.stop()
  })
})
