/** A scripted component port: does what a test tells it, on any free port of the loopback. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { parseElement, writeElement, type XmlElement } from '@xmq/protocol'

export const SECRET = 'sesame'
const STREAM_ERRORS = 'urn:ietf:params:xml:ns:xmpp-streams'

/** What the server does with a connection. */
export type Script =
  | 'accept'
  | 'refuse-secret'
  | 'conflict'
  | 'host-unknown'
  | 'ejabberd-conflict'
  | 'client-port'
  | 'silent'
  | 'hang-up'

/** The server's side of one connection. */
export class Peer {
  readonly socket: Socket
  /** Everything that came in, one entry a chunk. */
  readonly chunks: string[] = []
  /** The stanzas that came in. */
  readonly stanzas: XmlElement[] = []
  up = false
  #text = ''
  #seen: (() => void)[] = []

  constructor(socket: Socket) {
    this.socket = socket
  }

  get received(): string {
    return this.chunks.join('')
  }

  write(text: string | Uint8Array): void {
    this.socket.write(text)
  }

  streamError(condition: string, text = ''): void {
    const shown = text === '' ? '' : `<text xmlns='${STREAM_ERRORS}'>${text}</text>`
    this.write(`<stream:error><${condition} xmlns='${STREAM_ERRORS}'/>${shown}</stream:error></stream:stream>`)
    this.socket.end()
  }

  /** Resolves as soon as `test` holds; looked at after every chunk. */
  async until(test: () => boolean): Promise<void> {
    while (!test()) await new Promise<void>((resolve) => this.#seen.push(resolve))
  }

  /** Stanzas that are not the watchdog's. */
  get payloads(): XmlElement[] {
    return this.stanzas.filter((stanza) => !isWatch(stanza))
  }

  took(text: string): XmlElement[] {
    this.chunks.push(text)
    const fresh: XmlElement[] = []
    if (this.up) {
      this.#text += text
      // Stanzas of these tests hold no element of their own name.
      const whole = /<(iq|message|presence)\b(?:[^>]*\/>|[\s\S]*?<\/\1>)/g
      let end = 0
      for (let match = whole.exec(this.#text); match !== null; match = whole.exec(this.#text)) {
        fresh.push(parseElement(match[0]))
        end = whole.lastIndex
      }
      this.#text = this.#text.slice(end)
    }
    this.stanzas.push(...fresh)
    return fresh
  }

  wake(): void {
    for (const resolve of this.#seen.splice(0)) resolve()
  }
}

export function isWatch(stanza: XmlElement): boolean {
  return stanza.children.some((child) => typeof child !== 'string' && child.name === 'instance')
}

/** The server. */
export class FakeServer {
  readonly peers: Peer[] = []
  /** The script of the next connection; the last one stays. */
  scripts: Script[] = ['accept']
  /** What to do with a stanza that came in; by default what a component sends to its own domain goes back to it. */
  route: (stanza: XmlElement, raw: string, from: Peer) => void = (stanza, raw, from) => {
    if (isWatch(stanza)) from.write(raw)
  }
  readonly #server: Server
  #waiting: (() => void)[] = []

  constructor() {
    this.#server = createServer((socket) => this.#accept(socket))
  }

  static async start(): Promise<FakeServer> {
    const fake = new FakeServer()
    fake.#server.listen(0, '127.0.0.1')
    await once(fake.#server, 'listening')
    return fake
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** The nth connection, from 0, as soon as it is there. */
  async peer(index: number): Promise<Peer> {
    for (;;) {
      const peer = this.peers[index]
      if (peer !== undefined) return peer
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }

  async stop(): Promise<void> {
    for (const peer of this.peers) peer.socket.destroy()
    if (!this.#server.listening) return
    this.#server.close()
    await once(this.#server, 'close')
  }

  #accept(socket: Socket): void {
    const script = this.scripts.length > 1 ? this.scripts.shift() : this.scripts[0]
    const peer = new Peer(socket)
    this.peers.push(peer)
    socket.on('error', () => {})
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => {
      this.#data(peer, script ?? 'accept', text)
      peer.wake()
    })
    socket.on('close', () => peer.wake())
    if (script === 'hang-up') socket.end()
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #data(peer: Peer, script: Script, text: string): void {
    for (const stanza of peer.took(text)) this.route(stanza, writeElement(stanza), peer)
    if (peer.up && text.includes('</stream:stream>')) peer.socket.end('</stream:stream>')
    if (peer.up || script === 'silent') return
    if (text.includes('<stream:stream')) this.#open(peer, script)
    else if (text.includes('<handshake>')) this.#handshake(peer, script, text)
  }

  #open(peer: Peer, script: Script): void {
    const id = script === 'host-unknown' ? '' : 'stream-1'
    const content = script === 'client-port' ? 'jabber:client' : 'jabber:component:accept'
    peer.write(
      `<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='${content}' id='${id}'>`,
    )
    if (script === 'host-unknown') peer.streamError('host-unknown', 'no such component')
    if (script === 'client-port') peer.streamError('host-unknown', 'This server does not serve it')
    if (script === 'ejabberd-conflict')
      peer.streamError('conflict', 'Unable to register route on existing local domain')
  }

  #handshake(peer: Peer, script: Script, text: string): void {
    const digest = createHash('sha1').update(`stream-1${SECRET}`).digest('hex')
    if (script === 'refuse-secret' || !text.includes(`<handshake>${digest}</handshake>`))
      peer.streamError('not-authorized')
    else if (script === 'conflict') peer.streamError('conflict', 'Component already connected')
    else if (script === 'accept') {
      peer.up = true
      peer.write('<handshake/>')
    }
  }
}
