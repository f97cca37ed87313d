/**
 * An XMPP server and a reliable queue that do nothing, by string surgery: a publish is confirmed, a worker's credit is filled,
 * and what it settles is counted. So the SDK is all that costs.
 */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { serve } from '../through/child.mjs'

const QUEUE = 'jobs.localhost'
const OPENED = `<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' from='localhost' version='1.0'>`
const MECHANISMS = `<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>`
const BIND = `<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>`
const INFO = `<query xmlns='http://jabber.org/protocol/disco#info'><feature var='xmq:topic'/><feature var='xmq:queue:1'/><feature var='xmq:queue:1#packed'/></query>`
/** JSON of 200 bytes, with its quotes escaped as ejabberd writes it. */
const TEXT = JSON.stringify({ serial: '1000000', at: '123456789.123', text: 'x'.repeat(148) }).replaceAll('"', '&quot;')
const ITEMS_MAX = 100

serve(async () => {
  let seq = 0
  const server = createServer((socket) => {
    socket.setNoDelay(true)
    socket.on('error', () => undefined)
    let text = ''
    let isLoggedIn = false
    let credit = 0
    let inFlight = 0

    const result = (id, inner = '') => `<iq type='result' id='${id}' from='${QUEUE}' to='me@localhost/1'>${inner}</iq>`
    const items = (count) => {
      let out = ''
      for (let left = count; left > 0; left--) {
        seq++
        const lease = `${seq}.5e0d6c1c9a6b4c7e8d0a3b6f2c4e8a10`
        const id = '9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d'
        out += `${lease}\t${seq}\t${id}\tbench\tproducer@localhost/9f1c2d\t1767323045678\t1\t\t\tj${TEXT}\n`
      }
      return out
    }
    const deliver = () => {
      let out = ''
      while (credit - inFlight >= Math.min(credit, ITEMS_MAX)) {
        const count = Math.min(credit - inFlight, ITEMS_MAX)
        inFlight += count
        const inner = `<deliver xmlns='xmq:queue:1' lease-seconds='30' encoding='packed'>${items(count)}</deliver>`
        out += `<iq type='set' id='d${seq}' from='${QUEUE}' to='me@localhost/1'>${inner}</iq>`
      }
      return out
    }
    const answer = (stanza) => {
      const id = / id='([^']+)'/.exec(stanza)?.[1]
      inFlight -= countOf(stanza, '<ack ') + packedAcks(stanza)
      if (stanza.includes('<publish ')) {
        const seqs = Array.from({ length: countOf(stanza, '\n') }, () => ++seq).join(' ')
        return result(id, `<published xmlns='xmq:queue:1' durability='disk' encoding='packed'>${seqs}</published>`)
      }
      if (stanza.includes("type='result'")) return deliver()
      if (stanza.includes('<settle ')) return result(id, `<settled xmlns='xmq:queue:1'/>`) + deliver()
      if (stanza.includes('<query ')) return result(id, INFO)
      if (stanza.includes("command='sub'")) {
        credit = Number(/credit='(\d+)'/.exec(stanza)?.[1])
        return result(id) + deliver()
      }
      if (stanza.includes('<renew ')) return result(id, `<renewed xmlns='xmq:queue:1' subscriptions='1'/>`)
      if (stanza.includes('<bind ')) {
        const bound = `<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>me@localhost/1</jid></bind>`
        return `<iq type='result' id='${id}'>${bound}</iq>`
      }
      return ''
    }
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      let out = ''
      for (;;) {
        const found =
          /<stream:stream[^>]*>|<auth .*?<\/auth>|<\/stream:stream>|<iq [^>]*\/>|<iq .*?<\/iq>|<presence[^>]*\/>/s.exec(
            text,
          )
        if (found === null) break
        text = text.slice(found.index + found[0].length)
        if (found[0].startsWith('<stream:stream')) out += OPENED + (isLoggedIn ? BIND : MECHANISMS)
        else if (found[0].startsWith('<auth')) {
          isLoggedIn = true
          out += `<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>`
        } else if (found[0] === '</stream:stream>') socket.end('</stream:stream>')
        else out += answer(found[0])
      }
      if (out !== '') socket.write(out)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { ready: { port: server.address().port } }
})

function countOf(text, part) {
  let count = 0
  for (let at = text.indexOf(part); at !== -1; at = text.indexOf(part, at + part.length)) count++
  return count
}

/** Those that went along with a received: a lease a line. */
function packedAcks(stanza) {
  const acks = /<acks>([^<]*)/.exec(stanza)
  return acks === null ? 0 : countOf(acks[1].trim(), '\n') + 1
}
