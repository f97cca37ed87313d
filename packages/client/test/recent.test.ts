/** What was noted lately. Contract: src/session/recent.ts. */
import { describe, expect, it } from 'vitest'
import { Recent } from '../src/session/recent.ts'

describe('recent', () => {
  it('knows at least the last so many keys, and at most twice as many', () => {
    const recent = new Recent<string, number>(10)
    for (let key = 0; key < 1000; key++) {
      recent.set(String(key), key)
      const known = Array.from({ length: key + 1 }, (_, older) => String(older)).filter((older) => recent.has(older))
      expect(known.length).toBeLessThanOrEqual(20)
      expect(known.length).toBeGreaterThanOrEqual(Math.min(key + 1, 10))
      expect(recent.get(String(Math.max(0, key - 9)))).toBe(Math.max(0, key - 9))
    }
  })

  it('counts what is noted again as the latest, with its new value', () => {
    const recent = new Recent<string, string>(2)
    recent.set('a', 'old')
    recent.set('b', 'b')
    recent.set('c', 'c')
    recent.set('a', 'new')
    recent.set('d', 'd')
    expect([recent.get('a'), recent.has('b'), recent.get('d')]).toEqual(['new', false, 'd'])
  })
})
