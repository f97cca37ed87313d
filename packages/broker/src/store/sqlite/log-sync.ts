/**
 * Brings the write-ahead log to the disk, beside the engine: SQLite commits without waiting for the disk, the next batch runs while the
 * one before is synced, and nobody is answered before what was committed for them is on the disk.
 *
 * That is what `synchronous=FULL` does inside of COMMIT: one fdatasync of the log after its last frame was written. All else stays
 * SQLite's (`synchronous=NORMAL`): it syncs the head of a log that begins anew, the log before that is copied into the file, and
 * the file before the log is written over.
 *
 * Owns the handle of the log, the sync that runs, and who waits for it or for the next.
 *
 * ```
 *   commit ──> safe() ──> a sync begins ──────────────────> resolves
 *   commit ──> safe() ──> waits for its end, then one for all who wait
 * ```
 *
 * Invariants:
 * 1. What was committed before {@link LogSync.safe} was called is covered by an fdatasync that began after it. Promises resolve in the
 *    order of the calls.
 * 2. After a sync that failed nothing resolves: the kernel has forgotten that those pages are not on the disk, so that another
 *    fdatasync would say nothing. The file has to be opened again, which writes the log anew (database.ts).
 * 3. The handle is closed once, and never while a sync uses it.
 */
import { closeSync, fdatasync, openSync } from 'node:fs'

interface Waiting {
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/** See the top of this file. Its owner is the engine. */
export class LogSync {
  readonly #handle: number
  /** Those whose sync runs, and those who need the next one. */
  #syncing: Waiting[] | undefined
  #waiting: Waiting[] = []
  #isClosed = false
  #error: Error | undefined

  /** @throws the system's error when the log cannot be opened: it is there once something was written */
  constructor(path: string) {
    this.#handle = openSync(`${path}-wal`, 'r+')
  }

  /**
   * Resolves when all that was committed before is on the disk; rejects with the system's error.
   *
   * @param hasWritten something was committed since the last call: false spares a sync, and keeps the order
   */
  safe(hasWritten: boolean): Promise<void> {
    if (this.#error !== undefined) return Promise.reject(this.#error)
    if (!hasWritten && this.#syncing === undefined) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const group = hasWritten || this.#waiting.length > 0 ? this.#waiting : this.#syncing
      group?.push({ resolve, reject })
      this.#begin()
    })
  }

  /** Ends it: whoever waits is rejected. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#fail(new Error('The log was closed.'))
    if (this.#syncing === undefined) closeSync(this.#handle)
  }

  #begin(): void {
    if (this.#syncing !== undefined || this.#waiting.length === 0) return
    const group = this.#waiting
    this.#syncing = group
    this.#waiting = []
    fdatasync(this.#handle, (error) => {
      this.#syncing = undefined
      if (this.#isClosed) closeSync(this.#handle)
      if (error !== null) this.#fail(error)
      for (const { resolve, reject } of group) {
        if (this.#error === undefined) resolve()
        else reject(this.#error)
      }
      this.#begin()
    })
  }

  #fail(error: Error): void {
    this.#error ??= error
    for (const { reject } of this.#waiting.splice(0)) reject(this.#error)
  }
}
