import { describe, it } from 'vitest'
import { sqliteSuite } from './sqlite-suite.ts'

describe('the sqlite store, the other half of its random runs', () => {
  for (const { name, run } of sqliteSuite('OFF', 1 / 2)) it(name, run, 600_000)
})
