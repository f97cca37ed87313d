/** The reader against another one: on what both must read, and on what both must refuse. */
import { NS_CLIENT, type XmlElement, type XmlNode, XmlStreamReader, writeElement } from '@xmq/protocol'
import * as fc from 'fast-check'
import { SaxesParser } from 'saxes'
import { expect, test } from 'vitest'
import { cut, lengths } from './trees.ts'

type Outcome = string[] | 'refused'

/** What XMPP forbids and XML does not: document types, comments, instructions, text between stanzas. */
class NotXmpp extends Error {}

function readWithSaxes(text: string): Outcome {
  const found: XmlElement[] = []
  const open: { name: string; ns: string; attrs: Map<string, string>; children: XmlNode[] }[] = []
  const parser = new SaxesParser({ xmlns: true, position: false })
  const add = (node: XmlNode) => {
    const parent = open.at(-1)
    const last = parent?.children.at(-1)
    if (parent === undefined || node === '') return
    if (typeof node === 'string' && typeof last === 'string') parent.children[parent.children.length - 1] = last + node
    else parent.children.push(node)
  }
  const forbidden = () => {
    throw new NotXmpp()
  }
  parser.on('comment', forbidden)
  parser.on('doctype', forbidden)
  parser.on('processinginstruction', forbidden)
  parser.on('error', (error) => {
    throw error
  })
  parser.on('text', (some) => {
    if (open.length === 1 && /[^ \t\r\n]/.test(some)) forbidden()
    add(some)
  })
  parser.on('cdata', (some) => {
    if (open.length === 1) forbidden()
    add(some)
  })
  parser.on('opentag', (tag) => {
    const attrs = new Map<string, string>()
    for (const { name, value } of Object.values(tag.attributes)) if (name !== 'xmlns') attrs.set(name, value)
    for (const { prefix, uri } of Object.values(tag.attributes)) {
      if (prefix !== '' && prefix !== 'xmlns' && prefix !== 'xml') attrs.set(`xmlns:${prefix}`, uri)
    }
    const child = { name: tag.local, ns: tag.uri, attrs, children: [] }
    if (open.length > 1) add(child)
    else if (open.length === 1) found.push(child)
    open.push(child)
  })
  parser.on('closetag', () => open.pop())
  try {
    parser.write(`<stream xmlns='${NS_CLIENT}'>`)
    parser.write(text)
    parser.write('</stream>').close()
  } catch {
    return 'refused'
  }
  return found.map((one) => JSON.stringify([writeElement(one)]))
}

function readWithOurs(text: string, pieces: readonly number[]): Outcome {
  const found: XmlElement[] = []
  let closed = false
  const reader = new XmlStreamReader(
    {
      onOpen() {},
      onElement: (one) => found.push(one),
      onSkipped: (_head, error) => {
        throw error
      },
      onClose: () => {
        closed = true
      },
    },
    { depthMax: 1000, attributesMax: 1000 },
  )
  try {
    for (const piece of cut(`<stream xmlns='${NS_CLIENT}'>${text}</stream>`, pieces)) reader.write(piece)
  } catch {
    return 'refused'
  }
  return closed ? found.map((one) => JSON.stringify([writeElement(one)])) : 'refused'
}

const ANY = [
  '<a>',
  '</a>',
  '<b>',
  '</b>',
  '<a/>',
  '<b c="d"/>',
  "<a xmlns='u'>",
  "<p:a xmlns:p='v'>",
  '</p:a>',
  '<p:b/>',
  "<b p:x='1' q:x='2'/>",
  "<a xmlns:p='w' xmlns:q='w2' p:y='&lt;'>",
  "<a xml:lang='de'\n\t/>",
  "<a b='1' b='2'/>",
  "<a b='\r\n&#10;\t'/>",
  '<a ',
  "c='1'",
  '/>',
  '>',
  '<',
  ' ',
  '\n',
  '\r',
  '\r\n',
  'text',
  ']]',
  ']]>',
  ']',
  '&amp;',
  '&lt;',
  '&quot;',
  '&apos;',
  '&gt;',
  '&#65;',
  '&#x1F600;',
  '&#0;',
  '&#xD800;',
  '&',
  ';',
  '&nbsp;',
  '<![CDATA[',
  '<![CDATA[x]]>',
  'é你',
  '😀',
  '\u0001',
  '\ufffe',
  "'",
  '"',
  '=',
  '/',
  '</a >',
  '<é/>',
  '<1/>',
  '<a:b:c/>',
  "<a xmlns=''>",
  "<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
  "<a xmlns:p=''/>",
  '<xmlns/>',
  '<xml:a/>',
]

const GOOD = [
  '<a/>',
  '<b c="d"/>',
  "<b xml:lang='de'\n\t/>",
  "<a b='\r\n&#10;\t'/>",
  "<a xmlns=''/>",
  '<é/>',
  "<p:b xmlns:p='&amp;' p:c='1' q='2'/>",
]
const TEXT = [
  'text',
  ' ',
  '\n',
  '\r',
  '\r\n',
  ']',
  ']]',
  '&amp;',
  '&lt;',
  '&quot;',
  '&#65;',
  '&#x1F600;',
  '&#13;',
  'é你',
  '😀',
  '<![CDATA[<]]>',
  '<![CDATA[]]]]>',
]

// Well-formed more often than chance would have it: wraps what it is given.
const text: fc.Arbitrary<string> = fc.letrec<{ text: string; inner: string; node: string }>((tie) => ({
  text: fc.array(tie('node'), { maxLength: 6 }).map((nodes) => nodes.join('')),
  inner: fc.array(fc.oneof(fc.constantFrom(...TEXT), tie('node')), { maxLength: 5 }).map((nodes) => nodes.join('')),
  node: fc.oneof(
    { depthSize: 'small' },
    { weight: 1, arbitrary: fc.constantFrom(...ANY) },
    { weight: 8, arbitrary: fc.constantFrom(...GOOD) },
    { weight: 2, arbitrary: tie('inner').map((inner) => `<a>${inner}</a>`) },
    { weight: 1, arbitrary: tie('inner').map((inner) => `<p:b xmlns:p='u' p:c=' '>${inner}</p:b >`) },
    { weight: 1, arbitrary: tie('inner').map((inner) => `<b xmlns='u&amp;v'>${inner}</b>`) },
  ),
})).text

test('both readers agree on every text, however ours is cut', () => {
  let read = 0
  fc.assert(
    fc.property(text, lengths, (document, pieces) => {
      const ours = readWithOurs(document, pieces)
      expect(readWithOurs(document, [1_000_000])).toEqual(ours)
      const theirs = readWithSaxes(document)
      if (ours !== 'refused' && ours.length > 0) read++
      expect(ours).toEqual(theirs)
    }),
    { numRuns: 3000 },
  )
  // Else the test would show nothing.
  expect(read).toBeGreaterThan(200)
})
