/**
 * The broker's own load, measured ten times a second while there is any. Owner: the runtime, which hands it to the core.
 *
 *     timer, late by ------------------------------> loopDelayMs  (average)
 *     a ping of ours through the server, back after -> inputDelayMs (counts while the process is busy)
 *     the store loop's backlog and its pace ---------> commitMs
 *
 * Why a ping: a socket that always has something to read keeps the event loop busy and not late, and what waits, waits in the
 * kernel and in the server. Only a stanza that took the same way knows how long. A server that hangs delays it, too: then this
 * process has nothing to do, and it does not count.
 *
 * A process that was stopped for a while (SIGSTOP, a paused virtual machine) is late with everything, and has no load: a look that
 * comes very late without much CPU used since the last one is a pause, and is not measured. Two in a row are not: a machine that
 * has no CPU for this process is a load.
 *
 * An operator is told of a long delay all the same: a server that passes on a flood more slowly than it comes keeps it, and what workers
 * send waits behind it, while this process has little to do.
 *
 * Invariants:
 * 1. While nothing is near its bound, nothing is told, and nothing is pinged while the process is mostly idle.
 * 2. What was told last and was not zero is followed by what comes after it, until it is zero.
 */
import type { Load } from './core/port.ts'

/** Milliseconds between two looks. */
const SAMPLE_MS = 100
/** Shares of time that the event loop has something to do: above them pings go out, above them their delay counts. */
const PROBING_SHARE = 0.5
const BUSY_SHARE = 0.7
/** What a new look weighs in an average. */
const WEIGHT = 0.4
/** A share below which a measure is not worth a word. */
const TOLD_SHARE = 0.25

/** A look so late may be one after a pause. */
const PAUSE_MS_MIN = 500
/** Pauses between two words about a server that is behind. */
const BEHIND_PAUSE_MS = 60_000

/** It is, when the process used less than this share of that time: what came before the pause may have cost some of it. */
const PAUSE_CPU_SHARE = 0.1

/** What {@link LoadMeter} needs. */
export interface LoadPort {
  /** Each measure's bound. */
  readonly max: Load
  /** Milliseconds of a clock that nobody sets. */
  now(): number
  /** Milliseconds of CPU that the process has used. */
  cpuMs(): number
  /** The share of time since the last call in which the event loop had something to do. */
  busyShare(): number
  /** Milliseconds that a message which comes now will wait for the store. */
  commitMs(): number
  /** The longest delay of the pings, those included that are not back. */
  inputDelayMs(): number
  /** Sends one ping on each link that has none under way. */
  probe(): void
  onLoad(load: Load): void
  /** Nothing ran for so long: what has waited meanwhile has not waited for us. */
  onPause(ms: number): void
  /** A ping takes longer than `max.inputDelayMs`, whoever is to blame: told once a minute while it is so. */
  onBehind(ms: number): void
}

/** See the top of this file. */
export class LoadMeter {
  readonly #port: LoadPort
  #timer: NodeJS.Timeout | undefined
  #sampledAt = 0
  #cpuMs = 0
  #wasPaused = false
  #busy = 0
  #load: Load = { loopDelayMs: 0, inputDelayMs: 0, commitMs: 0 }
  #isTold = false
  #behindToldAt = Number.NEGATIVE_INFINITY

  constructor(port: LoadPort) {
    this.#port = port
  }

  /** As measured last. */
  get load(): Load {
    return this.#load
  }

  start(): void {
    this.#sampledAt = this.#port.now()
    this.#cpuMs = this.#port.cpuMs()
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #sample(): void {
    const now = this.#port.now()
    const late = Math.max(0, now - this.#sampledAt - SAMPLE_MS)
    this.#sampledAt = now
    if (this.#isPause(late)) {
      this.#port.busyShare()
      this.#port.onPause(late)
      return
    }
    this.#busy += (this.#port.busyShare() - this.#busy) * WEIGHT
    const loopDelayMs = this.#load.loopDelayMs + (late - this.#load.loopDelayMs) * WEIGHT
    const delayMs = this.#port.inputDelayMs()
    this.#tellBehind(now, delayMs)
    const inputDelayMs = this.#busy >= BUSY_SHARE ? delayMs : 0
    this.#load = { loopDelayMs: loopDelayMs < 1 ? 0 : loopDelayMs, inputDelayMs, commitMs: this.#port.commitMs() }
    if (this.#busy >= PROBING_SHARE) this.#port.probe()
    this.#tell()
  }

  #tellBehind(now: number, delayMs: number): void {
    if (delayMs <= this.#port.max.inputDelayMs || now - this.#behindToldAt < BEHIND_PAUSE_MS) return
    this.#behindToldAt = now
    this.#port.onBehind(delayMs)
  }

  #isPause(late: number): boolean {
    const before = this.#cpuMs
    this.#cpuMs = this.#port.cpuMs()
    this.#wasPaused = !this.#wasPaused && late >= PAUSE_MS_MIN && this.#cpuMs - before < late * PAUSE_CPU_SHARE
    return this.#wasPaused
  }

  #tell(): void {
    const { max } = this.#port
    const { loopDelayMs, inputDelayMs, commitMs } = this.#load
    const share = Math.max(loopDelayMs / max.loopDelayMs, inputDelayMs / max.inputDelayMs, commitMs / max.commitMs)
    const isWorthAWord = share >= TOLD_SHARE
    if (isWorthAWord || this.#isTold) this.#port.onLoad(this.#load)
    this.#isTold = isWorthAWord
  }
}
