/** The simulator makes clocks, randomness, timers and promises throw while core and session run. */
import { expect, test } from 'vitest'
import { purely } from './purity.ts'
import { Violation } from './violation.ts'

const IMPURE: Readonly<Record<string, () => unknown>> = {
  'Date.now': () => Date.now(),
  'new Date()': () => new Date(),
  'Math.random': () => Math.random(),
  'performance.now': () => performance.now(),
  'crypto.randomUUID': () => crypto.randomUUID(),
  setTimeout: () => setTimeout(() => {}, 0),
  setImmediate: () => setImmediate(() => {}),
  queueMicrotask: () => queueMicrotask(() => {}),
  'new Promise': () => new Promise<void>((resolve) => resolve()),
  'Promise.resolve': () => Promise.resolve(),
  'what waits for a promise': () => (async () => {})().then(() => {}),
}

test.each(Object.entries(IMPURE))('%s throws where everything has to be pure, and nowhere else', (_, act) => {
  expect(() => purely(act)).toThrow(Violation)
  expect(act).not.toThrow()
})

test('what tells no time is left alone', () => {
  expect(purely(() => new Date(0).toISOString())).toBe('1970-01-01T00:00:00.000Z')
  expect(purely(() => Date.parse('1970-01-01T00:00:01Z'))).toBe(1000)
  expect(new Date() instanceof Date).toBe(true)
})

test('the guard is lifted when what ran throws', () => {
  expect(() =>
    purely(() => {
      throw new RangeError('its own')
    }),
  ).toThrow(RangeError)
  expect(Date.now()).toBeGreaterThan(0)
})
