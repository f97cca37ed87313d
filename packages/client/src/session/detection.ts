/**
 * Finding out how a queue wants to be spoken to. Owner: one session. docs/protocol.md "Detection".
 *
 *     unknown --up--> asking --disco#info has xmq:queue:1--> reliable --another broker--> reliable, outdated: asking
 *                            --disco#info has xmq:topic--> plain
 *                            --not-acceptable "XMQ topic not found"--> mod_xmq
 *                            --no answer for a while--> asking once more
 *                            --anything else, silence--> pausing --pause over--> asking
 *
 * Invariants:
 * 1. A mode that was given is never asked for.
 * 2. `reliable` once found is kept for ever: nothing that happens makes it less. `plain` and `mod_xmq` are asked for again on
 *    each connection, since brokers replace them; a plain queue that does not say what it is is plain as before.
 * 3. One question at a time, repeated while it has no answer: a broker that dies takes questions with it, and nobody says so.
 *    With a growing pause after each that brought no mode.
 * 4. What a reliable queue said of itself is asked for anew when another broker serves it, until that one has said it. Meanwhile
 *    what was said before holds.
 */
import {
  childElements,
  decodeError,
  element,
  FEATURE_PACKED,
  findChild,
  NS_DATA_FORM,
  NS_DISCO_INFO,
  NS_QUEUE,
  NS_TOPIC,
  stanza,
  textOf,
  type XmlElement,
  XmqError,
} from '@xmq/protocol'
import type { Effect, Entropy, Mode, SessionRules } from './port.ts'
import type { Timers } from './timers.ts'

const RETRY_BASE_MS = 500
const RETRY_MAX_MS = 10_000
/** After this without an answer the question is repeated; each time after twice as long. */
const REPEAT_MS = 1000

/** The timer of the detection. */
export const DETECTION_TIMER = 'detection'

/** Asks a queue what it is until it says so. */
export class Detection {
  readonly #rules: SessionRules
  readonly #timers: Timers<string | number>
  #mode: Mode | undefined
  /** Of the question that is open, with its repetitions: each may be answered. */
  readonly #askIds = new Set<string>()
  #askedAt = 0
  #repeatMs = REPEAT_MS
  #failures = 0
  #hindrance: XmqError | undefined
  /** It was a plain queue over the connection before. */
  #wasPlain = false
  #epoch: string | undefined
  #durability: string | undefined
  #dedupeMs: number | undefined
  #packs = false
  /** Since when another broker serves the reliable queue than the one that described it. */
  #outdatedSince: number | undefined

  constructor(rules: SessionRules, timers: Timers<string | number>) {
    this.#rules = rules
    this.#timers = timers
    if (rules.mode !== 'auto') this.#mode = rules.mode
  }

  get mode(): Mode | undefined {
    return this.#mode
  }

  /** The broker's epoch, as its description told it. */
  get epoch(): string | undefined {
    return this.#epoch
  }

  /** How long the queue knows an id again, as its description told it last. */
  get dedupeMs(): number | undefined {
    return this.#dedupeMs
  }

  /** Since when what the queue told is that of an earlier broker, if it is. */
  get outdatedSince(): number | undefined {
    return this.#outdatedSince
  }

  /** Whether the queue takes packed items. */
  get packs(): boolean {
    return this.#packs
  }

  /** Whether the queue keeps nothing: a broker that is restarted knows nobody, and calls nobody. */
  get isForgetful(): boolean {
    return this.#durability === 'memory'
  }

  /** Why no mode is known yet. */
  get hindrance(): XmqError | undefined {
    return this.#hindrance
  }

  /** A connection is up: asks unless the mode is known. @returns whether it is */
  up(now: number, entropy: Entropy, out: Effect[]): boolean {
    if (this.#mode !== undefined) this.#wasPlain = this.#mode === 'plain'
    if (this.#rules.mode === 'auto' && this.#mode !== 'reliable') this.#mode = undefined
    if (this.#mode !== undefined) {
      if (this.#outdatedSince !== undefined) this.#ask(now, entropy, out)
      return true
    }
    this.#ask(now, entropy, out)
    return false
  }

  down(): void {
    this.#askIds.clear()
    this.#hindrance = undefined
    this.#timers.delete(DETECTION_TIMER)
  }

  /** The queue behaved unlike its mode: ask again, after a pause. @returns whether the mode is open now */
  doubt(reason: XmqError, now: number, entropy: Entropy, out: Effect[]): boolean {
    if (this.#rules.mode !== 'auto' || this.#mode === 'reliable') return false
    this.#mode = undefined
    this.#wasPlain = false
    this.#pause(reason, now, entropy, out)
    return true
  }

  /** Another broker serves the reliable queue: its settings may be others. */
  outdated(now: number, entropy: Entropy, out: Effect[]): void {
    if (this.#rules.mode !== 'auto') return
    this.#outdatedSince = now
    this.#askIds.clear()
    this.#ask(now, entropy, out)
  }

  /** The answer is overdue, or the pause over. @returns the mode, where it is taken to be that of before */
  timer(now: number, entropy: Entropy, out: Effect[]): Mode | undefined {
    if (this.#askIds.size === 0) {
      this.#ask(now, entropy, out)
      return undefined
    }
    if (now < this.#askedAt + this.#rules.answerTimeoutMs) {
      this.#send(now, entropy, out)
      return undefined
    }
    if (this.#outdatedSince !== undefined) {
      this.#pause(undefined, now, entropy, out)
      return undefined
    }
    if (this.#wasPlain) return this.#found('plain')
    const text = `${this.#rules.queue} did not answer within ${this.#rules.answerTimeoutMs} ms.`
    this.#pause(new XmqError('timeout', text), now, entropy, out)
    return undefined
  }

  isAsk(id: string): boolean {
    return this.#askIds.has(id)
  }

  /** The answer of the queue. @returns the mode, when it tells one that was not known */
  answered(
    iq: XmlElement,
    explain: (error: XmqError) => XmqError,
    now: number,
    entropy: Entropy,
    out: Effect[],
  ): Mode | undefined {
    const found = this.#modeOf(iq)
    if (this.#outdatedSince !== undefined) {
      if (found === 'reliable') this.#found(found)
      else this.#pause(undefined, now, entropy, out)
      return undefined
    }
    if (found instanceof XmqError) {
      if (this.#wasPlain) return this.#found('plain')
      this.#pause(explain(found), now, entropy, out)
      return undefined
    }
    return this.#found(found)
  }

  #found(mode: Mode): Mode {
    this.#mode = mode
    this.#askIds.clear()
    this.#failures = 0
    this.#outdatedSince = undefined
    this.#hindrance = undefined
    this.#timers.delete(DETECTION_TIMER)
    return mode
  }

  #modeOf(iq: XmlElement): Mode | XmqError {
    if (iq.attrs.get('type') === 'error') {
      const error = decodeError(iq)
      return error.code === 'topic-required' && !error.fromBroker ? 'mod_xmq' : error
    }
    const query = findChild(iq, 'query', NS_DISCO_INFO)
    const features = query === undefined ? [] : childElements(query).filter((child) => child.name === 'feature')
    const has = (name: string): boolean => features.some((feature) => feature.attrs.get('var') === name)
    if (query !== undefined && has(NS_QUEUE)) {
      this.#epoch = fieldIn(query, 'epoch')
      this.#durability = fieldIn(query, 'durability')
      const dedupeMs = Number(fieldIn(query, 'dedupe-ms') ?? 0)
      this.#dedupeMs = Number.isSafeInteger(dedupeMs) && dedupeMs > 0 ? dedupeMs : undefined
      this.#packs = has(FEATURE_PACKED)
      return 'reliable'
    }
    if (has(NS_TOPIC)) return 'plain'
    return new XmqError('unsupported', `${this.#rules.queue} answers, but it is no queue: it lacks '${NS_TOPIC}'.`)
  }

  #ask(now: number, entropy: Entropy, out: Effect[]): void {
    this.#askedAt = now
    this.#repeatMs = REPEAT_MS
    this.#send(now, entropy, out)
  }

  #send(now: number, entropy: Entropy, out: Effect[]): void {
    const id = entropy.id()
    this.#askIds.add(id)
    out.push({
      type: 'send',
      stanza: stanza('iq', { type: 'get', id, to: this.#rules.queue }, [element('query', NS_DISCO_INFO)]),
    })
    this.#timers.set(DETECTION_TIMER, Math.min(now + this.#repeatMs, this.#askedAt + this.#rules.answerTimeoutMs))
    this.#repeatMs *= 2
  }

  /** @param reason why no mode is known; `undefined`: one is */
  #pause(reason: XmqError | undefined, now: number, entropy: Entropy, out: Effect[]): void {
    this.#askIds.clear()
    this.#hindrance = reason
    const ceiling = Math.min(RETRY_MAX_MS, RETRY_BASE_MS * 2 ** Math.min(this.#failures, 10))
    this.#failures++
    const retryAt = now + (ceiling / 2) * (1 + entropy.unit())
    this.#timers.set(DETECTION_TIMER, retryAt)
    if (reason !== undefined) out.push({ type: 'event', event: { name: 'waiting', reason, retryAt } })
  }
}

/** A field of the queue's form (XEP-0128). */
function fieldIn(query: XmlElement, name: string): string | undefined {
  const form = findChild(query, 'x', NS_DATA_FORM)
  const field = form && childElements(form).find((child) => child.attrs.get('var') === name)
  const value = field && findChild(field, 'value', NS_DATA_FORM)
  const text = value && textOf(value)
  return text === '' ? undefined : text
}
