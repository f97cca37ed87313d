/** Plain and reliable clients on one queue, in every combination: messages, room, requests. docs/protocol-reliable.md 8 and 9. */
import { childElements, decodeError, findChild, NS_QUEUE, textOf, writeElement, type XmlElement } from '@xmq/protocol'
import { describe, expect, it } from 'vitest'
import { RELIABLE_DEFAULTS, type ReliableRules } from '../../src/core/index.ts'
import { errorXml, queueRules } from './conversation.ts'
import {
  type Cast,
  type ConsumerKind,
  expectedOf,
  type Kept,
  type Mix,
  MIXES,
  play,
  type Publisher,
} from './mix-rules.ts'
import { type Asker, askedBy, type End, gottenBy, REQUEST_MIXES } from './mix-requests.ts'
import { ack, type Handed, StoreWorld } from './store-world.ts'

const QUEUES = { any: 'any.localhost', all: 'all.localhost' } as const

/** A broker on such a store, its queues with the rules that they have there by default. */
function worldOn(kept: Kept, changes: Partial<ReliableRules> = {}): Promise<StoreWorld> {
  const whenNobody = kept === 'disk' ? 'keep' : 'refuse'
  const reliable = { ...RELIABLE_DEFAULTS, whenNobody, ...changes } as const
  const queues = [queueRules(QUEUES.any, { reliable }), queueRules(QUEUES.all, { type: 'all', reliable })]
  return StoreWorld.start({ durability: kept, queues })
}

/** A core, with the memory store behind it. */
class CoreCast implements Cast {
  readonly #world: StoreWorld
  readonly #queue: string
  readonly #lives = new Map<ConsumerKind, number>()

  constructor(world: StoreWorld, queue: string) {
    this.#world = world
    this.#queue = queue
  }

  #jid(consumer: ConsumerKind): string {
    return `${consumer}@localhost/${this.#lives.get(consumer) ?? 1}`
  }

  async join(consumer: ConsumerKind): Promise<void> {
    const credit = consumer === 'plain' ? {} : { credit: 100 }
    const name = consumer === 'named' ? { name: 'n' } : {}
    await this.#world.sub(this.#jid(consumer), 't', { queue: this.#queue, ...credit, ...name })
  }

  async leave(consumer: ConsumerKind): Promise<void> {
    await this.#world.receive(
      `<iq type='set' id='d' from='${this.#jid(consumer)}' to='${this.#queue}'><xmq xmlns='xmq:command' command='del' topic='t'/></iq>`,
    )
  }

  async die(consumer: ConsumerKind): Promise<void> {
    await this.#world.end(this.#jid(consumer), this.#queue)
    this.#lives.set(consumer, (this.#lives.get(consumer) ?? 1) + 1)
  }

  async publish(publisher: Publisher, number: number): Promise<string | undefined> {
    const queue = this.#queue
    if (publisher === 'plain') {
      const told = await this.#world.say('t', { queue, body: String(number) })
      if (told === '') return undefined
      return told.includes('No recipients found') ? 'refused' : told
    }
    const item = `<item id='i${number}' topic='t'><body xmlns='jabber:client'>${number}</body></item>`
    return confirmIn(await this.#world.publish(item, { queue }))
  }

  async got(consumer: ConsumerKind, _count: number, isMute: boolean): Promise<string[]> {
    const jid = this.#jid(consumer)
    const got: string[] = []
    for (;;) {
      const plain = this.#world.stanzas.filter((s) => s.name === 'message' && s.attrs.get('to') === jid)
      this.#world.stanzas = this.#world.stanzas.filter((stanza) => !plain.includes(stanza))
      got.push(...plain.map(describeMessage))
      const items = isMute ? this.#world.delivered(jid).flatMap((handed) => handed.items) : await this.#work(jid)
      got.push(...items.map(describeItem))
      if (plain.length + items.length === 0 || isMute) return got
      await this.#world.pong(jid)
    }
  }

  /** Like the world's own, but leaves pings where they are. */
  async #work(jid: string): Promise<Handed['items'][number][]> {
    const isDelivery = this.#world.stanzas.some(
      (stanza) => stanza.attrs.get('to') === jid && findChild(stanza, 'deliver', NS_QUEUE) !== undefined,
    )
    return isDelivery ? this.#world.work(jid, ack) : []
  }
}

function confirmIn(xml: string): string {
  const durability = /durability='(\w+)'/.exec(xml)?.[1]
  const subscriptions = /subscriptions='(\d+)'/.exec(xml)?.[1]
  if (durability === undefined || !xml.includes('seq=')) return xml
  return subscriptions === undefined ? durability : `${durability}, ${subscriptions}`
}

/** Its form, if it is as it has to be: id, sender, order of the children. */
function describeMessage(message: XmlElement): string {
  const body = findChild(message, 'body', 'jabber:client')
  const number = body === undefined ? '?' : textOf(body)
  const type = message.attrs.get('type')
  const names = childElements(message).map((child) => child.name)
  const isWhole =
    message.attrs.get('id') === (type === 'chat' ? 'm' : `i${number}`) &&
    writeElement(message).includes("type='ofrom' jid='shop@localhost/1'") &&
    names.slice(0, 3).join() === 'body,xmq,addresses'
  return isWhole ? `${number} message ${type}` : writeElement(message)
}

function describeItem({ xml, id, topic }: Handed['items'][number]): string {
  const number = /<body xmlns='jabber:client'>(\d)<\/body>/.exec(xml)?.[1] ?? '?'
  const isEnvelope = xml.includes("type='chat' id='m'")
  const isWhole =
    xml.includes("from='shop@localhost/1'") && topic === 't' && id === (isEnvelope ? undefined : `i${number}`)
  return isWhole ? `${number} item${isEnvelope ? ' in an envelope' : ''}` : xml
}

describe('messages', () => {
  it('are of every combination', () => {
    // Stores x publishers x sets of consumers x moments.
    expect(MIXES).toHaveLength(2 * 3 * (3 + 7) * 3)
    expect(new Set(MIXES.map(({ title }) => title)).size).toBe(MIXES.length)
  })

  it.each(MIXES)('$title', async (mix: Mix) => {
    const world = await worldOn(mix.kept)
    const outcome = await play(mix, new CoreCast(world, QUEUES[mix.queue]))
    expect(outcome).toEqual(expectedOf(mix))
    const lines = world.store.stats().lines.map(({ ready, delayed, leased, dead }) => ready + delayed + leased + dead)
    expect(lines.every((held) => held === 0)).toBe(true)
    expect(world.core.stats()).toMatchObject({ leases: 0, storingBytes: 0, ephemeralMessages: 0 })
  })
})

describe('twelve messages to one plain and one reliable consumer of an any queue', () => {
  /** What the two are like, and what each holds before it has settled anything; the third number is what waits. */
  const ROOMS: readonly {
    readonly what: string
    /** Plain windows and pings mean nothing where plain consumers are acked on send. */
    readonly memory: readonly [number, number, number]
    readonly disk: readonly [number, number, number]
    readonly credit?: number
    readonly loads?: readonly [number, number]
    readonly window?: number
    readonly pings?: false
  }[] = [
    { what: 'both idle', memory: [6, 6, 0], disk: [6, 6, 0] },
    { what: 'the reliable one has credit for two', credit: 2, memory: [10, 2, 0], disk: [10, 2, 0] },
    { what: 'the reliable one has no credit', credit: 0, memory: [12, 0, 0], disk: [12, 0, 0] },
    { what: 'the reliable one is busy', loads: [0, 91], memory: [12, 0, 0], disk: [12, 0, 0] },
    { what: 'the plain one is busy', loads: [91, 0], memory: [0, 12, 0], disk: [0, 12, 0] },
    { what: 'a busy plain one, credit for two', loads: [91, 0], credit: 2, memory: [0, 2, 10], disk: [0, 2, 10] },
    { what: 'the plain one has a window of three', window: 3, memory: [6, 6, 0], disk: [3, 9, 0] },
    { what: 'a window of three, credit for two', window: 3, credit: 2, memory: [10, 2, 0], disk: [3, 2, 7] },
    { what: 'it answers no pings in a window of three', window: 3, pings: false, memory: [6, 6, 0], disk: [6, 6, 0] },
  ]
  const table = ROOMS.flatMap((room) =>
    (['memory', 'disk'] as const).flatMap((kept) =>
      (['plain', 'reliable'] as const).map((by) => ({ room, what: room.what, kept, by, gets: room[kept] })),
    ),
  )

  it.each(table)('$kept, from a $by publisher, $what: $gets', async (row) => {
    const { kept, by, gets, room } = row
    const { credit = 100, loads = [0, 0], window, pings = true } = room
    const world = await worldOn(kept, window === undefined ? {} : { plainWindow: window })
    await world.sub('plain@localhost/1', 't', { load: loads[0], pings })
    await world.sub('reliable@localhost/1', 't', { load: loads[1], credit })
    for (let number = 0; number < 12; number++) {
      if (by === 'plain') expect(await world.say('t')).toBe('')
      else await world.publish('t')
    }
    const messages = world.stanzas.filter((stanza) => stanza.name === 'message').length
    const items = (await world.work('reliable@localhost/1')).length
    expect([messages, items, world.counts().ready]).toEqual(gets)
  })
})

describe('requests', () => {
  const ASKER = 'shop@localhost/1'
  const jidOf = (kind: Publisher): string => `${kind}@localhost/1`

  it.each(REQUEST_MIXES)('$title', async ({ queue: type, kept, asker, workers, end, hears, isTold }) => {
    const world = await worldOn(kept)
    const queue = QUEUES[type]
    for (const kind of workers) await world.sub(jidOf(kind), 't', kind === 'plain' ? { queue } : { queue, credit: 4 })
    const ask = (id: string) =>
      world.receive(`<iq type='get' id='${id}' from='${ASKER}' to='${queue}'>${askedBy(asker, 't')}</iq>`)
    if (workers.length === 0) {
      await ask('q')
      expect(heard(world, 'q')).toEqual(['no-recipients'])
    }
    // Each worker has a request of its own in turn, unless the first one went on to the second.
    for (const kind of hears === 'next' ? workers.slice(0, 1) : workers) {
      world.take()
      await ask(kind)
      const id = takeAsked(world, kind, asker)
      expect(world.stanzas).toEqual([])
      await ENDS[end](world, { id, worker: jidOf(kind), queue, call: kind })
      const told = world.take(jidOf(kind)).map((stanza) => writeElement(stanza))
      const cancel = `<iq type='set' id='cancel:${id}' from='${queue}' to='${jidOf(kind)}'><cancel xmlns='xmq:queue:1' call='${id}'/></iq>`
      expect(told.filter((xml) => !xml.includes('urn:xmpp:ping'))).toEqual(
        isTold && kind === 'reliable' ? [cancel] : [],
      )
      const other = hears === 'next' ? workers[1] : undefined
      if (other !== undefined) {
        const next = takeAsked(world, other, asker)
        await ENDS['is answered'](world, { id: next, worker: jidOf(other), queue, call: kind })
      }
      const unheard = other === undefined ? 'no-recipients' : 'result'
      expect(heard(world, kind)).toEqual([hears === 'next' ? unheard : hears])
      // Whatever comes later is nobody's.
      await ENDS['is answered'](world, { id, worker: jidOf(kind), queue, call: kind })
      expect(heard(world, kind)).toEqual([])
    }
    expect(world.core.stats().openRequests).toBe(0)
  })

  interface Asked {
    /** As the worker knows it. */
    readonly id: string
    /** As the asker does. */
    readonly call: string
    readonly worker: string
    readonly queue: string
  }

  /** What a worker, a server or the asker does to it. */
  const ENDS: Readonly<Record<End, (world: StoreWorld, asked: Asked) => Promise<unknown>>> = {
    'is answered': (world, { id, worker, queue }) =>
      world.receive(`<iq type='result' id='${id}' from='${worker}' to='${queue}'><ok xmlns='urn:x'/></iq>`),
    'is answered with an error': (world, { id, worker, queue }) =>
      world.receive(
        `<iq type='error' id='${id}' from='${worker}' to='${queue}'>${errorXml('undefined-condition')}</iq>`,
      ),
    bounces: (world, { id, worker, queue }) =>
      world.receive(
        `<iq type='error' id='${id}' from='${worker}' to='${queue}'>${errorXml('service-unavailable')}</iq>`,
      ),
    'dies with its worker': (world, { worker, queue }) => world.end(worker, queue),
    'is cancelled': async (world, { queue, call }) => {
      await world.receive(
        `<iq type='set' id='c' from='${ASKER}' to='${queue}'><cancel xmlns='xmq:queue:1' call='${call}'/></iq>`,
      )
      expect(heard(world, 'c')).toEqual(['result'])
    },
    'takes too long': (world) => world.wait(30_000),
  }

  /** The request that a worker has got, in the form that it has to have, and no other. @returns its id */
  function takeAsked(world: StoreWorld, worker: Publisher, asker: Asker): string {
    const requests = world.stanzas.filter(
      (stanza) =>
        stanza.attrs.get('to') === jidOf(worker) &&
        stanza.attrs.get('type') === 'get' &&
        findChild(stanza, 'ping', 'urn:xmpp:ping') === undefined,
    )
    world.stanzas = world.stanzas.filter((stanza) => !requests.includes(stanza))
    const contents = requests.map((request) => childElements(request).map((child) => writeElement(child)))
    expect(contents.map((children) => children.join(''))).toEqual([gottenBy(worker, asker, 't', ASKER)])
    return requests[0]?.attrs.get('id') as string
  }

  /** The answers under an id: `result`, or what the error says. */
  function heard(world: StoreWorld, id: string): string[] {
    const answers = world.stanzas.filter(({ attrs }) => attrs.get('to') === ASKER && attrs.get('id') === id)
    world.stanzas = world.stanzas.filter((stanza) => !answers.includes(stanza))
    return answers.map((answer) => {
      if (answer.attrs.get('type') === 'result') return 'result'
      const { code, condition, fromBroker } = decodeError(answer)
      return fromBroker ? code : condition
    })
  }
})
