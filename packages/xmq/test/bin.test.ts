import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { temporaryFolder } from './fake-io.ts'

const BIN = fileURLToPath(new URL('../bin/xmq.js', import.meta.url))
const PACKAGE = fileURLToPath(new URL('..', import.meta.url))
const TSC = fileURLToPath(new URL('../../../node_modules/.bin/tsc', import.meta.url))
const BUILD_MS_MAX = 180_000

beforeAll(() => {
  execFileSync(TSC, ['-b', PACKAGE], { cwd: PACKAGE, stdio: 'inherit', timeout: BUILD_MS_MAX })
}, BUILD_MS_MAX)

/** The command as a process of its own, its output gathered. */
function start(argv: readonly string[], cwd: string) {
  const child = spawn(process.execPath, [BIN, ...argv], { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const output = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output.out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output.err += text
  })
  const exited = once(child, 'exit').then(([code]) => code as number | null)
  const until = async (text: string) => {
    while (!output.out.includes(text))
      await Promise.race([
        once(child.stdout, 'data'),
        exited.then((code) => Promise.reject(new Error(`ended with ${code}: ${output.err}`))),
      ])
  }
  return { child, output, exited, until }
}

describe('the compiled command', () => {
  it('runs dev until SIGTERM, and pub reaches it', async () => {
    const cwd = temporaryFolder(onTestFinished)
    const dev = start(['dev', '--port', '0', '--websocket-port', 'off', '--output', 'json'], cwd)
    await dev.until('"ready"')
    const { service } = JSON.parse(dev.output.out) as { service: string }
    const pub = promisify(execFile)(process.execPath, [BIN, 'pub', 'queue2.localhost', 't', 'hello', '-s', service])
    expect(await pub).toEqual({ stdout: '', stderr: '' })
    dev.child.kill('SIGTERM')
    expect(await dev.exited).toBe(0)
  })

  it('ends when its reader does, as head does, without a stack trace', async () => {
    const cwd = temporaryFolder(onTestFinished)
    const dev = start(['dev', '--port', '0', '--websocket-port', 'off', '--output', 'json'], cwd)
    await dev.until('"ready"')
    const { service } = JSON.parse(dev.output.out) as { service: string }
    const sub = start(['sub', 'queue2.localhost', 't', '-s', service, '--reply', 'subscribed'], cwd)
    const cli = (argv: readonly string[]) => promisify(execFile)(process.execPath, [BIN, ...argv, '-s', service])
    // The answer shows that it is subscribed.
    for (let tries = 0; !sub.output.out.includes('ask'); tries++) {
      expect(tries).toBeLessThan(20)
      await cli(['request', 'queue2.localhost', 't', 'ask']).catch(() => {})
    }
    sub.child.stdout.destroy()
    await cli(['pub', 'queue2.localhost', 't', 'nobody reads this'])
    expect(await sub.exited).toBe(0)
    expect(sub.output.err).not.toContain('EPIPE')
  })

  it('ends with 2 and one line on a mistake', async () => {
    const failed = promisify(execFile)(process.execPath, [BIN, 'pub', 'q.localhost', 't', 'x', '--timeout', 'soon'])
    await expect(failed).rejects.toMatchObject({ code: 2, stderr: expect.stringMatching(/^xmq: --timeout: .*\n$/) })
  })
})
