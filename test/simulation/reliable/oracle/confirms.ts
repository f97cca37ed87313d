/**
 * What producers are told: which messages are stored, and as what.
 *
 * 1. A confirm answers what was asked, item by item, and comes after the store's word to the core. It is packed only where the
 *    publish was.
 * 2. A message has one seq for ever, as long as its id is its own.
 * 3. What was confirmed is in the end acked, purged, forgotten with its line, or a dead letter of the store, in each line.
 */
import { bareOf, childElements, withAttrs, type XmlElement } from '@xmq/protocol'
import type { PublishOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import { type Knowledge, nameOf, nameOfPublish, type Stored } from './entry.ts'
import type { Stock } from './stock.ts'

/** What the store has of a line in the end: seqs of dead letters, and of all else. */
export interface Left {
  readonly dead: ReadonlySet<number>
  readonly held: ReadonlySet<number>
}

/** See the top of this file. */
export class Confirms {
  readonly #knowledge: Knowledge
  readonly #durability: string
  readonly #stock: Stock
  readonly #confirmed = new Map<string, number>()
  /** Gone, and another message has its id. */
  readonly #forgotten = new Set<Stored>()
  // Of one life of the broker:
  #asked = new Map<string, readonly string[]>()
  #packed = new Set<string>()
  #stored = new Set<string>()

  constructor(knowledge: Knowledge, durability: string, stock: Stock) {
    this.#knowledge = knowledge
    this.#durability = durability
    this.#stock = stock
  }

  /** The broker was killed. @param keeps whether the store survived it */
  crash(keeps: boolean): void {
    this.#asked = new Map()
    this.#packed = new Set()
    this.#stored = new Set()
    if (!keeps) this.#confirmed.clear()
  }

  /** A batch arrives. */
  arrived(from: string, id: string, publish: XmlElement): void {
    if (publish.attrs.has('encoding')) this.#packed.add(`${from} ${id}`)
    this.#asked.set(
      `${from} ${id}`,
      childElements(publish).map((item) => item.attrs.get('id') ?? ''),
    )
  }

  /** The core hears what became of a publish. */
  told(op: PublishOp, result: StoreResult): void {
    if (result.status !== 'duplicate' && (result.status !== 'ok' || result.type !== 'publish')) return
    const name = nameOfPublish(op)
    this.#stored.add(`${name} ${result.seq}`)
    // Nobody confirms it, and it is promised as what is confirmed.
    if (op.id === undefined) this.#confirmed.set(`${name} ${result.seq}`, result.seq)
  }

  /** Whether the core has heard that a message is stored. */
  isTold({ seq, sent }: Stored): boolean {
    return this.#stored.has(`${nameOf(sent.sender, sent.id)} ${seq}`)
  }

  /** What became of a message is known, and its id another one's; its confirm may still be on its way. */
  forget(name: string, stored: Stored): void {
    this.#forgotten.add(stored)
    if (this.#confirmed.get(name) === stored.seq) this.#confirmed.delete(name)
  }

  /** A confirm leaves. */
  check(to: string, id: string, published: XmlElement): void {
    const asked = this.#asked.get(`${to} ${id}`)
    const isPacked = published.attrs.get('encoding') === 'packed'
    if (isPacked && !this.#packed.has(`${to} ${id}`)) throw new Violation(`${id} is confirmed packed`)
    const items = childElements(published).map((item, at) => (isPacked ? withAttrs(item, { id: asked?.[at] }) : item))
    if (asked?.join(' ') !== items.map((item) => item.attrs.get('id')).join(' '))
      throw new Violation(`${id} confirms others`)
    if (published.attrs.get('durability') !== this.#durability) throw new Violation('a confirm of another durability')
    for (const item of items) {
      const seq = item.attrs.get('seq')
      if (seq === undefined) this.#knowledge.note('item refused')
      else this.#checkItem(nameOf(bareOf(to), item.attrs.get('id') ?? ''), Number(seq), item.attrs)
    }
  }

  #checkItem(name: string, seq: number, attrs: ReadonlyMap<string, string>): void {
    if (!this.#stored.has(`${name} ${seq}`))
      throw new Violation(`${name} is confirmed as ${seq} before the store said so`)
    const stored = this.#stock.message(seq)
    const count = attrs.get('subscriptions')
    const isCounted = this.#knowledge.type === 'all' && attrs.get('duplicate') !== 'true'
    if (isCounted !== (count !== undefined)) throw new Violation(`${name} is confirmed with subscriptions='${count}'`)
    if (isCounted && Number(count) !== stored?.entries.length)
      throw new Violation(`${name} is confirmed for ${count} subscriptions, and stored for ${stored?.entries.length}`)
    if (stored !== undefined && this.#forgotten.has(stored)) return
    const earlier = this.#confirmed.get(name)
    if (earlier !== undefined && earlier !== seq) throw new Violation(`${name} is confirmed as ${earlier} and ${seq}`)
    this.#knowledge.note(earlier === undefined ? 'confirmed' : 'confirmed again')
    this.#confirmed.set(name, seq)
  }

  /** The faults have stopped, and all had its time. */
  checkEnd(left: ReadonlyMap<string, Left>): void {
    for (const [name, seq] of this.#confirmed) {
      const stored = this.#stock.message(seq)
      if (stored === undefined) throw new Violation(`${name}, confirmed as ${seq}, is unknown`)
      for (const { state, line } of stored.entries) {
        const { dead, held } = left.get(line) ?? { dead: new Set(), held: new Set() }
        if (state === 'acked' || state === 'purged' || state === 'forgotten' || (state === 'dead' && dead.has(seq)))
          continue
        const where = held.has(seq) ? 'is still in the store' : dead.has(seq) ? 'is a dead letter' : 'is lost'
        throw new Violation(`${name}, confirmed as ${seq}, ${where} (${state}) in ${line || 'the queue'}`)
      }
    }
  }
}
