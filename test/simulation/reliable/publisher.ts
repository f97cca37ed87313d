/**
 * An application that publishes with the SDK, over any number of its processes: when one is killed, the next one publishes what
 * nobody confirmed to it under the same ids, or has forgotten it.
 */
import { element } from '@xmq/protocol'
import type { Effect, SessionRules } from '../../../packages/client/src/session/index.ts'
import { createOutgoing } from '../../../packages/client/src/session/index.ts'
import { makeItem, type SentItem } from './items.ts'
import type { Promises } from './promises.ts'
import { type SdkHost, SdkProcess } from './sdk.ts'

/** See the top of this file. */
export class SdkPublisher {
  readonly account: string
  readonly #host: SdkHost
  readonly #rules: SessionRules
  readonly #promises: Promises
  readonly #makeId: () => string
  readonly #onSent: (item: SentItem) => void
  /** Remembers over its processes what was not confirmed. */
  readonly #isPersistent: boolean
  readonly #unconfirmed = new Map<string, SentItem>()
  #refs = new Map<number, SentItem>()
  #process: SdkProcess
  #processes = 0
  #nextRef = 1

  constructor(
    host: SdkHost,
    account: string,
    rules: SessionRules,
    promises: Promises,
    makeId: () => string,
    onSent: (item: SentItem) => void,
  ) {
    this.account = account
    this.#host = host
    this.#rules = rules
    this.#promises = promises
    this.#makeId = makeId
    this.#onSent = onSent
    this.#isPersistent = host.random.chance(0.5)
    this.#process = this.#start()
  }

  get process(): SdkProcess {
    return this.#process
  }

  /** Whether it waits for nothing. */
  get isIdle(): boolean {
    return this.#refs.size === 0
  }

  /** Publishes some, all at once. */
  publish(): void {
    const { random } = this.#host
    if (!this.#process.isAlive) return
    for (let count = 1 + random.int(random.chance(0.2) ? 12 : 3); count > 0; count--) {
      this.#publish(makeItem(random, this.#rules.queue, this.account, this.#makeId))
    }
  }

  /** Its process is killed; another one starts a little later. */
  kill(): void {
    if (!this.#process.isAlive) return
    this.#host.note('publisher killed')
    this.#process.kill()
    this.#refs = new Map()
    this.#host.at(this.#host.now() + this.#host.random.gap(500), () => {
      this.#process = this.#start()
      const again = this.#isPersistent ? [...this.#unconfirmed.values()] : []
      this.#unconfirmed.clear()
      for (const item of again) this.#publish(item)
    })
  }

  #start(): SdkProcess {
    const name = `${this.account}#${++this.#processes}`
    const process = new SdkProcess(
      this.#host,
      name,
      this.#rules,
      { onEffect: (effect) => this.#onEffect(effect) },
      this.#promises,
    )
    process.dispatch({ type: 'start' })
    return process
  }

  #publish(item: SentItem): void {
    const { random, at, now } = this.#host
    const ref = this.#nextRef++
    this.#refs.set(ref, item)
    this.#unconfirmed.set(item.id, item)
    this.#onSent(item)
    this.#promises.publishes(this.#process, ref, item)
    const { id, topic, key, priority, delayMs, ttlMs } = item
    const payload = [element('p', 'urn:x', undefined, [item.payload])]
    const parts = { to: this.#rules.queue, id, topic, key, priority, delayMs, ttlMs, payload, isText: false }
    // Each second one as elements, whatever the queue takes: batches of both kinds follow each other.
    const isPacked = ref % 2 === 0 && this.#process.codec.encoding !== undefined
    const message = createOutgoing(parts, isPacked ? this.#process.codec : undefined)
    // Some cannot wait for long, and some give up.
    const timeoutMs = random.chance(0.1) && !this.#host.isCalm() ? 2_500 : undefined
    const process = this.#process
    process.dispatch({ type: 'publish', ref, message, timeoutMs })
    if (!random.chance(0.02)) return
    at(now() + random.gap(300), () => process.dispatch({ type: 'cancel', ref, error: this.#promises.canceled }))
  }

  #onEffect(effect: Effect): void {
    if (effect.type !== 'settled' && effect.type !== 'failed') return
    const item = this.#refs.get(effect.ref)
    if (item === undefined) return
    this.#refs.delete(effect.ref)
    this.#unconfirmed.delete(item.id)
  }
}
