/**
 * What admins ordered of dead letters, and what was done of it.
 *
 *     arrived from an admin --> the store may replay or drop what it names --> told to the core --> answered
 *
 * 1. Nobody else's order does anything, and nothing is replayed or dropped that no order names.
 * 2. What the answer counts as done is done.
 *
 * Owner: the oracle; one for each life of the broker.
 */
import { bareOf, childElements, type XmlElement } from '@xmq/protocol'
import type { StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { ADMIN } from '../rules.ts'
import { Violation } from '../../violation.ts'

interface Order {
  readonly action: string
  /** What the store calls the line. */
  readonly line: string
  /** Absent: all. */
  readonly seqs: readonly number[] | undefined
}

/** See the top of this file. */
export class Orders {
  readonly #open = new Map<string, Order>()
  /** What was ever ordered: an action, and a seq or `all`. */
  readonly #ordered = new Set<string>()
  /** What the core was told of, as often. */
  readonly #told = new Map<string, number>()

  /** An order arrives at the core. */
  arrived(from: string, id: string, order: XmlElement): void {
    const action = order.attrs.get('action')
    if (action === undefined || bareOf(from) !== ADMIN) return
    const { owner, subscription } = Object.fromEntries(order.attrs)
    const line = subscription === undefined ? '' : `${owner}/${subscription}`
    const isAll = order.attrs.get('all') === 'true'
    const seqs = isAll ? undefined : childElements(order).map((item) => Number(item.attrs.get('seq')))
    this.#open.set(`${from} ${id}`, { action, line, seqs })
    for (const what of seqs ?? ['all']) this.#ordered.add(`${action} ${line} ${what}`)
  }

  /** The core asks the store for something. */
  asked(op: StoreOp): void {
    if (op.type !== 'replay' && op.type !== 'discard' && op.type !== 'purge') return
    const action = op.type === 'replay' ? 'replay' : 'purge'
    const seq = 'seq' in op ? op.seq : 'all'
    const line = op.subscription
    if (this.#ordered.has(`${action} ${line} ${seq}`) || this.#ordered.has(`${action} ${line} all`)) return
    throw new Violation(`${op.type} of ${seq}, which no admin ordered`)
  }

  /** The core hears what the store has done. */
  told(op: StoreOp, result: StoreResult): void {
    if (result.status !== 'ok') return
    if (op.type === 'purge' && result.type === 'purge') this.#tell(`purge ${op.subscription} all`, result.count)
    else if (op.type === 'replay') this.#tell(`replay ${op.subscription} ${op.seq}`, 1)
    else if (op.type === 'discard') this.#tell(`purge ${op.subscription} ${op.seq}`, 1)
  }

  #tell(what: string, count: number): void {
    this.#told.set(what, (this.#told.get(what) ?? 0) + count)
  }

  /** An order is answered. @returns how many it did */
  answered(to: string, id: string, outcome: XmlElement): number {
    const order = this.#open.get(`${to} ${id}`)
    if (order === undefined) return 0
    const done = Number(outcome.attrs.get('done'))
    const failed = new Set(childElements(outcome).map((item) => Number(item.attrs.get('seq'))))
    const { action, line, seqs } = order
    if (seqs === undefined) {
      if (action === 'purge' && done > (this.#told.get(`purge ${line} all`) ?? 0))
        throw new Violation(`${id} purged too few`)
      return done
    }
    const unfailed = seqs.filter((seq) => !failed.has(seq))
    if (done !== unfailed.length) throw new Violation(`${id} says ${done} are done, of ${unfailed.length}`)
    for (const seq of unfailed) {
      if (!this.#told.has(`${action} ${line} ${seq}`))
        throw new Violation(`${action} of ${seq} is answered, and not done`)
    }
    return done
  }
}
