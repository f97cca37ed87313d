/** `xmq dev`: an embedded XMPP server and a broker in one process, for a developer's own machine. */
import { randomBytes } from 'node:crypto'
import { join, relative, resolve } from 'node:path'
import { createBroker, parseConfig, type BrokerConfig } from '@xmq/broker'
import { XmqError } from '@xmq/protocol'
import { startEmbeddedServer, type EmbeddedServer } from '@xmq/testing'
import { brokerLog } from './broker-log.ts'
import { DEFAULT_SERVICE } from './client-flags.ts'
import { DEV_FOLDER, DEV_QUEUES, openDevAccounts } from './dev-data.ts'
import { EXIT, mistake, type ExitCode } from './exit.ts'
import { paint, untilStopped, type Io, type OutputFormat } from './io.ts'

/** Flags of `xmq dev`. */
export interface DevFlags {
  readonly port: string
  readonly websocketPort: string
  readonly host: string
  readonly domain: string
  readonly queue?: readonly string[]
  /** Where accounts and messages are kept; without it accounts in {@link DEV_FOLDER}, messages in memory. */
  readonly data?: string
  readonly http?: string
  readonly logLevel: string
  readonly logFormat: string
  readonly output: OutputFormat
}

/** Runs until SIGINT or SIGTERM. */
export async function dev(io: Io, flags: DevFlags): Promise<ExitCode> {
  const queues = queuesOf(flags)
  const directory = resolve(io.cwd, flags.data ?? DEV_FOLDER)
  const accounts = openDevAccounts(directory)
  // Everything that a flag can get wrong is known before a port is opened.
  const store = flags.data === undefined ? 'memory:' : `sqlite:${join(directory, 'xmq.db')}`
  configOf(flags, queues, { componentPort: 1, secret: 'checked', store })
  const secret = randomBytes(16).toString('hex')
  const server = await startServer(flags, {
    accounts: accounts.known,
    secret,
    onRegister: (user, password) => accounts.add(user, password),
  })
  const config = configOf(flags, queues, { componentPort: server.componentPort, secret, store })
  const broker = createBroker(config, {
    log: brokerLog(io, config.log.level, config.log.format),
    moreMetrics: () => server.metrics(),
  })
  const stop = untilStopped(io)
  try {
    await broker.start({ signal: stop.signal })
    const address = broker.httpAddress
    const http = address === undefined ? undefined : `http://${address.host}:${address.port}`
    announce(io, flags, { server, config, http, data: directory, accounts: Object.keys(accounts.known) })
    await stop.done
  } catch (error) {
    if (!stop.signal.aborted) throw flags.data === undefined ? error : withFolderHint(error)
  } finally {
    await broker.stop()
    await server.stop()
    stop.release()
  }
  return EXIT.ok
}

/** Two of `xmq dev` on different ports may still have been given one folder. */
function withFolderHint(thrown: unknown): XmqError {
  const error = XmqError.from(thrown)
  if (error.code !== 'conflict') return error
  return new XmqError('conflict', `${error.message} Or give each its own folder: --data DIR.`, { cause: error })
}

interface DevQueue {
  readonly address: string
  readonly type: string
}

function queuesOf(flags: DevFlags): readonly DevQueue[] {
  return (flags.queue ?? DEV_QUEUES).map((text) => {
    const colon = text.lastIndexOf(':')
    const name = colon === -1 ? text : text.slice(0, colon)
    const type = colon === -1 ? 'any' : text.slice(colon + 1)
    if (name === '') throw mistake(`--queue: '${text}' has no name. Write NAME:TYPE, such as jobs:any.`)
    return { address: /[.@]/.test(name) ? name : `${name}.${flags.domain}`, type }
  })
}

function configOf(
  flags: DevFlags,
  queues: readonly DevQueue[],
  given: { readonly componentPort: number; readonly secret: string; readonly store: string },
): BrokerConfig {
  const everybody = [flags.domain, `anon.${flags.domain}`]
  return parseConfig(
    {
      server: `xmpp://127.0.0.1:${given.componentPort}`,
      secret: given.secret,
      store: given.store,
      ...(flags.http === undefined ? {} : { http: flags.http }),
      log: { level: flags.logLevel, format: flags.logFormat },
      queues: Object.fromEntries(
        queues.map(({ address, type }) => [
          address,
          { type, publish: everybody, consume: everybody, admins: [flags.domain] },
        ]),
      ),
    },
    { where: 'xmq dev' },
  )
}

async function startServer(
  flags: DevFlags,
  options: {
    readonly accounts: Readonly<Record<string, string>>
    readonly secret: string
    readonly onRegister: (user: string, password: string) => void
  },
): Promise<EmbeddedServer> {
  try {
    return await startEmbeddedServer({
      ...options,
      host: flags.host,
      port: portOf('--port', flags.port),
      websocketPort: flags.websocketPort === 'off' ? false : portOf('--websocket-port', flags.websocketPort),
      domain: flags.domain,
      anonymousDomain: `anon.${flags.domain}`,
      registerOnLogin: true,
      registerPasswords: ['secret'],
    })
  } catch (error) {
    const { code, message } = XmqError.from(error)
    if (code !== 'conflict') throw error
    throw new XmqError(
      'conflict',
      `${message} Is another 'xmq dev' or an XMPP server running? ` +
        'Choose other ports: --port 0 --websocket-port 0 takes free ones.',
      { cause: error },
    )
  }
}

function portOf(flag: string, text: string): number {
  const port = Number(text)
  if (/^\d{1,5}$/.test(text) && port <= 65_535) return port
  throw mistake(`${flag}: '${text}' is no port. Give a number from 0 (any free one) to 65535.`)
}

interface Announcement {
  readonly server: EmbeddedServer
  readonly config: BrokerConfig
  readonly http: string | undefined
  readonly data: string
  readonly accounts: readonly string[]
}

function announce(io: Io, flags: DevFlags, { server, config, http, data, accounts }: Announcement): void {
  const service = `xmpp://${server.host.includes(':') ? `[${server.host}]` : server.host}:${server.port}`
  const queues = config.queues.map(({ address, type }) => ({ address, type }))
  if (flags.output === 'json') {
    const { websocketUrl, domain } = server
    io.stdout.write(
      `${JSON.stringify({ event: 'ready', service, websocket: websocketUrl, domain, queues, http, data })}\n`,
    )
    return
  }
  const bold = (text: string) => paint(io, 'stdout', 'bold', text)
  const cyan = (text: string) => paint(io, 'stdout', 'cyan', text)
  const dim = (text: string) => paint(io, 'stdout', 'dim', text)
  const option = service === DEFAULT_SERVICE && server.domain === 'localhost' ? '' : ` --service ${service}`
  const jid = server.domain === 'localhost' ? '' : ` --jid xmq@${server.domain}`
  const queue = queues[0]?.address ?? ''
  const width = Math.max(...queues.map(({ address }) => address.length))
  const isDurable = config.store.scheme === 'sqlite'
  const kept = isDurable ? '(accounts and messages)' : '(accounts; messages are kept in memory: --data keeps them)'
  const typeText = { any: 'one subscriber gets each message', all: 'every subscriber gets each message' }
  const lines = [
    bold('XMQ is running, for development on this machine only.'),
    '',
    `  service    ${cyan(service)}${server.websocketUrl === undefined ? '' : `  and  ${cyan(server.websocketUrl)}`}`,
    ...(http === undefined ? [] : [`  health     ${cyan(`${http}/readyz`)}  ${cyan(`${http}/metrics`)}`]),
    ...queues.map(({ address, type }, index) => {
      return `  ${index === 0 ? 'queues    ' : '          '} ${cyan(address.padEnd(width))}  ${type}: ${typeText[type]}`
    }),
    `  accounts   any name@${server.domain}, made at its first login with xmq or the SDK, with any password`,
    `             (a client that knows only SCRAM: its name or 'secret', or what ${shownPath(io, data)}/accounts.json says)`,
    ...(accounts.length === 0
      ? []
      : [`             so far: ${accounts.slice(0, 10).join(', ')}${accounts.length > 10 ? ', …' : ''}`]),
    `  data       ${shownPath(io, data)} ${dim(kept)}`,
    '',
    'Try, in other terminals:',
    '',
    `  npx xmq sub ${queue} greetings${option}${jid}`,
    `  npx xmq pub ${queue} greetings "hello"${option}${jid}`,
    '',
    dim('Ctrl-C ends it.'),
  ]
  io.stdout.write(`${lines.join('\n')}\n`)
}

function shownPath(io: Io, path: string): string {
  const short = relative(io.cwd, path)
  return short.startsWith('..') ? path : `./${short}`
}
