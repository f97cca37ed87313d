/** Content survives every way that it can take: wire, store, plain messages. Sizes are never told too small. */
import * as xmq from '@xmq/protocol'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { legalText, tree } from '../trees.ts'

const { NS_CLIENT, NS_QUEUE, PACKED_ITEMS, XML_ITEMS } = xmq

const name = fc.string({ unit: fc.constantFrom(...Array.from('ab.\'<&é😀 -"')), minLength: 1, maxLength: 12 })
const headers = fc
  .dictionary(fc.stringMatching(/^[A-Za-z0-9._-]{1,8}$/), legalText, { maxKeys: 4 })
  .map((all) => new Map(Object.entries(all)))
const payload = fc.array(tree, { maxLength: 3 })
const seconds = fc.integer({ min: 0, max: 86_400_000 })
const published = fc
  .record({
    id: name,
    topic: name,
    key: fc.option(name, { nil: undefined }),
    priority: fc.integer({ min: 0, max: 9 }),
    delayMs: seconds,
    extraMs: fc.option(seconds, { nil: undefined }),
    payload,
    headers,
  })
  .map(({ id, topic, key, priority, delayMs, extraMs, payload: elements, headers: all }): xmq.PublishItem => {
    const ttlMs = extraMs === undefined ? undefined : delayMs + extraMs + 1
    return { id, topic, key, priority, delayMs, ttlMs, content: xmq.createContent({ payload: elements, headers: all }) }
  })
const instant = fc.integer({ min: 0, max: 253_402_300_799_999 })

/** As a server passes it on: read, attributes in another order, written, read. */
function overTheWire(root: xmq.XmlElement): xmq.XmlElement {
  const reversed = (one: xmq.XmlElement): xmq.XmlElement => ({
    ...one,
    attrs: new Map([...one.attrs].reverse()),
    children: one.children.map((child) => (typeof child === 'string' ? child : reversed(child))),
  })
  const limits = { depthMax: 1000 }
  return xmq.parseElement(xmq.writeElement(reversed(xmq.parseElement(xmq.writeElement(root), '', limits))), '', limits)
}

/** Elements of the same meaning are equal whatever the order of their attributes: `Map` equality of Vitest has none. */
const same = (content: xmq.ItemContent): unknown => ({
  payload: content.payload,
  headers: Object.fromEntries(content.headers),
  envelope: content.envelope,
})

describe.each([
  ['elements', XML_ITEMS],
  ['packed', PACKED_ITEMS],
])('items as %s', (_, codec) => {
  test('what is published is read, whatever a server does to its attributes', () => {
    fc.assert(
      fc.property(fc.array(published, { minLength: 1, maxLength: 4 }), (items) => {
        const written = items.map((item) => codec.writePublishItem(item))
        const publish = xmq.encodePublish(written)
        const read = xmq.decodePublish(overTheWire(publish))
        expect(read.length).toBe(items.length)
        for (const [at, result] of read.entries()) {
          if (!result.ok) throw result.error
          const { content, ...rest } = items[at] as xmq.PublishItem
          expect(result.item).toMatchObject(rest)
          expect(same(result.item.content)).toEqual(same(content))
          // The store compares bodies to know a repeated publish.
          expect(result.item.content.body).toBe(content.body)
        }
      }),
      { numRuns: 300 },
    )
  })

  test('what is stored is delivered, without being parsed, to the last character', () => {
    fc.assert(
      fc.property(published, name, instant, fc.integer({ min: 1 }), (item, from, at, seq) => {
        const stored = xmq.storedText(item.content, from)
        const restored = xmq.restoreContent(stored)
        expect(restored.from).toBe(from)
        expect(restored.content.bytes).toBe(item.content.bytes)
        const { id, topic } = item
        const head = { lease: 'l', seq, id, topic, from, at, attempt: 1, failures: seq % 3 }
        const written = codec.writeDeliveredItem({ ...head, content: restored.content })
        const deliver = xmq.encodeDeliver(1500, [written])
        expect(xmq.wireLength(deliver)).toBeGreaterThanOrEqual(xmq.wireLength(overTheWire(deliver)))
        const { leaseMs, items } = xmq.decodeDeliver(overTheWire(deliver))
        expect(leaseMs).toBe(1500)
        const [result] = items
        if (result?.ok !== true) throw new Error('broken')
        expect(result.item).toMatchObject(head)
        expect(same(result.item.content)).toEqual(same(item.content))
        expect(xmq.storedText(restored.content, from)).toEqual(stored)
      }),
      { numRuns: 300 },
    )
  })

  test('bytes are what wireLength counts of what was written', () => {
    fc.assert(
      fc.property(fc.array(published, { minLength: 1, maxLength: 3 }), (items) => {
        const written = items.map((item) => codec.writePublishItem(item))
        const publish = xmq.encodePublish(written)
        const read = xmq.parseElement(xmq.writeElement(publish), '', { depthMax: 1000 })
        const withHeaders = codec === XML_ITEMS ? items.filter(({ content }) => content.headers.size > 0).length : 0
        const needless = withHeaders * " xmlns='xmq:queue:1'".length
        expect(xmq.wireLength(publish)).toBe(xmq.wireLength(read) + needless)
        const empty = xmq.wireLength(xmq.withChildren(publish, []))
        expect(written.reduce((sum, { bytes }) => sum + bytes, empty)).toBe(xmq.wireLength(publish))
        expect(new TextEncoder().encode(xmq.writeElement(publish)).length).toBeLessThanOrEqual(xmq.wireLength(publish))
      }),
      { numRuns: 300 },
    )
  })

  test('an item that is written again as an element is the same', () => {
    fc.assert(
      fc.property(published, (item) => {
        const unpacked = xmq.unpackPublishItem(codec.writePublishItem(item))
        expect(unpacked.encoding).toBe(undefined)
        expect(xmq.writeElement(xmq.encodePublish([unpacked]))).toBe(
          xmq.writeElement(xmq.encodePublish([XML_ITEMS.writePublishItem(item)])),
        )
      }),
    )
  })

  test('confirms', () => {
    const item = fc.record({
      status: fc.constant('stored' as const),
      id: fc.constant(undefined),
      seq: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      duplicate: fc.boolean(),
      subscriptions: fc.option(fc.nat(), { nil: undefined }),
    })
    fc.assert(
      fc.property(fc.array(item, { minLength: 1 }), (items) => {
        const written = xmq.encodePublished({ durability: 'disk', items }, codec === PACKED_ITEMS)
        const read = xmq.decodePublished(overTheWire(written)).items
        expect(read).toEqual(
          items.map(({ subscriptions, ...rest }) => (subscriptions === undefined ? rest : { ...rest, subscriptions })),
        )
      }),
    )
  })
})

describe('what is said of leases', () => {
  test('acks in one text', () => {
    fc.assert(
      fc.property(fc.array(name, { minLength: 1 }), (acked) => {
        const iq = xmq.element('iq', NS_CLIENT, undefined, xmq.encodeReceived([], acked))
        const read = xmq.decodeReceived(overTheWire(iq))
        expect(read).toEqual(acked.map((lease) => ({ ok: true, settlement: { kind: 'ack', lease } })))
        expect(xmq.wireLength(xmq.parseElement(xmq.writeElement(iq)))).toBe(xmq.wireLength(iq))
      }),
    )
  })

  test('settlements', () => {
    const reason = fc.string({ unit: 'binary', maxLength: 20 })
    const settlement = fc.oneof(
      fc.record({ kind: fc.constantFrom('ack', 'release', 'extend'), lease: name }),
      fc.record({
        kind: fc.constant('nack'),
        lease: name,
        delayMs: fc.option(seconds, { nil: undefined }),
        why: reason,
      }),
      fc.record({
        kind: fc.constant('reject'),
        lease: name,
        reason: fc.constantFrom('rejected', 'invalid'),
        why: reason,
      }),
    ) as fc.Arbitrary<xmq.Settlement>
    fc.assert(
      fc.property(fc.array(settlement), (all) => {
        const settle = xmq.encodeSettle(all.map(xmq.writeSettlement))
        const read = xmq.decodeSettle(overTheWire(settle))
        expect(read.length).toBe(all.length)
        for (const [at, result] of read.entries()) {
          const given = all[at] as xmq.Settlement
          if (!result.ok) throw result.error
          if ('why' in given && 'why' in result.settlement) {
            expect(result.settlement.why.length).toBe(given.why.length)
            if (xmq.findIllegalCharacter(given.why) === undefined) expect(result.settlement.why).toBe(given.why)
            expect({ ...result.settlement, why: '' }).toEqual({ ...given, why: '' })
          } else expect(result.settlement).toEqual(given)
        }
        const again = xmq.wireLength(xmq.parseElement(xmq.writeElement(settle)))
        expect(again).toBe(xmq.wireLength(settle))
      }),
    )
  })
})

describe('plain messages', () => {
  const fixed = (one: xmq.XmlElement) => fc.constant(one)
  const child = fc.oneof(
    tree.filter((one) => one.ns !== NS_CLIENT && one.ns !== 'xmq:topic'),
    fixed(xmq.element('body', NS_CLIENT, undefined, ['Hello'])),
    fixed(xmq.element('body', NS_CLIENT, { 'xml:lang': 'de' }, ['Hallo'])),
    fixed(xmq.element('subject', NS_CLIENT, undefined, ['S'])),
    fixed(xmq.element('thread', NS_CLIENT, undefined, ['T'])),
    fixed(xmq.encodeJson('{"a":1}')),
  )
  const message = fc
    .record({
      type: fc.constantFrom(undefined, 'chat', 'normal', 'headline', 'groupchat'),
      id: fc.option(legalText, { nil: undefined }),
      'xml:lang': fc.constantFrom(undefined, 'en'),
      before: fc.array(child, { maxLength: 3 }),
      inside: fc.array(child, { maxLength: 2 }),
      after: fc.array(child, { maxLength: 3 }),
      headers,
    })
    .map(({ before, inside, after, headers: all, ...attrs }) => {
      const head = xmq.encodeHeaders(all)
      const xmqElement = xmq.encodeTopic('t', head === undefined ? inside : [head, ...inside])
      return xmq.element('message', NS_CLIENT, attrs, [...before, xmqElement, ...after])
    })

  test('are restored whole, every child in its place, over store and wire', () => {
    fc.assert(
      fc.property(message, (one) => {
        const queued = xmq.decodeQueuedMessage(one)
        const { content } = xmq.restoreContent(xmq.storedText(queued.content, 'a@b/c'))
        expect(xmq.encodeQueuedMessage({ topic: queued.topic, content })).toEqual(one)
        const head = { lease: 'l', seq: 1, topic: 't', from: 'a@b/c', at: 0, attempt: 1, failures: 2 }
        const deliver = xmq.encodeDeliver(1, [XML_ITEMS.writeDeliveredItem({ ...head, content })])
        const [result] = xmq.decodeDeliver(xmq.parseElement(xmq.writeElement(deliver), '', { depthMax: 1000 })).items
        if (result?.ok !== true) throw new Error('broken')
        expect(xmq.encodeQueuedMessage(result.item)).toEqual(one)
      }),
      { numRuns: 500 },
    )
  })

  test('have the payload that plain consumers see', () => {
    fc.assert(
      fc.property(message, (one) => {
        const seen = xmq.decodeMessagePayload(one)
        const { content } = xmq.decodeQueuedMessage(one)
        // With elements inside <xmq/>, the payload is those, whatever stands beside it.
        const nested = xmq.childElements(xmq.findTopic(one) as xmq.XmlElement).some(({ ns }) => ns !== NS_QUEUE)
        if (!nested) expect(xmq.payloadOf(content.payload)).toEqual(seen)
      }),
    )
  })

  test('of items: a lone body beside <xmq/>, all else inside, type normal, under their id', () => {
    const plain = (...elements: xmq.XmlElement[]): string =>
      xmq.writeElement(
        xmq.encodeQueuedMessage(
          { topic: 't', id: 'i', content: xmq.createContent({ payload: elements, headers: new Map([['h', 'v']]) }) },
          { from: 'q', to: 'w@b/c' },
        ),
      )
    const head = "<message type='normal' id='i' from='q' to='w@b/c'>"
    const h = "<headers xmlns='xmq:queue:1'><h n='h' v='v'/></headers>"
    const body = xmq.element('body', NS_CLIENT, undefined, ['x'])
    expect(plain(body)).toBe(`${head}<body>x</body><xmq xmlns='xmq:topic' topic='t'>${h}</xmq></message>`)
    expect(plain(xmq.encodeJson('1'))).toBe(
      `${head}<xmq xmlns='xmq:topic' topic='t'>${h}<json xmlns='urn:xmpp:json:0'>1</json></xmq></message>`,
    )
    expect(plain(body, body)).toContain(
      "<body xmlns='jabber:client'>x</body><body xmlns='jabber:client'>x</body></xmq>",
    )
  })
})

describe('instants', () => {
  test('are those of Date', () => {
    fc.assert(
      fc.property(instant, (ms) => {
        expect(xmq.formatInstant(ms)).toBe(new Date(ms).toISOString())
        expect(xmq.parseInstant(xmq.formatInstant(ms))).toBe(ms)
      }),
      { numRuns: 1000 },
    )
  })

  test.each([
    ['2026-01-02T03:04:05Z', 1_767_323_045_000],
    ['2026-01-02T03:04:05.6789Z', 1_767_323_045_678],
    ['2026-01-02T03:04:05.6+05:30', 1_767_303_245_600],
    ['2026-01-02T03:04:05-00:30', 1_767_324_845_000],
    ['2024-02-29T00:00:00Z', 1_709_164_800_000],
  ])('%s', (text, ms) => expect(xmq.parseInstant(text)).toBe(ms))

  test.each([
    '',
    'now',
    '2026-01-02',
    '2026-01-02 03:04:05Z',
    '2026-01-02T03:04:05',
    '2026-02-29T00:00:00Z',
    '2026-04-31T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-00-01T00:00:00Z',
    '2026-01-00T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T00:60:00Z',
    '2026-01-01T00:00:60Z',
    '2026-01-01T00:00:00+15:00',
    '2026-01-01T00:00:00+00:60',
    '0000-01-01T00:00:00+00:01',
    '٢٠٢٦-01-01T00:00:00Z',
    `2026-01-01T00:00:00.${'1'.repeat(40)}Z`,
  ])('%s is none', (text) => expect(xmq.parseInstant(text)).toBeUndefined())

  test.each([Number.NaN, 0.5, Number.POSITIVE_INFINITY, 1e15])('%s ms is none', (ms) => {
    expect(() => xmq.formatInstant(ms)).toThrow(RangeError)
  })
})
