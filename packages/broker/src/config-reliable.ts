/** The keys of a queue's reliable layer: how long, how often, how many. docs/operating.md lists them. */
import {
  formatDuration,
  formatSize,
  type Problems,
  readChoice,
  readCount,
  readDuration,
  readSize,
} from './config-values.ts'
import { RELIABLE_DEFAULTS, type ReliableRules } from './core/reliable-rules.ts'

const SECOND_MS = 1000
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const YEAR_MS = 365 * DAY_MS
const COUNT_MAX = 100_000_000
const TIB = 1024 ** 4

type Reader = (value: unknown, path: string, problems: Problems) => number | string | undefined

interface Key {
  readonly rule: keyof ReliableRules
  readonly read: Reader
  readonly format: (value: number | string) => unknown
}

const duration = (rule: keyof ReliableRules, min: number, max: number): Key => ({
  rule,
  read: (value, path, problems) => readDuration(value, path, min, max, problems),
  format: (value) => formatDuration(Number(value)),
})
const count = (rule: keyof ReliableRules, max = COUNT_MAX): Key => ({
  rule,
  read: (value, path, problems) => readCount(value, path, 1, max, problems),
  format: (value) => value,
})
const size = (rule: keyof ReliableRules): Key => ({
  rule,
  read: (value, path, problems) => readSize(value, path, 1024, TIB, problems),
  format: (value) => formatSize(Number(value)),
})
const choice = (rule: keyof ReliableRules, words: readonly string[]): Key => ({
  rule,
  read: (value, path, problems) => readChoice(value, path, words, problems),
  format: (value) => value,
})

const KEYS: ReadonlyMap<string, Key> = new Map([
  ['lease', duration('leaseMs', 100, DAY_MS)],
  ['maxLease', duration('maxLeaseMs', 100, 30 * DAY_MS)],
  ['maxAttempts', count('maxAttempts', 1000)],
  ['backoff', duration('backoffMs', 1, DAY_MS)],
  ['maxBackoff', duration('backoffMaxMs', 1, DAY_MS)],
  ['maxLength', count('lengthMax')],
  ['maxBytes', size('bytesMax')],
  ['whenFull', choice('whenFull', ['refuse', 'dead-letter-oldest'])],
  ['whenNobody', choice('whenNobody', ['keep', 'refuse'])],
  ['dedupe', duration('dedupeMs', SECOND_MS, 30 * DAY_MS)],
  ['maxDedupe', count('dedupeMax')],
  ['keepDead', duration('deadMs', SECOND_MS, YEAR_MS)],
  ['maxDead', count('deadMax')],
  ['maxDeadBytes', size('deadBytesMax')],
  ['maxNamed', count('namedMax', 100_000)],
  ['keepNamed', duration('namedIdleMs', HOUR_MS, 10 * YEAR_MS)],
])

/** The names of the keys. */
export const RELIABLE_KEYS: readonly string[] = [...KEYS.keys()]

/**
 * Reads a queue's reliable rules.
 *
 * @param isDurable whether the store outlives the broker: then a plain message waits where nobody is there
 */
export function readReliable(
  section: ReadonlyMap<string, unknown>,
  path: string,
  isDurable: boolean,
  problems: Problems,
): ReliableRules {
  const rules: ReliableRules = { ...RELIABLE_DEFAULTS, whenNobody: isDurable ? 'keep' : 'refuse' }
  for (const [name, { rule, read }] of KEYS) {
    if (!section.has(name)) continue
    const value = read(section.get(name), `${path}.${name}`, problems)
    if (value !== undefined) Object.assign(rules, { [rule]: value })
  }
  if (rules.maxLeaseMs < rules.leaseMs) {
    problems.add(`${path}.maxLease`, `must not be less than 'lease', which is ${formatDuration(rules.leaseMs)}.`)
  }
  if (rules.backoffMaxMs < rules.backoffMs) {
    problems.add(`${path}.maxBackoff`, `must not be less than 'backoff', which is ${formatDuration(rules.backoffMs)}.`)
  }
  return Object.freeze(rules)
}

/** The rules in the file's words and units. */
export function describeReliable(rules: ReliableRules): Record<string, unknown> {
  return Object.fromEntries(Array.from(KEYS, ([name, { rule, format }]) => [name, format(rules[rule])]))
}
