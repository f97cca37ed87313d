/**
 * A component's stream (XEP-0114). Owner of one handshake and of one domain's connection.
 *
 *     connected --header--> shaking --handshake--> up
 *         `------------- end, from anywhere ------------> ended
 *
 * Invariants:
 * 1. Only stanzas from the component's own domain are routed; another one closes the stream.
 * 2. `ended` is entered once.
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  element,
  formatJid,
  isStanza,
  NS_CLIENT,
  NS_COMPONENT,
  textOf,
  tryParseJid,
  withAttrs,
  type XmlElement,
  type XmqError,
} from '@xmq/protocol'
import { iqProblem } from './c2s-session.ts'
import type { Connection, ConnectionHandlers } from './connection.ts'
import type { EventHub } from './events.ts'
import type { ServerRules } from './options.ts'
import type { BoundComponent, Router } from './router.ts'

/** What a component's stream works with. */
export interface ComponentPorts {
  readonly rules: ServerRules
  readonly router: Router
  readonly events: EventHub
}

type State =
  | { readonly name: 'connected' }
  | { readonly name: 'shaking'; readonly domain: string; readonly streamId: string }
  | { readonly name: 'up'; readonly component: BoundComponent }
  | { readonly name: 'ended' }

const HANDSHAKE_MS = 30_000

/** The stream of one component. Create it, give it to a connection, then `attach` that connection. */
export class ComponentSession implements ConnectionHandlers {
  readonly #ports: ComponentPorts
  readonly #handshakeTimer: NodeJS.Timeout
  #connection: Connection | undefined
  #state: State = { name: 'connected' }

  constructor(ports: ComponentPorts) {
    this.#ports = ports
    this.#handshakeTimer = setTimeout(() => this.#out.fail('connection-timeout', 'No handshake'), HANDSHAKE_MS)
    this.#handshakeTimer.unref()
  }

  attach(connection: Connection): void {
    this.#connection = connection
  }

  get #out(): Connection {
    if (this.#connection === undefined) throw new Error('A component is used before it has its connection')
    return this.#connection
  }

  onOpen(ns: string, attrs: ReadonlyMap<string, string>): void {
    if (ns !== NS_COMPONENT)
      return this.#out.fail('invalid-namespace', `A component's stream has xmlns='${NS_COMPONENT}'`)
    if (this.#state.name !== 'connected') return this.#out.fail('bad-format', 'The stream is open already')
    const to = tryParseJid(attrs.get('to') ?? '')
    if (to === undefined || to.local !== '' || this.#ports.router.refusal(to.domain) === 'host-unknown') {
      const name = attrs.get('to') ?? ''
      return this.#out.fail('host-unknown', `'${name}' is no component of this server`)
    }
    const streamId = randomBytes(8).toString('hex')
    this.#state = { name: 'shaking', domain: to.domain, streamId }
    this.#out.openStream({ from: to.domain, id: streamId })
  }

  onElement(root: XmlElement): void {
    const state = this.#state
    if (state.name === 'shaking') return this.#shake(root, state)
    if (state.name === 'up') return this.#handleStanza(root, state.component)
    this.#out.fail('not-authorized', `<${root.name}/> came before the stream was open`)
  }

  onSkipped(error: XmqError): void {
    this.#out.fail('policy-violation', error.message)
  }

  onMalformed(error: XmqError): void {
    this.#out.fail('not-well-formed', error.message)
  }

  onClosed(): void {
    this.#out.close()
  }

  onGone(): void {
    this.#end()
  }

  #shake(root: XmlElement, state: State & { name: 'shaking' }): void {
    const expected = createHash('sha1')
      .update(state.streamId + this.#ports.rules.secret)
      .digest('hex')
    // The reader normalises the component namespace.
    const isHandshake = root.name === 'handshake' && root.ns === NS_CLIENT
    if (!isHandshake || textOf(root).trim().toLowerCase() !== expected) {
      return this.#out.fail('not-authorized', 'The handshake does not fit: is the secret the same on both sides?')
    }
    if (this.#ports.router.refusal(state.domain) !== undefined) {
      return this.#out.fail('conflict', 'Component already connected')
    }
    clearTimeout(this.#handshakeTimer)
    const component: BoundComponent = { domain: state.domain, connection: this.#out }
    this.#state = { name: 'up', component }
    this.#out.send(element('handshake', NS_CLIENT))
    this.#ports.router.attachComponent(component)
    this.#ports.rules.log(`component ${state.domain} is up from ${this.#out.remote}`)
    this.#ports.events.emit('component', { domain: state.domain })
  }

  #handleStanza(root: XmlElement, component: BoundComponent): void {
    if (!isStanza(root)) return this.#out.fail('unsupported-stanza-type', `<${root.name} xmlns='${root.ns}'/>`)
    const from = tryParseJid(root.attrs.get('from') ?? '')
    if (from === undefined || from.domain !== component.domain) {
      return this.#out.fail('invalid-from', `'from' must be an address of ${component.domain}`)
    }
    if (!root.attrs.has('to')) return this.#out.fail('improper-addressing', "A component's stanza has a 'to'")
    const stamped = withAttrs(root, { from: formatJid(from) })
    const problem = root.name === 'iq' ? iqProblem(root, this.#ports.rules.strictIq) : undefined
    if (problem === undefined) this.#ports.router.route(stamped)
    else this.#ports.router.bounce(stamped, { type: 'modify', condition: 'bad-request', text: problem })
  }

  #end(): void {
    const state = this.#state
    if (state.name === 'ended') return
    this.#state = { name: 'ended' }
    clearTimeout(this.#handshakeTimer)
    if (state.name !== 'up') return
    this.#ports.router.detachComponent(state.component)
    this.#ports.rules.log(`component ${state.component.domain} is gone`)
    this.#ports.events.emit('component-end', { domain: state.component.domain })
  }
}
