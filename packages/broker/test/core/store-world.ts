/**
 * A core with the memory store behind it and a hand on the clock: XML in, XML out, and what the store answers on the way is fed
 * back until nothing more happens. The store can be made to fail, and a second core can take over what the first one left.
 */
import { childElements, parseElement, writeElement, XmqError, type XmlElement } from '@xmq/protocol'
import { type Core, type CoreEvent, type CoreRules, createCore, type Effect, type Input } from '../../src/core/index.ts'
import { createMemoryStore } from '../../src/store/memory.ts'
import type { ClaimableTopic, ClaimAnswer, Store } from '../../src/store/port.ts'
import { coreRules, type EventNamed } from './conversation.ts'

type StoreEffect = Exclude<Effect, { type: 'send' | 'event' }>

/** See the top of this file. */
export class StoreWorld {
  core: Core
  readonly store: Store
  readonly rules: CoreRules
  now: number
  /** Stanzas since the last {@link take}. */
  stanzas: XmlElement[] = []
  events: CoreEvent[] = []
  /** Ids of all plain messages that were sent. */
  readonly plainIds: Set<string> = new Set()
  /** Claims that were made, since the beginning. */
  claims = 0
  /** The same of `apply`. */
  applies = 0
  /** While set, the store does nothing and answers this. */
  failure: XmqError | undefined
  /** While set as well, {@link failure} is of publishes only: the disk is full. */
  isFull = false
  /** While set, the store does what it is asked, but its answers wait for {@link catchUp}: anything may come in between. */
  isLagging = false
  /** While set, the body of all that is claimed fails its checksum. */
  isRotten = false
  /** While set, the next life begins with {@link isLagging}. */
  isSlowToStart = false
  /** What `unit` gives. */
  unit = 0.5
  #ids = 0
  readonly #inputs: Input[] = []
  #late: Input[] = []
  #open = 0
  #generation = 0
  #unwatch: () => void

  private constructor(rules: CoreRules, store: Store, now: number) {
    this.rules = rules
    this.store = store
    this.now = now
    this.core = createCore(rules)
    this.#unwatch = store.watch((topics: readonly ClaimableTopic[]) => this.#inputs.push({ type: 'claimable', topics }))
  }

  /** Starts a core on a store of its own, with its streams up. */
  static async start(changes: Partial<CoreRules> = {}, now = 1_000_000): Promise<StoreWorld> {
    const world = new StoreWorld(coreRules(changes), createMemoryStore(), now)
    await world.#begin()
    return world
  }

  async #begin(): Promise<void> {
    await this.store.open(this.now)
    await this.input({ type: 'start' })
    for (const domain of this.rules.domains) await this.input({ type: 'link-up', domain })
  }

  /** The broker is killed; another one starts on the same store. */
  async restart(): Promise<this> {
    this.#generation++
    this.#open = 0
    this.#inputs.length = 0
    this.#late = []
    this.isLagging = this.isSlowToStart
    this.#unwatch()
    this.core = createCore(this.rules)
    this.#unwatch = this.store.watch((topics) => this.#inputs.push({ type: 'claimable', topics }))
    await this.#begin()
    return this
  }

  async input(input: Input): Promise<this> {
    this.#inputs.push(input)
    await this.settle()
    return this
  }

  receive(xml: string): Promise<this> {
    return this.input({ type: 'stanza', stanza: parseElement(xml) })
  }

  /** Time goes on, deadline by deadline. */
  async wait(ms: number): Promise<this> {
    const end = this.now + ms
    for (let due = this.core.deadline; due !== undefined && due <= end; due = this.core.deadline) {
      this.now = Math.max(this.now, Math.ceil(due))
      await this.input({ type: 'tick' })
    }
    this.now = end
    return this
  }

  /** Feeds inputs and answers until nothing is left to do. */
  async settle(): Promise<void> {
    for (let rounds = 0; this.#inputs.length > 0 || this.#open > 0; rounds++) {
      if (rounds > 10_000) throw new Error('the core and the store go round in circles')
      const input = this.#inputs.shift()
      if (input === undefined) await Promise.resolve()
      else this.#handle(input)
    }
  }

  /** The answers that wait arrive, in their order. */
  async catchUp(): Promise<this> {
    this.isLagging = false
    this.#inputs.push(...this.#late.splice(0))
    await this.settle()
    return this
  }

  #handle(input: Input): void {
    const effects = this.core.handle(input, this.now, { id: () => `r${++this.#ids}`, unit: () => this.unit })
    for (const effect of effects) {
      if (effect.type === 'send') {
        this.stanzas.push(effect.stanza)
        if (effect.stanza.name === 'message') this.plainIds.add(effect.stanza.attrs.get('id') ?? '')
      }
      if (effect.type === 'event') this.events.push(effect.event)
      else if (effect.type !== 'send') this.#call(effect)
    }
  }

  #call(effect: StoreEffect): void {
    this.#open++
    const generation = this.#generation
    if (effect.type === 'claim') this.claims++
    if (effect.type === 'apply') this.applies++
    void this.#ask(effect).then((input) => {
      if (generation !== this.#generation) return
      this.#open--
      if (this.isLagging) this.#late.push(input)
      else this.#inputs.push(input)
    })
  }

  async #ask(effect: StoreEffect): Promise<Input> {
    const { call } = effect
    const { store, now, failure } = this
    const isSpared = this.isFull && !(effect.type === 'apply' && effect.ops.some((op) => op.type === 'publish'))
    const refused = failure === undefined || isSpared ? undefined : ({ status: 'unavailable', error: failure } as const)
    switch (effect.type) {
      case 'apply':
        return {
          type: 'applied',
          call,
          results: refused ? effect.ops.map(() => refused) : await store.apply(effect.ops, now),
        }
      case 'claim':
        return { type: 'claimed', call, answer: refused ?? (await this.#claimed(await store.claim(effect.request))) }
      case 'due':
        return { type: 'due', call, answer: refused ?? (await store.due(now, effect.max)) }
      case 'browse':
        return { type: 'browsed', call, answer: refused ?? (await store.browse(effect.request)) }
      case 'topics':
        return { type: 'topics', call, answer: refused ?? (await store.topics(effect.request)) }
      case 'subscriptions':
        return { type: 'subscriptions', call, answer: refused ?? (await store.subscriptions(effect.queue)) }
      default:
        return { type: 'counts', call, lines: store.stats().lines.filter((line) => line.queue === effect.queue) }
    }
  }

  /** A claim's answer, as it is when the bodies are damaged: those messages are dead letters. */
  async #claimed(answer: ClaimAnswer): Promise<ClaimAnswer> {
    if (!this.isRotten || answer.status !== 'ok') return answer
    const ops = answer.messages.map(({ queue, subscription, seq, token }) => {
      return { type: 'dead', queue, subscription, seq, token, reason: 'corrupt', why: 'corrupt' } as const
    })
    await this.store.apply(ops, this.now)
    const corrupt = answer.messages.map(({ queue, subscription, seq, topic, id, sender }) => {
      return { queue, subscription, seq, topic, id, sender, reason: 'corrupt' } as const
    })
    return { ...answer, messages: [], corrupt, more: corrupt.length > 0 }
  }

  /** The stanzas to an address (or all) since the last look. */
  take(to?: string): XmlElement[] {
    const taken = this.stanzas.filter((stanza) => to === undefined || stanza.attrs.get('to') === to)
    this.stanzas = this.stanzas.filter((stanza) => to !== undefined && stanza.attrs.get('to') !== to)
    return taken
  }

  named<N extends CoreEvent['name']>(name: N): EventNamed<N>[] {
    return this.events.filter((event): event is EventNamed<N> => event.name === name)
  }

  /** Subscribes reliably, or plainly without credit, and answers the ping that it brings. */
  async sub(
    worker: string,
    topic: string,
    options: { queue?: string; credit?: number; load?: number; ttl?: number; name?: string; pings?: boolean } = {},
  ): Promise<this> {
    const { queue = 'any.localhost', credit, load = 0, ttl = 3600, name, pings = true } = options
    const named = name === undefined ? '' : ` name='${name}'`
    const consume = credit === undefined ? '' : `<consume xmlns='xmq:queue:1' credit='${credit}'${named}/>`
    await this.receive(
      `<iq type='set' id='sub' from='${worker}' to='${queue}'><xmq xmlns='xmq:command' command='sub' topic='${topic}' ttl='${ttl}' load='${load}'>${consume}</xmq></iq>`,
    )
    await this.pong(worker, pings)
    return this
  }

  /** Answers the pings to a session. */
  async pong(worker: string, answers = true): Promise<this> {
    for (let round = 0; round < 20; round++) {
      const pings = this.stanzas.filter((stanza) => stanza.attrs.get('to') === worker && isPing(stanza))
      if (pings.length === 0) return this
      this.stanzas = this.stanzas.filter((stanza) => !pings.includes(stanza))
      for (const ping of pings) {
        const head = `id='${ping.attrs.get('id')}' from='${worker}' to='${ping.attrs.get('from')}'`
        await this.receive(
          answers
            ? `<iq type='result' ${head}/>`
            : `<iq type='error' ${head}><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
        )
      }
    }
    return this
  }

  /** Publishes items; each is `topic`, or attributes and content of its own. @returns the answer */
  async publish(items: string | readonly string[], options: { queue?: string; from?: string } = {}): Promise<string> {
    const { queue = 'any.localhost', from = 'shop@localhost/1' } = options
    const list = typeof items === 'string' ? [items] : items
    const xml = list.map((item) =>
      item.startsWith('<') ? item : `<item id='${item}-${++this.#ids}' topic='${item}'><p xmlns='urn:x'/></item>`,
    )
    await this.receive(
      `<iq type='set' id='pub' from='${from}' to='${queue}'><publish xmlns='xmq:queue:1'>${xml.join('')}</publish></iq>`,
    )
    return this.take(from)
      .map((stanza) => writeElement(stanza))
      .join('')
  }

  /** Publishes a plain message. @returns what came back */
  async say(topic: string, { queue = 'any.localhost', from = 'shop@localhost/1', body = 'hi' } = {}): Promise<string> {
    await this.receive(
      `<message type='chat' id='m' from='${from}' to='${queue}'><body>${body}</body><xmq xmlns='xmq:topic' topic='${topic}'/></message>`,
    )
    return this.take(from)
      .map((stanza) => writeElement(stanza))
      .join('')
  }

  /** The deliver stanzas to a worker since the last look, not answered. */
  delivered(worker: string): Handed[] {
    return this.take(worker).flatMap((stanza) => {
      const deliver = childElements(stanza).find((child) => child.name === 'deliver')
      if (deliver === undefined) return []
      const items = childElements(deliver).map((item) => ({
        lease: item.attrs.get('lease') as string,
        seq: Number(item.attrs.get('seq')),
        topic: item.attrs.get('topic') as string,
        id: item.attrs.get('id'),
        attempt: Number(item.attrs.get('attempt')),
        xml: writeElement(item),
      }))
      return [{ id: stanza.attrs.get('id') as string, queue: stanza.attrs.get('from') as string, items }]
    })
  }

  /** What a worker gets, and says that it received; settles with the answer what `settle` gives. */
  async work(
    worker: string,
    settle: (item: Handed['items'][number]) => string = () => '',
  ): Promise<Handed['items'][number][]> {
    const got: Handed['items'][number][] = []
    for (let round = 0; round < 100; round++) {
      const handed = this.delivered(worker)
      if (handed.length === 0) break
      for (const { id, queue, items } of handed) {
        got.push(...items)
        const settlements = items.map(settle).join('')
        const inner = settlements === '' ? '' : `<settle xmlns='xmq:queue:1'>${settlements}</settle>`
        await this.receive(`<iq type='result' id='${id}' from='${worker}' to='${queue}'>${inner}</iq>`)
      }
    }
    return got
  }

  /** Settles. @returns the answer */
  async settleWith(worker: string, settlements: string, queue = 'any.localhost'): Promise<string> {
    await this.receive(
      `<iq type='set' id='settle' from='${worker}' to='${queue}'><settle xmlns='xmq:queue:1'>${settlements}</settle></iq>`,
    )
    const answers = this.stanzas.filter(
      (stanza) => stanza.attrs.get('to') === worker && stanza.attrs.get('id') === 'settle',
    )
    this.stanzas = this.stanzas.filter((stanza) => !answers.includes(stanza))
    return answers.map((stanza) => writeElement(stanza)).join('')
  }

  /** The session of a worker ends: its server says so, and the ping comes back. */
  async end(worker: string, queue = 'any.localhost'): Promise<this> {
    await this.receive(`<presence type='unavailable' from='${worker}' to='${queue}'/>`)
    return this.pong(worker, false)
  }

  /** How often each message of the `any` queue has failed. */
  async failures(): Promise<number[]> {
    const request = { queue: 'any.localhost', subscription: '', after: 0, max: 100, bodies: false }
    const answer = await this.store.browse(request)
    return answer.status === 'ok' ? answer.entries.map((entry) => entry.failures) : []
  }

  /** How many messages of a queue are in which state. */
  counts(queue = 'any.localhost', subscription = ''): { ready: number; delayed: number; leased: number; dead: number } {
    const line = this.store.stats().lines.find((one) => one.queue === queue && one.subscription === subscription)
    const { ready = 0, delayed = 0, leased = 0, dead = 0 } = line ?? {}
    return { ready, delayed, leased, dead }
  }
}

/** A deliver stanza. */
export interface Handed {
  readonly id: string
  readonly queue: string
  readonly items: readonly {
    lease: string
    seq: number
    topic: string
    id: string | undefined
    attempt: number
    xml: string
  }[]
}

export const ack = ({ lease }: { lease: string }): string => `<ack lease='${lease}'/>`
export const nack = ({ lease }: { lease: string }, delay?: number): string =>
  delay === undefined ? `<nack lease='${lease}'>no</nack>` : `<nack lease='${lease}' delay='${delay}'>no</nack>`

/** The store's trouble, for {@link StoreWorld.failure}. */
export const DISK_FULL: XmqError = new XmqError('internal', 'The disk is full.', { type: 'wait' })

function isPing(stanza: XmlElement): boolean {
  return childElements(stanza).some((child) => child.name === 'ping')
}
