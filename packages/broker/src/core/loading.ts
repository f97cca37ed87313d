/**
 * Owner of the first look into the store: durable subscriptions, who was connected, and in which topics something waits.
 *
 *     start --> subscriptions --> topics, a page at a time --> loaded
 *                    |                 |
 *                    +--- unavailable -+--> again later
 *
 * Leases are found by their tokens when their workers settle them, by found.ts when their workers do not, and by `due` when they are
 * over.
 *
 * Invariants:
 * 1. `isLoaded` is set once, when the durable subscriptions of a queue and the first of its topics have been read; before,
 *    nothing is published into its store.
 */
import type { Deadlines } from './deadlines.ts'
import { createDeadline, type Deadline } from './deadlines.ts'
import type { Dispatch } from './dispatch.ts'
import type { Found } from './found.ts'
import type { Line } from './lines.ts'
import type { Named } from './named.ts'
import type { Queue } from './records.ts'
import type { Reconnecting } from './reconnecting.ts'
import type { Step } from './step.ts'
import { STORE_RETRY_MS, type StoreCalls } from './store-calls.ts'
import type { StoreTime } from './store-time.ts'

/** Topics of one page. */
const PAGE = 1000

/** What {@link Loading} needs. */
export interface LoadingOptions {
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  readonly time: StoreTime
  readonly named: Named
  readonly dispatch: () => Dispatch
  readonly reconnecting: Reconnecting
  readonly found: Found
}

/** See the top of this file. */
export class Loading {
  readonly #options: LoadingOptions
  readonly #again: Map<Queue, Deadline> = new Map()
  /** Queues of which the store has not said yet what it has, or that it cannot say it now. */
  readonly #first: Set<Queue> = new Set()

  constructor(options: LoadingOptions) {
    this.#options = options
  }

  /** Whether the first look is still under way. */
  get isLooking(): boolean {
    return this.#first.size > 0
  }

  /** Reads what the store has of a queue. */
  load(queue: Queue): void {
    if (!this.#again.has(queue)) this.#first.add(queue)
    this.#options.found.begin(queue)
    this.#options.calls.subscriptions(queue.address, (step, answer) => {
      if (answer.status === 'unavailable') {
        this.#later(step, queue)
        return
      }
      if (queue.rules.type === 'all') this.#options.named.load(step, queue, answer.subscriptions)
      this.#options.reconnecting.load(step, queue, answer.subscriptions)
      this.#options.found.load(step, queue)
      for (const line of queue.lines.values()) this.#options.dispatch().wake(line)
      const own = queue.lines.get('')
      if (own === undefined) this.#loaded(queue)
      else this.#topics(own, '')
    })
  }

  /** Reads again in which topics something waits: there were more than are remembered. */
  reload(line: Line): void {
    this.#topics(line, '')
  }

  #topics(line: Line, after: string): void {
    const { queue } = line
    const request = { queue: queue.address, subscription: line.id, after, max: PAGE }
    this.#options.calls.topics(request, (step, answer) => {
      if (answer.status === 'unavailable') {
        if (queue.isLoaded) line.isCut = true
        this.#later(step, queue)
        return
      }
      for (const { topic, claimable } of answer.topics) if (claimable > 0) line.add(topic)
      this.#options.dispatch().wake(line)
      if (!queue.isLoaded) this.#options.time.diedIn(step, line)
      this.#loaded(queue)
      if (answer.next !== undefined) this.#topics(line, answer.next)
    })
  }

  #loaded(queue: Queue): void {
    queue.isLoaded = true
    this.#first.delete(queue)
  }

  #later(step: Step, queue: Queue): void {
    this.#first.delete(queue)
    const again = this.#again.get(queue) ?? createDeadline({ kind: 'load-again', queue })
    this.#again.set(queue, again)
    this.#options.deadlines.set(again, step.now + STORE_RETRY_MS)
  }
}
