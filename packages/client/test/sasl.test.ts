import { element, findChild, NS_SASL, parseElement, textOf, type XmlElement } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { platform as browser } from '../src/platform/browser.ts'
import { platform as node } from '../src/platform/node.ts'
import { type SaslExchange, toBase64, toBytes, toText } from '../src/sasl/exchange.ts'
import { Login, type LoginOptions } from '../src/sasl/login.ts'
import { createScram, type ScramHash } from '../src/sasl/scram.ts'

interface Vector {
  readonly hash: ScramHash
  readonly nonce: string
  readonly challenge: string
  readonly final: string
  readonly signature: string
}

// RFC 5802 section 5 and RFC 7677 section 3: user "user", password "pencil".
const SHA_1: Vector = {
  hash: 'SHA-1',
  nonce: 'fyko+d2lbbFgONRv9qkxdawL',
  challenge: 'r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096',
  final: 'c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=',
  signature: 'v=rmF9pqV8S7suAoZWja4dJRkFsKQ=',
}
const SHA_256: Vector = {
  hash: 'SHA-256',
  nonce: 'rOprNGfwEbeRWgbNEkqO',
  challenge: 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
  final: 'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
  signature: 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
}

function begin({ hash, nonce }: Vector, roundsMin = 4096): SaslExchange {
  return createScram({ hash, username: 'user', password: 'pencil', nonce, roundsMin })
}

describe('SCRAM', () => {
  it.each([SHA_1, SHA_256])('speaks as the RFC shows it, and takes the right signature ($hash)', async (vector) => {
    const exchange = begin(vector)
    expect(exchange.mechanism).toBe(`SCRAM-${vector.hash}`)
    expect(toText(exchange.first())).toBe(`n,,n=user,r=${vector.nonce}`)
    expect(toText(await exchange.respond(toBytes(vector.challenge)))).toBe(vector.final)
    exchange.finish(toBytes(vector.signature))
  })

  it('takes the signature in a last challenge, too', async () => {
    const exchange = begin(SHA_256)
    await exchange.respond(toBytes(SHA_256.challenge))
    expect(await exchange.respond(toBytes(SHA_256.signature))).toHaveLength(0)
    exchange.finish(undefined)
  })

  it.each([
    ['a wrong one', 'v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=', /signature is wrong/],
    ['that of another mechanism', SHA_1.signature, /signature is wrong/],
    ['none', undefined, /did not prove/],
    ['an empty one', 'v=', /signature is wrong/],
    ['an error', 'e=invalid-proof', /gave up: invalid-proof/],
    ['something else', 'hello', /signature is wrong/],
  ])('fails on a success with %s as the signature', async (_name, data, text) => {
    const exchange = begin(SHA_256)
    await exchange.respond(toBytes(SHA_256.challenge))
    expect(() => exchange.finish(data === undefined ? undefined : toBytes(data))).toThrow(text)
  })

  it('fails on a success before any proof', () => {
    expect(() => begin(SHA_1).finish(toBytes(SHA_1.signature))).toThrow(/did not prove/)
    expect(() => begin(SHA_1).finish(undefined)).toThrow(/did not prove/)
  })

  it.each([
    ['r=other,s=QSXCR+Q6sek8bf92,i=4096', /nonce is not ours/],
    [`r=${SHA_1.nonce},s=QSXCR+Q6sek8bf92,i=4096`, /nonce is not ours/],
    [`r=${SHA_1.nonce}x,s=QSXCR+Q6sek8bf92,i=4095`, /4095 rounds.*4096/],
    [`r=${SHA_1.nonce}x,s=QSXCR+Q6sek8bf92,i=2000000000`, /2000000000 rounds/],
    [`r=${SHA_1.nonce}x,s=QSXCR+Q6sek8bf92,i=0`, /malformed/],
    [`r=${SHA_1.nonce}x,s=,i=4096`, /malformed/],
    [`m=must,r=${SHA_1.nonce}x,s=QSXCR+Q6sek8bf92,i=4096`, /malformed/],
  ])('refuses the challenge %s', async (challenge, text) => {
    await expect(begin(SHA_1).respond(toBytes(challenge))).rejects.toThrow(text)
  })

  it('escapes what has a meaning in names', () => {
    const exchange = createScram({ hash: 'SHA-1', username: 'a=b,c', password: 'x', nonce: 'n', roundsMin: 1 })
    expect(toText(exchange.first())).toBe('n,,n=a=3Db=2Cc,r=n')
  })

  it.each(['SHA-1', 'SHA-256'] as const)('derives the same keys in browsers (%s)', async (hash) => {
    const password = toBytes('пароль 🦄')
    const salt = toBytes('salt')
    const key = await browser.pbkdf2(hash, password, salt, 10, 20)
    expect(key).toHaveLength(20)
    expect(key).toEqual(await node.pbkdf2(hash, password, salt, 10, 20))
  })
})

describe('a login', () => {
  const target = { service: 'xmpp://h', domain: 'd', account: 'a@d' }

  function begun(offered: string[], options: Partial<LoginOptions> = {}): { login: Login; sent: XmlElement[] } {
    const sent: XmlElement[] = []
    const login = new Login(offered, {
      credentials: { username: 'a', password: 'pässword' },
      confidential: true,
      target,
      write: (root) => void sent.push(root),
      ...options,
    })
    return { login, sent }
  }

  const mechanismOf = (offered: string[], options: Partial<LoginOptions> = {}): string | undefined =>
    begun(offered, options).sent[0]?.attrs.get('mechanism')

  it('takes the best mechanism that both sides have', () => {
    expect(mechanismOf(['PLAIN', 'SCRAM-SHA-1', 'SCRAM-SHA-256', 'SCRAM-SHA-1-PLUS'])).toBe('SCRAM-SHA-256')
    expect(mechanismOf(['PLAIN', 'X-OAUTH2', 'SCRAM-SHA-1'])).toBe('SCRAM-SHA-1')
    expect(mechanismOf(['DIGEST-MD5', 'PLAIN'])).toBe('PLAIN')
    expect(mechanismOf(['PLAIN', 'ANONYMOUS'], { credentials: undefined })).toBe('ANONYMOUS')
  })

  it('sends the password in the clear only where nobody can listen, and as UTF-8', () => {
    expect(() => begun(['PLAIN'], { confidential: false })).toThrow(/in the clear.*not sent/)
    expect(mechanismOf(['PLAIN', 'SCRAM-SHA-1'], { confidential: false })).toBe('SCRAM-SHA-1')
    const [auth] = begun(['PLAIN']).sent
    expect(Buffer.from(auth === undefined ? '' : textOf(auth), 'base64').toString('utf8')).toBe('\0a\0pässword')
  })

  it('says what it speaks where the server speaks something else', () => {
    expect(() => begun(['X-OAUTH2'])).toThrow(/no SASL mechanism.*SCRAM-SHA-256/)
    expect(() => begun(['ANONYMOUS'])).toThrow(/no SASL mechanism/)
    expect(() => begun(['PLAIN'], { credentials: undefined })).toThrow(/takes no anonymous users/)
  })

  it("passes the server's own words on, on one line", async () => {
    const failure = parseElement(
      `<failure xmlns='${NS_SASL}'><not-authorized/><text xml:lang='en'>Wrong\n  account.</text></failure>`,
    )
    await expect(begun(['PLAIN']).login.handle(failure)).rejects.toMatchObject({
      code: 'not-authorized',
      message: expect.stringMatching(/^d refused the password of a@d\..*The server says: "Wrong account\."$/),
    })
  })

  it('ends on what does not belong there', async () => {
    const sasl = (name: string, data: string): XmlElement => element(name, NS_SASL, undefined, [data])
    for (const answer of [
      element('challenge', 'urn:other'),
      sasl('challenge', toBase64(toBytes('x'))),
      sasl('challenge', '%'),
      sasl('success', ''),
      sasl('riddle', ''),
    ]) {
      await expect(begun(['SCRAM-SHA-1']).login.handle(answer)).rejects.toMatchObject({
        code: 'not-authorized',
        message: expect.stringContaining('The login of a@d was broken off'),
      })
    }
  })

  it('takes nothing while it works out its answer', async () => {
    const { login, sent } = begun(['SCRAM-SHA-1'])
    const first = Buffer.from(textOf(sent[0] ?? element('none', '')), 'base64').toString()
    const challenge = toBase64(toBytes(`r=${first.slice(first.indexOf('r=') + 2)}x,s=c2FsdA==,i=1`))
    const ask = (): Promise<boolean> => login.handle(element('challenge', NS_SASL, undefined, [challenge]))
    const answered = ask()
    await expect(ask()).rejects.toThrow(/out of turn/)
    expect(await answered).toBe(false)
    expect(sent.map((root) => root.name)).toEqual(['auth', 'response'])
    expect(findChild(sent[1] ?? element('none', ''), 'text')).toBeUndefined()
  })
})
