/** The IQs of `xmq:queue:1`: who may send which, and who does what they say. docs/protocol-reliable.md. Stateless. */
import {
  childElements,
  decodeReceived,
  decodeSettle,
  encodeAlive,
  encodeSettled,
  isCompleteSettle,
  NS_QUEUE,
  resultTo,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { isAllowed } from './access.ts'
import type { Admin } from './admin.ts'
import type { Consuming } from './consuming.ts'
import type { Deliveries } from './deliveries.ts'
import type { Found } from './found.ts'
import type { Publishing } from './publishing.ts'
import type { Queue } from './records.ts'
import { forbidden } from './refusals.ts'
import type { Requests } from './requests.ts'
import type { Settling } from './settling.ts'
import type { Step } from './step.ts'

const VERBS: ReadonlySet<string> = new Set([
  'publish',
  'settle',
  'renew',
  'alive',
  'cancel',
  'forget',
  'browse',
  'dead-letters',
  'stats',
])
/** Those that ask; `dead-letters` does both. */
const QUESTIONS: ReadonlySet<string> = new Set(['alive', 'browse', 'stats'])

/** What {@link Verbs} needs. */
export interface VerbsOptions {
  readonly publishing: Publishing
  readonly settling: Settling
  readonly consuming: Consuming
  readonly found: Found
  readonly deliveries: Deliveries
  readonly admin: Admin
  readonly requests: Requests
}

/** The verb in an IQ, or `undefined` when it has none. */
export function findVerb(iq: XmlElement): XmlElement | undefined {
  return childElements(iq).find(isVerb)
}

function isVerb({ ns, name }: XmlElement): boolean {
  return ns === NS_QUEUE && VERBS.has(name)
}

/** See the top of this file. */
export class Verbs {
  readonly #options: VerbsOptions

  constructor(options: VerbsOptions) {
    this.#options = options
  }

  /**
   * Does what an IQ says.
   * @throws XmqError why it is refused; then nothing of it is done
   */
  handle(step: Step, queue: Queue, iq: XmlElement, verb: XmlElement): void {
    const { publishing, consuming, admin } = this.#options
    const sender = iq.attrs.get('from') ?? ''
    const isSet = iq.attrs.get('type') === 'set'
    const second = childElements(iq).find((child) => child !== verb && isVerb(child))
    if (second !== undefined) {
      const text = `An iq has one child (RFC 6120, 8.2.3); this one has <${verb.name}> and <${second.name}>: send two.`
      throw new XmqError('bad-request', text)
    }
    if (verb.name !== 'dead-letters' && isSet === QUESTIONS.has(verb.name)) {
      const right = isSet ? 'get' : 'set'
      throw new XmqError('bad-request', `Attribute 'type' of the iq is wrong: <${verb.name}> is sent with '${right}'.`)
    }
    switch (verb.name) {
      case 'publish':
        if (!isAllowed(queue.publish, sender)) throw forbidden(sender, 'publish to', queue)
        publishing.publishItems(step, queue, iq, verb)
        return
      case 'settle':
        this.#settle(step, queue, iq, verb)
        return
      // Like a ping: answered to everybody, and before the store answers anything.
      case 'alive':
        step.send(queue.domain, resultTo(iq, [encodeAlive(queue.domain.epoch)]))
        return
      case 'cancel':
        this.#options.requests.cancel(step, queue, iq, verb)
        return
      case 'renew':
        consuming.renew(step, queue, iq, verb)
        return
      case 'forget':
        consuming.forget(queue, iq, verb)
        return
    }
    if (!isAllowed(queue.admins, sender)) throw forbidden(sender, 'administer', queue)
    if (verb.name === 'stats') admin.stats(queue, iq, verb)
    else if (isSet) admin.order(queue, iq, verb)
    else admin.browse(queue, iq, verb)
  }

  /**
   * An answer that nobody waits for any more, since its stream was down or its lease ran out: what it settles counts still.
   * @returns false when it settles nothing
   */
  settleLate(step: Step, queue: Queue, iq: XmlElement): boolean {
    const settlements = decodeReceived(iq)
    if (settlements.length === 0) return false
    this.#options.settling.settle(step, queue, iq.attrs.get('from') ?? '', settlements)
    return true
  }

  /** No right is asked for: a lease is one, and is bound to its worker's bare JID. */
  #settle(step: Step, queue: Queue, iq: XmlElement, settle: XmlElement): void {
    const sender = iq.attrs.get('from') ?? ''
    const settlements = decodeSettle(settle)
    const isComplete = isCompleteSettle(settle)
    const consumer = queue.consumers.get(sender)
    if (consumer !== undefined) this.#options.deliveries.revive(consumer)
    this.#options.settling.settle(step, queue, sender, settlements, (later, failed) => {
      later.send(queue.domain, resultTo(iq, [encodeSettled(failed, queue.domain.epoch)]))
    })
    if (isComplete) this.#options.found.declared(step, queue, sender)
  }
}
