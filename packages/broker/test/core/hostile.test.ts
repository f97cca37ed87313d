import { element, parseElement, XmqError, type XmlElement } from '@xmq/protocol'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Conversation, errorXml } from './conversation.ts'

const A = 'a@localhost/1'
const Q = 'any.localhost'

describe('dropped, and told', () => {
  test.each([
    ['no from', `<message to='${Q}'/>`],
    ['no to', `<message from='${A}'/>`],
    ['empty from', `<iq type='get' id='1' from='' to='${Q}'/>`],
    ['a domain that is not ours', `<iq type='get' id='1' from='${A}' to='localhost'/>`],
    ['an iq without id', `<iq type='get' from='${A}' to='${Q}'><ping xmlns='urn:xmpp:ping'/></iq>`],
    ['an iq without type', `<iq id='1' from='${A}' to='${Q}'><ping xmlns='urn:xmpp:ping'/></iq>`],
    ['an iq of an unknown type', `<iq type='put' id='1' from='${A}' to='${Q}'/>`],
    ['a result that nobody waits for', `<iq type='result' id='1' from='${A}' to='${Q}'/>`],
    ['an error that nobody waits for', `<iq type='error' id='1' from='${A}' to='${Q}'>${errorXml('gone')}</iq>`],
    ['an error without error', `<iq type='error' id='1' from='${A}' to='${Q}'/>`],
    ['no stanza', `<features from='${A}' to='${Q}'/>`],
    ['another namespace', `<message xmlns='urn:x' from='${A}' to='${Q}'/>`],
    ['an id that fits no answer', `<iq type='get' id='${'&quot;'.repeat(40_000)}' from='${A}' to='${Q}'/>`],
    ['a long id of a presence', `<presence id='${'x'.repeat(1025)}' from='${A}' to='${Q}'/>`],
  ])('%s', (_, xml) => {
    const c = new Conversation().receive(xml)
    expect(c.sent).toEqual([])
    expect(c.events).toMatchObject([{ name: 'ignored' }])
  })
})

test.each([1025, 100_000])('an id of %i characters is refused with the id, so that nobody waits', (length) => {
  const id = 'x'.repeat(length)
  const c = new Conversation().receive(
    `<iq type='get' id='${id}' from='${A}' to='${Q}'><ping xmlns='urn:xmpp:ping'/></iq>`,
  )
  expect(c.named('refused')).toMatchObject([
    { code: 'bad-request', text: expect.stringContaining(`${length} characters`) },
  ])
  expect(c.stanzas[0]?.attrs.get('id')).toBe(id)
})

describe('a stanza that broke a limit', () => {
  const skipped = (c: Conversation, xml: string) =>
    c.input({
      type: 'skipped',
      head: parseElement(xml),
      error: new XmqError('too-large', 'It is larger than 2097152 bytes.'),
    })

  test.each([`<message id='1' from='${A}' to='${Q}'/>`, `<iq type='set' id='1' from='${A}' to='${Q}'/>`])(
    'is refused: %s',
    (xml) => {
      const c = skipped(new Conversation(), xml)
      expect(c.sent).toHaveLength(1)
      expect(c.sent[0]).toContain(`id='1' from='${Q}' to='${A}'><error type='modify'><policy-violation `)
      expect(c.named('refused')).toMatchObject([{ code: 'too-large' }])
    },
  )

  test.each([
    `<message type='error' from='${A}' to='${Q}'/>`,
    `<iq type='result' id='1' from='${A}' to='${Q}'/>`,
    `<presence from='${A}' to='${Q}'/>`,
  ])('and may not be answered is dropped: %s', (xml) => {
    expect(skipped(new Conversation(), xml).sent).toEqual([])
  })

  test('and is a worker’s answer is told to the requester at once', () => {
    const c = new Conversation().sub(A, 't').request('t')
    const id = c.stanzas[0]?.attrs.get('id')
    skipped(c, `<iq type='result' id='${id}' from='eve@localhost/1' to='${Q}'/>`)
    expect(c.sent).toEqual([])
    skipped(c, `<iq type='result' id='${id}' from='${A}' to='${Q}'/>`)
    expect(c.recipients).toEqual(['shop@localhost/1'])
    expect(c.named('answered')).toMatchObject([{ outcome: 'too-large' }])
  })
})

const word = fc.constantFrom(
  '',
  't',
  'sub',
  'del',
  '__proto__',
  'constructor',
  '60',
  '-1',
  '0',
  '1e9',
  'get',
  'set',
  'result',
  'error',
  'unavailable',
  'r1',
  'r2',
  'r3',
  A,
  Q,
  'all.localhost',
  'orders@xmq.localhost',
  'nobody@xmq.localhost',
  'b@localhost',
  '@',
  '/',
  'ofrom',
)
const attrs = fc.dictionary(
  fc.constantFrom('type', 'id', 'from', 'to', 'topic', 'ttl', 'load', 'command', 'node', 'jid', '__proto__'),
  word,
)
const name = fc.constantFrom(
  'message',
  'iq',
  'presence',
  'xmq',
  'error',
  'query',
  'ping',
  'call',
  'addresses',
  'address',
  'stanza-id',
  'service-unavailable',
  'failure',
)
const ns = fc.constantFrom(
  'jabber:client',
  'xmq:topic',
  'xmq:command',
  'xmq:queue:1',
  'urn:xmpp:ping',
  'http://jabber.org/protocol/address',
  'http://jabber.org/protocol/disco#info',
  'urn:ietf:params:xml:ns:xmpp-stanzas',
  'urn:xmpp:sid:0',
  '',
)
const { node } = fc.letrec<{ node: XmlElement }>((tie) => ({
  node: fc
    .tuple(name, ns, attrs, fc.array(fc.oneof({ maxDepth: 3 }, fc.string(), tie('node')), { maxLength: 4 }))
    .map(([n, namespace, attributes, children]) => element(n, namespace, attributes, children)),
}))
const topLevel = fc
  .tuple(
    fc.constantFrom('message', 'iq', 'presence', 'other'),
    attrs,
    fc.constantFrom(A, 'b@localhost/2', 'eve@evil.example/1'),
    fc.constantFrom(Q, 'all.localhost', 'xmq.localhost'),
    fc.array(node, { maxLength: 3 }),
  )
  .map(([n, attributes, from, to, children]) =>
    element(n, 'jabber:client', { from, to, id: 'i', ...attributes }, children),
  )

test('whatever arrives, the core does not throw, and every iq get or set that names its ends has exactly one answer', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(topLevel, fc.nat(40_000)), { maxLength: 30 }), (arrivals) => {
      const c = new Conversation()
      c.sub(A, 't').sub(A, '__proto__').sub('b@localhost/2', 't', { queue: 'all.localhost' })
      for (const [stanza, pause] of arrivals) {
        c.input({ type: 'stanza', stanza })
        for (const sent of c.stanzas) {
          expect(sent.attrs.get('from')).toBeTruthy()
          expect(sent.attrs.get('to')).toBeTruthy()
        }
        const isError =
          stanza.attrs.get('type') === 'error' || (stanza.name === 'iq' && stanza.attrs.get('type') === 'result')
        if (isError)
          expect(
            c.stanzas.filter(
              (sent) =>
                sent.attrs.get('type') === 'error' &&
                sent.attrs.get('id') === stanza.attrs.get('id') &&
                sent.name === 'message',
            ),
          ).toEqual([])
        const answers = c.stanzas.filter(
          (sent) => sent.name === 'iq' && ['result', 'error'].includes(sent.attrs.get('type') ?? ''),
        )
        const isOpen = c.named('requested').length > 0
        const isIgnored = c.named('ignored').length > 0
        if (stanza.name === 'iq' && ['get', 'set'].includes(stanza.attrs.get('type') ?? '') && !isIgnored)
          expect(answers.length + (isOpen ? 1 : 0)).toBe(1)
        c.input({ type: 'skipped', head: stanza, error: new XmqError('too-large', 'x') })
        c.wait(pause)
      }
      c.wait(10_000_000)
      expect(c.core.stats()).toEqual({
        subscriptions: 0,
        consumers: 0,
        topics: 0,
        openRequests: 0,
        pings: 0,
        leases: 0,
        foundLeases: 0,
        unheardSettlements: 0,
        rememberedConsumers: 0,
        claimableTopics: 0,
        storingBytes: 0,
        sessions: expect.any(Number), // whoever announced itself
        unansweredDeliveries: 0,
        waitingDeliveries: 0,
        ephemeralMessages: 0,
        ephemeralBytes: 0,
        namedSubscriptions: 0,
        heldAnswers: 0,
      })
    }),
    { numRuns: 300 },
  )
})
