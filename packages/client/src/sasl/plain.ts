/** The mechanisms of one message: PLAIN (RFC 4616) and ANONYMOUS (RFC 4505). */
import { type Bytes, type SaslExchange, SaslProblem, toBytes } from './exchange.ts'

/** The password in the clear: only where nobody can listen. */
export function createPlain(username: string, password: string): SaslExchange {
  return createSingle('PLAIN', toBytes(`\0${username}\0${password}`))
}

/** No account at all. */
export function createAnonymous(): SaslExchange {
  return createSingle('ANONYMOUS', new Uint8Array(0))
}

function createSingle(mechanism: string, first: Bytes): SaslExchange {
  return {
    mechanism,
    first: () => first,
    respond: () => Promise.reject(new SaslProblem(`the server sent a challenge, which ${mechanism} does not have`)),
    finish: () => {},
  }
}
