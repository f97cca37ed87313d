import { connect } from '@xmq/client'
import { type DevBroker, startDevBroker } from '@xmq/testing'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { greet } from '../src/topics.ts'
import createWorker from '../src/worker.ts'

// A real XMPP server and a real broker, in this process and on free ports.
let broker: DevBroker
const stops: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  broker = await startDevBroker()
  const queue = 'queue1.localhost'
  const worker = createWorker({ service: broker.service, jid: 'worker@localhost', password: 'secret', queue })
  await worker.start()
  stops.push(() => worker.stop())
})

afterAll(async () => {
  for (const stop of stops.reverse()) await stop()
  await broker.stop()
})

test('greets by name', async () => {
  const client = await connect({
    service: broker.service,
    jid: 'producer@localhost',
    password: 'secret',
    queue: 'queue1.localhost',
  })
  stops.push(() => client.close())

  expect(await client.request(greet, { name: 'Ada' })).toEqual({ text: 'Hello, Ada!' })
})
