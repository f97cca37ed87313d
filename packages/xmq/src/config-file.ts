/** Finding and reading the configuration: flags beat the environment, which beats the file, which beats the defaults. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { parseConfig, type BrokerConfig, type ConfigOverride } from '@xmq/broker'
import { XmqError } from '@xmq/protocol'
import { parseDocument } from 'yaml'
import { mistake } from './exit.ts'
import type { Io } from './io.ts'

/** Flags that beat what the file says. */
export interface ConfigFlags {
  readonly config?: string
  readonly server?: string
  readonly secretFile?: string
  readonly store?: string
  readonly http?: string
  readonly logLevel?: string
  readonly logFormat?: string
}

/** A configuration, where it came from, and what is unwise in it. */
export interface LoadedConfig {
  readonly config: BrokerConfig
  readonly file: string
  readonly warnings: readonly string[]
}

const FILE_BYTES_MAX = 1024 * 1024
const SYSTEM_FILE = '/etc/xmq/xmq.config.yaml'

/** Each key that a flag or variable beats: its path, its flag, its variable. */
const OVERRIDES: readonly (readonly [path: string, flag: keyof ConfigFlags, flagName: string, variable: string])[] = [
  ['server', 'server', '--server', 'XMQ_SERVER'],
  ['secret', 'config', '', 'XMQ_SECRET'],
  ['secretFile', 'secretFile', '--secret-file', 'XMQ_SECRET_FILE'],
  ['store', 'store', '--store', 'XMQ_STORE'],
  ['http', 'http', '--http', 'XMQ_HTTP'],
  ['log.level', 'logLevel', '--log-level', 'XMQ_LOG_LEVEL'],
  ['log.format', 'logFormat', '--log-format', 'XMQ_LOG_FORMAT'],
]

/**
 * Finds, reads and checks the configuration.
 * @throws XmqError `invalid-config` when there is none, or with every problem in it
 */
export function loadConfig(io: Io, flags: ConfigFlags): LoadedConfig {
  const file = findFile(io, flags)
  const where = shown(io, file)
  const warnings: string[] = []
  const config = parseConfig(parseFile(file, where), {
    env: io.env,
    where,
    overrides: overridesOf(io, flags),
    directory: dirname(file),
    readSecretFile: (path) => readSecretFile(resolve(dirname(file), path)),
    onWarning: (text) => warnings.push(text),
  })
  return { config, file: where, warnings }
}

function findFile(io: Io, flags: ConfigFlags): string {
  const named = flags.config ?? present(io.env['XMQ_CONFIG'])
  if (named !== undefined) {
    const path = resolve(io.cwd, named)
    if (existsSync(path)) return path
    const source = flags.config === undefined ? 'XMQ_CONFIG' : '--config'
    throw mistake(`${source}: there is no file ${path}.`)
  }
  const places = ['xmq.config.yaml', 'xmq.config.json'].map((name) => join(io.cwd, name))
  for (const path of [...places, SYSTEM_FILE]) if (existsSync(path)) return path
  throw mistake(
    `There is no configuration. Looked for ./xmq.config.yaml, ./xmq.config.json and ${SYSTEM_FILE}.\n` +
      'Name one with --config FILE or XMQ_CONFIG, or try everything without one: xmq dev',
  )
}

function shown(io: Io, file: string): string {
  const path = relative(io.cwd, file)
  // A service runs in the root of the file system: everything is below that.
  const isRoot = dirname(io.cwd) === io.cwd
  return isRoot || path.startsWith('..') || isAbsolute(path) ? file : path
}

function parseFile(file: string, where: string): unknown {
  let text: string
  try {
    if (statSync(file).size > FILE_BYTES_MAX) throw mistake(`${where} has more than ${FILE_BYTES_MAX} bytes.`)
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof XmqError) throw error
    throw new XmqError('invalid-config', `${where} cannot be read: ${(error as Error).message}`, { cause: error })
  }
  const document = parseDocument(text) // JSON is YAML too
  if (document.errors.length > 0) {
    const problems = document.errors.slice(0, 10).map((error) => `  ${error.message.trim().replaceAll('\n', '\n  ')}`)
    throw mistake(`${where} is not valid YAML:\n${problems.join('\n')}`)
  }
  try {
    return document.toJS()
  } catch (error) {
    // Aliases that would unfold to gigabytes.
    throw new XmqError('invalid-config', `${where} cannot be read: ${(error as Error).message}`, { cause: error })
  }
}

function overridesOf(io: Io, flags: ConfigFlags): readonly ConfigOverride[] {
  const given: ConfigOverride[] = []
  for (const [path, , , variable] of OVERRIDES) {
    const value = present(io.env[variable])
    if (value !== undefined) given.push({ path, value: valueOf(io, path, value), source: variable })
  }
  // Both secret variables may be set where one is meant for the file's ${XMQ_SECRET}: the text itself counts.
  if (given.some(({ path }) => path === 'secret')) dropPath(given, 'secretFile')
  for (const [path, flag, flagName] of OVERRIDES) {
    const value = flagName === '' ? undefined : flags[flag]
    if (value !== undefined) given.push({ path, value: valueOf(io, path, value), source: flagName })
  }
  return given
}

/** A path of a flag or variable starts where the user is, one of the file where the file is. */
function valueOf(io: Io, path: string, value: string): string {
  if (path === 'secretFile') return resolve(io.cwd, value)
  const file = path === 'store' ? /^sqlite:(.+)$/s.exec(value)?.[1] : undefined
  return file === undefined ? value : `sqlite:${resolve(io.cwd, file)}`
}

function dropPath(overrides: ConfigOverride[], path: string): void {
  const index = overrides.findIndex((entry) => entry.path === path)
  if (index !== -1) overrides.splice(index, 1)
}

function readSecretFile(path: string): { readonly text: string; readonly isWorldReadable: boolean } {
  const stat = statSync(path)
  if (!stat.isFile()) throw new Error('it is no file')
  if (stat.size > 4096) throw new Error('it has more than 4096 bytes; a secret is one line')
  return { text: readFileSync(path, 'utf8'), isWorldReadable: (stat.mode & 0o004) !== 0 }
}

/** A variable that is set to nothing is not set. */
export function present(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : value
}
