/**
 * Who asks: any session, in either form, with a wish for news or without. Some cancel; some cancel what is not theirs.
 *
 * Owner: the cast.
 */
import { element, stanza } from '@xmq/protocol'
import type { ClientHost } from './scripted.ts'
import { TOPICS } from './items.ts'

/** So many of the last are cancelled now and then. */
const KEPT_MAX = 12

/** See the top of this file. */
export class Askers {
  readonly #host: ClientHost
  #asked: { readonly jid: string; readonly id: string }[] = []

  constructor(host: ClientHost) {
    this.#host = host
  }

  /** Somebody asks. @param jid whoever is bound to it */
  ask(jid: string): void {
    const { random, id, queue, send, at } = this.#host
    const topic = random.pick(TOPICS)
    const query = element('query', 'urn:x', { n: id() })
    const xmq = element('xmq', 'xmq:topic', { topic })
    const form = random.int(4)
    const call = form === 3 ? [element('call', 'xmq:queue:1', { progress: 'true', from: 'forged@localhost/x' })] : []
    const nested = element('xmq', 'xmq:topic', { topic }, [query, ...call])
    const children = form === 0 ? [query, xmq] : form === 1 ? [xmq, query] : [nested]
    const own = id()
    this.#asked.push({ jid, id: own })
    if (this.#asked.length > KEPT_MAX) this.#asked.shift()
    send(jid, stanza('iq', { type: random.pick(['get', 'set']), id: own, to: queue }, children))
    if (random.chance(0.15)) at(random.gap(300), () => this.#cancel(jid, own))
  }

  /** Somebody waits no more, or says so of what it never asked. @param other whoever meddles */
  cancel(other: string | undefined): void {
    const { random } = this.#host
    if (this.#asked.length === 0) return
    const { jid, id: call } = random.pick(this.#asked)
    this.#cancel(other !== undefined && random.chance(0.2) ? other : jid, call)
  }

  #cancel(from: string, call: string): void {
    const { id, queue, send } = this.#host
    send(from, stanza('iq', { type: 'set', id: id(), to: queue }, [element('cancel', 'xmq:queue:1', { call })]))
  }
}
