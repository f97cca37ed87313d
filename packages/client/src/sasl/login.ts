/**
 * Logging in over one stream (RFC 6120 6). Owner: one connection, between its features and its restart.
 *
 *     started --challenge--> answering --response--> started --success, verified--> done
 *     any --failure, problem--> thrown
 *
 * Invariants:
 * 1. PLAIN only where `confidential`.
 * 2. One mechanism is tried, the best that both sides have: a refusal never leads to a weaker one, which would show the
 *    password to whoever refuses.
 * 3. `done` only after the exchange is content with what the server proved.
 */
import { childElements, element, findChild, NS_SASL, textOf, type XmlElement, XmqError } from '@xmq/protocol'
import { saslFailure, type Target } from '../failure.ts'
import { type Bytes, fromBase64, type SaslExchange, SaslProblem, toBase64 } from './exchange.ts'
import { createAnonymous, createPlain } from './plain.ts'
import { canScram, createScram, type ScramHash } from './scram.ts'

/** Who logs in; `undefined` in place of it is anonymous. */
export interface Credentials {
  readonly username: string
  /** As SASLprep leaves it. */
  readonly password: string
}

/** What a login works with. */
export interface LoginOptions {
  readonly credentials: Credentials | undefined
  /** Whether nobody can listen: through TLS, or on loopback. */
  readonly confidential: boolean
  readonly target: Target
  write(sent: XmlElement): void
}

/** SCRAM from before anybody cared: what RFC 5802 and 7677 ask for at least. */
const ROUNDS_MIN_IN_THE_OPEN = 4096
const TEXT_LENGTH_MAX = 300

/** The mechanisms in `<stream:features/>`, `undefined` where there is no SASL. */
export function offeredMechanisms(features: XmlElement): readonly string[] | undefined {
  const mechanisms = findChild(features, 'mechanisms', NS_SASL)
  return mechanisms && childElements(mechanisms).map((mechanism) => textOf(mechanism).trim())
}

/** One negotiation. */
export class Login {
  readonly #options: LoginOptions
  readonly #exchange: SaslExchange
  #answering = false

  /** Picks a mechanism and sends its first message. @throws XmqError `not-authorized` when none fits */
  constructor(offered: readonly string[], options: LoginOptions) {
    this.#options = options
    this.#exchange = pickMechanism(offered, options)
    const { mechanism } = this.#exchange
    options.write(element('auth', NS_SASL, { mechanism }, [toBase64(this.#exchange.first())]))
  }

  /**
   * What the server answers. Resolves to whether that was the end: logged in.
   * @throws XmqError `not-authorized`, `connection-lost` when the server cannot tell at the moment
   */
  async handle(answer: XmlElement): Promise<boolean> {
    try {
      return await this.#answer(answer)
    } catch (error) {
      if (!(error instanceof SaslProblem)) throw error
      const { domain, account, service } = this.#options.target
      const text =
        `The login of ${account} was broken off: ${error.message}. Either ${domain} is misconfigured, or what answers at ` +
        `${service} is not ${domain}.`
      throw new XmqError('not-authorized', text, { cause: error })
    }
  }

  async #answer(answer: XmlElement): Promise<boolean> {
    if (answer.ns !== NS_SASL) throw new SaslProblem(`<${answer.name}/> came in the middle of it`)
    if (answer.name === 'failure') throw this.#failure(answer)
    // Whoever does not wait for answers is no server.
    if (this.#answering) throw new SaslProblem(`<${answer.name}/> came out of turn`)
    if (answer.name === 'success') {
      this.#exchange.finish(dataOf(answer))
      return true
    }
    if (answer.name !== 'challenge') throw new SaslProblem(`<${answer.name}/> is unknown`)
    this.#answering = true
    const response = await this.#exchange.respond(dataOf(answer) ?? new Uint8Array(0))
    this.#answering = false
    this.#options.write(element('response', NS_SASL, undefined, [toBase64(response)]))
    return false
  }

  #failure(failure: XmlElement): XmqError {
    const children = childElements(failure)
    const condition = children.find((child) => child.name !== 'text')?.name ?? ''
    const text = children.find((child) => child.name === 'text')
    return saslFailure(condition, text === undefined ? '' : oneLine(textOf(text)), this.#options.target)
  }
}

/** A server's words, fit for the middle of ours. */
function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim().slice(0, TEXT_LENGTH_MAX)
}

/** `=` stands for no bytes, nothing for no data (RFC 6120 6.4.2). */
function dataOf(answer: XmlElement): Bytes | undefined {
  const text = textOf(answer).trim()
  if (text === '') return undefined
  return text === '=' ? new Uint8Array(0) : fromBase64(text)
}

const SCRAM_HASHES: readonly ScramHash[] = ['SHA-256', 'SHA-1']

function pickMechanism(offered: readonly string[], options: LoginOptions): SaslExchange {
  const { credentials, confidential, target } = options
  if (credentials === undefined) {
    if (offered.includes('ANONYMOUS')) return createAnonymous()
    const text = `${target.domain} takes no anonymous users. Give a 'jid' with a user name, and its 'password'.`
    throw new XmqError('not-authorized', text)
  }
  const hash = SCRAM_HASHES.find((each) => offered.includes(`SCRAM-${each}`))
  if (hash !== undefined && canScram()) {
    return createScram({ hash, ...credentials, roundsMin: confidential ? 1 : ROUNDS_MIN_IN_THE_OPEN })
  }
  if (!offered.includes('PLAIN')) {
    const text = `${target.service} offers no SASL mechanism that this client speaks (SCRAM-SHA-256, SCRAM-SHA-1, PLAIN).`
    throw new XmqError('not-authorized', text)
  }
  if (confidential) return createPlain(credentials.username, credentials.password)
  const text = `${target.service} wants the password in the clear and offers no TLS: not sent. Set up TLS on the server.`
  throw new XmqError('not-authorized', text)
}
