// Loaded into a broker before its own code (`--import`), in each of its threads: what stalls is written into a journal, and so are a
// sync of the store's log that takes as long, and what its log says of its start, with the time and CPU that the process has used.
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { isMainThread } from 'node:worker_threads'
import { journalName, nowMs, openJournal } from '../journal.mjs'
import { STALL_MS, watchStalls } from '../stalls.mjs'

const { folder, life } = JSON.parse(process.env.XMQ_FAULTS_STALLS)
const journal = openJournal(join(folder, journalName(isMainThread ? 'broker' : 'store', life)))
watchStalls(journal)
if (isMainThread) watchStart()

const { fdatasync } = fs
fs.fdatasync = (file, callback) => {
  const from = nowMs()
  fdatasync(file, (error) => {
    if (nowMs() - from >= STALL_MS) journal.write('stalled', { from, ranMs: 0, waitedMs: 0 })
    callback(error)
  })
}
syncBuiltinESMExports()

/** Each line of the log until the broker serves is a phase. */
function watchStart() {
  const note = (phase) => {
    const { user, system } = process.cpuUsage()
    journal.write('phase', { phase, ms: performance.now(), cpuMs: (user + system) / 1000 })
  }
  note('node')
  const write = process.stderr.write.bind(process.stderr)
  process.stderr.write = (line, ...rest) => {
    const message = /"message":"([^"]*)"/.exec(line)?.[1]
    if (message !== undefined) note(message)
    if (message === 'serving') process.stderr.write = write
    return write(line, ...rest)
  }
}
