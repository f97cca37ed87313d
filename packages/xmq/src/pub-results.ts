/**
 * What becomes of each message that `xmq pub` sends. Owns the messages whose fate is not known yet.
 *
 * ```
 *  sent --returned--------------------------------------> refused
 *   `--written--+--a ping sent after it is answered-----> taken
 *               `--no answer, or the connection is lost-> unconfirmed
 * ```
 *
 * 1. Each message is told once, when its fate is known: streams are ordered, so a refusal comes before the ping's answer.
 * 2. At most one ping is under way; at most `PENDING_MAX` messages wait for one.
 */
import type { Client } from '@xmq/client'
import { XmqError } from '@xmq/protocol'
import { explain } from './exit.ts'

const PENDING_MAX = 1000

/** One message's end. */
export interface PubResult {
  readonly id: string
  /** Its line of stdin, from 1 on; 0 where it is no line. */
  readonly number: number
  /** Why it was refused, or is not known to be taken. */
  readonly error?: XmqError
}

/** What it needs of a client. */
type PubClient = Pick<Client, 'queue' | 'on' | 'ping'>

/** Follows what a client publishes. */
export class PubResults {
  readonly #client: PubClient
  readonly #timeoutMs: number
  readonly #tell: (result: PubResult) => void
  readonly #pending = new Map<string, { readonly number: number; isWritten: boolean }>()
  #settling: Promise<void> | undefined
  #sentCount = 0
  #failedCount = 0
  #first: PubResult | undefined
  #unanswered: XmqError | undefined

  constructor(client: PubClient, topic: string, timeoutMs: number, tell: (result: PubResult) => void) {
    this.#client = client
    this.#timeoutMs = timeoutMs
    this.#tell = tell
    client.on('returned', ({ id, error }) => this.#end(id, explain(error, client.queue, topic)))
    client.on('offline', ({ reason }) => this.#endWritten(reason))
  }

  /** How many messages were sent, and how many of them were refused or are not known to be taken. */
  get counts(): { readonly sent: number; readonly failed: number } {
    return { sent: this.#sentCount, failed: this.#failedCount }
  }

  /** Publishes one message, when there is room for it. */
  async send(id: string, number: number, publish: () => Promise<unknown>): Promise<void> {
    if (this.#pending.size >= PENDING_MAX) await this.#settling
    if (this.#unanswered !== undefined) throw this.#unanswered
    const message = { number, isWritten: false }
    this.#pending.set(id, message)
    this.#sentCount++
    try {
      await publish()
    } catch (error) {
      // It was not sent: whoever called is told.
      if (this.#pending.delete(id)) this.#sentCount--
      throw error
    }
    message.isWritten = true
    this.#settling ??= this.#settle()
  }

  /** Resolves when every message's fate is known, with the reason why not all were taken, if so. */
  async settled(): Promise<XmqError | undefined> {
    await this.#settling
    const first = this.#first
    const error = first?.error
    if (first === undefined || error === undefined) return this.#unanswered
    if (this.#unanswered !== undefined && error.code === 'unconfirmed') return this.#unanswered
    const { sent, failed } = this.counts
    const what = error.code === 'unconfirmed' ? 'not known to be taken' : 'refused'
    const who = sent === 1 ? `Message ${first.id} was ${what}` : `${failed} of ${sent} messages were ${what}`
    return new XmqError(error.code, `${who}: ${error.message}`, { cause: error, condition: error.condition })
  }

  /** Pings until nothing that was written is unsettled. */
  async #settle(): Promise<void> {
    for (let batch = this.#written(); batch.length > 0; batch = this.#written()) {
      try {
        await this.#client.ping({ timeout: this.#timeoutMs })
      } catch (error) {
        this.#unanswered = XmqError.from(error)
        this.#endWritten(this.#unanswered)
        break
      }
      for (const id of batch) this.#end(id)
    }
    this.#settling = undefined
  }

  #written(): readonly string[] {
    return [...this.#pending].filter(([, { isWritten }]) => isWritten).map(([id]) => id)
  }

  #endWritten(reason: XmqError): void {
    const text = `${reason.message} Whether the queue has taken it is not known.`
    for (const id of this.#written()) this.#end(id, new XmqError('unconfirmed', text, { cause: reason }))
  }

  #end(id: string, error?: XmqError): void {
    const message = this.#pending.get(id)
    if (message === undefined) return
    this.#pending.delete(id)
    const result: PubResult = { id, number: message.number, ...(error === undefined ? {} : { error }) }
    if (error !== undefined) {
      this.#failedCount++
      this.#first ??= result
    }
    this.#tell(result)
  }
}
