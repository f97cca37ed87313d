import { describe, expect, it } from 'vitest'
import { SlotQueue } from '../src/store/slot-queue.ts'

interface Member {
  readonly at: number
  slot: number
}

const makeQueue = () => new SlotQueue<'slot', Member>('slot', (left, right) => left.at < right.at)
const atsOf = (members: Iterable<Member>) => Array.from(members, ({ at }) => at)

/** Numbers that look random, the same each time. */
function makeDice() {
  let state = 1
  return (sides: number) => {
    state = (state * 48_271) % 0x7fffffff
    return state % sides
  }
}

describe('a queue of members that mostly come in order', () => {
  it.each([
    ['all come in order', 0],
    ['one in ten comes late', 1],
    ['half come late', 5],
  ])('has them in order after any additions and removals, when %s', (_, lateInTen) => {
    const queue = makeQueue()
    const inside: Member[] = []
    const dice = makeDice()
    for (let n = 1; n <= 6000; n++) {
      // Grows, then shrinks, so that holes are closed more than once.
      const isAdded = dice(10) < (n < 3000 ? 7 : 4)
      if (isAdded) {
        const member = { at: dice(10) < lateInTen ? dice(n * 10) + 0.5 / n : n * 10, slot: -1 }
        queue.add(member)
        inside.push(member)
      } else if (inside.length > 0) {
        // The first, as a claim does, or any other.
        const member = dice(2) === 0 ? (queue.first as Member) : (inside[dice(inside.length)] as Member)
        inside.splice(inside.indexOf(member), 1)
        queue.remove(member)
        if (member.slot !== -1) throw new Error('It is still inside.')
      }
      if (n % 200 !== 0) continue
      expect(queue.size).toBe(inside.length)
      const ordered = inside.map(({ at }) => at).sort((left, right) => left - right)
      expect(queue.first?.at).toBe(ordered[0])
      expect(atsOf(queue.inOrder())).toEqual(ordered)
      expect(atsOf(queue.inOrder())).toEqual(ordered)
    }
    while (queue.first !== undefined) queue.remove(queue.first)
    expect([queue.size, ...queue.inOrder()]).toEqual([0])
  })

  it('is as it was when only some were looked at', () => {
    const queue = makeQueue()
    for (const at of [5, 3, 9, 1, 7]) queue.add({ at, slot: -1 })
    for (const { at } of queue.inOrder()) if (at === 3) break
    expect(atsOf(queue.inOrder())).toEqual([1, 3, 5, 7, 9])
    expect(queue.size).toBe(5)
  })
})
