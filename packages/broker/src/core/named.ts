/**
 * Owner of named durable subscriptions of `all` queues: (queue, bare JID, name), each a line of its own in the store.
 *
 *     sub with a name --> create-subscription --> line --seats--> sessions that share the name compete
 *     del: detached, and it goes on collecting         forget, or nobody there for `namedIdleMs` --> delete-subscription
 *
 * Invariants:
 * 1. `queue.lines` of an `all` queue has exactly the subscriptions that the store told it has; a line is there before anyone
 *    subscribes to it, and before its creation is confirmed to anyone.
 * 2. A line's filter never changes.
 * 3. Nothing of a line that has ended is handed out, or held: what was in it is gone.
 */
import { XmqError } from '@xmq/protocol'
import type { PublishTarget, StoreOp, SubscriptionRecord } from '../store/port.ts'
import type { Deadlines } from './deadlines.ts'
import { lineIdOf } from './lease-token.ts'
import type { Leases } from './leases.ts'
import { Line, WHOLE_LINE } from './lines.ts'
import { compileFilter } from './patterns.ts'
import type { Queue, Subscription } from './records.ts'
import type { Step } from './step.ts'
import { type StoreCalls, unavailable } from './store-calls.ts'
import type { StoreTime } from './store-time.ts'

/** Topics whose lines are remembered. */
const TARGETS_MAX = 10_000
/** Of the text of `meta`, so that a later one can be told from it. */
const META_VERSION = 1

/** What {@link Named} needs. */
export interface NamedOptions {
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  readonly time: StoreTime
  readonly leases: () => Leases
  /** Ends a subscription to a line that is no more. */
  readonly onEnd: (step: Step, subscription: Subscription) => void
}

interface NamedRecord {
  readonly owner: string
  readonly name: string
  readonly filter: string
  readonly touchedAt: number
}

/** See the top of this file. */
export class Named {
  readonly #options: NamedOptions
  readonly #targets: WeakMap<Queue, Map<string, readonly PublishTarget[]>> = new WeakMap()

  constructor(options: NamedOptions) {
    this.#options = options
  }

  /** Where a message goes in the store: the queue's own line, or that of each durable subscription that means its topic. */
  targets(queue: Queue, topic: string): readonly PublishTarget[] {
    let known = this.#targets.get(queue)
    if (known === undefined) {
      known = new Map()
      this.#targets.set(queue, known)
    }
    let targets = known.get(topic)
    if (targets === undefined) {
      const { lengthMax, bytesMax, whenFull } = queue.rules.reliable
      targets = [...queue.lines.values()]
        .filter((line) => line.matches(topic))
        .map(({ id }) => ({ subscription: id, maxLength: lengthMax, maxBytes: bytesMax, whenFull }))
      if (known.size >= TARGETS_MAX) known.clear()
      known.set(topic, targets)
    }
    return targets
  }

  /** Finds a durable subscription, or makes it. @param owner bare JID */
  join(
    step: Step,
    queue: Queue,
    wanted: { readonly owner: string; readonly name: string; readonly filter: string },
    then: (step: Step, line: Line | XmqError) => void,
  ): void {
    const { owner, name, filter } = wanted
    const id = lineIdOf(owner, name)
    const known = queue.lines.get(id)
    if (known !== undefined && known.filter !== filter) {
      then(step, otherFilter(name, known.filter))
      return
    }
    // Also where it is known: it may be about to be forgotten, and is made anew then. Else this says that somebody needs it.
    const meta = JSON.stringify([META_VERSION, owner, name, filter])
    const max = queue.rules.reliable.namedMax
    const op: StoreOp = { type: 'create-subscription', queue: queue.address, subscription: id, meta, max }
    const forgets = known?.forgets ?? 0
    this.#options.calls.apply([op], (later, [result]) => {
      if (result?.status === 'ok') {
        const line = this.#add(later, queue, { owner, name, filter, touchedAt: later.now })
        line.touchedAt = later.now
        line.forgetsHeard = Math.min(forgets, line.forgets)
        then(later, line)
      } else if (result?.status === 'unavailable') then(later, this.#certain(queue, id) ?? unavailable(result.error))
      else if (result?.status === 'conflict') then(later, otherFilter(name, 'another topic'))
      else then(later, tooMany(queue, max))
    })
  }

  /** A durable subscription that there is without a doubt: workers may join it also while the store does not answer. */
  #certain(queue: Queue, id: string): Line | undefined {
    const line = queue.lines.get(id)
    return line?.forgets === line?.forgetsHeard ? line : undefined
  }

  /** Takes on what the store has. */
  load(step: Step, queue: Queue, records: readonly SubscriptionRecord[]): void {
    for (const { meta, counts, touchedAt } of records) {
      const found = readMeta(meta)
      if (found === undefined) continue
      const line = this.#add(step, queue, { ...found, touchedAt })
      if (counts.claimable > 0) line.add(WHOLE_LINE)
    }
  }

  /** Ends a durable subscription with everything in it. @param then gets what is wrong, if anything is */
  forget(queue: Queue, owner: string, name: string, then: (step: Step, error: XmqError | undefined) => void): void {
    const id = lineIdOf(owner, name)
    const line = queue.lines.get(id)
    if (line !== undefined) line.forgets++
    const op: StoreOp = { type: 'delete-subscription', queue: queue.address, subscription: id }
    this.#options.calls.apply([op], (step, [result]) => {
      if (result?.status === 'unavailable') {
        then(step, unavailable(result.error))
        return
      }
      this.#remove(step, queue, id)
      then(step, result?.status === 'ok' ? undefined : noSubscription(owner, name))
    })
  }

  /** Ends a durable subscription that nobody has joined for long; called now and then. */
  endIdle(step: Step, line: Line): void {
    const { queue, owner, name } = line
    if (name === '' || queue.lines.get(line.id) !== line) return
    const isJoined = [...queue.consumers.values()].some(({ subscriptions }) =>
      [...subscriptions.values()].some((subscription) => subscription.line === line),
    )
    if (isJoined) this.#touch(step, line)
    else if (line.touchedAt + queue.rules.reliable.namedIdleMs <= step.now) this.forget(queue, owner, name, () => {})
  }

  #touch(step: Step, line: Line): void {
    line.touchedAt = step.now
    const op: StoreOp = { type: 'touch-subscription', queue: line.queue.address, subscription: line.id }
    this.#options.calls.apply([op], () => {})
  }

  #add(step: Step, queue: Queue, record: NamedRecord): Line {
    const { owner, name, filter, touchedAt } = record
    const id = lineIdOf(owner, name)
    const known = queue.lines.get(id)
    if (known !== undefined) return known
    const line = new Line(queue, id, owner, name)
    line.filter = filter
    line.matches = compileFilter(filter)
    line.touchedAt = touchedAt
    this.#options.time.diedIn(step, line)
    queue.lines.set(id, line)
    this.#targets.delete(queue)
    return line
  }

  #remove(step: Step, queue: Queue, id: string): void {
    const line = queue.lines.get(id)
    if (line === undefined) return
    queue.lines.delete(id)
    this.#targets.delete(queue)
    this.#options.deadlines.clear(line.again)
    this.#options.deadlines.clear(line.trim)
    this.#options.leases().forget(queue, id)
    for (const consumer of queue.consumers.values()) {
      for (const subscription of consumer.subscriptions.values()) {
        if (subscription.line === line) this.#options.onEnd(step, subscription)
      }
    }
  }
}

function readMeta(meta: string): Omit<NamedRecord, 'touchedAt'> | undefined {
  try {
    const parsed: unknown = JSON.parse(meta)
    if (!Array.isArray(parsed) || parsed[0] !== META_VERSION) return undefined
    const [, owner, name, filter] = parsed as unknown[]
    if (typeof owner !== 'string' || typeof name !== 'string' || typeof filter !== 'string') return undefined
    return { owner, name, filter }
  } catch {
    return undefined
  }
}

function otherFilter(name: string, filter: string): XmqError {
  return new XmqError(
    'conflict',
    `The durable subscription '${name}' is to ${filter}, and what it is to never changes. Take another name, or end it ` +
      'with <forget/>, and all that waits in it.',
  )
}

function tooMany({ address }: Queue, max: number): XmqError {
  return new XmqError(
    'limit-reached',
    `${address} has ${max} durable subscriptions, and no more are allowed (maxNamed). End some with <forget/>.`,
  )
}

function noSubscription(owner: string, name: string): XmqError {
  return new XmqError('not-found', `${owner} has no durable subscription '${name}' here.`)
}
