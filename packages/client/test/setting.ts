/** A server with a broker on it, clients and workers of one test; all of it is stopped after the test. */
import type { XmqError } from '@xmq/protocol'
import { connectRawClient, type DevBroker, type DevBrokerOptions, type RawPeer, startDevBroker } from '@xmq/testing'
import { afterEach } from 'vitest'
import {
  type Client,
  connect,
  type ConnectionOptions,
  type ConnectOptions,
  Worker,
  type WorkerOptions,
} from '../src/index.ts'

const QUEUE = 'queue1.localhost'
const cleanups: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** Runs when the test is over. */
export function afterTest(cleanup: () => Promise<unknown>): void {
  cleanups.push(cleanup)
}

/** What every test starts from. */
export interface Setting {
  readonly dev: DevBroker
  connect(options?: Partial<ConnectOptions>): Promise<Client>
  worker(options?: Partial<WorkerOptions>): Worker
  raw(user: string): Promise<RawPeer>
}

/**
 * Starts a broker.
 * @param common options of all clients and workers; without them they are plain, whatever else the queue speaks
 */
export async function startSetting(
  options: DevBrokerOptions = {},
  common: Partial<ConnectionOptions> = { mode: 'plain' },
): Promise<Setting> {
  const dev = await startDevBroker({
    ...options,
    server: { accounts: { shop: 'pw', w1: 'pw', w2: 'pw', mallory: 'pw' }, scramIterations: 1, ...options.server },
  })
  afterTest(() => dev.stop())
  const defaults = { service: dev.service, password: 'pw', queue: QUEUE, backoff: { base: 20, max: 100 }, ...common }
  return {
    dev,
    async connect(overrides = {}) {
      const client = await connect({ ...defaults, jid: 'shop@localhost', ...overrides })
      afterTest(() => client.close())
      return client
    },
    worker(overrides = {}) {
      const worker = new Worker({ ...defaults, jid: 'w1@localhost', stopTimeout: 2000, ...overrides })
      afterTest(() => worker.stop())
      return worker
    },
    async raw(user) {
      const peer = await connectRawClient({ port: dev.server.port, jid: `${user}@localhost`, password: 'pw' })
      afterTest(() => peer.drop())
      return peer
    },
  }
}

/** The next event of a name that fits. */
export function next<Events, Name extends keyof Events>(
  source: { on(name: Name, listener: (event: Events[Name]) => void): () => void },
  name: Name,
  fits: (event: Events[Name]) => boolean = () => true,
): Promise<Events[Name]> {
  return new Promise((resolve) => {
    const off = source.on(name, (event) => {
      if (!fits(event)) return
      off()
      resolve(event)
    })
  })
}

/** A promise with its ends in hand. */
export function deferred<Value = void>(): { promise: Promise<Value>; resolve: (value: Value) => void } {
  let resolve: (value: Value) => void = () => {}
  const promise = new Promise<Value>((fulfil) => (resolve = fulfil))
  return { promise, resolve }
}

/** What a promise is rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<XmqError> {
  return await promise.then(
    (value) => {
      throw new Error(`It did not fail, but came to ${JSON.stringify(value)}.`)
    },
    (error: unknown) => error as XmqError,
  )
}
