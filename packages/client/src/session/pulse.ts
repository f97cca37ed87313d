/**
 * Whether what was asked still will be answered. Owner: one session, while its queue is reliable. docs/protocol-reliable.md
 * "Lost answers".
 *
 *     quiet --something is asked--> watching --not answered for SLOW_MS--> asking `<alive/>` --> watching | quiet
 *     any   --a server answers in the queue's place--> away: asking until the queue does
 *     quiet --a queue that keeps nothing, for IDLE_MS--> asking: whoever serves it next does not know us, and does not call
 *
 *     an answer names another epoch --> what was sent before its question is lost, and is sent again by its owner
 *
 * Invariants:
 * 1. Every IQ to the queue that is repeated when its answer is lost has a number, in the order in which they leave.
 * 2. Whatever is numbered from `#since` on went to the broker and stream that `#epoch` names, or to a later one: streams are
 *    ordered. What is before is answered or lost.
 * 3. Nothing is asked while nothing is open, but for a queue that is away or keeps nothing. At most QUESTIONS_MAX questions are open; the next one
 *    leaves after a pause, which grows while nothing comes of it.
 * 4. What a question has shown to have arrived is asked for again at growing intervals only.
 */
import { encodeAlive, isSameLife, stanza } from '@xmq/protocol'
import type { Effect, Entropy, SessionRules } from './port.ts'
import type { Timers } from './timers.ts'

/** An answer is slow after this, and is noticed within twice of it; the upper end where answers come, but slowly. */
const SLOW_MS = 500
const SLOW_MS_MAX = 2000
/** First and longest pause between two questions about what has arrived, or whose questions are not answered. */
const PATIENCE_MS_MIN = 1000
const PATIENCE_MS_MAX = 10_000
const SILENT_MS_MAX = 5000
/** Pauses while a server says that nobody serves the queue: short ones for as long as a broker takes to start, long ones after a minute or so. */
const AWAY_MIN_MS = 100
const SOON_BACK_MS = 200
const SOON_BACK_FAILURES = 20
const AWAY_MS = 500
const LONG_AWAY_MS = 5000
const LONG_AWAY_FAILURES = 120
const QUESTIONS_MAX = 8
/** While nothing is open, a queue that keeps nothing is asked so often whether its broker still is the one that knows us. */
const IDLE_MS = 3000

/** The timer of this. */
export const PULSE_TIMER = 'pulse'

/** What an answer has shown. */
export interface Shown {
  /** What was numbered below is answered or lost; `undefined` when nothing is lost. */
  readonly lostBefore: number | undefined
  /** Another broker than before: it knows nothing of requests in progress. */
  readonly isNewLife: boolean
  /** The queue was away, and is back. */
  readonly isBack: boolean
}

const NOTHING: Shown = { lostBefore: undefined, isNewLife: false, isBack: false }

/** See the top of this file. */
export class Pulse {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  #number = 0
  #epoch: string | undefined
  #since = 0
  /** What is numbered up to here has arrived. */
  #arrived = 0
  /** Questions that are open, with their numbers. */
  readonly #questions = new Map<string, number>()
  #isUp = false
  #isWatching = false
  /** The timer is that of {@link Pulse.idle}. */
  #isIdling = false
  /** What is open and numbered up to here was so when the timer was set. */
  #mark = 0
  /** When to ask again for what has arrived, and how long after that. */
  #patienceAt = 0
  #patienceMs = PATIENCE_MS_MIN
  #slowMs = SLOW_MS
  /** Questions since the last answer to one. */
  #silent = 0
  /** Times that a server answered in the queue's place, since the queue did. */
  #absences = 0

  constructor(rules: SessionRules, timers: Timers<string | number>) {
    this.#rules = rules
    this.#timers = timers
  }

  /** Who answered last, if that is known. */
  get epoch(): string | undefined {
    return this.#epoch
  }

  /** Whether the timer is set. */
  get isWatching(): boolean {
    return this.#isWatching
  }

  /** Numbers what is sent now. */
  next(): number {
    return ++this.#number
  }

  /** The number that was given last. */
  get last(): number {
    return this.#number
  }

  /** The connection is up and the queue reliable. */
  up(): void {
    this.#isUp = true
    this.#arrived = this.#number
  }

  /** The connection ended. What was sent over it is its owners' to send again; the epoch stays known. */
  down(): void {
    this.#isUp = false
    this.#isWatching = false
    this.#isIdling = false
    this.#questions.clear()
    this.#since = this.#number + 1
    this.#silent = 0
    this.#absences = 0
    this.#timers.delete(PULSE_TIMER)
  }

  /** Something is open: it is to be looked at in a while. */
  watch(now: number): void {
    if (this.#isWatching || !this.#isUp) return
    this.#isWatching = true
    this.#isIdling = false
    this.#mark = this.#number
    this.#patienceMs = PATIENCE_MS_MIN
    this.#timers.set(PULSE_TIMER, now + this.#slowMs)
  }

  /** Nothing is open, and the queue would not call: it is asked in a while, unless something is open by then. */
  idle(now: number): void {
    if (this.#isIdling || this.#absences > 0 || !this.#isUp) return
    this.#isIdling = true
    this.#timers.set(PULSE_TIMER, now + IDLE_MS)
  }

  /** A server answered in the queue's place: the queue is asked soon. */
  absent(now: number): void {
    if (!this.#isUp || this.#absences > 0) return
    this.#absences = 1
    this.#isWatching = true
    this.#isIdling = false
    this.#timers.set(PULSE_TIMER, now + AWAY_MIN_MS)
  }

  /**
   * The timer.
   * @param oldest the least number above a given one that has no answer
   */
  timer(oldest: (above: number) => number | undefined, now: number, entropy: Entropy, out: Effect[]): void {
    const fresh = oldest(this.#arrived)
    const wasIdling = this.#isIdling
    this.#isIdling = false
    if (wasIdling || this.#absences > 0 || (fresh !== undefined && fresh <= this.#mark)) {
      this.#ask(now, entropy, out)
      return
    }
    this.#slowMs = Math.max(SLOW_MS, this.#slowMs / 2)
    if (fresh === undefined && oldest(0) === undefined) {
      this.#isWatching = false
      return
    }
    if (oldest(0) !== fresh && now >= this.#patienceAt) {
      this.#ask(now, entropy, out)
      return
    }
    this.#mark = this.#number
    this.#timers.set(PULSE_TIMER, now + this.#slowMs)
  }

  #ask(now: number, entropy: Entropy, out: Effect[]): void {
    const id = entropy.id()
    this.#questions.set(id, this.next())
    const [first] = this.#questions.keys()
    if (this.#questions.size > QUESTIONS_MAX && first !== undefined) this.#questions.delete(first)
    const head = { type: 'get', id, to: this.#rules.queue }
    out.push({ type: 'send', stanza: stanza('iq', head, [encodeAlive()]) })
    this.#mark = this.#number
    this.#timers.set(PULSE_TIMER, now + Math.min(SILENT_MS_MAX, 2 * SLOW_MS * 1.5 ** this.#silent))
    this.#silent = Math.min(this.#silent + 1, QUESTIONS_MAX)
  }

  #awayMs(entropy: Entropy): number {
    const most = this.#absences > SOON_BACK_FAILURES ? AWAY_MS : SOON_BACK_MS
    const bound = this.#absences > LONG_AWAY_FAILURES ? LONG_AWAY_MS : most
    return (bound / 2) * (1 + entropy.unit())
  }

  isQuestion(id: string): boolean {
    return this.#questions.has(id)
  }

  /**
   * A question was answered.
   * @param epoch as the answer names it
   * @param isAbsence whether a server answered in the queue's place
   */
  answered(id: string, epoch: string | undefined, isAbsence: boolean, now: number, entropy: Entropy): Shown {
    const number = this.#questions.get(id) ?? 0
    this.#questions.delete(id)
    this.#isIdling = false
    this.#silent = 0
    if (isAbsence) {
      this.#absences = Math.max(1, this.#absences) + 1
      this.#timers.set(PULSE_TIMER, now + this.#awayMs(entropy))
      return NOTHING
    }
    // What others heard once says little: only a question that came back shows that the queue was away.
    const isBack = this.#absences > 1
    this.#absences = 0
    this.#arrived = Math.max(this.#arrived, number)
    this.#patienceAt = now + this.#patienceMs
    this.#patienceMs = Math.min(PATIENCE_MS_MAX, this.#patienceMs * 2)
    this.#slowMs = Math.min(SLOW_MS_MAX, this.#slowMs * 2)
    this.#mark = this.#number
    this.#timers.set(PULSE_TIMER, now + this.#slowMs)
    if (epoch === undefined) return { ...NOTHING, isBack }
    const isFirst = this.#epoch === undefined
    const shown = this.heard(epoch, number)
    // A question is answered at once: what was sent before the first one that tells the epoch, and is open, may be an older one's.
    const lostBefore = shown.lostBefore ?? (isFirst ? number : this.#since)
    return { lostBefore, isNewLife: shown.isNewLife, isBack: isBack || shown.isBack }
  }

  /**
   * An answer or a call of the queue names its epoch.
   * @param number of what it answers; a call answers nothing: everything so far may have gone elsewhere
   */
  heard(epoch: string, number: number = this.#number + 1): Shown {
    const before = this.#epoch
    if (epoch === before) return NOTHING
    this.#epoch = epoch
    this.#since = number
    if (before === undefined) return NOTHING
    this.#absences = 0
    return { lostBefore: number, isNewLife: !isSameLife(before, epoch), isBack: true }
  }

  /** The detection has told the epoch. */
  learn(epoch: string | undefined): void {
    if (epoch !== undefined && this.#epoch === undefined) this.#epoch = epoch
  }
}

/** The lesser of two numbers, each of which may be missing. */
export function least(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return Math.min(a, b)
}
