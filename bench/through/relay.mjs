/**
 * The null relay: a component that does the least that a broker could. It rewrites the two addresses of each message by
 * string surgery, hands them to the workers in turn, and writes once for each chunk that it read.
 */
import { cpuMs, serve } from './child.mjs'
import { openComponent } from './session.mjs'

const END = '</message>'
/** What the protocol adds to every delivery (docs/protocol.md 4): a relay that adds it too writes the broker's stanza. */
const ADDED =
  "<addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='producer0@localhost/0123456789'/></addresses>" +
  "<no-store xmlns='urn:xmpp:hints'/><no-copy xmlns='urn:xmpp:hints'/><private xmlns='urn:xmpp:carbons:2'/>"

serve(async ({ server, domain }) => {
  const socket = await openComponent(server, domain)
  let workers = []
  let turn = 0
  let carry = ''
  let added = ''
  const rewrite = (stanza) => {
    const end = stanza.indexOf('>')
    const head = stanza.slice(0, end)
    // A delivery that came back: its worker is gone.
    if (/ type=['"]error/.test(head)) return ''
    const rest = head.replace(/ (?:from|to)=(?:'[^']*'|"[^"]*")/g, '')
    return `${rest} from='${domain}' to='${workers[turn++ % workers.length]}'${stanza.slice(end, -END.length)}${added}${END}`
  }
  socket.on('data', (chunk) => {
    const text = carry + chunk.toString('latin1')
    let out = ''
    let start = 0
    for (let end = text.indexOf(END); end !== -1; end = text.indexOf(END, start)) {
      out += rewrite(text.slice(start, end + END.length))
      start = end + END.length
    }
    carry = text.slice(start)
    if (out !== '') socket.write(out, 'latin1')
  })
  return {
    use: (jids) => {
      workers = jids
    },
    /** Whether to add what the broker adds. */
    add: (isFull) => {
      added = isFull ? ADDED : ''
    },
    sample: () => ({ cpuMs: cpuMs() }),
  }
})
