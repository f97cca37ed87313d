import { type AddressInfo, connect as connectSocket, createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { afterTest, rejection, startSetting } from './setting.ts'
import { authority, startTlsFront } from './tls-front.ts'

const PASSWORDS = ['pässwörd €', 'пароль', '漢字 🦄', 'a=b,c']

describe('passwords', () => {
  it.each(PASSWORDS)('%s fits, with SCRAM', async (password) => {
    const setting = await startSetting({ server: { accounts: { shop: password } } })
    expect((await setting.connect({ password })).status.state).toBe('online')
  })

  it.each(PASSWORDS)('%s fits, with PLAIN, which makes the account', async (password) => {
    const made = new Map<string, string>()
    const setting = await startSetting({
      server: { registerOnLogin: true, onRegister: (user, its) => void made.set(user, its) },
    })
    await setting.connect({ jid: 'fresh@localhost', password })
    expect(made.get('fresh')).toBe(password)
    // It has the account now: SCRAM.
    await setting.connect({ jid: 'fresh@localhost', password })
  })

  it('fit in any form of the same characters', async () => {
    const setting = await startSetting({ server: { accounts: { shop: 'u\u0308ber\u00a0alles' } } })
    await setting.connect({ password: 'über alles' })
    await setting.connect({ password: 'u\u0308b\u00ader alles' })
  })

  it('with control characters are refused before anything connects, without being told', async () => {
    const setting = await startSetting()
    const error = await rejection(setting.connect({ password: 'secret\u0007' }))
    expect(error).toMatchObject({ code: 'invalid-config', message: expect.stringContaining('U+0007') })
    expect(error.message).not.toContain('secret')
  })
})

describe('accounts that a first login makes', () => {
  it.each(['tcp', 'websocket'])('are made with any password, and refuse another one later (%s)', async (way) => {
    const setting = await startSetting({ server: { registerOnLogin: true } })
    const service = way === 'tcp' ? setting.dev.service : (setting.dev.server.websocketUrl ?? '')
    const jid = 'fresh@localhost'
    await setting.connect({ service, jid, password: 'any thing' })
    expect(await rejection(setting.connect({ service, jid, password: 'another' }))).toMatchObject({
      code: 'not-authorized',
      message: expect.stringMatching(
        /refused the password of fresh@localhost\..*The server says: "Wrong account or password\."$/,
      ),
    })
  })

  it('are made through TLS, before which the account is not named to whoever listens', async () => {
    const setting = await startSetting({ server: { registerOnLogin: true } })
    const front = await startTlsFront(setting.dev.server.port)
    afterTest(() => front.close())
    // This machine, by a name that is not known to be loopback.
    const service = `xmpp://0.0.0.0:${front.port}`
    await setting.connect({ service, ca: authority, jid: 'fresh@localhost', password: 'any thing' })
    expect(front.open()).toContain('<stream:stream')
    expect(front.open()).not.toContain('fresh')
  })
})

describe('a server that cannot show that it knows the password', () => {
  it.each([
    ['a wrong signature', Buffer.from(`v=${Buffer.alloc(20).toString('base64')}`).toString('base64')],
    ['no signature', ''],
  ])('is not believed: %s', async (_name, data) => {
    const setting = await startSetting()
    const service = await startForger(setting.dev.server.port, /(<success [^>]*>)[^<]*/, `$1${data}`)
    expect(await rejection(setting.connect({ service }))).toMatchObject({
      code: 'not-authorized',
      message: expect.stringMatching(/login of shop@localhost was broken off: the server.*know/),
    })
    expect(setting.dev.server.sessions()).toEqual([])
  })
})

describe('a server that', () => {
  it('does not serve the domain says so at once', async () => {
    const setting = await startSetting()
    expect(await rejection(setting.connect({ jid: 'shop@elsewhere.localhost' }))).toMatchObject({
      code: 'invalid-config',
      message: expect.stringContaining('does not serve the domain elsewhere.localhost'),
    })
  })

  it('gives no session is asked again, and its reason told', async () => {
    const setting = await startSetting()
    const refusal =
      "<iq type='error' id='bind'><error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>" +
      "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>Ten sessions are enough.</text></error></iq>"
    const service = await startForger(setting.dev.server.port, /<iq [^>]*type=.result.*<\/iq>/s, refusal)
    expect(await rejection(setting.connect({ service, connectTimeout: 200 }))).toMatchObject({
      code: 'connection-lost',
      message: expect.stringMatching(/localhost gave shop@localhost no session: .*Ten sessions are enough/),
    })
  })

  it('sends its clients elsewhere is not followed: another host has another certificate, and another operator', async () => {
    const setting = await startSetting()
    const errand =
      "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>example.org</see-other-host></stream:error>"
    const service = await startForger(setting.dev.server.port, /<stream:features>.*<\/stream:features>/s, errand)
    expect(await rejection(setting.connect({ service, connectTimeout: 200 }))).toMatchObject({
      code: 'connection-lost',
      message: expect.stringContaining('see-other-host'),
    })
  })
})

/** Stands between, and puts something else in place of what the server said. */
async function startForger(target: number, said: RegExp, forged: string): Promise<string> {
  const forger = createServer((socket) => {
    const onward = connectSocket(target, '127.0.0.1')
    socket.pipe(onward)
    onward.on('data', (chunk: Buffer) => void socket.write(chunk.toString().replace(said, forged)))
    for (const end of [socket, onward]) {
      end.on('error', () => {})
      end.on('close', () => void (socket.destroy(), onward.destroy()))
    }
  })
  await new Promise<void>((resolve) => forger.listen(0, '127.0.0.1', resolve))
  afterTest(() => new Promise((resolve) => forger.close(() => resolve(undefined))))
  return `xmpp://127.0.0.1:${(forger.address() as AddressInfo).port}`
}
