/** A server's front with TLS: STARTTLS (RFC 6120 5) or TLS from the start, then everything goes to the embedded server. */
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, TLSSocket } from 'node:tls'

const read = (name: string): string => readFileSync(new URL(`certificates/${name}`, import.meta.url), 'utf8')
const identity = { key: read('localhost.key'), cert: read('localhost.pem') }

/** The authority that signed the front's certificate for `localhost`. */
export const authority: string = read('ca.pem')

export interface TlsFront {
  readonly port: number
  /** What the front read before TLS. */
  readonly open: () => string
  close(): Promise<void>
}

const HEADER =
  "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='front' from='localhost' version='1.0'>"
const OFFER = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"

/** Offers STARTTLS and nothing else; `plain` offers what a man in the middle would: a password in the clear. */
export async function startTlsFront(target: number, offer: 'starttls' | 'plain' = 'starttls'): Promise<TlsFront> {
  let open = ''
  const features =
    offer === 'starttls'
      ? OFFER
      : "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
  const server = createServer((socket) => {
    socket.on('error', () => {})
    const onData = (chunk: Buffer): void => {
      const text = chunk.toString()
      open += text
      if (text.includes('<stream:stream')) socket.write(`${HEADER}<stream:features>${features}</stream:features>`)
      if (!text.includes('<starttls')) return
      socket.off('data', onData)
      socket.write("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
      forward(new TLSSocket(socket, { isServer: true, ...identity }), target)
    }
    socket.on('data', onData)
  })
  return await listening(server, () => open)
}

/** TLS from the start (XEP-0368). */
export async function startDirectTlsFront(target: number): Promise<TlsFront> {
  return await listening(
    createTlsServer(identity, (socket) => forward(socket, target)),
    () => '',
  )
}

function forward(secured: Socket, target: number): void {
  const onward = connect(target, '127.0.0.1')
  for (const [from, to] of [
    [secured, onward],
    [onward, secured],
  ] as const) {
    from.on('error', () => to.destroy())
    from.on('close', () => to.destroy())
  }
  secured.pipe(onward).pipe(secured)
}

async function listening(server: Server, open: () => string): Promise<TlsFront> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => sockets.add(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    open,
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resolve())
      }),
  }
}
