/** What was said of leases while the store did not answer: nothing that was done is done again for it. docs/failure-modes.md 4. */
import { describe, expect, it } from 'vitest'
import { RELIABLE_DEFAULTS } from '../../src/core/index.ts'
import { queueRules } from './conversation.ts'
import { ack, DISK_FULL, StoreWorld } from './store-world.ts'

const A = 'a@localhost/1'
const B = 'b@localhost/1'
const LEASE_MS = RELIABLE_DEFAULTS.leaseMs
const NOTHING = { ready: 0, delayed: 0, leased: 0, dead: 0 }

/** A world in which these have subscribed, who are not pinged: they have sent presence. */
async function worldOf(...workers: readonly { readonly jid: string; readonly credit?: number }[]): Promise<StoreWorld> {
  return join(await StoreWorld.start({ durability: 'disk' }), ...workers)
}

async function join(
  w: StoreWorld,
  ...workers: readonly { readonly jid: string; readonly credit?: number }[]
): Promise<StoreWorld> {
  for (const { jid, credit } of workers) {
    await w.receive(`<presence from='${jid}' to='any.localhost'/>`)
    await w.sub(jid, 't', credit === undefined ? {} : { credit })
  }
  return w
}

/** Two messages of one key: the second waits for the end of the first. */
const keyed = [1, 2].map((n) => `<item id='${n}' topic='t' key='k'><p xmlns='urn:x'/></item>`)

describe('a settlement that rode on an answer while the store did not answer', () => {
  it.each([
    ['an ack', ack, NOTHING],
    ['a reject', ({ lease }: { lease: string }) => `<reject lease='${lease}'>no</reject>`, { ...NOTHING, dead: 1 }],
  ])('is done when it does, and told once: %s', async (_, say, counts) => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    w.failure = DISK_FULL
    expect(await w.work(A, say)).toHaveLength(1)
    await w.wait(5_000)
    expect(w.core.stats().unheardSettlements).toBe(1)
    expect(w.counts().leased).toBe(1)
    w.failure = undefined
    await w.wait(1_000)
    expect(w.counts()).toEqual(counts)
    expect(w.core.stats().unheardSettlements).toBe(0)
    expect(w.named('settled')).toHaveLength(1)
    await w.wait(2 * LEASE_MS)
    expect(w.delivered(A)).toEqual([])
  })

  it('comes before the end of its lease, however long the trouble was', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish(['t', 't', 't'])
    w.failure = DISK_FULL
    expect(await w.work(A, ack)).toHaveLength(3)
    await w.wait(10 * LEASE_MS)
    w.failure = undefined
    await w.wait(5_000)
    expect(w.counts()).toEqual(NOTHING)
    expect(w.delivered(A)).toEqual([])
  })

  it('comes before the end of its lease also where that is looked at first', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    await w.wait(300)
    w.failure = DISK_FULL
    await w.work(A, ack)
    // It is said again at 29.3 s and 30.3 s; the lease is over at 30 s.
    await w.wait(LEASE_MS - 800)
    w.failure = undefined
    await w.wait(600)
    expect(w.counts()).toEqual(NOTHING)
    expect(w.delivered(A)).toEqual([])
  })

  it('frees its key at once', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish(keyed)
    w.failure = DISK_FULL
    expect(await w.work(A, ack)).toMatchObject([{ id: '1' }])
    await w.wait(3_000)
    w.failure = undefined
    await w.wait(1_000)
    expect(await w.work(A, ack)).toMatchObject([{ id: '2' }])
  })

  it('is tried once a second, and no more', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish(['t', 't', 't'])
    w.failure = DISK_FULL
    await w.work(A, ack)
    const before = w.applies
    await w.wait(10_000)
    expect(w.applies - before).toBeLessThanOrEqual(11)
  })

  it('is on its way while the end of its lease is looked at', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    const [item] = await w.work(A)
    // The store has listed the lease as over, and fails at the ack; the core hears of both in this order.
    w.isLagging = true
    await w.wait(LEASE_MS)
    w.failure = DISK_FULL
    await w.settleWith(A, ack({ lease: item?.lease as string }))
    w.failure = undefined
    await w.catchUp()
    await w.wait(5_000)
    expect(w.counts()).toEqual(NOTHING)
    expect(w.named('delivered')).toHaveLength(1)
  })

  it('is left alone by strangers who know the lease', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    w.failure = DISK_FULL
    const [item] = await w.work(A, ack)
    const lease = item?.lease as string
    for (const said of [ack({ lease }), `<extend lease='${lease}'/>`, `<reject lease='${lease}'/>`]) {
      await w.settleWith(B, said)
    }
    await w.wait(2 * LEASE_MS)
    w.failure = undefined
    await w.wait(1_000)
    expect(w.counts()).toEqual(NOTHING)
  })

  it('gives way to no number of words about leases that nobody knows', { timeout: 60_000 }, async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    w.failure = DISK_FULL
    await w.work(A, ack)
    for (let page = 0; page < 70; page++) {
      const made = Array.from({ length: 1000 }, (_, n) => `<ack lease='made-up-${page}-${n}.7'/>`)
      await w.settleWith(B, made.join(''))
    }
    expect(w.core.stats().unheardSettlements).toBe(65_536)
    w.failure = undefined
    await w.wait(1_000)
    expect(w.counts()).toEqual(NOTHING)
    expect(w.core.stats().unheardSettlements).toBe(0)
  })

  it('gives way to what the worker says of the same lease later', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    w.failure = DISK_FULL
    const [item] = await w.work(A, (of) => `<reject lease='${of.lease}'>no</reject>`)
    w.failure = undefined
    expect(await w.settleWith(A, `<extend lease='${item?.lease}'/>`)).not.toContain('<item')
    expect(w.core.stats().unheardSettlements).toBe(0)
    await w.wait(5_000)
    expect(w.counts().leased).toBe(1)
  })
})

describe('an ack that was answered with wait', () => {
  it('is done when the store answers, and succeeds again when it is repeated', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    const [item] = await w.work(A)
    w.failure = DISK_FULL
    expect(await w.settleWith(A, ack(item as { lease: string }))).toContain("code='overloaded'")
    await w.wait(2 * LEASE_MS)
    w.failure = undefined
    await w.wait(1_000)
    expect(w.counts()).toEqual(NOTHING)
    expect(await w.settleWith(A, ack(item as { lease: string }))).not.toContain('<item')
  })

  it('leaves another word to the worker, which would be told that its repetition came too late', async () => {
    const w = await worldOf({ jid: A, credit: 5 })
    await w.publish('t')
    const [item] = await w.work(A)
    w.failure = DISK_FULL
    const said = `<reject lease='${item?.lease}'>no</reject>`
    expect(await w.settleWith(A, said)).toContain("code='overloaded'")
    await w.wait(3_000)
    w.failure = undefined
    await w.wait(3_000)
    expect(await w.settleWith(A, said)).not.toContain('<item')
    expect(w.counts()).toEqual({ ...NOTHING, dead: 1 })
  })
})

describe('a plain consumer that answered its ping while the store did not answer', () => {
  it('gets nothing twice', async () => {
    const w = await worldOf({ jid: A })
    expect(await w.say('t')).toBe('')
    w.failure = DISK_FULL
    await w.pong(A)
    await w.wait(2 * LEASE_MS)
    await w.pong(A)
    w.failure = undefined
    await w.wait(2 * LEASE_MS)
    expect(w.stanzas.filter((stanza) => stanza.name === 'message')).toHaveLength(1)
    expect(w.counts()).toEqual(NOTHING)
  })
})

describe('a lease that was over while the store did not answer', () => {
  const working = async (): Promise<{ w: StoreWorld; lease: string }> => {
    const w = await worldOf({ jid: A, credit: 1 }, { jid: B, credit: 1 })
    await w.publish('t')
    const [item] = await w.work(A)
    w.failure = DISK_FULL
    await w.wait(LEASE_MS / 2)
    return { w, lease: item?.lease as string }
  }

  it('goes on where its worker had tried to extend it, for one lease more', async () => {
    const { w, lease } = await working()
    expect(await w.settleWith(A, `<extend lease='${lease}'/>`)).toContain("code='overloaded'")
    await w.wait(2 * LEASE_MS)
    w.failure = undefined
    await w.wait(LEASE_MS / 2)
    expect(w.delivered(B)).toEqual([])
    expect(await w.settleWith(A, `<extend lease='${lease}'/>`)).not.toContain('<item')
    await w.wait(LEASE_MS / 2)
    expect(await w.settleWith(A, ack({ lease }))).not.toContain('<item')
    expect(w.counts()).toEqual(NOTHING)
  })

  it('goes on for as long as a client pauses that was told to wait, also where leases are shorter', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, leaseMs: 3_000 }
    const start = await StoreWorld.start({ durability: 'disk', queues: [queueRules('any.localhost', { reliable })] })
    const w = await join(start, { jid: A, credit: 1 }, { jid: B, credit: 1 })
    await w.publish('t')
    const [item] = await w.work(A)
    const lease = item?.lease as string
    w.failure = DISK_FULL
    await w.wait(2_000)
    await w.settleWith(A, `<extend lease='${lease}'/>`)
    await w.wait(2_000)
    w.failure = undefined
    await w.wait(6_000)
    expect(w.named('delivered')).toHaveLength(1)
    expect(await w.settleWith(A, `<extend lease='${lease}'/>`)).not.toContain('<item')
  })

  it('goes on where its worker had only just received it', async () => {
    const w = await worldOf({ jid: A, credit: 1 }, { jid: B, credit: 1 })
    await w.publish('t')
    w.failure = DISK_FULL
    const [item] = await w.work(A)
    await w.wait(2 * LEASE_MS)
    w.failure = undefined
    await w.wait(LEASE_MS / 2)
    expect(w.delivered(B)).toEqual([])
    expect(await w.settleWith(A, ack({ lease: item?.lease as string }))).not.toContain('<item')
  })

  it('is over when its worker says nothing more', async () => {
    const { w, lease } = await working()
    await w.settleWith(A, `<extend lease='${lease}'/>`)
    await w.wait(2 * LEASE_MS)
    w.failure = undefined
    await w.wait(LEASE_MS + 3_000)
    expect(w.delivered(B)).toHaveLength(1)
    expect(await w.failures()).toEqual([1])
  })

  it('is over where its worker had not tried, or is gone', async () => {
    const { w } = await working()
    await w.wait(2 * LEASE_MS)
    w.failure = undefined
    await w.wait(2 * LEASE_MS)
    expect(w.delivered(B)).toHaveLength(1)
    const gone = await working()
    await gone.w.settleWith(A, `<extend lease='${gone.lease}'/>`)
    await gone.w.end(A)
    gone.w.failure = undefined
    await gone.w.wait(LEASE_MS)
    expect(gone.w.delivered(B)).toHaveLength(1)
  })
})
