/** So many jobs at a time. Contract: src/slots.ts. */
import { describe, expect, it } from 'vitest'
import { Slots } from '../src/slots.ts'

/** Jobs that end when they are told to. */
function startSlots(countMax: number) {
  const begun: number[] = []
  const ends = new Map<number, () => void>()
  const slots = new Slots<number>(countMax, (job) => {
    begun.push(job)
    return new Promise((resolve) => ends.set(job, resolve))
  })
  const end = async (job: number): Promise<void> => {
    ends.get(job)?.()
    await Promise.resolve()
    await Promise.resolve()
  }
  return { slots, begun, end }
}

describe('slots', () => {
  it('run so many at a time, and the next one in order when one ends', async () => {
    const { slots, begun, end } = startSlots(2)
    for (const job of [1, 2, 3, 4]) slots.add(job)
    expect(begun).toEqual([1, 2])
    expect([slots.running, slots.waiting]).toEqual([2, 2])
    await end(2)
    expect(begun).toEqual([1, 2, 3])
    await end(1)
    await end(3)
    expect(begun).toEqual([1, 2, 3, 4])
    expect([slots.running, slots.waiting]).toEqual([1, 0])
  })

  it('begin a job before add returns where a slot is free, again after all were over', async () => {
    const { slots, begun, end } = startSlots(1)
    slots.add(1)
    await end(1)
    expect(slots.running).toBe(0)
    slots.add(2)
    expect(begun).toEqual([1, 2])
  })

  it('tell when nothing runs and nothing waits', async () => {
    const { slots, end } = startSlots(1)
    let isIdle = false
    await slots.whenIdle()
    for (const job of [1, 2]) slots.add(job)
    const idle = slots.whenIdle().then(() => (isIdle = true))
    await end(1)
    expect(isIdle).toBe(false)
    await end(2)
    await idle
    expect(isIdle).toBe(true)
  })

  it('keep the order of many thousands, whatever comes in between', async () => {
    const order: number[] = []
    const slots = new Slots<number>(3, async (job) => {
      order.push(job)
      await Promise.resolve()
      if (job % 1000 === 0 && job < 100_000) slots.add(job + 100_000)
    })
    for (let job = 0; job < 5000; job++) slots.add(job)
    await slots.whenIdle()
    expect(order.slice(0, 5000)).toEqual(Array.from({ length: 5000 }, (_, job) => job))
    expect(order.slice(5000)).toEqual([0, 1000, 2000, 3000, 4000].map((job) => job + 100_000))
    expect(slots.waiting).toBe(0)
  })
})
