/**
 * Free ports for servers that are stopped and started again on the same ones.
 *
 * They are taken from below the range that the kernel gives to outgoing connections (32768 and up on Linux): a client
 * that reconnects to a stopped server could otherwise be given the very port it dials, and be connected to itself.
 * Several checkouts may run at once, so the choice is random; whoever starts a server tries other ports when it fails.
 */
import { createServer } from 'node:net'

const LOWEST = 12_000
const HIGHEST = 32_000
const TRIES_MAX = 200

const taken = new Set<number>()

/** Finds `count` ports on 127.0.0.1 that nobody listens on, none of them given out before by this process. */
export async function findFreePorts(count: number): Promise<number[]> {
  const ports: number[] = []
  for (let tries = 0; ports.length < count; tries++) {
    if (tries === TRIES_MAX) throw new Error(`No ${count} free ports between ${LOWEST} and ${HIGHEST} on 127.0.0.1.`)
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST))
    if (taken.has(port) || !(await isFree(port))) continue
    taken.add(port)
    ports.push(port)
  }
  return ports
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}
