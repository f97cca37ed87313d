/** What arrives: telling deliveries from everything else. Pure functions on stanzas. docs/protocol.md "Messages", "Requests". */
import {
  childElements,
  decodeMessagePayload,
  decodeRequest,
  decodeTopic,
  findChild,
  findTopic,
  headersIn,
  NO_HEADERS,
  NS_ADDRESS,
  NS_QUEUE,
  payloadOf,
  sameJid,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { NOBODY_THERE } from './pauses.ts'
import type { Delivery, Mode } from './port.ts'

/** Who is asked, and over which connection. */
export interface Addresses {
  readonly queue: string
  /** The own full JID. */
  readonly own: string
  readonly mode: Mode | undefined
  readonly connection: number
}

/**
 * Whether a stanza may be a delivery: from the queue itself, and to the very full JID that we are. A stanza that was sent to
 * the bare JID was re-routed by the server and belongs to somebody else. In mod_xmq mode the producer stands in `from`, so
 * that only the second half can be checked.
 */
export function isAddressedDelivery(stanza: XmlElement, addresses: Addresses): boolean {
  const to = stanza.attrs.get('to')
  if (to !== undefined && !sameJid(to, addresses.own)) return false
  if (addresses.mode === 'mod_xmq') return true
  return sameJid(stanza.attrs.get('from') ?? '', addresses.queue)
}

/** Reads a topic message. @throws XmqError when the topic is missing or malformed */
export function readMessage(message: XmlElement, addresses: Addresses): Delivery | undefined {
  const xmq = findTopic(message)
  if (xmq === undefined) return undefined
  return {
    kind: 'message',
    topic: decodeTopic(xmq),
    id: message.attrs.get('id') ?? '',
    from: addresses.mode === 'mod_xmq' ? message.attrs.get('from') : originalSender(message),
    payload: decodeMessagePayload(message),
    headers: headersIn(xmq),
    lease: undefined,
    wantsProgress: false,
    form: 'nested',
    stanza: message,
    connection: addresses.connection,
  }
}

/** Reads a topic IQ, in either form. @throws XmqError when the topic is missing or the forms are mixed */
export function readRequest(iq: XmlElement, addresses: Addresses): Delivery | undefined {
  const request = decodeRequest(iq)
  if (request === undefined) return undefined
  const call = findChild(request.xmq, 'call', NS_QUEUE)
  return {
    kind: 'request',
    topic: request.topic,
    id: iq.attrs.get('id') ?? '',
    from: addresses.mode === 'mod_xmq' ? iq.attrs.get('from') : (call?.attrs.get('from') ?? originalSender(iq)),
    payload: payloadOf(request.payload.filter((child) => child.ns !== NS_QUEUE)),
    headers: call === undefined ? NO_HEADERS : headersIn(call),
    lease: undefined,
    wantsProgress: addresses.mode === 'reliable' && /^(true|1)$/.test(call?.attrs.get('progress') ?? ''),
    form: request.form,
    stanza: iq,
    connection: addresses.connection,
  }
}

/** XEP-0033 `<address type='ofrom'/>`: the queue removes a forged one and writes its own. */
function originalSender(stanza: XmlElement): string | undefined {
  const addresses = findChild(stanza, 'addresses', NS_ADDRESS)
  if (addresses === undefined) return undefined
  return childElements(addresses)
    .find((child) => child.name === 'address' && child.attrs.get('type') === 'ofrom')
    ?.attrs.get('jid')
}

/**
 * An answer of the server in place of a queue, explained. Errors of a broker say themselves what to do, and a mod_xmq is no
 * program that could be started.
 * @param address the queue
 */
export function explainAbsence(error: XmqError, address: string, mode: Mode | undefined): XmqError {
  if (mode === 'mod_xmq' || error.fromBroker || !NOBODY_THERE.has(error.condition)) return error
  return new XmqError(
    error.code,
    `No broker serves ${address} on this server yet (the server answered ${error.condition}). ` +
      'Start the broker, or check the address of the queue.',
    { cause: error, condition: error.condition, type: error.type },
  )
}
