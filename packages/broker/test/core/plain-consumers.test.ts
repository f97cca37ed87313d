/** When a plain consumer of a durable queue is taken to have a message. docs/protocol-reliable.md "Plain consumers". */
import { isPing, type XmlElement } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { RELIABLE_DEFAULTS } from '../../src/core/index.ts'
import { queueRules } from './conversation.ts'
import { StoreWorld } from './store-world.ts'

const A = 'a@localhost/1'
const B = 'b@localhost/1'
const LEASE_MS = RELIABLE_DEFAULTS.leaseMs

/** A world with a plain consumer that answers pings and is known to be there. */
async function worldWithPlain(): Promise<StoreWorld> {
  const reliable = { ...RELIABLE_DEFAULTS, whenNobody: 'keep' as const }
  const w = await StoreWorld.start({ durability: 'disk', queues: [queueRules('any.localhost', { reliable })] })
  await w.receive(`<presence from='${A}' to='any.localhost'/>`)
  return w.sub(A, 't')
}

function pings(w: StoreWorld): XmlElement[] {
  return w.take(A).filter((stanza) => isPing(stanza))
}

function answer(ping: XmlElement | undefined, error = ''): string {
  const type = error === '' ? 'result' : 'error'
  return `<iq type='${type}' id='${ping?.attrs.get('id')}' from='${A}' to='any.localhost'>${error}</iq>`
}

const GONE = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"

describe('a message that went out while a ping was under way', () => {
  it('is not proved by a ping over the next stream: it may be lost with the one before', async () => {
    const w = await worldWithPlain()
    await w.say('t')
    expect(pings(w)).toHaveLength(1)
    await w.say('t')
    await w.input({ type: 'link-down', domain: 'any.localhost' })
    await w.input({ type: 'link-up', domain: 'any.localhost' })
    for (const ping of pings(w)) await w.receive(answer(ping))
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 2, dead: 0 })
    await w.wait(LEASE_MS)
    await w.pong(A)
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 0, dead: 0 })
    expect(w.take(A).filter(({ name }) => name === 'message')).toHaveLength(2)
  })

  it('is not proved so either when that ping is not waited for any more', async () => {
    const w = await worldWithPlain()
    await w.say('t')
    expect(pings(w)).toHaveLength(1)
    await w.wait(LEASE_MS - 1)
    await w.say('t')
    // The first one is over and waits for others.
    await w.wait(1)
    expect(w.counts()).toEqual({ ready: 1, delayed: 0, leased: 1, dead: 0 })
    await w.input({ type: 'link-down', domain: 'any.localhost' })
    await w.input({ type: 'link-up', domain: 'any.localhost' })
    const asked = pings(w)
    expect(asked).toHaveLength(1)
    for (const ping of asked) await w.receive(answer(ping))
    // It gets the first one again, and still has the second.
    expect(w.counts()).toEqual({ ready: 0, delayed: 0, leased: 2, dead: 0 })
  })

  it('is given to others when that ping finds nobody, whoever has the full JID by then', async () => {
    const w = await worldWithPlain()
    await w.sub(B, 't', { load: 91 })
    await w.say('t')
    const [ping] = pings(w)
    await w.say('t')
    await w.receive(answer(ping, GONE))
    // A successor with the same full JID is there and answers whatever it is asked.
    await w.pong(A)
    expect(w.counts()).toEqual({ ready: 2, delayed: 0, leased: 0, dead: 0 })
  })
})
