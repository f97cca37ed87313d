/**
 * The accounts of the embedded server. Sole owner of names and passwords.
 *
 * How `registerOnLogin` fits mechanisms that never show the password:
 * 1. Mechanisms are offered before the account is known, so SCRAM-SHA-1 and PLAIN are both offered; PLAIN makes the account.
 * 2. A client that names its account in the stream header (`from`, RFC 6120 4.7.1) gets the offer for that account: only
 *    PLAIN while it does not exist. xmpp.js does so on a socket that it calls secure, which ws://localhost is to it.
 * 3. SCRAM for an unknown account fails with `not-authorized` and a text that says to use PLAIN once; the client may try
 *    PLAIN on the same stream (RFC 6120 6.4.5).
 * 4. For clients that know only SCRAM: the proof of an unknown account is checked against a few passwords that can be
 *    guessed, the account's own name and `registerPasswords`. If one fits, the account is made with it.
 *
 * Invariants:
 * 1. Names are lower-cased local parts (RFC 7622).
 * 2. Passwords are as SASLprep leaves them (RFC 4013), and compared so.
 * 3. Keys are derived once for each password, at the first SCRAM login.
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto'
import { parseJid, saslPrep, XmqError } from '@xmq/protocol'
import type { ServerRules } from './options.ts'

/** What SCRAM-SHA-1 needs of an account (RFC 5802 3). */
export interface ScramKeys {
  readonly password: string
  readonly storedKey: Buffer
  readonly serverKey: Buffer
}

/** What a SCRAM exchange of one account works with: the keys, any of which may fit the proof. */
export interface ScramOffer {
  readonly salt: Buffer
  readonly iterations: number
  readonly candidates: readonly ScramKeys[]
}

interface Account {
  readonly password: string
  offer: ScramOffer | undefined
}

const ACCOUNTS_MAX = 100_000
const PASSWORD_BYTES_MAX = 1023

/** The account table. */
export class Accounts {
  /** Whether a login may make its account. */
  readonly registerOnLogin: boolean
  readonly #accounts = new Map<string, Account>()
  readonly #onRegister: (user: string, password: string) => void
  readonly #registerPasswords: readonly string[]
  readonly #iterations: number
  readonly #fakeSaltKey = randomBytes(16)

  constructor(rules: ServerRules) {
    this.registerOnLogin = rules.registerOnLogin
    this.#onRegister = rules.onRegister
    this.#registerPasswords = rules.registerPasswords
    this.#iterations = rules.scramIterations
    for (const [user, password] of rules.accounts) this.#set(user, password)
  }

  has(user: string): boolean {
    return this.#accounts.has(user)
  }

  /**
   * Makes an account or changes its password.
   * @throws XmqError `bad-request` on a name or password that no account can have, `limit-reached` when the table is full
   */
  register(user: string, password: string): void {
    this.#set(user, password)
    this.#onRegister(user.toLowerCase(), password)
  }

  #set(user: string, password: string): void {
    const { local, resource } = parseJid(`${user}@localhost`)
    if (local === '' || resource !== '') throw new XmqError('bad-request', `'${user}' is no account name.`)
    if (password === '' || Buffer.byteLength(password) > PASSWORD_BYTES_MAX || password.includes('\0')) {
      throw new XmqError(
        'bad-request',
        `The password of '${local}' is empty, has a NUL, or is over ${PASSWORD_BYTES_MAX} bytes.`,
      )
    }
    if (!this.#accounts.has(local) && this.#accounts.size >= ACCOUNTS_MAX) {
      throw new XmqError('limit-reached', `There are ${ACCOUNTS_MAX} accounts already; remove some first.`)
    }
    this.#accounts.set(local, { password: saslPrep(password, `The password of '${local}'`), offer: undefined })
  }

  /** Whether that is the account's password; an unknown account is made of it where logins may. */
  verifyPassword(user: string, password: string): boolean {
    const account = this.#accounts.get(user)
    if (account !== undefined) return isSamePassword(account.password, password)
    return this.registerOnLogin && this.#tryRegister(user, password)
  }

  /** The keys of an account, or keys that nothing fits, so that names cannot be probed. */
  scramOffer(user: string): ScramOffer {
    const account = this.#accounts.get(user)
    if (account !== undefined) {
      account.offer ??= this.#createOffer(randomBytes(16), [account.password])
      return account.offer
    }
    const guesses = this.registerOnLogin ? [user, ...this.#registerPasswords] : [randomBytes(16).toString('hex')]
    return this.#createOffer(hmac(this.#fakeSaltKey, user).subarray(0, 16), guesses)
  }

  /** After a proof that fitted one of {@link scramOffer}: makes the account if there is none. False when it cannot be made. */
  admitProven(user: string, keys: ScramKeys): boolean {
    if (this.#accounts.has(user)) return true
    return this.registerOnLogin && this.#tryRegister(user, keys.password)
  }

  #createOffer(salt: Buffer, passwords: readonly string[]): ScramOffer {
    const iterations = this.#iterations
    return { salt, iterations, candidates: passwords.map((password) => deriveKeys(password, salt, iterations)) }
  }

  #tryRegister(user: string, password: string): boolean {
    try {
      this.register(user, password)
      return true
    } catch {
      return false
    }
  }
}

function deriveKeys(password: string, salt: Buffer, iterations: number): ScramKeys {
  const salted = pbkdf2Sync(password, salt, iterations, 20, 'sha1')
  const storedKey = createHash('sha1').update(hmac(salted, 'Client Key')).digest()
  return { password, storedKey, serverKey: hmac(salted, 'Server Key') }
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha1', key).update(text).digest()
}

/** @param given as it came: a client may leave SASLprep to the server (RFC 4616 2) */
function isSamePassword(known: string, given: string): boolean {
  try {
    return sameText(known, saslPrep(given, 'password'))
  } catch {
    return false
  }
}

function sameText(left: string, right: string): boolean {
  const a = createHash('sha256').update(left).digest()
  const b = createHash('sha256').update(right).digest()
  return timingSafeEqual(a, b)
}
