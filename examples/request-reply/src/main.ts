/** A question and its answer; an answer that is an error; and a question that nobody can answer. */
import { connect, defineTopic, Worker, XmqError } from '@xmq/client'
import { z } from 'zod'

const {
  XMQ_SERVICE = 'xmpp://127.0.0.1:5222',
  XMQ_QUEUE = 'queue1.localhost',
  XMQ_JID = 'calculator@localhost',
  XMQ_PASSWORD = 'calculator',
} = process.env

const connection = { service: XMQ_SERVICE, jid: XMQ_JID, password: XMQ_PASSWORD, queue: XMQ_QUEUE }

const divide = defineTopic('math.divide', {
  input: z.object({ dividend: z.number(), divisor: z.number() }),
  output: z.object({ quotient: z.number() }),
})
const nobodyDoesThis = defineTopic('math.prove-p-equals-np')

const worker = new Worker(connection).handle(divide, ({ dividend, divisor }) => {
  if (divisor === 0) throw new Error('Nothing can be divided by zero')
  return { quotient: dividend / divisor }
})
worker.on('failed', ({ topic, error }) => console.log(`worker: ${topic} failed: ${error.message}`))
await worker.start()
const mq = await connect(connection)

const { quotient } = await mq.request(divide, { dividend: 42, divisor: 6 })
console.log(`42 / 6 = ${quotient}`)

const failures = [
  () => mq.request(divide, { dividend: 42, divisor: 0 }),
  () => mq.request(nobodyDoesThis, {}),
  () => mq.request(divide, { dividend: 1, divisor: 3 }, { signal: AbortSignal.abort() }),
]
for (const attempt of failures) {
  try {
    await attempt()
  } catch (error) {
    // The code is stable and made for programs, the message is made for people.
    if (!(error instanceof XmqError)) throw error
    console.log(`${error.code}: ${error.message}`)
  }
}

await mq.close()
await worker.stop()
