/**
 * SASL as the server speaks it: PLAIN (RFC 4616), SCRAM-SHA-1 (RFC 5802, without channel binding) and ANONYMOUS (RFC 4505).
 * One exchange owns the state of one attempt.
 */
import { isUtf8 } from 'node:buffer'
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { tryParseJid } from '@xmq/protocol'
import type { Accounts, ScramKeys, ScramOffer } from './accounts.ts'

/** The mechanisms that the embedded server knows, the preferred one first. */
export type SaslMechanism = 'SCRAM-SHA-1' | 'PLAIN' | 'ANONYMOUS'

/** RFC 6120 6.5. */
export type SaslFailure =
  | 'aborted'
  | 'incorrect-encoding'
  | 'invalid-authzid'
  | 'invalid-mechanism'
  | 'malformed-request'
  | 'not-authorized'

/** What the server says next. */
export type SaslStep =
  | { readonly type: 'challenge'; readonly data: Buffer }
  | { readonly type: 'success'; readonly user: string; readonly data?: Buffer }
  | { readonly type: 'failure'; readonly condition: SaslFailure; readonly text: string }

/** One attempt. `step` takes what the client sent, decoded; empty when it sent nothing. */
export interface SaslExchange {
  step(data: Buffer): SaslStep
}

/** The mechanisms to offer on a domain; `announced` is the local part of the stream header's `from`, if any. */
export function offeredMechanisms(
  accounts: Accounts,
  anonymous: boolean,
  announced: string | undefined,
): SaslMechanism[] {
  if (anonymous) return ['ANONYMOUS']
  const unknown = announced !== undefined && announced !== '' && !accounts.has(announced)
  return accounts.registerOnLogin && unknown ? ['PLAIN'] : ['SCRAM-SHA-1', 'PLAIN']
}

/** Begins an attempt. */
export function createExchange(mechanism: SaslMechanism, accounts: Accounts, domain: string): SaslExchange {
  switch (mechanism) {
    case 'ANONYMOUS':
      return { step: () => ({ type: 'success', user: randomBytes(8).toString('hex') }) }
    case 'PLAIN':
      return { step: (data) => plainStep(data, accounts, domain) }
    default:
      return createScram(accounts, domain)
  }
}

function plainStep(data: Buffer, accounts: Accounts, domain: string): SaslStep {
  // RFC 4616 2: UTF-8. xmpp.js 0.14 sends Latin-1; a password mangled in silence would never fit again.
  if (!isUtf8(data)) return failure('malformed-request', 'PLAIN is UTF-8; this is not. Use SCRAM-SHA-1, or ASCII.')
  const [authzid, authcid, password, extra] = data.toString('utf8').split('\0')
  if (authzid === undefined || authcid === undefined || password === undefined || extra !== undefined) {
    return failure('malformed-request', 'PLAIN is authzid NUL authcid NUL password.')
  }
  const user = localPart(authcid)
  if (user === undefined) return failure('not-authorized', `'${authcid.slice(0, 80)}' cannot be an account name.`)
  if (!mayActAs(authzid, user, domain)) return failure('invalid-authzid', 'An account can only log in as itself.')
  if (!accounts.verifyPassword(user, password)) return failure('not-authorized', 'Wrong account or password.')
  return { type: 'success', user }
}

type ScramState =
  | { readonly name: 'first' }
  | {
      readonly name: 'final'
      readonly user: string
      readonly gs2: string
      readonly offer: ScramOffer
      readonly nonce: string
      readonly transcript: string
    }
  | { readonly name: 'over' }

function createScram(accounts: Accounts, domain: string): SaslExchange {
  let state: ScramState = { name: 'first' }
  return {
    step(data) {
      const before = state
      state = { name: 'over' }
      if (before.name === 'first') {
        const first = scramFirst(data.toString('utf8'), accounts, domain)
        if (first.state !== undefined) state = first.state
        return first.step
      }
      if (before.name === 'final') return scramFinal(data.toString('utf8'), before, accounts)
      return failure('malformed-request', 'The exchange is over.')
    },
  }
}

function scramFirst(
  message: string,
  accounts: Accounts,
  domain: string,
): { readonly step: SaslStep; readonly state?: ScramState } {
  // gs2-header = (n | y | p=name) "," [a=authzid] "," ; then n=user,r=nonce (RFC 5802 7)
  const match = /^([ny]|p=[^,]*),(?:a=([^,]*))?,(n=([^,]*),r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?)$/s.exec(message)
  if (match === null) return { step: failure('malformed-request', 'Not a SCRAM client-first-message.') }
  const [, binding = '', authzid = '', bare = '', name = '', clientNonce = ''] = match
  if (binding.startsWith('p'))
    return { step: failure('malformed-request', 'Channel binding (SCRAM-SHA-1-PLUS) is not offered.') }
  const user = localPart(unescapeName(name))
  if (user === undefined) return { step: failure('not-authorized', 'The name cannot be an account name.') }
  if (!mayActAs(unescapeName(authzid), user, domain)) {
    return { step: failure('invalid-authzid', 'An account can only log in as itself.') }
  }
  const offer = accounts.scramOffer(user)
  const nonce = clientNonce + randomBytes(18).toString('base64')
  const challenge = `r=${nonce},s=${offer.salt.toString('base64')},i=${offer.iterations}`
  const gs2 = message.slice(0, message.length - bare.length)
  return {
    step: { type: 'challenge', data: Buffer.from(challenge) },
    state: { name: 'final', user, gs2, offer, nonce, transcript: `${bare},${challenge}` },
  }
}

function scramFinal(message: string, state: ScramState & { name: 'final' }, accounts: Accounts): SaslStep {
  const match = /^(c=([A-Za-z0-9+/=]+),r=([^,]+)(?:,[^p].*)?),p=([A-Za-z0-9+/=]+)$/s.exec(message)
  if (match === null) return failure('malformed-request', 'Not a SCRAM client-final-message.')
  const [, withoutProof = '', binding = '', nonce = '', proofText = ''] = match
  if (Buffer.from(binding, 'base64').toString('utf8') !== state.gs2 || nonce !== state.nonce) {
    return failure('not-authorized', 'The nonce or the channel binding does not match.')
  }
  const authMessage = `${state.transcript},${withoutProof}`
  const proof = Buffer.from(proofText, 'base64')
  const proven = state.offer.candidates.find((keys) => isProof(proof, keys, authMessage))
  const known = accounts.has(state.user)
  if (proven === undefined || !accounts.admitProven(state.user, proven)) {
    const hint =
      known || !accounts.registerOnLogin
        ? 'Wrong account or password.'
        : `There is no account '${state.user}' yet. Log in with PLAIN once to make it: SCRAM does not show the server a password.`
    return failure('not-authorized', hint)
  }
  const serverSignature = createHmac('sha1', proven.serverKey).update(authMessage).digest('base64')
  return { type: 'success', user: state.user, data: Buffer.from(`v=${serverSignature}`) }
}

/** RFC 5802 3: the proof is ClientKey XOR ClientSignature, and the stored key is the hash of ClientKey. */
function isProof(proof: Buffer, keys: ScramKeys, authMessage: string): boolean {
  const signature = createHmac('sha1', keys.storedKey).update(authMessage).digest()
  if (proof.length !== signature.length) return false
  const clientKey = proof.map((byte, index) => byte ^ (signature[index] ?? 0))
  return timingSafeEqual(createHash('sha1').update(clientKey).digest(), keys.storedKey)
}

function failure(condition: SaslFailure, text: string): SaslStep {
  return { type: 'failure', condition, text }
}

function unescapeName(name: string): string {
  return name.replaceAll('=2C', ',').replaceAll('=3D', '=')
}

function localPart(name: string): string | undefined {
  const jid = tryParseJid(`${name}@localhost`)
  return jid === undefined || jid.domain !== 'localhost' || jid.resource !== '' || jid.local === ''
    ? undefined
    : jid.local
}

function mayActAs(authzid: string, user: string, domain: string): boolean {
  if (authzid === '') return true
  const jid = tryParseJid(authzid)
  return jid !== undefined && jid.local === user && jid.domain === domain && jid.resource === ''
}
