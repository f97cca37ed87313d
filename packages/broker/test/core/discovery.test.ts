import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { Conversation } from './conversation.ts'

const ask = (query: string, to: string, type = 'get') =>
  new Conversation().receive(`<iq type='${type}' id='d' from='anyone@elsewhere.example/1' to='${to}'>${query}</iq>`)
const INFO = `<query xmlns='http://jabber.org/protocol/disco#info'/>`
const ITEMS = `<query xmlns='http://jabber.org/protocol/disco#items'/>`
const features = (xml: string | undefined) =>
  [...(xml ?? '').matchAll(/feature var='([^']+)'/g)].map(([, name]) => name)

const fields = (xml: string | undefined) => [...(xml ?? '').matchAll(/field var='([^']+)'/g)].map(([, name]) => name)

describe('disco#info', () => {
  test.each(['any.localhost', 'orders@xmq.localhost'])(
    'of the queue %s tells what it speaks, its type and its limits',
    (to) => {
      const [xml] = ask(INFO, to).sent
      expect(xml).toContain(`<identity category='component' type='generic' name='XMQ queue ${to} (any)'/>`)
      expect(features(xml)).toEqual([
        'http://jabber.org/protocol/disco#info',
        'http://jabber.org/protocol/disco#items',
        'urn:xmpp:ping',
        'jabber:iq:version',
        'xmq:command',
        'xmq:topic',
        'xmq:queue:1',
        'xmq:queue:1#packed',
      ])
      expect(xml).toContain(`<field var='FORM_TYPE' type='hidden'><value>xmq:queue:1#info</value></field>`)
      for (const [name, value] of [
        ['type', 'any'],
        ['durability', 'memory'],
        ['payload-bytes-max', '10000'],
        ['ttl-seconds-max', '3600'],
      ]) {
        expect(xml).toContain(`<field var='${name}'><value>${value}</value></field>`)
      }
    },
  )

  test('has the features and fields of the example in docs/protocol.md', () => {
    const page = readFileSync(new URL('../../../../docs/protocol.md', import.meta.url), 'utf8')
    const example = page.split('```xml').find((part) => part.includes("http://jabber.org/protocol/disco#info'>"))
    const [xml] = ask(INFO, 'any.localhost').sent
    expect(features(example)).toEqual(features(xml))
    // Without a stream there is no epoch.
    expect(fields(example)).toEqual([...fields(xml), 'epoch'])
    expect(fields(xml)).toContain('dedupe-ms')
  })

  test('of a domain that is no queue promises no queue', () => {
    const [xml] = ask(INFO, 'xmq.localhost').sent
    expect(xml).toContain(`<identity category='component' type='generic' name='XMQ'/>`)
    expect(features(xml)).not.toContain('xmq:topic')
  })

  test('of a node is not found', () => {
    expect(
      ask(`<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>`, 'any.localhost').named('refused'),
    ).toMatchObject([{ code: 'not-found' }])
  })
})

test('disco#items of a domain lists the queues in it', () => {
  expect(ask(ITEMS, 'xmq.localhost').sent).toEqual([
    `<iq type='result' id='d' from='xmq.localhost' to='anyone@elsewhere.example/1'><query xmlns='http://jabber.org/protocol/disco#items'>` +
      `<item jid='orders@xmq.localhost' name='XMQ queue (any)'/></query></iq>`,
  ])
  for (const to of ['any.localhost', 'orders@xmq.localhost']) expect(ask(ITEMS, to).sent[0]).not.toContain('<item')
})

test.each(['any.localhost', 'xmq.localhost', 'orders@xmq.localhost'])('%s answers ping and version', (to) => {
  expect(ask(`<ping xmlns='urn:xmpp:ping'/>`, to).sent).toEqual([
    `<iq type='result' id='d' from='${to}' to='anyone@elsewhere.example/1'/>`,
  ])
  expect(ask(`<query xmlns='jabber:iq:version'/>`, to).sent[0]).toContain('<name>XMQ</name><version>0.1.0</version>')
})

test.each([
  ['get', `<query xmlns='jabber:iq:roster'/>`],
  ['set', `<ping xmlns='urn:xmpp:ping'/>`],
  ['get', ''],
])('any other iq gets service-unavailable: %s %s', (type, query) => {
  const c = ask(query, 'any.localhost', type)
  expect(c.sent).toHaveLength(1)
  expect(c.sent[0]).toContain('<service-unavailable ')
  expect(c.named('refused')).toMatchObject([{ code: 'unsupported' }])
})

test.each(['nobody@xmq.localhost'])('%s, which does not exist, is not found', (to) => {
  for (const query of [
    INFO,
    `<ping xmlns='urn:xmpp:ping'/>`,
    `<xmq xmlns='xmq:topic' topic='t'/>`,
    `<xmq xmlns='xmq:command'/>`,
  ]) {
    expect(ask(query, to).sent[0]).toContain('<item-not-found ')
  }
})

test('a domain that is no queue takes no command and no request', () => {
  for (const query of [`<xmq xmlns='xmq:topic' topic='t'/>`, `<xmq xmlns='xmq:command'/>`]) {
    expect(ask(query, 'xmq.localhost').named('refused')).toMatchObject([{ code: 'not-found' }])
  }
})
