/**
 * Owner of the domains' streams: which is up, what names it, and the answers that wait for it.
 *
 *     not known yet --up--> up, an epoch of its own --down--> down --up--> up, the next epoch
 *         |                                                    |
 *         answers are sent                                     answers are held, all else is not sent (step.ts)
 *
 * Invariants:
 * 1. `epoch` is another for each stream and each life of the broker: whoever is told two of them knows what may be lost.
 * 2. `held` is empty while the stream is not down. What is held is sent before anything else of a new stream, in its order.
 */
import type { XmlElement } from '@xmq/protocol'
import type { Queues } from './queues.ts'
import type { Domain } from './records.ts'
import type { Step } from './step.ts'

/** So much of a random id tells the lives of a broker apart. */
const LIFE_LENGTH = 12

/** See the top of this file. */
export class Streams {
  readonly #queues: Queues
  /** Names this life of the broker; drawn with the first stream. */
  #life: string | undefined
  #count = 0

  constructor(queues: Queues) {
    this.#queues = queues
  }

  /** How many answers wait for a stream. */
  get held(): number {
    let count = 0
    for (const { held } of this.#queues.domains.values()) count += held.length
    return count
  }

  /** A stream is up: it gets its name, and what waited for it. @returns its domain; undefined when that is not ours */
  up(step: Step, name: string): Domain | undefined {
    const domain = this.#queues.domains.get(name)
    if (domain === undefined) return undefined
    domain.isDown = false
    this.#life ??= step.entropy.id().slice(0, LIFE_LENGTH)
    domain.epoch = `${this.#life}.${++this.#count}`
    const held = domain.held
    domain.held = []
    for (const stanza of held) step.send(domain, stanza)
    return domain
  }

  /** A stream has ended. @returns its domain; undefined when that is not ours */
  down(name: string): Domain | undefined {
    const domain = this.#queues.domains.get(name)
    if (domain !== undefined) domain.isDown = true
    return domain
  }

  /** Sends an answer that somebody waits for, now or over the next stream. The caller bounds how many. */
  answer(step: Step, domain: Domain, stanza: XmlElement): void {
    if (domain.isDown) domain.held.push(stanza)
    else step.send(domain, stanza)
  }
}
