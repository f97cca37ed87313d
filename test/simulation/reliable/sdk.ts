/**
 * A process that uses the SDK: a session with its transport, its clock and its turns, as packages/client/src/runtime.ts joins
 * them. What the session tells goes to the process's app, and to whoever watches.
 *
 *     new --start--> alive --kill--> dead: its stream is cut, its session forgotten
 *                          --the session closes--> dead
 */
import { type ItemCodec, type XmlElement, XmqError } from '@xmq/protocol'
import type { Effect, Input, Session, SessionRules } from '../../../packages/client/src/session/index.ts'
import { describe } from '../describe.ts'
import { purely } from '../purity.ts'
import type { Random } from '../random.ts'
import type { Network, Stream } from './network.ts'

/** What an SDK process needs of the world. */
export interface SdkHost {
  readonly random: Random
  /** Of the sessions alone: what the world draws does not depend on what a session draws. */
  readonly entropy: Random
  readonly network: Network
  readonly now: () => number
  readonly at: (at: number, act: () => void) => void
  readonly createSession: (rules: SessionRules) => Session
  readonly isCalm: () => boolean
  readonly note: (what: string) => void
  /** Absent when nobody reads it. */
  readonly log: ((what: () => string) => void) | undefined
}

/** What runs on a session. */
export interface SdkApp {
  /** Everything but what the transport does. */
  onEffect(effect: Effect): void
}

/** Is shown everything that passes a session. */
export interface SdkWatch {
  passed(process: SdkProcess, input: Input, effects: readonly Effect[]): void
  /** It is over with a process: nobody is there whom it could break a promise to. */
  died(process: SdkProcess): void
}

/** See the top of this file. */
export class SdkProcess {
  /** Bare JID. */
  readonly account: string
  /** For messages: its account, and which of its processes this is. */
  readonly name: string
  readonly rules: SessionRules
  readonly #host: SdkHost
  readonly #app: SdkApp
  readonly #watch: SdkWatch
  readonly #session: Session
  #isAlive = true
  #stream: Stream | undefined
  #connections = 0
  #inputs: Input[] = []
  #isHandling = false
  #tickAt = Number.POSITIVE_INFINITY

  constructor(host: SdkHost, name: string, rules: SessionRules, app: SdkApp, watch: SdkWatch) {
    this.#host = host
    this.name = name
    this.account = name.slice(0, name.indexOf('#'))
    this.rules = rules
    this.#app = app
    this.#watch = watch
    this.#session = host.createSession(rules)
  }

  get isAlive(): boolean {
    return this.#isAlive
  }

  /** The stream that is open, if one is. */
  get stream(): Stream | undefined {
    return this.#stream?.isOpen === true ? this.#stream : undefined
  }

  get isOnline(): boolean {
    return this.#session.status.state === 'online'
  }

  /** How its session would have items written. */
  get codec(): ItemCodec {
    return this.#session.codec
  }

  /** Settlements that the queue has not answered. */
  get unsettled(): number {
    return this.#session.unsettled
  }

  /** Hands an input to the session and carries its effects out. */
  dispatch(input: Input): void {
    if (!this.#isAlive) return
    this.#inputs.push(input)
    if (this.#isHandling) return
    this.#isHandling = true
    for (let next = this.#inputs.shift(); next !== undefined; next = this.#inputs.shift()) this.#handle(next)
    this.#isHandling = false
    this.#setTimer()
  }

  /** The process is killed. */
  kill(): void {
    this.#isAlive = false
    this.#watch.died(this)
    const stream = this.#stream
    this.#stream = undefined
    if (stream !== undefined) this.#host.network.cut(stream, this.#host.random.pick(['reset', 'half-open server']))
  }

  #handle(input: Input): void {
    const { now, entropy, log } = this.#host
    log?.(() => `${this.name} ${describe(input)}`)
    const effects = purely(() => this.#session.handle(input, now(), entropy))
    if (log !== undefined) for (const effect of effects) log(() => `  ${this.name} -> ${describe(effect)}`)
    this.#watch.passed(this, input, effects)
    for (const effect of effects) this.#carryOut(effect)
    if (input.type === 'close') this.#isAlive = false
  }

  #carryOut(effect: Effect): void {
    switch (effect.type) {
      case 'open':
        return this.#open()
      case 'drop':
      case 'close':
        if (this.#stream !== undefined) this.#host.network.close(this.#stream)
        this.#stream = undefined
        return
      case 'send':
        return this.#send(effect.stanza, effect.ref)
      case 'turn':
        return this.#host.at(this.#host.now(), () => this.dispatch({ type: 'turn' }))
      default:
        this.#app.onEffect(effect)
    }
  }

  #open(): void {
    const { random, network, now, at, entropy } = this.#host
    const connection = ++this.#connections
    const isCurrent = (): boolean => this.#isAlive && connection === this.#connections
    at(now() + random.gap(100), () => {
      if (!isCurrent()) return
      const jid = `${this.account}/xmq-${entropy.id()}`
      const lost = (why: string): void => {
        if (isCurrent()) this.dispatch({ type: 'down', reason: connectionLost(why), fatal: false })
      }
      this.#stream = network.connect(jid, {
        receive: (stanza) => {
          if (isCurrent()) this.dispatch({ type: 'stanza', stanza })
        },
        ended: () => lost('The stream ended.'),
      })
      if (this.#stream === undefined) lost('The server is down.')
      else this.dispatch({ type: 'up', jid })
    })
  }

  #send(stanza: XmlElement, ref: number | undefined): void {
    const { network, at, now } = this.#host
    const { stream } = this
    if (stream !== undefined) network.send(stream, stanza)
    if (ref === undefined) return
    const error = stream === undefined ? connectionLost('The connection is down.') : undefined
    at(now(), () => this.dispatch({ type: 'written', ref, error }))
  }

  /** A timer that was set stays: firing for nothing does no harm. */
  #setTimer(): void {
    const { deadline } = this.#session
    if (deadline === undefined || deadline >= this.#tickAt || !this.#isAlive) return
    this.#tickAt = deadline
    this.#host.at(Math.max(deadline, this.#host.now()), () => {
      if (this.#tickAt !== deadline) return
      this.#tickAt = Number.POSITIVE_INFINITY
      this.dispatch({ type: 'tick' })
    })
  }
}

function connectionLost(why: string): XmqError {
  return new XmqError('connection-lost', why)
}
