/** What every SASL mechanism is to a login, and the bytes between them. RFC 4422, RFC 6120 6.4. */

/** Bytes that WebCrypto takes. */
export type Bytes = Uint8Array<ArrayBuffer>

/** One attempt with one mechanism. All of them let the client speak first. */
export interface SaslExchange {
  readonly mechanism: string
  /** The initial response. */
  first(): Bytes
  /** Answers a challenge. @throws SaslProblem */
  respond(challenge: Bytes): Promise<Bytes>
  /** The server says that the login worked, perhaps with last data. @throws SaslProblem when it did not prove what it has to */
  finish(data: Bytes | undefined): void
}

/** Why an exchange cannot go on, as the middle of a sentence. */
export class SaslProblem extends Error {
  override readonly name = 'SaslProblem'
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Text as UTF-8, which every mechanism here wants. xmpp.js 0.14 sends Latin-1. */
export function toBytes(text: string): Bytes {
  return encoder.encode(text)
}

/** @throws SaslProblem when it is not UTF-8 */
export function toText(bytes: Bytes): string {
  try {
    return decoder.decode(bytes)
  } catch {
    throw new SaslProblem('the server sent a challenge that is not UTF-8')
  }
}

/** Bytes as base64, in any number of them that SASL has. */
export function toBase64(bytes: Bytes): string {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))
}

/** @throws SaslProblem when it is not base64 */
export function fromBase64(text: string): Bytes {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  } catch {
    throw new SaslProblem('the server sent data that is not base64')
  }
}
