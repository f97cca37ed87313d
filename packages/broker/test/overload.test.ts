/** The broker under load: what is put off, what is refused at its head, what overtakes. Links are fakes. */
import { parseElement } from '@xmq/protocol'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Input, Load } from '../src/core/port.ts'
import { FanOut } from '../src/fan-out.ts'
import { DEFERRED_BYTES_MAX, DEFERRED_MAX, Intake } from '../src/intake.ts'
import { LoadMeter, type LoadPort } from '../src/load.ts'
import { createMemoryStore } from '../src/store/memory.ts'
import type { PublishOp, Store, StoreOp } from '../src/store/port.ts'
import {
  CLAIMS_MAX,
  PUBLISHING_OPS_BESIDE_CLAIMS,
  PUBLISHING_OPS_MAX,
  type StoreEffect,
  StoreLoop,
} from '../src/store-loop.ts'

const message = (id: number) => parseElement(`<message id='${id}'><xmq xmlns='xmq:topic' topic='t'/></message>`)
const settle = parseElement("<iq type='set' id='settle'><settle xmlns='xmq:queue:1'/></iq>")

describe('intake', () => {
  const setUp = (isPressed: boolean) => {
    const handled: string[] = []
    const state = { isPressed }
    const intake = new Intake({
      isPressed: () => state.isPressed,
      handle: (stanza) => handled.push(stanza.attrs.get('id') ?? ''),
    })
    return { intake, handled, state }
  }

  it('hands everything on at once while there is no pressure', () => {
    const { intake, handled } = setUp(false)
    for (const stanza of [message(1), settle]) intake.take(stanza)
    expect(handled).toEqual(['1', 'settle'])
  })

  it('puts publishes behind what came after them, in their order, also when the pressure ends meanwhile', async () => {
    const { intake, handled, state } = setUp(true)
    intake.take(message(1))
    intake.take(settle)
    state.isPressed = false
    intake.take(message(2))
    expect([handled, intake.deferred]).toEqual([['settle'], 2])
    await new Promise<void>((resolve) => setImmediate(resolve))
    expect([handled, intake.deferred]).toEqual([['settle', '1', '2'], 0])
  })

  const iq = (id: string, child: string, from = id) =>
    parseElement(`<iq type='set' id='${id}' from='${from}'>${child}</iq>`)
  const SUB = "<xmq xmlns='xmq:command' command='sub' topic='t' ttl='60' load='0'/>"
  const RENEW = "<renew xmlns='xmq:queue:1' ttl='60' load='0' credit='1'/>"
  const SETTLE = "<settle xmlns='xmq:queue:1'/>"
  const STATS = "<stats xmlns='xmq:queue:1'/>"

  it('hands on by class: settlements, presence, questions of admins, renewals, publishes', () => {
    const { intake, handled } = setUp(true)
    const publish = iq('publish', "<publish xmlns='xmq:queue:1'/>")
    for (const stanza of [
      publish,
      iq('renew', RENEW),
      iq('sub', SUB),
      iq('stats', STATS),
      message(1),
      iq('browse', "<browse xmlns='xmq:queue:1'/>"),
    ]) {
      intake.take(stanza)
    }
    intake.take(parseElement("<presence id='presence' from='p'/>"))
    intake.take(iq('settle', SETTLE))
    intake.take(parseElement("<iq type='result' id='receipt' from='r'/>"))
    intake.take(parseElement("<message type='error' id='bounce' from='b'><body/></message>"))
    expect([handled, intake.deferred]).toEqual([['presence', 'settle', 'receipt', 'bounce'], 6])
    handled.length = 0
    intake.drain()
    expect([handled, intake.deferred]).toEqual([['stats', 'browse', 'renew', 'sub', 'publish', '1'], 0])
  })

  it.each([
    ['presence', parseElement("<presence type='unavailable' id='last' from='a'/>")],
    ['settlement', iq('last', SETTLE, 'a')],
  ])('hands on what a session sent before its %s, but for publishes', (_, last) => {
    const { intake, handled } = setUp(true)
    intake.take(parseElement("<message id='publish' from='a'><xmq xmlns='xmq:topic' topic='t'/></message>"))
    intake.take(iq('sub', SUB, 'a'))
    intake.take(iq('renew', RENEW, 'a'))
    intake.take(last)
    expect(handled).toEqual(['sub', 'renew', 'last'])
    intake.drain()
    expect(handled).toEqual(['sub', 'renew', 'last', 'publish'])
  })

  it('answers the question of an admin after what the same session sent before', () => {
    const { intake, handled } = setUp(true)
    intake.take(iq('sub', SUB, 'a'))
    intake.take(iq('stats', STATS, 'a'))
    intake.drain()
    expect(handled).toEqual(['sub', 'stats'])
  })

  it('hands on a cancel after the requests of the same session, and before those of others', () => {
    const { intake, handled } = setUp(true)
    const request = "<xmq xmlns='xmq:topic' topic='t'/>"
    const cancel = "<cancel xmlns='xmq:queue:1' call='request'/>"
    intake.take(iq('request', request, 'a'))
    intake.take(iq('other', request, 'b'))
    intake.take(iq('cancel', cancel, 'a'))
    intake.take(iq('early', cancel, 'c'))
    intake.take(iq('renew', RENEW, 'a'))
    intake.drain()
    expect(handled).toEqual(['early', 'renew', 'request', 'other', 'cancel'])
    // What was handed on is overtaken no more.
    handled.length = 0
    intake.take(iq('request', request, 'b'))
    intake.take(iq('cancel', cancel, 'a'))
    intake.drain()
    expect(handled).toEqual(['cancel', 'request'])
  })

  it('puts off no more than so many, and so many bytes', () => {
    const many = setUp(true)
    for (let id = 1; id < DEFERRED_MAX; id++) many.intake.take(message(id))
    expect(many.handled).toEqual([])
    many.intake.take(message(DEFERRED_MAX))
    expect([many.handled.length, many.intake.deferred]).toEqual([DEFERRED_MAX, 0])
    const large = setUp(true)
    large.intake.take(message(1))
    large.intake.chunkRead(DEFERRED_BYTES_MAX - 1)
    expect(large.handled).toEqual([])
    large.intake.chunkRead(1)
    expect(large.handled).toEqual(['1'])
  })
})

describe('the store loop', () => {
  const publish = (id: number): PublishOp => ({ type: 'publish', queue: 'q', topic: 't', id: String(id) }) as PublishOp
  const apply = (call: number, ...ops: StoreOp[]): StoreEffect => ({ type: 'apply', call, ops })
  const ack: StoreOp = { type: 'ack', queue: 'q', subscription: '', seq: 1, token: 'x', holder: 'a@b' }

  /** A store that answers when it is told to, in order. */
  function setUp(congested: ReadonlySet<string> = new Set()) {
    const asked: { readonly ops: readonly StoreOp[]; readonly now: number; readonly answer: () => void }[] = []
    const fed: Input[] = []
    let endClaim = () => {}
    const store: Store = {
      ...createMemoryStore(),
      claim: () =>
        new Promise((resolve) => {
          endClaim = () => resolve({ status: 'ok', messages: [], expired: [], corrupt: [], more: false })
        }),
      apply: (ops, now) =>
        new Promise((resolve) => {
          asked.push({ ops, now, answer: () => resolve(ops.map(() => ({ status: 'ok', type: 'ack' }))) })
        }),
    }
    const loop = new StoreLoop(store, {
      feed: (input) => fed.push(input),
      isCongested: (domain) => congested.has(domain),
      onFault: (_, error) => {
        throw error
      },
    })
    const answer = async (at: number) => {
      asked[at]?.answer()
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    const claimed = async () => {
      endClaim()
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    return { loop, asked, fed, answer, claimed }
  }
  const batch = (from: number) => Array.from({ length: PUBLISHING_OPS_MAX }, (_, index) => publish(from + index))

  it('lets settlements overtake the publishes that wait, and keeps the order of those', async () => {
    const { loop, asked, answer, fed } = setUp()
    loop.handle(apply(1, ...batch(0)), 1)
    loop.handle(apply(2, publish(-2)), 2)
    loop.handle(apply(3, publish(-3)), 3)
    loop.handle(apply(4, ack), 4)
    expect(asked.map(({ ops }) => ops[0]?.type)).toEqual(['publish', 'ack'])
    expect(loop.publishing).toBe(PUBLISHING_OPS_MAX + 2)
    await answer(0)
    expect(asked.slice(2).map(({ ops }) => (ops[0] as PublishOp).id)).toEqual(['-2', '-3'])
    for (const at of [1, 2, 3]) await answer(at)
    expect(fed.map((input) => 'call' in input && input.call)).toEqual([1, 4, 2, 3])
    expect(loop.publishing).toBe(0)
  })

  it('lets no publish lease what a server would not take', () => {
    const congested = new Set<string>()
    const { loop, asked } = setUp(congested)
    const grant = { token: 'x', holder: 'a@b', leaseMs: 1 }
    loop.handle(apply(1, { ...publish(1), queue: 'busy@q', grant }), 1)
    congested.add('q')
    loop.handle(apply(2, { ...publish(2), queue: 'busy@q', grant }, { ...publish(3), queue: 'idle', grant }), 2)
    expect(asked.flatMap(({ ops }) => ops.map((op) => (op as PublishOp).grant))).toEqual([grant, undefined, grant])
  })

  it('gives the store fewer publishes while somebody waits for what it has', async () => {
    const { loop, asked, answer, claimed } = setUp()
    const claim = { type: 'claim', call: 9, domain: 'q', request: {} } as StoreEffect
    loop.handle(claim, 1)
    for (let at = 0; at <= PUBLISHING_OPS_BESIDE_CLAIMS; at++) loop.handle(apply(at + 10, publish(at)), 1)
    expect(asked).toHaveLength(PUBLISHING_OPS_BESIDE_CLAIMS)
    await answer(0)
    expect(asked).toHaveLength(PUBLISHING_OPS_BESIDE_CLAIMS + 1)
    loop.handle(apply(1000, publish(1000)), 1)
    expect(asked).toHaveLength(PUBLISHING_OPS_BESIDE_CLAIMS + 1)
    await claimed()
    expect(asked).toHaveLength(PUBLISHING_OPS_BESIDE_CLAIMS + 2)
  })

  it('never takes the store back in time', async () => {
    const { loop, asked, answer } = setUp()
    loop.handle(apply(1, ...batch(0)), 1)
    loop.handle(apply(2, publish(-2)), 2)
    loop.handle(apply(3, ack), 30)
    await answer(0)
    expect(asked.map(({ now }) => now)).toEqual([1, 30, 30])
  })

  it('does what makes a durable subscription in its order among the publishes', () => {
    const { loop, asked } = setUp()
    loop.handle(apply(1, ...batch(0)), 1)
    loop.handle(apply(2, publish(-2)), 2)
    loop.handle(apply(3, { type: 'create-subscription', queue: 'q', subscription: 's', meta: '', max: 1 }), 3)
    expect(asked).toHaveLength(1)
  })

  describe('knows how long a message waits', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
    afterEach(() => void vi.useRealTimers())

    it('at first as long as the oldest has, whatever there is', async () => {
      const { loop, answer } = setUp()
      expect(loop.commitMs()).toBe(0)
      for (let call = 1; call <= 3; call++) loop.handle(apply(call, publish(call)), call)
      vi.advanceTimersByTime(100)
      expect(loop.commitMs()).toBe(100)
      for (let at = 0; at < 3; at++) await answer(at)
      expect(loop.commitMs()).toBe(0)
    })

    it('a pause of the process not among it', () => {
      const { loop } = setUp()
      loop.handle(apply(1, publish(1)), 1)
      vi.advanceTimersByTime(5100)
      loop.paused(5000)
      expect(loop.commitMs()).toBe(100)
    })

    it('then as long as what is there will take at the pace of the store', async () => {
      const { loop, answer } = setUp()
      for (let call = 1; call <= 100; call++) loop.handle(apply(call, publish(call)), call)
      let waits = 0
      for (let at = 0; at < 60; at++) {
        await answer(at)
        vi.advanceTimersByTime(100)
        waits = loop.commitMs()
      }
      expect(waits).toBeCloseTo(40 * 100)
      vi.advanceTimersByTime(60_000)
      expect(loop.commitMs()).toBeGreaterThan(5_000)
    })
  })
})

describe('claims', () => {
  it('of a domain are with the store so many at a time; the others follow', async () => {
    const answers: (() => void)[] = []
    const claimed: number[] = []
    const store: Store = {
      ...createMemoryStore(),
      claim: () =>
        new Promise((resolve) => {
          answers.push(() => resolve({ status: 'ok', messages: [], expired: [], corrupt: [], more: false }))
        }),
    }
    const loop = new StoreLoop(store, {
      feed: (input) => claimed.push('call' in input ? input.call : -1),
      isCongested: () => false,
      onFault: () => {},
    })
    const request = { queue: 'q', subscription: '', grants: [], bytesMax: 1, leaseMs: 1, now: 1 }
    for (let call = 1; call <= CLAIMS_MAX + 2; call++) loop.handle({ type: 'claim', call, domain: 'd', request }, 1)
    loop.handle({ type: 'claim', call: 99, domain: 'other', request }, 1)
    expect([answers.length, loop.held]).toEqual([CLAIMS_MAX + 1, 2])
    for (const answer of answers.splice(0)) answer()
    await new Promise<void>((resolve) => setImmediate(resolve))
    expect([answers.length, loop.held]).toEqual([2, 0])
    for (const answer of answers) answer()
    await new Promise<void>((resolve) => setImmediate(resolve))
    expect(claimed.sort((left, right) => left - right)).toEqual(
      [...Array(CLAIMS_MAX + 2).keys()].map((n) => n + 1).concat(99),
    )
  })
})

describe('a message to many', () => {
  function setUp(heldMax?: number) {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const state = { room: 0 }
    const sent: string[] = []
    const dropped: [string, number][] = []
    const fanOut = new FanOut(
      {
        isCongested: () => state.room <= 0,
        send: (_, stanza) => {
          state.room--
          sent.push(stanza.attrs.get('id') ?? '')
        },
        onDropped: (queue, count) => dropped.push([queue, count]),
      },
      heldMax,
    )
    const send = (...ids: readonly number[]) => {
      for (const id of ids) fanOut.send('d', parseElement(`<message from='q@d' id='${id}'/>`))
    }
    return { fanOut, state, sent, dropped, send }
  }
  afterEach(() => void vi.useRealTimers())

  it('goes out as the server takes it, and in its order', () => {
    const { fanOut, state, sent, send } = setUp()
    state.room = 2
    send(1, 2, 3, 4)
    expect([sent, fanOut.held]).toEqual([['1', '2'], 2])
    state.room = 1
    send(5)
    vi.advanceTimersByTime(20)
    expect([sent, fanOut.held]).toEqual([['1', '2', '3'], 2])
    state.room = 9
    vi.advanceTimersByTime(20)
    send(6)
    expect([sent, fanOut.held]).toEqual([['1', '2', '3', '4', '5', '6'], 0])
  })

  it('is dropped, and counted, beyond a bound and with the stream', () => {
    const { fanOut, dropped, send } = setUp(2)
    send(1, 2, 3)
    expect(dropped).toEqual([['q@d', 1]])
    fanOut.linkDown('d')
    expect([dropped, fanOut.held]).toEqual([
      [
        ['q@d', 1],
        ['q@d', 2],
      ],
      0,
    ])
  })
})

describe('the load meter', () => {
  afterEach(() => void vi.useRealTimers())

  function setUp(changes: Partial<LoadPort> = {}) {
    vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] })
    const clock = { late: 0 }
    const told: Load[] = []
    const meter = new LoadMeter({
      max: { loopDelayMs: 100, inputDelayMs: 100, commitMs: 100 },
      now: () => performance.now() + clock.late,
      busyShare: () => 0,
      // What a busy process uses.
      cpuMs: () => performance.now() + clock.late,
      commitMs: () => 0,
      inputDelayMs: () => 0,
      probe: () => {},
      onLoad: (load) => told.push(load),
      onPause: () => {},
      onBehind: () => {},
      ...changes,
    })
    meter.start()
    return { meter, told, clock }
  }

  it('tells nothing while nothing is near its bound, and the end of what it told', () => {
    let commitMs = 0
    const { meter, told } = setUp({ commitMs: () => commitMs })
    vi.advanceTimersByTime(1000)
    commitMs = 50
    vi.advanceTimersByTime(200)
    commitMs = 1
    vi.advanceTimersByTime(1000)
    expect(told.map((load) => load.commitMs)).toEqual([50, 50, 1])
    meter.stop()
    commitMs = 50
    vi.advanceTimersByTime(1000)
    expect(told).toHaveLength(3)
  })

  it('pings while the process is rather busy, and counts their delay while it is very busy: else the server is late, not we', () => {
    let share = 0
    let probes = 0
    const { meter } = setUp({ busyShare: () => share, inputDelayMs: () => 80, probe: () => probes++ })
    vi.advanceTimersByTime(1000)
    expect([probes, meter.load.inputDelayMs]).toEqual([0, 0])
    share = 0.6
    vi.advanceTimersByTime(2000)
    expect(probes).toBeGreaterThan(10)
    expect(meter.load.inputDelayMs).toBe(0)
    share = 1
    vi.advanceTimersByTime(1000)
    expect(meter.load.inputDelayMs).toBe(80)
  })

  it('tells once a minute of pings that take longer than they may, also while the process has little to do', () => {
    let delayMs = 100
    const behind: number[] = []
    const { told } = setUp({ inputDelayMs: () => delayMs, onBehind: (ms) => behind.push(ms) })
    vi.advanceTimersByTime(1000)
    expect(behind).toEqual([])
    delayMs = 101
    vi.advanceTimersByTime(60_000)
    expect(behind).toEqual([101])
    delayMs = 200
    vi.advanceTimersByTime(60_000)
    expect(behind).toEqual([101, 200])
    expect(told).toEqual([])
  })

  it('takes a pause of the whole process for no load, but a machine that gives it no CPU', () => {
    let cpuMs = 0
    const pauses: number[] = []
    const { meter, told, clock } = setUp({ cpuMs: () => cpuMs, onPause: (ms) => pauses.push(ms) })
    vi.advanceTimersByTime(100)
    cpuMs += 180
    clock.late += 5000
    vi.advanceTimersByTime(100)
    expect([pauses, told, meter.load.loopDelayMs]).toEqual([[5000], [], 0])
    vi.advanceTimersByTime(100)
    expect([pauses, told]).toEqual([[5000], []])
    // As late, but at work all the time.
    cpuMs += 4900
    clock.late += 5000
    vi.advanceTimersByTime(100)
    expect([pauses.length, told.length, meter.load.loopDelayMs]).toEqual([1, 1, 2000])
    vi.advanceTimersByTime(2000)
    for (let count = 0; count < 3; count++) {
      clock.late += 1000
      vi.advanceTimersByTime(100)
    }
    expect(pauses).toHaveLength(3)
    expect(meter.load.loopDelayMs).toBeGreaterThan(300)
  })

  it('takes a loop for late only when it stays so', () => {
    const { meter, told, clock } = setUp()
    vi.advanceTimersByTime(100)
    clock.late += 120
    vi.advanceTimersByTime(100)
    expect(meter.load.loopDelayMs).toBeCloseTo(48)
    vi.advanceTimersByTime(1000)
    expect(meter.load.loopDelayMs).toBe(0)
    for (let count = 0; count < 9; count++) {
      clock.late += 120
      vi.advanceTimersByTime(100)
    }
    expect(told.at(-1)?.loopDelayMs).toBeGreaterThan(110)
  })
})
