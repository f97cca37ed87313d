/**
 * The runtime: the only file that joins core, store, clock and streams. It owns all of them, and every timer and random bit.
 *
 * ```
 *  link (one a domain) --onStanza--> #feed --Input--> core --Effect--> send  --> link
 *      |  ^                            ^                         `---> event --> metrics, log, listeners
 *      |  '-- refusal while congested  |
 *      '-- onUp, onDown ---------------+-- tick (timer at core.deadline)
 *
 *  created --start--> starting --every link up once--> running --stop, fatal--> stopping --> stopped
 * ```
 *
 * 1. One input at a time: one that comes while effects are being applied waits until they are.
 * 2. Effects are applied in the core's order; a listener that throws stops nothing.
 * 3. The core's time never runs backwards.
 * 4. A throw of the core is a fault: it is logged without payload, whoever waits gets `internal`, and the broker stays up.
 * 5. `#transition` is the only place that changes the state; it emits `status`.
 */
import { randomFillSync, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import {
  bareOf,
  childElements,
  domainOf,
  errorTo,
  findChild,
  isStanza,
  mayBeAnswered,
  NS_TOPIC,
  XmqError,
  type XmlElement,
} from '@xmq/protocol'
import {
  createComponentLink,
  type ComponentLink,
  type ComponentLinkHandlers,
  type ComponentLinkOptions,
  type LinkStatus,
} from './component.ts'
import { domainsOf, type BrokerConfig, type HostPort } from './config.ts'
import { formatHostPort } from './config-values.ts'
import { createCore } from './core/index.ts'
import type { Core, CoreEvent, CoreRules, CoreStats, Effect, Entropy, Input } from './core/port.ts'
import { serveHttp, type HttpServer, type ReadinessProblem } from './http.ts'
import { createEventLog, type EventLog } from './log-events.ts'
import { silentLogger, type Logger } from './log.ts'
import { Metrics } from './metrics.ts'
import { openStore } from './store/open.ts'
import type { Store, StoreConfig } from './store/port.ts'

/** Where a broker is in its life. It is never started twice. */
export type BrokerState = 'created' | 'starting' | 'running' | 'stopping' | 'stopped'

/** A snapshot of a broker. */
export interface BrokerStatus {
  readonly state: BrokerState
  /** Each queue domain's link. */
  readonly links: readonly { readonly domain: string; readonly status: LinkStatus }[]
}

/** What a broker tells while it runs. Never a payload. */
export type BrokerEvents = { readonly [Name in CoreEvent['name']]: Extract<CoreEvent, { readonly name: Name }> } & {
  /** A link changed. */
  readonly link: { readonly domain: string; readonly status: LinkStatus }
  /** The broker's own state changed. */
  readonly status: BrokerStatus
  /** The broker cannot go on and stops: a second, older one serves the same domain. */
  readonly fatal: XmqError
}

/** What a broker is built from; tests put their own in. */
export interface BrokerParts {
  createCore(rules: CoreRules): Core
  createLink(options: ComponentLinkOptions, handlers: ComponentLinkHandlers): ComponentLink
  openStore(config: StoreConfig): Store
}

/** Settings of {@link createBroker} beside its configuration. */
export interface BrokerOptions {
  /** @default silentLogger */
  readonly log?: Logger
  /** Milliseconds that `stop` waits for open requests. @default 2000 */
  readonly drainMs?: number
  /** @default {} */
  readonly parts?: Partial<BrokerParts>
}

/** A broker. */
export interface Broker {
  readonly status: BrokerStatus
  /** Where health and metrics are served, once started; `undefined` when nowhere. */
  readonly httpAddress: HostPort | undefined
  /** The gauges of its core. */
  stats(): CoreStats
  /** The metrics as Prometheus reads them, also where no HTTP is served. */
  metrics(): Promise<string>
  /** Listens for an event. The returned function stops that. */
  on<Name extends keyof BrokerEvents>(name: Name, listener: (event: BrokerEvents[Name]) => void): () => void
  /**
   * Connects. Resolves when every link is up the first time; a server that is down is waited for.
   * @throws XmqError what ended it before: a fatal error, `stop()` (`closed`), the signal (`aborted`), or an HTTP address
   * that cannot be listened on (`invalid-config`)
   */
  start(options?: { readonly signal?: AbortSignal }): Promise<void>
  /** Waits a moment for open requests, closes the links. Idempotent. */
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const DRAIN_MS = 2000
const OVERLOAD_RETRY_SECONDS = 1
const TIMER_MS_MAX = 2 ** 31 - 1
/** In the place of a trouble: there is none. */
const UP = ''

/**
 * A broker of a configuration. Nothing happens before `start()`.
 *
 * @example
 * const broker = createBroker(parseConfig({ server: 'xmpp://127.0.0.1:5347', secret, queues: { 'q.localhost': { type: 'any' } } }))
 * await broker.start()
 */
export function createBroker(config: BrokerConfig, options: BrokerOptions = {}): Broker {
  return new RunningBroker(config, options)
}

class RunningBroker implements Broker {
  readonly #config: BrokerConfig
  readonly #log: Logger
  readonly #eventLog: EventLog
  readonly #core: Core
  readonly #store: Store
  readonly #links = new Map<string, ComponentLink>()
  readonly #metrics: Metrics
  readonly #now = createClock()
  readonly #entropy = createEntropy()
  readonly #listeners = new Map<keyof BrokerEvents, Set<(event: never) => void>>()
  readonly #drainMs: number
  readonly #waiting: Input[] = []
  readonly #neverUp: Set<string>
  readonly #skipped = new Map<string, number>()
  readonly #lastTrouble = new Map<string, string>()
  readonly #started = withResolvers()
  #isFeeding = false
  #state: BrokerState = 'created'
  #timer: NodeJS.Timeout | undefined
  #timerAt = Number.POSITIVE_INFINITY
  #http: HttpServer | undefined
  #stopped: Promise<void> | undefined
  #onDrained: (() => void) | undefined

  constructor(config: BrokerConfig, options: BrokerOptions) {
    const parts: BrokerParts = { createCore, createLink: createComponentLink, openStore, ...options.parts }
    const domains = domainsOf(config)
    this.#config = config
    this.#log = options.log ?? silentLogger
    this.#eventLog = createEventLog(this.#log)
    this.#drainMs = options.drainMs ?? DRAIN_MS
    this.#neverUp = new Set(domains)
    this.#core = parts.createCore(coreRulesOf(config, domains))
    this.#store = parts.openStore(config.store)
    const instance = { id: randomUUID(), startedAt: Date.now() }
    for (const domain of domains) {
      const link = { ...config.server, domain, secret: config.secret, instance }
      this.#links.set(domain, parts.createLink(link, this.#handlersOf(domain)))
    }
    this.#metrics = new Metrics(
      config.queues.map((queue) => queue.address),
      {
        core: () => this.#core.stats(),
        store: () => this.#store.stats(),
        links: () =>
          Array.from(this.#links.values(), (link) => ({
            domain: link.domain,
            isUp: link.status.state === 'up',
            outboundBytes: link.outboundBytes,
            counters: link.counters,
            skipped: this.#skipped.get(link.domain) ?? 0,
          })),
      },
    )
  }

  get status(): BrokerStatus {
    const links = Array.from(this.#links, ([domain, { status }]) => Object.freeze({ domain, status }))
    return Object.freeze({ state: this.#state, links })
  }

  get httpAddress(): HostPort | undefined {
    return this.#http?.address
  }

  stats(): CoreStats {
    return this.#core.stats()
  }

  metrics(): Promise<string> {
    return this.#metrics.text()
  }

  on<Name extends keyof BrokerEvents>(name: Name, listener: (event: BrokerEvents[Name]) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, listeners)
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }

  async start({ signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    if (this.#state !== 'created') {
      throw new XmqError('closed', `This broker is ${this.#state} already. Make another one with createBroker().`)
    }
    if (signal?.aborted === true) throw new XmqError('aborted', 'The start was aborted.', { cause: signal.reason })
    this.#transition('starting')
    const onAbort = () => void this.#end(new XmqError('aborted', 'The start was aborted.', { cause: signal?.reason }))
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await this.#listen()
      if (this.#is('starting')) for (const link of this.#links.values()) link.start()
      await this.#started.promise
    } catch (error) {
      const reason = XmqError.from(error)
      await this.#end(reason)
      throw reason
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  stop(): Promise<void> {
    return this.#end(new XmqError('closed', 'The broker was stopped.'))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #listen(): Promise<void> {
    if (this.#config.http === undefined) return
    const http = await serveHttp(this.#config.http, {
      problems: () => this.#problems(),
      metrics: async () => ({ contentType: this.#metrics.contentType, text: await this.#metrics.text() }),
    })
    if (!this.#is('starting')) return http.close()
    this.#http = http
    this.#log.info('health and metrics are served', { address: `http://${formatHostPort(http.address)}` })
  }

  async #problems(): Promise<readonly ReadinessProblem[]> {
    const problems: ReadinessProblem[] = []
    if (this.#state === 'stopping' || this.#state === 'stopped')
      problems.push({ what: 'broker', why: 'It is stopping.' })
    for (const { domain, status } of this.#links.values()) {
      if (status.state !== 'up') problems.push({ what: `link ${domain}`, why: linkTrouble(status) })
    }
    const storeError = await this.#store.probe()
    if (storeError !== undefined) problems.push({ what: 'store', why: storeError.message })
    return problems
  }

  #end(reason: XmqError): Promise<void> {
    this.#stopped ??= this.#shutDown(reason)
    return this.#stopped
  }

  async #shutDown(reason: XmqError): Promise<void> {
    const wasRunning = this.#state === 'running'
    this.#transition('stopping')
    this.#started.reject(reason)
    if (wasRunning && reason.code === 'closed') await this.#drain()
    await Promise.all(Array.from(this.#links.values(), (link) => link.close()))
    clearTimeout(this.#timer)
    await this.#http?.close()
    await this.#store.close()
    this.#transition('stopped')
    this.#eventLog.close()
  }

  /** Goes on serving until no request is open, for a bounded time. */
  #drain(): Promise<void> {
    if (this.#core.stats().openRequests === 0) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#drainMs)
      this.#onDrained = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** The state now: the compiler takes a field to be what it was before an `await`. */
  #is(state: BrokerState): boolean {
    return this.#state === state
  }

  #transition(state: BrokerState): void {
    this.#state = state
    this.#log.debug('broker', { state })
    this.#emit('status', this.status)
  }

  #handlersOf(domain: string): ComponentLinkHandlers {
    return {
      onUp: () => this.#linkUp(domain),
      onDown: () => this.#feed({ type: 'link-down', domain }),
      onStanza: (stanza) => {
        if (this.#refuseEarly(domain, stanza)) return
        this.#feed({ type: 'stanza', stanza })
      },
      onSkipped: (head, error) => {
        this.#skipped.set(domain, (this.#skipped.get(domain) ?? 0) + 1)
        this.#feed({ type: 'skipped', head, code: error.code, text: error.message })
      },
      onStatus: (status) => {
        this.#logLink(domain, status)
        this.#emit('link', Object.freeze({ domain, status }))
      },
      onMisrouted: (other, stanza) => this.#links.get(other)?.receiveMisrouted(stanza),
      onFatal: (error) => {
        if (this.#stopped !== undefined) return // each domain's link meets the same second broker
        this.#log.error('fatal', { domain, code: error.code, text: error.message })
        this.#emit('fatal', error)
        void this.#end(error)
      },
    }
  }

  #linkUp(domain: string): void {
    this.#feed({ type: 'link-up', domain })
    if (!this.#neverUp.delete(domain) || this.#neverUp.size > 0 || this.#state !== 'starting') return
    this.#transition('running')
    this.#started.resolve()
  }

  /**
   * Refuses what would be sent on while the server does not take what we wrote already (docs/protocol.md "Overload"). Answers,
   * presence and commands pass: they free what is held.
   */
  #refuseEarly(domain: string, stanza: XmlElement): boolean {
    const link = this.#links.get(domain)
    if (link === undefined || !link.congested || !mayBeAnswered(stanza) || stanza.name === 'presence') return false
    if (stanza.name === 'iq' && findChild(stanza, 'xmq', NS_TOPIC) === undefined) return false
    const error = new XmqError('overloaded', 'The server does not take what the broker has for it. Try again later.', {
      retryAfterSeconds: OVERLOAD_RETRY_SECONDS,
    })
    const queue = bareOf(stanza.attrs.get('to') ?? domain)
    const sender = stanza.attrs.get('from') ?? ''
    this.#apply({ type: 'send', domain, stanza: errorTo(stanza, error) })
    this.#apply({ type: 'event', event: { name: 'refused', queue, sender, code: error.code, text: error.message } })
    return true
  }

  #feed(input: Input): void {
    if (this.#state === 'stopped') return
    this.#waiting.push(input)
    if (this.#isFeeding) return
    this.#isFeeding = true
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) this.#handle(next)
    } finally {
      this.#isFeeding = false
    }
    this.#arm()
  }

  #handle(input: Input): void {
    let effects: Effect[]
    try {
      effects = this.#core.handle(input, this.#now(), this.#entropy)
    } catch (error) {
      effects = this.#faultOf(input, error)
    }
    for (const effect of effects) this.#apply(effect)
  }

  #apply(effect: Effect): void {
    if (effect.type === 'send') {
      try {
        this.#links.get(effect.domain)?.send(effect.stanza)
      } catch (error) {
        this.#logFault('send', effect.stanza, error)
      }
      return
    }
    const { event } = effect
    this.#metrics.countEvent(event)
    this.#eventLog.write(event)
    this.#emit(event.name, event)
    if (this.#onDrained !== undefined && event.name === 'answered' && this.#core.stats().openRequests === 0) {
      this.#onDrained()
      this.#onDrained = undefined
    }
  }

  /** The core threw: says so without the payload, and leaves nobody waiting. */
  #faultOf(input: Input, error: unknown): Effect[] {
    const stanza = input.type === 'stanza' ? input.stanza : undefined
    this.#logFault(input.type, stanza, error)
    if (stanza === undefined || !isStanza(stanza) || stanza.name === 'presence' || !mayBeAnswered(stanza)) return []
    const domain = domainOf(stanza.attrs.get('to') ?? '')
    const answer = errorTo(stanza, new XmqError('internal', 'The broker failed on this stanza. Its log says where.'))
    return [{ type: 'send', domain, stanza: answer }]
  }

  #logFault(what: string, stanza: XmlElement | undefined, error: unknown): void {
    this.#metrics.countFault()
    const { message, stack } = error instanceof Error ? error : new Error(String(error))
    this.#eventLog.tally(`fault ${what} ${message}`, 'error', 'this is a bug of the broker: please report it', {
      what,
      text: message,
      stanza: stanza === undefined ? undefined : headOf(stanza),
      stack,
    })
  }

  #emit<Name extends keyof BrokerEvents>(name: Name, event: BrokerEvents[Name]): void {
    const listeners = this.#listeners.get(name)
    if (listeners === undefined) return
    for (const listener of listeners) {
      try {
        ;(listener as (event: BrokerEvents[Name]) => void)(event)
      } catch (error) {
        this.#metrics.countListenerFault()
        const text = error instanceof Error ? error.message : String(error)
        this.#eventLog.tally(`listener ${name}`, 'error', `a listener of '${name}' threw`, { text })
      }
    }
  }

  /** Sets the timer for the core's deadline, unless it is set for then or before: an early tick costs less than a timer each. */
  #arm(): void {
    const { deadline } = this.#core
    if (deadline === undefined || deadline >= this.#timerAt || this.#state === 'stopped') return
    clearTimeout(this.#timer)
    this.#timerAt = deadline
    const waitMs = Math.min(Math.max(1, Math.ceil(deadline - this.#now())), TIMER_MS_MAX)
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY
      const due = this.#core.deadline
      if (due !== undefined && due <= this.#now()) this.#feed({ type: 'tick' })
      else this.#arm()
    }, waitMs)
  }

  #logLink(domain: string, status: LinkStatus): void {
    const server = formatHostPort(this.#config.server)
    if (status.state === 'up') {
      const isNew = this.#lastTrouble.get(domain) !== UP
      this.#lastTrouble.set(domain, UP)
      if (isNew) this.#log.info('link up', { domain, server })
      if (status.hint !== undefined) this.#log.warn('the server can be set up better', { domain, hint: status.hint })
      return
    }
    if (status.state !== 'down') {
      this.#log.debug(`link ${status.state}`, { domain, server })
      return
    }
    // The same trouble at every try would bury everything else.
    const isNews = this.#lastTrouble.get(domain) !== status.reason.message
    this.#lastTrouble.set(domain, status.reason.message)
    const { reason, hint } = status
    const retryInMs = Math.max(0, Math.round(status.retryAt - Date.now()))
    this.#log[isNews ? 'warn' : 'debug']('link down', {
      domain,
      server,
      code: reason.code,
      text: reason.message,
      hint,
      retryInMs,
    })
  }
}

function linkTrouble(status: Exclude<LinkStatus, { readonly state: 'up' }>): string {
  if (status.state !== 'down') return `It is ${status.state}.`
  return status.hint === undefined ? status.reason.message : `${status.reason.message} ${status.hint}`
}

function coreRulesOf(config: BrokerConfig, domains: readonly string[]): CoreRules {
  return Object.freeze({
    queues: config.queues,
    domains,
    ...config.limits,
    software: { name: 'XMQ', version: VERSION },
  })
}

/** The version of this package. */
export const VERSION: string = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
).version

/** A stanza's head for the log: names and addresses, nothing that anyone wrote into it. */
function headOf(stanza: XmlElement): string {
  const attrs = ['type', 'id', 'from', 'to'].map((name) => `${name}=${stanza.attrs.get(name) ?? '-'}`)
  const children = childElements(stanza).slice(0, 8)
  return `${stanza.name} ${attrs.join(' ')} children=${children.map((child) => `${child.name}(${child.ns})`).join(',')}`
}

/**
 * Wall milliseconds that never run backwards: they go on with the machine's monotonic clock when the wall clock is set back,
 * and with the wall clock when it is set forward or the machine slept.
 */
function createClock(): () => number {
  let last = Date.now()
  let lastMonotonic = performance.now()
  return () => {
    const monotonic = performance.now()
    last = Math.max(Date.now(), last + (monotonic - lastMonotonic))
    lastMonotonic = monotonic
    return last
  }
}

/** Randomness from the operating system, fetched by the page: a call for each id would cost more than the id. */
function createEntropy(): Entropy {
  const pool = new Uint8Array(4096)
  let used = pool.length
  const take = (length: number): Buffer => {
    if (used + length > pool.length) {
      randomFillSync(pool)
      used = 0
    }
    used += length
    return Buffer.from(pool.buffer, used - length, length)
  }
  return {
    id: () => take(16).toString('base64url'),
    unit: () => take(6).readUIntBE(0, 6) / 2 ** 48,
  }
}

interface Deferred {
  readonly promise: Promise<void>
  resolve(): void
  reject(reason: XmqError): void
}

function withResolvers(): Deferred {
  let resolve = () => {}
  let reject: (reason: XmqError) => void = () => {}
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  promise.catch(() => {}) // nobody may be waiting when it ends
  return { promise, resolve, reject }
}
