/** Splitting batches, matching answers to what was asked, and patterns. */
import * as xmq from '@xmq/protocol'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

describe('splitBatches', () => {
  const items = fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 120 }) }), { maxLength: 60 })

  test('keeps every item, in order, within both bounds, and never begins a batch needlessly', () => {
    fc.assert(
      fc.property(items, fc.integer({ min: 1, max: 10 }), (all, itemsMax) => {
        const { batches, tooLarge } = xmq.splitBatches(all, 100, itemsMax)
        expect(batches.flat()).toEqual(all.filter(({ bytes }) => bytes <= 100))
        expect(tooLarge).toEqual(all.filter(({ bytes }) => bytes > 100))
        const sum = (batch: readonly { bytes: number }[]) => batch.reduce((total, { bytes }) => total + bytes, 0)
        for (const [at, batch] of batches.entries()) {
          expect(batch.length).toBeGreaterThan(0)
          expect(batch.length).toBeLessThanOrEqual(itemsMax)
          expect(sum(batch)).toBeLessThanOrEqual(100)
          const next = batches[at + 1]?.[0]
          if (next !== undefined && batch.length < itemsMax) expect(sum(batch) + next.bytes).toBeGreaterThan(100)
        }
      }),
    )
  })

  test('fills stanzas to the limit and not beyond it', () => {
    const iq = (child: xmq.XmlElement) => xmq.stanza('iq', { type: 'set', id: '1', to: 'q' }, [child])
    const written = Array.from({ length: 3000 }, (_, n) =>
      xmq.XML_ITEMS.writePublishItem({
        id: `i${n}`,
        topic: 't',
        priority: 0,
        delayMs: 0,
        content: xmq.createContent({ payload: [xmq.encodeJson(`"${'"<é'.repeat(n % 50)}"`)] }),
      }),
    )
    const room = xmq.roomForItems(iq(xmq.encodePublish([])))
    const { batches, tooLarge } = xmq.splitBatches(written, room, xmq.BATCH_ITEMS_MAX)
    expect(tooLarge).toEqual([])
    expect(batches.length).toBeGreaterThan(3)
    for (const batch of batches) {
      const length = xmq.wireLength(iq(xmq.encodePublish(batch)))
      expect(length).toBeLessThanOrEqual(xmq.WRITE_STANZA_BYTES_MAX)
      if (batch !== batches.at(-1)) expect(length).toBeGreaterThan(xmq.WRITE_STANZA_BYTES_MAX - 1000)
    }
  })
})

describe('matchPublished', () => {
  const stored = (id: string | undefined, seq: number): xmq.PublishedItem => ({
    status: 'stored',
    id,
    seq,
    duplicate: false,
  })

  test('by place, where the ids agree: two of one id, and one that has no id', () => {
    const answers = [stored('a', 1), stored('a', 2), stored(undefined, 3), undefined]
    expect(xmq.matchPublished(['a', 'a', 'b', 'c'], answers)).toEqual(answers)
  })

  test('by id else, each answer once; what has none is not confirmed', () => {
    const one = stored('a', 1)
    const two = stored('b', 2)
    expect(xmq.matchPublished(['a', 'b', 'c'], [two, one])).toEqual([one, two, undefined])
    expect(xmq.matchPublished(['a', 'a'], [one])).toEqual([one, undefined])
    expect(xmq.matchPublished(['a', 'b'], [two, stored('z', 9)])).toEqual([undefined, two])
    expect(xmq.matchPublished(['__proto__'], [])).toEqual([undefined])
  })
})

describe('patterns', () => {
  test.each([
    ['orders.*', 'orders.eu', true],
    ['orders.*', 'orders', false],
    ['orders.*', 'orders.eu.new', false],
    ['orders.*', 'orders.', true],
    ['*.eu', 'orders.eu', true],
    ['*', 'orders', true],
    ['*', 'a.b', false],
    ['orders.>', 'orders.eu', true],
    ['orders.>', 'orders.eu.new', true],
    ['orders.>', 'orders', false],
    ['>', 'a', true],
    ['>', 'a.b.c', true],
    ['*.>', 'a', false],
    ['*.>', 'a.b.c', true],
    ['orders.*.new', 'orders.eu.new', true],
    ['orders.*.new', 'orders.eu.old', false],
    ['a*b', 'axb', false],
    ['a*b', 'a*b', true],
    ['Orders.*', 'orders.eu', false],
    ['a', 'a', true],
  ])('%s and %s: %s', (pattern, topic, expected) => expect(xmq.matchesPattern(pattern, topic)).toBe(expected))

  test.each(['a.*', '*', '>', 'a.>'])('%s is one', (pattern) => {
    expect(xmq.isPattern(pattern)).toBe(true)
    expect(() => xmq.assertPattern(pattern)).not.toThrow()
  })

  test.each(['a', 'a*', 'a.b>', '.a.'])('%s is none, and may be subscribed', (topic) => {
    expect(xmq.isPattern(topic)).toBe(false)
    expect(() => xmq.assertPattern(topic)).not.toThrow()
  })

  test.each(['>.a', 'a.>.b', '', '>.>'])('%s is refused', (pattern) => {
    expect(() => xmq.assertPattern(pattern)).toThrow(expect.objectContaining({ code: 'bad-request' }))
  })
})
