/**
 * `xmq-worker dev`: keeps one child process with `xmq-worker run` alive across changes of the sources. A fresh process
 * each time, since a module cannot be unloaded. Owns the child and the watcher.
 *
 *   running --change--> stopping --exit--> running          (SIGTERM; SIGKILL after 5 s)
 *   running --exit----> waiting  --change--> running        (a crash: the next change may mend it)
 *   any     --signal--> ended
 *
 * 1. At most one child lives. 2. Changes while it stops are one restart. 3. The child never outlives this process: it
 * ends when the channel to it closes.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, type FSWatcher, watch } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { EXIT_CODES, type ExitCode } from '@xmq/client'
import { findWorkerFile } from './load.ts'
import type { RunFlags } from './run.ts'
import { type Io, mistake, type OutputFormat, paint } from './terminal.ts'

/** An editor writes a file in several steps: they count as one change. */
const QUIET_MS = 100
const STOP_MS = 5_000

const BIN: string = fileURLToPath(new URL('../bin/xmq-worker.js', import.meta.url))

/**
 * Runs a worker and restarts it on every change below its file's folder, until SIGTERM or Ctrl-C.
 *
 * @throws XmqError `invalid-config` when there is no such file or it cannot be watched
 */
export function watchCommand(io: Io, file: string | undefined, flags: RunFlags): Promise<ExitCode> {
  const path = findWorkerFile(io.cwd, file)
  return new Promise((resolve, reject) => {
    const supervisor = createSupervisor(io, flags.output, [BIN, 'run', path, ...argumentsOf(flags)])
    let watcher: FSWatcher
    try {
      watcher = watchSources(io, dirname(path), (changed) => supervisor.restart(changed))
    } catch (error) {
      reject(mistake(`${dirname(path)} cannot be watched: ${(error as Error).message}. Use xmq-worker run instead`))
      return
    }
    const release = io.onStop(
      () => {
        watcher.close()
        void supervisor.end().then(() => {
          release()
          resolve(EXIT_CODES.ok)
        })
      },
      () => supervisor.kill(),
    )
    supervisor.start()
  })
}

/** The same flags, for the child. */
function argumentsOf(flags: RunFlags): string[] {
  const args = ['--health', String(flags.health), '--output', flags.output]
  if (flags.service !== undefined) args.push('--service', flags.service)
  if (flags.jid !== undefined) args.push('--jid', flags.jid)
  if (flags.queue !== undefined) args.push('--queue', flags.queue)
  if (flags.passwordFile !== undefined) args.push('--password-file', flags.passwordFile)
  if (flags.envFile !== undefined) args.push('--env-file', flags.envFile)
  return args
}

function watchSources(io: Io, folder: string, onChange: (file: string) => void): FSWatcher {
  // A project's root holds node_modules: watched by itself, not with all that is below.
  const recursive = !existsSync(join(folder, 'package.json'))
  let timer: NodeJS.Timeout | undefined
  const watcher = watch(folder, { recursive }, (_event, name) => {
    const changed = name ?? ''
    if (/(^|[\\/])(node_modules|\.git)([\\/]|$)|~$|\.sw[px]$/.test(changed)) return
    clearTimeout(timer)
    timer = setTimeout(() => onChange(relative(io.cwd, join(folder, changed))), QUIET_MS)
  })
  // A folder below was removed while it was looked at: what is left is still watched.
  watcher.on('error', () => {})
  return watcher
}

interface Supervisor {
  start(): void
  restart(changed: string): void
  end(): Promise<void>
  /** Makes the end come at once. */
  kill(): void
}

function createSupervisor(io: Io, output: OutputFormat, args: readonly string[]): Supervisor {
  let child: ChildProcess | undefined
  let restarting = false
  let closed = false
  let ended: (() => void) | undefined

  const say = (event: string, text: string, details: Readonly<Record<string, unknown>> = {}): void => {
    if (output === 'json') io.stdout.write(`${JSON.stringify({ event, ...details })}\n`)
    else io.stdout.write(`${paint(io, 'stdout', 'dim', text)}\n`)
  }
  const start = (): void => {
    const started = spawn(process.execPath, args, {
      cwd: io.cwd,
      env: { ...io.env, XMQ_WORKER_SUPERVISED: '1' },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // A group of its own: Ctrl-C reaches this process alone, which passes it on once.
      detached: process.platform !== 'win32',
    })
    child = started
    started.on('error', (error) =>
      say('error', `The worker could not be started: ${error.message}`, { text: error.message }),
    )
    started.on('exit', (code, signal) => {
      child = undefined
      if (ended !== undefined) ended()
      else if (restarting) {
        restarting = false
        start()
      } else
        say('waiting', `The worker ended (${signal ?? `exit code ${code}`}); waiting for a change.`, { code, signal })
    })
  }
  const stop = (running: ChildProcess): void => {
    running.kill('SIGTERM')
    const timer = setTimeout(() => running.kill('SIGKILL'), STOP_MS)
    running.once('exit', () => clearTimeout(timer))
  }
  return {
    start,
    restart(changed) {
      if (closed || restarting) return
      say('restarting', `${changed} changed; restarting.`, { file: changed })
      if (child === undefined) start()
      else {
        restarting = true
        stop(child)
      }
    },
    end() {
      closed = true
      const running = child
      if (running === undefined) return Promise.resolve()
      return new Promise((resolve) => {
        ended = resolve
        if (!restarting) stop(running)
      })
    },
    kill() {
      child?.kill('SIGKILL')
    },
  }
}
