/** The broker as `xmq serve` runs it, with the memory store. */
import { createBroker, parseConfig } from '@xmq/broker'
import { cpuMs, serve } from './child.mjs'

serve(async ({ server, domain }) => {
  const broker = createBroker(
    parseConfig({
      server: `xmpp://${server.host}:${server.componentPort}`,
      secret: server.secret,
      queues: { [domain]: { type: 'any' } },
    }),
  )
  await broker.start()
  return { sample: () => ({ cpuMs: cpuMs() }) }
})
