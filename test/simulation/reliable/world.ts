/**
 * The world around the reliable layer: the core with its store (store.ts), clients on the SDK and scripted ones (cast.ts), the
 * server between them (network.ts), and the oracles that watch all of it (oracle/, promises.ts).
 *
 * All of it happens on a virtual clock, by one seed: some seconds of faults, then a calm in which everything has to settle. What
 * led to a violation is written down in a second run of the same seed, since nobody reads it of a run in which all is well.
 */
import type { Core, CoreRules, Effect, Input } from '../../../packages/broker/src/core/port.ts'
import type { Store } from '../../../packages/broker/src/store/port.ts'
import type { Session, SessionRules } from '../../../packages/client/src/session/index.ts'
import { Agenda } from '../agenda.ts'
import { describe } from '../describe.ts'
import { purely } from '../purity.ts'
import { createRandom, type Random } from '../random.ts'
import { Violation } from '../violation.ts'
import { Cast, STALL_MS_MAX } from './cast.ts'
import { Network } from './network.ts'
import type { Left } from './oracle/confirms.ts'
import { ReliableOracle } from './oracle/oracle.ts'
import { coreRules, DOMAIN, JOBS, worldKind } from './rules.ts'
import { LaggingStore } from './store.ts'

/** Long runs meet what takes long, short ones more of how it begins: each finds what the other misses, for the same time. */
const FAULTS_MS = [5_000, 10_000, 20_000] as const
/** Everything settles within this, or never does: 20 deliveries of a lease each, and the backoff between them. */
const CALM_MS = 200_000
/** How often is looked whether all is settled. */
const CALM_STEP_MS = 2_000
const TRAIL_MAX = 4_000
/** Many times what a run comes to. */
const STEPS_MAX = 200_000

/** What is simulated. */
export interface Parts {
  readonly createCore: (rules: CoreRules) => Core
  readonly createStore: () => Store
  readonly createSession: (rules: SessionRules) => Session
}

/** What a run came to. */
export interface ReliableReport {
  readonly seed: number
  readonly steps: number
  readonly seen: ReadonlyMap<string, number>
}

/** One seeded run. @throws Violation with the seed and the last inputs */
export async function simulateReliable(parts: Parts, seed: number, trailLines = 12): Promise<ReliableReport> {
  // Nobody reads where in the code a refusal was made, and telling it costs a tenth of the run.
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return await new ReliableWorld(parts, seed, false).run()
  } catch (error) {
    const { now, why, trail } = await retell(parts, seed)
    if (why !== reasonOf(error)) throw new Violation(`seed ${seed} is not the same twice: ${reasonOf(error)}; ${why}`)
    const lines = trail.slice(-trailLines).map(({ at, what }) => `${at} ${what()}`)
    throw new Violation(`seed ${seed} at ${now} ms: ${why}\n  ${lines.join('\n  ')}`, { cause: error })
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

/** Runs a seed again that came to a violation, with all that leads to it. */
async function retell(parts: Parts, seed: number): Promise<{ now: number; why: string | undefined; trail: Trail }> {
  const world = new ReliableWorld(parts, seed, true)
  const why = await world.run().then(() => undefined, reasonOf)
  return { now: world.now, why, trail: world.trail }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

type Trail = readonly { readonly at: number; readonly what: () => string }[]

class ReliableWorld {
  readonly #parts: Parts
  readonly #seed: number
  readonly #isTold: boolean
  readonly #random: Random
  readonly #entropy: Random
  readonly #rules: CoreRules
  readonly #oracle: ReliableOracle
  readonly #store: LaggingStore
  readonly #network: Network
  readonly #cast: Cast
  readonly #agenda = new Agenda()
  readonly #seen = new Map<string, number>()
  #core: Core
  #isCalm = false
  #running: Promise<void> | undefined
  #ids = 0
  #steps = 0
  #idleTicks = 0
  now = 1_000_000
  trail: Trail[number][] = []

  /** @param isTold whether what happens is written down */
  constructor(parts: Parts, seed: number, isTold: boolean) {
    this.#parts = parts
    this.#seed = seed
    this.#isTold = isTold
    this.#random = createRandom(seed)
    this.#entropy = createRandom(seed ^ 0x5f3759df)
    this.#rules = coreRules(this.#random, worldKind(seed))
    this.#oracle = new ReliableOracle(this.#rules, JOBS, (item) => this.#cast.promises.stored(item))
    this.#core = parts.createCore(this.#rules)
    const { now, at, note } = this.#tools()
    this.#store = new LaggingStore(parts.createStore(), {
      now: () => this.#wallMs,
      random: this.#random,
      at: (when, act) =>
        at(when, () => {
          const running = act()
          if (running !== undefined) this.#running = running
        }),
      feed: (input) => this.#handle(input),
      onDone: (effect, answer, askedAt) => this.#oracle.done(effect, answer, askedAt, this.#wallMs),
    })
    this.#store.lagMs = this.#random.pick([0, 5, 5, 200])
    this.#network = new Network({
      random: this.#random,
      now,
      at,
      note,
      toCore: (stanza) => this.#handle({ type: 'stanza', stanza }),
      link: (isUp) => this.#handle({ type: isUp ? 'link-up' : 'link-down', domain: DOMAIN }),
    })
    this.#network.duplicates = this.#random.pick([0, 0, 0, 0.02])
    this.#network.forgeries = this.#random.pick([0, 0, 0.02])
    const { hasPlain, hasRequests } = worldKind(seed)
    if (hasPlain || hasRequests) {
      this.#network.linkLosses = this.#random.pick([0, 0.5])
      this.#network.vanishes = this.#random.pick([0, 0.6])
      this.#network.strangers = this.#random.pick([0, 0.1])
    }
    this.#cast = this.#createCast()
    this.#network.onDoubled = (outgoing) => this.#cast.promises.doubled(outgoing)
  }

  #createCast(): Cast {
    const { now, at, note } = this.#tools()
    const isCalm = (): boolean => this.#isCalm
    const entropy = createRandom(this.#seed ^ 0x2545f491)
    const { createSession } = this.#parts
    const sdk = {
      random: this.#random,
      entropy,
      network: this.#network,
      now,
      at,
      note,
      createSession,
      isCalm,
      log: this.#isTold ? (what: () => string) => this.#log(what) : undefined,
    }
    return new Cast({
      random: this.#random,
      kind: worldKind(this.#seed),
      lines: () => this.#oracle.lines,
      network: this.#network,
      sdk,
      dedupeMs: (this.#rules.queues[0] as CoreRules['queues'][number]).reliable.dedupeMs,
      truth: {
        wasStored: (item, seq) => this.#oracle.wasStored(item, seq),
        durability: this.#rules.durability,
        now,
        note,
      },
      now,
      at,
      isCalm,
      id: () => `i${this.#ids++}`,
      onSent: (item) => this.#oracle.send(item),
      onGot: (jid, payload) => this.#oracle.truth.got(jid, payload),
      onBound: (jid) => this.#oracle.truth.bound(jid, this.#wallMs),
      failStore: () => this.#failStore(),
      crashBroker: () => {
        this.#running = this.#crash()
      },
    })
  }

  #tools(): { now: () => number; at: (at: number, act: () => void) => void; note: (what: string) => void } {
    return {
      now: () => this.now,
      at: (at, act) => this.#agenda.add(at, act),
      note: (what) => this.#seen.set(what, (this.#seen.get(what) ?? 0) + 1),
    }
  }

  async run(): Promise<ReliableReport> {
    await this.#store.store.open(this.#wallMs)
    this.#begin()
    this.#scheduleNextAction()
    const end = this.now + this.#random.pick(FAULTS_MS)
    await this.#runUntil(end)
    await this.#calmDown(end)
    const { refused, lost, untold, tornCount } = this.#store
    const seen = new Map([...this.#oracle.seen, ...this.#seen])
    if (refused > 0) seen.set('store refused', refused)
    if (lost > 0) seen.set('store lost requests', lost)
    if (tornCount > 0) seen.set('store torn', tornCount)
    if (untold > 0) seen.set('store lost answers', untold)
    return { seed: this.#seed, steps: this.#steps, seen }
  }

  async #calmDown(end: number): Promise<void> {
    this.#log(() => 'CALM')
    this.#isCalm = true
    this.#store.isFailing = false
    this.#store.lagMs = Math.min(this.#store.lagMs, 40)
    this.#network.restoreServer()
    this.#cast.calmDown()
    // In some runs nothing new wakes what waits: it has to be known to be there.
    const isQuiet = worldKind(this.#seed).type === 'all' && this.#random.chance(0.4)
    // When nothing is held up any more, all goes on as if nothing had been: no lease of a worker on the SDK runs out.
    this.#agenda.add(end + STALL_MS_MAX + 1_000, () => {
      this.#oracle.isCalm = true
      this.#cast.coverLines()
      for (const soon of isQuiet ? [] : [0, 10, 30]) this.#agenda.add(this.now + soon, () => this.#cast.publishLast())
    })
    for (let at = end + CALM_STEP_MS; at <= end + CALM_MS; at += CALM_STEP_MS) {
      await this.#runUntil(at)
      if (this.#oracle.isCalm && (await this.#isDone())) break
    }
    const left = await this.#inStore()
    const { pending } = this.#cast
    if (pending !== undefined) throw new Violation(pending)
    this.#oracle.checkEnd(left)
    this.#cast.promises.checkEnd()
    const { leases, storingBytes } = this.#core.stats()
    if (leases > this.#oracle.timeless || storingBytes > 0)
      throw new Violation(`the core still has ${leases} leases, ${storingBytes} bytes`)
  }

  async #isDone(): Promise<boolean> {
    if (!this.#cast.isIdle || this.#oracle.isWaiting) return false
    const { leases, storingBytes, openRequests } = this.#core.stats()
    if (leases > this.#oracle.timeless || storingBytes > 0 || openRequests > 0) return false
    for (const { held } of (await this.#inStore()).values()) if (held.size > 0) return false
    return true
  }

  async #inStore(): Promise<ReadonlyMap<string, Left>> {
    const left = new Map<string, Left>()
    for (const line of this.#oracle.lines.keys()) left.set(line, await this.#inLine(line))
    return left
  }

  async #inLine(subscription: string): Promise<Left> {
    const dead = new Set<number>()
    const held = new Set<number>()
    const line = { queue: JOBS, subscription, max: 500, bodies: false }
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
      const deadline = Math.ceil(this.#core.deadline ?? Number.POSITIVE_INFINITY)
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

  /** Core and store are given whole milliseconds, as the runtime does. */
  get #wallMs(): number {
    return Math.floor(this.now)
  }

  #handle(input: Input): void {
    if (++this.#steps > STEPS_MAX) throw new Violation('it goes on and on')
    const now = this.#wallMs
    if (this.#isTold) this.#log(() => describe(input))
    this.#oracle.arrive(input, now)
    const effects = purely(() => this.#core.handle(input, now, this.#entropy))
    if (this.#isTold) for (const effect of effects) this.#log(() => `  -> ${describe(effect)}`)
    this.#oracle.leave(effects, now)
    for (const effect of effects) this.#apply(effect)
  }

  #log(what: () => string): void {
    if (!this.#isTold) return
    this.trail.push({ at: Math.floor(this.now), what })
    if (this.trail.length > TRAIL_MAX) this.trail = this.trail.slice(-TRAIL_MAX / 2)
  }

  #apply(effect: Effect): void {
    if (effect.type === 'event') return
    if (effect.type === 'send') this.#network.fromCore(effect.stanza)
    else this.#store.ask(effect)
  }

  // ---- what happens ----

  #scheduleNextAction(): void {
    this.#agenda.add(this.now + this.#random.gap(200), () => {
      if (this.#isCalm) return
      this.#cast.act()
      this.#scheduleNextAction()
    })
  }

  #failStore(): void {
    this.#log(() => 'STORE FAILS')
    this.#store.isFailing = true
    this.#store.torn = this.#random.pick([0, 0, 0.3])
    this.#agenda.add(this.now + this.#random.gap(2_000), () => {
      this.#store.isFailing = false
    })
  }

  /** The broker is killed, and another one starts. */
  async #crash(): Promise<void> {
    const keeps = this.#rules.durability === 'disk'
    this.#log(() => 'CRASH')
    this.#oracle.crash(keeps)
    this.#network.linkLost()
    this.#core = this.#parts.createCore(this.#rules)
    await this.#store.crash(keeps ? this.#store.store : this.#parts.createStore())
    this.#handle({ type: 'start' })
    const pause = this.#random.pick([0, this.#random.gap(1_000)])
    this.#agenda.add(this.now + pause, () => this.#network.link(true))
  }

  #begin(): void {
    this.#handle({ type: 'start' })
    this.#network.link(true)
  }
}
