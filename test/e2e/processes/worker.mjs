// A worker in a process of its own, to be killed: handles one topic, and says so line by line. XMQ_WORKER holds its options.
import { Worker } from '@xmq/client'

const { topic, ...options } = JSON.parse(process.env.XMQ_WORKER)
const worker = new Worker(options)
worker.handle(topic, (payload) => {
  console.log(`handled ${payload}`)
  return payload
})
worker.on('subscribed', () => console.log('subscribed'))
await worker.start()
