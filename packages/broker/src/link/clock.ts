/** Time and timers as the link sees them; tests hand in their own. */

/** A clock with timers. */
export interface LinkClock {
  /** Wall milliseconds. */
  now(): number
  /** Runs `run` once after `ms` milliseconds, unless the returned function is called before. */
  after(ms: number, run: () => void): () => void
}

/** The machine's own clock. */
export const systemClock: LinkClock = Object.freeze({
  now: () => Date.now(),
  after(ms: number, run: () => void): () => void {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
})
