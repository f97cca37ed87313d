/** The embedded server of @xmq/testing, in this process. */
import { type EmbeddedServer, startEmbeddedServer } from '@xmq/testing'
import { findFreePorts } from './ports.ts'
import type { TestServer, TestServerOptions } from './server.ts'

const HOST = '127.0.0.1'
const LOG_LINES_MAX = 60

/** Starts an embedded server on ports that it keeps over {@link TestServer.stop} and {@link TestServer.start}. */
export async function startEmbedded(options: TestServerOptions = {}): Promise<TestServer> {
  const [c2sPort = 0, componentPort = 0, websocketPort = 0] = await findFreePorts(3)
  const accounts = new Map(Object.entries(options.accounts ?? {}))
  const log: string[] = []
  let server: EmbeddedServer | undefined

  const start = async (): Promise<void> => {
    server ??= await startEmbeddedServer({
      host: HOST,
      port: c2sPort,
      componentPort,
      websocketPort,
      domain: 'localhost',
      anonymousDomain: 'anon.localhost',
      secret: 'secret',
      // As ejabberd; Prosody shows the other way.
      componentConflict: 'share',
      accounts: Object.fromEntries(accounts),
      ...(options.producerBytes === undefined ? {} : { clientBytesPerSecond: options.producerBytes }),
      log: (line) => {
        log.push(line)
        if (log.length > LOG_LINES_MAX) log.shift()
      },
    })
  }
  const stop = async (): Promise<void> => {
    await server?.stop()
    server = undefined
  }
  await start()
  return {
    kind: 'embedded',
    pid: undefined,
    host: HOST,
    c2sPort,
    componentPort,
    websocketUrl: server?.websocketUrl ?? `ws://${HOST}:${websocketPort}`,
    service: `xmpp://${HOST}:${c2sPort}`,
    secret: 'secret',
    domain: 'localhost',
    anonymousDomain: 'anon.localhost',
    register: async (user, password) => {
      accounts.set(user, password)
      server?.register(user, password)
    },
    kill: stop,
    signal: (name) => {
      throw new Error(`The embedded server has no process to send ${name} to.`)
    },
    stop,
    start,
    restart: async () => {
      await stop()
      await start()
    },
    logTail: async () => log.join('\n'),
    dispose: stop,
  }
}
