/**
 * Judges a run by its journals: what producers heard, what workers did, what was done to whom, and what is left at the end.
 *
 * | rule | it breaks when |
 * |---|---|
 * | lost | a confirmed message was neither finished by a worker of each of its lines, nor is it a dead letter that had to die |
 * | invented | a worker got what no producer sent, or something else than was sent |
 * | unexplained | a worker began a message that had been begun before, and nothing that was done then, or stood still, explains it |
 * | order | of one key, a message was begun before an earlier one was finished for the first time |
 * | stored-twice | one id has two seqs, one seq has two ids, or the second confirm of an id is not a `duplicate` |
 * | confirm | a confirm of another durability than the store's, or of too few durable subscriptions |
 * | unsettled | a publish never ended, or something still waits in the store when all had its time |
 * | given-up | a dead letter that nothing explains |
 *
 * Pure: it knows nothing but its arguments, so it is tested with journals that are wrong on purpose.
 */
import { linesOf, payloadOf, QUEUE_ALL, sumOf } from './messages.mjs'
import { BUSY_SHARE } from './stalls.mjs'

/**
 * How far from a delivery a fault may be and still explain the next one: a message lies in the worker for a moment before its
 * handler begins, and its ack is on its way for a moment after it ended.
 */
const SLACK_MS = 1000
/** What stood still, by the journal that says so: the thread itself wrote it, or that of the run, which does nothing but look. */
const STALLED = { faults: 'machine stalled', broker: 'broker stalled', store: "store's disk stalled" }
const WORKER_STALLED = 'its worker stalled'
/** A message may be given up after so many failures (`maxAttempts`), or so many deliveries that nobody settled. */
const ATTEMPTS_MAX = 5
const DELIVERIES_MAX = 20
const VIOLATIONS_MAX = 50

/**
 * @typedef {{ rule: string, text: string }} Violation
 * @typedef {{ sent: number, confirmed: number, finished: number, dead: Record<string, number>, lost: number,
 *   again: Record<string, number>, twice: Record<string, number>, knownAgain: number, lateSettles: number,
 *   violations: Violation[], violationCount: number }} Verdict
 */

/**
 * @param {{ lines: readonly object[], dead: readonly object[], left: readonly object[], leaseMs: number, durability?: string }} run
 *   `lines`: of all journals, those of `faults` included; `dead`, `left`: see remains.mjs; `leaseMs`: of the queues
 * @returns {Verdict}
 */
export function judge(run) {
  return new Oracle(run).judge()
}

class Oracle {
  #lines
  #dead
  #left
  #leaseMs
  #durability
  #violations = []
  #violationCount = 0
  /** By `queue id`. */
  #sent = new Map()
  #confirmed = new Map()
  /** The last life of each producer. */
  #lives = new Map()
  /** By `queue line seq`: deliveries that reached a handler, in their order. */
  #entries = new Map()
  #faults = []
  /** Of threads that did not get to run: `{ by, from, at }`. */
  #stalls = []
  #again = {}
  #twice = {}
  #lost = 0

  constructor({ lines, dead, left, leaseMs, durability = 'disk' }) {
    this.#lines = [...lines].sort((a, b) => a.at - b.at)
    this.#dead = new Map(dead.map((one) => [`${one.queue} ${one.line} ${one.seq}`, one]))
    this.#left = left
    this.#leaseMs = leaseMs
    this.#durability = durability
  }

  judge() {
    for (const line of this.#lines) this.#take(line)
    for (const entry of this.#entries.values()) this.#checkAgain(entry)
    this.#checkConfirmed()
    this.#checkEnds()
    this.#checkDead()
    this.#checkOrder()
    const count = (t) => this.#lines.filter((line) => line.t === t).length
    const dead = {}
    for (const { reason } of this.#dead.values()) dead[reason] = (dead[reason] ?? 0) + 1
    return {
      sent: this.#sent.size,
      confirmed: this.#confirmed.size,
      finished: [...this.#entries.values()].filter(({ deliveries }) => deliveries.some(isFinished)).length,
      dead,
      lost: this.#lost,
      again: this.#again,
      twice: this.#twice,
      knownAgain: count('duplicate'),
      lateSettles: count('settle-failed') + count('lease-lost'),
      violations: this.#violations,
      violationCount: this.#violationCount,
    }
  }

  #violate(rule, text) {
    this.#violationCount++
    if (this.#violations.length < VIOLATIONS_MAX) this.#violations.push({ rule, text })
  }

  // --- what the journals say ---

  #take(line) {
    switch (line.t) {
      case 'sent':
        return this.#takeSent(line)
      case 'confirmed':
        return this.#takeConfirmed(line)
      case 'refused':
      case 'unconfirmed':
        return this.#close(line)
      case 'delivered':
        return this.#takeDelivered(line)
      case 'finished':
      case 'failed':
      case 'rejected':
        return this.#takeOutcome(line)
      case 'fault':
        this.#faults.push({ ...line, until: Number.POSITIVE_INFINITY })
        return undefined
      case 'over':
        return this.#takeOver(line)
      case 'stalled':
        // A thread that was computing is no victim.
        if (line.ranMs < (line.at - line.from) * BUSY_SHARE) this.#stalls.push(line)
        return undefined
      default:
        return undefined
    }
  }

  #takeOver({ fault, at }) {
    const record = this.#faults.find((one) => one.fault === fault)
    if (record !== undefined) record.until = at
  }

  #takeSent(line) {
    const name = `${line.queue} ${line.id}`
    const known = this.#sent.get(name)
    // What a killed life had open is answered to nobody: the last life's word counts.
    if (known === undefined) this.#sent.set(name, { ...line, open: 1 })
    else if (known.life === line.life) known.open++
    else Object.assign(known, { life: line.life, open: 1 })
    this.#lives.set(line.by, line.life)
  }

  #close({ queue, id, life }) {
    const sent = this.#sent.get(`${queue} ${id}`)
    if (sent?.life === life) sent.open--
  }

  #takeConfirmed(line) {
    const { queue, id, seq, durability, duplicate, subscriptions } = line
    this.#close(line)
    const name = `${queue} ${id}`
    const sent = this.#sent.get(name)
    if (sent === undefined) return this.#violate('invented', `${name} was confirmed, but never sent`)
    if (durability !== this.#durability) {
      this.#violate('confirm', `${name} was confirmed as ${durability}, not ${this.#durability}`)
    }
    const lines = linesOf(queue).length
    if (queue === QUEUE_ALL && !duplicate && subscriptions !== lines) {
      this.#violate('confirm', `${name} was stored for ${subscriptions} of ${lines} durable subscriptions`)
    }
    const known = this.#confirmed.get(name)
    if (known === undefined) this.#confirmed.set(name, { queue, id, seq, sent })
    else if (known.seq !== seq) this.#violate('stored-twice', `${name} is ${known.seq} and ${seq}`)
    else if (!duplicate) this.#violate('stored-twice', `${name} was confirmed twice as new, as ${seq}`)
    return undefined
  }

  #takeDelivered(line) {
    const { queue, seq, id } = line
    const sent = this.#sent.get(`${queue} ${id}`)
    if (sent === undefined) this.#violate('invented', `${line.by} got ${queue} ${seq} (${id}), which nobody sent`)
    else if (sent.topic !== line.topic || sumOf(payloadOf(sent)) !== line.sum) {
      this.#violate('invented', `${line.by} got ${queue} ${seq} (${id}) as something else than was sent`)
    }
    const name = `${queue} ${line.line} ${seq}`
    let entry = this.#entries.get(name)
    if (entry === undefined) {
      entry = { name, queue, line: line.line, seq, id, deliveries: [] }
      this.#entries.set(name, entry)
    } else if (entry.id !== id) this.#violate('stored-twice', `${name} is ${entry.id} and ${id}`)
    entry.deliveries.push({ by: line.by, life: line.life, at: line.at, attempt: line.attempt, end: undefined })
  }

  #takeOutcome({ t, at, by, life, queue, line, seq }) {
    const deliveries = this.#entries.get(`${queue} ${line} ${seq}`)?.deliveries ?? []
    const mine = deliveries.find((one) => one.by === by && one.life === life && one.end === undefined)
    if (mine !== undefined) {
      mine.end = { t, at }
      return
    }
    // A message that was waiting when its lease was lost fails without having begun; a rejected one fails, too.
    if (t === 'finished') this.#violate('invented', `${by} finished ${queue} ${seq}, which it did not get`)
  }

  // --- the rules ---

  /** Every further delivery needs a cause. */
  #checkAgain({ name, deliveries }) {
    for (const [at, next] of deliveries.slice(1).entries()) {
      const last = deliveries[at]
      const cause = this.#causeOf(last, next)
      if (cause === undefined) {
        const was = last.end === undefined ? 'was never done with it' : `${last.end.t} it at ${last.end.at.toFixed(0)}`
        this.#violate(
          'unexplained',
          `${name}: ${last.by}.${last.life} began it at ${last.at.toFixed(0)} and ${was}; ` +
            `${next.by}.${next.life} began it at ${next.at.toFixed(0)} (attempt ${next.attempt})`,
        )
      }
      const what = cause ?? 'nothing'
      this.#again[what] = (this.#again[what] ?? 0) + 1
      if (isFinished(next) && deliveries.slice(0, at + 1).some(isFinished))
        this.#twice[what] = (this.#twice[what] ?? 0) + 1
    }
  }

  #causeOf(last, next) {
    // An earlier delivery than the last one: it lay before a worker that was not awake, or on a way that was cut.
    if (next.attempt < last.attempt) return this.#faultNear(next.by, last.at - SLACK_MS, next.at)
    if (last.end?.t === 'failed') return 'its handler threw'
    const until = Math.min(next.at, (last.end?.at ?? Number.POSITIVE_INFINITY) + SLACK_MS)
    return this.#faultNear(last.by, last.at - SLACK_MS, until) ?? this.#stallNear(last, next, until)
  }

  /** A lease that ended since somebody who had to extend it did not run: so it was as old as a lease, and they stalled meanwhile. */
  #stallNear(last, next, until) {
    if (next.at - last.at < this.#leaseMs - SLACK_MS) return undefined
    const near = this.#stalls.filter(({ from, at }) => from <= until && at >= last.at - SLACK_MS)
    if (near.some(({ by }) => by === last.by)) return WORKER_STALLED
    return STALLED[near.find(({ by }) => STALLED[by] !== undefined)?.by]
  }

  /** What was done to a worker, or to all, in that time: the worker's own fault is the likelier cause. */
  #faultNear(worker, from, until) {
    const near = this.#faults.filter((fault) => fault.at <= until && fault.until >= from)
    const fault = near.find(({ victim }) => victim === worker) ?? near.find(({ victim }) => isShared(victim))
    return fault?.kind
  }

  #checkConfirmed() {
    for (const { queue, id, seq, sent } of this.#confirmed.values()) {
      for (const line of linesOf(queue)) {
        const name = `${queue} ${line} ${seq}`
        const entry = this.#entries.get(name)
        if (entry?.deliveries.some(isFinished) === true || this.#dead.get(name)?.id === id) continue
        this.#lost++
        const fate =
          entry === undefined ? 'no worker ever got it' : `${entry.deliveries.length} deliveries, none finished`
        const held = this.#left.some((one) => one.seq === seq && one.queue === queue)
          ? '; it is still in the store'
          : ''
        this.#violate('lost', `${name} (${id} by ${sent.by}) was confirmed at ${sent.at.toFixed(0)}: ${fate}${held}`)
      }
    }
  }

  #checkEnds() {
    for (const [name, { open, by, life }] of this.#sent) {
      const isConfirmed = this.#confirmed.has(name)
      if (open > 0 && (!isConfirmed || life === this.#lives.get(by)))
        this.#violate('unsettled', `${name}: ${by} never heard what became of it`)
    }
    for (const { queue, line, seq, id, state, deliveries } of this.#left) {
      this.#violate('unsettled', `${queue} ${line} ${seq} (${id}) is still ${state} after ${deliveries} deliveries`)
    }
  }

  #checkDead() {
    for (const { queue, line, seq, id, reason, failures, deliveries: handedOut } of this.#dead.values()) {
      const confirmed = this.#confirmed.get(`${queue} ${id}`)
      if (confirmed !== undefined && confirmed.seq !== seq)
        this.#violate('stored-twice', `${queue} ${line} ${id} was confirmed as ${confirmed.seq} and is dead as ${seq}`)
      const sent = this.#sent.get(`${queue} ${id}`)
      const deliveries = this.#entries.get(`${queue} ${line} ${seq}`)?.deliveries ?? []
      const isExplained =
        sent !== undefined &&
        ((reason === 'expired' && sent.ttlMs !== undefined) ||
          (reason === 'rejected' && deliveries.some(({ end }) => end?.t === 'rejected')) ||
          (reason === 'max-attempts' && (failures >= ATTEMPTS_MAX || handedOut >= DELIVERIES_MAX)))
      if (!isExplained)
        this.#violate('given-up', `${queue} ${line} ${seq} (${id}) is dead: ${reason}, ${failures} failures`)
      if (reason === 'max-attempts') this.#checkFailures(`${queue} ${line} ${seq}`, deliveries)
    }
  }

  /** Each failure that is counted against a message is one that its worker told, or that was done to its worker. */
  #checkFailures(name, deliveries) {
    const unexplained = deliveries.filter(
      (one) =>
        one.end?.t !== 'failed' &&
        this.#causeOf(one, { at: Number.POSITIVE_INFINITY, attempt: one.attempt + 1 }) === undefined,
    )
    if (unexplained.length > 0) this.#violate('given-up', `${name} counts failures that nobody told`)
  }

  /** Of one topic and key: nothing begins before what came earlier was finished for the first time, or is dead. */
  #checkOrder() {
    const chains = new Map()
    for (const entry of this.#entries.values()) {
      const sent = this.#sent.get(`${entry.queue} ${entry.id}`)
      if (sent?.key === undefined) continue
      const chain = `${entry.queue} ${entry.line} ${sent.topic} ${sent.key}`
      chains.set(chain, [...(chains.get(chain) ?? []), entry])
    }
    for (const [chain, entries] of chains) {
      entries.sort((a, b) => a.seq - b.seq)
      let earlier
      for (const entry of entries) {
        // By time: of two deliveries, the one that began later may have ended first.
        const finishedAt = Math.min(...entry.deliveries.filter(isFinished).map(({ end }) => end.at))
        const begunAt = entry.deliveries[0].at
        if (earlier !== undefined && begunAt < earlier.finishedAt) {
          this.#violate('order', `${chain}: ${entry.seq} was begun before ${earlier.seq} was finished`)
        }
        if (finishedAt < Number.POSITIVE_INFINITY) earlier = { seq: entry.seq, finishedAt }
      }
    }
  }
}

function isFinished({ end }) {
  return end?.t === 'finished'
}

/** Whether what happens to it may touch every message. */
function isShared(victim) {
  return !victim.startsWith('worker') && !victim.startsWith('producer')
}
