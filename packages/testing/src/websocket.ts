/** A connection over WebSocket (RFC 7395): owner of the WebSocket; each frame is one whole element. */
import {
  escapeAttr,
  NS_CLIENT,
  NS_FRAMING,
  NS_STREAM,
  parseElement,
  utf8Length,
  writeElement,
  XmqError,
  type XmlElement,
} from '@xmq/protocol'
import type { RawData, WebSocket } from 'ws'
import { Connection, type ConnectionHandlers } from './connection.ts'

/** What a WebSocket connection is made of. */
export interface WebSocketConnectionRules {
  readonly stanzaBytesMax: number
  readonly outboundBytesMax: number
  readonly refusalsPerSecond: number
  readonly log: (line: string) => void
}

/** The size is checked before; depth and attributes have no bound on the real servers either. */
const FRAME_LIMITS = { depthMax: 512, attributesMax: 4096, stanzaBytesMax: 2 ** 30 }

export class WebSocketConnection extends Connection {
  readonly #socket: WebSocket
  readonly #stanzaBytesMax: number

  constructor(socket: WebSocket, remote: string, handlers: ConnectionHandlers, rules: WebSocketConnectionRules) {
    super(remote, handlers, rules)
    this.#socket = socket
    this.#stanzaBytesMax = rules.stanzaBytesMax
    socket.on('message', (data, isBinary) => this.#onMessage(data, isBinary))
    socket.on('error', () => undefined) // 'close' follows
    socket.on('close', () => this.transportGone())
  }

  #onMessage(data: RawData, isBinary: boolean): void {
    if (!this.isOpen) return
    const text = textOfFrame(data)
    if (isBinary) return this.fail('bad-format', 'Frames are text (RFC 7395 3.2)')
    if (utf8Length(text) > this.#stanzaBytesMax) {
      return this.readSkipped(new XmqError('too-large', `A frame is over ${this.#stanzaBytesMax} bytes`))
    }
    let root: XmlElement
    try {
      root = parseElement(text, '', FRAME_LIMITS)
    } catch (error) {
      return this.readMalformed(XmqError.from(error))
    }
    if (root.ns !== NS_FRAMING) this.readElement(root)
    else if (root.name === 'open') this.readOpen(NS_CLIENT, root.attrs)
    else if (root.name === 'close') this.readClosed()
    else this.fail('bad-format', `<${root.name}/> is no frame of RFC 7395`)
  }

  override restartStream(): void {
    // Each frame stands alone: nothing to make ready.
  }

  protected override header(attrs: Readonly<Record<string, string>>): string {
    let out = `<open xmlns='${NS_FRAMING}'`
    for (const [name, value] of Object.entries(attrs)) out += ` ${name}='${escapeAttr(value)}'`
    return `${out}/>`
  }

  protected override footer(): string {
    return `<close xmlns='${NS_FRAMING}'/>`
  }

  protected override features(content: string): string {
    return `<stream:features xmlns:stream='${NS_STREAM}'>${content}</stream:features>`
  }

  protected override streamError(content: string): string {
    return `<stream:error xmlns:stream='${NS_STREAM}'>${content}</stream:error>`
  }

  protected override frame(root: XmlElement): string {
    return writeElement(root, '')
  }

  protected override get bufferedBytes(): number {
    return this.#socket.bufferedAmount
  }

  protected override transmit(frames: readonly string[]): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return
    for (const frame of frames) this.#socket.send(frame, () => undefined) // a failure is followed by 'close'
  }

  /** A torn frame cannot be written through the protocol's own layer: the frame is left out and the connection cut. */
  protected override transmitTorn(): void {
    this.#socket.terminate()
  }

  protected override pauseInput(): void {
    this.#socket.pause()
  }

  protected override resumeInput(): void {
    this.#socket.resume()
  }

  protected override end(): void {
    this.#socket.close(1000)
  }

  protected override destroy(): void {
    this.#socket.terminate()
  }
}

function textOfFrame(data: RawData): string {
  if (Buffer.isBuffer(data)) return data.toString('utf8')
  return Array.isArray(data) ? Buffer.concat(data).toString('utf8') : Buffer.from(data).toString('utf8')
}
