/**
 * A client's stream from its header to its end (RFC 6120). Owner of one negotiation and of one bound resource.
 *
 *     connected --header--> authenticating --success--> authenticated --header--> binding --bind--> bound
 *         `----------------------------- end, from anywhere ----------------------------> ended
 *
 * Invariants:
 * 1. No stanza is routed before `bound`, and each that is has this session's full JID in `from`.
 * 2. The session leaves the router before anybody hears of its end.
 * 3. `ended` is entered once.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import {
  childElements,
  element,
  findChild,
  formatBareJid,
  formatJid,
  iqType,
  isStanza,
  NS_BIND,
  NS_CLIENT,
  NS_SASL,
  NS_SESSION,
  resultTo,
  textOf,
  tryParseJid,
  withAttrs,
  type Jid,
  type XmlElement,
  type XmqError,
} from '@xmq/protocol'
import type { Accounts } from './accounts.ts'
import type { Connection, ConnectionHandlers } from './connection.ts'
import type { EventHub } from './events.ts'
import type { ServerRules } from './options.ts'
import type { PresenceBook } from './presence.ts'
import type { BoundSession, Router } from './router.ts'
import { createExchange, offeredMechanisms, type SaslExchange, type SaslMechanism, type SaslStep } from './sasl.ts'
import { serverErrorTo } from './stanza-errors.ts'

/** What a session works with. */
export interface C2sPorts {
  readonly rules: ServerRules
  readonly accounts: Accounts
  readonly router: Router
  readonly presence: PresenceBook
  readonly events: EventHub
}

type State =
  | { readonly name: 'connected' }
  | {
      readonly name: 'authenticating'
      readonly host: string
      readonly offer: readonly SaslMechanism[]
      readonly exchange: SaslExchange | undefined
      readonly failures: number
    }
  | { readonly name: 'authenticated' | 'binding'; readonly host: string; readonly user: string }
  | { readonly name: 'bound'; readonly session: BoundSession }
  | { readonly name: 'ended' }

const SASL_FAILURES_MAX = 5
/** Milliseconds until a client must have bound its resource. */
const NEGOTIATION_MS = 30_000

/** The stream of one client. Create it, give it to a connection, then `attach` that connection. */
export class C2sSession implements ConnectionHandlers {
  readonly #ports: C2sPorts
  readonly #negotiationTimer: NodeJS.Timeout
  #connection: Connection | undefined
  #state: State = { name: 'connected' }

  constructor(ports: C2sPorts) {
    this.#ports = ports
    this.#negotiationTimer = setTimeout(
      () => this.#out.fail('connection-timeout', `No resource bound within ${NEGOTIATION_MS / 1000} s`),
      NEGOTIATION_MS,
    )
    this.#negotiationTimer.unref()
  }

  attach(connection: Connection): void {
    this.#connection = connection
  }

  get #out(): Connection {
    if (this.#connection === undefined) throw new Error('A session is used before it has its connection')
    return this.#connection
  }

  onOpen(ns: string, attrs: ReadonlyMap<string, string>): void {
    if (ns !== NS_CLIENT) return this.#out.fail('invalid-namespace', `A client's stream has xmlns='${NS_CLIENT}'`)
    const { rules, accounts } = this.#ports
    const host = tryParseJid(attrs.get('to') ?? '')?.domain ?? ''
    const state = this.#state
    if (!this.#ports.router.isLocal(host)) {
      return this.#out.fail('host-unknown', `This server is ${rules.domain}, the stream header's 'to' is '${host}'`)
    }
    this.#out.openStream({ from: host, id: randomBytes(8).toString('hex'), version: '1.0', 'xml:lang': 'en' })
    if (state.name === 'connected') {
      const from = tryParseJid(attrs.get('from') ?? '')
      const announced = from?.domain === host ? from.local : undefined
      const offer = offeredMechanisms(accounts, host === rules.anonymousDomain, announced)
      this.#state = { name: 'authenticating', host, offer, exchange: undefined, failures: 0 }
      const names = offer.map((mechanism) => `<mechanism>${mechanism}</mechanism>`).join('')
      this.#out.sendFeatures(`<mechanisms xmlns='${NS_SASL}'>${names}</mechanisms>`)
    } else if (state.name === 'authenticated' && state.host === host) {
      this.#state = { ...state, name: 'binding' }
      this.#out.sendFeatures(`<bind xmlns='${NS_BIND}'/><session xmlns='${NS_SESSION}'><optional/></session>`)
    } else this.#out.fail('bad-format', 'A stream is opened once, and once more after authentication')
  }

  onElement(root: XmlElement): void {
    const state = this.#state
    switch (state.name) {
      case 'authenticating':
        return this.#authenticate(root, state)
      case 'binding':
        return this.#bind(root, state)
      case 'bound':
        return this.#handleStanza(root, state.session)
      default:
        return this.#out.fail('not-authorized', `<${root.name}/> came before the stream was open`)
    }
  }

  onSkipped(error: XmqError): void {
    this.#out.fail('policy-violation', error.message)
  }

  onMalformed(error: XmqError): void {
    this.#out.fail('not-well-formed', error.message)
  }

  onClosed(): void {
    this.#end('closed')
    this.#out.close()
  }

  onGone(): void {
    this.#end('lost')
  }

  #authenticate(root: XmlElement, state: State & { name: 'authenticating' }): void {
    if (root.ns !== NS_SASL) return this.#out.fail('not-authorized', 'Authenticate first')
    let { exchange } = state
    if (root.name === 'abort') return this.#afterSasl(state, { type: 'failure', condition: 'aborted', text: '' })
    if (root.name === 'auth') {
      const mechanism = state.offer.find((each) => each === root.attrs.get('mechanism'))
      if (mechanism === undefined) {
        const text = `Offered are: ${state.offer.join(', ')}`
        return this.#afterSasl(state, { type: 'failure', condition: 'invalid-mechanism', text })
      }
      exchange = createExchange(mechanism, this.#ports.accounts, state.host)
    } else if (root.name !== 'response' || exchange === undefined) {
      return this.#afterSasl(state, { type: 'failure', condition: 'malformed-request', text: `No <${root.name}/> now` })
    }
    const text = textOf(root).trim()
    if (!/^(=|[A-Za-z0-9+/]*={0,2})$/.test(text)) {
      return this.#afterSasl(state, { type: 'failure', condition: 'incorrect-encoding', text: 'Not base64' })
    }
    // No data in <auth/> of a client-first mechanism: an empty challenge asks for it (RFC 4422 3).
    if (root.name === 'auth' && text === '' && root.attrs.get('mechanism') !== 'ANONYMOUS') {
      this.#state = { ...state, exchange }
      return this.#out.send(element('challenge', NS_SASL))
    }
    const step = exchange.step(text === '=' ? Buffer.alloc(0) : Buffer.from(text, 'base64'))
    this.#afterSasl({ ...state, exchange }, step)
  }

  #afterSasl(state: State & { name: 'authenticating' }, step: SaslStep): void {
    switch (step.type) {
      case 'challenge':
        this.#state = state
        return this.#out.send(element('challenge', NS_SASL, undefined, [step.data.toString('base64')]))
      case 'success':
        this.#state = { name: 'authenticated', host: state.host, user: step.user }
        this.#out.send(element('success', NS_SASL, undefined, [step.data?.toString('base64')]))
        return this.#out.restartStream()
      case 'failure': {
        const failures = state.failures + 1
        this.#state = { ...state, exchange: undefined, failures }
        const text = step.text === '' ? undefined : element('text', NS_SASL, undefined, [step.text])
        this.#out.send(element('failure', NS_SASL, undefined, [element(step.condition, NS_SASL), text]))
        if (failures >= SASL_FAILURES_MAX) this.#out.fail('policy-violation', 'Too many failed logins')
      }
    }
  }

  #bind(root: XmlElement, state: { readonly host: string; readonly user: string }): void {
    const request =
      root.name === 'iq' && root.attrs.get('type') === 'set' ? findChild(root, 'bind', NS_BIND) : undefined
    if (request === undefined) return this.#out.fail('not-authorized', 'Bind a resource first')
    const wanted = findChild(request, 'resource', NS_BIND)
    const resource = wanted === undefined ? randomUUID() : textOf(wanted) || randomUUID()
    const jid = tryParseJid(`${state.user}@${state.host}/${resource}`)
    if (jid === undefined) {
      const error = serverErrorTo(root, { type: 'modify', condition: 'bad-request', text: 'No such resource can be' })
      if (error !== undefined) this.#out.send(error)
      return
    }
    clearTimeout(this.#negotiationTimer)
    const session = this.#createBound(jid)
    this.#ports.router.bind(session)
    this.#state = { name: 'bound', session }
    this.#ports.rules.log(`${session.full} is online from ${this.#out.remote}`)
    const answer = element('bind', NS_BIND, undefined, [element('jid', NS_BIND, undefined, [session.full])])
    this.#out.send(withAttrs(resultTo(root, [answer]), { from: undefined, to: undefined }))
    this.#ports.events.emit('session', { jid: session.full })
  }

  #createBound(jid: Jid): BoundSession {
    const { presence } = this.#ports
    const session: BoundSession = {
      jid,
      full: formatJid(jid),
      resource: jid.resource,
      connection: this.#out,
      get priority() {
        return presence.priorityOf(session)
      },
      replace: () => {
        this.#end('replaced')
        this.#out.fail('conflict', 'Replaced by a new connection')
      },
    }
    return session
  }

  #handleStanza(root: XmlElement, session: BoundSession): void {
    if (!isStanza(root)) return this.#out.fail('unsupported-stanza-type', `<${root.name} xmlns='${root.ns}'/>`)
    // RFC 6120 8.1.2.1: whatever the client wrote, the server says who it is.
    const stamped = withAttrs(root, { from: session.full })
    if (root.name === 'presence') return this.#ports.presence.handle(session, stamped)
    const problem = root.name === 'iq' ? iqProblem(root, this.#ports.rules.strictIq) : undefined
    const addressed = root.attrs.has('to') ? stamped : withAttrs(stamped, { to: formatBareJid(session.jid) })
    if (problem === undefined) {
      if (this.#out.isWatched && this.#ports.router.asksComponent(addressed)) this.#out.asked()
      return this.#ports.router.route(addressed)
    }
    this.#ports.router.bounce(addressed, { type: 'modify', condition: 'bad-request', text: problem })
  }

  #end(reason: 'closed' | 'lost' | 'replaced'): void {
    const state = this.#state
    if (state.name === 'ended') return
    this.#state = { name: 'ended' }
    clearTimeout(this.#negotiationTimer)
    if (state.name !== 'bound') return
    const { session } = state
    this.#ports.router.unbind(session)
    this.#ports.rules.log(`${session.full} is gone (${reason})`)
    this.#ports.presence.end(session, reason === 'replaced' && this.#ports.rules.lateUnavailable)
    this.#ports.events.emit('session-end', { jid: session.full, reason })
  }
}

/** What is wrong with an IQ, whoever sent it. @param strict refuse requests that have not exactly one child */
export function iqProblem(iq: XmlElement, strict: boolean): string | undefined {
  const type = iqType(iq)
  if (type === undefined) return "An IQ has type 'get', 'set', 'result' or 'error'"
  if (!iq.attrs.has('id')) return 'An IQ has an id'
  const children = childElements(iq).length
  if (type !== 'get' && type !== 'set') return undefined
  if (children === 0) return 'A request has a child'
  return strict && children !== 1 ? 'Invalid IQ stanza: it must have exactly one child' : undefined
}
