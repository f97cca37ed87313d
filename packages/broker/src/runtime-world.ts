/** The runtime's clock and randomness, and the version of what runs. The core is given them, and has none of its own. */
import { randomFillSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { performance as hooks } from 'node:perf_hooks'
import type { Entropy } from './core/port.ts'

/**
 * Wall milliseconds that never run backwards: they go on with the machine's monotonic clock when the wall clock is set back,
 * and with the wall clock when it is set forward or the machine slept.
 */
export function createClock(): () => number {
  let last = Date.now()
  let lastMonotonic = performance.now()
  return () => {
    const monotonic = performance.now()
    last = Math.max(Date.now(), last + (monotonic - lastMonotonic))
    lastMonotonic = monotonic
    return last
  }
}

/** The share of time since the last call in which the event loop had something to do. */
export function createBusyShare(): () => number {
  let last = hooks.eventLoopUtilization()
  return () => {
    const now = hooks.eventLoopUtilization()
    const { utilization } = hooks.eventLoopUtilization(now, last)
    last = now
    return utilization
  }
}

/** Milliseconds of CPU that this process has used, on all of its threads. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** Randomness from the operating system, fetched by the page: a call for each id would cost more than the id. */
export function createEntropy(): Entropy {
  const pool = Buffer.alloc(4096)
  let used = pool.length
  /** @returns where that many bytes begin */
  const take = (length: number): number => {
    if (used + length > pool.length) {
      randomFillSync(pool)
      used = 0
    }
    used += length
    return used - length
  }
  return {
    id: () => {
      const at = take(16)
      return pool.toString('base64url', at, at + 16)
    },
    unit: () => pool.readUIntBE(take(6), 6) / 2 ** 48,
  }
}

/** The version of this package. */
export const VERSION: string = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
).version
