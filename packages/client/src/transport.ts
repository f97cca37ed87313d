/**
 * One connection to an XMPP server: xmpp.js, with what it does wrong put right. Owner: the runtime; one transport a
 * connection, never used again.
 *
 *     opening (features, TLS, login, features, bind) --bound--> up --close()--> closing --> over
 *     opening, up --error, end, timeout--> over (onDown)        any --destroy()--> over
 *
 * Invariants:
 * 1. `onDown` is called at most once, and never after `close()` or `destroy()`; nothing is called after it.
 * 2. `onStanza` is called only between `onUp` and `onDown`.
 * 3. No credentials leave before the TLS policy holds; PLAIN, and the account's name in the stream header, only through TLS
 *    or on loopback.
 * 4. `send` never throws and never writes twice; what is sent within one turn is one write.
 * 5. No resumption (XEP-0198): a session that outlives its process would hide its end.
 * 6. xmpp.js negotiates nothing. Its IQ caller takes an answer from anybody, its IQ callee refuses requests with two children,
 *    and its logins are slow and trust whoever answers.
 */
import type { XmppEntity, XmppParser, XmppSocket } from '@xmpp/client-core'
import {
  decodeError,
  element,
  findChild,
  isStanza,
  NS_BIND,
  NS_STREAM,
  stanza as createStanza,
  textOf,
  writeElement,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { platform } from '#platform'
import { createEntity, destroySocket, type EntityHooks, isFramed } from './entity.ts'
import { failureOf, type Target } from './failure.ts'
import { describeLtx, toLtx } from './ltx.ts'
import { connectionDown, Outbox, type Written } from './outbox.ts'
import { Login, offeredMechanisms } from './sasl/login.ts'

const NS_TLS = 'urn:ietf:params:xml:ns:xmpp-tls'
const CLOSE_TIMEOUT_MS = 2000
/** The one IQ of a stream before it is bound. */
const BIND_ID = 'bind'

/** When TLS has to be there. */
export type TlsPolicy =
  /** Off loopback always; on loopback where the server asks for it. */
  | 'auto'
  /** Always. */
  | 'required'
  /** Never: off loopback, passwords then go as SCRAM only. Everything else goes in the open. */
  | 'off'

/** Where to connect and as whom. */
export interface TransportOptions {
  /** `xmpp://host:port`, `xmpps://host:port`, `ws://…`, `wss://…` */
  readonly service: string
  readonly domain: string
  /** `undefined` logs in anonymously. */
  readonly username: string | undefined
  /** As SASLprep leaves it (RFC 4013). */
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

class XmppTransport implements Transport, EntityHooks {
  readonly #options: TransportOptions
  readonly #handlers: TransportHandlers
  readonly #target: Target
  readonly #entity: XmppEntity
  readonly #loopback: boolean
  readonly #framed: boolean
  readonly #outbox: Outbox
  // Decodes across chunks; wrong UTF-8 is an error (RFC 6120 11.6).
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #state: 'opening' | 'up' | 'closing' | 'over' = 'opening'
  #tls: 'none' | 'asked' | 'done' = 'none'
  #login: Login | 'done' | undefined
  #binding = false
  #socket: XmppSocket | undefined
  #attempt: ReturnType<typeof setTimeout> | undefined

  constructor(options: TransportOptions, handlers: TransportHandlers) {
    this.#options = options
    this.#handlers = handlers
    const { service, domain, username, ca, attemptTimeoutMs } = options
    this.#loopback = isLoopback(new URL(service).hostname)
    this.#framed = isFramed(service)
    const account = username === undefined ? undefined : `${username}@${domain}`
    this.#target = { service, domain, account: account ?? 'an anonymous user' }
    const loopback = this.#loopback
    this.#entity = createEntity({ service, domain, ca, timeoutMs: attemptTimeoutMs, account, loopback }, this)
    this.#outbox = new Outbox(
      this.#framed,
      () => (this.#state === 'up' ? this.#entity.socket : null),
      (error) => failureOf(error, this.#target).error,
    )
    this.#attempt = setTimeout(() => {
      const text = `${service} did not complete the login within ${attemptTimeoutMs} ms.`
      this.onError(new XmqError('connection-lost', text))
    }, attemptTimeoutMs)
    this.#try(this.#open())
  }

  #try(step: Promise<unknown>): void {
    step.catch((error: unknown) => this.onError(error))
  }

  async #open(): Promise<void> {
    const { service, domain } = this.#options
    await this.#entity.connect(service)
    // A TLS socket of xmpp.js is a wrapper.
    const inner = this.#socket?.socket as { setNoDelay?: (on: boolean) => void } | undefined
    inner?.setNoDelay?.(true)
    await this.#entity.open({ domain })
  }

  onSocket(socket: XmppSocket): void {
    this.#socket = socket
  }

  onDisconnect(): void {
    this.onError(new XmqError('connection-lost', `${this.#options.service} closed the connection.`))
  }

  // --- reading --------------------------------------------------------------------------------------------------------

  onData(data: unknown): void {
    if (this.#state === 'over') return
    try {
      const text = typeof data === 'string' ? data : this.#decoder.decode(data as Uint8Array, { stream: true })
      this.#entity.parser?.write(text)
    } catch (error) {
      this.onError(error)
    }
  }

  onElement(root: XmlElement, parser: XmppParser): void {
    if (this.#state === 'over' || this.#state === 'closing') return
    if (this.#options.debug !== undefined) this.#debug('<<', describeLtx(toLtx(root)))
    if (this.#state === 'up' && isStanza(root)) this.#handlers.onStanza(root)
    // Stream errors are xmpp.js's: it closes the stream, too.
    else if (root.ns === NS_STREAM && root.name !== 'features') parser.emit('element', toLtx(root))
    else if (this.#state === 'opening') this.#negotiate(root)
  }

  onSkipped(head: XmlElement, error: XmqError): void {
    if (this.#state === 'up') this.#handlers.onSkipped(head, error)
  }

  // --- negotiation ----------------------------------------------------------------------------------------------------

  #negotiate(root: XmlElement): void {
    try {
      if (root.name === 'features' && root.ns === NS_STREAM) this.#features(root)
      else if (this.#tls === 'asked') this.#tlsAnswer(root)
      else if (this.#binding) this.#bound(root)
      else if (this.#login !== undefined && this.#login !== 'done') this.#try(this.#loginAnswer(this.#login, root))
    } catch (error) {
      this.onError(error)
    }
  }

  #write(sent: XmlElement): void {
    if (this.#options.debug !== undefined) this.#debug('>>', describeLtx(toLtx(sent)))
    // A WebSocket frame stands alone: it declares its namespace.
    this.#try(this.#entity.write(writeElement(sent, this.#framed ? '' : undefined)))
  }

  #features(features: XmlElement): void {
    const secure = this.#entity.isSecure()
    const starttls = findChild(features, 'starttls', NS_TLS)
    const mechanisms = offeredMechanisms(features)
    if (starttls !== undefined && !this.#framed && !secure && this.#wantsTls(starttls, mechanisms === undefined)) {
      this.#tls = 'asked'
      this.#write(element('starttls', NS_TLS))
      return
    }
    if (!secure && this.#tlsRequired) {
      const { service } = this.#options
      const text =
        `${service} offers no TLS, which is required off loopback. Set up TLS on the server, use xmpps:// or wss://, ` +
        "or accept an open connection with tls: 'off'."
      throw new XmqError('invalid-config', text)
    }
    if (this.#login === 'done') this.#bind()
    else this.#logIn(mechanisms ?? [], secure || this.#loopback)
  }

  get #tlsRequired(): boolean {
    return this.#options.tls === 'required' || (this.#options.tls === 'auto' && !this.#loopback)
  }

  #wantsTls(starttls: XmlElement, isOnlyOffer: boolean): boolean {
    if (this.#options.tls === 'off') return false
    return this.#tlsRequired || isOnlyOffer || findChild(starttls, 'required') !== undefined
  }

  #tlsAnswer(answer: XmlElement): void {
    if (answer.name !== 'proceed' || answer.ns !== NS_TLS) {
      throw new XmqError('invalid-config', `${this.#options.service} refused to start TLS.`)
    }
    this.#try(this.#upgrade())
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

  #logIn(offered: readonly string[], confidential: boolean): void {
    const { username, password = '' } = this.#options
    this.#login = new Login(offered, {
      credentials: username === undefined ? undefined : { username, password },
      confidential,
      target: this.#target,
      write: (sent) => this.#write(sent),
    })
  }

  async #loginAnswer(login: Login, answer: XmlElement): Promise<void> {
    const isDone = await login.handle(answer)
    if (!isDone || this.#state !== 'opening') return
    this.#login = 'done'
    await this.#entity.restart()
  }

  /** RFC 6120 7. */
  #bind(): void {
    this.#binding = true
    const resource = element('resource', NS_BIND, undefined, [this.#options.resource])
    this.#write(createStanza('iq', { type: 'set', id: BIND_ID }, [element('bind', NS_BIND, undefined, [resource])]))
  }

  #bound(answer: XmlElement): void {
    if (answer.name !== 'iq' || answer.attrs.get('id') !== BIND_ID) return
    if (answer.attrs.get('type') === 'error') {
      const error = decodeError(answer)
      const text = `${this.#target.domain} gave ${this.#target.account} no session: ${error.message}`
      throw new XmqError('connection-lost', text, { cause: error })
    }
    const bind = findChild(answer, 'bind', NS_BIND)
    const jid = bind && findChild(bind, 'jid', NS_BIND)
    if (jid === undefined) throw new XmqError('connection-lost', `${this.#target.domain} gave a session without a JID.`)
    this.#state = 'up'
    clearTimeout(this.#attempt)
    this.#entity.timeout = CLOSE_TIMEOUT_MS
    this.#handlers.onUp(textOf(jid))
  }

  // --- writing ----------------------------------------------------------------------------------------------------------

  send(stanza: XmlElement, done: Written = () => {}): void {
    if (this.#state !== 'up') {
      done(connectionDown())
      return
    }
    let text: string
    try {
      text = writeElement(stanza, this.#framed ? '' : undefined)
    } catch (error) {
      done(XmqError.from(error))
      return
    }
    if (this.#options.debug !== undefined) this.#debug('>>', text)
    this.#outbox.add(text, done)
  }

  #debug(direction: '<<' | '>>', text: string): void {
    this.#options.debug?.(`${direction} ${text}`)
  }

  // --- the end ----------------------------------------------------------------------------------------------------------

  onError(raised: unknown): void {
    if (this.#state !== 'opening' && this.#state !== 'up') return
    this.destroy()
    const { error, fatal } = failureOf(raised, this.#target)
    this.#handlers.onDown(error, fatal)
  }

  async close(): Promise<void> {
    if (this.#state === 'up') {
      this.#outbox.flush()
      this.#state = 'closing'
      // Each of its waits is bounded by CLOSE_TIMEOUT_MS. What it cannot close, destroy closes.
      await this.#entity.stop().catch(() => undefined)
    }
    this.destroy()
  }

  destroy(): void {
    this.#state = 'over'
    clearTimeout(this.#attempt)
    this.#outbox.flush()
    if (this.#socket !== undefined) destroySocket(this.#socket)
    this.#socket = undefined
  }
}
