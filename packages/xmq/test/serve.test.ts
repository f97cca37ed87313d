import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startEmbeddedServer } from '@xmq/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { parse } from 'yaml'
import { main } from '../src/main.ts'
import { fakeIo, run, temporaryFolder, type FakeIoOptions } from './fake-io.ts'

const YAML = `
server: xmpp://127.0.0.1:5347
secret: \${XMQ_SECRET}
queues:
  queue1.localhost: { type: any }
`

function folderWith(files: Record<string, string>): string {
  const folder = temporaryFolder(onTestFinished)
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return folder
}

const check = (argv: readonly string[], options: FakeIoOptions) => run(['check-config', ...argv], options)

describe('check-config', () => {
  it('prints the effective rules, which are YAML, without the secret', async () => {
    const { code, out } = await check([], {
      cwd: folderWith({ 'xmq.config.yaml': YAML }),
      env: { XMQ_SECRET: 'hunter2' },
    })
    expect(code).toBe(0)
    expect(out).toContain('# xmq.config.yaml is valid.')
    expect(out).not.toContain('hunter2')
    expect(parse(out)).toMatchObject({
      server: 'xmpp://127.0.0.1:5347',
      queues: { 'queue1.localhost': { maxTtl: '1d' } },
    })
  })

  it('prints one JSON object for a program', async () => {
    const json = JSON.stringify({ server: 'xmpp://h', secret: 's', queues: { 'q.localhost': { type: 'all' } } })
    const { code, out } = await check(['--output', 'json'], { cwd: folderWith({ 'xmq.config.json': json }) })
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({ file: 'xmq.config.json', valid: true, rules: { server: 'xmpp://h:5347' } })
  })

  it('names the file by its whole path where it runs in no folder of its own, as a service does', async () => {
    const file = join(folderWith({ 'xmq.config.yaml': YAML }), 'xmq.config.yaml')
    const { out } = await check(['--config', file], { cwd: '/', env: { XMQ_SECRET: 's' } })
    expect(out).toContain(`# ${file} is valid.`)
  })

  it('finds --config before XMQ_CONFIG before the folder', async () => {
    const cwd = folderWith({
      'a.yaml': YAML.replace('5347', '1'),
      'b.yaml': YAML.replace('5347', '2'),
      'xmq.config.yaml': YAML.replace('5347', '3'),
    })
    const env = { XMQ_SECRET: 's', XMQ_CONFIG: 'b.yaml' }
    const port = (out: string) => (parse(out) as { server: string }).server.split(':').at(-1)
    expect(port((await check(['--config', 'a.yaml'], { cwd, env })).out)).toBe('1')
    expect(port((await check([], { cwd, env })).out)).toBe('2')
    expect(port((await check([], { cwd, env: { XMQ_SECRET: 's' } })).out)).toBe('3')
  })

  it('lets flags beat the environment, and that beat the file', async () => {
    const cwd = folderWith({ 'xmq.config.yaml': `${YAML}http: 127.0.0.1:1\nlog: { level: error }\n` })
    const env = { XMQ_SECRET: 's', XMQ_SERVER: 'xmpp://env', XMQ_HTTP: '127.0.0.1:2', XMQ_STORE: '' }
    const { out } = await check(['--http', '127.0.0.1:3'], { cwd, env })
    expect(parse(out)).toMatchObject({ server: 'xmpp://env:5347', http: '127.0.0.1:3', log: { level: 'error' } })
  })

  it('reads the secret from a file beside the configuration, and warns when everybody can', async () => {
    const cwd = folderWith({
      'xmq.config.yaml': YAML.replace('secret: ${XMQ_SECRET}', 'secretFile: secret.txt'),
      'secret.txt': 's\n',
    })
    chmodSync(join(cwd, 'secret.txt'), 0o644)
    const warned = await check([], { cwd })
    expect([warned.code, warned.err]).toEqual([0, expect.stringContaining('chmod 600')])
    chmodSync(join(cwd, 'secret.txt'), 0o600)
    expect(await check([], { cwd })).toMatchObject({ code: 0, err: '' })
  })

  it('resolves the store of the file against its folder, that of a flag or variable against the working one', async () => {
    const cwd = folderWith({})
    const folder = folderWith({ 'xmq.config.yaml': `${YAML}store: sqlite:./data/xmq.db\n` })
    const config = ['--config', join(folder, 'xmq.config.yaml')]
    const env = { XMQ_SECRET: 's' }
    const store = async (argv: readonly string[], extra: Record<string, string> = {}) =>
      (parse((await check([...config, ...argv], { cwd, env: { ...env, ...extra } })).out) as { store: string }).store
    expect(await store([])).toBe(`sqlite:${join(folder, 'data/xmq.db')}`)
    expect(await store(['--store', 'sqlite:a.db'])).toBe(`sqlite:${join(cwd, 'a.db')}`)
    expect(await store([], { XMQ_STORE: 'sqlite:../b.db' })).toBe(`sqlite:${join(cwd, '../b.db')}`)
    expect(await store(['--store', 'sqlite:/var/lib/xmq/xmq.db'])).toBe('sqlite:/var/lib/xmq/xmq.db')
    expect(await store(['--store', 'memory:'])).toBe('memory:')
    const wrong = await check([...config, '--store', 'sqlite:'], { cwd, env })
    expect([wrong.code, wrong.err]).toEqual([2, expect.stringContaining("must be 'sqlite:PATH'")])
  })

  const PROBLEMS: readonly [name: string, yaml: string, text: string][] = [
    [
      'a misspelt key',
      YAML.replace('type: any', 'typ: any'),
      "xmq.config.yaml: queues.queue1.localhost.typ: unknown key; did you mean 'type'?",
    ],
    ['YAML that is none', 'server: [', 'xmq.config.yaml is not valid YAML:'],
    ['a key twice', `${YAML}server: x\n`, 'Map keys must be unique'],
    [
      'aliases that explode',
      `a: &a [x,x]\n${'bcdefghijklm'
        .split('')
        .map((c, i) => `${c}: &${c} [${Array(9).fill(`*${'abcdefghijkl'[i]}`).join(',')}]`)
        .join('\n')}`,
      'Excessive alias count',
    ],
    ['an empty file', '', 'xmq.config.yaml: server: must be'],
    [
      'a variable that is not set',
      YAML.replace('XMQ_SECRET', 'NOT_SET'),
      'the environment variable NOT_SET is not set',
    ],
  ]
  it.each(PROBLEMS)('names %s and ends with 2', async (_, yaml, text) => {
    const { code, err, out } = await check([], {
      cwd: folderWith({ 'xmq.config.yaml': yaml }),
      env: { XMQ_DEBUG: '1' },
    })
    expect([code, out]).toEqual([2, ''])
    expect(err).toContain(text)
    expect(err).not.toMatch(/\n\s+at /)
  })

  it('tells a program of a problem as JSON', async () => {
    const cwd = folderWith({ 'xmq.config.yaml': YAML.replace('type: any', 'typ: any'), 'no.yaml': 'server: [' })
    const { code, out, err } = await check(['--output=json'], { cwd, env: { XMQ_SECRET: 's' } })
    expect([code, err]).toEqual([2, ''])
    expect(JSON.parse(out)).toEqual({
      valid: false,
      problems: [
        { path: 'queues.queue1.localhost.typ', text: expect.stringContaining("did you mean 'type'?") },
        { path: 'queues.queue1.localhost.type', text: expect.stringContaining('is missing') },
      ],
    })
    const noYaml = await check(['--output=json', '--config', 'no.yaml'], { cwd })
    expect([noYaml.code, JSON.parse(noYaml.out)]).toEqual([
      2,
      { valid: false, problems: [{ path: '', text: expect.stringContaining('no.yaml is not valid YAML') }] },
    ])
  })

  it('says where it looked', async () => {
    const missing = await check([], { cwd: folderWith({}) })
    expect([missing.code, missing.err]).toEqual([2, expect.stringContaining('Looked for ./xmq.config.yaml')])
    const named = await check(['--config', 'no.yaml'], { cwd: folderWith({}) })
    expect(named.err).toContain('--config: there is no file')
  })
})

describe('serve', () => {
  async function setUp() {
    const server = await startEmbeddedServer({ websocketPort: false })
    onTestFinished(() => server.stop())
    const cwd = folderWith({ 'xmq.config.yaml': YAML })
    const env = {
      XMQ_SECRET: 'secret',
      XMQ_SERVER: `xmpp://127.0.0.1:${server.componentPort}`,
      XMQ_HTTP: '127.0.0.1:0',
    }
    return { server, cwd, env }
  }

  it('serves until it is asked to stop, and then ends with 0', async () => {
    const { server, cwd, env } = await setUp()
    const io = fakeIo({ cwd, env })
    const ended = main(['serve'], io)
    await io.until('"message":"serving"')
    expect(server.components()).toEqual(['queue1.localhost'])
    const address = /"address":"([^"]+)"/.exec(io.err)?.[1]
    expect((await fetch(`${address}/readyz`)).status).toBe(200)
    io.stop()
    expect(await ended).toBe(0)
    expect(server.components()).toEqual([])
    expect(io.out).toBe('')
    for (const line of io.err.trim().split('\n')) expect(JSON.parse(line)).toHaveProperty('level')
  })

  it('writes readable lines on a terminal', async () => {
    const { cwd, env } = await setUp()
    const io = fakeIo({ cwd, env: { ...env, NO_COLOR: '1' }, isTTY: true })
    const ended = main(['serve'], io)
    await io.until('serving')
    io.stop()
    await ended
    expect(io.err).toMatch(/^\d\d:\d\d:\d\d\.\d{3} info {2}starting config=xmq\.config\.yaml/)
  })

  it('can be stopped while the server is not there', async () => {
    const { server, cwd, env } = await setUp()
    await server.stop()
    const io = fakeIo({ cwd, env })
    const ended = main(['serve'], io)
    await io.until('"message":"link down"')
    io.stop()
    expect(await ended).toBe(0)
  })

  it('ends with 2 and the reason when the HTTP address is taken', async () => {
    const { server, cwd, env } = await setUp()
    const io = fakeIo({ cwd, env: { ...env, XMQ_HTTP: `127.0.0.1:${server.port}` } })
    expect(await main(['serve'], io)).toBe(2)
    expect(io.err).toContain('something else listens there')
  })

  it('ends with 7 and the reason when a second broker is there', async () => {
    const server = await startEmbeddedServer({ websocketPort: false, componentConflict: 'share' })
    onTestFinished(() => server.stop())
    const cwd = folderWith({ 'xmq.config.yaml': YAML })
    const env = { XMQ_SECRET: 'secret', XMQ_SERVER: `xmpp://127.0.0.1:${server.componentPort}` }
    const first = fakeIo({ cwd, env })
    const firstEnded = main(['serve'], first)
    await first.until('"message":"serving"')
    const second = fakeIo({ cwd, env })
    expect(await main(['serve'], second)).toBe(7)
    expect(second.err.match(/Another broker already serves/g)).toHaveLength(1)
    first.stop()
    expect(await firstEnded).toBe(0)
  }, 60_000)
})
