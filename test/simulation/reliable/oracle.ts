/**
 * What the reliable layer promises, told from the outside: what went into the core, what came out, what the store has done.
 *
 * | the oracle knows | from |
 * |---|---|
 * | what was sent | the producers |
 * | what is stored, leased, failed, gone, dead | the store, when it has done it |
 * | what was settled, received, refused, and by whom | what arrived at the core |
 * | what was confirmed and delivered, which leases the core ends | what left the core |
 *
 * Each lease that the core ends needs a cause that arrived before, each confirm an answer of the store.
 */
import { bareOf, childElements, isPing, matchesPattern, writeElement, type XmlElement } from '@xmq/protocol'
import type { CoreRules, Effect, Input } from '../../../packages/broker/src/core/port.ts'
import type { ClaimAnswer, PublishOp, StoreOp, StoreResult } from '../../../packages/broker/src/store/port.ts'
import { Violation } from '../violation.ts'
import type { SentItem } from './items.ts'
import { Orders } from './orders.ts'
import { Readiness } from './readiness.ts'
import type { StoreAnswer, StoreEffect } from './store.ts'

const SETTLEMENTS: ReadonlySet<string> = new Set(['ack', 'nack', 'release', 'reject', 'extend'])
/** What a message goes out for at most (docs/protocol-reliable.md section 12), beside what restarts cost. */
const DELIVERIES_MAX = 20
/** So many claims that find nothing in one second are a storm. */
const EMPTY_CLAIMS_MAX = 100

interface Message {
  readonly seq: number
  readonly sent: SentItem
  expiresAt: number | undefined
  readonly storedAt: number
  /** Of its key: what was stored earlier goes first, and what is replayed last. */
  order: number
  state: 'waiting' | 'leased' | 'acked' | 'dead' | 'purged'
  /** The last one. */
  token: string | undefined
  failures: number
  deliveries: number
  /** The last lease ended with a failure, which a late extend takes back. */
  hasCountedFailure: boolean
}

interface Lease {
  readonly token: string
  readonly message: Message
  readonly holder: string
  readonly attempt: number
  readonly life: number
  /** How long it may last is counted from here. */
  since: number
  /** One that is received late has its whole period all the same. */
  receivedUntil: number
  /** Full JIDs that extended it. */
  readonly takers: Set<string>
  readonly madeAt: number
  /** No fault was at work any more when it was made. */
  readonly isCalm: boolean
  /** The core has the store's answer. */
  isAnswered: boolean
  /** Full JID that it went to. */
  jid: string | undefined
  receivedAt: number | undefined
  extendedAt: number | undefined
  /** Since when the core may take it for over: when it asked for what is due, and heard that this one is. */
  overAskedAt: number | undefined
  wasRefused: boolean
  /** Its holder said what ends it: the core has let go of it, whatever the store answers. */
  wasSettled: boolean
}

interface Consumer {
  /** The last one is in force. */
  readonly credits: { readonly credit: number; until: number }[]
  /** Tokens delivered and not ended. */
  readonly out: Set<string>
  /** Subscriptions that it has, as far as it has said, */
  readonly filters: Set<string>
  /** and had: what was asked for one may come after its end. */
  readonly everWanted: Set<string>
}

interface Settling {
  readonly jid: string
  readonly settlements: readonly { readonly kind: string; readonly lease: string; readonly token: string }[]
}

/** See the top of this file. */
export class ReliableOracle {
  readonly seen: Map<string, number> = new Map()
  /** No fault is at work any more. */
  isCalm = false
  readonly #rules: CoreRules
  readonly #queue: string
  readonly #onStored: (item: SentItem) => void
  /** Names, and names with their seqs. */
  readonly #everStored = new Set<string>()
  readonly #sent = new Map<string, SentItem>()
  readonly #messages = new Map<number, Message>()
  readonly #byId = new Map<string, Message>()
  /** Gone, and another message has its id. */
  readonly #forgotten = new Set<Message>()
  readonly #leases = new Map<string, Lease>()
  readonly #confirmed = new Map<string, number>()
  #lastSeq = 0
  #replays = 0
  // Of one life of the broker:
  #life = 1
  /** In this life: sessions that said that they have named all that they hold, and the tokens that were named. */
  readonly #complete = new Set<string>()
  readonly #named = new Set<string>()
  #consumers = new Map<string, Consumer>()
  #grants = new Map<string, number>()
  #dues = new Map<number, number>()
  #calls = new Map<number, readonly StoreOp[]>()
  #stored = new Set<string>()
  #done = new Set<string>()
  #said = new Set<string>()
  #publishes = new Map<string, readonly string[]>()
  #settlings = new Map<string, Settling>()
  #delivers = new Map<string, { readonly jid: string; readonly tokens: readonly string[] }>()
  #pings = new Map<string, { readonly jid: string; readonly at: number }>()
  #doubted = new Set<string>()
  /** Calls of the core for what is known of a lease. */
  #lookups = new Set<number>()
  #orders = new Orders()
  readonly #readiness: Readiness
  #dueAcks = new Map<string, string>()
  #emptyClaims: number[] = []
  /** Leases whose receipt is being handled. */
  #touched: Lease[] = []
  /** Who refuses a delivery with what is being handled. */
  #refusedBy: string | undefined

  /** @param onStored told of each item that is stored for the first time, in whatever life of the broker */
  constructor(rules: CoreRules, queue: string, onStored: (item: SentItem) => void) {
    this.#rules = rules
    this.#queue = queue
    this.#onStored = onStored
    this.#readiness = new Readiness(this.#reliable)
  }

  /** Whether an item was ever stored under a seq, in whatever life of the broker. */
  wasStored({ sender, id }: SentItem, seq: number): boolean {
    return this.#everStored.has(`${nameOf(sender, id)} ${seq}`)
  }

  /** A producer is about to send this. */
  send(item: SentItem): void {
    this.#sent.set(nameOf(item.sender, item.id), item)
  }

  /** The broker was killed. @param keeps whether the store survived it */
  crash(keeps: boolean): void {
    this.#note(keeps ? 'crash, store kept' : 'crash, store lost')
    this.#life++
    this.#complete.clear()
    this.#named.clear()
    this.#consumers = new Map()
    this.#grants = new Map()
    this.#dues = new Map()
    this.#calls = new Map()
    this.#stored = new Set()
    this.#done = new Set()
    this.#said = new Set()
    this.#publishes = new Map()
    this.#settlings = new Map()
    this.#delivers = new Map()
    this.#pings = new Map()
    this.#doubted = new Set()
    this.#orders = new Orders()
    this.#lookups = new Set()
    this.#emptyClaims = []
    if (keeps) return
    this.#lastSeq = 0
    this.#readiness.clear()
    this.#messages.clear()
    this.#byId.clear()
    this.#leases.clear()
    this.#confirmed.clear()
  }

  // ---- what the store has done ----

  /** The store has done something; the core does not know it yet. @param askedAt what the store took for the time of it */
  done(effect: StoreEffect, answer: StoreAnswer, askedAt: number, now: number): void {
    if (effect.type === 'apply' && answer.type === 'applied') {
      for (const [at, op] of effect.ops.entries()) this.#applied(op, answer.results[at] as StoreResult, askedAt, now)
    }
    if (effect.type === 'claim' && answer.type === 'claimed' && answer.answer.status === 'ok') {
      this.#claimed(answer.answer, now)
      if (this.#readiness.claimed(effect.request, answer.answer, now) > 0) this.#note('priority')
    }
  }

  #applied(op: StoreOp, result: StoreResult, askedAt: number, now: number): void {
    if (op.type === 'publish') {
      this.#publishDone(op, result, askedAt, now)
      return
    }
    if (op.type === 'purge' && result.status === 'ok' && result.type === 'purge') this.#purged(op, result.count)
    if (!('seq' in op) || result.status !== 'ok') return
    const message = this.#messages.get(op.seq)
    if (message === undefined) {
      if (op.type !== 'ack') throw new Violation(`${op.type} of ${op.seq}, which was never stored, was done`)
      return
    }
    this.#entryDone(op, message, result, now)
    this.#readiness.done(op, askedAt)
  }

  #entryDone(op: Exclude<StoreOp, PublishOp>, message: Message, result: StoreResult, now: number): void {
    const { seq } = message
    if ('token' in op && op.token !== message.token) {
      throw new Violation(`${op.type} of ${seq} was done with ${op.token}, which is not its last lease`)
    }
    const owner = this.#leases.get(message.token ?? '')?.holder
    if ('holder' in op && op.holder !== undefined && op.holder !== owner) {
      throw new Violation(`${op.type} of ${seq} was done by ${op.holder}, but ${owner} has it`)
    }
    switch (op.type) {
      case 'ack':
        this.#note(message.state === 'acked' ? 'ack repeated' : message.state === 'leased' ? 'acked' : 'acked late')
        message.state = 'acked'
        return
      case 'nack':
        if (op.failures !== message.failures + 1) {
          throw new Violation(`${seq} failed for the ${message.failures + 1}. time and counts ${op.failures}`)
        }
        message.failures = op.failures
        message.hasCountedFailure = true
        message.state = 'waiting'
        return
      case 'release':
        message.hasCountedFailure = false
        message.state = 'waiting'
        return
      case 'dead':
        this.#deadDone(op, message, now)
        return
      case 'expire':
        if (message.expiresAt === undefined || message.expiresAt > now)
          throw new Violation(`${seq} expired before its ttl`)
        if (message.state !== 'waiting') throw new Violation(`${seq} expired while it was ${message.state}`)
        this.#note('expired')
        message.state = 'dead'
        return
      case 'extend':
        this.#relocked(message, result, now)
        return
      case 'discard':
        if (message.state !== 'dead') throw new Violation(`${seq} was purged while it was ${message.state}`)
        this.#note('purged')
        message.state = 'purged'
        return
      case 'replay':
        this.#replayed(message)
        return
      case 'received': {
        const lease = this.#leases.get(op.token)
        if (lease !== undefined && result.status === 'ok' && result.type === 'received')
          lease.receivedUntil = result.deadline
        return
      }
      default:
    }
  }

  #replayed(message: Message): void {
    if (message.state !== 'dead') throw new Violation(`${message.seq} was replayed while it was ${message.state}`)
    this.#note('replayed')
    message.state = 'waiting'
    message.failures = 0
    message.deliveries = 0
    message.hasCountedFailure = false
    message.expiresAt = undefined
    message.token = undefined
    message.order = this.#lastSeq + ++this.#replays / 1e6
  }

  #purged({ after, topic, max }: Extract<StoreOp, { type: 'purge' }>, count: number): void {
    const meant = [...this.#messages.values()]
      .filter(
        ({ seq, state, sent }) => seq > after && state === 'dead' && (topic === undefined || sent.topic === topic),
      )
      .slice(0, max)
    if (meant.length !== count) throw new Violation(`${count} were purged, of ${meant.length}`)
    if (count > 0) this.#note('purged all')
    for (const message of meant) message.state = 'purged'
  }

  #deadDone(op: Extract<StoreOp, { type: 'dead' }>, message: Message, now: number): void {
    const { seq, failures, deliveries, expiresAt } = message
    this.#note(`dead ${op.reason}`)
    if (op.reason === 'max-attempts') {
      const isWornOut = op.failures === undefined && deliveries >= DELIVERIES_MAX
      const hasFailed = op.failures === failures + 1 && op.failures >= this.#reliable.maxAttempts
      if (!isWornOut && !hasFailed) throw new Violation(`${seq} was given up after ${failures} failures`)
    }
    if (op.reason === 'expired' && (expiresAt === undefined || expiresAt > now)) {
      throw new Violation(`${seq} is given up as expired before its ttl`)
    }
    message.state = 'dead'
  }

  #relocked(message: Message, result: StoreResult, now: number): void {
    if (result.status !== 'ok' || result.type !== 'extend') return
    if (message.state === 'acked' || message.state === 'dead')
      throw new Violation(`${message.seq} was extended after it ended`)
    const lease = this.#leases.get(message.token ?? '')
    if (lease !== undefined) {
      if (result.relocked) lease.since = now
      const { leaseMs, maxLeaseMs } = this.#reliable
      if (result.deadline > Math.max(lease.since + maxLeaseMs, lease.receivedUntil))
        throw new Violation(`${message.seq} is leased for too long`)
      if (result.deadline < now + leaseMs - 1_000) this.#note('extended to the last')
    }
    if (!result.relocked) {
      this.#note('extended')
      return
    }
    this.#note('extended late')
    if (message.hasCountedFailure) message.failures--
    message.hasCountedFailure = false
    message.state = 'leased'
    this.#checkKey(message)
  }

  #publishDone(op: PublishOp, result: StoreResult, askedAt: number, now: number): void {
    const name = nameOf(op.sender, op.id ?? '')
    const sent = this.#sent.get(name)
    if (sent === undefined) throw new Violation(`${name} was stored, but never sent`)
    const { topic, key, priority, payload, delayMs, ttlMs } = sent
    if (op.topic !== topic || op.key !== key || op.priority !== priority || !op.body.includes(`>${payload}<`)) {
      throw new Violation(`${name} was stored as something else: ${JSON.stringify({ ...op, sent })}`)
    }
    if (delayMs > 0 !== (op.delayUntil !== undefined) || (ttlMs !== undefined) !== (op.expiresAt !== undefined)) {
      throw new Violation(`${name} was stored without its times`)
    }
    if (result.status === 'conflict') throw new Violation(`${name} is a conflict with itself`)
    if (result.status === 'full') this.#full()
    const known = this.#byId.get(name)
    if (result.status === 'duplicate') {
      this.#note('duplicate')
      if (known?.seq !== result.seq)
        throw new Violation(`${name} is a duplicate of ${result.seq}, not of ${known?.seq}`)
    }
    if (result.status !== 'ok' || result.type !== 'publish') return
    if (known !== undefined) this.#storedAgain(name, known, result.seq, askedAt)
    this.#checkRoom(result.dropped.map(({ seq }) => seq))
    if (result.seq <= this.#lastSeq) throw new Violation(`seq ${result.seq} came after ${this.#lastSeq}`)
    this.#lastSeq = result.seq
    const message: Message = {
      seq: result.seq,
      sent,
      expiresAt: op.expiresAt,
      storedAt: askedAt,
      order: result.seq,
      state: 'waiting',
      token: undefined,
      failures: 0,
      deliveries: 0,
      hasCountedFailure: false,
    }
    this.#messages.set(result.seq, message)
    this.#byId.set(name, message)
    this.#readiness.stored(result.seq, op, result.leasedAt !== undefined, now)
    if (result.leasedAt !== undefined) this.#publishLeased(op, message, now)
    this.#everStored.add(`${name} ${result.seq}`)
    if (this.#everStored.has(name)) return
    this.#everStored.add(name)
    this.#onStored(sent)
  }

  #publishLeased(op: PublishOp, message: Message, now: number): void {
    const { grant } = op
    if (grant === undefined) throw new Violation(`${message.seq} was leased with its publish, to nobody`)
    this.#note('leased with its publish')
    this.#leased(message, { ...grant, deliveries: 1 }, now)
  }

  /** An id may be used anew when its window is over and its message gone. */
  #storedAgain(name: string, known: Message, seq: number, askedAt: number): void {
    const isGone = known.state === 'acked' || known.state === 'purged'
    if (!isGone || askedAt < known.storedAt + this.#reliable.dedupeMs) {
      throw new Violation(`${name} was stored twice: as ${known.seq} and as ${seq}`)
    }
    this.#note('id forgotten')
    // What became of the first one is known; its confirm may still be on its way.
    this.#forgotten.add(known)
    if (this.#confirmed.get(name) === known.seq) this.#confirmed.delete(name)
  }

  get #length(): number {
    let length = 0
    for (const { state } of this.#messages.values()) if (state === 'waiting' || state === 'leased') length++
    return length
  }

  #full(): void {
    this.#note('full')
    if (this.#length < this.#reliable.lengthMax)
      throw new Violation(`a publish was refused at ${this.#length} messages`)
  }

  /** A publish finds room, or what gives way to it is the oldest that waits. */
  #checkRoom(dropped: readonly number[]): void {
    const { lengthMax, whenFull } = this.#reliable
    if (this.#messages.size < lengthMax) return
    for (const seq of dropped) {
      const message = this.#messages.get(seq)
      if (message?.state !== 'waiting') throw new Violation(`${seq} gave way while it was ${message?.state}`)
      if (whenFull === 'refuse' || this.#length < lengthMax) throw new Violation(`${seq} gave way for nothing`)
      for (const other of this.#messages.values()) {
        if (other.seq < seq && isFresh(other)) throw new Violation(`${seq} gave way before ${other.seq}`)
      }
      this.#note('dead overflow')
      message.state = 'dead'
      this.#readiness.ended(seq)
    }
    if (this.#length >= lengthMax) throw new Violation(`stored beside ${this.#length} of ${lengthMax}`)
  }

  #claimed(answer: Extract<ClaimAnswer, { status: 'ok' }>, now: number): void {
    const { messages, expired, more } = answer
    if (messages.length === 0 && expired.length === 0 && !more) {
      this.#note('claim in vain')
      this.#emptyClaims.push(now)
      while ((this.#emptyClaims[0] ?? now) < now - 1000) this.#emptyClaims.shift()
      if (this.#emptyClaims.length > EMPTY_CLAIMS_MAX) throw new Violation('a storm of claims that find nothing')
    }
    for (const claimed of messages) {
      const message = this.#messages.get(claimed.seq)
      if (message === undefined) throw new Violation(`${claimed.seq} was leased, but never stored`)
      this.#leased(message, claimed, now)
    }
  }

  #leased(
    message: Message,
    { token, holder, deliveries }: { readonly token: string; readonly holder: string; readonly deliveries: number },
    now: number,
  ): void {
    const { seq } = message
    if (message.state !== 'waiting') throw new Violation(`${seq} was leased while it was ${message.state}`)
    if (message.failures >= this.#reliable.maxAttempts) throw new Violation(`${seq} was leased after its last attempt`)
    message.state = 'leased'
    message.token = token
    message.deliveries++
    message.hasCountedFailure = false
    if (message.deliveries > 1) this.#note('redelivered')
    if (message.deliveries !== deliveries) throw new Violation(`${seq} counts ${deliveries} deliveries`)
    if (deliveries > DELIVERIES_MAX + this.#life) throw new Violation(`${seq} was leased ${deliveries} times`)
    this.#checkKey(message)
    this.#leases.set(token, {
      token,
      message,
      holder,
      attempt: deliveries,
      life: this.#life,
      since: now,
      receivedUntil: 0,
      takers: new Set(),
      madeAt: now,
      isCalm: this.isCalm,
      isAnswered: false,
      jid: undefined,
      receivedAt: undefined,
      extendedAt: undefined,
      overAskedAt: undefined,
      wasRefused: false,
      wasSettled: false,
    })
  }

  /** Of one topic and key nothing else is in flight, and what came before is done. */
  #checkKey({ seq, sent, order }: Message): void {
    if (sent.key === undefined) return
    this.#note('key')
    for (const other of this.#messages.values()) {
      if (other.sent.key !== sent.key || other.sent.topic !== sent.topic || other.seq === seq) continue
      if (other.state === 'leased') throw new Violation(`${seq} was leased beside ${other.seq} of the same key`)
      if (other.order < order && other.state === 'waiting') throw new Violation(`${seq} was leased before ${other.seq}`)
    }
  }

  // ---- what arrives at the core ----

  /** Something is about to be handled by the core. */
  arrive(input: Input, now: number): void {
    this.#dueAcks.clear()
    this.#touched = []
    this.#refusedBy = undefined
    switch (input.type) {
      case 'stanza':
        this.#stanza(input.stanza, now)
        return
      case 'applied': {
        const ops = this.#calls.get(input.call) ?? []
        this.#calls.delete(input.call)
        for (const [at, op] of ops.entries()) this.#told(op, input.results[at] as StoreResult)
        return
      }
      case 'claimed':
        if (input.answer.status !== 'ok') return
        for (const { token } of input.answer.messages) (this.#leases.get(token) as Lease).isAnswered = true
        return
      case 'due': {
        const askedAt = this.#dues.get(input.call) ?? now
        this.#dues.delete(input.call)
        if (input.answer.status !== 'ok') return
        for (const { what, entry } of input.answer.items) {
          const lease = what === 'lease' ? this.#leases.get(entry.token ?? '') : undefined
          if (lease !== undefined) lease.overAskedAt = askedAt
        }
        return
      }
      case 'browsed':
        this.#lookups.delete(input.call)
        return
      case 'link-down':
        // Answers over it are lost; one that comes late over the next stream is none, though settles that ride on it count.
        this.#delivers.clear()
        return
      default:
    }
  }

  #told(op: StoreOp, result: StoreResult): void {
    this.#orders.told(op, result)
    if (op.type === 'publish') {
      if (result.status === 'duplicate' || (result.status === 'ok' && result.type === 'publish')) {
        this.#stored.add(`${nameOf(op.sender, op.id ?? '')} ${result.seq}`)
      }
      const isLeased = result.status === 'ok' && result.type === 'publish' && result.leasedAt !== undefined
      if (isLeased) (this.#leases.get(op.grant?.token ?? '') as Lease).isAnswered = true
      return
    }
    if (!('token' in op)) return
    if (result.status === 'ok') this.#done.add(`${op.type} ${op.token}`)
    else if (op.type === 'extend' && result.status !== 'unavailable') this.#letGo(op.token)
  }

  #stanza(stanza: XmlElement, now: number): void {
    const from = stanza.attrs.get('from') ?? ''
    const id = stanza.attrs.get('id') ?? ''
    const type = stanza.attrs.get('type')
    if (stanza.name === 'presence') {
      if (type === 'unavailable') this.#doubted.add(from)
      return
    }
    if (type === 'result' || type === 'error') {
      const asked = this.#pings.get(id)
      if (asked?.jid === from) {
        this.#pings.delete(id)
        // What is being looked up may be of the time before.
        if (type === 'result' && this.#lookups.size === 0) this.#doubted.delete(from)
      }
      if (type === 'error') this.#doubted.add(from)
      this.#receipt(from, id, type === 'error', now)
    }
    for (const child of childElements(stanza)) {
      if (child.name === 'settle') this.#settle(from, id, child, type === 'result', now)
      if (child.name === 'publish') {
        this.#publishes.set(
          `${from} ${id}`,
          childElements(child).map((item) => item.attrs.get('id') ?? ''),
        )
      }
      if (child.name === 'renew') this.#credit(from, child, now)
      if (child.name === 'dead-letters') this.#orders.arrived(from, id, child)
      if (child.name === 'xmq') this.#command(from, child, now)
    }
  }

  #receipt(from: string, id: string, isRefusal: boolean, now: number): void {
    const handed = this.#delivers.get(id)
    if (handed === undefined || handed.jid !== from) return
    this.#delivers.delete(id)
    for (const token of handed.tokens) {
      const lease = this.#leases.get(token) as Lease
      this.#touched.push(lease)
      if (isRefusal) lease.wasRefused = true
      else lease.receivedAt = now
    }
    if (isRefusal) this.#refusedBy = from
    this.#note(isRefusal ? 'refused' : 'received')
  }

  #command(from: string, xmq: XmlElement, now: number): void {
    const topic = xmq.attrs.get('topic') ?? ''
    if (xmq.attrs.get('command') === 'del') this.#consumers.get(from)?.filters.delete(topic)
    if (xmq.attrs.get('command') !== 'sub') return
    const consume = childElements(xmq).find((child) => child.name === 'consume')
    if (consume === undefined) return
    const { filters, everWanted } = this.#consumer(from)
    filters.add(topic)
    everWanted.add(topic)
    this.#credit(from, consume, now)
  }

  #credit(from: string, terms: XmlElement, now: number): void {
    const { credits } = this.#consumer(from)
    const last = credits.at(-1)
    if (last !== undefined) last.until = now
    credits.push({ credit: Number(terms.attrs.get('credit')), until: Number.POSITIVE_INFINITY })
  }

  #consumer(jid: string): Consumer {
    let consumer = this.#consumers.get(jid)
    if (consumer === undefined) {
      consumer = { credits: [], out: new Set(), filters: new Set(), everWanted: new Set() }
      this.#consumers.set(jid, consumer)
    }
    return consumer
  }

  #settle(from: string, id: string, settle: XmlElement, isReceipt: boolean, now: number): void {
    const settlements = childElements(settle)
      .filter(({ name }) => SETTLEMENTS.has(name))
      .map((child) => {
        const lease = child.attrs.get('lease') ?? ''
        return { kind: child.name, lease, token: lease.split('.')[0] as string, delay: child.attrs.get('delay') }
      })
    const holder = bareOf(from)
    const hasNack = settlements.some(({ kind }) => kind === 'nack')
    if (settle.attrs.get('complete') === 'true') this.#complete.add(from)
    for (const { kind, token, delay } of settlements) {
      if (kind === 'nack') this.#readiness.nacked(holder, token, delay)
      this.#named.add(token)
      this.#said.add(`${holder} ${kind} ${token}`)
      const lease = this.#leases.get(token)
      if (lease !== undefined && lease.holder !== holder) this.#note('settled by a stranger')
      if (lease === undefined) this.#note('settled out of nothing')
      if (kind === 'ack' && !hasNack) this.#dueAcks.set(token, holder)
      if (lease === undefined || lease.holder !== holder) continue
      if (kind !== 'extend') {
        lease.wasSettled = true
        continue
      }
      lease.wasSettled = false
      lease.extendedAt = now
      lease.takers.add(from)
      if (lease.jid !== from) {
        this.#letGo(token)
        this.#note('taken over')
      }
    }
    if (!isReceipt) this.#settlings.set(`${from} ${id}`, { jid: from, settlements })
    else this.#note('settled with the receipt')
  }

  // ---- what leaves the core ----

  /** The core has handled it. */
  leave(effects: readonly Effect[], now: number): void {
    for (const effect of effects) {
      if (effect.type === 'apply') {
        this.#calls.set(effect.call, effect.ops)
        for (const op of effect.ops) this.#checkOp(op, now)
      } else if (effect.type === 'claim') {
        for (const { token } of effect.request.grants) this.#grants.set(token, now)
      } else if (effect.type === 'browse') this.#lookups.add(effect.call)
      else if (effect.type === 'due') this.#dues.set(effect.call, now)
      else if (effect.type === 'send') this.#checkStanza(effect.stanza, now)
      else if (effect.type === 'event' && effect.event.name === 'ignored') {
        // A receipt over a stream that broke, or after its lease was over, says nothing: nobody waits for it any more.
        this.#note('ignored')
        this.#dueAcks.clear()
        this.#refusedBy = undefined
        for (const lease of this.#touched) {
          lease.receivedAt = undefined
          lease.wasRefused = false
        }
      }
    }
    // Whoever refuses has to subscribe anew.
    if (this.#refusedBy !== undefined) this.#consumers.get(this.#refusedBy)?.filters.clear()
    for (const [token, holder] of this.#dueAcks) throw new Violation(`the ack of ${token} by ${holder} came to nothing`)
  }

  /** An operation that ends or extends a lease needs a cause. */
  #checkOp(op: StoreOp, now: number): void {
    this.#orders.asked(op)
    if (!('token' in op) || op.type === 'received') return
    const { token, holder, type } = op
    if (type === 'nack') this.#readiness.checkNack(op, now)
    if (type === 'extend') {
      if (!this.#said.has(`${holder} extend ${token}`)) throw new Violation(`nobody extended ${token}`)
      return
    }
    if (type === 'ack') this.#dueAcks.delete(token)
    if (holder === undefined || holder === this.#leases.get(token)?.holder) this.#letGo(token)
    if (holder !== undefined) {
      const causes =
        type === 'dead'
          ? op.reason === 'rejected' || op.reason === 'invalid'
            ? ['reject']
            : ['nack', 'release']
          : [type]
      if (causes.some((kind) => this.#said.has(`${holder} ${kind} ${token}`))) return
      if (type === 'ack' || type === 'nack') throw new Violation(`${holder} did not ${type} ${token}`)
    }
    const lease = this.#leases.get(token)
    if (lease === undefined) throw new Violation(`${type} of ${token}, which was never made`)
    if (type === 'ack') throw new Violation(`${token} is acked by nobody`)
    this.#checkCause(lease, op, now)
  }

  #checkCause(lease: Lease, op: Extract<StoreOp, { type: 'nack' | 'release' | 'dead' }>, now: number): void {
    const { token, jid, receivedAt, extendedAt, overAskedAt, life } = lease
    const isFailure = op.type === 'nack' || (op.type === 'dead' && op.failures !== undefined)
    const touchedAt = Math.max(receivedAt ?? 0, extendedAt ?? 0)
    if (overAskedAt !== undefined) {
      const mayExtend = now - lease.madeAt < this.#reliable.maxLeaseMs - 2_000
      if (this.isCalm && lease.isCalm && mayExtend && jid?.includes('/xmq-') === true && touchedAt > 0)
        throw new Violation(`${token} of ${jid} ended as over, though nothing is in the way of extending it`)
      if (touchedAt > overAskedAt && life === this.#life && !lease.wasSettled && !this.#hasEnded(lease, now)) {
        throw new Violation(`${token} ended as over, but it was touched after that was asked`)
      }
      if (isFailure && touchedAt === 0) throw new Violation(`${token} was never received, and counts as a failure`)
      this.#note(isFailure ? 'lease over' : life === this.#life ? 'lease over unreceived' : 'lease found')
      return
    }
    if (life === this.#life && jid === undefined && !isFailure) {
      this.#note('released unsent')
      return
    }
    if (life !== this.#life && !isFailure && !this.#named.has(token) && this.#hasDisowned(lease)) {
      this.#note('released as not held')
      return
    }
    if (lease.wasRefused && !isFailure) {
      this.#note('released as refused')
      return
    }
    if (this.#hasEnded(lease, now)) {
      if (isFailure && touchedAt === 0) throw new Violation(`${token} was never received, and counts as a failure`)
      if (!isFailure && touchedAt > 0 && op.type === 'release')
        throw new Violation(`${token} was received, and counts as no failure`)
      this.#note(isFailure ? 'session end, failed' : 'session end, released')
      return
    }
    throw new Violation(`${op.type} of ${token} has no cause`)
  }

  /** Whether the session that a lease went to has named all that it holds; where it went to none, any of its holder's. */
  #hasDisowned({ jid, holder }: Lease): boolean {
    if (jid !== undefined) return this.#complete.has(jid)
    for (const one of this.#complete) if (bareOf(one) === holder) return true
    return false
  }

  /** Whether a sign came that the session of a lease, or one that took it over, has ended. */
  #hasEnded({ jid, takers }: Lease, now: number): boolean {
    for (const one of [...this.#doubted, ...this.#silent(now)]) if (one === jid || takers.has(one)) return true
    return false
  }

  *#silent(now: number): Generator<string> {
    for (const { jid, at } of this.#pings.values()) if (now - at >= this.#rules.pingTimeoutMs) yield jid
  }

  #checkStanza(stanza: XmlElement, now: number): void {
    const to = stanza.attrs.get('to') ?? ''
    const id = stanza.attrs.get('id') ?? ''
    if (stanza.attrs.get('type') === 'error') this.#note(`error ${conditionOf(stanza)}`)
    if (stanza.name === 'iq' && isPing(stanza)) this.#pings.set(id, { jid: to, at: now })
    for (const child of childElements(stanza)) {
      if (child.name === 'published') this.#checkConfirm(to, id, child)
      if (child.name === 'deliver') this.#checkDeliver(to, id, child)
      if (child.name === 'settled') this.#checkSettled(to, id, child)
      if (child.name === 'resubscribe') this.#note('resubscribe')
      if (child.name === 'dead-letters' && child.attrs.has('done') && this.#orders.answered(to, id, child) > 0)
        this.#note('ordered')
    }
  }

  #checkConfirm(to: string, id: string, published: XmlElement): void {
    const asked = this.#publishes.get(`${to} ${id}`)
    const items = childElements(published)
    if (asked?.join(' ') !== items.map((item) => item.attrs.get('id')).join(' '))
      throw new Violation(`${id} confirms others`)
    if (published.attrs.get('durability') !== this.#rules.durability)
      throw new Violation('a confirm of another durability')
    for (const item of items) {
      const seq = item.attrs.get('seq')
      if (seq === undefined) {
        this.#note('item refused')
        continue
      }
      const name = nameOf(bareOf(to), item.attrs.get('id') ?? '')
      if (!this.#stored.has(`${name} ${seq}`))
        throw new Violation(`${name} is confirmed as ${seq} before the store said so`)
      const stored = this.#messages.get(Number(seq))
      if (stored !== undefined && this.#forgotten.has(stored)) continue
      const earlier = this.#confirmed.get(name)
      if (earlier !== undefined && earlier !== Number(seq))
        throw new Violation(`${name} is confirmed as ${earlier} and ${seq}`)
      this.#note(earlier === undefined ? 'confirmed' : 'confirmed again')
      this.#confirmed.set(name, Number(seq))
    }
  }

  #checkDeliver(to: string, id: string, deliver: XmlElement): void {
    if (Number(deliver.attrs.get('lease-seconds')) * 1000 !== this.#reliable.leaseMs)
      throw new Violation('lease-seconds')
    const tokens: string[] = []
    for (const item of childElements(deliver)) {
      const token = (item.attrs.get('lease') ?? '').split('.')[0] as string
      this.#checkItem(to, token, item)
      tokens.push(token)
    }
    this.#delivers.set(id, { jid: to, tokens })
  }

  #checkItem(to: string, token: string, item: XmlElement): void {
    const lease = this.#leases.get(token)
    if (lease === undefined || !lease.isAnswered || lease.life !== this.#life) {
      throw new Violation(`${token} is delivered, but the store has not said that it is leased`)
    }
    const { message, holder, attempt } = lease
    const { sent, seq } = message
    if (holder !== bareOf(to)) throw new Violation(`${token} of ${holder} is delivered to ${to}`)
    if (lease.jid !== undefined) throw new Violation(`${token} is delivered twice`)
    lease.jid = to
    const says = { seq: item.attrs.get('seq'), id: item.attrs.get('id'), topic: item.attrs.get('topic') }
    if (says.seq !== String(seq) || says.id !== sent.id || says.topic !== sent.topic) {
      throw new Violation(`${seq} is delivered as ${JSON.stringify(says)}`)
    }
    if (item.attrs.get('attempt') !== String(attempt)) throw new Violation(`${seq} has a wrong attempt`)
    if (!writeElement(item).includes(`>${sent.payload}<`))
      throw new Violation(`${seq} is delivered with another payload`)
    const consumer = this.#consumers.get(to)
    if (consumer === undefined || ![...consumer.everWanted].some((filter) => matchesPattern(filter, sent.topic))) {
      throw new Violation(`${to} never subscribed to ${sent.topic}`)
    }
    if (consumer.filters.size === 0) throw new Violation(`${to} is given ${seq} after its last subscription`)
    consumer.out.add(token)
    const askedAt = this.#grants.get(token) ?? 0
    const credit = Math.max(...consumer.credits.filter(({ until }) => until >= askedAt).map((one) => one.credit))
    if (consumer.out.size > credit) throw new Violation(`${to} has ${consumer.out.size} of ${credit}`)
    if (consumer.out.size === credit) this.#note('credit used up')
    this.#note('delivered')
  }

  #checkSettled(to: string, id: string, settled: XmlElement): void {
    const asked = this.#settlings.get(`${to} ${id}`)
    if (asked === undefined) throw new Violation(`${id} settles what nobody asked for`)
    const failed = new Set(childElements(settled).map((item) => item.attrs.get('lease')))
    for (const { kind, lease, token } of asked.settlements) {
      if (failed.has(lease)) {
        this.#note(`${kind} failed`)
        continue
      }
      const holder = this.#leases.get(token)?.holder
      // A broker that kept nothing does not know what it leased before.
      if (holder !== bareOf(to)) throw new Violation(`${to} settled ${token} of ${holder}`)
      const ways = kind === 'reject' ? ['dead'] : kind === 'nack' || kind === 'release' ? [kind, 'dead'] : [kind]
      if (!ways.some((way) => this.#done.has(`${way} ${token}`))) {
        throw new Violation(`${kind} of ${token} is answered before the store said so`)
      }
      this.#note(`${kind} settled`)
    }
  }

  // ---- the end ----

  /** The faults have stopped, and all had its time. @param dead seqs of the store's dead letters @param held of all else there */
  checkEnd(dead: ReadonlySet<number>, held: ReadonlySet<number>): void {
    for (const [name, seq] of this.#confirmed) {
      const state = this.#messages.get(seq)?.state
      if (state === 'acked' || state === 'purged' || (state === 'dead' && dead.has(seq))) continue
      const where = held.has(seq) ? 'is still in the store' : dead.has(seq) ? 'is a dead letter' : 'is lost'
      throw new Violation(`${name}, confirmed as ${seq}, ${where} (${state ?? 'unknown'})`)
    }
    if (held.size > 0) throw new Violation(`${[...held].join(', ')} never settled`)
  }

  get #reliable(): CoreRules['queues'][number]['reliable'] {
    return (this.#rules.queues.find(({ address }) => address === this.#queue) as CoreRules['queues'][number]).reliable
  }

  #letGo(token: string): void {
    for (const { out } of this.#consumers.values()) out.delete(token)
  }

  #note(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1)
  }
}

/** Whether a message waits since it was stored, and could be claimed. */
function isFresh({ state, deliveries, sent, order, seq }: Message): boolean {
  return state === 'waiting' && deliveries === 0 && sent.delayMs === 0 && order === seq
}

function nameOf(sender: string, id: string): string {
  return `${sender}#${id}`
}

function conditionOf(stanza: XmlElement): string {
  const error = childElements(stanza).find(({ name }) => name === 'error')
  return error === undefined ? '' : (childElements(error)[0]?.name ?? '')
}
