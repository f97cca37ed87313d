/** XMPP servers for tests and benchmarks: `startServer('prosody')`, `availableKinds()`. */
import { findEjabberd, startEjabberd } from './ejabberd.ts'
import { startEmbedded } from './embedded.ts'
import { findProsody, startProsody } from './prosody.ts'
import { SERVER_KINDS, type ServerKind, type TestServer, type TestServerOptions } from './server.ts'

export { type GuardedOptions, type GuardedProcess, spawnGuarded, stopGuarded } from './guard.ts'
export { findFreePorts } from './ports.ts'
export { COMPONENT_DOMAINS, SERVER_KINDS, type ServerKind, type TestServer, type TestServerOptions } from './server.ts'

const STARTERS: Readonly<Record<ServerKind, (options: TestServerOptions) => Promise<TestServer>>> = {
  embedded: startEmbedded,
  prosody: startProsody,
  ejabberd: startEjabberd,
}

/** Starts a server of its own; `dispose()` it. */
export function startServer(kind: ServerKind, options: TestServerOptions = {}): Promise<TestServer> {
  return STARTERS[kind](options)
}

/** The kinds that can run on this machine. */
export function installedKinds(): ServerKind[] {
  const there = { embedded: true, prosody: findProsody() !== undefined, ejabberd: findEjabberd() !== undefined }
  return SERVER_KINDS.filter((kind) => there[kind])
}

/**
 * The kinds that a suite runs on: those that `XMQ_SERVERS` names (`embedded,prosody`), else all that are installed.
 * @throws on a name that is no server, or one that is not installed: a suite asked for never vanishes in silence
 */
export function chosenKinds(): ServerKind[] {
  const installed = installedKinds()
  const names = (process.env['XMQ_SERVERS'] ?? '').split(',').filter((name) => name !== '')
  for (const name of names) {
    if (!SERVER_KINDS.some((kind) => kind === name)) {
      throw new Error(`XMQ_SERVERS names '${name}'; expected some of ${SERVER_KINDS.join(', ')}.`)
    }
    if (!installed.some((kind) => kind === name)) {
      throw new Error(`XMQ_SERVERS names '${name}', which is not installed here: npm run servers:install`)
    }
  }
  return names.length === 0 ? installed : installed.filter((kind) => names.includes(kind))
}
