/** Components: XEP-0114, and where ejabberd and Prosody differ. */
import { childElements, element, findChild, NS_PING, stanza, textOf, type XmlElement } from '@xmq/protocol'
import {
  connectRawClient,
  connectRawComponent,
  startEmbeddedServer,
  type EmbeddedServer,
  type EmbeddedServerOptions,
  type RawPeer,
} from '@xmq/testing'
import { afterEach, expect, test } from 'vitest'

const servers: EmbeddedServer[] = []
afterEach(async () => {
  await Promise.all(servers.splice(0).map((each) => each.stop()))
})

async function start(options: EmbeddedServerOptions = {}): Promise<EmbeddedServer> {
  const server = await startEmbeddedServer({ accounts: { alice: 'a' }, ...options })
  servers.push(server)
  return server
}

const join = (server: EmbeddedServer, domain = 'queue1.localhost', secret = 'secret'): Promise<RawPeer> =>
  connectRawComponent({ port: server.componentPort, domain, secret })
const login = (server: EmbeddedServer): Promise<RawPeer> =>
  connectRawClient({ port: server.port, jid: 'alice@localhost/a', password: 'a' })
const condition = (error: XmlElement): string | undefined => childElements(findChild(error, 'error')!)[0]?.name

test('stanzas go both ways, addresses as they are', async () => {
  const server = await start()
  const queue = await join(server)
  const alice = await login(server)
  alice.send("<message to='orders@Queue1.localhost/R'><body>in</body></message>")
  const inward = await queue.next()
  expect([inward.attrs.get('from'), inward.attrs.get('to')]).toEqual(['alice@localhost/a', 'orders@queue1.localhost/R'])
  queue.send("<message from='orders@queue1.localhost/x' to='alice@localhost/a'><body>out</body></message>")
  const outward = await alice.next()
  expect([outward.attrs.get('from'), textOf(findChild(outward, 'body')!)]).toEqual(['orders@queue1.localhost/x', 'out'])
  expect(server.components()).toEqual(['queue1.localhost'])
})

test('a component reaches its own address through the server', async () => {
  const queue = await join(await start())
  queue.send(
    stanza('iq', { type: 'get', id: 'nonce', from: 'queue1.localhost', to: 'queue1.localhost' }, [
      element('ping', NS_PING),
    ]),
  )
  expect((await queue.next()).attrs.get('id')).toBe('nonce')
})

test('the end of a session that directed presence reaches the component', async () => {
  const server = await start()
  const queue = await join(server)
  const alice = await login(server)
  alice.send("<presence to='queue1.localhost'/>")
  expect((await queue.next()).attrs.get('type')).toBeUndefined()
  await alice.drop()
  const end = await queue.next()
  expect([end.name, end.attrs.get('type'), end.attrs.get('from')]).toEqual([
    'presence',
    'unavailable',
    'alice@localhost/a',
  ])
})

test('a wrong secret is not authorised, and a domain that is not allowed is unknown', async () => {
  const server = await start({ componentDomains: ['queue1.localhost'] })
  await expect(join(server, 'queue1.localhost', 'wrong')).rejects.toThrow('not-authorized')
  await expect(join(server, 'queue9.localhost')).rejects.toThrow('host-unknown')
  await expect(join(server, 'localhost')).rejects.toThrow('host-unknown')
})

test('a second connection of a domain is refused, or takes a share where that is asked for', async () => {
  const refusing = await start()
  const first = await join(refusing)
  await expect(join(refusing)).rejects.toThrow('conflict')
  await first.close()
  await join(refusing)

  const numbers = [0.1, 0.9]
  const sharing = await start({ componentConflict: 'share', random: () => numbers.shift() ?? 0 })
  const [one, two] = [await join(sharing), await join(sharing)]
  const alice = await login(sharing)
  alice.send("<message id='1' to='queue1.localhost'/><message id='2' to='queue1.localhost'/>")
  expect((await one.next()).attrs.get('id')).toBe('1')
  expect((await two.next()).attrs.get('id')).toBe('2')
})

test('a domain that the server serves itself takes no component', async () => {
  const server = await start({ componentConflict: 'share', modXmq: { 'queue1.localhost': 'any' } })
  await expect(join(server)).rejects.toThrow('conflict')
})

test("a stanza from another domain, without 'to', or a stray element closes the stream", async () => {
  const server = await start()
  const outcome = async (xml: string) => {
    const queue = await join(server)
    queue.send(xml)
    return await queue.closed
  }
  expect(await outcome("<message from='alice@localhost' to='alice@localhost/a'/>")).toBe('invalid-from')
  expect(await outcome("<message to='alice@localhost/a'/>")).toBe('invalid-from')
  expect(await outcome("<message from='queue1.localhost'/>")).toBe('improper-addressing')
  expect(await outcome('<stray/>')).toBe('unsupported-stanza-type')
  const large = 'x'.repeat(524_288)
  expect(await outcome(`<message from='queue1.localhost' to='a@localhost'><body>${large}</body></message>`)).toBe(
    'policy-violation',
  )
  expect(server.components()).toEqual([])
})

test('an absent component is remote-server-not-found, or remote-server-timeout as Prosody says of declared ones', async () => {
  const ask = async (options: EmbeddedServerOptions) => {
    const server = await start(options)
    const alice = await login(server)
    const conditions = []
    for (const to of ['queue1.localhost', 'queue9.localhost']) {
      conditions.push(condition(await alice.request(stanza('iq', { type: 'get', to }, [element('q', 'x')]))))
    }
    alice.send("<message type='error' to='queue1.localhost'/>")
    await alice.sync()
    expect(alice.stream.inbox).toEqual([])
    return conditions
  }
  expect(await ask({})).toEqual(['remote-server-not-found', 'remote-server-not-found'])
  expect(await ask({ absentComponent: 'timeout', componentDomains: ['queue1.localhost'] })).toEqual([
    'remote-server-timeout',
    'remote-server-not-found',
  ])
})

test('disco#items lists the components', async () => {
  const server = await start()
  await join(server)
  const alice = await login(server)
  const ns = 'http://jabber.org/protocol/disco#items'
  const answer = await alice.request(stanza('iq', { type: 'get', to: 'localhost' }, [element('query', ns)]))
  const items = childElements(childElements(answer)[0]!).map((item) => item.attrs.get('jid'))
  expect(items).toEqual(['queue1.localhost'])
})
