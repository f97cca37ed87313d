/** XMQ's own SDK. */
import { connect, Worker } from '@xmq/client'

const TOPIC = 'bench'

/** A connection that publishes. */
export async function openProducer({ service, password, queue, index }) {
  const client = await connect({ service, jid: `producer${index}@localhost`, password, queue, pendingMax: 100_000 })
  return {
    publish: (payload) => client.publish(TOPIC, payload),
    publishMany: async (payloads) => {
      const outcomes = await client.publishMany(
        TOPIC,
        payloads.map((payload) => ({ payload })),
      )
      const failed = outcomes.find(({ status }) => status === 'failed')
      if (failed !== undefined) throw failed.error
    },
    close: () => client.close(),
  }
}

/** A worker; half of its `unacked` messages run, the others wait in it. */
export async function openWorker({ service, password, queue, index, unacked }, handle) {
  const concurrency = unacked >> 1
  const jid = `worker${index}@localhost`
  const worker = new Worker({ service, jid, password, queue, concurrency, prefetch: unacked - concurrency })
  worker.handle(TOPIC, async (payload) => handle(payload))
  worker.on('failed', ({ error }) => console.error('failed', error))
  await worker.start()
  return { close: () => worker.stop() }
}
