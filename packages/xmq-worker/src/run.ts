/**
 * `xmq-worker run`: one worker for the life of this process.
 *
 *   load -> start -> running --SIGTERM, SIGINT--> stopping -> stopped        exit code 0
 *                       |  \--gives up----------------------> failed         the exit code of its reason
 *                       \--a second signal--> the process ends at once       exit code 128 + signal
 */
import { relative } from 'node:path'
import { type ConnectionFlags, readEnvironment, resolveConnection } from './connection.ts'
import { EXIT_CODES, type ExitCode, type Worker } from '@xmq/client'
import { findWorkerFile, loadWorker } from './load.ts'
import { type Report, reportOn } from './report.ts'
import { type Io, type OutputFormat, reportFailure } from './terminal.ts'

/** The flags of `run` and `dev`. */
export interface RunFlags extends ConnectionFlags {
  readonly envFile?: string
  /** Seconds between two health lines; 0 for none. */
  readonly health: number
  readonly output: OutputFormat
}

/**
 * Runs the worker of a module until a signal.
 *
 * @throws XmqError `invalid-config` for a file or connection that cannot be; whatever the module or the start throws
 */
export async function runCommand(io: Io, file: string | undefined, flags: RunFlags): Promise<ExitCode> {
  const path = findWorkerFile(io.cwd, file)
  const env = readEnvironment(io.cwd, io.env, flags.envFile)
  // The worker's own code reads the env file's variables too.
  if (io.env === process.env) Object.assign(process.env, env)
  const worker = await loadWorker(io.cwd, path, () => resolveConnection(io.cwd, env, flags))
  const report = reportOn(worker, io, flags.output, relative(io.cwd, path))
  const stop = stopRequest(io)
  try {
    const started = worker.start()
    // A start that is given up still settles; nobody waits for it then.
    started.catch(() => {})
    if ((await Promise.race([started, stop.requested])) === STOP) return await end(io, flags, worker, report)
    report.ready()
    const health = flags.health === 0 ? undefined : setInterval(() => report.health(), flags.health * 1000)
    const reason = await Promise.race([stop.requested, report.gaveUp])
    clearInterval(health)
    if (reason === STOP) return await end(io, flags, worker, report)
    await worker.stop()
    throw reason
  } finally {
    stop.release()
  }
}

async function end(io: Io, flags: RunFlags, worker: Worker, report: Report): Promise<ExitCode> {
  report.stopping()
  try {
    await worker.stop()
  } catch (error) {
    return reportFailure(io, flags.output, error)
  }
  report.stopped()
  return EXIT_CODES.ok
}

const STOP = 'stop'

interface StopRequest {
  readonly requested: Promise<typeof STOP>
  release(): void
}

/** A signal asks, and so does the end of `xmq-worker dev`, which this process must not outlive. */
function stopRequest(io: Io): StopRequest {
  let ask: () => void = () => {}
  const requested = new Promise<typeof STOP>((resolve) => {
    ask = () => resolve(STOP)
  })
  const release = io.onStop(ask, (exitCode) => process.exit(exitCode))
  const supervised = process.env['XMQ_WORKER_SUPERVISED'] === '1' && process.channel !== undefined
  if (supervised) {
    process.on('disconnect', ask)
    process.channel?.unref()
  }
  return {
    requested,
    release() {
      release()
      if (supervised) process.off('disconnect', ask)
    },
  }
}
