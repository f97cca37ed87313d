/** What does not compile. `tsc -b packages/client/test` is the test; the running part only keeps the types honest. */
import { expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import {
  type Client,
  connect,
  type ConnectOptions,
  type DeadLetter,
  defineTopic,
  type HandlerContext,
  type Published,
  type PublishOutcome,
  Reject,
  RetryAfter,
  type XmlElement,
  Worker,
} from '../src/index.ts'

const size = defineTopic('images.size', {
  input: z.object({ url: z.string(), scale: z.coerce.number().default(1) }),
  output: z.object({ width: z.number() }),
})
const note = defineTopic('note', { encoding: 'text' })
const markup = defineTopic('markup', { encoding: 'xml' })
const anything = defineTopic('anything')

// Never called: only compiled.
function producer(mq: Client): void {
  void mq.publish(size, { url: 'a' })
  void mq.publish(size, { url: 'a', scale: '2' })
  void mq.publish(note, 'text')
  void mq.publish(anything, { what: 'ever' })
  void mq.publish('by name', 7)
  // @ts-expect-error -- url is a string
  void mq.publish(size, { url: 7 })
  // @ts-expect-error -- url is missing
  void mq.publish(size, {})
  // @ts-expect-error -- there is no heigth
  void mq.publish(size, { url: 'a', heigth: 1 })
  // @ts-expect-error -- a text topic takes strings
  void mq.publish(note, { url: 'a' })
  // @ts-expect-error -- an xml topic takes elements
  void mq.publish(markup, '<a/>')
  // @ts-expect-error -- url is a string
  void mq.request(size, { url: 7 })
  void mq.publish(size, { url: 'a' }, { id: 'a', delay: '10m', ttl: '1h', priority: 5, key: 'k', headers: { a: 'b' } })
  // @ts-expect-error -- a duration has a unit
  void mq.publish(size, { url: 'a' }, { delay: '10 minutes' })
  expectTypeOf(mq.publish(size, { url: 'a' })).resolves.toEqualTypeOf<Published>()
  expectTypeOf(mq.publishMany(size, [{ payload: { url: 'a' }, key: 'k' }])).resolves.toEqualTypeOf<PublishOutcome[]>()
  // @ts-expect-error -- url is a string
  void mq.publishMany(size, [{ payload: { url: 7 } }])
  expectTypeOf(mq.deadLetters.show(1)).resolves.toEqualTypeOf<DeadLetter | undefined>()
  expectTypeOf(mq.request(size, { url: 'a' })).resolves.toEqualTypeOf<{ width: number }>()
  expectTypeOf(mq.request(note, 'a')).resolves.toEqualTypeOf<string>()
  expectTypeOf(mq.request(markup, [])).resolves.toEqualTypeOf<readonly XmlElement[]>()
  expectTypeOf(mq.request(anything, 1)).resolves.toEqualTypeOf<unknown>()
  mq.on('returned', ({ error }) => expectTypeOf(error.code).not.toEqualTypeOf<string>())
  // @ts-expect-error -- there is no such event
  mq.on('back', () => {})
}

function consumer(worker: Worker): void {
  worker.handle(size, (payload, context) => {
    // After the schema: the default is there.
    expectTypeOf(payload).toEqualTypeOf<{ url: string; scale: number }>()
    expectTypeOf(context).toEqualTypeOf<HandlerContext>()
    return { width: payload.scale }
  })
  worker.handle(note, (text) => void expectTypeOf(text).toEqualTypeOf<string>())
  worker.handle(markup, async (elements) => elements[0])
  worker.handle(anything, (payload) => expectTypeOf(payload).toEqualTypeOf<unknown>())
  worker.handle('images.>', (_, { attempt, headers, seq }) => {
    expectTypeOf(headers).toEqualTypeOf<ReadonlyMap<string, string>>()
    expectTypeOf(seq).toEqualTypeOf<number | undefined>()
    if (attempt > 3) throw new Reject('enough')
    throw new RetryAfter('5m', 'busy')
  })
  worker.handle(note, () => {}, { name: 'billing' })
  // @ts-expect-error -- a duration has a unit
  void new RetryAfter('soon')
  // @ts-expect-error -- width is a number
  worker.handle(size, () => ({ width: 'wide' }))
  // @ts-expect-error -- an answer is missing
  worker.handle(size, () => {})
  // @ts-expect-error -- a text topic answers with text
  worker.handle(note, () => 7)
}

async function listener(options: ConnectOptions): Promise<void> {
  await connect({ ...options, on: { offline: ({ retryAt }) => expectTypeOf(retryAt).toEqualTypeOf<number>() } })
  // @ts-expect-error -- a client subscribes to nothing
  await connect({ ...options, on: { subscribed: () => {} } })
  new Worker({ ...options, on: { subscribed: ({ topic }) => expectTypeOf(topic).toEqualTypeOf<string>() } }).use(
    (_, proceed) => proceed(),
  )
}

it('a wrong payload is a compile error', () => {
  expect([producer, consumer, listener]).toHaveLength(3)
})
