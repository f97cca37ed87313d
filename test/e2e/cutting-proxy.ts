/**
 * A TCP proxy that changes nothing but where the bytes are cut: each byte leaves in a write of its own, without Nagle's
 * algorithm, so that the reader meets every character in pieces.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'

/** A running proxy. */
export interface CuttingProxy {
  readonly port: number
  /** Pieces of one byte that were forwarded. */
  readonly pieces: number
  close(): Promise<void>
}

/** Forwards connections to `port` on 127.0.0.1, cutting what comes back from it at every byte. */
export async function startCuttingProxy(port: number): Promise<CuttingProxy> {
  const sockets = new Set<Socket>()
  let pieces = 0
  const keep = (socket: Socket): void => {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
  }
  const server: Server = createServer((near) => {
    const far = connect(port, '127.0.0.1')
    keep(near)
    keep(far)
    near.on('data', (chunk) => far.write(chunk))
    far.on('data', (chunk) => {
      pieces += chunk.length
      far.pause()
      writeByByte(near, chunk, () => far.resume())
    })
    near.on('close', () => far.destroy())
    far.on('close', () => near.end())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    get pieces() {
      return pieces
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

/** One byte a turn of the loop: two writes in one turn may travel, and be read, together. */
function writeByByte(socket: Socket, chunk: Buffer, done: () => void): void {
  let offset = 0
  const step = (): void => {
    if (socket.destroyed || offset === chunk.length) return done()
    socket.write(chunk.subarray(offset, ++offset))
    setImmediate(step)
  }
  step()
}
