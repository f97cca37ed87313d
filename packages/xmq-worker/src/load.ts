/** From a file's name to a worker: finds the module, imports it (TypeScript included) and takes the worker out of it. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { extname, join, relative, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Worker } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import type { WorkerConnection } from './connection.ts'
import { mistake } from './terminal.ts'

/** Tried in this order when no file is named: what a build made, then sources. */
const CANDIDATES: readonly string[] = [
  'dist/worker.js',
  'worker.js',
  'worker.mjs',
  'src/worker.ts',
  'worker.ts',
  'src/worker.js',
]

const TYPESCRIPT: ReadonlySet<string> = new Set(['.ts', '.mts', '.cts', '.tsx'])

const EXAMPLE = `export default function createWorker(connection) {
  return new Worker(connection).handle(topic, async (payload) => { … })
}`

/**
 * The absolute path of the worker module.
 *
 * @throws XmqError `invalid-config` when there is none
 */
export function findWorkerFile(cwd: string, named: string | undefined): string {
  if (named !== undefined) {
    const path = resolve(cwd, named)
    if (isFile(path)) return path
    const built = named.startsWith('dist') ? '. Build it first: npm run build' : ''
    throw mistake(`There is no worker file ${path}${built}`)
  }
  for (const path of [mainOf(cwd), ...CANDIDATES].filter((entry) => entry !== undefined)) {
    if (isFile(join(cwd, path))) return join(cwd, path)
  }
  throw mistake(
    `No worker file was named, and ${cwd} has none of ${CANDIDATES.join(', ')}. Name one: xmq-worker run src/worker.ts`,
  )
}

/**
 * Imports `file` and makes its worker.
 *
 * @param connection asked only where the module wants to be given one
 * @throws XmqError `invalid-config` where the module exports no worker, or TypeScript cannot be run; whatever the
 *   module itself throws comes through as it is
 */
export async function loadWorker(cwd: string, file: string, connection: () => WorkerConnection): Promise<Worker> {
  if (TYPESCRIPT.has(extname(file))) await enableTypeScript(file)
  const shown = relative(cwd, file)
  const module = (await import(pathToFileURL(file).href)) as { default?: unknown; worker?: unknown }
  const exported = module.worker ?? module.default
  if (isWorker(exported)) return exported
  if (typeof exported !== 'function') {
    const found = Object.keys(module).join(', ')
    throw mistake(
      `${shown} exports ${found === '' ? 'nothing' : `${found}, but no worker`}. Its default export is a Worker or a function that makes one:\n\n${EXAMPLE}`,
    )
  }
  const made: unknown = await (exported as (connection: WorkerConnection) => unknown)(connection())
  if (isWorker(made)) return made
  throw mistake(
    `The function that ${shown} exports returned ${describe(made)}, not a Worker. It should be:\n\n${EXAMPLE}`,
  )
}

/**
 * TypeScript runs through the project's own tsx where it has one, else through Node's type stripping (22.18 and later).
 * tsx is no dependency of this package: a built worker in production needs neither it nor esbuild.
 */
async function enableTypeScript(file: string): Promise<void> {
  let loader: string
  try {
    // What `node --import tsx` loads; its ESM entry registers itself.
    loader = createRequire(file).resolve('tsx')
  } catch {
    if ((process.features as { typescript?: unknown }).typescript) return
    throw mistake(
      `Node ${process.versions.node} cannot run TypeScript by itself: add tsx to the project (npm install --save-dev tsx), or build it and run the compiled file`,
    )
  }
  await import(pathToFileURL(loader).href)
}

/** By shape, not by class: the project may have its own copy of @xmq/client. */
function isWorker(value: unknown): value is Worker {
  if (typeof value !== 'object' || value === null) return false
  const { handle, start, stop } = value as Record<string, unknown>
  return [handle, start, stop].every((method) => typeof method === 'function')
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing'
  return value === null ? 'null' : `a ${typeof value}`
}

/** package.json's `main`, which is what a project itself calls its entry. */
function mainOf(cwd: string): string | undefined {
  try {
    const { main } = JSON.parse(readFileSync(join(cwd, 'package.json'), 'utf8')) as { main?: unknown }
    return typeof main === 'string' ? main : undefined
  } catch (error) {
    // Any folder will do; only a broken manifest is worth a word.
    if (error instanceof SyntaxError) throw new XmqError('invalid-config', `${join(cwd, 'package.json')} is not JSON`)
    return undefined
  }
}

function isFile(path: string): boolean {
  return existsSync(path) && statSync(path).isFile()
}
