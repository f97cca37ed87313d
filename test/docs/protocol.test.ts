/** docs/protocol.md is true: its examples are well-formed and valid, its error table is the code's. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { XMQ_ERROR_CODES, XmqError, decodeCommand, decodeRequest, isStanza, parseElement } from '@xmq/protocol'
import { describe, expect, test } from 'vitest'

const root = new URL('../../', import.meta.url)
const page = readFileSync(new URL('docs/protocol.md', root), 'utf8')
const examples = [...page.matchAll(/```xml\n([\s\S]*?)```/g)].map((match) => match[1] as string)
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

describe('docs/protocol.md', () => {
  test('has examples', () => expect(examples.length).toBeGreaterThan(10))

  test.each(examples.map((xml) => [xml.split('\n')[0], xml]))('%s is a stanza that our codecs read', (_, xml) => {
    const stanza = parseElement(xml.trim())
    expect(isStanza(stanza)).toBe(true)
    const command = stanza.children.find((child) => typeof child !== 'string' && child.ns === 'xmq:command')
    if (command !== undefined && typeof command !== 'string') expect(decodeCommand(command).topic).not.toBe('')
    if (stanza.name === 'iq' && /^(get|set)$/.test(stanza.attrs.get('type') ?? '')) decodeRequest(stanza)
  })

  test.skipIf(!xmllint && process.env['XMQ_REQUIRE_SERVERS'] !== '1' && process.env['CI'] !== 'true')(
    'every example is valid by docs/schema',
    () => {
      for (const xml of examples) expect(validate(xml.trim()), xml).toBe('')
    },
  )

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
