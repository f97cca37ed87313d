/**
 * The reliable simulation can fail: each rule is broken on purpose, in a copy, and the oracle has to notice.
 *
 * A mutation whose text is no longer in the source fails too: it has to follow the code.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Violation } from './oracle.ts'
import { RELIABLE_MUTATIONS } from './reliable-mutations.ts'
import { type Parts, simulateReliable } from './reliable-world.ts'

const SEEDS_MAX = 400
const source = fileURLToPath(new URL('../../src/', import.meta.url))
const mutants = fileURLToPath(new URL('../../dist/.reliable-mutants/', import.meta.url))

async function caughtAt(parts: Parts): Promise<string> {
  for (let seed = 1; seed <= SEEDS_MAX; seed++) {
    try {
      await simulateReliable(parts, seed)
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

  test.each(RELIABLE_MUTATIONS.map((mutation, index) => [mutation.breaks, mutation, index] as const))(
    '%s',
    async (_, mutation, index) => {
      const folder = `${mutants}${index}/`
      mkdirSync(folder, { recursive: true })
      // The core takes only types of the store; the memory store is the model that it runs on.
      for (const part of ['core', 'store']) {
        cpSync(`${source}${part}`, `${folder}${part}`, {
          recursive: true,
          filter: (path) => !path.endsWith('tsconfig.json'),
        })
      }
      const original = readFileSync(`${folder}${mutation.file}`, 'utf8')
      expect(original.split(mutation.find).length, `'${mutation.find}' in ${mutation.file}`).toBe(2)
      writeFileSync(
        `${folder}${mutation.file}`,
        original.replace(mutation.find, () => mutation.replace),
      )
      const { createCore } = (await import(`${folder}core/index.ts`)) as Pick<Parts, 'createCore'>
      const { createMemoryStore } = (await import(`${folder}store/memory.ts`)) as {
        readonly createMemoryStore: Parts['createStore']
      }
      expect(await caughtAt({ createCore, createStore: createMemoryStore })).toMatch(/^seed \d+ at/)
    },
  )
})
