import { element, stanza, type XmlElement } from '@xmq/protocol'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Watchdog } from '../../src/link/watchdog.ts'
import type { LinkInstance } from '../../src/component.ts'
import { FakeClock } from './fake-clock.ts'
import { isWatch, type Peer } from './fake-server.ts'
import { Bench, DOMAIN, type Probe } from './harness.ts'

const INTERVAL_MS = 15_000
const TIMEOUT_MS = 10_000

/** Watchdogs on one domain, and a server that hands each stanza to one of them. */
class Domain {
  readonly clock = new FakeClock()
  readonly dogs: Watchdog[] = []
  readonly log: string[] = []
  /** To whom a stanza goes; nobody: it is lost. */
  pick: (stanza: XmlElement) => Watchdog | undefined = () => this.dogs[0]
  sent = 0

  add(instance: LinkInstance, domain = DOMAIN): Watchdog {
    const note = (what: string) => this.log.push(`${instance.id} ${what}`)
    const dog: Watchdog = new Watchdog({
      domain,
      instance,
      clock: this.clock,
      intervalMs: INTERVAL_MS,
      timeoutMs: TIMEOUT_MS,
      send: (root) => {
        this.sent++
        // A server takes its time: never inside `send`.
        this.clock.after(1, () => this.pick(root)?.take(root))
      },
      onHalfDead: (silentMs) => {
        note(`half-dead ${silentMs}`)
        dog.stop()
      },
      onSecond: (other) => {
        note(`second after ${other.id}`)
        this.dogs.splice(this.dogs.indexOf(dog), 1)
      },
      onMisrouted: (other) => note(`misrouted ${other}`),
    })
    this.dogs.push(dog)
    dog.start()
    return dog
  }
}

const old = { id: 'old', startedAt: 1_000 }
const young = { id: 'young', startedAt: 2_000 }

function watch(type: string, instance: LinkInstance, id = 'x', domain = DOMAIN): XmlElement {
  return stanza('iq', { type, id, from: domain, to: domain }, [
    element('instance', 'xmq:queue:1', { id: instance.id, 'started-at': new Date(instance.startedAt).toISOString() }),
  ])
}

/** A small seeded generator, enough to shuffle who gets a stanza. */
function seeded(seed: number): () => number {
  let state = seed * 2_654_435_761 + 1
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    return state / 2 ** 32
  }
}

describe('alone on its domain', () => {
  test('pings a few times quickly, then every interval, and is content', () => {
    const domain = new Domain()
    domain.add(old)
    domain.clock.advance(6_000)
    const quick = domain.sent
    expect(quick).toBeGreaterThanOrEqual(6)
    domain.clock.advance(10 * INTERVAL_MS)
    expect(domain.sent).toBe(quick + 10)
    expect(domain.log).toEqual([])
  })

  test('a ping that does not come back in time is half-dead', () => {
    const domain = new Domain()
    domain.add(old)
    domain.clock.advance(20_000)
    domain.pick = () => undefined
    domain.clock.advance(2 * INTERVAL_MS)
    expect(domain.log).toEqual([`old half-dead ${TIMEOUT_MS}`])
  })

  test('one lost ping is asked again before it counts', () => {
    const domain = new Domain()
    domain.add(old)
    domain.clock.advance(20_000)
    let isLost = false
    domain.pick = () => {
      if (isLost) return domain.dogs[0]
      isLost = true
      return undefined
    }
    domain.clock.advance(60_000)
    expect([isLost, domain.log]).toEqual([true, []])
  })

  test('while other stanzas come in, a slow ping is waited for, but not for ever', () => {
    const domain = new Domain()
    const dog = domain.add(old)
    domain.pick = () => undefined
    for (let second = 0; second < 59; second++) {
      dog.heard()
      domain.clock.advance(1_000)
    }
    expect(domain.log).toEqual([])
    dog.heard()
    domain.clock.advance(1_000)
    expect(domain.log).toEqual([`old half-dead ${6 * TIMEOUT_MS}`])
  })

  test('stop leaves no timer, start begins anew', () => {
    const domain = new Domain()
    const dog = domain.add(old)
    domain.clock.advance(1)
    dog.stop()
    expect(domain.clock.pending).toBe(0)
    dog.start()
    domain.clock.advance(60_000)
    expect(domain.log).toEqual([])
  })

  test('takes its own stanzas only', () => {
    const domain = new Domain()
    const dog = domain.add(old)
    const ping = stanza('iq', { type: 'get', id: 'p', from: DOMAIN, to: DOMAIN }, [element('ping', 'urn:xmpp:ping')])
    const forged = watch('get', { id: 'evil', startedAt: 0 })
    const attrs = new Map(forged.attrs).set('from', 'mallory@localhost/x')
    expect(dog.take(ping)).toBe(false)
    expect(dog.take({ ...forged, attrs })).toBe(false)
    expect(dog.take(watch('get', old, 'x', `orders@${DOMAIN}`))).toBe(false)
    expect(dog.take(stanza('message', { from: DOMAIN, to: DOMAIN }))).toBe(false)
    expect(dog.take(stanza('iq', { type: 'error', id: 'other', from: DOMAIN, to: DOMAIN }))).toBe(false)
    expect(dog.take(watch('get', old))).toBe(true)
    domain.clock.advance(60_000)
    expect(domain.log).toEqual([])
  })

  test('the error to a ping of its own is taken', () => {
    const domain = new Domain()
    const dog = domain.add(old)
    let id = ''
    domain.pick = (root) => {
      id = root.attrs.get('id') ?? ''
      return undefined
    }
    domain.clock.advance(1)
    expect(dog.take(stanza('iq', { type: 'error', id, from: DOMAIN, to: DOMAIN }))).toBe(true)
  })

  test("another domain's watchdog is handed on as misrouted", () => {
    const domain = new Domain()
    const dog = domain.add(old)
    expect(dog.take(watch('get', old, 'x', 'queue2.localhost'))).toBe(true)
    expect(domain.log).toEqual(['old misrouted queue2.localhost'])
  })
})

describe('two on one domain, stanzas split at random', () => {
  test('the younger one gives up within seconds, the older one never, whatever the split', () => {
    const times: number[] = []
    for (let seed = 1; seed <= 500; seed++) {
      const domain = new Domain()
      const random = seeded(seed)
      domain.pick = () => domain.dogs[Math.floor(random() * domain.dogs.length)]
      domain.add(old)
      domain.clock.advance(60_000 + Math.floor(random() * INTERVAL_MS))
      domain.add(young)
      let waited = 0
      while (domain.log.length === 0 && waited < 60_000) {
        domain.clock.advance(100)
        waited += 100
      }
      domain.clock.advance(60_000)
      expect(domain.log, `seed ${seed}`).toEqual(['young second after old'])
      times.push(waited)
    }
    times.sort((a, b) => a - b)
    expect(times[Math.floor(times.length * 0.95)]).toBeLessThanOrEqual(3_000)
    expect(times.at(-1)).toBeLessThanOrEqual(INTERVAL_MS)
  })

  test('both started in the same millisecond: the nonce decides', () => {
    const domain = new Domain()
    const random = seeded(7)
    domain.pick = () => domain.dogs[Math.floor(random() * domain.dogs.length)]
    domain.add({ id: 'b', startedAt: 1_000 })
    domain.add({ id: 'a', startedAt: 1_000 })
    domain.clock.advance(60_000)
    expect(domain.log).toEqual(['b second after a'])
  })

  test("a dead predecessor's last pings do not stop its successor", () => {
    const domain = new Domain()
    const dog = domain.add(young)
    dog.take(watch('get', old, 'p1'))
    domain.clock.advance(20)
    dog.take(watch('get', old, 'p2'))
    domain.clock.advance(120_000)
    expect(domain.log).toEqual([])
  })

  test('an older one that only pings, and never gets to answer, is believed the second time', () => {
    const domain = new Domain()
    const dog = domain.add(young)
    dog.take(watch('get', old, 'p1'))
    domain.clock.advance(1_000)
    dog.take(watch('get', old, 'p2'))
    expect(domain.log).toEqual(['young second after old'])
    domain.clock.advance(10)
    expect(domain.clock.pending).toBe(0)
  })

  test('an answer that names no ping of ours is no proof', () => {
    const domain = new Domain()
    const dog = domain.add(young)
    dog.take(watch('result', old, 'guessed'))
    expect(domain.log).toEqual([])
  })

  test('an instance that cannot be read is left to others', () => {
    const domain = new Domain()
    const dog = domain.add(young)
    const broken = stanza('iq', { type: 'get', id: 'x', from: DOMAIN, to: DOMAIN }, [
      element('instance', 'xmq:queue:1', { id: 'old', 'started-at': 'yesterday' }),
    ])
    expect(dog.take(broken)).toBe(false)
  })
})

describe('on a link', () => {
  let bench: Bench

  beforeEach(() => {
    bench = new Bench()
  })

  afterEach(async () => {
    expect(await bench.end(), 'timers left behind').toBe(0)
  })

  test('a half-dead stream is closed and opened anew', async () => {
    const server = await bench.server()
    server.route = () => {}
    const probe = await bench.upLink(server)
    await bench.settled()
    bench.clock.advance(TIMEOUT_MS)
    expect(probe.link.status).toMatchObject({ state: 'down', reason: { code: 'timeout' } })
    expect(probe.downs[0]?.message).toMatch(/half-dead/)
    const peer = await server.peer(0)
    await peer.until(() => peer.received.endsWith('</stream:stream>'))
    bench.clock.advance(250)
    await probe.untilState('up')
  })

  test('of two brokers that share a domain as on ejabberd, the younger one closes and says what to do', async () => {
    const server = await bench.server()
    const random = seeded(3)
    server.route = (root, raw) => {
      const live = server.peers.filter((peer: Peer) => peer.up && !peer.socket.destroyed && !peer.socket.writableEnded)
      if (isWatch(root)) live[Math.floor(random() * live.length)]?.write(raw)
    }
    const first = await bench.upLink(server, { instance: old })
    const second = await bench.upLink(server, { instance: young })
    await step(bench, () => second.fatal.length > 0)
    expect(second.fatal[0]?.code).toBe('conflict')
    expect(second.fatal[0]?.message).toMatch(/queue1\.localhost.*instance old.*Stop the other broker/s)
    expect(second.link.status.state).toBe('closed')
    expect([first.fatal, first.link.status.state]).toEqual([[], 'up'])
  })

  test('two links of one broker whose server mixes their connections are both alive, and say how to mend it', async () => {
    const server = await bench.server()
    const links = new Map<string, Probe>()
    const onMisrouted = (domain: string, root: XmlElement): void => links.get(domain)?.link.receiveMisrouted(root)
    // Everything goes to the wrong connection.
    server.route = (_root, raw, from) => server.peers.find((peer) => peer !== from)?.write(raw)
    for (const domain of [DOMAIN, 'queue2.localhost'])
      links.set(domain, await bench.upLink(server, { domain }, { onMisrouted }))
    let rounds = 0
    await step(bench, () => rounds++ > 300)
    expect(bench.probes.map((probe) => probe.link.status)).toMatchObject([
      { state: 'up', hint: expect.stringContaining('global_routes: false') },
      { state: 'up', hint: expect.stringContaining('global_routes: false') },
    ])
    expect(bench.probes.flatMap((probe) => probe.log.filter((entry) => entry === 'stanza'))).toEqual([])
  })

  /** Moves the time in small steps, with everything delivered in between, until `test` holds. */
  async function step(on: Bench, isDone: () => boolean): Promise<void> {
    for (let count = 0; count < 1_000 && !isDone(); count++) {
      on.clock.advance(100)
      await on.settled()
    }
  }
})

describe('the delay', () => {
  test('is what a ping took, and grows while one is under way', () => {
    const domain = new Domain()
    const dog = domain.add(young)
    domain.clock.advance(INTERVAL_MS)
    let held: XmlElement | undefined
    domain.pick = (root) => {
      held = root
      return undefined
    }
    dog.probe()
    const { sent } = domain
    dog.probe()
    expect([dog.delayMs, domain.sent]).toEqual([0, sent])
    domain.clock.advance(40)
    expect(dog.delayMs).toBe(40)
    dog.take(held as XmlElement)
    domain.clock.advance(100)
    expect(dog.delayMs).toBe(40)
    dog.probe()
    domain.clock.advance(10)
    expect(dog.delayMs).toBe(40)
    domain.clock.advance(40)
    expect(dog.delayMs).toBe(50)
    dog.stop()
    expect(dog.delayMs).toBe(0)
  })

  test('is not what a pause of the process added to it', () => {
    const domain = new Domain()
    const dog = domain.add(young)
    domain.clock.advance(INTERVAL_MS - 100)
    let held: XmlElement | undefined
    domain.pick = (root) => {
      held = root
      return undefined
    }
    dog.probe()
    domain.clock.advance(50)
    dog.paused()
    dog.take(held as XmlElement)
    expect(dog.delayMs).toBe(0)
  })

  test('of a ping that is lost is as long as it was waited for, and another one is sent', () => {
    const domain = new Domain()
    const dog = domain.add(young)
    domain.clock.advance(INTERVAL_MS - 100)
    domain.pick = (root) => (root.attrs.get('id')?.includes('delay') === true ? undefined : dog)
    dog.probe()
    domain.clock.advance(TIMEOUT_MS)
    domain.pick = () => dog
    dog.probe()
    expect(dog.delayMs).toBe(TIMEOUT_MS)
    domain.clock.advance(1)
    expect(dog.delayMs).toBe(1)
  })
})
