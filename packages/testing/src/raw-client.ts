/** A raw XMPP client and a raw component for tests: past the login, they send and show whatever the test wants. */
import { createHash, randomUUID } from 'node:crypto'
import {
  childElements,
  element,
  findChild,
  formatBareJid,
  NS_BIND,
  NS_CLIENT,
  NS_COMPONENT,
  NS_SASL,
  parseJid,
  stanza,
  textOf,
  withAttrs,
  XmqError,
  type XmlElement,
} from '@xmq/protocol'
import { openRawStream, type ElementPredicate, type RawStream } from './raw-stream.ts'

/** Options of {@link connectRawClient}. */
export interface RawClientOptions {
  /** @default '127.0.0.1' */
  readonly host?: string
  readonly port: number
  /** `user@domain`, `user@domain/resource`, or with no password a domain: SASL ANONYMOUS. */
  readonly jid: string
  readonly password?: string
  /** Milliseconds that each wait lasts at most. @default 10000 */
  readonly timeoutMs?: number
}

/** Options of {@link connectRawComponent}. */
export interface RawComponentOptions {
  /** @default '127.0.0.1' */
  readonly host?: string
  readonly port: number
  readonly domain: string
  /** @default 'secret' */
  readonly secret?: string
  /** Milliseconds that each wait lasts at most. @default 10000 */
  readonly timeoutMs?: number
}

/** A bound client or a connected component. */
export interface RawPeer {
  /** The full JID, or the component's domain. */
  readonly jid: string
  readonly stream: RawStream
  /** Sends text as it is, well-formed or not, or an element. */
  send(xml: string | XmlElement): void
  /** The next element that the predicate accepts. @throws XmqError `timeout`, `connection-lost` */
  next(accept?: ElementPredicate, timeoutMs?: number): Promise<XmlElement>
  /** Sends an IQ, with an id if it has none, and waits for the answer to that id, error or not. */
  request(iq: XmlElement): Promise<XmlElement>
  /** Pings an address and waits for the answer: on the way back everything sent before has arrived. */
  sync(to?: string): Promise<void>
  /** Closes the stream and waits for its end. */
  close(): Promise<void>
  /** Ends the connection without a word. */
  drop(): Promise<void>
  /** Resolves when the connection is gone, with the stream error's condition or `closed`. */
  readonly closed: Promise<string>
  [Symbol.asyncDispose](): Promise<void>
}

/** Logs in with PLAIN, or ANONYMOUS where there is no password, and binds. @throws XmqError `not-authorized`, `timeout` */
export async function connectRawClient(options: RawClientOptions): Promise<RawPeer> {
  const jid = parseJid(options.jid)
  const stream = await openRawStream({ ...options, contentNs: NS_CLIENT, to: jid.domain })
  try {
    await stream.open()
    await stream.next(isFeatures)
    const [mechanism, initial] =
      options.password === undefined
        ? (['ANONYMOUS', '='] as const)
        : (['PLAIN', Buffer.from(`\0${jid.local}\0${options.password}`).toString('base64')] as const)
    stream.send(element('auth', NS_SASL, { mechanism }, [initial]))
    const outcome = await stream.next((root) => root.ns === NS_SASL)
    if (outcome.name !== 'success') {
      const condition = childElements(outcome)[0]?.name ?? outcome.name
      throw new XmqError('not-authorized', `${formatBareJid(jid)} was not let in: ${condition}.`)
    }
    await stream.open()
    await stream.next(isFeatures)
    const resource = jid.resource === '' ? undefined : element('resource', NS_BIND, undefined, [jid.resource])
    const bind = element('bind', NS_BIND, undefined, [resource])
    const answer = await requestOn(stream, stanza('iq', { type: 'set' }, [bind]))
    const bound = findChild(answer, 'bind', NS_BIND)
    const full = bound === undefined ? undefined : findChild(bound, 'jid', NS_BIND)
    if (full === undefined) throw new XmqError('server', `The server did not bind '${options.jid}'.`)
    return createPeer(textOf(full), stream, jid.domain)
  } catch (error) {
    await stream.drop()
    throw error
  }
}

/** Connects a component and shakes hands. @throws XmqError `connection-lost` naming the stream error */
export async function connectRawComponent(options: RawComponentOptions): Promise<RawPeer> {
  const { domain, secret = 'secret' } = options
  const stream = await openRawStream({ ...options, contentNs: NS_COMPONENT, to: domain })
  try {
    const root = await stream.open()
    const digest = createHash('sha1')
      .update((root.get('id') ?? '') + secret)
      .digest('hex')
    stream.send(`<handshake>${digest}</handshake>`)
    await stream.next((each) => each.name === 'handshake')
    return createPeer(domain, stream, domain)
  } catch (error) {
    await stream.drop()
    throw error
  }
}

function createPeer(jid: string, stream: RawStream, domain: string): RawPeer {
  const request = (iq: XmlElement): Promise<XmlElement> => requestOn(stream, iq)
  return {
    jid,
    stream,
    send: (xml) => stream.send(xml),
    next: (accept, timeoutMs) => stream.next(accept, timeoutMs),
    request,
    async sync(to = domain) {
      const from = jid === domain ? domain : undefined
      await request(stanza('iq', { type: 'get', to, from }, [element('ping', 'urn:xmpp:ping')]))
    },
    close: () => stream.close(),
    drop: () => stream.drop(),
    closed: stream.closed,
    [Symbol.asyncDispose]: () => stream.close(),
  }
}

async function requestOn(stream: RawStream, iq: XmlElement): Promise<XmlElement> {
  const id = iq.attrs.get('id') ?? randomUUID()
  stream.send(withAttrs(iq, { id }))
  return await stream.next((root) => {
    const type = root.attrs.get('type')
    return root.name === 'iq' && root.attrs.get('id') === id && (type === 'result' || type === 'error')
  })
}

function isFeatures(root: XmlElement): boolean {
  return root.name === 'features'
}
