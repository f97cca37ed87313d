/** Options of clients and workers: validated once, into a new frozen object. */
import { CREDIT_MAX, formatBareJid, formatJid, parseJid, saslPrep, TTL_SECONDS_MAX, XmqError } from '@xmq/protocol'
import { platform } from '#platform'
import { type Duration, parseDuration } from './duration.ts'
import { assertOptions, type OptionNames } from './known-options.ts'
import type { Mode, SessionRules } from './session/index.ts'
import { isLoopback, type TlsPolicy, type TransportOptions } from './transport.ts'

/** How and as whom to connect, and to which queue. */
export interface ConnectionOptions {
  /**
   * Where the XMPP server is: `xmpp://host:5222` (with STARTTLS), `xmpps://host:5223` (TLS from the start), `ws://…` or
   * `wss://…` (RFC 7395). Browsers have the last two only.
   */
  readonly service: string
  /** The account, without a resource: `shop@example.org`. A domain alone logs in anonymously. */
  readonly jid: string
  /** The account's password. */
  readonly password?: string
  /** The queue's address: `jobs.example.org`, or `orders@xmq.example.org`. */
  readonly queue: string
  /**
   * How the queue is spoken to. `auto` asks it; `reliable` confirms, leases and redelivers; `plain` is at most once;
   * `mod_xmq` is the original module, also for queues with `preserveFrom`, whose deliveries come from the producers
   * themselves.
   * @default 'auto'
   */
  readonly mode?: 'auto' | Mode
  /**
   * `auto`: TLS is required off loopback, and used on loopback where the server asks for it. `required`: always. `off`:
   * never; passwords then go as SCRAM only.
   * @default 'auto'
   */
  readonly tls?: TlsPolicy
  /** Certificate authorities in PEM, in place of the system's. Node only. */
  readonly ca?: string | readonly string[]
  /**
   * Writes each element that is sent or received to standard error, or to a function of your own. Passwords are hidden,
   * payloads are not.
   * @default the environment variable XMQ_DEBUG
   */
  readonly debug?: boolean | ((line: string) => void)
  /** Gives up connecting; after that, closes. */
  readonly signal?: AbortSignal
  /**
   * How long the first connection may take, retries included. A wrong password or certificate fails at once.
   * @default '30s' for connect(), no limit for a Worker
   */
  readonly connectTimeout?: Duration
  /** First and longest pause between two attempts; each is drawn at random from 0 to the pause. @default 500 ms, 30 s */
  readonly backoff?: { readonly base?: Duration; readonly max?: Duration }
  /** How long a queue may take to answer a subscription or a question about itself. @default '10s' */
  readonly answerTimeout?: Duration
  /** After this silence the server is asked for a sign of life. @default '30s' */
  readonly silence?: Duration
}

/** The names of {@link ConnectionOptions}. */
export const CONNECTION_OPTIONS: OptionNames<ConnectionOptions> = {
  service: true,
  jid: true,
  password: true,
  queue: true,
  mode: true,
  tls: true,
  ca: true,
  debug: true,
  signal: true,
  connectTimeout: true,
  backoff: true,
  answerTimeout: true,
  silence: true,
}

const BACKOFF_OPTIONS: OptionNames<NonNullable<ConnectionOptions['backoff']>> = { base: true, max: true }

/** What the runtime needs, complete. */
export interface EndpointConfig {
  readonly transport: Omit<TransportOptions, 'resource'>
  readonly session: SessionRules
  readonly connectTimeoutMs: number | undefined
  readonly signal: AbortSignal | undefined
  readonly queue: string
}

const ATTEMPT_TIMEOUT_MS = 20_000
const PENDING_BYTES_MAX = 64 * 1024 * 1024
const TTL_SECONDS_MIN = 3

const MODES: ReadonlySet<string> = new Set<'auto' | Mode>(['auto', 'reliable', 'plain', 'mod_xmq'])

function isMode(mode: string): mode is 'auto' | Mode {
  return MODES.has(mode)
}

const DEDUPE_WINDOW_MS_MIN = 1000

/** @throws XmqError `invalid-config` */
export function configureEndpoint(
  options: ConnectionOptions & {
    readonly ttl?: Duration
    readonly pendingMax?: number
    readonly publishTimeout?: Duration
    readonly dedupeWindow?: Duration
    readonly credit?: number
  },
  connectTimeout: Duration | undefined,
): EndpointConfig {
  const account = parseAccount(options.jid, options.password)
  const queue = parseQueue(options.queue)
  const service = parseService(options.service, options.tls ?? 'auto')
  const ttlMs = parseDuration(options.ttl ?? '60s', 'ttl')
  const ttlSeconds = Math.round(ttlMs / 1000)
  if (ttlSeconds < TTL_SECONDS_MIN || ttlSeconds > TTL_SECONDS_MAX) {
    throw invalid(`ttl is ${ttlMs} ms; expected 3 seconds to a year.`)
  }
  const mode: string = options.mode ?? 'auto'
  if (!isMode(mode)) {
    throw invalid(`mode is '${mode}'; expected 'auto', 'reliable', 'plain' or 'mod_xmq'.`)
  }
  if (options.backoff !== undefined) assertOptions(options.backoff, BACKOFF_OPTIONS, "'backoff'")
  return Object.freeze({
    transport: Object.freeze({
      service,
      domain: account.domain,
      username: account.username,
      password: account.password,
      tls: options.tls ?? 'auto',
      ca: parseAuthorities(options.ca),
      attemptTimeoutMs: ATTEMPT_TIMEOUT_MS,
      debug: debugOf(options.debug),
    }),
    session: Object.freeze({
      queue,
      domain: account.domain,
      mode,
      ttlSeconds,
      backoffMs: Object.freeze({
        base: parseDuration(options.backoff?.base ?? 500, 'backoff.base'),
        max: parseDuration(options.backoff?.max ?? '30s', 'backoff.max'),
      }),
      answerTimeoutMs: parseDuration(options.answerTimeout ?? '10s', 'answerTimeout'),
      silenceMs: parseDuration(options.silence ?? '30s', 'silence'),
      leaveTimeoutMs: 3000,
      pendingMax: positiveInteger(options.pendingMax ?? 10_000, 'pendingMax'),
      pendingBytesMax: PENDING_BYTES_MAX,
      publishTimeoutMs: parseDuration(options.publishTimeout ?? '30s', 'publishTimeout'),
      dedupeWindowMs: parseWindow(options.dedupeWindow ?? '10m'),
      credit: Math.min(options.credit ?? 0, CREDIT_MAX),
      workerInfo:
        options.credit === undefined ? undefined : Object.freeze({ sdk: '@xmq/client', ...platform.process() }),
    }),
    connectTimeoutMs: connectTimeout === undefined ? undefined : parseDuration(connectTimeout, 'connectTimeout'),
    signal: options.signal,
    queue,
  })
}

function parseWindow(window: Duration): number {
  const ms = parseDuration(window, 'dedupeWindow')
  if (ms >= DEDUPE_WINDOW_MS_MIN) return ms
  throw invalid(`dedupeWindow is ${ms} ms; expected at least ${DEDUPE_WINDOW_MS_MIN}: what the queue's 'dedupe' says.`)
}

/** @throws XmqError `invalid-config` */
export function positiveInteger(value: number, name: string, min = 1): number {
  if (Number.isSafeInteger(value) && value >= min) return value
  throw invalid(`${name} is ${String(value)}; expected a whole number of at least ${min}.`)
}

function invalid(text: string, cause?: unknown): XmqError {
  return new XmqError('invalid-config', text, { cause })
}

function parseAccount(
  jid: string,
  password: string | undefined,
): { domain: string; username: string | undefined; password: string | undefined } {
  const parsed = parseAddress(jid, 'jid')
  if (parsed.resource !== '') {
    throw invalid(`jid is '${jid}'; leave '/${parsed.resource}' out: each connection takes a fresh random resource.`)
  }
  if (parsed.local === '') return { domain: parsed.domain, username: undefined, password: undefined }
  if (typeof password !== 'string') throw invalid(`password is missing for ${formatBareJid(parsed)}.`)
  try {
    return { domain: parsed.domain, username: parsed.local, password: saslPrep(password, 'password') }
  } catch (error) {
    throw invalid(XmqError.from(error).message, error)
  }
}

/** Also where no TLS comes about: the same options may be used where it does. */
function parseAuthorities(ca: ConnectionOptions['ca']): ConnectionOptions['ca'] {
  if (ca === undefined) return undefined
  const texts: readonly unknown[] = typeof ca === 'string' ? [ca] : Array.isArray(ca) ? ca : [undefined]
  for (const text of texts) {
    if (typeof text !== 'string') throw invalid('ca is no text; expected certificate authorities in PEM.')
    const problem = platform.certificatesProblem(text)
    if (problem !== undefined) throw invalid(`ca ${problem}.`)
  }
  return ca
}

function parseQueue(queue: string): string {
  const parsed = parseAddress(queue, 'queue')
  if (parsed.resource !== '')
    throw invalid(`queue is '${queue}'; leave '/${parsed.resource}' out: queues have no resource.`)
  return formatJid(parsed)
}

function parseAddress(text: string, name: string): ReturnType<typeof parseJid> {
  if (typeof text !== 'string' || text === '') throw invalid(`${name} is missing; expected an XMPP address.`)
  try {
    return parseJid(text)
  } catch (error) {
    throw invalid(`${name}: ${XmqError.from(error).message}`, error)
  }
}

function parseService(service: string, tls: TlsPolicy): string {
  if (tls !== 'auto' && tls !== 'required' && tls !== 'off') {
    throw invalid(`tls is '${String(tls)}'; expected 'auto', 'required' or 'off'.`)
  }
  const expected = 'expected xmpp://host:port, xmpps://host:port, ws://… or wss://…'
  const url = typeof service === 'string' && URL.canParse(service) ? new URL(service) : undefined
  if (url === undefined || url.hostname === '') throw invalid(`service is '${service}'; ${expected}.`)
  if (!['xmpp:', 'xmpps:', 'ws:', 'wss:'].includes(url.protocol)) throw invalid(`service is '${service}'; ${expected}.`)
  if (url.username !== '' || url.password !== '') {
    throw invalid("service holds a user or password; give them as 'jid' and 'password'.")
  }
  if (url.protocol === 'ws:' && (tls === 'required' || (tls === 'auto' && !isLoopback(url.hostname)))) {
    throw invalid(
      `service is '${service}', which is open to anybody on the way; use wss://, or accept it with tls: 'off'.`,
    )
  }
  return service
}

function debugOf(debug: ConnectionOptions['debug']): ((line: string) => void) | undefined {
  if (typeof debug === 'function') return debug
  const variable = platform.env('XMQ_DEBUG')
  const on = debug ?? (variable !== undefined && variable !== '' && variable !== '0')
  // Standard error: a program's output stays what it is.
  return on ? (line) => console.error(line) : undefined
}
