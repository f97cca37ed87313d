/**
 * The world around the reliable layer: producers and workers (reliable-clients.ts), a server that delays, ends sessions and
 * bounces, a component link that breaks, a store that lags and fails (reliable-store.ts), a broker that is killed.
 *
 * All of it happens on a virtual clock, by one seed: 20 seconds of faults, then a calm in which everything has to settle.
 */
import { element, stanza, withAttrs, type XmlElement } from '@xmq/protocol'
import {
  type Core,
  type CoreRules,
  type Effect,
  type Input,
  OVERLOAD_DEFAULTS,
  RELIABLE_DEFAULTS,
} from '../../src/core/port.ts'
import type { Store } from '../../src/store/port.ts'
import { Agenda } from './agenda.ts'
import { Violation } from './oracle.ts'
import { createRandom, type Random } from './random.ts'
import { type ClientHost, type LeaseMemory, Producer, QUEUE, WorkerSession } from './reliable-clients.ts'
import { ReliableOracle } from './reliable-oracle.ts'
import { LaggingStore } from './reliable-store.ts'

const WORKERS = ['w1@localhost', 'w2@localhost', 'w3@localhost']
const PRODUCERS = ['p1@localhost/a', 'p2@localhost/a']
const FAULTS_MS = 20_000
/** Everything settles within this, or never does: 20 deliveries of a lease each, and the backoff between them. */
const CALM_MS = 200_000

/** What is simulated. */
export interface Parts {
  readonly createCore: (rules: CoreRules) => Core
  readonly createStore: () => Store
}

/** What a run came to. */
export interface ReliableReport {
  readonly seed: number
  readonly steps: number
  readonly seen: ReadonlyMap<string, number>
}

function rulesOf(random: Random): CoreRules {
  const durability = random.chance(0.8) ? 'disk' : 'memory'
  return {
    domains: [QUEUE],
    queues: [
      {
        address: QUEUE,
        type: 'any',
        publish: ['localhost'],
        consume: ['localhost'],
        admins: [],
        preserveFrom: false,
        requestTimeoutMs: 8_000,
        ttlSecondsMax: 60,
        payloadBytesMax: 10_000,
        topicsMax: 100,
        subscriptionsPerJidMax: 10,
        reliable: {
          ...RELIABLE_DEFAULTS,
          leaseMs: 4_000,
          maxLeaseMs: 20_000,
          maxAttempts: random.pick([1, 3, 3]),
          backoffMs: 500,
          backoffMaxMs: 4_000,
          lengthMax: random.pick([15, 100_000, 100_000, 100_000]),
          unreceivedMax: random.pick([1, 4]),
          whenNobody: 'keep',
        },
      },
    ],
    subscriptionsMax: 1_000,
    openRequestsMax: 10,
    openRequestsPerJidMax: 10,
    pingTimeoutMs: 3_000,
    pingIntervalMs: 10_000,
    software: { name: 'XMQ', version: '0.0.0' },
    durability,
    bodyBytesMax: 8 * 1024 * 1024,
    storingBytesMax: random.pick([2_000, 64 * 1024 * 1024]),
    overload: OVERLOAD_DEFAULTS,
  }
}

/** One seeded run. @throws Violation with the seed and the last inputs */
export async function simulateReliable(parts: Parts, seed: number, trailLines = 12): Promise<ReliableReport> {
  const world = new ReliableWorld(parts, seed)
  try {
    return await world.run()
  } catch (error) {
    const trail = world.trail.slice(-trailLines).map(({ at, what }) => `${at} ${what()}`)
    const why = error instanceof Error ? error.message : String(error)
    throw new Violation(`seed ${seed} at ${world.now} ms: ${why}\n  ${trail.join('\n  ')}`, { cause: error })
  }
}

class ReliableWorld {
  readonly #parts: Parts
  readonly #seed: number
  readonly #random: Random
  readonly #entropy: Random
  readonly #rules: CoreRules
  readonly #oracle: ReliableOracle
  readonly #store: LaggingStore
  readonly #agenda = new Agenda()
  readonly #arrivals = new Map<string, number>()
  readonly #producers = new Map<string, Producer>()
  readonly #sessions = new Map<string, WorkerSession>()
  readonly #memories = new Map<string, LeaseMemory>(WORKERS.map((bare) => [bare, []]))
  #core: Core
  #isLinkUp = false
  #isCalm = false
  #running: Promise<void> | undefined
  #ids = 0
  #steps = 0
  #idleTicks = 0
  now = 1_000_000
  trail: { readonly at: number; readonly what: () => string }[] = []

  constructor(parts: Parts, seed: number) {
    this.#parts = parts
    this.#seed = seed
    this.#random = createRandom(seed)
    this.#entropy = createRandom(seed ^ 0x5f3759df)
    this.#rules = rulesOf(this.#random)
    this.#oracle = new ReliableOracle(this.#rules, QUEUE)
    this.#core = parts.createCore(this.#rules)
    this.#store = new LaggingStore(parts.createStore(), {
      now: () => this.now,
      random: this.#random,
      at: (at, act) =>
        this.#agenda.add(at, () => {
          const running = act()
          if (running !== undefined) this.#running = running
        }),
      feed: (input) => this.#handle(input),
      onDone: (effect, answer) => this.#oracle.done(effect, answer, this.now),
    })
    this.#store.lagMs = this.#random.pick([0, 5, 5, 200])
  }

  async run(): Promise<ReliableReport> {
    await this.#store.store.open(this.now)
    this.#begin()
    for (const jid of PRODUCERS) {
      this.#producers.set(jid, new Producer(jid, this.#host(), (item) => this.#oracle.send(item)))
    }
    for (const bare of WORKERS) this.#bind(bare)
    const end = this.now + FAULTS_MS
    this.#scheduleNextAction()
    await this.#runUntil(end)
    await this.#calmDown(end)
    const { refused, lost, untold } = this.#store
    const seen = new Map(this.#oracle.seen)
    if (refused > 0) seen.set('store refused', refused)
    if (lost > 0) seen.set('store lost requests', lost)
    if (untold > 0) seen.set('store lost answers', untold)
    return { seed: this.#seed, steps: this.#steps, seen }
  }

  async #calmDown(end: number): Promise<void> {
    this.#isCalm = true
    this.#store.isFailing = false
    this.#link(true)
    for (const bare of WORKERS) this.#bind(bare)
    for (let at = end + 5_000; at <= end + CALM_MS; at += 5_000) {
      await this.#runUntil(at)
      if (await this.#isDone()) break
    }
    const { dead, held } = await this.#inStore()
    for (const producer of this.#producers.values()) {
      if (!producer.isIdle) throw new Violation(`${producer.jid} never got its confirms`)
    }
    this.#oracle.checkEnd(dead, held)
    const { leases, storingBytes } = this.#core.stats()
    if (leases > 0 || storingBytes > 0)
      throw new Violation(`the core still has ${leases} leases, ${storingBytes} bytes`)
  }

  async #isDone(): Promise<boolean> {
    if (![...this.#producers.values()].every((producer) => producer.isIdle)) return false
    const { leases, storingBytes } = this.#core.stats()
    return leases === 0 && storingBytes === 0 && (await this.#inStore()).held.size === 0
  }

  async #inStore(): Promise<{ dead: ReadonlySet<number>; held: ReadonlySet<number> }> {
    const dead = new Set<number>()
    const held = new Set<number>()
    const line = { queue: QUEUE, subscription: '', max: 500, bodies: false }
    for (let after: number | undefined = 0; after !== undefined; ) {
      const answer = await this.#store.store.browse({ ...line, after })
      if (answer.status !== 'ok') throw new Violation('the store does not answer')
      for (const { seq, state } of answer.entries) (state === 'dead' ? dead : held).add(seq)
      after = answer.next
    }
    return { dead, held }
  }

  async #runUntil(end: number): Promise<void> {
    for (;;) {
      const next = this.#agenda.next ?? Number.POSITIVE_INFINITY
      const deadline = this.#core.deadline ?? Number.POSITIVE_INFINITY
      const at = Math.min(next, deadline)
      if (at > end) break
      if (deadline <= next) {
        // A timer fires late, never early.
        const late = this.#random.chance(0.2) ? Math.min(this.#random.int(40), Math.max(0, next - deadline)) : 0
        this.#idleTicks = at + late > this.now ? 0 : this.#idleTicks + 1
        if (this.#idleTicks > 100) throw new Violation('ticks do not move the deadline')
        this.now = Math.max(this.now, at + late)
        this.#handle({ type: 'tick' })
      } else {
        this.#idleTicks = 0
        this.now = Math.max(this.now, at)
        this.#agenda.take()?.act()
        if (this.#running !== undefined) {
          await this.#running
          this.#running = undefined
        }
      }
    }
    this.now = Math.max(this.now, end)
  }

  #handle(input: Input): void {
    this.#steps++
    const { now } = this
    this.#log(() => describe(input))
    this.#oracle.arrive(input, now)
    const effects = this.#core.handle(input, now, this.#entropy)
    for (const effect of effects) this.#log(() => `  -> ${describeEffect(effect)}`)
    this.#oracle.leave(effects, now)
    for (const effect of effects) this.#apply(effect)
  }

  #log(what: () => string): void {
    this.trail.push({ at: Math.floor(this.now), what })
    if (this.trail.length > 4_000) this.trail = this.trail.slice(-2_000)
  }

  #apply(effect: Effect): void {
    if (effect.type === 'event') return
    if (effect.type !== 'send') {
      this.#store.ask(effect)
      return
    }
    if (!this.#isLinkUp) return
    const to = effect.stanza.attrs.get('to') ?? ''
    this.#inOrder(`out ${to}`, () => this.#deliver(to, effect.stanza))
  }

  /** Streams keep their order. */
  #inOrder(stream: string, act: () => void): void {
    const arrival = Math.max(this.now + Math.min(this.#random.gap(15), 400), this.#arrivals.get(stream) ?? 0)
    this.#arrivals.set(stream, arrival)
    this.#agenda.add(arrival, act)
  }

  #toCore(from: string, outgoing: XmlElement): void {
    const stamped = withAttrs(outgoing, { from })
    this.#inOrder(`in ${from}`, () => {
      if (this.#isLinkUp) this.#handle({ type: 'stanza', stanza: stamped })
    })
  }

  /** A stanza of the core arrives at the server's side of a client. */
  #deliver(jid: string, incoming: XmlElement): void {
    const producer = this.#producers.get(jid)
    if (producer !== undefined) {
      producer.receive(incoming)
      return
    }
    const session = this.#sessions.get(jid)
    if (session?.isAlive === true) {
      session.receive(incoming)
      return
    }
    const type = incoming.attrs.get('type')
    if (incoming.name !== 'iq' || (type !== 'get' && type !== 'set')) return
    const name = this.#random.pick(['service-unavailable', 'service-unavailable', 'recipient-unavailable', 'gone'])
    const condition = element(name, 'urn:ietf:params:xml:ns:xmpp-stanzas')
    const error = element('error', 'jabber:client', { type: 'cancel' }, [condition])
    this.#toCore(jid, stanza('iq', { type: 'error', id: incoming.attrs.get('id'), to: QUEUE }, [error]))
  }

  // ---- what happens ----

  #scheduleNextAction(): void {
    this.#agenda.add(this.now + this.#random.gap(200), () => {
      if (this.#isCalm) return
      this.#act()
      this.#scheduleNextAction()
    })
  }

  #act(): void {
    const random = this.#random
    const dice = random.int(100)
    if (dice < 35) return this.#producers.get(random.pick(PRODUCERS))?.publish()
    if (dice < 55) return this.#bind(random.pick(WORKERS))
    if (dice < 63) return this.#vanish()
    if (dice < 71) return this.#stall()
    if (dice < 73) return this.#breakLink()
    if (dice < 75) return this.#failStore()
    if (dice < 77) {
      this.#running = this.#crash()
      return
    }
    const session = this.#anySession()
    if (session === undefined) return
    if (dice < 80) return session.leave()
    const lease = random.pick([...this.#memories.values()].map((memory) => memory.at(-1)))
    if (dice < 90 && lease !== undefined) session.meddle(lease)
  }

  #anySession(): WorkerSession | undefined {
    const alive = [...this.#sessions.values()].filter((session) => session.isAlive)
    return alive.length === 0 ? undefined : this.#random.pick(alive)
  }

  #bind(bare: string): void {
    // Few resources, so that a full JID comes back while its old session's end is still on its way.
    const jid = `${bare}/${this.#isCalm ? 'calm' : this.#random.pick(['r1', 'r2'])}`
    if (this.#sessions.get(jid)?.isAlive === true) return
    this.#sessions.set(jid, new WorkerSession(jid, this.#host(), this.#memories.get(bare) as LeaseMemory))
  }

  #vanish(): void {
    const session = this.#anySession()
    if (session === undefined) return
    session.isAlive = false
    if (this.#random.chance(0.7)) this.#toCore(session.jid, stanza('presence', { type: 'unavailable', to: QUEUE }))
  }

  /** A client hangs: nothing reaches it, then everything does. */
  #stall(): void {
    const session = this.#anySession()
    if (session === undefined) return
    for (const way of ['in', 'out']) this.#arrivals.set(`${way} ${session.jid}`, this.now + this.#random.gap(4_000))
  }

  #breakLink(): void {
    if (!this.#isLinkUp) return
    this.#link(false)
    this.#agenda.add(this.now + this.#random.gap(2_000), () => this.#link(true))
  }

  #link(isUp: boolean): void {
    if (this.#isLinkUp === isUp) return
    this.#isLinkUp = isUp
    this.#handle({ type: isUp ? 'link-up' : 'link-down', domain: QUEUE })
  }

  #failStore(): void {
    this.#store.isFailing = true
    this.#agenda.add(this.now + this.#random.gap(2_000), () => {
      this.#store.isFailing = false
    })
  }

  /** The broker is killed, and another one starts. */
  async #crash(): Promise<void> {
    const keeps = this.#rules.durability === 'disk'
    this.#log(() => 'CRASH')
    this.#oracle.crash(keeps)
    this.#isLinkUp = false
    this.#core = this.#parts.createCore(this.#rules)
    await this.#store.crash(keeps ? this.#store.store : this.#parts.createStore())
    this.#begin()
  }

  #begin(): void {
    this.#handle({ type: 'start' })
    this.#link(true)
  }

  #host(): ClientHost {
    return {
      random: this.#random,
      isCalm: () => this.#isCalm,
      now: () => this.now,
      at: (delayMs, act) => this.#agenda.add(this.now + delayMs, act),
      send: (from, outgoing) => this.#toCore(from, outgoing),
      id: () => `i${this.#ids++}`,
    }
  }
}

function describe(input: Input): string {
  if (input.type === 'stanza') return short(input.stanza)
  return JSON.stringify(input).slice(0, 400)
}

function describeEffect(effect: Effect): string {
  if (effect.type === 'send') return short(effect.stanza)
  return JSON.stringify(effect).slice(0, 400)
}

function short(root: XmlElement): string {
  const attrs = (one: XmlElement): string => [...one.attrs].map(([name, value]) => `${name}=${value}`).join(' ')
  const inner = (one: XmlElement): string =>
    one.children
      .map((child) => (typeof child === 'string' ? child : `[${child.name} ${attrs(child)}${inner(child)}]`))
      .join('')
  return `<${root.name} ${attrs(root)}> ${inner(root)}`
}
