/** What the processes of a system cost, as Linux counts it, and the folders in which they write. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const TICKS_PER_SECOND = 100
const TMPFS = 0x01021994
const START_MAX_MS = 60_000

/** CPU in milliseconds and bytes written to disk by processes so far; zero where the system does not tell. */
export function usageOf(pids) {
  let cpuMs = 0
  let writtenBytes = 0
  for (const pid of pids) {
    try {
      // The name, in brackets, may hold spaces.
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
      cpuMs += ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND
      writtenBytes += Number(/^write_bytes: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1] ?? 0)
    } catch {}
  }
  return { cpuMs, writtenBytes }
}

/** Bytes of the files below a folder. */
export function folderBytes(folder) {
  let bytes = 0
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue
    try {
      bytes += statSync(join(entry.parentPath ?? entry.path, entry.name)).blocks * 512
    } catch {}
  }
  return bytes
}

/** A new folder for a system's data, and how to remove it. @param below where; the system's temporary folder, if not given */
export function dataFolder(name, below = tmpdir()) {
  const folder = mkdtempSync(join(below, `xmq-bench-${name}-`))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  // Also where the run is interrupted.
  process.once('exit', remove)
  return { folder, remove }
}

/** Whether a folder is in memory: what is "on disk" there is not. */
export function isInMemory(folder) {
  return statfsSync(folder).type === TMPFS
}

/** Resolves once somebody listens. @param isRunning false when nobody will */
export async function whenListening(port, isRunning) {
  const end = performance.now() + START_MAX_MS
  for (;;) {
    const isThere = await new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.once('connect', () => resolve(true))
      socket.once('error', () => resolve(false))
      socket.once('close', () => socket.destroy())
      socket.once('connect', () => socket.destroy())
    })
    if (isThere) return
    if (!isRunning() || performance.now() > end) throw new Error(`Nobody listens on port ${port}.`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
