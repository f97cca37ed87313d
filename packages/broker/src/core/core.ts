/**
 * The core of the broker: one input, and what it makes the parts do. Synchronous, total and pure; see port.ts.
 *
 *     stanza, skipped --> what it means, and whose work it is (arrivals.ts)
 *     start --> what the store holds is looked through (loading.ts)
 *     applied, claimed, ... --> whatever waits for that answer goes on (store-calls.ts)
 *     claimable --> lines that something can be claimed from (dispatch.ts)
 *     link-up, link-down --> answers that waited are written (streams.ts); sessions are verified
 *     load --> new work is refused, or taken (overload.ts)
 *     shutdown --> open requests are answered, and who is connected is written down
 *     tick --> what is due
 *
 * Owner of the order within a step; it holds no state but the parts (parts.ts).
 *
 * Invariants:
 * 1. What is due is done before an input is looked at, so that nothing expired is ever served.
 * 2. At the end of each step lines are claimed from, then the step's calls go to the store: operations first.
 */
import type { XmqError } from '@xmq/protocol'
import { createParts, type Parts } from './parts.ts'
import type { Core, CoreRules, CoreStats, Effect, Entropy, Input } from './port.ts'
import { Step } from './step.ts'

/** Creates the core of a broker. @param rules validated and frozen */
export function createCore(rules: CoreRules): Core {
  return new QueueCore(rules)
}

class QueueCore implements Core {
  readonly #parts: Parts

  constructor(rules: CoreRules) {
    this.#parts = createParts(rules)
  }

  get deadline(): number | undefined {
    return this.#parts.deadlines.earliest
  }

  get refusal(): XmqError | undefined {
    return this.#parts.overload.refusal
  }

  get isPressed(): boolean {
    return this.#parts.overload.isPressed
  }

  get isLoading(): boolean {
    return this.#parts.loading.isLooking
  }

  stats(): CoreStats {
    const parts = this.#parts
    return {
      subscriptions: parts.subscriptions.count,
      consumers: parts.subscriptions.consumers,
      topics: parts.subscriptions.topics,
      openRequests: parts.requests.count,
      pings: parts.sessions.pings,
      leases: parts.leases.count,
      foundLeases: parts.found.count,
      unheardSettlements: parts.unheard.count,
      rememberedConsumers: parts.reconnecting.count,
      storingBytes: parts.publishing.storing,
      sessions: parts.sessions.count,
      heldAnswers: parts.streams.held,
      unansweredDeliveries: parts.deliveries.unanswered,
      ...this.#countInQueues(),
    }
  }

  #countInQueues(): Pick<
    CoreStats,
    'claimableTopics' | 'waitingDeliveries' | 'ephemeralMessages' | 'ephemeralBytes' | 'namedSubscriptions'
  > {
    const counts = {
      claimableTopics: 0,
      waitingDeliveries: 0,
      ephemeralMessages: 0,
      ephemeralBytes: 0,
      namedSubscriptions: 0,
    }
    for (const { lines, consumers } of this.#parts.queues.all) {
      for (const { id, claimable } of lines.values()) {
        counts.claimableTopics += claimable
        if (id !== '') counts.namedSubscriptions++
      }
      for (const { waiting, ephemeral } of consumers.values()) {
        counts.waitingDeliveries += waiting.length
        counts.ephemeralMessages += ephemeral?.items.length ?? 0
        counts.ephemeralBytes += ephemeral?.bytes ?? 0
      }
    }
    return counts
  }

  handle(input: Input, now: number, entropy: Entropy): Effect[] {
    const parts = this.#parts
    const step = new Step(now, entropy)
    this.#handleDue(step)
    switch (input.type) {
      case 'stanza':
        parts.arrivals.handle(step, input.stanza)
        break
      case 'skipped':
        parts.arrivals.handleSkipped(step, input.head, input.error)
        break
      case 'load':
        parts.overload.measured(step, input.load)
        break
      case 'link-up':
        this.#handleLinkUp(step, input.domain)
        break
      case 'link-down':
        this.#handleLinkDown(step, input.domain)
        break
      case 'shutdown':
        parts.requests.shutDown(step)
        for (const queue of parts.queues.all) parts.reconnecting.write(step, queue)
        break
      case 'tick':
        break
      case 'start':
        for (const queue of parts.queues.all) parts.loading.load(queue)
        parts.time.ask(step)
        break
      case 'claimable':
        parts.dispatch.claimable(input.topics)
        break
      default:
        parts.calls.handle(step, input)
    }
    parts.dispatch.run(step)
    parts.reconnecting.run(step)
    parts.calls.flush(step)
    return step.effects
  }

  #handleDue(step: Step): void {
    const parts = this.#parts
    for (;;) {
      const subject = parts.deadlines.takeDue(step.now)?.subject
      if (subject === undefined) return
      switch (subject.kind) {
        case 'expiry':
          parts.consuming.end(step, subject.subscription, 'expired')
          break
        case 'request-timeout':
          parts.requests.timedOut(step, subject.request)
          break
        case 'ping-due':
          parts.sessions.pingDue(step, subject.session)
          break
        case 'ping-timeout':
          parts.sessions.pingTimedOut(step, subject.session)
          break
        case 'claim-again':
          parts.dispatch.claimAgain(subject.line)
          break
        case 'store-due':
          parts.time.ask(step)
          break
        case 'trim-dead':
          parts.time.trim(step, subject.line)
          parts.named.endIdle(step, subject.line)
          break
        case 'load-again':
          parts.loading.load(subject.queue)
          break
        case 'remember':
          parts.reconnecting.write(step, subject.queue)
          break
        case 'say-again':
          parts.unheard.sayAgain()
          break
        case 'unanswered':
          parts.deliveries.overdue(step, subject.consumer, subject.id)
          break
        case 'found-over':
          parts.found.over(subject.queue)
          break
        case 'absence-over':
          parts.absences.over(step, subject.absence)
          break
      }
    }
  }

  #handleLinkUp(step: Step, name: string): void {
    const { streams, sessions, absences, reconnecting, deliveries, dispatch } = this.#parts
    const domain = streams.up(step, name)
    if (domain === undefined) return
    sessions.linkUp(step, domain)
    absences.linkUp(step, domain)
    this.#handleDue(step)
    reconnecting.linkUp(step, domain)
    deliveries.linkUp(step, domain)
    for (const queue of domain.queues) for (const line of queue.lines.values()) dispatch.wake(line)
  }

  #handleLinkDown(step: Step, name: string): void {
    const { streams, sessions, absences, deliveries } = this.#parts
    const domain = streams.down(name)
    if (domain === undefined) return
    absences.linkDown(step, domain)
    deliveries.linkDown(step, domain)
    sessions.linkDown(step, domain)
    this.#handleDue(step)
  }
}
