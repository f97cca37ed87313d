/** mod_xmq as it is, point by point; the number of each test is its number in the list of the module's behaviours. */
import { childElements, findChild, isStanza, textOf, writeElement, type XmlElement } from '@xmq/protocol'
import {
  connectRawClient,
  connectRawComponent,
  startEmbeddedServer,
  type EmbeddedServer,
  type RawPeer,
} from '@xmq/testing'
import { afterEach, beforeEach, expect, test } from 'vitest'

const ANY = 'queue1.localhost'
const ALL = 'queue2.localhost'
const ODD = 'queue3.localhost'

let server: EmbeddedServer
let now: number
let producer: RawPeer
let worker: RawPeer

beforeEach(async () => {
  now = 1_700_000_000_500
  server = await startEmbeddedServer({
    accounts: { alice: 'a', bob: 'b' },
    modXmq: { [ANY]: 'any', [ALL]: 'all', [ODD]: 'some' },
    now: () => now,
  })
  producer = await login('alice@localhost/p')
  worker = await login('bob@localhost/w')
})
afterEach(() => server.stop())

const login = (jid: string): Promise<RawPeer> => connectRawClient({ port: server.port, jid, password: jid.slice(0, 1) })

const subXml = (queue: string, attrs: string, inside = '') =>
  `<iq type='set' id='s' to='${queue}'><xmq xmlns='xmq:command' ${attrs}>${inside}</xmq></iq>`
const sub = (queue: string, topic = 't', ttl = '60', load = '1') =>
  subXml(queue, `command='sub' topic='${topic}' ttl='${ttl}' load='${load}'`)
const message = (queue: string, topic = 't', body = 'hi') =>
  `<message type='chat' id='m' to='${queue}'><body>${body}</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`
const iq = (queue: string, inside: string, type = 'get', id = 'q') =>
  `<iq type='${type}' id='${id}' to='${queue}'>${inside}</iq>`
const XMQ = "<xmq xmlns='xmq:topic' topic='t'/>"

/** Sends, waits until the server has dealt with it, and tells what came back: `-` for nothing. */
async function outcome(xml: string, peer: RawPeer = producer): Promise<string> {
  peer.send(xml)
  await peer.sync()
  const answers = peer.stream.inbox.filter(isStanza)
  for (const answer of answers) await peer.next((each) => each === answer)
  return answers.map(brief).join(' ') || '-'
}

function brief(stanza: XmlElement): string {
  const error = findChild(stanza, 'error')
  if (error === undefined) return stanza.attrs.get('type') ?? 'normal'
  const [condition, text] = childElements(error)
  return `${error.attrs.get('type')}/${condition?.name} ${text === undefined ? '' : textOf(text)}`.trim()
}

/** What has reached a peer by now. */
async function taken(peer: RawPeer = worker): Promise<XmlElement[]> {
  await producer.sync()
  await peer.sync()
  const stanzas = peer.stream.inbox.filter(isStanza)
  for (const each of stanzas) await peer.next((root) => root === each)
  return stanzas
}

const INVALID = 'auth/not-authorized Invalid xmq command'
const NO_TOPIC = 'modify/not-acceptable XMQ topic not found'
const NOBODY = 'modify/not-acceptable No recipients found'

test('1: sub is stored without an answer, and a repeat replaces ttl and load', async () => {
  expect(await outcome(sub(ANY), worker)).toBe('-')
  expect(await outcome(message(ANY))).toBe('-')
  expect((await taken()).length).toBe(1)
  expect(await outcome(sub(ANY, 't', '60', '91'), worker)).toBe('-')
  expect(await outcome(message(ANY))).toBe(NOBODY)
})

test('2: another attribute order, an extra or a missing attribute is not authorised; children are ignored', async () => {
  expect(await outcome(subXml(ANY, "topic='t' command='sub' ttl='60' load='1'"), worker)).toBe(INVALID)
  expect(await outcome(subXml(ANY, "command='sub' topic='t' ttl='60' load='1' x='1'"), worker)).toBe(INVALID)
  expect(await outcome(subXml(ANY, "command='sub' topic='t' ttl='60'"), worker)).toBe(INVALID)
  const good = "command='sub' topic='t' ttl='60' load='1'"
  expect(await outcome(subXml(ANY, good, "<consume xmlns='xmq:queue:1'/>"), worker)).toBe('-')
  expect(await outcome(message(ANY))).toBe('-')
})

test('3: del as the readme has it is not authorised', async () => {
  expect(await outcome(subXml(ANY, "command='del' topic='t'"), worker)).toBe(INVALID)
})

test('4: del with all attributes deletes nothing and answers nothing', async () => {
  await outcome(sub(ANY), worker)
  expect(await outcome(subXml(ANY, "command='del' topic='t' ttl='60' load='1'"), worker)).toBe('-')
  expect(await outcome(message(ANY))).toBe('-')
  expect((await taken()).length).toBe(1)
})

test('5: an unknown command is not answered', async () => {
  expect(await outcome(subXml(ANY, "command='dance' topic='t' ttl='60' load='1'"), worker)).toBe('-')
})

test('6: a ttl or load that is no integer is not answered, and not stored', async () => {
  expect(await outcome(sub(ANY, 't', 'soon'), worker)).toBe('-')
  expect(await outcome(sub(ANY, 't', '60', '1.5'), worker)).toBe('-')
  expect(await outcome(message(ANY))).toBe(NOBODY)
})

test('7: a get in xmq:command, and another element of it, are not authorised', async () => {
  expect(await outcome(sub(ANY).replace("'set'", "'get'"), worker)).toBe(INVALID)
  expect(await outcome(iq(ANY, "<other xmlns='xmq:command'/>", 'set'), worker)).toBe(INVALID)
})

test('8: a ttl counts whole seconds, its last one included; 0 is the rest of this second, negative is over', async () => {
  await outcome(sub(ANY, 't', '0'), worker)
  now += 499
  expect(await outcome(message(ANY))).toBe('-')
  now += 1
  expect(await outcome(message(ANY))).toBe(NOBODY)
  await outcome(sub(ANY, 't', '2'), worker)
  now += 2_999
  expect(await outcome(message(ANY))).toBe('-')
  now += 1
  expect(await outcome(message(ANY))).toBe(NOBODY)
  await outcome(sub(ANY, 't', '-1'), worker)
  expect(await outcome(message(ANY))).toBe(NOBODY)
})

test('9: load up to 90 is eligible, in any and in all; other values are not checked', async () => {
  for (const queue of [ANY, ALL]) {
    for (const [load, count] of [
      ['90', 1],
      ['91', 0],
      ['-5', 1],
      ['1000', 0],
    ] as const) {
      await outcome(sub(queue, 't', '60', load), worker)
      await outcome(message(queue))
      expect([queue, load, (await taken()).length]).toEqual([queue, load, count])
    }
  }
})

test('10: what has expired is not selected, whether it was swept or not', async () => {
  await outcome(sub(ALL, 't', '1'), worker)
  now += 2_000
  await outcome(message(ALL))
  expect(await taken()).toEqual([])
  now += 20_000
  await outcome(message(ALL))
  expect(await taken()).toEqual([])
})

test('11: one counter serves all queues and topics, so that two queues used in turn starve one of two workers', async () => {
  const second = await login('bob@localhost/w2')
  for (const each of [worker, second]) await outcome(sub(ANY), each)
  for (let round = 0; round < 4; round++) {
    await outcome(message(ANY))
    expect(await outcome(message(ANY, 'nobody-here'))).toBe(NOBODY)
  }
  expect([(await taken(worker)).length, (await taken(second)).length].sort((a, b) => a - b)).toEqual([0, 4])
  for (let round = 0; round < 4; round++) await outcome(message(ANY))
  expect([(await taken(worker)).length, (await taken(second)).length]).toEqual([2, 2])
})

test('12: any with nobody is not acceptable, from the queue, for messages and requests', async () => {
  expect(await outcome(message(ANY))).toBe(NOBODY)
  producer.send(iq(ANY, XMQ))
  const error = await producer.next((root) => root.attrs.get('id') === 'q')
  expect([brief(error), error.attrs.get('from'), error.attrs.get('to')]).toEqual([NOBODY, ANY, producer.jid])
})

test('13: all with nobody is silent, requests hang', async () => {
  expect(await outcome(message(ALL))).toBe('-')
  expect(await outcome(iq(ALL, XMQ))).toBe('-')
})

test('14: a request to all reaches each worker with one id, and each result returns', async () => {
  const second = await login('bob@localhost/w2')
  for (const each of [worker, second]) await outcome(sub(ALL), each)
  producer.send(iq(ALL, XMQ))
  for (const each of [worker, second]) {
    const request = await each.next((root) => root.name === 'iq')
    expect([request.attrs.get('id'), request.attrs.get('from')]).toEqual(['q', producer.jid])
    each.send(`<iq type='result' id='q' to='${producer.jid}'/>`)
  }
  const results = [await producer.next(), await producer.next()].map((each) => each.attrs.get('from'))
  expect(new Set(results)).toEqual(new Set([worker.jid, second.jid]))
})

test('15: no topic is not acceptable; topics are exact, and an empty one is a topic', async () => {
  expect(await outcome(`<message to='${ANY}'><body>x</body></message>`)).toBe(NO_TOPIC)
  expect(await outcome(`<message to='${ANY}'><xmq xmlns='xmq:topic'/></message>`)).toBe(NO_TOPIC)
  await outcome(sub(ANY, 'Topic'), worker)
  expect(await outcome(message(ANY, 'topic'))).toBe(NOBODY)
  await outcome(sub(ANY, ''), worker)
  expect(await outcome(message(ANY, ''))).toBe('-')
  expect((await taken()).length).toBe(1)
})

test('16: a message with another child is refused, children inside xmq are fine', async () => {
  await outcome(sub(ANY), worker)
  expect(await outcome(`<message to='${ANY}'>${XMQ}<json xmlns='urn:xmpp:json:0'>1</json></message>`)).toBe(NO_TOPIC)
  const children = `<subject>s</subject><thread>t</thread><body>b</body>`
  expect(await outcome(`<message to='${ANY}'>${children}${XMQ}</message>`)).toBe('-')
  const inside = "<xmq xmlns='xmq:topic' topic='t'><json xmlns='urn:xmpp:json:0'>1</json></xmq>"
  expect(await outcome(`<message to='${ANY}'>${inside}</message>`)).toBe('-')
  expect((await taken()).length).toBe(2)
})

test('17: a request is [xmq] or [anything, xmq], in this order', async () => {
  await outcome(sub(ANY), worker)
  expect(await outcome(iq(ANY, XMQ))).toBe('-')
  expect(await outcome(iq(ANY, `<a xmlns='x'/>${XMQ}`))).toBe('-')
  expect(await outcome(iq(ANY, `${XMQ}<a xmlns='x'/>`))).toBe(NO_TOPIC)
  expect(await outcome(iq(ANY, `<a xmlns='x'/><b xmlns='x'/>${XMQ}`))).toBe(NO_TOPIC)
})

test('18: xmq:topic with another attribute is no topic', async () => {
  await outcome(sub(ANY), worker)
  expect(await outcome(`<message to='${ANY}'><xmq xmlns='xmq:topic' topic='t' x='1'/></message>`)).toBe(NO_TOPIC)
})

test("19: a message is forwarded unchanged, from the producer's full JID", async () => {
  await outcome(sub(ANY), worker)
  producer.send(message(ANY))
  const [delivery] = await taken()
  expect(writeElement(delivery!)).toBe(
    `<message type='chat' id='m' to='bob@localhost/w' from='alice@localhost/p'><body>hi</body>${XMQ}</message>`,
  )
})

test("20: the worker's result goes straight to the producer", async () => {
  await outcome(sub(ANY), worker)
  producer.send(iq(ANY, XMQ))
  const request = await worker.next((root) => root.name === 'iq')
  worker.send(`<iq type='result' id='q' to='${request.attrs.get('from')}'/>`)
  const result = await producer.next((root) => root.attrs.get('id') === 'q')
  expect([result.attrs.get('type'), result.attrs.get('from')]).toEqual(['result', worker.jid])
})

test('21: the bounce from a dead worker goes to the producer', async () => {
  server.misbehave.holdUnavailable()
  await outcome(sub(ANY), worker)
  const ended = new Promise((resolve) => server.on('session-end', resolve))
  await worker.drop()
  await ended
  expect(await outcome(iq(ANY, XMQ))).toBe('cancel/service-unavailable')
})

test('22: results, errors and error messages with a topic are routed onwards', async () => {
  await outcome(sub(ANY), worker)
  await outcome(iq(ANY, XMQ, 'result'))
  await outcome(iq(ANY, XMQ, 'error'))
  await outcome(message(ANY).replace("'chat'", "'error'"))
  expect((await taken()).map((each) => `${each.name} ${each.attrs.get('type')}`)).toEqual([
    'iq result',
    'iq error',
    'message error',
  ])
  expect(await outcome(`<message type='error' to='${ANY}'/>`)).toBe('-')
})

test('23: presence is ignored', async () => {
  expect(await outcome(`<presence to='${ANY}'/>`)).toBe('-')
  await outcome(sub(ANY), worker)
  await outcome(`<presence type='unavailable' to='${ANY}'/>`, worker)
  expect(await outcome(message(ANY))).toBe('-')
  expect((await taken()).length).toBe(1)
})

test("24: node and resource of 'to' are ignored", async () => {
  await outcome(sub(`node@${ANY}/one`), worker)
  expect(await outcome(message(`other@${ANY}/two`))).toBe('-')
  expect((await taken()).length).toBe(1)
})

test("25: a session's end removes its subscriptions, and a replaced one's those of its successor", async () => {
  const ended = new Promise((resolve) => server.on('session-end', resolve))
  await outcome(sub(ANY), worker)
  await worker.drop()
  await ended
  expect(await outcome(message(ANY))).toBe(NOBODY)

  server.misbehave.holdUnavailable()
  await login('bob@localhost/w')
  const fresh = await login('bob@localhost/w')
  await outcome(sub(ANY), fresh)
  expect(await outcome(message(ANY))).toBe('-')
  server.misbehave.releaseUnavailable()
  expect(await outcome(message(ANY))).toBe(NOBODY)
})

test('26: nothing is delivered between hosts, and foreign domains hear nothing', async () => {
  await outcome(sub(ANY), worker)
  const guest = await connectRawClient({ port: server.port, jid: 'anon.localhost' })
  expect(await outcome(message(ANY), guest)).toBe(NOBODY)
  const component = await connectRawComponent({ port: server.componentPort, domain: 'other.localhost' })
  component.send(iq(ANY, XMQ).replace('<iq ', "<iq from='other.localhost' "))
  await component.sync('localhost')
  expect(component.stream.inbox).toEqual([])
  expect(await taken()).toEqual([])
})

test('27: a queue of another type answers nothing', async () => {
  await outcome(sub(ODD), worker)
  expect(await outcome(message(ODD))).toBe('-')
  expect(await outcome(iq(ODD, XMQ))).toBe('-')
  expect(await taken()).toEqual([])
})

test('28: disco#info and every other request without a topic earn the error of 15', async () => {
  expect(await outcome(iq(ANY, "<query xmlns='http://jabber.org/protocol/disco#info'/>"))).toBe(NO_TOPIC)
  expect(await outcome(iq(ANY, "<ping xmlns='urn:xmpp:ping'/>"))).toBe(NO_TOPIC)
})
