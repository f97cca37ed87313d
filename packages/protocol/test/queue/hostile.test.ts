/** What others may send: broken, too much, or made to get through. And bounds of what we send ourselves. */
import * as xmq from '@xmq/protocol'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { tree } from '../trees.ts'

const { NS_QUEUE, XML_ITEMS } = xmq
const code = (expected: xmq.XmqErrorCode) => expect.objectContaining({ code: expected })
const queue = (xml: string): xmq.XmlElement => xmq.parseElement(xml, NS_QUEUE)
const content = (...payload: xmq.XmlElement[]): xmq.ItemContent => xmq.createContent({ payload })
const item = { id: 'i', topic: 't', priority: 0, delayMs: 0, content: content() }

const DECODERS: Readonly<Record<string, (root: xmq.XmlElement) => unknown>> = {
  publish: xmq.decodePublish,
  published: xmq.decodePublished,
  deliver: xmq.decodeDeliver,
  settle: xmq.decodeSettle,
  settled: xmq.decodeSettled,
  renew: xmq.decodeRenew,
  renewed: xmq.decodeRenewed,
  forget: xmq.decodeForget,
  progress: xmq.decodeProgress,
  cancel: xmq.decodeCancel,
  browse: xmq.decodeBrowse,
  'dead-letters': xmq.decodeDeadLetterOrder,
  headers: xmq.decodeHeaders,
  stats: xmq.decodeStats,
}

describe('whatever is sent', () => {
  const word = fc.constantFrom(
    '',
    '0',
    '-1',
    '1',
    '00',
    '1e9',
    '99999999999999999',
    'true',
    'x',
    '😀',
    '2026-01-02T03:04:05Z',
  )
  const attribute = fc.constantFrom(
    'id',
    'topic',
    'key',
    'priority',
    'delay',
    'ttl',
    'lease',
    'seq',
    'from',
    'at',
    'attempt',
    'lease-seconds',
    'n',
    'v',
    'name',
    'credit',
    'load',
    'after',
    'max',
    'all',
    'action',
    'subscription',
    'owner',
    'encoding',
    'call',
    'durability',
  )
  const attrs = fc.dictionary(attribute, word, { maxKeys: 8 })
  const anything = fc.letrec<{ node: xmq.XmlElement }>((tie) => ({
    node: fc
      .tuple(
        fc.constantFrom(
          'item',
          'headers',
          'h',
          'envelope',
          'payload',
          'topic',
          'ack',
          'nack',
          'reject',
          'error',
          'history',
          'entry',
          'line',
        ),
        fc.constantFrom(NS_QUEUE, NS_QUEUE, 'jabber:client', 'urn:x'),
        attrs,
        fc.array(fc.oneof({ depthSize: 'small' }, tree, tie('node'), fc.constant('text')), { maxLength: 4 }),
      )
      .map(([name, ns, all, children]) => xmq.element(name, ns, all, children)),
  })).node

  test.each(Object.keys(DECODERS))('<%s/> is read or refused with a code that travels, never with a fault', (name) => {
    const decode = DECODERS[name] as (root: xmq.XmlElement) => unknown
    fc.assert(
      fc.property(attrs, fc.array(anything, { maxLength: 4 }), (own, children) => {
        try {
          decode(xmq.element(name, NS_QUEUE, own, children))
        } catch (error) {
          expect(error).toBeInstanceOf(xmq.XmqError)
          expect(['bad-request', 'too-large', 'topic-required']).toContain((error as xmq.XmqError).code)
        }
      }),
      { numRuns: 200 },
    )
  })

  test('every broken item can be answered, in its place, and the answer can be written', () => {
    fc.assert(
      fc.property(fc.array(attrs, { minLength: 1, maxLength: 6 }), (all) => {
        const children = all.map((own) => xmq.element('item', NS_QUEUE, own))
        const results = xmq.decodePublish(xmq.element('publish', NS_QUEUE, undefined, children))
        expect(results.length).toBe(all.length)
        const items = results.map(
          (result, at): xmq.PublishedItem =>
            result.ok
              ? { status: 'stored', id: result.item.id, seq: at + 1, duplicate: false }
              : { status: 'failed', id: result.id, error: result.error },
        )
        const answer = xmq.parseElement(xmq.writeElement(xmq.encodePublished({ durability: 'disk', items })))
        const read = xmq.decodePublished(answer).items
        expect(read.map((one) => one?.status)).toEqual(items.map(({ status }) => status))
        expect(read.map((one) => one?.id)).toEqual(items.map(({ id }) => id))
      }),
    )
  })

  test('too many items, settlements, headers are refused at once', () => {
    const many = (name: string, count: number): xmq.XmlElement[] =>
      Array.from({ length: count }, () => queue(`<${name}/>`))
    const root = (name: string, children: xmq.XmlElement[]): xmq.XmlElement =>
      xmq.element(name, NS_QUEUE, { 'lease-seconds': '1' }, children)
    expect(xmq.decodePublish(root('publish', many('item', xmq.BATCH_ITEMS_MAX))).length).toBe(1000)
    for (const [name, child, decode] of [
      ['publish', 'item', xmq.decodePublish],
      ['deliver', 'item', xmq.decodeDeliver],
      ['published', 'item', xmq.decodePublished],
      ['settle', 'ack', xmq.decodeSettle],
      ['settled', 'item', xmq.decodeSettled],
    ] as const) {
      expect(() => decode(root(name, many(child, xmq.BATCH_ITEMS_MAX + 1)))).toThrow(code('too-large'))
    }
    expect(() => xmq.decodeHeaders(root('headers', many('h', 33)))).toThrow(code('too-large'))
    const result = xmq.element('iq', 'jabber:client', undefined, [root('settle', many('ack', 1001))])
    expect(xmq.decodeReceived(result)).toEqual([])
  })

  test('packed items: whatever is in the text, each line is an item or an error, in its place', () => {
    const piece = fc.constantFrom(
      'a',
      '1',
      '0',
      '-1',
      'j{}',
      'bx',
      'x<a xmlns="b"/>',
      'x</item>',
      'x<',
      '\\',
      '\\n',
      '\\q',
      '\t',
      '😀',
      '',
    )
    const line = fc.array(piece, { maxLength: 24 }).map((pieces) => pieces.join(''))
    fc.assert(
      fc.property(
        fc.array(line, { minLength: 1, maxLength: 5 }),
        fc.constantFrom('publish', 'deliver'),
        (lines, name) => {
          const head = { encoding: 'packed', 'lease-seconds': '1' }
          const root = xmq.element(name, NS_QUEUE, head, [`${lines.join('\n')}\n`])
          const results = name === 'publish' ? xmq.decodePublish(root) : xmq.decodeDeliver(root).items
          expect(results.length).toBe(lines.length)
          for (const result of results) {
            if (result.ok) expect(() => result.item.content.body).not.toThrow()
            else expect(['bad-request', 'too-large']).toContain(result.error.code)
          }
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('packed items: a line names what is wrong with it, and itself where it can', () => {
    const publish = (text: string) =>
      xmq.decodePublish(xmq.element('publish', NS_QUEUE, { encoding: 'packed' }, [text]))
    const problem = (text: string) => {
      const [result] = publish(text)
      return result?.ok === false ? [result.id, result.error.message] : 'read'
    }
    const fields = ['i', 't', '', '', '', '', '', 'j1']
    const line = (at: number, value: string) => fields.map((field, n) => (n === at ? value : field)).join('\t')
    expect(problem(fields.join('\t'))).toBe('read')
    expect(problem('i\tt')).toEqual(['i', 'A packed item has too few fields.'])
    expect(problem(line(0, ''))).toEqual([undefined, expect.stringContaining("'id'")])
    expect(problem(line(1, ''))).toEqual(['i', expect.stringContaining("'topic'")])
    expect(problem(line(2, 'x'.repeat(256)))).toEqual(['i', expect.stringContaining("'key'")])
    expect(problem(line(3, '10'))).toEqual(['i', expect.stringContaining("'priority'")])
    expect(problem(line(4, '0.5'))).toEqual(['i', expect.stringContaining("'delay'")])
    expect(problem(line(5, '01'))).toEqual(['i', expect.stringContaining("'ttl'")])
    expect(problem(line(6, '<headers'))).toEqual(['i', expect.stringContaining('XML')])
    expect(problem(line(7, 'z'))).toEqual(['i', expect.stringContaining("kind 'z'")])
    expect(problem(line(7, ''))).toEqual(['i', expect.stringContaining('expected j, b or x')])
    expect(problem(line(7, 'x<a xmlns="b">\\z</a>'))).toEqual(['i', expect.stringContaining('backslash')])
    for (const text of ['', '\n'.repeat(1001)]) expect(() => publish(text)).toThrow(xmq.XmqError)
    expect(publish('\n'.repeat(1000)).length).toBe(1000)
  })

  test('packed confirms and acks: more than a batch may have are refused, and what cannot be read confirms nothing', () => {
    const published = (text: string) =>
      xmq.decodePublished(xmq.element('published', NS_QUEUE, { encoding: 'packed', durability: 'disk' }, [text])).items
    expect(published('1 x 02 3d/ 4d/2').map((one) => one?.status)).toEqual([
      'stored',
      undefined,
      undefined,
      undefined,
      'stored',
    ])
    expect(() => published('1 '.repeat(1001))).toThrow(code('too-large'))
    const settle = (leases: string) => queue(`<settle><acks>${leases}</acks></settle>`)
    expect(xmq.decodeSettle(settle('a\n\nb')).map(({ ok }) => ok)).toEqual([true, false, true])
    expect(() => xmq.decodeSettle(settle('a\n'.repeat(1001)))).toThrow(code('too-large'))
  })

  test('an encoding that is not known is refused, not guessed', () => {
    const publish = queue("<publish encoding='zip'><item id='1' topic='t'/></publish>")
    expect(() => xmq.decodePublish(publish)).toThrow(code('bad-request'))
    expect(() => xmq.decodePublish(queue('<publish/>'))).toThrow(code('bad-request'))
  })

  test('a message cannot be made to multiply its payload', () => {
    const marks = "<payload xmlns='xmq:queue:1'/>".repeat(100)
    const body = `<body>${'x'.repeat(100)}</body>`
    const message = xmq.parseElement(
      `<message>${marks}${body}<xmq xmlns='xmq:topic' topic='t'>${marks}</xmq></message>`,
    )
    const queued = xmq.decodeQueuedMessage(message)
    expect(xmq.writeElement(xmq.encodeQueuedMessage(queued))).toBe(
      `<message>${body}<xmq xmlns='xmq:topic' topic='t'/></message>`,
    )
    const deliver = queue(
      `<deliver lease-seconds='1'><item lease='l' seq='1' topic='t' from='a' at='2026-01-02T03:04:05Z' attempt='1'><envelope>${marks}</envelope><body xmlns='jabber:client'/></item></deliver>`,
    )
    const [result] = xmq.decodeDeliver(deliver).items
    if (result?.ok !== true) throw new Error('broken')
    expect(result.item.content.envelope?.children).toEqual(['payload'])
  })

  test('a message of type error, or of none that exists, becomes none', () => {
    for (const type of ['error', 'shout']) {
      const message = xmq.parseElement(`<message type='${type}'><xmq xmlns='xmq:topic' topic='t'/></message>`)
      expect(xmq.encodeQueuedMessage(xmq.decodeQueuedMessage(message)).attrs.has('type')).toBe(false)
    }
  })
})

describe('text that is inserted', () => {
  test('cannot be brought in by anyone: what looks like it is a mere object', () => {
    const forged = {
      name: 'publish',
      ns: NS_QUEUE,
      attrs: new Map(),
      children: [],
      inner: '<evil/>',
      '#inner': '<evil/>',
    }
    expect(xmq.writeElement(forged)).toBe("<publish xmlns='xmq:queue:1'/>")
    expect(Object.keys(xmq)).not.toContain('WrittenElement')
    expect(Object.keys(xmq)).not.toContain('WrittenItem')
  })

  test('whatever is in a payload, the stanza around it stays whole', () => {
    fc.assert(
      fc.property(fc.array(tree, { maxLength: 3 }), (payload) => {
        const text = xmq.writeElement(
          xmq.encodePublish([XML_ITEMS.writePublishItem({ ...item, content: content(...payload) })]),
        )
        const read = xmq.parseElement(text, '', { depthMax: 1000 })
        expect(xmq.childElements(read).length).toBe(1)
        expect(xmq.childElements(xmq.childElements(read)[0] as xmq.XmlElement)).toEqual(payload)
      }),
    )
  })

  test('every child of an item declares its namespace', () => {
    const envelope = { type: 'chat', id: 'i', language: 'en', children: ['payload'] } as const
    const full = xmq.createContent({
      payload: [xmq.element('a', '', undefined, [xmq.element('b', '')]), xmq.element('body', 'jabber:client')],
      headers: new Map([['h', 'v']]),
      envelope,
    })
    expect(full.extras + full.body).toBe(
      "<headers xmlns='xmq:queue:1'><h n='h' v='v'/></headers>" +
        "<envelope xmlns='xmq:queue:1' type='chat' id='i' xml:lang='en'><payload/></envelope>" +
        "<a xmlns=''><b/></a><body xmlns='jabber:client'/>",
    )
  })

  test('is refused from a store that another version wrote', () => {
    for (const meta of ['', '1 5 a@b/c', '2 5 a@b/c\n', 'x\n', '1 a@b/c\n']) {
      expect(() => xmq.restoreContent({ body: '', meta })).toThrow(code('internal'))
    }
  })
})

describe('what cannot be sent is refused before it is written', () => {
  test.each([
    [{ id: '' }, "'id'"],
    [{ id: 'x'.repeat(257) }, "'id'"],
    [{ id: 'é'.repeat(129) }, "'id'"],
    [{ id: 'a\nb' }, "'id'"],
    [{ topic: '' }, "'topic'"],
    [{ key: '' }, "'key'"],
    [{ key: 'x'.repeat(256) }, "'key'"],
    [{ priority: 10 }, "'priority'"],
    [{ priority: 0.5 }, "'priority'"],
    [{ delayMs: -1 }, "'delay'"],
    [{ delayMs: 0.5 }, "'delay'"],
    [{ ttlMs: 0 }, "'ttl'"],
    [{ ttlMs: xmq.DELAY_MS_MAX + 1 }, "'ttl'"],
    [{ delayMs: 1000, ttlMs: 1000 }, "'delay'"],
  ])('%j', (change, message) => {
    const write = () => XML_ITEMS.writePublishItem({ ...item, ...change })
    expect(write).toThrow(code('bad-request'))
    expect(write).toThrow(message)
  })

  test('illegal characters, naming the place', () => {
    const write =
      (...payload: xmq.XmlElement[]) =>
      () =>
        XML_ITEMS.writePublishItem({ ...item, content: content(...payload) })
    expect(write(xmq.encodeJson('\u0000'))).toThrow('U+0000 at position 0 of the text of <json>')
    expect(() => XML_ITEMS.writePublishItem({ ...item, id: '\ud800' })).toThrow("attribute 'id' of <item>")
  })

  test('a payload of our own namespace', () => {
    expect(() => content(queue('<headers/>'))).toThrow(code('bad-request'))
  })

  test('headers: names, number and size', () => {
    const encode = (entries: [string, string][]) => () => xmq.encodeHeaders(new Map(entries))
    expect(encode([['', 'v']])).toThrow(code('bad-request'))
    expect(encode([['a b', 'v']])).toThrow(code('bad-request'))
    expect(encode([['x'.repeat(65), 'v']])).toThrow(code('bad-request'))
    expect(encode([['x'.repeat(64), 'v'.repeat(8192 - 64)]])).not.toThrow()
    expect(encode([['x'.repeat(64), 'v'.repeat(8192 - 63)]])).toThrow(code('too-large'))
    expect(encode(Array.from({ length: 33 }, (_, n) => [`h${n}`, '']))).toThrow(code('too-large'))
    expect(() => xmq.decodeHeaders(queue("<headers><h n='a' v='1'/><h n='a' v='2'/></headers>"))).toThrow('twice')
  })

  test('credit, load, ttl, names, leases', () => {
    expect(() => xmq.encodeConsume({ credit: -1 })).toThrow("'credit'")
    expect(() => xmq.encodeConsume({ credit: 10_001 })).toThrow("'credit'")
    expect(() => xmq.encodeConsume({ credit: 1, name: 'x'.repeat(129) })).toThrow("'name'")
    expect(() => xmq.encodeConsume({ credit: 1, worker: { host: 'x'.repeat(257) } })).toThrow("'host' of <worker>")
    expect(() => xmq.encodeRenew({ ttlSeconds: 0, load: 1, credit: 1 })).toThrow("'ttl'")
    expect(() => xmq.encodeRenew({ ttlSeconds: 1, load: 101, credit: 1 })).toThrow("'load'")
    expect(() => xmq.encodeDeliver(0, [])).toThrow("'lease-seconds'")
    expect(() => xmq.writeSettlement({ kind: 'ack', lease: '' })).toThrow("'lease' of <ack>")
    expect(() => xmq.encodeProgress({ call: 'c', n: 0, payload: [] })).toThrow("'n'")
  })

  test('a reason never is: it is cut, and what XML cannot carry replaced', () => {
    const settle = xmq.encodeSettle([
      xmq.writeSettlement({ kind: 'nack', lease: 'l', why: `a\u0000b${'x'.repeat(5000)}` }),
    ])
    const [result] = xmq.decodeSettle(xmq.parseElement(xmq.writeElement(settle)))
    if (result?.ok !== true || result.settlement.kind !== 'nack') throw new Error('broken')
    expect(result.settlement.why).toMatch(/^a\ufffdbx+…$/)
    expect(result.settlement.why.length).toBe(xmq.REASON_LENGTH_MAX)
  })
})
