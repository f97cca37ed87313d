// Loaded into a broker before its own code (`--import`), in each of its threads: what stalls is written into a journal, and so is
// a sync of the store's log that takes as long.
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { isMainThread } from 'node:worker_threads'
import { journalName, nowMs, openJournal } from '../journal.mjs'
import { STALL_MS, watchStalls } from '../stalls.mjs'

const { folder, life } = JSON.parse(process.env.XMQ_FAULTS_STALLS)
const journal = openJournal(join(folder, journalName(isMainThread ? 'broker' : 'store', life)))
watchStalls(journal)

const { fdatasync } = fs
fs.fdatasync = (file, callback) => {
  const from = nowMs()
  fdatasync(file, (error) => {
    if (nowMs() - from >= STALL_MS) journal.write('stalled', { from, ranMs: 0, waitedMs: 0 })
    callback(error)
  })
}
syncBuiltinESMExports()
