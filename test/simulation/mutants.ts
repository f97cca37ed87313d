/**
 * Sources with one rule broken on purpose: a simulation that can fail has to notice each of them.
 *
 * A mutation whose text is no longer in the source fails too: it has to follow the code.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Violation } from './violation.ts'

/** One rule, broken. */
export interface Mutation {
  /** Completes "the oracle notices when …". */
  readonly breaks: string
  /** `core/…`, `store/…` of the broker, or `session/…` of the client. */
  readonly file: string
  /** Stands exactly once in the file. */
  readonly find: string
  readonly replace: string
}

const SEEDS_MAX = 400
const SOURCES: Readonly<Record<string, string>> = {
  core: '../../packages/broker/src/core',
  store: '../../packages/broker/src/store',
  session: '../../packages/client/src/session',
}

/**
 * Declares a test for each mutation.
 * @param name of the folder for the copies
 * @param simulate runs one seed with the module of the broken part: `core`, `store` or `session`
 * @param isMeant which seeds can show them
 */
export function testMutations(
  name: string,
  mutations: readonly Mutation[],
  simulate: (part: string, load: (file: string) => Promise<unknown>) => Promise<(seed: number) => unknown>,
  isMeant: (seed: number) => boolean = () => true,
): void {
  const folder = fileURLToPath(new URL(`../dist/.mutants/${name}/`, import.meta.url))
  beforeAll(() => rmSync(folder, { recursive: true, force: true }))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  test.each(mutations.map((mutation, index) => [mutation.breaks, mutation, index] as const))(
    'the oracle notices when %s',
    async (_, mutation, index) => {
      const part = mutation.file.slice(0, mutation.file.indexOf('/'))
      const copy = `${folder}${index}`
      breakCopy(copy, part, mutation)
      const run = await simulate(part, (file) => import(`${copy}/${part}/${file}`))
      expect(await caughtAt(run, isMeant)).toMatch(/^seed \d+ at/)
      rmSync(copy, { recursive: true })
    },
  )
}

function breakCopy(copy: string, part: string, { file, find, replace }: Mutation): void {
  const source = fileURLToPath(new URL(SOURCES[part] ?? part, import.meta.url))
  mkdirSync(copy, { recursive: true })
  // The parts take only types of each other: a copy of one of them is enough.
  cpSync(source, `${copy}/${part}`, { recursive: true, filter: (path) => !path.endsWith('tsconfig.json') })
  const original = readFileSync(`${copy}/${file}`, 'utf8')
  expect(original.split(find).length, `'${find}' in ${file}`).toBe(2)
  writeFileSync(
    `${copy}/${file}`,
    original.replace(find, () => replace),
  )
}

async function caughtAt(run: (seed: number) => unknown, isMeant: (seed: number) => boolean): Promise<string> {
  let runs = 0
  for (let seed = 1; runs < SEEDS_MAX; seed++) {
    if (!isMeant(seed)) continue
    runs++
    try {
      await run(seed)
    } catch (error) {
      // What cannot run at all proves nothing of the oracle.
      if (!(error instanceof Violation && error.cause instanceof Violation)) throw error
      return error.message.split('\n')[0] as string
    }
  }
  return `survived ${SEEDS_MAX} seeds`
}
