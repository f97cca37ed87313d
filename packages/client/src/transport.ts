/**
 * One connection to an XMPP server: xmpp.js, with what it does wrong put right. Owner: the runtime; one transport a
 * connection, never used again.
 *
 *     opening --bound--> up --close()--> closing --> over
 *     opening, up --error, end, timeout--> over (onDown)        any --destroy()--> over
 *
 * Invariants:
 * 1. `onDown` is called at most once, and never after `close()` or `destroy()`; nothing is called after it.
 * 2. `onStanza` is called only between `onUp` and `onDown`. xmpp.js itself sees nothing but the negotiation: its IQ caller
 *    takes an answer from anybody, and its IQ callee refuses requests with two children.
 * 3. No credentials leave before the TLS policy holds; PLAIN only through TLS or on loopback.
 * 4. `send` never throws and never writes twice; what is sent within one turn is one write.
 * 5. Neither resumption (XEP-0198) nor reconnecting is left to xmpp.js: a session that outlives its process would hide it.
 * 6. An `error` of xmpp.js always has a listener.
 */
import { findChild, isStanza, NS_STREAM, withChildren, writeElement, type XmlElement, XmqError } from '@xmq/protocol'
import {
  client,
  type LtxElement,
  type XmppClient,
  type XmppParser,
  type XmppSocket,
  type XmppTransportClass,
} from '@xmpp/client'
import { platform } from '#platform'
import { failureOf, type Target } from './failure.ts'
import { describeLtx, toLtx } from './ltx.ts'
import { framedParserClass, type StreamHooks, streamParserClass } from './stream.ts'

const NS_TLS = 'urn:ietf:params:xml:ns:xmpp-tls'
const NS_SM = 'urn:xmpp:sm:3'
const NS_FAST = 'urn:xmpp:fast:0'
const NS_SASL2 = 'urn:xmpp:sasl:2'
const CLOSE_TIMEOUT_MS = 2000
const KEEP_ALIVE_MS = 30_000

/** When TLS has to be there. */
export type TlsPolicy =
  /** Off loopback always; on loopback where the server asks for it. */
  | 'auto'
  /** Always. */
  | 'required'
  /** Never: passwords go as SCRAM only, everything else in the open. */
  | 'off'

/** Where to connect and as whom. */
export interface TransportOptions {
  /** `xmpp://host:port`, `xmpps://host:port`, `ws://…`, `wss://…` */
  readonly service: string
  readonly domain: string
  /** `undefined` logs in anonymously. */
  readonly username: string | undefined
  readonly password: string | undefined
  /** A fresh random one for each connection: servers mix up sessions that share one. */
  readonly resource: string
  readonly tls: TlsPolicy
  readonly ca: string | readonly string[] | undefined
  /** Milliseconds that connecting and logging in may take together. */
  readonly attemptTimeoutMs: number
  /** Gets each element that is read or written, secrets hidden. */
  readonly debug: ((line: string) => void) | undefined
}

/** What a transport reports. */
export interface TransportHandlers {
  /** Logged in, and bound to this full JID. */
  onUp(jid: string): void
  onStanza(stanza: XmlElement): void
  onSkipped(head: XmlElement, error: XmqError): void
  onDown(error: XmqError, fatal: boolean): void
}

/** One connection. */
export interface Transport {
  /** Writes a stanza. `done` is called when the operating system took it over, or with the reason why not. */
  send(stanza: XmlElement, done?: (error: XmqError | undefined) => void): void
  /** Closes the stream in order, then the socket. */
  close(): Promise<void>
  /** Closes the socket at once. */
  destroy(): void
}

/** Opens a connection; `onUp` or `onDown` follows. */
export function openTransport(options: TransportOptions, handlers: TransportHandlers): Transport {
  return new XmppTransport(options, handlers)
}

/** Whether an address is this very machine. */
export function isLoopback(host: string): boolean {
  const name = host.toLowerCase()
  return /^127(\.\d{1,3}){3}$/.test(name) || name === '::1' || name === '[::1]' || /^(.+\.)?localhost\.?$/.test(name)
}

class XmppTransport implements Transport, StreamHooks {
  readonly #options: TransportOptions
  readonly #handlers: TransportHandlers
  readonly #target: Target
  readonly #entity: XmppClient
  readonly #loopback: boolean
  readonly #framed: boolean
  // Decodes across chunks; wrong UTF-8 is an error (RFC 6120 11.6).
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #state: 'opening' | 'up' | 'closing' | 'over' = 'opening'
  #tls: 'none' | 'asked' | 'done' = 'none'
  /** The socket that is in use or being upgraded, so that it can be destroyed at any time. */
  #socket: XmppSocket | undefined
  #attempt: ReturnType<typeof setTimeout> | undefined
  #batch: { text: string[]; done: ((error: XmqError | undefined) => void)[] } | undefined

  constructor(options: TransportOptions, handlers: TransportHandlers) {
    this.#options = options
    this.#handlers = handlers
    const url = new URL(options.service)
    this.#loopback = isLoopback(url.hostname)
    this.#framed = url.protocol === 'ws:' || url.protocol === 'wss:'
    const { service, domain, username } = options
    this.#target = { service, domain, account: username === undefined ? 'an anonymous user' : `${username}@${domain}` }
    this.#entity = this.#createEntity()
    this.#attempt = setTimeout(() => {
      const text = `${service} did not complete the login within ${options.attemptTimeoutMs} ms.`
      this.#fail(new XmqError('connection-lost', text))
    }, options.attemptTimeoutMs)
    this.#open().catch((error: unknown) => this.#fail(error))
  }

  // --- xmpp.js, put right -------------------------------------------------------------------------------------------

  #createEntity(): XmppClient {
    const { service, domain, resource, attemptTimeoutMs } = this.#options
    const entity = client({
      service,
      domain,
      resource,
      timeout: attemptTimeoutMs,
      credentials: (authenticate, mechanisms, fast, self) => {
        if (fast !== null) fast.mechanism = null
        return authenticate(this.#credentials(), this.#mechanism(mechanisms, self.isSecure()))
      },
    })
    entity.reconnect.stop()
    entity.transports = entity.transports.map((base) => this.#fixedTransport(base))
    entity.on('error', (error: Error) => this.#fail(error))
    entity.on('online', (jid: { toString(): string }) => this.#up(jid.toString()))
    entity.on('disconnect', () => this.#fail(new XmqError('connection-lost', `${service} closed the connection.`)))
    // It would connect to another host by itself, and outlive this transport.
    entity._onSeeOtherHost = (error) => this.#fail(error)
    entity._onData = (data) => this.#data(data)
    const attach = entity._attachSocket.bind(entity)
    entity._attachSocket = (socket) => {
      this.#socket = socket
      socket.setNoDelay?.(true)
      socket.setKeepAlive?.(true, KEEP_ALIVE_MS)
      attach(socket)
    }
    if (this.#options.debug !== undefined) entity.on('send', (sent: LtxElement) => this.#debug('>>', describeLtx(sent)))
    return entity
  }

  #fixedTransport(base: XmppTransportClass): XmppTransportClass {
    const { domain, ca } = this.#options
    const parser = this.#framed ? framedParserClass(base, this) : streamParserClass(base, this)
    const Fixed = class extends base {}
    Fixed.prototype.Parser = parser
    Fixed.prototype.socketParameters = (service: string) => {
      const parameters: unknown = base.prototype.socketParameters(service)
      if (typeof parameters !== 'object' || parameters === null) return parameters
      return service.startsWith('xmpps:') ? { ...platform.tlsOptions({ domain, ca }), ...parameters } : parameters
    }
    if (this.#framed) Fixed.prototype.Socket = this.#webSocketClass(base.prototype.Socket)
    return Fixed
  }

  /** Node 20 has no global WebSocket, and a global one takes no certificate authority. */
  #webSocketClass(Base: new () => XmppSocket): new () => XmppSocket {
    const { domain, ca } = this.#options
    return class extends Base {
      override connect(url: string): void {
        this.url = url
        this.secure = url.startsWith('wss:')
        this._attachSocket?.(platform.openWebSocket(url, { domain, ca }))
      }
    }
  }

  async #open(): Promise<void> {
    const { service, domain } = this.#options
    await this.#entity.connect(service)
    // A TLS socket of xmpp.js is a wrapper.
    const inner = this.#socket?.socket as { setNoDelay?: (on: boolean) => void } | undefined
    inner?.setNoDelay?.(true)
    await this.#entity.open({ domain })
  }

  #data(data: unknown): void {
    if (this.#state === 'over') return
    try {
      const text = typeof data === 'string' ? data : this.#decoder.decode(data as Uint8Array, { stream: true })
      this.#entity.parser?.write(text)
    } catch (error) {
      this.#fail(error)
    }
  }

  // --- login ----------------------------------------------------------------------------------------------------------

  #credentials(): { username?: string; password?: string } {
    const { username, password } = this.#options
    return username === undefined ? {} : { username, password: password ?? '' }
  }

  #mechanism(offered: readonly string[], secure: boolean): string {
    const { service, username } = this.#options
    if (username === undefined) {
      if (offered.includes('ANONYMOUS')) return 'ANONYMOUS'
      const text = `${this.#target.domain} takes no anonymous users. Give a 'jid' with a user name, and its 'password'.`
      throw new XmqError('not-authorized', text)
    }
    const named = offered.filter((mechanism) => mechanism !== 'ANONYMOUS')
    const usable = named.find((mechanism) => mechanism !== 'PLAIN' || secure || this.#loopback)
    if (usable !== undefined) return usable
    const text = named.includes('PLAIN')
      ? `${service} wants the password in the clear and offers no TLS: not sent. Set up TLS on the server.`
      : `${service} offers no SASL mechanism that this client speaks (SCRAM-SHA-1, PLAIN).`
    throw new XmqError('not-authorized', text)
  }

  onElement(root: XmlElement, parser: XmppParser): void {
    if (this.#state === 'over' || this.#state === 'closing') return
    if (this.#options.debug !== undefined) this.#debug('<<', describeLtx(toLtx(root)))
    if (this.#state === 'up' && isStanza(root)) this.#handlers.onStanza(root)
    else if (root.name === 'features' && root.ns === NS_STREAM) this.#features(root, parser)
    else if (this.#tls === 'asked') this.#tlsAnswer(root)
    else parser.emit('element', toLtx(root))
  }

  onSkipped(head: XmlElement, error: XmqError): void {
    if (this.#state === 'up') this.#handlers.onSkipped(head, error)
  }

  #features(features: XmlElement, parser: XmppParser): void {
    const secure = this.#entity.isSecure()
    const starttls = findChild(features, 'starttls', NS_TLS)
    if (starttls !== undefined && !this.#framed && !secure && this.#wantsTls(starttls, features)) {
      this.#tls = 'asked'
      this.#entity.write(`<starttls xmlns='${NS_TLS}'/>`).catch((error: unknown) => this.#fail(error))
      return
    }
    if (!secure && this.#tlsRequired) {
      const { service } = this.#options
      const text =
        `${service} offers no TLS, which is required off loopback. Set up TLS on the server, use xmpps:// or wss://, ` +
        "or accept an open connection with tls: 'off'."
      this.#fail(new XmqError('invalid-config', text))
      return
    }
    parser.emit('element', toLtx(spokenFeatures(features)))
  }

  get #tlsRequired(): boolean {
    return this.#options.tls === 'required' || (this.#options.tls === 'auto' && !this.#loopback)
  }

  #wantsTls(starttls: XmlElement, features: XmlElement): boolean {
    if (this.#options.tls === 'off') return false
    if (this.#tlsRequired) return true
    return findChild(starttls, 'required') !== undefined || !features.children.some(isAuthentication)
  }

  #tlsAnswer(answer: XmlElement): void {
    if (answer.name !== 'proceed' || answer.ns !== NS_TLS) {
      this.#fail(new XmqError('invalid-config', `${this.#options.service} refused to start TLS.`))
      return
    }
    this.#upgrade().catch((error: unknown) => this.#fail(error))
  }

  async #upgrade(): Promise<void> {
    const { domain, ca } = this.#options
    const raw = this.#socket
    this.#entity._detachSocket()
    const secured = await platform.upgradeToTls(raw, { domain, ca })
    if (this.#state === 'over') {
      secured.destroy?.()
      return
    }
    this.#tls = 'done'
    this.#entity._attachSocket(secured)
    await this.#entity.restart()
  }

  #up(jid: string): void {
    if (this.#state !== 'opening') return
    this.#state = 'up'
    clearTimeout(this.#attempt)
    this.#entity.timeout = CLOSE_TIMEOUT_MS
    this.#handlers.onUp(jid)
  }

  // --- writing ----------------------------------------------------------------------------------------------------------

  send(stanza: XmlElement, done: (error: XmqError | undefined) => void = () => {}): void {
    if (this.#state !== 'up') {
      done(new XmqError('connection-lost', 'The connection is down.'))
      return
    }
    let text: string
    try {
      // A WebSocket frame stands alone: it declares its namespace.
      text = writeElement(stanza, this.#framed ? '' : undefined)
    } catch (error) {
      done(XmqError.from(error))
      return
    }
    if (this.#options.debug !== undefined) this.#debug('>>', text)
    if (this.#batch === undefined) {
      this.#batch = { text: [], done: [] }
      queueMicrotask(() => this.#flush())
    }
    this.#batch.text.push(text)
    this.#batch.done.push(done)
  }

  #flush(): void {
    const batch = this.#batch
    if (batch === undefined) return
    this.#batch = undefined
    const settle = (error: XmqError | undefined) => {
      for (const done of batch.done) done(error)
    }
    const socket = this.#entity.socket
    if (this.#state !== 'up' || socket === null) {
      settle(new XmqError('connection-lost', 'The connection is down.'))
      return
    }
    const written = (error?: Error | null) => {
      settle(error === undefined || error === null ? undefined : failureOf(error, this.#target).error)
    }
    try {
      if (!this.#framed) {
        socket.write(batch.text.join(''), written)
        return
      }
      const last = batch.text.length - 1
      batch.text.forEach((text, index) => socket.write(text, index === last ? written : undefined))
    } catch (error) {
      settle(failureOf(error, this.#target).error)
    }
  }

  #debug(direction: '<<' | '>>', text: string): void {
    this.#options.debug?.(`${direction} ${text}`)
  }

  // --- the end ----------------------------------------------------------------------------------------------------------

  #fail(raised: unknown): void {
    if (this.#state !== 'opening' && this.#state !== 'up') return
    this.destroy()
    const { error, fatal } = failureOf(raised, this.#target)
    this.#handlers.onDown(error, fatal)
  }

  async close(): Promise<void> {
    if (this.#state === 'up') {
      this.#flush()
      this.#state = 'closing'
      // Each of its waits is bounded by CLOSE_TIMEOUT_MS. What it cannot close, destroy closes.
      await this.#entity.stop().catch(() => undefined)
    }
    this.destroy()
  }

  destroy(): void {
    this.#state = 'over'
    clearTimeout(this.#attempt)
    this.#flush()
    const socket = this.#socket
    this.#socket = undefined
    if (socket === undefined) return
    socket.removeAllListeners()
    socket.on('error', () => {})
    if (socket.destroy !== undefined) {
      socket.destroy()
      return
    }
    const inner = socket.socket as { destroy?: () => void; terminate?: () => void; close?: () => void } | null
    if (inner?.terminate !== undefined) inner.terminate()
    else if (inner?.destroy !== undefined) inner.destroy()
    else inner?.close?.()
  }
}

function isAuthentication(child: XmlElement | string): boolean {
  return typeof child !== 'string' && (child.name === 'mechanisms' || child.name === 'authentication')
}

/**
 * The features that xmpp.js may see: without STARTTLS (done here), stream management and FAST, and without SASL2 where the
 * old SASL is there as well: it binds with a resource of the client's own making.
 */
function spokenFeatures(features: XmlElement): XmlElement {
  const hasSasl = findChild(features, 'mechanisms', 'urn:ietf:params:xml:ns:xmpp-sasl') !== undefined
  return without(features, (child) => {
    if (child.ns === NS_TLS || child.ns === NS_SM || child.ns === NS_FAST) return true
    const variable = child.attrs.get('var')
    return variable === NS_SM || variable === NS_FAST || (child.ns === NS_SASL2 && hasSasl)
  })
}

function without(root: XmlElement, unwanted: (child: XmlElement) => boolean): XmlElement {
  const children = root.children.filter((child) => typeof child === 'string' || !unwanted(child))
  return withChildren(
    root,
    children.map((child) => (typeof child === 'string' ? child : without(child, unwanted))),
  )
}
