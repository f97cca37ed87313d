/**
 * Running seeds: how many, which one, and what becomes of one that finds a fault.
 *
 * | variable | meaning |
 * |---|---|
 * | `XMQ_SIM_SEEDS` | how many seeds run, beside the kept ones |
 * | `XMQ_SIM_SEED` | only this one |
 * | `XMQ_SIM_TRAIL` | how many lines of what led to a violation are shown |
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { Violation } from './violation.ts'

/** What the environment asks for. */
export interface SeedFlags {
  readonly only: number | undefined
  readonly count: number
  readonly trail: number
}

/** Reads the environment. @param count how many seeds when it does not say */
export function seedFlags(count: number): SeedFlags {
  const { XMQ_SIM_SEED, XMQ_SIM_SEEDS, XMQ_SIM_TRAIL } = process.env
  return {
    only: XMQ_SIM_SEED === undefined ? undefined : Number(XMQ_SIM_SEED),
    count: Number(XMQ_SIM_SEEDS ?? count),
    trail: Number(XMQ_SIM_TRAIL ?? 12),
  }
}

/**
 * Makes a violation say how it is seen again, and keeps its seed for ever; not in CI, where it is only told.
 * @param files the word that names the test files, and where the kept seeds are
 */
export function explainFailure(
  error: unknown,
  seed: number,
  { tests, kept }: { readonly tests: string; readonly kept: URL },
): unknown {
  if (!(error instanceof Violation)) return error
  const replay = `XMQ_SIM_SEED=${seed} npx vitest run --project simulation ${tests}`
  const isKept = process.env['CI'] === undefined && keepSeed(kept, seed, error.message.split('\n')[0] ?? '')
  error.message += `\n\nReplay: ${replay}\n${isKept ? 'The seed was added to' : 'Add the seed to'} ${kept.pathname}.`
  return error
}

/** Writes a seed into the list of those that run before all others. @returns whether it is there now */
function keepSeed(file: URL, seed: number, found: string): boolean {
  const text = readFileSync(file, 'utf8')
  if (new RegExp(`^ {2}${seed},$`, 'm').test(text)) return true
  const end = text.lastIndexOf(']')
  const what = found.replace(/^seed \d+ at [\d.]+ ms: /, '').slice(0, 110)
  writeFileSync(file, `${text.slice(0, end).trimEnd()}\n  // ${what}\n  ${seed},\n]\n`)
  return true
}
