/**
 * The one error of XMQ: a closed set of codes, and their mapping to the stanza errors of RFC 6120 section 8.3.
 * Callers branch on `code`, never on the text.
 */
import { element, findChild, textOf, type XmlElement } from './element.ts'
import { NS_CLIENT, NS_QUEUE, NS_STANZA_ERROR } from './namespaces.ts'
import { findIllegalCharacter } from './xml-characters.ts'

/** RFC 6120 8.3.2. */
export type StanzaErrorType = 'auth' | 'cancel' | 'continue' | 'modify' | 'wait'

/** RFC 6120 8.3.3. */
export type StanzaErrorCondition =
  | 'bad-request'
  | 'conflict'
  | 'feature-not-implemented'
  | 'forbidden'
  | 'gone'
  | 'internal-server-error'
  | 'item-not-found'
  | 'jid-malformed'
  | 'not-acceptable'
  | 'not-allowed'
  | 'not-authorized'
  | 'policy-violation'
  | 'recipient-unavailable'
  | 'redirect'
  | 'registration-required'
  | 'remote-server-not-found'
  | 'remote-server-timeout'
  | 'resource-constraint'
  | 'service-unavailable'
  | 'subscription-required'
  | 'undefined-condition'
  | 'unexpected-request'

interface CodeRule {
  readonly type: StanzaErrorType
  readonly condition: StanzaErrorCondition
}

/** The closed set of codes of {@link XmqError}; docs/protocol.md "Errors" has the same table. */
export type XmqErrorCode =
  /** A stanza, option or argument is malformed; the text names what, where and how to mend it. */
  | 'bad-request'
  /** The queue's access rules do not let this sender do this. */
  | 'forbidden'
  /** A message or request reached a queue without naming a topic. */
  | 'topic-required'
  /** Nobody eligible is subscribed to the topic. */
  | 'no-recipients'
  /** A payload or stanza is over the size limit, or nests too deep. */
  | 'too-large'
  /** A bound of the broker (subscriptions, topics, open requests) is reached; later it may not be. */
  | 'limit-reached'
  /** The broker is shedding load; try again after `retryAfterSeconds`. */
  | 'overloaded'
  /** The worker, or the broker, did not answer in time. */
  | 'timeout'
  /** The worker's session ended before it answered; whether it did the work is unknown. */
  | 'worker-gone'
  /** A worker's handler threw. */
  | 'handler-failed'
  /** A payload that the topic's schema does not accept. */
  | 'invalid-payload'
  /** The address, subscription, lease or message does not exist (any more). */
  | 'not-found'
  /** The same id was used for something else, or a second broker or session holds what this one wants. */
  | 'conflict'
  /** Something that this address does not do. */
  | 'unsupported'
  /** A fault of the broker itself. */
  | 'internal'
  /** Wrong account or password, or no common SASL mechanism. */
  | 'not-authorized'
  /** No connection to the server, or it ended. */
  | 'connection-lost'
  /** The thing was closed by its owner. */
  | 'closed'
  /** The caller's `AbortSignal` fired. */
  | 'aborted'
  /** A publish that was written but whose confirm never came. */
  | 'unconfirmed'
  /** A configuration or option is wrong. */
  | 'invalid-config'
  /** Text with a character that XML 1.0 cannot carry. */
  | 'illegal-character'
  /** XML that is not well-formed, or not allowed in XMPP (RFC 6120 11.1). */
  | 'malformed-xml'
  /** An error that an XMPP server or another entity answered, not the broker. */
  | 'server'

/** The stanza error that each code becomes on the wire. */
const RULES: Readonly<Record<XmqErrorCode, CodeRule>> = {
  'bad-request': { type: 'modify', condition: 'bad-request' },
  forbidden: { type: 'auth', condition: 'forbidden' },
  'topic-required': { type: 'modify', condition: 'not-acceptable' },
  'no-recipients': { type: 'modify', condition: 'not-acceptable' },
  'too-large': { type: 'modify', condition: 'policy-violation' },
  'limit-reached': { type: 'wait', condition: 'resource-constraint' },
  overloaded: { type: 'wait', condition: 'resource-constraint' },
  timeout: { type: 'wait', condition: 'remote-server-timeout' },
  'worker-gone': { type: 'wait', condition: 'recipient-unavailable' },
  'handler-failed': { type: 'cancel', condition: 'undefined-condition' },
  'invalid-payload': { type: 'modify', condition: 'undefined-condition' },
  'not-found': { type: 'cancel', condition: 'item-not-found' },
  conflict: { type: 'cancel', condition: 'conflict' },
  unsupported: { type: 'cancel', condition: 'service-unavailable' },
  internal: { type: 'wait', condition: 'internal-server-error' },
  'not-authorized': { type: 'auth', condition: 'not-authorized' },
  'connection-lost': { type: 'wait', condition: 'service-unavailable' },
  closed: { type: 'cancel', condition: 'service-unavailable' },
  aborted: { type: 'cancel', condition: 'undefined-condition' },
  unconfirmed: { type: 'wait', condition: 'remote-server-timeout' },
  'invalid-config': { type: 'modify', condition: 'bad-request' },
  'illegal-character': { type: 'modify', condition: 'bad-request' },
  'malformed-xml': { type: 'cancel', condition: 'bad-request' },
  server: { type: 'cancel', condition: 'undefined-condition' },
}

/** All codes, in documentation order. */
export const XMQ_ERROR_CODES: readonly XmqErrorCode[] = Object.freeze(Object.keys(RULES) as XmqErrorCode[])

const CODES: ReadonlySet<string> = new Set(XMQ_ERROR_CODES)
const CONDITIONS: ReadonlySet<string> = new Set<StanzaErrorCondition>([
  'bad-request',
  'conflict',
  'feature-not-implemented',
  'forbidden',
  'gone',
  'internal-server-error',
  'item-not-found',
  'jid-malformed',
  'not-acceptable',
  'not-allowed',
  'not-authorized',
  'policy-violation',
  'recipient-unavailable',
  'redirect',
  'registration-required',
  'remote-server-not-found',
  'remote-server-timeout',
  'resource-constraint',
  'service-unavailable',
  'subscription-required',
  'undefined-condition',
  'unexpected-request',
])
const TYPES: ReadonlySet<string> = new Set<StanzaErrorType>(['auth', 'cancel', 'continue', 'modify', 'wait'])

/** What an {@link XmqError} may carry besides code and text. */
export interface XmqErrorOptions {
  readonly cause?: unknown
  /** Overrides the code's own condition (RFC 6120 8.3.3). */
  readonly condition?: StanzaErrorCondition
  /** Overrides the code's own type (RFC 6120 8.3.2). */
  readonly type?: StanzaErrorType
  /** Seconds after which a try may succeed. */
  readonly retryAfterSeconds?: number
  /** True when the error came off the wire with a `<failure xmlns='xmq:queue:1'/>`: a broker said it, not a server. */
  readonly fromBroker?: boolean
}

/** Every failure that XMQ reports. `code` is stable; `message` is for people. */
export class XmqError extends Error {
  override readonly name = 'XmqError'
  readonly code: XmqErrorCode
  readonly condition: StanzaErrorCondition
  readonly type: StanzaErrorType
  readonly retryAfterSeconds: number | undefined
  readonly fromBroker: boolean

  constructor(code: XmqErrorCode, message: string, options: XmqErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.condition = options.condition ?? RULES[code].condition
    this.type = options.type ?? RULES[code].type
    this.retryAfterSeconds = options.retryAfterSeconds
    this.fromBroker = options.fromBroker ?? false
  }

  /** Any thrown value as an `XmqError`; one that is already is returned as it is. */
  static from(value: unknown, code: XmqErrorCode = 'internal'): XmqError {
    if (value instanceof XmqError) return value
    if (value instanceof Error) return new XmqError(code, value.message, { cause: value })
    return new XmqError(code, String(value), { cause: value })
  }
}

/** Longest error text that is sent, in UTF-16 units: some messages quote all of what was wrong. */
const TEXT_LENGTH_MAX = 2000

/**
 * `<error/>` for a stanza of type `error`, as docs/protocol.md "Errors" draws it. Its text can always be written.
 * @param isTerse without the text
 */
export function encodeError(error: XmqError, isTerse = false): XmlElement {
  const failure = element('failure', NS_QUEUE, {
    code: error.code,
    'retry-after': error.retryAfterSeconds === undefined ? undefined : String(Math.ceil(error.retryAfterSeconds)),
  })
  return element('error', NS_CLIENT, { type: error.type }, [
    element(error.condition, NS_STANZA_ERROR),
    isTerse ? undefined : element('text', NS_STANZA_ERROR, undefined, [sendableText(error.message)]),
    failure,
  ])
}

/**
 * The error inside a stanza of type `error`. Without a `<failure/>` a server answered, or mod_xmq, and the code is
 * derived from the condition: mod_xmq's two texts of `not-acceptable` become `no-recipients` and `topic-required`.
 * Total: a stanza without a readable `<error/>` becomes `server`.
 */
export function decodeError(stanza: XmlElement): XmqError {
  const error = findChild(stanza, 'error')
  if (error === undefined) return new XmqError('server', 'An error without an <error/> element was received')
  const text = findChild(error, 'text', NS_STANZA_ERROR)
  const named = error.children.find(
    (child): child is XmlElement =>
      typeof child !== 'string' && child.ns === NS_STANZA_ERROR && CONDITIONS.has(child.name),
  )
  const condition = (named?.name ?? 'undefined-condition') as StanzaErrorCondition
  const typeText = error.attrs.get('type') ?? 'cancel'
  const type = (TYPES.has(typeText) ? typeText : 'cancel') as StanzaErrorType
  const failure = findChild(error, 'failure', NS_QUEUE)
  const code = failure?.attrs.get('code')
  const message = text === undefined ? textFor(code, condition) : textOf(text)
  if (failure === undefined) return new XmqError(codeOfServerError(condition, message), message, { condition, type })
  const retryAfter = failure.attrs.get('retry-after') ?? ''
  return new XmqError(code !== undefined && CODES.has(code) ? (code as XmqErrorCode) : 'server', message, {
    condition,
    type,
    fromBroker: true,
    ...(/^\d{1,9}$/.test(retryAfter) ? { retryAfterSeconds: Number(retryAfter) } : {}),
  })
}

/** What is said to people where no text came along. */
function textFor(code: string | undefined, condition: StanzaErrorCondition): string {
  return code === 'overloaded' ? 'The broker has too much to do now. Try again later.' : condition
}

function codeOfServerError(condition: StanzaErrorCondition, text: string): XmqErrorCode {
  if (condition === 'not-acceptable' && text === 'No recipients found') return 'no-recipients'
  if (condition === 'not-acceptable' && text === 'XMQ topic not found') return 'topic-required'
  if (condition === 'forbidden') return 'forbidden'
  return 'server'
}

/** An error must not fail for its own text: characters that XML cannot carry are replaced, what is too long is cut. */
function sendableText(text: string): string {
  let sendable = text.length > TEXT_LENGTH_MAX ? `${text.slice(0, TEXT_LENGTH_MAX)}…` : text
  for (let illegal = findIllegalCharacter(sendable); illegal !== undefined; illegal = findIllegalCharacter(sendable)) {
    sendable = `${sendable.slice(0, illegal.index)}\ufffd${sendable.slice(illegal.index + 1)}`
  }
  return sendable
}
