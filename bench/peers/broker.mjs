/** XMQ's broker as `xmq serve` runs it, with its store on disk. */
import { createBroker, parseConfig } from '@xmq/broker'
import { serve } from '../through/child.mjs'

serve(async ({ server, queue, path }) => {
  const broker = createBroker(
    parseConfig({
      server: `xmpp://${server.host}:${server.componentPort}`,
      secret: server.secret,
      store: `sqlite:${path}`,
      queues: { [queue]: { type: 'any' } },
    }),
  )
  await broker.start()
  return { ready: { pid: process.pid }, metrics: () => broker.metrics(), stop: () => broker.stop() }
})
