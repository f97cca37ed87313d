/**
 * SCRAM as a client speaks it, without channel binding (RFC 5802, RFC 7677). Owner: one login attempt.
 *
 *     begun --server-first--> proved --v= that fits--> verified
 *
 * Invariants:
 * 1. The password never leaves, only the proof.
 * 2. `verified` only after the server's signature: whoever cannot compute it does not know the password either.
 * 3. The server cannot make the key derivation take for ever, nor, where others may listen, make it worthless.
 *
 * xmpp.js 0.14 derives the key from thousands of single HMACs and never looks at the signature.
 */
import { platform } from '#platform'
import { type Bytes, fromBase64, type SaslExchange, SaslProblem, toBase64, toBytes, toText } from './exchange.ts'

/** The hash that a SCRAM mechanism works with. */
export type ScramHash = 'SHA-1' | 'SHA-256'

/** What a login with SCRAM starts from. */
export interface ScramOptions {
  readonly hash: ScramHash
  readonly username: string
  readonly password: string
  /** Least rounds that the server may ask for: fewer would ease guessing for somebody who listens. */
  readonly roundsMin: number
  /** Printable ASCII without a comma, never used twice. @default 24 random characters */
  readonly nonce?: string
}

const KEY_BYTES = { 'SHA-1': 20, 'SHA-256': 32 } as const
/** Well under a second of native code. Servers ask for 4,096 to some 100,000. */
const ROUNDS_MAX = 1_000_000
const SALT_BYTES_MAX = 1024
/** No channel binding, no other identity to act as. */
const GS2_HEADER = 'n,,'

/** Whether this machine can: browsers hide WebCrypto from pages that did not come over https. */
export function canScram(): boolean {
  const { subtle }: { subtle?: SubtleCrypto } = globalThis.crypto
  return subtle !== undefined
}

/** Begins an exchange. */
export function createScram(options: ScramOptions): SaslExchange {
  return new ScramExchange(options)
}

class ScramExchange implements SaslExchange {
  readonly mechanism: string
  readonly #options: ScramOptions
  readonly #nonce: string
  #state: 'begun' | 'deriving' | 'proved' | 'verified' = 'begun'
  #serverSignature: Bytes | undefined

  constructor(options: ScramOptions) {
    this.#options = options
    this.mechanism = `SCRAM-${options.hash}`
    this.#nonce = options.nonce ?? toBase64(globalThis.crypto.getRandomValues(new Uint8Array(18)))
  }

  first(): Bytes {
    return toBytes(`${GS2_HEADER}${this.#firstBare}`)
  }

  async respond(challenge: Bytes): Promise<Bytes> {
    if (this.#state === 'begun') return await this.#prove(toText(challenge))
    // Some servers put their signature into a last challenge, and leave success empty (RFC 6120 6.3.10).
    if (this.#state === 'proved') {
      this.#verify(toText(challenge))
      return new Uint8Array(0)
    }
    throw new SaslProblem('the server sent a challenge out of turn')
  }

  finish(data: Bytes | undefined): void {
    if (data !== undefined && this.#state === 'proved') this.#verify(toText(data))
    if (this.#state !== 'verified') throw new SaslProblem('the server did not prove that it knows the password')
  }

  get #firstBare(): string {
    const name = this.#options.username.replaceAll('=', '=3D').replaceAll(',', '=2C')
    return `n=${name},r=${this.#nonce}`
  }

  async #prove(serverFirst: string): Promise<Bytes> {
    this.#state = 'deriving'
    const { hash, password } = this.#options
    const { nonce, salt, rounds } = this.#readFirst(serverFirst)
    const salted = await platform.pbkdf2(hash, toBytes(password), salt, rounds, KEY_BYTES[hash])
    const withoutProof = `c=${toBase64(toBytes(GS2_HEADER))},r=${nonce}`
    const transcript = `${this.#firstBare},${serverFirst},${withoutProof}`
    const clientKey = await hmac(hash, salted, 'Client Key')
    const storedKey = new Uint8Array(await globalThis.crypto.subtle.digest(hash, clientKey))
    const signature = await hmac(hash, storedKey, transcript)
    const proof = clientKey.map((byte, index) => byte ^ (signature[index] ?? 0))
    this.#serverSignature = await hmac(hash, await hmac(hash, salted, 'Server Key'), transcript)
    this.#state = 'proved'
    return toBytes(`${withoutProof},p=${toBase64(proof)}`)
  }

  #readFirst(text: string): { nonce: string; salt: Bytes; rounds: number } {
    // A mandatory extension (m=) would come first: nobody knows one, so it does not match.
    const match = /^r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/=]+),i=([1-9]\d{0,9})(?:,.*)?$/s.exec(text)
    if (match === null) throw new SaslProblem("the server's SCRAM challenge is malformed")
    const [, nonce = '', saltText = '', roundsText = ''] = match
    if (!nonce.startsWith(this.#nonce) || nonce.length === this.#nonce.length) {
      throw new SaslProblem("the server's SCRAM challenge does not go with this login: its nonce is not ours")
    }
    const rounds = Number(roundsText)
    const { roundsMin } = this.#options
    if (rounds < roundsMin || rounds > ROUNDS_MAX) {
      throw new SaslProblem(`the server asks for ${rounds} rounds of SCRAM; expected ${roundsMin} to ${ROUNDS_MAX}`)
    }
    const salt = fromBase64(saltText)
    if (salt.length > SALT_BYTES_MAX) throw new SaslProblem(`the server's SCRAM salt has ${salt.length} bytes`)
    return { nonce, salt, rounds }
  }

  #verify(serverFinal: string): void {
    const [, kind = '', value = ''] = /^([ve])=([^,]*)(?:,.*)?$/s.exec(serverFinal) ?? []
    if (kind === 'e') throw new SaslProblem(`the server gave up: ${value.slice(0, 100)}`)
    const expected = this.#serverSignature
    if (kind !== 'v' || expected === undefined || !sameBytes(fromBase64(value), expected)) {
      throw new SaslProblem("the server's signature is wrong: it does not know the password")
    }
    this.#state = 'verified'
  }
}

async function hmac(hash: ScramHash, key: Bytes, data: string): Promise<Bytes> {
  const { subtle } = globalThis.crypto
  const imported = await subtle.importKey('raw', key, { name: 'HMAC', hash }, false, ['sign'])
  return new Uint8Array(await subtle.sign('HMAC', imported, toBytes(data)))
}

function sameBytes(left: Bytes, right: Bytes): boolean {
  if (left.length !== right.length) return false
  return left.reduce((difference, byte, index) => difference | (byte ^ (right[index] ?? 0)), 0) === 0
}
