/** A connection over TCP: owner of the socket and of the reader of its stream (RFC 6120 4, XEP-0114). */
import type { Socket } from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import { escapeAttr, NS_STREAM, writeElement, XmlStreamReader, XmqError, type XmlElement } from '@xmq/protocol'
import { Connection, type ConnectionHandlers } from './connection.ts'

/** What a TCP connection is made of. */
export interface TcpConnectionRules {
  /** The content namespace: `jabber:client` or `jabber:component:accept`. */
  readonly contentNs: string
  readonly stanzaBytesMax: number
  readonly outboundBytesMax: number
  /** Of a client: its shaper. */
  readonly bytesPerSecond?: number
  /** Of a client: refusals with `wait` in a second before it is read slower. */
  readonly refusalsPerSecond?: number
  /** Of a client: the most bytes that wait for a component now. A component is read as fast as it writes. */
  readonly behindBytes?: () => number
  readonly log: (line: string) => void
}

/** Most levels and attributes: the real servers have no bound, so peers' own bounds can be tested through this one. */
const DEPTH_MAX = 512
const ATTRIBUTES_MAX = 4096

export class TcpConnection extends Connection {
  readonly #socket: Socket
  readonly #contentNs: string
  readonly #decoder = new StringDecoder('utf8')
  readonly #reader: XmlStreamReader
  readonly #behindBytes: (() => number) | undefined

  constructor(socket: Socket, handlers: ConnectionHandlers, rules: TcpConnectionRules) {
    super(`${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`, handlers, rules)
    this.#socket = socket
    this.#contentNs = rules.contentNs
    this.#behindBytes = rules.behindBytes
    this.#reader = new XmlStreamReader(
      {
        onOpen: (root) => this.#onOpen(root),
        onElement: (root) => this.readElement(root),
        onSkipped: (_head, error) => this.readSkipped(error),
        onClose: () => this.readClosed(),
      },
      { stanzaBytesMax: rules.stanzaBytesMax, depthMax: DEPTH_MAX, attributesMax: ATTRIBUTES_MAX },
    )
    socket.setNoDelay(true)
    socket.on('data', (chunk) => this.#onData(chunk))
    socket.on('error', () => undefined) // 'close' follows
    socket.on('close', () => this.transportGone())
  }

  #onOpen(root: { readonly name: string; readonly ns: string; readonly attrs: ReadonlyMap<string, string> }): void {
    if (root.name !== 'stream' || root.ns !== NS_STREAM)
      this.fail('invalid-namespace', `The root is not <stream:stream/>`)
    else this.readOpen(root.attrs.get('xmlns') ?? '', root.attrs)
  }

  #onData(chunk: Buffer): void {
    if (!this.isOpen) return
    try {
      this.#reader.write(this.#decoder.write(chunk))
    } catch (error) {
      // Anything else is a fault of this package, or of a listener in a test: it must be seen.
      if (!(error instanceof XmqError) || error.code !== 'malformed-xml') throw error
      this.readMalformed(error)
    }
    if (this.#behindBytes !== undefined) this.rest(chunk.length, this.#behindBytes())
  }

  override restartStream(): void {
    this.#reader.reset()
  }

  protected override header(attrs: Readonly<Record<string, string>>): string {
    let out = `<?xml version='1.0'?><stream:stream xmlns='${this.#contentNs}' xmlns:stream='${NS_STREAM}'`
    for (const [name, value] of Object.entries(attrs)) out += ` ${name}='${escapeAttr(value)}'`
    return `${out}>`
  }

  protected override footer(): string {
    return '</stream:stream>'
  }

  protected override features(content: string): string {
    return `<stream:features>${content}</stream:features>`
  }

  protected override streamError(content: string): string {
    return `<stream:error>${content}</stream:error>`
  }

  protected override frame(root: XmlElement): string {
    return writeElement(root)
  }

  protected override get bufferedBytes(): number {
    return this.#socket.writableLength
  }

  protected override transmit(frames: readonly string[]): void {
    if (this.#socket.writable) this.#socket.write(frames.join(''))
  }

  protected override transmitTorn(bytes: Buffer): void {
    this.#socket.write(bytes, () => this.#socket.destroy())
  }

  protected override pauseInput(): void {
    this.#socket.pause()
  }

  protected override resumeInput(): void {
    this.#socket.resume()
  }

  protected override end(): void {
    this.#socket.end()
  }

  protected override destroy(reset: boolean): void {
    if (reset) this.#socket.resetAndDestroy()
    else this.#socket.destroy()
  }
}
