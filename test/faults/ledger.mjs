/**
 * What the journals say so far, kept while they grow: how far everybody is, and what is confirmed and not done yet. The verdict is
 * the oracle's; this only tells a scenario when to go on.
 */
import { linesOf } from './messages.mjs'

/** Owner: one scene. */
export class Ledger {
  /** Every line, in the order in which it was read. */
  lines = []
  /** `queue line seq`: confirmed, neither finished nor rejected by a worker. */
  open = new Set()
  #ended = new Set()
  #counts = new Map()
  #waiting = new Set()

  /** Takes new lines in, and tells those who wait. */
  add(lines) {
    for (const line of lines) {
      this.lines.push(line)
      this.#count(`${line.t}`)
      this.#count(`${line.t} ${line.by}`)
      this.#count(`${line.t} ${line.by}.${line.life}`)
      if (line.t === 'confirmed')
        for (const one of linesOf(line.queue)) this.#confirmed(`${line.queue} ${one} ${line.seq}`)
      if (line.t === 'finished' || line.t === 'rejected') this.end(`${line.queue} ${line.line} ${line.seq}`)
    }
    for (const check of this.#waiting) check()
  }

  #count(name) {
    this.#counts.set(name, this.count(name) + 1)
  }

  #confirmed(entry) {
    if (!this.#ended.has(entry)) this.open.add(entry)
  }

  /** An entry is done, or is known to be dead. */
  end(entry) {
    this.#ended.add(entry)
    this.open.delete(entry)
  }

  /** How many lines `T`, `T NAME` or `T NAME.LIFE` there are. */
  count(name) {
    return this.#counts.get(name) ?? 0
  }

  /**
   * Resolves as soon as `check` says something other than `undefined`, with that; asked whenever there is something new. With
   * `undefined` after `patienceMs`.
   */
  when(check, patienceMs) {
    return new Promise((resolve) => {
      const end = (answer) => {
        clearTimeout(timer)
        this.#waiting.delete(again)
        resolve(answer)
      }
      const again = () => {
        const answer = check()
        if (answer !== undefined) end(answer)
      }
      const timer = setTimeout(end, patienceMs)
      this.#waiting.add(again)
      again()
    })
  }
}
