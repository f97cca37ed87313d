/**
 * An application that works with the SDK, over any number of its processes: a model of packages/client/src/deliveries.ts.
 *
 *     deliver --> waiting --a handler is free--> running --its time is over--> settled by its outcome
 *                    |                              \-- its lease is lost --> it stops soon, and is settled
 *                    \-- the worker stops, its lease is lost --> released
 */
import { element, resultTo } from '@xmq/protocol'
import {
  type Delivery,
  type Effect,
  loadOf,
  type Outcome,
  type SessionRules,
} from '../../../packages/client/src/session/index.ts'
import type { Wanted } from './items.ts'
import type { Promises } from './promises.ts'
import { type SdkHost, SdkProcess } from './sdk.ts'

const CONCURRENCY = 3

interface Work {
  readonly delivery: Delivery
  readonly key: string
  state: 'waiting' | 'running' | 'over'
  isLost: boolean
}

/** See the top of this file. */
export class SdkWorker {
  readonly account: string
  readonly wanted: readonly Wanted[]
  readonly #host: SdkHost
  readonly #rules: SessionRules
  readonly #promises: Promises
  #process: SdkProcess
  #processes = 0
  #isStopping = false
  #waiting: Work[] = []
  #running = 0
  #works = new Map<string, Work>()

  constructor(
    host: SdkHost,
    account: string,
    rules: SessionRules,
    wanted: readonly Wanted[],
    promises: Promises,
    suffix: string,
  ) {
    this.account = account
    this.wanted = wanted
    this.#host = host
    this.#rules = rules
    this.#promises = promises
    this.#suffix = suffix
    this.#process = this.#start()
  }

  readonly #suffix: string

  get process(): SdkProcess {
    return this.#process
  }

  /** Whether it holds nothing and has said everything. */
  get isIdle(): boolean {
    return this.#works.size === 0 && (!this.#process.isAlive || this.#process.unsettled === 0)
  }

  /** Its process is killed; another one starts a little later. */
  kill(): void {
    if (!this.#process.isAlive) return
    this.#host.note('worker killed')
    this.#process.kill()
    this.#restart()
  }

  /** It stops in order, and starts again. */
  stop(): void {
    if (!this.#process.isAlive || this.#isStopping) return
    this.#host.note('worker stopped')
    this.#isStopping = true
    this.#process.dispatch({ type: 'leave' })
    const waiting = [...this.#works.values()].filter(({ state }) => state === 'waiting')
    for (const work of waiting) this.#settle(work, { kind: 'release' })
    this.#waiting = []
    this.#closeWhenDone()
  }

  #closeWhenDone(): void {
    if (!this.#isStopping || this.#running > 0) return
    const process = this.#process
    const close = (): void => {
      if (process !== this.#process || !process.isAlive) return
      process.dispatch({ type: 'close', error: undefined })
      this.#restart()
    }
    // As long as `stop` waits for the settlements to be heard.
    this.#host.at(this.#host.now() + (process.unsettled === 0 ? 0 : 3_000), close)
  }

  #restart(): void {
    this.#waiting = []
    this.#works = new Map()
    this.#running = 0
    this.#isStopping = false
    this.#host.at(this.#host.now() + this.#host.random.gap(500), () => {
      if (!this.#process.isAlive) this.#process = this.#start()
    })
  }

  #start(): SdkProcess {
    const name = `${this.account}#${this.#suffix}${++this.#processes}`
    const onEffect = (effect: Effect): void => this.#onEffect(effect)
    const process = new SdkProcess(this.#host, name, this.#rules, { onEffect }, this.#promises)
    for (const { topic, name: subscription } of this.wanted) {
      process.dispatch({ type: 'subscribe', topic, name: subscription })
    }
    process.dispatch({ type: 'start' })
    return process
  }

  #onEffect(effect: Effect): void {
    if (effect.type === 'deliver') this.#take(effect.delivery)
    else if (effect.type === 'lease-lost') this.#lost(effect.key)
    else if (effect.type === 'cancelled') this.#host.note('sdk told that nobody waits')
  }

  #take(delivery: Delivery): void {
    const { lease } = delivery
    if (lease === undefined) {
      this.#answer(delivery)
      return
    }
    const work: Work = { delivery, key: lease.key, state: 'waiting', isLost: false }
    this.#works.set(work.key, work)
    this.#waiting.push(work)
    this.#run()
    this.#reportLoad()
  }

  /** A request. */
  #answer(delivery: Delivery): void {
    const process = this.#process
    this.#host.note('sdk asked')
    this.#host.at(this.#host.now() + this.#host.random.gap(200), () =>
      process.dispatch({
        type: 'answer',
        delivery,
        stanza: resultTo(delivery.stanza, [element('answer', 'urn:x', { n: delivery.id })]),
      }),
    )
  }

  #run(): void {
    while (this.#running < CONCURRENCY) {
      const work = this.#waiting.shift()
      if (work === undefined) return
      if (work.state === 'over') continue
      if (work.isLost) {
        this.#settle(work, { kind: 'release' })
        continue
      }
      work.state = 'running'
      this.#running++
      this.#later(work, this.#durationMs(), () => this.#end(work))
    }
  }

  #durationMs(): number {
    const { random, isCalm } = this.#host
    // Some take longer than a lease.
    if (random.chance(isCalm() ? 0.2 : 0.08)) return 2_000 + random.gap(4_000)
    return isCalm() ? random.gap(60) : random.pick([0, random.gap(20), random.gap(300)])
  }

  /** Whatever was to come of a work does not, when its process is gone. */
  #later(work: Work, delayMs: number, act: () => void): void {
    const process = this.#process
    this.#host.at(this.#host.now() + delayMs, () => {
      if (process === this.#process && process.isAlive && work.state === 'running') act()
    })
  }

  #end(work: Work): void {
    this.#running--
    this.#settle(work, work.isLost ? { kind: 'release' } : this.#outcome())
    this.#run()
    this.#reportLoad()
    this.#closeWhenDone()
  }

  #outcome(): Outcome {
    const dice = this.#host.isCalm() ? 0 : this.#host.random.int(100)
    if (dice < 76) return { kind: 'ack' }
    if (dice < 86) return { kind: 'nack', why: 'no' }
    if (dice < 92) return { kind: 'nack', why: 'not now', delayMs: 1_000 }
    if (dice < 95) return { kind: 'release' }
    return { kind: 'reject', reason: dice < 98 ? 'rejected' : 'invalid', why: 'never' }
  }

  #settle(work: Work, outcome: Outcome): void {
    work.state = 'over'
    this.#works.delete(work.key)
    this.#process.dispatch({ type: 'settle', key: work.key, outcome })
  }

  /** Its handler hears of it through its signal, and stops soon. */
  #lost(key: string): void {
    const work = this.#works.get(key)
    if (work === undefined || work.isLost) return
    this.#host.note('handler aborted')
    work.isLost = true
    if (work.state === 'running') this.#later(work, this.#host.random.gap(100), () => this.#end(work))
  }

  #reportLoad(): void {
    if (this.#isStopping) return
    const { credit } = this.#rules
    const load = loadOf({ running: this.#running, waiting: this.#waiting.length, capacity: credit, lagMs: 0 })
    this.#process.dispatch({ type: 'load', load })
  }
}
