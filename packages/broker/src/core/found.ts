/**
 * Owner of the leases that an earlier life of the broker left, until their workers have said what they hold. A deliver stanza that
 * was on its way when the broker died may never have arrived: nobody holds what was in it, and without this it, and its key, would
 * wait for a whole lease.
 *
 *     start --the store's leases, a page at a time--> found --named in a settlement------------------> its worker's
 *                                                       |----its session says that it has named all--> released
 *                                                       '----neither---------------------------------> over (store-time.ts)
 *
 * A lease tells for which session it was made: its token ends with a mark of the full JID. So a session answers for its own leases
 * only; those of one that is gone, or that came back under another resource, wait.
 *
 * Invariants:
 * 1. What is released was named by nobody in this life of the broker, and its own session said that it has named all that it holds.
 * 2. Nothing that this life has leased is in here: what is claimed while the list is read counts as named.
 * 3. At most {@link FOUND_MAX} are remembered of each queue, for one lease: the others end by their time, as do these then.
 */
import { bareOf } from '@xmq/protocol'
import type { Durability } from '../store/port.ts'
import { afterRelease, type LeaseRef, type Standing } from './backoff.ts'
import { createDeadline, type Deadlines } from './deadlines.ts'
import { markOf } from './lease-token.ts'
import type { Leases } from './leases.ts'
import type { Queue } from './records.ts'
import type { Step } from './step.ts'
import type { StoreCalls } from './store-calls.ts'

/** Most leases of an earlier life that are remembered of a queue. */
const FOUND_MAX = 100_000
/** Leases of one page. */
const PAGE = 1000

/** What {@link Found} needs. */
export interface FoundOptions {
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  readonly leases: Leases
  readonly durability: Durability
}

interface FoundLease {
  readonly ref: LeaseRef
  readonly standing: Standing
  /** Bare JID. */
  readonly holder: string
}

interface Remains {
  /** By token. */
  readonly leases: Map<string, FoundLease>
  /** Tokens that were named while the list was being read; undefined once it is. */
  named: Set<string> | undefined
  /** Sessions that said meanwhile that they have named all. */
  declared: Set<string>
}

/** See the top of this file. */
export class Found {
  readonly #options: FoundOptions
  readonly #remains: Map<Queue, Remains> = new Map()
  readonly #begun: Set<Queue> = new Set()

  constructor(options: FoundOptions) {
    this.#options = options
  }

  /** Leases that are remembered. */
  get count(): number {
    let count = 0
    for (const { leases } of this.#remains.values()) count += leases.size
    return count
  }

  /** The first of this life: from now on it is known what this one leases. */
  begin(queue: Queue): void {
    if (this.#options.durability === 'memory' || this.#begun.has(queue)) return
    this.#begun.add(queue)
    this.#remains.set(queue, { leases: new Map(), named: new Set(), declared: new Set() })
  }

  /** Reads what an earlier life has left in a queue, whose lines are known. */
  load(step: Step, queue: Queue): void {
    const remains = this.#remains.get(queue)
    if (remains === undefined) return
    const deadline = createDeadline({ kind: 'found-over', queue })
    this.#options.deadlines.set(deadline, step.now + queue.rules.reliable.leaseMs)
    this.#page(queue, remains, [...queue.lines.keys()], 0)
  }

  #page(queue: Queue, remains: Remains, lines: string[], after: number): void {
    const subscription = lines[0]
    if (subscription === undefined || this.#remains.get(queue) !== remains) return
    const request = { queue: queue.address, subscription, state: 'leased', after, max: PAGE, bodies: false } as const
    this.#options.calls.browse(request, (step, answer) => {
      // A store that does not answer now leaves them to their time.
      if (answer.status === 'ok') {
        for (const entry of answer.entries) {
          const { seq, token, holder } = entry
          if (token === undefined || holder === undefined || remains.named?.has(token) === true) continue
          const ref = { queue: queue.address, subscription, seq, token }
          remains.leases.set(token, { ref, standing: entry, holder })
        }
      }
      const next = answer.status === 'ok' ? answer.next : undefined
      const rest = next === undefined ? lines.slice(1) : lines
      if (rest.length > 0 && remains.leases.size < FOUND_MAX) {
        this.#page(queue, remains, rest, next ?? 0)
        return
      }
      remains.named = undefined
      for (const jid of remains.declared) this.#release(step, queue, remains, jid)
      remains.declared = new Set()
    })
  }

  /** A lease was named, or made, in this life. */
  named(queue: Queue, token: string): void {
    const remains = this.#remains.get(queue)
    if (remains === undefined) return
    remains.leases.delete(token)
    remains.named?.add(token)
    // A store that does not answer for so long tells of nothing any more that is not over.
    if (remains.named !== undefined && remains.named.size > FOUND_MAX) this.over(queue)
  }

  /** Whether anything of an earlier life may be left in a queue. */
  isOpen(queue: Queue): boolean {
    return this.#remains.has(queue)
  }

  /** A session has named all that it holds. @param jid full */
  declared(step: Step, queue: Queue, jid: string): void {
    const remains = this.#remains.get(queue)
    if (remains === undefined) return
    if (remains.named === undefined) this.#release(step, queue, remains, jid)
    else remains.declared.add(jid)
  }

  /** One lease after the start: whatever is left ends by its time. */
  over(queue: Queue): void {
    this.#remains.delete(queue)
  }

  #release(step: Step, queue: Queue, { leases }: Remains, jid: string): void {
    const mark = markOf(jid)
    const bare = bareOf(jid)
    const ops = []
    for (const [token, { ref, standing, holder }] of leases) {
      if (holder !== bare || !token.endsWith(mark)) continue
      leases.delete(token)
      if (!this.#options.leases.hasToken(token)) ops.push(afterRelease(ref, standing))
    }
    if (ops.length === 0) return
    step.emit({ name: 'settled', queue: queue.address, outcome: 'found', count: ops.length })
    this.#options.leases.apply(ops)
  }
}
