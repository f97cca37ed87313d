import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const PACKAGES = fileURLToPath(new URL('../..', import.meta.url))

/** The file of one of our own modules; undefined for everybody else's. */
function fileOf(specifier: string, importer: string): string | undefined {
  if (specifier.startsWith('.')) return resolve(dirname(importer), specifier)
  const [, name, path] = /^@xmq\/([a-z]+)(?:\/([a-z]+))?$/.exec(specifier) ?? []
  if (name !== undefined) return join(PACKAGES, name, 'src', `${path ?? 'index'}.ts`)
  return specifier === '#stop-signal' ? resolve(dirname(importer), 'platform/stop-signal-node.ts') : undefined
}

/** Everything that is loaded with a file: what it imports for more than types, and so on. */
function loadedWith(file: string, found: Set<string> = new Set()): Set<string> {
  if (found.has(file)) return found
  found.add(file)
  const text = readFileSync(file, 'utf8')
  for (const [, clause = '', specifier = ''] of text.matchAll(/^(?:im|ex)port (?!type )([^;'"]*?)from '([^']+)'/gm)) {
    const names = clause.replace(/[{}]/g, '').split(',')
    if (names.every((name) => name.trim() === '' || name.trim().startsWith('type '))) continue
    const own = fileOf(specifier, file)
    if (own === undefined) found.add(specifier)
    else {
      expect(existsSync(own), `${specifier} of ${file}`).toBe(true)
      loadedWith(own, found)
    }
  }
  return found
}

it('a broker that starts waits for no code of clients, of the embedded server, of metrics or of the store’s thread', () => {
  const source = (name: string): string => join(PACKAGES, 'xmq', 'src', name)
  const loaded = [...loadedWith(source('serve.ts'), loadedWith(source('main.ts')))]
  expect(loaded).toContain(join(PACKAGES, 'broker', 'src', 'runtime.ts'))
  const unwanted =
    /client\/src\/(?!process|signals|exit-codes|platform\/(?:stop|certificates))|testing\/src|^prom-client$|^libsql$|@xmpp|sqlite\/engine/
  expect(loaded.filter((name) => unwanted.test(name))).toEqual([])
})

it('the store’s thread loads the errors of the protocol, and not its codecs', () => {
  const loaded = [...loadedWith(join(PACKAGES, 'broker', 'src', 'store', 'sqlite', 'worker.ts'))]
  expect(loaded).toContain(join(PACKAGES, 'protocol', 'src', 'errors.ts'))
  expect(loaded.filter((name) => /protocol\/src\/(index|reader|queue)/.test(name))).toEqual([])
})
