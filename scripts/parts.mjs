/**
 * The processes that a script starts and must stop again, with what they print line by line. Owns them.
 *
 * 1. A part ends with the script, however the script ends (end-with-parent.mjs).
 * 2. Every wait ends: with what was waited for, with the part's end, or with patience.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** Longest wait for one thing, in milliseconds: a busy machine is not a failure. */
const PATIENCE_MS = 30_000
/** How long a part may take to end after SIGTERM. */
const STOP_MS = 10_000
/** What a failure shows of a part's last lines. */
const TAIL_LINES = 20
/** Lines kept for later waits. */
const LINES_MAX = 10_000

/** Without XMQ's own settings: they lead to wherever their owner works. */
const OUTER_ENV = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('XMQ_') || name === 'XMQ_DEBUG'),
)

const PRELOAD = new URL('./end-with-parent.mjs', import.meta.url).href
const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** A part that did not do what it should; the message has its last lines. */
export class PartError extends Error {
  name = 'PartError'
}

/** One child process running a script of the checkout. */
export class Part {
  #child
  #lines = []
  #listeners = new Set()
  #exit
  /** Resolves with the exit code, or the signal's name, when the process has ended and its output is read. */
  exited

  /**
   * @param {string} name what people call it
   * @param {string[]} args the script and its arguments
   * @param {{ env?: Record<string, string>, cwd?: string, onLine?: (line: string) => void }} [options]
   */
  constructor(name, args, { env = {}, cwd = ROOT, onLine = () => {} } = {}) {
    this.name = name
    this.#child = spawn(process.execPath, ['--import', PRELOAD, ...args], {
      cwd,
      env: { ...OUTER_ENV, ...env },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // A group of its own: Ctrl-C reaches the script alone, which stops the parts in their order.
      detached: process.platform !== 'win32',
    })
    this.#listeners.add((line) => line !== undefined && onLine(line))
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => this.#onLine(line))
    }
    this.exited = new Promise((resolve) => {
      const end = (exit) => {
        this.#exit = exit
        for (const listener of this.#listeners) listener(undefined)
        resolve(exit)
      }
      this.#child.on('error', (error) => end(error.message))
      this.#child.on('close', (code, signal) => end(code ?? signal))
    })
  }

  get lines() {
    return this.#lines
  }

  /** Resolves with the first line, past or future, for which `accept` is true. */
  async line(what, accept) {
    const past = this.#lines.find(accept)
    if (past !== undefined) return past
    let listener
    try {
      return await this.#within(
        what,
        new Promise((resolve, reject) => {
          listener = (line) => {
            if (line === undefined) reject(this.failure(`ended before ${what}`))
            else if (accept(line)) resolve(line)
          }
          if (this.#exit === undefined) this.#listeners.add(listener)
          else listener(undefined)
        }),
      )
    } finally {
      this.#listeners.delete(listener)
    }
  }

  /** Resolves when the process has ended with 0 by itself. */
  async succeeded() {
    const exit = await this.#within('its end', this.exited)
    if (exit !== 0) throw this.failure('failed')
  }

  /** Asks the process to end, and makes it if it does not. Returns the exit code or the signal's name. */
  async stop(signal = 'SIGTERM') {
    if (this.#exit !== undefined) return this.#exit
    this.#child.kill(signal)
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS)
    const exit = await this.exited
    clearTimeout(timer)
    return exit
  }

  /** An error that names this part and shows the end of its output. */
  failure(what) {
    const exit = this.#exit === undefined ? '' : ` (${this.#exit === 0 ? 'exit code 0' : `ended with ${this.#exit}`})`
    const tail = this.#lines.slice(-TAIL_LINES).map((line) => `    ${line}`)
    return new PartError([`${this.name} ${what}${exit}`, ...tail].join('\n'))
  }

  #onLine(line) {
    if (this.#lines.push(line) > LINES_MAX) this.#lines.shift()
    for (const listener of this.#listeners) listener(line)
  }

  async #within(what, promise) {
    let timer
    const late = new Promise((_resolve, reject) => {
      timer = setTimeout(() => reject(this.failure(`did not get to ${what} in ${PATIENCE_MS / 1000} s`)), PATIENCE_MS)
    })
    try {
      return await Promise.race([promise, late])
    } finally {
      clearTimeout(timer)
    }
  }
}
