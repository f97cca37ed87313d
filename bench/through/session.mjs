/** Raw XMPP sessions by text alone: nothing between the socket and the benchmark that would cost what is not measured. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'

const STREAM = "version='1.0' xmlns:stream='http://etherx.jabber.org/streams'"

async function dial(host, port) {
  const socket = connect(port, host)
  socket.setNoDelay(true)
  await once(socket, 'connect')
  return socket
}

/** Sends text and resolves with what came once it matches. */
async function converse(socket, text, pattern) {
  socket.write(text)
  let got = ''
  for (;;) {
    const [chunk] = await once(socket, 'data', { signal: AbortSignal.timeout(20_000) })
    got += chunk
    const match = pattern.exec(got)
    if (match !== null) return match
    if (/<stream:error|<failure|type=.error/.test(got)) throw new Error(`The server refused: ${got}`)
  }
}

/** A client, logged in and bound. @returns {Promise<{ socket: import('node:net').Socket, jid: string }>} */
export async function openSession(server, user, password) {
  const socket = await dial(server.host, server.c2sPort)
  const header = `<stream:stream to='${server.domain}' xmlns='jabber:client' ${STREAM}>`
  const secret = Buffer.from(`\0${user}\0${password}`).toString('base64')
  await converse(socket, header, /<\/stream:features>/)
  await converse(
    socket,
    `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${secret}</auth>`,
    /<success/,
  )
  await converse(socket, header, /<\/stream:features>/)
  const bind = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
  const [, jid] = await converse(socket, bind, /<jid>([^<]+)<\/jid>[\s\S]*<\/iq>/)
  return { socket, jid }
}

/** Subscribes a session to a topic, after the presence by which a broker learns of its end. */
export async function subscribe({ socket }, queue, topic) {
  const sub = `<xmq xmlns='xmq:command' command='sub' topic='${topic}' ttl='3600' load='1'/>`
  const iq = `<presence to='${queue}'/><iq type='set' id='sub' to='${queue}'>${sub}</iq>`
  await converse(socket, iq, /<iq [^>]*type=.result/)
}

/** A component, connected (XEP-0114). */
export async function openComponent(server, domain) {
  const socket = await dial(server.host, server.componentPort)
  const header = `<stream:stream to='${domain}' xmlns='jabber:component:accept' ${STREAM}>`
  const [, id] = await converse(socket, header, /<stream:stream [^>]*\bid=['"]([^'"]+)/)
  const digest = createHash('sha1')
    .update(id + server.secret)
    .digest('hex')
  await converse(socket, `<handshake>${digest}</handshake>`, /<handshake/)
  return socket
}
