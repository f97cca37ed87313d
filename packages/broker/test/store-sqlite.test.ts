import { describe, it } from 'vitest'
import { sqliteSuite } from './sqlite-suite.ts'

describe('the sqlite store', () => {
  for (const { name, run } of sqliteSuite('OFF', 1 / 2)) it(name, run, 600_000)
})

describe('the sqlite store, with every commit on the disk', () => {
  for (const { name, run } of sqliteSuite('FULL', 1 / 50)) it(name, run, 600_000)
})
