/**
 * What a stream has still to write. Owner: one `ComponentStream`; ends with its connection.
 *
 *   append -> joined --flush, or the turn's end--> the socket's buffer -> the kernel's: gone
 *
 * Invariants:
 * 1. `bytes` is everything appended that the kernel has not taken yet.
 * 2. `congested` turns true above `congestedBytes` and false only below half of it.
 * 3. Above `bytesMax` `onOverflow` is called once, and nothing is appended any more.
 */
import { Buffer } from 'node:buffer'

/** What an {@link Outbound} needs. */
export interface OutboundPort {
  readonly congestedBytes: number
  readonly bytesMax: number
  /** One write to the socket; `done` once the kernel has all of it. */
  write(bytes: Uint8Array, done: () => void): void
  /** Bytes written that the kernel has not taken yet. */
  buffered(): number
  /** Called in the middle of an append or a write: set a flag, do no more. */
  onCongested(congested: boolean): void
  onOverflow(): void
}

/** More than that is not joined any further: one flat string of it would only cost memory. */
const JOINED_LENGTH_MAX = 256 * 1024
const SPARE_BYTES = 1024 * 1024

/** Joins stanzas into few writes and counts what is not drained. */
export class Outbound {
  readonly #port: OutboundPort
  #joined = ''
  #joinedStanzas = 0
  #total = 0
  #congested = false
  #over = false
  #scheduled = false
  /** Where the next text is encoded, when the kernel has taken the last one: new memory for each costs as much as the encoding. */
  #spare: Buffer | undefined

  constructor(port: OutboundPort) {
    this.#port = port
  }

  /** Bytes not taken by the kernel yet. What is not flushed counts by UTF-16 units, at most a third of its bytes too few. */
  get bytes(): number {
    return this.#port.buffered() + this.#joined.length
  }

  /** All bytes that were ever flushed. */
  get bytesTotal(): number {
    return this.#total
  }

  get congested(): boolean {
    return this.#congested
  }

  /** Takes a stanza. False: the bound is reached and it was dropped. */
  append(text: string): boolean {
    if (this.#over) return false
    this.#joined += text
    this.#joinedStanzas++
    if (this.#joined.length >= JOINED_LENGTH_MAX) this.flush()
    else if (!this.#scheduled) {
      this.#scheduled = true
      queueMicrotask(() => {
        this.#scheduled = false
        this.flush()
      })
    }
    this.#mark()
    return true
  }

  /** Writes what was joined, in one write. */
  flush(): void {
    if (this.#joined === '' || this.#over) return
    const text = this.#joined
    this.#joined = ''
    this.#joinedStanzas = 0
    // No UTF-16 unit takes more than three bytes.
    const spare = text.length * 3 <= SPARE_BYTES ? this.#spare : undefined
    if (spare !== undefined) this.#spare = undefined
    const bytes = spare === undefined ? Buffer.from(text) : spare.subarray(0, spare.write(text))
    this.#total += bytes.length
    this.#port.write(bytes, () => {
      this.#spare ??= spare ?? Buffer.allocUnsafeSlow(SPARE_BYTES)
      this.#mark()
    })
  }

  /** The connection is over: what was not written is given up. Returns how many stanzas that were. */
  discard(): number {
    const stanzas = this.#joinedStanzas
    this.#over = true
    this.#joined = ''
    this.#joinedStanzas = 0
    return stanzas
  }

  #mark(): void {
    if (this.#over) return
    const { bytes } = this
    const { congestedBytes, bytesMax } = this.#port
    if (bytes > bytesMax) {
      this.#over = true
      this.#port.onOverflow()
      return
    }
    if (!this.#congested && bytes > congestedBytes) this.#turn(true)
    else if (this.#congested && bytes < congestedBytes / 2) this.#turn(false)
  }

  #turn(congested: boolean): void {
    this.#congested = congested
    this.#port.onCongested(congested)
  }
}
