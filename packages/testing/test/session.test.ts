/** A client's stream: RFC 6120 (login, binding, stamping, stream errors). */
import { childElements, element, findChild, NS_CLIENT, NS_PING, stanza, textOf } from '@xmq/protocol'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connectRawClient, openRawStream, startEmbeddedServer, type EmbeddedServer, type RawPeer } from '@xmq/testing'

let server: EmbeddedServer
const accounts = { alice: 'a', bob: 'b' }

beforeEach(async () => {
  server = await startEmbeddedServer({ accounts })
})
afterEach(() => server.stop())

const login = (jid: string, password: string = jid.slice(0, 1)): Promise<RawPeer> =>
  connectRawClient({ port: server.port, jid, password })

const openClient = async (to = 'localhost', from?: string) => {
  const stream = await openRawStream({
    port: server.port,
    contentNs: NS_CLIENT,
    to,
    ...(from === undefined ? {} : { from }),
  })
  return stream
}

describe('login', () => {
  test('binds the resource that the client asks for, and makes one up when it asks for none', async () => {
    const alice = await login('alice@localhost/desk')
    const other = await login('alice@localhost')
    expect(alice.jid).toBe('alice@localhost/desk')
    expect(other.jid).toMatch(/^alice@localhost\/.+/)
    expect(server.sessions()).toEqual([alice.jid, other.jid])
  })

  test('a wrong password and an unknown account are not let in', async () => {
    await expect(login('alice@localhost', 'wrong')).rejects.toMatchObject({ code: 'not-authorized' })
    await expect(login('carol@localhost')).rejects.toMatchObject({ code: 'not-authorized' })
  })

  test('account and domain are compared without case', async () => {
    const alice = await login('ALICE@LocalHost/Desk', 'a')
    expect(alice.jid).toBe('alice@localhost/Desk')
  })

  test('the anonymous domain offers ANONYMOUS and nothing else, and gives each session a name', async () => {
    const stream = await openClient('anon.localhost')
    await stream.open()
    const features = await stream.next()
    const mechanisms = childElements(features).flatMap((each) => childElements(each).map(textOf))
    expect(mechanisms).toEqual(['ANONYMOUS'])
    await stream.close()
    const one = await connectRawClient({ port: server.port, jid: 'anon.localhost' })
    const two = await connectRawClient({ port: server.port, jid: 'anon.localhost' })
    expect(one.jid).toMatch(/^[0-9a-f]{16}@anon\.localhost\//)
    expect(two.jid).not.toBe(one.jid)
  })

  test('a stream to another host, or with another namespace, is refused', async () => {
    const stream = await openClient('example.org')
    await stream.open()
    expect(await stream.closed).toBe('host-unknown')
    const wrong = await openRawStream({ port: server.port, contentNs: 'jabber:server', to: 'localhost' })
    await wrong.open()
    expect(await wrong.closed).toBe('invalid-namespace')
  })

  test('after five failures the stream is closed', async () => {
    const stream = await openClient()
    await stream.open()
    const auth = element('auth', 'urn:ietf:params:xml:ns:xmpp-sasl', { mechanism: 'PLAIN' }, [btoa('\0alice\0no')])
    for (let attempt = 0; attempt < 5; attempt++) {
      stream.send(auth)
      await stream.next((root) => root.name === 'failure')
    }
    expect(await stream.closed).toBe('policy-violation')
  })

  test('a stanza before authentication closes the stream', async () => {
    const stream = await openClient()
    await stream.open()
    stream.send('<message to="bob@localhost"/>')
    expect(await stream.closed).toBe('not-authorized')
  })
})

describe('a bound session', () => {
  test('is stamped with its own address, whatever it writes', async () => {
    const alice = await login('alice@localhost/a')
    const bob = await login('bob@localhost/b')
    alice.send("<message from='eve@localhost/x' to='BOB@localhost/b'><body>hi</body></message>")
    const message = await bob.next()
    expect(message.attrs.get('from')).toBe('alice@localhost/a')
    expect(message.attrs.get('to')).toBe('bob@localhost/b')
    expect(textOf(findChild(message, 'body')!)).toBe('hi')
  })

  test('is replaced when its resource is bound again, and the old stream ends with conflict', async () => {
    const old = await login('alice@localhost/a')
    const fresh = await login('alice@localhost/a')
    expect(await old.closed).toBe('conflict')
    expect(server.sessions()).toEqual([fresh.jid])
    await fresh.sync()
  })

  test('ends with policy-violation when a stanza is over the limit', async () => {
    const alice = await login('alice@localhost/a')
    alice.send(`<message to='bob@localhost'><body>${'x'.repeat(262_144)}</body></message>`)
    expect(await alice.closed).toBe('policy-violation')
  })

  test('may send a stanza just under the limit, cut anywhere, characters included', async () => {
    const alice = await login('alice@localhost/a')
    const bob = await login('bob@localhost/b')
    const body = 'é😀漢'.repeat(20_000)
    const bytes = Buffer.from(`<message to='bob@localhost/b'><body>${body}</body></message>`)
    for (let at = 0; at < bytes.length; at += 1021) alice.stream.sendBytes(bytes.subarray(at, at + 1021))
    expect(textOf(findChild(await bob.next(), 'body')!)).toBe(body)
  })

  test('ends with not-well-formed on broken XML and unsupported-stanza-type on a stray element', async () => {
    const alice = await login('alice@localhost/a')
    alice.send('<message></presence>')
    expect(await alice.closed).toBe('not-well-formed')
    const bob = await login('bob@localhost/b')
    bob.send('<stray/>')
    expect(await bob.closed).toBe('unsupported-stanza-type')
  })

  test('is out of the table as soon as its stream has failed, so that what follows it bounces', async () => {
    const alice = await login('alice@localhost/a')
    const bob = await login('bob@localhost/b')
    bob.send("<message to='alice@localhost/a'/><stray/>")
    await alice.next((root) => root.name === 'message')
    const answer = await alice.request(stanza('iq', { type: 'get', to: bob.jid }, [element('q', 'x')]))
    expect(childElements(findChild(answer, 'error')!)[0]?.name).toBe('service-unavailable')
  })

  test('may hold several logins, and a wrong one is no obstacle to a right one on the same stream', async () => {
    const stream = await openClient()
    await stream.open()
    const auth = (text: string) =>
      stream.send(element('auth', 'urn:ietf:params:xml:ns:xmpp-sasl', { mechanism: 'PLAIN' }, [btoa(text)]))
    auth('\0alice\0wrong')
    await stream.next((root) => root.name === 'failure')
    auth('\0alice\0a')
    await stream.next((root) => root.name === 'success')
    await stream.close()
  })

  test('is in the table until it ends, and its end is told', async () => {
    const ended = new Promise((resolve) => server.on('session-end', resolve))
    const alice = await login('alice@localhost/a')
    await alice.drop()
    expect(await ended).toEqual({ jid: 'alice@localhost/a', reason: 'lost' })
    expect(server.sessions()).toEqual([])
  })
})

describe('the server itself', () => {
  test('answers ping, disco, roster and carbons, and refuses other requests', async () => {
    const alice = await login('alice@localhost/a')
    const ask = async (type: 'get' | 'set', ns: string, name: string, to?: string) => {
      const answer = await alice.request(stanza('iq', { type, to }, [element(name, ns)]))
      return answer.attrs.get('type') === 'result' ? 'result' : childElements(findChild(answer, 'error')!)[0]?.name
    }
    expect(await ask('get', NS_PING, 'ping', 'localhost')).toBe('result')
    expect(await ask('get', 'http://jabber.org/protocol/disco#info', 'query', 'localhost')).toBe('result')
    expect(await ask('get', 'http://jabber.org/protocol/disco#items', 'query', 'localhost')).toBe('result')
    expect(await ask('get', 'jabber:iq:roster', 'query')).toBe('result')
    expect(await ask('set', 'urn:xmpp:carbons:2', 'enable')).toBe('result')
    expect(await ask('get', 'urn:xmpp:mam:2', 'query')).toBe('service-unavailable')
    expect(await ask('get', 'urn:xmpp:mam:2', 'query', 'localhost')).toBe('service-unavailable')
    expect(await ask('get', NS_PING, 'ping', 'nobody.example')).toBe('remote-server-not-found')
    expect(await ask('get', NS_PING, 'ping', 'a b@localhost')).toBe('jid-malformed')
  })

  test('takes a request with two children like ejabberd, and refuses it like Prosody where strictIq is set', async () => {
    const strict = await startEmbeddedServer({ accounts, strictIq: true })
    try {
      const outcome = async (port: number) => {
        const alice = await connectRawClient({ port, jid: 'alice@localhost/a', password: 'a' })
        const answer = await alice.request(
          stanza('iq', { type: 'get', to: 'bob@localhost/x' }, [element('a', 'x'), element('b', 'x')]),
        )
        await alice.close()
        return childElements(findChild(answer, 'error')!)[0]?.name
      }
      expect(await outcome(server.port)).toBe('service-unavailable')
      expect(await outcome(strict.port)).toBe('bad-request')
    } finally {
      await strict.stop()
    }
  })
})

test('no request goes without an error: one without id or with an unknown type is refused', async () => {
  const alice = await login('alice@localhost/a')
  alice.send("<iq type='get' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
  alice.send("<iq type='odd' id='1' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
  const answer = await alice.next((root) => root.name === 'iq')
  expect(childElements(findChild(answer, 'error')!)[0]?.name).toBe('bad-request')
})

test.each([
  ['DIGEST-MD5', 'AAAA', 'invalid-mechanism'],
  ['PLAIN', '!!', 'incorrect-encoding'],
  ['PLAIN', btoa('alice'), 'malformed-request'],
  ['PLAIN', btoa('bob\0alice\0a'), 'invalid-authzid'],
  ['SCRAM-SHA-1', btoa('hello'), 'malformed-request'],
  ['SCRAM-SHA-1', btoa('p=tls-unique,,n=alice,r=abc'), 'malformed-request'],
])('SASL %s with %s fails as %s', async (mechanism, text, expected) => {
  const stream = await openClient()
  await stream.open()
  stream.send(`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='${mechanism}'>${text}</auth>`)
  const failure = await stream.next((root) => root.name === 'failure')
  expect(childElements(failure)[0]?.name).toBe(expected)
})

test('SCRAM: a replayed nonce or another binding is refused', async () => {
  const stream = await openClient()
  await stream.open()
  const ns = 'urn:ietf:params:xml:ns:xmpp-sasl'
  stream.send(element('auth', ns, { mechanism: 'SCRAM-SHA-1' }, [btoa('n,,n=alice,r=abc')]))
  await stream.next((root) => root.name === 'challenge')
  stream.send(element('response', ns, undefined, [btoa(`c=biws,r=abc,p=${btoa('x'.repeat(20))}`)]))
  const failure = await stream.next((root) => root.name === 'failure')
  expect(childElements(failure)[0]?.name).toBe('not-authorized')
})
