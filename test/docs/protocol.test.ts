/** The protocol's pages are true: their examples are valid and our codecs read them, the tables of errors and bounds are the code's. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import {
  BATCH_ITEMS_MAX,
  HEADERS_BYTES_MAX,
  HEADERS_MAX,
  EPOCH_BYTES_MAX,
  ID_BYTES_MAX,
  KEY_BYTES_MAX,
  PROGRESS_BYTES_MAX,
  PROGRESS_MAX,
  PAGE_MAX,
  REASON_LENGTH_MAX,
  SUBSCRIPTION_NAME_BYTES_MAX,
  WORKER_BYTES_MAX,
  XMQ_ERROR_CODES,
  XmqError,
  decodeCommand,
  decodeRequest,
  isStanza,
  parseElement,
} from '@xmq/protocol'
import { describe, expect, test } from 'vitest'
import { readReliable } from './reliable-examples.ts'

const root = new URL('../../', import.meta.url)
const page = readFileSync(new URL('docs/protocol.md', root), 'utf8')
const reliablePage = readFileSync(new URL('docs/protocol-reliable.md', root), 'utf8')
const examplesOf = (text: string): string[] =>
  [...text.matchAll(/```xml\n([\s\S]*?)```/g)].map((match) => match[1] as string)
const pages = [
  { name: 'docs/protocol.md', examples: examplesOf(page) },
  { name: 'docs/protocol-reliable.md', examples: examplesOf(reliablePage) },
]
const xmllint = ((): boolean => {
  try {
    execFileSync('xmllint', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

/** Codes that an SDK raises by itself and never travel from a broker. */
const LOCAL_CODES = new Set([
  'not-authorized',
  'connection-lost',
  'closed',
  'aborted',
  'unconfirmed',
  'invalid-config',
  'illegal-character',
  'malformed-xml',
  'server',
])

function validate(xml: string): string {
  const typed = xml.replace(/^<(message|iq|presence)/, "<$1 xmlns='jabber:client'")
  try {
    execFileSync(
      'xmllint',
      ['--noout', '--nonet', '--schema', new URL('docs/schema/stanzas.xsd', root).pathname, '-'],
      { input: typed, stdio: 'pipe' },
    )
    return ''
  } catch (error) {
    return String((error as { stderr?: Buffer }).stderr)
  }
}

describe.each(pages)('$name', ({ examples }) => {
  test('has examples', () => expect(examples.length).toBeGreaterThan(10))

  test.each(examples.map((xml) => [xml.split('\n')[0], xml]))('%s is a stanza that our codecs read', (_, xml) => {
    const stanza = parseElement(xml.trim())
    expect(isStanza(stanza)).toBe(true)
    const command = stanza.children.find((child) => typeof child !== 'string' && child.ns === 'xmq:command')
    if (command !== undefined && typeof command !== 'string') expect(decodeCommand(command).topic).not.toBe('')
    readReliable(stanza)
    if (stanza.name === 'iq' && /^(get|set)$/.test(stanza.attrs.get('type') ?? '')) decodeRequest(stanza)
  })

  test.skipIf(!xmllint && process.env['XMQ_REQUIRE_SERVERS'] !== '1' && process.env['CI'] !== 'true')(
    'every example is valid by docs/schema',
    () => {
      for (const xml of examples) expect(validate(xml.trim()), xml).toBe('')
    },
  )
})

describe('docs/protocol.md', () => {
  test.skipIf(!xmllint)('the schema refuses what the protocol refuses', () => {
    const command = (attrs: string): string => `<iq type='set' id='1' to='q'><xmq xmlns='xmq:command' ${attrs}/></iq>`
    expect(validate(command("command='sub' topic='t' ttl='60' load='1'"))).toBe('')
    expect(validate(command("command='sub' topic='t' ttl='60' load='101'"))).toMatch(/load/)
    expect(validate(command("command='renew' topic='t'"))).toMatch(/command/)
    expect(validate("<message type='chat'><xmq xmlns='xmq:topic'/></message>")).toMatch(/topic/)
    expect(validate("<message type='shout'/>")).toMatch(/type/)
  })

  test('the error table has every code that travels, with its type and condition', () => {
    const table = page.slice(page.indexOf('<!-- errors:begin -->'), page.indexOf('<!-- errors:end -->'))
    const rows = [...table.matchAll(/^\| `([a-z-]+)` \| (\w+) \| `([a-z-]+)` \|/gm)].map(
      ([, code, type, condition]) => ({ code, type, condition }),
    )
    const expected = XMQ_ERROR_CODES.filter((code) => !LOCAL_CODES.has(code)).map((code) => {
      const { type, condition } = new XmqError(code, '')
      return { code, type, condition }
    })
    expect(rows).toEqual(expected)
  })
})

describe('docs/protocol-reliable.md', () => {
  const rows = new Map(
    [...reliablePage.slice(reliablePage.indexOf('## 13. Bounds')).matchAll(/^\| ([^|]+) \| ([^|]+) \|$/gm)].map(
      ([, what, bound]) => [what as string, bound as string],
    ),
  )

  test.each([
    ['items of a batch, settlements of a `<settle/>`, dead letters of an order', `${BATCH_ITEMS_MAX}`],
    ['id, lease', `${ID_BYTES_MAX} bytes`],
    ['news of a request', `${PROGRESS_MAX}; ${PROGRESS_BYTES_MAX} bytes each`],
    ['epoch', `${EPOCH_BYTES_MAX} bytes`],
    ['key', `${KEY_BYTES_MAX} bytes`],
    ['name of a subscription', `${SUBSCRIPTION_NAME_BYTES_MAX} bytes`],
    ['headers', `${HEADERS_MAX}; names of 64 characters; ${HEADERS_BYTES_MAX} bytes together`],
    ['reason of a nack, a reject, a history entry', `${REASON_LENGTH_MAX} characters, then cut`],
    ['attributes of `<worker/>`', `${WORKER_BYTES_MAX} bytes each`],
    ['page of `<dead-letters/>`, `<browse/>`, topics of `<stats/>`', `${PAGE_MAX}`],
  ])('the bound of %s', (what, bound) => expect(rows.get(what)).toBe(bound))

  test('every element of the schema has an example', () => {
    const schema = readFileSync(new URL('docs/schema/xmq-queue-1.xsd', root), 'utf8')
    const names = [...schema.matchAll(/^ {2}<xs:element name='([a-z-]+)'/gm)].map((match) => match[1] as string)
    expect(names.length).toBeGreaterThan(15)
    const all = pages.flatMap(({ examples }) => examples).join('\n')
    expect(names.filter((name) => !all.includes(`<${name} xmlns='xmq:queue:1'`))).toEqual([])
  })

  test.skipIf(!xmllint)('the schema refuses what the codecs refuse', () => {
    const set = (inner: string): string => `<iq type='set' id='1' to='q'>${inner}</iq>`
    const item = (attrs: string): string => set(`<publish xmlns='xmq:queue:1'><item ${attrs}/></publish>`)
    expect(validate(item("id='1' topic='t'"))).toBe('')
    expect(validate(item("topic='t'"))).toMatch(/id/)
    expect(validate(item("id='1' topic='t' priority='10'"))).toMatch(/priority/)
    expect(validate(item("id='1' topic='t' delay='1e3'"))).toMatch(/delay/)
    // With text instead of items a container may be without them: only the codecs can tell.
    expect(validate(set("<publish xmlns='xmq:queue:1' encoding='zip'>1</publish>"))).toMatch(/encoding/)
    expect(validate(set("<renew xmlns='xmq:queue:1' ttl='60' load='101' credit='1'/>"))).toMatch(/load/)
    expect(validate(set("<settle xmlns='xmq:queue:1'><ack/></settle>"))).toMatch(/lease/)
  })
})
