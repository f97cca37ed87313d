/** Errors and refusals: docs/protocol.md "Errors", RFC 6120 8.3. */
import {
  assertTopic,
  decodeCommand,
  decodeError,
  decodeRequest,
  decodeTopic,
  element,
  encodeCommand,
  encodeError,
  errorTo,
  findChild,
  iqType,
  isPing,
  mayBeAnswered,
  NS_CLIENT,
  onlyChild,
  parseElement,
  ping,
  resultTo,
  stanza,
  wireLength,
  writeElement,
  writeError,
  XMQ_ERROR_CODES,
  XmqError,
} from '@xmq/protocol'
import { describe, expect, test } from 'vitest'

describe('an error', () => {
  test('that is written once and sent often is the same, but for its text', () => {
    const error = new XmqError('overloaded', 'Too <busy> & "late"', { retryAfterSeconds: 3 })
    const written = writeError(error)
    const terse = encodeError(error, true)
    for (const name of ['iq', 'message'] as const) {
      const request = stanza(name, { from: 'a@b/c', to: 'q.b', id: '1', type: name === 'iq' ? 'set' : 'chat' })
      expect(writeElement(errorTo(request, error, written))).toBe(writeElement(errorTo(request, error, terse)))
    }
    expect([wireLength(written), written.children]).toEqual([wireLength(terse), terse.children])
    const read = decodeError(element('iq', NS_CLIENT, {}, [parseElement(writeElement(written))]))
    expect(read).toMatchObject({ code: 'overloaded', fromBroker: true, retryAfterSeconds: 3 })
    expect(read.message).toMatch(/too much to do/)
  })

  test.each(XMQ_ERROR_CODES)('%s goes over the wire and comes back', (code) => {
    const error = new XmqError(code, 'Why & <how>')
    const request = parseElement("<iq type='get' id='1' from='a@b/c' to='q.b'><x xmlns='y'/></iq>")
    const answer = parseElement(writeElement(errorTo(request, error)))
    expect(Object.fromEntries(answer.attrs)).toEqual({ type: 'error', id: '1', from: 'q.b', to: 'a@b/c' })
    expect(decodeError(answer)).toMatchObject({
      code,
      message: 'Why & <how>',
      condition: error.condition,
      type: error.type,
      fromBroker: true,
    })
  })

  test('keeps its own condition, type and time to wait', () => {
    const error = new XmqError('not-found', 'x', { condition: 'gone', type: 'modify', retryAfterSeconds: 1.2 })
    const decoded = decodeError(element('iq', NS_CLIENT, {}, [encodeError(error)]))
    expect(decoded).toMatchObject({ code: 'not-found', condition: 'gone', type: 'modify', retryAfterSeconds: 2 })
  })

  test('can always be written, whatever its text', () => {
    const error = new XmqError('handler-failed', `\u0000bad\ud800${'😀'.repeat(5000)}`)
    const decoded = decodeError(element('iq', NS_CLIENT, {}, [parseElement(writeElement(encodeError(error)))]))
    expect(decoded.message).toMatch(/^\ufffdbad\ufffd😀/)
    expect(decoded.message.length).toBeLessThan(2010)
  })

  test.each([
    ["<iq type='error'/>", 'server', 'undefined-condition', 'cancel'],
    ["<iq type='error'><error/></iq>", 'server', 'undefined-condition', 'cancel'],
    [
      "<iq type='error'><error type='nonsense'><nonsense xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
      'server',
      'undefined-condition',
      'cancel',
    ],
    [
      "<iq type='error'><error type='wait'><failure xmlns='xmq:queue:1'/></error></iq>",
      'server',
      'undefined-condition',
      'wait',
    ],
  ])('that is broken is still an error: %s', (xml, code, condition, type) => {
    expect(decodeError(parseElement(xml))).toMatchObject({ code, condition, type })
  })

  test('is made of whatever was thrown', () => {
    const own = new XmqError('closed', 'x')
    const cause = new TypeError('y')
    expect(XmqError.from(own)).toBe(own)
    expect(XmqError.from(cause)).toMatchObject({ code: 'internal', message: 'y', cause })
    expect(XmqError.from('z', 'timeout')).toMatchObject({ code: 'timeout', message: 'z' })
  })
})

describe('a command is refused, naming the attribute', () => {
  const attrs = (text: string) => parseElement(`<xmq xmlns='xmq:command' ${text}/>`)
  test.each([
    ["topic='T'", "'command' is missing"],
    ["command='subscribe' topic='T'", "'command' is 'subscribe'"],
    ["command='sub' ttl='1' load='1'", "'topic' is missing"],
    ["command='sub' topic='' ttl='1' load='1'", "'topic' is empty"],
    ["command='sub' topic='T' load='1'", "'ttl' is missing"],
    ["command='sub' topic='T' ttl='1'", "'load' is missing"],
    ["command='sub' topic='T' ttl='soon' load='1'", "'ttl' is 'soon'"],
    ["command='sub' topic='T' ttl='' load='1'", "'ttl' is ''"],
    ["command='sub' topic='T' ttl='1.5' load='1'", "'ttl' is '1.5'"],
    ["command='sub' topic='T' ttl='1e3' load='1'", "'ttl' is '1e3'"],
    ["command='sub' topic='T' ttl='0x10' load='1'", "'ttl' is '0x10'"],
    ["command='sub' topic='T' ttl='99999999' load='1'", "'ttl' is '99999999'"],
    ["command='sub' topic='T' ttl='1' load='101'", "'load' is '101'; expected a whole number from 0 to 100"],
    ["command='sub' topic='T' ttl='1' load='-1'", "'load' is '-1'"],
  ])('%s', (text, cause) => {
    expect(() => decodeCommand(attrs(text))).toThrow(cause)
    expect(() => decodeCommand(attrs(text))).toThrow(expect.objectContaining({ code: 'bad-request' }))
  })

  test('also when it is to be sent', () => {
    const sub = { command: 'sub', topic: 'T', ttlSeconds: 60, load: 1 } as const
    expect(() => encodeCommand({ ...sub, ttlSeconds: 1.5 })).toThrow('ttl is 1.5')
    expect(() => encodeCommand({ ...sub, load: 101 })).toThrow('load is 101')
    expect(() => encodeCommand({ ...sub, topic: '' })).toThrow('empty')
    expect(() => decodeCommand(element('query', 'xmq:command'))).toThrow('<query> is no command')
  })
})

describe('a topic', () => {
  test('has 1 to 255 bytes and no control characters', () => {
    assertTopic('x'.repeat(255))
    assertTopic('你'.repeat(85))
    expect(() => assertTopic('x'.repeat(256))).toThrow('has 256 bytes')
    expect(() => assertTopic('你'.repeat(86))).toThrow('has 258 bytes')
    expect(() => assertTopic('a\nb')).toThrow('control character')
    expect(() => decodeTopic(element('xmq', 'xmq:topic'))).toThrow(expect.objectContaining({ code: 'topic-required' }))
  })

  test('of a request is taken with one payload, inside or beside', () => {
    const iq = (inner: string) => decodeRequest(parseElement(`<iq type='get'>${inner}</iq>`))
    const xmq = "<xmq xmlns='xmq:topic' topic='T'/>"
    expect(iq("<query xmlns='u'/>")).toBeUndefined()
    expect(() => iq(`<a/><b/>${xmq}`)).toThrow('one payload element')
    expect(() => iq("<a/><xmq xmlns='xmq:topic' topic='T'><b/></xmq>")).toThrow('not both')
    expect(iq("<a/><xmq xmlns='xmq:topic' topic='T'><call xmlns='xmq:queue:1'/></xmq>")).toMatchObject({ form: 'flat' })
    expect(iq("<xmq xmlns='xmq:topic' topic='T'><a/><b/></xmq>")?.payload).toHaveLength(2)
  })
})

describe('stanzas', () => {
  test('are answered from where they were sent to', () => {
    const request = ping('a@b/c', 'q.b', '7')
    expect(isPing(request)).toBe(true)
    expect(writeElement(resultTo(request))).toBe("<iq type='result' id='7' from='q.b' to='a@b/c'/>")
    expect(onlyChild(request)?.name).toBe('ping')
    expect(onlyChild(resultTo(request))).toBeUndefined()
    expect(findChild(request, 'ping')).toBeUndefined()
  })

  test.each([
    ['iq', 'get', true],
    ['iq', 'set', true],
    ['iq', 'result', false],
    ['iq', 'error', false],
    ['iq', undefined, false],
    ['message', undefined, true],
    ['message', 'error', false],
    ['presence', 'unavailable', true],
    ['presence', 'error', false],
  ] as const)('%s of type %s may be answered: %s', (name, type, expected) => {
    expect(mayBeAnswered(stanza(name, { type }))).toBe(expected)
    if (name === 'iq') expect(iqType(stanza(name, { type }))).toBe(type)
  })
})
