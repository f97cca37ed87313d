/**
 * What the core tells, as log lines: messages at `debug`, refusals and bounces aggregated, so that a flood of them does not
 * fill the disk.
 *
 * ```
 *  quiet --first of a kind: a line at once--> counting --10 s, none came--> quiet
 *                                             ^      |
 *                                             '------' 10 s, some came: one line "and N more"
 * ```
 *
 * 1. Between two lines of one kind there are at least ten seconds.
 * 2. A kind is made of what we know and not of what a sender chose: a configured queue or `other`, a code, a text without
 *    its numbers and quoted parts.
 * 3. At most `KINDS_MAX` kinds are counted; what is beyond them is counted together, by level.
 * 4. The timers hold no process alive, and run only while something is counted.
 * 5. The store's trouble is told by trouble-log.ts.
 */
import type { CoreEvent } from './core/port.ts'
import type { LogFields, Logger, LogLevel } from './log.ts'
import { createTroubleLog } from './trouble-log.ts'

const WINDOW_MS = 10_000
const KINDS_MAX = 256
/** In the place of an address that is no queue of ours. */
const OTHER = 'other'

interface Tally {
  readonly level: LogLevel
  readonly message: string
  readonly fields: LogFields
  /** Since the line that was written last. */
  more: number
  timer: NodeJS.Timeout | undefined
}

/** `fields` are those of the first line, `kindFields` those of its kind. */
type Count = (kind: string, level: LogLevel, message: string, fields: LogFields, kindFields?: LogFields) => void

/** Settings of {@link createEventLog}. */
export interface EventLogOptions {
  /** The addresses that lines are counted by; all else counts as `other`. @default [] */
  readonly queues?: readonly string[]
  /** Milliseconds between two lines of one kind. @default 10000 */
  readonly windowMs?: number
}

/** Writes core events to a log. */
export interface EventLog {
  write(event: CoreEvent): void
  /** A line that may come in floods: the first of its kind at once, the rest counted. */
  readonly tally: Count
  /** How many kinds of lines are counted now. */
  readonly kinds: number
  /** Writes what is counted and stops the timers. */
  close(): void
}

/** Ties core events to a log. Its owner is the runtime. */
export function createEventLog(log: Logger, { queues = [], windowMs = WINDOW_MS }: EventLogOptions = {}): EventLog {
  const known: ReadonlySet<string> = new Set(queues)
  const tallies = new Map<string, Tally>()
  const trouble = createTroubleLog(log)

  const sumUp = ({ level, message, fields, more }: Tally) => {
    log[level](`${message} (and ${more} more)`, { ...fields, more })
  }
  const openWindow = (kind: string, tally: Tally) => {
    tally.timer = setTimeout(() => {
      if (tally.more === 0) {
        tallies.delete(kind)
        return
      }
      sumUp(tally)
      tally.more = 0
      openWindow(kind, tally)
    }, windowMs).unref()
  }
  const count: Count = (kind, level, message, fields, kindFields = fields) => {
    if (!log.isEnabled(level)) return
    const isOverflow = tallies.size >= KINDS_MAX && !tallies.has(kind)
    const key = isOverflow ? `${OTHER} ${level}` : kind
    const counted = tallies.get(key)
    if (counted !== undefined) {
      counted.more++
      return
    }
    log[level](message, fields)
    const shared = isOverflow ? { message: 'other lines', fields: {} } : { message, fields: kindFields }
    const tally: Tally = { ...shared, level, more: 0, timer: undefined }
    tallies.set(key, tally)
    openWindow(key, tally)
  }

  return {
    write: (event) => {
      if (event.name !== 'store') writeEvent(event, log, count, (queue) => (known.has(queue) ? queue : OTHER))
      else if (event.isAvailable) trouble.end()
      else trouble.begin(event.text)
    },
    tally: (kind, ...rest) => count(withoutChosen(kind), ...rest),
    get kinds() {
      return tallies.size
    },
    close: () => {
      trouble.close()
      for (const tally of tallies.values()) {
        clearTimeout(tally.timer)
        if (tally.more > 0) sumUp(tally)
      }
      tallies.clear()
    },
  }
}

/** Numbers and quoted parts tell one message from the next: as parts of a kind they would make a kind of each. */
function withoutChosen(text: string): string {
  return text.replace(/'[^']*'|"[^"]*"/g, '…').replace(/\d+/g, '#')
}

function writeEvent(
  event: Exclude<CoreEvent, { name: 'store' }>,
  log: Logger,
  count: Count,
  labelOf: (queue: string) => string,
): void {
  switch (event.name) {
    case 'refused': {
      const { queue, sender, code, text } = event
      const label = labelOf(queue)
      // That nobody is there is the queue's everyday life, not a fault of the sender.
      const level = code === 'no-recipients' ? 'info' : 'warn'
      count(`refused ${label} ${code}`, level, 'refused', { queue, sender, code, text }, { queue: label, code })
      return
    }
    case 'bounced': {
      const { queue, consumer, condition } = event
      const label = labelOf(queue)
      const fields = { queue, consumer, condition }
      count(`bounced ${label} ${condition}`, 'info', 'delivery bounced', fields, { queue: label, condition })
      return
    }
    case 'ignored': {
      const { queue, sender, what } = event
      const label = labelOf(queue)
      const kind = `ignored ${label} ${withoutChosen(what)}`
      count(kind, 'warn', 'ignored', { queue, sender, what }, { queue: label, what: withoutChosen(what) })
      return
    }
    case 'dead-lettered': {
      const { queue, line, seq, reason } = event
      count(`dead ${queue} ${reason}`, 'warn', 'dead letter', { queue, line, seq, reason }, { queue, reason })
      return
    }
    case 'dropped': {
      const { queue, what } = event
      count(`dropped ${queue} ${what}`, 'warn', 'dropped', { queue, what, count: event.count }, { queue, what })
      return
    }
    case 'overload':
      if (event.isShedding) count('overload', 'warn', 'overloaded: new work is refused', { text: event.text })
      else log.info('new work is taken again', {})
      return
    case 'subscribed':
    case 'unsubscribed':
    case 'published':
    case 'requested':
    case 'stored':
    case 'delivered':
    case 'settled':
    case 'answered': {
      if (!log.isEnabled('debug')) return
      const { name, ...fields } = event
      log.debug(name, fields)
    }
  }
}
