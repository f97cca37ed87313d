import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { WorkerConnection } from '../src/connection.ts'
import { findWorkerFile, loadWorker } from '../src/load.ts'
import { temporaryFolder } from './terminal.ts'

const CONNECTION: WorkerConnection = { service: 'xmpp://h', jid: 'j@d', password: 'p', queue: 'q.d' }
const WORKER = '{ handle() {}, async start() {}, async stop() {}, queue: connection.queue }'

function folderWith(files: Readonly<Record<string, string>>): string {
  const folder = temporaryFolder()
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), content)
  }
  return folder
}

const load = (folder: string, file: string): Promise<object> => loadWorker(folder, join(folder, file), () => CONNECTION)

describe('the worker file', () => {
  test('is the one named', () => {
    const folder = folderWith({ 'a.mjs': '', 'worker.js': '' })
    expect(findWorkerFile(folder, 'a.mjs')).toBe(join(folder, 'a.mjs'))
  })

  test('is what package.json calls main, then what a build made, then a source', () => {
    const sources = folderWith({ 'src/worker.ts': '' })
    expect(findWorkerFile(sources, undefined)).toBe(join(sources, 'src/worker.ts'))
    const built = folderWith({ 'src/worker.ts': '', 'dist/worker.js': '' })
    expect(findWorkerFile(built, undefined)).toBe(join(built, 'dist/worker.js'))
    const main = folderWith({ 'dist/worker.js': '', 'lib/main.js': '', 'package.json': '{"main":"lib/main.js"}' })
    expect(findWorkerFile(main, undefined)).toBe(join(main, 'lib/main.js'))
  })

  test('must exist', () => {
    const folder = temporaryFolder()
    expect(() => findWorkerFile(folder, 'src/nope.ts')).toThrow('src/nope.ts')
    expect(() => findWorkerFile(folder, 'dist/worker.js')).toThrow('npm run build')
    expect(() => findWorkerFile(folder, undefined)).toThrow('xmq-worker run src/worker.ts')
  })
})

describe('a worker module', () => {
  test('exports a function that is given the connection', async () => {
    const folder = folderWith({ 'worker.mjs': `export default (connection) => (${WORKER})` })
    expect(await load(folder, 'worker.mjs')).toMatchObject({ queue: 'q.d' })
  })

  test('may make its worker asynchronously', async () => {
    const folder = folderWith({ 'worker.mjs': `export default async (connection) => (${WORKER})` })
    expect(await load(folder, 'worker.mjs')).toMatchObject({ queue: 'q.d' })
  })

  test('may export a worker under its name, with a connection of its own', async () => {
    const folder = folderWith({ 'worker.mjs': `const connection = { queue: 'own' }\nexport const worker = ${WORKER}` })
    const refuse = (): WorkerConnection => {
      throw new Error('not needed')
    }
    expect(await loadWorker(folder, join(folder, 'worker.mjs'), refuse)).toMatchObject({ queue: 'own' })
  })

  test.each([
    ['nothing', '', 'exports nothing'],
    ['something else', 'export const config = 1', 'exports config'],
    ['a function that returns no worker', 'export default () => 7', 'a number'],
    ['a function that forgets to return', 'export default () => {}', 'nothing'],
  ])('that exports %s is refused with an example', async (_what, source, text) => {
    const folder = folderWith({ 'worker.mjs': source })
    await expect(load(folder, 'worker.mjs')).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringMatching(new RegExp(`${text}[^]*new Worker\\(connection\\)`)),
    })
  })

  test('that throws passes its own error on', async () => {
    const folder = folderWith({ 'worker.mjs': 'throw new TypeError("mine")' })
    await expect(load(folder, 'worker.mjs')).rejects.toThrow(new TypeError('mine'))
  })
})
