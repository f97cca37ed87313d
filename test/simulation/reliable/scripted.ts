/**
 * Clients that follow a script, and do what the SDK never would.
 *
 * A producer publishes batches, and publishes again under the same ids what was not confirmed. A worker session subscribes,
 * says what it received, and settles, or does something worse; its account remembers the leases across its sessions.
 */
import { childElements, element, isPing, isResubscribe, stanza, type XmlElement } from '@xmq/protocol'
import type { Random } from '../random.ts'
import { Answerer, isRequest } from './answerer.ts'
import { FILTERS, makeItem, type SentItem, type Wanted } from './items.ts'
import { LEASE_MS } from './rules.ts'

const NS = 'xmq:queue:1'
/** A client asks again what was not answered for so long. */
const ANSWER_MS = 3_000

/** What clients need of the world. */
export interface ClientHost {
  /** The queue's address. */
  readonly queue: string
  readonly random: Random
  readonly isCalm: () => boolean
  /** Every scripted worker refuses what it is asked, as if it did not know it. */
  readonly refuses: boolean
  readonly now: () => number
  readonly at: (delayMs: number, act: () => void) => void
  readonly send: (from: string, stanza: XmlElement) => void
  readonly id: () => string
}

/** See the top of this file. */
export class Producer {
  readonly jid: string
  readonly #host: ClientHost
  readonly #onSent: (item: SentItem) => void
  readonly #unconfirmed = new Map<string, { readonly item: SentItem; sentAt: number }>()
  readonly #asked = new Map<string, readonly string[]>()

  constructor(jid: string, host: ClientHost, onSent: (item: SentItem) => void) {
    this.jid = jid
    this.#host = host
    this.#onSent = onSent
    this.#retry()
  }

  /** Whether everything was confirmed. */
  get isIdle(): boolean {
    return this.#unconfirmed.size === 0
  }

  publish(): void {
    const { random } = this.#host
    const items: SentItem[] = []
    for (let count = 1 + random.int(random.chance(0.2) ? 12 : 3); count > 0; count--) items.push(this.#make())
    for (const item of items) {
      this.#onSent(item)
      this.#unconfirmed.set(item.id, { item, sentAt: 0 })
    }
    this.#send(items)
    // Somebody in a hurry does not wait for the answer.
    if (random.chance(0.05)) this.#send(items)
  }

  #make(): SentItem {
    const { random, queue, id } = this.#host
    return makeItem(random, queue, this.jid.slice(0, this.jid.indexOf('/')), id)
  }

  #send(items: readonly SentItem[]): void {
    const id = this.#host.id()
    this.#asked.set(
      id,
      items.map((item) => item.id),
    )
    for (const item of items) {
      const waiting = this.#unconfirmed.get(item.id)
      if (waiting !== undefined) waiting.sentAt = this.#host.now()
    }
    const children = items.map(({ id: name, topic, key, priority, delayMs, ttlMs, payload }) =>
      element(
        'item',
        NS,
        {
          id: name,
          topic,
          key,
          priority: priority === 0 ? undefined : String(priority),
          delay: delayMs === 0 ? undefined : String(delayMs / 1000),
          ttl: ttlMs === undefined ? undefined : String(ttlMs / 1000),
        },
        [element('p', 'urn:x', undefined, [payload])],
      ),
    )
    const publish = element('publish', NS, undefined, children)
    this.#host.send(this.jid, stanza('iq', { type: 'set', id, to: this.#host.queue }, [publish]))
  }

  receive(iq: XmlElement): void {
    const published = childElements(iq).find((child) => child.name === 'published')
    const asked = this.#asked.get(iq.attrs.get('id') ?? '')
    this.#asked.delete(iq.attrs.get('id') ?? '')
    if (asked === undefined || published === undefined) return
    for (const item of childElements(published)) {
      if (item.attrs.has('seq')) this.#unconfirmed.delete(item.attrs.get('id') ?? '')
    }
  }

  #retry(): void {
    this.#host.at(1_000, () => {
      const late = [...this.#unconfirmed.values()].filter(({ sentAt }) => this.#host.now() - sentAt >= ANSWER_MS)
      for (let from = 0; from < late.length; from += 20) this.#send(late.slice(from, from + 20).map(({ item }) => item))
      this.#retry()
    })
  }
}

/** What is left of the leases of a bare JID, whichever session had them. */
export type LeaseMemory = string[]

type Receipts = 'answers' | 'settles' | 'errors' | 'silent'

/** See the top of this file. */
export class WorkerSession {
  readonly jid: string
  isAlive = true
  readonly #host: ClientHost
  readonly #memory: LeaseMemory
  readonly #receipts: Receipts
  readonly #renews: boolean
  readonly #pongs: boolean
  readonly #wanted: readonly Wanted[]
  #credit: number
  /** Settlements that are not answered yet, by the id of their stanza. */
  readonly #asked = new Map<string, readonly XmlElement[]>()
  #due: XmlElement[] = []
  #isSoon = false
  readonly #answerer: Answerer

  /** @param wanted topics and patterns to subscribe to, when it does not choose them itself */
  constructor(jid: string, host: ClientHost, memory: LeaseMemory, wanted?: readonly Wanted[]) {
    const { random } = host
    const isCalm = host.isCalm()
    this.jid = jid
    this.#host = host
    this.#memory = memory
    this.#receipts = isCalm
      ? 'answers'
      : random.pick(['answers', 'answers', 'answers', 'settles', 'settles', 'errors', 'silent'])
    this.#renews = isCalm || random.chance(0.8)
    this.#pongs = isCalm || random.chance(0.9)
    this.#credit = isCalm ? 20 : random.pick([1, 2, 3, 8])
    this.#answerer = new Answerer(jid, host, () => this.isAlive)
    this.#wanted = wanted ?? [{ topic: random.pick(FILTERS) }, { topic: random.pick(FILTERS) }]
    this.#subscribe()
    if (this.#memory.length > 0) this.#resume()
    this.#renew()
  }

  #subscribe(): void {
    for (const { topic, name } of new Map(this.#wanted.map((one) => [one.topic, one])).values()) {
      const consume = element('consume', NS, { credit: String(this.#credit), name })
      const command = { command: 'sub', topic, ttl: '20', load: this.#host.random.pick(['0', '50']) }
      this.#ask([element('xmq', 'xmq:command', command, [consume])])
    }
  }

  /** Says of what an earlier session had, or another broker gave, that it is still at work, or done. */
  #resume(): void {
    const { random } = this.#host
    const kinds = random.pick([['extend'], ['extend', 'ack'], ['ack'], ['nack', 'extend', 'release']])
    for (const lease of this.#memory.slice(-6)) {
      const kind = random.pick(kinds)
      this.#say(kind, lease)
      if (kind === 'extend') this.#later(random.pick([100, 2_000]), () => this.#say('ack', lease))
    }
  }

  /** Each of several durable subscriptions that are refused leads here: once is enough. */
  #subscribeSoon(): void {
    if (this.#isSoon && this.#wanted.some(({ name }) => name !== undefined)) return
    this.#isSoon = true
    this.#later(500, () => {
      this.#isSoon = false
      this.#subscribe()
    })
  }

  #renew(): void {
    this.#later(6_000 + this.#host.random.int(4_000), () => {
      const { random } = this.#host
      if (this.#renews || this.#host.isCalm()) {
        if (random.chance(0.3) && !this.#host.isCalm()) this.#credit = random.pick([0, 1, 2, 5])
        if (this.#host.isCalm()) this.#credit = 20
        if (random.chance(0.3)) this.#subscribe()
        else this.#ask([element('renew', NS, { ttl: '20', load: '0', credit: String(this.#credit) })])
      }
      this.#renew()
    })
  }

  #ask(children: readonly XmlElement[]): void {
    if (!this.isAlive) return
    this.#host.send(this.jid, stanza('iq', { type: 'set', id: this.#host.id(), to: this.#host.queue }, children))
  }

  #later(delayMs: number, act: () => void): void {
    this.#host.at(delayMs, () => {
      if (this.isAlive) act()
    })
  }

  /** Gives up a topic. */
  leave(): void {
    this.#ask([element('xmq', 'xmq:command', { command: 'del', topic: this.#wanted[0]?.topic ?? '>' })])
  }

  /** Ends a durable subscription. Whoever wants it makes it anew, sooner or later. */
  forget(name: string): void {
    this.#ask([element('forget', NS, { name })])
    if (this.#host.random.chance(0.3)) this.#subscribe()
  }

  /** Settles a lease that it never had, or makes one up. */
  meddle(lease: string): void {
    const { random } = this.#host
    const seq = lease.slice(lease.indexOf('.'))
    this.#say(random.pick(['ack', 'nack', 'release', 'reject', 'extend']), random.chance(0.5) ? lease : `f00d${seq}`)
  }

  receive(iq: XmlElement): void {
    const type = iq.attrs.get('type')
    const id = iq.attrs.get('id') ?? ''
    if (type === 'result' || type === 'error') {
      this.#asked.delete(id)
      if (childElements(iq).some((child) => child.name === 'failure' || child.name === 'renew')) this.#subscribe()
      if (type === 'error') this.#subscribeSoon()
      return
    }
    const isCalm = this.#host.isCalm()
    const deliver = childElements(iq).find((child) => child.name === 'deliver')
    if (deliver !== undefined) {
      this.#take(id, deliver)
      return
    }
    if (isPing(iq) && !this.#pongs && !isCalm) return
    if (isRequest(iq)) {
      this.#answerer.take(iq)
      return
    }
    this.#answer(id)
    if (!isResubscribe(iq)) return
    this.#subscribe()
    this.#resume()
  }

  #answer(id: string, children: readonly XmlElement[] = []): void {
    this.#host.send(this.jid, stanza('iq', { type: 'result', id, to: this.#host.queue }, children))
  }

  #take(id: string, deliver: XmlElement): void {
    const receipts = this.#host.isCalm() ? 'answers' : this.#receipts
    const leases = childElements(deliver).map((item) => item.attrs.get('lease') ?? '')
    this.#memory.push(...leases)
    this.#memory.splice(0, Math.max(0, this.#memory.length - 40))
    if (receipts === 'silent' && this.#host.random.chance(0.7)) return
    if (receipts === 'errors' && this.#host.random.chance(0.5)) {
      const condition = element('service-unavailable', 'urn:ietf:params:xml:ns:xmpp-stanzas')
      const error = element('error', 'jabber:client', { type: 'cancel' }, [condition])
      this.#host.send(this.jid, stanza('iq', { type: 'error', id, to: this.#host.queue }, [error]))
      return
    }
    if (receipts === 'settles') {
      const done = leases.filter(() => this.#host.random.chance(0.5))
      const settlements = done.map((lease) =>
        element(this.#host.random.pick(['ack', 'ack', 'release', 'nack']), NS, { lease }),
      )
      this.#answer(id, settlements.length === 0 ? [] : [element('settle', NS, undefined, settlements)])
      for (const lease of leases) if (!done.includes(lease)) this.#work(lease)
      return
    }
    this.#answer(id)
    for (const lease of leases) this.#work(lease)
  }

  #work(lease: string): void {
    const { random } = this.#host
    if (this.#host.isCalm()) {
      this.#later(random.gap(100), () => this.#say('ack', lease))
      return
    }
    if (random.chance(0.08)) {
      // In the last moment, and a little later: whether the lease is over is being asked.
      this.#later(LEASE_MS - 50 + random.int(400), () => this.#say('extend', lease))
      this.#later(LEASE_MS + 1_000, () => this.#say('ack', lease))
      return
    }
    const afterMs = random.gap(random.chance(0.1) ? 5_000 : 300)
    this.#later(afterMs, () => {
      const dice = random.int(100)
      if (dice < 55) this.#say('ack', lease)
      else if (dice < 67) this.#say('nack', lease)
      else if (dice < 75) this.#say('release', lease)
      else if (dice < 79) this.#say('reject', lease)
      else if (dice < 90) {
        this.#say('extend', lease)
        this.#later(random.gap(2_000), () => this.#say(random.pick(['ack', 'extend', 'nack']), lease))
      } else if (dice < 95) {
        // The same thing twice.
        this.#say('ack', lease)
        this.#say('ack', lease)
      }
    })
  }

  /** Settlements go in batches. */
  #say(kind: string, lease: string): void {
    const { random } = this.#host
    const attrs = {
      lease,
      delay: kind === 'nack' && random.chance(0.3) ? '1' : undefined,
      reason: kind === 'reject' && random.chance(0.3) ? 'invalid' : undefined,
    }
    if (this.#due.length === 0) this.#later(random.pick([0, 20, 100]), () => this.#settle())
    this.#due.push(element(kind, NS, attrs, kind === 'nack' ? ['no'] : []))
  }

  #settle(): void {
    const settlements = this.#due
    this.#due = []
    if (settlements.length > 0) this.#send(settlements, 2)
  }

  #send(settlements: readonly XmlElement[], again: number): void {
    const id = this.#host.id()
    this.#asked.set(id, settlements)
    const settle = element('settle', NS, undefined, settlements)
    this.#host.send(this.jid, stanza('iq', { type: 'set', id, to: this.#host.queue }, [settle]))
    // What was not answered is said again.
    if (again === 0) return
    this.#later(ANSWER_MS, () => {
      if (this.#asked.delete(id)) this.#send(settlements, again - 1)
    })
  }
}
