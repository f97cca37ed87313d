/**
 * Owner of the question whether new work is taken, by what the runtime measures of its own load.
 *
 *     taking --one measure above its bound--> shedding --all of them below half of theirs--> taking
 *
 * | class | stanzas | while shedding |
 * |---|---|---|
 * | settle | answers, `<settle/>` | done |
 * | presence | presence | done |
 * | admin | `<browse/>`, `<dead-letters/>`, `<stats/>` | done |
 * | renew | `sub`, `del`, `<renew/>`, `<forget/>`, discovery, all else | done |
 * | publish | messages, `<publish/>`, requests | refused: `overloaded`, with a time that grows with the load |
 *
 * They are handled in this order from half of a bound on (intake.ts).
 *
 * A request is new work as a publish is: it takes a worker's time and an answer's way, and whoever sends it can wait.
 *
 * Invariants:
 * 1. Between a measure's bound and half of it nothing changes: no load makes it flicker.
 * 2. The refusal is made and written once for each measurement, however many stanzas it refuses; what the load is stands in the event.
 */
import { childElements, iqType, NS_QUEUE, NS_TOPIC, writeError, type XmlElement, XmqError } from '@xmq/protocol'
import type { Load, OverloadRules } from './port.ts'
import type { Step } from './step.ts'

/** So long a refused client is told to wait at most. */
const RETRY_SECONDS_MAX = 30
/** For so long of overload it is told to wait a second more. */
const RETRY_GROWS_MS = 5000

/** See the top of this file. */
export class Overload {
  readonly #rules: OverloadRules
  #since: number | undefined
  #refusal: XmqError | undefined
  /** The last one that was written. */
  #answer: { readonly error: XmqError; readonly encoded: XmlElement } | undefined
  #isPressed = false

  constructor(rules: OverloadRules) {
    this.#rules = rules
  }

  /** With what new work is refused now; undefined while it is taken. */
  get refusal(): XmqError | undefined {
    return this.#refusal
  }

  /** A refusal for the load as it is written: made once, and short. */
  answerOf(error: XmqError): XmlElement | undefined {
    if (error.code !== 'overloaded') return undefined
    if (this.#answer?.error !== error) this.#answer = { error, encoded: writeError(error) }
    return this.#answer.encoded
  }

  /** One measure is above half of its bound: what frees goes before what fills. */
  get isPressed(): boolean {
    return this.#isPressed
  }

  /** @throws XmqError while new work is refused */
  assertTaking(): void {
    if (this.#refusal !== undefined) throw this.#refusal
  }

  /** Takes a measurement. */
  measured(step: Step, load: Load): void {
    const { share, text } = heaviest(load, this.#rules)
    this.#isPressed = share >= 0.5
    const wasShedding = this.#since !== undefined
    const isShedding = share > 1 || (wasShedding && this.#isPressed)
    if (!isShedding) {
      this.#since = undefined
      this.#refusal = undefined
      if (wasShedding) step.emit({ name: 'overload', queue: '', isShedding, text: 'New work is taken again.' })
      return
    }
    this.#since ??= step.now
    const lasting = Math.floor((step.now - this.#since) / RETRY_GROWS_MS)
    const retryAfterSeconds = Math.min(RETRY_SECONDS_MAX, Math.max(1, Math.round(share)) + lasting)
    this.#refusal = new XmqError('overloaded', 'Too much to do. Try again later.', { retryAfterSeconds })
    if (!wasShedding) step.emit({ name: 'overload', queue: '', isShedding, text })
  }
}

function heaviest(load: Load, rules: OverloadRules): { readonly share: number; readonly text: string } {
  const measures = [
    { value: load.loopDelayMs, max: rules.loopDelayMsMax, what: 'its event loop is late by' },
    { value: load.inputDelayMs, max: rules.inputDelayMsMax, what: 'a stanza waits to be read for' },
    { value: load.commitMs, max: rules.commitMsMax, what: 'a message waits to be stored for' },
  ].map(({ value, max, what }) => ({ share: value / max, text: `${what} ${Math.round(value)} ms, at most ${max}` }))
  return measures.reduce((most, measure) => (measure.share > most.share ? measure : most))
}

/** See the top of this file; the first of them goes first. */
export const WORK_CLASSES = ['settle', 'presence', 'admin', 'renew', 'publish'] as const

export type WorkClass = (typeof WORK_CLASSES)[number]

const ADMIN: ReadonlySet<string> = new Set(['browse', 'dead-letters', 'stats'])

/** The class of a whole stanza. */
export function classOf(stanza: XmlElement): WorkClass {
  const children = childElements(stanza)
  if (children.some((child) => bringsWork(stanza, child))) return 'publish'
  if (stanza.name === 'presence') return 'presence'
  const type = stanza.name === 'iq' ? iqType(stanza) : undefined
  if (type !== 'get' && type !== 'set') return 'settle'
  const names = children.filter(({ ns }) => ns === NS_QUEUE).map(({ name }) => name)
  if (names.includes('settle')) return 'settle'
  return names.some((name) => ADMIN.has(name)) ? 'admin' : 'renew'
}

/**
 * Whether a stanza brings new work, as far as its start tag and one child's tell: the class `publish`. What its other children
 * say may still make it so.
 */
export function bringsWork(head: XmlElement, child: Pick<XmlElement, 'name' | 'ns'>): boolean {
  if (head.name === 'message') return head.attrs.get('type') !== 'error'
  if (head.name !== 'iq') return false
  const type = iqType(head)
  if (type !== 'get' && type !== 'set') return false
  return child.ns === NS_TOPIC ? child.name === 'xmq' : child.ns === NS_QUEUE && child.name === 'publish'
}
