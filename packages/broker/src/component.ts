/**
 * The link to the server for one queue domain: a component stream (XEP-0114) that is kept up. Owner: the runtime.
 *
 *   idle --start()--> trying --handshake--> up --problem--> down --pause--> trying …
 *                        \--problem--> down                     any --close(), a second broker--> closed
 *
 * Invariants:
 * 1. `#enter` alone changes the state, and emits `onStatus` each time.
 * 2. `onUp` and `onDown` alternate, `onUp` first. A try that failed shows in `onStatus` only.
 * 3. At most one stream and one retry timer exist, never both.
 * 4. `onFatal` is called at most once; after it the link is closed.
 * 5. While the link is not up, `send` drops the stanza and counts it: the core has had `link-down` and knows.
 */
import { XmqError, writeElement, utf8Length, type XmlElement } from '@xmq/protocol'
import { backoffDelay, longDelay } from './link/backoff.ts'
import { linkRules, type ComponentLinkOptions, type LinkInstance, type LinkRules } from './link/options.ts'
import { lost, type LinkProblem } from './link/problem.ts'
import { ComponentStream } from './link/stream.ts'
import { Watchdog } from './link/watchdog.ts'

export type { LinkClock } from './link/clock.ts'
export type { ComponentLinkOptions, LinkInstance } from './link/options.ts'

/** What the world may know of a link. */
export type LinkStatus =
  /** A try is under way, or `start()` was not called yet. */
  | { readonly state: 'connecting' }
  /** Stanzas flow. `since` in wall milliseconds; `hint` when the server's configuration does harm all the same. */
  | { readonly state: 'up'; readonly since: number; readonly hint?: string }
  /** The last try or stream ended; the next one starts at `retryAt` (wall milliseconds). `hint`: what to change where. */
  | { readonly state: 'down'; readonly reason: XmqError; readonly retryAt: number; readonly hint?: string }
  /** For good: by `close()`, or by the `reason` that `onFatal` was told. */
  | { readonly state: 'closed'; readonly reason?: XmqError }

/** What a link reports. A handler's throw is a bug and surfaces as an uncaught exception; the stream goes on. */
export interface ComponentLinkHandlers {
  onUp(): void
  /** The stream that was up ended: nothing is sent or received until `onUp`. */
  onDown(reason: XmqError): void
  /** A stanza with `from` and `to`, the content namespace normalised to `jabber:client`. */
  onStanza(stanza: XmlElement): void
  /** A stanza that broke a limit of the reader, or that `onChild` refused: its start tag, with `from` and `to`. */
  onSkipped(head: XmlElement, error: XmqError): void
  /**
   * A child of a stanza begins: what is returned refuses the stanza, which is skipped to its end and told by `onSkipped`
   * (`XmlStreamReader`).
   */
  onChild?(head: XmlElement, child: Pick<XmlElement, 'name' | 'ns'>): XmqError | undefined
  /** After the last stanza of each socket chunk, of so many bytes; what is sent in it still joins the chunk's one write. */
  onInputEnd?(bytes: number): void
  onStatus(status: LinkStatus): void
  /** Too much waits to be sent (or no more): stop claims and fan-out. Called inside `send`: set a flag, do no more. */
  onCongested?(congested: boolean): void
  /** Another broker serves the domain, and this one is to give up. The link is closed. */
  onFatal(error: XmqError): void
  /**
   * A stanza of the watchdog of another domain arrived: ejabberd registers every domain of its `hosts:` on each connection
   * unless `global_routes: false`. Hand it to that domain's link ({@link ComponentLink.receiveMisrouted}).
   */
  onMisrouted?(domain: string, stanza: XmlElement): void
}

/** Counters since `createComponentLink`, for metrics. */
export interface LinkCounters {
  readonly stanzasIn: number
  readonly stanzasOut: number
  readonly bytesIn: number
  readonly bytesOut: number
  /** Stanzas given to `send` that were not written: the link was not up, or its buffer was full. */
  readonly dropped: number
  /** Stanzas that came without `from` or `to`, and were not handed on. */
  readonly ignored: number
  /** Tries after the first one. */
  readonly reconnects: number
}

/** One queue domain's link. */
export interface ComponentLink extends AsyncDisposable {
  readonly domain: string
  readonly status: LinkStatus
  /** Bytes sent that the kernel has not taken: joined, or in Node's buffer. */
  readonly outboundBytes: number
  /** Whether `outboundBytes` rose above `congestedBytes` and has not fallen below half of it since. */
  readonly congested: boolean
  /** A copy of the counters. */
  readonly counters: LinkCounters
  /** Connects, and goes on connecting. Does nothing the second time. */
  start(): void
  /**
   * Sends a stanza: joined with others into one write for each input chunk, or for each turn outside of one. Dropped and
   * counted while the link is not up.
   * @throws XmqError `internal` when `from` or `to` is missing (the server would close the stream), `too-large`,
   *   `illegal-character`. Nothing is written then.
   */
  send(stanza: XmlElement): void
  /** How long a stanza takes from the server to us, by the last {@link probe}; longer while one is under way for longer. */
  readonly inputDelayMs: number
  /** Sends a ping through the server to this link itself, unless one is under way. */
  probe(): void
  /** The process did not run for a while: the ping that is under way measures nothing. */
  paused(): void
  /** Writes at once what waits to be joined. */
  flush(): void
  /** A watchdog's stanza of this domain that came in over another domain's link. */
  receiveMisrouted(stanza: XmlElement): void
  /**
   * Drains what is buffered, ends the stream and waits for the server's end, at most `closeTimeoutMs`. Stanzas that come in
   * meanwhile are read but not reported. Resolves when the socket is gone; safe to call again.
   */
  close(): Promise<void>
}

type State =
  | { readonly name: 'idle' }
  | { readonly name: 'trying'; readonly stream: ComponentStream }
  | { readonly name: 'up'; readonly stream: ComponentStream; readonly since: number; readonly hint?: string }
  | { readonly name: 'down'; readonly problem: LinkProblem; readonly retryAt: number; readonly cancel: () => void }
  | { readonly name: 'closed'; readonly reason?: XmqError }

/** Replaced again within so many long pauses: the two brokers take the domain from each other in turn. */
const REPLACED_PAUSES = 5

/**
 * A link to the server for one queue domain; `start()` connects it.
 * @throws XmqError `invalid-config` naming the option that is wrong
 */
export function createComponentLink(options: ComponentLinkOptions, handlers: ComponentLinkHandlers): ComponentLink {
  return new Link(linkRules(options), handlers)
}

class Link implements ComponentLink {
  readonly #rules: LinkRules
  readonly #handlers: ComponentLinkHandlers
  readonly #watchdog: Watchdog
  #state: State = { name: 'idle' }
  #closing: Promise<void> | undefined
  /** Failures in a row, for the backoff. */
  #failures = 0
  #everUp = false
  #conflictSince: number | undefined
  /** When a connection of ours was last replaced by another broker's (Prosody's `kick_old`). */
  #replacedAt = Number.NEGATIVE_INFINITY
  readonly #counts = { stanzasIn: 0, stanzasOut: 0, bytesIn: 0, dropped: 0, ignored: 0, tries: 0 }
  /** Bytes out on the streams before the present one. */
  #bytesOutBefore = 0

  constructor(rules: LinkRules, handlers: ComponentLinkHandlers) {
    this.#rules = rules
    this.#handlers = handlers
    this.#watchdog = new Watchdog({
      domain: rules.domain,
      instance: rules.instance,
      clock: rules.clock,
      intervalMs: rules.watchdogIntervalMs,
      timeoutMs: rules.watchdogTimeoutMs,
      send: (stanza) => this.send(stanza),
      onHalfDead: (silentMs) => this.#halfDead(silentMs),
      onSecond: (other) => this.#second(other),
      onMisrouted: (domain, stanza) => this.#misrouted(domain, stanza),
    })
  }

  get domain(): string {
    return this.#rules.domain
  }

  get status(): LinkStatus {
    return statusOf(this.#state)
  }

  get outboundBytes(): number {
    return this.#state.name === 'up' ? this.#state.stream.outbound.bytes : 0
  }

  get congested(): boolean {
    return this.#state.name === 'up' && this.#state.stream.outbound.congested
  }

  get counters(): LinkCounters {
    const { tries, ...counts } = this.#counts
    const bytesOut = this.#bytesOutBefore + (this.#state.name === 'up' ? this.#state.stream.outbound.bytesTotal : 0)
    return { ...counts, bytesOut, reconnects: Math.max(0, tries - 1) }
  }

  get inputDelayMs(): number {
    return this.#watchdog.delayMs
  }

  probe(): void {
    this.#watchdog.probe()
  }

  paused(): void {
    this.#watchdog.paused()
  }

  start(): void {
    if (this.#state.name === 'idle') this.#try()
  }

  send(stanza: XmlElement): void {
    if (!stanza.attrs.get('from') || !stanza.attrs.get('to')) {
      throw new XmqError('internal', `A <${stanza.name}> without from or to was to be sent: it would end the stream.`)
    }
    if (this.#state.name !== 'up') {
      this.#counts.dropped++
      return
    }
    const text = writeElement(stanza)
    const { stanzaBytesMax } = this.#rules
    // A UTF-16 unit is at most three bytes of UTF-8: most stanzas need no exact count.
    if (text.length * 3 > stanzaBytesMax && utf8Length(text) > stanzaBytesMax) {
      const what = `A <${stanza.name}> from ${stanza.attrs.get('from')} has ${utf8Length(text)} bytes, and a server closes`
      throw new XmqError('too-large', `${what} the stream above ${stanzaBytesMax} (stanzaBytesMax).`)
    }
    if (this.#state.stream.send(text)) this.#counts.stanzasOut++
    else this.#counts.dropped++
  }

  flush(): void {
    if (this.#state.name === 'up') this.#state.stream.flush()
  }

  receiveMisrouted(stanza: XmlElement): void {
    this.#watchdog.take(stanza)
  }

  close(): Promise<void> {
    this.#closing ??= this.#finish(undefined)
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** The only place that changes the state. */
  #enter(next: State): void {
    const before = this.#state
    if (before.name === 'down') before.cancel()
    this.#state = next
    this.#handlers.onStatus(statusOf(next))
  }

  #try(): void {
    this.#counts.tries++
    const stream: ComponentStream = new ComponentStream(this.#rules, {
      onUp: () => this.#up(stream),
      onStanza: (stanza) => this.#received(stanza),
      onSkipped: (head, error) => {
        if (!this.#addressed(head)) return
        this.#counts.stanzasIn++
        this.#handlers.onSkipped(head, error)
      },
      onChild: (head, child) => this.#handlers.onChild?.(head, child),
      onChunkEnd: (bytes) => this.#handlers.onInputEnd?.(bytes),
      onBytes: (count) => {
        this.#counts.bytesIn += count
      },
      onCongested: (congested) => this.#handlers.onCongested?.(congested),
      onEnd: (problem) => this.#down(problem),
    })
    this.#enter({ name: 'trying', stream })
  }

  #up(stream: ComponentStream): void {
    this.#everUp = true
    this.#conflictSince = undefined
    this.#enter({ name: 'up', stream, since: this.#rules.clock.now() })
    this.#handlers.onUp()
    if (this.#state.name === 'up') this.#watchdog.start()
  }

  #received(stanza: XmlElement): void {
    if (this.#watchdog.take(stanza)) return
    this.#watchdog.heard()
    if (!this.#addressed(stanza)) return
    this.#counts.stanzasIn++
    this.#handlers.onStanza(stanza)
  }

  /** Prosody answers a faulty stanza of ours with an error from nowhere; the core is promised both addresses. */
  #addressed(head: XmlElement): boolean {
    if (head.attrs.get('from') && head.attrs.get('to')) return true
    this.#counts.ignored++
    return false
  }

  /** The stream ended: plan the next try, or give up. */
  #down(problem: LinkProblem): void {
    const before = this.#state
    const now = this.#rules.clock.now()
    const wasUp = before.name === 'up'
    if (this.#isLost(problem, wasUp, now)) {
      this.#giveUp(
        new XmqError('conflict', `${problem.reason.message}. This broker gives up. ${problem.hint ?? ''}`.trim(), {
          cause: problem.reason,
        }),
      )
      return
    }
    if (wasUp) {
      this.#settle(before.stream)
      if (now - before.since >= this.#rules.stableAfterMs) this.#failures = 0
    }
    const delay = this.#pause(problem, now)
    this.#failures++
    const cancel = this.#rules.clock.after(delay, () => this.#try())
    this.#enter({ name: 'down', problem, retryAt: now + delay, cancel })
    if (wasUp) this.#handlers.onDown(problem.reason)
  }

  /** What a stream that was up leaves behind. */
  #settle(stream: ComponentStream): void {
    this.#watchdog.stop()
    if (stream.outbound.congested) this.#handlers.onCongested?.(false)
    this.#counts.dropped += stream.outbound.discard()
    this.#bytesOutBefore += stream.outbound.bytesTotal
  }

  /**
   * Whether another broker has the domain for good. A first connect may meet our own half-dead predecessor for a moment,
   * and one whose connection was replaced may itself replace the other once: then one of the two has to go.
   */
  #isLost(problem: LinkProblem, wasUp: boolean, now: number): boolean {
    if (problem.pace !== 'contested') {
      this.#conflictSince = undefined
      return false
    }
    if (wasUp) {
      const isAgain = now - this.#replacedAt < REPLACED_PAUSES * this.#rules.longPauseMs
      this.#replacedAt = now
      return isAgain
    }
    this.#conflictSince ??= now
    return !this.#everUp && now - this.#conflictSince >= this.#rules.conflictPatienceMs
  }

  #pause(problem: LinkProblem, now: number): number {
    const unit = this.#rules.random()
    if (problem.pace === 'later') return longDelay(this.#rules, unit)
    if (problem.pace === 'soon') return backoffDelay(this.#failures, this.#rules, unit)
    // Contested. Replaced, or it lasts: give the other one time. Else soon, and once more when the patience ends.
    const left = this.#conflictSince === undefined ? 0 : this.#conflictSince + this.#rules.conflictPatienceMs - now
    if (left <= 0) return longDelay(this.#rules, unit)
    return Math.min(left, Math.max(this.#rules.backoffMinMs, backoffDelay(this.#failures, this.#rules, unit)))
  }

  #halfDead(silentMs: number): void {
    if (this.#state.name !== 'up') return
    const { host, port, domain } = this.#rules
    this.#state.stream.abort(
      lost(
        'timeout',
        `The stream of ${domain} to ${host}:${port} is half-dead: no ping to itself came back in ${silentMs} ms`,
        'If this goes on, a dead connection may still hold the domain at the server: on ejabberd it takes its share of the ' +
          'stanzas until the server notices. Restarting the server, or its component listener, ends it.',
      ),
    )
  }

  #second(other: LinkInstance): void {
    const { domain, host, port, instance } = this.#rules
    const theirs = `instance ${other.id.slice(0, 80)}, started ${new Date(other.startedAt).toISOString()}`
    this.#giveUp(
      new XmqError(
        'conflict',
        `Another broker already serves ${domain} at ${host}:${port} (${theirs}; this one started ` +
          `${new Date(instance.startedAt).toISOString()}). This one gives up, since each would get only a part of the ` +
          'stanzas. Stop the other broker, or give one of the two other queue domains.',
      ),
    )
  }

  #misrouted(domain: string, stanza: XmlElement): void {
    const state = this.#state
    if (state.name === 'up' && state.hint === undefined) {
      const hint =
        `The server sends stanzas for ${domain} over the connection of ${this.#rules.domain}, so their order is not kept. ` +
        "ejabberd: set 'global_routes: false' at the listener with 'module: ejabberd_service', then reload it."
      this.#enter({ ...state, hint })
    }
    this.#handlers.onMisrouted?.(domain, stanza)
  }

  #giveUp(error: XmqError): void {
    this.#closing ??= this.#finish(error)
    this.#handlers.onFatal(error)
  }

  async #finish(reason: XmqError | undefined): Promise<void> {
    const before = this.#state
    const stream = before.name === 'up' || before.name === 'trying' ? before.stream : undefined
    // Starts the drain before the state says closed; the stream reports nothing from here on.
    const ended = stream?.close()
    if (before.name === 'up') this.#settle(before.stream)
    this.#enter(reason === undefined ? { name: 'closed' } : { name: 'closed', reason })
    if (before.name === 'up') {
      this.#handlers.onDown(reason ?? new XmqError('closed', `The link of ${this.#rules.domain} was closed`))
    }
    await ended
  }
}

function statusOf(state: State): LinkStatus {
  if (state.name === 'idle' || state.name === 'trying') return { state: 'connecting' }
  if (state.name === 'up') {
    return { state: 'up', since: state.since, ...(state.hint === undefined ? {} : { hint: state.hint }) }
  }
  if (state.name === 'down') {
    const { reason, hint } = state.problem
    return { state: 'down', reason, retryAt: state.retryAt, ...(hint === undefined ? {} : { hint }) }
  }
  return { state: 'closed', ...(state.reason === undefined ? {} : { reason: state.reason }) }
}
