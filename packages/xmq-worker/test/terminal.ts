/** A terminal for tests: what a command would have printed, and a folder of its own. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { main } from '../src/main.ts'
import type { Io } from '../src/terminal.ts'

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** A folder that is gone when the test is over; its name has a space, as people's folders have. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'xmq worker-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Runs `xmq-worker ARGS` in `cwd`, to its end. */
export async function xmqWorker(
  cwd: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Outcome> {
  return await startXmqWorker(cwd, args, env).ended
}

/** A command that runs until it is stopped. */
export interface RunningCommand {
  readonly ended: Promise<Outcome>
  /** Resolves with the first event of that name in its JSON lines; rejects when it ends before. */
  event(name: string): Promise<Record<string, unknown>>
  /** What SIGTERM does. */
  stop(): void
}

/** Starts `xmq-worker ARGS` in `cwd`. */
export function startXmqWorker(cwd: string, args: readonly string[], env: Record<string, string> = {}): RunningCommand {
  let stdout = ''
  let stderr = ''
  let stop = (): void => {}
  const listeners = new Set<() => void>()
  const io: Io = {
    stdout: {
      write: (text) => {
        stdout += text
        for (const listener of listeners) listener()
      },
    },
    stderr: { write: (text) => (stderr += text) },
    cwd,
    env,
    onStop: (onStop) => {
      stop = onStop
      return () => {}
    },
  }
  const ended = main(args, { io }).then((code) => ({ code, stdout, stderr }))
  onTestFinished(async () => {
    stop()
    await ended
  })
  return {
    ended,
    stop: () => stop(),
    event: (name) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const lines = stdout.split('\n').slice(0, -1)
          const found = lines
            .map((line) => JSON.parse(line) as Record<string, unknown>)
            .find(({ event }) => event === name)
          if (found !== undefined) resolve(found)
        }
        listeners.add(look)
        look()
        void ended.then(({ code }) => reject(new Error(`It ended with ${code} before '${name}': ${stdout}${stderr}`)))
      }),
  }
}
