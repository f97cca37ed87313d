/** What docs/operating.md tells an operator to copy is accepted by what it is for. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'

const page = readFileSync(new URL('../../docs/operating.md', import.meta.url), 'utf8')
const unit = /```ini\n(\[Unit\][\s\S]*?)```/.exec(page)?.[1] ?? ''
const isThere = spawnSync('systemd-analyze', ['--version']).status === 0
const folder = mkdtempSync(join(tmpdir(), 'xmq-unit-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What systemd has to say of a unit; it ends with 0 whatever that is. */
function complaintsAbout(text: string): string {
  const file = join(folder, 'xmq.service')
  writeFileSync(file, text)
  const { stderr, status } = spawnSync('systemd-analyze', ['verify', '--man=no', file], { encoding: 'utf8' })
  return `${status === 0 ? '' : `exit code ${status}\n`}${stderr}`
}

describe.skipIf(!isThere)('the systemd unit', () => {
  test('is one that systemd has nothing to say against', () => {
    expect(unit).toContain('ExecStart=')
    expect(complaintsAbout(unit)).toBe('')
  })

  test.each([
    ['a key that it does not know', 'Restart=', 'Restrat='],
    ['a value that it does not know', 'ProtectSystem=strict', 'ProtectSystem=strct'],
    ['a program that is not there', '/usr/bin/env', '/usr/bin/not-there'],
  ])('would not be with %s', (_, from, to) => {
    expect(complaintsAbout(unit.replace(from, to))).not.toBe('')
  })
})
