/**
 * Owner of leases whose session was found gone after a stream of its queue's domain broke. When a server is restarted all sessions end
 * at once, while their workers run on: they come back under other resources, and name what they hold. What is given away before they
 * could is done twice.
 *
 *     sent to a session that is found gone --> awaited --named by its holder---------------> its worker's again, or settled
 *                                                ^ '----the absence is over--------------> as at any other end of a session
 *                                                '------the stream broke again: from its next beginning on
 *
 * An absence lasts as long as the stream was away: clients that cannot connect try at pauses which grow with the time that they have
 * tried. It has bounds both ways, {@link ABSENCE_MS_MIN} and {@link ABSENCE_MS_MAX}. While nobody can be heard, and for so long after it,
 * no lease of what was sent ends by its time either.
 *
 * Invariants:
 * 1. What is awaited was sent to a reliable consumer before the stream broke, is leased in the store, and has no consumer.
 * 2. It ends when it has been leased for `maxLease` at the latest, however often the stream breaks.
 * 3. An absence is forgotten when it is over.
 */
import type { Deadlines } from './deadlines.ts'
import type { Leases } from './leases.ts'
import { Absence, type Consumer, type Domain, type Lease } from './records.ts'
import type { Step } from './step.ts'

/** A client's first tries come within a second or so. */
export const ABSENCE_MS_MIN = 2000
/** No client of ours pauses for longer between two tries, unless it was told to. */
export const ABSENCE_MS_MAX = 30_000

/** What {@link Absences} needs. */
export interface AbsencesOptions {
  readonly deadlines: Deadlines
  readonly leases: Leases
}

/** See the top of this file. */
export class Absences {
  readonly #options: AbsencesOptions
  readonly #absences: Set<Absence> = new Set()
  /** Since when the streams are down that are. */
  readonly #downAt: Map<Domain, number> = new Map()
  /** Of the streams that are up again: how long an absence lasts, and until when it lasts for all. */
  readonly #returns: Map<Domain, { readonly absenceMs: number; readonly until: number }> = new Map()

  constructor(options: AbsencesOptions) {
    this.#options = options
  }

  /** A consumer's session has ended. @returns those of its leases for which nobody is awaited */
  begin(step: Step, { queue, session, kind, leases }: Consumer): readonly Lease[] {
    if (!session.isUnseen) return [...leases]
    const { epoch, isDown } = queue.domain
    const awaited: Lease[] = []
    const others: Lease[] = []
    for (const lease of leases) {
      // What went out over the stream that holds came too late.
      const isSent = kind === 'reliable' && lease.sentOver !== undefined && (isDown || lease.sentOver !== epoch)
      const isAwaited = lease.ephemeral === undefined && (lease.isReceived || isSent)
      ;(isAwaited ? awaited : others).push(lease)
    }
    if (awaited.length === 0) return others
    for (const lease of awaited) {
      this.#options.leases.add(lease, undefined)
      lease.isAwaited = true
    }
    const absence = new Absence(queue, awaited)
    this.#absences.add(absence)
    this.#await(step, absence)
    return others
  }

  /** The stream of a domain ended. */
  linkDown(step: Step, domain: Domain): void {
    if (!this.#downAt.has(domain)) this.#downAt.set(domain, step.now)
  }

  /** The stream of a domain is up: only now can anybody come back. */
  linkUp(step: Step, domain: Domain): void {
    const downAt = this.#downAt.get(domain)
    if (downAt === undefined) return
    this.#downAt.delete(domain)
    const absenceMs = Math.min(Math.max(step.now - downAt, ABSENCE_MS_MIN), ABSENCE_MS_MAX)
    this.#returns.set(domain, { absenceMs, until: step.now + absenceMs })
    for (const absence of this.#absences) if (absence.queue.domain === domain) this.#await(step, absence)
  }

  /** Whether a lease whose time is over may have a worker that cannot be heard, or could not be until now. */
  mayBeHeld(step: Step, { queue, consumer, item, isReceived, isAwaited }: Lease): boolean {
    if (isAwaited) return true
    const { domain } = queue
    const isDeaf = domain.isDown || step.now < (this.#returns.get(domain)?.until ?? Number.NEGATIVE_INFINITY)
    return isDeaf && (isReceived || (consumer?.kind === 'reliable' && item === undefined))
  }

  /** Its worker had its time. */
  over(step: Step, absence: Absence): void {
    const { queue, leases } = absence
    // It begins anew with the next stream.
    if (queue.domain.isDown) return
    this.#absences.delete(absence)
    const left = leases.filter(({ isAwaited }) => isAwaited)
    this.#options.leases.giveBack(step, left, 'session-ended')
  }

  #await(step: Step, { queue, over }: Absence): void {
    const { absenceMs } = this.#returns.get(queue.domain) ?? { absenceMs: ABSENCE_MS_MIN }
    this.#options.deadlines.set(over, step.now + absenceMs)
  }
}
