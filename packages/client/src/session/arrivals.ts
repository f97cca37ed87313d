/**
 * What others ask of this session, and bring to it: messages, requests, deliveries, calls. Owner: one session. Stateless.
 *
 *     message --> news of a request of ours | a delivery to a handler | a publish of ours that came back
 *     iq get, set --> ping | deliver | cancel | resubscribe | a request to a handler -> exactly one answer
 *
 * Invariants:
 * 1. A delivery counts only from the queue itself and to this very full JID, and for a topic of ours; all else is told as `ignored`.
 * 2. Every IQ is answered here, by the leases or by its handler. Strangers are told no more than a server says of a session that does not exist.
 */
import {
  decodeCancel,
  decodeError,
  errorTo,
  findChild,
  formatBareJid,
  isPing,
  isResubscribe,
  NS_QUEUE,
  parseJid,
  resultTo,
  sameJid,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { Calls } from './calls.ts'
import { type Addresses, explainAbsence, isAddressedDelivery, readMessage, readRequest } from './incoming.ts'
import type { Effect, Entropy, SessionRules } from './port.ts'
import type { Reliable } from './reliable.ts'
import type { Subscriptions } from './subscriptions.ts'

/** What {@link Arrivals} needs. */
export interface ArrivalsOptions {
  readonly rules: SessionRules
  readonly calls: Calls
  readonly subscriptions: Subscriptions
  readonly reliable: Reliable
}

/** See the top of this file. */
export class Arrivals {
  readonly #rules: SessionRules
  readonly #calls: Calls
  readonly #subscriptions: Subscriptions
  readonly #reliable: Reliable
  readonly #wants = (topic: string): boolean => this.#subscriptions.wants(topic)

  constructor({ rules, calls, subscriptions, reliable }: ArrivalsOptions) {
    this.#rules = rules
    this.#calls = calls
    this.#subscriptions = subscriptions
    this.#reliable = reliable
  }

  /** A message arrived. */
  message(message: XmlElement, addresses: Addresses, out: Effect[]): void {
    if (message.attrs.get('type') === 'error') {
      this.#returned(message, addresses, out)
      return
    }
    try {
      const progress = findChild(message, 'progress', NS_QUEUE)
      if (progress !== undefined && isAddressedDelivery(message, addresses)) {
        this.#calls.progress(progress, out)
        return
      }
      const delivery = readMessage(message, addresses)
      if (delivery === undefined) return
      if (!isAddressedDelivery(message, addresses)) ignore(message, 'a message that is not from the queue', out)
      else if (!this.#subscriptions.has(delivery.topic)) ignore(message, 'a message for no topic of ours', out)
      else out.push({ type: 'deliver', delivery })
    } catch {
      ignore(message, 'a message with a malformed topic', out)
    }
  }

  #returned(message: XmlElement, { mode }: Addresses, out: Effect[]): void {
    const id = message.attrs.get('id') ?? ''
    const topic = this.#calls.topicOf(id)
    const fromQueue = sameJid(message.attrs.get('from') ?? '', this.#rules.queue)
    // A mod_xmq lets the bounce of a dead worker come from the worker: then only the id tells whose it is.
    if (!fromQueue && !(mode === 'mod_xmq' && topic !== undefined)) return
    const error = explainAbsence(decodeError(message), this.#rules.queue, mode)
    out.push({ type: 'event', event: { name: 'returned', id, topic, error } })
  }

  /** An IQ get or set arrived. */
  asked(iq: XmlElement, addresses: Addresses, now: number, entropy: Entropy, out: Effect[]): void {
    if (isPing(iq)) {
      // Strangers learn nothing: a server answers the same for a session that does not exist.
      send(this.#mayPing(iq, addresses) ? resultTo(iq) : refusalOf(iq), out)
      return
    }
    if (this.#reliably(iq, addresses, now, entropy, out)) return
    try {
      const delivery = readRequest(iq, addresses)
      if (delivery === undefined) {
        send(refusalOf(iq), out)
      } else if (!isAddressedDelivery(iq, addresses)) {
        send(refusalOf(iq), out)
        ignore(iq, 'a request that is not from the queue', out)
      } else if (this.#subscriptions.has(delivery.topic)) {
        out.push({ type: 'deliver', delivery })
      } else {
        send(errorTo(iq, new XmqError('not-found', `This worker does not handle '${delivery.topic}'.`)), out)
      }
    } catch (error) {
      send(errorTo(iq, XmqError.from(error, 'bad-request')), out)
    }
  }

  /** What only a reliable queue asks. @returns whether it was that */
  #reliably(iq: XmlElement, addresses: Addresses, now: number, entropy: Entropy, out: Effect[]): boolean {
    const isSet = iq.attrs.get('type') === 'set'
    const deliver = isSet ? findChild(iq, 'deliver', NS_QUEUE) : undefined
    const cancel = isSet ? findChild(iq, 'cancel', NS_QUEUE) : undefined
    if (deliver === undefined && cancel === undefined && !isResubscribe(iq)) return false
    if (addresses.mode !== 'reliable' || !isAddressedDelivery(iq, addresses)) {
      send(refusalOf(iq), out)
      ignore(iq, 'a delivery that is not from the queue', out)
    } else if (cancel !== undefined) {
      cancelled(iq, cancel, out)
    } else if (deliver === undefined) {
      send(resultTo(iq), out)
      this.#reliable.called(iq, now, entropy, out)
    } else {
      const { connection } = addresses
      this.#reliable.leases.deliver(iq, deliver, { wants: this.#wants, connection }, now, out)
    }
    return true
  }

  #mayPing(iq: XmlElement, { own, mode }: Addresses): boolean {
    const from = iq.attrs.get('from')
    if (from === undefined || sameJid(from, this.#rules.queue) || sameJid(from, this.#rules.domain)) return true
    return mode === 'mod_xmq' || sameJid(from, formatBareJid(parseJid(own)))
  }
}

/** Tells what no rule lets count. */
export function ignore(root: XmlElement, what: string, out: Effect[]): void {
  out.push({ type: 'event', event: { name: 'ignored', from: root.attrs.get('from') ?? '', what } })
}

/** Nobody waits any more for an answer of ours. */
function cancelled(iq: XmlElement, cancel: XmlElement, out: Effect[]): void {
  let id: string
  try {
    id = decodeCancel(cancel).call
  } catch (error) {
    send(errorTo(iq, XmqError.from(error, 'bad-request')), out)
    return
  }
  send(resultTo(iq), out)
  out.push({ type: 'cancelled', id, error: new XmqError('aborted', 'Nobody waits for the answer any more.') })
}

function send(stanza: XmlElement, out: Effect[]): void {
  out.push({ type: 'send', stanza })
}

function refusalOf(iq: XmlElement): XmlElement {
  return errorTo(iq, new XmqError('unsupported', 'This address does not do that.'))
}
