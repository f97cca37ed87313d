/** A process without a process, for tests of commands. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { main } from '../src/main.ts'
import type { Io } from '../src/io.ts'

export interface FakeIo extends Io {
  out: string
  err: string
  /** As Ctrl-C does. */
  stop(): void
  /** Resolves when stdout or stderr holds that text. */
  until(text: string): Promise<void>
}

export interface FakeIoOptions {
  readonly stdin?: string | readonly string[]
  readonly env?: Record<string, string>
  readonly cwd?: string
  readonly isTTY?: boolean
}

export function fakeIo({ stdin, env = {}, cwd = '/nowhere', isTTY = false }: FakeIoOptions = {}): FakeIo {
  const listeners = new Set<() => void>()
  const waiting = new Set<() => void>()
  const chunks = stdin === undefined ? [] : typeof stdin === 'string' ? [stdin] : stdin
  const sink = (key: 'out' | 'err') => ({
    isTTY,
    write: (text: string) => {
      io[key] += text
      for (const check of waiting) check()
    },
  })
  const io: FakeIo = {
    out: '',
    err: '',
    stdin: {
      isTTY: stdin === undefined,
      async *[Symbol.asyncIterator]() {
        for (const chunk of chunks) yield await Promise.resolve(chunk)
      },
    },
    stdout: sink('out'),
    stderr: sink('err'),
    env,
    cwd,
    onStop: (listener) => {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    stop: () => {
      for (const listener of listeners) listener()
    },
    until: (text) =>
      new Promise((resolve) => {
        const check = () => {
          if (!io.out.includes(text) && !io.err.includes(text)) return
          waiting.delete(check)
          resolve()
        }
        waiting.add(check)
        check()
      }),
  }
  return io
}

/** Runs a command to its end. */
export async function run(argv: readonly string[], options: FakeIoOptions = {}) {
  const io = fakeIo(options)
  const code = await main(argv, io)
  return { code, out: io.out, err: io.err }
}

/** A folder that is gone after the test. */
export function temporaryFolder(onFinished: (clean: () => void) => void): string {
  const folder = mkdtempSync(join(tmpdir(), 'xmq-cli-'))
  onFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
