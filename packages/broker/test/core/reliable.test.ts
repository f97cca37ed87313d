/** Design section 5, the table of states, row by row; on the memory store. */
import { decodeError, isSameLife, writeElement, type XmlElement } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { errorXml, queueRules } from './conversation.ts'
import { RELIABLE_DEFAULTS, type ReliableRules } from '../../src/core/index.ts'
import { ack, nack, StoreWorld } from './store-world.ts'

const A = 'a@localhost/1'
const B = 'b@localhost/1'
const ITEM = "<item id='1' topic='t'><p xmlns='urn:x'/></item>"

/** The text of the error that an answer is. */
const errorText = (stanzas: readonly XmlElement[]): string =>
  stanzas
    .filter((stanza) => stanza.attrs.get('type') === 'error')
    .map((stanza) => decodeError(stanza).message)
    .join('')

const start = (changes: Partial<ReliableRules> = {}) =>
  StoreWorld.start({ queues: [queueRules('any.localhost', { reliable: { ...RELIABLE_DEFAULTS, ...changes } })] })

describe('a full queue', () => {
  const item = (id: number) => `<item id='${id}' topic='t'><p xmlns='urn:x'/></item>`

  it('with dead-letter-oldest takes a publish, and the oldest that waits is a dead letter', async () => {
    const w = await start({ lengthMax: 3, whenFull: 'dead-letter-oldest' })
    await w.sub(A, 't', { credit: 1 })
    await w.publish([item(1), item(2), item(3)])
    expect(await w.publish(item(4))).toContain("<item id='4' seq='4'/>")
    expect(w.counts()).toEqual({ ready: 2, delayed: 0, leased: 1, dead: 1 })
    expect(w.named('dropped')).toMatchObject([{ what: 'overflow', count: 1 }])
    const request = { queue: 'any.localhost', subscription: '', after: 0, max: 10, bodies: false }
    const answer = await w.store.browse({ ...request, state: 'dead' })
    expect(answer).toMatchObject({ entries: [{ seq: 2, reason: 'overflow' }] })
    expect((await w.work(A, ack)).map(({ id }) => id)).toEqual(['1', '3', '4'])
  })

  it('keeps no more dead letters of those that gave way than it may, a second later', async () => {
    const w = await start({ lengthMax: 1, whenFull: 'dead-letter-oldest', deadMax: 2 })
    for (let from = 0; from < 1200; from += 300) {
      await w.publish(Array.from({ length: 300 }, (_, at) => item(from + at)))
    }
    expect(w.counts()).toMatchObject({ ready: 1, dead: 1199 })
    await w.wait(1000)
    expect(w.counts()).toMatchObject({ ready: 1, dead: 2 })
    expect(w.named('dropped').filter(({ what }) => what === 'dead-letter')).toMatchObject([
      { count: 500 },
      { count: 500 },
      { count: 197 },
    ])
  })

  it('refuses where nothing waits that could give way', async () => {
    const w = await start({ lengthMax: 1, whenFull: 'dead-letter-oldest' })
    await w.sub(A, 't', { credit: 1 })
    await w.publish(item(1))
    expect(await w.publish(item(2))).toContain("code='limit-reached'")
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 1, dead: 0 })
  })
})

describe('a publish', () => {
  it('is confirmed with its seq and the durability, and waits', async () => {
    const w = await start()
    expect(await w.publish(ITEM)).toBe(
      "<iq type='result' id='pub' from='any.localhost' to='shop@localhost/1'><published xmlns='xmq:queue:1' durability='memory' epoch='r1.1'><item id='1' seq='1'/></published></iq>",
    )
    expect(w.counts()).toEqual({ ready: 1, delayed: 0, leased: 0, dead: 0 })
  })

  it('with a delay is not handed out before it is over', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 1 })
    await w.publish("<item id='1' topic='t' delay='30'><p xmlns='urn:x'/></item>")
    await w.wait(29_999)
    expect(w.delivered(A)).toEqual([])
    await w.wait(1)
    expect(w.delivered(A)).toHaveLength(1)
  })

  it('beside another one in the same iq is refused, and neither is stored', async () => {
    const w = await start()
    const publish = `<publish xmlns='xmq:queue:1'>${ITEM}</publish>`
    await w.receive(`<iq type='set' id='o' from='shop@localhost/1' to='any.localhost'>${publish}${publish}</iq>`)
    expect(errorText(w.take('shop@localhost/1'))).toContain('this one has <publish> and <publish>: send two.')
    expect(w.counts()).toMatchObject({ ready: 0 })
  })

  it('with the same id is a duplicate, with another payload a conflict', async () => {
    const w = await start()
    const twice = await w.publish([ITEM, ITEM, "<item id='1' topic='t'><other xmlns='urn:x'/></item>"])
    expect(twice).toContain("<item id='1' seq='1'/><item id='1' seq='1' duplicate='true'/><item id='1'><error")
    expect(twice).toContain("code='conflict'")
    expect(w.counts().ready).toBe(1)
  })

  it('beyond the length is refused with wait, and the rest of the batch stands', async () => {
    const w = await start({ lengthMax: 2 })
    const answer = await w.publish(['t', 't', 't'])
    expect(answer.match(/seq='/g)).toHaveLength(2)
    expect(answer).toMatch(/<error xmlns='jabber:client' type='wait'><resource-constraint.*retry-after='5'/)
  })

  it('names each item that is broken, and stores the others', async () => {
    const w = await start()
    const answer = await w.publish(["<item topic='t'/>", ITEM, "<item id='2'/>"])
    expect(answer).toContain("<item id='1' seq='1'/>")
    expect(answer).toContain("code='topic-required'")
    expect(answer).toContain("code='bad-request'")
  })

  it('of whom the queue does not allow is refused before anything is made', async () => {
    const w = await start()
    expect(await w.publish(ITEM, { from: 'eve@evil.example/1' })).toContain("code='forbidden'")
    expect(w.counts().ready).toBe(0)
  })
})

describe('a ready message', () => {
  it('is handed out within the credit, and no further', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 2 })
    await w.publish(['t', 't', 't'])
    expect((await w.work(A)).map((item) => item.seq)).toEqual([1, 2])
    expect(w.counts()).toMatchObject({ ready: 1, leased: 2 })
  })

  it('is confirmed to its producer before it is handed out', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 1 })
    await w.receive(
      `<iq type='set' id='pub' from='shop@localhost/1' to='any.localhost'><publish xmlns='xmq:queue:1'>${ITEM}</publish></iq>`,
    )
    expect(
      w
        .take()
        .filter((s) => s.attrs.get('id') !== 'sub')
        .map((s) => s.attrs.get('to')),
    ).toEqual(['shop@localhost/1', A])
  })

  it('expires when its ttl is over', async () => {
    const w = await start()
    await w.publish("<item id='1' topic='t' ttl='10'><p xmlns='urn:x'/></item>")
    await w.wait(9_999)
    expect(w.counts()).toMatchObject({ ready: 1, dead: 0 })
    await w.wait(1)
    expect(w.counts()).toMatchObject({ ready: 0, dead: 1 })
    expect(w.named('dead-lettered')).toMatchObject([{ reason: 'expired' }])
  })
})

describe('a leased message', () => {
  const leased = async (changes: Partial<ReliableRules> = {}) => {
    const w = await start(changes)
    await w.sub(A, 't', { credit: 4 })
    await w.publish(ITEM)
    const [item] = await w.work(A)
    if (item === undefined) throw new Error('nothing was delivered')
    return { w, item }
  }

  it('that is acked is gone, and a repeated ack is fine', async () => {
    const { w, item } = await leased()
    expect(await w.settleWith(A, ack(item))).toContain("<settled xmlns='xmq:queue:1' epoch='r1.1'/>")
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
    expect(await w.settleWith(A, ack(item))).toContain("<settled xmlns='xmq:queue:1' epoch='r1.1'/>")
  })

  it('may be acked by another resource of its worker, and by nobody else', async () => {
    const { w, item } = await leased()
    expect(await w.settleWith(B, ack(item))).toContain("code='not-found'")
    expect(await w.settleWith('a@localhost/2', ack(item))).toContain("<settled xmlns='xmq:queue:1' epoch='r1.1'/>")
  })

  it('may be acked with the answer to its delivery', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 4 })
    await w.publish(['t', 't'])
    await w.work(A, ack)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
    expect(w.core.stats().leases).toBe(0)
  })

  it('that is extended stays for another lease, up to the longest', async () => {
    const { w, item } = await leased({ leaseMs: 30_000, maxLeaseMs: 45_000 })
    await w.wait(20_000)
    await w.settleWith(A, `<extend lease='${item.lease}'/>`)
    await w.wait(24_999)
    expect(w.counts().leased).toBe(1)
    await w.wait(1)
    expect(w.counts().leased).toBe(0)
    expect(w.named('settled').map((event) => event.outcome)).toEqual(['extended', 'lease-over'])
  })

  it('that is released comes again at once, with no failure counted', async () => {
    const { w, item } = await leased()
    await w.settleWith(A, `<release lease='${item.lease}'/>`)
    expect(await w.work(A)).toMatchObject([{ seq: 1, attempt: 2 }])
    expect(await w.failures()).toEqual([0])
  })

  it('that was never received comes again, with no failure counted, to somebody who is awake', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 4 })
    await w.publish(ITEM)
    expect(w.delivered(A)).toHaveLength(1)
    await w.wait(30_000)
    expect(w.delivered(A)).toEqual([])
    await w.sub(B, 't', { credit: 4 })
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
    expect(await w.failures()).toEqual([0])
  })

  it('is given up after 20 deliveries that nobody settled', async () => {
    const { w, item } = await leased()
    let [again] = [item]
    for (let round = 1; round < 20; round++) {
      await w.settleWith(A, `<release lease='${again.lease}'/>`)
      again = (await w.work(A))[0] as typeof item
    }
    await w.settleWith(A, `<release lease='${again.lease}'/>`)
    expect(w.counts()).toMatchObject({ ready: 0, leased: 0, dead: 1 })
  })

  it('of a session that ended comes again at once the first time, then after a backoff', async () => {
    const { w } = await leased()
    await w.end(A)
    await w.sub(B, 't', { credit: 1 })
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
    await w.end(B)
    expect(w.counts()).toMatchObject({ ready: 0, delayed: 1 })
    await w.sub(A, 't', { credit: 1 })
    await w.wait(999)
    expect(await w.work(A)).toEqual([])
    await w.wait(1)
    expect(await w.work(A)).toMatchObject([{ seq: 1, attempt: 3 }])
  })

  it('that bounced goes to another worker, and the first one’s subscriptions end', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 1 })
    await w.sub(B, 't', { credit: 0 })
    await w.publish(ITEM)
    const [handed] = w.delivered(A)
    await w.receive(
      `<iq type='error' id='${handed?.id}' from='${A}' to='any.localhost'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
    )
    await w.sub(B, 't', { credit: 1 })
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
    expect(await w.failures()).toEqual([0])
    expect(w.named('unsubscribed')).toMatchObject([{ consumer: A, reason: 'bounced' }])
  })

  it.each(['bad-request', 'not-allowed', 'resource-constraint', 'internal-server-error'])(
    'that its worker refuses with %s goes to another, too, and counts no failure',
    async (condition) => {
      const w = await start()
      await w.sub(A, 't', { credit: 1 })
      await w.sub(B, 't', { credit: 0 })
      await w.publish(ITEM)
      const [handed] = w.delivered(A)
      await w.receive(
        `<iq type='error' id='${handed?.id}' from='${A}' to='any.localhost'>${errorXml(condition, 'modify')}</iq>`,
      )
      expect(w.counts()).toEqual({ ready: 1, delayed: 0, leased: 0, dead: 0 })
      await w.publish("<item id='2' topic='t'><p xmlns='urn:x'/></item>")
      expect(w.delivered(A)).toEqual([])
      await w.sub(B, 't', { credit: 2 })
      expect(await w.work(B)).toMatchObject([
        { seq: 1, attempt: 2 },
        { seq: 2, attempt: 1 },
      ])
      expect(await w.failures()).toEqual([0, 0])
    },
  )

  it('that is nacked comes again after a backoff that doubles, and is a dead letter at the last attempt', async () => {
    const { w, item } = await leased({ maxAttempts: 3 })
    await w.settleWith(A, nack(item))
    await w.wait(499)
    expect(await w.work(A)).toEqual([])
    await w.wait(1)
    const [second] = await w.work(A)
    expect(second?.attempt).toBe(2)
    await w.settleWith(A, nack(second as typeof item))
    await w.wait(1000)
    const [third] = await w.work(A)
    expect(third?.attempt).toBe(3)
    await w.settleWith(A, nack(third as typeof item))
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 1 })
    expect(w.named('dead-lettered')).toMatchObject([{ reason: 'max-attempts', seq: 1 }])
  })

  it('that is nacked with a delay comes again after just that', async () => {
    const { w, item } = await leased()
    await w.settleWith(A, nack(item, 60))
    await w.wait(59_999)
    expect(await w.work(A)).toEqual([])
    await w.wait(1)
    expect(await w.work(A)).toHaveLength(1)
  })

  it('whose lease is over after it was received has failed', async () => {
    const { w } = await leased()
    await w.wait(30_000)
    expect(w.counts()).toMatchObject({ delayed: 1, leased: 0 })
    await w.wait(500)
    expect(await w.work(A)).toMatchObject([{ attempt: 2 }])
  })

  it('that is rejected is a dead letter at once, for the reason given', async () => {
    const { w, item } = await leased()
    await w.settleWith(A, `<reject lease='${item.lease}' reason='invalid'>no such field</reject>`)
    expect(w.named('dead-lettered')).toMatchObject([{ reason: 'invalid' }])
  })

  it('that is rejected without a reason is a dead letter as rejected', async () => {
    const { w, item } = await leased()
    await w.settleWith(A, `<reject lease='${item.lease}'/>`)
    expect(w.named('dead-lettered')).toMatchObject([{ reason: 'rejected', seq: 1 }])
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 1 })
  })

  it('expires while it waits for the delay of its nack, which is longer than its ttl', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 1 })
    await w.publish("<item id='1' topic='t' ttl='10'><p xmlns='urn:x'/></item>")
    const [item] = await w.work(A)
    await w.settleWith(A, nack(item as { lease: string }, 60))
    await w.wait(9_999)
    expect(w.counts()).toEqual({ ready: 0, delayed: 1, leased: 0, dead: 0 })
    await w.wait(1)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 1 })
    expect(w.named('dead-lettered')).toMatchObject([{ reason: 'expired', seq: 1 }])
    await w.wait(60_000)
    expect(w.delivered(A)).toEqual([])
  })

  it('expires at its next nack', async () => {
    const w = await start()
    await w.sub(A, 't', { credit: 1 })
    await w.publish("<item id='1' topic='t' ttl='10'><p xmlns='urn:x'/></item>")
    const [item] = await w.work(A)
    await w.wait(11_000)
    expect(w.counts().leased).toBe(1)
    await w.settleWith(A, nack(item as { lease: string }))
    expect(w.named('dead-lettered')).toMatchObject([{ reason: 'expired' }])
  })

  it('that was nacked by its end may be acked late, while nobody has it', async () => {
    const { w, item } = await leased()
    await w.wait(30_000)
    expect(w.counts().delayed).toBe(1)
    expect(await w.settleWith(A, ack(item))).toContain("<settled xmlns='xmq:queue:1' epoch='r1.1'/>")
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('that was nacked by its end is leased again by a late extend, and the failure taken back', async () => {
    const { w, item } = await leased()
    await w.wait(30_000)
    expect(await w.settleWith(A, `<extend lease='${item.lease}'/>`)).toContain(
      "<settled xmlns='xmq:queue:1' epoch='r1.1'/>",
    )
    expect(w.counts()).toMatchObject({ delayed: 0, leased: 1 })
    await w.settleWith(A, nack(item))
    await w.wait(1000)
    expect(await w.work(A)).toMatchObject([{ attempt: 2 }])
  })

  it('that somebody else has is not found by its first worker', async () => {
    const { w, item } = await leased()
    await w.sub(B, 't', { credit: 1 })
    await w.end(A)
    expect(await w.work(B)).toHaveLength(1)
    for (const late of [ack(item), nack(item), `<extend lease='${item.lease}'/>`, `<release lease='${item.lease}'/>`]) {
      expect(await w.settleWith(A, late)).toContain("code='not-found'")
    }
  })
})

describe('a dead letter', () => {
  it('is replayed with no failures, or purged, by admins only', async () => {
    const admins = ['ops@localhost']
    const w = await StoreWorld.start({ queues: [queueRules('any.localhost', { admins })] })
    await w.sub(A, 't', { credit: 1 })
    await w.publish(['t', 't'])
    await w.work(A, ({ lease }) => `<reject lease='${lease}'>why</reject>`)
    const order = async (from: string, type: string, xml: string) => {
      await w.receive(`<iq type='${type}' id='o' from='${from}' to='any.localhost'>${xml}</iq>`)
      return w
        .take(from)
        .map((stanza) => JSON.stringify([...stanza.attrs], null, 0) + JSON.stringify(stanza.children))
        .join('')
    }
    expect(await order('eve@localhost/1', 'get', "<dead-letters xmlns='xmq:queue:1'/>")).toContain('forbidden')
    const replay = "<dead-letters xmlns='xmq:queue:1' action='replay'><item seq='1'/><item seq='9'/></dead-letters>"
    expect(await order('ops@localhost/1', 'set', replay)).toContain('not-found')
    expect(await w.work(A)).toMatchObject([{ seq: 1, attempt: 1 }])
    await order('ops@localhost/1', 'set', "<dead-letters xmlns='xmq:queue:1' action='purge' all='true'/>")
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 1, dead: 0 })
  })

  it('of an all queue is in a durable subscription, and whoever names none of those is told which there are', async () => {
    const queue = 'all.localhost'
    const w = await StoreWorld.start({ queues: [queueRules(queue, { type: 'all', admins: ['ops@localhost'] })] })
    const list = async (line: string) => {
      await w.receive(
        `<iq type='get' id='o' from='ops@localhost/1' to='${queue}'><dead-letters xmlns='xmq:queue:1'${line}/></iq>`,
      )
      return errorText(w.take('ops@localhost/1'))
    }
    expect(await list('')).toContain('There is none at the moment.')
    for (let n = 1; n <= 7; n++) await w.sub(A, 't', { queue, credit: 1, name: `n${n}` })
    const told =
      "There are 'n1' of a@localhost, 'n2' of a@localhost, 'n3' of a@localhost, 'n4' of a@localhost, 'n5' of a@localhost and 2 more."
    expect(await list('')).toBe(
      `all.localhost (all) keeps nothing of its own, but for its durable subscriptions: name one, and its owner. ${told}`,
    )
    const other = " subscription='n1' owner='b@localhost'"
    expect(await list(other)).toBe(`all.localhost (all) has no durable subscription 'n1' of b@localhost. ${told}`)
    expect(await list(" subscription='n1' owner='a@localhost'")).toBe('')
  })
})

describe('attempt and failures', () => {
  const release = ({ lease }: { lease: string }): string => `<release lease='${lease}'/>`
  const seen = ({ xml }: { xml: string }): string[] => xml.match(/(attempt|failures)='\d+'/g) ?? []

  it('count deliveries, and those of them that failed', async () => {
    const w = await start({ maxAttempts: 3 })
    await w.sub('a@localhost/1', 't', { credit: 1 })
    await w.publish('t')
    const now = (item: { lease: string }): string => nack(item, 0)
    const ends = [release, now, release, now, now]
    const counted: string[][] = []
    await w.work('a@localhost/1', (item) => {
      counted.push(seen(item))
      return (ends.shift() as typeof now)(item)
    })

    expect(counted).toEqual([
      ["attempt='1'"],
      ["attempt='2'"],
      ["attempt='3'", "failures='1'"],
      ["attempt='4'", "failures='1'"],
      ["attempt='5'", "failures='2'"],
    ])
    const request = { queue: 'any.localhost', subscription: '', after: 0, max: 1, bodies: false }
    const page = await w.store.browse(request)
    const [entry] = page.status === 'ok' ? page.entries : []
    expect(entry?.history.map(({ attempt }) => attempt)).toEqual([2, 4, 5])
  })
})

describe('the question whether a broker is alive', () => {
  const question = "<iq type='get' id='l' from='shop@localhost/1' to='any.localhost'><alive xmlns='xmq:queue:1'/></iq>"
  const ask = async (w: StoreWorld): Promise<string> => {
    await w.receive(question)
    return (
      (/epoch='([^']+)'/.exec(
        w
          .take('shop@localhost/1')
          .map((s) => writeElement(s))
          .join(''),
      ) ?? [])[1] ?? ''
    )
  }

  it('is answered before a publish that came earlier, while the store is slow', async () => {
    const w = await start()
    w.isLagging = true
    expect(await w.publish(ITEM)).toBe('')
    expect(await ask(w)).toBe('r1.1')
    await w.catchUp()
    expect(w.take().map((stanza) => stanza.attrs.get('id'))).toEqual(['pub'])
  })

  it('tells another stream, and another life', async () => {
    const w = await start()
    const first = await ask(w)
    await w.input({ type: 'link-down', domain: 'any.localhost' })
    await w.input({ type: 'link-up', domain: 'any.localhost' })
    const second = await ask(w)
    await w.restart()
    const third = await ask(w)
    expect([isSameLife(first, second), isSameLife(second, third)]).toEqual([true, false])
    expect(new Set([first, second, third]).size).toBe(3)
  })

  it('is no order', async () => {
    const w = await start()
    await w.receive(question.replace("'get'", "'set'"))
    expect(
      w
        .take()
        .map((stanza) => writeElement(stanza))
        .join(''),
    ).toContain("code='bad-request'")
  })
})
