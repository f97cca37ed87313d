import { describe, expect, test } from 'vitest'
import { backoffDelay, longDelay } from '../../src/link/backoff.ts'

const rules = { backoffMinMs: 250, backoffMaxMs: 30_000, longPauseMs: 60_000 }

describe('backoff', () => {
  test('doubles its ceiling with every failure, up to the maximum', () => {
    const ceilings = [0, 1, 2, 3, 6, 7, 8, 1_000_000].map((failures) => backoffDelay(failures, rules, 1))
    expect(ceilings).toEqual([250, 500, 1_000, 2_000, 16_000, 30_000, 30_000, 30_000])
  })

  test('is spread over the whole range, from nothing to the ceiling', () => {
    expect([0, 0.25, 0.5, 0.999].map((unit) => backoffDelay(3, rules, unit))).toEqual([0, 500, 1_000, 1_998])
  })

  test('a long pause is never shorter than half of it', () => {
    expect([0, 0.5, 1].map((unit) => longDelay(rules, unit))).toEqual([30_000, 45_000, 60_000])
  })
})
