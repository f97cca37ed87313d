/** The face of a broker: what it is made of, what it tells, what can be done with it. `runtime.ts` makes one. */
import type { XmqError } from '@xmq/protocol'
import type { ComponentLink, ComponentLinkHandlers, ComponentLinkOptions, LinkStatus } from './component.ts'
import type { HostPort } from './config.ts'
import type { Core, CoreEvent, CoreRules, CoreStats } from './core/port.ts'
import type { Logger } from './log.ts'
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
  /** Prometheus text of what else runs in this process, added to the broker's own. @default none */
  readonly moreMetrics?: () => string
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
