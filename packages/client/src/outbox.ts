/**
 * What waits to be written: everything that is sent within one turn leaves as one write. Owner: one transport.
 *
 * Invariants:
 * 1. Each `done` is called once: when the operating system took the text over, or with the reason why not.
 * 2. Nothing throws, and nothing is written twice.
 */
import type { XmppSocket } from '@xmpp/client-core'
import { XmqError } from '@xmq/protocol'

/** Told when a stanza was written, or why not. */
export type Written = (error: XmqError | undefined) => void

/** Collects the writes of one turn. */
export class Outbox {
  readonly #framed: boolean
  readonly #socket: () => XmppSocket | null
  readonly #explain: (error: unknown) => XmqError
  #batch: { text: string[]; done: Written[] } | undefined

  /** @param socket where to write; `null` while the connection is down */
  constructor(framed: boolean, socket: () => XmppSocket | null, explain: (error: unknown) => XmqError) {
    this.#framed = framed
    this.#socket = socket
    this.#explain = explain
  }

  add(text: string, done: Written): void {
    if (this.#batch === undefined) {
      this.#batch = { text: [], done: [] }
      queueMicrotask(() => this.flush())
    }
    this.#batch.text.push(text)
    this.#batch.done.push(done)
  }

  /** Writes at once what waits. */
  flush(): void {
    const batch = this.#batch
    if (batch === undefined) return
    this.#batch = undefined
    const settle: Written = (error) => {
      for (const done of batch.done) done(error)
    }
    const socket = this.#socket()
    if (socket === null) {
      settle(connectionDown())
      return
    }
    const written = (error?: Error | null): void => {
      settle(error === undefined || error === null ? undefined : this.#explain(error))
    }
    try {
      if (!this.#framed) {
        socket.write(batch.text.join(''), written)
        return
      }
      const last = batch.text.length - 1
      batch.text.forEach((text, index) => socket.write(text, index === last ? written : undefined))
    } catch (error) {
      settle(this.#explain(error))
    }
  }
}

/** Why a stanza could not be written. */
export function connectionDown(): XmqError {
  return new XmqError('connection-lost', 'The connection is down.')
}
