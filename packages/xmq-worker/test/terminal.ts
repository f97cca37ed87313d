/** A terminal for tests: what a command would have printed, and a folder of its own. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { main } from '../src/main.ts'

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

/** Runs `xmq-worker ARGS` in `cwd`. */
export async function xmqWorker(
  cwd: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Outcome> {
  let stdout = ''
  let stderr = ''
  const code = await main(args, {
    io: {
      stdout: { write: (text) => (stdout += text) },
      stderr: { write: (text) => (stderr += text) },
      cwd,
      env,
    },
  })
  return { code, stdout, stderr }
}
