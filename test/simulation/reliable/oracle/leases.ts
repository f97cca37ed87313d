/**
 * The leases that were made, over all lives of the broker, and what may end each.
 *
 *     made by the store --> the core is told --> delivered --> received, refused
 *           \-- extended by any session of its holder: for a while, and no longer
 *           \-- ended by the core: for a cause that has arrived
 *
 * 1. What is delivered was leased, by the store's word, for whom it goes to; and it goes out once.
 * 2. A lease that the core ends or extends has a cause: its holder's word, its time, the end of its session, a refusal.
 * 3. No lease lasts longer than it may.
 * 4. What a session had received before the stream broke is not given away for its end before its worker could come back, nor after it has.
 *    While nobody can be heard it does not end by its time either.
 * 5. What its holder acked last the core gives to nobody else while it lives, however long the store does not answer.
 */
import { bareOf, type XmlElement, writeElement } from '@xmq/protocol'
import type { DueAnswer, StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import { checkEnvelope } from '../../whole.ts'
import { itemIdOf } from '../items.ts'
import type { Entry, Knowledge, Made } from './entry.ts'
import type { PlainConsumers } from './plain-consumers.ts'
import type { Settlement, Settlings } from './settlings.ts'
import type { Signs } from './signs.ts'

/** One lease. */
export interface Lease {
  readonly token: string
  readonly entry: Entry
  /** Bare JID. */
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
  /** Full JID that it went to, and when a deliver stanza with it left. */
  jid: string | undefined
  sentAt: number
  receivedAt: number | undefined
  extendedAt: number | undefined
  /** Since when the core may take it for over: when it asked for what is due, and heard that this one is. */
  overAskedAt: number | undefined
  wasRefused: boolean
  /** Its holder said what ends it: the core has let go of it, whatever the store answers. */
  wasSettled: boolean
  /** Once it did: who extends it afterwards, while the store does not answer, says so of a lease that the core knows nothing of. */
  wasLetGo: boolean
  /** An ack is the last that this life of the broker has heard of it. */
  isAcked: boolean
}

/** What is known of the present life of the broker. */
export interface LifeView {
  readonly number: number
  readonly isCalm: boolean
  readonly settlings: Settlings
  readonly signs: Signs
  readonly plain: PlainConsumers
}

type LeaseOp = Extract<StoreOp, { readonly token: string }>
type EndOp = Extract<LeaseOp, { readonly type: 'nack' | 'release' | 'dead' }>

/** See the top of this file. */
export class Leases {
  readonly #knowledge: Knowledge
  readonly #byToken = new Map<string, Lease>()
  /** Deliveries that nobody has answered. */
  readonly #delivers = new Map<string, { readonly jid: string; readonly tokens: readonly string[] }>()
  /** Those whose receipt is being handled. */
  #touched: Lease[] = []
  /** Those of which the core has just heard. */
  #answeredNow: Lease[] = []
  /** Those whose ack is being handled: what was due came first. */
  #acking: Lease[] = []

  constructor(knowledge: Knowledge) {
    this.#knowledge = knowledge
  }

  find(token: string): Lease | undefined {
    return this.#byToken.get(token)
  }

  /** The broker was killed. @param keeps whether the store survived it */
  crash(keeps: boolean): void {
    this.#delivers.clear()
    this.#acking = []
    for (const lease of this.#byToken.values()) lease.isAcked = false
    if (!keeps) this.#byToken.clear()
  }

  /** Something else is about to be handled by the core. */
  begin(): void {
    this.#touched = []
    this.#answeredNow = []
    for (const lease of this.#acking) lease.isAcked = true
    this.#acking = []
  }

  /** The store has made one. @param askedAt how long it may be extended counts from here */
  made(
    entry: Entry,
    { token, holder, deliveries }: Made,
    { number, isCalm }: LifeView,
    now: number,
    askedAt: number,
  ): void {
    this.#byToken.set(token, {
      token,
      entry,
      holder,
      attempt: deliveries,
      life: number,
      since: now,
      receivedUntil: 0,
      takers: new Set(),
      madeAt: askedAt,
      isCalm,
      isAnswered: false,
      jid: undefined,
      sentAt: Number.POSITIVE_INFINITY,
      receivedAt: undefined,
      extendedAt: undefined,
      overAskedAt: undefined,
      wasRefused: false,
      wasSettled: false,
      wasLetGo: false,
      isAcked: false,
    })
  }

  /** The store has done something with one. */
  done(op: StoreOp, result: StoreResult, now: number): void {
    if (!('token' in op) || result.status !== 'ok') return
    const lease = this.#byToken.get(op.token)
    if (lease === undefined) return
    if (result.type === 'received') lease.receivedUntil = result.deadline
    if (result.type !== 'extend') return
    if (result.relocked) {
      lease.since = now
      lease.overAskedAt = undefined
    }
    const { leaseMs, maxLeaseMs } = this.#knowledge.reliable
    if (result.deadline > Math.max(lease.since + maxLeaseMs, lease.receivedUntil))
      throw new Violation(`${lease.entry.seq} is leased for too long`)
    if (result.deadline < now + leaseMs - 1_000) this.#knowledge.note('extended to the last')
  }

  // ---- what the core hears ----

  /** The core is told that it has one. */
  answered(token: string): void {
    const lease = this.#byToken.get(token) as Lease
    lease.isAnswered = true
    this.#answeredNow.push(lease)
  }

  /** A leased message has left for a plain consumer, by its content. */
  handedPlainly(to: string, payload: string): Lease {
    const lease = this.#answeredNow.find(
      (one) => one.jid === undefined && one.holder === bareOf(to) && one.entry.sent.payload === payload,
    )
    if (lease === undefined) throw new Violation(`${payload} is given to ${to}, and not leased for it`)
    lease.jid = to
    return lease
  }

  /** The core is told what is over. @param askedAt when it asked */
  due(answer: DueAnswer, askedAt: number): void {
    if (answer.status !== 'ok') return
    for (const { what, entry } of answer.items) {
      const lease = what === 'lease' ? this.#byToken.get(entry.token ?? '') : undefined
      if (lease !== undefined) lease.overAskedAt = askedAt
    }
  }

  /** Answers over the stream are lost; one that comes late over the next is none, though settles that ride on it count. */
  linkDown(): void {
    this.#delivers.clear()
  }

  /** An answer arrives. @returns whether it refuses a delivery */
  receipt(from: string, id: string, isRefusal: boolean, now: number): boolean {
    const handed = this.#delivers.get(id)
    if (handed === undefined || handed.jid !== from) return false
    this.#delivers.delete(id)
    for (const token of handed.tokens) {
      const lease = this.#byToken.get(token) as Lease
      this.#touched.push(lease)
      if (isRefusal) lease.wasRefused = true
      else lease.receivedAt = now
    }
    this.#knowledge.note(isRefusal ? 'refused' : 'received')
    // Of what was forgotten meanwhile nothing is left that could be refused, nor perhaps the subscriptions that it came for.
    return isRefusal && handed.tokens.some((token) => this.#byToken.get(token)?.entry.isOver() === false)
  }

  /** The core took an answer for one that nobody waits for: it says nothing. */
  ignored(): void {
    for (const lease of this.#touched) {
      lease.receivedAt = undefined
      lease.wasRefused = false
    }
    this.#acking = []
  }

  /**
   * Its holder, or somebody else, says something of a lease.
   * @param isAlone no nack came with it, whose past may have to be looked up first
   * @returns whether it goes over to another session
   */
  settled(from: string, { kind, token }: Settlement, isAlone: boolean, now: number): boolean {
    const lease = this.#byToken.get(token)
    if (lease === undefined) this.#knowledge.note('settled out of nothing')
    else if (lease.holder !== bareOf(from)) this.#knowledge.note('settled by a stranger')
    if (lease === undefined || lease.holder !== bareOf(from)) return false
    lease.wasSettled = kind !== 'extend'
    lease.wasLetGo ||= lease.wasSettled
    lease.isAcked = false
    this.#acking = this.#acking.filter((one) => one !== lease)
    if (kind === 'ack' && isAlone) this.#acking.push(lease)
    if (lease.wasSettled) return false
    lease.extendedAt = now
    lease.takers.add(from)
    if (lease.jid === from) return false
    this.#knowledge.note('taken over')
    return true
  }

  /** Of some that a JID was given: those that an earlier session of it had, which ended with the stream. */
  *absent(tokens: Iterable<string>, jid: string, signs: Signs, now: number): Iterable<string> {
    for (const token of tokens) {
      const lease = this.#byToken.get(token)
      if (lease !== undefined && signs.wasAbsent(jid, lease.sentAt, now)) yield token
    }
  }

  // ---- what leaves the core ----

  /** A message is on its way to a consumer. */
  delivered(to: string, token: string, item: XmlElement, life: number): Lease {
    const lease = this.#byToken.get(token)
    if (lease === undefined || !lease.isAnswered || lease.life !== life)
      throw new Violation(`${token} is delivered, but the store has not said that it is leased`)
    const { entry, holder, attempt } = lease
    const { sent, seq } = entry
    if (holder !== bareOf(to)) throw new Violation(`${token} of ${holder} is delivered to ${to}`)
    if (lease.jid !== undefined) throw new Violation(`${token} is delivered twice`)
    lease.jid = to
    const says = { seq: item.attrs.get('seq'), id: item.attrs.get('id'), topic: item.attrs.get('topic') }
    if (says.seq !== String(seq) || says.id !== itemIdOf(sent) || says.topic !== sent.topic)
      throw new Violation(`${seq} is delivered as ${JSON.stringify(says)}`)
    if (item.attrs.get('attempt') !== String(attempt)) throw new Violation(`${seq} has a wrong attempt`)
    if (!writeElement(item).includes(`>${sent.payload}<`))
      throw new Violation(`${seq} is delivered with another payload`)
    if (sent.original !== undefined) checkEnvelope(sent.original, item)
    this.#knowledge.note('delivered')
    return lease
  }

  /** A stanza with deliveries has left. */
  handedOver(id: string, jid: string, tokens: readonly string[], now: number): void {
    for (const token of tokens) (this.#byToken.get(token) as Lease).sentAt = now
    this.#delivers.set(id, { jid, tokens })
  }

  /** An operation that ends or extends a lease needs a cause. @returns whether the core lets go of it */
  check(op: LeaseOp, life: LifeView, now: number): boolean {
    const { token, holder, type } = op
    if (type === 'received') return false
    const { settlings } = life
    if (type === 'extend') {
      if (settlings.hasSaid(holder ?? '', 'extend', token)) return false
      const over = this.#byToken.get(token)
      if (over?.overAskedAt === undefined || !mayBeAbsent(over, life.signs, now))
        throw new Violation(`nobody extended ${token}`)
      over.overAskedAt = undefined
      this.#knowledge.note('lease over unheard')
      return false
    }
    const lease = this.#byToken.get(token)
    const isLetGo = holder === undefined || holder === lease?.holder
    if (holder !== undefined) {
      const causes =
        type === 'dead'
          ? op.reason === 'rejected' || op.reason === 'invalid'
            ? ['reject']
            : ['nack', 'release']
          : [type]
      if (causes.some((kind) => settlings.hasSaid(holder, kind, token))) return isLetGo
      if (type === 'ack' || type === 'nack') throw new Violation(`${holder} did not ${type} ${token}`)
    }
    if (lease === undefined) throw new Violation(`${type} of ${token}, which was never made`)
    if (type === 'ack') return this.#checkPlainAck(lease, life, now)
    if (lease.isAcked) throw new Violation(`${type} of ${token}, though its holder has acked it`)
    this.#knowledge.note(this.#causeOf(lease, op, life, now))
    return isLetGo
  }

  /** The core acks for a plain consumer, and says so again while the store does not answer. */
  #checkPlainAck(lease: Lease, { plain }: LifeView, now: number): boolean {
    if (lease.isAcked) return false
    if (!plain.holds(lease.token)) throw new Violation(`${lease.token} is acked by nobody`)
    plain.checkAck(lease.token, now)
    lease.isAcked = true
    return true
  }

  #causeOf(lease: Lease, op: EndOp, life: LifeView, now: number): string {
    const { token, jid, holder, receivedAt, extendedAt } = lease
    const isFailure = op.type === 'nack' || (op.type === 'dead' && op.failures !== undefined)
    const isOld = lease.life !== life.number
    const touchedAt = Math.max(receivedAt ?? 0, extendedAt ?? 0)
    const neverReceived = (): Violation => new Violation(`${token} was never received, and counts as a failure`)
    if (lease.overAskedAt !== undefined) {
      this.#checkOver(lease, lease.overAskedAt, touchedAt, life, now)
      if (isFailure && touchedAt === 0) throw neverReceived()
      return isFailure ? 'lease over' : isOld ? 'lease found' : 'lease over unreceived'
    }
    if (!isOld && jid === undefined && !isFailure) return 'released unsent'
    const { settlings } = life
    if (isOld && !isFailure && !settlings.isNamed(token) && settlings.hasNamedAll(jid, holder))
      return 'released as not held'
    if (lease.wasRefused && !isFailure) return 'released as refused'
    if (!hasEnded(lease, life.signs, now) && !wasAbsent(lease, life.signs, now))
      throw new Violation(`${op.type} of ${token} has no cause`)
    this.#checkAbsence(lease, life, now)
    if (isFailure && touchedAt === 0) throw neverReceived()
    if (!isFailure && touchedAt > 0 && op.type === 'release')
      throw new Violation(`${token} was received, and counts as no failure`)
    return isFailure ? 'session end, failed' : 'session end, released'
  }

  #checkAbsence(lease: Lease, { number, signs }: LifeView, now: number): void {
    const { token, jid, life: made, takers, sentAt, receivedAt, extendedAt } = lease
    if (made !== number || jid === undefined || receivedAt === undefined) return
    if (takers.size > 0) {
      const hasComeBack = signs.isUnseen(jid) && signs.isSinceBreak(extendedAt ?? 0)
      if (hasComeBack && ![...takers].some((one) => signs.hasEnded(one, now) || signs.wasAbsent(one, sentAt, now)))
        throw new Violation(`${token} of ${jid} is given away though its worker came back`)
      return
    }
    if (signs.isAwaited(jid, sentAt, now))
      throw new Violation(`${token} of ${jid} is given away before its worker could come back`)
    if (signs.wasAbsent(jid, sentAt, now)) this.#knowledge.note('absence over')
  }

  #checkOver(lease: Lease, overAskedAt: number, touchedAt: number, life: LifeView, now: number): void {
    const { token, jid } = lease
    const mayExtend = now - lease.madeAt < this.#knowledge.reliable.maxLeaseMs - 2_000
    if (life.isCalm && lease.isCalm && mayExtend && jid?.includes('/xmq-') === true && touchedAt > 0)
      throw new Violation(`${token} of ${jid} ended as over, though nothing is in the way of extending it`)
    const isHeld = lease.life === life.number && !lease.wasSettled && !hasEnded(lease, life.signs, now)
    const isKnown = isHeld && !lease.wasLetGo
    if (isKnown && mayExtend && touchedAt > 0 && life.signs.isDeaf(now) && !wasAbsent(lease, life.signs, now))
      throw new Violation(`${token} ended as over while its worker could not be heard`)
    if (touchedAt > overAskedAt && isHeld)
      throw new Violation(`${token} ended as over, but it was touched after that was asked`)
  }
}

/** Whether a sign came that the session of a lease, or one that took it over, has ended. */
function hasEnded({ jid, takers }: Lease, signs: Signs, now: number): boolean {
  if (jid !== undefined && signs.hasEnded(jid, now)) return true
  for (const one of takers) if (signs.hasEnded(one, now)) return true
  return false
}

/** Whether such a sign came after the stream broke: who had it then is awaited for a while, and its JID may be in use again. */
function wasAbsent({ jid, takers, sentAt }: Lease, signs: Signs, now: number): boolean {
  if (jid !== undefined && signs.wasAbsent(jid, sentAt, now)) return true
  for (const one of takers) if (signs.wasAbsent(one, sentAt, now)) return true
  return false
}

/** Whether its worker may be there unheard. */
function mayBeAbsent(lease: Lease, signs: Signs, now: number): boolean {
  return signs.isDeaf(now) || wasAbsent(lease, signs, now)
}
