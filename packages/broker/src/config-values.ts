/**
 * Reading single values of a configuration: every problem is collected with its path, so that a user mends a file in one go.
 *
 * Values have units in the file and none in the program: `30s` becomes 30000 (`…Ms`), `200KiB` becomes 204800 (`…Bytes…`). A
 * number without a unit is refused, since a reader of the file cannot see whether it means seconds or milliseconds.
 */
import { formatBareJid, nearestOf, parseJid, suggest, XmqError } from '@xmq/protocol'

/** An address to connect to or to listen on. */
export interface HostPort {
  readonly host: string
  readonly port: number
}

/** The value of something that is wrong and was reported already: what depends on it keeps silent. */
export const BROKEN: unique symbol = Symbol('reported already')

const PROBLEMS_MAX = 100
const DEPTH_MAX = 8

/** One thing that is wrong in a configuration. */
export interface ConfigProblem {
  /** The key, such as `queues.jobs.localhost.type`, or the flag or variable that its value came from; `''`: the whole. */
  readonly path: string
  /** What is wrong and how to mend it. */
  readonly text: string
}

/** The cause of the error that lists them. */
class ConfigProblems extends Error {
  override readonly name = 'ConfigProblems'
  readonly problems: readonly ConfigProblem[]

  constructor(problems: readonly ConfigProblem[]) {
    super(`${problems.length} in all`)
    this.problems = problems
  }
}

/** The problems that an error of `parseConfig` names, one by one; none for any other error. */
export function configProblemsOf(error: XmqError): readonly ConfigProblem[] {
  return error.cause instanceof ConfigProblems ? error.cause.problems : []
}

/** Collects problems, each as `WHERE: PATH: what and how to mend it`. */
export class Problems {
  readonly #where: string
  readonly #sources = new Map<string, string>()
  readonly #list: ConfigProblem[] = []

  constructor(where: string) {
    this.#where = where
  }

  /** Says that a path's value does not come from the file but from, say, `--server` or `XMQ_SERVER`. */
  nameSource(path: string, source: string): void {
    this.#sources.set(path, source)
  }

  add(path: string, text: string): void {
    if (this.#list.length >= PROBLEMS_MAX) return
    this.#list.push(Object.freeze({ path: this.#sources.get(path) ?? path, text }))
  }

  /** @throws XmqError `invalid-config` that lists every problem, when there is one */
  throwIfAny(): void {
    const count = this.#list.length
    if (count === 0) return
    const lines = this.#list.map((problem) => this.#lineOf(problem))
    const text = count === 1 ? lines.join('') : `${count} problems:\n${lines.map((line) => `  ${line}`).join('\n')}`
    throw new XmqError('invalid-config', text, { cause: new ConfigProblems(Object.freeze([...this.#list])) })
  }

  #lineOf({ path, text }: ConfigProblem): string {
    if (path === '') return `${this.#where}: ${text}`
    // A flag or a variable is not in the file.
    return [...this.#sources.values()].includes(path) ? `${path}: ${text}` : `${this.#where}: ${path}: ${text}`
  }
}

/** `a.b` for b in a; `b` at the top. */
export function pathOf(parent: string, key: string): string {
  return parent === '' ? key : `${parent}.${key}`
}

/**
 * Replaces `${NAME}` in every string by the environment's value; `$${` stands for `${` itself. Keys are left alone. A string
 * with a variable that is not set is reported once and becomes {@link BROKEN}.
 */
export function expandVariables(
  value: unknown,
  env: Readonly<Record<string, string | undefined>>,
  problems: Problems,
  path = '',
  depth = 0,
): unknown {
  if (typeof value === 'string') return expandText(value, env, problems, path)
  if (typeof value !== 'object' || value === null) return value
  if (depth >= DEPTH_MAX) {
    problems.add(path, `nests deeper than ${DEPTH_MAX} levels.`)
    return BROKEN
  }
  if (Array.isArray(value)) {
    return value.map((entry, index) => expandVariables(entry, env, problems, `${path}[${index}]`, depth + 1))
  }
  return new Map(
    Object.entries(value).map(([key, entry]) => [
      key,
      expandVariables(entry, env, problems, pathOf(path, key), depth + 1),
    ]),
  )
}

function expandText(
  text: string,
  env: Readonly<Record<string, string | undefined>>,
  problems: Problems,
  path: string,
): string | typeof BROKEN {
  let isBroken = false
  const expanded = text.replace(/\$\$\{|\$\{([^}]*)\}/g, (whole: string, name: string | undefined) => {
    if (name === undefined) return '${'
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      problems.add(path, `'${whole}' does not name an environment variable. Write $\${ for a literal \${.`)
      isBroken = true
      return ''
    }
    const value = env[name]
    if (value === undefined) {
      problems.add(path, `the environment variable ${name} is not set. Set it, or write the value here.`)
      isBroken = true
      return ''
    }
    return value
  })
  return isBroken ? BROKEN : expanded
}

/** A mapping with known keys only; a key nobody knows is reported with the nearest known one. */
export function readSection(
  value: unknown,
  path: string,
  known: readonly string[],
  problems: Problems,
): ReadonlyMap<string, unknown> {
  const section = readMapping(value, path, problems)
  for (const key of section.keys()) {
    if (!known.includes(key)) problems.add(pathOf(path, key), `unknown key${suggest(key, known)}`)
  }
  return section
}

/** A mapping with any keys. */
export function readMapping(value: unknown, path: string, problems: Problems): ReadonlyMap<string, unknown> {
  if (value instanceof Map) return value as ReadonlyMap<string, unknown>
  if (value !== BROKEN) problems.add(path, `must be a mapping of keys to values, but is ${kindOf(value)}.`)
  return new Map()
}

/** A text that is not empty. */
export function readText(value: unknown, path: string, what: string, problems: Problems): string | undefined {
  if (typeof value === 'string' && value !== '') return value
  if (value !== BROKEN) problems.add(path, `must be ${what}, but is ${kindOf(value)}.`)
  return undefined
}

/** One of a few words. */
export function readChoice<T extends string>(
  value: unknown,
  path: string,
  known: readonly T[],
  problems: Problems,
): T | undefined {
  if (known.includes(value as T)) return value as T
  if (value === BROKEN) return undefined
  const choices = known.map((word) => `'${word}'`).join(' or ')
  const nearest = typeof value === 'string' ? nearestOf(value, known) : undefined
  const hint = nearest === undefined ? '' : ` Did you mean '${nearest}'?`
  problems.add(path, `must be ${choices}, but is ${kindOf(value)}.${hint}`)
  return undefined
}

/** `true` or `false`; nothing else counts as either. */
export function readBoolean(value: unknown, path: string, problems: Problems): boolean | undefined {
  if (typeof value === 'boolean') return value
  if (value === 'true' || value === 'false') return value === 'true' // from ${VARIABLE}
  if (value !== BROKEN) problems.add(path, `must be true or false, but is ${kindOf(value)}.`)
  return undefined
}

/** A whole number in [min, max]. */
export function readCount(
  value: unknown,
  path: string,
  min: number,
  max: number,
  problems: Problems,
): number | undefined {
  const count = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value // a string from ${VARIABLE}
  if (typeof count === 'number' && Number.isInteger(count) && count >= min && count <= max) return count
  if (value !== BROKEN) problems.add(path, `must be a whole number from ${min} to ${max}, but is ${kindOf(value)}.`)
  return undefined
}

const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1000,
  MB: 1_000_000,
  GB: 1e9,
  KiB: 1024,
  MiB: 1_048_576,
  GiB: 2 ** 30,
}

/** A duration such as `500ms`, `30s`, `10m`, `1h`, `1d`, in milliseconds, in [min, max]. */
export function readDuration(
  value: unknown,
  path: string,
  minMs: number,
  maxMs: number,
  problems: Problems,
): number | undefined {
  const ms = readUnits(
    value,
    path,
    DURATION_UNITS,
    "a duration with its unit, such as '500ms', '30s', '10m', '1h' or '1d'",
    problems,
  )
  if (ms === undefined || (ms >= minMs && ms <= maxMs)) return ms
  problems.add(path, `must be from ${formatDuration(minMs)} to ${formatDuration(maxMs)}, but is ${kindOf(value)}.`)
  return undefined
}

/** A size such as `64KiB` or `1MB`, in bytes, in [min, max]. */
export function readSize(
  value: unknown,
  path: string,
  minBytes: number,
  maxBytes: number,
  problems: Problems,
): number | undefined {
  const what = `a size with its unit, such as '512B' or '${formatSize(maxBytes)}'`
  const bytes = readUnits(value, path, SIZE_UNITS, what, problems)
  if (bytes === undefined || (bytes >= minBytes && bytes <= maxBytes)) return bytes
  problems.add(path, `must be from ${formatSize(minBytes)} to ${formatSize(maxBytes)}, but is ${kindOf(value)}.`)
  return undefined
}

function readUnits(
  value: unknown,
  path: string,
  units: Readonly<Record<string, number>>,
  what: string,
  problems: Problems,
): number | undefined {
  if (value === BROKEN) return undefined
  const match = typeof value === 'string' ? /^(\d{1,9}(?:\.\d{1,6})?)\s?([A-Za-z]{1,12})$/.exec(value) : null
  const factor = match === null ? undefined : Object.entries(units).find(([unit]) => unit === match[2])?.[1]
  if (match !== null && factor !== undefined) return Math.round(Number(match[1]) * factor)
  if (match !== null) {
    problems.add(
      path,
      `${kindOf(value)} has the unit '${match[2]}', which is not known. Known: ${Object.keys(units).join(', ')}.`,
    )
    return undefined
  }
  problems.add(path, `must be ${what}, but is ${kindOf(value)}.`)
  return undefined
}

/** Milliseconds as the file would say it. */
export function formatDuration(ms: number): string {
  for (const [unit, factor] of Object.entries(DURATION_UNITS).reverse()) {
    if (ms >= factor && ms % factor === 0) return `${ms / factor}${unit}`
  }
  return `${ms}ms`
}

/** Bytes as the file would say it. */
export function formatSize(bytes: number): string {
  if (bytes >= 1_048_576 && bytes % 1_048_576 === 0) return `${bytes / 1_048_576}MiB`
  if (bytes >= 1024 && bytes % 1024 === 0) return `${bytes / 1024}KiB`
  return `${bytes}B`
}

/** `HOST:PORT`, an IPv6 host in brackets. The port may be left out where there is a default. */
export function readHostPort(
  value: unknown,
  path: string,
  example: string,
  portDefault: number | undefined,
  problems: Problems,
): HostPort | undefined {
  if (value === BROKEN) return undefined
  const match = typeof value === 'string' ? /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(value) : null
  const host = match?.[1]?.replace(/^\[|\]$/g, '')
  const port = match?.[2] === undefined ? portDefault : Number(match[2])
  if (host !== undefined && port !== undefined && port <= 65_535) return Object.freeze({ host, port })
  problems.add(path, `must be an address such as '${example}', but is ${kindOf(value)}.`)
  return undefined
}

/** `HOST:PORT`, an IPv6 host in brackets. */
export function formatHostPort({ host, port }: HostPort): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** Whether a host can only be this machine. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host)
}

/** A list of bare JIDs and domains. An empty list is nobody. */
export function readAccess(value: unknown, path: string, problems: Problems): readonly string[] | undefined {
  if (value === BROKEN) return undefined
  if (!Array.isArray(value)) {
    const hint = typeof value === 'string' ? ` Write [${value}].` : ''
    problems.add(
      path,
      `must be a list of accounts (shop@localhost) and domains (localhost), but is ${kindOf(value)}.${hint}`,
    )
    return undefined
  }
  const list = value.map((entry: unknown, index) => readBareAddress(entry, `${path}[${index}]`, problems))
  return Object.freeze([...new Set(list.filter((entry) => entry !== undefined))])
}

/** A domain or a bare JID, lower-cased. */
export function readBareAddress(value: unknown, path: string, problems: Problems): string | undefined {
  if (value === BROKEN) return undefined
  if (typeof value !== 'string') {
    problems.add(path, `must be an account (shop@localhost) or a domain (localhost), but is ${kindOf(value)}.`)
    return undefined
  }
  if (value.includes('*')) {
    problems.add(path, `'${value}' has a '*', and there are no patterns here. Name each domain or account.`)
    return undefined
  }
  if (value.includes('${')) {
    problems.add(
      path,
      `'${value}' has a '\${', and no variable is replaced in an address that is a key. Write the address.`,
    )
    return undefined
  }
  try {
    const jid = parseJid(value)
    if (jid.resource === '') return formatBareJid(jid)
    problems.add(path, `'${value}' has a resource. Leave out the part from '/' on.`)
  } catch (error) {
    problems.add(path, XmqError.from(error).message)
  }
  return undefined
}

/** A value as a message names it: short, and without guessing what it was meant to be. */
function kindOf(value: unknown): string {
  if (value === undefined || value === null) return 'missing'
  if (value === '') return 'empty'
  if (typeof value === 'string') return `'${value.length > 60 ? `${value.slice(0, 60)}…` : value}'`
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') return String(value)
  return Array.isArray(value) ? 'a list' : 'a mapping'
}
