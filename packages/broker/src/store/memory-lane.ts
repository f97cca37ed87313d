/** The claimable entries of a topic, or of a named subscription, of the memory store: a queue for each priority. */
import { SlotQueue } from './slot-queue.ts'

/** What a lane sees of an entry. */
export interface LaneMember {
  readonly message: { readonly op: { readonly priority: number } }
  readonly order: number
  laneSlot: number
}

const byOrder = (left: LaneMember, right: LaneMember) => left.order < right.order

/** Whether `left` is claimed before `right`. */
export function isClaimedBefore(left: LaneMember, right: LaneMember): boolean {
  const difference = left.message.op.priority - right.message.op.priority
  return difference === 0 ? byOrder(left, right) : difference > 0
}

export class Lane<M extends LaneMember> {
  /** The highest priority first. */
  #queues: { readonly priority: number; readonly members: SlotQueue<'laneSlot', M> }[] = []
  #size = 0

  get size(): number {
    return this.#size
  }

  get first(): M | undefined {
    for (const { members } of this.#queues) if (members.size > 0) return members.first
    return undefined
  }

  add(member: M): void {
    this.#size += 1
    this.#membersOf(member).add(member)
  }

  remove(member: M): void {
    this.#size -= 1
    this.#membersOf(member).remove(member)
  }

  #membersOf({ message }: M): SlotQueue<'laneSlot', M> {
    const { priority } = message.op
    for (const queue of this.#queues) if (queue.priority === priority) return queue.members
    const members = new SlotQueue<'laneSlot', M>('laneSlot', byOrder)
    this.#queues = [...this.#queues, { priority, members }].sort((left, right) => right.priority - left.priority)
    return members
  }
}
