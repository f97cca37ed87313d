/** Misbehaviour on demand: what goes wrong between real servers and their peers, at the moment that a test wants it. */
import type { DropManner, StallWhat } from './connection.ts'
import type { PresenceBook } from './presence.ts'
import type { Router } from './router.ts'

/** Ways to make the server misbehave. `who` is a full JID or a component's domain; a stranger throws `not-found`. */
export interface Misbehave {
  /** Ends a connection: `cut` (no word), `reset` (RST), `close` (stream close), or a stream error. @default 'cut' */
  drop(who: string, manner?: DropManner): void
  /** The same, for sessions. */
  dropSession(fullJid: string, manner?: DropManner): void
  /** Stops reading from a connection, writing to it, or both. @default 'both' */
  stall(who: string, what?: StallWhat): void
  unstall(who: string): void
  /** Routes every stanza that much later, in the same order; 0 ends it. */
  delay(ms: number): void
  /** Cuts a connection inside the next stanza sent to it, after that many bytes. @default its middle */
  cutNextStanza(who: string, atByte?: number): void
  /** Holds the `unavailable` of every session that ends, as ejabberd's may come late (also of sessions replaced). */
  holdUnavailable(): void
  /** Sends what was held, and holds no longer. */
  releaseUnavailable(): void
  /** Sends each `unavailable` that many times from now on: 0 never, 1 normally, at most 10. */
  repeatUnavailable(times: number): void
  /** The server dies: every connection gets an RST and the ports are closed, until {@link start}. */
  kill(): Promise<void>
  /** Starts it again on the same ports. */
  start(): Promise<void>
}

const DELAYED_MAX = 1_000_000

/**
 * Lets jobs pass at once or after a delay, in their order always. Owner of what is delayed.
 *
 * Invariant: a job never overtakes an earlier one, whatever the delay was when it came.
 */
export class DelayLine {
  #ms = 0
  #waiting: { readonly due: number; readonly job: () => void }[] = []
  #timer: NodeJS.Timeout | undefined

  readonly pass = (job: () => void): void => {
    if (this.#ms === 0 && this.#waiting.length === 0) return job()
    if (this.#waiting.length >= DELAYED_MAX) this.flush()
    this.#waiting.push({ due: performance.now() + this.#ms, job })
    this.#arm()
  }

  set(ms: number): void {
    this.#ms = Math.max(0, ms)
    if (this.#ms === 0) this.flush()
  }

  /** Runs all that waits, now. */
  flush(): void {
    const jobs = this.#waiting
    this.#waiting = []
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const { job } of jobs) job()
  }

  /** Drops all that waits. */
  clear(): void {
    this.#waiting = []
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #arm(): void {
    const [first] = this.#waiting
    if (first === undefined || this.#timer !== undefined) return
    this.#timer = setTimeout(() => this.#run(), Math.max(0, first.due - performance.now()))
  }

  #run(): void {
    this.#timer = undefined
    const now = performance.now()
    let count = 0
    while ((this.#waiting[count]?.due ?? Number.POSITIVE_INFINITY) <= now) count++
    for (const { job } of this.#waiting.splice(0, count)) job()
    this.#arm()
  }
}

/** Wires the orders to those who can carry them out. */
export function createMisbehave(
  router: Router,
  presence: PresenceBook,
  delays: DelayLine,
  power: { readonly kill: () => Promise<void>; readonly start: () => Promise<void> },
): Misbehave {
  const drop = (who: string, manner: DropManner = 'cut'): void => {
    for (const connection of router.connectionsOf(who)) connection.drop(manner)
  }
  return {
    drop,
    dropSession: drop,
    stall(who, what = 'both') {
      for (const connection of router.connectionsOf(who)) connection.stall(what)
    },
    unstall(who) {
      for (const connection of router.connectionsOf(who)) connection.unstall()
    },
    delay: (ms) => delays.set(ms),
    cutNextStanza(who, atByte) {
      for (const connection of router.connectionsOf(who)) connection.cutNext(atByte)
    },
    holdUnavailable: () => presence.hold(),
    releaseUnavailable: () => presence.release(),
    repeatUnavailable: (times) => presence.repeat(times),
    kill: power.kill,
    start: power.start,
  }
}
