/** A seeded source of randomness: the same seed gives the same run, on every machine. */
import type { Entropy } from '../../packages/broker/src/core/port.ts'

export interface Random extends Entropy {
  /** A whole number in [0, below). */
  int(below: number): number
  /** True with this probability. */
  chance(probability: number): boolean
  pick<T>(from: readonly T[]): T
  /** Milliseconds with this mean, exponentially distributed: the gaps of independent events. */
  gap(meanMs: number): number
}

function hex(word: number): string {
  return (word + 0x1_0000_0000).toString(16).slice(1)
}

/** sfc32, seeded through splitmix32. */
export function createRandom(seed: number): Random {
  let mix = seed >>> 0
  const split = (): number => {
    mix = (mix + 0x9e3779b9) | 0
    let t = mix ^ (mix >>> 16)
    t = Math.imul(t, 0x21f0aaad)
    t ^= t >>> 15
    t = Math.imul(t, 0x735a2d97)
    return (t ^ (t >>> 15)) | 0
  }
  let a = split()
  let b = split()
  let c = split()
  let d = split()
  const next = (): number => {
    const t = (((a + b) | 0) + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + t) | 0
    return t >>> 0
  }
  const unit = (): number => next() / 4294967296
  const random: Random = {
    unit,
    id: () => hex(next()) + hex(next()) + hex(next()) + hex(next()),
    int: (below) => Math.floor(unit() * below),
    chance: (probability) => unit() < probability,
    pick: (from) => {
      if (from.length === 0) throw new Error('nothing to pick from')
      return from[Math.floor(unit() * from.length)] as (typeof from)[number]
    },
    gap: (meanMs) => -Math.log(1 - unit()) * meanMs,
  }
  return random
}
