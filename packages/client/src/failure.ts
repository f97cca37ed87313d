/** Why a connection failed, in words that say what to change, and whether another attempt can go better. */
import { XmqError } from '@xmq/protocol'

/** A connection's end. */
export interface Failure {
  readonly error: XmqError
  /** True when trying again without a change cannot help: wrong password, wrong certificate, no TLS. */
  readonly fatal: boolean
}

/** Where a connection was meant to go. */
export interface Target {
  readonly service: string
  readonly domain: string
  readonly account: string
}

/** Sorts whatever xmpp.js, a socket or our own code raised. */
export function failureOf(raised: unknown, target: Target): Failure {
  if (raised instanceof XmqError)
    return { error: raised, fatal: raised.code === 'invalid-config' || raised.code === 'not-authorized' }
  const { name, condition, code, message } = describe(raised)
  if (name === 'StreamError') return streamFailure(condition, message, target, raised)
  const certificate = certificateProblem(code)
  if (certificate !== undefined) {
    const text =
      `The certificate of ${target.domain} at ${target.service} is not trusted: ${certificate} (${code}). ` +
      "Give the authority that signed it with the option 'ca', or have the server present a certificate for its domain."
    return { error: new XmqError('invalid-config', text, { cause: raised }), fatal: true }
  }
  const network = networkProblem(code, target.service)
  const text = network ?? `The connection to ${target.service} failed: ${message}.`
  return { error: new XmqError('connection-lost', text, { cause: raised }), fatal: false }
}

function describe(raised: unknown): { name: string; condition: string; code: string; message: string } {
  if (!(raised instanceof Error)) return { name: '', condition: '', code: '', message: String(raised) }
  const details = raised as Error & { condition?: unknown; code?: unknown; errors?: unknown }
  // "Happy eyeballs" collects one error for each address.
  const first: unknown = Array.isArray(details.errors) ? details.errors[0] : undefined
  const code = details.code ?? (first instanceof Error ? (first as Error & { code?: unknown }).code : undefined)
  return {
    name: raised.name,
    condition: typeof details.condition === 'string' ? details.condition : '',
    code: typeof code === 'string' ? code : '',
    message: (raised.message || (first instanceof Error ? first.message : '') || raised.name).replace(/\.$/, ''),
  }
}

/**
 * A login that the server refused (RFC 6120 6.5).
 * @param said the server's own words, `''` when it gave none
 */
export function saslFailure(condition: string, said: string, target: Target): XmqError {
  const { domain, account } = target
  const quoted = said === '' ? '' : ` The server says: "${said}"`
  if (condition === 'temporary-auth-failure') {
    const text = `${domain} cannot check passwords at the moment (temporary-auth-failure).${quoted}`
    return new XmqError('connection-lost', text)
  }
  const text =
    condition === 'not-authorized'
      ? `${domain} refused the password of ${account}. Check 'jid' and 'password', and that the account exists.`
      : `${domain} refused to log ${account} in: ${condition || 'no reason given'}.`
  return new XmqError('not-authorized', text + quoted)
}

function streamFailure(condition: string, message: string, target: Target, cause: unknown): Failure {
  if (condition === 'host-unknown') {
    const text = `The server at ${target.service} does not serve the domain ${target.domain}. Check the domain in 'jid'.`
    return { error: new XmqError('invalid-config', text, { cause }), fatal: true }
  }
  const text = `The server closed the stream: ${message}.`
  return { error: new XmqError('connection-lost', text, { cause }), fatal: false }
}

function certificateProblem(code: string): string | undefined {
  switch (code) {
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
      return 'it is self-signed'
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
      return 'its authority is unknown'
    case 'CERT_HAS_EXPIRED':
      return 'it has expired'
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return 'it was issued for another name'
    default:
      return code.startsWith('CERT_') ? 'it does not verify' : undefined
  }
}

function networkProblem(code: string, service: string): string | undefined {
  switch (code) {
    case 'ECONNREFUSED':
      return `Nothing listens at ${service} (connection refused). Is the XMPP server running, and the port right?`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `The host name of ${service} cannot be resolved. Check the option 'service'.`
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return `There is no route to ${service}.`
    case 'ETIMEDOUT':
      return `${service} does not answer (timed out). Does a firewall drop the connection?`
    case 'ECONNRESET':
    case 'EPIPE':
      return `The connection to ${service} was reset.`
    default:
      return undefined
  }
}
