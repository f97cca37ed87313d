/**
 * What the log says of the store's trouble. A disk that is nearly full takes one commit and not the next: without this the log would
 * tell of trouble and of its end many times a second.
 *
 * ```
 *  fine --trouble: a line--> trouble --over--> perhaps over --holdMs--> fine: a line, with how often it had come again
 *                               ^                   |
 *                               '------trouble------'
 * ```
 *
 * 1. The end of a trouble is said when it has held for `holdMs`, and once; so is its beginning, but for a reason that is another one.
 * 2. Of one trouble at most `REASONS_MAX` reasons are told.
 * 3. The timer holds no process alive, and runs only while something is perhaps over.
 */
import type { Logger } from './log.ts'

/** Longer than the pause after which a store that failed is asked again. */
const HOLD_MS = 2000
const REASONS_MAX = 8

/** See the top of this file. */
export interface TroubleLog {
  /** The store does not answer. */
  begin(text: string): void
  /** It answers again. */
  end(): void
  /** Says what is to be said, and stops the timer. */
  close(): void
}

/** @param holdMs @default 2000 */
export function createTroubleLog(log: Logger, holdMs: number = HOLD_MS): TroubleLog {
  /** Told in the present trouble, numbers aside; undefined while all is fine. */
  let told: Set<string> | undefined
  let more = 0
  let timer: NodeJS.Timeout | undefined

  const over = () => {
    clearTimeout(timer)
    timer = undefined
    told = undefined
    log.info('the store answers again', more === 0 ? {} : { more })
  }
  return {
    begin: (text) => {
      clearTimeout(timer)
      timer = undefined
      if (told === undefined) more = 0
      else more++
      told ??= new Set()
      const reason = text.replace(/\d+/g, '#')
      if (told.has(reason) || told.size >= REASONS_MAX) return
      told.add(reason)
      log.error('the store does not answer: publishes are refused', { text })
    },
    end: () => {
      if (told !== undefined) timer ??= setTimeout(over, holdMs).unref()
    },
    close: () => {
      if (timer !== undefined) over()
    },
  }
}
