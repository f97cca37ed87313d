/** What a reliable worker holds, on a virtual clock. docs/protocol-reliable.md "Consuming", "Delivering", "Settling". */
import {
  createContent,
  type DeliveredItem,
  decodeSettle,
  encodeDeliver,
  encodeError,
  encodeJson,
  encodeRenewed,
  encodeResubscribe,
  encodeSettled,
  findChild,
  isCompleteSettle,
  NS_COMMAND,
  NS_QUEUE,
  stanza,
  type XmlElement,
  XML_ITEMS,
  XmqError,
} from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import type { Effect, SessionRules } from '../src/session/index.ts'
import { events, holding, isDisco, OWN, QUEUE, sent, SessionBench, stanzas } from './session-bench.ts'

const ACK = { kind: 'ack' } as const
const gone = new XmqError('not-found', 'leased anew')

/** A worker's session, subscribed to `t` and `logs.>`, and words for what the queue does. */
class LeaseBench extends SessionBench {
  #delivers = 0

  constructor(rules: Partial<SessionRules> = {}) {
    super({ silenceMs: 1_000_000, ttlSeconds: 600, ...rules })
    this.input({ type: 'subscribe', topic: 't' })
    this.input({ type: 'subscribe', topic: 'logs.>' })
    this.acceptSubs(this.reliable())
  }

  acceptSubs(effects: readonly Effect[]): void {
    for (const sub of subs(effects)) this.answer(sub)
  }

  deliver(items: readonly (Partial<DeliveredItem> & { seq: number })[], leaseMs = 30_000): Effect[] {
    const written = items.map((item) =>
      XML_ITEMS.writeDeliveredItem({
        lease: `${item.seq}.a`,
        id: `m${item.seq}`,
        topic: 't',
        from: 'shop@localhost/x',
        at: 1000,
        attempt: 1,
        failures: 0,
        content: createContent({ payload: [encodeJson('1')] }),
        ...item,
      }),
    )
    return this.fromQueue('set', `d${++this.#delivers}`, encodeDeliver(leaseMs, written))
  }

  fromQueue(type: string, id: string, child: XmlElement, from = QUEUE): Effect[] {
    return this.input({ type: 'stanza', stanza: stanza('iq', { type, id, from, to: OWN }, [child]) })
  }

  settle(seq: number, outcome: { kind: 'ack' } | { kind: 'release' } | { kind: 'nack'; why: string } = ACK): Effect[] {
    return this.input({ type: 'settle', key: `${seq}@1000`, outcome })
  }

  /** The queue answers a settle; `failed` are the leases that it does not take. */
  settled(settle: XmlElement, failed: readonly string[] = [], error: XmqError = gone): Effect[] {
    return this.answer(settle, [encodeSettled(failed.map((lease) => ({ lease, error })))])
  }
}

function subs(effects: readonly Effect[]): XmlElement[] {
  return stanzas(effects).filter((root) => findChild(root, 'xmq', NS_COMMAND) !== undefined)
}

/** Settle stanzas. */
function settles(effects: readonly Effect[]): XmlElement[] {
  return holding(effects, 'settle').filter((root) => root.attrs.get('type') === 'set')
}

/** What a stanza settles: "ack 1.a". */
function words(root: XmlElement | undefined): string[] {
  const settle = root && findChild(root, 'settle', NS_QUEUE)
  if (settle === undefined) return []
  return decodeSettle(settle).map((result) =>
    result.ok ? `${result.settlement.kind} ${result.settlement.lease}` : '?',
  )
}

/** Answers to deliver stanzas: "d1: ack 1.a". */
function received(effects: readonly Effect[]): string[] {
  return stanzas(effects)
    .filter((root) => root.attrs.get('type') === 'result')
    .map((root) => [`${root.attrs.get('id')}:`, ...words(root)].join(' '))
}

function delivered(effects: readonly Effect[]): number[] {
  return effects.flatMap((effect) => (effect.type === 'deliver' ? [effect.delivery.lease?.seq ?? 0] : []))
}

describe('consuming', () => {
  it('offers credit with each sub, after directed presence, with names and patterns', () => {
    const bench = new SessionBench({ credit: 16 })
    bench.input({ type: 'subscribe', topic: 'logs.>', name: 'billing' })
    const xml = sent(bench.reliable())
    expect(xml.slice(-2)).toEqual([
      `<presence to='${QUEUE}'/>`,
      expect.stringMatching(
        /command='sub' topic='logs\.&gt;' ttl='60' load='0'><consume xmlns='xmq:queue:1' credit='16' name='billing' encoding='packed'\/>/,
      ),
    ])
  })

  it('renews everything with one stanza, a third into the ttl, and at once when the load crosses', () => {
    const bench = new LeaseBench({ ttlSeconds: 60 })
    const due = bench.pass(20_000)
    expect(sent(due)).toEqual([expect.stringMatching(/<renew xmlns='xmq:queue:1' ttl='60' load='0' credit='16'\/>/)])
    bench.answer(stanzas(due)[0]!, [encodeRenewed(2)])
    const full = bench.input({ type: 'load', load: 95 })
    expect(sent(full)).toEqual([expect.stringMatching(/load='95'/)])
    bench.answer(stanzas(full)[0]!, [encodeRenewed(2)])
    expect(sent(bench.pass(19_999))).toEqual([])
    expect(sent(bench.pass(1))).toHaveLength(1)
  })

  it('subscribes anew when the queue does not know it, or knows another number', () => {
    const bench = new LeaseBench({ ttlSeconds: 60 })
    const [renew] = stanzas(bench.pass(20_000))
    const head = { type: 'error', id: renew!.attrs.get('id'), from: QUEUE, to: OWN }
    const again = bench.input({ type: 'stanza', stanza: stanza('iq', head, [encodeError(gone)]) })
    expect(subs(again)).toHaveLength(2)
    bench.acceptSubs(again)
    const [second] = stanzas(bench.pass(20_000))
    expect(subs(bench.answer(second!, [encodeRenewed(1)]))).toHaveLength(2)
  })

  it('subscribes at once when the broker calls, and says first what it holds', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    bench.pass(10)
    const effects = bench.fromQueue('set', 'b1', encodeResubscribe())
    const kinds = stanzas(effects).map((root) => {
      if (root.attrs.get('type') === 'result') return 'result'
      return words(root)[0] ?? (isDisco(root) ? 'disco' : root.name === 'iq' ? 'sub' : root.name)
    })
    expect(kinds).toEqual(['result', 'extend 1.a', 'presence', 'sub', 'sub', 'disco'])
    const stranger = bench.fromQueue('set', 'b2', encodeResubscribe(), 'mallory@localhost/x')
    expect(subs(stranger)).toEqual([])
    expect(stanzas(stranger)[0]?.attrs.get('type')).toBe('error')
  })
})

describe('received', () => {
  it('is said within a few milliseconds, whatever the handlers do', () => {
    const bench = new LeaseBench()
    const effects = bench.deliver([{ seq: 1 }, { seq: 2, topic: 'logs.eu.today' }])
    expect(delivered(effects)).toEqual([1, 2])
    expect(received(effects)).toEqual([])
    expect(received(bench.pass(3))).toEqual(['d1:'])
    expect(settles(bench.turn())).toEqual([])
  })

  it('carries what is done by then, and comes at once when all of it is', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    bench.settle(1)
    expect(stanzas(bench.turn())).toEqual([])
    bench.settle(2, { kind: 'nack', why: 'boom' })
    expect(received(bench.turn())).toEqual(['d1: ack 1.a nack 2.a'])
    bench.deliver([{ seq: 3 }, { seq: 4 }])
    bench.settle(4)
    bench.turn()
    expect(received(bench.pass(3))).toEqual(['d2: ack 4.a'])
  })

  it('is refused to strangers, and to what cannot be read', () => {
    const bench = new LeaseBench()
    const item = { seq: 1, lease: 'l', topic: 't', id: 'm', from: 'a@b/c', at: 1, attempt: 1, failures: 0 }
    const content = createContent({ payload: [] })
    const root = encodeDeliver(30_000, [XML_ITEMS.writeDeliveredItem({ ...item, content })])
    const forged = bench.fromQueue('set', 'x', root, 'mallory@localhost/x')
    expect(delivered(forged)).toEqual([])
    expect(stanzas(forged)[0]?.attrs.get('type')).toBe('error')
    const broken = bench.receive(
      `<iq type='set' id='y' from='${QUEUE}' to='${OWN}'><deliver xmlns='xmq:queue:1' lease-seconds='30' encoding='?'/></iq>`,
    )
    expect(stanzas(broken)[0]?.attrs.get('type')).toBe('error')
  })

  it('rejects a broken item as invalid, and releases one that nobody asked for', () => {
    const bench = new LeaseBench()
    const item = `lease='9.a' seq='9' topic='t' from='a@b/c' at='2026-01-02T03:04:05.678Z'`
    bench.receive(
      `<iq type='set' id='d1' from='${QUEUE}' to='${OWN}'><deliver xmlns='xmq:queue:1' lease-seconds='30'>` +
        `<item ${item} attempt='zero'/><item ${item.replaceAll('9', '8').replace('topic=', "attempt='1' topic='u' x=")}/>` +
        `</deliver></iq>`,
    )
    expect(received(bench.turn())).toEqual(['d1: reject 9.a release 8.a'])
  })
})

describe('settling', () => {
  it('gathers what is done in one turn, and more while earlier ones are unanswered', () => {
    const bench = new LeaseBench()
    bench.deliver([1, 2, 3, 4, 5, 6, 7].map((seq) => ({ seq })))
    bench.pass(3)
    bench.settle(1)
    bench.settle(2)
    const [first] = settles(bench.turn())
    expect(words(first)).toEqual(['ack 1.a', 'ack 2.a'])
    for (const seq of [3, 4, 5]) bench.settle(seq)
    expect(settles(bench.turn())).toEqual([])
    const answered = bench.settled(first!)
    expect(answered).toEqual([{ type: 'turn' }])
    expect(words(settles(bench.turn())[0])).toEqual(['ack 3.a', 'ack 4.a', 'ack 5.a'])
    expect(bench.session.unsettled).toBe(3)
  })

  it('is repeated after a lost connection, a missing answer and a refusal with wait', () => {
    const bench = new LeaseBench({ answerTimeoutMs: 1000 })
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    bench.pass(3)
    bench.settle(1)
    expect(settles(bench.turn())).toHaveLength(1)
    bench.down()
    bench.settle(2)
    const [second] = settles(bench.again())
    expect(words(second)).toEqual(['ack 1.a', 'ack 2.a'])
    const [third] = settles(bench.pass(1500))
    expect(words(third)).toEqual(['ack 1.a', 'ack 2.a'])
    bench.settled(third!, ['2.a'], new XmqError('overloaded', 'busy'))
    expect(words(settles(bench.pass(900))[0])).toEqual(['ack 2.a'])
  })

  it('is repeated on a new connection where it went with a received of which nothing shows that it was heard', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    bench.settle(1)
    expect(received(bench.turn())).toEqual(['d1: ack 1.a'])
    // An answer to what was asked after it: it was heard.
    bench.deliver([{ seq: 2 }])
    bench.pass(3)
    bench.settle(2)
    bench.settled(settles(bench.turn())[0]!)
    bench.deliver([{ seq: 3 }])
    bench.settle(3)
    expect(received(bench.turn())).toEqual(['d3: ack 3.a'])
    bench.down()
    const [settle] = settles(bench.again())
    expect(words(settle)).toEqual(['ack 3.a'])
    expect(events(bench.settled(settle!, ['3.a']))).toEqual([{ name: 'all-settled' }])
    bench.down()
    expect(settles(bench.again())).toEqual([])
  })

  it.each([
    ['that asks for more', 'wait', 60, 3000, 1000],
    ['that asks for more than a longer lease has', 'wait', 60, 30_000, 10_000],
    ['again and again', 'again', undefined, 3000, 500],
  ] as const)(
    'is repeated in time for its lease after a refusal %s',
    (_, how, retryAfterSeconds, leaseMs, withinMs) => {
      const bench = new LeaseBench()
      bench.unit = 1
      bench.deliver([{ seq: 1 }], leaseMs)
      bench.pass(3)
      bench.settle(1)
      let [settle] = settles(bench.turn())
      const busy = new XmqError('overloaded', 'busy', retryAfterSeconds === undefined ? {} : { retryAfterSeconds })
      if (how === 'again') {
        for (let time = 0; time < 8; time++) {
          bench.settled(settle!, ['1.a'], busy)
          ;[settle] = settles(bench.pass(withinMs))
        }
      }
      bench.settled(settle!, ['1.a'], busy)
      expect(settles(bench.pass(withinMs)).map(words)).toEqual([['ack 1.a']])
    },
  )

  it('is repeated no sooner than the queue asks for where the lease has time', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    bench.pass(3)
    bench.settle(1)
    const [settle] = settles(bench.turn())
    bench.settled(settle!, ['1.a'], new XmqError('overloaded', 'busy', { retryAfterSeconds: 8 }))
    expect(settles(bench.pass(7999))).toEqual([])
    expect(settles(bench.pass(2001)).map(words)).toEqual([['ack 1.a']])
  })

  it('tells when the queue does not take it, and when all is settled', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    bench.pass(3)
    bench.settle(1)
    const [settle] = settles(bench.turn())
    const told = events(bench.settled(settle!, ['1.a'])).filter(({ name }) => name !== 'ignored')
    expect(told).toMatchObject([{ name: 'settle-failed', seq: 1, outcome: 'ack' }, { name: 'all-settled' }])
    expect(bench.session.unsettled).toBe(0)
  })
})

describe('leases', () => {
  it('are extended when a third is left, all that are due soon together, and not after they are settled', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    bench.pass(4000)
    bench.deliver([{ seq: 3 }])
    bench.settle(2)
    bench.turn()
    expect(settles(bench.pass(15_999)).map(words)).toEqual([])
    const [extend] = settles(bench.pass(1))
    expect(words(extend)).toEqual(['extend 1.a', 'extend 3.a'])
    bench.settled(extend!)
    bench.settle(1)
    bench.settled(settles(bench.turn())[0]!)
    expect(settles(bench.pass(20_000)).map(words)).toEqual([['extend 3.a']])
  })

  it('that are lost stop their handlers; the rest goes on', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    const [extend] = settles(bench.pass(20_000))
    const effects = bench.settled(extend!, ['1.a'])
    expect(effects.filter(({ type }) => type === 'lease-lost')).toMatchObject([
      { seq: 1, error: { code: 'not-found' } },
    ])
    bench.settle(1)
    expect(settles(bench.turn())).toEqual([])
    bench.settle(2)
    expect(settles(bench.turn()).map(words)).toEqual([['ack 2.a']])
  })

  it('are declared first on a new connection, before the subscriptions', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    bench.settle(2)
    bench.down()
    const up = bench.again()
    const order = stanzas(up).map((root) => words(root).join(', ') || root.name)
    expect(order).toEqual(['ack 2.a, extend 1.a', 'presence', 'iq', 'iq'])
  })
})

describe('to a broker that is another one', () => {
  const isComplete = (root: XmlElement | undefined) =>
    root !== undefined && isCompleteSettle(findChild(root, 'settle', NS_QUEUE)!)
  const call = (bench: LeaseBench, life: string) => bench.fromQueue('set', `b-${life}`, encodeResubscribe(`${life}.1`))

  /** A worker that knows who its broker is. */
  function known(rules: Partial<SessionRules> = {}): LeaseBench {
    const bench = new LeaseBench(rules)
    call(bench, 'zero')
    return bench
  }

  it('it is said when all that is held has been named, once', () => {
    const bench = known()
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    bench.pass(3)
    bench.settle(1)
    const [early] = settles(bench.turn())
    expect(isComplete(early)).toBe(false)
    const [all, ...more] = settles(call(bench, 'one'))
    expect([words(all), isComplete(all), more]).toEqual([['ack 1.a', 'extend 2.a'], true, []])
    bench.settled(all!)
    bench.settle(2)
    expect(isComplete(settles(bench.turn())[0])).toBe(false)
  })

  it('it is said also by whoever holds nothing', () => {
    const bench = known()
    const [all] = settles(call(bench, 'one'))
    expect([words(all), isComplete(all)]).toEqual([[], true])
  })

  it('it is said after what was said has been heard, and again when that was not', () => {
    const bench = known({ answerTimeoutMs: 1000 })
    bench.deliver(Array.from({ length: 500 }, (_, at) => ({ seq: at + 1 })))
    bench.deliver(Array.from({ length: 501 }, (_, at) => ({ seq: at + 501 })))
    bench.pass(3)
    const [first, ...none] = settles(call(bench, 'one'))
    expect([words(first).length, isComplete(first), none]).toEqual([1000, false, []])
    bench.settled(first!)
    const [second] = settles(bench.turn())
    expect([words(second).length, isComplete(second)]).toEqual([1, true])
    const [again] = settles(bench.pass(1500))
    expect([words(again).length, isComplete(again)]).toEqual([1, true])
    bench.fromQueue('error', again!.attrs.get('id')!, encodeError(new XmqError('overloaded', 'busy')))
    const [third] = settles(bench.pass(900))
    expect([words(third).length, isComplete(third)]).toEqual([1, true])
    const [other] = settles(call(bench, 'two'))
    expect([words(other).length, isComplete(other)]).toEqual([1000, false])
    bench.down()
    const [fresh] = settles(bench.again())
    expect([words(fresh).length, isComplete(fresh)]).toEqual([1000, false])
    bench.settled(fresh!)
    expect(settles(bench.turn()).map(isComplete)).toEqual([false])
  })
})

describe('redeliveries', () => {
  it('of what is done are acked again, and never handled twice', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    bench.settle(1)
    bench.turn()
    const again = bench.deliver([{ seq: 1, lease: '1.b', attempt: 2 }])
    expect(delivered(again)).toEqual([])
    expect(events(again)).toMatchObject([{ name: 'duplicate', seq: 1, state: 'done' }])
    expect(received(bench.turn())).toEqual(['d2: ack 1.b'])
  })

  it('of what runs are not handled twice; its end settles every lease', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    bench.pass(3)
    const again = bench.deliver([{ seq: 1, lease: '1.b', attempt: 2 }])
    expect(delivered(again)).toEqual([])
    expect(events(again)).toMatchObject([{ name: 'duplicate', seq: 1, state: 'running' }])
    bench.pass(3)
    bench.settle(1)
    expect(settles(bench.turn()).map(words)).toEqual([['ack 1.a', 'ack 1.b']])
  })

  it('are none when a queue that keeps nothing has restarted and counts anew: known by when it was published', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    bench.settle(1)
    bench.turn()
    expect(
      delivered(
        bench.deliver([
          { seq: 1, lease: '1.b', at: 2000 },
          { seq: 2, lease: '2.b', at: 2000 },
        ]),
      ),
    ).toEqual([1, 2])
    bench.settle(2)
    expect(received(bench.pass(3)).join(' ')).toContain('ack 2.a')
  })

  it('of what failed or was released are handled', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }, { seq: 2 }])
    bench.settle(1, { kind: 'nack', why: 'boom' })
    bench.settle(2, { kind: 'release' })
    bench.turn()
    expect(
      delivered(
        bench.deliver([
          { seq: 1, lease: '1.b' },
          { seq: 2, lease: '2.b' },
        ]),
      ),
    ).toEqual([1, 2])
  })

  it('of what is lost but has not ended are not handled twice', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    bench.settled(settles(bench.pass(20_000))[0]!, ['1.a'])
    expect(delivered(bench.deliver([{ seq: 1, lease: '1.b' }]))).toEqual([])
    bench.pass(3)
    bench.settle(1)
    expect(settles(bench.turn()).map(words)).toEqual([['ack 1.b']])
  })

  it('do not lose a lease that came anew before the old one was refused', () => {
    const bench = new LeaseBench()
    bench.deliver([{ seq: 1 }])
    const [extend] = settles(bench.pass(20_000))
    bench.deliver([{ seq: 1, lease: '1.b' }])
    expect(bench.settled(extend!, ['1.a']).map(({ type }) => type)).not.toContain('lease-lost')
  })
})

describe('leaving', () => {
  it('reports load 100, leaves each topic, and releases what still comes', () => {
    const bench = new LeaseBench()
    const effects = bench.input({ type: 'leave' })
    expect(sent(effects)).toEqual([
      expect.stringMatching(/<renew [^>]*load='100'/),
      expect.stringMatching(/command='del' topic='t'/),
      expect.stringMatching(/command='del' topic='logs\.&gt;'/),
    ])
    expect(delivered(bench.deliver([{ seq: 1 }]))).toEqual([])
    expect(received(bench.turn())).toEqual(['d1: release 1.a'])
  })
})
