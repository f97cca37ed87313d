import type { Client, ClientEvents, Published } from '@xmq/client'
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

const confirm = (id: string, seq: number): Published => ({
  id,
  seq,
  durability: 'disk',
  duplicate: false,
  subscriptions: undefined,
})

it('many are on their way to a reliable queue, and told in their order without a ping', async () => {
  const { results, told, pings } = fakeClient()
  const confirms: ((published: Published) => void)[] = []
  const publish = () => new Promise<Published>((resolve) => confirms.push(resolve))
  for (const [at, id] of ['a', 'b', 'c'].entries()) await results.send(id, at + 1, publish)
  expect(confirms).toHaveLength(3)
  confirms[1]?.(confirm('b', 2))
  confirms[2]?.(confirm('c', 3))
  await new Promise((resolve) => setImmediate(resolve))
  expect(told).toEqual([])
  confirms[0]?.(confirm('a', 1))
  expect(await results.settled()).toBeUndefined()
  expect(told.map(({ id, published }) => [id, published?.seq])).toEqual([
    ['a', 1],
    ['b', 2],
    ['c', 3],
  ])
  expect(pings).toEqual([])
})

it('one that fails later is told, and does not stop the others', async () => {
  const { results, told } = fakeClient()
  let refuse: (error: XmqError) => void = () => {}
  await results.send('a', 1, () => new Promise((_, reject) => (refuse = reject)))
  await results.send('b', 2, () => Promise.resolve(confirm('b', 2)))
  refuse(new XmqError('conflict', 'That id was used.'))
  expect(await results.settled()).toMatchObject({
    code: 'conflict',
    message: '1 of 2 messages were refused: That id was used.',
  })
  expect(told.map(({ id, error }) => [id, error?.code])).toEqual([
    ['a', 'conflict'],
    ['b', undefined],
  ])
})

it('one that cannot be sent stops what follows', async () => {
  const { results, told } = fakeClient()
  const tooLarge = new XmqError('too-large', 'No.')
  await expect(results.send('a', 1, () => Promise.reject(tooLarge))).rejects.toBe(tooLarge)
  expect([told, results.counts]).toEqual([[], { sent: 0, failed: 0 }])
})
