/** What is known of one life of the broker. It begins with nothing. */
import type { CoreRules } from '../../../../packages/broker/src/core/port.ts'
import type { StoreOp } from '../../../../packages/broker/src/store/port.ts'
import { Consumers } from './consumers.ts'
import type { Knowledge } from './entry.ts'
import { Ephemerals } from './ephemerals.ts'
import type { Leases, LifeView } from './leases.ts'
import { Orders } from './orders.ts'
import type { PlainTruth } from './plain-consumers.ts'
import { PlainSide } from './plain-side.ts'
import { Requests } from './requests.ts'
import { Settlings } from './settlings.ts'
import { Signs } from './signs.ts'
import type { Stock } from './stock.ts'

/** See the top of this file. */
export interface Life extends LifeView {
  readonly consumers: Consumers
  readonly ephemerals: Ephemerals
  readonly orders: Orders
  readonly plainly: PlainSide
  readonly requests: Requests
  /** What the core waits for, by call. */
  readonly dues: Map<number, number>
  readonly calls: Map<number, readonly StoreOp[]>
}

/** What outlives it. */
export interface Ages {
  readonly knowledge: Knowledge
  readonly rules: CoreRules
  readonly requestTimeoutMs: number
  readonly truth: PlainTruth
  readonly stock: Stock
  readonly leases: Leases
  readonly isCalm: () => boolean
}

/** Begins a life. @param number from 1 */
export function createLife(number: number, ages: Ages): Life {
  const { knowledge, rules, requestTimeoutMs, truth, stock, leases, isCalm } = ages
  const signs = new Signs(rules.pingTimeoutMs)
  const consumers = new Consumers(knowledge)
  const grantedAt = (token: string): number => consumers.grantedAt(token)
  const plainly = new PlainSide({ knowledge, rules, truth, stock, leases, signs, grantedAt })
  const plain = plainly.consumers
  return {
    number,
    get isCalm() {
      return isCalm()
    },
    settlings: new Settlings(knowledge),
    signs,
    consumers,
    ephemerals: new Ephemerals(knowledge),
    orders: new Orders(),
    plain,
    plainly,
    requests: new Requests({ knowledge, rules, timeoutMs: requestTimeoutMs, consumers, plain, signs }),
    dues: new Map(),
    calls: new Map(),
  }
}
