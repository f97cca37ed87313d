/**
 * Child processes that cannot outlive the process that started them.
 *
 *     this process --stdin pipe--> sh (guard) --starts--> the program
 *
 * Invariants:
 * 1. The guard kills the program and removes its folder when the pipe closes, and a pipe closes however its owner dies.
 * 2. The guard leads a session of its own: Ctrl-C reaches the owner alone, who stops the program or dies.
 * 3. A signal goes to the program's own pid, only while the guard still waits for it, so never to a stranger.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'

// The watcher reads the pipe until it ends. Both it and the program leave fd 3, or the owner would never see its end.
const GUARD = `
dir=$1; shift
exec 4<&0
"$@" </dev/null 3>&- 4<&- &
pid=$!
( cat <&4 >/dev/null; trap '' TERM; kill -KILL "$pid"; [ -z "$dir" ] || rm -rf "$dir" ) >/dev/null 2>&1 3>&- &
watcher=$!
exec 4<&-
echo "$pid" >&3
exec 3>&-
wait "$pid"
code=$?
kill "$watcher" 2>/dev/null
exit "$code"
`

/** How to start a guarded program. */
export interface GuardedOptions {
  /** Removed by the guard if this process dies before the program does. */
  readonly folder?: string
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** Where both outputs go: a file descriptor, or `pipe` to read them here. @default 'pipe' */
  readonly output?: number | 'pipe'
}

/** A running program. */
export interface GuardedProcess {
  readonly pid: number
  /** Both outputs, line by line; nothing when they go to a file. */
  readonly lines: readonly string[]
  /** The exit code once it has ended: 128 + N after signal N. */
  readonly exited: Promise<number>
  readonly running: boolean
  /** Sends a signal if it still runs. */
  signal(name: NodeJS.Signals): void
  /** Resolves with the first line, past or future, that matches; rejects when the program ends without one. */
  line(pattern: RegExp): Promise<string>
}

/** Starts a program that is killed when this process ends, however it ends. */
export async function spawnGuarded(
  command: string,
  args: readonly string[],
  options: GuardedOptions = {},
): Promise<GuardedProcess> {
  const output = options.output ?? 'pipe'
  const guard = spawn('/bin/sh', ['-c', GUARD, 'guard', options.folder ?? '', command, ...args], {
    cwd: options.cwd,
    env: options.env ?? process.env,
    detached: true,
    stdio: ['pipe', output, output, 'pipe'],
  })
  const exited = exitOf(guard, command)
  // A guard that is told to end when its program has already ended breaks the pipe, which is no news.
  guard.stdin?.on('error', () => undefined)
  const pidPipe = guard.stdio[3] as Readable
  const pid = Number.parseInt(String(await Promise.race([once(pidPipe, 'data'), exited])), 10)
  if (!Number.isInteger(pid)) throw new Error(`'${command}' could not be started.`)
  return guardedProcess(guard, pid, exited, `${command} ${args.join(' ')}`)
}

function exitOf(guard: ChildProcess, command: string): Promise<number> {
  return new Promise((resolve, reject) => {
    guard.once('error', (cause) => reject(new Error(`'${command}' could not be started.`, { cause })))
    guard.once('close', (code) => resolve(code ?? 1))
  })
}

function guardedProcess(guard: ChildProcess, pid: number, exited: Promise<number>, title: string): GuardedProcess {
  const lines: string[] = []
  const waiting = new Set<(line: string) => void>()
  let running = true
  for (const output of [guard.stdout, guard.stderr]) {
    if (output === null) continue
    createInterface({ input: output }).on('line', (line) => {
      lines.push(line)
      for (const check of waiting) check(line)
    })
  }
  guard.once('exit', () => {
    running = false
  })
  return {
    pid,
    lines,
    exited,
    get running() {
      return running
    },
    signal: (name) => {
      if (running) process.kill(pid, name)
    },
    line: (pattern) =>
      new Promise((resolve, reject) => {
        const past = lines.find((line) => pattern.test(line))
        if (past !== undefined) return resolve(past)
        const check = (line: string): void => {
          if (!pattern.test(line)) return
          waiting.delete(check)
          resolve(line)
        }
        waiting.add(check)
        void exited.then((code) => {
          waiting.delete(check)
          reject(new Error(`${title} ended with ${code} before it printed ${pattern}:\n${lines.join('\n')}`))
        }, reject)
      }),
  }
}

/** Ends a program: asked by SIGTERM, made to after `graceMs`. Resolves with its exit code. */
export async function stopGuarded(child: GuardedProcess, graceMs = 10_000): Promise<number> {
  child.signal('SIGTERM')
  const timer = setTimeout(() => child.signal('SIGKILL'), graceMs)
  try {
    return await child.exited
  } finally {
    clearTimeout(timer)
  }
}
