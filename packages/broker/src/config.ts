/**
 * The broker's configuration: a plain value (from YAML, JSON or code) in, one frozen {@link BrokerConfig} out.
 *
 * ```
 *  file --yaml--> plain value --+
 *  XMQ_* ------> overrides -----+--> ${VAR} --> checks --> BrokerConfig (every default filled in, frozen)
 *  flags ------> overrides -----+
 * ```
 *
 * 1. Every problem is reported at once, each with its file, its path, and how to mend it.
 * 2. A key that nobody knows is an error, never ignored: a misspelt limit that silently does not hold is worse than a broker
 *    that does not start.
 * 3. The secret is in no text that this file makes: not in errors, not in `JSON.stringify`, not in `describeConfig`.
 */
import { resolve } from 'node:path'
import { domainOf, suggest } from '@xmq/protocol'
import {
  BROKEN,
  expandVariables,
  formatDuration,
  formatHostPort,
  formatSize,
  isLoopback,
  Problems,
  readChoice,
  readCount,
  readDuration,
  readHostPort,
  readSection,
  readSize,
  readText,
  type HostPort,
} from './config-values.ts'
import { describeQueue, readQueues } from './config-queues.ts'
import { OVERLOAD_DEFAULTS, type OverloadRules, type QueueRules } from './core/port.ts'
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from './log.ts'
import { STORE_SCHEMES, type StoreConfig } from './store/port.ts'

export { configProblemsOf, type ConfigProblem, type HostPort } from './config-values.ts'

/** Bounds of the whole broker. */
export interface BrokerLimits {
  /** Most subscriptions in all. @default 100000 */
  readonly subscriptionsMax: number
  /** Most requests open at once in all. @default 10000 */
  readonly openRequestsMax: number
  /** Most requests of one account open at once. @default 1000 */
  readonly openRequestsPerJidMax: number
  /** Milliseconds between two pings of a consumer that sends no presence. @default 60000 */
  readonly pingIntervalMs: number
  /** Milliseconds that a consumer has to answer a ping. @default 10000 */
  readonly pingTimeoutMs: number
  /** Longest pause between two tries to connect to the server; the first ones are shorter. */
  readonly reconnectMsMax: number
  /** Most bytes of messages that are on their way to the store; above it publishes are refused. @default 64 MiB */
  readonly storingBytesMax: number
  /** When new work is refused. */
  readonly overload: OverloadRules
}

/** What a broker needs to know, checked, frozen, every default filled in. */
export interface BrokerConfig {
  /** The server's component port (XEP-0114). @default port 5347 */
  readonly server: HostPort
  /** The secret that the server has for the queue domains. Left out of `JSON.stringify` and `console.log`. */
  readonly secret: string
  /** @default { scheme: 'memory' } */
  readonly store: StoreConfig
  /** Where health and metrics are served; `undefined`: nowhere. @default undefined */
  readonly http: HostPort | undefined
  readonly log: {
    /** @default 'info' */
    readonly level: LogLevel
    /** `auto`: readable lines on a terminal, JSON lines elsewhere. @default 'auto' */
    readonly format: LogFormat
  }
  readonly limits: BrokerLimits
  readonly queues: readonly QueueRules[]
}

/** A value that beats the file's: from a flag or an environment variable. Taken as it is, without `${VAR}`. */
export interface ConfigOverride {
  /** A key of the top level, or `log.level`, `log.format`. */
  readonly path: string
  readonly value: unknown
  /** What messages name instead of the file, such as `--server` or `XMQ_SERVER`. */
  readonly source: string
}

/** What {@link parseConfig} is given beside the value. */
export interface ParseConfigOptions {
  /** For `${VAR}`. @default {} */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** The file's name for messages. @default 'configuration' */
  readonly where?: string
  /** In rising order: each beats what was before it. */
  readonly overrides?: readonly ConfigOverride[]
  /** Where a relative path of `store` starts. @default it stays relative, to the folder that the process works in */
  readonly directory?: string
  /** Reads what `secretFile` names; throws when it cannot. Without it, `secretFile` is refused. */
  readonly readSecretFile?: (path: string) => { readonly text: string; readonly isWorldReadable: boolean }
  /** Told what is allowed but unwise. */
  readonly onWarning?: (text: string) => void
}

/** Where an XMPP server listens for components, unless told otherwise. */
export const COMPONENT_PORT_DEFAULT = 5347

const SECOND_MS = 1000
const HOUR_MS = 3_600_000
const MIB = 1024 * 1024

const TOP_KEYS = ['server', 'secret', 'secretFile', 'store', 'http', 'log', 'limits', 'queues'] as const
const LOG_KEYS = ['level', 'format'] as const
const LIMIT_KEYS = [
  'maxSubscriptions',
  'maxOpenRequests',
  'maxOpenRequestsPerJid',
  'pingInterval',
  'pingTimeout',
  'maxReconnectPause',
  'maxStoringBytes',
  'maxLoopDelay',
  'maxInputDelay',
  'maxCommitTime',
] as const
/** Secrets that stand in examples, compared in lower case. */
const PLACEHOLDERS: ReadonlySet<string> = new Set(['change-me', 'changeme', 'change_me'])

/**
 * Checks a configuration and fills in its defaults. docs/operating.md lists every key.
 *
 * @param raw the parsed file
 * @throws XmqError `invalid-config` that lists every problem, each with its path and how to mend it
 */
export function parseConfig(raw: unknown, options: ParseConfigOptions = {}): BrokerConfig {
  const where = options.where ?? 'configuration'
  const problems = new Problems(where)
  const warn = options.onWarning ?? (() => {})
  const value = applyOverrides(
    expandVariables(raw ?? {}, options.env ?? {}, problems),
    options.overrides ?? [],
    problems,
  )
  const top = readSection(value, '', TOP_KEYS, problems)
  const server = readServer(top.get('server'), problems)
  const secret = readSecret(top, options, problems, warn)
  const store = readStore(top.get('store'), options.directory, problems)
  const http = top.get('http') === undefined ? undefined : readHttp(top.get('http'), problems)
  const log = readLog(top.get('log'), problems)
  const limits = readLimits(top.get('limits'), problems)
  const isDurable = store !== undefined && store.scheme !== 'memory'
  const queues = readQueues(top.get('queues'), isDurable, problems, warn)
  problems.throwIfAny()
  if (server !== undefined && !isLoopback(server.host)) {
    warn(
      `server: XEP-0114 has no encryption, and ${server.host} is not this machine. Use a private network or a tunnel.`,
    )
  }
  if (http !== undefined && !isLoopback(http.host)) {
    warn(`http: ${formatHostPort(http)} can be reached from other machines; health and metrics ask for no password.`)
  }
  // throwIfAny has thrown where one of these is undefined: each reader reports what it cannot read.
  return hideSecret({ server, secret, store, http, log, limits, queues } as BrokerConfig)
}

function applyOverrides(value: unknown, overrides: readonly ConfigOverride[], problems: Problems): unknown {
  if (overrides.length === 0 || !(value instanceof Map)) return value
  const top = new Map(value as ReadonlyMap<string, unknown>)
  for (const { path, value: given, source } of overrides) {
    problems.nameSource(path, source)
    const [section = '', key] = path.split('.')
    if (key === undefined) {
      // One secret: whichever way it is given last is the one that counts.
      if (section === 'secret') top.delete('secretFile')
      if (section === 'secretFile') top.delete('secret')
      top.set(section, given)
    } else {
      const inner = top.get(section)
      const entries = inner instanceof Map ? (inner as ReadonlyMap<string, unknown>) : new Map<string, unknown>()
      top.set(section, new Map([...entries, [key, given]]))
    }
  }
  return top
}

function readServer(value: unknown, problems: Problems): HostPort | undefined {
  const example = `xmpp://127.0.0.1:${COMPONENT_PORT_DEFAULT}`
  const text = readText(value, 'server', `the server's component port, such as '${example}'`, problems)
  if (text === undefined) return undefined
  const scheme = /^([a-z]+):\/\//i.exec(text)?.[1]
  if (scheme === undefined || scheme.toLowerCase() !== 'xmpp') {
    const why = scheme === undefined ? 'has no scheme' : `has the scheme '${scheme}'; XEP-0114 knows only plain TCP`
    problems.add('server', `'${text}' ${why}. Write '${example}'.`)
    return undefined
  }
  return readHostPort(
    text.slice('xmpp://'.length).replace(/\/$/, ''),
    'server',
    example,
    COMPONENT_PORT_DEFAULT,
    problems,
  )
}

function readSecret(
  top: ReadonlyMap<string, unknown>,
  options: ParseConfigOptions,
  problems: Problems,
  warn: (text: string) => void,
): string | undefined {
  if (top.has('secret') && top.has('secretFile')) {
    problems.add('secretFile', "stands beside 'secret'. Keep one of the two.")
    return undefined
  }
  const path = top.has('secretFile') ? 'secretFile' : 'secret'
  const given = top.get(path)
  if (given === BROKEN) return undefined
  if (given === undefined || given === null) {
    problems.add(
      path,
      "is missing. Write 'secret: ${XMQ_SECRET}', or 'secretFile: PATH', as the server has it for the component.",
    )
    return undefined
  }
  if (typeof given !== 'string') {
    problems.add(
      path,
      `must be text, but is ${Array.isArray(given) ? 'a list' : `a ${typeof given}`}. Put it in quotes.`,
    )
    return undefined
  }
  const secret = path === 'secret' ? given : readSecretText(given, options, problems, warn)
  if (secret === undefined) return undefined
  if (secret.trim() === '') {
    problems.add(path, 'is empty.')
    return undefined
  }
  if (PLACEHOLDERS.has(secret.trim().toLowerCase())) {
    problems.add(
      path,
      "is the placeholder of the examples. Make one with 'openssl rand -hex 24', and give it to the server too.",
    )
    return undefined
  }
  if (secret.trim() !== secret) warn(`${path}: begins or ends with a blank. Take it out, unless the server has it too.`)
  return secret
}

function readSecretText(
  path: string,
  options: ParseConfigOptions,
  problems: Problems,
  warn: (text: string) => void,
): string | undefined {
  if (options.readSecretFile === undefined) {
    problems.add('secretFile', "cannot be read here. Give 'secret' instead.")
    return undefined
  }
  try {
    const { text, isWorldReadable } = options.readSecretFile(path)
    if (isWorldReadable) warn(`secretFile: every user of this machine can read ${path}. Run: chmod 600 ${path}`)
    return text.replace(/\r?\n$/, '') // editors and echo end a file with a line break that is no part of the secret
  } catch (error) {
    problems.add('secretFile', `${path} cannot be read: ${error instanceof Error ? error.message : String(error)}.`)
    return undefined
  }
}

function readStore(value: unknown, directory: string | undefined, problems: Problems): StoreConfig | undefined {
  if (value === undefined) return Object.freeze({ scheme: 'memory' })
  const example = "'memory:' or 'sqlite:PATH'"
  const text = readText(value, 'store', example, problems)
  if (text === undefined) return undefined
  const colon = text.indexOf(':')
  const word = colon === -1 ? text : text.slice(0, colon)
  const scheme = STORE_SCHEMES.find((known) => known === word)
  if (scheme === undefined) {
    problems.add('store', `unknown store scheme '${word}'${suggest(word, STORE_SCHEMES)}`)
    return undefined
  }
  const path = text.slice(scheme.length + 1)
  if (scheme === 'sqlite') {
    if (path !== '') return Object.freeze({ scheme, path: directory === undefined ? path : resolve(directory, path) })
    problems.add('store', `must be 'sqlite:PATH', as in 'sqlite:./data/xmq.db', but is '${text}'.`)
    return undefined
  }
  if (text !== `${scheme}:`) {
    problems.add('store', `must be '${scheme}:' with nothing behind it, but is '${text}'.`)
    return undefined
  }
  return Object.freeze({ scheme })
}

function readHttp(value: unknown, problems: Problems): HostPort | undefined {
  return readHostPort(value, 'http', '127.0.0.1:8090', undefined, problems)
}

function readLog(value: unknown, problems: Problems): BrokerConfig['log'] {
  const section = value === undefined ? new Map<string, unknown>() : readSection(value, 'log', LOG_KEYS, problems)
  const level = section.has('level') ? readChoice(section.get('level'), 'log.level', LOG_LEVELS, problems) : undefined
  const format = section.has('format')
    ? readChoice(section.get('format'), 'log.format', LOG_FORMATS, problems)
    : undefined
  return Object.freeze({ level: level ?? 'info', format: format ?? 'auto' })
}

function readLimits(value: unknown, problems: Problems): BrokerLimits {
  const section = value === undefined ? new Map<string, unknown>() : readSection(value, 'limits', LIMIT_KEYS, problems)
  const count = (key: string, fallback: number, max: number) =>
    (section.has(key) ? readCount(section.get(key), `limits.${key}`, 1, max, problems) : undefined) ?? fallback
  const duration = (key: string, fallback: number, max: number) =>
    (section.has(key) ? readDuration(section.get(key), `limits.${key}`, 100, max, problems) : undefined) ?? fallback
  return Object.freeze({
    subscriptionsMax: count('maxSubscriptions', 100_000, 10_000_000),
    openRequestsMax: count('maxOpenRequests', 10_000, 1_000_000),
    openRequestsPerJidMax: count('maxOpenRequestsPerJid', 1_000, 1_000_000),
    pingIntervalMs: duration('pingInterval', 60 * SECOND_MS, HOUR_MS),
    pingTimeoutMs: duration('pingTimeout', 10 * SECOND_MS, HOUR_MS),
    reconnectMsMax: duration('maxReconnectPause', 30 * SECOND_MS, HOUR_MS),
    storingBytesMax:
      (section.has('maxStoringBytes')
        ? readSize(section.get('maxStoringBytes'), 'limits.maxStoringBytes', 1024, 1024 * 64 * MIB, problems)
        : undefined) ?? 64 * MIB,
    overload: Object.freeze({
      loopDelayMsMax: duration('maxLoopDelay', OVERLOAD_DEFAULTS.loopDelayMsMax, HOUR_MS),
      inputDelayMsMax: duration('maxInputDelay', OVERLOAD_DEFAULTS.inputDelayMsMax, HOUR_MS),
      commitMsMax: duration('maxCommitTime', OVERLOAD_DEFAULTS.commitMsMax, HOUR_MS),
    }),
  })
}

function hideSecret(config: BrokerConfig): BrokerConfig {
  const describe = () => describeConfig(config)
  // Not enumerable, so that `{ ...config, http }` is a plain configuration again.
  Object.defineProperty(config, 'toJSON', { value: describe })
  Object.defineProperty(config, Symbol.for('nodejs.util.inspect.custom'), { value: describe })
  return Object.freeze(config)
}

/** The domains of the queues, each once: one component stream serves each. */
export function domainsOf(config: Pick<BrokerConfig, 'queues'>): readonly string[] {
  return [...new Set(config.queues.map((queue) => domainOf(queue.address)))]
}

/** The effective rules in the file's own words and units, every default written out, without the secret. */
export function describeConfig(config: BrokerConfig): Record<string, unknown> {
  const queues = config.queues.map((queue) => [queue.address, describeQueue(queue)] as const)
  return {
    server: `xmpp://${formatHostPort(config.server)}`,
    store: config.store.scheme === 'sqlite' ? `sqlite:${config.store.path}` : `${config.store.scheme}:`,
    ...(config.http === undefined ? {} : { http: formatHostPort(config.http) }),
    log: { level: config.log.level, format: config.log.format },
    limits: {
      maxSubscriptions: config.limits.subscriptionsMax,
      maxOpenRequests: config.limits.openRequestsMax,
      maxOpenRequestsPerJid: config.limits.openRequestsPerJidMax,
      pingInterval: formatDuration(config.limits.pingIntervalMs),
      pingTimeout: formatDuration(config.limits.pingTimeoutMs),
      maxReconnectPause: formatDuration(config.limits.reconnectMsMax),
      maxStoringBytes: formatSize(config.limits.storingBytesMax),
      maxLoopDelay: formatDuration(config.limits.overload.loopDelayMsMax),
      maxInputDelay: formatDuration(config.limits.overload.inputDelayMsMax),
      maxCommitTime: formatDuration(config.limits.overload.commitMsMax),
    },
    queues: Object.fromEntries(queues),
  }
}
