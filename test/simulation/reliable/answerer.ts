/**
 * How a scripted worker treats requests: it answers, late or never, tells how far it is, refuses, or goes on when nobody waits any
 * more. Owner: the session whose worker it is.
 */
import { element, encodeError, findChild, stanza, type XmlElement, XmqError } from '@xmq/protocol'
import { withoutFailure } from '../foreign-error.ts'
import type { ClientHost } from './scripted.ts'

type Habit = 'result' | 'error' | 'failure' | 'refuses' | 'silent'

/** Whether an IQ is a request, and not something that the queue itself wants. */
export function isRequest(iq: XmlElement): boolean {
  return findChild(iq, 'xmq', 'xmq:topic') !== undefined
}

/** See the top of this file. */
export class Answerer {
  readonly #jid: string
  readonly #host: ClientHost
  readonly #isAlive: () => boolean
  #habit: Habit | undefined

  /** @param isAlive whether the session is */
  constructor(jid: string, host: ClientHost, isAlive: () => boolean) {
    this.#jid = jid
    this.#host = host
    this.#isAlive = isAlive
  }

  take(iq: XmlElement): void {
    const { random, isCalm, at, refuses } = this.#host
    this.#habit ??= refuses
      ? 'refuses'
      : random.pick(['result', 'result', 'result', 'error', 'failure', 'refuses', 'silent'])
    const xmq = findChild(iq, 'xmq', 'xmq:topic')
    const call = xmq === undefined ? undefined : findChild(xmq, 'call', 'xmq:queue:1')
    const isWanted = call?.attrs.get('progress') === 'true'
    if (isWanted || random.chance(0.05)) this.#tell(iq)
    at(isCalm() ? random.gap(100) : random.gap(random.chance(0.1) ? 6_000 : 400), () => {
      if (this.#isAlive()) this.#answer(iq, isCalm() ? 'result' : (this.#habit as Habit))
    })
  }

  /** News, in their order or not. */
  #tell(iq: XmlElement): void {
    const { random, send, at, queue } = this.#host
    for (let count = random.int(3); count > 0; count--) {
      const n = String(random.pick([1, 2, 2, 3]))
      const progress = element('progress', 'xmq:queue:1', { call: iq.attrs.get('id'), n }, [
        element('at', 'urn:x', { n }),
      ])
      at(random.gap(300), () => {
        if (this.#isAlive()) send(this.#jid, stanza('message', { type: 'headline', to: queue }, [progress]))
      })
    }
  }

  #answer(iq: XmlElement, habit: Habit): void {
    if (habit === 'silent') return
    const { id, send, queue } = this.#host
    const head = { id: iq.attrs.get('id'), to: queue }
    if (habit === 'result') {
      send(this.#jid, stanza('iq', { type: 'result', ...head }, [element('answer', 'urn:x', { n: id() })]))
      return
    }
    const code = habit === 'error' ? 'handler-failed' : 'unsupported'
    const error = encodeError(new XmqError(code, id()))
    const isTold = habit === 'failure'
    send(this.#jid, stanza('iq', { type: 'error', ...head }, [isTold ? error : withoutFailure(error)]))
  }
}
