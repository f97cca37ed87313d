/**
 * Reliable workers by text alone, all in one process: each message is acked at once, all but one of a stanza with the answer to it,
 * the last by a `<settle/>`, whose answer is timed.
 */
import { Answers } from './answers.mjs'
import { nowMs, serve } from '../through/child.mjs'
import { openSession } from '../through/session.mjs'

serve(async ({ server, users, password, queue, topic, credit }) => {
  let acked = 0
  let ackedSum = 0
  let again = 0
  let failedSettles = 0
  let latencies = []
  const seen = new Map()
  const jids = []

  const isNew = (name) => {
    const [session, serial, item] = name.split('.').map(Number)
    let states = seen.get(session)
    if (states === undefined || serial >= states.length) {
      const grown = new Uint32Array(Math.max(1 << 16, serial * 2))
      if (states !== undefined) grown.set(states)
      seen.set(session, grown)
      states = grown
    }
    const bit = 1 << (item % 32)
    if ((states[serial] & bit) !== 0) return false
    states[serial] |= bit
    ackedSum += (session + 1) * (serial + 1) + item
    return true
  }
  for (const user of users) {
    const { socket, jid } = await openSession(server, user, password)
    jids.push(jid)
    const waiting = new Map()
    let serial = 0
    const answers = new Answers((head, text) => {
      const id = /\bid=['"]([^'"]+)/.exec(head)?.[1]
      const sentAt = waiting.get(id)
      if (sentAt !== undefined) {
        waiting.delete(id)
        latencies.push(nowMs() - sentAt)
        if (/\btype=['"]error/.test(head) || text.includes('<error')) failedSettles++
        return
      }
      if (text.includes('<ping ')) {
        socket.write(`<iq type='result' to='${/\bfrom=['"]([^'"]+)/.exec(head)?.[1]}' id='${id}'/>`)
        return
      }
      if (!text.includes('<deliver ')) return
      const leases = []
      for (const [item] of text.matchAll(/<item [^>]*>/g)) {
        leases.push(/\blease=['"]([^'"]+)/.exec(item)[1])
        if (isNew(/\bid=['"]([^'"]+)/.exec(item)[1])) acked++
        else again++
      }
      const last = leases.pop()
      const settle = leases.map((lease) => `<ack lease='${lease}'/>`).join('')
      const name = `t${serial++}`
      waiting.set(name, nowMs())
      socket.write(
        `<iq type='result' id='${id}' to='${queue}'>${settle === '' ? '' : `<settle xmlns='xmq:queue:1'>${settle}</settle>`}</iq>` +
          `<iq type='set' id='${name}' to='${queue}'><settle xmlns='xmq:queue:1'><ack lease='${last}'/></settle></iq>`,
      )
    })
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => answers.read(chunk.toString('latin1')))
    const consume = `<consume xmlns='xmq:queue:1' credit='${credit}'/>`
    socket.write(
      `<presence to='${queue}'/><iq type='set' id='sub' to='${queue}'><xmq xmlns='xmq:command' command='sub' topic='${topic}' ttl='3600' load='0'>${consume}</xmq></iq>`,
    )
  }
  return {
    ready: { jids },
    sample: () => {
      const sorted = latencies.sort((left, right) => left - right)
      latencies = []
      const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]
      return { acked, ackedSum, again, failedSettles, at: nowMs(), settles: sorted.length, p50: at(0.5), p99: at(0.99) }
    },
  }
})
