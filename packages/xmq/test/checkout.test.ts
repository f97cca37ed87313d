/** What a checkout does before anything is installed: its scripts, on a copy of the files that they read. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import { temporaryFolder } from './fake-io.ts'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const PATIENCE_MS = 60_000

/** A port where nobody listens: it was free a moment ago. */
async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' ? (address?.port ?? 1) : 1
}

it(
  'without a network the set-up fails soon, and its last line says what to do',
  async () => {
    const folder = temporaryFolder(onTestFinished)
    for (const name of ['scripts', 'package.json', 'pnpm-lock.yaml', 'pnpm-workspace.yaml']) {
      cpSync(join(ROOT, name), join(folder, name), { recursive: true })
    }
    const env = {
      ...process.env,
      npm_config_registry: `http://127.0.0.1:${await closedPort()}/`,
      npm_config_cache: join(folder, 'cache'),
      // Else npm's own retries, which are what this is about, would be those of whoever runs the tests.
      npm_config_fetch_retries: '5',
    }
    const child = spawn(process.execPath, [join(folder, 'scripts/setup.mjs')], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    let text = ''
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
    const [code] = (await once(child, 'close')) as [number | null]
    expect(code).toBe(1)
    expect(text.trimEnd().split('\n').at(-1)).toMatch(
      /^The npm registry could not be reached \(ECONNREFUSED\)\. Connect .* then run the same command again\.$/,
    )
    expect(text).not.toMatch(/^npm error\s+at /m)
  },
  PATIENCE_MS,
)
