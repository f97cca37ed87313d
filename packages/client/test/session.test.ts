import { type XmlElement, XmqError } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import {
  commands,
  disco,
  eventNames,
  events,
  OWN,
  QUEUE,
  sent,
  SessionBench,
  stanzas,
  verdicts,
} from './session-bench.ts'

const lost = new XmqError('connection-lost', 'gone')

describe('connection', () => {
  it('retries with growing pauses and full jitter, from the start again after a connection that held', () => {
    const bench = new SessionBench()
    bench.unit = 1
    bench.input({ type: 'start' })
    const pauses: number[] = []
    for (let attempt = 0; attempt < 9; attempt++) {
      const before = bench.now
      bench.input({ type: 'down', reason: lost, fatal: false })
      pauses.push((bench.session.deadline ?? 0) - before)
      expect(bench.pass(60_000).filter((effect) => effect.type === 'open')).toHaveLength(1)
    }
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000])
    bench.input({ type: 'up', jid: OWN })
    bench.now += 6000
    bench.input({ type: 'down', reason: lost, fatal: false })
    expect((bench.session.deadline ?? 0) - bench.now).toBe(500)
    const jittered = new SessionBench()
    jittered.unit = 0
    jittered.input({ type: 'start' })
    jittered.input({ type: 'down', reason: lost, fatal: false })
    expect(jittered.session.deadline).toBe(jittered.now)
  })

  it('does not start anew with short pauses after a connection that broke at once', () => {
    const bench = new SessionBench()
    bench.unit = 1
    bench.input({ type: 'start' })
    bench.input({ type: 'up', jid: OWN })
    bench.input({ type: 'down', reason: lost, fatal: false })
    bench.pass(60_000)
    bench.input({ type: 'up', jid: OWN })
    bench.input({ type: 'down', reason: lost, fatal: false })
    expect((bench.session.deadline ?? 0) - bench.now).toBe(2000)
  })

  it('ends on a fatal failure before it was ever online, and only waits longer after', () => {
    const reason = new XmqError('not-authorized', 'wrong password')
    const never = new SessionBench()
    never.input({ type: 'start' })
    const { ref } = never.publish()
    const effects = never.input({ type: 'down', reason, fatal: true })
    expect(verdicts(effects)).toEqual([`failed ${ref} not-authorized`])
    expect(never.session.status).toEqual({ state: 'closed', reason })
    expect(never.session.deadline).toBeUndefined()

    const once = new SessionBench()
    once.online()
    once.input({ type: 'down', reason, fatal: true })
    expect(once.session.status.state).toBe('offline')
    expect((once.session.deadline ?? 0) - once.now).toBeGreaterThanOrEqual(30_000)
  })

  it('asks a silent server for a sign of life, and gives the connection up without one', () => {
    const bench = new SessionBench()
    bench.online()
    const asked = bench.pass(30_000)
    expect(sent(asked)).toEqual([expect.stringMatching(/^<iq type='get' id='id\d+' to='localhost'><ping xmlns=/)])
    bench.answer(stanzas(asked)[0]!, [], 'localhost')
    const second = bench.pass(39_000)
    expect(stanzas(second)).toHaveLength(1)
    const given = bench.pass(2000)
    expect(given.map((effect) => effect.type)).toContain('drop')
    expect(eventNames(given)).toContain('offline')
  })
})

describe('mode', () => {
  it('is plain where disco#info has xmq:topic, mod_xmq only on its own refusal', () => {
    const plain = new SessionBench()
    expect(events(plain.online()).find((event) => event.name === 'mode')).toEqual({ name: 'mode', mode: 'plain' })

    const original = new SessionBench()
    original.input({ type: 'start' })
    const ask = stanzas(original.input({ type: 'up', jid: OWN }))[0]!
    const effects = original.refuse(ask, 'not-acceptable', 'XMQ topic not found')
    expect(eventNames(effects)).toEqual(['mode', 'warning'])
    expect(original.session.status).toMatchObject({ mode: 'mod_xmq' })
  })

  it('asks again while it gets no answer, and takes the answer to whichever question', () => {
    const bench = new SessionBench()
    bench.input({ type: 'start' })
    const first = stanzas(bench.input({ type: 'up', jid: OWN }))[0]!
    const more = [1000, 2000, 4000].flatMap((ms) => stanzas(bench.pass(ms)))
    expect(more).toHaveLength(3)
    const asked = [first, ...more]
    expect(new Set(asked.map((stanza) => stanza.attrs.get('id'))).size).toBe(4)
    expect(sent(bench.pass(2000))).toEqual([])
    expect(events(bench.pass(1000))).toMatchObject([{ name: 'waiting', reason: { code: 'timeout' } }])

    const [late] = stanzas(bench.pass(1000))
    bench.pass(1000)
    expect(eventNames(bench.answer(late!, [disco(['xmq:queue:1'])]))).toEqual(['mode'])
    expect(sent(bench.pass(5000))).toEqual([])
  })

  it.each([
    ['item-not-found', /No broker serves queue1.localhost on this server yet/],
    ['remote-server-not-found', /No broker serves queue1.localhost on this server yet/],
    ['service-unavailable', /No broker serves/],
    ['not-acceptable', /not-acceptable/],
    ['internal-server-error', /internal-server-error/],
  ])('waits and asks again on %s', (condition, text) => {
    const bench = new SessionBench()
    bench.input({ type: 'start' })
    const ask = stanzas(bench.input({ type: 'up', jid: OWN }))[0]!
    const effects = bench.refuse(ask, condition)
    expect(events(effects)).toMatchObject([{ name: 'waiting', reason: { message: expect.stringMatching(text) } }])
    const again = stanzas(bench.pass(10_000)).at(-1)!
    expect(eventNames(bench.answer(again, [disco(['xmq:topic'])]))).toEqual(['mode'])
  })

  it('waits where something else answers, or nothing', () => {
    const bench = new SessionBench()
    bench.input({ type: 'start' })
    const ask = stanzas(bench.input({ type: 'up', jid: OWN }))[0]!
    expect(eventNames(bench.answer(ask, [disco(['jabber:iq:register'])]))).toEqual(['waiting'])
    expect(eventNames(bench.pass(11_000))).toEqual(['waiting'])
  })

  it('does not take the answer of a stranger', () => {
    const bench = new SessionBench()
    bench.input({ type: 'start' })
    const ask = stanzas(bench.input({ type: 'up', jid: OWN }))[0]!
    expect(eventNames(bench.answer(ask, [disco(['xmq:topic'])], 'mallory@localhost/x'))).toEqual(['ignored'])
    expect(bench.session.status).toMatchObject({ mode: undefined })
  })

  it.each([
    ['says so', (bench: SessionBench, ask: XmlElement) => bench.answer(ask, [disco(['xmq:topic'])]), 'plain'],
    ['refuses', (bench: SessionBench, ask: XmlElement) => bench.refuse(ask, 'service-unavailable'), 'plain'],
    ['is silent', (bench: SessionBench) => bench.pass(10_000), 'plain'],
    [
      'is reliable now',
      (bench: SessionBench, ask: XmlElement) => bench.answer(ask, [disco(['xmq:queue:1'])]),
      'reliable',
    ],
  ] as const)('asks a plain queue again on a new connection, where it %s', (_, answer, mode) => {
    const bench = new SessionBench()
    bench.online()
    bench.down()
    bench.publish('hi', 60_000)
    bench.pass(1000)
    const [ask] = stanzas(bench.input({ type: 'up', jid: OWN }))
    const effects = [...answer(bench, ask!), ...bench.turn()]
    expect(bench.session.status).toMatchObject({ mode })
    expect(sent(effects).join('')).toContain(mode === 'plain' ? "<message type='chat' id='m1'" : '<publish')
    bench.down()
    bench.pass(30_000)
    bench.input({ type: 'up', jid: OWN })
    expect(bench.session.status).toMatchObject({ mode: mode === 'reliable' ? mode : undefined })
  })

  it('asks a mod_xmq again', () => {
    const original = new SessionBench()
    original.input({ type: 'start' })
    original.refuse(stanzas(original.input({ type: 'up', jid: OWN }))[0]!, 'not-acceptable', 'XMQ topic not found')
    original.input({ type: 'down', reason: lost, fatal: false })
    original.pass(1000)
    expect(sent(original.input({ type: 'up', jid: OWN }))).toEqual([expect.stringContaining('disco#info')])
  })
})

describe('subscriptions', () => {
  it('greet the queue with directed presence before the first sub of a connection', () => {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 'a' })
    bench.input({ type: 'subscribe', topic: 'b' })
    const effects = bench.online()
    expect(sent(effects).slice(-3)).toEqual([
      `<presence to='${QUEUE}'/>`,
      expect.stringContaining("<xmq xmlns='xmq:command' command='sub' topic='a' ttl='60' load='0'/>"),
      expect.stringContaining("<xmq xmlns='xmq:command' command='sub' topic='b' ttl='60' load='0'/>"),
    ])
  })

  it('are renewed at a third of the ttl, and at once after a reconnect', () => {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 'a' })
    const [sub] = stanzas(bench.online()).slice(-1)
    expect(events(bench.answer(sub!))).toEqual([{ name: 'subscribed', topic: 'a', renewal: false }])
    expect(commands(bench.pass(19_999))).toEqual([])
    const renewal = bench.pass(1)
    expect(commands(renewal)).toEqual(['sub a ttl=60 load=0'])
    expect(events(bench.answer(stanzas(renewal)[0]!))).toEqual([{ name: 'subscribed', topic: 'a', renewal: true }])
    bench.input({ type: 'down', reason: lost, fatal: false })
    bench.pass(1000)
    expect(sent(bench.plainAgain()).slice(0, 1)).toEqual([`<presence to='${QUEUE}'/>`])
    expect(commands(bench.effects)).toEqual(['sub a ttl=60 load=0'])
  })

  it('are asked for again after a pause when refused or not answered', () => {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 'a' })
    const sub = stanzas(bench.online()).at(-1)!
    const failed = bench.refuse(sub, 'service-unavailable')
    expect(events(failed)).toMatchObject([{ name: 'subscription-failed', topic: 'a', error: { code: 'server' } }])
    expect(commands(bench.pass(500))).toEqual(['sub a ttl=60 load=0'])
    const late = bench.pass(10_000)
    expect(events(late)).toMatchObject([{ name: 'subscription-failed', error: { code: 'timeout' } }])
  })

  it('ignore an answer that comes twice, late, or from a stranger', () => {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 'a' })
    const sub = stanzas(bench.online()).at(-1)!
    expect(eventNames(bench.answer(sub, [], 'mallory@localhost/x'))).toEqual(['ignored'])
    expect(eventNames(bench.answer(sub))).toEqual(['subscribed'])
    expect(bench.answer(sub)).toEqual([])
  })

  it('towards mod_xmq carry exactly its attributes, expect no answer, and end by a ttl of a second', () => {
    const bench = new SessionBench({ mode: 'mod_xmq' })
    bench.input({ type: 'subscribe', topic: 'a' })
    bench.input({ type: 'start' })
    const effects = bench.input({ type: 'up', jid: OWN })
    expect(sent(effects)).toEqual([
      `<iq type='set' id='id1' to='${QUEUE}'><xmq xmlns='xmq:command' command='sub' topic='a' ttl='60' load='0'/></iq>`,
    ])
    expect(eventNames(effects)).toContain('subscribed')
    expect(commands(bench.pass(20_000))).toEqual(['sub a ttl=60 load=0'])
    const left = bench.input({ type: 'leave' })
    expect(commands(left)).toEqual(['sub a ttl=1 load=100'])
    expect(eventNames(left)).toEqual(['unsubscribed', 'left'])
  })

  it('find out when a broker took the place of mod_xmq, and the other way round', () => {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 'a' })
    bench.input({ type: 'start' })
    const ask = stanzas(bench.input({ type: 'up', jid: OWN }))[0]!
    const sub = stanzas(bench.refuse(ask, 'not-acceptable', 'XMQ topic not found')).at(-1)!
    expect(eventNames(bench.answer(sub))).toEqual(['waiting'])
    const plain = bench.answer(stanzas(bench.pass(1000))[0]!, [disco(['xmq:topic'])])
    expect(bench.session.status).toMatchObject({ mode: 'plain' })
    const refused = bench.refuse(stanzas(plain).at(-1)!, 'not-acceptable', 'XMQ topic not found')
    expect(eventNames(refused)).toEqual(['subscription-failed', 'waiting'])
    // Bounded: the next question waits for a pause.
    expect(stanzas(refused)).toEqual([])
  })

  it('are left with load 100 and del, and `left` follows the last answer, or the time', () => {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 'a' })
    bench.input({ type: 'subscribe', topic: 'b' })
    for (const sub of stanzas(bench.online()).slice(-2)) bench.answer(sub)
    const leaving = bench.input({ type: 'leave' })
    expect(commands(leaving)).toEqual(['sub a ttl=60 load=100', 'del a', 'sub b ttl=60 load=100', 'del b'])
    const [, delA, , delB] = stanzas(leaving)
    expect(eventNames(bench.answer(delA!))).toEqual(['unsubscribed'])
    expect(eventNames(bench.answer(delB!))).toEqual(['unsubscribed', 'left'])
    expect(commands(bench.pass(25_000))).toEqual([])

    const silent = new SessionBench()
    silent.input({ type: 'subscribe', topic: 'a' })
    silent.answer(stanzas(silent.online()).at(-1)!)
    silent.input({ type: 'leave' })
    expect(eventNames(silent.pass(3000))).toEqual(['left'])
  })
})

describe('load', () => {
  function subscribed(): SessionBench {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 'a' })
    bench.answer(stanzas(bench.online()).at(-1)!)
    return bench
  }

  it('is reported at once when it crosses 90 upward and 75 downward, and not in between', () => {
    const bench = subscribed()
    expect(commands(bench.input({ type: 'load', load: 90 }))).toEqual([])
    expect(commands(bench.input({ type: 'load', load: 91 }))).toEqual(['sub a ttl=60 load=91'])
    expect(commands(bench.input({ type: 'load', load: 100 }))).toEqual([])
    expect(commands(bench.input({ type: 'load', load: 75 }))).toEqual([])
    expect(commands(bench.input({ type: 'load', load: 74 }))).toEqual(['sub a ttl=60 load=74'])
  })

  it('is reported as full at most once a second, with the load of that moment', () => {
    const bench = subscribed()
    bench.input({ type: 'load', load: 100 })
    bench.input({ type: 'load', load: 0 })
    expect(commands(bench.input({ type: 'load', load: 95 }))).toEqual([])
    bench.input({ type: 'load', load: 99 })
    expect(commands(bench.pass(999))).toEqual([])
    expect(commands(bench.pass(1))).toEqual(['sub a ttl=60 load=99'])
    bench.input({ type: 'load', load: 10 })
    bench.input({ type: 'load', load: 95 })
    bench.input({ type: 'load', load: 20 })
    expect(commands(bench.pass(5000))).toEqual([])
  })

  it('goes with every renewal', () => {
    const bench = subscribed()
    bench.input({ type: 'load', load: 40 })
    expect(commands(bench.pass(20_000))).toEqual(['sub a ttl=60 load=40'])
  })
})

describe('publishes', () => {
  it('wait in order until the mode is known, then end when written', () => {
    const bench = new SessionBench()
    const first = bench.publish('1')
    const second = bench.publish('2')
    const effects = bench.online()
    expect(sent(effects).slice(-2)).toEqual([expect.stringContaining('<body>1<'), expect.stringContaining('<body>2<')])
    expect(verdicts(effects)).toEqual([])
    expect(verdicts(bench.input({ type: 'written', ref: first.ref, error: undefined }))).toEqual(['settled 1'])
    expect(verdicts(bench.input({ type: 'written', ref: second.ref, error: lost }))).toEqual([
      'failed 2 connection-lost',
    ])
  })

  it('fail with the reason why nothing could be written', () => {
    const offline = new SessionBench()
    offline.input({ type: 'start' })
    offline.input({ type: 'down', reason: lost, fatal: false })
    offline.unit = 1
    offline.publish('1', 5000)
    expect(verdicts(offline.pass(5000))).toContain('failed 1 connection-lost')

    const absent = new SessionBench()
    absent.input({ type: 'start' })
    const ask = stanzas(absent.input({ type: 'up', jid: OWN }))[0]!
    absent.refuse(ask, 'item-not-found')
    absent.publish('1', 300)
    const failed = absent.pass(300).find((effect) => effect.type === 'failed')
    expect(failed).toMatchObject({ error: { message: expect.stringContaining('No broker serves queue1.localhost') } })
  })

  it('are refused at once beyond the bounds, in count and in bytes', () => {
    const bench = new SessionBench()
    for (let count = 0; count < 4; count++) expect(verdicts(bench.publish().effects)).toEqual([])
    expect(verdicts(bench.publish().effects)).toEqual(['failed 5 limit-reached'])
    const bytes = new SessionBench({ pendingBytesMax: 100 })
    bytes.publish()
    expect(verdicts(bytes.publish().effects)).toEqual(['failed 2 limit-reached'])
    bytes.input({ type: 'cancel', ref: 1, error: lost })
    expect(verdicts(bytes.publish().effects)).toEqual([])
  })

  it('that were being written when the connection ended fail, those that waited go on', () => {
    const bench = new SessionBench()
    bench.online()
    bench.publish()
    expect(verdicts(bench.input({ type: 'down', reason: lost, fatal: false }))).toEqual(['failed 1 connection-lost'])
    bench.publish()
    bench.pass(1000)
    expect(sent(bench.plainAgain())).toEqual([expect.stringContaining("id='m2'")])
  })

  it('come back as an event with the topic that they went to', () => {
    const bench = new SessionBench()
    bench.online()
    bench.publish()
    const bounce = (from: string, id: string): string =>
      `<message type='error' from='${from}' id='${id}'><error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>` +
      `<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>No recipients found</text></error></message>`
    expect(events(bench.receive(bounce(QUEUE, 'm1')))).toMatchObject([
      { name: 'returned', id: 'm1', topic: 't', error: { code: 'no-recipients' } },
    ])
    expect(events(bench.receive(bounce('mallory@localhost/x', 'm1')))).toEqual([])
  })
})

describe('requests', () => {
  it('take an answer from the queue only', () => {
    const bench = new SessionBench()
    bench.online()
    const request = bench.request()
    const forged = bench.answer(request.stanza, [], 'mallory@localhost/x')
    expect(eventNames(forged)).toEqual(['ignored'])
    expect(verdicts(forged)).toEqual([])
    expect(verdicts(bench.answer(request.stanza))).toEqual(['settled 1'])
    expect(verdicts(bench.answer(request.stanza))).toEqual([])
  })

  it('fail with the error of the queue, and with one that explains the absence of a broker', () => {
    const bench = new SessionBench()
    bench.online()
    expect(verdicts(bench.refuse(bench.request().stanza, 'not-acceptable', 'No recipients found'))).toEqual([
      'failed 1 no-recipients',
    ])
    const [failed] = bench.refuse(bench.request().stanza, 'remote-server-timeout')
    expect(failed).toMatchObject({ error: { message: expect.stringContaining('No broker serves') } })
  })

  it('are never repeated: written once, they fail with the connection', () => {
    const bench = new SessionBench()
    bench.online()
    bench.request()
    expect(verdicts(bench.input({ type: 'down', reason: lost, fatal: false }))).toEqual(['failed 1 connection-lost'])
    bench.pass(1000)
    expect(sent(bench.plainAgain())).toEqual([])
  })

  it('time out, and can be cancelled; a late answer is dropped', () => {
    const bench = new SessionBench()
    bench.online()
    const first = bench.request(5000)
    expect(verdicts(bench.pass(5000))).toEqual(['failed 1 timeout'])
    expect(bench.answer(first.stanza)).toEqual([])
    const second = bench.request()
    expect(verdicts(bench.input({ type: 'cancel', ref: second.ref, error: new XmqError('aborted', 'x') }))).toEqual([
      'failed 2 aborted',
    ])
  })

  it('take an answer from anybody towards mod_xmq', () => {
    const bench = new SessionBench({ mode: 'mod_xmq' })
    bench.input({ type: 'start' })
    bench.input({ type: 'up', jid: OWN })
    expect(verdicts(bench.answer(bench.request().stanza, [], 'w2@localhost/x'))).toEqual(['settled 1'])
  })
})

describe('deliveries', () => {
  function worker(mode: 'auto' | 'mod_xmq' = 'auto'): SessionBench {
    const bench = new SessionBench({ mode })
    bench.input({ type: 'subscribe', topic: 't' })
    bench.online()
    return bench
  }
  const message = (from: string, to: string, topic = 't'): string =>
    `<message from='${from}' to='${to}' id='m1'><body>hi</body><xmq xmlns='xmq:topic' topic='${topic}'/>` +
    `<addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='shop@localhost/till'/></addresses></message>`

  it('count only from the queue itself, to the very full JID, for a topic of ours', () => {
    const bench = worker()
    expect(bench.receive(message(QUEUE, OWN))).toMatchObject([
      { type: 'deliver', delivery: { kind: 'message', topic: 't', id: 'm1', from: 'shop@localhost/till' } },
    ])
    for (const [from, to, topic] of [
      ['mallory@localhost/x', OWN, 't'],
      [`${QUEUE}/x`, OWN, 't'],
      [`x@${QUEUE}`, OWN, 't'],
      [QUEUE, 'w1@localhost', 't'],
      [QUEUE, 'w1@localhost/other', 't'],
      [QUEUE, OWN, 'u'],
    ] as const) {
      expect(eventNames(bench.receive(message(from, to, topic)))).toEqual(['ignored'])
    }
  })

  it('come from producers towards mod_xmq', () => {
    expect(worker('mod_xmq').receive(message('shop@localhost/till', OWN))).toMatchObject([
      { type: 'deliver', delivery: { from: 'shop@localhost/till' } },
    ])
  })

  it('take requests in both forms, and answer a stranger as if nobody were there', () => {
    const bench = worker()
    const flat = bench.receive(
      `<iq type='get' id='q' from='${QUEUE}' to='${OWN}'><custom_query xmlns='x:y'>d</custom_query><xmq xmlns='xmq:topic' topic='t'/></iq>`,
    )
    expect(flat).toMatchObject([{ type: 'deliver', delivery: { form: 'flat', payload: { kind: 'xml' } } }])
    const nested = (from: string): string =>
      `<iq type='get' id='q' from='${from}' to='${OWN}'><xmq xmlns='xmq:topic' topic='t'><json xmlns='urn:xmpp:json:0'>1</json>` +
      `<call xmlns='xmq:queue:1' from='shop@localhost/till'/></xmq></iq>`
    expect(bench.receive(nested(QUEUE))).toMatchObject([
      {
        type: 'deliver',
        delivery: { form: 'nested', from: 'shop@localhost/till', payload: { kind: 'json', text: '1' } },
      },
    ])
    const forged = bench.receive(nested('mallory@localhost/x'))
    expect(sent(forged)).toEqual([expect.stringContaining('service-unavailable')])
    expect(forged.some((effect) => effect.type === 'deliver')).toBe(false)
  })

  it('answer pings of the queue and the server, and of nobody else', () => {
    const bench = worker()
    const ping = (from: string): string =>
      `<iq type='get' id='p' ${from === '' ? '' : `from='${from}' `}to='${OWN}'><ping xmlns='urn:xmpp:ping'/></iq>`
    expect(sent(bench.receive(ping(QUEUE)))).toEqual([`<iq type='result' id='p' from='${OWN}' to='${QUEUE}'/>`])
    expect(sent(bench.receive(ping('')))[0]).toContain("type='result'")
    expect(sent(bench.receive(ping('mallory@localhost/x')))[0]).toContain('service-unavailable')
  })

  it('refuse every other IQ, and never answer an answer', () => {
    const bench = worker()
    expect(sent(bench.receive(`<iq type='set' id='p' from='a@b/c' to='${OWN}'><x xmlns='y'/></iq>`))[0]).toContain(
      'service-unavailable',
    )
    expect(stanzas(bench.receive(`<iq type='error' id='p' from='a@b/c' to='${OWN}'/>`))).toEqual([])
    expect(stanzas(bench.receive(`<iq id='p' from='a@b/c' to='${OWN}'/>`))).toEqual([])
  })

  it('are answered only over the connection that brought them', () => {
    const bench = worker()
    const [effect] = bench.receive(
      `<iq type='get' id='q' from='${QUEUE}' to='${OWN}'><xmq xmlns='xmq:topic' topic='t'/></iq>`,
    )
    if (effect?.type !== 'deliver') throw new Error('no delivery')
    const { delivery } = effect
    bench.input({ type: 'down', reason: lost, fatal: false })
    bench.pass(1000)
    bench.input({ type: 'up', jid: OWN })
    expect(bench.input({ type: 'answer', delivery, stanza: delivery.stanza })).toEqual([
      { type: 'event', event: { name: 'answer-lost', topic: 't', id: 'q' } },
    ])
  })
})

describe('close', () => {
  it('fails what is pending, says goodbye to the queue, and refuses what comes after', () => {
    const bench = new SessionBench()
    bench.input({ type: 'subscribe', topic: 't' })
    bench.online()
    bench.request()
    const effects = bench.input({ type: 'close', error: undefined })
    expect(sent(effects)).toEqual([`<presence type='unavailable' to='${QUEUE}'/>`])
    expect(effects.map((effect) => effect.type)).toEqual(['failed', 'send', 'close'])
    expect(verdicts(effects)).toEqual(['failed 1 closed'])
    expect(verdicts(bench.publish().effects)).toEqual(['failed 2 closed'])
    expect(bench.session.deadline).toBeUndefined()
  })
})
