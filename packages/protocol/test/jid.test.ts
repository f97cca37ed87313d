/** Addresses: RFC 7622 section 3, its examples in section 3.5. */
import { bareOf, domainOf, formatBareJid, formatJid, parseJid, sameJid, tryParseJid } from '@xmq/protocol'
import { describe, expect, test } from 'vitest'

describe('an address', () => {
  test.each([
    // RFC 7622 table 1.
    ['juliet@example.com', 'juliet', 'example.com', ''],
    ['juliet@example.com/foo', 'juliet', 'example.com', 'foo'],
    ['juliet@example.com/foo bar', 'juliet', 'example.com', 'foo bar'],
    ['juliet@example.com/foo@bar', 'juliet', 'example.com', 'foo@bar'],
    ['foo\\20bar@example.com', 'foo\\20bar', 'example.com', ''],
    ['fussball@example.com', 'fussball', 'example.com', ''],
    ['fußball@example.com', 'fußball', 'example.com', ''],
    ['π@example.com', 'π', 'example.com', ''],
    ['Σ@example.com/foo', 'σ', 'example.com', 'foo'],
    ['ς@example.com/foo', 'ς', 'example.com', 'foo'],
    ['king@example.com/♚', 'king', 'example.com', '♚'],
    ['example.com', '', 'example.com', ''],
    ['example.com/foobar', '', 'example.com', 'foobar'],
    ['a.example.com/b@example.net', '', 'a.example.com', 'b@example.net'],
    // Local part and domain in lower case, the resource as it is, a last dot of the domain gone.
    ['Juliet@Example.COM/Balcony', 'juliet', 'example.com', 'Balcony'],
    ['juliet@example.com./a/b', 'juliet', 'example.com', 'a/b'],
    ['user@[::1]', 'user', '[::1]', ''],
    ['user@127.0.0.1/x', 'user', '127.0.0.1', 'x'],
    ['a@b/\'"<>&:', 'a', 'b', '\'"<>&:'],
    ['__proto__@constructor', '__proto__', 'constructor', ''],
    // The PRECIS profiles are the server's: these it would refuse.
    ['henryⅣ@example.com', 'henryⅳ', 'example.com', ''],
    ['♚@example.com', '♚', 'example.com', ''],
    ['juliet@example.com/ foo', 'juliet', 'example.com', ' foo'],
  ])('%s', (text, local, domain, resource) => {
    expect(parseJid(text)).toEqual({ local, domain, resource })
    expect(parseJid(formatJid(parseJid(text)))).toEqual({ local, domain, resource })
    expect(formatBareJid(parseJid(text))).toBe(local === '' ? domain : `${local}@${domain}`)
    expect(sameJid(text, formatJid({ local, domain, resource }))).toBe(true)
  })

  test.each([
    // RFC 7622 table 2.
    ['"juliet"@example.com', "part before '@'"],
    ['foo bar@example.com', "part before '@'"],
    ['@example.com', "nothing stands before '@'"],
    ['@example.com/', "nothing stands before '@'"],
    ['juliet@', 'no domain'],
    ['/foobar', 'no domain'],
    ['', 'no domain'],
    ['juliet@example.com/', "nothing stands after '/'"],
    ["o'hara@example.com", "part before '@'"],
    ['a&b@example.com', "part before '@'"],
    ['a:b@example.com', "part before '@'"],
    ['a<b@example.com', "part before '@'"],
    ['a\u00a0b@example.com', "part before '@'"],
    ['a\u0000b@example.com', "part before '@'"],
    ['a@b@c', 'domain has a character'],
    ['exa mple.com', 'domain has a character'],
    ['example..com', 'empty label'],
    ['.example.com', 'empty label'],
    ['a@b/c\nd', 'control character'],
    [`${'a'.repeat(1024)}@b`, 'longer than 1023 bytes'],
    [`a@${'é'.repeat(512)}`, 'longer than 1023 bytes'],
    [`a@b/${'你'.repeat(342)}`, 'longer than 1023 bytes'],
  ])('%j is refused', (text, cause) => {
    expect(() => parseJid(text)).toThrow(cause)
    expect(() => parseJid(text)).toThrow(expect.objectContaining({ code: 'bad-request', condition: 'jid-malformed' }))
    expect(tryParseJid(text)).toBeUndefined()
  })

  test('of 1023 bytes a part is the longest', () => {
    expect(parseJid(`${'a'.repeat(1023)}@${'b'.repeat(1023)}/${'你'.repeat(341)}`).local).toHaveLength(1023)
  })

  test('in an error is short and printable', () => {
    expect(() => parseJid(`\u0007${'x'.repeat(5000)} @b`)).toThrow(/^'\ufffdx{79}…' is not an XMPP address/)
  })
})

test.each([
  ['a@b/c', 'a@b', 'b'],
  ['a@b', 'a@b', 'b'],
  ['b/x@y', 'b', 'b'],
  ['b', 'b', 'b'],
])('bare address and domain of %s, unparsed', (text, bare, domain) => {
  expect(bareOf(text)).toBe(bare)
  expect(domainOf(text)).toBe(domain)
})

test.each([
  ['A@B/c', 'a@b/c', true],
  ['a@b/C', 'a@b/c', false],
  ['a@b', 'a@b/c', false],
  ['b', 'a@b', false],
  ['b.', 'B', true],
  ['not an address', 'not an address', true],
  ['not an address', 'other', false],
])('%s and %s are the same: %s', (left, right, same) => {
  expect(sameJid(left, right)).toBe(same)
  expect(sameJid(right, left)).toBe(same)
})
