/** Whatever anybody sends in whatever order, with a store that fails at times: nothing throws, and nothing is lost. */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RELIABLE_DEFAULTS } from '../../src/core/index.ts'
import { queueRules } from './conversation.ts'
import { ack, DISK_FULL, nack, StoreWorld } from './store-world.ts'

const WORKERS = ['a@localhost/1', 'a@localhost/2', 'b@localhost/1'] as const
const TOPICS = ['t', 'u', 'a.b', 'a.c'] as const
const FILTERS = ['t', 'u', 'a.*', '>', 'a.>'] as const
const QUEUES = ['any.localhost', 'all.localhost'] as const

const worker = fc.constantFrom(...WORKERS)
const queue = fc.constantFrom(...QUEUES)
const action = fc.oneof(
  fc.record({
    do: fc.constant('publish' as const),
    queue,
    topic: fc.constantFrom(...TOPICS),
    key: fc.boolean(),
    delay: fc.boolean(),
    ttl: fc.boolean(),
  }),
  fc.record({ do: fc.constant('say' as const), queue, topic: fc.constantFrom(...TOPICS) }),
  fc.record({
    do: fc.constant('sub' as const),
    queue,
    worker,
    filter: fc.constantFrom(...FILTERS),
    credit: fc.option(fc.nat(4), { nil: undefined }),
    name: fc.boolean(),
    load: fc.constantFrom(0, 50, 95),
  }),
  fc.record({ do: fc.constant('del' as const), queue, worker, filter: fc.constantFrom(...FILTERS) }),
  fc.record({
    do: fc.constant('work' as const),
    worker,
    how: fc.constantFrom('ack', 'nack', 'none', 'release', 'reject', 'refuse'),
  }),
  fc.record({
    do: fc.constant('late' as const),
    worker,
    at: fc.nat(30),
    how: fc.constantFrom('ack', 'nack', 'extend', 'release', 'reject'),
  }),
  fc.record({ do: fc.constant('end' as const), worker }),
  fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 1000, 31_000, 400_000) }),
  fc.record({ do: fc.constant('link' as const), queue }),
  fc.record({ do: fc.constant('restart' as const) }),
  fc.record({ do: fc.constant('fail' as const), fails: fc.boolean() }),
  fc.record({ do: fc.constant('lag' as const), lags: fc.boolean() }),
)
type Action = typeof action extends fc.Arbitrary<infer T> ? T : never

const LINE = { queue: 'any.localhost', subscription: '' }

/** A run: what was confirmed has to be somewhere in the end. */
class Run {
  readonly confirmed = new Set<string>()
  /** Ids that some worker acked while the store answered. */
  readonly acked = new Set<string>()
  readonly leases: string[] = []
  readonly #idOf = new Map<string, string>()
  readonly #w: StoreWorld
  #ids = 0

  constructor(w: StoreWorld) {
    this.#w = w
  }

  async do(step: Action): Promise<void> {
    const w = this.#w
    switch (step.do) {
      case 'publish': {
        const id = `i${++this.#ids}`
        const attrs = `${step.key ? " key='k'" : ''}${step.delay ? " delay='5'" : ''}${step.ttl ? " ttl='60'" : ''}`
        const answer = await w.publish(`<item id='${id}' topic='${step.topic}'${attrs}><p xmlns='urn:x'/></item>`, {
          queue: step.queue,
        })
        if (step.queue === 'any.localhost' && answer.includes(`<item id='${id}' seq=`)) this.confirmed.add(id)
        return
      }
      case 'say':
        await w.say(step.topic, { queue: step.queue })
        return
      case 'sub': {
        const { credit, load } = step
        const options =
          credit === undefined
            ? {}
            : { credit, ...(step.name && step.queue === 'all.localhost' ? { name: `n${step.filter}` } : {}) }
        await w.sub(step.worker, step.filter, { queue: step.queue, load, ...options })
        return
      }
      case 'del':
        await w.receive(
          `<iq type='set' id='d' from='${step.worker}' to='${step.queue}'><xmq xmlns='xmq:command' command='del' topic='${step.filter}'/></iq>`,
        )
        return
      case 'work':
        await this.work(step.worker, step.how)
        return
      case 'late': {
        const lease = this.leases[step.at % Math.max(this.leases.length, 1)]
        if (lease === undefined) return
        const answer = await w.settleWith(step.worker, `<${step.how} lease='${lease}'/>`)
        const id = this.#idOf.get(lease)
        if (step.how === 'ack' && id !== undefined && !answer.includes('<item')) this.acked.add(id)
        return
      }
      case 'end':
        for (const address of QUEUES) await w.end(step.worker, address)
        return
      case 'wait':
        await w.wait(step.ms)
        return
      case 'link':
        await w.input({ type: 'link-down', domain: step.queue })
        await w.input({ type: 'link-up', domain: step.queue })
        for (const one of WORKERS) await w.pong(one)
        return
      case 'restart':
        w.failure = undefined
        await w.restart()
        return
      case 'fail':
        w.failure = step.fails ? DISK_FULL : undefined
        return
      case 'lag':
        if (step.lags) w.isLagging = true
        else await w.catchUp()
    }
  }

  async work(who: string, how: string): Promise<void> {
    const w = this.#w
    await w.pong(who)
    if (how === 'refuse') {
      for (const { id, queue: address } of w.delivered(who)) {
        await w.receive(
          `<iq type='error' id='${id}' from='${who}' to='${address}'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
        )
      }
      return
    }
    await w.work(who, (item) => {
      this.leases.push(item.lease)
      if (item.id !== undefined) this.#idOf.set(item.lease, item.id)
      if (item.id !== undefined && how === 'ack' && w.failure === undefined) this.acked.add(item.id)
      if (how === 'ack') return ack(item)
      if (how === 'nack') return nack(item)
      return how === 'none' ? '' : `<${how} lease='${item.lease}'/>`
    })
  }
}

describe('any order of anything', () => {
  it('throws nothing, keeps credit, and delivers what was confirmed until it is settled', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 5, maxLength: 60 }), fc.boolean(), async (actions, isDurable) => {
        const reliable = { ...RELIABLE_DEFAULTS, whenNobody: isDurable ? 'keep' : 'refuse' } as const
        const w = await StoreWorld.start({
          durability: isDurable ? 'disk' : 'memory',
          queues: [queueRules('any.localhost', { reliable }), queueRules('all.localhost', { type: 'all', reliable })],
        })
        const run = new Run(w)
        for (const step of actions) await run.do(step)
        // The faults stop, and a worker acks all: everything settles.
        w.failure = undefined
        await w.catchUp()
        await w.wait(1_000_000)
        await w.sub('z@localhost/1', '>', { credit: 100 })
        for (let round = 0; round < 30; round++) {
          await run.work('z@localhost/1', 'ack')
          for (const one of WORKERS) await w.pong(one)
          for (const one of WORKERS) await run.work(one, 'ack')
          await w.wait(310_000)
          if (round % 5 === 4) await w.sub('z@localhost/1', '>', { credit: 100 })
        }
        const { ready, delayed, leased } = w.counts()
        expect({ ready, delayed, leased }).toEqual({ ready: 0, delayed: 0, leased: 0 })
        expect(w.core.stats().storingBytes).toBe(0)
        const dead = await w.store.browse({ ...LINE, state: 'dead', after: 0, max: 1000, bodies: false })
        const kept = new Set(dead.status === 'ok' ? dead.entries.map(({ id }) => id) : [])
        // Plain consumers ack by their pings; what they got is told by the message's id.
        const lost = [...run.confirmed].filter((id) => !run.acked.has(id) && !kept.has(id) && !w.plainIds.has(id))
        expect(lost).toEqual([])
      }),
      { numRuns: 500 },
    )
  }, 60_000)

  it('answers a broken stanza of the layer with an error, and nothing else', async () => {
    const names = ['publish', 'settle', 'renew', 'forget', 'browse', 'dead-letters', 'stats', 'consume', 'deliver', 'x']
    const attr = fc.tuple(
      fc.constantFrom('ttl', 'load', 'credit', 'name', 'max', 'after', 'action', 'state', 'encoding', 'all'),
      fc.constantFrom('', '-1', '1', 'x', '99999999999999999999', 'true', 'replay'),
    )
    const child = fc.constantFrom(
      '',
      '<item/>',
      "<item id='' topic=''/>",
      "<ack lease='x'/>",
      '<ack/>',
      "<nack lease='r1.0'>x</nack>",
      "<extend lease='r1.1.a'/>",
      "<item seq='x'/>",
    )
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.constantFrom('get', 'set'),
        fc.uniqueArray(attr, { maxLength: 4, selector: ([name]) => name }),
        fc.array(child, { maxLength: 3 }),
        async (name, type, attrs, children) => {
          const w = await StoreWorld.start({ queues: [queueRules('any.localhost', { admins: ['localhost'] })] })
          const text = attrs.map(([key, value]) => ` ${key}='${value}'`).join('')
          await w.receive(
            `<iq type='${type}' id='h' from='eve@localhost/1' to='any.localhost'><${name} xmlns='xmq:queue:1'${text}>${children.join('')}</${name}></iq>`,
          )
          expect(w.take().map((stanza) => stanza.attrs.get('id'))).toEqual(['h'])
        },
      ),
      { numRuns: 500 },
    )
  }, 30_000)
})
