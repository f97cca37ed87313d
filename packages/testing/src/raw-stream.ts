/**
 * A raw XMPP stream from the peer's side, for tests: it sends what it is told, right or wrong, and waits for what comes.
 * Owner of one socket, its reader, and what has come and was not asked for yet.
 *
 * Invariants:
 * 1. Every element is given out once, in the order of the wire among those that a predicate accepts.
 * 2. No wait outlives its time limit or the stream.
 */
import { connect, type Socket } from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import { escapeAttr, NS_STREAM, writeElement, XmlStreamReader, XmqError, type XmlElement } from '@xmq/protocol'

/** Options of {@link openRawStream}. */
export interface RawStreamOptions {
  /** @default '127.0.0.1' */
  readonly host?: string
  readonly port: number
  /** The content namespace: `jabber:client` or `jabber:component:accept`. */
  readonly contentNs: string
  /** The stream header's `to`. */
  readonly to: string
  /** The stream header's `from`. @default none */
  readonly from?: string
  /** Milliseconds that {@link RawStream.next} waits. @default 10000 */
  readonly timeoutMs?: number
}

/** Which element a test waits for. */
export type ElementPredicate = (root: XmlElement) => boolean

interface Waiter {
  readonly accept: ElementPredicate
  readonly resolve: (root: XmlElement) => void
  readonly reject: (error: XmqError) => void
  readonly timer: NodeJS.Timeout
}

const INBOX_MAX = 1_000_000
const NS_FIXED = `version='1.0' xmlns:stream='${NS_STREAM}'`

/** A raw stream. */
export class RawStream {
  /** Resolves when the connection is gone, with what the server said last: a stream error's condition, or `closed`. */
  readonly closed: Promise<string>
  readonly #socket: Socket
  readonly #decoder = new StringDecoder('utf8')
  readonly #reader: XmlStreamReader
  readonly #options: RawStreamOptions
  readonly #waiters = new Set<Waiter>()
  #inbox: XmlElement[] = []
  #roots: ReadonlyMap<string, string>[] = []
  #rootWaiter: ((attrs: ReadonlyMap<string, string>) => void) | undefined
  #lastWord = 'closed'
  #gone = false

  constructor(socket: Socket, options: RawStreamOptions) {
    this.#socket = socket
    this.#options = options
    this.#reader = new XmlStreamReader(
      {
        onOpen: (root) => this.#onOpen(root.attrs),
        onElement: (root) => this.#onElement(root),
        onSkipped: (_head, error) => this.#onElement({ name: error.code, ns: '', attrs: new Map(), children: [] }),
        onClose: () => undefined,
      },
      { depthMax: 1024, attributesMax: 4096, stanzaBytesMax: 2 ** 26 },
    )
    socket.setNoDelay(true)
    socket.on('data', (chunk) => this.#reader.write(this.#decoder.write(chunk)))
    socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#gone = true
        for (const waiter of this.#waiters) this.#fail(waiter, `the stream ended first (${this.#lastWord})`)
        resolve(this.#lastWord)
      })
    })
  }

  /** What has come and was not taken by `next` yet. */
  get inbox(): readonly XmlElement[] {
    return this.#inbox
  }

  /** Bytes received so far. */
  get bytesRead(): number {
    return this.#socket.bytesRead
  }

  /** Sends text as it is, well-formed or not, or an element. */
  send(xml: string | XmlElement): void {
    this.#socket.write(typeof xml === 'string' ? xml : writeElement(xml))
  }

  /** Sends bytes, to cut characters in two. */
  sendBytes(bytes: Uint8Array): void {
    this.#socket.write(bytes)
  }

  /** Sends the stream header (again) and waits for the server's: its attributes. */
  async open(): Promise<ReadonlyMap<string, string>> {
    const { contentNs, to, from } = this.#options
    const sender = from === undefined ? '' : ` from='${escapeAttr(from)}'`
    this.#reader.reset()
    this.send(`<?xml version='1.0'?><stream:stream xmlns='${contentNs}' ${NS_FIXED} to='${escapeAttr(to)}'${sender}>`)
    const known = this.#roots.shift()
    if (known !== undefined) return known
    return await new Promise((resolve, reject) => {
      this.#rootWaiter = resolve
      void this.closed.then((word) => reject(new XmqError('connection-lost', `No stream header came: ${word}.`)))
    })
  }

  /**
   * The next element that the predicate accepts; what it passes over stays for later.
   * @throws XmqError `timeout` or `connection-lost`, telling what came instead
   */
  async next(
    accept: ElementPredicate = () => true,
    timeoutMs: number = this.#options.timeoutMs ?? 10_000,
  ): Promise<XmlElement> {
    const index = this.#inbox.findIndex((root) => accept(root))
    if (index !== -1) return this.#inbox.splice(index, 1)[0] as XmlElement
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#fail(waiter, `nothing fitting came within ${timeoutMs} ms`), timeoutMs)
      const waiter: Waiter = { accept, resolve, reject, timer }
      this.#waiters.add(waiter)
      if (this.#gone) this.#fail(waiter, `the stream is over (${this.#lastWord})`)
    })
  }

  /** Stops reading, as a hung process does. */
  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** Closes the stream politely and waits for its end. */
  async close(): Promise<void> {
    if (this.#socket.writable) this.#socket.end('</stream:stream>')
    this.#socket.resume()
    await this.closed
  }

  /** Ends the connection without a word, as a killed process does. */
  async drop(): Promise<void> {
    this.#socket.destroy()
    await this.closed
  }

  #onOpen(attrs: ReadonlyMap<string, string>): void {
    if (this.#rootWaiter === undefined) this.#roots.push(attrs)
    this.#rootWaiter?.(attrs)
    this.#rootWaiter = undefined
  }

  #onElement(root: XmlElement): void {
    if (root.name === 'error' && root.ns === NS_STREAM) {
      const [condition] = root.children
      if (condition !== undefined && typeof condition !== 'string') this.#lastWord = condition.name
    }
    for (const waiter of this.#waiters) {
      if (!waiter.accept(root)) continue
      this.#waiters.delete(waiter)
      clearTimeout(waiter.timer)
      return waiter.resolve(root)
    }
    if (this.#inbox.length < INBOX_MAX) this.#inbox.push(root)
  }

  #fail(waiter: Waiter, why: string): void {
    this.#waiters.delete(waiter)
    clearTimeout(waiter.timer)
    const there = this.#inbox.slice(0, 5).map((root) => writeElement(root).slice(0, 300))
    const code = this.#gone ? 'connection-lost' : 'timeout'
    waiter.reject(new XmqError(code, `Waited for an element, but ${why}. Unclaimed: ${there.join(' ') || 'nothing'}`))
  }
}

/** Connects a raw stream without opening it. @throws XmqError `connection-lost` */
export async function openRawStream(options: RawStreamOptions): Promise<RawStream> {
  const { host = '127.0.0.1', port } = options
  const socket = connect({ host, port })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', () => resolve())
    socket.once('error', (error) =>
      reject(new XmqError('connection-lost', `Cannot connect to ${host}:${port}: ${error.message}`, { cause: error })),
    )
  })
  return new RawStream(socket, options)
}
