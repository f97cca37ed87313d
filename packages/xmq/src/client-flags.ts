/** Where a client command connects: flags beat the environment, which beats what fits `xmq dev`. */
import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { certificatesProblem } from '@xmq/client/process'
import { parseJid } from '@xmq/protocol'
import { present } from './config-file.ts'
import { mistake } from './exit.ts'
import type { Io, OutputFormat } from './io.ts'

/** The port of `xmq dev`: that of XMPP clients (RFC 6120 3.2.1). */
export const DEFAULT_PORT = 5222
/** Where `xmq dev` listens. */
export const DEFAULT_SERVICE: string = `xmpp://127.0.0.1:${DEFAULT_PORT}`
/** An account that `xmq dev` makes at its first login. */
export const DEFAULT_JID = 'xmq@localhost'

/** How to speak to a queue. */
export const MODES = ['auto', 'reliable', 'plain', 'mod_xmq'] as const
/** How to speak to a queue. */
export type ClientMode = (typeof MODES)[number]

/** Flags of every client command. There is none for a password: every user of the machine could read it. */
export interface ClientFlags {
  readonly service?: string
  readonly jid?: string
  readonly passwordFile?: string
  readonly ca?: string
  readonly mode?: ClientMode
  readonly timeout?: string
  readonly output: OutputFormat
}

/** How a client command connects. */
export interface Connection {
  readonly service: string
  readonly jid: string
  readonly password: string
  readonly mode: ClientMode
  /** PEM certificates to trust in place of the system's. */
  readonly ca?: string
}

/** @throws XmqError `invalid-config` naming what is missing and how to give it */
export function connectionOf(io: Io, flags: ClientFlags): Connection {
  const service = flags.service ?? present(io.env['XMQ_SERVICE']) ?? DEFAULT_SERVICE
  if (!URL.canParse(service)) {
    throw mistake(
      `--service: '${service}' is no address of a server. Write xmpp://HOST:PORT, xmpps://, ws:// or wss://.`,
    )
  }
  const jid = flags.jid ?? present(io.env['XMQ_JID']) ?? DEFAULT_JID
  const { local } = parseJid(jid)
  if (local === '') throw mistake(`--jid: '${jid}' names no account. Write user@domain.`)
  const password = passwordOf(io, flags) ?? (isLocal(service) ? local : undefined)
  if (password === undefined) {
    throw mistake(`The password of ${jid} is not known. Give XMQ_PASSWORD, XMQ_PASSWORD_FILE or --password-file FILE.`)
  }
  const mode = flags.mode ?? 'auto'
  const ca = authoritiesOf(io, flags)
  return { service, jid, password, mode, ...(ca === undefined ? {} : { ca }) }
}

function authoritiesOf(io: Io, flags: ClientFlags): string | undefined {
  const file = flags.ca ?? present(io.env['XMQ_CA'])
  if (file === undefined) return undefined
  const pem = readSmallFile(io, '--ca', file)
  const problem = certificatesProblem(pem)
  if (problem !== undefined) throw mistake(`--ca: ${resolve(io.cwd, file)} ${problem}.`)
  return pem
}

function passwordOf(io: Io, flags: ClientFlags): string | undefined {
  const text = present(io.env['XMQ_PASSWORD'])
  if (flags.passwordFile === undefined && text !== undefined) return text
  const file = flags.passwordFile ?? present(io.env['XMQ_PASSWORD_FILE'])
  // Editors and `echo` end a file with a line break that is no part of the password.
  return file === undefined ? undefined : readSmallFile(io, '--password-file', file).replace(/\r?\n$/, '')
}

function readSmallFile(io: Io, flag: string, file: string): string {
  const path = resolve(io.cwd, file)
  try {
    if (statSync(path).size > 1024 * 1024) throw new Error('it has more than 1 MiB')
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw mistake(`${flag}: ${path} cannot be read: ${(error as Error).message}.`)
  }
}

/** On this machine an account's name is its password in `xmq dev`; elsewhere that would send a guess over a network. */
function isLocal(service: string): boolean {
  return /^[a-z]+:\/\/(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(\/|$)/i.test(service)
}

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
])

/** How short and long a duration may be, in milliseconds, and the longest one in words. */
export interface DurationRange {
  /** @default 1 */
  readonly min?: number
  readonly max: number
  readonly longest: string
}

const UP_TO_A_DAY: DurationRange = { max: 86_400_000, longest: '24h' }

/**
 * A duration such as `500ms`, `30s`, `10m`, `1h`, `7d`, in milliseconds.
 *
 * @param range how long it may be; without it from 1 ms to 24 hours
 * @throws XmqError `invalid-config`
 */
export function durationOf(flag: string, text: string, { min = 1, max, longest }: DurationRange = UP_TO_A_DAY): number {
  const match = /^(\d{1,11}(?:\.\d{1,3})?)(ms|s|m|h|d)$/.exec(text)
  const ms = Math.round(Number(match?.[1]) * (UNIT_MS.get(match?.[2] ?? '') ?? Number.NaN))
  if (Number.isFinite(ms) && ms >= min && ms <= max) return ms
  throw mistake(`${flag}: '${text}' is no duration. Write 500ms, 30s or 10m; at most ${longest}.`)
}

/**
 * A name that the protocol bounds: of a message, a key, a durable subscription.
 * @throws XmqError `invalid-config`
 */
export function assertName(flag: string, text: string, bytesMax: number): void {
  const bytes = Buffer.byteLength(text)
  if (bytes === 0 || bytes > bytesMax) throw mistake(`${flag}: it has ${bytes} bytes. Give 1 to ${bytesMax}.`)
  if (/\p{Cc}/u.test(text)) throw mistake(`${flag}: it has a control character. Use letters, digits, dots, dashes.`)
}

/**
 * Of a flag that a plain queue does not know.
 * @throws XmqError `invalid-config` beside a mode that is none for it
 */
export function assertReliable(flag: string, mode: ClientMode | undefined): void {
  if (mode !== 'plain' && mode !== 'mod_xmq') return
  throw mistake(`${flag}: only a reliable queue knows it. Leave it out, or leave out --mode ${mode}.`)
}
