/**
 * What one process was promised of its publishes.
 *
 *     called --sent--> in a batch --answered, overdue, disconnected--> again --> ...
 *       any --settled, failed--> ended
 *
 * 1. Each call ends once. Confirmed: the store has it, under that seq. Failed: as `unconfirmed` when it was ever sent, unless the
 *    queue refused it or its caller gave up. What the network doubles may be refused and stored: nobody can tell that.
 * 2. Of one topic and key at most one is in an open batch, and they are stored in the order of the calls.
 * 3. A batch leaves nothing behind that was called earlier and could be sent.
 */
import { childElements, type XmlElement } from '@xmq/protocol'
import type { Effect, Input, SessionRules } from '../../../packages/client/src/session/index.ts'
import { Violation } from '../violation.ts'
import type { SentItem } from './items.ts'
import type { StoreTruth } from './promises.ts'

interface Call {
  readonly ref: number
  readonly item: SentItem
  readonly chain: string | undefined
  wasSent: boolean
  isStored: boolean
  /** How it ended. */
  end: 'confirmed' | 'failed' | undefined
}

/** See the top of this file. */
export class Published {
  readonly #process: string
  readonly #rules: SessionRules
  readonly #truth: StoreTruth
  /** Those that have not ended, in order. */
  readonly #calls = new Map<number, Call>()
  /** All of one key, in order. */
  readonly #chains = new Map<string, Call[]>()
  /** Ids of what the store has, and of what failed as refused: never both. */
  readonly #stored = new Set<string>()
  readonly #refused = new Set<string>()
  /** Ids of what reaches the queue twice, though it was sent once: the answer that came may not be the only one. */
  readonly #doubled = new Set<string>()
  readonly #batches = new Map<string, { readonly calls: readonly Call[]; readonly overdueAt: number }>()

  constructor(process: string, rules: SessionRules, truth: StoreTruth) {
    this.#process = process
    this.#rules = rules
    this.#truth = truth
  }

  /** Its user publishes. */
  called(ref: number, item: SentItem): void {
    const chain = item.key === undefined ? undefined : `${item.topic}\n${item.key}`
    const call: Call = { ref, item, chain, wasSent: false, isStored: false, end: undefined }
    this.#calls.set(ref, call)
    if (chain === undefined) return
    const others = this.#chains.get(chain)
    if (others === undefined) this.#chains.set(chain, [call])
    else others.push(call)
  }

  /** The store has an item for the first time. */
  stored(item: SentItem): void {
    this.#stored.add(item.id)
    if (this.#refused.has(item.id)) this.#broken(`${item.id} is stored, and failed as refused`)
    if (item.key === undefined) return
    const chain = this.#chains.get(`${item.topic}\n${item.key}`) ?? []
    const at = chain.findIndex((call) => call.item.id === item.id)
    const call = chain[at]
    if (call === undefined) return
    call.isStored = true
    if (call.end === 'failed') return
    const later = chain.slice(at + 1).find((other) => other.isStored)
    if (later !== undefined) this.#broken(`${item.id} was stored behind ${later.item.id}, which was published later`)
  }

  /** A batch reaches the queue twice. */
  doubled(publish: XmlElement): void {
    for (const item of childElements(publish)) this.#doubled.add(item.attrs.get('id') ?? '')
  }

  /** An input is about to be told of by its effects. */
  before(input: Input): void {
    if (input.type === 'down') this.disconnected()
    if (input.type !== 'stanza' || input.stanza.name !== 'iq') return
    const type = input.stanza.attrs.get('type')
    if (input.stanza.attrs.get('from') !== this.#rules.queue) return
    if (type === 'result' || type === 'error') this.#batches.delete(input.stanza.attrs.get('id') ?? '')
  }

  /** The connection is over. */
  disconnected(): void {
    this.#batches.clear()
  }

  /** A batch leaves. */
  sent(id: string, publish: XmlElement, now: number): void {
    for (const [other, { overdueAt }] of this.#batches) if (overdueAt <= now) this.#batches.delete(other)
    const byId = new Map([...this.#calls.values()].map((call) => [call.item.id, call]))
    const calls = childElements(publish).flatMap((item) => byId.get(item.attrs.get('id') ?? '') ?? [])
    if (calls.length !== childElements(publish).length)
      this.#broken('publishes what nobody called for, or what has ended')
    const open = new Set([...this.#batches.values()].flatMap((batch) => batch.calls))
    this.#checkKeys(calls, open)
    this.#checkOrder(calls, open)
    for (const call of calls) {
      if (call.wasSent) this.#truth.note('published again')
      call.wasSent = true
    }
    this.#batches.set(id, { calls, overdueAt: now + this.#rules.answerTimeoutMs })
  }

  #checkKeys(calls: readonly Call[], open: ReadonlySet<Call>): void {
    // One that the session takes for lost with its broker is sent again beside itself.
    const inFlight = [...new Set([...open, ...calls])].filter(
      ({ chain, end }) => chain !== undefined && end === undefined,
    )
    const chains = new Set<string | undefined>()
    for (const { chain, item } of inFlight) {
      if (chains.has(chain)) this.#broken(`${item.id} is unconfirmed beside another one of its key`)
      chains.add(chain)
    }
  }

  #checkOrder(calls: readonly Call[], open: ReadonlySet<Call>): void {
    for (const [at, { ref, item }] of calls.entries()) {
      const before = calls[at - 1]
      if (before !== undefined && before.ref > ref) this.#broken(`${item.id} leaves behind what was published later`)
    }
    const last = Math.max(...calls.map(({ ref }) => ref))
    const blocked = new Set<string>()
    for (const call of this.#calls.values()) {
      if (call.ref >= last) return
      const isBlocked = call.chain !== undefined && blocked.has(call.chain)
      if (call.chain !== undefined) blocked.add(call.chain)
      if (!isBlocked && !open.has(call) && !calls.includes(call)) {
        this.#broken(`${call.item.id} stays behind what was published later`)
      }
    }
  }

  /** Its user learns how a publish ended. */
  ended(effect: Extract<Effect, { readonly type: 'settled' | 'failed' }>): void {
    const call = this.#calls.get(effect.ref)
    if (call === undefined) return this.#broken(`publish ${effect.ref} ended twice, or never began`)
    this.#calls.delete(effect.ref)
    const { item, wasSent } = call
    if (effect.type === 'settled') {
      call.end = 'confirmed'
      const { confirm } = effect
      if (confirm === undefined) return this.#broken(`${item.id} is confirmed by nobody`)
      if (!wasSent || !this.#truth.wasStored(item, confirm.seq)) {
        return this.#broken(`${item.id} is confirmed as ${confirm.seq}, and is not stored`)
      }
      if (confirm.durability !== this.#truth.durability) this.#broken('a confirm of another durability')
      this.#truth.note('sdk confirmed')
      return
    }
    call.end = 'failed'
    const { code, fromBroker } = effect.error
    this.#truth.note(`sdk failed ${code}`)
    if (code === 'aborted' || fromBroker) return
    if (wasSent && code === 'limit-reached') {
      this.#truth.note('sdk refused')
      if (this.#doubled.has(item.id)) return
      this.#refused.add(item.id)
      if (this.#stored.has(item.id)) this.#broken(`${item.id} failed as refused, and is stored`)
    } else if ((code === 'unconfirmed') !== wasSent) this.#broken(`${item.id} failed as ${code}, sent: ${wasSent}`)
  }

  #broken(what: string): void {
    throw new Violation(`${this.#process}: ${what}`)
  }
}
