/**
 * System calls that fail, or that kill: strace is put on the running broker for a while. Only calls on the named files are touched.
 *
 * strace counts calls for each thread by itself, from when it was put on.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'

/** What gives a file to its disk: SQLite and the store use one or the other. */
export const SYNC = 'fsync,fdatasync'

/** Why nothing can be injected here; `undefined` when it can. */
export function straceObstacle() {
  if (process.platform !== 'linux') return 'needs Linux: faults are injected by strace'
  const probe = spawnSync('strace', ['-f', '-qq', '-e', 'trace=fsync', '-e', 'inject=fsync:error=EIO', 'true'], {
    encoding: 'utf8',
  })
  if (probe.error !== undefined) return 'needs strace, which is not installed here'
  return probe.status === 0 ? undefined : `needs the right to trace: ${probe.stderr.trim().split('\n')[0]}`
}

/** The arguments for injections such as `fsync:error=EIO:when=2+`, on calls that concern one of the files. */
function straceArgs(injections, paths, output) {
  const calls = injections.map((injection) => injection.split(':')[0])
  return [
    '-f',
    `-o${output}`,
    `-etrace=${[...new Set(calls)].join(',')}`,
    ...injections.map((injection) => `-einject=${injection}`),
    ...paths.map((path) => `-P${path}`),
  ]
}

/**
 * Puts strace on a process. @returns how to take it off; `log` has the calls that were touched
 */
export async function inject(pid, injections, paths, log) {
  const tracer = spawn('strace', [`-p${pid}`, ...straceArgs(injections, paths, log)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const exited = once(tracer, 'exit')
  let said = ''
  await new Promise((resolve, reject) => {
    tracer.stderr.on('data', (chunk) => {
      said += chunk
      if (said.includes('attached')) resolve()
    })
    void exited.then(() => reject(new Error(`strace could not be put on ${pid}: ${said}`)))
  })
  return {
    /** Resolves when the process is gone, or strace was taken off. */
    exited,
    off: async () => {
      tracer.kill('SIGTERM')
      await exited
    },
  }
}
