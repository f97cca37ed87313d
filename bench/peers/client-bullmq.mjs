/** BullMQ on ioredis. A job that is done is removed, as an acked message is. */
import { Queue, Worker } from 'bullmq'

const JOB = 'bench'
const OPTIONS = { removeOnComplete: true, removeOnFail: true }

/** A connection that adds jobs. */
export async function openProducer({ host, port, queue }) {
  const jobs = new Queue(queue, { connection: { host, port } })
  await jobs.waitUntilReady()
  return {
    publish: (payload) => jobs.add(JOB, payload, OPTIONS),
    publishMany: (payloads) => jobs.addBulk(payloads.map((data) => ({ name: JOB, data, opts: OPTIONS }))),
    close: () => jobs.close(),
  }
}

/** A worker. */
export async function openWorker({ host, port, queue, unacked }, handle) {
  const connection = { host, port, maxRetriesPerRequest: null }
  const worker = new Worker(queue, async ({ data }) => handle(data), { connection, concurrency: unacked })
  worker.on('failed', (_, error) => console.error('failed', error))
  worker.on('error', (error) => console.error('error', error))
  await worker.waitUntilReady()
  return { close: () => worker.close() }
}
