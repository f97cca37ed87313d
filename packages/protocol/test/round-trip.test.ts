/** Writing and reading are each other's inverse; sizes are what the worst server makes of a stanza. */
import {
  assertLegalText,
  depthOf,
  element,
  escapedLength,
  findIllegalCharacter,
  NS_CLIENT,
  parseElement,
  utf8Length,
  wireLength,
  writeElement,
  type XmlElement,
  type XmlNode,
  XmlStreamReader,
} from '@xmq/protocol'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { cut, legalText, lengths, tree } from './trees.ts'

const deep = { depthMax: 1000 }

describe('what is written is read again', () => {
  test('any element, cut anywhere', () => {
    fc.assert(
      fc.property(fc.array(tree, { minLength: 1, maxLength: 3 }), lengths, (trees, pieces) => {
        const read: XmlElement[] = []
        const reader = new XmlStreamReader(
          {
            onOpen() {},
            onElement: (found) => read.push(found),
            onSkipped: (_head, error) => {
              throw error
            },
            onClose() {},
          },
          deep,
        )
        reader.reset(NS_CLIENT)
        for (const piece of cut(trees.map((one) => writeElement(one)).join('\n'), pieces)) reader.write(piece)
        expect(read).toEqual(trees)
        expect(reader.bufferedBytes).toBe(0)
      }),
      { numRuns: 1000 },
    )
  })

  test('in any context namespace', () => {
    fc.assert(
      fc.property(tree, fc.constantFrom('', 'xmq:topic', 'urn:other'), (one, ns) => {
        expect(parseElement(writeElement(one, ns), ns, deep)).toEqual(one)
      }),
    )
  })

  test('of the namespace xml, which may never be a default one', () => {
    const one = element('a', 'http://www.w3.org/XML/1998/namespace', undefined, [
      element('b', NS_CLIENT),
      element('c', 'u'),
    ])
    expect(writeElement(one)).toBe("<xml:a><b/><c xmlns='u'/></xml:a>")
  })
})

describe('what cannot be written is refused', () => {
  test.each([
    ['\u0000', 'U+0000'],
    ['\u0008', 'U+0008'],
    ['\u000b', 'U+000B'],
    ['\u001f', 'U+001F'],
    ['\ud800', 'U+D800'],
    ['\udfff', 'U+DFFF'],
    ['\ufffe', 'U+FFFE'],
    ['\uffff', 'U+FFFF'],
  ])('%j, with its name, its position and the place', (character, name) => {
    const text = `ab😀${character}c`
    const body = element('body', NS_CLIENT, undefined, [text])
    expect(() => writeElement(element('message', NS_CLIENT, undefined, [body]))).toThrow(
      `${name} at position 4 of the text of <body> cannot be sent`,
    )
    expect(() => writeElement(element('xmq', 'xmq:topic', { topic: text }))).toThrow(
      `${name} at position 4 of attribute 'topic' of <xmq> cannot be sent`,
    )
    expect(() => writeElement(element('a', text))).toThrow(expect.objectContaining({ code: 'illegal-character' }))
    expect(() => assertLegalText(text, 'the body')).toThrow('of the body')
  })

  test('and nothing else is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 20 }), (text) => {
        const illegal = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u.exec(text)
        expect(findIllegalCharacter(text)?.index).toBe(illegal?.index)
        const write = () => writeElement(element('a', '', { b: text }, [text]))
        if (illegal === null) expect(parseElement(write()).attrs.get('b')).toBe(text)
        else expect(write).toThrow('cannot be sent')
      }),
    )
  })

  test.each(['', 'a b', '1a', 'a:b', 'a>', 'a\u0000', '<a'])('an element named %j', (name) => {
    expect(() => writeElement(element(name, NS_CLIENT))).toThrow(expect.objectContaining({ code: 'bad-request' }))
  })

  test.each(['', 'a b', 'xmlns', 'a:b:c', "a='1' b"])('an attribute named %j', (name) => {
    expect(() => writeElement(element('a', NS_CLIENT, { [name]: '1' }))).toThrow(
      expect.objectContaining({ code: 'bad-request' }),
    )
  })
})

/** Every character escaped that any server escapes, and every namespace written with both tags. */
function worstCase(node: XmlNode, contextNs: string): string {
  const text = (value: string) =>
    value.replace(
      /[&<>"'\r]/g,
      (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&apos;' })[c] ?? '&#13;',
    )
  const attribute = (value: string) => text(value).replaceAll('\n', '&#10;').replaceAll('\t', '&#9;')
  if (typeof node === 'string') return text(node)
  const xml = node.ns === 'http://www.w3.org/XML/1998/namespace'
  const name = xml ? `xml:${node.name}` : node.name
  const ns = xml ? contextNs : node.ns
  const attrs = [...node.attrs].map(([key, value]) => ` ${key}='${attribute(value)}'`).join('')
  const declared = ns === contextNs ? '' : ` xmlns='${attribute(ns)}'`
  return `<${name}${declared}${attrs}>${node.children.map((child) => worstCase(child, ns)).join('')}</${name}>`
}

describe('sizes', () => {
  test('wireLength is what the worst server makes of it, exactly', () => {
    fc.assert(
      fc.property(tree, (one) => {
        const worst = worstCase(one, NS_CLIENT)
        expect(parseElement(worst, NS_CLIENT, deep)).toEqual(one)
        expect(wireLength(one)).toBe(new TextEncoder().encode(worst).length)
        expect(new TextEncoder().encode(writeElement(one)).length).toBeLessThanOrEqual(wireLength(one))
      }),
      { numRuns: 500 },
    )
  })

  test('utf8Length and escapedLength count as an encoder does', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), legalText, (any, legal) => {
        expect(utf8Length(any)).toBe(new TextEncoder().encode(any).length)
        expect(escapedLength(legal)).toBe(new TextEncoder().encode(worstCase(legal, '')).length)
      }),
    )
  })

  test('depthOf counts the stanza itself, however deep it is', () => {
    expect(depthOf(element('a', ''))).toBe(1)
    let one = element('a', '')
    for (let depth = 1; depth < 50_000; depth++) one = element('a', '', undefined, [one, 'x'])
    expect(depthOf(one)).toBe(50_000)
  })
})
