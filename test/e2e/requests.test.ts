/** docs/protocol.md 5 "Requests". */
import { childElements, findChild, resultTo, textOf, withAttrs, writeElement, type XmlElement } from '@xmq/protocol'
import { describe, expect, test } from 'vitest'
import { expectError, expectResult, topicOf, xml } from './expectations.ts'
import { fresh, onEachServer, QUEUES } from './stage.ts'

const SILENT = 'silent@xmq.localhost'
const JSON_NS = 'urn:xmpp:json:0'

const nested = (topic: string, payload = "<query xmlns='urn:test'>q</query>"): string =>
  `<xmq xmlns='xmq:topic' topic='${topic}'>${payload}</xmq>`

function errorTo(request: XmlElement, condition: string): string {
  const { attrs } = request
  return (
    `<iq type='error' id='${attrs.get('id')}' to='${attrs.get('from')}'><error type='cancel'>` +
    `<${condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>the worker's own</text></error></iq>`
  )
}

onEachServer(
  'requests',
  (stage) => {
    test.each([
      ['get', QUEUES.any],
      ['set', QUEUES.any],
      ['get', QUEUES.all],
      ['get', QUEUES.anyNode],
    ] as const)('a nested %s to %s reaches a worker and its answer returns from the queue', async (type, queue) => {
      const topic = fresh('topic')
      const worker = await stage.worker(queue, topic)
      const producer = await stage.client()
      const answer = producer.ask(queue, type, nested(topic, `<json xmlns='${JSON_NS}'>{"a":"ü"}</json>`))
      const asked = await worker.nextRequest()
      expect(Object.fromEntries(asked.attrs)).toMatchObject({ type, from: queue, to: worker.jid })
      expect(topicOf(asked)).toBe(topic)
      expect(childElements(asked)).toHaveLength(1)
      const xmq = findChild(asked, 'xmq', 'xmq:topic')
      const json = xmq && findChild(xmq, 'json', JSON_NS)
      expect(json && textOf(json)).toBe('{"a":"ü"}')
      expect(writeElement(asked)).toContain(producer.jid)
      worker.send(resultTo(asked, [xml(`<json xmlns='${JSON_NS}'>{"b":2}</json>`)]))
      const result = expectResult(await answer)
      expect(result.attrs.get('from')).toBe(queue)
      expect(result.attrs.get('id')).not.toBe(asked.attrs.get('id'))
      expect(writeElement(result)).toContain('{"b":2}')
    })

    test('the flat form: to a worker as it came on ejabberd, refused by Prosody itself', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      const flat = `<custom_query xmlns='urn:test'>some custom data</custom_query><xmq xmlns='xmq:topic' topic='${topic}'/>`
      const answer = producer.ask(QUEUES.any, 'get', flat)
      if (stage.kind === 'prosody') {
        expect(expectError(await answer, 'bad-request').fromBroker).toBe(false)
        return
      }
      const asked = await worker.nextRequest()
      expect(childElements(asked).map((child) => `${child.ns} ${child.name}`)).toEqual(
        expect.arrayContaining(['urn:test custom_query', 'xmq:topic xmq']),
      )
      worker.send(resultTo(asked, [xml("<answer xmlns='urn:test'>done</answer>")]))
      expect(writeElement(expectResult(await answer))).toContain('done')
    })

    test('answers find their requester, whatever order they come in', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producers = [await stage.client(), await stage.client(), await stage.client()]
      const answers = producers.map((producer, index) =>
        producer.ask(QUEUES.any, 'get', nested(topic, `<n xmlns='urn:test'>${index}</n>`)),
      )
      const asked = [await worker.nextRequest(), await worker.nextRequest(), await worker.nextRequest()]
      const numberIn = (root: XmlElement): string => /<n xmlns='urn:test'>(\d)<\/n>/.exec(writeElement(root))?.[1] ?? ''
      for (const request of asked.reverse()) {
        worker.send(resultTo(request, [xml(`<n xmlns='urn:test'>${numberIn(request)}</n>`)]))
      }
      for (const [index, answer] of answers.entries()) expect(numberIn(await answer)).toBe(String(index))
    })

    test("a worker's own error returns as it is", async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      const answer = producer.ask(QUEUES.any, 'get', nested(topic))
      worker.send(errorTo(await worker.nextRequest(), 'undefined-condition'))
      expect(expectError(await answer, 'undefined-condition').message).toBe("the worker's own")
    })

    test.each([QUEUES.any, QUEUES.all])('%s with nobody there: "No recipients found" at once', async (queue) => {
      const producer = await stage.client()
      const answer = await producer.ask(queue, 'get', nested(fresh('topic')))
      expect(expectError(answer, 'not-acceptable').message).toBe('No recipients found')
    })

    test('all: one worker is asked, one answer comes', async () => {
      const topic = fresh('topic')
      const workers = [await stage.worker(QUEUES.all, topic), await stage.worker(QUEUES.all, topic)]
      const producer = await stage.client()
      const answer = producer.ask(QUEUES.all, 'get', nested(topic))
      await producer.fence(QUEUES.all)
      for (const worker of workers) await worker.fence(QUEUES.all)
      const asked = workers.filter((worker) => worker.inbox.length > 0)
      expect(asked).toHaveLength(1)
      for (const worker of asked) worker.send(resultTo(await worker.nextRequest()))
      expectResult(await answer)
      await producer.fence(QUEUES.all)
      expect(producer.inbox).toEqual([])
      for (const each of workers) {
        await each.fence(QUEUES.all)
        expect(each.inbox).toEqual([])
      }
    })

    test('a worker that vanished without a word is passed over: the next one is asked', async () => {
      const topic = fresh('topic')
      const vanished = await stage.client()
      await vanished.sub(QUEUES.any, topic) // no presence: the broker cannot know
      await vanished.cut()
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      for (const body of ['1', '2']) {
        const answer = producer.ask(QUEUES.any, 'get', nested(topic, `<n xmlns='urn:test'>${body}</n>`))
        worker.send(resultTo(await worker.nextRequest()))
        expectResult(await answer)
      }
    })

    test('a worker whose session ends at work: worker-gone, and nobody else is asked', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(QUEUES.any, topic)
      const producer = await stage.client()
      const answer = producer.ask(QUEUES.any, 'get', nested(topic))
      await worker.nextRequest()
      const other = await stage.worker(QUEUES.any, topic)
      await worker.cut()
      expect(expectError(await answer, 'recipient-unavailable').code).toBe('worker-gone')
      await other.fence(QUEUES.any)
      expect(other.inbox).toEqual([])
    })

    test('a worker that never answers: timeout; its late answer is dropped', async () => {
      const topic = fresh('topic')
      const worker = await stage.worker(SILENT, topic)
      const producer = await stage.client()
      const answer = producer.ask(SILENT, 'get', nested(topic))
      const asked = await worker.nextRequest()
      expect(expectError(await answer, 'remote-server-timeout').code).toBe('timeout')
      worker.send(resultTo(asked))
      await worker.fence(SILENT)
      await producer.fence(SILENT)
      expect(producer.inbox).toEqual([])
    })

    describe('security', () => {
      test('an answer from another account, or another session of the worker, does not count', async () => {
        const topic = fresh('topic')
        const worker = await stage.worker(QUEUES.any, topic)
        const producer = await stage.client()
        const thief = await stage.client()
        const twin = await stage.client(worker.user)
        const answer = producer.ask(QUEUES.any, 'get', nested(topic))
        const asked = await worker.nextRequest()
        const forged = withAttrs(resultTo(asked, [xml("<forged xmlns='urn:test'/>")]), { from: undefined })
        for (const forger of [thief, twin]) {
          forger.send(forged)
          forger.send(errorTo(asked, 'undefined-condition'))
          await forger.fence(QUEUES.any)
        }
        worker.send(resultTo(asked, [xml("<true xmlns='urn:test'/>")]))
        const result = expectResult(await answer)
        expect(writeElement(result)).toContain('<true')
        expect(thief.inbox).toEqual([])
      })

      test('a request that a live subscriber does not know takes none of its messages away', async () => {
        const topics = [fresh('topic'), fresh('topic')]
        const reader = await stage.client()
        for (const topic of topics) expectResult(await reader.sub(QUEUES.any, topic))
        const producer = await stage.client()
        const answer = producer.ask(QUEUES.any, 'get', nested(topics[0] as string))
        // RFC 6120 8.4: what every client answers to an IQ that it does not understand.
        reader.send(errorTo(await reader.nextRequest(), 'service-unavailable'))
        expectError(await answer, 'not-acceptable')
        await reader.fence(QUEUES.any)
        for (const topic of topics) {
          producer.send(`<message to='${QUEUES.any}' id='${topic}'><xmq xmlns='xmq:topic' topic='${topic}'/></message>`)
          expect((await reader.nextMessage()).attrs.get('id')).toBe(topic)
        }
      })

      test('a second answer of the worker is dropped', async () => {
        const topic = fresh('topic')
        const worker = await stage.worker(QUEUES.any, topic)
        const producer = await stage.client()
        const answer = producer.ask(QUEUES.any, 'get', nested(topic))
        const asked = await worker.nextRequest()
        worker.send(resultTo(asked))
        worker.send(resultTo(asked))
        expectResult(await answer)
        await worker.fence(QUEUES.any)
        await producer.fence(QUEUES.any)
        expect(producer.inbox).toEqual([])
      })
    })
  },
  { queues: { [SILENT]: { type: 'any', requestTimeout: '300ms' } } },
)
