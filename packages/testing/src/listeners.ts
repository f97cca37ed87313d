/**
 * The ports of the server and every connection that came through them. Sole owner of sockets at rest: it opens, counts and
 * closes them; what is said over them is the sessions' business.
 *
 * Invariants:
 * 1. A port once taken is taken again after a restart.
 * 2. At most `connectionsMax` connections; one more is cut off.
 * 3. After `close` no socket and no listener is left.
 */
import { createServer, type IncomingMessage, type Server as HttpServer } from 'node:http'
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { NS_CLIENT, NS_COMPONENT, XmqError } from '@xmq/protocol'
import { WebSocketServer, type WebSocket } from 'ws'
import type { Connection, ConnectionHandlers } from './connection.ts'
import { isLoopback, type ServerRules } from './options.ts'
import { TcpConnection } from './tcp-connection.ts'
import { WebSocketConnection } from './websocket.ts'

/** Handlers that want to know their connection. */
export interface AttachableHandlers extends ConnectionHandlers {
  attach(connection: Connection): void
}

/** Makes the handlers of a new connection. */
export interface SessionFactories {
  readonly client: () => AttachableHandlers
  readonly component: () => AttachableHandlers
  /** The most bytes that wait for a component. */
  readonly behindBytes: () => number
}

/** The ports in use. */
export interface Ports {
  readonly c2s: number
  readonly component: number
  readonly websocket: number | undefined
}

/** The path that browsers and other clients name; any other is served as well. */
const WEBSOCKET_PATH = '/xmpp-websocket'

export class Listeners {
  readonly #rules: ServerRules
  readonly #factories: SessionFactories
  readonly #sockets = new Set<Socket>()
  #servers: (Server | HttpServer)[] = []
  #websockets: WebSocketServer | undefined
  #ports: Ports | undefined

  constructor(rules: ServerRules, factories: SessionFactories) {
    this.#rules = rules
    this.#factories = factories
  }

  get ports(): Ports {
    if (this.#ports === undefined) throw new XmqError('closed', 'The server has never listened.')
    return this.#ports
  }

  get websocketUrl(): string | undefined {
    const port = this.#ports?.websocket
    if (port === undefined) return undefined
    const host = this.#rules.host.includes(':') ? `[${this.#rules.host.replace(/[[\]]/g, '')}]` : this.#rules.host
    return `ws://${host}:${port}${WEBSOCKET_PATH}`
  }

  /** Opens the ports, the same ones as before if there were any. Idempotent. @throws XmqError `conflict` when one is taken */
  async open(): Promise<void> {
    const rules = this.#rules
    const before = this.#ports
    if (this.#servers.length > 0) return
    try {
      const c2s = await this.#listen(this.#tcpServer('client'), before?.c2s ?? rules.port)
      const component = await this.#listen(this.#tcpServer('component'), before?.component ?? rules.componentPort)
      const websocket =
        rules.websocketPort === false
          ? undefined
          : await this.#listen(this.#websocketServer(), before?.websocket ?? rules.websocketPort)
      this.#ports = { c2s, component, websocket }
    } catch (error) {
      await this.close('reset')
      throw error
    }
  }

  /** Closes the ports and cuts every connection. */
  async close(manner: 'cut' | 'reset'): Promise<void> {
    const servers = this.#servers
    this.#servers = []
    const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
    this.#websockets?.close()
    this.#websockets = undefined
    const gone = [...this.#sockets].map(
      (socket) => new Promise<void>((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve()))),
    )
    for (const socket of this.#sockets) {
      if (manner === 'reset') socket.resetAndDestroy()
      else socket.destroy()
    }
    await Promise.all([...closed, ...gone])
  }

  #tcpServer(kind: 'client' | 'component'): Server {
    const rules = this.#rules
    const shape =
      kind === 'client'
        ? {
            contentNs: NS_CLIENT,
            stanzaBytesMax: rules.stanzaBytesMax,
            bytesPerSecond: rules.clientBytesPerSecond,
            refusalsPerSecond: rules.clientRefusalsPerSecond,
            behindBytes: this.#factories.behindBytes,
          }
        : { contentNs: NS_COMPONENT, stanzaBytesMax: rules.componentStanzaBytesMax }
    return createTcpServer((socket) => {
      if (!this.#admit(socket)) return
      const handlers = this.#factories[kind]()
      const { outboundBytesMax, log } = rules
      handlers.attach(new TcpConnection(socket, handlers, { ...shape, outboundBytesMax, log }))
    })
  }

  #websocketServer(): HttpServer {
    const server = createServer((_request, response) => {
      response.writeHead(426, { 'content-type': 'text/plain' })
      response.end('This is the WebSocket port of an XMPP server (RFC 7395).\n')
    })
    server.on('connection', (socket: Socket) => this.#admit(socket))
    const websockets = new WebSocketServer({
      noServer: true,
      maxPayload: this.#rules.stanzaBytesMax * 2,
      perMessageDeflate: false,
      handleProtocols: (protocols) => (protocols.has('xmpp') ? 'xmpp' : false),
    })
    this.#websockets = websockets
    server.on('upgrade', (request, socket, head) => {
      const refusal = this.#websocketRefusal(request)
      if (refusal !== undefined) {
        this.#rules.log(`refused a WebSocket: ${refusal}`)
        socket.end(`HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
        return
      }
      websockets.handleUpgrade(request, socket, head, (websocket) => this.#acceptWebSocket(websocket, request))
    })
    return server
  }

  #acceptWebSocket(websocket: WebSocket, request: IncomingMessage): void {
    const { socket } = request
    socket.setNoDelay(true)
    const handlers = this.#factories.client()
    const remote = `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0} (ws)`
    const { clientRefusalsPerSecond: refusalsPerSecond, ...rules } = this.#rules
    handlers.attach(new WebSocketConnection(websocket, remote, handlers, { ...rules, refusalsPerSecond }))
  }

  /** A page from anywhere could otherwise log in on a developer's machine: browsers let any page open a WebSocket. */
  #websocketRefusal(request: IncomingMessage): string | undefined {
    const protocols = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((each) => each.trim())
    if (!protocols.includes('xmpp')) return "the subprotocol is not 'xmpp' (RFC 7395 3.1)"
    const { origin } = request.headers
    if (origin === undefined || this.#rules.websocketOrigins.includes(origin)) return undefined
    const host = URL.canParse(origin) ? new URL(origin).hostname : ''
    return isLoopback(host) ? undefined : `pages from ${origin} are not in websocketOrigins`
  }

  #admit(socket: Socket): boolean {
    if (this.#sockets.size >= this.#rules.connectionsMax) {
      this.#rules.log(`cut off ${socket.remoteAddress}: ${this.#rules.connectionsMax} connections are open`)
      socket.on('error', () => undefined)
      socket.destroy()
      return false
    }
    this.#sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => this.#sockets.delete(socket))
    return true
  }

  async #listen(server: Server | HttpServer, port: number): Promise<number> {
    const { host } = this.#rules
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        const text =
          error.code === 'EADDRINUSE'
            ? `Port ${port} of ${host} is taken: stop what listens there, or choose another port (0 takes any free one).`
            : `Cannot listen on ${host}:${port}: ${error.message}`
        reject(new XmqError(error.code === 'EADDRINUSE' ? 'conflict' : 'invalid-config', text, { cause: error }))
      })
      server.listen(port, host.replace(/[[\]]/g, ''), resolve)
    })
    this.#servers.push(server)
    return (server.address() as AddressInfo).port
  }
}
