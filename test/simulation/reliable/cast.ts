/**
 * Who takes part in a run, and what befalls them: publishers and workers on the SDK, scripted ones that do what the SDK never
 * would, and the faults of streams, processes, server, store and broker.
 */
import { bareOf, element, matchesPattern, NS_QUEUE, stanza } from '@xmq/protocol'
import type { Random } from '../random.ts'
import { Askers } from './askers.ts'
import { FILTERS, type SentItem, TOPICS, type Wanted } from './items.ts'
import type { Break, Network } from './network.ts'
import { type LineName, Operator } from './operator.ts'
import { PlainProducer, PlainSession } from './plain.ts'
import { Promises, type StoreTruth } from './promises.ts'
import { SdkPublisher } from './publisher.ts'
import { ADMIN, JOBS, sessionRules, type WorldKind } from './rules.ts'
import { type ClientHost, type LeaseMemory, Producer, WorkerSession } from './scripted.ts'
import type { SdkHost, SdkProcess } from './sdk.ts'
import { NAMES, Wishes } from './wishes.ts'
import { SdkWorker } from './worker.ts'

const WORKERS = ['w1@localhost', 'w2@localhost', 'w3@localhost']
const PRODUCERS = ['p1@localhost', 'p2@localhost']
const PLAIN_WORKERS = ['q1@localhost', 'q2@localhost', 'q3@localhost']
const PLAIN_PRODUCERS = ['s1@localhost', 's2@localhost']

/** No client hangs for longer. */
export const STALL_MS_MAX = 8_000

/** What the cast needs of the world. */
export interface CastHost {
  readonly random: Random
  readonly kind: WorldKind
  /** The durable subscriptions that there are, as the store calls them, each with its topic. */
  readonly lines: () => ReadonlyMap<string, string>
  readonly network: Network
  readonly sdk: SdkHost
  readonly truth: StoreTruth
  /** For how long the queue remembers ids. */
  readonly dedupeMs: number
  readonly now: () => number
  readonly at: (at: number, act: () => void) => void
  readonly isCalm: () => boolean
  readonly id: () => string
  /** An item is about to be sent. */
  readonly onSent: (item: SentItem) => void
  /** A plain session has got a message with this content. */
  readonly onGot: (jid: string, payload: string) => void
  /** A plain session is about to be bound to its full JID. */
  readonly onBound: (jid: string) => void
  readonly failStore: () => void
  readonly crashBroker: () => void
}

/** See the top of this file. */
export class Cast {
  readonly promises: Promises
  readonly #host: CastHost
  readonly #producers: Producer[] = []
  readonly #publishers: SdkPublisher[] = []
  readonly #workers: SdkWorker[] = []
  readonly #operators: Operator[] = []
  /** Accounts whose workers are scripted, with the leases that they remember. */
  readonly #scripted = new Map<string, LeaseMemory>()
  readonly #sessions = new Map<string, WorkerSession>()
  readonly #wishes: Wishes
  readonly #plainProducers: PlainProducer[] = []
  readonly #plainSessions = new Map<string, PlainSession>()
  readonly #askers: Askers
  /** Every scripted worker refuses what it is asked. */
  readonly #refuses: boolean

  constructor(host: CastHost) {
    this.#host = host
    this.promises = new Promises(host.truth)
    const { random } = host
    this.#wishes = new Wishes(random)
    this.#refuses = host.kind.hasRequests && random.chance(0.2)
    // In some runs everybody is on the SDK, so that nobody makes up for what it does not do.
    const share = random.pick([0.4, 0.6, 1])
    for (const account of PRODUCERS) {
      if (random.chance(share)) this.#addPublisher(account)
      else this.#addProducer(`${account}/a`)
    }
    // In some nobody but plain clients works before the end.
    const isPlain = host.kind.hasPlain && random.chance(0.25)
    for (const account of isPlain ? [] : WORKERS) {
      if (!random.chance(share)) this.#scripted.set(account, [])
      else for (let count = random.pick([1, 1, 2]); count > 0; count--) this.#addWorker(account, 'abc'[count] ?? '')
    }
    for (const account of this.#scripted.keys()) this.#bind(account)
    // Not all queues are looked after.
    if (random.chance(0.5)) for (const jid of [`${ADMIN}/a`, 'w1@localhost/curious']) this.#addOperator(jid)
    this.#askers = new Askers(this.#clientHost())
    const { hasPlain, hasRequests } = host.kind
    if (hasPlain || hasRequests) for (const account of PLAIN_PRODUCERS) this.#addPlainProducer(`${account}/a`)
    if (hasPlain) for (const account of PLAIN_WORKERS) this.#bindPlain(account)
  }

  /** Whether everybody who sends is answered, and everybody who works has said everything. */
  get isIdle(): boolean {
    return this.pending === undefined
  }

  /** Who still waits for something. */
  get pending(): string | undefined {
    const producer = this.#producers.find(({ isIdle }) => !isIdle)
    if (producer !== undefined) return `${producer.jid} never got its confirms`
    const publisher = this.#publishers.find(({ isIdle }) => !isIdle)
    if (publisher !== undefined) return `${publisher.account} never got its confirms`
    const worker = this.#workers.find(({ isIdle }) => !isIdle)
    return worker === undefined ? undefined : `${worker.process.name} never came to an end`
  }

  /** The faults are over: what nobody on the SDK works on, scripted workers do. */
  calmDown(): void {
    if (this.#host.kind.type === 'all') return this.coverLines()
    const isCovered = (topic: string): boolean =>
      this.#workers.some(({ wanted }) => wanted.some((one) => matchesPattern(one.topic, topic)))
    const missing = TOPICS.filter((topic) => !isCovered(topic))
    if (missing.length === 0) return
    if (this.#host.kind.hasPlain && this.#host.random.chance(0.5)) return this.#bindPlain('calm@localhost', missing)
    this.#scripted.set('calm@localhost', [])
    const wanted = missing.map((topic) => ({ topic }))
    this.#bind('calm@localhost', wanted)
  }

  /** Every durable subscription has somebody who works on it. */
  coverLines(): void {
    for (const [line, topic] of this.#host.lines()) {
      const [account = '', name = ''] = line.split('/')
      if (name === '' || this.#workers.some((worker) => isWanted(worker, account, topic, name))) continue
      // One session each: two subscriptions to one topic are one.
      this.#bind(account, [{ topic, name }], `calm-${name}`)
    }
  }

  /** Everybody publishes once more. */
  publishLast(): void {
    for (const publisher of [...this.#producers, ...this.#publishers]) publisher.publish()
    if (this.#host.kind.hasPlain) for (const producer of this.#plainProducers) producer.publish()
    if (this.#host.kind.hasRequests) for (const { jid } of this.#plainProducers) this.#askers.ask(jid)
  }

  /** Something happens. */
  act(): void {
    const { random, network, isCalm } = this.#host
    if (isCalm()) return
    const { hasPlain, hasRequests } = this.#host.kind
    if (hasPlain && random.chance(0.35)) return this.#actPlainly()
    if (hasRequests && random.chance(0.35)) return this.#request()
    const dice = random.int(100)
    if (dice < 35) return this.#publish()
    if (dice < 50) {
      const accounts = [...this.#scripted.keys()]
      return accounts.length === 0 ? this.#publish() : this.#bind(random.pick(accounts))
    }
    if (dice < 57) return this.#vanish()
    if (dice < 64) return this.#stall()
    if (dice < 71) return this.#cut()
    if (dice < 74) return this.#kill()
    if (dice < 76) return network.isLinkUp ? this.#breakLink() : undefined
    if (dice < 78) return this.#host.failStore()
    if (dice < 80) return this.#host.crashBroker()
    if (dice < 81) return network.crashServer()
    if (dice < 82) return this.#workers.length === 0 ? undefined : random.pick(this.#workers).stop()
    if (dice < 86) return this.#operators.length === 0 ? undefined : random.pick(this.#operators).act()
    const session = this.#anySession()
    if (session === undefined) return
    if (dice < 89) return session.leave()
    const lease = random.pick([...this.#scripted.values()].map((memory) => memory.at(-1)))
    if (dice >= 93 && this.#host.kind.type === 'all') return this.#forget()
    if (dice < 97 && lease !== undefined) session.meddle(lease)
  }

  // ---- who there is ----

  #addProducer(jid: string): void {
    const { network, at, now, random, onSent } = this.#host
    const producer = new Producer(jid, this.#clientHost(), onSent)
    const connect = (): void => {
      const stream = network.connect(jid, { receive: (incoming) => producer.receive(incoming), ended: again })
      if (stream === undefined) again()
    }
    const again = (): void => at(now() + random.gap(500), connect)
    connect()
    this.#producers.push(producer)
  }

  #addOperator(jid: string): void {
    const { network, at, now, random } = this.#host
    const isLine = this.#host.kind.type === 'all'
    const line = (): LineName => (isLine ? { subscription: random.pick(NAMES), owner: random.pick(WORKERS) } : {})
    const operator = new Operator(jid, this.#clientHost(), line)
    const connect = (): void => {
      const stream = network.connect(jid, { receive: (incoming) => operator.receive(incoming), ended: again })
      if (stream === undefined) again()
    }
    const again = (): void => at(now() + random.gap(500), connect)
    connect()
    this.#operators.push(operator)
  }

  #addPublisher(account: string): void {
    const { sdk, random, id, onSent, dedupeMs } = this.#host
    const rules = sessionRules(random, JOBS, 0, dedupeMs)
    const publisher = new SdkPublisher(sdk, account, rules, this.promises, id, onSent)
    this.#publishers.push(publisher)
  }

  #addWorker(account: string, suffix: string): void {
    const { sdk, random, dedupeMs } = this.#host
    const rules = sessionRules(random, JOBS, random.pick([2, 6, 12]), dedupeMs)
    const wanted =
      this.#host.kind.type === 'all'
        ? this.#wishes.draw(account, true)
        : [...new Set([random.pick(FILTERS), random.pick(FILTERS)])].map((topic) => ({ topic }))
    this.#workers.push(new SdkWorker(sdk, account, rules, wanted, this.promises, suffix))
  }

  #bind(account: string, wanted?: readonly Wanted[], resource = 'calm'): void {
    const { network, random, isCalm, kind } = this.#host
    // Few resources, so that a full JID comes back while its old session's end is still on its way.
    const jid = `${account}/${isCalm() ? resource : random.pick(['r1', 'r2'])}`
    if (this.#sessions.get(jid)?.isAlive === true || !network.isServerUp) return
    const wish = wanted ?? (kind.type === 'all' ? this.#wishes.draw(account, false) : undefined)
    let session: WorkerSession | undefined
    network.connect(jid, {
      receive: (incoming) => session?.receive(incoming),
      ended: () => {
        if (session !== undefined) session.isAlive = false
      },
    })
    session = new WorkerSession(jid, this.#clientHost(), this.#scripted.get(account) ?? [], wish)
    this.#sessions.set(jid, session)
  }

  #clientHost(): ClientHost {
    const { random, isCalm, now, at, network, id } = this.#host
    return {
      queue: JOBS,
      random,
      isCalm,
      refuses: this.#refuses,
      now,
      at: (delayMs, act) => at(now() + delayMs, act),
      send: (from, outgoing) => network.sendAs(from, outgoing),
      id,
    }
  }

  // ---- plain clients, and requests ----

  #addPlainProducer(jid: string): void {
    const { network, at, now, random, onSent } = this.#host
    const producer = new PlainProducer(jid, this.#clientHost(), onSent)
    const connect = (): void => {
      const stream = network.connect(jid, { receive: () => {}, ended: again })
      if (stream === undefined) again()
    }
    const again = (): void => at(now() + random.gap(500), connect)
    connect()
    this.#plainProducers.push(producer)
  }

  /** One resource each: a full JID comes back while its old session's end is still on its way. */
  #bindPlain(account: string, topics?: readonly string[]): void {
    const { network, onGot, onBound } = this.#host
    const jid = `${account}/r`
    if (this.#plainSessions.get(jid)?.isAlive === true || !network.isServerUp) return
    let session: PlainSession | undefined
    onBound(jid)
    network.connect(jid, {
      receive: (incoming) => session?.receive(incoming),
      ended: () => {
        if (session !== undefined) session.isAlive = false
      },
    })
    session = new PlainSession(jid, { ...this.#clientHost(), onGot }, topics)
    this.#plainSessions.set(jid, session)
  }

  #actPlainly(): void {
    const { random, network, at, now, isCalm } = this.#host
    const dice = random.int(100)
    if (dice < 55) {
      random.pick(this.#plainProducers).publish()
      const trouble = random.int(100)
      if (trouble < 5) this.#breakLinkBehindPing()
      else if (trouble < 9) at(now() + random.gap(60), () => (isCalm() ? undefined : this.#host.failStore()))
      return
    }
    if (dice < 75) return this.#bindPlain(random.pick(PLAIN_WORKERS))
    const alive = [...this.#plainSessions.values()].filter(({ isAlive }) => isAlive)
    if (alive.length === 0) return
    const session = random.pick(alive)
    if (dice < 85) return session.leave()
    if (dice < 90) return network.stall(session.jid, Math.min(random.gap(2_000), STALL_MS_MAX))
    session.isAlive = false
    const stream = network.find(session.jid)
    if (stream === undefined) return
    if (random.chance(0.5)) network.close(stream)
    else network.cut(stream, random.pick<Break>(['reset', 'half-open client', 'half-open server']))
    if (random.chance(0.5)) this.#bindPlain(bareOf(session.jid))
  }

  /** A client does not answer what it is asked, more goes out to it meanwhile, and the stream of the queue ends. */
  #breakLinkBehindPing(): void {
    const { random, network, at, now, isCalm } = this.#host
    for (const { jid, isAlive } of this.#plainSessions.values()) if (isAlive) network.stall(jid, 1_000)
    const later = (delayMs: number, act: () => void): void => at(now() + delayMs, () => (isCalm() ? undefined : act()))
    for (const delayMs of [100, 200]) later(delayMs, () => random.pick(this.#plainProducers).publish())
    later(300 + random.gap(200), () => (network.isLinkUp ? this.#breakLink() : undefined))
  }

  #request(): void {
    const { random, network } = this.#host
    const { bound } = network
    if (bound.length === 0) return
    if (random.chance(0.1)) return this.#askers.cancel(random.pick(bound))
    const askers = bound.filter((jid) => !jid.includes('/xmq-'))
    if (askers.length > 0)
      for (let count = random.pick([1, 1, 4]); count > 0; count--) this.#askers.ask(random.pick(askers))
  }

  // ---- what befalls them ----

  #publish(): void {
    this.#host.random.pick([...this.#producers, ...this.#publishers]).publish()
  }

  #anySession(): WorkerSession | undefined {
    const alive = [...this.#sessions.values()].filter(({ isAlive }) => isAlive)
    return alive.length === 0 ? undefined : this.#host.random.pick(alive)
  }

  /** Some session of an account ends a durable subscription, whoever is at work on it. */
  #forget(): void {
    const { random, network, id } = this.#host
    const account = random.pick(WORKERS)
    const name = random.pick(NAMES)
    const session = [...this.#sessions.values()].find((one) => one.isAlive && bareOf(one.jid) === account)
    if (session !== undefined && random.chance(0.5)) return session.forget(name)
    const jid = `${account}/forgetter`
    network.connect(jid, { receive: () => {}, ended: () => {} })
    const forget = element('forget', NS_QUEUE, { name })
    network.sendAs(jid, stanza('iq', { type: 'set', id: id(), to: JOBS }, [forget]))
  }

  #vanish(): void {
    const session = this.#anySession()
    if (session === undefined) return
    session.isAlive = false
    const stream = this.#host.network.find(session.jid)
    if (stream !== undefined) this.#host.network.vanish(stream, this.#host.random.chance(0.7) ? [JOBS] : [])
  }

  /** A client hangs, or the way to it. */
  #stall(): void {
    const { random, network } = this.#host
    const { bound } = network
    if (bound.length > 0) network.stall(random.pick(bound), Math.min(random.gap(4_000), STALL_MS_MAX))
  }

  #cut(): void {
    const { random, network } = this.#host
    const process = this.#anyProcess(({ stream }) => stream !== undefined)
    if (process?.stream === undefined) return
    network.cut(process.stream, random.pick<Break>(['reset', 'half-open client', 'half-open server']))
  }

  #kill(): void {
    const { random } = this.#host
    const all = [...this.#workers, ...this.#publishers]
    if (all.length > 0) random.pick(all).kill()
  }

  #anyProcess(fits: (process: SdkProcess) => boolean): SdkProcess | undefined {
    const fitting = [...this.#workers, ...this.#publishers].map(({ process }) => process).filter(fits)
    return fitting.length === 0 ? undefined : this.#host.random.pick(fitting)
  }

  #breakLink(): void {
    const { network, random, at, now } = this.#host
    network.link(false)
    at(now() + random.gap(2_000), () => network.link(true))
  }
}

function isWanted(worker: SdkWorker, account: string, topic: string, name: string): boolean {
  return worker.account === account && worker.wanted.some((one) => one.topic === topic && one.name === name)
}
