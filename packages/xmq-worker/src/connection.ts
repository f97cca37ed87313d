/** Where a worker connects: flags beat the environment, the environment beats `.env`. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseEnv } from 'node:util'
import { mistake } from './terminal.ts'

/** The connection that a worker module's function receives; a subset of @xmq/client's connection options. */
export interface WorkerConnection {
  readonly service: string
  readonly jid: string
  readonly password: string
  readonly queue: string
}

/** What the command line may say of the connection. There is no flag for a password: every user of the machine could read it. */
export interface ConnectionFlags {
  readonly service?: string
  readonly jid?: string
  readonly queue?: string
  readonly passwordFile?: string
}

type Environment = Readonly<Record<string, string | undefined>>

/** Where `xmq dev` and `npm start` listen. */
const DEV_SERVICE = 'xmpp://127.0.0.1:5222'
/** What fits them besides; each account there is made at its first login. */
const DEV_JID = 'worker@localhost'
const DEV_QUEUE = 'queue1.localhost'

/**
 * The environment with what an env file adds; a variable that is set already stays as it is.
 *
 * @param file an env file that must exist; `undefined` reads `.env` where there is one
 * @throws XmqError `invalid-config` when a named file cannot be read
 */
export function readEnvironment(cwd: string, env: Environment, file: string | undefined): Environment {
  const path = resolve(cwd, file ?? '.env')
  try {
    return { ...parseEnv(readFileSync(path, 'utf8')), ...env }
  } catch (error) {
    if (file === undefined) return env
    throw mistake(`The env file ${path} cannot be read: ${(error as Error).message}`)
  }
}

/**
 * The connection of a worker. On this machine, all that is missing is what fits `xmq dev`.
 *
 * @throws XmqError `invalid-config` naming all that is missing and how to give it
 */
export function resolveConnection(cwd: string, env: Environment, flags: ConnectionFlags): WorkerConnection {
  const service = flags.service ?? present(env['XMQ_SERVICE']) ?? DEV_SERVICE
  const local = isLocal(service)
  const jid = flags.jid ?? present(env['XMQ_JID']) ?? (local ? DEV_JID : undefined)
  const queue = flags.queue ?? present(env['XMQ_QUEUE']) ?? (local ? DEV_QUEUE : undefined)
  // In `xmq dev` a name is its own password; elsewhere that would send a guess over a network.
  const password = passwordFrom(cwd, env, flags.passwordFile) ?? (local ? jid?.split('@')[0] : undefined)
  if (jid !== undefined && queue !== undefined && password !== undefined) return { service, jid, password, queue }
  const missing = [
    ...(jid === undefined ? ['the account: --jid user@domain or XMQ_JID'] : []),
    ...(password === undefined ? ['its password: XMQ_PASSWORD, XMQ_PASSWORD_FILE or --password-file FILE'] : []),
    ...(queue === undefined ? ['the queue: --queue jobs.example.org or XMQ_QUEUE'] : []),
  ]
  throw mistake(
    `For ${service} these are not known:\n  ${missing.join('\n  ')}\nThe variables may also stand in a file .env`,
  )
}

function isLocal(service: string): boolean {
  return /^[a-z]+:\/\/(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(\/|$)/i.test(service)
}

function passwordFrom(cwd: string, env: Environment, flag: string | undefined): string | undefined {
  const file = flag ?? (present(env['XMQ_PASSWORD']) === undefined ? present(env['XMQ_PASSWORD_FILE']) : undefined)
  if (file === undefined) return present(env['XMQ_PASSWORD'])
  const path = resolve(cwd, file)
  try {
    // Editors and `echo` end a file with a line break that is no part of the password.
    return readFileSync(path, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    throw mistake(`The password file ${path} cannot be read: ${(error as Error).message}`)
  }
}

function present(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : value
}
