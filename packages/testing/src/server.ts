/**
 * The embedded XMPP server, put together. For development and tests: no TLS, no storage, no federation.
 *
 *     listeners --> TCP / WebSocket connections --> c2s and component sessions --> router --> ...
 *                                                        presence, accounts, misbehave
 */
import { Accounts } from './accounts.ts'
import { C2sSession } from './c2s-session.ts'
import { ComponentSession } from './component-session.ts'
import { EventHub, type OnServerEvent } from './events.ts'
import { Listeners } from './listeners.ts'
import { createMisbehave, DelayLine, type Misbehave } from './misbehave.ts'
import { ModXmq } from './mod-xmq.ts'
import { parseServerOptions, type EmbeddedServerOptions, type ServerRules } from './options.ts'
import { PresenceBook } from './presence.ts'
import { Router } from './router.ts'
import { metricsText, type ServerStats } from './stats.ts'

/** A running embedded server. */
export interface EmbeddedServer {
  readonly host: string
  /** TCP port for clients. */
  readonly port: number
  /** TCP port for components. */
  readonly componentPort: number
  /** `ws://…` for clients, `undefined` when it was switched off. */
  readonly websocketUrl: string | undefined
  readonly domain: string
  readonly anonymousDomain: string | false
  /** The components' secret. */
  readonly secret: string
  /** Makes an account or changes its password. @throws XmqError `bad-request` */
  register(user: string, password: string): void
  /** The full JIDs of all bound sessions. */
  sessions(): string[]
  /** The domains of all connected components. */
  components(): string[]
  /** Its counters and gauges. */
  stats(): ServerStats
  /** The same as Prometheus reads them. */
  metrics(): string
  /** Listens to an event; returns the way to stop. */
  readonly on: OnServerEvent
  readonly misbehave: Misbehave
  /** Cuts every connection and listens again on the same ports. Accounts stay. */
  restart(): Promise<void>
  /** Ends every connection and frees the ports. Idempotent. */
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Starts an embedded XMPP server (RFC 6120, RFC 6121 8, RFC 7395, XEP-0114) on loopback. Not for production.
 * @throws XmqError `invalid-config` on a wrong option, `conflict` when a port is taken
 */
export async function startEmbeddedServer(options: EmbeddedServerOptions = {}): Promise<EmbeddedServer> {
  const rules = parseServerOptions(options)
  const accounts = new Accounts(rules)
  const events = new EventHub()
  const delays = new DelayLine()
  const router = new Router(rules, accounts, events, delays.pass)
  const modXmq = new ModXmq(rules.modXmq, {
    now: rules.now,
    isLocal: (domain) => router.isLocal(domain),
    route: (stanza) => router.route(stanza),
    bounce: (stanza, error) => router.bounce(stanza, error),
  })
  for (const queue of rules.modXmq.keys()) router.serve(queue, (stanza) => modXmq.handle(stanza))
  const presence = new PresenceBook(router, (session) => modXmq.sessionEnded(session.jid))
  const listeners = new Listeners(rules, {
    client: () => new C2sSession({ rules, accounts, router, presence, events }),
    component: () => new ComponentSession({ rules, router, events }),
    behindBytes: () => router.behindBytes(),
  })
  await listeners.open()
  announce(rules, listeners)

  const stop = async (): Promise<void> => {
    delays.clear()
    await listeners.close('cut')
  }
  const restart = async (): Promise<void> => {
    await stop()
    await listeners.open()
    rules.log('restarted')
  }
  const misbehave = createMisbehave(router, presence, delays, {
    kill: () => listeners.close('reset'),
    start: () => listeners.open(),
  })
  const { c2s, component } = listeners.ports
  return {
    host: rules.host,
    port: c2s,
    componentPort: component,
    websocketUrl: listeners.websocketUrl,
    domain: rules.domain,
    anonymousDomain: rules.anonymousDomain,
    secret: rules.secret,
    register: (user, password) => accounts.register(user, password),
    sessions: () => router.fullJids(),
    components: () => router.componentDomains(),
    stats: () => router.stats(),
    metrics: () => metricsText(router.stats()),
    on: events.on,
    misbehave,
    restart,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

function announce(rules: ServerRules, listeners: Listeners): void {
  const { c2s, component } = listeners.ports
  const websocket = listeners.websocketUrl === undefined ? '' : `, ${listeners.websocketUrl}`
  rules.log(
    `embedded XMPP server for ${rules.domain} on ${rules.host}: clients ${c2s}${websocket}, components ${component}. ` +
      'For development and tests only, NOT for production: no TLS, nothing is stored.',
  )
}
