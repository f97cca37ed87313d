/**
 * Producers, all in one process. Either as fast as the workers receive (a window of unreceived messages, so that nothing
 * floods), or at a rate. The workers' process connects to `port` and writes four bytes, a count, after each chunk it read.
 */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { nowMs, serve } from './child.mjs'
import { openSession } from './session.mjs'

serve(async ({ server, users, password, topic, bodyBytes, window }) => {
  const sessions = []
  for (const user of users) sessions.push(await openSession(server, user, password))
  for (const { socket } of sessions) socket.resume()

  let targets = []
  let isRunning = false
  let sent = 0
  let received = 0
  let ticker

  const message = (producer) => {
    const stamp = `#${nowMs().toFixed(3)}#`
    // As the SDK publishes JSON. A <body> would be archived for its sender by both servers, which would be measured instead.
    const json = `<json xmlns='urn:xmpp:json:0'>"${stamp.padEnd(bodyBytes - 2, 'x')}"</json>`
    const to = targets[producer % targets.length]
    return `<message type='normal' to='${to}'><xmq xmlns='xmq:topic' topic='${topic}'>${json}</xmq></message>`
  }
  const fill = () => {
    if (!isRunning) return
    const share = Math.floor((window - (sent - received)) / sessions.length)
    if (share <= 0) return
    for (const [producer, { socket }] of sessions.entries()) {
      let text = ''
      for (let index = 0; index < share; index++) text += message(producer)
      socket.write(text)
    }
    sent += share * sessions.length
  }
  const tick = (rate, startedAt) => {
    const due = Math.floor(((nowMs() - startedAt) * rate) / 1000)
    while (sent < due) {
      const producer = sent % sessions.length
      sessions[producer].socket.write(message(producer))
      sent++
    }
  }

  const credits = createServer((socket) => {
    let rest = Buffer.alloc(0)
    socket.setNoDelay(true)
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      let offset = 0
      for (; offset + 4 <= rest.length; offset += 4) received += rest.readUInt32BE(offset)
      rest = rest.subarray(offset)
      fill()
    })
  })
  credits.listen(0, '127.0.0.1')
  await once(credits, 'listening')

  return {
    ready: { port: credits.address().port },
    /** Where each producer's messages go. */
    aim: (addresses) => {
      targets = addresses
    },
    /** @param {{ rate?: number }} options messages a second of all producers; without it, the window decides */
    start: ({ rate }) => {
      sent = 0
      received = 0
      isRunning = rate === undefined
      if (isRunning) return fill()
      const startedAt = nowMs()
      ticker = setInterval(() => tick(rate, startedAt), 1)
    },
    stop: () => {
      isRunning = false
      clearInterval(ticker)
      return { sent }
    },
  }
})
