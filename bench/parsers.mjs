/**
 * Compares XML readers on what a broker reads: text to elements with namespaces. bench/README.md "XML readers" has the outcome.
 *
 *     npx tsc -b packages/protocol && node bench/parsers.mjs [--quick]
 *
 * Every candidate builds the same tree out of the same chunks; those without namespaces get the step that they lack.
 * Figures are the best of several rounds in one process: machines differ, ratios less so.
 */
import { XmlStreamReader } from '@xmq/protocol'
import { Parser as LtxTreeParser } from 'ltx'
import SaxLtx from 'ltx/src/parsers/ltx.js'
import sax from 'sax'
import { SaxesParser } from 'saxes'
import { startOptions } from './usage.mjs'

const { quick } = startOptions({ quick: { type: 'boolean', default: false } })

/** The least tree builder that makes XMQ's elements: prefixes resolved, attributes in a map. */
class Tree {
  stack = []
  count = 0
  open(name, attributes) {
    const outer = this.stack.at(-1)
    let scope = outer?.scope
    const attrs = new Map()
    for (const key in attributes) {
      const value = attributes[key]
      if (key === 'xmlns' || key.startsWith('xmlns:')) {
        if (scope === outer?.scope) scope = new Map(scope)
        scope.set(key.slice(6), value)
        if (key === 'xmlns') continue
      }
      attrs.set(key, value)
    }
    const colon = name.indexOf(':')
    const ns = scope?.get(colon === -1 ? '' : name.slice(0, colon)) ?? ''
    const node = { name: name.slice(colon + 1), ns, attrs, children: [] }
    if (this.stack.length > 1) outer.node.children.push(node)
    this.stack.push({ node, scope })
  }
  text(text) {
    if (this.stack.length < 2) return
    const { children } = this.stack.at(-1).node
    if (typeof children.at(-1) === 'string') children[children.length - 1] += text
    else children.push(text)
  }
  close() {
    this.stack.pop()
    if (this.stack.length === 1) this.count++
  }
}

function saxes(xmlns) {
  const tree = new Tree()
  const parser = new SaxesParser({ xmlns, position: false })
  const plain = (attributes) => Object.fromEntries(Object.entries(attributes).map(([key, { value }]) => [key, value]))
  parser.on('opentag', (tag) => tree.open(tag.name, xmlns ? plain(tag.attributes) : tag.attributes))
  parser.on('closetag', () => tree.close())
  parser.on('text', (text) => tree.text(text))
  parser.on('error', (error) => {
    throw error
  })
  return { write: (text) => parser.write(text), count: () => tree.count }
}

const candidates = {
  'XMQ reader': () => {
    let count = 0
    const reader = new XmlStreamReader({
      onOpen() {},
      onElement: () => count++,
      onSkipped: (_head, error) => {
        throw error
      },
      onClose() {},
    })
    return { write: (text) => reader.write(text), count: () => count }
  },
  'saxes, xmlns: false + own namespaces': () => saxes(false),
  'saxes, xmlns: true': () => saxes(true),
  'sax (strict) + own namespaces': () => {
    const tree = new Tree()
    const parser = sax.parser(true, { position: false, strictEntities: true })
    parser.onopentag = (tag) => tree.open(tag.name, tag.attributes)
    parser.onclosetag = () => tree.close()
    parser.ontext = (text) => tree.text(text)
    parser.onerror = (error) => {
      throw error
    }
    return { write: (text) => parser.write(text), count: () => tree.count }
  },
  'ltx SAX + own namespaces': () => {
    const tree = new Tree()
    const parser = new SaxLtx()
    parser.on('startElement', (name, attrs) => tree.open(name, attrs))
    parser.on('endElement', () => tree.close())
    parser.on('text', (text) => tree.text(text))
    return { write: (text) => parser.write(text), count: () => tree.count }
  },
  'ltx Parser (its own tree, no namespaces resolved)': () => {
    const parser = new LtxTreeParser()
    return { write: (text) => parser.write(text), count: () => Number.NaN }
  },
}

const ROOT = "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>"
const message = (body, n) =>
  `<message type='chat' id='0b7d6f3a-8f0e-4d57-9d3b-${String(n).padStart(12, '0')}' from='producer@localhost/3f1c2a9e7d41' ` +
  `to='queue1.localhost'><body>${body}</body><xmq xmlns='xmq:topic' topic='images.thumbnail'/></message>`
const many = (body, n) => Array.from({ length: n }, (_, index) => message(body, index)).join('')
const escaped = (text) => text.replaceAll('"', '&quot;')
const json = JSON.stringify({
  url: 'https://example.org/a.jpg',
  size: 320,
  tags: ['a', 'b'],
  user: { id: 42, name: 'n' },
})
const items = Array.from(
  { length: 50 },
  (_, n) =>
    `<item lease='0b7d6f3a8f0e4d579d3b0000000000${n}' seq='${n}' id='${n}' topic='T' attempt='1'><json xmlns='urn:xmpp:json:0'>${'x'.repeat(200)}</json></item>`,
).join('')
const batch = `<iq type='set' id='1' from='a@b/c' to='q.b'><deliver xmlns='xmq:queue:1' lease-seconds='30'>${items}</deliver></iq>`
const mixed = 'Привет мир 你好世界 😀🎉 مرحبا '

const workloads = [
  ['400-byte messages, 64 KiB chunks', many('a'.repeat(190), 4000), 65_536],
  ['400-byte messages, 1448-byte chunks', many('a'.repeat(190), 4000), 1448],
  ['JSON body with &quot;, 64 KiB chunks', many(escaped(json), 4000), 65_536],
  ['mixed scripts and emoji, 64 KiB chunks', many(mixed.repeat(6), 4000), 65_536],
  ['50 items of 200 bytes in a stanza, 64 KiB chunks', batch.repeat(120), 65_536],
  ['one 190 KiB body each, 64 KiB chunks', many('lorem ipsum '.repeat(16_000), 10), 65_536],
]

function time(create, text, chunk) {
  const pieces = []
  for (let at = 0; at < text.length; at += chunk) pieces.push(text.slice(at, at + chunk))
  const reader = create()
  reader.write(ROOT)
  const start = performance.now()
  for (const piece of pieces) reader.write(piece)
  return { ms: performance.now() - start, count: reader.count() }
}

const pad = (text, width) => String(text).padEnd(width)
console.log('## Speed: MB of UTF-8 a second, as a share of the XMQ reader, µs a stanza\n')
for (const [name, text, chunk] of workloads) {
  console.log(`### ${name}`)
  const bytes = Buffer.byteLength(text)
  const rows = Object.entries(candidates).map(([candidate, create]) => ({
    candidate,
    create,
    best: Infinity,
    count: 0,
  }))
  // In turn, so that a busy moment of the machine hits all of them.
  for (let round = 0; round < (quick ? 3 : 15); round++) {
    for (const row of rows) {
      const { ms, count } = time(row.create, text, chunk)
      row.best = Math.min(row.best, ms)
      row.count = count
    }
  }
  const [own] = rows
  for (const { candidate, best, count } of rows) {
    if (!Number.isNaN(count) && count !== own.count)
      throw new Error(`${candidate} read ${count} of ${own.count} stanzas`)
    const rate = (bytes / 1e3 / best).toFixed(0)
    const each = ((best * 1000) / own.count).toFixed(2)
    console.log(`${pad(candidate, 52)}${pad(rate, 8)}${pad((own.best / best).toFixed(2), 8)}${each}`)
  }
  console.log()
}

console.log('## Growth: time for n and for 4n characters (linear: 4)\n')
const hostile = {
  'one stanza, one character a chunk': [(n) => `<message><body>${'a'.repeat(n)}</body></message>`, 1, 32_768],
  'one attribute, 16 characters a chunk': [(n) => `<message a='${'a'.repeat(n)}'/>`, 16, 131_072],
  'nested elements with namespaces': [(n) => `<a xmlns='a'>`.repeat(n / 17) + '</a>'.repeat(n / 17), 65_536, 65_536],
  'text full of &amp;': [(n) => `<a>${'&amp;'.repeat(n / 5)}</a>`, 65_536, 65_536],
}
for (const [name, [make, chunk, n]] of Object.entries(hostile)) {
  console.log(`### ${name}`)
  for (const [candidate, create] of Object.entries(candidates)) {
    let row
    try {
      const best = (text) => Math.min(...Array.from({ length: quick ? 1 : 3 }, () => time(create, text, chunk).ms))
      const small = best(make(n))
      const large = best(make(n * 4))
      row = `${pad(`${small.toFixed(1)} ms`, 12)}${pad(`${large.toFixed(1)} ms`, 12)}x ${(large / small).toFixed(1)}`
    } catch (error) {
      row = `threw ${String(error).slice(0, 60)}`
    }
    console.log(`${pad(candidate, 52)}${row}`)
  }
  console.log()
}

console.log('## What is refused\n')
const refusals = {
  'DOCTYPE with entities': '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
  'unknown entity': '<a>&nbsp;</a>',
  comment: '<a><!-- x --></a>',
  'processing instruction': '<a><?x y?></a>',
  'mismatched end tag': '<a><b></a></b>',
  'duplicate attribute': "<a b='1' b='2'/>",
  "'<' in an attribute": "<a b='<'/>",
  'undeclared prefix': '<p:a/>',
  'illegal character': '<a>\u0001</a>',
  'reference to one': '<a>&#0;</a>',
  'unpaired surrogate': '<a>\ud800b</a>',
}
for (const [name, text] of Object.entries(refusals)) {
  const outcome = Object.entries(candidates).map(([candidate, create]) => {
    const reader = create()
    try {
      reader.write(ROOT)
      reader.write(`${text}<b/>`)
      return `${candidate.split(',')[0].split(' (')[0]}${candidate.includes('xmlns: true') ? ' ns' : ''}: accepts`
    } catch (error) {
      const own = error.code === 'malformed-xml' || !/TypeError|RangeError/.test(error.name)
      return own ? undefined : `${candidate.split(' (')[0]}: throws ${error.name}`
    }
  })
  console.log(`${pad(name, 26)}${outcome.filter(Boolean).join('; ') || 'all refuse'}`)
}
