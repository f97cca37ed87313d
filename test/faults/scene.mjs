/**
 * Where a scenario plays: a real server, a broker process on sqlite, producer and worker processes under load, and their journals.
 *
 *     open --prepare--> server, broker, workers, producers --scenario.run()--> faults --settle()--> all is done --close()
 *                                                               |
 *                                                               `--> faults.1.jsonl: what was done to whom, from when to when
 *
 * Invariants:
 * 1. A fault is written down before it is done, and its end after it is over: what it explains lies in between.
 * 2. Nothing waits on hope: every wait is for journals, logs or exits, has an end, and names what did not come.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { findFreePorts, startServer } from '../servers/dist/index.js'
import { Broker } from './broker.mjs'
import { ClientProcess } from './clients.mjs'
import { journalName, nowMs, openJournal, Tail } from './journal.mjs'
import { Ledger } from './ledger.mjs'
import { QUEUE_ALL, QUEUE_ANY, SUBSCRIPTIONS } from './messages.mjs'
import { PATIENCE_MS, TooLate } from './patience.mjs'
import { createRandom, seedOf } from './random.mjs'
import { deadLetters, readStore } from './remains.mjs'
import { watchStalls } from './stalls.mjs'

const READ_MS = 20
/** How long journals may be behind a store that has nothing more to give. */
const JOURNALS_MS = 15_000
/** How often the store is looked at while something is open. */
const LOOK_MS = 300
const PASSWORD = 'pw'
const ACCOUNTS = ['shop1', 'shop2', 'crew1', 'crew2', 'ops']

/**
 * What a scene has, before a scenario's `prepare` changes it.
 *
 * @typedef {object} Plan
 * @property {number} producers processes
 * @property {number} workers processes
 * @property {number} rate messages a second of each producer
 * @property {number} window most publishes of a producer without an answer
 * @property {number} concurrency handlers of a worker at once, on each queue
 * @property {number} handlerMs longest time of a handler
 * @property {number} slowMs how long a `slow` message takes
 * @property {boolean} hasSlow whether there are such messages
 * @property {number} leaseMs the queues' lease
 * @property {string} storePath the sqlite file
 * @property {object} config the broker's configuration, as in xmq.config.yaml
 * @property {(argv: string[]) => string[]} wrap puts a command before the broker's
 * @property {object} env added to the broker's environment
 */

/** @returns {Plan} */
function usualPlan({ folder, server, httpPort, leaseMs, hasSlow }) {
  const storePath = join(folder, 'store', 'xmq.db')
  mkdirSync(join(folder, 'store'))
  const rules = {
    lease: `${leaseMs}ms`,
    backoff: '100ms',
    maxBackoff: '500ms',
    admins: [`ops@${server.domain}`],
  }
  return {
    producers: 2,
    workers: 4,
    rate: 100,
    window: 200,
    concurrency: 4,
    handlerMs: 25,
    slowMs: leaseMs * 1.5,
    hasSlow,
    leaseMs,
    storePath,
    config: {
      server: `xmpp://${server.host}:${server.componentPort}`,
      secret: server.secret,
      store: `sqlite:${storePath}`,
      http: `127.0.0.1:${httpPort}`,
      log: { level: 'info', format: 'json' },
      // A server that is killed every few seconds never lets a stream last: the pauses would grow to half a minute.
      limits: { maxReconnectPause: '1s' },
      queues: { [QUEUE_ANY]: { type: 'any', ...rules }, [QUEUE_ALL]: { type: 'all', ...rules } },
    },
    wrap: (argv) => argv,
    env: {},
  }
}

/** One scene. Made by {@link openScene}. */
export class Scene {
  folder
  journals
  server
  random
  seed
  /** @type {Plan} */
  plan
  /** @type {Broker} */
  broker
  /** @type {ClientProcess[]} */
  producers = []
  /** @type {ClientProcess[]} */
  workers = []
  ledger = new Ledger()
  /** Milliseconds until service resumed, by fault: `{ kind, upMs, confirmMs, deliveryMs }`. */
  resumed = []
  #tail
  #faults
  #serial = 0
  #timer
  #stopWatch
  #undo = []
  #say

  constructor({ folder, server, seed, name, say }) {
    this.folder = folder
    this.server = server
    this.seed = seed
    this.random = createRandom(seedOf(seed, name))
    this.journals = join(folder, 'journals')
    mkdirSync(this.journals)
    this.#tail = new Tail(this.journals)
    this.#faults = openJournal(join(this.journals, journalName('faults', 1)))
    this.#say = say
  }

  /** Starts everything, and waits until it works. */
  async start(plan) {
    this.plan = plan
    const { config, wrap, env } = plan
    this.broker = new Broker({ folder: this.folder, journals: this.journals, config, wrap, env })
    this.#timer = setInterval(() => this.read(), READ_MS)
    this.#stopWatch = watchStalls(this.#faults)
    await this.broker.start()
    const { service, domain } = this.server
    const common = { service, password: PASSWORD, seed: this.seed, hasSlow: plan.hasSlow }
    const { concurrency, handlerMs, slowMs, rate, window } = plan
    for (let at = 0; at < plan.workers; at++) {
      const subscription = SUBSCRIPTIONS[at % SUBSCRIPTIONS.length]
      const jid = `${subscription.account}@${domain}`
      const options = { ...common, jid, subscription, concurrency, handlerMs, slowMs }
      this.workers.push(new ClientProcess({ name: `worker${at + 1}`, role: 'worker', folder: this.journals, options }))
    }
    for (let at = 0; at < plan.producers; at++) {
      const options = { ...common, jid: `shop${(at % 2) + 1}@${domain}`, rate, window }
      this.producers.push(
        new ClientProcess({ name: `producer${at + 1}`, role: 'producer', folder: this.journals, options }),
      )
    }
    await Promise.all(this.workers.map((worker) => worker.start()))
    await Promise.all(this.workers.map((worker) => this.ready(worker)))
    await Promise.all(this.producers.map((producer) => producer.start()))
    await this.flow('the load has begun')
  }

  read() {
    this.ledger.add(this.#tail.read())
  }

  /** Runs when the scene closes, the last one first. */
  afterwards(undo) {
    this.#undo.push(undo)
  }

  note(text) {
    this.#say(text)
  }

  /** Waits for `check` to say something other than `undefined`. @throws TooLate naming `what`, after `patienceMs` */
  async until(what, check, patienceMs = PATIENCE_MS) {
    const answer = await this.ledger.when(check, patienceMs)
    if (answer !== undefined) return answer
    throw new TooLate([`${what}: not within ${patienceMs / 1000} s.`, ...this.#state()].join('\n  '))
  }

  /** Who runs, and what those who do not have said last. */
  #state() {
    const broker = `broker: ${this.broker.running ? 'runs' : 'is down'}; ${this.broker.lines.at(-1) ?? 'said nothing'}`
    const clients = [...this.producers, ...this.workers].map((client) => {
      const last = this.ledger.lines.findLast(({ by }) => by === client.name)
      return `${client.name}: ${client.running ? 'runs' : 'is down'}; ${client.lines.at(-1) ?? JSON.stringify(last)}`
    })
    return [broker, ...clients]
  }

  /** A process has written that it is ready, in this life. */
  async ready(client) {
    const name = `ready ${client.name}.${client.life}`
    await this.until(`${name} after its start`, () => (this.ledger.count(name) > 0 ? true : undefined))
  }

  /** How far everybody is: how many of these lines there are by each producer, and in all by workers. */
  mark() {
    const confirmed = this.producers.map(({ name }) => this.ledger.count(`confirmed ${name}`))
    return { confirmed, finished: this.ledger.count('finished') }
  }

  /** Waits until every producer has `confirmed` more confirms than now, and the workers `finished` more messages. */
  async flow(what, { confirmed = 5, finished = 10 } = {}) {
    const before = this.mark()
    await this.until(`${what} (load)`, () => {
      const now = this.mark()
      const all = now.confirmed.every((count, at) => count >= before.confirmed[at] + confirmed)
      return all && now.finished >= before.finished + finished ? true : undefined
    })
  }

  /**
   * A random moment under load: after so many more journal lines as the seed says, and up to 20 ms. The seed draws the moment, the
   * load decides what is going on in it.
   */
  async moment(linesMax = 150) {
    const goal = this.ledger.lines.length + 1 + this.random.int(linesMax)
    await this.until('a moment under load', () => (this.ledger.lines.length >= goal ? true : undefined))
    await pause(this.random.unit() * 20)
  }

  /**
   * Does something bad, and writes down from when to when it lasted.
   *
   * @param {string} kind what the table and the oracle call it
   * @param {string} victim `broker`, `server`, `stream`, `store`, or the name of a worker or producer
   * @param {() => Promise<T>} act resolves when it is over: whoever was down is up again
   * @returns {Promise<T>}
   * @template T
   */
  async fault(kind, victim, act) {
    const fault = ++this.#serial
    this.#faults.write('fault', { fault, kind, victim })
    const result = await act()
    this.#faults.write('over', { fault, kind, victim })
    return result
  }

  /**
   * Waits until service has resumed: each producer has a confirm, and a message that was delivered since was finished.
   * @param {string} kind of the fault
   * @param {number} upAt {@link nowMs} when what was down was up again
   * @param {number} [startedAt] when it was started again
   */
  async resume(kind, upAt, startedAt = upAt) {
    let from = this.ledger.lines.findLastIndex(({ at }) => at < upAt - 1000) + 1
    const confirms = new Map()
    const begun = new Set()
    let finishedAt
    await this.until(`service after ${kind}`, () => {
      for (; from < this.ledger.lines.length; from++) {
        const { t, at, by, seq, line } = this.ledger.lines[from]
        if (at <= upAt) continue
        if (t === 'confirmed' && !confirms.has(by)) confirms.set(by, at)
        if (t === 'delivered') begun.add(`${by} ${line} ${seq}`)
        if (t === 'finished' && begun.has(`${by} ${line} ${seq}`)) finishedAt = Math.min(finishedAt ?? at, at)
      }
      return confirms.size === this.producers.length && finishedAt !== undefined ? true : undefined
    })
    const confirmMs = Math.max(...confirms.values()) - upAt
    const times = { kind, upMs: upAt - startedAt, confirmMs, deliveryMs: finishedAt - upAt }
    this.resumed.push(times)
    return times
  }

  /** The faults are over: the producers end, and what is confirmed is done within bounded patience. */
  async settle() {
    this.read()
    for (const client of [...this.producers, ...this.workers]) if (!client.running) await client.start()
    await Promise.all(this.producers.map((producer) => this.ready(producer)))
    await Promise.all(this.producers.map((producer) => producer.stop()))
    this.read()
    const listed = await this.#drain()
    await Promise.all(this.workers.map((worker) => worker.stop()))
    await this.broker.stop()
    this.read()
    const remains = await readStore(this.plan.storePath, this.server.domain)
    const namesOf = (dead) => new Set(dead.map(({ queue, line, seq, id }) => `${queue} ${line} ${seq} (${id})`))
    const [shown, there] = [namesOf(listed ?? remains.dead), namesOf(remains.dead)]
    const hidden = [...there].find((name) => !shown.has(name))
    const gone = [...shown].find((name) => !there.has(name))
    if (hidden !== undefined || gone !== undefined) {
      throw new Error(
        `The queues list ${shown.size} dead letters, their store has ${there.size}: ${hidden ?? gone} differs.`,
      )
    }
    return remains
  }

  /** Waits until the store holds nothing but dead letters, as long as something moves. @returns them, if it came to that */
  async #drain() {
    const { service, domain } = this.server
    const ask = { service, jid: `ops@${domain}`, password: PASSWORD, domain }
    for (let movedAt = nowMs(), least = Number.POSITIVE_INFINITY; ; ) {
      const dead = await deadLetters(ask)
      for (const { queue, line, seq } of dead) this.ledger.end(`${queue} ${line} ${seq}`)
      // What a killed worker had finished and not acked is still there, though its journal says that it is done.
      const held = (await this.broker.metric('xmq_store_messages')) ?? Number.POSITIVE_INFINITY
      const left = this.ledger.open.size + Math.max(0, held - dead.length)
      if (left === 0) return dead
      if (left < least) {
        least = left
        movedAt = nowMs()
      } else if (nowMs() - movedAt > (held > dead.length ? PATIENCE_MS : JOURNALS_MS)) return undefined
      await pause(LOOK_MS)
    }
  }

  /** Ends everything. */
  async close({ isKept }) {
    clearInterval(this.#timer)
    this.#stopWatch?.()
    for (const client of [...this.producers, ...this.workers]) if (client.running) await client.kill()
    if (this.broker?.running) await this.broker.kill()
    await this.server.dispose()
    for (const undo of this.#undo.reverse()) await undo()
    this.#faults.close()
    this.#tail.close()
    if (!isKept) rmSync(this.folder, { recursive: true, force: true })
  }
}

/**
 * Opens a scene.
 * @param {{ kind: string, name: string, seed: number, leaseMs?: number, hasSlow?: boolean, prepare?: (scene: Scene, plan: Plan) => unknown,
 *   say?: (text: string) => void }} settings
 */
export async function openScene({ kind, name, seed, leaseMs = 3000, hasSlow = false, prepare, say = () => {} }) {
  const accounts = Object.fromEntries(ACCOUNTS.map((account) => [account, PASSWORD]))
  const server = await startServer(kind, { accounts })
  const folder = mkdtempSync(join(tmpdir(), 'xmq-faults-'))
  const scene = new Scene({ folder, server, seed, name, say })
  try {
    const [httpPort] = await findFreePorts(1)
    const plan = usualPlan({ folder, server, httpPort, leaseMs, hasSlow })
    await prepare?.(scene, plan)
    await scene.start(plan)
    return scene
  } catch (error) {
    await scene.close({ isKept: true })
    throw new Error(`${name} on ${kind} could not begin. Its journals: ${folder}`, { cause: error })
  }
}
