/**
 * The suite that every store of the broker passes: the state table row by row, and random runs beside the memory store, which
 * is the model. It knows no test runner:
 *
 * ```ts
 * for (const { name, run } of storeSuite(openMyStore, { runs: 200 })) it(name, run, 60_000)
 * ```
 */
import { createMemoryStore } from '@xmq/broker'
import * as fc from 'fast-check'
import { type Action, actionsOf } from './store-suite-actions.ts'
import { endingCases } from './store-suite-endings.ts'
import { leaseCases } from './store-suite-leases.ts'
import { type OpenedStore, SideBySide } from './store-suite-model.ts'
import { portCases } from './store-suite-port.ts'
import { publishingCases } from './store-suite-publishing.ts'

/** One case of a suite. */
export interface StoreCase {
  readonly name: string
  /** Rejects when the store does not keep the contract. */
  readonly run: () => Promise<void>
}

/** Options of {@link storeSuite}. */
export interface StoreSuiteOptions {
  /** Random runs beside the model. @default 100 */
  readonly runs?: number
  /** Actions in each. @default 100 */
  readonly commands?: number
  /** Repeats the runs of a failure. @default random */
  readonly seed?: number
  /** Close and open the store within runs, where it can be. @default true */
  readonly reopens?: boolean
}

/** A fresh and empty store, open. */
export type OpenStoreForSuite = () => Promise<OpenedStore>

/**
 * The cases for one store.
 *
 * @param open makes a fresh and empty store for each case and each run
 */
export function storeSuite(open: OpenStoreForSuite, options: StoreSuiteOptions = {}): readonly StoreCase[] {
  const { runs = 100, commands = 100, reopens = true } = options
  const directed = [...publishingCases, ...leaseCases, ...endingCases, ...portCases].map(({ name, run }) => ({
    name,
    run: async () => {
      const opened = await open()
      try {
        await run(opened.store)
      } finally {
        await opened.remove()
      }
    },
  }))
  const random = {
    name: `answers as the memory store does in ${runs} runs of ${commands} commands`,
    run: () => checkRuns(open, actionsOf(commands, reopens), { numRuns: runs, seed: options.seed }),
  }
  return [...directed, random]
}

/** Runs random actions; a failure is told with the fewest actions that still fail, and the seed that repeats it. */
async function checkRuns(
  open: OpenStoreForSuite,
  actions: fc.Arbitrary<Action[]>,
  { numRuns, seed }: { readonly numRuns: number; readonly seed: number | undefined },
): Promise<void> {
  const property = fc.asyncProperty(actions, (some) => runActions(open, some))
  const result = await fc.check(property, { numRuns, endOnFailure: true, ...(seed === undefined ? {} : { seed }) })
  if (!result.failed) return
  const [failing] = result.counterexample ?? [[]]
  const fewest = await shorten(failing, (some) => failureOf(open, some))
  const steps = fewest.map((action) => JSON.stringify(action)).join('\n')
  const cause = (await failureOf(open, fewest)) ?? result.errorInstance
  throw new Error(`Run ${result.numRuns} of seed ${result.seed} differs from the model:\n${steps}\n${String(cause)}`, {
    cause,
  })
}

const SHORTENING_TRIES_MAX = 2000

/** Leaves actions out, the longest stretches first, as long as it still fails. */
async function shorten(
  actions: readonly Action[],
  fails: (actions: readonly Action[]) => Promise<unknown>,
): Promise<readonly Action[]> {
  let fewest = actions
  let tries = 0
  for (let length = Math.ceil(fewest.length / 2); length > 0; length = length === 1 ? 0 : Math.ceil(length / 2)) {
    for (let from = 0; from < fewest.length && tries < SHORTENING_TRIES_MAX; tries++) {
      const fewer = [...fewest.slice(0, from), ...fewest.slice(from + length)]
      if ((await fails(fewer)) === undefined) from += length
      else fewest = fewer
    }
  }
  return fewest
}

async function failureOf(open: OpenStoreForSuite, actions: readonly Action[]): Promise<unknown> {
  try {
    await runActions(open, actions)
    return undefined
  } catch (error) {
    return error
  }
}

async function runActions(open: OpenStoreForSuite, actions: readonly Action[]): Promise<void> {
  const both = new SideBySide(await startedModel(), await open())
  try {
    for (const action of actions) await both.run(action)
    await both.look()
  } finally {
    await both.opened.remove()
  }
}

async function startedModel() {
  const model = createMemoryStore()
  await model.open(0)
  return model
}
