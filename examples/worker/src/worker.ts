/** A worker. Start as many as you like: the queue gives each order to one of them, in turn. */
import { Worker } from '@xmq/client'
import { orderPlaced, priceOf } from './topics.ts'

const {
  XMQ_SERVICE = 'xmpp://127.0.0.1:5222',
  XMQ_QUEUE = 'queue1.localhost',
  XMQ_JID = 'worker@localhost',
  XMQ_PASSWORD = 'worker',
  WORKER_NAME = `worker ${process.pid}`,
} = process.env

const CENTS = { espresso: 220, 'flat white': 340, filter: 260 }

const worker = new Worker({
  service: XMQ_SERVICE,
  jid: XMQ_JID,
  password: XMQ_PASSWORD,
  queue: XMQ_QUEUE,
  concurrency: 4,
})
  .handle(orderPlaced, ({ number, drink, cups }) => {
    console.log(`${WORKER_NAME} got order ${number}: ${cups} × ${drink}`)
  })
  .handle(priceOf, ({ drink, cups }) => ({ cents: CENTS[drink] * cups }))

worker.on('subscribed', ({ topic, renewal }) => {
  if (!renewal) console.log(`${WORKER_NAME} is ready for ${topic}`)
})
worker.on('offline', ({ reason }) => console.log(`${WORKER_NAME} is offline: ${reason.message}`))

await worker.run()
