/** Arbitrary elements, and texts cut anywhere, for property tests. */
import { type XmlElement, type XmlNode } from '@xmq/protocol'
import * as fc from 'fast-check'

const LEGAL = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...Array.from('ab <>&"\'\t\n\r]é你😀\u{10ffff}\ufffd\u00a0\u0085\u2028')) },
  { weight: 2, arbitrary: fc.constantFrom(']]>', '&amp;', '&#0;', '<![CDATA[', '<!--', '\r\n') },
  {
    weight: 1,
    arbitrary: fc.string({ unit: 'grapheme', maxLength: 4 }).map((text) => text.replace(/[^ -\ud7ff]/g, '')),
  },
)

/** Text that XML can carry. */
export const legalText: fc.Arbitrary<string> = fc.array(LEGAL, { maxLength: 12 }).map((parts) => parts.join(''))

const name = fc.constantFrom(
  'a',
  'body',
  'x-1',
  'é',
  '_y.z',
  '__proto__',
  'constructor',
  'a·',
  'long-name-of-an-element',
)
const namespace = fc.constantFrom(
  '',
  'jabber:client',
  'xmq:topic',
  'urn:a&b',
  "urn:'",
  'http://www.w3.org/XML/1998/namespace',
)
const attributes = fc
  .array(fc.tuple(fc.constantFrom('id', 'to', 'xml:lang', '__proto__', 'p:a', 'q:a', 'é'), legalText), { maxLength: 4 })
  .map((pairs) => {
    const attrs = new Map<string, string>(pairs)
    if (attrs.has('p:a')) attrs.set('xmlns:p', 'urn:p')
    if (attrs.has('q:a')) attrs.set('xmlns:q', "urn:q'&")
    return attrs
  })

/** An element as a reader would give it: no empty text, no two texts side by side. */
export const tree: fc.Arbitrary<XmlElement> = fc.letrec<{ element: XmlElement; node: XmlNode }>((tie) => ({
  node: fc.oneof({ depthSize: 'small' }, legalText, tie('element')),
  element: fc
    .tuple(name, namespace, attributes, fc.array(tie('node'), { maxLength: 5 }))
    .map(([local, ns, attrs, children]) => ({ name: local, ns, attrs, children: merged(children) })),
})).element

function merged(nodes: readonly XmlNode[]): XmlNode[] {
  const children: XmlNode[] = []
  for (const node of nodes) {
    const last = children.at(-1)
    if (typeof node === 'string' && typeof last === 'string') children[children.length - 1] = last + node
    else if (node !== '') children.push(node)
  }
  return children
}

/** Cuts a text into pieces of the given lengths, in turn. */
export function cut(text: string, lengths: readonly number[]): string[] {
  const pieces: string[] = []
  for (let at = 0, turn = 0; at < text.length; turn++) {
    const length = lengths[turn % lengths.length] as number
    pieces.push(text.slice(at, at + length))
    at += length
  }
  return pieces
}

/** Lengths of pieces: mostly tiny ones, where tokens are cut. */
export const lengths: fc.Arbitrary<number[]> = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 90 })),
  {
    minLength: 1,
    maxLength: 8,
  },
)
