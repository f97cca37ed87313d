// What the store does with a log that it finds, and with a disk that fails while it opens. These run what is built, in processes.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createInterface, type Interface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { freshPath } from './store-harness.ts'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const CHILD = fileURLToPath(new URL('store-recovery-child.mjs', import.meta.url))
const PATCH = fileURLToPath(new URL('store-sync-patch.mjs', import.meta.url))

/** A store in a process of its own. */
class Child {
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #reader: Interface

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.#process = spawn(process.execPath, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    })
    this.#reader = createInterface({ input: this.#process.stdout as NodeJS.ReadableStream })
    this.#lines = this.#reader[Symbol.asyncIterator]()
  }

  get pid(): number | undefined {
    return this.#process.pid
  }

  async ask(order: 'open' | 'publish' | 'crowd' | 'list' | 'probe'): Promise<unknown> {
    this.#process.stdin?.write(`${order}\n`)
    const { value, done } = await this.#lines.next()
    if (done === true) throw new Error('The store’s process ended.')
    return JSON.parse(value)
  }

  /** As `kill -9` does, with the log beside the file. */
  async die(): Promise<void> {
    this.#process.stdin?.write('die\n')
    await this.gone()
  }

  async gone(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) await once(this.#process, 'exit')
  }

  async end(): Promise<void> {
    this.#process.stdin?.end()
    await this.gone()
    this.#reader.close()
  }
}

const children: Child[] = []

beforeAll(() => {
  // It writes what it can; what it finds wrong is the build's to tell.
  spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-b', 'packages/broker'], { cwd: ROOT })
}, 120_000)

afterEach(async () => {
  for (const child of children.splice(0)) await child.end()
})

function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Child {
  const child = new Child(args, env)
  children.push(child)
  return child
}

/** A file whose broker was killed, with these messages in its log. */
async function killedWith(path: string, count: number): Promise<unknown[]> {
  const child = start([CHILD, path])
  expect(await child.ask('open')).toBe('open')
  const seqs: unknown[] = []
  for (let n = 0; n < count; n++) seqs.push(await child.ask('publish'))
  await child.die()
  return seqs
}

/** A store whose syncs of its log are watched, and fail while there is a file of that name. */
const watched = (path: string, broken: string) =>
  start([CHILD, path], {
    NODE_OPTIONS: `--import=${PATCH}`,
    XMQ_TOLD: `${path}.told`,
    XMQ_BROKEN: broken,
  })

describe('a log that a dead process left', () => {
  it('is written over itself and synced before it is believed', async () => {
    const path = freshPath()
    const seqs = await killedWith(path, 3)
    const log = readFileSync(`${path}-wal`)
    expect(log.length).toBeGreaterThan(0)
    writeFileSync(`${path}.told`, '')
    const child = watched(path, `${path}.broken`)
    expect(await child.ask('open')).toBe('open')
    const told = readFileSync(`${path}.told`, 'utf8').split('\n')
    let end = 0
    for (const [what, at, count] of told.slice(0, told.indexOf('sync')).map((line) => line.split(' '))) {
      expect([what, Number(at)]).toEqual(['write', end])
      end += Number(count)
    }
    expect(told).toContain('sync')
    expect(end).toBeGreaterThanOrEqual(log.length)
    expect(await child.ask('list')).toEqual(seqs)
  }, 30_000)

  it('keeps the store closed while it cannot be synced, and is opened by another thread once it can', async () => {
    const path = freshPath()
    const seqs = await killedWith(path, 3)
    writeFileSync(`${path}.told`, '')
    writeFileSync(`${path}.broken`, '')
    const child = watched(path, `${path}.broken`)
    expect(await child.ask('open')).toBe('open')
    for (let n = 0; n < 3; n++) {
      expect(await child.ask('publish')).toContain('The store cannot use')
      expect(await child.ask('probe')).toContain('(SQLITE_IOERR)')
    }
    rmSync(`${path}.broken`)
    // A lock that this process kept from an earlier try would keep it closed for ever.
    expect(await child.ask('probe')).toBe('well')
    expect(await child.ask('list')).toEqual(seqs)
    expect(await child.ask('publish')).toBeGreaterThan(Number(seqs.at(-1)))
  }, 30_000)
})

/** Reads of a file fail: of each thread those that `when` counts, as strace writes it. @returns how to end that */
async function breakReads(pid: number | undefined, path: string, when: string): Promise<() => Promise<void>> {
  const args = [`-p${pid}`, '-fo/dev/null', '-etrace=pread64', `-einject=pread64:error=EIO:when=${when}`, `-P${path}`]
  const tracer = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = once(tracer, 'exit')
  await new Promise<void>((resolve, reject) => {
    tracer.stderr.on('data', (text) => {
      if (String(text).includes('attached')) resolve()
    })
    void exited.then(() => reject(new Error('strace ended.')))
  })
  return async () => {
    tracer.kill('SIGTERM')
    await exited
  }
}

describe('a sync that fails', () => {
  it('is the reason that is told to everybody whose batch was on its way', async () => {
    const path = freshPath()
    writeFileSync(`${path}.told`, '')
    const child = watched(path, `${path}.broken`)
    expect(await child.ask('open')).toBe('open')
    for (let time = 0; time < 5; time++) {
      expect(await child.ask('crowd')).toEqual(['stored'])
      writeFileSync(`${path}.broken`, '')
      const told = await child.ask('crowd')
      rmSync(`${path}.broken`)
      expect(told).not.toHaveLength(0)
      for (const message of told as string[]) expect(message).toContain('(SQLITE_IOERR)')
      expect(await child.ask('probe')).toBe('well')
    }
  }, 30_000)
})

describe('a disk that cannot be read while the store is opened', () => {
  const canTrace =
    spawnSync('strace', ['-f', '-qq', '-o', '/dev/null', '-e', 'inject=fsync:error=EIO', 'true']).status === 0

  it.skipIf(!canTrace)(
    'is waited for',
    async () => {
      const path = freshPath()
      const seqs = await killedWith(path, 3)
      for (const when of ['1', '3', '1+']) {
        const child = start([CHILD, path])
        // It runs, and has not opened anything.
        expect(await child.ask('probe')).toBe('well')
        const takeOff = await breakReads(child.pid, path, when)
        expect(await child.ask('open')).toBe('open')
        expect(await child.ask('probe')).toContain('(SQLITE_IOERR)')
        await takeOff()
        expect(await child.ask('probe')).toBe('well')
        expect(await child.ask('list')).toEqual(seqs)
        await child.end()
      }
    },
    60_000,
  )
})
