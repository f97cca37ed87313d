/** What a connection waits for, told while it waits. */
import type { ConnectionEvents, Listeners } from '@xmq/client'
import { paint, type Io } from './io.ts'

/** Tells one trouble; the same one again is not told twice in a row. */
export interface TroubleTeller {
  tell(text: string): void
  /** It is over: the same trouble would be news. */
  forget(): void
  readonly listeners: Listeners<ConnectionEvents>
}

/** On stderr, so that stdout has results only. */
export function tellTrouble(io: Io): TroubleTeller {
  let last = ''
  const tell = (text: string): void => {
    if (text === last) return
    last = text
    io.stderr.write(`${paint(io, 'stderr', 'yellow', 'xmq:')} ${text}\n`)
  }
  return {
    tell,
    forget() {
      last = ''
    },
    listeners: {
      offline({ reason, fatal }) {
        if (!fatal) tell(`${reason.message} Trying again.`)
      },
      waiting: ({ reason }) => tell(`${reason.message} Trying again.`),
      warning: ({ message }) => tell(message),
    },
  }
}
