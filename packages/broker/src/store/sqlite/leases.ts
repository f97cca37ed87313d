/**
 * The deadlines of the leases, in memory only: they change with every `received` and `extend`, which then cost no write.
 *
 * Grows with the leases that are out, which credit bounds, never with what waits. Changes are taken back with the
 * transaction that made them, by the undo log.
 */
import { SlotHeap } from '../slot-heap.ts'

export interface Lease {
  readonly line: number
  readonly seq: number
  readonly deadline: number
  readonly received: boolean
  slot: number
}

/** What takes the changes of a transaction back, the last first. */
export type UndoLog = (() => void)[]

const keyOf = (line: number, seq: number) => `${line} ${seq}`

export class Leases {
  readonly #leases = new Map<string, Lease>()
  readonly #byDeadline: SlotHeap<'slot', Lease> = new SlotHeap('slot', (left, right) => left.deadline < right.deadline)

  get(line: number, seq: number): Lease | undefined {
    return this.#leases.get(keyOf(line, seq))
  }

  /** Begins or changes a lease. */
  set(line: number, seq: number, deadline: number, received: boolean, undo: UndoLog): void {
    const before = this.#exchange(keyOf(line, seq), { line, seq, deadline, received, slot: -1 })
    undo.push(() => void this.#exchange(keyOf(line, seq), before))
  }

  delete(line: number, seq: number, undo: UndoLog): void {
    const before = this.#exchange(keyOf(line, seq), undefined)
    if (before !== undefined) undo.push(() => void this.#exchange(keyOf(line, seq), before))
  }

  /** Up to `max` leases that are over, and one more if there is one. */
  listOver(now: number, max: number): Lease[] {
    let isPast = false
    return this.#byDeadline.list(max + 1, (lease) => {
      if (isPast) return false
      isPast = lease.deadline > now
      return true
    })
  }

  #exchange(key: string, lease: Lease | undefined): Lease | undefined {
    const before = this.#leases.get(key)
    if (before !== undefined) this.#byDeadline.remove(before)
    if (lease === undefined) this.#leases.delete(key)
    else {
      this.#leases.set(key, lease)
      this.#byDeadline.add(lease)
    }
    return before
  }
}
