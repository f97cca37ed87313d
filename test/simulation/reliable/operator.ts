/** An operator who looks at the dead letters of a queue, and replays or purges some, or all. So does somebody who may not. */
import { childElements, element, NS_QUEUE, stanza, type XmlElement } from '@xmq/protocol'
import { TOPICS } from './items.ts'
import type { ClientHost } from './scripted.ts'

/** The attributes that name a line: none for the queue's own. */
export interface LineName {
  readonly subscription?: string
  readonly owner?: string
}

/** See the top of this file. */
export class Operator {
  readonly jid: string
  readonly #host: ClientHost
  readonly #line: () => LineName
  /** The line that it looks at. */
  #at: LineName = {}

  /** @param line which one it looks at next */
  constructor(jid: string, host: ClientHost, line: () => LineName) {
    this.jid = jid
    this.#host = host
    this.#line = line
  }

  /** Looks what there is, or orders something of all. */
  act(): void {
    const { random } = this.#host
    if (random.chance(0.5)) {
      this.#ask('get', element('dead-letters', NS_QUEUE, { max: String(1 + random.int(20)), ...this.#next() }))
      return
    }
    const topic = random.chance(0.5) ? random.pick(TOPICS) : undefined
    const max = String(1 + random.int(5))
    this.#ask(
      'set',
      element('dead-letters', NS_QUEUE, { action: this.#action(), all: 'true', topic, max, ...this.#next() }),
    )
  }

  /** Orders something of some that it was shown, or knows from elsewhere. */
  order(seqs: readonly string[]): void {
    const items = seqs.map((seq) => element('item', NS_QUEUE, { seq }))
    if (items.length > 0)
      this.#ask('set', element('dead-letters', NS_QUEUE, { action: this.#action(), ...this.#at }, items))
  }

  #next(): LineName {
    this.#at = this.#line()
    return this.#at
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
