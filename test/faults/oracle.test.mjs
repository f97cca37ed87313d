/** The oracle refuses journals that are wrong on purpose, each for its own reason. */
import { describe, expect, test } from 'vitest'
import { payloadOf, QUEUE_ALL, QUEUE_ANY, sumOf } from './messages.mjs'
import { judge } from './oracle.mjs'

/** A run that is written down by hand; times are milliseconds. */
function run() {
  const lines = []
  const dead = []
  const left = []
  const say = (by, life, at, t, fields) => lines.push({ by, life, at, t, ...fields })
  const message = (id, more = {}) => ({ queue: QUEUE_ANY, id, topic: 'work.a', fate: 'ok', pad: 1, ...more })
  const steps = {
    sent: (id, at, more = {}, { life = 1 } = {}) => say('producer1', life, at, 'sent', message(id, more)),
    confirmed: (id, seq, at, more = {}, { life = 1 } = {}) =>
      say('producer1', life, at, 'confirmed', {
        queue: QUEUE_ANY,
        id,
        seq,
        durability: 'disk',
        duplicate: false,
        ...more,
      }),
    ended: (t, id, at) => say('producer1', 1, at, t, { queue: QUEUE_ANY, id, code: 'unconfirmed' }),
    delivered: (by, id, seq, at, more = {}) =>
      say(by, 1, at, 'delivered', {
        queue: QUEUE_ANY,
        line: '',
        id,
        seq,
        topic: 'work.a',
        attempt: 1,
        sum: sumOf(payloadOf(message(id))),
        ...more,
      }),
    did: (t, by, seq, at, more = {}) => say(by, 1, at, t, { queue: QUEUE_ANY, line: '', seq, ...more }),
    fault: (kind, victim, at, until) => {
      say('faults', 1, at, 'fault', { fault: at, kind, victim })
      say('faults', 1, until, 'over', { fault: at, kind, victim })
    },
    dead: (seq, id, reason, failures, deliveries = 1) =>
      dead.push({ queue: QUEUE_ANY, line: '', seq, id, reason, failures, deliveries }),
    left: (seq, id) => left.push({ queue: QUEUE_ANY, line: '', seq, id, state: 'ready', deliveries: 0 }),
    lines,
    stalled: (by, from, at, ranMs = 0) => say(by, 1, at, 'stalled', { from, ranMs, waitedMs: at - from - ranMs }),
    judge: () => judge({ lines, dead, left, leaseMs: 3000 }),
  }
  return steps
}

/** One message that went well. */
function goodRun() {
  const good = run()
  good.sent('a', 10, { key: 'k' })
  good.confirmed('a', 1, 12)
  good.delivered('worker1', 'a', 1, 14)
  good.did('finished', 'worker1', 1, 20)
  return good
}

const rulesOf = ({ violations }) => violations.map(({ rule }) => rule)

describe('a run that is well', () => {
  test('has no violation, and is counted', () => {
    const verdict = goodRun().judge()
    expect(verdict).toMatchObject({
      sent: 1,
      confirmed: 1,
      finished: 1,
      lost: 0,
      again: {},
      twice: {},
      violationCount: 0,
    })
  })

  test('may have the finish before the confirm', () => {
    const good = run()
    good.sent('a', 10)
    good.delivered('worker1', 'a', 1, 11)
    good.did('finished', 'worker1', 1, 12)
    good.confirmed('a', 1, 13)
    expect(rulesOf(good.judge())).toEqual([])
  })

  test('may have an unconfirmed message that is delivered, and one that is not', () => {
    const good = goodRun()
    good.sent('b', 30)
    good.ended('unconfirmed', 'b', 40)
    good.delivered('worker1', 'b', 2, 50)
    good.did('finished', 'worker1', 2, 55)
    good.sent('c', 60)
    good.ended('unconfirmed', 'c', 70)
    expect(rulesOf(good.judge())).toEqual([])
  })

  test('may have a publish that a killed life left open, and its next life published again', () => {
    const good = run()
    good.sent('a', 10)
    good.fault('producer killed', 'producer1', 20, 30)
    good.sent('a', 40, {}, { life: 2 })
    good.confirmed('a', 1, 50, { duplicate: true }, { life: 2 })
    good.delivered('worker1', 'a', 1, 60)
    good.did('finished', 'worker1', 1, 61)
    expect(rulesOf(good.judge())).toEqual([])
  })
})

describe('what is lost', () => {
  test('a confirmed message that nobody got', () => {
    const bad = goodRun()
    bad.sent('b', 30)
    bad.confirmed('b', 2, 31)
    expect(bad.judge()).toMatchObject({ lost: 1, violations: [{ rule: 'lost' }] })
  })

  test('a confirmed message that was begun and never finished', () => {
    const bad = goodRun()
    bad.sent('b', 30)
    bad.confirmed('b', 2, 31)
    bad.delivered('worker1', 'b', 2, 32)
    bad.fault('worker killed', 'worker1', 33, 34)
    expect(rulesOf(bad.judge())).toEqual(['lost'])
  })

  test('a confirmed message that one of two durable subscriptions never finished', () => {
    const bad = run()
    bad.sent('a', 10, { queue: QUEUE_ALL })
    bad.confirmed('a', 1, 12, { queue: QUEUE_ALL, subscriptions: 2 })
    bad.delivered('worker1', 'a', 1, 14, { queue: QUEUE_ALL, line: 'crew1/billing' })
    bad.did('finished', 'worker1', 1, 20, { queue: QUEUE_ALL, line: 'crew1/billing' })
    expect(bad.judge()).toMatchObject({
      lost: 1,
      violations: [{ rule: 'lost', text: expect.stringContaining('audit') }],
    })
  })

  test('a confirmed message that still waits when all is over', () => {
    const bad = goodRun()
    bad.sent('b', 30)
    bad.confirmed('b', 2, 31)
    bad.left(2, 'b')
    expect(rulesOf(bad.judge())).toEqual(['lost', 'unsettled'])
  })
})

describe('what is invented', () => {
  test('a delivery that nobody published', () => {
    const bad = goodRun()
    bad.delivered('worker1', 'z', 9, 30)
    bad.did('finished', 'worker1', 9, 31)
    expect(rulesOf(bad.judge())).toEqual(['invented'])
  })

  test('a delivery with another payload, or another topic', () => {
    for (const more of [{ sum: 'other' }, { topic: 'work.b' }]) {
      const bad = run()
      bad.sent('a', 10)
      bad.confirmed('a', 1, 12)
      bad.delivered('worker1', 'a', 1, 14, more)
      bad.did('finished', 'worker1', 1, 15)
      expect(rulesOf(bad.judge())).toEqual(['invented'])
    }
  })

  test('a confirm of what was not sent', () => {
    const bad = goodRun()
    bad.confirmed('z', 9, 30)
    expect(rulesOf(bad.judge())).toEqual(['invented'])
  })

  test('a finish of what was not delivered', () => {
    const bad = goodRun()
    bad.did('finished', 'worker2', 1, 30)
    expect(rulesOf(bad.judge())).toEqual(['invented'])
  })
})

describe('a second delivery', () => {
  function again({ by = 'worker2', at = 3500 } = {}) {
    const twice = goodRun()
    twice.delivered(by, 'a', 1, at, { attempt: 2 })
    twice.did('finished', by, 1, at + 5)
    return twice
  }

  test('that nothing explains', () => {
    expect(again().judge()).toMatchObject({ again: { nothing: 1 }, violations: [{ rule: 'unexplained' }] })
  })

  test.each(['worker1', 'broker', 'server', 'stream', 'store'])('that a fault of %s explains', (victim) => {
    const explained = again()
    explained.fault('some fault', victim, 22, 60)
    expect(explained.judge()).toMatchObject({
      again: { 'some fault': 1 },
      twice: { 'some fault': 1 },
      violationCount: 0,
    })
  })

  test.each([
    ['of another worker', 'worker3', 22, 60],
    ['of a producer', 'producer1', 22, 60],
    ['long after it was finished', 'broker', 2000, 2500],
    ['after it', 'broker', 4600, 4700],
  ])('is not explained by a fault %s', (_, victim, at, until) => {
    const bad = again()
    bad.fault('some fault', victim, at, until)
    expect(rulesOf(bad.judge())).toEqual(['unexplained'])
  })

  test('is not explained by a fault long before the first', () => {
    const bad = run()
    bad.fault('broker killed', 'broker', 10, 20)
    bad.sent('a', 5000)
    bad.confirmed('a', 1, 5001)
    for (const [worker, at] of [
      ['worker1', 5002],
      ['worker2', 9000],
    ]) {
      bad.delivered(worker, 'a', 1, at)
      bad.did('finished', worker, 1, at + 5)
    }
    expect(rulesOf(bad.judge())).toEqual(['unexplained'])
  })

  describe('of a message whose lease ended while its handler ran', () => {
    function slow({ by = 'worker1', from = 2000, until = 2800, ranMs = 10, againAt = 3200 } = {}) {
      const run1 = run()
      run1.sent('a', 10)
      run1.confirmed('a', 1, 12)
      run1.delivered('worker1', 'a', 1, 14)
      run1.stalled(by, from, until, ranMs)
      run1.delivered('worker2', 'a', 1, againAt, { attempt: 2 })
      run1.did('finished', 'worker2', 1, againAt + 5)
      run1.did('finished', 'worker1', 1, 4514)
      return run1.judge()
    }

    test.each([
      ['worker1', 'its worker stalled'],
      ['broker', 'broker stalled'],
      ['store', "store's disk stalled"],
      ['faults', 'machine stalled'],
    ])('is explained by a stall that %s wrote down', (by, cause) => {
      expect(slow({ by })).toMatchObject({ again: { [cause]: 1 }, twice: { [cause]: 1 }, violations: [] })
    })

    test.each([
      ['of another worker', { by: 'worker3' }],
      ['of a producer', { by: 'producer1' }],
      ['in which the thread was busy itself', { ranMs: 500 }],
      ['after it', { from: 3300, until: 4000 }],
      ['when it came before its lease could be over', { from: 100, until: 900, againAt: 1000 }],
    ])('is not explained by a stall %s', (_, stall) => {
      expect(rulesOf(slow(stall))).toEqual(['unexplained'])
    })
  })

  test('that comes late, since its own worker was stopped meanwhile', () => {
    for (const [victim, rules] of [
      ['worker2', []],
      ['worker1', ['unexplained']],
    ]) {
      const late = run()
      late.sent('a', 10)
      late.confirmed('a', 1, 12)
      late.fault('worker stopped', victim, 11, 4000)
      late.delivered('worker1', 'a', 1, 3100, { attempt: 2 })
      late.did('finished', 'worker1', 1, 3110)
      late.delivered('worker2', 'a', 1, 4001, { attempt: 1 })
      late.did('finished', 'worker2', 1, 4005)
      expect(rulesOf(late.judge())).toEqual(rules)
    }
  })

  test('that a handler asked for by throwing', () => {
    const explained = run()
    explained.sent('a', 10)
    explained.confirmed('a', 1, 12)
    explained.delivered('worker1', 'a', 1, 14)
    explained.did('failed', 'worker1', 1, 15)
    explained.delivered('worker1', 'a', 1, 100, { attempt: 2 })
    explained.did('finished', 'worker1', 1, 105)
    expect(explained.judge()).toMatchObject({ again: { 'its handler threw': 1 }, twice: {}, violationCount: 0 })
  })
})

describe('order', () => {
  function pair(firstKey, secondKey, begunAt) {
    const two = run()
    two.sent('a', 1, { key: firstKey })
    two.sent('b', 2, { key: secondKey })
    two.confirmed('a', 1, 3)
    two.confirmed('b', 2, 4)
    two.delivered('worker1', 'a', 1, 10)
    two.did('finished', 'worker1', 1, 20)
    two.delivered('worker2', 'b', 2, begunAt)
    two.did('finished', 'worker2', 2, begunAt + 5)
    return rulesOf(two.judge())
  }

  test('a message that was begun while an earlier one of its key was in work', () => {
    expect(pair('k', 'k', 15)).toEqual(['order'])
    expect(pair('k', 'k', 21)).toEqual([])
  })

  test('counts from the first finish, whichever delivery it was of', () => {
    const late = run()
    late.fault('worker stopped', 'worker1', 12, 5000)
    for (const [id, at] of [
      ['a', 1],
      ['b', 2],
    ]) {
      late.sent(id, at, { key: 'k' })
      late.confirmed(id, at, at + 2)
    }
    late.delivered('worker1', 'a', 1, 10)
    late.delivered('worker2', 'a', 1, 3000, { attempt: 2 })
    late.did('finished', 'worker2', 1, 3010)
    late.delivered('worker2', 'b', 2, 3020)
    late.did('finished', 'worker2', 2, 3030)
    late.did('finished', 'worker1', 1, 5001)
    expect(late.judge()).toMatchObject({ twice: { 'worker stopped': 1 }, violations: [] })
  })

  test('other keys, and no key, have none', () => {
    expect(pair('k', 'l', 15)).toEqual([])
    expect(pair(undefined, undefined, 15)).toEqual([])
  })
})

describe('confirms', () => {
  test('one id with two seqs', () => {
    const bad = goodRun()
    bad.sent('a', 30, { key: 'k', again: true })
    bad.confirmed('a', 2, 31, { duplicate: true })
    expect(rulesOf(bad.judge())).toEqual(['stored-twice'])
  })

  test('the same id as new a second time', () => {
    const bad = goodRun()
    bad.sent('a', 30, { key: 'k', again: true })
    bad.confirmed('a', 1, 31)
    expect(rulesOf(bad.judge())).toEqual(['stored-twice'])
  })

  test('another durability than the store has', () => {
    const bad = run()
    bad.sent('a', 10)
    bad.confirmed('a', 1, 12, { durability: 'memory' })
    bad.delivered('worker1', 'a', 1, 14)
    bad.did('finished', 'worker1', 1, 15)
    expect(rulesOf(bad.judge())).toEqual(['confirm'])
  })

  test('a publish that never ended', () => {
    const bad = goodRun()
    bad.sent('b', 30)
    expect(rulesOf(bad.judge())).toEqual(['unsettled'])
  })
})

describe('dead letters', () => {
  test('that must be', () => {
    const good = run()
    good.sent('a', 10, { fate: 'reject' })
    good.confirmed('a', 1, 12)
    good.delivered('worker1', 'a', 1, 14, { sum: sumOf(payloadOf({ id: 'a', fate: 'reject', pad: 1 })) })
    good.did('rejected', 'worker1', 1, 15)
    good.did('failed', 'worker1', 1, 16)
    good.dead(1, 'a', 'rejected', 0)
    expect(good.judge()).toMatchObject({ dead: { rejected: 1 }, lost: 0, violationCount: 0 })
  })

  test('that was handed out twenty times', () => {
    const good = run()
    good.sent('a', 10)
    good.confirmed('a', 1, 12)
    good.dead(1, 'a', 'max-attempts', 0, 20)
    expect(rulesOf(good.judge())).toEqual([])
  })

  test.each([
    ['rejected, by nobody', 'rejected', 0],
    ['expired, without a ttl', 'expired', 0],
    ['after too few attempts', 'max-attempts', 2],
    ['corrupt', 'corrupt', 0],
  ])('%s', (_, reason, failures) => {
    const bad = run()
    bad.sent('a', 10)
    bad.confirmed('a', 1, 12)
    bad.dead(1, 'a', reason, failures)
    expect(rulesOf(bad.judge())).toEqual(['given-up'])
  })

  test('of another message than the one that was confirmed under that number', () => {
    const bad = run()
    for (const [id, seq] of [
      ['a', 1],
      ['b', 2],
    ]) {
      bad.sent(id, 10, { ttlMs: 5 })
      bad.confirmed(id, seq, 12)
    }
    bad.dead(1, 'b', 'expired', 0)
    expect(rulesOf(bad.judge())).toEqual(['lost', 'lost', 'stored-twice'])
  })

  test('after failures that nobody told', () => {
    const bad = goodRun()
    bad.dead(1, 'a', 'max-attempts', 5)
    expect(rulesOf(bad.judge())).toEqual(['given-up'])
  })
})
