/**
 * A proxy before the server's component port that cuts a connection in the middle of a stanza.
 *
 *     broker --> up: whole stanzas pass, the chosen one up to its k-th byte --> server
 *     broker <-- down: the same -- server
 *
 * Invariants:
 * 1. Bytes pass in their order, unchanged; a stanza passes as soon as it is whole.
 * 2. After the cut nothing more passes on that connection, in either direction; others go on.
 */
import { connect, createServer } from 'node:net'

const QUOTES = new Set([34, 39])
const [LESS, GREATER, SLASH, QUESTION, BANG] = Buffer.from('<>/?!')

/** Finds where stanzas end in a stream of XML, without understanding more of it than tags and quotes. */
class StanzaSplitter {
  #depth = 0
  #isTag = false
  #isClosing = false
  #isMarkup = false
  #quote = 0
  #last = 0

  /** @returns the offsets in `chunk` after which a stanza, or the head of the stream, is whole */
  push(chunk) {
    const ends = []
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at]
      if (!this.#isTag) {
        if (byte === LESS) this.#begin()
      } else if (this.#quote !== 0) {
        if (byte === this.#quote) this.#quote = 0
      } else if (QUOTES.has(byte)) this.#quote = byte
      else if (byte === GREATER) {
        if (this.#end()) ends.push(at + 1)
      } else if (this.#last === LESS) {
        this.#isClosing = byte === SLASH
        this.#isMarkup = byte === QUESTION || byte === BANG
      }
      this.#last = byte
    }
    return ends
  }

  #begin() {
    this.#isTag = true
    this.#isClosing = false
    this.#isMarkup = false
  }

  /** A tag is over. @returns whether a stanza is, too: what stands directly below the stream's root */
  #end() {
    this.#isTag = false
    if (this.#isMarkup) return false
    if (this.#isClosing) this.#depth--
    else if (this.#last !== SLASH) this.#depth++
    return this.#depth <= 1
  }
}

/** One direction of a connection. */
class Direction {
  #to
  #splitter = new StanzaSplitter()
  #held = []
  #onStanza
  isCut = false

  constructor(from, to, onStanza) {
    this.#to = to
    this.#onStanza = onStanza
    from.on('data', (chunk) => {
      if (!this.isCut) this.#take(chunk)
    })
  }

  #take(chunk) {
    let from = 0
    for (const end of this.#splitter.push(chunk)) {
      const stanza = Buffer.concat([...this.#held, chunk.subarray(from, end)])
      this.#held = []
      from = end
      const passes = this.#onStanza(stanza)
      if (passes < stanza.length || this.isCut) {
        if (passes > 0) this.#to.write(stanza.subarray(0, passes))
        return
      }
      this.#to.write(stanza)
    }
    if (from < chunk.length) this.#held.push(chunk.subarray(from))
  }
}

/** Owner: one scene. */
export class CutProxy {
  #server
  #sockets = new Set()
  #order

  /** @returns {Promise<CutProxy>} @param {number} target the server's component port */
  static async start(target) {
    const proxy = new CutProxy()
    proxy.#server = createServer((near) => proxy.#join(near, connect(target, '127.0.0.1')))
    await new Promise((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port() {
    return this.#server.address().port
  }

  /**
   * Cuts the next stanza of a direction that matches and has so many bytes, after that many of them.
   *
   * @param {{ way: 'up' | 'down', pattern: RegExp, bytes: number, isReset: boolean }} order `up`: from the broker to the server;
   *   `isReset`: by an RST, not a FIN
   * @returns {Promise<{ length: number }>} resolves once it is cut
   */
  cut(order) {
    return new Promise((resolve) => {
      this.#order = { ...order, resolve }
    })
  }

  #join(near, far) {
    const isEnded = () => near.destroyed && far.destroyed
    const end = (isReset) => {
      for (const socket of [near, far]) {
        if (isReset) socket.resetAndDestroy()
        else socket.destroySoon()
      }
    }
    for (const socket of [near, far]) {
      this.#sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => {
        this.#sockets.delete(socket)
        if (!isEnded()) end(false)
      })
    }
    const directions = [
      ['up', near, far],
      ['down', far, near],
    ].map(([way, from, to]) => new Direction(from, to, (stanza) => this.#passes(way, stanza, cutNow)))
    const cutNow = (isReset) => {
      for (const direction of directions) direction.isCut = true
      // What was let through is on its way first.
      setImmediate(() => end(isReset))
    }
  }

  /** How many bytes of a stanza pass. */
  #passes(way, stanza, cutNow) {
    const order = this.#order
    if (order === undefined || order.way !== way || stanza.length < order.bytes) return stanza.length
    if (!order.pattern.test(stanza.toString('utf8'))) return stanza.length
    this.#order = undefined
    cutNow(order.isReset)
    order.resolve({ length: stanza.length })
    return order.bytes
  }

  close() {
    for (const socket of this.#sockets) socket.destroy()
    return new Promise((resolve) => this.#server.close(resolve))
  }
}
