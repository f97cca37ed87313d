import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { connect } from '@xmq/client'
import { type DevBroker, startDevBroker } from '@xmq/testing'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startXmqWorker, xmqWorker } from './terminal.ts'

const FIXTURES = fileURLToPath(new URL('./fixtures', import.meta.url))
const RUN = ['run', 'echo.mjs', '--output', 'json']

let broker: DevBroker

beforeAll(async () => {
  broker = await startDevBroker()
})

afterAll(async () => {
  await broker.stop()
})

describe('xmq-worker run', () => {
  test('serves until it is asked to stop, then ends with 0', async () => {
    const worker = startXmqWorker(FIXTURES, RUN, { XMQ_SERVICE: broker.service })
    const ready = await worker.event('ready')
    expect(ready).toMatchObject({ file: 'echo.mjs', queue: 'queue1.localhost', topics: ['echo', 'fail'] })
    expect(ready['jid']).toMatch(/^worker@localhost\/./)

    const connection = { service: broker.service, jid: 'me@localhost', password: 'me', queue: 'queue1.localhost' }
    const client = await connect(connection)
    expect(await client.request('echo', { a: 1 })).toEqual({ a: 1 })
    await expect(client.request('fail', {})).rejects.toMatchObject({ code: 'handler-failed' })
    expect(await worker.event('failed')).toMatchObject({ topic: 'fail', kind: 'request', text: 'it always fails' })

    worker.stop()
    const { code, stderr } = await worker.ended
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(await worker.event('stopped')).toMatchObject({ done: 1, failed: 1 })
    await expect(client.request('echo', {})).rejects.toMatchObject({ code: 'no-recipients' })
    await client.close()
  })

  test('ends with 5 and the reason on a wrong password', async () => {
    const first = startXmqWorker(FIXTURES, RUN, { XMQ_SERVICE: broker.service, XMQ_JID: 'taken@localhost' })
    await first.event('ready')
    const env = { XMQ_SERVICE: broker.service, XMQ_JID: 'taken@localhost', XMQ_PASSWORD: 'wrong' }
    const { code, stdout, stderr } = await xmqWorker(FIXTURES, RUN, env)
    expect({ code, stdout }).toEqual({ code: 5, stdout: '' })
    expect(JSON.parse(stderr)).toMatchObject({ event: 'error', code: 'not-authorized', exit: 5 })
  })

  test('ends with 2 where the address of the queue cannot be one', async () => {
    const { code, stderr } = await xmqWorker(FIXTURES, [...RUN, '--queue', '@'], { XMQ_SERVICE: broker.service })
    expect(code).toBe(2)
    expect(JSON.parse(stderr)).toMatchObject({ code: 'invalid-config', text: expect.stringContaining('queue') })
  })

  test('keeps trying while there is no server, says so, and can be stopped', async () => {
    // A port that was free a moment ago: nobody listens there.
    const port = await new Promise<number>((resolve) => {
      const server = createServer().listen(0, '127.0.0.1', () => {
        const address = server.address()
        server.close(() => resolve(typeof address === 'object' ? (address?.port ?? 1) : 1))
      })
    })
    const worker = startXmqWorker(FIXTURES, RUN, { XMQ_SERVICE: `xmpp://127.0.0.1:${port}` })
    expect(await worker.event('offline')).toMatchObject({ code: 'connection-lost' })
    worker.stop()
    expect(await worker.ended).toMatchObject({ code: 0, stderr: '' })
  })
})
