/** Reliable publishes on a virtual clock. docs/protocol-reliable.md "Publishing". */
import {
  decodePublish,
  element,
  encodeError,
  encodeJson,
  encodePublished,
  encodeResubscribe,
  findChild,
  NS_QUEUE,
  type PublishedItem,
  stanza,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import type { Effect, OutgoingParts, SessionRules } from '../src/session/index.ts'
import { disco, eventNames, holding, isDisco, OWN, QUEUE, SessionBench, stanzas, verdicts } from './session-bench.ts'

const ROOMY: Partial<SessionRules> = { pendingMax: 10_000, pendingBytesMax: 64 * 1024 * 1024 }

type Options = Omit<OutgoingParts, 'to' | 'id' | 'topic' | 'payload' | 'isText'> & { readonly topic?: string }

/** A session with a reliable queue, and words for what is published and confirmed. */
class OutboxBench extends SessionBench {
  #seq = 0

  constructor(rules: Partial<SessionRules> = {}) {
    super({ ...ROOMY, ...rules })
  }

  put(id: string, options: Options = {}, timeoutMs?: number): { ref: number; effects: Effect[] } {
    const payload = [encodeJson('1')]
    return this.publishMessage({ id, topic: 't', payload, isText: false, ...options }, timeoutMs)
  }

  confirm(batch: XmlElement, failures: Readonly<Record<string, XmqError>> = {}): Effect[] {
    const items = ids(batch).map((id): PublishedItem => {
      const error = failures[id]
      if (error !== undefined) return { status: 'failed', id, error }
      return { status: 'stored', id, seq: ++this.#seq, duplicate: false }
    })
    return this.answer(batch, [encodePublished({ durability: 'disk', items })])
  }

  /** Time passes until a batch leaves. */
  nextBatch(): XmlElement {
    for (let ticks = 0; ticks < 1000; ticks++) {
      const [batch] = batches(this.pass(Math.max(0, (this.session.deadline ?? this.now) - this.now)))
      if (batch !== undefined) return batch
    }
    throw new Error('No batch leaves.')
  }

  /** The broker refuses a whole batch. */
  deny(batch: XmlElement, error: XmqError): Effect[] {
    const head = { type: 'error', id: batch.attrs.get('id'), from: QUEUE, to: OWN }
    return this.input({ type: 'stanza', stanza: stanza('iq', head, [encodeError(error)]) })
  }
}

function ids(batch: XmlElement): string[] {
  const publish = findChild(batch, 'publish', NS_QUEUE)
  if (publish === undefined) throw new Error('It is no publish.')
  return decodePublish(publish).map((result) => (result.ok ? result.item.id : '?'))
}

function batches(effects: readonly Effect[]): XmlElement[] {
  return holding(effects, 'publish')
}

function idsOf(effects: readonly Effect[]): string[][] {
  return batches(effects).map(ids)
}

describe('publishing', () => {
  it('resolves on the confirm, and on nothing earlier', () => {
    const bench = new OutboxBench()
    bench.reliable()
    const { ref, effects } = bench.put('a')
    expect(effects).toEqual([{ type: 'turn' }])
    const [batch] = batches(bench.turn())
    expect(verdicts(bench.effects)).toEqual([])
    const confirmed = bench.confirm(batch!)
    expect(confirmed).toContainEqual({
      type: 'settled',
      ref,
      answer: undefined,
      confirm: { seq: 1, durability: 'disk', duplicate: false, subscriptions: undefined },
    })
  })

  it('takes what comes in one turn as one batch, and lets batches grow while others are unconfirmed', () => {
    const bench = new OutboxBench()
    bench.reliable()
    for (let count = 0; count < 3; count++) bench.put(`a${count}`)
    const [first] = batches(bench.turn())
    expect(ids(first!)).toEqual(['a0', 'a1', 'a2'])
    for (let count = 0; count < 3; count++) bench.put(`b${count}`)
    expect(idsOf(bench.turn())).toEqual([])
    bench.put('b3')
    expect(idsOf(bench.turn())).toEqual([['b0', 'b1', 'b2', 'b3']])
    for (let count = 0; count < 5; count++) bench.put(`c${count}`)
    expect(idsOf(bench.turn())).toEqual([])
    bench.confirm(first!)
    expect(idsOf(bench.turn())).toEqual([['c0', 'c1', 'c2', 'c3', 'c4']])
  })

  it('splits batches by items and by bytes', () => {
    const items = new OutboxBench()
    items.reliable()
    for (let count = 0; count < 1500; count++) items.put(`m${count}`)
    expect(idsOf(items.turn()).map((batch) => batch.length)).toEqual([1000, 500])
    const bytes = new OutboxBench()
    bytes.reliable()
    const payload = [encodeJson(`"${'x'.repeat(80_000)}"`)]
    for (let count = 0; count < 3; count++) {
      bytes.publishMessage({ id: `m${count}`, topic: 't', payload, isText: false })
    }
    expect(idsOf(bytes.turn())).toEqual([['m0', 'm1']])
  })

  it('waits for the mode, and goes out in the order of the calls', () => {
    const bench = new OutboxBench()
    bench.input({ type: 'start' })
    bench.put('a')
    bench.put('b')
    bench.up()
    bench.put('c')
    expect(idsOf(bench.turn())).toEqual([['a', 'b', 'c']])
  })

  it('is unsupported on a plain queue with options that only a reliable one knows', () => {
    const bench = new OutboxBench()
    bench.online()
    const { ref, effects } = bench.put('a', { delayMs: 1000 })
    expect(verdicts(effects)).toEqual([`failed ${ref} unsupported`])
  })
})

describe('order', () => {
  it('of one key has one message unconfirmed at a time, and lets others pass', () => {
    const bench = new OutboxBench()
    bench.reliable()
    bench.put('k1', { key: 'k' })
    bench.put('k2', { key: 'k' })
    bench.put('other', { key: 'o' })
    bench.put('elsewhere', { key: 'k', topic: 'u' })
    bench.put('k3', { key: 'k' })
    const [first] = batches(bench.turn())
    expect(ids(first!)).toEqual(['k1', 'other', 'elsewhere'])
    bench.confirm(first!)
    const [second] = batches(bench.turn())
    expect(ids(second!)).toEqual(['k2'])
    bench.confirm(second!)
    expect(idsOf(bench.turn())).toEqual([['k3']])
  })

  it('sends what came back before anything new, with the same ids, in the order of the calls', () => {
    const bench = new OutboxBench()
    bench.reliable()
    bench.put('a')
    bench.put('b', { key: 'k' })
    bench.put('c', { key: 'k' })
    bench.turn()
    bench.put('d')
    bench.down()
    bench.put('e')
    bench.again()
    const [batch] = batches(bench.turn())
    expect(ids(batch!)).toEqual(['a', 'b', 'd', 'e'])
    bench.confirm(batch!)
    expect(idsOf(bench.turn())).toEqual([['c']])
  })

  it('frees the key when its message is refused for good, cancelled or over', () => {
    const bench = new OutboxBench()
    bench.reliable()
    bench.put('k1', { key: 'k' })
    const second = bench.put('k2', { key: 'k' })
    bench.put('k3', { key: 'k' })
    bench.put('k4', { key: 'k' })
    const [batch] = batches(bench.turn())
    bench.input({ type: 'cancel', ref: second.ref, error: new XmqError('aborted', 'no') })
    bench.confirm(batch!, { k1: new XmqError('conflict', 'other') })
    const next = bench.turn()
    expect(idsOf(next)).toEqual([['k3']])
    bench.confirm(batches(next)[0]!)
    expect(idsOf(bench.turn())).toEqual([['k4']])
  })
})

describe('retries', () => {
  const full = new XmqError('limit-reached', 'full', { retryAfterSeconds: 5 })

  it('wait as long as the queue asked, then try one batch at a time until one is stored', () => {
    const bench = new OutboxBench()
    bench.reliable()
    for (let count = 0; count < 1500; count++) bench.put(`m${count}`)
    const [first, second] = batches(bench.turn())
    expect(eventNames(bench.deny(first!, full))).toEqual(['publish-paused'])
    bench.put('new')
    expect(idsOf(bench.turn())).toEqual([])
    bench.confirm(second!)
    expect(idsOf(bench.pass(4999))).toEqual([])
    const tried = batches(bench.pass(2000))
    expect(tried.map((batch) => [ids(batch).length, ids(batch)[0], ids(batch).at(-1)])).toEqual([[1000, 'm0', 'm999']])
    bench.confirm(tried[0]!)
    expect(idsOf(bench.turn())).toEqual([['new']])
  })

  it('take only what was refused with wait: the rest is over', () => {
    const bench = new OutboxBench()
    bench.reliable()
    const stored = bench.put('a')
    bench.put('b')
    const refused = bench.put('c')
    const [batch] = batches(bench.turn())
    const effects = bench.confirm(batch!, { b: full, c: new XmqError('too-large', 'big') })
    expect(verdicts(effects)).toEqual([`settled ${stored.ref}`, `failed ${refused.ref} too-large`])
    expect(idsOf(bench.pass(10_000))).toEqual([['b']])
  })

  it('pause longer and longer while nothing is stored, and start anew after a success', () => {
    const bench = new OutboxBench({ silenceMs: 1_000_000 })
    bench.unit = 1
    bench.reliable()
    bench.put('a')
    let batch = batches(bench.turn())[0]!
    const pauses: number[] = []
    for (let count = 0; count < 9; count++) {
      const before = bench.now
      bench.deny(batch, new XmqError('overloaded', 'busy'))
      batch = bench.nextBatch()
      pauses.push(bench.now - before)
    }
    expect(pauses).toEqual([250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000])
    bench.confirm(batch)
    bench.put('b')
    const before = bench.now
    bench.deny(batches(bench.turn())[0]!, new XmqError('overloaded', 'busy'))
    bench.nextBatch()
    expect(bench.now - before).toBe(250)
  })

  it('come after a confirm that is missing, empty, or does not name the message', () => {
    const bench = new OutboxBench({ answerTimeoutMs: 1000 })
    bench.reliable()
    bench.put('a')
    bench.turn()
    const [second] = batches(bench.pass(1500))
    bench.answer(second!, [element('published', NS_QUEUE, { durability: 'disk' })])
    const [third] = batches(bench.pass(900))
    bench.answer(third!)
    const [fourth] = batches(bench.pass(1400))
    expect(verdicts(bench.confirm(fourth!))).toEqual(['settled 1'])
  })

  it('are in vain when the late confirm comes: it counts, once', () => {
    const bench = new OutboxBench({ answerTimeoutMs: 1000 })
    bench.reliable()
    bench.put('a', { key: 'k' })
    bench.put('b', { key: 'k' })
    const [first] = batches(bench.turn())
    const [second] = batches(bench.pass(1500))
    expect(ids(second!)).toEqual(['a'])
    expect(verdicts(bench.confirm(first!))).toEqual(['settled 1'])
    expect(verdicts(bench.confirm(second!))).toEqual([])
    const [next] = batches(bench.turn())
    expect(ids(next!)).toEqual(['b'])
    expect(verdicts(bench.confirm(next!))).toEqual(['settled 2'])
  })

  it('come after a server that answers in place of the broker, not after a refusal by the broker', () => {
    const bench = new OutboxBench()
    bench.reliable()
    bench.put('a')
    const [batch] = batches(bench.turn())
    bench.refuse(batch!, 'service-unavailable')
    const [again] = batches(bench.pass(1000))
    expect(ids(again!)).toEqual(['a'])
    expect(verdicts(bench.deny(again!, new XmqError('forbidden', 'no')))).toEqual(['failed 1 forbidden'])
  })
})

describe('a broker that is away', () => {
  it('is asked every two seconds at most, and at once when it calls', () => {
    const bench = new OutboxBench({ silenceMs: 1_000_000 })
    bench.unit = 1
    bench.reliable()
    bench.put('a')
    let batch = batches(bench.turn())[0]!
    for (let count = 0; count < 5; count++) {
      const before = bench.now
      bench.refuse(batch, 'service-unavailable')
      batch = bench.nextBatch()
      expect(bench.now - before).toBeLessThanOrEqual(2000)
    }
    bench.refuse(batch, 'service-unavailable')
    const head = { type: 'set', id: 'b1', from: QUEUE, to: OWN }
    bench.input({ type: 'stanza', stanza: stanza('iq', head, [encodeResubscribe()]) })
    expect(idsOf(bench.turn())).toEqual([['a']])
  })
})

describe('bounds', () => {
  it('fails as unconfirmed before the queue forgets the id, as what hindered it when it was never sent', () => {
    const bench = new OutboxBench({ dedupeWindowMs: 60_000, answerTimeoutMs: 1000 })
    bench.reliable()
    bench.put('sent')
    bench.turn()
    bench.down()
    bench.put('waiting')
    const effects = bench.pass(60_000)
    const failed = effects.flatMap((effect) => (effect.type === 'failed' ? [effect.error] : []))
    expect(failed.map(({ code }) => code).toSorted()).toEqual(['connection-lost', 'unconfirmed'])
    expect(failed.find(({ code }) => code === 'unconfirmed')?.message).toMatch(
      /'sent' to 't' was sent, but not confirmed within 57000 ms/,
    )
  })

  it.each([
    ['limit-reached', 'each time', 3],
    ['unconfirmed', 'but once, and that answer lacks', 2],
  ])('fails as %s where the queue was full %s', (code, _, answered) => {
    const bench = new OutboxBench({ answerTimeoutMs: 60_000 })
    bench.reliable()
    bench.put('a', {}, 8000)
    const full = new XmqError('limit-reached', 'jobs is full', { retryAfterSeconds: 3 })
    let batch = batches(bench.turn())[0]!
    for (let time = 1; time <= answered; time++) {
      bench.confirm(batch, { a: full })
      if (time < 3) batch = bench.nextBatch()
    }
    const failed = bench.pass(8000).flatMap((effect) => (effect.type === 'failed' ? [effect.error] : []))
    expect(failed).toMatchObject([{ code, message: expect.stringContaining('jobs is full') }])
  })

  it('fails as unconfirmed before the queue forgets the id, where it says that it does so earlier than expected', () => {
    const bench = new OutboxBench({ dedupeWindowMs: 60_000, answerTimeoutMs: 1000 })
    bench.input({ type: 'start' })
    bench.put('waiting')
    bench.put('short', {}, 4000)
    bench.pass(1000)
    bench.up({ 'dedupe-ms': '10000' })
    bench.turn()
    expect(verdicts(bench.pass(3000))).toEqual(['failed 2 unconfirmed'])
    // What could not be sent for some time is known for as long as all else: from when it was sent.
    expect(verdicts(bench.pass(6499))).toEqual([])
    expect(verdicts(bench.pass(1))).toEqual(['failed 1 unconfirmed'])
  })

  it.each(['600000', '0', '-1', 'x', ''])('does not repeat for longer than its rules say, told %j', (told) => {
    const bench = new OutboxBench({ dedupeWindowMs: 60_000 })
    bench.input({ type: 'start' })
    bench.up({ 'dedupe-ms': told })
    bench.put('a')
    bench.turn()
    expect(verdicts(bench.pass(56_999))).toEqual([])
    expect(verdicts(bench.pass(1))).toEqual(['failed 1 unconfirmed'])
  })

  describe('of a restarted broker with another window', () => {
    /** On a queue that knows ids for so long, with `sent` unconfirmed. */
    function started(dedupeMs: number): OutboxBench {
      const bench = new OutboxBench({ dedupeWindowMs: 60_000, answerTimeoutMs: 600_000 })
      bench.input({ type: 'start' })
      bench.up({ 'dedupe-ms': String(dedupeMs), epoch: 'x.1' })
      bench.put('sent')
      bench.turn()
      return bench
    }

    /** Another broker calls. @returns what it is asked about itself */
    function restart(bench: OutboxBench, epoch = 'y.1'): XmlElement[] {
      const head = { type: 'set', id: 'b1', from: QUEUE, to: OWN }
      const effects = bench.input({ type: 'stanza', stanza: stanza('iq', head, [encodeResubscribe(epoch)]) })
      const asked = stanzas(effects).filter(isDisco)
      bench.turn()
      return asked
    }

    /** As many as leave while a batch is unconfirmed. */
    function putFour(bench: OutboxBench): void {
      for (const id of ['a', 'b', 'c', 'd']) bench.put(id)
      expect(idsOf(bench.turn())).toEqual([['a', 'b', 'c', 'd']])
    }

    it('are the shorter ones from then on, also for what was sent before', () => {
      const bench = started(60_000)
      bench.pass(5000)
      const [asked] = restart(bench)
      bench.pass(100)
      expect(eventNames(bench.answer(asked!, [disco(bench.features, { 'dedupe-ms': '10000' })]))).toEqual([])
      putFour(bench)
      // The new broker may have it since it was noticed.
      expect(verdicts(bench.pass(9399))).toEqual([])
      expect(verdicts(bench.pass(1))).toEqual(['failed 1 unconfirmed'])
      expect(verdicts(bench.pass(100)).toSorted()).toEqual([2, 3, 4, 5].map((ref) => `failed ${ref} unconfirmed`))
    })

    it('are the longer ones for what is sent from then on', () => {
      const bench = started(10_000)
      bench.answer(restart(bench)[0]!, [disco(bench.features, { 'dedupe-ms': '40000' })])
      putFour(bench)
      expect(verdicts(bench.pass(37_999))).toEqual(['failed 1 unconfirmed'])
      expect(verdicts(bench.pass(1)).toSorted()).toEqual([2, 3, 4, 5].map((ref) => `failed ${ref} unconfirmed`))
    })

    it('are asked for again until the broker has told, without a word, and hold up nothing', () => {
      const bench = started(60_000)
      bench.put('ready')
      const [asked] = restart(bench)
      expect(idsOf(bench.effects)).toEqual([['sent', 'ready']])
      // The server says that nobody is there; then the connection ends; then it is no queue; then nobody says anything.
      const refused = [...bench.refuse(asked!, 'service-unavailable'), ...bench.pass(1000)]
      expect(stanzas(refused).filter(isDisco)).toHaveLength(1)
      bench.down()
      const again = [...bench.pass(30_000), ...bench.input({ type: 'up', jid: OWN })]
      const second = stanzas(again).find(isDisco)
      const odd = [...bench.answer(second!, [disco(['xmq:topic'])]), ...bench.pass(1000)]
      const third = stanzas(odd).find(isDisco)
      expect(third).toBeDefined()
      const repeated = bench.pass(1000)
      expect(stanzas(repeated).filter(isDisco)).toHaveLength(1)
      expect(eventNames([...refused, ...again, ...odd, ...repeated])).not.toContain('waiting')
      bench.answer(third!, [disco(bench.features, { 'dedupe-ms': '10000' })])
      const told = bench.pass(8000)
      expect(stanzas(told).filter(isDisco)).toEqual([])
      expect(verdicts(told)).toEqual(['failed 1 unconfirmed', 'failed 2 unconfirmed'])
    })

    it('are not asked for where the same broker has another stream, or the mode was given', () => {
      expect(restart(started(60_000), 'x.2')).toEqual([])
      const given = new OutboxBench({ mode: 'reliable' })
      given.reliable()
      expect(restart(given)).toEqual([])
    })
  })

  it('ends a publish at its own timeout, never later than the window', () => {
    const bench = new OutboxBench({ dedupeWindowMs: 60_000 })
    bench.reliable()
    bench.put('short', {}, 500)
    bench.put('long', {}, 3_600_000)
    bench.turn()
    expect(verdicts(bench.pass(500))).toEqual(['failed 1 unconfirmed'])
    expect(verdicts(bench.pass(60_000))).toEqual(['failed 2 unconfirmed'])
  })

  it('refuses what is over its count or bytes, and has room again after a confirm', () => {
    const bench = new OutboxBench({ pendingMax: 2 })
    bench.reliable()
    bench.put('a')
    bench.put('b')
    expect(verdicts(bench.put('c').effects)).toEqual(['failed 3 limit-reached'])
    bench.confirm(batches(bench.turn())[0]!)
    expect(verdicts(bench.put('d').effects)).toEqual([])
    const bytes = new OutboxBench({ pendingBytesMax: 100 })
    bytes.reliable()
    bytes.put('a')
    expect(verdicts(bytes.put('b').effects)).toEqual(['failed 2 limit-reached'])
  })

  it('fails everything on close, as unconfirmed where it was sent', () => {
    const bench = new OutboxBench()
    bench.reliable()
    bench.put('a', { key: 'k' })
    bench.put('b', { key: 'k' })
    bench.turn()
    expect(verdicts(bench.input({ type: 'close', error: undefined }))).toEqual([
      'failed 1 unconfirmed',
      'failed 2 closed',
    ])
    expect(bench.session.deadline).toBeUndefined()
  })

  it('never becomes plain again, whatever answers', () => {
    const bench = new OutboxBench()
    bench.reliable()
    bench.down()
    bench.put('a')
    const up = bench.again()
    expect(eventNames(up)).toContain('mode')
    const [batch] = batches(bench.turn())
    bench.refuse(batch!, 'not-acceptable', 'XMQ topic not found')
    expect(bench.session.status).toMatchObject({ mode: 'reliable' })
  })
})
