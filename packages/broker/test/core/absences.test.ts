/** Workers whose sessions were found gone after a stream broke. docs/protocol-reliable.md "When the stream breaks". */
import { describe, expect, it } from 'vitest'
import { ABSENCE_MS_MAX, ABSENCE_MS_MIN } from '../../src/core/absences.ts'
import { RELIABLE_DEFAULTS } from '../../src/core/index.ts'
import { queueRules } from './conversation.ts'
import { ack, StoreWorld } from './store-world.ts'

const Q = 'any.localhost'
const A = 'a@localhost/1'
const A2 = 'a@localhost/2'
const B = 'b@localhost/1'

/** A and another worker are subscribed; A has received a message. @returns its lease too */
async function holding(options: { readonly name?: string; readonly queue?: string } = {}): Promise<{
  w: StoreWorld
  lease: string
}> {
  const w = await StoreWorld.start()
  await w.sub(A, 't', { credit: 1, ...options })
  await w.publish('t', options)
  const [item] = await w.work(A)
  return { w, lease: item?.lease ?? '' }
}

function leaseMsOf(w: StoreWorld): number {
  return w.rules.queues[0]?.reliable.leaseMs as number
}

/** The server is killed and started again: all sessions are gone. @param awayMs how long the stream is away */
async function restartServer(w: StoreWorld, gone: readonly string[], awayMs = 100, domain = Q): Promise<void> {
  await w.input({ type: 'link-down', domain })
  await w.wait(awayMs)
  await w.input({ type: 'link-up', domain })
  await w.wait(0)
  for (const jid of gone) await w.pong(jid, false)
}

/** As {@link holding}; the server was restarted since, and the other worker waits. @param leftMs of the lease at the restart */
async function abandoned(leftMs?: number): Promise<{ w: StoreWorld; lease: string }> {
  const { w, lease } = await holding()
  await w.sub(B, 't', { credit: 10 })
  if (leftMs !== undefined) await w.wait(leaseMsOf(w) - leftMs)
  await restartServer(w, [A])
  await w.pong(B)
  return { w, lease }
}

describe('a message that a session had when the stream broke, and that is found gone', () => {
  it('waits for its worker, who comes back under another resource and goes on', async () => {
    const { w, lease } = await holding()
    await restartServer(w, [A])
    expect(w.named('unsubscribed')).toMatchObject([{ consumer: A, reason: 'session-ended' }])
    await w.sub(B, 't', { credit: 10 })
    await w.wait(ABSENCE_MS_MIN - 1)
    await w.settleWith(A2, `<extend lease='${lease}'/>`)
    await w.sub(A2, 't', { credit: 10 })
    await w.wait(ABSENCE_MS_MAX)
    expect(await w.work(B)).toEqual([])
    expect(await w.settleWith(A2, ack({ lease }))).not.toContain('error')
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('stays with a worker that is back before its old session is found gone, and has not subscribed yet', async () => {
    const { w, lease } = await holding()
    await w.input({ type: 'link-down', domain: Q })
    await w.wait(100)
    await w.input({ type: 'link-up', domain: Q })
    await w.wait(0)
    await w.settleWith(A2, `<extend lease='${lease}'/>`)
    await w.pong(A, false)
    expect(w.named('unsubscribed')).toMatchObject([{ consumer: A, reason: 'session-ended' }])
    await w.sub(B, 't', { credit: 10 })
    await w.wait(ABSENCE_MS_MIN)
    expect(await w.work(B)).toEqual([])
    expect(await w.settleWith(A2, ack({ lease }))).not.toContain('error')
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('may be settled by another session of its holder', async () => {
    const { w, lease } = await holding()
    await restartServer(w, [A])
    await w.sub(B, 't', { credit: 10 })
    expect(await w.settleWith(A2, ack({ lease }))).not.toContain('error')
    await w.wait(ABSENCE_MS_MAX)
    expect(await w.work(B)).toEqual([])
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('goes to somebody else, with a failure, when its worker does not come', async () => {
    const { w } = await abandoned()
    await w.wait(ABSENCE_MS_MIN - 1)
    expect(await w.work(B)).toEqual([])
    await w.wait(1)
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
    expect(await w.failures()).toEqual([1])
  })

  it('waits also where the word that it was received did not come, and counts no failure then', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    await w.publish('t')
    expect(w.delivered(A)).toHaveLength(1)
    await w.sub(B, 't', { credit: 10 })
    await restartServer(w, [A])
    await w.pong(B)
    await w.wait(ABSENCE_MS_MIN - 1)
    expect(await w.work(B)).toEqual([])
    await w.wait(1)
    expect(await w.work(B)).toMatchObject([{ seq: 1 }])
    expect(await w.failures()).toEqual([0])
  })

  it('goes to others at once where it was sent over the new stream only', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    w.isLagging = true
    await w.publish('t')
    await w.input({ type: 'link-down', domain: Q })
    await w.catchUp()
    await w.input({ type: 'link-up', domain: Q })
    await w.pong(A, false)
    expect(w.delivered(A)).toHaveLength(1)
    await w.sub(B, 't', { credit: 10 })
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
  })

  it('goes to others at once where it was sent over the new stream, though its answer is not waited for any more', async () => {
    const reliable = { ...RELIABLE_DEFAULTS, leaseMs: 4000 }
    const w = await StoreWorld.start({ queues: [queueRules(Q, { reliable })] })
    await w.sub(A, 't', { credit: 2 })
    w.isLagging = true
    await w.publish('t')
    await w.wait(2000)
    await w.publish('t')
    await w.input({ type: 'link-down', domain: Q })
    await w.catchUp()
    await w.input({ type: 'link-up', domain: Q })
    expect(w.counts()).toMatchObject({ leased: 2 })
    // The first is over: the stanza that both came with is taken for lost.
    await w.wait(2500)
    await w.pong(A, false)
    expect(w.delivered(A)).toHaveLength(1)
    await w.sub(B, 't', { credit: 10 })
    expect((await w.work(B)).map(({ seq }) => seq)).toEqual([1, 2])
  })

  it('waits for as long as the stream was away', async () => {
    const { w } = await holding()
    await w.sub(B, 't', { credit: 10 })
    const awayMs = 2 * ABSENCE_MS_MIN
    await restartServer(w, [A], awayMs)
    await w.pong(B)
    await w.wait(awayMs - 1)
    expect(await w.work(B)).toEqual([])
    await w.wait(1)
    expect(await w.work(B)).toHaveLength(1)
  })

  it('waits also where its lease ends meanwhile', async () => {
    const { w, lease } = await abandoned(500)
    await w.wait(1000)
    expect(await w.work(B)).toEqual([])
    await w.settleWith(A2, `<extend lease='${lease}'/>`)
    await w.wait(leaseMsOf(w) - 1)
    expect(await w.work(B)).toEqual([])
    expect(w.counts()).toMatchObject({ leased: 1 })
  })

  it('goes to somebody else when the absence is over, whatever its lease', async () => {
    const { w } = await abandoned(500)
    await w.wait(ABSENCE_MS_MIN)
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
  })

  it('waits from the next stream on where that broke too', async () => {
    const { w } = await abandoned()
    await w.wait(ABSENCE_MS_MIN - 1)
    await restartServer(w, [], 500)
    await w.pong(B)
    await w.wait(ABSENCE_MS_MIN - 1)
    expect(await w.work(B)).toEqual([])
    await w.wait(1)
    expect(await w.work(B)).toHaveLength(1)
  })

  it('is nobody else’s to extend', async () => {
    const { w, lease } = await abandoned()
    expect(await w.settleWith('b@localhost/2', `<extend lease='${lease}'/>`)).toContain('not-found')
    await w.wait(ABSENCE_MS_MIN)
    expect(await w.work(B)).toHaveLength(1)
  })

  it('waits in a durable subscription as well', async () => {
    const queue = 'all.localhost'
    const { w, lease } = await holding({ queue, name: 'n' })
    await restartServer(w, [A], 100, queue)
    await w.sub(A2, 't', { queue, name: 'n', credit: 10 })
    expect(await w.work(A2)).toEqual([])
    await w.settleWith(A2, `<extend lease='${lease}'/>`, queue)
    await w.wait(ABSENCE_MS_MAX)
    expect(await w.work(A2)).toEqual([])
    expect(await w.settleWith(A2, ack({ lease }), queue)).not.toContain('error')
  })
})

describe('a lease that ends while the stream is down', () => {
  it('goes on, for whoever comes back', async () => {
    const { w, lease } = await holding()
    await w.sub(B, 't', { credit: 10 })
    const awayMs = 3 * leaseMsOf(w)
    await restartServer(w, [A], awayMs)
    await w.pong(B)
    expect(await w.settleWith(A2, ack({ lease }))).not.toContain('error')
    await w.wait(awayMs)
    expect(await w.work(B)).toEqual([])
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
  })

  it('goes on for a session that is there still, and ends when that says nothing', async () => {
    const { w } = await holding()
    await w.sub(B, 't', { credit: 10 })
    await restartServer(w, [], 3 * leaseMsOf(w))
    await w.pong(A)
    await w.pong(B)
    await w.wait(1)
    expect(w.counts()).toMatchObject({ leased: 1 })
    await w.wait(ABSENCE_MS_MAX + 2 * leaseMsOf(w))
    expect(w.named('settled')[0]).toMatchObject({ outcome: 'lease-over', count: 1 })
  })

  it('ends where it is as long as a lease may be', async () => {
    const { w } = await holding()
    await w.sub(B, 't', { credit: 10 })
    await w.input({ type: 'link-down', domain: Q })
    await w.wait((w.rules.queues[0]?.reliable.maxLeaseMs as number) + leaseMsOf(w))
    expect(w.named('settled')).toMatchObject([{ outcome: 'lease-over', count: 1 }])
  })

  it('is none of what was never sent', async () => {
    const w = await StoreWorld.start()
    await w.sub(A, 't', { credit: 1 })
    w.isLagging = true
    await w.publish('t')
    await w.input({ type: 'link-down', domain: Q })
    await w.catchUp()
    await w.wait(leaseMsOf(w) + 1)
    expect(w.named('settled')).toMatchObject([{ outcome: 'lease-over' }])
  })
})

describe('a session that ends', () => {
  it('has what it received given to others at once while the stream holds', async () => {
    const { w } = await holding()
    await w.sub(B, 't', { credit: 10 })
    await w.end(A)
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
  })

  it('has it given to others at once when it was seen after the stream broke', async () => {
    const { w } = await holding()
    await w.sub(B, 't', { credit: 10 })
    await restartServer(w, [])
    await w.pong(A)
    await w.pong(B)
    await w.end(A)
    expect(await w.work(B)).toMatchObject([{ seq: 1, attempt: 2 }])
  })
})

describe('a plain consumer that is found gone after its stream broke', () => {
  it('has what it did not confirm given to others at once', async () => {
    const w = await StoreWorld.start({ durability: 'disk' })
    await w.sub(A, 't')
    await w.publish('t')
    w.take(A)
    await restartServer(w, [A])
    await w.sub(B, 't', { credit: 10 })
    expect(await w.work(B)).toMatchObject([{ seq: 1 }])
  })
})
