/**
 * The runtime: the only file that joins core, store, clock and streams. It owns all of them, and every random bit.
 *
 * ```
 *  link (one a domain) --onStanza--> core-loop.ts --Input--> core --Effect--> send  --> link
 *      |  ^                            ^                         `---> event --> metrics, log, listeners
 *      |  '-- refusal while congested  |                  `---> calls --> store-loop.ts --> store --answers--> core-loop.ts
 *      '-- onUp, onDown ---------------'
 *
 *  created --start--> starting --every link up once--> running --stop, fatal--> stopping --> stopped
 * ```
 *
 * 1. Effects are applied in the core's order; a listener that throws stops nothing.
 * 2. A fault, in the core or where something is sent, is logged without payload, and the broker stays up.
 * 3. `#transition` is the only place that changes the state; it emits `status`.
 */
import { randomUUID } from 'node:crypto'
import { childElements, XmqError, type XmlElement } from '@xmq/protocol'
import type { Broker, BrokerEvents, BrokerOptions, BrokerParts, BrokerState, BrokerStatus } from './broker.ts'
import { createComponentLink, type ComponentLink, type ComponentLinkHandlers } from './component.ts'
import { formatHostPort } from './config-values.ts'
import { domainsOf, type BrokerConfig, type HostPort } from './config.ts'
import { CoreLoop } from './core-loop.ts'
import { bringsWork, createCore } from './core/index.ts'
import type { Core, CoreEvent, CoreRules, CoreStats, Effect } from './core/port.ts'
import { FanOut } from './fan-out.ts'
import { serveHttp, type HttpServer, type ReadinessProblem } from './http.ts'
import { hasWork, Intake } from './intake.ts'
import { LinkLog, linkTrouble } from './link-log.ts'
import { createEventLog, type EventLog } from './log-events.ts'
import { LoadMeter } from './load.ts'
import { silentLogger, type Logger } from './log.ts'
import { Metrics, METRICS_TYPE } from './metrics.ts'
import { cpuMs, createBusyShare, createClock, createEntropy, VERSION } from './runtime-world.ts'
import { StoreLoop } from './store-loop.ts'
import { openStore } from './store/open.ts'
import type { Store } from './store/port.ts'

const DRAIN_MS = 2000
/** The refusal of new work while a server does not take what was written. */
const CONGESTED = new XmqError('overloaded', 'The server is behind. Try again later.', {
  retryAfterSeconds: 1,
})
/** What an operator can do about a server that is behind. */
const BEHIND_HINT =
  'A ping of the broker to itself takes so long through the server: what clients send waits there, and what workers send waits behind it. ' +
  "If some send on although they are told to wait, give their accounts a shaper: docs/operating.md, 'Overload'."
/** Ceiling of the first pause between two tries to connect. */
const RECONNECT_MS_MIN = 250
/** So long the first look into the store may take before the links are started: what comes earlier is refused. */
const LOOK_MS = 1000

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
  readonly #linkLog: LinkLog
  readonly #core: Core
  readonly #loop: CoreLoop
  readonly #store: Store
  readonly #storeLoop: StoreLoop
  readonly #intake: Intake
  readonly #fanOut: FanOut
  readonly #loadMeter: LoadMeter
  readonly #links = new Map<string, ComponentLink>()
  readonly #metrics: Metrics
  readonly #now = createClock()
  readonly #listeners = new Map<keyof BrokerEvents, Set<(event: never) => void>>()
  readonly #drainMs: number
  readonly #moreMetrics: () => string
  readonly #neverUp: Set<string>
  readonly #skipped = new Map<string, number>()
  readonly #started = withResolvers()
  #state: BrokerState = 'created'
  #http: HttpServer | undefined
  #stopped: Promise<void> | undefined
  #onDrained: (() => void) | undefined
  #onLooked: (() => void) | undefined

  constructor(config: BrokerConfig, options: BrokerOptions) {
    const parts: BrokerParts = { createCore, createLink: createComponentLink, openStore, ...options.parts }
    const domains = domainsOf(config)
    this.#config = config
    this.#log = options.log ?? silentLogger
    this.#eventLog = createEventLog(this.#log, { queues: config.queues.map((queue) => queue.address) })
    this.#linkLog = new LinkLog(this.#log, config.server)
    this.#drainMs = options.drainMs ?? DRAIN_MS
    this.#moreMetrics = options.moreMetrics ?? (() => '')
    this.#neverUp = new Set(domains)
    this.#store = parts.openStore(config.store)
    this.#core = parts.createCore(coreRulesOf(config, domains, this.#store))
    this.#loop = new CoreLoop({
      core: this.#core,
      now: this.#now,
      entropy: createEntropy(),
      apply: (effects, now) => this.#apply(effects, now),
      onQuiet: () => {
        if (this.#onLooked !== undefined && !this.#core.isLoading) this.#onLooked()
      },
      onFault: (what, stanza, error) => this.#logFault(what, stanza, error),
    })
    this.#storeLoop = new StoreLoop(this.#store, {
      feed: (input) => this.#loop.feed(input),
      isCongested: (domain) => this.#links.get(domain)?.congested === true,
      onFault: (what, error) => this.#logFault(what, undefined, error),
    })
    this.#fanOut = new FanOut({
      isCongested: (domain) => this.#links.get(domain)?.congested === true,
      send: (domain, stanza) => this.#send(domain, stanza),
      onDropped: (queue, count) => this.#tell({ name: 'dropped', queue, what: 'fan-out', count }),
    })
    this.#intake = new Intake({
      isPressed: () => this.#core.isPressed,
      handle: (stanza) => this.#loop.feed({ type: 'stanza', stanza }),
    })
    const { loopDelayMsMax, inputDelayMsMax, commitMsMax } = config.limits.overload
    this.#loadMeter = new LoadMeter({
      max: { loopDelayMs: loopDelayMsMax, inputDelayMs: inputDelayMsMax, commitMs: commitMsMax },
      now: () => performance.now(),
      busyShare: createBusyShare(),
      cpuMs,
      commitMs: () => this.#storeLoop.commitMs(),
      inputDelayMs: () => Math.max(...Array.from(this.#links.values(), (link) => link.inputDelayMs)),
      probe: () => {
        for (const link of this.#links.values()) link.probe()
      },
      onLoad: (load) => this.#loop.feed({ type: 'load', load }),
      onPause: (ms) => {
        this.#log.warn('the process was not run for a while', { ms: Math.round(ms) })
        this.#storeLoop.paused(ms)
        for (const link of this.#links.values()) link.paused()
      },
      onBehind: (ms) => this.#log.warn('the server is behind', { ms: Math.round(ms), hint: BEHIND_HINT }),
    })
    const instance = { id: randomUUID(), startedAt: Date.now() }
    for (const domain of domains) {
      const backoffMaxMs = config.limits.reconnectMsMax
      const backoffMinMs = Math.min(RECONNECT_MS_MIN, backoffMaxMs)
      const link = { ...config.server, domain, secret: config.secret, instance, backoffMinMs, backoffMaxMs }
      this.#links.set(domain, parts.createLink(link, this.#handlersOf(domain)))
    }
    this.#metrics = new Metrics(
      config.queues.map((queue) => queue.address),
      {
        core: () => this.#core.stats(),
        store: () => this.#store.stats(),
        load: () => ({
          ...this.#loadMeter.load,
          isShedding: this.#core.refusal !== undefined,
          deferred: this.#intake.deferred,
          publishing: this.#storeLoop.publishing,
          heldClaims: this.#storeLoop.held,
          heldDeliveries: this.#fanOut.held,
          httpConnections: this.#http?.connections.open ?? 0,
          httpRefused: this.#http?.connections.refused ?? 0,
          logKinds: this.#eventLog.kinds,
        }),
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

  async metrics(): Promise<string> {
    return `${await this.#metrics.text()}${this.#moreMetrics()}`
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
      await this.#store.open(Math.floor(this.#now()))
      if (this.#is('starting')) {
        this.#storeLoop.start()
        this.#loadMeter.start()
        await this.#listen()
        await this.#look()
      }
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
      metrics: async () => ({ contentType: METRICS_TYPE, text: await this.metrics() }),
    })
    if (!this.#is('starting')) return http.close()
    this.#http = http
    this.#log.info('health and metrics are served', { address: `http://${formatHostPort(http.address)}` })
  }

  /** Waits until the store has said what it has. One that does not answer is waited for a moment only: consumers can come meanwhile. */
  async #look(): Promise<void> {
    if (!this.#core.isLoading || !this.#is('starting')) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LOOK_MS)
      this.#onLooked = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#onLooked = undefined
  }

  async #problems(): Promise<readonly ReadinessProblem[]> {
    const problems: ReadinessProblem[] = []
    if (this.#state === 'stopping' || this.#state === 'stopped')
      problems.push({ what: 'broker', why: 'It is stopping.' })
    for (const { domain, status } of this.#links.values()) {
      if (status.state !== 'up') problems.push({ what: `link ${domain}`, ...linkTrouble(status) })
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
    this.#onLooked?.()
    if (wasRunning && reason.code === 'closed') await this.#drain()
    this.#intake.drain()
    this.#loop.feed({ type: 'shutdown' })
    await Promise.all(Array.from(this.#links.values(), (link) => link.close()))
    this.#loop.disarm()
    this.#loadMeter.stop()
    this.#fanOut.close()
    await this.#http?.close()
    this.#storeLoop.close()
    await this.#store.close()
    this.#loop.close()
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
      onDown: () => {
        this.#intake.drain()
        this.#fanOut.linkDown(domain)
        this.#loop.feed({ type: 'link-down', domain })
      },
      onChild: (head, child) => {
        const refusal = this.#refusalAt(domain)
        return refusal !== undefined && bringsWork(head, child) ? refusal : undefined
      },
      onStanza: (stanza) => {
        const refusal = this.#links.get(domain)?.congested === true && hasWork(stanza) ? CONGESTED : undefined
        if (refusal === undefined) this.#intake.take(stanza)
        else this.#loop.feed({ type: 'skipped', head: stanza, error: refusal })
      },
      onInputEnd: (bytes) => this.#intake.chunkRead(bytes),
      onSkipped: (head, error) => {
        if (error.code !== 'overloaded') this.#skipped.set(domain, (this.#skipped.get(domain) ?? 0) + 1)
        this.#loop.feed({ type: 'skipped', head, error })
      },
      onStatus: (status) => {
        this.#linkLog.write(domain, status)
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
    this.#loop.feed({ type: 'link-up', domain })
    if (!this.#neverUp.delete(domain) || this.#neverUp.size > 0 || this.#state !== 'starting') return
    this.#transition('running')
    this.#started.resolve()
  }

  /**
   * With what new work is refused before it is read: by the core, or while the server does not take what we wrote already
   * (docs/operating.md "Overload"). Answers, presence and commands pass: they free what is held.
   */
  #refusalAt(domain: string): XmqError | undefined {
    return this.#links.get(domain)?.congested === true ? CONGESTED : this.#core.refusal
  }

  #apply(effects: readonly Effect[], now: number): void {
    for (const effect of effects) {
      if (effect.type === 'event') this.#tell(effect.event)
      else if (effect.type !== 'send') this.#storeLoop.handle(effect, now)
      else if (effect.isFanOut === true) this.#fanOut.send(effect.domain, effect.stanza)
      else this.#send(effect.domain, effect.stanza)
    }
  }

  #send(domain: string, stanza: XmlElement): void {
    try {
      this.#links.get(domain)?.send(stanza)
    } catch (error) {
      this.#logFault('send', stanza, error)
    }
  }

  #tell(event: CoreEvent): void {
    this.#metrics.countEvent(event)
    this.#eventLog.write(event)
    this.#emit(event.name, event)
    if (this.#onDrained !== undefined && event.name === 'answered' && this.#core.stats().openRequests === 0) {
      this.#onDrained()
      this.#onDrained = undefined
    }
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
}

function coreRulesOf(config: BrokerConfig, domains: readonly string[], { caps }: Store): CoreRules {
  return Object.freeze({
    queues: config.queues,
    domains,
    ...config.limits,
    software: { name: 'XMQ', version: VERSION },
    durability: caps.durability,
    bodyBytesMax: caps.maxBody,
  })
}

/** A stanza's head for the log: names and addresses, nothing that anyone wrote into it. */
function headOf(stanza: XmlElement): string {
  const attrs = ['type', 'id', 'from', 'to'].map((name) => `${name}=${stanza.attrs.get(name) ?? '-'}`)
  const children = childElements(stanza).slice(0, 8)
  return `${stanza.name} ${attrs.join(' ')} children=${children.map((child) => `${child.name}(${child.ns})`).join(',')}`
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
