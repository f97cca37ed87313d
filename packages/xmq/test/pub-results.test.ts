import type { Client, ClientEvents } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { expect, it } from 'vitest'
import { PubResults, type PubResult } from '../src/pub-results.ts'

/** A client whose pings are answered when the test says so. */
function fakeClient() {
  const listeners: { [Name in keyof ClientEvents]?: (event: ClientEvents[Name]) => void } = {}
  const pings: { resolve: () => void; reject: (error: XmqError) => void }[] = []
  const client: Pick<Client, 'queue' | 'on' | 'ping'> = {
    queue: 'q.localhost',
    on(name, listener) {
      Object.assign(listeners, { [name]: listener })
      return () => {}
    },
    ping: () => new Promise<void>((resolve, reject) => pings.push({ resolve, reject })),
  }
  const told: PubResult[] = []
  const results = new PubResults(client, 't', 1000, (result) => told.push(result))
  return { results, told, pings, listeners }
}

const written = () => Promise.resolve()
const LOST = new XmqError('connection-lost', 'The server hung up.')

it('a message is told as taken only when a ping sent after it was answered', async () => {
  const { results, told, pings } = fakeClient()
  await results.send('a', 1, written)
  await results.send('b', 2, written)
  expect([pings.length, told]).toEqual([1, []])
  pings[0]?.resolve()
  await expect.poll(() => pings.length).toBe(2)
  expect(told).toEqual([{ id: 'a', number: 1 }])
  pings[1]?.resolve()
  expect(await results.settled()).toBeUndefined()
  expect(told).toEqual([
    { id: 'a', number: 1 },
    { id: 'b', number: 2 },
  ])
})

it('a connection that is lost leaves what was written unconfirmed, even if a later ping is answered', async () => {
  const { results, told, pings, listeners } = fakeClient()
  await results.send('a', 1, written)
  listeners.offline?.({ reason: LOST, retryAt: 0, fatal: false })
  pings[0]?.resolve()
  const reason = await results.settled()
  expect(told).toEqual([{ id: 'a', number: 1, error: expect.objectContaining({ code: 'unconfirmed' }) }])
  expect(reason).toMatchObject({ code: 'unconfirmed', message: expect.stringContaining('The server hung up.') })
})

it('a ping that is not answered ends the sending, and tells every message', async () => {
  const { results, told, pings } = fakeClient()
  await results.send('a', 1, written)
  const silence = new XmqError('timeout', 'No answer in 1 s.')
  pings[0]?.reject(silence)
  expect(await results.settled()).toBe(silence)
  expect(told.map(({ error }) => error?.code)).toEqual(['unconfirmed'])
  await expect(results.send('b', 2, written)).rejects.toBe(silence)
})

it('a refusal that overtakes the write is told once', async () => {
  const { results, told, listeners, pings } = fakeClient()
  const refusal = new XmqError('forbidden', 'No.')
  await results.send('a', 1, () => {
    listeners.returned?.({ id: 'a', topic: 't', error: refusal })
    return Promise.resolve()
  })
  expect(pings).toHaveLength(0)
  expect(await results.settled()).toMatchObject({ code: 'forbidden', message: 'Message a was refused: No.' })
  expect(told).toEqual([{ id: 'a', number: 1, error: refusal }])
})

it('at most a thousand messages wait for the queue', async () => {
  const { results, told, pings } = fakeClient()
  let sent = 0
  const sending = (async () => {
    for (let number = 1; number <= 1500; number++) {
      await results.send(String(number), number, written)
      sent = number
    }
  })()
  await expect.poll(() => sent).toBe(1000)
  expect(pings).toHaveLength(1)
  pings[0]?.resolve()
  await expect.poll(() => pings.length).toBe(2)
  pings[1]?.resolve()
  await expect.poll(() => pings.length).toBeGreaterThan(2)
  pings[2]?.resolve()
  await sending
  while (told.length < 1500) {
    for (const { resolve } of pings) resolve()
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(await results.settled()).toBeUndefined()
})
