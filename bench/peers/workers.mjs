/** Workers, all in one process, a connection each: an empty handler that counts, and reads the time stamps when asked to. */
import { cpuMs, nowMs, serve } from '../through/child.mjs'

serve(async ({ client, connections, ...options }) => {
  const { openWorker } = await import(client)
  let received = 0
  let lastAt = 0
  /** Milliseconds on the way of each message; `undefined` while only counting. */
  let latencies

  const handle = (payload) => {
    received++
    lastAt = nowMs()
    latencies?.push(lastAt - Number(payload.at))
  }
  const workers = []
  for (let index = 0; index < connections; index++) workers.push(await openWorker({ ...options, index }, handle))
  return {
    ready: {},
    sample: () => ({ received, lastAt, cpuMs: cpuMs() }),
    startLatencies: () => {
      latencies = []
    },
    stopLatencies: () => {
      const all = latencies.sort((a, b) => a - b)
      latencies = undefined
      const at = (part) => all[Math.min(all.length - 1, Math.floor(all.length * part))]
      return { count: all.length, p50: at(0.5), p99: at(0.99) }
    },
    /** Ends all; what was not acked goes back to its queue. */
    close: async () => {
      await Promise.all(workers.map((worker) => worker.close()))
    },
  }
})
