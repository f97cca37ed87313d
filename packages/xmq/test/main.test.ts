import { describe, expect, it } from 'vitest'
import { run } from './fake-io.ts'

const COMMANDS = ['serve', 'check-config', 'dev', 'pub', 'sub', 'forget', 'request']

describe('the command line', () => {
  it.each(COMMANDS)('explains %s with examples and ends with 0', async (command) => {
    const { code, out, err } = await run([command, '--help'])
    expect([code, err]).toEqual([0, ''])
    expect(out).toContain(`Usage: xmq ${command}`)
    expect(out).toContain('Examples:')
    expect(out).not.toContain('\u001b')
  })

  it('documents the exit codes where they differ', async () => {
    for (const command of ['pub', 'sub', 'forget', 'request', 'serve']) {
      expect((await run([command, '--help'])).out).toContain('Exit codes:')
    }
  })

  it('takes no password as an argument', async () => {
    for (const command of ['pub', 'sub', 'request']) {
      const { code, err } = await run([command, 'q', 't', '--password', 'x'])
      expect([code, err]).toEqual([2, expect.stringContaining("unknown option '--password'")])
    }
  })

  it('prints its version', async () => {
    expect(await run(['--version'])).toEqual({ code: 0, out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/), err: '' })
  })

  it('ends with 2 on a command that is none, and names the nearest', async () => {
    const { code, err } = await run(['serv'])
    expect([code, err]).toEqual([2, expect.stringContaining('Did you mean serve?')])
  })

  it('ends with 2 without a command, and shows the help', async () => {
    const { code, err } = await run([])
    expect([code, err]).toEqual([2, expect.stringContaining('Commands:')])
  })

  it('knows every way of asking for JSON', async () => {
    for (const format of [['--output', 'json'], ['--output=json'], ['-o', 'json'], ['-ojson']]) {
      const { err } = await run(['pub', 'q', 't', 'x', '--timeout', 'soon', ...format])
      expect(JSON.parse(err)).toMatchObject({ error: { code: 'invalid-config' } })
    }
  })

  it('names the choices of an option', async () => {
    const { code, err } = await run(['check-config', '--output', 'xml'])
    expect([code, err]).toEqual([2, expect.stringContaining('Allowed choices are text, json.')])
  })
})
