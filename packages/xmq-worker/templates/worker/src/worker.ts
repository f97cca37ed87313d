import { type ConnectionOptions, Worker } from '@xmq/client'
import { greet } from './topics.ts'

/** `xmq-worker` calls this with the connection from the environment, the test with that of its own broker. */
export default function createWorker(connection: ConnectionOptions): Worker {
  return new Worker({ ...connection, concurrency: 4 }).handle(greet, ({ name }) => ({ text: `Hello, ${name}!` }))
}
