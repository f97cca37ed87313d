/**
 * The size of the write-ahead log. SQLite copies the log into the file by itself after a commit, and says nothing when it
 * cannot: the log would grow until the disk is full.
 *
 * Owns when the log was last looked after.
 */
import { statSync } from 'node:fs'

/** Bytes of a page of the log, with its head. */
const FRAME_BYTES = 4096 + 24
/** Times what SQLite is told to copy after: a log of that size was not copied for long, however large the last commit was. */
const OVERDUE = 4
/** Milliseconds between two tries to copy it. */
const PAUSE_MS = 1000

/** See the top of this file. Its owner is the engine. */
export class LogSize {
  readonly #db: { exec(text: string): unknown }
  readonly #path: string
  readonly #bytesMax: number
  #triedAt = Number.NEGATIVE_INFINITY
  #error: unknown

  constructor(db: { exec(text: string): unknown }, path: string, checkpointPages: number) {
    this.#db = db
    this.#path = `${path}-wal`
    this.#bytesMax = OVERDUE * checkpointPages * FRAME_BYTES
  }

  /** @throws why the log cannot be copied, while it is too long to grow further */
  check(): void {
    if (this.#size() <= this.#bytesMax) {
      this.#error = undefined
      return
    }
    if (performance.now() - this.#triedAt >= PAUSE_MS) {
      this.#error = undefined
      this.#triedAt = performance.now()
      try {
        this.#db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
      } catch (error) {
        this.#error = error
      }
    }
    if (this.#error !== undefined) throw this.#error
  }

  #size(): number {
    return statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0
  }
}
