/**
 * What the reliable layer promises, told from the outside: what went into the core, what came out, what the store has done.
 *
 * | the oracle knows | from | in |
 * |---|---|---|
 * | what was sent | the producers | stock.ts |
 * | what is stored, failed, gone, dead | the store, when it has done it | stock.ts, backlog.ts, readiness.ts |
 * | what is leased, and what ended it | the store, what arrived at the core | leases.ts |
 * | what was settled, and which sessions may have ended | what arrived at the core | settlings.ts, signs.ts |
 * | who consumes what, and has how much | what arrived at the core, and left it | consumers.ts |
 * | what was confirmed | what left the core | confirms.ts |
 * | which durable subscriptions are promised, and who listens without one | what arrived at the core, and left it | named.ts, ephemerals.ts |
 * | who consumes plainly, and what proves that something has arrived | what arrived at the core, and left it | plain-consumers.ts, handed to by plain-side.ts |
 * | what becomes of plain publishes, and who is told | what arrived at the core, and left it | plain-messages.ts, by the same |
 * | who asked, and who has each request | what arrived at the core, and left it | requests.ts |
 * | who is called back after a restart | the store, what arrived at the core | callbacks.ts |
 * | what admins ordered, how long failures wait | what arrived at the core | orders.ts, backoffs.ts |
 *
 * Each lease that the core ends needs a cause that arrived before, each confirm an answer of the store. This file hands what
 * happens to the parts; each part owns what it knows, and has its rules at its top.
 */
import { bareOf, childElements, findChild, type XmlElement } from '@xmq/protocol'
import type { CoreEvent, CoreRules, Effect, Input } from '../../../../packages/broker/src/core/port.ts'
import type { ClaimAnswer, ClaimRequest, StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import type { SentItem } from '../items.ts'
import { spokenIn } from '../spoken.ts'
import type { StoreAnswer, StoreEffect } from '../store.ts'
import { Backoffs } from './backoffs.ts'
import { Callbacks } from './callbacks.ts'
import { Confirms, type Left } from './confirms.ts'
import { type Entry, type Knowledge, type Made, type Stored } from './entry.ts'
import { Leases } from './leases.ts'
import { createLife, type Life } from './life.ts'
import { Named } from './named.ts'
import { PlainTruth } from './plain-consumers.ts'
import { Stock } from './stock.ts'

/** So many claims that find nothing in one second are a storm. */
const EMPTY_CLAIMS_MAX = 100

/** See the top of this file. */
export class ReliableOracle {
  readonly seen: Map<string, number> = new Map()
  /** Told by the world of what plain clients really get. */
  readonly truth: PlainTruth = new PlainTruth()
  /** No fault is at work any more. */
  isCalm = false
  readonly #rules: CoreRules
  readonly #knowledge: Knowledge
  readonly #stock: Stock
  readonly #leases: Leases
  readonly #confirms: Confirms
  readonly #backoffs: Backoffs
  readonly #named: Named
  readonly #callbacks: Callbacks
  readonly #requestTimeoutMs: number
  #life: Life
  #lives = 0
  #emptyClaims: number[] = []
  /** Who refuses a delivery with what is being handled. */
  #refusedBy: string | undefined

  /** @param onStored told of each item that is stored for the first time, in whatever life of the broker */
  constructor(rules: CoreRules, queue: string, onStored: (item: SentItem) => void) {
    this.#rules = rules
    const found = rules.queues.find(({ address }) => address === queue) as CoreRules['queues'][number]
    const { reliable, type, requestTimeoutMs } = found
    this.#requestTimeoutMs = requestTimeoutMs
    this.#knowledge = { type, reliable, note: (what) => this.#note(what) }
    this.#stock = new Stock(this.#knowledge, {
      onLeased: (entry, made, now) => this.#leased(entry, made, now),
      onForgotten: (name, stored) => this.#confirms.forget(name, stored),
      onStored,
      onEnded: (line) => this.#named.ended(line),
    })
    this.#named = new Named(this.#knowledge, this.#stock)
    this.#leases = new Leases(this.#knowledge)
    this.#confirms = new Confirms(this.#knowledge, rules.durability, this.#stock)
    this.#backoffs = new Backoffs(reliable)
    this.#callbacks = new Callbacks(rules.durability, this.#knowledge)
    this.#life = this.#begin()
  }

  #begin(): Life {
    return createLife(++this.#lives, {
      knowledge: this.#knowledge,
      rules: this.#rules,
      requestTimeoutMs: this.#requestTimeoutMs,
      truth: this.truth,
      stock: this.#stock,
      leases: this.#leases,
      isCalm: () => this.isCalm,
    })
  }

  /** Whether an item was ever stored under a seq, in whatever life of the broker. */
  wasStored(item: SentItem, seq: number): boolean {
    return this.#stock.wasStored(item, seq)
  }

  /** What the store calls the lines that it has, each with its topic. */
  get lines(): ReadonlyMap<string, string> {
    return this.#stock.lines
  }

  /** Whether somebody waits for a message that no store has. */
  get isWaiting(): boolean {
    return this.#life.ephemerals.isWaiting
  }

  /** Leases that end by no time: ephemeral subscribers have them. */
  get timeless(): number {
    return this.#life.ephemerals.open
  }

  /** A producer is about to send this. */
  send(item: SentItem): void {
    this.#stock.send(item)
  }

  /** The broker was killed. @param keeps whether the store survived it */
  crash(keeps: boolean): void {
    this.#note(keeps ? 'crash, store kept' : 'crash, store lost')
    this.#life = this.#begin()
    this.#emptyClaims = []
    this.#leases.crash(keeps)
    this.#confirms.crash(keeps)
    this.#named.crash(keeps)
    this.#callbacks.crash()
    if (!keeps) this.#stock.lose()
  }

  // ---- what the store has done ----

  /** The store has done something; the core does not know it yet. @param askedAt what the store took for the time of it */
  done(effect: StoreEffect, answer: StoreAnswer, askedAt: number, now: number): void {
    if (effect.type === 'apply' && answer.type === 'applied') {
      for (const [at, op] of effect.ops.entries()) this.#applied(op, answer.results[at] as StoreResult, askedAt, now)
    }
    if (effect.type !== 'claim' || answer.type !== 'claimed' || answer.answer.status !== 'ok') return
    this.#claimed(effect.request, answer.answer, now)
    this.#stock.line(effect.request.subscription)?.claimed(effect.request, answer.answer.messages, now)
  }

  #applied(op: StoreOp, result: StoreResult, askedAt: number, now: number): void {
    this.#callbacks.done(op, result)
    if (op.type === 'publish') {
      this.#stock.published(op, result, askedAt, now)
      return
    }
    this.#leases.done(op, result, now)
    this.#stock.done(op, result, askedAt, now)
  }

  #claimed(
    { subscription, now: askedAt }: ClaimRequest,
    { messages, expired, more }: Extract<ClaimAnswer, { status: 'ok' }>,
    now: number,
  ): void {
    if (messages.length === 0 && expired.length === 0 && !more) {
      this.#note('claim in vain')
      this.#emptyClaims.push(now)
      while ((this.#emptyClaims[0] ?? now) < now - 1000) this.#emptyClaims.shift()
      if (this.#emptyClaims.length > EMPTY_CLAIMS_MAX) throw new Violation('a storm of claims that find nothing')
    }
    for (const claimed of messages) {
      const entry = this.#stock.find(subscription, claimed.seq)
      if (entry === undefined) throw new Violation(`${claimed.seq} was leased, but never stored`)
      this.#leased(entry, claimed, now, askedAt)
    }
  }

  /** @param askedAt what the store took for the time: its bound counts from there */
  #leased(entry: Entry, made: Made, now: number, askedAt = now): void {
    this.#stock.line(entry.line)?.leased(entry, made, this.#life.number)
    this.#leases.made(entry, made, this.#life, now, askedAt)
  }

  // ---- what arrives at the core ----

  /** Something is about to be handled by the core. */
  arrive(input: Input, now: number): void {
    this.#life.settlings.begin()
    this.#leases.begin()
    this.#life.plainly.begin()
    this.#life.requests.begin()
    this.#refusedBy = undefined
    this.#callbacks.arrive(input)
    switch (input.type) {
      case 'stanza':
        this.#stanza(input.stanza, now)
        return
      case 'applied': {
        const ops = this.#life.calls.get(input.call) ?? []
        this.#life.calls.delete(input.call)
        for (const [at, op] of ops.entries()) this.#told(op, input.results[at] as StoreResult)
        return
      }
      case 'claimed':
        if (input.answer.status !== 'ok') return
        for (const { token } of input.answer.messages) this.#leases.answered(token)
        return
      case 'due': {
        const askedAt = this.#life.dues.get(input.call) ?? now
        this.#life.dues.delete(input.call)
        this.#leases.due(input.answer, askedAt)
        return
      }
      case 'browsed':
        this.#life.signs.lookedUp(input.call)
        return
      case 'link-up':
      case 'link-down':
        this.#link(input.type === 'link-up', now)
        return
      default:
    }
  }

  #link(isUp: boolean, now: number): void {
    const { plainly, requests, ephemerals, signs } = this.#life
    plainly.link(isUp, now)
    requests.link(isUp)
    if (isUp) {
      signs.linkUp(now)
      return
    }
    signs.linkDown(now)
    this.#leases.linkDown()
    ephemerals.linkDown()
  }

  #told(op: StoreOp, result: StoreResult): void {
    this.#life.orders.told(op, result)
    this.#callbacks.told(op, result)
    if (op.type === 'publish') {
      this.#life.plainly.told(op, result)
      this.#confirms.told(op, result)
      const stored = result.status === 'ok' && result.type === 'publish' ? this.#stock.message(result.seq) : undefined
      if (stored !== undefined) this.#life.ephemerals.stored(stored)
      const isLeased = result.status === 'ok' && result.type === 'publish' && result.leasedAt !== undefined
      if (isLeased) this.#leases.answered(op.grant?.token ?? '')
      return
    }
    if (result.status === 'ok') for (const token of this.#named.told(op)) this.#life.consumers.letGo(token)
    if (!('token' in op)) return
    this.#life.settlings.told(op, result)
    const isOver = op.type === 'extend' && result.status !== 'ok' && result.status !== 'unavailable'
    if (isOver) this.#life.consumers.letGo(op.token)
  }

  #stanza(stanza: XmlElement, now: number): void {
    const from = stanza.attrs.get('from') ?? ''
    const id = stanza.attrs.get('id') ?? ''
    const type = stanza.attrs.get('type')
    const { signs, orders, consumers } = this.#life
    signs.arrived(stanza, now)
    if (stanza.name === 'presence') return
    this.#life.plainly.arrived(stanza, now)
    this.#life.requests.arrived(stanza, now)
    if (stanza.name === 'message') return
    if (type === 'result' || type === 'error') {
      this.#life.ephemerals.receipt(from, id, now)
      if (this.#leases.receipt(from, id, type === 'error', now)) this.#refusedBy = from
    }
    for (const child of spokenIn(stanza)) {
      if (child.name === 'settle') this.#settle(from, id, child, type === 'result', now)
      if (child.name === 'publish') this.#confirms.arrived(from, id, child)
      if (child.name === 'renew') consumers.credit(from, child, child.attrs.get('load'), now)
      if (child.name === 'dead-letters') orders.arrived(from, id, child)
      if (child.name === 'forget') this.#named.forget(from, id, child)
      if (child.name === 'xmq' && child.ns === 'xmq:command') {
        this.#life.plainly.command(from, child, now)
        consumers.command(from, child, now)
        this.#named.command(from, id, child)
      }
    }
  }

  #settle(from: string, id: string, settle: XmlElement, isReceipt: boolean, now: number): void {
    const { settlings, consumers, ephemerals } = this.#life
    const isStored = (token: string): boolean => !ephemerals.has(token)
    const said = settlings.arrived(from, id, settle, { isReceipt, isStored })
    const hasNack = said.some(({ kind }) => kind === 'nack')
    // Where the past of a lease is looked up, the whole waits for it.
    const isSure = said.every(({ kind, token }) => kind !== 'nack' || ephemerals.isOpen(token))
    for (const settlement of said) {
      const { kind, token, delay } = settlement
      if (ephemerals.has(token)) {
        if (ephemerals.settled(from, settlement, isSure, now)) consumers.letGo(token)
        continue
      }
      if (kind === 'nack') this.#backoffs.asked(bareOf(from), token, delay)
      if (this.#leases.settled(from, settlement, !hasNack, now)) consumers.letGo(token)
    }
  }

  // ---- what leaves the core ----

  /** The core has handled it. */
  leave(effects: readonly Effect[], now: number): void {
    const { calls, consumers, signs, dues, settlings } = this.#life
    this.#life.plainly.left(effects, now)
    // What workers let go of is theirs no more when they are given something else, which may leave first.
    for (const effect of effects) {
      if (effect.type !== 'apply') continue
      calls.set(effect.call, effect.ops)
      for (const op of effect.ops) this.#checkOp(op, now)
    }
    for (const effect of effects) {
      if (effect.type === 'claim') {
        for (const { token } of effect.request.grants) consumers.granted(token, now)
      } else if (effect.type === 'browse') signs.lookUp(effect.call)
      else if (effect.type === 'due') dues.set(effect.call, now)
      else if (effect.type === 'send') this.#checkStanza(effect.stanza, now)
      else if (effect.type === 'event') this.#checkEvent(effect.event, now)
    }
    if (this.#refusedBy !== undefined) consumers.refused(this.#refusedBy)
    settlings.checkAcked()
    this.#callbacks.check()
    this.#life.plainly.check(now)
    this.#life.requests.check(now)
  }

  #checkEvent(event: CoreEvent, now: number): void {
    const { consumers, ephemerals, settlings } = this.#life
    this.#callbacks.event(event)
    this.#life.requests.event(event)
    if (event.name === 'subscribed') consumers.subscribed(event, now)
    if (event.name === 'unsubscribed') consumers.unsubscribed(event.consumer, event.topic)
    ephemerals.told(event, (jid, topic) => consumers.isEphemeral(jid, topic))
    if (event.name !== 'ignored') return
    // A receipt over a stream that broke, or after its lease was over, says nothing: nobody waits for it any more.
    this.#note('ignored')
    settlings.ignored()
    this.#leases.ignored()
    this.#refusedBy = undefined
  }

  #checkOp(op: StoreOp, now: number): void {
    const { orders, consumers, settlings } = this.#life
    orders.asked(op)
    this.#named.check(op)
    this.#life.plainly.asked(op)
    if (!('token' in op)) return
    if (op.type === 'nack') this.#backoffs.check(op, now)
    if (op.type === 'ack') settlings.acked(op.token)
    if (!this.#leases.check(op, this.#life, now)) return
    consumers.letGo(op.token)
    this.#life.plain.letGo(op.token)
  }

  #checkStanza(stanza: XmlElement, now: number): void {
    const to = stanza.attrs.get('to') ?? ''
    const id = stanza.attrs.get('id') ?? ''
    if (stanza.attrs.get('type') === 'error') this.#note(`error ${conditionOf(stanza)}`)
    this.#life.signs.left(stanza, now)
    if (findChild(stanza, 'xmq', 'xmq:topic') !== undefined) this.#letGoOfGone(to, now)
    this.#life.requests.left(stanza, now)
    this.#callbacks.left(stanza)
    if (stanza.attrs.get('type') === 'result') this.#named.answered(to, id)
    for (const child of spokenIn(stanza)) {
      if (child.name === 'published') this.#confirms.check(to, id, child)
      if (child.name === 'deliver') this.#checkDeliver(to, id, child, now)
      if (child.name === 'settled') this.#checkSettled(to, id, child)
      if (child.name === 'dead-letters' && child.attrs.has('done') && this.#life.orders.answered(to, id, child) > 0)
        this.#note('ordered')
    }
  }

  #checkSettled(to: string, id: string, settled: XmlElement): void {
    const { ephemerals, settlings } = this.#life
    const holderOf = (token: string): string | undefined => this.#leases.find(token)?.holder ?? ephemerals.holder(token)
    settlings.check(to, id, settled, holderOf, (token) => !ephemerals.has(token))
  }

  #checkDeliver(to: string, id: string, deliver: XmlElement, now: number): void {
    if (Number(deliver.attrs.get('lease-seconds')) * 1000 !== this.#knowledge.reliable.leaseMs)
      throw new Violation('lease-seconds')
    const tokens: string[] = []
    const timeless: string[] = []
    const { ephemerals, consumers } = this.#life
    consumers.checkEncoding(to, deliver)
    this.#letGoOfGone(to, now)
    for (const item of childElements(deliver)) {
      const [token = '', , ...rest] = (item.attrs.get('lease') ?? '').split('.')
      const name = rest.join('.')
      const isEphemeral = this.#knowledge.type === 'all' && name === ''
      const { seq, sent } = isEphemeral
        ? this.#checkEphemeral(to, token, item, now)
        : this.#checkLeased(to, token, name, item)
      consumers.delivered(to, token, { seq, topic: sent.topic, name })
      if (isEphemeral) timeless.push(token)
      else tokens.push(token)
    }
    this.#leases.handedOver(id, to, tokens, now)
    ephemerals.handedOver(id, to, timeless)
  }

  /** Nobody says when the ephemeral ones of a session that ended are over. */
  #letGoOfGone(jid: string, now: number): void {
    const { ephemerals, consumers, signs } = this.#life
    for (const old of this.#leases.absent(consumers.given(jid), jid, signs, now)) consumers.letGo(old)
    if (ephemerals.open === 0) return
    for (const old of ephemerals.gone(jid, signs.lastDoubt(jid, now), now)) consumers.letGo(old)
  }

  #checkLeased(to: string, token: string, name: string, item: XmlElement): Entry {
    const { entry } = this.#leases.delivered(to, token, item, this.#life.number)
    if (entry.line !== (name === '' ? '' : `${bareOf(to)}/${name}`))
      throw new Violation(`${entry.seq} of ${entry.line} is delivered as of ${name}`)
    this.#named.delivered(entry, to)
    return entry
  }

  #checkEphemeral(to: string, token: string, item: XmlElement, now: number): Stored {
    const { ephemerals } = this.#life
    const stored = this.#stock.message(Number(item.attrs.get('seq')))
    const isTold = stored !== undefined && this.#confirms.isTold(stored)
    if (!isTold) throw new Violation(`${token} is delivered, and the store has not said that it is stored`)
    ephemerals.delivered(to, token, item, stored, now)
    return stored
  }

  // ---- the end ----

  /** The faults have stopped, and all had its time. @param left what the store has of each line */
  checkEnd(left: ReadonlyMap<string, Left>): void {
    this.#confirms.checkEnd(left)
    this.#life.ephemerals.checkEnd()
    this.#life.requests.checkEnd()
    for (const { held } of left.values())
      if (held.size > 0) throw new Violation(`${[...held].join(', ')} never settled`)
  }

  #note(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1)
  }
}

function conditionOf(stanza: XmlElement): string {
  const error = childElements(stanza).find(({ name }) => name === 'error')
  return error === undefined ? '' : (childElements(error)[0]?.name ?? '')
}
