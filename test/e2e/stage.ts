/** What a case plays on: a server of its own, the broker in this process, and clients that are closed after each case. */
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Broker, type BrokerEvents, createBroker, parseConfig } from '@xmq/broker'
import { afterAll, afterEach, beforeAll, beforeEach, describe } from 'vitest'
import { chosenKinds, type ServerKind, startServer, type TestServer, type TestServerOptions } from '../servers/index.ts'
import { QueueClient, type QueueClientOptions } from './queue-client.ts'

/** What a group of cases needs beyond the usual. */
export interface StageOptions {
  readonly server?: TestServerOptions
  /** The servers where the cases make sense. @default all */
  readonly kinds?: readonly ServerKind[]
  /** More queues, or other rules for the usual ones: as in xmq.config.yaml. */
  readonly queues?: Readonly<Record<string, object>>
  /** `limits` of xmq.config.yaml. */
  readonly limits?: object
  /** The broker keeps what it is given in a file, which goes with the stage. @default false */
  readonly isDurable?: boolean
  /** False for cases that run their brokers themselves. @default true */
  readonly hasBroker?: boolean
}

/** An `any` queue that is a domain, an `all` queue that is one, and a node of each type on one domain. */
export const QUEUES = {
  any: 'queue1.localhost',
  all: 'queue2.localhost',
  anyNode: 'orders@xmq.localhost',
  allNode: 'news@xmq.localhost',
} as const

const USUAL_QUEUES: Readonly<Record<string, object>> = {
  [QUEUES.any]: { type: 'any' },
  [QUEUES.all]: { type: 'all' },
  [QUEUES.anyNode]: { type: 'any' },
  [QUEUES.allNode]: { type: 'all' },
}

/** A name that no other case uses. */
export function fresh(prefix: string): string {
  return `${prefix}-${randomUUID().slice(0, 8)}`
}

/** Defines the same cases for every server that is here. */
export function onEachServer(title: string, define: (stage: Stage) => void, options: StageOptions = {}): void {
  const kinds = chosenKinds().filter((kind) => options.kinds?.includes(kind) !== false)
  describe.each(kinds)(`${title}, on %s`, (kind) => {
    const stage = new Stage(kind, options)
    beforeAll(() => stage.open())
    beforeEach(({ onTestFailed }) => {
      onTestFailed(async () => console.error(await stage.report()))
    })
    afterEach(() => stage.clear())
    afterAll(() => stage.close())
    define(stage)
  })
}

/** One server and one broker; see {@link onEachServer}. */
export class Stage {
  readonly kind: ServerKind
  readonly #options: StageOptions
  readonly #toClose: (() => Promise<unknown>)[] = []
  #server: TestServer | undefined
  #broker: Broker | undefined
  #folder: string | undefined

  constructor(kind: ServerKind, options: StageOptions) {
    this.kind = kind
    this.#options = options
  }

  get server(): TestServer {
    if (this.#server === undefined) throw new Error('The stage has no server yet.')
    return this.#server
  }

  get broker(): Broker {
    if (this.#broker === undefined) throw new Error('The stage has no broker.')
    return this.#broker
  }

  async open(): Promise<void> {
    this.#server = await startServer(this.kind, this.#options.server)
    if (this.#options.isDurable === true) this.#folder = await mkdtemp(join(tmpdir(), 'xmq-stage-'))
    if (this.#options.hasBroker !== false) await this.startBroker()
  }

  /** The configuration of this stage's broker, as a file would hold it. */
  rawConfig(componentPort: number = this.server.componentPort): Record<string, unknown> {
    return {
      server: `xmpp://${this.server.host}:${componentPort}`,
      secret: this.server.secret,
      log: { level: 'error' },
      ...(this.#folder === undefined ? {} : { store: `sqlite:${join(this.#folder, 'xmq.db')}` }),
      ...(this.#options.limits === undefined ? {} : { limits: this.#options.limits }),
      queues: { ...USUAL_QUEUES, ...this.#options.queues },
    }
  }

  /** Starts the broker (again), where `componentPort` may be a proxy's. */
  async startBroker(componentPort?: number): Promise<void> {
    const broker = createBroker(parseConfig(this.rawConfig(componentPort)))
    this.#broker = broker
    await broker.start()
  }

  async stopBroker(): Promise<void> {
    await this.#broker?.stop()
  }

  /** A client, closed after the case. */
  async client(user: string = fresh('user'), options: Omit<QueueClientOptions, 'user'> = {}): Promise<QueueClient> {
    return this.closing(await QueueClient.connect(this.server, { ...options, user }))
  }

  /** A client that is subscribed to a topic, after the directed presence by which the broker learns of its end. */
  async worker(queue: string, topic: string, options: { ttl?: number; load?: number } = {}): Promise<QueueClient> {
    const worker = await this.client(fresh('worker'))
    worker.send(`<presence to='${queue}'/>`)
    const answer = await worker.sub(queue, topic, options)
    if (answer.attrs.get('type') !== 'result') throw new Error(`The subscription to '${topic}' was refused.`)
    return worker
  }

  /** Closes something after the case, whatever its outcome. */
  closing<T extends { close(): Promise<unknown> }>(what: T): T {
    this.afterwards(() => what.close())
    return what
  }

  /** Runs something after the case, whatever its outcome; the last first. */
  afterwards(undo: () => Promise<unknown>): void {
    this.#toClose.push(undo)
  }

  /** The next event of that name that matches. */
  event<Name extends keyof BrokerEvents>(
    name: Name,
    matches: (event: BrokerEvents[Name]) => boolean = () => true,
  ): Promise<BrokerEvents[Name]> {
    return new Promise((resolve) => {
      const off = this.broker.on(name, (event) => {
        if (!matches(event)) return
        off()
        resolve(event)
      })
    })
  }

  async clear(): Promise<void> {
    for (const undo of this.#toClose.splice(0).reverse()) await undo()
  }

  async close(): Promise<void> {
    await this.#broker?.stop()
    await this.#server?.dispose()
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true })
  }

  async report(): Promise<string> {
    return `The end of ${this.kind}'s log:\n${await this.#server?.logTail()}`
  }
}
