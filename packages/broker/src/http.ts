/**
 * Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`. Reading only; nothing here changes the broker.
 *
 * Requests are bounded in size, time and number, since whoever reaches the port may ask without a password.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { XmqError } from '@xmq/protocol'
import { formatHostPort, type HostPort } from './config-values.ts'

/** One thing that keeps a broker from being ready. */
export interface ReadinessProblem {
  /** `link queue1.localhost` or `store`. */
  readonly what: string
  /** Why, for people. */
  readonly why: string
  /** What would mend it; said once where several problems share it. */
  readonly hint?: string
}

/** What is served. */
export interface HttpSources {
  /** What keeps the broker from serving; empty when it is ready. */
  problems(): Promise<readonly ReadinessProblem[]>
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>
}

/** A server that listens. */
export interface HttpServer {
  /** Where it listens; the port is a real one, also when 0 was asked for. */
  readonly address: HostPort
  /** Connections that are open, and how many were closed for their number. */
  readonly connections: { readonly open: number; readonly refused: number }
  close(): Promise<void>
}

interface Reply {
  readonly status: number
  readonly contentType: string
  readonly body: string
  readonly allow?: string
}

const JSON_TYPE = 'application/json; charset=utf-8'
const PATHS = ['/healthz', '/readyz', '/metrics']
const HEADER_BYTES_MAX = 8192
const REQUEST_MS_MAX = 5000
const CONNECTIONS_MAX = 64

/**
 * Listens for health checks and scrapes.
 * @throws XmqError `invalid-config` when the address cannot be listened on
 */
export async function serveHttp(address: HostPort, sources: HttpSources): Promise<HttpServer> {
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: REQUEST_MS_MAX,
      requestTimeout: REQUEST_MS_MAX,
      connectionsCheckingInterval: 1000,
      keepAliveTimeout: REQUEST_MS_MAX,
    },
    (request, response) => void handle(request, response, sources),
  )
  server.maxConnections = CONNECTIONS_MAX
  let open = 0
  let refused = 0
  server.on('connection', (socket) => {
    open++
    socket.once('close', () => open--)
  })
  server.on('drop', () => refused++)
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(address, error)))
    server.listen(address.port, address.host, resolve)
  })
  const { port } = server.address() as AddressInfo
  let closed: Promise<void> | undefined
  return {
    address: Object.freeze({ host: address.host, port }),
    get connections() {
      return { open, refused }
    },
    close: () => {
      closed ??= new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
      return closed
    },
  }
}

function listenError(address: HostPort, error: NodeJS.ErrnoException): XmqError {
  const place = formatHostPort(address)
  const why =
    error.code === 'EADDRINUSE'
      ? 'something else listens there. Stop it, or choose another port'
      : error.code === 'EACCES'
        ? 'this user may not. Choose a port above 1023'
        : error.message
  return new XmqError('invalid-config', `http: cannot listen on ${place}: ${why}.`, { cause: error })
}

async function handle(request: IncomingMessage, response: ServerResponse, sources: HttpSources): Promise<void> {
  let reply: Reply
  try {
    reply = await replyTo(request, sources)
  } catch (error) {
    reply = json(500, { error: XmqError.from(error).message })
  }
  const isHead = request.method === 'HEAD'
  response.writeHead(reply.status, {
    'content-type': reply.contentType,
    'content-length': Buffer.byteLength(reply.body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(reply.allow === undefined ? {} : { allow: reply.allow }),
    // A body that nobody reads must not stay in the pipe of a connection that is kept.
    ...(reply.status === 405 ? { connection: 'close' } : {}),
  })
  response.end(isHead ? undefined : reply.body)
}

async function replyTo(request: IncomingMessage, sources: HttpSources): Promise<Reply> {
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/'
  if (!PATHS.includes(path)) return json(404, { error: `There is nothing here. Try ${PATHS.join(', ')}.` })
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { ...json(405, { error: `${path} can only be read. Use GET.` }), allow: 'GET, HEAD' }
  }
  if (path === '/healthz') return json(200, { status: 'ok' })
  if (path === '/metrics') {
    const { contentType, text } = await sources.metrics()
    return { status: 200, contentType, body: text }
  }
  const problems = await sources.problems()
  return problems.length === 0 ? json(200, { ready: true }) : json(503, notReady(problems))
}

/** A server that is away keeps every domain's link down for one reason: its hint stands there once. */
function notReady(problems: readonly ReadinessProblem[]): unknown {
  const hints = [...new Set(problems.flatMap(({ hint }) => (hint === undefined ? [] : [hint])))]
  const listed = problems.map(({ what, why }) => ({ what, why }))
  return { ready: false, problems: listed, ...(hints.length === 0 ? {} : { hints }) }
}

function json(status: number, body: unknown): Reply {
  return { status, contentType: JSON_TYPE, body: `${JSON.stringify(body)}\n` }
}
