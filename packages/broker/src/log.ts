/**
 * The log: one line an event. JSON lines for machines, readable lines for a terminal.
 *
 * 1. No line holds a payload or a secret: callers pass addresses, counts and codes, and fields with a secret's name are hidden.
 * 2. No line holds a line break or a terminal's control sequence: what a stranger chose (a resource, a topic) is only text.
 * 3. Every text is cut at a bound.
 */

/** In rising order; each includes those after it. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
/** How much is logged. `debug` has a line for every message. */
export type LogLevel = (typeof LOG_LEVELS)[number]

/** How lines look. */
export const LOG_FORMATS = ['auto', 'json', 'text'] as const
/** `auto`: text on a terminal, JSON elsewhere. */
export type LogFormat = (typeof LOG_FORMATS)[number]

/** What a line says besides its message. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>

/** Writes lines of a level and above. */
export interface Logger {
  /** Whether lines of this level are written: ask before building costly fields. */
  isEnabled(level: LogLevel): boolean
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
}

/** Settings of {@link createLogger}. */
export interface LoggerOptions {
  /** @default 'info' */
  readonly level?: LogLevel
  /** @default 'json' */
  readonly format?: 'json' | 'text'
  /** Colours, for `text` only. @default false */
  readonly color?: boolean
  /** Given one line, its line break included. */
  readonly write: (line: string) => void
  /** @default () => new Date() */
  readonly now?: () => Date
}

const TEXT_LENGTH_MAX = 500
const HIDDEN_NAME = /secret|password|passwd|token|authorization/i
const COLORS: Readonly<Record<LogLevel, string>> = {
  debug: '\u001b[2m',
  info: '\u001b[36m',
  warn: '\u001b[33m',
  error: '\u001b[31m',
}
const RESET = '\u001b[0m'
const DIM = '\u001b[2m'

/** A logger that writes lines of its level and above. */
export function createLogger(options: LoggerOptions): Logger {
  const enabled: ReadonlySet<LogLevel> = new Set(LOG_LEVELS.slice(LOG_LEVELS.indexOf(options.level ?? 'info')))
  const now = options.now ?? (() => new Date())
  const line = options.format === 'text' ? textLine(options.color ?? false) : jsonLine
  const log = (level: LogLevel, message: string, fields: LogFields = {}) => {
    if (enabled.has(level)) options.write(`${line(now(), level, message, fields)}\n`)
  }
  return {
    isEnabled: (level) => enabled.has(level),
    debug: (message, fields) => log('debug', message, fields),
    info: (message, fields) => log('info', message, fields),
    warn: (message, fields) => log('warn', message, fields),
    error: (message, fields) => log('error', message, fields),
  }
}

/** A logger that writes nothing. */
export const silentLogger: Logger = Object.freeze({
  isEnabled: () => false,
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
})

function jsonLine(at: Date, level: LogLevel, message: string, fields: LogFields): string {
  const record: Record<string, unknown> = { time: at.toISOString(), level, message: cut(message) }
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && !(name in record)) record[name] = shown(name, value)
  }
  return JSON.stringify(record)
}

function textLine(color: boolean): (at: Date, level: LogLevel, message: string, fields: LogFields) => string {
  const paint = (code: string, text: string) => (color ? `${code}${text}${RESET}` : text)
  return (at, level, message, fields) => {
    const rest = Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => ` ${paint(DIM, `${name}=`)}${quoted(String(shown(name, value ?? '')))}`)
    const time = at.toISOString().slice(11, 23)
    return `${paint(DIM, time)} ${paint(COLORS[level], level.padEnd(5))} ${harmless(cut(message))}${rest.join('')}`
  }
}

function shown(name: string, value: string | number | boolean): string | number | boolean {
  if (HIDDEN_NAME.test(name)) return '(hidden)'
  return typeof value === 'string' ? cut(value) : value
}

function cut(text: string): string {
  return text.length > TEXT_LENGTH_MAX ? `${text.slice(0, TEXT_LENGTH_MAX)}…` : text
}

function quoted(text: string): string {
  return text === '' || /[\s"=]/.test(text) ? JSON.stringify(harmless(text)) : harmless(text)
}

/** Control characters would let a stranger's resource rewrite the operator's terminal. */
function harmless(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what it replaces
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '\ufffd')
}
