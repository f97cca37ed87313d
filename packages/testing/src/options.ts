/** The options of the embedded server: defaults, checks, and the frozen rules that come out. */
import { parseJid, XmqError } from '@xmq/protocol'

/** Options of {@link startEmbeddedServer}. */
export interface EmbeddedServerOptions {
  /** Address to listen on. Anything but loopback needs {@link allowRemote}. @default '127.0.0.1' */
  readonly host?: string
  /** Listen beyond loopback: there is no TLS, and passwords travel in the clear. @default false */
  readonly allowRemote?: boolean
  /** TCP port for clients, 0 for any free one. @default 0 */
  readonly port?: number
  /** TCP port for components (XEP-0114), 0 for any free one. @default 0 */
  readonly componentPort?: number
  /** Port for WebSocket clients (RFC 7395), 0 for any free one, false for none. @default 0 */
  readonly websocketPort?: number | false
  /** `Origin` headers of web pages that may connect, beside pages served from loopback. @default [] */
  readonly websocketOrigins?: readonly string[]
  /** The server's own domain. @default 'localhost' */
  readonly domain?: string
  /** The domain whose sessions need no account (SASL ANONYMOUS), false for none. @default 'anon.localhost' */
  readonly anonymousDomain?: string | false
  /** The secret of every component. @default 'secret' */
  readonly secret?: string
  /** Passwords by account name. @default {} */
  readonly accounts?: Readonly<Record<string, string>>
  /** Make an unknown account at its first login; see {@link Accounts} for how that fits SCRAM. @default false */
  readonly registerOnLogin?: boolean
  /** Passwords, beside the account's own name, that a SCRAM login may make an account with; at most 8. @default [] */
  readonly registerPasswords?: readonly string[]
  /** Called for each account made after the start, so that it can be saved. */
  readonly onRegister?: (user: string, password: string) => void
  /**
   * Rounds of SCRAM-SHA-1. xmpp.js needs about 250 ms of CPU for 4096, so that suites with many logins want 1; some desktop
   * clients refuse fewer than 4096. @default 4096
   */
  readonly scramIterations?: number
  /** Domains that components may serve; undefined for any. */
  readonly componentDomains?: readonly string[]
  /** A second connection of a component's domain is refused (Prosody) or gets a random share (ejabberd). @default 'refuse' */
  readonly componentConflict?: 'refuse' | 'share'
  /**
   * What a stanza to a component that is not there earns: `remote-server-not-found` (ejabberd), or
   * `remote-server-timeout` (Prosody; for domains declared or connected once). @default 'not-found'
   */
  readonly absentComponent?: 'not-found' | 'timeout'
  /** Refuse an IQ get or set that has not exactly one child, as Prosody does. @default false (ejabberd) */
  readonly strictIq?: boolean
  /** Send a replaced session's `unavailable` after its successor's first presence, as ejabberd often does. @default false */
  readonly lateUnavailable?: boolean
  /** Queue domains that the server itself serves as mod_xmq does, faults included; a type other than these two never answers. */
  readonly modXmq?: Readonly<Record<string, 'any' | 'all' | (string & {})>>
  /** Most bytes of a client's stanza; one more closes its stream. @default 262144 */
  readonly stanzaBytesMax?: number
  /** Most bytes of a component's stanza; one more closes its stream. @default 524288 */
  readonly componentStanzaBytesMax?: number
  /** Most bytes that wait for one peer that does not read; beyond, it is cut off. @default 67108864 */
  readonly outboundBytesMax?: number
  /** Most bytes a second that are read of one TCP client, after a first second's worth; a shaper, as real servers have. @default none */
  readonly clientBytesPerSecond?: number
  /**
   * How often in a second a component may tell a client to wait (errors of type `wait`) before the client is read slower: one
   * that is told so more often goes on writing. It is not read for a second at most after each of them, and may have 500
   * requests unanswered for half a minute; false reads on whatever comes.
   * @default 100
   */
  readonly clientRefusalsPerSecond?: number | false
  /** Most connections at once, of every kind. @default 2000 */
  readonly connectionsMax?: number
  /** Receives one line for each thing worth knowing. @default none */
  readonly log?: (line: string) => void
  /** Wall clock in milliseconds, for mod_xmq's ttl. @default Date.now */
  readonly now?: () => number
  /** Numbers in [0, 1), for the share of components. @default Math.random */
  readonly random?: () => number
}

/** The options, checked and filled in. */
export interface ServerRules {
  readonly host: string
  readonly port: number
  readonly componentPort: number
  readonly websocketPort: number | false
  readonly websocketOrigins: readonly string[]
  readonly domain: string
  readonly anonymousDomain: string | false
  readonly secret: string
  readonly accounts: ReadonlyMap<string, string>
  readonly registerOnLogin: boolean
  readonly registerPasswords: readonly string[]
  readonly onRegister: (user: string, password: string) => void
  readonly scramIterations: number
  readonly componentDomains: readonly string[] | undefined
  readonly componentConflict: 'refuse' | 'share'
  readonly absentComponent: 'not-found' | 'timeout'
  readonly strictIq: boolean
  readonly lateUnavailable: boolean
  readonly modXmq: ReadonlyMap<string, string>
  readonly stanzaBytesMax: number
  readonly componentStanzaBytesMax: number
  readonly outboundBytesMax: number
  /** Infinity: no shaper. */
  readonly clientBytesPerSecond: number
  /** Infinity: nobody is held. */
  readonly clientRefusalsPerSecond: number
  readonly connectionsMax: number
  readonly log: (line: string) => void
  readonly now: () => number
  readonly random: () => number
}

/** Checks the options and fills in the defaults. @throws XmqError `invalid-config` */
export function parseServerOptions(options: EmbeddedServerOptions): ServerRules {
  const host = options.host ?? '127.0.0.1'
  if (!isLoopback(host) && options.allowRemote !== true) {
    throw invalid(
      `host '${host}' is not loopback: the embedded server has no TLS and is not for production. ` +
        'Use 127.0.0.1, or pass allowRemote: true if you really want it.',
    )
  }
  const domain = domainOption('domain', options.domain ?? 'localhost')
  const anonymousDomain =
    options.anonymousDomain === false
      ? false
      : domainOption('anonymousDomain', options.anonymousDomain ?? `anon.${domain}`)
  if (anonymousDomain === domain) throw invalid(`anonymousDomain and domain are both '${domain}'; use two names.`)
  const modXmq = new Map<string, string>()
  for (const [queue, type] of Object.entries(options.modXmq ?? {})) modXmq.set(domainOption('modXmq', queue), type)
  return Object.freeze({
    host,
    port: integerOption('port', options.port ?? 0, 0, 65_535),
    componentPort: integerOption('componentPort', options.componentPort ?? 0, 0, 65_535),
    websocketPort:
      options.websocketPort === false ? false : integerOption('websocketPort', options.websocketPort ?? 0, 0, 65_535),
    websocketOrigins: [...(options.websocketOrigins ?? [])],
    domain,
    anonymousDomain,
    secret: options.secret ?? 'secret',
    accounts: new Map(Object.entries(options.accounts ?? {})),
    registerOnLogin: options.registerOnLogin ?? false,
    registerPasswords: [...(options.registerPasswords ?? [])].slice(0, 8),
    onRegister: options.onRegister ?? (() => undefined),
    scramIterations: integerOption('scramIterations', options.scramIterations ?? 4096, 1, 1_000_000),
    componentDomains: options.componentDomains?.map((name) => domainOption('componentDomains', name)),
    componentConflict: oneOf('componentConflict', options.componentConflict ?? 'refuse', ['refuse', 'share']),
    absentComponent: oneOf('absentComponent', options.absentComponent ?? 'not-found', ['not-found', 'timeout']),
    strictIq: options.strictIq ?? false,
    lateUnavailable: options.lateUnavailable ?? false,
    modXmq,
    stanzaBytesMax: integerOption('stanzaBytesMax', options.stanzaBytesMax ?? 262_144, 10_000, 2 ** 30),
    componentStanzaBytesMax: integerOption(
      'componentStanzaBytesMax',
      options.componentStanzaBytesMax ?? 524_288,
      10_000,
      2 ** 30,
    ),
    outboundBytesMax: integerOption('outboundBytesMax', options.outboundBytesMax ?? 2 ** 26, 1024, 2 ** 30),
    clientBytesPerSecond:
      options.clientBytesPerSecond === undefined
        ? Number.POSITIVE_INFINITY
        : integerOption('clientBytesPerSecond', options.clientBytesPerSecond, 1000, 2 ** 30),
    clientRefusalsPerSecond:
      options.clientRefusalsPerSecond === false
        ? Number.POSITIVE_INFINITY
        : integerOption('clientRefusalsPerSecond', options.clientRefusalsPerSecond ?? 100, 1, 1_000_000),
    connectionsMax: integerOption('connectionsMax', options.connectionsMax ?? 2000, 1, 100_000),
    log: lineLog(options.log),
    now: options.now ?? Date.now,
    random: options.random ?? Math.random,
  })
}

/** Whether an address or host name can only mean this machine. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/i.test(host)
}

function domainOption(name: string, value: string): string {
  try {
    const jid = parseJid(value)
    if (jid.local === '' && jid.resource === '') return jid.domain
  } catch (error) {
    throw invalid(`${name}: ${XmqError.from(error).message}`)
  }
  throw invalid(`${name} is '${value}'; expected a domain such as 'localhost'.`)
}

function integerOption(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw invalid(`${name} is ${value}; expected a whole number from ${min} to ${max}.`)
}

function oneOf<T extends string>(name: string, value: T, allowed: readonly T[]): T {
  if (allowed.includes(value)) return value
  throw invalid(`${name} is '${value}'; expected ${allowed.map((each) => `'${each}'`).join(' or ')}.`)
}

function invalid(text: string): XmqError {
  return new XmqError('invalid-config', text)
}

/** Lines stay lines: what peers send is quoted in some of them. */
function lineLog(log: ((line: string) => void) | undefined): (line: string) => void {
  if (log === undefined) return () => undefined
  // oxlint-disable-next-line no-control-regex -- control characters are what it replaces
  return (line) => log(line.replace(/[\u0000-\u001f\u007f]/g, ' '))
}
