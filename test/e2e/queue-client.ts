/**
 * A client of a few lines that shows every stanza: the raw client of @xmq/testing with the commands of a queue. For cases about
 * the wire itself, where the SDK would be in the way.
 */
import { connectRawClient, type RawPeer } from '@xmq/testing'
import { bareOf, element, encodeCommand, isPing, NS_CLIENT, resultTo, type XmlElement } from '@xmq/protocol'
import type { TestServer } from '../servers/index.ts'

/** Where and as whom. */
export interface QueueClientOptions {
  readonly user: string
  readonly resource?: string
  /** Another port to dial than the server's: a proxy's. */
  readonly port?: number
}

/** What no case reaches unless something hangs. */
const PATIENCE_MS = 30_000
const NEVER_MS = 2 ** 31 - 1
const PASSWORD = 'pw'

/** A logged-in client that answers pings, as every well-behaved one does. */
export class QueueClient {
  readonly #peer: RawPeer

  private constructor(peer: RawPeer) {
    this.#peer = peer
    void this.#answerPings()
  }

  /** Makes the account where it is not there, logs in and binds. */
  static async connect(server: TestServer, options: QueueClientOptions): Promise<QueueClient> {
    await server.register(options.user, PASSWORD)
    const bare = `${options.user}@${server.domain}`
    const peer = await connectRawClient({
      host: server.host,
      port: options.port ?? server.c2sPort,
      jid: options.resource === undefined ? bare : `${bare}/${options.resource}`,
      password: PASSWORD,
      timeoutMs: PATIENCE_MS,
    })
    return new QueueClient(peer)
  }

  /** Logs in with SASL ANONYMOUS. */
  static async connectAnonymously(server: TestServer): Promise<QueueClient> {
    const { host, c2sPort: port, anonymousDomain: jid } = server
    return new QueueClient(await connectRawClient({ host, port, jid, timeoutMs: PATIENCE_MS }))
  }

  async #answerPings(): Promise<void> {
    try {
      for (;;) this.send(resultTo(await this.#peer.next((root) => root.name === 'iq' && isPing(root), NEVER_MS)))
    } catch {
      // The stream is over, and with it the pings.
    }
  }

  /** The full address that the server bound. */
  get jid(): string {
    return this.#peer.jid
  }

  /** The account's name. */
  get user(): string {
    return bareOf(this.jid).split('@')[0] ?? ''
  }

  /** Stanzas that nobody has waited for, in order. */
  get inbox(): readonly XmlElement[] {
    return this.#peer.stream.inbox
  }

  /** Resolves with the stream error's condition, or `closed`. */
  get closed(): Promise<string> {
    return this.#peer.closed
  }

  /** Writes text as it is. */
  send(text: string | XmlElement): void {
    this.#peer.send(text)
  }

  /** Sends an IQ in text form and resolves with its answer, result or error. */
  ask(to: string, type: 'get' | 'set', payload: string): Promise<XmlElement> {
    const id = crypto.randomUUID()
    this.send(`<iq type='${type}' to='${to}' id='${id}'>${payload}</iq>`)
    const answer = this.#peer.next((root) => root.name === 'iq' && root.attrs.get('id') === id)
    // A case that fails before it looks at the answer has failed already.
    answer.catch(() => undefined)
    return answer
  }

  /** The next message of any type. */
  nextMessage(): Promise<XmlElement> {
    return this.#peer.next((root) => root.name === 'message')
  }

  /** The next IQ get or set that is not a ping. */
  nextRequest(): Promise<XmlElement> {
    return this.#peer.next(
      (root) => root.name === 'iq' && !isPing(root) && /^(get|set)$/.test(root.attrs.get('type') ?? ''),
    )
  }

  /** The next message, or IQ get or set that is not a ping: whatever brings something. */
  nextDelivery(): Promise<XmlElement> {
    return this.#peer.next(
      (root) => root.name === 'message' || (!isPing(root) && /^(get|set)$/.test(root.attrs.get('type') ?? '')),
    )
  }

  /** The answer to what was sent under an id. */
  nextAnswer(id: string): Promise<XmlElement> {
    return this.#peer.next((root) => root.name === 'iq' && root.attrs.get('id') === id)
  }

  /** Subscribes; resolves with the broker's answer. */
  sub(queue: string, topic: string, options: { ttl?: number; load?: number } = {}): Promise<XmlElement> {
    const { ttl = 60, load = 1 } = options
    return this.#command(queue, encodeCommand({ command: 'sub', topic, ttlSeconds: ttl, load }))
  }

  /** Unsubscribes; resolves with the broker's answer. */
  del(queue: string, topic: string): Promise<XmlElement> {
    return this.#command(queue, encodeCommand({ command: 'del', topic }))
  }

  #command(queue: string, command: XmlElement): Promise<XmlElement> {
    return this.#peer.request(element('iq', NS_CLIENT, { type: 'set', to: queue }, [command]))
  }

  /**
   * Resolves once everything that `queue` was sent before is handled, and everything that it sent here before has arrived:
   * streams are ordered, so the answer to a ping comes last. Whoever publishes calls it first, then whoever shall have
   * received nothing.
   */
  fence(queue: string): Promise<void> {
    return this.#peer.sync(queue)
  }

  /** Takes the messages out of the inbox. */
  async takeMessages(): Promise<XmlElement[]> {
    const messages: XmlElement[] = []
    while (this.inbox.some((root) => root.name === 'message')) messages.push(await this.nextMessage())
    return messages
  }

  /** Closes the stream in good order. */
  async close(): Promise<void> {
    await this.#peer.close()
  }

  /** Cuts the connection, as a killed process does. */
  async cut(): Promise<void> {
    await this.#peer.drop()
  }
}
