/** Noticing that an answer is lost, on a virtual clock. docs/protocol-reliable.md "Lost answers". */
import {
  decodePublish,
  decodeSettle,
  encodeAlive,
  encodeDeliver,
  encodeJson,
  encodePublished,
  encodeRenewed,
  encodeResubscribe,
  encodeSettled,
  findChild,
  NS_QUEUE,
  type PublishedItem,
  createContent,
  stanza,
  XML_ITEMS,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import type { Effect, SessionRules } from '../src/session/index.ts'
import { commands, eventNames, holding, OWN, QUEUE, SessionBench, stanzas, verdicts } from './session-bench.ts'

const RULES: Partial<SessionRules> = {
  mode: 'reliable',
  pendingMax: 10_000,
  pendingBytesMax: 64 * 1024 * 1024,
  // So late that nothing here is owed to it.
  answerTimeoutMs: 3_600_000,
  ttlSeconds: 36_000,
  silenceMs: 86_400_000,
}
const HOUR = 3_600_000

class PulseBench extends SessionBench {
  #seq = 0

  constructor() {
    super(RULES)
    this.input({ type: 'start' })
    this.up()
  }

  /** Publishes, and hands back the batch. */
  put(id: string, key?: string): XmlElement {
    this.publishMessage({ id, topic: 't', key, payload: [encodeJson('1')], isText: false })
    return holding(this.turn(), 'publish')[0] as XmlElement
  }

  confirm(batch: XmlElement, epoch?: string): Effect[] {
    const items = idsOf(batch).map(
      (id): PublishedItem => ({ status: 'stored', id, seq: ++this.#seq, duplicate: false }),
    )
    return this.answer(batch, [encodePublished({ durability: 'disk', epoch, items })])
  }

  /** Time passes until the queue is asked whether it is alive. */
  question(withinMs = 1000): XmlElement {
    const until = this.now + withinMs
    for (let due = this.session.deadline; due !== undefined && due <= until; due = this.session.deadline) {
      const [asked] = holding(this.pass(Math.max(0, due - this.now)), 'alive')
      if (asked !== undefined) return asked
    }
    throw new Error('Nothing was asked.')
  }

  alive(question: XmlElement, epoch?: string): Effect[] {
    return [...this.answer(question, [encodeAlive(epoch)]), ...this.turn()]
  }

  deliver(seq: number, token: string, id = `d${seq}`): Effect[] {
    const item = XML_ITEMS.writeDeliveredItem({
      lease: token,
      seq,
      id: undefined,
      topic: 't',
      from: 'shop@localhost/1',
      at: 1000,
      attempt: 1,
      failures: 0,
      content: createContent({ payload: [encodeJson('1')] }),
    })
    const head = { type: 'set', id, from: QUEUE, to: OWN }
    return this.input({ type: 'stanza', stanza: stanza('iq', head, [encodeDeliver(HOUR, [item])]) })
  }
}

function idsOf(batch: XmlElement): string[] {
  return decodePublish(findChild(batch, 'publish', NS_QUEUE) as XmlElement).map((one) => (one.ok ? one.item.id : '?'))
}

const published = (effects: readonly Effect[]): string[][] => holding(effects, 'publish').map(idsOf)
const settled = (effects: readonly Effect[]): string[] =>
  holding(effects, 'settle').flatMap((iq) =>
    decodeSettle(findChild(iq, 'settle', NS_QUEUE) as XmlElement).map((one) =>
      one.ok ? `${one.settlement.kind} ${one.settlement.lease}` : '?',
    ),
  )

describe('a confirm that does not come', () => {
  it('makes the session ask within a second, and publish again at once when another broker answers', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    bench.put('b')
    expect(holding(bench.pass(499), 'alive')).toEqual([])
    const again = bench.alive(bench.question(), 'y.1')
    expect(published(again)).toEqual([['b']])
    expect(eventNames(again)).toContain('broker-changed')
    expect(verdicts(bench.confirm(holding(again, 'publish')[0] as XmlElement, 'y.1'))).toEqual(['settled 2'])
  })

  it('is waited for while the same broker lives, asking ever more seldom', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    const slow = bench.put('b')
    const at: number[] = []
    for (let count = 0; count < 6; count++) {
      const question = bench.question(20_000)
      at.push(bench.now)
      bench.now += 20
      expect(published(bench.alive(question, 'x.1'))).toEqual([])
    }
    expect(verdicts(bench.confirm(slow, 'x.1'))).toEqual(['settled 2'])
    expect(holding(bench.pass(HOUR / 2), 'alive')).toEqual([])
    expect(at).toHaveLength(6)
  })

  it('is lost, too, when the broker lives but its stream is another one', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    bench.put('b')
    const again = bench.alive(bench.question(), 'x.2')
    expect(published(again)).toEqual([['b']])
    expect(eventNames(again)).not.toContain('broker-changed')
  })

  it('is noticed from the answer to anything else that names another broker', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    bench.put('b')
    for (const id of ['c', 'd', 'e'])
      bench.publishMessage({ id, topic: 't', payload: [encodeJson('1')], isText: false })
    const later = bench.put('f')
    expect(idsOf(later)).toEqual(['c', 'd', 'e', 'f'])
    expect(verdicts(bench.confirm(later, 'y.1'))).toHaveLength(4)
    expect(published(bench.turn())).toEqual([['b']])
  })

  it('does not lose what was sent after the question that another broker answered', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    bench.put('b')
    const question = bench.question()
    for (const id of ['c', 'd', 'e'])
      bench.publishMessage({ id, topic: 't', payload: [encodeJson('1')], isText: false })
    bench.put('f')
    expect(published(bench.alive(question, 'y.1'))).toEqual([['b']])
  })

  it('of the first publish ever is sent again once: nothing is known of the broker before', () => {
    const bench = new PulseBench()
    const first = bench.put('a')
    const again = bench.alive(bench.question(), 'x.1')
    expect(published(again)).toEqual([['a']])
    expect(verdicts(bench.confirm(first, 'x.1'))).toEqual(['settled 1'])
    expect(verdicts(bench.confirm(holding(again, 'publish')[0] as XmlElement, 'x.1'))).toEqual([])
    bench.put('b')
    expect(published(bench.alive(bench.question(2000), 'x.1'))).toEqual([])
  })

  it('keeps the order of a key over it', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a', 'k'), 'x.1')
    bench.put('b', 'k')
    bench.publishMessage({ id: 'c', topic: 't', key: 'k', payload: [encodeJson('1')], isText: false })
    const again = bench.alive(bench.question(), 'y.1')
    expect(published(again)).toEqual([['b']])
    bench.confirm(holding(again, 'publish')[0] as XmlElement, 'y.1')
    expect(published(bench.turn())).toEqual([['c']])
  })

  it('is asked for again where the question got lost with the broker', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    bench.put('b')
    bench.question()
    expect(published(bench.alive(bench.question(2000), 'y.1'))).toEqual([['b']])
  })

  it('brings bounded questions while nobody answers any', () => {
    const bench = new PulseBench()
    bench.put('a')
    const asked = holding(bench.pass(600_000), 'alive').length
    expect(asked).toBeGreaterThan(60)
    expect(asked).toBeLessThan(130)
  })
})

describe('a queue that a server says is not served', () => {
  const away = (bench: PulseBench, iq: XmlElement): Effect[] => bench.refuse(iq, 'remote-server-timeout')

  it('is asked soon and again, and what waited leaves when it is back', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    away(bench, bench.put('b'))
    const first = bench.now
    away(bench, bench.question(100))
    away(bench, bench.question(400))
    const last = bench.question(800)
    expect(bench.now - first).toBeLessThanOrEqual(1000)
    const back = bench.alive(last, 'y.1')
    expect(published(back)).toEqual([['b']])
  })

  it('is asked some times a second while a broker may be starting, twice a second or so for a minute, then every five seconds', () => {
    const bench = new PulseBench()
    bench.input({ type: 'subscribe', topic: 't' })
    away(bench, bench.effects.flatMap((one) => (one.type === 'send' ? [one.stanza] : [])).at(-1) as XmlElement)
    let asked = 0
    const askFor = (ms: number): void => {
      for (const until = bench.now + ms; bench.now < until; asked++) away(bench, bench.question(6000))
    }
    askFor(2000)
    expect(asked).toBeGreaterThanOrEqual(10)
    askFor(2000)
    const before = asked
    askFor(10_000)
    expect(asked - before).toBeLessThan(50)
    askFor(HOUR)
    expect(asked).toBeGreaterThan(HOUR / 5000)
    expect(asked).toBeLessThan(HOUR / 3000 + 200)
  })
})

describe('a worker', () => {
  const worker = (): PulseBench => {
    const bench = new PulseBench()
    const subs = bench.input({ type: 'subscribe', topic: 't' })
    const sub = subs.flatMap((one) => (one.type === 'send' && one.stanza.name === 'iq' ? [one.stanza] : []))[0]
    bench.answer(sub as XmlElement)
    return bench
  }

  it('that is called after a restart says first what it settled and holds, then subscribes, and publishes again', () => {
    const bench = worker()
    bench.confirm(bench.put('a'), 'x.1')
    bench.put('b')
    bench.deliver(1, 'one')
    bench.deliver(2, 'two')
    bench.pass(10)
    bench.input({ type: 'settle', key: '1@1000', outcome: { kind: 'ack' } })
    expect(settled(bench.turn())).toEqual(['ack one'])
    const call = stanza('iq', { type: 'set', id: 'r', from: QUEUE, to: OWN }, [encodeResubscribe('y.1')])
    const again = [...bench.input({ type: 'stanza', stanza: call }), ...bench.turn()]
    expect(settled(again)).toEqual(['ack one', 'extend two'])
    expect(commands(again)).toEqual(['sub t ttl=36000 load=0'])
    expect(again.some((one) => one.type === 'send' && one.stanza.name === 'presence')).toBe(true)
    expect(published(again)).toEqual([['b']])
  })

  it('that nobody calls subscribes again when an answer shows another broker', () => {
    const bench = worker()
    bench.confirm(bench.put('a'), 'x.1')
    bench.deliver(1, 'one')
    bench.pass(10)
    bench.input({ type: 'settle', key: '1@1000', outcome: { kind: 'nack', why: '' } })
    const [settle] = holding(bench.turn(), 'settle')
    const again = bench.answer(settle as XmlElement, [encodeSettled([], 'y.1')])
    expect(commands(again)).toEqual(['sub t ttl=36000 load=0'])
  })

  it('settles again what had no answer, and says nothing of an ack that was taken the first time', () => {
    const bench = worker()
    bench.confirm(bench.put('a'), 'x.1')
    bench.deliver(1, 'one')
    bench.pass(10)
    bench.input({ type: 'settle', key: '1@1000', outcome: { kind: 'ack' } })
    bench.turn()
    const again = bench.alive(bench.question(), 'y.1')
    const [settle] = holding(again, 'settle')
    expect(settled(again)).toEqual(['ack one'])
    const failed = bench.receive(
      `<iq type='result' id='${settle?.attrs.get('id')}' from='${QUEUE}' to='${OWN}'><settled xmlns='xmq:queue:1'>` +
        "<item lease='one'><error xmlns='jabber:client' type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>" +
        "<failure xmlns='xmq:queue:1' code='not-found'/></error></item></settled></iq>",
    )
    expect(eventNames(failed)).toEqual(['all-settled'])
  })

  it('says again the acks that went with a received: nobody answers those', () => {
    const bench = worker()
    bench.confirm(bench.put('a'), 'x.1')
    bench.deliver(1, 'one')
    bench.input({ type: 'settle', key: '1@1000', outcome: { kind: 'ack' } })
    expect(holding(bench.turn(), 'settle').map((iq) => iq.attrs.get('type'))).toEqual(['result'])
    bench.put('b')
    expect(settled(bench.alive(bench.question(), 'y.1'))).toEqual(['ack one'])
  })

  it('says nothing again of acks that went with a received to the broker and stream that still answer', () => {
    const bench = worker()
    bench.confirm(bench.put('a'), 'x.1')
    bench.deliver(1, 'one')
    bench.input({ type: 'settle', key: '1@1000', outcome: { kind: 'ack' } })
    expect(settled(bench.turn())).toEqual(['ack one'])
    bench.put('b')
    expect(settled(bench.alive(bench.question(), 'x.1'))).toEqual([])
    expect(bench.session.unsettled).toBe(0)
  })

  it('says an extend again that may be lost with an unknown broker, and stops its handler when that is refused', () => {
    const bench = worker()
    bench.deliver(1, 'one')
    expect(settled(bench.pass((HOUR * 2) / 3))).toEqual(['extend one'])
    const heard = bench.answer(bench.question(), [encodeAlive('x.1')])
    expect(heard.map(({ type }) => type)).toContain('turn')
    const again = bench.turn()
    expect(settled(again)).toEqual(['extend one'])
    const [settle] = holding(again, 'settle')
    const error = new XmqError('not-found', 'Somebody else has it.')
    const refused = bench.answer(settle as XmlElement, [encodeSettled([{ lease: 'one', error }], 'x.1')])
    expect(refused.flatMap((one) => (one.type === 'lease-lost' ? [one.key] : []))).toEqual(['1@1000'])
  })

  it('notices a renewal that is not answered', () => {
    const bench = worker()
    bench.confirm(bench.put('a'), 'x.1')
    expect(holding(bench.pass(12_000_000), 'renew')).toHaveLength(1)
    const again = bench.alive(bench.question(), 'y.1')
    expect(commands(again)).toEqual(['sub t ttl=36000 load=0'])
  })

  it('keeps its subscriptions while the renewal names the same broker', () => {
    const bench = worker()
    bench.confirm(bench.put('a'), 'x.1')
    const [renew] = holding(bench.pass(12_000_000), 'renew')
    expect(commands(bench.answer(renew as XmlElement, [encodeRenewed(1, 'x.1')]))).toEqual([])
  })
})

describe('an idle worker', () => {
  /** Subscribed, with nothing open, on a queue of that durability. */
  function idle(durability: string): SessionBench {
    const bench = new SessionBench({ ...RULES, mode: 'auto' })
    bench.input({ type: 'subscribe', topic: 't' })
    bench.input({ type: 'start' })
    for (const root of stanzas(bench.up({ durability, epoch: 'x.1' })))
      if (commands([{ type: 'send', stanza: root }]).length > 0) bench.answer(root)
    bench.pass(600)
    return bench
  }

  it('of a queue that keeps nothing asks every few seconds, and subscribes to another broker', () => {
    const bench = idle('memory')
    const times: number[] = []
    for (let count = 0; count < 3; count++) {
      for (let asked: XmlElement[] = []; asked.length === 0; ) {
        bench.now = bench.session.deadline as number
        asked = holding(bench.input({ type: 'tick' }), 'alive')
        if (asked.length === 0) continue
        times.push(bench.now)
        const told = bench.answer(asked[0]!, [encodeAlive(count < 2 ? 'x.1' : 'y.1')])
        expect(commands(told)).toHaveLength(count < 2 ? 0 : 1)
      }
    }
    expect(times[2]! - times[1]!).toBe(3000)
  })

  it('asks again when its question was lost', () => {
    const bench = idle('memory')
    expect(holding(bench.pass(10_000), 'alive').length).toBeGreaterThanOrEqual(3)
  })

  it('of any other asks nothing: it will be called', () => {
    expect(holding(idle('disk').pass(HOUR / 2), 'alive')).toEqual([])
  })
})

describe('a request', () => {
  it('fails as soon as another broker is known to serve, and not while the stream alone is another one', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    const { ref } = bench.request(HOUR)
    expect(verdicts(bench.alive(bench.question(), 'x.2'))).toEqual([])
    expect(verdicts(bench.alive(bench.question(3000), 'y.1'))).toEqual([`failed ${ref} worker-gone`])
  })

  it('that takes long is asked for ever more seldom', () => {
    const bench = new PulseBench()
    bench.confirm(bench.put('a'), 'x.1')
    bench.request(HOUR)
    let asked = 0
    for (const until = bench.now + 600_000; bench.now < until; asked++) bench.alive(bench.question(20_000), 'x.1')
    expect(asked).toBeLessThan(75)
  })
})
