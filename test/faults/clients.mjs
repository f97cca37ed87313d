/** Producers and workers of a scene: processes with a name, several lives, and a journal for each life. */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { spawnGuarded, stopGuarded } from '../servers/dist/index.js'
import { journalName } from './journal.mjs'
import { seedOf } from './random.mjs'

const STOP_GRACE_MS = 120_000

/** One producer or worker. */
export class ClientProcess {
  #script
  #options
  #folder
  #process
  #life = 0
  name

  /** @param {{ name: string, role: 'producer' | 'worker', folder: string, options: object }} settings */
  constructor({ name, role, folder, options }) {
    this.name = name
    this.#script = fileURLToPath(new URL(`processes/${role}.mjs`, import.meta.url))
    this.#folder = folder
    this.#options = options
  }

  get life() {
    return this.#life
  }

  get running() {
    return this.#process?.running === true
  }

  /** What this life wrote beside its journal: nothing, unless it fails. */
  get lines() {
    return this.#process?.lines ?? []
  }

  #path(life) {
    return join(this.#folder, journalName(this.name, life))
  }

  /** Starts its next life. That it is ready stands in its journal. */
  async start() {
    const earlier = Array.from({ length: this.#life }, (_, index) => this.#path(index + 1))
    const life = ++this.#life
    const seed = seedOf(this.#options.seed, `${this.name} ${life}`)
    const options = { ...this.#options, name: this.name, life, seed, journalPath: this.#path(life), earlier }
    const env = { ...process.env, XMQ_FAULTS: JSON.stringify(options) }
    this.#process = await spawnGuarded(process.execPath, [this.#script], { env })
  }

  signal(name) {
    this.#process.signal(name)
  }

  async kill() {
    this.#process.signal('SIGKILL')
    await this.#process.exited
  }

  /** Asks it to end in order. @throws when it ends with an error, with what it wrote */
  async stop() {
    if (this.#process === undefined) return
    const { lines } = this.#process
    const code = await stopGuarded(this.#process, STOP_GRACE_MS)
    if (code !== 0) throw new Error(`${this.name} ended with ${code}:\n${lines.slice(-20).join('\n')}`)
  }
}
