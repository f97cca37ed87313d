/**
 * What the core tells, as log lines: messages at `debug`, refusals and bounces aggregated, so that a flood of them does not
 * fill the disk.
 *
 * ```
 *  first of a kind --> a line at once --> counted for 10 s --> one line "and N more" --> forgotten
 * ```
 *
 * 1. Of one kind (queue and code) there are at most two lines in ten seconds.
 * 2. At most `KINDS_MAX` kinds are counted; what is beyond them is counted together.
 * 3. The timer holds no process alive, and runs only while something is counted.
 */
import type { CoreEvent } from './core/port.ts'
import type { LogFields, Logger, LogLevel } from './log.ts'

const WINDOW_MS = 10_000
const KINDS_MAX = 256
const OVERFLOW_KIND = 'others'

interface Tally {
  readonly level: LogLevel
  readonly message: string
  readonly fields: LogFields
  /** Since the line that was written. */
  more: number
}

/** Writes core events to a log. */
export interface EventLog {
  write(event: CoreEvent): void
  /** A line that may come in floods: the first of its kind at once, the rest counted. */
  tally(kind: string, level: LogLevel, message: string, fields: LogFields, kindFields?: LogFields): void
  /** Writes what is counted and stops the timer. */
  close(): void
}

/** Ties core events to a log. Its owner is the runtime. */
export function createEventLog(log: Logger, windowMs: number = WINDOW_MS): EventLog {
  const tallies = new Map<string, Tally>()
  let timer: NodeJS.Timeout | undefined

  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    for (const { level, message, fields, more } of tallies.values()) {
      if (more > 0) log[level](`${message} (and ${more} more)`, { ...fields, more })
    }
    tallies.clear()
  }

  const tally: EventLog['tally'] = (kind, level, message, fields, kindFields = fields) => {
    if (!log.isEnabled(level)) return
    const key = tallies.size < KINDS_MAX || tallies.has(kind) ? kind : OVERFLOW_KIND
    const known = tallies.get(key)
    if (known !== undefined) {
      known.more++
      return
    }
    log[level](message, fields)
    tallies.set(key, { level, message, fields: key === OVERFLOW_KIND ? {} : kindFields, more: 0 })
    timer ??= setTimeout(flush, windowMs).unref()
  }

  return {
    write: (event) => writeEvent(event, log, tally),
    tally,
    close: flush,
  }
}

function writeEvent(event: CoreEvent, log: Logger, tally: EventLog['tally']): void {
  switch (event.name) {
    case 'refused': {
      const { queue, sender, code, text } = event
      // That nobody is there is the queue's everyday life, not a fault of the sender.
      const level = code === 'no-recipients' ? 'info' : 'warn'
      tally(`refused ${queue} ${code}`, level, 'refused', { queue, sender, code, text }, { queue, code })
      return
    }
    case 'bounced': {
      const { queue, consumer, condition } = event
      const fields = { queue, consumer, condition }
      tally(`bounced ${queue} ${condition}`, 'info', 'delivery bounced', fields, { queue, condition })
      return
    }
    case 'ignored': {
      const { queue, sender, what } = event
      tally(`ignored ${queue} ${what}`, 'warn', 'ignored', { queue, sender, what }, { queue, what })
      return
    }
    case 'subscribed':
    case 'unsubscribed':
    case 'published':
    case 'requested':
    case 'answered': {
      if (!log.isEnabled('debug')) return
      const { name, ...fields } = event
      log.debug(name, fields)
    }
  }
}
