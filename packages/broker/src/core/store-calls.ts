/**
 * Owner of what was asked of the store and is not answered yet: each call with what goes on when its answer comes.
 *
 *     apply, claim, ... --> gathered during one step --flush--> effects: one `apply`, then the rest in order
 *     applied, claimed, ... --> what goes on
 *
 * Invariants:
 * 1. Everything that goes on after an answer is in `open`, and nothing goes on without its answer: what is told to a producer
 *    or a worker is durable.
 * 2. Each call has one answer; a second one finds nothing.
 * 3. The operations of one step are one `apply`, before everything else of that step.
 */
import { XmqError, YoungMap } from '@xmq/protocol'
import type {
  BrowseAnswer,
  BrowseRequest,
  ClaimAnswer,
  ClaimRequest,
  DueAnswer,
  LineStats,
  StoreOp,
  StoreResult,
  SubscriptionsAnswer,
  TopicsAnswer,
  TopicsRequest,
} from '../store/port.ts'
import type { Effect, Input } from './port.ts'
import type { Step } from './step.ts'

/** What goes on when an answer has come. */
export type Then<Answer> = (step: Step, answer: Answer) => void

interface Part {
  readonly count: number
  /** Something new is stored: what a full disk refuses while it takes the rest. */
  readonly isGrowing: boolean
  /** Undefined where something new is stored, which is large. */
  readonly ops: readonly StoreOp[] | undefined
  readonly go: Then<readonly StoreResult[]>
}

type Open =
  | { readonly type: 'applied'; readonly parts: readonly Part[] }
  | { readonly type: 'claimed'; readonly go: Then<ClaimAnswer> }
  | { readonly type: 'due'; readonly go: Then<DueAnswer> }
  | { readonly type: 'browsed'; readonly go: Then<BrowseAnswer> }
  | { readonly type: 'topics'; readonly go: Then<TopicsAnswer> }
  | { readonly type: 'subscriptions'; readonly go: Then<SubscriptionsAnswer> }
  | { readonly type: 'counts'; readonly go: Then<readonly LineStats[]> }

/** An input that answers a call. */
export type StoreInput = Extract<Input, { readonly call: number }>

/** Milliseconds before a store that did not answer is asked again. */
export const STORE_RETRY_MS = 1000

/** See the top of this file. */
export class StoreCalls {
  readonly #open: YoungMap<number, Open> = new YoungMap()
  #calls = 0
  #ops: StoreOp[] = []
  #parts: Part[] = []
  #rest: Effect[] = []
  /** What the store does not do; undefined while it does all. */
  #trouble: 'anything' | 'growing' | undefined

  /** Applies operations; `then` gets their answers in their order. */
  apply(ops: readonly StoreOp[], then: Then<readonly StoreResult[]>): void {
    if (ops.length === 0) return
    for (const op of ops) this.#ops.push(op)
    const grows = ops.some(isGrowing)
    this.#parts.push({ count: ops.length, isGrowing: grows, ops: grows ? undefined : ops, go: then })
  }

  /** Visits the operations that are on their way, but for those that go with something new. */
  forEachOpen(visit: (op: StoreOp) => void): void {
    for (const open of this.#open.values()) {
      if (open.type === 'applied') for (const { ops } of open.parts) ops?.forEach(visit)
    }
  }

  claim(domain: string, request: ClaimRequest, then: Then<ClaimAnswer>): void {
    this.#rest.push({ type: 'claim', call: this.#register({ type: 'claimed', go: then }), domain, request })
  }

  due(max: number, then: Then<DueAnswer>): void {
    this.#rest.push({ type: 'due', call: this.#register({ type: 'due', go: then }), max })
  }

  browse(request: BrowseRequest, then: Then<BrowseAnswer>): void {
    this.#rest.push({ type: 'browse', call: this.#register({ type: 'browsed', go: then }), request })
  }

  topics(request: TopicsRequest, then: Then<TopicsAnswer>): void {
    this.#rest.push({ type: 'topics', call: this.#register({ type: 'topics', go: then }), request })
  }

  subscriptions(queue: string, then: Then<SubscriptionsAnswer>): void {
    this.#rest.push({ type: 'subscriptions', call: this.#register({ type: 'subscriptions', go: then }), queue })
  }

  count(queue: string, then: Then<readonly LineStats[]>): void {
    this.#rest.push({ type: 'count', call: this.#register({ type: 'counts', go: then }), queue })
  }

  /** Hands on what was asked in this step. */
  flush(step: Step): void {
    if (this.#ops.length > 0) {
      const call = this.#register({ type: 'applied', parts: this.#parts })
      step.effects.push({ type: 'apply', call, ops: this.#ops })
      this.#ops = []
      this.#parts = []
    }
    if (this.#rest.length === 0) return
    for (const effect of this.#rest) step.effects.push(effect)
    this.#rest = []
  }

  /** Takes an answer. */
  handle(step: Step, input: StoreInput): void {
    const open = this.#open.get(input.call)
    if (open === undefined || open.type !== input.type) return
    this.#open.delete(input.call)
    if (input.type === 'applied') {
      this.#handleApplied(step, (open as Extract<Open, { type: 'applied' }>).parts, input.results)
      return
    }
    if (input.type === 'counts') {
      ;(open as Extract<Open, { type: 'counts' }>).go(step, input.lines)
      return
    }
    this.#note(step, input.answer.status === 'unavailable' ? input.answer.error : undefined, 'anything')
    ;(open as { readonly go: Then<unknown> }).go(step, input.answer)
  }

  #handleApplied(step: Step, parts: readonly Part[], results: readonly StoreResult[]): void {
    const what = parts.some((part) => part.isGrowing) ? 'growing' : 'anything'
    const failed = results.find((result) => result.status === 'unavailable')
    this.#note(step, failed?.error, what)
    let at = 0
    for (const { count, go } of parts) {
      go(step, parts.length === 1 ? results : results.slice(at, at + count))
      at += count
    }
  }

  /** Tells of trouble once, and of its end when what was refused is done again: a full disk still takes acks. */
  #note(step: Step, error: XmqError | undefined, what: 'anything' | 'growing'): void {
    if (error !== undefined) {
      if (this.#trouble === undefined) step.emit({ name: 'store', queue: '', isAvailable: false, text: error.message })
      if (this.#trouble !== 'growing') this.#trouble = what
    } else if (this.#trouble === what || (this.#trouble !== undefined && what === 'growing')) {
      this.#trouble = undefined
      step.emit({ name: 'store', queue: '', isAvailable: true, text: 'The store answers again.' })
    }
  }

  #register(open: Open): number {
    const call = ++this.#calls
    this.#open.set(call, open)
    return call
  }
}

/** Whether an operation needs new space in the store. */
function isGrowing({ type }: StoreOp): boolean {
  return type === 'publish' || type === 'create-subscription'
}

/**
 * What a client hears when the store did not do what it was asked: to try again, and that nothing was kept. Why is the operator's to
 * know, in the log and on `/readyz`: it names files of the broker's machine.
 */
export function unavailable(cause: XmqError): XmqError {
  return new XmqError('overloaded', "The broker's store does not answer now; nothing was stored. Try again.", {
    retryAfterSeconds: 1,
    cause,
  })
}
