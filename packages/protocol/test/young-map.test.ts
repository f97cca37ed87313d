import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import { YoungMap, YoungSet } from '@xmq/protocol'

/** More than a table is kept for. */
const MANY = 5000

describe('a young map', () => {
  test('is a map, however much comes and goes', () => {
    const map = new Map<string, number>()
    const young = new YoungMap<string, number>()
    for (let at = 0; at < MANY; at++) {
      map.set(`${at}`, at).set('again', at)
      young.set(`${at}`, at)
      young.set('again', at)
      if (at % 7 === 0) continue
      const gone = `${at - (at % 50)}`
      expect(young.delete(gone)).toBe(map.delete(gone))
    }
    for (let at = 0; at < MANY; at += 3) expect(young.delete(`${at}`)).toBe(map.delete(`${at}`))
    map.set('last', 1)
    young.set('last', 1)
    expect([...young]).toEqual([...map])
    expect([...young.keys()]).toEqual([...map.keys()])
    expect([...young.values()]).toEqual([...map.values()])
    expect(young.size).toBe(map.size)
    expect(young.get('again')).toBe(MANY - 1)
    expect(young.has('0')).toBe(false)
  })

  test('shows whoever takes entries out on the way what is left', () => {
    const young = new YoungMap<number, string>()
    for (let at = 0; at < MANY; at++) young.set(at, 'x')
    const seen: number[] = []
    for (const [at] of young) {
      seen.push(at)
      young.delete(at)
      young.delete(at + 1)
    }
    expect(seen).toEqual(Array.from({ length: MANY / 2 }, (_, half) => half * 2))
    expect(young.size).toBe(0)
  })

  test('is empty after clear', () => {
    const young = new YoungMap<number, string>()
    young.set(1, 'x')
    young.clear()
    expect([...young]).toEqual([])
  })
})

/** Megabytes that stay in memory without a full collection, of some twenty that pass while a hundred entries are in. */
function megabytesKept(map: Pick<YoungMap<number, object>, 'set' | 'delete'> | Map<number, object>): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as (how?: { type: 'minor' }) => void
  for (let at = 0; at < 100; at++) map.set(at, [])
  collect()
  const before = getHeapStatistics().used_heap_size
  for (let at = 100; at < 25_000; at++) {
    map.set(
      at,
      Array.from({ length: 100 }, () => at),
    )
    map.delete(at - 100)
  }
  collect({ type: 'minor' })
  collect({ type: 'minor' })
  return (getHeapStatistics().used_heap_size - before) / 1e6
}

test('what passed a young map leaves memory without a full collection', () => {
  expect(megabytesKept(new YoungMap())).toBeLessThan(5)
})

test('a young set is a set, however much comes and goes', () => {
  const set = new Set<number>()
  const young = new YoungSet<number>()
  for (let at = 0; at < MANY; at++) {
    set.add(at)
    young.add(at)
    expect(young.delete(at - 3)).toBe(set.delete(at - 3))
  }
  expect([...young]).toEqual([...set])
  expect(young.size).toBe(3)
  expect(young.has(MANY - 1)).toBe(true)
  expect(young.has(0)).toBe(false)
})
