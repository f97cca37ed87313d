/** Workers, all in one process: they count, tell the producers how many they got, and read the time stamps when asked to. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { cpuMs, nowMs, serve } from './child.mjs'
import { openSession, subscribe } from './session.mjs'

const END = '</message>'
const PING = /<iq [^>]*\bfrom=['"]([^'"]+)['"][^>]*>\s*<ping /

serve(async ({ server, users, password, creditPort, queue, topic }) => {
  const credits = connect(creditPort, '127.0.0.1')
  credits.setNoDelay(true)
  await once(credits, 'connect')
  let received = 0
  /** Milliseconds on the way of each message; `undefined` while only counting. */
  let latencies

  const read = (socket) => {
    let carry = ''
    socket.on('data', (chunk) => {
      const now = nowMs()
      const text = carry + chunk.toString('latin1')
      let count = 0
      let start = 0
      for (let end = text.indexOf(END); end !== -1; end = text.indexOf(END, start)) {
        if (latencies !== undefined) {
          const stamp = text.indexOf('#', start)
          latencies.push(now - Number(text.slice(stamp + 1, text.indexOf('#', stamp + 1))))
        }
        count++
        start = end + END.length
      }
      carry = text.slice(start)
      if (count > 0) {
        received += count
        const credit = Buffer.allocUnsafe(4)
        credit.writeUInt32BE(count)
        credits.write(credit)
      } else if (PING.test(carry)) {
        const [, from] = PING.exec(carry)
        const [, id] = /\bid=['"]([^'"]+)/.exec(carry)
        socket.write(`<iq type='result' to='${from}' id='${id}'/>`)
        carry = ''
      }
    })
  }
  const jids = []
  for (const user of users) {
    const session = await openSession(server, user, password)
    await subscribe(session, queue, topic)
    jids.push(session.jid)
    read(session.socket)
  }
  return {
    ready: { jids },
    sample: () => ({ received, at: nowMs(), cpuMs: cpuMs() }),
    startLatencies: () => {
      latencies = []
    },
    stopLatencies: () => {
      const all = latencies.sort((a, b) => a - b)
      latencies = undefined
      const at = (part) => all[Math.min(all.length - 1, Math.floor(all.length * part))]
      return { count: all.length, p50: at(0.5), p99: at(0.99) }
    },
  }
})
