/**
 * Notices when a thread did not get to run, and writes that into its journal: on a busy machine leases of a few seconds end by
 * it, and nothing that the run did on purpose explains what follows.
 *
 * Evidence, not an excuse: of each stall it is written down how long the thread was computing meanwhile. A program that keeps its own
 * loop busy has no stall.
 */
import { readFileSync } from 'node:fs'
import { nowMs } from './journal.mjs'

const TICK_MS = 50
/** Shorter ones change nothing: an SDK extends a lease when a third of it is left. */
export const STALL_MS = 500
/** More of it spent computing, and it is the program's own doing. */
export const BUSY_SHARE = 0.5

/** Milliseconds that this thread has been running for, and that it has been waiting for a processor. */
function scheduled() {
  try {
    const [ranNs, waitedNs] = readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')
    return { ran: Number(ranNs) / 1e6, waited: Number(waitedNs) / 1e6 }
  } catch {
    // No Linux: of the whole process, which is never less.
    const { user, system } = process.cpuUsage()
    return { ran: (user + system) / 1000, waited: 0 }
  }
}

/**
 * Looks after the thread that calls it, for as long as that lives or until it is stopped.
 * @param {{ write: (t: string, fields: object) => void }} journal gets `stalled`, with `from`, and `ranMs` and `waitedMs` since then
 * @returns how to stop it
 */
export function watchStalls(journal) {
  let from = nowMs()
  let before = scheduled()
  const timer = setInterval(() => {
    const now = nowMs()
    const after = scheduled()
    if (now - from >= STALL_MS)
      journal.write('stalled', { from, ranMs: after.ran - before.ran, waitedMs: after.waited - before.waited })
    from = now
    before = after
  }, TICK_MS)
  timer.unref()
  return () => clearInterval(timer)
}
