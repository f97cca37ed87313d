/** An operator who looks at the dead letters of a queue, and replays or purges some, or all. So does somebody who may not. */
import { childElements, element, NS_QUEUE, stanza, type XmlElement } from '@xmq/protocol'
import { TOPICS } from './items.ts'
import type { ClientHost } from './scripted.ts'

/** See the top of this file. */
export class Operator {
  readonly jid: string
  readonly #host: ClientHost

  constructor(jid: string, host: ClientHost) {
    this.jid = jid
    this.#host = host
  }

  /** Looks what there is, or orders something of all. */
  act(): void {
    const { random } = this.#host
    if (random.chance(0.5)) {
      this.#ask('get', element('dead-letters', NS_QUEUE, { max: String(1 + random.int(20)) }))
      return
    }
    const topic = random.chance(0.5) ? random.pick(TOPICS) : undefined
    const max = String(1 + random.int(5))
    this.#ask('set', element('dead-letters', NS_QUEUE, { action: this.#action(), all: 'true', topic, max }))
  }

  /** Orders something of some that it was shown, or knows from elsewhere. */
  order(seqs: readonly string[]): void {
    const items = seqs.map((seq) => element('item', NS_QUEUE, { seq }))
    if (items.length > 0) this.#ask('set', element('dead-letters', NS_QUEUE, { action: this.#action() }, items))
  }

  receive(iq: XmlElement): void {
    const page = childElements(iq).find((child) => child.name === 'dead-letters')
    if (page === undefined || page.attrs.has('done') || this.#host.isCalm()) return
    const seqs = childElements(page).map((item) => item.attrs.get('seq') ?? '')
    // Twice the same now and then: the second one finds nothing.
    const { random } = this.#host
    this.order(seqs.filter(() => random.chance(0.6)))
    if (random.chance(0.2)) this.order(seqs.slice(0, 1))
  }

  #action(): string {
    return this.#host.random.pick(['replay', 'replay', 'purge'])
  }

  #ask(type: 'get' | 'set', child: XmlElement): void {
    this.#host.send(this.jid, stanza('iq', { type, id: this.#host.id(), to: this.#host.queue }, [child]))
  }
}
