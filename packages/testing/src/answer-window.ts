/**
 * How many requests of a client may be unanswered once it did not heed: owner of their count. Whoever did not heed a `wait` would
 * fill, with each second that it is read, all that lies between the server and the component with what is refused then.
 *
 *     idle --watch--> open --UNANSWERED_MAX--> full --half of them answered, or FULL_MS_MAX--> open --WATCH_MS--> idle
 *
 * Invariants:
 * 1. Nothing is counted while idle: a client that heeds may have as many requests under way as it likes.
 * 2. Full ends by itself: an answer that never comes holds nobody for ever, and what was counted is forgotten with it.
 */

/** So long a client is watched after the last refusal that held it. */
export const WATCH_MS = 30_000
/** So many requests a watched client may have unanswered: enough for the whole pace of a broker that takes them. */
export const UNANSWERED_MAX = 500
/** The longest time that a client is not read for them. */
const FULL_MS_MAX = 1000

/** See the top of this file. */
export class AnswerWindow {
  readonly #onOpen: () => void
  #watchedUntil = Number.NEGATIVE_INFINITY
  #unanswered = 0
  #full: NodeJS.Timeout | undefined

  /** @param onOpen it is full no more */
  constructor(onOpen: () => void) {
    this.#onOpen = onOpen
  }

  get isFull(): boolean {
    return this.#full !== undefined
  }

  isWatching(now: number): boolean {
    return now < this.#watchedUntil
  }

  /** The client did not heed. */
  watch(now: number): void {
    if (!this.isWatching(now)) this.#unanswered = 0
    this.#watchedUntil = now + WATCH_MS
  }

  /** The client asked something that is to be answered; told only while it is watched. @returns whether it is full by that */
  asked(): boolean {
    this.#unanswered++
    if (this.isFull || this.#unanswered < UNANSWERED_MAX) return false
    this.#full = setTimeout(() => {
      this.#unanswered = 0
      this.#open()
    }, FULL_MS_MAX)
    return true
  }

  /** The client was answered. */
  answered(): void {
    if (this.#unanswered > 0) this.#unanswered--
    if (this.isFull && this.#unanswered <= UNANSWERED_MAX / 2) this.#open()
  }

  /** The connection is over, or needs to be read. */
  end(): void {
    clearTimeout(this.#full)
    this.#full = undefined
  }

  #open(): void {
    this.end()
    this.#onOpen()
  }
}
