import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { checkoutOf, packCheckout } from '../src/checkout.ts'
import { temporaryFolder } from './terminal.ts'

/** A checkout with the packages that a worker needs, one that those need, and one that nobody does. */
function checkout(options: { readonly built: boolean }): string {
  const root = temporaryFolder()
  const write = (path: string, content: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), content)
  }
  write('pnpm-workspace.yaml', '')
  const add = (folder: string, name: string, dependencies: Record<string, string>): void => {
    const devDependencies = { '@xmq/testing': 'workspace:*' }
    const manifest = { name, version: '1.2.3', files: ['dist', 'bin'], dependencies, devDependencies }
    write(`packages/${folder}/package.json`, JSON.stringify(manifest))
    write(`packages/${folder}/secret.txt`, 'not for anyone')
    if (!options.built) return
    write(`packages/${folder}/dist/index.js`, '')
    write(`packages/${folder}/dist/.tsbuildinfo`, '')
    write(`packages/${folder}/dist/.test/a.test.d.ts`, '')
  }
  add('protocol', '@xmq/protocol', {})
  add('client', '@xmq/client', { '@xmq/protocol': 'workspace:*', 'p-queue': '^9.0.0' })
  add('testing', '@xmq/testing', { '@xmq/client': 'workspace:^' })
  add('xmq', 'xmq', {})
  add('xmq-worker', 'xmq-worker', { '@xmq/client': 'workspace:*' })
  add('dashboard', '@xmq/dashboard', {})
  return root
}

function unpack(content: Uint8Array): string {
  const folder = temporaryFolder()
  execFileSync('tar', ['-xzf', '-', '-C', folder], { input: content })
  return join(folder, 'package')
}

const listed = (folder: string): string[] =>
  execFileSync('find', ['.', '-type', 'f'], { cwd: folder, encoding: 'utf8' }).trim().split('\n').sort()

describe('a checkout', () => {
  test('is where a workspace package lies', () => {
    const root = checkout({ built: true })
    expect(checkoutOf(join(root, 'packages', 'xmq-worker'))).toBe(root)
    expect(checkoutOf(join(root, 'node_modules', '.pnpm', 'node_modules', 'xmq-worker'))).toBeUndefined()
  })

  test('packs what a worker needs and what that needs, as a registry would serve it', async () => {
    const packed = await packCheckout(checkout({ built: true }))
    expect(packed.map(({ name, file }) => [name, file])).toEqual([
      ['@xmq/client', 'xmq-client-1.2.3.tgz'],
      ['@xmq/protocol', 'xmq-protocol-1.2.3.tgz'],
      ['@xmq/testing', 'xmq-testing-1.2.3.tgz'],
      ['xmq', 'xmq-1.2.3.tgz'],
      ['xmq-worker', 'xmq-worker-1.2.3.tgz'],
    ])
    const client = unpack(packed[0]?.content ?? new Uint8Array())
    expect(listed(client)).toEqual(['./dist/index.js', './package.json'])
    const manifest: unknown = JSON.parse(readFileSync(join(client, 'package.json'), 'utf8'))
    expect(manifest).toEqual({
      name: '@xmq/client',
      version: '1.2.3',
      files: ['dist', 'bin'],
      dependencies: { '@xmq/protocol': '1.2.3', 'p-queue': '^9.0.0' },
    })
  }, 60_000)

  test('that is not built is refused, with the command that builds it', async () => {
    await expect(packCheckout(checkout({ built: false }))).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringContaining('npm run build'),
    })
  })
})
