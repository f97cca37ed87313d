/**
 * Journals: one append-only file of JSON lines for each process, written with one `write` a line before the process goes on. What
 * a killed process has said is therefore there; at most its last line is torn, and that was said to nobody.
 *
 * Every line has `t` (what) and `at` (milliseconds on the machine's monotonic clock, the same in all processes).
 */
import { closeSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const CHUNK = 256 * 1024

/** Milliseconds on the clock that all processes of this machine share, and that nobody can set. */
export function nowMs() {
  return Number(process.hrtime.bigint() / 1000n) / 1000
}

/** Opens a journal for writing. */
export function openJournal(path) {
  const file = openSync(path, 'a')
  return {
    write: (t, fields = {}) => {
      writeSync(file, `${JSON.stringify({ t, at: nowMs(), ...fields })}\n`)
    },
    close: () => closeSync(file),
  }
}

/** All whole lines of a journal. */
export function readJournal(path) {
  const text = readFileSync(path, 'utf8')
  return parse(text.slice(0, text.lastIndexOf('\n') + 1))
}

function parse(text) {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

/** The name of a process's journal: each life of it has its own. */
export function journalName(name, life) {
  return `${name}.${life}.jsonl`
}

/** Reads what is appended to the journals of a folder, each line with `by` (the process) and `life`. */
export class Tail {
  #folder
  #files = new Map()

  constructor(folder) {
    this.#folder = folder
  }

  /** The lines that are new, in each journal's order. */
  read() {
    const lines = []
    for (const name of readdirSync(this.#folder)) {
      if (!name.endsWith('.jsonl')) continue
      if (!this.#files.has(name)) {
        const [by, life] = name.split('.')
        const file = openSync(join(this.#folder, name), 'r')
        this.#files.set(name, { by, life: Number(life), file, rest: Buffer.alloc(0) })
      }
      this.#readOne(this.#files.get(name), lines)
    }
    return lines
  }

  #readOne(source, lines) {
    const chunk = Buffer.alloc(CHUNK)
    for (;;) {
      const count = readSync(source.file, chunk, 0, CHUNK, null)
      if (count === 0) return
      const bytes = Buffer.concat([source.rest, chunk.subarray(0, count)])
      const end = bytes.lastIndexOf(10) + 1
      source.rest = Buffer.from(bytes.subarray(end))
      for (const line of parse(bytes.toString('utf8', 0, end)))
        lines.push({ by: source.by, life: source.life, ...line })
    }
  }

  close() {
    for (const { file } of this.#files.values()) closeSync(file)
    this.#files.clear()
  }
}
