import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { inject, straceObstacle, SYNC } from '../devices/strace.mjs'
import { nowMs } from '../journal.mjs'
import { checkNoFlood, seesRecovery, seesTrouble } from '../operator.mjs'

/** How long the disk goes on failing once that is seen. */
const BROKEN_MS = 800

/** What fails: the calls, the files, and what the operator is told. */
const WAYS = [
  { what: 'fsync of the log', injections: [`${SYNC}:error=EIO`], files: ['-wal'], reason: /IOERR|i\/o error/ },
  { what: 'writes to the log', injections: ['pwrite64:error=EIO'], files: ['-wal'], reason: /IOERR|i\/o error/ },
  { what: 'no space for the log', injections: ['pwrite64:error=ENOSPC'], files: ['-wal'], reason: /is full/ },
  {
    what: 'every third write to the log',
    injections: ['pwrite64:error=EIO:when=3+3'],
    files: ['-wal'],
    reason: /IOERR|i\/o error/,
  },
  {
    what: 'all that is written, and reads',
    injections: [`${SYNC}:error=EIO`, 'pwrite64:error=EIO', 'pread64:error=EIO'],
    files: ['', '-wal'],
    reason: /IOERR|i\/o error|CORRUPT|cannot be opened/,
  },
]

/** @type {import('../run.mjs').Scenario} */
export const scenario = {
  name: 'disk-errors',
  fault: 'I/O errors: `fsync`, `pwrite64` and `pread64` of the store fail for a while (strace)',
  promise:
    'what could not be synced is refused with `wait`, never confirmed; `/readyz` and the log say so; it goes on by itself, in a new thread where it must',
  times: { whole: 50, short: { prosody: 1 } },
  obstacle: straceObstacle,
  async run(scene, times) {
    for (let time = 0; time < times; time++) {
      const { what, injections, files, reason } = WAYS[time % WAYS.length]
      await scene.moment()
      await scene.fault(`I/O error: ${what}`, 'store', async () => {
        const paths = files.map((suffix) => `${scene.plan.storePath}${suffix}`)
        const tracer = await inject(scene.broker.pid, injections, paths, join(scene.folder, `strace.${time}.txt`))
        await seesTrouble(scene.broker, reason)
        await pause(BROKEN_MS)
        await tracer.off()
        await seesRecovery(scene.broker)
      })
      await scene.resume('I/O error', nowMs())
    }
    // Where some calls work and some do not, trouble may come and go.
    checkNoFlood(scene.broker, times * 3)
  },
}
