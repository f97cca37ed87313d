/** The dev broker: an embedded server with a real broker on it. */
import { childElements, encodeCommand, encodeTopic, findChild, stanza, textOf } from '@xmq/protocol'
import { connectRawClient, startDevBroker, startEmbeddedServer, type DevBroker } from '@xmq/testing'
import { afterEach, expect, test } from 'vitest'

let dev: DevBroker | undefined
afterEach(() => dev?.stop())

const login = (jid: string) => connectRawClient({ port: dev!.server.port, jid, password: 'any' })

test('serves queue1 (any) and queue2 (all) once it has started', async () => {
  dev = await startDevBroker()
  expect(dev.queues.map(({ address, type }) => `${address} ${type}`)).toEqual([
    'queue1.localhost any',
    'queue2.localhost all',
  ])
  expect(dev.server.components()).toEqual(['queue1.localhost', 'queue2.localhost'])
  expect(dev.service).toBe(`xmpp://127.0.0.1:${dev.server.port}`)
})

test('hands a message from a producer to a worker, both made at their first login', async () => {
  dev = await startDevBroker()
  const worker = await login('worker@localhost')
  const producer = await login('producer@localhost')
  const command = encodeCommand({ command: 'sub', topic: 't', ttlSeconds: 60, load: 0 })
  const answer = await worker.request(stanza('iq', { type: 'set', to: 'queue1.localhost' }, [command]))
  expect(answer.attrs.get('type')).toBe('result')
  producer.send("<message to='queue1.localhost' id='1'><body>hi</body><xmq xmlns='xmq:topic' topic='t'/></message>")
  const delivery = await worker.next((root) => root.name === 'message')
  expect([delivery.attrs.get('from'), textOf(findChild(delivery, 'body')!)]).toEqual(['queue1.localhost', 'hi'])
})

test('takes queues with rules of their own', async () => {
  dev = await startDevBroker({ queues: { 'jobs.localhost': { type: 'any', publish: ['boss@localhost'] } } })
  const stranger = await login('stranger@localhost')
  const answer = await stranger.request(stanza('iq', { type: 'get', to: 'jobs.localhost' }, [encodeTopic('t')]))
  expect(childElements(findChild(answer, 'error')!)[0]?.name).toBe('forbidden')
})

test('leaves nothing running when its options are wrong', async () => {
  const before = await startEmbeddedServer()
  await before.stop()
  const ports = { port: before.port, componentPort: before.componentPort }
  const queues = { 'jobs.localhost': { type: 'some' } }
  await expect(startDevBroker({ server: ports, queues })).rejects.toMatchObject({ code: 'invalid-config' })
  const after = await startEmbeddedServer(ports)
  expect(after.port).toBe(before.port)
  await after.stop()
})

test('goes on after the server was restarted', async () => {
  dev = await startDevBroker({ queues: { 'jobs.localhost': 'any' } })
  const back = new Promise<void>((resolve) => dev?.server.on('component', () => resolve()))
  await dev.server.restart()
  await back
  const producer = await login('producer@localhost')
  const answer = await producer.request(stanza('iq', { type: 'get', to: 'jobs.localhost' }, [encodeTopic('t')]))
  expect(childElements(findChild(answer, 'error')!)[0]?.name).toBe('not-acceptable')
})
