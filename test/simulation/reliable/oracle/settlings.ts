/**
 * What workers have said of leases, and what they are told that came of it. One life of the broker.
 *
 * 1. An ack comes to something at once.
 * 2. A settlement is answered after the store's word to the core, to the bare JID that has the lease.
 */
import { bareOf, childElements, type XmlElement } from '@xmq/protocol'
import type { StoreOp, StoreResult } from '../../../../packages/broker/src/store/port.ts'
import { Violation } from '../../violation.ts'
import type { Knowledge } from './entry.ts'

const SETTLEMENTS: ReadonlySet<string> = new Set(['ack', 'nack', 'release', 'reject', 'extend'])

/** One word about a lease. */
export interface Settlement {
  readonly kind: string
  /** As it stands on the wire. */
  readonly lease: string
  readonly token: string
  /** Seconds, as it was written. */
  readonly delay: string | undefined
}

/** See the top of this file. */
export class Settlings {
  readonly #knowledge: Knowledge
  /** Sessions that said that they have named all that they hold, and the tokens that were named. */
  readonly #complete = new Set<string>()
  readonly #named = new Set<string>()
  readonly #said = new Set<string>()
  readonly #done = new Set<string>()
  readonly #asked = new Map<string, readonly Settlement[]>()
  readonly #dueAcks = new Map<string, string>()

  constructor(knowledge: Knowledge) {
    this.#knowledge = knowledge
  }

  /** Something else is about to be handled by the core. */
  begin(): void {
    this.#dueAcks.clear()
  }

  /** Settlements arrive. @param isReceipt with the answer to a delivery: nobody answers them @param isStored whether a lease may be the store's */
  arrived(
    from: string,
    id: string,
    settle: XmlElement,
    { isReceipt, isStored }: { readonly isReceipt: boolean; readonly isStored: (token: string) => boolean },
  ): readonly Settlement[] {
    const settlements = childElements(settle)
      .filter(({ name }) => SETTLEMENTS.has(name))
      .map(({ name, attrs }): Settlement => {
        const lease = attrs.get('lease') ?? ''
        return { kind: name, lease, token: lease.split('.')[0] as string, delay: attrs.get('delay') }
      })
    const holder = bareOf(from)
    const hasNack = settlements.some(({ kind }) => kind === 'nack')
    if (settle.attrs.get('complete') === 'true') this.#complete.add(from)
    for (const { kind, token } of settlements) {
      this.#named.add(token)
      this.#said.add(`${holder} ${kind} ${token}`)
      if (kind === 'ack' && !hasNack && isStored(token)) this.#dueAcks.set(token, holder)
    }
    if (isReceipt) this.#knowledge.note('settled with the receipt')
    else this.#asked.set(`${from} ${id}`, settlements)
    return settlements
  }

  /** The core took an answer for one that nobody waits for: what rides on it counts or not. */
  ignored(): void {
    this.#dueAcks.clear()
  }

  /** The core acks for a worker. */
  acked(token: string): void {
    this.#dueAcks.delete(token)
  }

  /** The core has handled what arrived. */
  checkAcked(): void {
    for (const [token, holder] of this.#dueAcks) throw new Violation(`the ack of ${token} by ${holder} came to nothing`)
  }

  /** Whether a worker has said this of a lease. @param holder bare JID */
  hasSaid(holder: string, kind: string, token: string): boolean {
    return this.#said.has(`${holder} ${kind} ${token}`)
  }

  /** Whether a worker has said anything of a lease. */
  isNamed(token: string): boolean {
    return this.#named.has(token)
  }

  /** Whether a session has named all that it holds. @param jid undefined: whether any of the holder's has */
  hasNamedAll(jid: string | undefined, holder: string): boolean {
    if (jid !== undefined) return this.#complete.has(jid)
    for (const one of this.#complete) if (bareOf(one) === holder) return true
    return false
  }

  /** The core hears that an operation on a lease was done. */
  told(op: Exclude<StoreOp, { readonly type: 'publish' }> & { readonly token: string }, result: StoreResult): void {
    if (result.status === 'ok') this.#done.add(`${op.type} ${op.token}`)
  }

  /** Settlements are answered. @param holderOf who has a lease @param isStored whether the store has it */
  check(
    to: string,
    id: string,
    settled: XmlElement,
    holderOf: (token: string) => string | undefined,
    isStored: (token: string) => boolean,
  ): void {
    const asked = this.#asked.get(`${to} ${id}`)
    if (asked === undefined) throw new Violation(`${id} settles what nobody asked for`)
    const failed = new Set(childElements(settled).map((item) => item.attrs.get('lease')))
    for (const { kind, lease, token } of asked) {
      if (failed.has(lease)) {
        this.#knowledge.note(`${kind} failed`)
        continue
      }
      const holder = holderOf(token)
      // A broker that kept nothing does not know what it leased before.
      if (holder !== bareOf(to)) throw new Violation(`${to} settled ${token} of ${holder}`)
      const ways = kind === 'reject' ? ['dead'] : kind === 'nack' || kind === 'release' ? [kind, 'dead'] : [kind]
      if (isStored(token) && !ways.some((way) => this.#done.has(`${way} ${token}`)))
        throw new Violation(`${kind} of ${token} is answered before the store said so`)
      this.#knowledge.note(`${kind} settled`)
    }
  }
}
