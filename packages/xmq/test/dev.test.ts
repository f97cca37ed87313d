import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from '@xmq/client'
import { startEmbeddedServer } from '@xmq/testing'
import { describe, expect, it, onTestFinished } from 'vitest'
import { main } from '../src/main.ts'
import { fakeIo, run, temporaryFolder } from './fake-io.ts'

const FREE = ['--port', '0', '--websocket-port', '0']

async function started(argv: readonly string[] = [], cwd = temporaryFolder(onTestFinished)) {
  const io = fakeIo({ cwd })
  const ended = main(['dev', ...FREE, '--output', 'json', ...argv], io)
  await Promise.race([io.until('"ready"'), ended])
  onTestFinished(async () => {
    io.stop()
    await ended
  })
  const ready = JSON.parse(io.out) as {
    service: string
    websocket: string
    domain: string
    data: string
    http?: string
    queues: { address: string; type: string }[]
  }
  return { io, ended, ready, cwd }
}

describe('dev', () => {
  it('offers a server and queues in one process, and ends with 0', async () => {
    const { io, ended, ready } = await started()
    expect(ready.queues).toEqual([
      { address: 'queue1.localhost', type: 'any' },
      { address: 'queue2.localhost', type: 'all' },
    ])
    const client = await connect({
      service: ready.service,
      jid: 'shop@localhost',
      password: 'shop',
      queue: 'queue1.localhost',
    })
    await expect(client.request('nobody', {})).rejects.toMatchObject({ code: 'no-recipients' })
    await client.close()
    io.stop()
    expect(await ended).toBe(0)
  })

  it('keeps accounts over a restart, in a file that others cannot read', async () => {
    const first = await started()
    const login = async (service: string, password: string) => {
      const client = await connect({ service, jid: 'shop@localhost', password, queue: 'queue1.localhost' })
      await client.close()
    }
    await login(first.ready.service, 'shop')
    first.io.stop()
    await first.ended
    const file = join(first.cwd, '.xmq', 'accounts.json')
    expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual({ shop: 'shop' })
    expect(statSync(file).mode & 0o077).toBe(0)
    const second = await started([], first.cwd)
    await login(second.ready.service, 'shop')
    await expect(login(second.ready.service, 'other')).rejects.toMatchObject({ code: 'not-authorized' })
  })

  it('keeps messages over a restart in the folder that --data names, and in memory without it', async () => {
    const account = { jid: 'shop@localhost', password: 'shop', queue: 'queue1.localhost' }
    const first = await started(['--data', 'kept'])
    const client = await connect({ service: first.ready.service, ...account })
    expect(await client.publish('later', 'here')).toMatchObject({ durability: 'disk' })
    await client.close()
    first.io.stop()
    expect(await first.ended).toBe(0)
    const second = await started(['--data', 'kept'], first.cwd)
    const env = { XMQ_SERVICE: second.ready.service, XMQ_JID: account.jid, XMQ_PASSWORD: account.password }
    const { code, out } = await run(['sub', account.queue, 'later', '--count', '1'], { env })
    expect([code, out]).toEqual([0, '"here"\n'])
    const other = await started([], first.cwd)
    const inMemory = await connect({ service: other.ready.service, ...account })
    expect(await inMemory.publish('later', 'here')).toMatchObject({ durability: 'memory' })
    await inMemory.close()
  })

  it('says who has the folder when another one does, and ends with 7', async () => {
    const { cwd } = await started(['--data', 'kept'])
    const { code, err } = await run(['dev', ...FREE, '--data', 'kept'], { cwd })
    expect([code, err]).toEqual([7, expect.stringContaining('xmq.db is in use by process')])
    expect(err).toContain('give each its own folder: --data DIR')
  })

  it('makes an account with the password of its first login, whatever that is', async () => {
    const { ready } = await started()
    for (const [user, password] of [
      ['worker', 'secret'],
      ['shop', 'any password'],
    ]) {
      const options = { service: ready.service, jid: `${user}@localhost`, queue: 'queue1.localhost' }
      const client = await connect({ ...options, password: password ?? '' })
      await client.close()
      await expect(connect({ ...options, password: 'other' })).rejects.toMatchObject({ code: 'not-authorized' })
    }
  })

  it('takes queues, a domain and an HTTP address', async () => {
    const flags = ['--queue', 'jobs:any', '--queue', 'orders@xmq.test:all', '--domain', 'test', '--http', '127.0.0.1:0']
    const { ready } = await started(flags)
    expect(ready.domain).toBe('test')
    expect(ready.queues).toEqual([
      { address: 'jobs.test', type: 'any' },
      { address: 'orders@xmq.test', type: 'all' },
    ])
    expect((await fetch(`${ready.http}/readyz`)).status).toBe(200)
    const metrics = await (await fetch(`${ready.http}/metrics`)).text()
    expect(metrics).toMatch(/^xmq_link_up\{.*\} 1$/m)
    expect(metrics).toMatch(/^xmq_server_sessions 0$/m)
  })

  it('prints address, accounts, queues and what to type next', async () => {
    const io = fakeIo({ cwd: temporaryFolder(onTestFinished) })
    const ended = main(['dev', ...FREE], io)
    await io.until('Ctrl-C')
    io.stop()
    expect(await ended).toBe(0)
    const service = /xmpp:\/\/127\.0\.0\.1:\d+/.exec(io.out)?.[0]
    expect(io.out).toContain(`npx xmq pub queue1.localhost greetings "hello" --service ${service}`)
    expect(io.out).toContain('queue2.localhost  all: every subscriber gets each message')
    expect(io.out).toContain('./.xmq')
    expect(io.out).toContain('made at its first login with xmq or the SDK, with any password')
  })

  it('says what to do when its port is taken', async () => {
    const other = await startEmbeddedServer({ websocketPort: false })
    onTestFinished(() => other.stop())
    const cwd = temporaryFolder(onTestFinished)
    const { code, err } = await run(['dev', '--port', String(other.port), '--websocket-port', 'off'], { cwd })
    expect([code, err]).toEqual([7, expect.stringContaining('--port 0')])
  })

  const WRONG: readonly [flags: readonly string[], text: string][] = [
    [['--port', 'x'], "--port: 'x' is no port."],
    [['--queue', ':any'], "--queue: ':any' has no name."],
    [['--queue', 'jobs:some'], "queues.jobs.localhost.type: must be 'any' or 'all', but is 'some'."],
    [['--host', '0.0.0.0'], 'not for production'],
  ]
  it.each(WRONG)('%j ends with 2', async (flags, text) => {
    const { code, err } = await run(['dev', ...FREE, ...flags], { cwd: temporaryFolder(onTestFinished) })
    expect([code, err]).toEqual([2, expect.stringContaining(text)])
  })

  it('says what to do with a damaged folder', async () => {
    const cwd = temporaryFolder(onTestFinished)
    writeFileSync(join(cwd, 'file'), '')
    writeFileSync(join(cwd, 'accounts.json'), '{')
    expect((await run(['dev', '--data', '.'], { cwd })).err).toContain('Delete it, and accounts are made anew.')
    expect((await run(['dev', '--data', 'file/x'], { cwd })).err).toContain('Name another folder.')
  })
})
