import { describe, expect, it } from 'vitest'
import { LaneMerge, type LanePlace } from '../src/store/sqlite/lane-merge.ts'

/** Lanes of places, read as the store reads them; how many places were read. */
function makeLanes(lanes: readonly (readonly number[])[]) {
  const read = { places: 0, times: 0 }
  const listPlaces = (pairs: readonly (readonly [number, number])[], max: number): LanePlace[] => {
    const found = pairs.flatMap(([lane, after]) =>
      (lanes[lane] ?? [])
        .filter((rank) => rank > after)
        .slice(0, max)
        .map((rank) => ({ lane, rank, shelf: 1, seq: rank + 1000 })),
    )
    read.places += found.length
    read.times += 1
    return found
  }
  return { read, merge: new LaneMerge([...lanes.keys()], { listPlaces }) }
}

const ranksOf = (places: readonly LanePlace[]) => places.map(({ rank }) => rank)
const numbers = (count: number, of: (n: number) => number) => Array.from({ length: count }, (_, n) => of(n))

describe('lanes, merged', () => {
  it('come in order, however uneven they are', () => {
    const uneven = numbers(50, (n) => n).map((lane) => numbers(lane === 7 ? 500 : lane % 4, (n) => n * 50 + lane))
    const expected = uneven.flat().sort((left, right) => left - right)
    const { merge } = makeLanes(uneven)
    const taken: number[] = []
    for (let page = merge.take(33); page.length > 0; page = merge.take(33)) taken.push(...ranksOf(page))
    expect(taken).toEqual(expected)
  })

  it('give all that was asked for while there is as much', () => {
    const { merge } = makeLanes([numbers(300, (n) => n), [300], []])
    expect(ranksOf(merge.take(256))).toEqual(numbers(256, (n) => n))
    expect(ranksOf(merge.take(256))).toEqual(numbers(45, (n) => n + 256))
    expect(merge.take(1)).toEqual([])
  })

  it('are read as far as they are needed, all at once', () => {
    const { merge, read } = makeLanes(numbers(100, (lane) => lane).map((lane) => numbers(1000, (n) => n * 100 + lane)))
    expect(merge.take(100)).toHaveLength(100)
    expect(read).toEqual({ places: 200, times: 1 })
  })
})
