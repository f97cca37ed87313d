import { describe, expect, test } from 'vitest'
import { Outbound } from '../../src/link/outbound.ts'

/** A socket whose kernel takes bytes only when the test says so. */
function setup(congestedBytes = 100, bytesMax = 1_000) {
  const writes: string[] = []
  /** As they were handed over. */
  const kept: Uint8Array[] = []
  const events: string[] = []
  const waiting: { bytes: number; done: () => void }[] = []
  const outbound = new Outbound({
    congestedBytes,
    bytesMax,
    write(bytes, done) {
      writes.push(Buffer.from(bytes).toString())
      kept.push(bytes)
      waiting.push({ bytes: bytes.length, done })
    },
    buffered: () => waiting.reduce((total, write) => total + write.bytes, 0),
    onCongested: (congested) => events.push(congested ? 'congested' : 'drained'),
    onOverflow: () => events.push('overflow'),
  })
  const drain = (): void => waiting.shift()?.done()
  return { outbound, writes, kept, events, drain }
}

describe('outbound', () => {
  test('what is sent in one turn is written once, at its end', async () => {
    const { outbound, writes } = setup()
    outbound.append('a')
    outbound.append('b')
    expect(writes).toEqual([])
    await Promise.resolve()
    outbound.append('c')
    await Promise.resolve()
    expect(writes).toEqual(['ab', 'c'])
  })

  test('flush writes at once, and only once', async () => {
    const { outbound, writes } = setup()
    outbound.append('a')
    outbound.flush()
    expect(writes).toEqual(['a'])
    await Promise.resolve()
    expect(writes).toEqual(['a'])
  })

  test('writes nothing into what the kernel has not taken yet, and cuts nothing off', () => {
    const { outbound, kept, drain } = setup(10_000_000, 10_000_000)
    const write = (text: string): void => {
      outbound.append(text)
      outbound.flush()
    }
    const large = 'é'.repeat(600_000)
    write('a')
    drain()
    for (const text of ['bb', 'ccc', large]) write(text)
    expect(kept.slice(1).map((bytes) => Buffer.from(bytes).toString())).toEqual(['bb', 'ccc', large])
    for (const _ of kept) drain()
    for (const text of [large, 'd', 'e']) write(text)
    expect(kept.slice(4).map((bytes) => Buffer.from(bytes).toString())).toEqual([large, 'd', 'e'])
  })

  test('counts bytes, not characters, in the total and while they wait', () => {
    const { outbound, drain } = setup()
    outbound.append('é€😀')
    outbound.flush()
    expect([outbound.bytes, outbound.bytesTotal]).toEqual([9, 9])
    drain()
    expect([outbound.bytes, outbound.bytesTotal]).toEqual([0, 9])
  })

  test('is congested above the mark, and drained only below half of it', () => {
    const { outbound, events, drain } = setup(100)
    for (let index = 0; index < 4; index++) {
      outbound.append('x'.repeat(26))
      outbound.flush()
    }
    expect(events).toEqual(['congested'])
    drain()
    drain()
    expect([outbound.bytes, events]).toEqual([52, ['congested']])
    drain()
    expect([outbound.bytes, events]).toEqual([26, ['congested', 'drained']])
  })

  test('overflows once, and takes nothing any more', () => {
    const { outbound, events, writes } = setup(10, 50)
    expect(outbound.append('x'.repeat(51))).toBe(true)
    expect(outbound.append('y')).toBe(false)
    expect(events).toEqual(['overflow'])
    outbound.flush()
    expect(writes).toEqual([])
  })

  test('tells how many stanzas were given up with the connection', async () => {
    const { outbound, writes } = setup()
    outbound.append('a')
    outbound.append('b')
    expect(outbound.discard()).toBe(2)
    await Promise.resolve()
    expect([writes, outbound.append('c')]).toEqual([[], false])
  })

  test('a long run of sends is not joined into one string without bound', () => {
    const { outbound, writes } = setup(10_000_000, 100_000_000)
    for (let index = 0; index < 10; index++) outbound.append('x'.repeat(100 * 1024))
    expect(writes.length).toBe(3)
  })
})
