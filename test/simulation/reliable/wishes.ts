/**
 * What workers subscribe to. In an `all` queue some share durable subscriptions, whose topics never change; some try to change them.
 *
 * Owner: the cast.
 */
import type { Random } from '../random.ts'
import { FILTERS, type Wanted } from './items.ts'

/** The names of the durable subscriptions of each account. */
export const NAMES = ['n1', 'n2'] as const

/** See the top of this file. */
export class Wishes {
  readonly #random: Random
  readonly #filters = new Map<string, string>()

  constructor(random: Random) {
    this.#random = random
  }

  /** What a worker of an account wants in an `all` queue. @param isStubborn never anything that was wanted otherwise before */
  draw(account: string, isStubborn: boolean): Wanted[] {
    const wanted = new Map<string, Wanted>()
    for (let count = this.#random.pick([1, 1, 2]); count > 0; count--) {
      const one = this.#one(account, isStubborn)
      wanted.set(one.topic, one)
    }
    return [...wanted.values()]
  }

  #one(account: string, isStubborn: boolean): Wanted {
    const topic = this.#random.pick(FILTERS)
    if (this.#random.chance(0.3)) return { topic }
    const name = this.#random.pick(NAMES)
    if (!isStubborn && this.#random.chance(0.05)) return { topic, name }
    const known = this.#filters.get(`${account}/${name}`) ?? topic
    this.#filters.set(`${account}/${name}`, known)
    return { topic: known, name }
  }
}
