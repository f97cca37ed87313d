/**
 * A broker that is killed and started again on its store: everything goes on, told by the protocol and not by a timeout. All
 * timeouts and renewals are an hour away here, so that whatever goes on was woken.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Broker, createBroker, createComponentLink, parseConfig } from '@xmq/broker'
import { type Client, connect, Worker } from '@xmq/client'
import { findChild, NS_QUEUE } from '@xmq/protocol'
import { expect, test } from 'vitest'
import { type GuardedProcess, spawnGuarded, stopGuarded } from '../servers/index.ts'
import { fresh, onEachServer, QUEUES, type Stage } from './stage.ts'

const XMQ = fileURLToPath(new URL('../../packages/xmq/bin/xmq.js', import.meta.url))
const PASSWORD = 'pw'
const HOUR = '1h'

/** A store that outlives its brokers, which are processes. */
class Brokers {
  readonly #stage: Stage
  readonly #config: string
  readonly #rules: object
  #running: GuardedProcess | undefined

  private constructor(stage: Stage, config: string, rules: object) {
    this.#stage = stage
    this.#config = config
    this.#rules = rules
  }

  static async start(stage: Stage): Promise<Brokers> {
    const brokers = await Brokers.prepare(stage)
    await brokers.start()
    return brokers
  }

  static async prepare(stage: Stage): Promise<Brokers> {
    const folder = await mkdtemp(join(tmpdir(), 'xmq-resume-'))
    stage.afterwards(() => rm(folder, { recursive: true, force: true }))
    const config = join(folder, 'xmq.config.json')
    const rules = { ...stage.rawConfig(), store: `sqlite:${join(folder, 'xmq.db')}`, log: { level: 'info' } }
    await writeFile(config, JSON.stringify(rules))
    return new Brokers(stage, config, rules)
  }

  async start(): Promise<void> {
    const broker = await spawnGuarded(process.execPath, [XMQ, 'serve', '--config', this.#config])
    this.#stage.afterwards(() => stopGuarded(broker))
    this.#running = broker
    await broker.line(/serving/)
  }

  /** Instead of {@link start}: one in this process, whose deliver stanzas get lost on their way. */
  async startLossy(): Promise<Broker> {
    const createLink: typeof createComponentLink = (options, handlers) => {
      const link = createComponentLink(options, handlers)
      const send = link.send.bind(link)
      link.send = (stanza) => {
        if (findChild(stanza, 'deliver', NS_QUEUE) === undefined) send(stanza)
      }
      return link
    }
    const broker = createBroker(parseConfig(this.#rules), { parts: { createLink } })
    this.#stage.afterwards(() => broker.stop())
    await broker.start()
    return broker
  }

  async kill(): Promise<void> {
    this.#running?.signal('SIGKILL')
    await this.#running?.exited
  }
}

async function account(
  stage: Stage,
  queue: string,
): Promise<{ service: string; jid: string; password: string; queue: string }> {
  const user = fresh('sdk')
  await stage.server.register(user, PASSWORD)
  const jid = `${user}@${stage.server.domain}`
  return { service: stage.server.service, jid, password: PASSWORD, queue }
}

async function producerOf(stage: Stage, queue: string = QUEUES.any): Promise<Client> {
  const timeouts = { answerTimeout: HOUR, requestTimeout: HOUR, dedupeWindow: HOUR, silence: HOUR } as const
  return stage.closing(await connect({ ...(await account(stage, queue)), ...timeouts }))
}

async function workerOf(
  stage: Stage,
  topic: string,
  handle: (payload: unknown) => unknown,
  queue: string = QUEUES.any,
): Promise<void> {
  const timeouts = { answerTimeout: HOUR, ttl: HOUR, silence: HOUR, stopTimeout: '100ms' } as const
  const worker = new Worker({ ...(await account(stage, queue)), ...timeouts })
  worker.handle(topic, handle)
  stage.afterwards(() => worker.stop())
  await worker.start()
}

/** Resolves when a worker has handled so many different payloads. */
function tally(): {
  readonly handle: (payload: unknown) => void
  readonly reached: (count: number) => Promise<void>
  readonly seen: Set<unknown>
} {
  const seen = new Set<unknown>()
  const waiting = new Set<() => void>()
  return {
    seen,
    handle: (payload) => {
      seen.add(payload)
      for (const check of waiting) check()
    },
    reached: (count) =>
      new Promise((resolve) => {
        const check = (): void => {
          if (seen.size < count) return
          waiting.delete(check)
          resolve()
        }
        waiting.add(check)
        check()
      }),
  }
}

onEachServer(
  'a broker that is killed and started again',
  (stage) => {
    test('under load: every publish is confirmed in the end, and every message handled', {
      timeout: 120_000,
    }, async () => {
      const brokers = await Brokers.start(stage)
      const topic = fresh('topic')
      const { handle, reached, seen } = tally()
      await workerOf(stage, topic, handle)
      const producer = await producerOf(stage)
      const confirmed: Promise<unknown>[] = []
      const publish = (count: number): void => {
        for (let sent = 0; sent < count; sent++) {
          const number = confirmed.length
          confirmed.push(producer.publish(topic, number, { id: `${topic}-${number}`, key: `k${number % 7}` }))
        }
      }
      publish(300)
      await reached(20)
      await brokers.kill()
      publish(300)
      await brokers.start()
      publish(300)
      await Promise.all(confirmed)
      await reached(900)
      expect([...seen].toSorted((a, b) => Number(a) - Number(b))).toEqual(Array.from({ length: 900 }, (_, at) => at))
    })

    test('calls a worker that had only just subscribed', async () => {
      const brokers = await Brokers.start(stage)
      const topic = fresh('topic')
      const { handle, reached } = tally()
      await workerOf(stage, topic, handle)
      await brokers.kill()
      await brokers.start()
      await (await producerOf(stage)).publish(topic, 'after')
      await reached(1)
    })

    test('takes the last ack of a worker that had said it to the old one', async () => {
      const brokers = await Brokers.start(stage)
      const topic = fresh('topic')
      const { handle, reached } = tally()
      let release: () => void = () => {}
      const held = new Promise<void>((resolve) => (release = resolve))
      let began: () => void = () => {}
      const begun = new Promise<void>((resolve) => (began = resolve))
      const handler = async (payload: unknown): Promise<void> => {
        if (payload === 'first') {
          began()
          await held
        }
        handle(payload)
      }
      await workerOf(stage, topic, handler, QUEUES.anyNode)
      const producer = await producerOf(stage, QUEUES.anyNode)
      await producer.publish(topic, 'first', { key: 'k' })
      await begun
      await brokers.kill()
      release()
      await brokers.start()
      // Of one key: it is delivered only when the first one is settled.
      await producer.publish(topic, 'second', { key: 'k' })
      await reached(2)
    })

    test('hands out at once what was on its way and never came', async () => {
      const brokers = await Brokers.prepare(stage)
      const lossy = await brokers.startLossy()
      const topic = fresh('topic')
      const { handle, reached } = tally()
      await workerOf(stage, topic, handle, QUEUES.anyNode)
      const lost = new Promise<void>((resolve) => {
        let count = 0
        lossy.on('delivered', (event) => {
          count += event.count
          if (count === 3) resolve()
        })
      })
      const producer = await producerOf(stage, QUEUES.anyNode)
      for (const number of [1, 2, 3]) await producer.publish(topic, number, { key: `k${number}` })
      await lost
      await lossy.stop()
      await brokers.start()
      await reached(3)
    })

    test('tells whoever waits for a request that it is lost', async () => {
      const brokers = await Brokers.start(stage)
      const topic = fresh('topic')
      let began: () => void = () => {}
      const begun = new Promise<void>((resolve) => (began = resolve))
      await workerOf(stage, topic, () => {
        began()
        return new Promise(() => {})
      })
      const producer = await producerOf(stage)
      const answer = producer.request(topic, 'never').then(
        () => 'answered',
        (error: { code: string }) => error.code,
      )
      await begun
      await brokers.kill()
      await brokers.start()
      expect(await answer).toBe('worker-gone')
    })
  },
  // A lease of an hour: a message that its worker does not settle comes back after that only.
  { hasBroker: false, queues: { [QUEUES.anyNode]: { type: 'any', lease: HOUR, maxLease: '10h' } } },
)
