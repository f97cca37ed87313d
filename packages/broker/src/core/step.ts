/** One call of `handle`: its instant, its randomness, and the effects that it gathers in order. */
import { errorTo, type XmlElement, type XmqError } from '@xmq/protocol'
import type { CoreEvent, Effect, Entropy } from './port.ts'
import type { Domain } from './records.ts'

/** See the top of this file. */
export class Step {
  readonly now: number
  readonly entropy: Entropy
  readonly effects: Effect[] = []

  constructor(now: number, entropy: Entropy) {
    this.now = now
    this.entropy = entropy
  }

  /** Sends from a domain; while its stream is down nothing can be sent, and nothing is. */
  send(domain: Domain, stanza: XmlElement): void {
    if (!domain.isDown) this.effects.push({ type: 'send', domain: domain.name, stanza })
  }

  /** Sends one of many copies of a message, which may be dropped. */
  fanOut(domain: Domain, stanza: XmlElement): void {
    if (!domain.isDown) this.effects.push({ type: 'send', domain: domain.name, stanza, isFanOut: true })
  }

  /** Tells what happened. */
  emit(event: CoreEvent): void {
    this.effects.push({ type: 'event', event })
  }

  /** Answers a stanza with an error. The caller knows that it may be answered. @param encoded the error, where it is known already */
  refuse(domain: Domain, queue: string, stanza: XmlElement, error: XmqError, encoded?: XmlElement): void {
    this.send(domain, errorTo(stanza, error, encoded))
    const sender = stanza.attrs.get('from') ?? ''
    this.emit({ name: 'refused', queue, sender, code: error.code, text: error.message })
  }

  /** Tells that a stanza was dropped. */
  ignore(queue: string, stanza: XmlElement, what: string): void {
    this.emit({ name: 'ignored', queue, sender: stanza.attrs.get('from') ?? '', what })
  }
}
