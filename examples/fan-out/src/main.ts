/** Fan-out: on a queue of type `all`, everyone who listens gets each message. */
import { connect, defineTopic, Worker } from '@xmq/client'
import { z } from 'zod'

const {
  XMQ_SERVICE = 'xmpp://127.0.0.1:5222',
  XMQ_QUEUE = 'queue2.localhost',
  XMQ_JID = 'cafe@localhost',
  XMQ_PASSWORD = 'cafe',
} = process.env

const connection = { service: XMQ_SERVICE, jid: XMQ_JID, password: XMQ_PASSWORD, queue: XMQ_QUEUE }

const orderReady = defineTopic('orders.ready', { input: z.object({ number: z.int() }) })

/** Starts a listener; `heardAll` resolves when it has got `count` messages. */
async function listen(name: string, count: number): Promise<{ worker: Worker; heardAll: Promise<void> }> {
  const worker = new Worker(connection)
  const heardAll = new Promise<void>((resolve) => {
    let heard = 0
    worker.handle(orderReady, ({ number }) => {
      console.log(`${name} heard that order ${number} is ready`)
      if (++heard === count) resolve()
    })
  })
  await worker.start()
  return { worker, heardAll }
}

const listeners = await Promise.all(['screen', 'till', 'kitchen'].map((name) => listen(name, 2)))

const mq = await connect(connection)
await mq.publish(orderReady, { number: 1 })
await mq.publish(orderReady, { number: 2 })

await Promise.all(listeners.map(({ heardAll }) => heardAll))
await mq.close()
await Promise.all(listeners.map(({ worker }) => worker.stop()))
