/** Core, store and session as they are, or with one of them broken. */
import { createCore } from '../../../packages/broker/src/core/index.ts'
import { createMemoryStore } from '../../../packages/broker/src/store/memory.ts'
import { createSession } from '../../../packages/client/src/session/index.ts'
import { type Parts, simulateReliable } from './world.ts'

const ENTRANCES: Readonly<Record<string, readonly [file: string, name: string, as: keyof Parts]>> = {
  core: ['index.ts', 'createCore', 'createCore'],
  store: ['memory.ts', 'createMemoryStore', 'createStore'],
  session: ['index.ts', 'createSession', 'createSession'],
}

/** Runs a seed with one part loaded from elsewhere. @param part `core`, `store` or `session` */
export async function simulateBroken(
  part: string,
  load: (file: string) => Promise<unknown>,
): Promise<(seed: number) => Promise<unknown>> {
  const [file, name, as] = ENTRANCES[part] as (typeof ENTRANCES)[string]
  const module = (await load(file)) as Readonly<Record<string, Parts[typeof as]>>
  const parts: Parts = { createCore, createStore: createMemoryStore, createSession, [as]: module[name] }
  return (seed) => simulateReliable(parts, seed)
}
