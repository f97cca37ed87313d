// Loaded before everything else (`--import`), in each thread: what this process writes to and syncs of a log, by the hand of the
// store, is told in the file $XMQ_TOLD; while there is a file $XMQ_BROKEN, its syncs fail.
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

const { XMQ_TOLD: told, XMQ_BROKEN: broken } = process.env
const { openSync, writeSync, fsyncSync, fdatasync, fdatasyncSync, appendFileSync, existsSync } = fs
const logs = new Set()

fs.openSync = (path, ...rest) => {
  const file = openSync(path, ...rest)
  if (String(path).endsWith('-wal')) logs.add(file)
  else logs.delete(file)
  return file
}
fs.writeSync = (file, buffer, offset, length, position) => {
  const count = writeSync(file, buffer, offset, length, position)
  if (logs.has(file)) appendFileSync(told, `write ${position} ${count}\n`)
  return count
}
const sync = (original) => (file) => {
  if (logs.has(file) && existsSync(broken))
    throw Object.assign(new Error('EIO: i/o error, fsync'), { code: 'EIO', syscall: 'fsync' })
  original(file)
  if (logs.has(file)) appendFileSync(told, 'sync\n')
}
fs.fdatasync = (file, callback) => {
  if (logs.has(file) && existsSync(broken))
    setImmediate(callback, Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' }))
  else fdatasync(file, callback)
}
fs.fsyncSync = sync(fsyncSync)
fs.fdatasyncSync = sync(fdatasyncSync)
syncBuiltinESMExports()
