/** The broker on its own, and how much memory it takes: looked at four times a second. */
import { createBroker, parseConfig } from '@xmq/broker'
import { cpuMs, serve } from '../through/child.mjs'

serve(async ({ server, domain, store, others = [] }) => {
  const broker = createBroker(
    parseConfig({
      server: `xmpp://${server.host}:${server.componentPort}`,
      secret: server.secret,
      store,
      queues: Object.fromEntries([domain, ...others].map((name) => [name, { type: 'any', maxLength: 10_000_000 }])),
    }),
  )
  const rss = []
  let outboundMax = 0
  let storingMax = 0
  let refusing = 0
  let looks = 0
  let last = ''
  let loads = { loop: 0, input: 0, commit: 0 }
  const look = async () => {
    rss.push(process.memoryUsage.rss())
    storingMax = Math.max(storingMax, broker.stats().storingBytes)
    const text = await broker.metrics()
    last = text
    const read = (name) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(text)?.[1] ?? 0)
    outboundMax = Math.max(outboundMax, read('xmq_link_outbound_bytes'))
    looks++
    refusing += read('xmq_overloaded')
    for (const of of Object.keys(loads)) {
      const value = Number(new RegExp(`^xmq_load_seconds\\{of="${of}"\\} (\\S+)$`, 'm').exec(text)?.[1] ?? 0)
      loads[of] = Math.max(loads[of], value)
    }
    return read
  }
  const timer = setInterval(() => void look(), 250)
  timer.unref()
  broker.on('link', ({ status }) => {
    if (status.state === 'down') console.error(`the broker lost its stream: ${status.reason.message}`)
  })
  await broker.start()
  return {
    /** What was since the last time. */
    sample: async () => {
      const read = await look()
      const sample = {
        cpuMs: cpuMs(),
        rss: rss.splice(0),
        outboundMax,
        storingMax,
        loads,
        refusingShare: refusing / looks,
        refused: Number(/^xmq_refused_total\{[^}]*code="overloaded"\} (\S+)$/m.exec(last)?.[1] ?? 0),
        faults: read('xmq_faults_total'),
        reconnects: read('xmq_link_reconnects_total'),
        stored: read('xmq_messages_stored_total'),
        acked: Number(/^xmq_settled_total\{[^}]*outcome="acked"\} (\S+)$/m.exec(last)?.[1] ?? 0),
      }
      outboundMax = storingMax = refusing = looks = 0
      loads = { loop: 0, input: 0, commit: 0 }
      return sample
    },
    metrics: () => broker.metrics(),
  }
})
