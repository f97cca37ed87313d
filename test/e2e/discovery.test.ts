/** docs/protocol.md 7 "Discovery", and what is answered at all. */
import { childElements, writeElement } from '@xmq/protocol'
import { expect, test } from 'vitest'
import { expectError, expectResult } from './expectations.ts'
import { fresh, onEachServer, QUEUES } from './stage.ts'

const INFO = 'http://jabber.org/protocol/disco#info'
const ITEMS = 'http://jabber.org/protocol/disco#items'

onEachServer('discovery', (stage) => {
  test.each([QUEUES.any, QUEUES.allNode])('disco#info of %s names what it is and speaks', async (queue) => {
    const client = await stage.client()
    const result = expectResult(await client.ask(queue, 'get', `<query xmlns='${INFO}'/>`))
    const [query] = childElements(result)
    const features = query && childElements(query).flatMap((child) => child.attrs.get('var') ?? [])
    expect(features).toEqual(expect.arrayContaining([INFO, 'urn:xmpp:ping', 'xmq:command', 'xmq:topic']))
    expect(query && childElements(query).map((child) => child.name)).toContain('identity')
  })

  test('disco#items of a domain lists its queues', async () => {
    const client = await stage.client()
    const result = expectResult(await client.ask('xmq.localhost', 'get', `<query xmlns='${ITEMS}'/>`))
    const items = childElements(result).flatMap(childElements)
    expect(new Set(items.map((item) => item.attrs.get('jid')))).toEqual(new Set([QUEUES.allNode, QUEUES.anyNode]))
  })

  test('a ping is answered', async () => {
    const client = await stage.client()
    expectResult(await client.ask(QUEUES.any, 'get', "<ping xmlns='urn:xmpp:ping'/>"))
  })

  test('the version is told', async () => {
    const client = await stage.client()
    const result = expectResult(await client.ask(QUEUES.any, 'get', "<query xmlns='jabber:iq:version'/>"))
    expect(writeElement(result)).toContain('<version>')
  })

  test.each([
    ['get', "<query xmlns='jabber:iq:last'/>"],
    ['set', "<query xmlns='urn:test:unknown'><x/></query>"],
    ['get', "<vCard xmlns='vcard-temp'/>"],
  ] as const)('an IQ %s that nobody knows: service-unavailable', async (type, payload) => {
    const client = await stage.client()
    expectError(await client.ask(QUEUES.any, type, payload), 'service-unavailable')
  })

  test('results, errors and presence out of nowhere are never answered', async () => {
    const client = await stage.client()
    const topic = fresh('topic')
    const xmq = `<xmq xmlns='xmq:topic' topic='${topic}'/>`
    client.send(`<iq type='result' id='stray1' to='${QUEUES.any}'/>`)
    client.send(`<iq type='result' id='stray2' to='${QUEUES.any}'>${xmq}</iq>`)
    client.send(
      `<iq type='error' id='stray3' to='${QUEUES.any}'>${xmq}<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
    )
    client.send(`<presence to='${QUEUES.any}'/>`)
    client.send(`<presence type='subscribe' to='${QUEUES.any}'/>`)
    client.send(`<presence type='unavailable' to='${QUEUES.any}'/>`)
    await client.fence(QUEUES.any)
    const answers = client.inbox.filter((root) => root.attrs.get('from') === QUEUES.any)
    expect(
      answers.filter((root) => root.attrs.get('type') !== 'unsubscribed').map((root) => writeElement(root)),
    ).toEqual([])
  })
})
