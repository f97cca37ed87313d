/**
 * The simulation can fail: each rule of the core is broken on purpose, in a copy, and the oracle has to notice.
 *
 * A mutation whose text is no longer in the source fails too: it has to follow the code.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Core, CoreRules } from '../../src/core/port.ts'
import { MUTATIONS } from './mutations.ts'
import { Violation } from './oracle.ts'
import { simulate } from './world.ts'

const SEEDS_MAX = 400
const source = fileURLToPath(new URL('../../src/core/', import.meta.url))
const mutants = fileURLToPath(new URL('../../dist/.mutants/', import.meta.url))

type CoreModule = { readonly createCore: (rules: CoreRules) => Core }

function caughtAt(createCore: CoreModule['createCore']): string {
  for (let seed = 1; seed <= SEEDS_MAX; seed++) {
    try {
      simulate(createCore, seed)
    } catch (error) {
      if (error instanceof Violation) return error.message.split('\n')[0] as string
      throw error
    }
  }
  return `survived ${SEEDS_MAX} seeds`
}

describe('the oracle notices when', () => {
  beforeAll(() => rmSync(mutants, { recursive: true, force: true }))
  afterAll(() => rmSync(mutants, { recursive: true, force: true }))

  test.each(MUTATIONS.map((mutation, index) => [mutation.breaks, mutation, index] as const))(
    '%s',
    async (_, mutation, index) => {
      const folder = `${mutants}${index}/`
      mkdirSync(folder, { recursive: true })
      cpSync(source, folder, { recursive: true, filter: (path) => !path.endsWith('tsconfig.json') })
      const original = readFileSync(`${folder}${mutation.file}`, 'utf8')
      expect(original.split(mutation.find).length, `'${mutation.find}' in ${mutation.file}`).toBe(2)
      writeFileSync(
        `${folder}${mutation.file}`,
        original.replace(mutation.find, () => mutation.replace),
      )
      const { createCore } = (await import(`${folder}index.ts`)) as CoreModule
      expect(caughtAt(createCore)).toMatch(/^seed \d+ at/)
    },
  )
})
