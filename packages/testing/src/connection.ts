/**
 * One connection of a peer, whatever carries it. Owner of what waits to be written, and of the misbehaviour that hits one
 * connection: stalls and the cut in the middle of a stanza. Subclasses own the socket and the framing.
 *
 *     open --close(), fail(), drop(), cut, or the peer vanishes: onGone--> ending --transport gone--> gone
 *
 * Invariants:
 * 1. Nothing is sent or reported once `open` is over, but what waited then may leave still.
 * 2. `onGone` comes exactly once, in the call that ends `open`: nobody routes to a connection that cannot take it.
 * 3. All that one turn of the loop sends leaves in one write.
 * 4. At most `outboundBytesMax` wait; one byte more ends the connection.
 * 5. It is read while no stall, no rest and no full window holds it up. The latter two end by themselves.
 * 6. Rests do not add up: the one that lasts longest holds.
 */
import { NS_STREAM_ERROR, writeElement, XmqError, type XmlElement } from '@xmq/protocol'
import { AnswerWindow } from './answer-window.ts'
import { Tarpit } from './tarpit.ts'

/** RFC 6120 4.9.3, those that the embedded server says. */
export type StreamCondition =
  | 'bad-format'
  | 'conflict'
  | 'connection-timeout'
  | 'host-unknown'
  | 'improper-addressing'
  | 'invalid-from'
  | 'invalid-namespace'
  | 'not-authorized'
  | 'not-well-formed'
  | 'policy-violation'
  | 'reset'
  | 'resource-constraint'
  | 'system-shutdown'
  | 'unsupported-stanza-type'

/** What a connection reports, in the order of the wire. */
export interface ConnectionHandlers {
  /** The peer opened its stream (again). */
  onOpen(ns: string, attrs: ReadonlyMap<string, string>): void
  onElement(root: XmlElement): void
  /** An element broke a limit. */
  onSkipped(error: XmqError): void
  /** What came is no XML, or not what the framing allows. */
  onMalformed(error: XmqError): void
  /** The peer closed its stream. */
  onClosed(): void
  /** The connection takes and gives nothing any more, whoever ended it. */
  onGone(): void
}

/** How to end a connection on purpose: `cut` is a FIN without a word, `reset` an RST, the others are stream errors. */
export type DropManner = 'cut' | 'reset' | 'close' | StreamCondition

/** Which direction a stall holds up, seen from the server. */
export type StallWhat = 'input' | 'output' | 'both'

type Phase = 'open' | 'ending' | 'gone'

/** Milliseconds that a peer has to close its side after the server closed its own. */
const LINGER_MS = 2000
/** Node's buffer for one read: after a full one more is there. */
const CHUNK_BYTES_FULL = 64 * 1024
/** So much may wait for a component before those who write to it are read slower. */
const BEHIND_BYTES = 1024 * 1024
/** So much of what a shaper lets through may come at once. */
const BURST_MS = 1000
/** How long a full chunk is rested after, for each {@link BEHIND_BYTES} that wait. */
const REST_MS = 100

export abstract class Connection {
  /** The peer's address, for log lines. */
  readonly remote: string
  readonly #handlers: ConnectionHandlers
  readonly #outboundBytesMax: number
  readonly #bytesPerSecond: number
  /** By when what was read would have come at `bytesPerSecond`. */
  #paidUntil = 0
  readonly #tarpit: Tarpit
  readonly #window: AnswerWindow = new AnswerWindow(() => this.#resume())
  readonly #log: (line: string) => void
  #phase: Phase = 'open'
  #pending: string[] = []
  #pendingBytes = 0
  #flushScheduled = false
  #outputStalled = false
  #inputStalled = false
  /** Ends the rest. */
  #resting: (() => void) | undefined
  /** When the rest is over. */
  #restUntil = 0
  #cutAt: number | 'middle' | undefined
  #opened = false
  #lingerTimer: NodeJS.Timeout | undefined

  constructor(
    remote: string,
    handlers: ConnectionHandlers,
    rules: {
      readonly outboundBytesMax: number
      readonly bytesPerSecond?: number | undefined
      readonly refusalsPerSecond?: number | undefined
      readonly log: (line: string) => void
    },
  ) {
    this.remote = remote
    this.#handlers = handlers
    this.#outboundBytesMax = rules.outboundBytesMax
    this.#bytesPerSecond = rules.bytesPerSecond ?? Number.POSITIVE_INFINITY
    this.#tarpit = new Tarpit(rules.refusalsPerSecond ?? Number.POSITIVE_INFINITY)
    this.#log = rules.log
  }

  /** Whether it still takes stanzas. */
  get isOpen(): boolean {
    return this.#phase === 'open'
  }

  /** Bytes that the peer has not taken. */
  get waitingBytes(): number {
    return this.#pendingBytes + this.bufferedBytes
  }

  /** Answers the peer's stream header. */
  openStream(attrs: Readonly<Record<string, string>>): void {
    this.#opened = true
    this.#enqueue(this.header(attrs))
  }

  /** Sends `<stream:features/>` with that content. */
  sendFeatures(content: string): void {
    this.#enqueue(this.features(content))
  }

  /** Sends an element. One that XML cannot carry is dropped with a log line. */
  send(root: XmlElement): void {
    if (this.#phase !== 'open') return
    let text: string
    try {
      text = this.frame(root)
    } catch (error) {
      this.#log(`dropped a stanza to ${this.remote}: ${XmqError.from(error).message}`)
      return
    }
    if (this.#cutAt !== undefined) this.#cutInside(text)
    else this.#enqueue(text)
  }

  /** Ends the stream with an error (RFC 6120 4.9) and closes. */
  fail(condition: StreamCondition, text: string): void {
    if (this.#phase !== 'open') return
    if (!this.#opened) this.openStream({})
    const words =
      text === '' ? '' : writeElement({ name: 'text', ns: NS_STREAM_ERROR, attrs: new Map(), children: [text] })
    this.#log(`closing ${this.remote}: ${condition}${text === '' ? '' : ` (${text})`}`)
    this.#enqueue(this.streamError(`<${condition} xmlns='${NS_STREAM_ERROR}'/>${words}`))
    this.#finish()
  }

  /** Closes the stream and the connection. */
  close(): void {
    if (this.#phase !== 'open') return
    this.#finish()
  }

  /** Ends the connection in the given manner. */
  drop(manner: DropManner): void {
    if (manner === 'cut' || manner === 'reset') {
      this.#leaveOpen()
      this.destroy(manner === 'reset')
    } else if (manner === 'close') this.close()
    else this.fail(manner, 'Dropped on demand')
  }

  /** Holds up what comes in, what goes out, or both, until {@link unstall}. */
  stall(what: StallWhat): void {
    if (what !== 'output') {
      this.#inputStalled = true
      this.pauseInput()
    }
    if (what !== 'input') this.#outputStalled = true
  }

  unstall(): void {
    this.#inputStalled = false
    this.#resume()
    this.#outputStalled = false
    this.#flush()
  }

  /** Cuts the connection inside the next stanza sent, after that many bytes of it. */
  cutNext(atByte: number | undefined): void {
    this.#cutAt = atByte ?? 'middle'
  }

  /** The peer is told to wait: if it is told so too often, it is not read for a while. @returns whether it is not */
  toldToWait(): boolean {
    const now = performance.now()
    const ms = this.#tarpit.refused(now)
    if (ms < 1 || !this.isOpen) return false
    this.#window.watch(now)
    this.#restFor(ms)
    return true
  }

  /** Whether it was told to wait too often a while ago, so that what it asks is counted. */
  get isWatched(): boolean {
    return this.#window.isWatching(performance.now())
  }

  /** The peer asked a component something, and {@link isWatched}. */
  asked(): void {
    if (this.isOpen && this.#window.asked()) this.pauseInput()
  }

  /** A component answered. */
  answered(): void {
    this.#window.answered()
  }

  /** Whether it is not read since it is told to wait too often. */
  get isHeld(): boolean {
    return this.#tarpit.isHolding(performance.now())
  }

  /** Makes ready for the peer's new stream header after SASL (RFC 6120 6.4.6). */
  abstract restartStream(): void
  protected abstract header(attrs: Readonly<Record<string, string>>): string
  protected abstract footer(): string
  protected abstract features(content: string): string
  protected abstract streamError(content: string): string
  protected abstract frame(root: XmlElement): string
  /** Bytes handed to the transport that the peer has not taken. */
  protected abstract readonly bufferedBytes: number
  protected abstract transmit(frames: readonly string[]): void
  /** Sends some bytes of a frame and ends the connection after them. */
  protected abstract transmitTorn(bytes: Buffer): void
  protected abstract pauseInput(): void
  protected abstract resumeInput(): void
  /** Closes the transport once all is written. */
  protected abstract end(): void
  /** Ends the transport at once. */
  protected abstract destroy(reset: boolean): void

  // For subclasses: what came in.

  protected readOpen(ns: string, attrs: ReadonlyMap<string, string>): void {
    if (this.#phase === 'open') this.#handlers.onOpen(ns, attrs)
  }

  protected readElement(root: XmlElement): void {
    if (this.#phase === 'open') this.#handlers.onElement(root)
  }

  protected readSkipped(error: XmqError): void {
    if (this.#phase === 'open') this.#handlers.onSkipped(error)
  }

  protected readMalformed(error: XmqError): void {
    if (this.#phase === 'open') this.#handlers.onMalformed(error)
  }

  protected readClosed(): void {
    if (this.#phase === 'open') this.#handlers.onClosed()
  }

  /**
   * Lets everybody else have their turn after a chunk that left more to be read: whoever writes without end is no more to the server
   * than all others. While a component is behind, each chunk is rested after, the longer the more waits for it, as a shaper
   * of a real server does.
   * @param behindBytes what waits for the component that has most of it
   */
  protected rest(chunkBytes: number, behindBytes: number): void {
    if (this.#phase !== 'open') return
    const behindMs =
      behindBytes < BEHIND_BYTES ? 0 : (chunkBytes / CHUNK_BYTES_FULL) * (behindBytes / BEHIND_BYTES) * REST_MS
    const ms = Math.max(behindMs, this.#shape(chunkBytes))
    if (ms >= 1 || chunkBytes >= CHUNK_BYTES_FULL) this.#restFor(ms)
  }

  #restFor(ms: number): void {
    const now = performance.now()
    this.#restUntil = Math.max(this.#restUntil, now + ms)
    if (this.#resting !== undefined) return
    this.pauseInput()
    this.#rest(ms)
  }

  /** Rests so long, and then as long as was added meanwhile. Less than a millisecond is a turn of the loop. */
  #rest(ms: number): void {
    const go = (): void => {
      this.#resting = undefined
      const left = this.#restUntil - performance.now()
      if (left >= 1) this.#rest(left)
      else this.#resume()
    }
    if (ms < 1) {
      const immediate = setImmediate(go)
      this.#resting = () => clearImmediate(immediate)
    } else {
      const timer = setTimeout(go, ms)
      this.#resting = () => clearTimeout(timer)
    }
  }

  /** Milliseconds that the shaper makes a client wait after a chunk. */
  #shape(chunkBytes: number): number {
    if (this.#bytesPerSecond === Number.POSITIVE_INFINITY) return 0
    const now = performance.now()
    this.#paidUntil = Math.max(this.#paidUntil, now) + (chunkBytes / this.#bytesPerSecond) * 1000
    return this.#paidUntil - now - BURST_MS
  }

  #resume(): void {
    if (!this.#inputStalled && this.#resting === undefined && !this.#window.isFull) this.resumeInput()
  }

  #endRest(): void {
    this.#resting?.()
    this.#resting = undefined
    this.#restUntil = 0
    this.#window.end()
  }

  protected transportGone(): void {
    if (this.#phase === 'gone') return
    this.#endRest()
    this.#leaveOpen()
    this.#phase = 'gone'
    clearTimeout(this.#lingerTimer)
  }

  #enqueue(text: string): void {
    if (this.#phase !== 'open') return
    this.#pending.push(text)
    this.#pendingBytes += Buffer.byteLength(text)
    if (this.waitingBytes > this.#outboundBytesMax) {
      this.#log(`cut off ${this.remote}: over ${this.#outboundBytesMax} bytes wait for it and it does not read`)
      this.drop('cut')
      return
    }
    if (this.#flushScheduled) return
    this.#flushScheduled = true
    queueMicrotask(() => {
      this.#flushScheduled = false
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#outputStalled || this.#pending.length === 0) return
    const frames = this.#pending
    this.#pending = []
    this.#pendingBytes = 0
    this.transmit(frames)
  }

  #finish(): void {
    this.#enqueue(this.footer())
    this.#endRest()
    this.unstall()
    if (!this.isOpen) return
    this.#leaveOpen()
    this.end()
    this.#lingerTimer = setTimeout(() => this.destroy(false), LINGER_MS)
    this.#lingerTimer.unref()
  }

  #leaveOpen(): void {
    if (this.#phase !== 'open') return
    this.#phase = 'ending'
    this.#pending = []
    this.#pendingBytes = 0
    this.#handlers.onGone()
  }

  #cutInside(text: string): void {
    const bytes = Buffer.from(text)
    const wanted = this.#cutAt === 'middle' || this.#cutAt === undefined ? bytes.length >> 1 : this.#cutAt
    const at = Math.min(Math.max(wanted, 0), bytes.length)
    this.unstall()
    this.#leaveOpen()
    this.#log(`cut ${this.remote} after ${at} of ${bytes.length} bytes of a stanza`)
    this.transmitTorn(bytes.subarray(0, at))
  }
}
