/**
 * An embedded server and a broker on it, in this process and on free ports: what a worker's tests need, and `npm start`.
 * Owner of both; the broker is stopped first, so that its links end politely.
 */
import { createBroker, parseConfig, type Broker, type BrokerOptions, type QueueRules } from '@xmq/broker'
import type { EmbeddedServerOptions } from './options.ts'
import { startEmbeddedServer, type EmbeddedServer } from './server.ts'

/** Options of {@link startDevBroker}. */
export interface DevBrokerOptions {
  /**
   * Queues by address, each with its type or with the rules that a configuration file has.
   * @default { 'queue1.localhost': 'any', 'queue2.localhost': 'all' }, in the server's domain
   */
  readonly queues?: Readonly<Record<string, 'any' | 'all' | Readonly<Record<string, unknown>>>>
  /**
   * Options of the server. Accounts are made at their first login unless told otherwise; a client that knows only SCRAM may
   * make one with the password `secret` or with the account's own name.
   */
  readonly server?: EmbeddedServerOptions
  /** Further keys of the broker's configuration (`limits`, `http`, `store`). */
  readonly config?: Readonly<Record<string, unknown>>
  /** Options of the broker: its log, for one. */
  readonly broker?: BrokerOptions
}

/** A running server with a broker on it. */
export interface DevBroker {
  readonly server: EmbeddedServer
  /** The broker that runs, or ran last. */
  readonly broker: Broker
  /** What clients connect to: `xmpp://127.0.0.1:PORT`. */
  readonly service: string
  readonly domain: string
  /** The queues with the rules that hold for them. */
  readonly queues: readonly QueueRules[]
  /**
   * Stops the broker and starts another one with the same configuration; resolves when it serves its queues.
   * @param whileDown what happens in between
   */
  restartBroker(whileDown?: () => Promise<void>): Promise<void>
  /** Stops the broker, then the server. Idempotent. */
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Starts an embedded server and a broker on it; resolves when the queues can be used.
 *
 * @example
 * const dev = await startDevBroker()
 * const mq = await connect({ service: dev.service, jid: 'shop@localhost', password: 'any', queue: 'queue1.localhost' })
 * @throws XmqError `invalid-config` on a wrong option, `conflict` when a port is taken
 */
export async function startDevBroker(options: DevBrokerOptions = {}): Promise<DevBroker> {
  const server = await startEmbeddedServer({
    registerOnLogin: true,
    registerPasswords: ['secret'],
    ...options.server,
  })
  const { domain } = server
  const service = `xmpp://${hostPort(server.host, server.port)}`
  let broker: Broker | undefined
  try {
    const config = parseConfig(
      {
        ...options.config,
        server: `xmpp://${hostPort(server.host, server.componentPort)}`,
        secret: server.secret,
        queues: queuesOf(options, domain),
      },
      { where: 'startDevBroker' },
    )
    const brokerOptions = { moreMetrics: () => server.metrics(), ...options.broker }
    broker = createBroker(config, brokerOptions)
    await broker.start()
    let running = broker
    const stop = async (): Promise<void> => {
      await running.stop()
      await server.stop()
    }
    return {
      server,
      service,
      domain,
      queues: config.queues,
      stop,
      [Symbol.asyncDispose]: stop,
      get broker() {
        return running
      },
      async restartBroker(whileDown) {
        await running.stop()
        await whileDown?.()
        running = createBroker(config, brokerOptions)
        await running.start()
      },
    }
  } catch (error) {
    await broker?.stop()
    await server.stop()
    throw error
  }
}

function queuesOf(options: DevBrokerOptions, domain: string): Record<string, unknown> {
  const given = options.queues ?? { [`queue1.${domain}`]: 'any', [`queue2.${domain}`]: 'all' }
  return Object.fromEntries(
    Object.entries(given).map(([address, rules]) => [address, typeof rules === 'string' ? { type: rules } : rules]),
  )
}

function hostPort(host: string, port: number): string {
  return `${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${port}`
}
