// Loaded into a broker before its own code (`--import`), in each of its threads: what stalls is written into a journal.
import { join } from 'node:path'
import { isMainThread } from 'node:worker_threads'
import { journalName, openJournal } from '../journal.mjs'
import { watchStalls } from '../stalls.mjs'

const { folder, life } = JSON.parse(process.env.XMQ_FAULTS_STALLS)
watchStalls(openJournal(join(folder, journalName(isMainThread ? 'broker' : 'store', life))))
