/**
 * Producers, all in one process, a connection each: as fast as they are confirmed (a window of unconfirmed messages a
 * connection), or at a rate. The client library is the system's own.
 */
import { cpuMs, nowMs, serve } from '../through/child.mjs'

serve(async ({ client, connections, window, bodyBytes, ...options }) => {
  const { openProducer } = await import(client)
  const producers = []
  for (let index = 0; index < connections; index++) producers.push(await openProducer({ ...options, index }))
  const bare = Buffer.byteLength(JSON.stringify(body('', '', '')))

  let isRunning = false
  /** How many to publish; without end while the time decides. */
  let goal = Number.POSITIVE_INFINITY
  let sent = 0
  let confirmed = 0
  let failure
  let onConfirmed = () => {}
  let ticker

  /** JSON of `bodyBytes` bytes, whatever the numbers in it. */
  const payload = () => {
    const serial = String(sent)
    const at = nowMs().toFixed(3)
    return body(serial, at, 'x'.repeat(Math.max(0, bodyBytes - bare - serial.length - at.length)))
  }
  const mayPublish = () => isRunning && sent < goal
  const over = (count, error) => {
    confirmed += count
    if (error !== undefined) {
      failure ??= error
      isRunning = false
    }
    if (confirmed === sent && !mayPublish()) onConfirmed()
  }
  const publish = async (producer) => {
    const next = payload()
    sent++
    await producer.publish(next).then(
      () => over(1),
      (error) => over(1, error),
    )
  }
  const publishOn = async (producer) => {
    while (mayPublish()) await publish(producer)
  }
  /** A batch is one call; all of it is confirmed before the next one is made. */
  const publishBatches = async (producer, size) => {
    while (mayPublish()) {
      const payloads = []
      for (let left = Math.min(size, goal - sent); left > 0; left--, sent++) payloads.push(payload())
      await producer.publishMany(payloads).then(
        () => over(payloads.length),
        (error) => over(payloads.length, error),
      )
    }
  }
  const tick = (rate, startedAt) => {
    if (!isRunning) return
    const due = Math.floor(((nowMs() - startedAt) * rate) / 1000)
    for (let missing = due - sent; missing > 0; missing--) {
      void publish(producers[sent % producers.length])
    }
  }

  return {
    ready: {},
    /** @param {{ rate?: number, messages?: number, batch?: number }} how without a rate, as fast as they are confirmed */
    start: ({ rate, messages, batch }) => {
      sent = 0
      confirmed = 0
      goal = messages ?? Number.POSITIVE_INFINITY
      isRunning = true
      const startedAt = nowMs()
      if (rate !== undefined) {
        ticker = setInterval(() => tick(rate, startedAt), 1)
        return { startedAt }
      }
      for (const producer of producers) {
        if (batch === undefined) for (let open = 0; open < window; open++) void publishOn(producer)
        else for (let open = 0; open < window; open += batch) void publishBatches(producer, batch)
      }
      return { startedAt }
    },
    /** Resolves when all that was published is confirmed. */
    stop: async () => {
      if (goal === Number.POSITIVE_INFINITY) isRunning = false
      clearInterval(ticker)
      if (confirmed < sent || mayPublish()) await new Promise((resolve) => (onConfirmed = resolve))
      isRunning = false
      if (failure !== undefined) throw failure
      return { sent }
    },
    sample: () => ({ cpuMs: cpuMs() }),
    close: async () => {
      for (const producer of producers) await producer.close()
    },
  }
})

function body(serial, at, text) {
  return { serial, at, text }
}
