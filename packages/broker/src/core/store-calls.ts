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
import { XmqError } from '@xmq/protocol'
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
  readonly #open: Map<number, Open> = new Map()
  #calls = 0
  #ops: StoreOp[] = []
  #parts: Part[] = []
  #rest: Effect[] = []
  /** Why the store does not answer; undefined while it does. */
  #trouble: string | undefined

  /** Applies operations; `then` gets their answers in their order. */
  apply(ops: readonly StoreOp[], then: Then<readonly StoreResult[]>): void {
    if (ops.length === 0) return
    for (const op of ops) this.#ops.push(op)
    this.#parts.push({ count: ops.length, go: then })
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
    this.#note(step, input.answer.status === 'unavailable' ? input.answer.error : undefined)
    ;(open as { readonly go: Then<unknown> }).go(step, input.answer)
  }

  #handleApplied(step: Step, parts: readonly Part[], results: readonly StoreResult[]): void {
    const first = results[0]
    this.#note(step, first?.status === 'unavailable' ? first.error : undefined)
    let at = 0
    for (const { count, go } of parts) {
      go(step, parts.length === 1 ? results : results.slice(at, at + count))
      at += count
    }
  }

  #note(step: Step, error: XmqError | undefined): void {
    if ((error === undefined) === (this.#trouble === undefined)) return
    this.#trouble = error?.message
    const text = error?.message ?? 'The store answers again.'
    step.emit({ name: 'store', queue: '', isAvailable: error === undefined, text })
  }

  #register(open: Open): number {
    const call = ++this.#calls
    this.#open.set(call, open)
    return call
  }
}

/** What a client hears when the store did not do what it was asked: to try again, and that nothing was kept. */
export function unavailable(cause: XmqError): XmqError {
  return new XmqError('overloaded', `The broker's store does not answer now; nothing was stored. ${cause.message}`, {
    retryAfterSeconds: 1,
    cause,
  })
}
