/** A real server as a process in a temporary folder: what ejabberd and Prosody share. */
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type GuardedProcess, spawnGuarded, stopGuarded } from './guard.ts'
import { findFreePorts } from './ports.ts'
import type { ServerKind, TestServer, TestServerOptions } from './server.ts'

/** What one kind of server adds. */
export interface ServerRecipe {
  readonly kind: ServerKind
  readonly portCount: number
  readonly websocketPath: string
  /** Writes the configuration into `folder` and says how to start the server. */
  prepare(place: ServerPlace, options: TestServerOptions): Promise<ServerCommand>
  /** Resolves once the server serves; rejects when it says that it cannot. */
  ready(place: ServerPlace, running: () => boolean): Promise<void>
  register(place: ServerPlace, user: string, password: string): Promise<void>
  /** Resolves once these accounts are sure to survive a crash. */
  beforeKill?(place: ServerPlace, users: readonly string[]): Promise<void>
}

/** Where a server lives. */
export interface ServerPlace {
  readonly folder: string
  readonly logPath: string
  /** c2s, component, HTTP, and whatever else the recipe asked for. */
  readonly ports: readonly [c2s: number, component: number, http: number, ...rest: number[]]
  readonly secret: string
  readonly domain: string
  readonly anonymousDomain: string
}

/** A command line. */
export interface ServerCommand {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: NodeJS.ProcessEnv
}

const HOST = '127.0.0.1'
const PORT_TRIES = 3
const LOG_TAIL_LINES = 60

/** Starts a server on free ports; on others when somebody took one of them in between. */
export async function startInstalled(recipe: ServerRecipe, options: TestServerOptions): Promise<TestServer> {
  for (let tries = 1; ; tries++) {
    const server = await place(recipe, options)
    try {
      await server.start()
      for (const [user, password] of Object.entries(options.accounts ?? {})) await server.register(user, password)
      return server
    } catch (error) {
      const log = await server.logTail()
      await server.dispose()
      if (tries === PORT_TRIES) throw new Error(`${recipe.kind} did not start. Its log:\n${log}`, { cause: error })
    }
  }
}

async function place(recipe: ServerRecipe, options: TestServerOptions): Promise<TestServer> {
  const folder = await mkdtemp(join(tmpdir(), `xmq-${recipe.kind}-`))
  const ports = (await findFreePorts(recipe.portCount)) as [number, number, number]
  const logPath = join(folder, `${recipe.kind}.log`)
  const where: ServerPlace = {
    folder,
    logPath,
    ports,
    secret: 'secret',
    domain: 'localhost',
    anonymousDomain: 'anon.localhost',
  }
  return installedServer(recipe, where, await recipe.prepare(where, options))
}

function installedServer(recipe: ServerRecipe, where: ServerPlace, command: ServerCommand): TestServer {
  const { folder, logPath, ports } = where
  const [c2sPort, componentPort, httpPort] = ports
  let child: GuardedProcess | undefined
  const users: string[] = []
  const outPath = join(folder, 'out.log')

  const start = async (): Promise<void> => {
    if (child?.running === true) return
    const out = await open(outPath, 'a')
    try {
      child = await spawnGuarded(command.command, command.args, {
        folder,
        cwd: folder,
        output: out.fd,
        ...(command.env === undefined ? {} : { env: command.env }),
      })
    } finally {
      await out.close()
    }
    const started = child
    await recipe.ready(where, () => started.running)
  }
  const stop = async (): Promise<void> => {
    if (child !== undefined) await stopGuarded(child)
  }
  return {
    kind: recipe.kind,
    get pid() {
      return child?.running === true ? child.pid : undefined
    },
    host: HOST,
    c2sPort,
    componentPort,
    // By name: both servers choose the virtual host by the Host header of the handshake.
    websocketUrl: `ws://localhost:${httpPort}${recipe.websocketPath}`,
    service: `xmpp://${HOST}:${c2sPort}`,
    secret: where.secret,
    domain: where.domain,
    anonymousDomain: where.anonymousDomain,
    register: async (user, password) => {
      await recipe.register(where, user, password)
      users.push(user)
    },
    kill: async () => {
      if (child?.running === true) await recipe.beforeKill?.(where, users)
      child?.signal('SIGKILL')
      await child?.exited
    },
    signal: (name) => child?.signal(name),
    stop,
    start,
    restart: async () => {
      await stop()
      await start()
    },
    logTail: async () => {
      const texts = await Promise.all([outPath, logPath].map((path) => readFile(path, 'utf8').catch(() => '')))
      return texts.map((text) => text.trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n')).join('\n')
    },
    dispose: async () => {
      await stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
