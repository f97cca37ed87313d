/**
 * Where a stanza goes. Sole owner of the tables of bound sessions and connected components.
 *
 *     session --stamped--> route --> own domain: the server answers
 *     component --checked->      --> account: RFC 6121 8.5 (delivery.ts)
 *                                --> component, or mod_xmq's queue
 *                                --> nobody: an error to the sender
 *
 * Invariants:
 * 1. Every stanza given to `route` has a `from` that the server vouches for, and a `to`.
 * 2. One session for each full JID; the older one is told that it is replaced before the newer one is in the table.
 * 3. What is never answered (errors, results) earns no error.
 */
import {
  findChild,
  formatBareJid,
  formatJid,
  iqType,
  NS_CLIENT,
  tryParseJid,
  withAttrs,
  XmqError,
  type Jid,
  type XmlElement,
} from '@xmq/protocol'
import type { Accounts } from './accounts.ts'
import { decideDelivery, type Resource } from './delivery.ts'
import { answerAccountIq, answerDomainIq } from './domain-service.ts'
import type { EventHub } from './events.ts'
import type { ServerRules } from './options.ts'
import { SERVICE_UNAVAILABLE, serverErrorTo, type ServerError } from './stanza-errors.ts'
import type { ServerStats } from './stats.ts'
import type { Connection } from './connection.ts'

/** A bound session as the router knows it. */
export interface BoundSession extends Resource {
  readonly jid: Jid
  readonly full: string
  readonly connection: Connection
  /** The same resource was bound again. */
  replace(): void
}

/** A connected component as the router knows it. */
export interface BoundComponent {
  readonly domain: string
  readonly connection: Connection
}

/** Serves a queue domain inside the server. */
export type InternalService = (stanza: XmlElement) => void

export class Router {
  readonly #rules: ServerRules
  readonly #accounts: Accounts
  readonly #events: EventHub
  readonly #sessions = new Map<string, Map<string, BoundSession>>()
  readonly #components = new Map<string, BoundComponent[]>()
  readonly #componentsSeen = new Set<string>()
  readonly #services = new Map<string, InternalService>()
  readonly #pass: (job: () => void) => void
  #waits = 0
  #heedless = 0
  /** Whose holding was logged. */
  readonly #heldBefore = new WeakSet<BoundSession>()

  /** @param pass runs a job now or, when routing is delayed on demand, later in the same order */
  constructor(rules: ServerRules, accounts: Accounts, events: EventHub, pass: (job: () => void) => void) {
    this.#rules = rules
    this.#accounts = accounts
    this.#events = events
    this.#pass = pass
  }

  /** Full JIDs of all sessions. */
  fullJids(): string[] {
    return [...this.#sessions.values()].flatMap((byResource) => [...byResource.values()].map((each) => each.full))
  }

  componentDomains(): string[] {
    return [...this.#components.keys()]
  }

  sessionsOf(bare: string): BoundSession[] {
    return [...(this.#sessions.get(bare)?.values() ?? [])]
  }

  /** The connections behind a full JID or a component's domain. @throws XmqError `not-found` naming who is there */
  connectionsOf(who: string): Connection[] {
    const jid = tryParseJid(who)
    if (jid !== undefined) {
      const session = this.#sessions.get(formatBareJid(jid))?.get(jid.resource)
      if (session !== undefined) return [session.connection]
      const components = jid.local === '' && jid.resource === '' ? this.#components.get(jid.domain) : undefined
      if (components !== undefined) return components.map((each) => each.connection)
    }
    const there = [...this.fullJids(), ...this.componentDomains()].slice(0, 20).join(', ')
    throw new XmqError('not-found', `No session or component is '${who}'; there are: ${there || 'none'}.`)
  }

  /** The most bytes that wait for a component. */
  behindBytes(): number {
    let most = 0
    for (const all of this.#components.values()) {
      for (const { connection } of all) most = Math.max(most, connection.waitingBytes)
    }
    return most
  }

  stats(): ServerStats {
    let sessions = 0
    let heldSessions = 0
    let watchedSessions = 0
    for (const byResource of this.#sessions.values()) {
      for (const { connection } of byResource.values()) {
        sessions++
        if (connection.isHeld) heldSessions++
        if (connection.isWatched) watchedSessions++
      }
    }
    return {
      sessions,
      heldSessions,
      watchedSessions,
      toldToWait: this.#waits,
      heedless: this.#heedless,
      componentBytes: this.behindBytes(),
    }
  }

  /** Whether a stanza asks a component for an answer. */
  asksComponent(stanza: XmlElement): boolean {
    const type = stanza.name === 'iq' ? iqType(stanza) : undefined
    return (type === 'get' || type === 'set') && !this.isLocal(domainOf(stanza, 'to'))
  }

  isLocal(domain: string): boolean {
    return domain === this.#rules.domain || domain === this.#rules.anonymousDomain
  }

  serve(domain: string, service: InternalService): void {
    this.#services.set(domain, service)
  }

  bind(session: BoundSession): void {
    const bare = formatBareJid(session.jid)
    this.#sessions.get(bare)?.get(session.jid.resource)?.replace()
    // Looked up again: the replaced session has left, and perhaps took the account's table with it.
    const byResource = this.#sessions.get(bare) ?? new Map<string, BoundSession>()
    this.#sessions.set(bare, byResource)
    byResource.set(session.jid.resource, session)
  }

  unbind(session: BoundSession): void {
    const bare = formatBareJid(session.jid)
    const byResource = this.#sessions.get(bare)
    if (byResource?.get(session.jid.resource) !== session) return
    byResource.delete(session.jid.resource)
    if (byResource.size === 0) this.#sessions.delete(bare)
  }

  /** Why a component may not serve a domain, or `undefined` when it may. */
  refusal(domain: string): 'host-unknown' | 'conflict' | undefined {
    const allowed = this.#rules.componentDomains?.includes(domain) ?? true
    if (!allowed || this.isLocal(domain)) return 'host-unknown'
    if (this.#services.has(domain)) return 'conflict'
    return this.#components.has(domain) && this.#rules.componentConflict === 'refuse' ? 'conflict' : undefined
  }

  attachComponent(component: BoundComponent): void {
    const all = this.#components.get(component.domain) ?? []
    this.#components.set(component.domain, all)
    all.push(component)
    if (this.#componentsSeen.size < this.#rules.connectionsMax) this.#componentsSeen.add(component.domain)
  }

  detachComponent(component: BoundComponent): void {
    const all = this.#components.get(component.domain)
    const index = all?.indexOf(component) ?? -1
    if (all === undefined || index === -1) return
    all.splice(index, 1)
    if (all.length === 0) this.#components.delete(component.domain)
  }

  /** Takes a stanza whose `from` is vouched for, and which has a `to`. */
  route(stanza: XmlElement): void {
    this.#events.emit('stanza', { stanza })
    this.#pass(() => this.#routeNow(stanza))
  }

  /** Answers a stanza with an error of the server, if it may be answered. */
  bounce(stanza: XmlElement, error: ServerError): void {
    const answer = serverErrorTo(stanza, error)
    if (answer !== undefined) this.route(answer)
  }

  #routeNow(stanza: XmlElement): void {
    const written = stanza.attrs.get('to') ?? ''
    const to = tryParseJid(written)
    if (to === undefined) {
      const from = tryParseJid(stanza.attrs.get('from') ?? '')?.domain ?? this.#rules.domain
      const host = this.isLocal(from) ? from : this.#rules.domain
      return this.bounce(withAttrs(stanza, { to: host }), { type: 'modify', condition: 'jid-malformed' })
    }
    // Real servers hand on normalised addresses.
    const normal = formatJid(to)
    const addressed = normal === written ? stanza : withAttrs(stanza, { to: normal })
    if (this.isLocal(to.domain)) return to.local === '' ? this.#toServer(addressed) : this.#toAccount(addressed, to)
    const service = this.#services.get(to.domain)
    if (service !== undefined) return service(addressed)
    const components = this.#components.get(to.domain)
    if (components !== undefined) {
      const index = components.length === 1 ? 0 : Math.floor(this.#rules.random() * components.length)
      components[index]?.connection.send(addressed)
      return
    }
    this.bounce(addressed, this.#absence(to.domain))
  }

  #absence(domain: string): ServerError {
    const declared = (this.#rules.componentDomains?.includes(domain) ?? false) || this.#componentsSeen.has(domain)
    return this.#rules.absentComponent === 'timeout' && declared
      ? { type: 'wait', condition: 'remote-server-timeout', text: 'Component unavailable' }
      : { type: 'cancel', condition: 'remote-server-not-found' }
  }

  #toServer(stanza: XmlElement): void {
    if (stanza.name !== 'iq') return
    const answer = answerDomainIq(stanza, [...this.#components.keys(), ...this.#services.keys()])
    if (answer !== undefined) this.route(answer)
  }

  #deliver(stanza: XmlElement, session: BoundSession): void {
    session.connection.send(stanza)
    // Of a component only: any client could send such a thing to another one.
    if (!isAnswer(stanza) || this.isLocal(domainOf(stanza, 'from'))) return
    session.connection.answered()
    if (!isWait(stanza)) return
    this.#waits++
    if (!session.connection.toldToWait()) return
    this.#heedless++
    if (this.#heldBefore.has(session)) return
    this.#heldBefore.add(session)
    this.#rules.log(`${session.full} is read slower: it goes on writing although it is told to wait`)
  }

  #toAccount(stanza: XmlElement, to: Jid): void {
    const bare = formatBareJid(to)
    const sessions = this.sessionsOf(bare)
    const exists = sessions.length > 0 || (to.domain === this.#rules.domain && this.#accounts.has(to.local))
    const verdict = decideDelivery(stanza, to, sessions, exists)
    switch (verdict.type) {
      case 'deliver':
        for (const session of verdict.to) this.#deliver(stanza, session)
        return
      case 'account': {
        const sender = tryParseJid(stanza.attrs.get('from') ?? '')
        const answer = answerAccountIq(stanza, sender !== undefined && formatBareJid(sender) === bare)
        if (answer !== undefined) this.route(answer)
        return
      }
      case 'service-unavailable':
        return this.bounce(stanza, SERVICE_UNAVAILABLE)
      case 'drop':
    }
  }
}

/** Whether a stanza answers an IQ, or refuses any stanza. */
function isAnswer(stanza: XmlElement): boolean {
  const type = stanza.attrs.get('type')
  return type === 'error' || (type === 'result' && stanza.name === 'iq')
}

/** Whether an answer tells its receiver to wait (RFC 6120 8.3.2). */
function isWait(answer: XmlElement): boolean {
  return answer.attrs.get('type') === 'error' && findChild(answer, 'error', NS_CLIENT)?.attrs.get('type') === 'wait'
}

function domainOf(stanza: XmlElement, end: 'from' | 'to'): string {
  return tryParseJid(stanza.attrs.get(end) ?? '')?.domain ?? ''
}
