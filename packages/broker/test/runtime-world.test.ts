import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createClock, createEntropy, VERSION } from '../src/runtime-world.ts'

describe('the clock', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['Date', 'performance', 'setTimeout'], now: 1_000_000 })
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  it('is the wall clock while nobody sets that', () => {
    const now = createClock()
    expect(now()).toBe(1_000_000)
    vi.advanceTimersByTime(250)
    expect(now()).toBe(1_000_250)
  })

  it('goes on when the wall clock is set back', () => {
    const now = createClock()
    vi.setSystemTime(1)
    expect(now()).toBe(1_000_000)
    vi.advanceTimersByTime(30_000)
    expect(now()).toBe(1_030_000)
  })

  it('follows when the wall clock is set forward, as after a sleep', () => {
    const now = createClock()
    vi.setSystemTime(9_000_000)
    expect(now()).toBe(9_000_000)
    vi.setSystemTime(1)
    vi.advanceTimersByTime(5)
    expect(now()).toBe(9_000_005)
  })
})

describe('entropy', () => {
  it('gives ids of 128 bits that fit an XML id, never twice', () => {
    const entropy = createEntropy()
    const ids = new Set(Array.from({ length: 2000 }, () => entropy.id()))
    expect(ids.size).toBe(2000)
    for (const each of ids) expect(each).toMatch(/^[A-Za-z0-9_-]{22}$/)
  })

  it('gives numbers from 0 to below 1, spread out', () => {
    const entropy = createEntropy()
    const units = Array.from({ length: 2000 }, () => entropy.unit())
    expect(Math.min(...units)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...units)).toBeLessThan(1)
    for (let tenth = 0; tenth < 10; tenth++) {
      expect(units.some((value) => Math.floor(value * 10) === tenth)).toBe(true)
    }
  })
})

it('the version is the package’s', () => {
  expect(VERSION).toMatch(/^\d+\.\d+\.\d+/)
})
