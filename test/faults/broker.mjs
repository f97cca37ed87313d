/**
 * The broker of a scene: `xmq serve` as an operator runs it, one process a life, over one store.
 *
 *     down --start()--> up (every link once up) --kill(), stop()--> down
 */
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { spawnGuarded, stopGuarded } from '../servers/dist/index.js'

const XMQ = fileURLToPath(new URL('../../packages/xmq/bin/xmq.js', import.meta.url))
const WATCH = fileURLToPath(new URL('processes/stall-watch.mjs', import.meta.url))
const STOP_GRACE_MS = 20_000

/** Owner: one scene. */
export class Broker {
  #folder
  #journals
  #process
  #lives = 0
  /** What the next start uses; a scenario may change it. */
  plan

  /**
   * @param {{ folder: string, journals: string, config: object, wrap?: (argv: string[]) => string[], env?: object }} plan
   *   `config` as in xmq.config.yaml; `wrap` puts a command before (strace …); `env` is added to this process's own
   */
  constructor({ folder, journals, ...plan }) {
    this.#folder = folder
    this.#journals = journals
    this.plan = { wrap: (argv) => argv, env: {}, ...plan }
  }

  /** Of the program that `wrap` made, or of the broker itself. */
  get pid() {
    return this.#process?.pid
  }

  get running() {
    return this.#process?.running === true
  }

  /** How often it was started. */
  get lives() {
    return this.#lives
  }

  /** The log of this life, line by line. */
  get lines() {
    return this.#process?.lines ?? []
  }

  get configPath() {
    return join(this.#folder, 'xmq.config.json')
  }

  /** Starts a process and returns at once; {@link up} waits. */
  async spawn() {
    if (this.running) throw new Error('The broker runs already.')
    this.#lives++
    writeFileSync(this.configPath, JSON.stringify(this.plan.config, undefined, 2))
    const [command, ...args] = this.plan.wrap([process.execPath, XMQ, 'serve', '--config', this.configPath])
    const env = { ...process.env, ...this.plan.env }
    env.NODE_OPTIONS = `${env.NODE_OPTIONS ?? ''} --import=${WATCH}`
    env.XMQ_FAULTS_STALLS = JSON.stringify({ folder: this.#journals, life: this.#lives })
    this.#process = await spawnGuarded(command, args, { env })
    void this.#process.exited.then(this.#keepLog(this.#process, this.#lives))
  }

  /** Resolves once it says that it serves: every link is up. Rejects when it ends before. */
  async up() {
    await this.#process.line(/"serving"/)
  }

  async start() {
    await this.spawn()
    await this.up()
  }

  /** Resolves with the first line of this life's log, past or future, that matches. */
  line(pattern) {
    return this.#process.line(pattern)
  }

  signal(name) {
    this.#process.signal(name)
  }

  /** Resolves with the exit code of this life. */
  get exited() {
    return this.#process.exited
  }

  /** As `kill -9` does. */
  async kill() {
    this.#process.signal('SIGKILL')
    await this.#process.exited
  }

  /** As systemd does: SIGTERM. @returns the exit code */
  async stop() {
    return this.#process === undefined ? 0 : await stopGuarded(this.#process, STOP_GRACE_MS)
  }

  /** `{ ready, problems? }` of /readyz; `undefined` when nobody answers. */
  async readiness() {
    const answer = await this.#ask('/readyz')
    return answer === undefined ? undefined : JSON.parse(answer)
  }

  /** A gauge or counter of /metrics, summed over its labels; `undefined` when nobody answers or there is none. */
  async metric(name) {
    const lines =
      (await this.#ask('/metrics'))?.split('\n').filter((line) => new RegExp(`^${name}[{ ]`).test(line)) ?? []
    return lines.length === 0 ? undefined : lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  }

  async #ask(path) {
    try {
      const response = await fetch(`http://${this.plan.config.http}${path}`, { signal: AbortSignal.timeout(5000) })
      return await response.text()
    } catch {
      return undefined
    }
  }

  #keepLog({ lines }, life) {
    return (code) => {
      appendFileSync(join(this.#folder, `broker.${life}.log`), `${lines.join('\n')}\nexit code ${code}\n`)
    }
  }
}
