/** Routing to accounts: RFC 6121 section 8.5, by kind, type and address; and presence without rosters (sections 4.2 to 4.6). */
import { childElements, element, findChild, stanza, textOf, type XmlElement } from '@xmq/protocol'
import { connectRawClient, startEmbeddedServer, type EmbeddedServer, type RawPeer } from '@xmq/testing'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

let server: EmbeddedServer
let alice: RawPeer

beforeEach(async () => {
  server = await startEmbeddedServer({ accounts: { alice: 'a', bob: 'b' } })
  alice = await login('alice@localhost/a')
})
afterEach(() => server.stop())

const login = (jid: string): Promise<RawPeer> => connectRawClient({ port: server.port, jid, password: jid.slice(0, 1) })

/** Logs bob in with that resource and, unless undefined, that priority. */
async function bob(resource: string, priority?: number): Promise<RawPeer> {
  const peer = await login(`bob@localhost/${resource}`)
  if (priority !== undefined) {
    peer.send(`<presence><priority>${priority}</priority></presence>`)
    await peer.next((root) => root.name === 'presence' && root.attrs.get('from') === peer.jid)
  }
  return peer
}

const condition = (error: XmlElement): string | undefined => childElements(findChild(error, 'error')!)[0]?.name
const bodies = (peer: RawPeer): string[] =>
  peer.stream.inbox.filter((root) => root.name === 'message').map((root) => textOf(findChild(root, 'body')!))

/** Sends alice's message and returns what came back to her before her next ping did, as a condition, or undefined. */
async function send(type: string | undefined, to: string, body = 'x'): Promise<string | undefined> {
  alice.send(stanza('message', { type, to, id: 'm' }, [element('body', 'jabber:client', undefined, [body])]))
  await alice.sync()
  const index = alice.stream.inbox.findIndex((root) => root.attrs.get('id') === 'm')
  return index === -1 ? undefined : condition(await alice.next((root) => root.attrs.get('id') === 'm'))
}

async function received(peer: RawPeer): Promise<string[]> {
  await peer.sync()
  return bodies(peer)
}

describe('to a full JID', () => {
  test('a connected resource gets everything, available or not', async () => {
    const b = await bob('x')
    for (const type of ['chat', 'normal', 'headline', 'groupchat', 'error', undefined]) {
      expect(await send(type, 'bob@localhost/x', String(type))).toBeUndefined()
    }
    expect(await received(b)).toEqual(['chat', 'normal', 'headline', 'groupchat', 'error', 'undefined'])
  })

  test('8.5.3.2.1: chat and normal to a dead resource go to the most available one', async () => {
    const low = await bob('low', 1)
    const high = await bob('high', 5)
    const silent = await bob('silent')
    expect(await send('chat', 'bob@localhost/dead', 'one')).toBeUndefined()
    expect(await send(undefined, 'bob@localhost/dead', 'two')).toBeUndefined()
    expect(await received(high)).toEqual(['one', 'two'])
    expect(await received(low)).toEqual([])
    expect(await received(silent)).toEqual([])
  })

  test('chat and normal to a dead resource are refused when no other may take them', async () => {
    await bob('negative', -1)
    await bob('silent')
    expect(await send('chat', 'bob@localhost/dead')).toBe('service-unavailable')
    expect(await send('normal', 'bob@localhost/dead')).toBe('service-unavailable')
  })

  test('headline to a dead resource vanishes, groupchat is refused, error vanishes', async () => {
    await bob('there', 0)
    expect(await send('headline', 'bob@localhost/dead')).toBeUndefined()
    expect(await send('groupchat', 'bob@localhost/dead')).toBe('service-unavailable')
    expect(await send('error', 'bob@localhost/dead')).toBeUndefined()
  })

  test('8.5.3.2.3: a request to a dead resource or to no account is refused, its answers vanish', async () => {
    await bob('there', 0)
    const query = element('query', 'x')
    for (const to of ['bob@localhost/dead', 'nobody@localhost/x', 'nobody@localhost']) {
      const answer = await alice.request(stanza('iq', { type: 'get', to }, [query]))
      expect([condition(answer), answer.attrs.get('from')]).toEqual(['service-unavailable', to])
    }
    alice.send("<iq type='result' id='r' to='bob@localhost/dead'/>")
    await alice.sync()
    expect(alice.stream.inbox).toEqual([])
  })
})

describe('to a bare JID', () => {
  test('chat goes to every resource of the highest priority, headline to every one that is not negative', async () => {
    const one = await bob('one', 5)
    const two = await bob('two', 5)
    const low = await bob('low', 0)
    const negative = await bob('negative', -1)
    expect(await send('chat', 'bob@localhost', 'chat')).toBeUndefined()
    expect(await send('headline', 'bob@localhost', 'headline')).toBeUndefined()
    expect(await received(one)).toEqual(['chat', 'headline'])
    expect(await received(two)).toEqual(['chat', 'headline'])
    expect(await received(low)).toEqual(['headline'])
    expect(await received(negative)).toEqual([])
  })

  test('chat to nobody, and to no account, is refused; a request is answered by the server', async () => {
    expect(await send('chat', 'bob@localhost')).toBe('service-unavailable')
    expect(await send('chat', 'nobody@localhost')).toBe('service-unavailable')
    await bob('one', 5)
    const answer = await alice.request(
      stanza('iq', { type: 'get', to: 'bob@localhost' }, [element('query', 'jabber:iq:roster')]),
    )
    expect(condition(answer)).toBe('service-unavailable')
  })
})

describe('presence', () => {
  const presenceFrom = (peer: RawPeer) => peer.next((root) => root.name === 'presence').then(brief)
  const brief = (root: XmlElement) => `${root.attrs.get('type') ?? 'available'} ${root.attrs.get('from')}`

  test('is broadcast to the own resources, and a newcomer learns who is there', async () => {
    const one = await bob('one', 0)
    const two = await bob('two', 0)
    expect(await presenceFrom(one)).toBe('available bob@localhost/two')
    expect(await presenceFrom(two)).toBe('available bob@localhost/one')
    await two.drop()
    expect(await presenceFrom(one)).toBe('unavailable bob@localhost/two')
  })

  test('4.6: whoever got directed presence is told of the end, once', async () => {
    const b = await bob('x')
    alice.send("<presence to='bob@localhost/x'/><presence to='bob@localhost/x'/>")
    expect(await presenceFrom(b)).toBe('available alice@localhost/a')
    expect(await presenceFrom(b)).toBe('available alice@localhost/a')
    await alice.close()
    expect(await presenceFrom(b)).toBe('unavailable alice@localhost/a')
    await b.sync()
    expect(b.stream.inbox).toEqual([])
  })

  test('4.6: directed presence taken back is not told again', async () => {
    const b = await bob('x')
    alice.send("<presence to='bob@localhost/x'/><presence to='bob@localhost/x' type='unavailable'/>")
    expect(await presenceFrom(b)).toBe('available alice@localhost/a')
    expect(await presenceFrom(b)).toBe('unavailable alice@localhost/a')
    await alice.drop()
    await b.sync()
    expect(b.stream.inbox).toEqual([])
  })

  test("a replaced session's end is told before its successor's presence, or after it where that is asked for", async () => {
    const order = async (on: EmbeddedServer) => {
      const connect = (jid: string) => connectRawClient({ port: on.port, jid, password: jid.slice(0, 1) })
      const b = await connect('bob@localhost/x')
      const old = await connect('alice@localhost/w')
      old.send("<presence to='bob@localhost/x'/>")
      const seen = [await presenceFrom(b)]
      const fresh = await connect('alice@localhost/w')
      fresh.send("<presence to='bob@localhost/x'/>")
      seen.push(await presenceFrom(b), await presenceFrom(b))
      return seen.map((each) => each.split(' ')[0])
    }
    expect(await order(server)).toEqual(['available', 'unavailable', 'available'])
    const late = await startEmbeddedServer({ accounts: { alice: 'a', bob: 'b' }, lateUnavailable: true })
    try {
      expect(await order(late)).toEqual(['available', 'available', 'unavailable'])
    } finally {
      await late.stop()
    }
  })
})
