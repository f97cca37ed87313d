/**
 * One component stream (XEP-0114) over one TCP connection: from the connect to its end, no further. Owner: the link, which
 * makes a new one for every try.
 *
 *   connecting --TCP--> opening --stream header--> authenticating --<handshake/>--> up --close()--> closing --> ended
 *        \________________\________________________\____________________________/ any problem ------------------^
 *
 * Invariants:
 * 1. `onEnd` is called exactly once, and nothing after it; `onUp` at most once, before any stanza.
 * 2. The socket is read for ever, but no more than {@link TURN_BYTES_MAX} in one turn of the event loop: the next bytes come in the
 *    next turn, when the store's answers and the timers of this one have had theirs.
 * 3. One input chunk causes one write, however many stanzas its handling sends (one for each 256 KiB of them): a chunk is
 *    handled in one turn, and `Outbound` writes at the turn's end or when told to.
 * 4. A handler's fault does not disturb the reader: the chunk is finished first, then the fault is thrown.
 */
import { createHash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import { NS_CLIENT, NS_COMPONENT, NS_STREAM, XmlStreamReader, XmqError, escapeAttr, isStanza } from '@xmq/protocol'
import type { XmlElement } from '@xmq/protocol'
import type { LinkRules } from './options.ts'
import { Outbound } from './outbound.ts'
import {
  connectTimeout,
  endedProblem,
  handshakeTimeout,
  lost,
  socketProblem,
  streamErrorProblem,
  wrongPort,
  type LinkProblem,
} from './problem.ts'

/** Where a stream is. */
type StreamPhase = 'connecting' | 'opening' | 'authenticating' | 'up' | 'closing' | 'ended'

/** Without this, libuv would read 32 buffers of 64 KiB from a socket before anything else had its turn. */
const TURN_BYTES_MAX = 256 * 1024
/** Node's buffer for one read: after a full one more is there. */
const CHUNK_BYTES_FULL = 64 * 1024

/** What a stream reports. */
export interface ComponentStreamHandlers {
  onUp(): void
  onStanza(stanza: XmlElement): void
  onSkipped(head: XmlElement, error: XmqError): void
  /** A child of a stanza begins: what is returned refuses the stanza. */
  onChild(head: XmlElement, child: Pick<XmlElement, 'name' | 'ns'>): XmqError | undefined
  /** After the last stanza of a socket chunk of so many bytes, before what was sent meanwhile is written. */
  onChunkEnd(bytes: number): void
  /** Bytes that came in. */
  onBytes(count: number): void
  onCongested(congested: boolean): void
  onEnd(problem: LinkProblem): void
}

/** One connection. */
export class ComponentStream {
  readonly #rules: LinkRules
  readonly #handlers: ComponentStreamHandlers
  readonly #socket: Socket
  readonly #reader: XmlStreamReader
  readonly #decoder = new StringDecoder('utf8')
  readonly #outbound: Outbound
  #phase: StreamPhase = 'connecting'
  #cancelTimer: () => void
  #socketError: Error | undefined
  #faults: unknown[] = []
  #closed: (() => void) | undefined
  /** Bytes that were read in this turn, once a chunk was so large that more may be there. */
  #turnBytes = 0
  #turn: NodeJS.Immediate | undefined

  constructor(rules: LinkRules, handlers: ComponentStreamHandlers) {
    this.#rules = rules
    this.#handlers = handlers
    this.#reader = new XmlStreamReader({
      onOpen: (root) => this.#guard(() => this.#opened(root)),
      onElement: (root) => this.#guard(() => this.#element(root)),
      onChild: (head, child) => (this.#phase === 'up' ? handlers.onChild(head, child) : undefined),
      onSkipped: (head, error) => this.#guard(() => this.#skipped(head, error)),
      onClose: () => this.#guard(() => this.#end(endedProblem(rules, this.#phase === 'up'))),
    })
    this.#cancelTimer = rules.clock.after(rules.connectTimeoutMs, () =>
      this.#end(connectTimeout(rules, rules.connectTimeoutMs)),
    )
    const socket = connect({ host: rules.host, port: rules.port, noDelay: true, keepAlive: true })
    this.#socket = socket
    this.#outbound = new Outbound({
      congestedBytes: rules.congestedBytes,
      bytesMax: rules.outboundBytesMax,
      write: (bytes, done) => void socket.write(bytes, (error) => (error ? undefined : done())),
      buffered: () => socket.writableLength,
      onCongested: (congested) => handlers.onCongested(congested),
      onOverflow: () => queueMicrotask(() => this.#end(this.#overflowProblem())),
    })
    socket.on('connect', () => this.#connected())
    socket.on('data', (chunk) => this.#data(chunk))
    socket.on('error', (error) => {
      this.#socketError = error
    })
    socket.on('end', () => this.#end(endedProblem(rules, this.#phase === 'up')))
    socket.on('close', () => this.#socketClosed())
  }

  get outbound(): Outbound {
    return this.#outbound
  }

  /** Takes a stanza as text. False when it was dropped: the stream is not up, or its buffer is full. */
  send(text: string): boolean {
    return this.#phase === 'up' && this.#outbound.append(text)
  }

  /** Writes what waits to be joined. */
  flush(): void {
    if (this.#phase === 'up') this.#outbound.flush()
  }

  /** Ends the stream at once for a reason of the owner's. */
  abort(problem: LinkProblem): void {
    this.#end(problem)
  }

  /**
   * Writes what is buffered and `</stream:stream>`, and waits for the server's end, at most `closeTimeoutMs`. Reports no
   * `onEnd` any more. Resolves when the socket is gone.
   */
  close(): Promise<void> {
    const { clock, closeTimeoutMs } = this.#rules
    if (this.#phase === 'ended') return Promise.resolve()
    const closed = new Promise<void>((resolve) => {
      this.#closed = resolve
    })
    this.#cancelTimer()
    if (this.#phase !== 'up') {
      this.#phase = 'ended'
      this.#socket.destroy()
      return closed
    }
    this.#outbound.flush()
    this.#phase = 'closing'
    // Not `end()` yet: the server is to read everything and answer with its own end first.
    this.#socket.write('</stream:stream>')
    this.#cancelTimer = clock.after(closeTimeoutMs, () => this.#socket.destroy())
    return closed
  }

  #connected(): void {
    if (this.#phase !== 'connecting') return
    const { clock, domain, handshakeTimeoutMs } = this.#rules
    this.#phase = 'opening'
    this.#cancelTimer()
    this.#cancelTimer = clock.after(handshakeTimeoutMs, () =>
      this.#end(handshakeTimeout(this.#rules, handshakeTimeoutMs)),
    )
    this.#socket.write(
      `<?xml version='1.0'?><stream:stream xmlns='${NS_COMPONENT}' xmlns:stream='${NS_STREAM}' to='${escapeAttr(domain)}'>`,
    )
  }

  #data(chunk: Buffer): void {
    if (this.#phase === 'ended') return
    this.#breathe(chunk.length)
    this.#handlers.onBytes(chunk.length)
    const text = this.#decoder.write(chunk)
    if (text === '') return
    try {
      this.#reader.write(text)
    } catch (error) {
      this.#end(this.#malformed(XmqError.from(error, 'malformed-xml')))
    }
    if (this.#phase === 'up') this.#guard(() => this.#handlers.onChunkEnd(chunk.length))
    this.#outbound.flush()
    if (this.#faults.length > 0) throw this.#faults.splice(0)[0]
  }

  /** Lets everything else have its turn when much has been read in this one. */
  #breathe(bytes: number): void {
    if (this.#turn === undefined && bytes < CHUNK_BYTES_FULL) return
    this.#turnBytes += bytes
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined
      this.#turnBytes = 0
      this.#socket.resume()
    })
    if (this.#turnBytes >= TURN_BYTES_MAX) this.#socket.pause()
  }

  /** Runs what the reader calls: nothing after the end, and no throw into the reader. */
  #guard(run: () => void): void {
    if (this.#phase === 'ended') return
    try {
      run()
    } catch (fault) {
      this.#faults.push(fault)
    }
  }

  #opened(root: { readonly name: string; readonly ns: string; readonly attrs: ReadonlyMap<string, string> }): void {
    if (this.#phase !== 'opening') return
    const content = root.attrs.get('xmlns') ?? ''
    if (root.name !== 'stream' || root.ns !== NS_STREAM || content !== NS_COMPONENT) {
      this.#end(wrongPort(this.#rules, `it answered <${root.name}> for '${content.slice(0, 80)}'`))
      return
    }
    const id = root.attrs.get('id') ?? ''
    // Prosody opens a stream with an empty id only to put an error into it; the error follows.
    if (id === '') return
    this.#phase = 'authenticating'
    const digest = createHash('sha1').update(id).update(this.#rules.secret).digest('hex')
    this.#socket.write(`<handshake>${digest}</handshake>`)
  }

  #element(root: XmlElement): void {
    if (root.ns === NS_STREAM && root.name === 'error') {
      this.#end(streamErrorProblem(root, this.#rules, this.#phase === 'up'))
      return
    }
    if (this.#phase === 'authenticating' && root.name === 'handshake' && root.ns === NS_CLIENT) {
      this.#cancelTimer()
      this.#phase = 'up'
      this.#handlers.onUp()
      return
    }
    if (this.#phase === 'up' && isStanza(root)) this.#handlers.onStanza(root)
  }

  #skipped(head: XmlElement, error: XmqError): void {
    if (this.#phase === 'up') this.#handlers.onSkipped(head, error)
  }

  #malformed(error: XmqError): LinkProblem {
    const { host, port, domain } = this.#rules
    const message = `${host}:${port} sent what is no XMPP stream for ${domain}: ${error.message}`
    return this.#phase === 'opening' ? wrongPort(this.#rules, error.message) : lost(error.code, message)
  }

  #overflowProblem(): LinkProblem {
    const { host, port, domain, outboundBytesMax } = this.#rules
    return lost(
      'overloaded',
      `${host}:${port} does not read what ${domain} sends: more than ${outboundBytesMax} bytes waited, and were dropped ` +
        'with the stream',
      "Is the server overloaded, or does a shaper slow the component down? ejabberd: 'shaper: none' at the listener with " +
        "'module: ejabberd_service'. Prosody: no limit for components in 'limits'.",
    )
  }

  #end(problem: LinkProblem): void {
    if (this.#phase === 'ended') return
    if (this.#phase === 'closing') {
      // The answer to our own end.
      this.#socket.destroy()
      return
    }
    const wasOpen = this.#phase !== 'connecting'
    this.#phase = 'ended'
    this.#cancelTimer()
    // The kernel takes the end tag at once, or it is lost: a server that does not read is not waited for.
    if (wasOpen && this.#socket.writable) this.#socket.end('</stream:stream>')
    this.#socket.destroy()
    this.#handlers.onEnd(problem)
  }

  #socketClosed(): void {
    const error = this.#socketError
    this.#end(
      error === undefined
        ? endedProblem(this.#rules, this.#phase === 'up')
        : socketProblem(error, this.#rules, this.#phase !== 'connecting'),
    )
    this.#phase = 'ended'
    this.#cancelTimer()
    clearImmediate(this.#turn)
    this.#closed?.()
  }
}
