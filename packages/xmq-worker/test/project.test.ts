import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { PackedPackage } from '../src/checkout.ts'
import { createProject } from '../src/project.ts'
import { temporaryFolder, xmqWorker } from './terminal.ts'

const own = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
const published = (): Promise<readonly PackedPackage[]> => Promise.resolve([])
const packed = (): Promise<readonly PackedPackage[]> =>
  Promise.resolve(
    ['@xmq/client', '@xmq/protocol', '@xmq/testing', 'xmq-worker'].map((name) => ({
      name,
      file: `${name.replace('@', '').replace('/', '-')}-0.1.0.tgz`,
      content: new TextEncoder().encode(name),
    })),
  )

interface Manifest {
  readonly name: string
  readonly dependencies: Record<string, string>
  readonly devDependencies: Record<string, string>
  readonly overrides?: Record<string, string>
}

const manifestIn = (folder: string): Manifest =>
  JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest

describe('a new project', () => {
  test('has all that a worker needs', async () => {
    const directory = join(temporaryFolder(), 'thumbnails')
    const created = await createProject({ directory }, published)
    expect(created).toEqual({
      name: 'thumbnails',
      directory,
      files: [
        '.dockerignore',
        '.env.example',
        '.gitignore',
        'Dockerfile',
        'README.md',
        'package.json',
        'src/topics.ts',
        'src/worker.ts',
        'test/worker.test.ts',
        'tsconfig.build.json',
        'tsconfig.json',
        'vitest.config.ts',
      ],
    })
    for (const file of created.files) expect(existsSync(join(directory, file))).toBe(true)
  })

  test('carries the name of its directory, and no placeholder', async () => {
    const directory = join(temporaryFolder(), 'thumbnails')
    const { files } = await createProject({ directory }, packed)
    expect(manifestIn(directory).name).toBe('thumbnails')
    for (const file of files.filter((path) => !path.startsWith('vendor/'))) {
      expect(readFileSync(join(directory, file), 'utf8')).not.toMatch(/my-worker|\{\{|"0\.0\.0"/)
    }
  })

  test('depends on exactly this version where XMQ is published', async () => {
    const directory = join(temporaryFolder(), 'w')
    await createProject({ directory }, published)
    const { dependencies, devDependencies, overrides } = manifestIn(directory)
    expect(dependencies['@xmq/client']).toBe(own.version)
    expect(dependencies['xmq-worker']).toBe(own.version)
    expect(devDependencies['@xmq/testing']).toBe(own.version)
    expect(overrides).toBeUndefined()
    expect(readFileSync(join(directory, 'Dockerfile'), 'utf8')).not.toContain('vendor')
  })

  test('from a checkout depends on packed packages, also for what these need of each other', async () => {
    const directory = join(temporaryFolder(), 'w')
    await createProject({ directory }, packed)
    const { dependencies, devDependencies, overrides } = manifestIn(directory)
    expect(dependencies['@xmq/client']).toBe('file:vendor/xmq-client-0.1.0.tgz')
    expect(devDependencies['@xmq/testing']).toBe('file:vendor/xmq-testing-0.1.0.tgz')
    expect(overrides).toEqual({
      '@xmq/client': '$@xmq/client',
      '@xmq/protocol': 'file:vendor/xmq-protocol-0.1.0.tgz',
      '@xmq/testing': '$@xmq/testing',
      'xmq-worker': '$xmq-worker',
    })
    expect(readdirSync(join(directory, 'vendor'))).toHaveLength(4)
    expect(readFileSync(join(directory, 'Dockerfile'), 'utf8')).toContain('COPY vendor ./vendor\n')
  })

  test('goes into a directory that has only a git repository', async () => {
    const directory = join(temporaryFolder(), 'w')
    mkdirSync(join(directory, '.git'), { recursive: true })
    await createProject({ directory }, published)
    expect(manifestIn(directory).name).toBe('w')
  })

  test('is not made in a directory that is not empty', async () => {
    const directory = join(temporaryFolder(), 'w')
    mkdirSync(directory)
    writeFileSync(join(directory, 'mine.txt'), 'mine')
    await expect(createProject({ directory }, published)).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringMatching(/mine\.txt[^]*--force/),
    })
    expect(readdirSync(directory)).toEqual(['mine.txt'])
  })

  test('is made there with force, beside what there is', async () => {
    const directory = join(temporaryFolder(), 'w')
    mkdirSync(directory)
    writeFileSync(join(directory, 'mine.txt'), 'mine')
    await createProject({ directory, force: true }, published)
    expect(readFileSync(join(directory, 'mine.txt'), 'utf8')).toBe('mine')
    expect(manifestIn(directory).name).toBe('w')
  })

  test.each([
    ['My Worker', 'my-worker'],
    ['.hidden', 'hidden'],
    ['node_modules', 'my-worker'],
    ['zod', 'my-worker'],
    ['größe', 'gr-e'],
  ])("called '%s' is refused, with a name that fits", async (name, better) => {
    const folder = temporaryFolder()
    await expect(createProject({ directory: join(folder, name) }, published)).rejects.toMatchObject({
      code: 'invalid-config',
      message: expect.stringContaining(`xmq-worker new ${better}`),
    })
    expect(readdirSync(folder)).toEqual([])
  })

  test('leaves nothing behind when the packages cannot be packed', async () => {
    const folder = temporaryFolder()
    const broken = (): Promise<never> => Promise.reject(new Error('npm is broken'))
    await expect(createProject({ directory: join(folder, 'w') }, broken)).rejects.toThrow('npm is broken')
    expect(readdirSync(folder)).toEqual([])
  })
})

describe('the command line', () => {
  test('a mistake is told in one line, with exit code 2', async () => {
    const folder = temporaryFolder()
    const outcome = await xmqWorker(folder, ['new', 'Bad Name'])
    expect(outcome).toMatchObject({ code: 2, stdout: '' })
    expect(outcome.stderr).toMatch(/^xmq-worker: 'Bad Name'[^\n]*\n$/)
  })

  test('a mistake is an object for a program', async () => {
    const folder = temporaryFolder()
    const outcome = await xmqWorker(folder, ['new', 'Bad Name', '--output', 'json'])
    expect(JSON.parse(outcome.stderr)).toMatchObject({ event: 'error', code: 'invalid-config' })
  })

  test.each([
    [['nwe']],
    [['new']],
    [['run', '--output', 'xml']],
    [['run', '--health', '5m']],
    [['run', '--password', 'x']],
  ])('%j is refused with exit code 2', async (args) => {
    const outcome = await xmqWorker(temporaryFolder(), args)
    expect(outcome.code).toBe(2)
    expect(outcome.stderr).toMatch(/^error: /)
  })

  test.each([[['--help']], [['new', '--help']], [['run', '--help']], [['dev', '--help']]])(
    '%j shows examples',
    async (args) => {
      const outcome = await xmqWorker(temporaryFolder(), args)
      expect(outcome).toMatchObject({ code: 0, stderr: '' })
      expect(outcome.stdout).toContain('Examples:\n  $ ')
    },
  )

  test('--version is that of the package', async () => {
    expect((await xmqWorker('/', ['--version'])).stdout).toBe(`${own.version}\n`)
  })
})
