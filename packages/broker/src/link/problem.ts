/** Why a component stream ended: what to tell people, and how long to wait before the next try. */
import { NS_STREAM_ERROR, XmqError, textOf, type XmlElement, type XmqErrorCode } from '@xmq/protocol'

/** `soon`: backoff. `later`: the long pause, since only a person can mend it. `contested`: somebody else has the domain. */
export type RetryPace = 'soon' | 'later' | 'contested'

/** The end of a stream. */
export interface LinkProblem {
  readonly reason: XmqError
  /** What exactly to change, on ejabberd and on Prosody. */
  readonly hint?: string
  readonly pace: RetryPace
}

/** What the texts name. */
export interface LinkPlace {
  readonly host: string
  readonly port: number
  readonly domain: string
}

function problem(code: XmqErrorCode, message: string, pace: RetryPace, hint?: string, cause?: unknown): LinkProblem {
  const reason = new XmqError(code, message, cause === undefined ? {} : { cause })
  return hint === undefined ? { reason, pace } : { reason, pace, hint }
}

/** A stream that ended for a reason that trying again may mend. */
export function lost(code: XmqErrorCode, message: string, hint?: string): LinkProblem {
  return problem(code, message, 'soon', hint)
}

/** A stream error (RFC 6120 4.9). `handshakeDone`: it came on a stream that was up. */
export function streamErrorProblem(error: XmlElement, place: LinkPlace, handshakeDone: boolean): LinkProblem {
  const { domain } = place
  let condition = 'undefined-condition'
  let text = ''
  for (const child of error.children) {
    if (typeof child === 'string' || child.ns !== NS_STREAM_ERROR) continue
    if (child.name === 'text') text = textOf(child).slice(0, 500)
    else condition = child.name
  }
  const said = `<${condition}/>${text === '' ? '' : ` "${text}"`}`
  const at = `${place.host}:${place.port}`
  switch (condition) {
    case 'not-authorized':
      return problem('not-authorized', `${at} refused the secret for ${domain}: ${said}`, 'later', secretHint(domain))
    case 'conflict':
      return handshakeDone
        ? problem('conflict', `Another broker took over ${domain} at ${at}: ${said}`, 'contested', takenHint(domain))
        : problem('conflict', `${at} refused a connection as ${domain}: ${said}`, 'contested', conflictHint(domain))
    case 'host-unknown':
    case 'host-gone':
      return problem('invalid-config', `${at} has no component ${domain}: ${said}`, 'later', unknownHint(domain))
    case 'invalid-namespace':
      return wrongPort(place, said)
    case 'invalid-from':
    case 'improper-addressing':
      return lost('internal', `${at} closed the stream of ${domain}: ${said}`, fromHint(domain))
    case 'policy-violation':
      return lost('too-large', `${at} closed the stream of ${domain}: ${said}`, sizeHint())
    default:
      return lost('connection-lost', `${at} closed the stream of ${domain}: ${said}`)
  }
}

/** What answered is no component port. */
export function wrongPort(place: LinkPlace, said: string): LinkProblem {
  const { host, port, domain } = place
  return problem(
    'invalid-config',
    `${host}:${port} does not speak the component protocol (XEP-0114) for ${domain}: ${said}`,
    'later',
    `${port} is probably the port for clients (5222). Use the component port, usually 5347: on ejabberd the 'port' of the ` +
      "listener with 'module: ejabberd_service' in ejabberd.yml, on Prosody 'component_ports' in prosody.cfg.lua.",
  )
}

const SOCKET_TEXTS: ReadonlyMap<string, string> = new Map([
  ['ECONNREFUSED', 'the connection was refused'],
  ['ECONNRESET', 'the connection was reset'],
  ['EPIPE', 'the server closed the connection'],
  ['ENOTFOUND', 'the host name is not known'],
  ['EAI_AGAIN', 'the host name cannot be looked up now'],
  ['ETIMEDOUT', 'the connection timed out'],
  ['EHOSTUNREACH', 'the host cannot be reached'],
  ['ENETUNREACH', 'the network cannot be reached'],
])

/** A TCP error. `connected`: it ended a connection, rather than keeping one from being made. */
export function socketProblem(error: Error, place: LinkPlace, connected: boolean): LinkProblem {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const why = SOCKET_TEXTS.get(code) ?? error.message
  const shown = code === '' ? why : `${why} (${code})`
  const at = `${place.host}:${place.port}`
  if (connected) return problem('connection-lost', `Lost ${at} for ${place.domain}: ${shown}`, 'soon', undefined, error)
  const message = `Cannot connect to ${at} for ${place.domain}: ${shown}`
  return problem('connection-lost', message, 'soon', connectHint(place, code), error)
}

/** The TCP connection was not made in time. */
export function connectTimeout(place: LinkPlace, afterMs: number): LinkProblem {
  return lost(
    'timeout',
    `Cannot connect to ${place.host}:${place.port} for ${place.domain}: no answer in ${afterMs} ms`,
    connectHint(place, 'ETIMEDOUT'),
  )
}

/** The TCP connection was made, but the server did not let the component in, in time. */
export function handshakeTimeout(place: LinkPlace, afterMs: number): LinkProblem {
  return lost(
    'timeout',
    `${place.host}:${place.port} accepted a connection for ${place.domain} but did not finish the handshake in ${afterMs} ms`,
    'The server may still be starting (ejabberd accepts connections before it serves them), or this is not its ' +
      'component port, or the port wants TLS, which XEP-0114 has not.',
  )
}

/** The server ended the connection without a word. `handshakeDone`: on a stream that was up. */
export function endedProblem(place: LinkPlace, handshakeDone: boolean): LinkProblem {
  const at = `${place.host}:${place.port}`
  if (handshakeDone) return lost('connection-lost', `${at} ended the stream of ${place.domain} (is it restarting?)`)
  return lost(
    'connection-lost',
    `${at} ended the connection for ${place.domain} before the handshake was done`,
    `If this goes on: is ${place.port} really the component port (usually 5347), and one without TLS? The server's log says more.`,
  )
}

function connectHint({ host, port }: LinkPlace, code: string): string {
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return `Is '${host}' spelled right? 'server' in the configuration names the machine that the XMPP server runs on.`
  }
  return (
    `Is the server running, and is its component port enabled? ejabberd: a listener with 'port: ${port}' and ` +
    `'module: ejabberd_service' in ejabberd.yml. Prosody: at least one Component block and 'component_ports = { ${port} }' ` +
    "in prosody.cfg.lua (on loopback only, unless 'component_interfaces' says otherwise)."
  )
}

function secretHint(domain: string): string {
  return (
    "The 'secret' of the broker must be the server's. ejabberd (ejabberd.yml, the listener with 'module: " +
    `ejabberd_service'): 'hosts:' must list ${domain} with that password (a domain that it does not list is refused in the ` +
    `same words), or 'password:' stands there without 'hosts:'. Prosody (prosody.cfg.lua): 'component_secret' below ` +
    `'Component "${domain}"'. Then reload the server; the broker goes on by itself.`
  )
}

function unknownHint(domain: string): string {
  return (
    `Prosody (prosody.cfg.lua): add 'Component "${domain}"' with a 'component_secret' of its own below it (a VirtualHost of ` +
    `that name is not enough, and no module may stand behind the name), then restart Prosody. ejabberd: list ${domain} ` +
    "below 'hosts:' of the listener with 'module: ejabberd_service'. Or correct the queue's domain in the broker's configuration."
  )
}

function conflictHint(domain: string): string {
  return (
    `Either another broker is connected as ${domain}: stop it, or give one of the two other queue domains. If it is dead and ` +
    'Prosody has not noticed yet, it will; \'component_conflict_resolve = "kick_old"\' below the Component lets the new one in ' +
    `at once. Or ${domain} is one of ejabberd's own domains: take it out of the top-level 'hosts:' of ejabberd.yml.`
  )
}

function takenHint(domain: string): string {
  return (
    `Two brokers are configured for ${domain}, and the server lets the newer connection replace the older one (Prosody: ` +
    '\'component_conflict_resolve = "kick_old"\'). Stop one of them, or give it other queue domains.'
  )
}

function fromHint(domain: string): string {
  return (
    `The server wants 'from' addresses in ${domain}. Queues with 'preserveFrom: true' need 'check_from: false' on ejabberd's ` +
    "listener, or 'validate_from_addresses = false' below Prosody's Component. Otherwise this is a fault of the broker."
  )
}

function sizeHint(): string {
  return (
    "Let the server take larger stanzas from the component than from clients. ejabberd: 'max_stanza_size: 1048576' at the " +
    "listener with 'module: ejabberd_service'. Prosody: 'component_stanza_size_limit = 1024*1024', outside every Component."
  )
}
