/**
 * Pings the component's own address through the server: is the stream alive end to end, and is this broker the only one
 * on its domain? Owner: one link, for all its streams.
 *
 *   <iq type='get' from='QUEUE-DOMAIN' to='QUEUE-DOMAIN' id='…'><instance xmlns='xmq:queue:1' id='NONCE' started-at='ISO'/></iq>
 *
 * | what comes back                              | what it means                     | what is done                        |
 * |----------------------------------------------|-----------------------------------|-------------------------------------|
 * | own nonce                                    | alive end to end                  | all pings before it are settled     |
 * | nothing in half the timeout                  | lost, or half-dead                | ping in a quick row                 |
 * | nothing in all of it                         | half-dead                         | `onHalfDead`: the stream is renewed |
 * | a younger nonce                              | a second broker has come          | answer it, and ping in a quick row  |
 * | an older nonce, in an answer to a ping of ours | an older broker is there, alive | `onSecond`: this one gives up       |
 * | an older nonce, in a ping                    | so it seems                       | ping in a quick row, until answered; or a second ping of it, a second later: `onSecond` |
 *
 * Invariants:
 * 1. `onSecond` is called at most once, and never on one stray ping: a predecessor's last ping may reach its successor.
 * 2. Of two instances exactly one is older, and both know which: `startedAt` first, then the nonce.
 * 3. At most one ping measures the delay. One that does not come back is given up after the timeout.
 * 4. At most one row of quick pings runs at a time; at most `IDS_MAX` ping ids are remembered.
 */
import { NS_QUEUE, domainOf, element, findChild, iqType, stanza, type XmlElement } from '@xmq/protocol'
import type { LinkClock } from './clock.ts'
import type { LinkInstance } from './options.ts'

/** What a {@link Watchdog} needs. */
export interface WatchdogPort {
  readonly domain: string
  readonly instance: LinkInstance
  readonly clock: LinkClock
  readonly intervalMs: number
  readonly timeoutMs: number
  send(stanza: XmlElement): void
  /** Nothing came back for `silentMs`. */
  onHalfDead(silentMs: number): void
  /** An older broker serves the domain. */
  onSecond(other: LinkInstance): void
  /** A watchdog's stanza for another domain: the server does not keep the connections apart. */
  onMisrouted(domain: string, stanza: XmlElement): void
}

/**
 * Pauses between the quick pings after coming up and after meeting another instance. ejabberd hands each stanza to one of
 * the two connections at random, so one ping alone often meets only ourselves.
 */
const QUICK_PAUSES_MS: readonly number[] = [50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 500, 500]
/** A second ping of an older instance counts only after so long: a predecessor's last ones come at once. */
const SECOND_SIGHT_MS = 1_000
/** While other stanzas still come in, a ping may take so many timeouts: a busy server is slow, not dead. */
const BUSY_TIMEOUTS = 6
const IDS_MAX = 64

/** The watchdog of one link. */
export class Watchdog {
  readonly #port: WatchdogPort
  #running = false
  #cancelNext: (() => void) | undefined
  #cancelDeadline: (() => void) | undefined
  #quickLeft = 0
  #serial = 0
  /** Ids of pings of ours that an answer may name. */
  #ids = new Set<string>()
  /** When the oldest ping went out that has not come back. */
  #waitingSince: number | undefined
  #heardSince = false
  #sighted: { readonly id: string; readonly at: number } | undefined
  #conceded = false
  /** The ping that measures the delay. */
  #probe: { readonly id: string; readonly sentAt: number } | undefined
  #delayMs = 0

  constructor(port: WatchdogPort) {
    this.#port = port
  }

  /** Milliseconds that the last {@link probe} took; more while one is under way for longer. */
  get delayMs(): number {
    return this.#probe === undefined
      ? this.#delayMs
      : Math.max(this.#delayMs, this.#port.clock.now() - this.#probe.sentAt)
  }

  /** Measures how long a stanza takes through the server, unless that is being done. */
  probe(): void {
    if (!this.#running) return
    if (this.#probe !== undefined) {
      const age = this.#port.clock.now() - this.#probe.sentAt
      if (age < this.#port.timeoutMs) return
      this.#delayMs = age
    }
    const id = `xmq-delay-${++this.#serial}`
    this.#probe = { id, sentAt: this.#port.clock.now() }
    this.#tell('get', id)
  }

  /** The process did not run for a while: the ping that is under way measures nothing. */
  paused(): void {
    this.#probe = undefined
  }

  /** The stream is up: pings now, a few times quickly, then every interval. */
  start(): void {
    this.#running = true
    this.#waitingSince = undefined
    this.#quickLeft = QUICK_PAUSES_MS.length
    this.#beat()
  }

  /** The stream ended. */
  stop(): void {
    this.#running = false
    this.#cancelNext?.()
    this.#cancelDeadline?.()
    this.#cancelNext = undefined
    this.#cancelDeadline = undefined
    this.#waitingSince = undefined
    this.#probe = undefined
    this.#delayMs = 0
  }

  /** Something else came in: the server still talks to us. */
  heard(): void {
    this.#heardSince = true
  }

  /** Takes a stanza that is a watchdog's. False: it is none of ours to handle. */
  take(root: XmlElement): boolean {
    if (root.name !== 'iq') return false
    const from = root.attrs.get('from')
    // Servers vouch for `from`: only a component of that very domain can write it.
    if (from === undefined || from !== root.attrs.get('to') || from !== domainOf(from)) return false
    const type = iqType(root)
    const other = readInstance(root)
    const id = root.attrs.get('id') ?? ''
    if (other === undefined && !(type === 'error' && this.#ids.has(id))) return false
    if (from !== this.#port.domain) this.#port.onMisrouted(from, root)
    else if (other === undefined || type === 'error') this.#ids.delete(id)
    else if (other.id === this.#port.instance.id) this.#cameBack(id)
    else if (this.#running) this.#met(other, root, type)
    return true
  }

  #cameBack(id: string): void {
    if (this.#probe?.id === id) {
      this.#delayMs = this.#port.clock.now() - this.#probe.sentAt
      this.#probe = undefined
    }
    this.#waitingSince = undefined
    this.#cancelDeadline?.()
    this.#cancelDeadline = undefined
  }

  #met(other: LinkInstance, root: XmlElement, type: string | undefined): void {
    const { clock, instance } = this.#port
    const id = root.attrs.get('id') ?? ''
    if (!isOlder(other, instance)) {
      if (type === 'get') this.#tell('result', id)
      this.#quicken()
      return
    }
    const seen = this.#sighted
    const answered = type === 'result' && this.#ids.has(id)
    if (answered || (seen?.id === other.id && clock.now() - seen.at >= SECOND_SIGHT_MS)) {
      this.#concede(other)
      return
    }
    if (seen?.id !== other.id) this.#sighted = { id: other.id, at: clock.now() }
    this.#quicken()
  }

  #concede(other: LinkInstance): void {
    if (this.#conceded) return
    this.#conceded = true
    this.stop()
    this.#port.onSecond(other)
  }

  #quicken(): void {
    if (this.#quickLeft > 0) return
    this.#quickLeft = QUICK_PAUSES_MS.length
    this.#beat()
  }

  #beat(): void {
    this.#cancelNext?.()
    this.#ping()
    // `send` may have ended the stream.
    if (!this.#running) return
    const pause =
      this.#quickLeft > 0 ? QUICK_PAUSES_MS[QUICK_PAUSES_MS.length - this.#quickLeft] : this.#port.intervalMs
    if (this.#quickLeft > 0) this.#quickLeft--
    this.#cancelNext = this.#port.clock.after(pause ?? this.#port.intervalMs, () => this.#beat())
  }

  #ping(): void {
    const { clock, instance } = this.#port
    const id = `xmq-instance-${instance.id.slice(0, 64)}-${++this.#serial}`
    this.#ids.add(id)
    if (this.#ids.size > IDS_MAX) this.#ids.delete(this.#ids.values().next().value ?? id)
    if (this.#waitingSince === undefined) {
      this.#waitingSince = clock.now()
      this.#heardSince = false
      this.#watch()
    }
    this.#tell('get', id)
  }

  #tell(type: 'get' | 'result', id: string): void {
    const { domain, instance } = this.#port
    this.#port.send(stanza('iq', { type, id, from: domain, to: domain }, [instanceElement(instance)]))
  }

  /** Half the timeout without an answer: ask again. All of it: half-dead, unless other stanzas came meanwhile. */
  #watch(): void {
    const { clock, timeoutMs } = this.#port
    this.#cancelDeadline?.()
    this.#cancelDeadline = clock.after(timeoutMs / 2, () => {
      // One ping alone may have gone to a second broker that has left since.
      this.#quicken()
      if (!this.#running || this.#waitingSince === undefined) return
      this.#cancelDeadline = clock.after(timeoutMs / 2, () => this.#judge())
    })
  }

  #judge(): void {
    const { clock, timeoutMs } = this.#port
    const silentMs = clock.now() - (this.#waitingSince ?? clock.now())
    if (this.#heardSince && silentMs < timeoutMs * BUSY_TIMEOUTS) {
      this.#heardSince = false
      this.#watch()
    } else this.#port.onHalfDead(silentMs)
  }
}

function isOlder(other: LinkInstance, own: LinkInstance): boolean {
  return other.startedAt === own.startedAt ? other.id < own.id : other.startedAt < own.startedAt
}

function instanceElement(instance: LinkInstance): XmlElement {
  return element('instance', NS_QUEUE, { id: instance.id, 'started-at': new Date(instance.startedAt).toISOString() })
}

/** The instance that an IQ names; `undefined` when it names none that can be read. */
function readInstance(iq: XmlElement): LinkInstance | undefined {
  const child = findChild(iq, 'instance', NS_QUEUE)
  const id = child?.attrs.get('id') ?? ''
  const startedAt = Date.parse(child?.attrs.get('started-at') ?? '')
  return id === '' || Number.isNaN(startedAt) ? undefined : { id, startedAt }
}
